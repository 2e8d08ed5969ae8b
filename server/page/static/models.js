// The models that can answer now, and which images they read.

import { withKey } from "./session.js";

export async function readyModels(signal) {
  const models = await withKey((client) => client.models({ signal }));
  return models.filter((model) => model.state === "STATE_READY" && model.is_default);
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
