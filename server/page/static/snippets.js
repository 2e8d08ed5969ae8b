// The same request as a command or a program, to copy.

import { h } from "./dom.js";
import { t } from "./i18n.js";
import { key } from "./session.js";

const LANGUAGES = { curl, Python: python, JavaScript: javascript };

export function snippets(model, fileName) {
  const code = h("pre", { tabindex: "0" });
  const copied = h("span", { class: "muted", role: "status" });
  // Without TLS a page from another machine may not write to the clipboard.
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      copied.textContent = t("snippets.copied");
    } catch {
      getSelection().selectAllChildren(code);
      copied.textContent = t("snippets.selected");
    }
  };
  const show = (name) => {
    code.textContent = LANGUAGES[name](model, fileName.replace(/[^\w.-]/g, "_"), key() !== "");
    copied.textContent = "";
    for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.textContent === name));
  };
  const tabs = Object.keys(LANGUAGES).map((name) =>
    h("button", { type: "button", onclick: () => show(name) }, name));
  show("curl");
  return h("details", { class: "snippets" }, h("summary", {}, t("snippets.title")),
    h("div", { class: "row" }, tabs, h("button", { type: "button", class: "copy", onclick: copy }, t("snippets.copy")),
      copied),
    code);
}

function curl(model, file, hasKey) {
  const header = hasKey ? ` \\\n  -H "authorization: Bearer $CONVOY_API_KEY"` : "";
  return `curl --data-binary @${file}${header} \\\n  '${location.origin}/v1/models/${model}:classify'`;
}

function python(model, file, hasKey) {
  const key = hasKey ? "  # reads CONVOY_API_KEY" : "";
  return `from convoy import Client

with Client("${location.origin}") as client:${key}
    answer = client.classify("${file}", model="${model}")
    print(answer.best.label, answer.best.score)`;
}

function javascript(model, file, hasKey) {
  const options = hasKey ? ", { key: process.env.CONVOY_API_KEY }" : "";
  return `import { readFile } from "node:fs/promises";
import { Client } from "./convoy.js";

const client = new Client("${location.origin}"${options});
const answer = await client.classify(await readFile("${file}"), { model: "${model}" });
console.log(answer.classes[0].label, answer.classes[0].score);`;
}
