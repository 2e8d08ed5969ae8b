// How long an answer takes, measured here and now by ordinary requests, one after the other.

import { ConvoyError } from "./convoy.js";
import { SAMPLES, fetchSample, readsDigits, readyModels } from "./models.js";
import { withKey } from "./session.js";

const REQUESTS = 10; // of each model; the median counts
const TRIES = 5;

/** Returns milliseconds by network. */
export async function measure(report, signal) {
  const models = await readyModels(signal);
  const medians = new Map();
  for (const [done, model] of models.entries()) {
    const image = await fetchSample(SAMPLES.find(({ isDigit }) => isDigit === readsDigits(model)));
    const times = [];
    for (let i = 0; i < REQUESTS; i += 1) {
      times.push(await time(model.name, image, signal));
      report((done + (i + 1) / REQUESTS) / models.length);
    }
    medians.set(model.manifest?.network || model.name, median(times));
  }
  return medians;
}

async function time(model, image, signal) {
  for (let tries = 1; ; tries += 1) {
    const begun = performance.now();
    try {
      await withKey((client) => client.classify(image, { model, topK: 1, signal }));
      return performance.now() - begun;
    } catch (error) {
      if (!(error instanceof ConvoyError) || !error.retryAfter || tries === TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, error.retryAfter * 1000));
    }
  }
}

function median(values) {
  return values.sort((one, other) => one - other)[Math.floor(values.length / 2)];
}
