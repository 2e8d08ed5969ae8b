// One image over HTTP: node classify.mjs http://localhost:8080 lenet5 IMAGE
import { readFile } from "node:fs/promises";

import { Client, ConvoyError } from "../javascript/convoy.js";

const [server, model, path] = process.argv.slice(2);
const client = new Client(server, { key: process.env.CONVOY_API_KEY });
try {
  const answer = await client.classify(await readFile(path), { model, topK: 3, timeoutMs: 10_000 });
  for (const { label, score } of answer.classes) console.log(label, score.toFixed(4));
} catch (error) {
  if (!(error instanceof ConvoyError)) throw error;
  console.error(`${error.reason}: ${error.message}`);
  process.exitCode = 1;
}
