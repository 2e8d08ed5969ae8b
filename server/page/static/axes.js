// What plots share: a frame with ticks, and positions in it.

import { svg } from "./dom.js";

export const WIDTH = 640;
export const HEIGHT = 320;
const LEFT = 56;
const BOTTOM = 40;
const TOP = 14;
const RIGHT = 16;

export function scale([least, most], [start, end], isLogarithmic = false) {
  const place = isLogarithmic ? Math.log10 : (value) => value;
  const span = place(most) - place(least) || 1;
  return (value) => start + ((place(value) - place(least)) / span) * (end - start);
}

export const across = (domain, isLogarithmic) => scale(domain, [LEFT, WIDTH - RIGHT], isLogarithmic);
export const upward = (domain, isLogarithmic) =>
  scale(domain, [HEIGHT - BOTTOM, TOP], isLogarithmic);

/** Ticks are pairs of a value and its text. */
export function frame({ x, y, xTicks, yTicks, xLabel, yLabel }) {
  return svg("g", { class: "axes" },
    yTicks.map(([value, text]) => [
      svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
      svg("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, text),
    ]),
    xTicks.map(([value, text]) =>
      svg("text", { x: x(value), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, text)),
    svg("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, xLabel),
    svg("text", { x: -(HEIGHT - BOTTOM) / 2, y: 13, transform: "rotate(-90)", "text-anchor": "middle" },
      yLabel));
}

/** Powers of ten, and their halves where there are few. */
export function powers([least, most]) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(least)); 10 ** power <= most; power += 1) {
    for (const factor of most / least < 100 ? [1, 2, 5] : [1]) {
      const value = factor * 10 ** power;
      if (value >= least && value <= most) ticks.push(value);
    }
  }
  return ticks;
}
