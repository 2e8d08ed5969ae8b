// What a 1×1 convolution before a larger one saves, worked out.

import { grouped, h, nextId, short } from "./dom.js";
import { t } from "./i18n.js";

// GoogLeNet's module 3a: 28×28×192 to 32 maps of 5×5, by way of 16.
const SLIDERS = {
  side: { min: 7, max: 56, value: 28 },
  input: { min: 16, max: 512, value: 192 },
  reduced: { min: 4, max: 256, value: 16 },
  output: { min: 8, max: 256, value: 32 },
  kernel: { min: 3, max: 7, step: 2, value: 5 },
};

export function costs({ side, input, reduced, output, kernel }) {
  const positions = side * side;
  const patch = kernel * kernel;
  return {
    direct: positions * patch * input * output,
    first: positions * input * reduced,
    second: positions * patch * reduced * output,
  };
}

export function bottleneck() {
  const values = Object.fromEntries(Object.entries(SLIDERS).map(([name, { value }]) => [name, value]));
  const result = h("div", { class: "worked", role: "status" });
  const show = () => result.replaceChildren(...work(values, costs(values)));
  const fields = Object.entries(SLIDERS).map(([name, range]) => {
    const id = nextId();
    const output = h("output", { for: id }, String(range.value));
    const move = (event) => {
      values[name] = Number(event.target.value);
      output.textContent = event.target.value;
      show();
    };
    return h("div", { class: "field" }, h("label", { for: id }, t(`bottleneck.${name}`), " ", output),
      h("input", { id, type: "range", ...range, oninput: move }));
  });
  show();
  return h("section", { class: "card" }, h("h2", {}, t("bottleneck.title")),
    h("p", {}, t("bottleneck.lead")), h("div", { class: "filters" }, fields), result);
}

function work({ side, input, reduced, output, kernel }, { direct, first, second }) {
  const through = first + second;
  const most = Math.max(direct, through);
  const line = (key, sum, count) => h("div", { class: "sum" },
    h("span", {}, t(key)), h("code", {}, sum), h("b", { title: grouped(count) }, short(count)),
    h("span", { class: "track" }, h("span", { class: "fill", style: { width: `${(count / most) * 100}%` } })));
  return [
    line("bottleneck.direct", `${side}²·${kernel}²·${input}·${output}`, direct),
    line("bottleneck.through", `${side}²·(${input}·${reduced} + ${kernel}²·${reduced}·${output})`, through),
    h("p", {}, t("bottleneck.saving", { factor: (direct / through).toFixed(1) })),
  ];
}
