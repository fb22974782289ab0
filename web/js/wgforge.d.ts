/** Where loading is. */
export type Progress =
  | {
      /** Fetching files, or filling the GPU. */
      phase: "download" | "upload";
      /** Bytes done, those kept from an earlier visit among them. */
      loaded: number;
      /** Bytes in all. */
      total: number;
      bytesPerSecond: number;
      /** `null` while nothing is known. */
      secondsLeft: number | null;
    }
  | {
      /** The kernels are being compiled: some seconds at the first visit. */
      phase: "compile";
    }
  | {
      /** Something a visitor should know, such as that nothing can be kept. */
      phase: "notice";
      message: string;
    };

export interface LoadOptions {
  /**
   * `"demo"` (comes with the package; six million parameters that write like Shakespeare's plays),
   * `"owner/name"` on Hugging Face, or the URL of a folder with `config.json`, `tokenizer.json` and
   * `model.safetensors` (or shards with their index) on a server that answers ranges.
   * @default "demo"
   */
  model?: string;
  /** Files the visitor chose or dropped, instead of `model`. */
  files?: File[];
  /** Branch, tag or commit of a Hugging Face repository. @default "main" */
  revision?: string;
  /** Keep what was fetched in the browser (private files, or the Cache API). @default true */
  keep?: boolean;
  /** Bytes fetched, kept and checked at a time. @default 16 MiB */
  pieceBytes?: number;
  /** Told up to ten times a second. */
  onProgress?: (progress: Progress) => void;
  /** Ends the loading; what has arrived is kept, and the next `load` goes on from there. */
  signal?: AbortSignal;
  /** Largest GPU binding to use, bytes; larger tables are split, or gathered from disk. */
  maxBindingBytes?: number;
  /** Tokens of a prefill chunk. @default 512 */
  chunk?: number;
  /** Vectors between kernels. @default "f16" where the GPU has 16-bit floats */
  activations?: "f16" | "f32";
  /** The KV cache. @default "f16" */
  kv?: "f16" | "f32";
  /** A database of kernels (`Tuned.toml`) instead of the one that was tuned in this browser. */
  tuned?: string;
  /** Compile all kernels while loading, and not when the first answer needs them. @default true */
  warmUp?: boolean;
  /** Leave subgroup operations unused. */
  noSubgroups?: boolean;
  /** Leave 16-bit floats unused. */
  noF16?: boolean;
  /** Use no limit beyond what every WebGPU implementation grants. */
  baselineLimits?: boolean;
}

export interface Message {
  /** `system` only as the first. */
  role: "system" | "user" | "assistant";
  /** Of the model's own messages without its thoughts. */
  content: string;
}

export interface GenerateOptions {
  /** 0: always the most likely token. @default the model's own, 1 for Gemma 4 */
  temperature?: number;
  /** @default the model's own, 64 for Gemma 4; at most 1024 */
  topK?: number;
  /** @default the model's own, 0.95 for Gemma 4 */
  topP?: number;
  /** @default 1024 */
  maxTokens?: number;
  /** Same seed, same model, same device: same answer. @default random */
  seed?: number;
  /** Let the model think before it answers. @default false */
  thinking?: boolean;
  /** Token ids of an answer that was broken off, to go on from there. */
  begun?: number[];
  /** Stops the answer; what came until then stands. */
  signal?: AbortSignal;
  /** Told what happens on the way, such as that a lost device is being replaced. */
  onNotice?: (message: string) => void;
}

/** A piece of an answer. `answer += piece` appends its text. */
export interface Piece {
  /** May be empty: a character can take several tokens, and control tokens have no text. */
  readonly text: string;
  /** Part of what the model thinks, not of what it says. */
  readonly thought: boolean;
  readonly token: number | undefined;
  toString(): string;
}

export type TuneProgress = { phase: "tune" } & (
  | {
      /** Kernels done, of how many, and the next. */
      done: number;
      count: number;
      kernel: string;
    }
  | {
      /** A candidate that does not compute what its reference computes, or does not run, and why. */
      refused: string;
    }
  | {
      /** A kernel in use fails on this GPU. */
      alarm: string;
    }
  | {
      /** Whole tokens are compared. */
      confirming: number;
    }
);

export interface TuneOptions {
  /** @default 60000 */
  budgetMs?: number;
  onProgress?: (progress: TuneProgress) => void;
  /** Ends the search early, with what it has. */
  signal?: AbortSignal;
}

