// The branches of an Inception module, and the channels that each adds.

import { h } from "./dom.js";
import { t } from "./i18n.js";

export function inception(networks) {
  const modules = networks.filter(({ modules: it }) => it.length)
    .flatMap(({ name, modules: it }) => it.map((module) => ({ ...module, network: name })));
  const shown = h("div", { class: "module" });
  const show = (i) => shown.replaceChildren(...draw(modules[i]));
  const select = h("select", { id: "module", onchange: () => show(Number(select.value)) },
    modules.map(({ name, network }, i) => h("option", { value: i }, `${network} · ${name}`)));
  show(0);
  return h("section", { class: "card" }, h("h2", {}, t("inception.title")), h("p", {}, t("inception.lead")),
    h("div", { class: "field inline" }, h("label", { for: "module" }, t("inception.choose")), select), shown);
}

function draw({ branches, output }) {
  const [channels, height, width] = output;
  const most = Math.max(...branches.flat());
  const rows = branches.map((counts, i) => h("div", { class: `branch b${i % 4}` },
    counts.map((count, place) => [
      place ? h("span", { class: "arrow", "aria-hidden": "true" }, "→") : null,
      h("span", { class: "conv", style: { "flex-basis": `${8 + (40 * count) / most}%` } }, String(count)),
    ])));
  const ends = branches.map((counts) => counts.at(-1));
  const sum = ends.reduce((total, count) => total + count, 0);
  const rest = channels - sum; // a pool that passes its input on, as where the maps get smaller
  const parts = rest > 0 ? [...ends, rest] : ends;
  return [
    ...rows,
    h("p", { class: "muted" }, t("inception.joined", { sum: parts.join(" + "), channels, height, width })),
    h("div", { class: "joined", "aria-hidden": "true" }, parts.map((count, i) =>
      h("span", { class: `b${i % 4}`, style: { "flex-grow": String(count) } }, String(count)))),
  ];
}
