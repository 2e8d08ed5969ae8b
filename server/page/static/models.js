// The models that can answer now, and which images they read.

import { withKey } from "./session.js";

// In the order of the course.
const FAMILIES = ["lenet", "alexnet", "vgg", "nin", "googlenet", "inception", "plain", "resnet"];

/** Networks of digits first, then in the order of the course. */
export async function readyModels(signal) {
  const models = await withKey((client) => client.models({ signal }));
  const ready = models.filter((model) => model.state === "STATE_READY" && model.is_default);
  const order = (one, other) => readsDigits(other) - readsDigits(one)
    || courseOrder(one.manifest?.network || one.name, other.manifest?.network || other.name)
    || courseOrder(one.name, other.name);
  return ready.sort(order);
}

const RETRY_MS = 1000;

/** Waits until a model that `fits` is ready; `show` says meanwhile that there is none. */
export async function waitForModels(signal, show, fits = () => true) {
  for (;;) {
    const models = (await readyModels(signal)).filter(fits);
    if (models.length) return models;
    show();
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

/** Compares two names; those that are of no family of the course come last. */
export function courseOrder(one, other) {
  return place(one) - place(other) || one.localeCompare(other, "en", { numeric: true });
}

function place(name) {
  const found = FAMILIES.findIndex((family) => name.startsWith(family));
  return found < 0 ? FAMILIES.length : found;
}

export function readsDigits(model) {
  return "digit" in (model.preprocessing ?? {});
}

export function canInclude(model, evidence) {
  return (model.evidence?.include ?? []).includes(evidence);
}

/** All that a version can show of one image. */
export function evidenceOf(model) {
  return ["INPUT", ...["HEATMAP"].filter((name) => canInclude(model, name))];
}

/** The answer says so for images that look like nothing that the network was trained on. */
export function isUnfamiliar({ unfamiliar: it }) {
  return it?.threshold !== undefined && it.score >= it.threshold;
}

export const SAMPLES = [
  { file: "seven.jpg", isDigit: true },
  { file: "four.jpg", isDigit: true },
  { file: "two.jpg", isDigit: true },
  { file: "chelsea.jpg", isDigit: false, licence: "Chelsea: Stéfan van der Walt, CC0" },
  { file: "coffee.jpg", isDigit: false, licence: "Coffee: Rachel Michetti, CC0" },
  { file: "astronaut.jpg", isDigit: false, licence: "Eileen Collins: NASA, public domain" },
];

export function sampleAddress(sample) {
  return `/page/samples/${sample.file}`;
}

export async function fetchSample(sample) {
  const blob = await (await fetch(sampleAddress(sample))).blob();
  return new File([blob], sample.file, { type: blob.type });
}
