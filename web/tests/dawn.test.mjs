// The package's engine in node on Dawn, on a device with 16-bit floats, which no browser here has:
// `WGFORGE_LAVAPIPE` names the ICD of a lavapipe that Dawn takes (Mesa 25; its folder holds the
// libraries it was built with).

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { ROOT, integers } from "./browser.mjs";

const icd = process.env.WGFORGE_LAVAPIPE;
const skip = icd || process.env.WGFORGE_REQUIRE_ADAPTER === "1" ? false : "WGFORGE_LAVAPIPE is not set";
const prompt = integers(join(ROOT, "model/demo/golden.safetensors"), "tokens").slice(0, 16);

function run(program, args) {
  const env = { ...process.env, VK_ICD_FILENAMES: icd, LD_LIBRARY_PATH: dirname(icd) };
  return JSON.parse(execFileSync(program, args, { env, cwd: ROOT, stdio: ["ignore", "pipe", "ignore"] }));
}

test("in f16 the web build writes what the native one writes", { skip }, () => {
  assert.ok(icd, "WGFORGE_LAVAPIPE is not set");
  const web = run(process.execPath, ["web/node/bench.mjs", "--ids", prompt.join(), "--tokens", "48", "--runs", "1"]);
  assert.equal(web.class, "subgroup8-f16");
  assert.equal(web.activations, "f16");
  const program = process.env.WGFORGE ?? join(ROOT, "target/debug/wgforge");
  const native = run(program, ["run", "--tokens", prompt.join(), "--max-new", "48", "--temperature", "0", "--json"]);
  assert.deepEqual(web.ids, native.tokens);
  console.log(`# in node on Dawn, ${web.adapter}: ${web.decode_tok_s.toFixed(1)} tokens/s, ${web.kernels}`);
});
