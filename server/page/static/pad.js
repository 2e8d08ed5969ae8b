// A sheet to draw on, by mouse, finger, pen or keyboard.

import { h } from "./dom.js";
import { t } from "./i18n.js";

const SIDE = 280; // pixels
const WIDTH = 20; // of the line
const STEP = 10; // of an arrow key
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Pad {
  /** `changed` is called with each stroke and each part of one. */
  constructor(changed) {
    this.changed = changed;
    this.canvas = h("canvas", {
      width: SIDE, height: SIDE, class: "pad", tabindex: "0", role: "img",
      "aria-label": t("draw.pad"),
      onpointerdown: (event) => this.begin(event),
      onpointermove: (event) => this.move(event),
      onpointerup: () => { this.last = null; },
      onpointercancel: () => { this.last = null; },
      onkeydown: (event) => this.key(event),
    });
    this.context = this.canvas.getContext("2d");
    this.clear();
  }

  clear() {
    this.context.fillStyle = "white";
    this.context.fillRect(0, 0, SIDE, SIDE);
    Object.assign(this.context, { lineWidth: WIDTH, lineCap: "round", lineJoin: "round" });
    this.isEmpty = true;
    this.ink = 0; // pixels of line
    this.last = null;
    this.pen = { at: [SIDE / 2, SIDE / 4], isDown: false };
  }

  toBlob() {
    return new Promise((resolve) => this.canvas.toBlob(resolve, "image/png"));
  }

  begin(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.last = this.place(event);
    this.line(this.last, this.last);
  }

  move(event) {
    if (!this.last) return;
    const next = this.place(event);
    this.line(this.last, next);
    this.last = next;
  }

  // The space bar sets the pen down and lifts it.
  key(event) {
    const direction = ARROWS[event.key];
    if (!direction && event.key !== " ") return;
    event.preventDefault();
    const { pen } = this;
    if (!direction) pen.isDown = !pen.isDown;
    const next = (direction ?? [0, 0]).map((it, axis) =>
      Math.min(SIDE, Math.max(0, pen.at[axis] + STEP * it)));
    if (pen.isDown) this.line(pen.at, next);
    pen.at = next;
  }

  place({ clientX, clientY }) {
    const { left, top, width } = this.canvas.getBoundingClientRect();
    const scale = SIDE / width;
    return [(clientX - left) * scale, (clientY - top) * scale];
  }

  line(from, to) {
    this.context.strokeStyle = "black";
    this.context.beginPath();
    this.context.moveTo(...from);
    this.context.lineTo(...to);
    this.context.stroke();
    this.isEmpty = false;
    this.ink += Math.hypot(to[0] - from[0], to[1] - from[1]);
    this.changed();
  }
}
