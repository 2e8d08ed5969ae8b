export type Image = Blob | ArrayBuffer | Uint8Array;
export type Evidence = "INPUT" | "HEATMAP" | "FEATURES" | "LAYERS";

export interface ItemOptions {
  topK?: number;
  minScore?: number;
  include?: Evidence[];
  requestId?: string;
}
export interface CallOptions {
  timeoutMs?: number;
  signal?: AbortSignal;
}
export interface ClassifyOptions extends ItemOptions, CallOptions {
  model: string;
  version?: string;
}

export interface Class {
  label: string;
  score: number;
  index: number;
  id: string;
}
export interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}
export interface Answer {
  classes: Class[];
  model: string;
  version: string;
  request_id: string;
  served: {
    runtime: string;
    precision: string;
    device: string;
    weights: string;
    manifest_digest: string;
    batch_size: number;
  };
  timing: {
    decode_us: number;
    preprocess_us: number;
    infer_us: number;
    total_us: number;
    queue_us?: number;
    compute_us?: number;
  };
  image: { width: number; height: number; format: string; exif_applied: boolean };
  input?: { png: string; box?: Box };
  heatmap?: {
    method: "CLASS_ACTIVATION_MAP" | "OCCLUSION";
    passes: number;
    height: number;
    width: number;
    maps: { label: string; index: number; values: number[] }[];
    box?: Box;
  };
  features?: { values: number[] };
  layers?: {
    layers: {
      shape: { name: string; maps: number; height: number; width: number };
      pixels: string;
      minimum: number;
      maximum: number;
    }[];
  };
  unfamiliar?: { score: number; threshold?: number };
}
export interface ItemResult {
  request_id: string;
  response?: Answer;
  error?: { code: number; message: string; details: unknown[] };
}
/** As in the OpenAPI document. */
export interface Model {
  name: string;
  version: string;
  state: string;
  state_reason: string;
  is_default: boolean;
  [field: string]: unknown;
}
export type Status = Record<"gateway" | "runners" | "models" | "traffic", any>;

export class ConvoyError extends Error {
  readonly status: number;
  /** Such as "IMAGE_DECODE_FAILED"; empty for statuses of HTTP itself. */
  readonly reason: string;
  readonly requestId: string;
  /** Seconds; null: the gateway did not say. */
  readonly retryAfter: number | null;
}
export class Unreachable extends Error {}

export class Client {
  constructor(url?: string, options?: { key?: string; fetch?: typeof fetch });
  classify(image: Image, options: ClassifyOptions): Promise<Answer>;
  classifyBatch(
    requests: ({ image: Image } & ItemOptions)[],
    options: { model: string } & CallOptions,
  ): Promise<ItemResult[]>;
  models(options?: { signal?: AbortSignal }): Promise<Model[]>;
  model(name: string, options?: { version?: string; signal?: AbortSignal }): Promise<Model>;
  status(options?: { signal?: AbortSignal }): Promise<Status>;
}
