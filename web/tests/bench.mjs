// The demo model in Chromium beside the native program, on the same SwiftShader, in turns:
//
//   node bench.mjs [--program target/release/wgforge] [--tokens 128] [--rounds 5]

import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ROOT, SITE, browse, open, ready } from "./browser.mjs";
import { serve } from "./server.mjs";

const { values } = parseArgs({
  options: {
    program: { type: "string", default: join(ROOT, "target/release/wgforge") },
    driver: { type: "string", default: "/usr/lib/chromium/vk_swiftshader_icd.json" },
    tokens: { type: "string", default: "128" },
    rounds: { type: "string", default: "5" },
  },
});
const tokens = Number(values.tokens);
const prompt = [2, 288, 267, 363];

function native() {
  const env = { ...process.env, VK_ICD_FILENAMES: values.driver };
  const args = ["bench", "--json", "--runs", "1", "--prompt", String(prompt.length), "--tokens", values.tokens];
  return JSON.parse(execFileSync(values.program, args, { env, stdio: ["ignore", "pipe", "ignore"] }));
}

const { server, url } = await serve({ "": SITE });
const browser = await browse();
const page = await open(browser.context, url);
await ready(page);
const web = () =>
  page.evaluate(
    async ([prompt, maxTokens]) => {
      const { model } = wgforge;
      await model.reset();
      for await (const _ of model.complete(prompt, { temperature: 0, maxTokens }));
      return model.stats();
    },
    [prompt, tokens],
  );
const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1];
const rounds = [];
let [there, here] = [null, null];
// The first of each compiles.
for (let round = 0; round <= Number(values.rounds); round++) {
  [there, here] = [native(), await web()];
  if (round > 0) rounds.push({ native: there.decode_tok_s, web: here.last.tokensPerSecond });
}
await browser.close();
server.close();
const report = {
  native: { adapter: there.adapter, kernels: there.kernels, decode_tok_s: median(rounds.map((r) => r.native)) },
  web: { adapter: here.adapter, kernels: here.kernels, decode_tok_s: median(rounds.map((r) => r.web)) },
  ratio: median(rounds.map((r) => r.web / r.native)),
  rounds,
};
console.log(JSON.stringify(report, null, 2));
