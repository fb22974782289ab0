// The packed package on somebody's page: docs/web.md's first example, by the letter.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { PACKAGE, ROOT, browse, open } from "./browser.mjs";
import { serve } from "./server.mjs";

test("the example of the documentation runs from the packed tarball", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "wgforge-page-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  execFileSync("npm", ["pack", "--silent", "--pack-destination", folder], { cwd: PACKAGE });
  const [tarball] = readdirSync(folder);
  execFileSync("tar", ["xzf", tarball], { cwd: folder });
  mkdirSync(join(folder, "node_modules"));
  renameSync(join(folder, "package"), join(folder, "node_modules/wgforge"));
  const [, example] = /```html\n([\s\S]*?)```/.exec(readFileSync(join(ROOT, "docs/web.md"), "utf8"));
  writeFileSync(join(folder, "index.html"), example);

  const { server, url } = await serve({ "": folder });
  const browser = await browse();
  t.after(async () => {
    await browser.close();
    server.close();
  });
  const complaints = [];
  const page = await open(browser.context, url, { complaints });
  await page.waitForFunction(() => document.getElementById("answer").textContent.length > 40);
  assert.deepEqual(
    complaints.filter((text) => !text.includes("favicon")),
    [],
  );
});

test("the types describe what is exported", async () => {
  const types = readFileSync(join(PACKAGE, "js/wgforge.d.ts"), "utf8");
  const source = readFileSync(join(PACKAGE, "js/wgforge.js"), "utf8");
  const methods = [...source.matchAll(/^ {2}(?:static )?(?:async )?([a-zA-Z]+)\(.*\{$/gm)].map(([, name]) => name);
  const all = new Set(methods.filter((name) => !["constructor", "toString", "ask", "close"].includes(name)));
  assert.ok(all.size > 6, [...all].join());
  for (const name of all) assert.match(types, new RegExp(`\\b${name}\\(`), name);
});
