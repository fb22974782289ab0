// Products of int4 matrices in blocks of 32 with f32 vectors, E2B's shapes, beside ONNX Runtime Web's
// `MatMulNBits`: in one page, on one device, in turns. µs a product, wall clock of chains of four.
//
//   npm install && node bench.mjs [--program ../../target/release/wgforge] [--class subgroup4]

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ROOT, browse } from "../tests/browser.mjs";
import { serve } from "../tests/server.mjs";

const { values } = parseArgs({
  options: {
    program: { type: "string", default: join(ROOT, "target/release/wgforge") },
    class: { type: "string", default: "subgroup4" },
    rounds: { type: "string", default: "5" },
    modules: { type: "string", default: join(import.meta.dirname, "node_modules") },
  },
});
function kernel(rows, columns) {
  const plain = { epilogue: "store", first: 0, grids: false, norm: null, softcap: 0, split_a: 0, split_b: 0 };
  const shape = JSON.stringify({ ...plain, rows, total: rows, columns, format: "i4", scale: "group", x: "f32", out: "f32" });
  const args = ["kernels", "show", "gemv", "--class", values.class, "--target", "web", "--json", "--shape", shape];
  const { wgsl, bindings, groups } = JSON.parse(execFileSync(values.program, args, { stdio: ["ignore", "pipe", "ignore"], maxBuffer: 1 << 26 }));
  return { wgsl, bindings, groups: groups[0].groups };
}

const shapes = [[1536, 6144], [1536, 2048], [1536, 12288]];
const folder = mkdtempSync(join(tmpdir(), "wgforge-peers-"));
writeFileSync(join(folder, "index.html"), '<!doctype html><script type="module" src="/peers/page.mjs"></script>');
const { server, url } = await serve({ "": folder, peers: import.meta.dirname, ort: join(values.modules, "onnxruntime-web/dist") });
const browser = await browse();
const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1];
const table = [];
for (const [a, b] of shapes) {
  const sizes = Array.from({ length: 5 }, (_, i) => (i % 2 ? b : a));
  const kernels = { [`${b}x${a}`]: kernel(b, a), [`${a}x${b}`]: kernel(a, b) };
  const page = await browser.context.newPage();
  page.on("pageerror", (error) => console.error(error));
  await page.goto(url);
  await page.waitForFunction(() => globalThis.loaded);
  const times = await page.evaluate((args) => compare(...args), [kernels, sizes, Number(values.rounds), 3]);
  await page.close();
  const [ours, theirs] = [median(times.ours), median(times.theirs)];
  table.push({ shape: `${a} to ${b} and back`, ours_us: ours, theirs_us: theirs, ratio: theirs / ours, rounds: times });
}
await browser.close();
server.close();
rmSync(folder, { recursive: true, force: true });
console.log(JSON.stringify(table, null, 2));
