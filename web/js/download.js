// From a URL to files that stay: small files whole, weights in pieces of 16 MiB by HTTP ranges, only
// those that hold tensors of the text model. A piece is named by its number and the SHA-256 of what
// came, so a download that breaks off goes on where it was, and damage shows.

import { aborted, megabytes, named } from "./errors.js";
import { BlobFile, UrlFile } from "./files.js";
import { room } from "./store.js";

/** Bytes of a piece. */
const PIECE = 16 << 20;
/** Requests at a time. More do not help: servers limit a visitor, not a request. */
const AT_ONCE = 4;
const TRIES = 6;
/** A connection that is silent for so long is given up, ms. */
const SILENCE = 30_000;
/** Largest header of a weights file that is believed. */
const MAX_HEADER = 100e6;

/** Towers that a text model does without. */
const OTHER_SENSES = /^(model\.)?(vision_tower|audio_tower|embed_vision|embed_audio|multi_modal_projector)\./;

/** The address of a model: a URL of its folder, or `owner/name` on Hugging Face. */
export function address(model, revision = "main") {
  if (/^[\w.-]+\/[\w.-]+$/.test(model)) return `https://huggingface.co/${model}/resolve/${revision}/`;
  const url = new URL(model, location.href);
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url.href;
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(aborted())), { once: true });
  });
}

/** A request that is made again where that may help. `take` reads the answer; undefined for 404. */
async function request(url, { headers, signal, optional = false }, take) {
  for (let attempt = 1; ; attempt++) {
    if (signal?.aborted) throw aborted();
    let failure;
    try {
      // Pieces have a place of their own: in the browser's cache they would stand twice, and that
      // cache answers for a version of the file that is no more.
      const response = await fetch(url, { headers, signal, cache: headers ? "no-store" : "default" });
      if (response.ok) return await take(response);
      if (response.status === 404 && optional) return undefined;
      failure = named("NetworkError", `${url}: the server answered ${response.status} ${response.statusText}`);
      if (response.status === 401 || response.status === 403) {
        failure.message += "; the model asks for a login or is not public";
      }
      // Asking again changes nothing about a refusal.
      if (response.status < 500 && response.status !== 408 && response.status !== 429) throw failure;
    } catch (error) {
      if (error.name === "AbortError" || error === failure || error.final) throw error;
      failure = named("NetworkError", `${url}: ${error.message}`);
    }
    if (attempt === TRIES) {
      failure.message += `; tried ${TRIES} times. What has arrived is kept: load again to go on`;
      throw failure;
    }
    await pause(Math.min(250 * 2 ** attempt, 8000), signal);
  }
}

function final(name, message) {
  return Object.assign(named(name, message), { final: true });
}

/** The bytes `start` to `end` (exclusive) of a file, and the file's size. */
async function range(url, start, end, { signal, onBytes }) {
  const headers = { Range: `bytes=${start}-${end - 1}` };
  return request(url, { headers, signal, optional: true }, async (response) => {
    let alarm;
    const silence = () => new Promise((_, reject) => (alarm = setTimeout(reject, SILENCE, new Error("the connection fell silent"))));
    const size = Number(/\/(\d+)$/.exec(response.headers.get("Content-Range") ?? "")?.[1]);
    if (response.status !== 206 || !Number.isSafeInteger(size)) {
      throw final("NetworkError", `${url}: the server gives no ranges (it answered ${response.status}); use one that does, or download the files and drop them on the page`);
    }
    const wanted = Math.min(end, size) - start;
    const bytes = new Uint8Array(wanted);
    let at = 0;
    try {
      for (const reader = response.body.getReader(); ; ) {
        const read = reader.read();
        const { done, value } = await Promise.race([read, silence()]).catch((error) => {
          reader.cancel().catch(() => {});
          throw error;
        }).finally(() => clearTimeout(alarm));
        if (done) break;
        if (at + value.length > wanted) throw new Error(`more than the ${wanted} bytes asked for`);
        bytes.set(value, at);
        at += value.length;
        onBytes?.(value.length);
      }
      if (at !== wanted) throw new Error(`broke off after ${at} of ${wanted} bytes`);
    } catch (error) {
      // They will come again.
      onBytes?.(-at);
      throw error;
    }
    return { bytes, size, tag: response.headers.get("ETag") };
  });
}

