// An image, one network or several, and their answers side by side.

import { takePhoto } from "./camera.js";
import { h } from "./dom.js";
import { errorBox } from "./errors.js";
import { t } from "./i18n.js";
import { SAMPLES, evidenceOf, fetchSample, readsDigits, sampleAddress, waitForModels } from "./models.js";
import { resultCard } from "./result.js";
import { withKey } from "./session.js";
import { snippets } from "./snippets.js";

const TOP_K = 5;

export async function showClassify(view, { signal }) {
  const showNone = () => view.replaceChildren(intro(), h("p", { class: "empty" }, t("classify.none")));
  const models = await waitForModels(signal, showNone);
  new Classify(view, models, signal);
}

// LeNet-5, which everybody can follow, beside another that reads the same images.
function firstChoice(models) {
  const [first] = models;
  const other = models.find((it) => it !== first && readsDigits(it) === readsDigits(first));
  return [first, ...(other ? [other] : [])].map(({ name }) => name);
}

function intro() {
  return h("div", { class: "intro" }, h("h1", {}, t("classify.title")), h("p", {}, t("classify.lead")));
}

class Classify {
  constructor(view, models, signal) {
    this.models = models;
    this.signal = signal;
    this.chosen = new Set(firstChoice(models));
    this.results = h("div", { class: "results", "aria-live": "polite" });
    this.preview = h("img", { class: "preview", alt: "", hidden: true });
    this.chips = h("div", { class: "choices" });
    this.code = h("div");
    this.showChips();
    view.replaceChildren(intro(), h("div", { class: "split" },
      h("section", { class: "panel", "aria-label": t("classify.image") },
        this.dropZone(), this.samples(), this.chips),
      h("section", { "aria-label": t("classify.answers") }, this.results, this.code)),
      this.credits());
    this.listenForPaste();
    const sample = this.availableSamples()[0];
    if (sample) this.useSample(sample);
  }

  dropZone() {
    const choose = (event) => event.target.files[0] && this.use(event.target.files[0]);
    const photograph = async () => {
      const photo = await takePhoto(this.signal);
      if (photo) this.use(photo);
    };
    const over = (event) => {
      event.preventDefault();
      zone.classList.toggle("over", event.type === "dragover");
    };
    const drop = (event) => {
      over(event);
      if (event.dataTransfer.files[0]) this.use(event.dataTransfer.files[0]);
    };
    const zone = h("div", { class: "drop", ondragover: over, ondragleave: over, ondrop: drop },
      this.preview,
      h("p", { class: "muted" }, t("classify.drop")),
      h("div", { class: "row" },
        h("label", { class: "button" }, t("classify.choose"),
          h("input", { id: "file", type: "file", accept: "image/*", class: "unseen", onchange: choose })),
        h("button", { type: "button", onclick: photograph }, t("classify.photograph"))));
    return zone;
  }

  listenForPaste() {
    const paste = (event) => {
      const [file] = event.clipboardData.files;
      if (file) this.use(file);
    };
    document.addEventListener("paste", paste, { signal: this.signal });
  }

  availableSamples() {
    return SAMPLES.filter(({ isDigit }) => this.models.some((it) => readsDigits(it) === isDigit));
  }

  samples() {
    return h("div", { class: "samples" },
      h("p", { class: "muted" }, t("classify.samples")),
      h("div", { class: "row" }, this.availableSamples().map((sample) =>
        h("button", { type: "button", class: "sample", onclick: () => this.useSample(sample) },
          h("img", { src: sampleAddress(sample), alt: sample.file.split(".")[0] })))));
  }

  credits() {
    const licences = this.availableSamples().flatMap(({ licence }) => (licence ? [licence] : []));
    return licences.length ? h("p", { class: "credits" }, `${t("classify.credits")}: ${licences.join(" · ")}`) : "";
  }

  // Of the chosen networks those stay that read such images.
  async useSample(sample) {
    const fitting = this.models.filter((it) => readsDigits(it) === sample.isDigit);
    const kept = fitting.filter(({ name }) => this.chosen.has(name));
    this.chosen = new Set((kept.length ? kept : fitting.slice(0, 1)).map(({ name }) => name));
    this.showChips();
    await this.use(fetchSample(sample));
  }

  showChips() {
    const toggle = (event) => {
      const { value, checked } = event.target;
      if (checked) this.chosen.add(value);
      else this.chosen.delete(value);
      this.run();
    };
    const chip = ({ name }) => h("label", { class: "chip" },
      h("input", { type: "checkbox", value: name, checked: this.chosen.has(name), onchange: toggle }),
      h("span", {}, name));
    const group = (key, models) => (models.length
      ? [h("fieldset", { class: "chips" }, h("legend", {}, t(key)), models.map(chip))] : []);
    this.chips.replaceChildren(
      ...group("classify.digits", this.models.filter(readsDigits)),
      ...group("classify.photos", this.models.filter((it) => !readsDigits(it))));
  }

  // A file, or a promise of one. What is chosen later counts, also where an earlier image arrives after it.
  async use(image) {
    const choice = (this.choices = (this.choices ?? 0) + 1);
    const file = await image;
    const picture = await createImageBitmap(file).catch(() => null);
    if (choice !== this.choices) return;
    this.file = file;
    this.picture = picture;
    if (this.preview.src) URL.revokeObjectURL(this.preview.src);
    this.preview.src = URL.createObjectURL(file);
    this.preview.alt = file.name;
    this.preview.hidden = false;
    this.preview.onerror = () => { this.preview.hidden = true; };
    await this.run();
  }

  // An answer that comes after a newer question is not shown.
  async run() {
    if (!this.file) return;
    const run = (this.runs = (this.runs ?? 0) + 1);
    const chosen = this.models.filter(({ name }) => this.chosen.has(name));
    this.results.replaceChildren(...(chosen.length
      ? chosen.map(({ name }) => h("article", { class: "card waiting" }, h("h3", {}, name)))
      : [h("p", { class: "empty" }, t("classify.choose.network"))]));
    const cards = [...this.results.children];
    this.code.replaceChildren(...(chosen.length ? [snippets(chosen[0].name, this.file.name)] : []));
    await Promise.all(chosen.map(async (model, i) => {
      const card = await this.answer(model);
      if (run === this.runs) cards[i].replaceWith(card);
    }));
  }

  async answer(model) {
    const options = { model: model.name, topK: TOP_K, include: evidenceOf(model), signal: this.signal };
    try {
      const answer = await withKey((client) => client.classify(this.file, options));
      return resultCard(answer, this.picture);
    } catch (error) {
      return h("article", { class: "card" }, h("h3", {}, model.name), errorBox(error));
    }
  }
}
