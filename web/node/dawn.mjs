// The package's engine in node, on Dawn, Chrome's implementation of WebGPU: what a browser would do
// without a browser, for tests and for measuring on machines whose Chrome finds no GPU.

import { closeSync, fstatSync, openSync, readFileSync, readSync } from "node:fs";
import { basename, join } from "node:path";
import { createRequire } from "node:module";

/** A file on disk as the engine reads it. */
class DiskFile {
  constructor(path) {
    this.name = basename(path);
    this.descriptor = openSync(path, "r");
    this.size = fstatSync(this.descriptor).size;
  }

  read(offset, into) {
    for (let done = 0; done < into.length; ) {
      const count = readSync(this.descriptor, into, done, into.length - done, offset + done);
      if (count === 0) throw new Error(`${this.name}: it ends at ${offset + done}`);
      done += count;
    }
  }

  has() {
    return true;
  }

  close() {
    closeSync(this.descriptor);
  }
}

/** Puts Dawn where a browser has WebGPU. `flags` as `npm webgpu`'s `create` takes them. */
export function browserless(modules, flags = []) {
  const { create, globals } = createRequire(join(modules, "package.json"))("webgpu");
  Object.assign(globalThis, globals);
  const gpu = create(flags);
  Object.defineProperty(globalThis, "navigator", { value: { gpu }, configurable: true, writable: true });
  // wgpu looks whether it is in a window or in a worker.
  globalThis.Window = class {
    static [Symbol.hasInstance]() {
      return true;
    }
  };
  globalThis.window = globalThis;
  const request = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = function (descriptor = {}) {
    const features = new Set(descriptor.requiredFeatures ?? []);
    if (this.features.has("subgroups")) features.add("subgroups");
    return request.call(this, { ...descriptor, requiredFeatures: [...features] });
  };
  return gpu;
}

/** The engine on a model's folder. */
export async function openEngine(packageFolder, modelFolder, options = {}) {
  const engine = await import(join(packageFolder, "engine/wgforge_web.js"));
  const wasm = await engine.default({ module_or_path: readFileSync(join(packageFolder, "engine/wgforge_web_bg.wasm")) });
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new Error("Dawn finds no adapter; on Linux it needs a Vulkan driver");
  const { vendor, architecture, device, description } = adapter.info;
  const read = (name) => readFileSync(join(modelFolder, name));
  let [generation, tokenizer] = [undefined, undefined];
  try {
    generation = read("generation_config.json");
  } catch {
    // Optional.
  }
  try {
    tokenizer = read("tokenizer.json");
  } catch {
    // A synthetic checkpoint has none: any will do, for its text is noise.
    tokenizer = readFileSync(join(packageFolder, "demo/tokenizer.json"));
  }
  const text = JSON.stringify({ label: basename(modelFolder), adapter: { vendor, architecture, device, description }, ...options });
  const files = [new DiskFile(join(modelFolder, "model.safetensors"))];
  const opened = await engine.open(read("config.json"), generation, tokenizer, files, text, () => {});
  return { engine: opened, memory: wasm.memory, info: adapter.info };
}