/** Which pieces of a weights file hold tensors that are needed, by its header. */
function needed(header, dataStart, size, pieceBytes, skip) {
  const pieces = new Set();
  const mark = (start, end) => {
    for (let piece = Math.floor(start / pieceBytes); piece * pieceBytes < end; piece++) pieces.add(piece);
  };
  mark(0, dataStart);
  for (const [name, info] of Object.entries(header)) {
    const ends = info?.data_offsets;
    if (name === "__metadata__" || !Array.isArray(ends) || skip(name)) continue;
    mark(dataStart + ends[0], Math.min(dataStart + ends[1], size));
  }
  return [...pieces].sort((a, b) => a - b);
}

/** Tells how far a download is, at most ten times a second. */
class Meter {
  constructor(report) {
    Object.assign(this, { report, loaded: 0, total: 0, fresh: 0, begun: performance.now(), told: 0 });
  }

  add(bytes, { fetched = true } = {}) {
    this.loaded += bytes;
    if (fetched) this.fresh += bytes;
    if (performance.now() - this.told > 100) this.tell();
  }

  tell() {
    this.told = performance.now();
    const rate = this.fresh / Math.max((this.told - this.begun) / 1000, 1e-3);
    const secondsLeft = this.fresh > 0 ? Math.max(this.total - this.loaded, 0) / rate : null;
    this.report({ phase: "download", loaded: this.loaded, total: this.total, bytesPerSecond: rate, secondsLeft });
  }
}

/** Writes a file where files are kept. */
async function keep({ store, model }, name, bytes) {
  try {
    await store?.write(model, name, bytes);
  } catch (error) {
    if (error.name !== "QuotaExceededError") throw error;
    throw named("QuotaError", `the browser gives this page no more room (${megabytes(bytes.length)} more were needed); free disk space, or remove other models`);
  }
}

/** One weights file: what is known of it, and the pieces that are kept. */
class Weights {
  constructor(context, name) {
    Object.assign(this, { ...context, name, url: new URL(name, context.base).href });
    this.about = null;
  }

  /** Named by its number, the version of the file it is of, and its own content. */
  piece(number, hash) {
    return `${this.name}.${String(number).padStart(5, "0")}.${this.about.version}.${hash}`;
  }

  /** Bytes of one piece: the last is shorter. */
  length(number) {
    return Math.min(this.about.pieceBytes, this.about.size - number * this.about.pieceBytes);
  }

  /** Pieces that are kept, by number: only those with a whole name and the right size. */
  kept() {
    const pieces = new Map();
    if (!this.about) return pieces;
    const pattern = new RegExp(`^${this.name.replaceAll(".", "\\.")}\\.(\\d{5})\\.${this.about.version}\\.([0-9a-f]{64})$`);
    for (const [name, blob] of this.files) {
      const match = pattern.exec(name);
      if (!match) continue;
      const number = Number(match[1]);
      if (blob.size === this.length(number)) pieces.set(number, { blob, hash: match[2] });
    }
    return pieces;
  }

