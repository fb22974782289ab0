// Speed of the web package in node on Dawn, as one JSON object:
//
//   node bench.mjs --package FOLDER --model FOLDER [--prompt 4] [--tokens 128] [--runs 3]
//                  [--modules FOLDER] [--dawn FLAG]… [--ids 2,17,…] [--activations f32]
//
// `--modules` is a folder whose node_modules hold `webgpu`.

import { performance } from "node:perf_hooks";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { browserless, openEngine } from "./dawn.mjs";

const { values } = parseArgs({
  options: {
    package: { type: "string", default: "target/web/package" },
    model: { type: "string", default: "model/demo" },
    prompt: { type: "string", default: "4" },
    tokens: { type: "string", default: "128" },
    runs: { type: "string", default: "3" },
    modules: { type: "string", default: "web/tests" },
    dawn: { type: "string", multiple: true, default: [] },
    ids: { type: "string" },
    activations: { type: "string" },
    profile: { type: "boolean", default: false },
  },
});

/** Time spent in calls of Dawn, by method: what is left of a token's host time is wasm and glue. */
function watch() {
  const spent = new Map();
  const wrap = (name) => {
    const prototype = globalThis[name]?.prototype;
    for (const method of Object.getOwnPropertyNames(prototype ?? {})) {
      const { value } = Object.getOwnPropertyDescriptor(prototype, method);
      if (typeof value !== "function" || method === "constructor") continue;
      prototype[method] = function (...args) {
        const begun = performance.now();
        try {
          return value.apply(this, args);
        } finally {
          const one = spent.get(`${name}.${method}`) ?? { ms: 0, calls: 0 };
          one.ms += performance.now() - begun;
          one.calls++;
          spent.set(`${name}.${method}`, one);
        }
      };
    }
  };
  ["GPUDevice", "GPUQueue", "GPUCommandEncoder", "GPUComputePassEncoder", "GPUBuffer"].forEach(wrap);
  return spent;
}

browserless(resolve(values.modules), values.dawn);
const begun = performance.now();
const { engine, memory, info } = await openEngine(resolve(values.package), resolve(values.model), { activations: values.activations });
const loadSeconds = (performance.now() - begun) / 1000;
const prompt = values.ids?.split(",").map(Number) ?? Array.from({ length: Number(values.prompt) }, (_, i) => (i === 0 ? 2 : 100 + ((i * 7919) % 1500)));
const tokens = Number(values.tokens);
const runs = [];
let spent = null;
for (let run = 0; run <= Number(values.runs); run++) {
  engine.reset();
  if (values.profile && run === Number(values.runs)) spent = watch();
  const cpu = process.cpuUsage();
  const ids = [];
  await engine.complete(new Uint32Array(prompt), JSON.stringify({ temperature: 0, maxTokens: tokens }), (id) => {
    if (id !== undefined) ids.push(id);
    return false;
  });
  const { user, system } = process.cpuUsage(cpu);
  const { last } = JSON.parse(engine.report());
  // The first compiles the kernels.
  if (run > 0) runs.push({ ...last, hostUsPerToken: (user + system) / tokens, ids: ids.slice(0, 64) });
}
runs.sort((a, b) => a.tokensPerSecond - b.tokensPerSecond);
const median = runs[runs.length >> 1];
const { last: _, ...about } = JSON.parse(engine.report());
const report = {
  ...about,
  vendor: info.vendor,
  architecture: info.architecture,
  wasmBytes: memory.buffer.byteLength,
  loadSeconds,
  decode_tok_s: median.tokensPerSecond,
  lowest: runs[0].tokensPerSecond,
  highest: runs.at(-1).tokensPerSecond,
  dispatches_per_token: (median.dispatches / tokens),
  prompt_tokens: median.promptTokens,
  first_token_ms: median.firstTokenSeconds * 1000,
  host_us_per_token: median.hostUsPerToken,
  ids: median.ids,
};
if (spent) {
  const parts = [...spent].map(([name, { ms, calls }]) => ({ name, us_per_token: (ms * 1000) / tokens, calls_per_token: calls / tokens }));
  report.dawn = parts.sort((a, b) => b.us_per_token - a.us_per_token).slice(0, 12);
}
console.log(JSON.stringify(report, null, 2));
process.exit(0);
