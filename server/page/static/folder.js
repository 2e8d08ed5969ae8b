// Many images as a grid, filtered by class and score.

import { h, nextId, percent } from "./dom.js";
import { t } from "./i18n.js";
import { waitForModels } from "./models.js";
import { withKey } from "./session.js";

const MAX_IMAGES = 500;
const AT_ONCE = 4;

export async function showFolder(view, { signal }) {
  const showNone = () => view.replaceChildren(intro(), h("p", { class: "empty" }, t("classify.none")));
  new Folder(view, await waitForModels(signal, showNone), signal);
}

function intro() {
  return h("div", { class: "intro" }, h("h1", {}, t("folder.title")), h("p", {}, t("folder.lead")));
}

class Folder {
  constructor(view, models, signal) {
    Object.assign(this, { signal, tiles: [], runs: 0 });
    this.grid = h("div", { class: "grid" }, h("p", { class: "empty" }, t("folder.empty")));
    this.progress = h("progress", { max: 1, value: 0, hidden: true, "aria-label": t("folder.progress") });
    this.count = h("p", { class: "muted", role: "status" }, t("folder.limit"));
    this.model = this.labelled("folder.model", h("select", { onchange: () => this.run(this.files) },
      models.map(({ name }) => h("option", {}, name))));
    this.label = this.labelled("folder.class", h("select", { onchange: () => this.filter() },
      h("option", { value: "" }, t("folder.all"))));
    this.least = this.bound("folder.least", 0);
    this.most = this.bound("folder.most", 100);
    view.replaceChildren(
      intro(),
      h("div", { class: "panel filters" }, this.picker(), this.model.field, this.label.field,
        this.least.field, this.most.field),
      this.progress, this.count, this.grid);
  }

  picker() {
    const choose = (event) => this.run([...event.target.files]);
    return h("label", { class: "button primary" }, t("folder.choose"),
      h("input", { id: "folder", type: "file", webkitdirectory: true, multiple: true, class: "unseen",
        onchange: choose }));
  }

  // One end of the scores that are shown.
  bound(key, value) {
    const output = h("output", {}, `${value} %`);
    const move = () => {
      output.textContent = `${control.value} %`;
      this.filter();
    };
    const control = h("input", { type: "range", min: 0, max: 100, value, oninput: move });
    const { field } = this.labelled(key, control);
    field.querySelector("label").append(" ", output);
    return { control, field };
  }

  labelled(key, control) {
    const id = nextId();
    control.id = id;
    return { control, field: h("div", { class: "field" }, h("label", { for: id }, t(key)), control) };
  }

  async run(files = []) {
    this.files = files;
    const run = (this.runs += 1);
    const images = files.filter(({ type }) => type.startsWith("image/")).slice(0, MAX_IMAGES);
    this.tiles.forEach((tile) => URL.revokeObjectURL(tile.address));
    this.tiles = images.map((file) => new Tile(file));
    this.grid.replaceChildren(...this.tiles.map(({ element }) => element));
    Object.assign(this.progress, { hidden: !images.length, max: images.length, value: 0 });
    const waiting = [...this.tiles];
    const work = async () => {
      for (let tile = waiting.shift(); tile && run === this.runs; tile = waiting.shift()) {
        await tile.classify(this.model.control.value, this.signal);
        this.progress.value += 1;
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    if (run === this.runs) this.offerClasses();
  }

  offerClasses() {
    const labels = [...new Set(this.tiles.flatMap(({ best }) => best?.label ?? []))].sort();
    this.label.control.replaceChildren(h("option", { value: "" }, t("folder.all")),
      ...labels.map((label) => h("option", {}, label)));
    this.progress.hidden = true;
    this.filter();
  }

  filter() {
    const label = this.label.control.value;
    if (!this.tiles.length) return;
    const [least, most] = [this.least, this.most].map(({ control }) => control.value / 100);
    for (const { element, best } of this.tiles) {
      const score = best?.score ?? 0;
      element.hidden = Boolean((label && best?.label !== label) || score < least || score > most);
    }
    const shown = this.tiles.filter(({ element }) => !element.hidden).length;
    this.count.textContent = t("folder.count", { shown, all: this.tiles.length });
  }
}

class Tile {
  constructor(file) {
    this.file = file;
    this.address = URL.createObjectURL(file);
    this.text = h("figcaption", {}, "…");
    this.element = h("figure", { class: "tile" },
      h("img", { src: this.address, alt: file.name, loading: "lazy" }), this.text);
  }

  async classify(model, signal) {
    try {
      const answer = await withKey((client) => client.classify(this.file, { model, topK: 1, signal }));
      [this.best] = answer.classes;
      this.text.replaceChildren(...this.best
        ? [h("b", {}, this.best.label), ` ${percent(this.best.score)}`] : [t("result.none")]);
    } catch (error) {
      this.text.replaceChildren(h("span", { class: "error" }, error.reason || error.message));
    }
  }
}
