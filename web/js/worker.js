// The worker: the engine, and all that may take time. The page asks by `{ id, method, args }` and gets
// `{ id, result }` or `{ id, error }`, and `{ id, event }` in between.

import init, { open } from "../engine/wgforge_web.js";
import { address, download, dropped } from "./download.js";
import { aborted, named, packed } from "./errors.js";
import { openStore } from "./store.js";

let engine = null;
/** Its device, which can be had while the engine answers. */
let device = null;
/** How the engine was opened, to open it again after a loss. */
let opened = null;
let module = null;
let memory = null;
/** Requests that are to stop. */
const stopped = new Set();

/** What the browser says of the adapter; and subgroups, which wgpu cannot ask for on the web. */
async function adapter() {
  if (!navigator.gpu) {
    throw named("NoAdapterError", "this browser has no WebGPU: use a current Chrome, Edge, Firefox or Safari, over https or on localhost");
  }
  const found = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!found) throw named("NoAdapterError", "this browser offers no GPU adapter: turn hardware acceleration on, or update the GPU's driver");
  const { vendor, architecture, device, description, isFallbackAdapter } = found.info;
  return { vendor, architecture, device, description, fallback: Boolean(isFallbackAdapter ?? found.isFallbackAdapter) };
}

/** Where what was tuned on an adapter is kept; browsers' updates may bring another compiler. */
function tunedName({ vendor, architecture, device, description }, label, { noF16, noSubgroups, baselineLimits }) {
  const browser = /(Firefox|Chrome|Version)\/\d+/.exec(navigator.userAgent)?.[0] ?? "browser";
  const less = [noF16 && "no-f16", noSubgroups && "no-subgroups", baselineLimits && "baseline"].filter(Boolean);
  return `${[vendor, architecture, device, description, browser, label, ...less].join(" ").replaceAll(/[^\w.]+/g, "-")}.toml`;
}

async function tunedHere(info, label, options) {
  const store = await openStore();
  return (await store?.list(".tuned").catch(() => null))?.get(tunedName(info, label, options))?.text();
}

function askForSubgroups() {
  const request = GPUAdapter.prototype.requestDevice;
  if (request.wgforge) return;
  GPUAdapter.prototype.requestDevice = function (descriptor = {}) {
    const features = [...(descriptor.requiredFeatures ?? [])];
    if (this.features.has("subgroups") && !features.includes("subgroups")) features.push("subgroups");
    return request.call(this, { ...descriptor, requiredFeatures: features });
  };
  GPUAdapter.prototype.requestDevice.wgforge = true;
}

/** Aborts of a request as a signal for what takes one. */
const signals = new Map();
function signal(id) {
  const controller = new AbortController();
  signals.set(id, controller);
  if (stopped.has(id)) controller.abort();
  return controller.signal;
}

/** The model that comes with the package: small enough for memory. */
async function demo(signal) {
  const fetched = ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"].map(async (name) => {
    const response = await fetch(new URL(`../demo/${name}`, import.meta.url), { signal });
    if (!response.ok) throw named("NetworkError", `${response.url}: the server answered ${response.status}; the package's folder demo/ belongs beside js/`);
    return new File([await response.blob()], name);
  });
  return { label: "demo", ...(await dropped(await Promise.all(fetched))) };
}

async function fetchModel(id, { model, files, keep = true, revision, pieceBytes }) {
  const tell = (event) => postMessage({ id, event });
  if (files) return { label: "local files", ...(await dropped(files)) };
  if (model === "demo") return demo(signal(id));
  const base = address(model, revision);
  const store = keep ? await openStore() : null;
  if (keep && !store) tell({ phase: "notice", message: "this browser keeps no files for this page: the model will be fetched again at the next visit" });
  const label = /^https?:/.test(model) ? base.split("/").filter(Boolean).at(-1) : model;
  return { label, ...(await download(base, { store, signal: signal(id), onProgress: tell, pieceBytes })) };
}

