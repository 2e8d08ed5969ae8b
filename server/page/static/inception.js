// The branches of an Inception module, and the channels that each adds.

import { h } from "./dom.js";
import { t } from "./i18n.js";

export function inception(networks) {
  const modules = networks.filter(({ modules: it }) => it.length)
    .flatMap((network) => network.modules.map((module) =>
      ({ ...module, network: network.name, kernels: kernels(network, module) })));
  const shown = h("div", { class: "module" });
  const show = (i) => shown.replaceChildren(...draw(modules[i]));
  const select = h("select", { id: "module", onchange: () => show(Number(select.value)) },
    modules.map(({ name, network }, i) => h("option", { value: i }, `${network} · ${name}`)));
  show(0);
  return h("section", { class: "card" }, h("h2", {}, t("inception.title")), h("p", {}, t("inception.lead")),
    h("div", { class: "field inline" }, h("label", { for: "module" }, t("inception.choose")), select), shown);
}

// Of the convolutions, branch by branch: a module's layers have its name.
function kernels({ layers }, { name, branches }) {
  const all = layers.filter(([layer, kind]) => kind === "convolution" && layer.startsWith(`${name}.branch`))
    .map(([, , kernel]) => kernel);
  return branches.map((counts) => all.splice(0, counts.length));
}

function draw({ branches, output, kernels: sizes }) {
  const [channels, height, width] = output;
  const most = Math.max(...branches.flat());
  const rows = branches.map((counts, i) => h("div", { class: `branch b${i % 4}` },
    counts.map((count, place) => [
      place ? h("span", { class: "arrow", "aria-hidden": "true" }, "→") : null,
      h("span", { class: "conv", style: { "flex-basis": `${4 + (36 * count) / most}%` } },
        h("small", {}, sizes[i][place]), String(count)),
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
