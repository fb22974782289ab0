//! Attention of E2B's two kinds of layers, for one token and for a chunk.

use criterion::{Criterion, criterion_group, criterion_main};
use wgforge_benches::{add, device};
use wgforge_codegen::Workload;
use wgforge_codegen::kernels::attention::Shape;
use wgforge_codegen::types::Act;

fn attention(c: &mut Criterion) {
    let Some(device) = device() else { return };
    let chunk = if device.report().device_type == "cpu" { 16 } else { 512 };
    for (layer, dim, window, ring) in [("sliding", 256, 512, 1024), ("full", 512, 0, 0)] {
        for (phase, decode, tokens) in [("decode", true, 1), ("prefill", false, chunk)] {
            for context in [512, 4096] {
                let shape = Shape {
                    heads: 8,
                    kv_heads: 1,
                    dim,
                    window,
                    ring,
                    q: Act::F16,
                    kv: Act::F16,
                    out: Act::F16,
                    decode,
                };
                let name = format!("{layer} {phase} of {tokens} behind {context}");
                add(c, &device, &name, &Workload::Attention(shape), tokens, context);
            }
        }
    }
}

criterion_group!(benches, attention);
criterion_main!(benches);
