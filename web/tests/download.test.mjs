// Fetching a model: interrupted, resumed, damaged, kept.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ROOT, SITE, browse, open, ready } from "./browser.mjs";
import { serve } from "./server.mjs";

const PIECE = 1 << 18;
const folder = mkdtempSync(join(tmpdir(), "wgforge-model-"));
const server = { site: null, sent: 0, limit: Infinity, ranges: [], tag: () => '"1"' };
let browser;
let page;

before(async () => {
  const program = process.env.WGFORGE ?? join(ROOT, "target/debug/wgforge");
  execFileSync(program, ["synth", "--shape", "tiny", "--format", "mobile", "--seed", "3", "--out", folder], { stdio: "ignore" });
  copyFileSync(join(ROOT, "model/demo/tokenizer.json"), join(folder, "tokenizer.json"));
  server.site = await serve(
    { "": SITE, models: folder },
    {
      before(request, response) {
        if (!request.url.startsWith("/models/model.safetensors")) return false;
        server.ranges.push(request.headers.range);
        if (server.sent >= server.limit) {
          request.socket.destroy();
          return true;
        }
        const { write, writeHead } = response;
        response.writeHead = function (status, headers) {
          return writeHead.call(this, status, { ...headers, ETag: server.tag() });
        };
        response.write = function (chunk, ...rest) {
          server.sent += chunk.length;
          // In the midst of a piece, as a train enters a tunnel.
          if (server.sent > server.limit) return request.socket.destroy(), false;
          return write.call(this, chunk, ...rest);
        };
        return false;
      },
    },
  );
  browser = await browse();
  page = await open(browser.context, server.site.url);
  await ready(page);
});