async function openEngine(id, source, options) {
  const info = await adapter();
  askForSubgroups();
  const total = source.files.reduce((sum, file) => sum + (file.pieces?.reduce((n, p) => n + p.blob.size, 0) ?? file.size), 0);
  const begun = performance.now();
  let told = 0;
  const progress = (loaded) => {
    if (stopped.has(id)) throw aborted();
    if (performance.now() - told < 100) return;
    told = performance.now();
    const bytesPerSecond = loaded / Math.max((told - begun) / 1000, 1e-3);
    postMessage({ id, event: { phase: "upload", loaded, total, bytesPerSecond, secondsLeft: Math.max(total - loaded, 0) / bytesPerSecond } });
  };
  const tuned = options.tuned ?? (await tunedHere(info, source.label, options));
  const { maxBindingBytes, chunk, activations, kv, noSubgroups, noF16, baselineLimits } = options;
  const text = JSON.stringify({ label: source.label, adapter: info, tuned, maxBindingBytes, chunk, activations, kv, noSubgroups, noF16, baselineLimits });
  postMessage({ id, event: { phase: "upload", loaded: 0, total, bytesPerSecond: 0, secondsLeft: null } });
  const opened = await open(source.config, source.generation ?? undefined, source.tokenizer, source.files, text, progress);
  device = opened.device();
  if (options.warmUp ?? true) {
    postMessage({ id, event: { phase: "compile" } });
    await opened.warm_up();
  }
  return opened;
}

async function load(id, options) {
  engine?.free();
  engine = null;
  // Before gigabytes are fetched for a browser that cannot use them.
  await adapter();
  module ??= init({ module_or_path: new URL("../engine/wgforge_web_bg.wasm", import.meta.url) });
  // Downloading and compiling at the same time.
  const [source, wasm] = await Promise.all([fetchModel(id, options), module]);
  memory = wasm.memory;
  engine = await openEngine(id, source, options);
  opened = { source, options };
  return report();
}

function ready() {
  if (!engine) throw named("UsageError", "no model is loaded");
  return engine;
}

function report() {
  return { ...JSON.parse(ready().report()), wasmBytes: memory.buffer.byteLength };
}

/** Runs `ask(options)`; when the device is lost on the way, opens the model again and goes on. */
async function answering(id, options, ask) {
  const begun = [...(options.begun ?? [])];
  const onToken = (token, text, thought) => {
    if (token !== undefined) begun.push(token);
    postMessage({ id, event: { token, text, thought } });
    return stopped.has(id);
  };
  for (let losses = 0; ; losses++) {
    const { maxTokens = 1024 } = options;
    const left = maxTokens - (begun.length - (options.begun?.length ?? 0));
    try {
      if (left > 0) await ask(JSON.stringify({ ...options, maxTokens: left, begun }), onToken);
      return { ...report(), losses };
    } catch (error) {
      if (error.name !== "DeviceLostError" || losses === 3) throw error;
      postMessage({ id, event: { phase: "notice", message: "the GPU device was lost; loading again" } });
      engine.free();
      engine = null;
      engine = await openEngine(id, opened.source, opened.options);
    }
  }
}

const methods = {
  load,
  chat: (id, messages, options) => answering(id, options, (text, onToken) => ready().chat(JSON.stringify(messages), text, onToken)),
  complete: (id, prompt, options) =>
    answering(id, options, (text, onToken) => ready().complete(new Uint32Array(prompt), text, onToken)),
  encode: (id, text) => Array.from(ready().encode(text)),
  stats: () => report(),
  reset: () => ready().reset(),
  bandwidth: () => ready().bandwidth(),
  async autotune(id, { budgetMs = 60_000 } = {}) {
    const tell = (text) => {
      const event = JSON.parse(text);
      if (Object.keys(event).length) postMessage({ id, event: { phase: "tune", ...event } });
      return stopped.has(id);
    };
    const result = JSON.parse(await ready().autotune(budgetMs, tell));
    if (result.kept) {
      const store = await openStore();
      const bytes = new TextEncoder().encode(result.toml);
      await store?.write(".tuned", tunedName(await adapter(), opened.source.label, opened.options), bytes).catch(() => {});
    }
    return result;
  },
  async models() {
    const store = await openStore();
    return store ? (await store.models()).filter((name) => !name.startsWith(".")) : [];
  },
  async remove(id, model) {
    const store = await openStore();
    await store?.remove(model);
  },
};

// One after the other: there is one engine.
let queue = Promise.resolve();
let running = null;

async function run({ id, method, args }) {
  running = id;
  try {
    if (stopped.has(id)) throw aborted();
    const result = await methods[method](id, ...args);
    postMessage({ id, result });
  } catch (error) {
    postMessage({ id, error: packed(error) });
  } finally {
    stopped.delete(id);
    signals.delete(id);
  }
}

self.onmessage = ({ data }) => {
  if (data.abort !== undefined) {
    stopped.add(data.abort);
    signals.get(data.abort)?.abort();
    // What waits for its turn need not wait to be stopped.
    if (data.abort !== running) postMessage({ id: data.abort, error: packed(aborted()) });
  } else if (data.method === "lose") {
    // In the midst of an answer: that is what it is for.
    device?.destroy();
    postMessage({ id: data.id, result: null });
  } else {
    queue = queue.then(() => run(data));
  }
};
