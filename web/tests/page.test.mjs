// The page, driven as a visitor does, on the demo model.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { PACKAGE, ROOT, SITE, browse, integers, open, ready } from "./browser.mjs";
import { serve } from "./server.mjs";

const SHOTS = join(ROOT, "target/web/screenshots");
const GOLDEN = join(ROOT, "model/demo/golden.safetensors");
// The reference continued the first tokens of its text.
const prompt = integers(GOLDEN, "tokens").slice(0, 16);
// As far as the native tests hold: behind that, two tokens are as likely as each other.
const greedy = integers(GOLDEN, "greedy").slice(0, 40);

let [browser, site, page, complaints] = [null, null, null, []];

before(async () => {
  mkdirSync(SHOTS, { recursive: true });
  site = await serve({ "": SITE });
  browser = await browse();
  // The reference computes in f32 throughout.
  page = await open(browser.context, `${site.url}?f32`, { complaints });
  await ready(page);
});

after(async () => {
  await browser?.close();
  site?.server.close();
});

/** Ids the page's model writes. */
function complete(page, options, lose = false) {
  return page.evaluate(
    async ([prompt, options, lose]) => {
      const ids = [];
      const notices = [];
      for await (const { token } of wgforge.model.complete(prompt, { ...options, onNotice: (n) => notices.push(n) })) {
        if (token !== undefined) ids.push(token);
        if (lose && ids.length === 12) wgforge.model.loseDevice();
      }
      return { ids, notices, stats: await wgforge.model.stats() };
    },
    [prompt, options, lose],
  );
}

test("a typed prompt streams an answer", async () => {
  await page.fill("#prompt", "ROMEO:\n");
  await page.screenshot({ path: join(SHOTS, "welcome.png") });
  await page.press("#prompt", "Enter");
  const lengths = [];
  await page.waitForFunction(() => document.querySelector(".message.assistant .body")?.textContent.length > 0);
  while (await page.isVisible("#stop")) {
    lengths.push(await page.evaluate(() => document.querySelector(".message.assistant .body").textContent.length));
    await page.waitForTimeout(100);
    if (lengths.length > 40) await page.press("#prompt", "Escape");
  }
  assert.ok(new Set(lengths).size > 3, `the answer grew: ${lengths}`);
  assert.match(await page.textContent("#m-speed"), /^\d+\.\d$/);
  await page.screenshot({ path: join(SHOTS, "answer.png") });
  await page.emulateMedia({ colorScheme: "dark" });
  await page.screenshot({ path: join(SHOTS, "answer-dark.png") });
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 390, height: 800 });
  await page.screenshot({ path: join(SHOTS, "answer-narrow.png") });
  await page.setViewportSize({ width: 1100, height: 800 });
});

test("greedy tokens are those of the reference", async () => {
  const { ids, stats } = await complete(page, { temperature: 0, maxTokens: 40 });
  assert.deepEqual(ids, greedy);
  assert.equal(stats.last.ended, "length");
  assert.ok(stats.wasmBytes < 64e6, `${stats.wasmBytes} bytes of WebAssembly memory`);
  console.log(`# demo model on ${stats.adapter}: ${stats.last.tokensPerSecond.toFixed(1)} tokens/s, ${stats.kernels}`);
});

test("the same seed draws the same tokens", async () => {
  const draw = async (seed) => (await complete(page, { temperature: 1, seed, maxTokens: 16 })).ids;
  const first = await draw(7);
  assert.deepEqual(await draw(7), first);
  assert.notDeepEqual(await draw(8), first);
});

test("stop stops, and the page can be asked again", async () => {
  await page.click("#new");
  await page.fill("#prompt", "KING HENRY:\n");
  await page.press("#prompt", "Enter");
  await page.waitForFunction(() => document.querySelector(".message.assistant .body")?.textContent.length > 10);
  await page.keyboard.press("Escape");
  await page.waitForSelector("#stop", { state: "hidden" });
  assert.match(await page.textContent(".message.assistant .about"), /stopped/);
  const { last } = await page.evaluate(() => wgforge.model.stats());
  assert.equal(last.ended, "abort");
  assert.ok(last.tokens < 400, `${last.tokens} tokens`);
});

test("the conversation outlives a reload", async () => {
  const before = await page.textContent("#messages");
  await page.reload();
  await ready(page);
  assert.equal(await page.textContent("#messages"), before);
});

test("a lost device is replaced in mid-answer, and the answer is the same", async () => {
  const { ids, notices } = await complete(page, { temperature: 0, maxTokens: 40 }, true);
  assert.equal(notices.length, 1, "the visitor is told");
  assert.match(notices[0], /lost/);
  assert.deepEqual(ids, greedy);
});

test("a conversation that goes on runs only what is new", async () => {
  const known = await page.evaluate(async () => {
    const messages = [{ role: "user", content: "ROMEO:\n" }];
    let answer = "";
    await wgforge.model.reset();
    for await (const piece of wgforge.model.chat(messages, { temperature: 0, maxTokens: 12 })) answer += piece;
    messages.push({ role: "assistant", content: answer }, { role: "user", content: "\nJULIET:\n" });
    for await (const _ of wgforge.model.chat(messages, { temperature: 0, maxTokens: 2 }));
    return (await wgforge.model.stats()).last.knownTokens;
  });
  assert.ok(known >= 10, `${known} tokens were known`);
});