export interface Tuned {
  /** Whole tokens gained: the new kernels are in use, and kept in this browser for this GPU. */
  kept: boolean;
  /** Tokens a second before and after. */
  before: number;
  after: number;
  /** Kernels that were searched, and those of them that others won. */
  settled: number;
  changed: number;
  /** Kernels there was no time for. */
  left: number;
  seconds: number;
  /** The database, as `wgforge autotune` writes it: `wgforge bench --kernels` and `LoadOptions.tuned` read it. */
  toml: string;
}

export interface Stats {
  adapter: string;
  backend: string;
  deviceType: string;
  /** The kernels' database, and why it. */
  kernels: string;
  why: string;
  /** What the device can do, as databases name it: `subgroup32-f16`. */
  class: string;
  model: string;
  /** `mobile`, `bf16`, … */
  format: string;
  activations: "f32" | "f16";
  kv: "f32" | "f16";
  /** The vocabulary has turns; without them `chat` continues the text of all messages. */
  chat: boolean;
  /** Tokens the context can hold. */
  maxTokens: number;
  weightBytesPerToken: number;
  /** Bytes a second the GPU was seen to read; `null` before `bandwidth`. */
  readBandwidth: number | null;
  /** GPU memory in use. */
  memoryBytes: number;
  /** Memory of the WebAssembly module. */
  wasmBytes: number;
  loadSeconds: number;
  /** The last answer; `null` before the first. */
  last: {
    promptTokens: number;
    /** Of those, tokens that were in the cache from before. */
    knownTokens: number;
    tokens: number;
    firstTokenSeconds: number;
    decodeSeconds: number;
    tokensPerSecond: number;
    /** GPU dispatches, prompt included. */
    dispatches: number;
    ended: "stop" | "length" | "abort";
  } | null;
}

/**
 * What goes wrong has one of these as its `name`:
 * - `AbortError`: the signal ended it.
 * - `NoAdapterError`: no WebGPU here, or no adapter.
 * - `OutOfMemoryError`: the GPU has too little memory for this model.
 * - `DeviceLostError`: the GPU's driver gave up, again and again; a single loss is made good.
 * - `DeviceError`: the GPU refused a kernel.
 * - `QuotaError`: the browser gives this page too little room.
 * - `NetworkError`: a file could not be fetched. What arrived is kept.
 * - `ReadError`: a kept or dropped file can no longer be read.
 * - `ModelError`: the files are damaged, or hold no Gemma 4.
 * - `ContextOverflowError`: the conversation fills the context.
 * - `UsageError`: a mistake in the call.
 * - `WorkerError`: the worker died.
 */
export type ErrorName =
  | "AbortError"
  | "NoAdapterError"
  | "OutOfMemoryError"
  | "DeviceLostError"
  | "DeviceError"
  | "QuotaError"
  | "NetworkError"
  | "ReadError"
  | "ModelError"
  | "ContextOverflowError"
  | "UsageError"
  | "WorkerError";

/** A loaded model. One answer at a time: questions wait for each other. */
export class WgForge {
  /** Opens the GPU and loads a model, in a worker. */
  static load(options?: LoadOptions): Promise<WgForge>;

  /**
   * Answers a conversation. Of one that goes on, only what is new is run. Leaving the loop stops
   * the answer.
   *
   * @example
   * let answer = "";
   * for await (const piece of m.chat([{ role: "user", content: "Hello" }])) answer += piece;
   */
  chat(messages: Message[], options?: GenerateOptions): AsyncGenerator<Piece, void, void>;

  /** Continues token ids, nothing added. */
  complete(tokens: number[], options?: GenerateOptions): AsyncGenerator<Piece, void, void>;

  /** The token ids of a text, nothing added. */
  encode(text: string): Promise<number[]>;

  /** Adapter, kernels, memory, and the last answer's figures. */
  stats(): Promise<Stats>;

  /** Forgets the conversation in the GPU's caches. */
  reset(): Promise<void>;

  /** Measures how many bytes a second the GPU reads: a second's work and a gigabyte of its memory. */
  bandwidth(): Promise<number>;

  /**
   * Searches faster kernels for this model on this GPU, each proven against a reference before it is
   * timed. What makes whole tokens faster is used from now on, and at the next visit. The page may
   * go on; answers wait.
   */
  autotune(options?: TuneOptions): Promise<Tuned>;

  /** Destroys the GPU device, to try what a page does then. */
  loseDevice(): Promise<void>;

  /** Ends the worker and frees everything. */
  dispose(): void;

  /** Folders of models that are kept in this browser. */
  static kept(): Promise<string[]>;

  /** Removes one of them. */
  static remove(model: string): Promise<void>;
}
