// The HTTP API, made from its OpenAPI document.

import { h } from "./dom.js";
import { t } from "./i18n.js";

export async function showApi(view, { signal }) {
  const document_ = await (await fetch("/openapi.json", { signal })).json();
  const operations = Object.entries(document_.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, it]) => operation(document_, method, path, it)));
  const schemas = Object.entries(document_.components.schemas).map(([name, it]) => schema(name, it));
  view.replaceChildren(
    h("div", { class: "intro" }, h("h1", {}, t("api.title")),
      h("p", {}, t("api.lead"), " ", h("a", { href: "#/classify" }, t("api.try"))),
      h("p", { lang: "en" }, prose(document_.info.description)),
      h("p", {}, h("a", { href: "/openapi.json" }, "/openapi.json"), " · OpenAPI ", document_.openapi)),
    h("h2", {}, t("api.requests")), h("div", { class: "operations" }, operations),
    h("h2", {}, t("api.messages")), h("div", { class: "operations" }, schemas));
}

// Links to messages: the hash is the view's, so they scroll by themselves.
function link(name) {
  const go = () => {
    const target = document.getElementById(`message-${name}`);
    target.open = true;
    target.scrollIntoView();
    target.querySelector("summary").focus();
  };
  return h("button", { type: "button", class: "link", onclick: go }, name);
}

function operation(document_, method, path, it) {
  const parameters = (it.parameters ?? []).map((listed) => resolve(document_, listed));
  return h("details", { class: "operation" },
    h("summary", {}, h("code", {}, h("b", {}, method.toUpperCase()), ` ${path}`), h("span", { lang: "en" }, it.summary)),
    h("div", { lang: "en" }, says(it) ? h("p", {}, prose(it.description)) : null,
      table(t("api.parameters"), parameters.map((parameter) =>
        [h("code", {}, parameter.name), type(parameter.schema), prose(parameter.description ?? "")])),
      table(t("api.body"), Object.entries(it.requestBody?.content ?? {}).map(([media, content]) =>
        [h("code", {}, media), type(content.schema), ""])),
      table(t("api.responses"), Object.entries(it.responses).map(([status, response]) =>
        [h("code", {}, status), type(Object.values(response.content)[0].schema), prose(response.description)]))));
}

// Some descriptions say no more than the summary above them.
function says({ summary, description }) {
  return description && description !== `${summary}.`;
}

function resolve(document_, listed) {
  return listed.$ref ? document_.components.parameters[listed.$ref.split("/").at(-1)] : listed;
}

function schema(name, it) {
  const rows = Object.entries(it.properties ?? {}).map(([field, inner]) =>
    [h("code", {}, field), type(inner), prose(inner.description ?? "")]);
  const names = (it.enum ?? Object.keys(it.properties ?? {})).join(", ");
  const what = it.enum ? names : it.description?.split(/\.(?:\s|$)/)[0] ?? names;
  return h("details", { class: "operation", id: `message-${name}` },
    h("summary", {}, h("code", {}, name), h("span", { lang: "en" }, prose(what))),
    h("div", { lang: "en" }, it.description ? h("p", {}, prose(it.description)) : null, table("", rows)));
}

function table(title, rows) {
  if (!rows.length) return null;
  return [title ? h("h3", {}, title) : null,
    h("table", { class: "fields" }, h("tbody", {}, rows.map((row) =>
      h("tr", {}, row.map((cell) => h("td", {}, cell))))))];
}

function type(it) {
  if (it.$ref) return link(it.$ref.split("/").at(-1));
  if (it.type === "array" && it.items) return h("span", {}, t("api.list"), " ", type(it.items));
  const kind = Array.isArray(it.type) ? it.type.join(" | ") : it.type;
  return h("span", {}, it.contentEncoding ?? it.format ?? kind ?? "");
}

// Paragraphs, and `code` as in the document's Markdown.
function prose(text) {
  return text.split("`").map((part, i) => (i % 2 ? h("code", {}, part) : part));
}
