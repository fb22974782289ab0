//! Matrix times vector: what decoding consists of.

use criterion::{Criterion, criterion_group, criterion_main};
use wgforge_benches::{add, device, products};
use wgforge_codegen::Workload;

fn gemv(c: &mut Criterion) {
    let Some(device) = device() else { return };
    for (name, shape) in products() {
        add(c, &device, &name, &Workload::Gemv(shape), 1, 0);
    }
}

criterion_group!(benches, gemv);
criterion_main!(benches);