test("kernels are tuned in the page, kept, and readable elsewhere", async () => {
  const { tuned, events, bandwidth } = await page.evaluate(async () => {
    const events = [];
    const tuned = await wgforge.model.autotune({ budgetMs: 40_000, onProgress: (event) => events.push(event) });
    return { tuned, events, bandwidth: await wgforge.model.bandwidth() };
  });
  console.log(`# tuned ${tuned.settled} kernels in ${tuned.seconds.toFixed(0)} s, ${tuned.changed} changed: ${tuned.before.toFixed(1)} and ${tuned.after.toFixed(1)} tokens/s`);
  assert.ok(tuned.settled >= 1, JSON.stringify(tuned));
  assert.ok(events.some((event) => event.count > 10 && event.kernel), "it tells what it does");
  assert.equal(events.filter((event) => event.alarm).length, 0, JSON.stringify(events));
  assert.ok(bandwidth > 1e8, `${bandwidth} bytes a second`);
  // Whatever it chose computes the same, here and in the native program.
  assert.deepEqual((await complete(page, { temperature: 0, maxTokens: 40 })).ids, greedy);
  const file = join(SHOTS, "tuned.toml");
  writeFileSync(file, tuned.toml);
  const program = process.env.WGFORGE ?? join(ROOT, "target/debug/wgforge");
  const env = { ...process.env, VK_ICD_FILENAMES: process.env.SWIFTSHADER ?? "/usr/lib/chromium/vk_swiftshader_icd.json" };
  const args = ["run", "--kernels", file, "--tokens", prompt.join(), "--max-new", "40", "--temperature", "0", "--activations", "f32", "--kv", "f32", "--json"];
  const native = JSON.parse(execFileSync(program, args, { env, stdio: ["ignore", "pipe", "ignore"] }));
  assert.deepEqual(native.tokens, greedy);
  // At the next visit it is there, where whole tokens gained.
  await page.reload();
  await ready(page);
  const { why } = await page.evaluate(() => wgforge.model.stats());
  assert.equal(why.includes("tuned in this browser"), tuned.kept, why);
});

test("mistakes have names", async () => {
  const names = await page.evaluate(async () => {
    const name = async (run) => {
      try {
        await run();
        return "none";
      } catch (error) {
        return error.name;
      }
    };
    const drain = async (pieces) => {
      for await (const _ of pieces);
    };
    const { model, WgForge } = wgforge;
    return [
      await name(() => drain(model.chat([]))),
      await name(() => drain(model.chat([{ role: "user", content: "x" }], { temperature: -1 }))),
      await name(() => drain(model.complete([1e6]))),
      await name(() => drain(model.complete(Array(5000).fill(3)))),
      await name(() => WgForge.load({ model: "nowhere/" })),
      await name(() => WgForge.load({ files: [new File(["{}"], "config.json"), new File(["{}"], "tokenizer.json"), new File(["x"], "model.safetensors")] })),
      await name(() => WgForge.load({ signal: AbortSignal.abort() })),
    ];
  });
  const wanted = ["UsageError", "UsageError", "UsageError", "ContextOverflowError", "NetworkError", "ModelError", "AbortError"];
  assert.deepEqual(names, wanted);
  // The browser logs the 404 by itself.
  assert.deepEqual(complaints.filter((text) => !text.includes("/nowhere/")), []);
  complaints.length = 0;
});

test("devices that can do less compute the same", async () => {
  for (const flags of ["no-subgroups", "baseline", "no-subgroups&baseline"]) {
    const other = await open(browser.context, `${site.url}?f32&${flags}`, { complaints });
    await ready(other);
    const { ids, stats } = await complete(other, { temperature: 0, maxTokens: 40 });
    assert.deepEqual(ids, greedy, `${flags}: ${stats.kernels}`);
    await other.close();
  }
});

test("the second visit needs no network", async () => {
  await page.evaluate(() => navigator.serviceWorker.ready);
  await browser.context.setOffline(true);
  // Playwright's switch does not reach the service worker: the server is gone as well.
  site.server.closeAllConnections();
  await new Promise((resolve) => site.server.close(resolve));
  await page.reload();
  await ready(page);
  const { ids } = await complete(page, { temperature: 0, maxTokens: 8 });
  assert.deepEqual(ids, greedy.slice(0, 8));
  await browser.context.setOffline(false);
  assert.deepEqual(complaints.filter((text) => !text.includes("ERR_")), []);
  complaints.length = 0;
});

test("what a visitor fetches is small", () => {
  const names = ["engine/wgforge_web_bg.wasm", "engine/wgforge_web.js"];
  for (const name of ["wgforge", "worker", "download", "store", "files", "errors"]) names.push(`js/${name}.js`);
  const bytes = names.reduce((sum, name) => sum + gzipSync(readFileSync(join(PACKAGE, name)), { level: 9 }).length, 0);
  console.log(`# WebAssembly and JavaScript: ${(bytes / 1e6).toFixed(2)} MB gzipped`);
  assert.ok(bytes < 2.5e6, `${bytes} bytes`);
});
