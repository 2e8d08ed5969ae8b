// A network's layers to scale: height is that of the maps, width the number of channels.

import { h, svg, short } from "./dom.js";
import { t } from "./i18n.js";

const HEIGHT = 180;
const WIDTH = 1000; // of all channels together, unless the thinnest layers need more
const GAP = 2;
const KINDS = {
  convolution: "conv", linear: "linear", "max pool": "pool", "average pool": "pool",
  "sub-sampling": "pool", "response norm": "norm", distances: "linear",
};

export function drawing({ name, input, layers }) {
  const shapes = [["input", "", "", 0, input, 0, 0], ...layers];
  const channels = shapes.reduce((sum, [, , , , [count]]) => sum + count, 0);
  const perChannel = WIDTH / channels;
  const perPixel = HEIGHT / input[1];
  let x = 0;
  const boxes = shapes.map((layer) => {
    const [count, height = 1] = layer[4];
    const box = { x, width: Math.max(3, count * perChannel), height: Math.max(3, height * perPixel) };
    x += box.width + GAP;
    return rectangle(layer, box);
  });
  const picture = svg("svg", { viewBox: `0 0 ${x} ${HEIGHT}`, width: x, height: HEIGHT, role: "img",
    "aria-label": t("drawing.label", { name }) }, boxes);
  const there = new Set(layers.map(([, kind]) => KINDS[kind]));
  const legend = ["conv", "pool", "norm", "linear"].filter((kind) => there.has(kind)).map((kind) =>
    h("span", { class: `swatch ${kind}` }, t(`kind.${kind}`)));
  return h("figure", { class: "drawing" },
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("drawing.label", { name }) },
      picture),
    h("figcaption", { class: "legend" }, legend, h("span", { class: "muted" }, t("drawing.scale"))));
}

function rectangle([name, kind, kernel, , output, parameters, macs], { x, width, height }) {
  const title = [name, kind, kernel, output.join("×"), `${short(parameters)} / ${short(macs)}`];
  return svg("rect", { x, y: (HEIGHT - height) / 2, width, height, class: KINDS[kind] ?? "input" },
    svg("title", {}, title.filter(Boolean).join(" · ")));
}
