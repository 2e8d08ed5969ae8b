// The networks of the catalog: as points, one by one, and the ideas that made them.

import { h, grouped, short } from "./dom.js";
import { depthStudy } from "./depth_study.js";
import { drawing } from "./drawing.js";
import { bottleneck } from "./bottleneck.js";
import { inception } from "./inception.js";
import { t } from "./i18n.js";
import { points } from "./points.js";

export async function showNetworks(view, { signal, argument }) {
  const catalog = await (await fetch("/page/catalog.json", { signal })).json();
  const { networks, depth } = catalog;
  const detail = h("section", { class: "network", "aria-live": "polite" });
  const select = h("select", { id: "network", onchange: () => choose(select.value) },
    networks.map(({ name, year }) => h("option", { value: name }, `${name} (${year})`)));
  const choose = (name) => {
    select.value = name;
    history.replaceState(null, "", `#/networks/${name}`);
    detail.replaceChildren(...describe(networks.find((it) => it.name === name)));
  };
  view.replaceChildren(
    h("div", { class: "intro" }, h("h1", {}, t("networks.title")), h("p", {}, t("networks.lead"))),
    points(networks, choose, signal),
    h("section", {}, h("div", { class: "field inline" },
      h("label", { for: "network" }, t("networks.choose")), select), detail),
    depthStudy(depth), bottleneck(), inception(networks));
  choose(networks.some(({ name }) => name === argument) ? argument : "lenet5");
}

function describe(network) {
  const facts = [
    ["networks.input", network.input.join("×")],
    ["networks.depth", network.depth],
    ["networks.parameters", grouped(network.parameters)],
    ["networks.macs", grouped(network.macs)],
    ["networks.top1", network.top1 === null ? "–" : `${network.top1} %`, network.top1_of],
  ];
  return [
    h("h2", {}, network.name),
    h("p", { class: "idea" }, t(`idea.${network.family}`)),
    h("p", { class: "muted", lang: "en" }, network.summary),
    h("p", { class: "muted", lang: "en" }, network.paper),
    h("p", { class: "muted", lang: "en" }, network.preparation),
    h("dl", { class: "facts" }, facts.map(([key, value, note]) =>
      h("div", {}, h("dt", {}, t(key)), h("dd", {}, String(value),
        note ? h("small", { class: "muted", lang: "en" }, ` ${note}`) : null)))),
    drawing(network),
    h("details", {}, h("summary", {}, t("networks.layers", { n: network.layers.length })),
      layerTable(network.layers)),
  ];
}

function layerTable(layers) {
  const heads = ["name", "kind", "kernel", "stride", "output", "parameters", "macs"];
  const rows = layers.map(([name, kind, kernel, stride, output, parameters, macs]) =>
    [name, kind, kernel, stride || "", output.join("×"), grouped(parameters), short(macs)]);
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("networks.table") },
    h("table", {},
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, t(`layer.${head}`))))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, String(cell))))))));
}
