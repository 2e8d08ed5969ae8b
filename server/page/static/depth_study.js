// Plain against residual: errors on the training set, epoch by epoch (docs/depth.md).

import { HEIGHT, WIDTH, across, frame, upward } from "./axes.js";
import { h, svg } from "./dom.js";
import { t } from "./i18n.js";

export function depthStudy(runs) {
  const epochs = runs[0].training_error.length;
  const [x, y] = [across([1, epochs]), upward([0, 1])];
  const lines = runs.map(({ kind, depth, training_error: errors }) => {
    const place = errors.map((error, i) => `${x(i + 1).toFixed(1)},${y(error).toFixed(1)}`);
    return svg("polyline", { points: place.join(" "), class: `curve ${kind} d${depth}` },
      svg("title", {}, `${t(`depth.${kind}`)} ${depth}`));
  });
  const ends = runs.map(({ kind, depth, training_error: errors }) => ({ kind, depth, y: y(errors[epochs - 4]) }));
  const labels = ends.filter(({ kind }) => kind === "plain").map((end) =>
    svg("text", { x: x(epochs - 3), y: end.y - 8, "text-anchor": "middle" }, `${t("depth.plain")} ${end.depth}`));
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": t("depth.title") },
    frame({ x, y, xLabel: t("depth.epoch"), yLabel: t("depth.error"),
      xTicks: Array.from({ length: epochs }, (_, i) => [i + 1, String(i + 1)]),
      yTicks: [0, 0.25, 0.5, 0.75, 1].map((share) => [share, `${share * 100} %`]) }),
    lines, labels);
  return h("section", { class: "card" }, h("h2", {}, t("depth.title")), h("p", {}, t("depth.lead")),
    h("div", { class: "plot fits" }, picture),
    h("p", { class: "legend" }, h("span", { class: "swatch plain" }, t("depth.plain")),
      h("span", { class: "swatch residual" }, t("depth.residual")),
      h("span", { class: "muted" }, t("depth.numbers"))));
}
