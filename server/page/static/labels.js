// Names beside the points of a plot, so that none lies over another name or another point.

import { WIDTH } from "./axes.js";

const LINE = 12; // height of a name
const GAP = 4;
const DISTANCES = [0, 6, 12, 18, 24, 32, 40]; // from a point
const STRAIGHT = [[0, -1], [0, 1], [1, 0], [-1, 0]]; // above, below, to the sides
const OBLIQUE = [[0.8, -0.7], [-0.8, -0.7], [0.8, 0.7], [-0.8, 0.7]];

/** Each of `marks`: {x, y, r, width, label, leader}; small points first, which have less choice. */
export function placeLabels(marks) {
  const placed = [];
  for (const mark of [...marks].sort((one, other) => one.r - other.r)) {
    const others = [...marks.map(around), ...placed];
    const boxes = [STRAIGHT, OBLIQUE].flatMap((directions) => DISTANCES.flatMap((distance) =>
      directions.map((direction) => boxAt(mark, direction, distance))));
    // Rounded, so that of several free places the first one, which is the nearest, is taken.
    const costs = boxes.map((box) =>
      Math.round(others.reduce((sum, it) => sum + overlap(box, it), outside(box))));
    const box = boxes[costs.indexOf(Math.min(...costs))];
    placed.push(box);
    show(mark, box);
  }
}

function around({ x, y, r }) {
  return { left: x - r, right: x + r, top: y - r, bottom: y + r };
}

function boxAt({ x, y, r, width }, [across, down], distance) {
  const middle = x + across * (r + GAP + distance + width / 2);
  const centre = y + down * (r + GAP + distance + LINE / 2);
  return { left: middle - width / 2, right: middle + width / 2,
    top: centre - LINE / 2, bottom: centre + LINE / 2, isFar: distance > 0 };
}

function overlap(one, other) {
  const width = Math.min(one.right, other.right) - Math.max(one.left, other.left);
  const height = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
  return Math.max(0, width) * Math.max(0, height);
}

const EDGES = { left: 58, right: WIDTH, top: 0, bottom: 278 }; // the frame of axes.js

function outside(box) {
  return (box.right - box.left) * LINE - overlap(box, EDGES);
}

function show({ x, y, r, label, leader }, { left, right, top, bottom, isFar }) {
  label.setAttribute("x", (left + right) / 2);
  label.setAttribute("y", bottom - 3);
  if (!isFar) return;
  const [toX, toY] = [Math.min(right, Math.max(left, x)), Math.min(bottom, Math.max(top, y))];
  const distance = Math.hypot(toX - x, toY - y) || 1;
  const ends = { x1: x + ((toX - x) * r) / distance, y1: y + ((toY - y) * r) / distance, x2: toX, y2: toY };
  for (const [name, value] of Object.entries(ends)) leader.setAttribute(name, value);
}
