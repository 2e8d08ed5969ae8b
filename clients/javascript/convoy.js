// Client of Convoy's HTTP API: fetch alone, for browsers, Node, Deno and Bun. Types: convoy.d.ts.

/** An answer that is an error: `reason` is for programs, the message for people. */
export class ConvoyError extends Error {
  constructor(status, problem = {}, retryAfter = null) {
    super(problem.detail || problem.title || `HTTP status ${status}`);
    this.name = "ConvoyError";
    this.status = status;
    this.reason = problem.reason || "";
    this.requestId = problem.request_id || "";
    this.retryAfter = retryAfter;
  }
}

/** No answer: the gateway cannot be reached, or the connection broke. */
export class Unreachable extends Error {
  constructor(cause) {
    super("the gateway cannot be reached", { cause });
    this.name = "Unreachable";
  }
}

export class Client {
  #url;
  #key;
  #fetch;

  constructor(url = "", { key = "", fetch = globalThis.fetch } = {}) {
    this.#url = url.replace(/\/$/, "");
    this.#key = key;
    this.#fetch = fetch;
  }

  /** `image`: a Blob, a File, or bytes. */
  async classify(image, { model, version, topK, minScore, include, requestId, timeoutMs, signal }) {
    const query = toQuery({ version, top_k: topK, min_score: minScore, include });
    const headers = toHeaders({ requestId, timeoutMs });
    const path = `${modelPath(model)}:classify${query}`;
    return this.#ask(path, { method: "POST", body: image, headers, signal });
  }

  /** Each of `requests`: {image, topK, …}; a result is a `response` or an `error`. */
  async classifyBatch(requests, { model, timeoutMs, signal }) {
    const items = await Promise.all(requests.map(toItem));
    const headers = { ...toHeaders({ timeoutMs }), "content-type": "application/json" };
    const body = JSON.stringify({ requests: items });
    const path = `${modelPath(model)}:batchClassify`;
    return (await this.#ask(path, { method: "POST", body, headers, signal })).results;
  }

  async models({ signal } = {}) {
    return (await this.#ask("/v1/models", { signal })).models;
  }

  async model(name, { version, signal } = {}) {
    return this.#ask(`${modelPath(name)}${toQuery({ version })}`, { signal });
  }

  async status({ signal } = {}) {
    return this.#ask("/v1/status", { signal });
  }

  async #ask(path, { headers = {}, ...options }) {
    const all = this.#key ? { ...headers, authorization: `Bearer ${this.#key}` } : headers;
    let response, body;
    try {
      response = await this.#fetch.call(globalThis, this.#url + path, { ...options, headers: all });
      body = await response.text();
    } catch (error) {
      if (error.name === "AbortError" || error.name === "TimeoutError") throw error;
      throw new Unreachable(error);
    }
    if (!response.ok) throw toError(response, body);
    return JSON.parse(body);
  }
}

function modelPath(name) {
  return `/v1/models/${encodeURIComponent(name)}`;
}

function toQuery(options) {
  const given = Object.entries(options).filter(([, value]) => value !== undefined && value !== "");
  const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
  return given.length ? `?${query}` : "";
}

function toHeaders({ requestId, timeoutMs }) {
  const headers = {};
  if (requestId) headers["x-request-id"] = requestId;
  if (timeoutMs) headers["x-request-timeout-ms"] = String(timeoutMs);
  return headers;
}

async function toItem({ image, topK, minScore, include, requestId }) {
  const item = { image: { content: toBase64(await toBytes(image)) } };
  if (topK !== undefined) item.top_k = topK;
  if (minScore !== undefined) item.min_score = minScore;
  if (include) item.include = include;
  if (requestId) item.request_id = requestId;
  return item;
}

async function toBytes(image) {
  return new Uint8Array(image instanceof Blob ? await image.arrayBuffer() : image);
}

const CHUNK = 0x8000; // arguments of one call

function toBase64(bytes) {
  let text = "";
  for (let start = 0; start < bytes.length; start += CHUNK) {
    text += String.fromCharCode(...bytes.subarray(start, start + CHUNK));
  }
  return btoa(text);
}

function toError(response, body) {
  const seconds = Number.parseFloat(response.headers.get("retry-after") ?? "");
  return new ConvoyError(response.status, parse(body), Number.isNaN(seconds) ? null : seconds);
}

// What stands between may answer with no problem document.
function parse(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}
