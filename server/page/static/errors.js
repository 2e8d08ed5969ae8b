// Errors for people.

import { ConvoyError } from "./convoy.js";
import { h } from "./dom.js";
import { t } from "./i18n.js";

export function errorBox(error) {
  if (error instanceof ConvoyError) {
    return h("div", { class: "error-box", role: "alert" },
      h("p", { class: "sentence" }, error.message),
      error.retryAfter !== null ? h("p", {}, t("error.retry", { s: error.retryAfter })) : null,
      h("p", {}, h("code", {}, error.reason || String(error.status))));
  }
  const text = error.name === "Unreachable" ? t("error.unreachable") : String(error);
  return h("div", { class: "error-box", role: "alert" }, h("p", {}, text));
}
