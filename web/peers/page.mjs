// In the page: the same products by both, timed in turns.

import * as ort from "/ort/ort.webgpu.bundle.min.mjs";
import { chain } from "/peers/onnx.mjs";

let seed = 1;
const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;

/** Ours: kernels rendered by `wgforge kernels show`, as a decoded token runs them. */
function ours(device, kernels, sizes) {
  const storage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
  const buffer = (size) => device.createBuffer({ size: Math.ceil(size / 256) * 256, usage: storage });
  const vectors = sizes.map((n) => buffer(n * 4));
  const steps = sizes.slice(1).map((rows, i) => {
    const kernel = kernels[`${rows}x${sizes[i]}`];
    const module = device.createShaderModule({ code: kernel.wgsl });
    const pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
    const weights = buffer((rows * sizes[i]) / 2);
    const codes = new Uint8Array((rows * sizes[i]) / 2);
    for (let k = 0; k < codes.length; k++) codes[k] = random() * 256;
    device.queue.writeBuffer(weights, 0, codes);
    const scales = buffer((rows * sizes[i]) / 16);
    device.queue.writeBuffer(scales, 0, new Uint16Array((rows * sizes[i]) / 32).fill(0x211f));
    const found = { x: vectors[i], w: weights, scale: scales, scales, y: vectors[i + 1], out: vectors[i + 1] };
    const entries = kernel.bindings.map(({ name }, binding) => {
      if (!found[name]) throw new Error(`no buffer for ${name}`);
      return { binding, resource: { buffer: found[name] } };
    });
    return { pipeline, group: device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }), groups: kernel.groups };
  });
  return async (times) => {
    for (let t = 0; t < times; t++) {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      for (const { pipeline, group, groups } of steps) {
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group);
        pass.dispatchWorkgroups(...groups);
      }
      pass.end();
      device.queue.submit([encoder.finish()]);
    }
    await device.queue.onSubmittedWorkDone();
  };
}

async function theirs(sizes) {
  const session = await ort.InferenceSession.create(chain(sizes, random), { executionProviders: ["webgpu"], preferredOutputLocation: "gpu-buffer" });
  const device = await ort.env.webgpu.device;
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const input = device.createBuffer({ size: sizes[0] * 4, usage });
  device.queue.writeBuffer(input, 0, new Float32Array(sizes[0]).fill(0.01));
  const x0 = ort.Tensor.fromGpuBuffer(input, { dataType: "float32", dims: [1, sizes[0]] });
  return {
    device,
    async run(times) {
      for (let t = 0; t < times; t++) Object.values(await session.run({ x0 })).forEach((y) => y.dispose());
      await device.queue.onSubmittedWorkDone();
    },
  };
}

globalThis.compare = async (kernels, sizes, rounds, times) => {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/ort/";
  const peer = await theirs(sizes);
  const mine = ours(peer.device, kernels, sizes);
  const time = async (run) => {
    const begun = performance.now();
    await run(times);
    return ((performance.now() - begun) * 1000) / times / (sizes.length - 1);
  };
  const all = { ours: [], theirs: [] };
  // The first compiles.
  for (let round = 0; round <= rounds; round++) {
    const [a, b] = [await time(mine), await time(peer.run)];
    if (round > 0) all.ours.push(a), all.theirs.push(b);
  }
  return all;
};
globalThis.loaded = true;
