// One network's answer: its bars, what it saw, what served it, and how long that took.

import { h, milliseconds, nextId, percent } from "./dom.js";
import { drawSeen } from "./heatmap.js";
import { t } from "./i18n.js";
import { isUnfamiliar } from "./models.js";

/** `picture` is an ImageBitmap of the upright image, or null where the browser cannot read it. */
export function resultCard(answer, picture) {
  const best = answer.classes[0];
  return h("article", { class: "card result", "aria-label": answer.model },
    h("header", {}, h("h3", {}, answer.model), h("span", { class: "muted" }, `v${answer.version}`)),
    answer.served.weights === "random" ? h("p", { class: "shout" }, t("result.random")) : null,
    best ? h("p", { class: "best" }, h("b", {}, best.label), h("span", {}, percent(best.score)))
      : h("p", { class: "muted" }, t("result.none")),
    unfamiliar(answer),
    evidence(answer, picture),
    stages(answer.timing),
    servedBy(answer),
    asJson(answer));
}

function unfamiliar(answer) {
  if (!isUnfamiliar(answer)) return null;
  return h("p", { class: "warn" }, h("strong", {}, t("result.unfamiliar")), " ",
    t("result.unfamiliar.why"));
}

// The bars choose whose map lies over the picture.
function evidence(answer, picture) {
  const maps = answer.heatmap?.maps ?? [];
  const canvas = h("canvas", { class: "seen", role: "img", "aria-label": t("result.seen") });
  const state = { strength: 0.6, map: maps[0] ?? null };
  const draw = () => drawSeen(canvas, answer, picture, state.map, state.strength);
  const rows = answer.classes.map((it) => {
    const map = maps.find(({ index }) => index === it.index);
    const choose = () => {
      state.map = map;
      for (const row of rows) row.setAttribute("aria-pressed", String(row === button));
      draw();
    };
    const button = bar(it, map ? choose : null, map && map === state.map);
    return button;
  });
  draw();
  return [
    h("div", { class: hasShortLabels(answer) ? "bars short" : "bars" }, rows),
    h("figure", {}, canvas, h("figcaption", { class: "muted" }, caption(answer))),
    maps.length ? slider(state, draw) : null,
  ];
}

function hasShortLabels({ classes }) {
  return classes.every(({ label }) => label.length < 4);
}

function bar({ label, score }, choose, isChosen) {
  const inside = [
    h("span", { class: "label" }, label),
    h("span", { class: "track" }, h("span", { class: "fill", style: { width: `${score * 100}%` } })),
    h("span", { class: "score" }, percent(score)),
  ];
  if (!choose) return h("div", { class: "bar" }, inside);
  return h("button", { class: "bar", type: "button", "aria-pressed": String(isChosen), onclick: choose },
    inside);
}

function caption(answer) {
  const key = answer.heatmap ? `result.${answer.heatmap.method}` : "result.input";
  return t(key, { n: answer.heatmap?.passes ?? 1 });
}

function slider(state, draw) {
  const id = nextId();
  const move = (event) => {
    state.strength = Number(event.target.value) / 100;
    draw();
  };
  return h("div", { class: "slider" }, h("label", { for: id }, t("result.heatmap")),
    h("input", { id, type: "range", min: 0, max: 100, value: state.strength * 100, oninput: move }));
}

function stages(timing) {
  const parts = [
    ["decode", timing.decode_us],
    ["preprocess", timing.preprocess_us],
    ["infer", timing.infer_us],
  ];
  const total = Math.max(timing.total_us, 1);
  return h("div", { class: "stages" },
    h("div", { class: "stack", "aria-hidden": "true" }, parts.map(([name, us]) =>
      h("span", { class: name, style: { width: `${(us / total) * 100}%` } }))),
    h("p", { class: "legend" }, parts.map(([name, us]) =>
      h("span", { class: name }, `${t(`stage.${name}`)} ${milliseconds(us)}`)),
    h("span", { class: "total" }, `${t("stage.total")} ${milliseconds(timing.total_us)}`)));
}

function servedBy({ served }) {
  const facts = [served.runtime, served.precision, served.device.toUpperCase(),
    t("result.weights", { weights: served.weights })];
  return h("p", { class: "served muted" }, facts.join(" · "), h("br"),
    h("code", { title: served.manifest_digest }, served.manifest_digest.slice(0, 12)));
}

function asJson(answer) {
  const text = h("pre", { tabindex: "0" });
  const show = () => { text.textContent = JSON.stringify(answer, null, 1); };
  return h("details", { class: "json", ontoggle: show }, h("summary", {}, "JSON"), text);
}