after(async () => {
  await browser?.close();
  server.site?.server.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Loads the model in the page and lets it write; gives what happened. */
function load(options) {
  return page.evaluate(
    async ([options, piece]) => {
      const progress = [];
      const { stopAt, ...rest } = options;
      const stop = new AbortController();
      const onProgress = (event) => {
        progress.push(event);
        if (stopAt && event.phase === "download" && event.loaded > stopAt) stop.abort();
      };
      try {
        const model = await wgforge.WgForge.load({ model: "/models/", pieceBytes: piece, warmUp: false, onProgress, signal: stop.signal, ...rest });
        const ids = [];
        for await (const { token } of model.complete([2], { temperature: 0, maxTokens: 8 })) ids.push(token);
        const stats = await model.stats();
        model.dispose();
        return { ids, stats, progress };
      } catch (error) {
        return { error: { name: error.name, message: error.message }, progress };
      }
    },
    [options, PIECE],
  );
}

test("a download that is cut off says so and goes on after a reload", async () => {
  const size = readFileSync(join(folder, "model.safetensors")).length;
  Object.assign(server, { sent: 0, ranges: [], limit: size / 2 });
  const cut = await load({});
  assert.equal(cut.error?.name, "NetworkError", JSON.stringify(cut));
  assert.match(cut.error.message, /load again/);
  const told = cut.progress.filter((e) => e.phase === "download");
  assert.ok(told.some((e) => e.loaded > 0 && e.loaded < e.total && e.secondsLeft > 0), "progress in bytes and seconds");

  await page.reload();
  await ready(page);
  Object.assign(server, { sent: 0, ranges: [], limit: Infinity });
  const whole = await load({});
  assert.equal(whole.ids?.length, 8, JSON.stringify(whole.error));
  assert.ok(server.sent < size * 0.6, `${server.sent} of ${size} bytes came again`);

  server.ranges = [];
  const again = await load({});
  assert.deepEqual(again.ids, whole.ids);
  assert.deepEqual(server.ranges, [], "nothing is fetched a third time");
});

test("what is damaged where it is kept is fetched again", async () => {
  const whole = await load({});
  await page.evaluate(async () => {
    const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("wgforge");
    for await (const model of root.values()) {
      for await (const handle of model.values()) {
        if (!handle.name.includes(".00003.")) continue;
        const writable = await handle.createWritable({ keepExistingData: true });
        await writable.write({ type: "write", position: 99, data: new Uint8Array([1, 2, 3, 4]) });
        await writable.close();
      }
    }
  });
  server.ranges = [];
  const mended = await load({});
  assert.deepEqual(mended.ids, whole.ids);
  assert.deepEqual(server.ranges, [`bytes=${3 * PIECE}-${4 * PIECE - 1}`], "only that piece");
});

test("stopping keeps what arrived; files can be removed", async () => {
  const names = await page.evaluate(() => wgforge.WgForge.kept());
  assert.equal(names.length, 1);
  await page.evaluate((name) => wgforge.WgForge.remove(name), names[0]);
  assert.deepEqual(await page.evaluate(() => wgforge.WgForge.kept()), []);
  server.sent = 0;
  const stopped = await load({ stopAt: 3e6 });
  assert.equal(stopped.error?.name, "AbortError");
  server.sent = 0;
  const size = readFileSync(join(folder, "model.safetensors")).length;
  assert.equal((await load({})).ids?.length, 8);
  assert.ok(server.sent < size - 1e6, `${server.sent} of ${size} bytes came again`);
});

test("without a place to keep files they are read over the network", async () => {
  const kept = await load({});
  server.ranges = [];
  const direct = await load({ keep: false });
  assert.deepEqual(direct.ids, kept.ids, JSON.stringify(direct.error));
  assert.ok(server.ranges.length > 10, "by ranges");
});

test("where private files are missing the cache keeps them", async () => {
  const kept = await load({});
  await browser.context.addInitScript(() => {});
  const worker = readFileSync(join(SITE, "wgforge/js/store.js"), "utf8");
  await browser.context.route("**/wgforge/js/store.js", (route) =>
    route.fulfill({ contentType: "text/javascript", body: worker.replace("[PrivateFiles, Cached]", "[Cached]") }),
  );
  await page.evaluate(async () => {
    for (const registration of await navigator.serviceWorker.getRegistrations()) await registration.unregister();
  });
  await page.reload();
  await ready(page);
  const first = await load({});
  assert.deepEqual(first.ids, kept.ids, JSON.stringify(first.error));
  server.ranges = [];
  assert.deepEqual((await load({})).ids, kept.ids);
  assert.deepEqual(server.ranges, [], "nothing is fetched again");
  await browser.context.unroute("**/wgforge/js/store.js");
});

test("small bindings split tables and leave some to the host", async () => {
  const whole = await load({});
  const split = await load({ maxBindingBytes: 1 << 17 });
  assert.deepEqual(split.ids, whole.ids, JSON.stringify(split.error));
});

test("files dropped on the page are a model", async () => {
  const whole = await load({});
  const ids = await page.evaluate(async () => {
    const names = ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"];
    const files = await Promise.all(names.map(async (name) => new File([await (await fetch(`/models/${name}`)).blob()], name)));
    const model = await wgforge.WgForge.load({ files, warmUp: false });
    const ids = [];
    for await (const { token } of model.complete([2], { temperature: 0, maxTokens: 8 })) ids.push(token);
    model.dispose();
    return ids;
  });
  assert.deepEqual(ids, whole.ids);
});

test("a file that changes while it is fetched begins anew", async () => {
  const kept = await load({});
  for (const name of await page.evaluate(() => wgforge.WgForge.kept())) await page.evaluate((n) => wgforge.WgForge.remove(n), name);
  Object.assign(server, { ranges: [], sent: 0, tag: () => (server.ranges.length > 6 ? '"3"' : '"2"') });
  const changed = await load({});
  assert.equal(changed.error?.name, "NetworkError", JSON.stringify(changed));
  assert.match(changed.error.message, /changed/);
  Object.assign(server, { sent: 0, tag: () => '"3"' });
  assert.deepEqual((await load({})).ids, kept.ids);
  const size = readFileSync(join(folder, "model.safetensors")).length;
  assert.ok(server.sent > size * 0.9, "nothing of the other version is used");
});

test("a server without ranges, a header that lies", async () => {
  const answers = [];
  await page.context().route("**/lies/**", (route) => {
    const name = route.request().url().split("/").at(-1);
    if (name !== "model.safetensors") return route.fulfill({ path: join(folder, name) });
    return route.fulfill(answers[0](route.request()));
  });
  const range = (bytes, total) => () => ({ status: 206, headers: { "Content-Range": `bytes 0-${bytes.length - 1}/${total}` }, body: Buffer.from(bytes) });
  const lies = [
    [() => ({ status: 200, body: "all of it" }), "NetworkError", /ranges/],
    [range([1, 2, 3], 3), "ModelError", /3 bytes/],
    [range([255, 255, 255, 255, 255, 255, 255, 127, 0, 0], 10), "ModelError", /safetensors/],
    [range([2, 0, 0, 0, 0, 0, 0, 0, 91, 93, 0], 11), "ModelError", /./],
  ];
  for (const [answer, name, text] of lies) {
    answers[0] = answer;
    const { error } = await load({ model: "/lies/", keep: false });
    assert.equal(error?.name, name, JSON.stringify(error));
    assert.match(error.message, text);
  }
});
