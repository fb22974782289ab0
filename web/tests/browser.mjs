// Chromium on SwiftShader, and what the tests share.

import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { chromium } from "playwright-core";

export const ROOT = resolve(import.meta.dirname, "../..");
export const SITE = join(ROOT, "target/web/site");
export const PACKAGE = join(ROOT, "target/web/package");

if (!existsSync(SITE)) throw new Error(`${SITE} is missing: run \`cargo xtask web\` first`);

/** A browser with a profile of its own, which outlives `close` where a folder is given. */
export async function browse(profile) {
  const folder = profile ?? mkdtempSync(join(tmpdir(), "wgforge-browser-"));
  const context = await chromium.launchPersistentContext(folder, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    viewport: { width: 1100, height: 800 },
    args: [
      "--no-sandbox",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-quic",
      "--disable-sync",
      // WebGPU in software is off by default.
      "--enable-unsafe-webgpu",
    ],
  });
  context.setDefaultTimeout(300_000);
  return {
    context,
    async close() {
      await context.close();
      if (!profile) rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A page whose mistakes are the test's: nothing may be thrown, refused or logged as an error. */
export async function open(context, url, { complaints = [] } = {}) {
  const page = await context.newPage();
  page.on("console", (message) => message.type() === "error" && complaints.push(`${message.text()} ${message.location().url}`));
  page.on("pageerror", (error) => complaints.push(error.stack));
  await page.goto(url);
  return page;
}

/** Waits until the page's model can be asked. */
export async function ready(page) {
  await page.waitForFunction(() => globalThis.wgforge?.model && !document.querySelector("#send").disabled);
}

/** Tensors of integers in a safetensors file. */
export function integers(path, name) {
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE(0));
  const info = JSON.parse(bytes.subarray(8, 8 + length))[name];
  const data = bytes.subarray(8 + length + info.data_offsets[0], 8 + length + info.data_offsets[1]);
  return Array.from({ length: data.length / 8 }, (_, i) => Number(data.readBigInt64LE(8 * i)));
}
