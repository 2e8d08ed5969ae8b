// A digit, read by every network of digits while it is drawn, and LeNet-5's layers of it.

import { ConvoyError } from "./convoy.js";
import { h, percent } from "./dom.js";
import { errorBox } from "./errors.js";
import { t } from "./i18n.js";
import { drawLayers } from "./layers.js";
import { canInclude, isUnfamiliar, readsDigits, waitForModels } from "./models.js";
import { Pad } from "./pad.js";
import { withKey } from "./session.js";

const PAUSE_MS = 60; // between two readings, at least
const MIN_INK = 60; // pixels: a dot is no digit
const RETRY_MS = 1000;
const SHOWN = "lenet5"; // whose layers are shown

export async function showDraw(view, { signal }) {
  const intro = h("div", { class: "intro" }, h("h1", {}, t("draw.title")), h("p", {}, t("draw.lead")));
  const showNone = () => view.replaceChildren(intro, h("p", { class: "empty" }, t("draw.none")));
  const models = await waitForModels(signal, showNone, readsDigits);
  const readers = models.map((model) => new Reader(model));
  const notice = h("div", { class: "notice", role: "status" });
  const layers = h("div", { class: "layers" });
  const hasLayers = models.some((it) => it.name === SHOWN && canInclude(it, "LAYERS"));
  const invite = () => layers.replaceChildren(...(hasLayers
    ? [h("h2", {}, t("draw.layers", { model: SHOWN })), h("p", { class: "empty" }, t("draw.empty"))] : []));
  invite();
  const reading = new Reading(readers, notice, layers, signal);
  const clear = () => {
    reading.pad.clear();
    readers.forEach((reader) => reader.reset());
    invite();
  };
  view.replaceChildren(intro, h("div", { class: "split draw-split" },
    h("section", { class: "panel" }, reading.pad.canvas,
      h("div", { class: "row" }, h("button", { type: "button", onclick: clear }, t("draw.clear"))),
      h("p", { class: "muted" }, t("draw.keys")), notice),
    h("section", {}, h("div", { class: "readers" }, readers.map((reader) => reader.card)), layers)));
}

class Reader {
  constructor(model) {
    this.model = model;
    this.best = h("b", { class: "digit" });
    this.score = h("span", { class: "muted" });
    this.columns = Array.from({ length: 10 }, (_, digit) =>
      h("span", { class: "column" }, h("i"), h("small", {}, String(digit))));
    this.card = h("article", { class: "card reader" },
      h("div", {}, h("h3", {}, model.name), this.score), this.best,
      h("div", { class: "columns", "aria-hidden": "true" }, this.columns));
    this.reset();
  }

  reset() {
    this.showColumns([]);
    this.card.classList.remove("unfamiliar");
    this.best.textContent = "–";
    this.score.textContent = " ";
  }

  show(answer) {
    const [best] = answer.classes;
    const isStrange = isUnfamiliar(answer);
    this.card.classList.toggle("unfamiliar", isStrange);
    this.best.textContent = best?.label ?? "–";
    this.score.textContent = isStrange ? t("draw.unfamiliar") : percent(best?.score ?? 0);
    this.showColumns(answer.classes);
  }

  showColumns(classes) {
    const [best] = classes;
    const scores = new Map(classes.map(({ index, score }) => [index, score]));
    this.columns.forEach((column, digit) => {
      column.firstChild.style.height = `${(scores.get(digit) ?? 0) * 100}%`;
      column.classList.toggle("is-best", best?.index === digit);
    });
  }
}

// One reading at a time: what is drawn meanwhile is read by the next.
class Reading {
  constructor(readers, notice, layers, signal) {
    Object.assign(this, { readers, notice, layers, signal, isDue: false, isBusy: false });
    this.pad = new Pad(() => {
      this.isDue = true;
      this.work();
    });
  }

  async work() {
    if (this.isBusy) return;
    this.isBusy = true;
    while (this.isDue && !this.signal.aborted) {
      this.isDue = false;
      const pause = await this.read();
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    this.isBusy = false;
  }

  /** Returns how long to wait before the next, in milliseconds. */
  async read() {
    if (this.pad.ink < MIN_INK) return PAUSE_MS;
    const image = await this.pad.toBlob();
    try {
      await Promise.all(this.readers.map((reader) => this.ask(reader, image)));
      this.notice.replaceChildren();
      return PAUSE_MS;
    } catch (error) {
      return this.handle(error);
    }
  }

  async ask(reader, image) {
    const hasLayers = reader.model.name === SHOWN && canInclude(reader.model, "LAYERS");
    const include = hasLayers ? ["INPUT", "LAYERS"] : undefined;
    const options = { model: reader.model.name, topK: 10, include, signal: this.signal };
    const answer = await withKey((client) => client.classify(image, options));
    if (this.pad.isEmpty) return;
    reader.show(answer);
    if (hasLayers) drawLayers(this.layers, answer);
  }

  // What will pass is tried again; a stroke may be no digit yet.
  handle(error) {
    if (error.name === "AbortError") return 0;
    const isOfImage = error instanceof ConvoyError && error.status < 500 && error.status !== 429;
    if (isOfImage && error.reason === "IMAGE_UNSUITABLE") return PAUSE_MS;
    this.notice.replaceChildren(errorBox(error));
    this.isDue = !isOfImage;
    return error.retryAfter ? error.retryAfter * 1000 : RETRY_MS;
  }
}
