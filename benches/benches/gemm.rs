//! Matrix times matrix: what prefill consists of.

use criterion::{Criterion, criterion_group, criterion_main};
use wgforge_benches::{add, device, products};
use wgforge_codegen::Workload;

fn gemm(c: &mut Criterion) {
    let Some(device) = device() else { return };
    // A chunk of prefill; a software adapter would take seconds for one.
    let tokens = if device.report().device_type == "cpu" { 64 } else { 512 };
    for (name, shape) in products() {
        let name = format!("{name}, {tokens} tokens");
        add(c, &device, &name, &Workload::Gemm(shape), tokens, 0);
    }
}

criterion_group!(benches, gemm);
criterion_main!(benches);
