// All networks as points: multiplications across, accuracy or measured latency upward, size as area.

import { HEIGHT, WIDTH, across, frame, powers, upward } from "./axes.js";
import { placeLabels } from "./labels.js";
import { h, short, svg } from "./dom.js";
import { errorBox } from "./errors.js";
import { t } from "./i18n.js";
import { measure } from "./latency.js";

const DATA_SETS = {
  imagenet: ({ top1, input }) => top1 !== null && input[1] > 200,
  digits: ({ top1, input }) => top1 !== null && input[0] === 1,
};
const MAX_RADIUS = 15;

export function points(networks, choose, signal) {
  const state = { set: "imagenet", latencies: null };
  const plot = h("div", { class: "plot", tabindex: "0", role: "region", "aria-label": t("points.title") });
  const notice = h("div");
  const draw = () => plot.replaceChildren(render(networks, state, choose));
  const tab = (set) => h("button", { type: "button", "aria-pressed": String(set === state.set), onclick: () => {
    Object.assign(state, { set, latencies: null });
    for (const other of tabs) other.setAttribute("aria-pressed", String(other === tabs[set === "imagenet" ? 0 : 1]));
    draw();
  } }, t(`points.${set}`));
  const tabs = Object.keys(DATA_SETS).map(tab);
  const progress = h("progress", { max: 1, value: 0, hidden: true, "aria-label": t("points.measure") });
  const start = async () => {
    notice.replaceChildren();
    progress.hidden = false;
    try {
      const measured = await measure((share) => { progress.value = share; }, signal);
      const shown = networks.filter(DATA_SETS[state.set]).some(({ name }) => measured.has(name));
      state.latencies = shown ? measured : null;
      if (!shown) notice.replaceChildren(h("p", { class: "muted" }, t("points.none")));
      draw();
    } catch (error) {
      if (error.name !== "AbortError") notice.replaceChildren(errorBox(error));
    }
    progress.hidden = true;
  };
  draw();
  return h("section", { class: "card" }, h("h2", {}, t("points.title")),
    h("div", { class: "row" }, tabs,
      h("button", { type: "button", onclick: start }, t("points.measure")), progress),
    notice, plot, h("p", { class: "muted" }, t("points.caption")));
}

function render(networks, { set, latencies }, choose) {
  const shown = networks.filter(DATA_SETS[set]).filter(({ name }) => !latencies || latencies.has(name));
  const height = ({ name, top1 }) => (latencies ? latencies.get(name) : top1);
  const domain = widened(shown.map(({ macs }) => macs), 1.6);
  const heights = shown.map(height);
  const step = latencies ? niceStep(Math.max(...heights)) : set === "imagenet" ? 5 : 1;
  const yDomain = [
    latencies ? 0 : Math.floor(Math.min(...heights) / step - 0.2) * step,
    Math.ceil(Math.max(...heights) / step + 0.4) * step,
  ];
  const [x, y] = [across(domain, true), upward(yDomain)];
  const most = Math.max(...shown.map(({ parameters }) => parameters));
  const count = Math.round((yDomain[1] - yDomain[0]) / step);
  const yTicks = Array.from({ length: count + 1 }, (_, i) => yDomain[0] + i * step);
  const marks = shown.map((network) =>
    mark(network, x(network.macs), y(height(network)), MAX_RADIUS * Math.sqrt(network.parameters / most), choose));
  placeLabels(marks);
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-label": t("points.title"), role: "group" },
    frame({ x, y, xLabel: t("points.x"), yLabel: t(latencies ? "points.latency" : "points.top1"),
      xTicks: powers(domain).map((value) => [value, short(value)]),
      yTicks: yTicks.map((value) => [value, String(Number(value.toPrecision(4)))]) }),
    marks.map(({ group }) => group));
}

// 1, 2 or 5 times a power of ten: about five of them.
function niceStep(most) {
  const power = 10 ** Math.floor(Math.log10(most / 5));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= most / 5);
}

function widened(values, factor) {
  return [Math.min(...values) / factor, Math.max(...values) * factor];
}

function mark({ name, parameters }, x, y, radius, choose) {
  const pick = (event) => {
    if (event.type === "keydown" && event.key !== "Enter") return;
    choose(name);
    document.querySelector(".network").scrollIntoView({ block: "start" });
  };
  const r = Math.max(4, radius);
  const label = svg("text", { "text-anchor": "middle" }, name);
  const leader = svg("line", { class: "leader" });
  const group = svg("g", { tabindex: "0", role: "button", class: "mark", onclick: pick, onkeydown: pick,
    "aria-label": `${name}, ${short(parameters)}` }, leader, svg("circle", { cx: x, cy: y, r, class: "dot" }), label);
  return { group, label, leader, x, y, r, width: name.length * 7 };
}
