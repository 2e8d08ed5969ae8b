// Send the chosen image as the raw body, and show the command that does the same.
"use strict";

const form = document.getElementById("try");
const command = document.getElementById("command");
const answer = document.getElementById("answer");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { image, model, top_k, key } = form.elements;
  const path = `/v1/models/${encodeURIComponent(model.value)}:classify?top_k=${top_k.value}`;
  const headers = key.value ? { authorization: `Bearer ${key.value}` } : {};
  showCommand(image.files[0].name, path, key.value);
  answer.textContent = "…";
  try {
    const response = await fetch(path, { method: "POST", body: image.files[0], headers });
    show(await response.json());
  } catch (error) {
    answer.textContent = String(error);
  }
});

function showCommand(file, path, hasKey) {
  const key = hasKey ? " -H 'authorization: Bearer KEY'" : "";
  command.textContent = `curl --data-binary '@${file}'${key} '${location.origin}${path}'`;
  command.hidden = false;
}

function show(body) {
  answer.replaceChildren();
  if (body.detail) {
    add(answer, "p", `${body.status} ${body.reason}: ${body.detail}`).className = "error";
  } else {
    const table = add(answer, "table", "");
    body.classes.forEach((answer) => addRow(table, answer));
    if (body.served.weights === "random") {
      add(answer, "p", "The weights are random: the answer is meaningless.").className = "error";
    }
  }
  const details = add(answer, "details", "");
  add(details, "summary", "JSON");
  add(details, "pre", JSON.stringify(body, null, 2));
}

function addRow(table, answer) {
  const row = table.insertRow();
  row.insertCell().textContent = answer.label;
  row.insertCell().textContent = answer.score.toFixed(4);
  const meter = add(row.insertCell(), "meter", "");
  meter.value = answer.score;
}

function add(parent, tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return parent.appendChild(element);
}