  /** Size, header and needed pieces: from an earlier visit, or from the server. False: no such file. */
  async look() {
    const aboutName = `${this.name}.about.json`;
    const known = this.files.get(aboutName);
    if (known) {
      try {
        const about = JSON.parse(await known.text());
        const whole = Array.isArray(about.pieces) && [about.size, about.pieceBytes].every(Number.isSafeInteger);
        if (whole && typeof about.version === "string") {
          this.about = about;
          return true;
        }
      } catch {
        // Written by another version, or damaged: as if it were not there.
      }
    }
    const first = await range(this.url, 0, this.pieceBytes, this);
    if (!first) return false;
    const { size, tag } = first;
    if (first.bytes.length < 8) throw named("ModelError", `${this.url}: ${size} bytes are no weights file`);
    const length = Number(new DataView(first.bytes.buffer).getBigUint64(0, true));
    const dataStart = length + 8;
    if (length > MAX_HEADER || dataStart > size) {
      throw named("ModelError", `${this.url}: not a safetensors file, or a damaged one`);
    }
    const bytes = dataStart <= first.bytes.length ? first.bytes : (await range(this.url, 0, dataStart, this)).bytes;
    let header;
    try {
      header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, dataStart)));
      if (header === null || typeof header !== "object" || Array.isArray(header)) throw new Error("it is no object");
    } catch (error) {
      throw named("ModelError", `${this.url}: its header is not as it must be: ${error.message}`);
    }
    const hash = await sha256(first.bytes);
    const version = (await sha256(new TextEncoder().encode(`${size} ${tag} ${this.pieceBytes} ${hash}`))).slice(0, 16);
    this.about = { size, tag, version, pieceBytes: this.pieceBytes, pieces: needed(header, dataStart, size, this.pieceBytes, this.skip) };
    await keep(this, aboutName, new TextEncoder().encode(JSON.stringify(this.about)));
    const name = this.piece(0, hash);
    await keep(this, name, first.bytes);
    this.files.set(name, new Blob([first.bytes]));
    return true;
  }

  /** Bytes of the needed pieces, all and those that are not kept. */
  bytes() {
    const kept = this.kept();
    const sum = (numbers) => numbers.reduce((total, n) => total + this.length(n), 0);
    return { total: sum(this.about.pieces), missing: sum(this.about.pieces.filter((n) => !kept.has(n))) };
  }

  /** Fetches and keeps what is missing; checks what was kept. */
  async fetch(meter) {
    const kept = this.kept();
    const missing = [];
    for (const number of this.about.pieces) {
      const piece = kept.get(number);
      // Reading what is kept costs little, and tells damage from a mistake of ours.
      if (piece && (await sha256(await piece.blob.arrayBuffer())) === piece.hash) {
        meter.add(piece.blob.size, { fetched: false });
      } else {
        if (piece) await this.store?.remove(this.model, this.piece(number, piece.hash)).catch(() => {});
        missing.push(number);
      }
      if (this.signal?.aborted) throw aborted();
    }
    let changed = false;
    const stop = new AbortController();
    this.signal?.addEventListener("abort", () => stop.abort(), { once: true });
    const one = async () => {
      for (let number; (number = missing.shift()) !== undefined; ) {
        const start = number * this.about.pieceBytes;
        const end = start + this.length(number);
        const got = await range(this.url, start, end, { signal: stop.signal, onBytes: (n) => meter.add(n) });
        if (!got) throw named("NetworkError", `${this.url}: the file is gone`);
        if (got.size !== this.about.size || (got.tag && this.about.tag && got.tag !== this.about.tag)) {
          changed = true;
          throw named("NetworkError", `${this.url}: the file changed while it was fetched; load again to begin anew`);
        }
        const name = this.piece(number, await sha256(got.bytes));
        await keep(this, name, got.bytes);
      }
    };
    const workers = Array.from({ length: AT_ONCE }, () => one().catch((error) => (stop.abort(), Promise.reject(error))));
    const outcomes = await Promise.allSettled(workers);
    const failed = outcomes.filter((o) => o.status === "rejected").map((o) => o.reason);
    // Only now: nobody writes any more.
    if (changed) await this.store?.remove(this.model).catch(() => {});
    // The first cause, and not those that were stopped for it.
    if (failed.length) throw this.signal?.aborted ? aborted() : (failed.find((e) => e.name !== "AbortError") ?? failed[0]);
  }

  /** The file as the engine reads it. */
  async open() {
    if (!this.store) return new UrlFile(this.name, this.about.size, this.url);
    this.files = await this.store.list(this.model);
    const pieces = [...this.kept()].sort(([a], [b]) => a - b);
    const whole = new Set(this.about.pieces);
    return new BlobFile(
      this.name,
      this.about.size,
      pieces.filter(([n]) => whole.has(n)).map(([n, { blob }]) => ({ start: n * this.about.pieceBytes, blob })),
    );
  }
}

/** A small JSON file, from an earlier visit or the server; null where there is none. */
async function small(context, name, meter, optional) {
  const absent = `${name}.absent`;
  for (const [kept, blob] of context.files) {
    if (optional && kept === absent) return null;
    const hash = kept.startsWith(`${name}.`) ? kept.slice(name.length + 1) : "";
    if (!/^[0-9a-f]{64}$/.test(hash)) continue;
    const bytes = new Uint8Array(await blob.arrayBuffer());
    // What a closed tab left half-written is fetched again.
    if ((await sha256(bytes)) === hash) return bytes;
  }
  const url = new URL(name, context.base).href;
  const bytes = await request(url, { signal: context.signal, optional }, async (response) => new Uint8Array(await response.arrayBuffer()));
  if (!bytes) {
    await keep(context, absent, new Uint8Array(1));
    return null;
  }
  try {
    JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    // A login page, perhaps. Not to be kept.
    throw named("ModelError", `${url}: not readable as JSON: ${error.message}`);
  }
  meter.add(bytes.length);
  await keep(context, `${name}.${await sha256(bytes)}`, bytes);
  return bytes;
}

