//! Residual and `RMSNorm` at E2B's width, for one token and for a chunk.

use criterion::{Criterion, criterion_group, criterion_main};
use wgforge_benches::{add, device};
use wgforge_codegen::Workload;
use wgforge_codegen::kernels::norm::Shape;
use wgforge_codegen::types::Act;

fn norm(c: &mut Criterion) {
    let Some(device) = device() else { return };
    for tokens in [1, 512] {
        for (name, out) in [("to int8", Act::I8), ("to f16", Act::F16)] {
            let shape = Shape {
                width: 1536,
                residual: true,
                y: Act::F16,
                scaled: false,
                norm: true,
                out: Some(out),
                eps: 1e-6,
                banks: 1,
            };
            add(c, &device, &format!("{name}, {tokens} tokens"), &Workload::Norm(shape), tokens, 0);
        }
    }
}

criterion_group!(benches, norm);
criterion_main!(benches);
