// The visitor's key, for this tab alone, and what is asked of the gateway with it.

import { Client, ConvoyError } from "./convoy.js";
import { h, nextId } from "./dom.js";
import { t } from "./i18n.js";

const STORED = "convoy.key";

export function key() {
  return sessionStorage.getItem(STORED) ?? "";
}

export function client() {
  return new Client("", { key: key() });
}

let asking = null;

/** Calls `ask(client)`; where a key is missing, asks for one and tries again. */
export async function withKey(ask) {
  for (;;) {
    try {
      return await ask(client());
    } catch (error) {
      if (!(error instanceof ConvoyError) || error.reason !== "AUTH_REQUIRED") throw error;
      asking ??= askForKey(key() !== "").finally(() => { asking = null; });
      if (!(await asking)) throw error;
    }
  }
}

function askForKey(wasRefused) {
  const id = nextId();
  const input = h("input", { id, type: "password", autocomplete: "off", required: true });
  const form = h("form", { method: "dialog" },
    h("h2", {}, t("key.title")),
    h("p", { class: wasRefused ? "error" : "" }, t(wasRefused ? "key.refused" : "key.why")),
    h("label", { for: id }, t("key.label")), input,
    h("div", { class: "row" },
      h("button", { class: "primary", value: "use" }, t("key.use")),
      h("button", { value: "", formnovalidate: true }, t("key.cancel"))));
  const dialog = h("dialog", { "aria-label": t("key.title") }, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "use" && input.value.trim();
      if (given) sessionStorage.setItem(STORED, given);
      dialog.remove();
      resolve(Boolean(given));
    });
  });
}