/** What a model's folder is called where it is kept. */
export function folderName(base) {
  return base.replace(/^https?:\/\//, "").replaceAll(/[^\w.-]+/g, "_").slice(-120);
}

/**
 * Fetches a model, as far as it is not kept already.
 * @returns config, generation, tokenizer (bytes) and files for the engine
 */
export async function download(base, { store, signal, onProgress, pieceBytes = PIECE }) {
  const model = folderName(base);
  const files = store ? await store.list(model) : new Map();
  const context = { base, model, store, signal, files, pieceBytes, skip: () => false };
  const meter = new Meter(onProgress);
  const config = await small(context, "config.json", meter, false);
  const generation = await small(context, "generation_config.json", meter, true);
  const tokenizer = await small(context, "tokenizer.json", meter, false);
  const quantized = Boolean(JSON.parse(new TextDecoder().decode(config))?.quantization_config);
  // The quantised layout holds the embedding twice, the second time as the head.
  context.skip = (name) => OTHER_SENSES.test(name) || (quantized && name.startsWith("lm_head."));
  const weights = await weightsFiles(context, meter);
  const sizes = weights.map((w) => w.bytes());
  meter.total = meter.loaded + sizes.reduce((sum, s) => sum + s.total, 0);
  const missing = sizes.reduce((sum, s) => sum + s.missing, 0);
  const free = store ? await room() : null;
  if (free !== null && missing > free) {
    throw named("QuotaError", `this model needs ${megabytes(missing)} more, and the browser gives this page ${megabytes(free)}; free disk space, or remove other models`);
  }
  if (store) for (const one of weights) await one.fetch(meter);
  meter.tell();
  return { config, generation, tokenizer, files: await Promise.all(weights.map((w) => w.open())) };
}

async function weightsFiles(context, meter) {
  const single = new Weights(context, "model.safetensors");
  // A model in shards has no such file; its index, where it is kept, says so without asking.
  const shards = [...context.files.keys()].some((name) => name.startsWith("model.safetensors.index.json.") && !name.endsWith(".absent"));
  if (!shards && (await single.look())) return [single];
  const index = await small(context, "model.safetensors.index.json", meter, true);
  if (!index) throw named("NetworkError", `${context.base}: there is neither model.safetensors nor model.safetensors.index.json; is this a model's folder?`);
  const map = JSON.parse(new TextDecoder().decode(index)).weight_map ?? {};
  const names = [...new Set(Object.entries(map).filter(([tensor]) => !context.skip(tensor)).map(([, file]) => file))].sort();
  if (!names.length || names.some((name) => typeof name !== "string" || !/^[\w-][\w.-]*\.safetensors$/.test(name))) {
    throw named("ModelError", `${context.base}model.safetensors.index.json: it names no weights files beside it`);
  }
  const weights = names.map((name) => new Weights(context, name));
  for (const one of weights) if (!(await one.look())) throw named("NetworkError", `${one.url}: no such file, and the index names it`);
  return weights;
}

/** A model from files that were dropped on the page or chosen. */
export async function dropped(list) {
  const find = (name) => list.find((file) => file.name === name);
  const bytes = async (file) => new Uint8Array(await file.arrayBuffer());
  const weights = list.filter((file) => file.name.endsWith(".safetensors"));
  for (const [what, there] of [["config.json", find("config.json")], ["tokenizer.json", find("tokenizer.json")], ["a .safetensors file", weights[0]]]) {
    if (!there) throw named("ModelError", `${what} is not among the files; drop a model's whole folder`);
  }
  const generation = find("generation_config.json");
  return {
    config: await bytes(find("config.json")),
    generation: generation ? await bytes(generation) : null,
    tokenizer: await bytes(find("tokenizer.json")),
    files: weights.map((file) => BlobFile.of(file)),
  };
}
