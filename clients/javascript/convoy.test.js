// Run by tests/clients/test_javascript.py, which starts the gateway: CONVOY_URL, and an IMAGE.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { Client, ConvoyError, Unreachable } from "./convoy.js";

const client = new Client(process.env.CONVOY_URL, { key: process.env.CONVOY_KEY });
const image = await readFile(process.env.IMAGE);
const model = "lenet5";

test("an image is classified", async () => {
  const answer = await client.classify(image, { model, topK: 2, requestId: "mine" });
  assert.equal(answer.classes[0].label, "7");
  assert.equal(answer.classes.length, 2);
  assert.equal(answer.request_id, "mine");
});

test("a Blob is an image, and evidence is added", async () => {
  const answer = await client.classify(new Blob([image]), { model, include: ["INPUT"] });
  assert.ok(answer.input.png);
});

test("an invalid image of a batch fails alone", async () => {
  const invalid = new Uint8Array([1, 2, 3]);
  const results = await client.classifyBatch([{ image }, { image: invalid }], { model });
  assert.equal(results[0].response.classes[0].label, "7");
  assert.match(results[1].error.message, /image/);
});

test("models and their state are listed", async () => {
  const models = await client.models();
  assert.deepEqual([models[0].name, models[0].state], [model, "STATE_READY"]);
  assert.equal((await client.model(model)).labels.length, 10);
  assert.equal((await client.status()).gateway.is_ready, true);
});

test("an error has its reason", async () => {
  await assert.rejects(client.classify(image, { model: "none" }), (error) => {
    assert.ok(error instanceof ConvoyError);
    assert.deepEqual([error.status, error.reason], [404, "MODEL_NOT_FOUND"]);
    return true;
  });
});

test("a refusal says when to try again", async () => {
  const eager = () => client.models().then(() => null, (error) => error);
  const errors = (await Promise.all(Array.from({ length: 60 }, eager))).filter(Boolean);
  assert.ok(errors.length > 0);
  assert.deepEqual([errors[0].status, errors[0].reason], [429, "RATE_LIMITED"]);
  assert.ok(errors[0].retryAfter > 0);
});

test("without a key the client reads what it lacks", async () => {
  const stranger = new Client(process.env.CONVOY_URL);
  await assert.rejects(stranger.models(), { reason: "AUTH_REQUIRED", status: 401 });
});

test("nobody answers: unreachable", async () => {
  await assert.rejects(new Client("http://127.0.0.1:1").models(), Unreachable);
});

test("a call can be given up", async () => {
  const signal = AbortSignal.abort();
  await assert.rejects(client.models({ signal }), { name: "AbortError" });
});
