//! Rotation and attention of one token in one dispatch, for E2B's layers with a cache of their own and
//! for those that share another's.

use criterion::{Criterion, criterion_group, criterion_main};
use wgforge_benches::{add, device};
use wgforge_codegen::Workload;
use wgforge_codegen::kernels::decode_attention::Shape;
use wgforge_codegen::types::Act;

fn decode_attention(c: &mut Criterion) {
    let Some(device) = device() else { return };
    for (layer, dim, rotary, window, ring) in [("sliding", 256, 128, 512, 1024), ("full", 512, 64, 0, 0)] {
        for (cache, append) in [("own", true), ("shared", false)] {
            for context in [512, 4096] {
                let shape = Shape {
                    heads: 8,
                    kv_heads: 1,
                    dim,
                    rotary,
                    window,
                    ring,
                    append,
                    qkv: Act::F16,
                    kv: Act::F16,
                    out: Act::F16,
                    eps: 1e-6,
                    then: None,
                    first: None,
                    deep: false,
                };
                let name = format!("{layer}, {cache} cache behind {context}");
                add(c, &device, &name, &Workload::DecodeAttention(shape), 1, context);
            }
        }
    }
}

criterion_group!(benches, decode_attention);
criterion_main!(benches);
