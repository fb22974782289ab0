// Compiles every .wgsl file of a folder with Tint, the shader compiler of Chrome, through Dawn's
// null backend: no driver and no GPU. Prints every complaint with its file, and fails on any error.
//
//   node check.mjs FOLDER
//
// FOLDER/index.json, where present, maps file names to what was rendered.

import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { create, globals } from 'webgpu';

Object.assign(globalThis, globals);

const folder = process.argv[2];
if (!folder) {
  console.error('usage: node check.mjs FOLDER');
  process.exit(2);
}
const files = readdirSync(folder).filter((name) => name.endsWith('.wgsl')).sort();
const indexPath = join(folder, 'index.json');
const index = existsSync(indexPath) ? JSON.parse(readFileSync(indexPath, 'utf8')) : {};

const gpu = create(['backend=null', 'enable-dawn-features=allow_unsafe_apis']);

async function openDevice() {
  const adapter = await gpu.requestAdapter();
  const requiredFeatures = ['shader-f16', 'subgroups'].filter((name) => adapter?.features.has(name));
  if (requiredFeatures.length < 2) {
    console.error("Dawn's null backend gave no adapter with shader-f16 and subgroups");
    process.exit(1);
  }
  const requiredLimits = {};
  for (const name in adapter.limits) {
    const value = adapter.limits[name];
    if (typeof value === 'number') requiredLimits[name] = value;
  }
  return adapter.requestDevice({ requiredFeatures, requiredLimits });
}

// The text around a complaint, with a caret under its column.
function excerpt(code, message) {
  if (!message.lineNum) return '';
  const line = code.split('\n')[message.lineNum - 1] ?? '';
  const caret = ' '.repeat(Math.max(0, message.linePos - 1)) + '^';
  return `\n    ${String(message.lineNum).padStart(4)} | ${line}\n         | ${caret}`;
}

// The null device grants the WebGPU baseline only; larger shaders are compiled but get no pipeline.
const beyondLimits = /exceeds the maximum allowed|exceeds the maximum per-stage limit|workgroup storage|invocations/;

let failed = 0;
let large = 0;
let warned = 0;
let device;
for (const [i, file] of files.entries()) {
  // Dawn keeps every module it was given, and crashes after some ten thousand.
  if (i % 2000 === 0) {
    device?.destroy();
    await new Promise((resume) => setImmediate(resume));
    device = await openDevice();
  }
  const code = readFileSync(join(folder, file), 'utf8');
  const complaints = [];
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code });
  const { messages } = await module.getCompilationInfo();
  for (const message of messages) {
    if (message.type === 'error') complaints.push(message.message + excerpt(code, message));
    else if (message.type === 'warning') {
      warned += 1;
      console.log(`warning: ${file}: ${message.message}${excerpt(code, message)}`);
    }
  }
  if (complaints.length === 0) {
    device.createComputePipeline({ layout: 'auto', compute: { module, entryPoint: 'main' } });
  }
  const error = await device.popErrorScope();
  if (error && complaints.length === 0) {
    if (beyondLimits.test(error.message)) large += 1;
    else complaints.push(error.message);
  }
  if (complaints.length > 0) {
    failed += 1;
    console.log(`error: ${file}${index[file] ? ` (${index[file]})` : ''}`);
    for (const complaint of complaints) console.log(`  ${complaint}`);
  }
}
console.log(
  `tint: ${files.length} shaders, ${failed} with errors, ${warned} warnings` +
    ` (${large} beyond the limits of the null device: compiled, no pipeline)`,
);
device?.destroy();
// Dawn keeps the event loop alive.
process.exit(failed > 0 || files.length === 0 ? 1 : 0);
