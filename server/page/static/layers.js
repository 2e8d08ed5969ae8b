// The feature maps of a network's layers, as it reads one image.

import { h } from "./dom.js";
import { t } from "./i18n.js";

/** Canvases that are there are drawn over, so that nothing flickers. */
export function drawLayers(parent, answer) {
  const { layers } = answer.layers;
  if (parent.querySelectorAll("canvas").length !== layers.length) {
    parent.replaceChildren(h("h2", {}, t("draw.layers", { model: answer.model })),
      ...layers.map(({ shape }) => row(shape)));
  }
  const rows = [...parent.querySelectorAll("figure")];
  layers.forEach((layer, i) => drawLayer(rows[i].querySelector("canvas"), layer));
}

function row({ name, maps, height, width }) {
  return h("figure", {}, h("figcaption", {}, h("b", {}, name), ` ${maps} × ${height}×${width}`),
    h("canvas", { role: "img", "aria-label": `${name}: ${maps} × ${height}×${width}` }));
}

// Maps side by side, in as many rows as keep the picture wide.
function drawLayer(canvas, { shape, pixels }) {
  const { maps, height, width } = shape;
  const isVector = height === 1 && width === 1;
  const gap = isVector ? 0 : 1;
  const perRow = isVector ? Math.min(maps, 60) : Math.min(maps, 8);
  const rows = Math.ceil(maps / perRow);
  canvas.width = perRow * (width + gap) - gap;
  canvas.height = rows * (height + gap) - gap;
  const bytes = Uint8Array.from(atob(pixels), (character) => character.charCodeAt(0));
  const context = canvas.getContext("2d");
  for (let map = 0; map < maps; map += 1) {
    const image = toImage(bytes.subarray(map * height * width, (map + 1) * height * width), shape);
    context.putImageData(image, (map % perRow) * (width + gap), Math.floor(map / perRow) * (height + gap));
  }
}

function toImage(bytes, { height, width }) {
  const image = new ImageData(width, height);
  bytes.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
  return image;
}
