//! Two products of one token in one dispatch: E2B's feed-forward blocks and its per-layer inputs.

use criterion::{Criterion, criterion_group, criterion_main};
use wgforge_benches::{add, device};
use wgforge_codegen::{Workload, shapes};

fn gemv_pair(c: &mut Criterion) {
    let Some(device) = device() else { return };
    for workload in shapes::e2b() {
        let Workload::GemvPair(shape) = &workload else { continue };
        // As plans that join all products have it.
        if shape.first.norm.as_ref().is_some_and(|n| n.y.is_sum()) {
            let first = &shape.first;
            let name = format!(
                "{}x{} {:?} {:?}, then {}",
                first.rows, first.columns, first.format, first.scale, shape.second.rows
            );
            add(c, &device, &name, &workload, 1, 0);
        }
    }
}

criterion_group!(benches, gemv_pair);
criterion_main!(benches);
