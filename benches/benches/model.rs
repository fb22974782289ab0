//! The demo model as a whole, on the device and in the reference; and what a token costs the host, on a
//! device that computes nothing: for another model name its folder in `WGFORGE_BENCH_MODEL`, for a tuned
//! card's plan its database in `WGFORGE_BENCH_KERNELS`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pollster::block_on;
use wgforge_benches::device;
use wgforge_codegen::{Caps, Database};
use wgforge_model::{Checkpoint, Choice, Kernels, Model, Options, Request, Stats, Target};
use wgforge_runtime::{Backend, Device, DeviceOptions};

const PROMPT: u32 = 128;
const TOKENS: u32 = 64;

fn model(c: &mut Criterion) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/demo");
    let checkpoint = Arc::new(Checkpoint::open(folder).expect("the demo model is part of the repository"));
    let mut targets = vec![("reference", Target::Reference)];
    if let Some(device) = device() {
        let kernels = Kernels::generic(device.caps());
        targets.push(("device", Target::Gpu(device, kernels)));
    }
    for (place, target) in targets {
        let mut model = block_on(Model::load(&checkpoint, target, &Options::default(), &mut |_| {}))
            .expect("the demo model loads anywhere");
        let mut group = c.benchmark_group(format!("demo model, {place}"));
        group.sample_size(10);
        group.throughput(Throughput::Elements(u64::from(PROMPT)));
        group.bench_function(format!("prefill of {PROMPT} tokens"), |b| {
            b.iter_custom(|n| repeated(n, &mut model, 1, |s| s.first_token_s));
        });
        group.throughput(Throughput::Elements(u64::from(TOKENS)));
        group.bench_function(format!("decode of {TOKENS} tokens behind {PROMPT}"), |b| {
            b.iter_custom(|n| repeated(n, &mut model, TOKENS + 1, |s| s.decode_s));
        });
        group.finish();
    }
}

/// The seconds `part` of `n` generations.
fn repeated(n: u64, model: &mut Model, max_new: u32, part: fn(&Stats) -> f64) -> Duration {
    let prompt = (0..PROMPT).map(|i| 300 + i * 7 % 1500).collect();
    let request = Request { prompt, max_new, choice: Choice::Greedy, stop: Vec::new() };
    let mut seconds = 0.0;
    for _ in 0..n {
        model.reset();
        let stats = block_on(model.generate(&request, &mut |_| ControlFlow::Continue(())));
        seconds += part(&stats.expect("the prompt fits the context"));
    }
    Duration::from_secs_f64(seconds)
}

/// The host's part of a token: recording, submitting, reading back.
fn recording(c: &mut Criterion) {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/demo");
    let folder = std::env::var_os("WGFORGE_BENCH_MODEL").map_or(demo, PathBuf::from);
    let checkpoint = Arc::new(Checkpoint::open(&folder).expect("a checkpoint"));
    let options = DeviceOptions { backend: Some(Backend::Noop), ..DeviceOptions::default() };
    let device = block_on(Device::request(&options)).expect("the stub is always there");
    let kernels = kernels(device.caps());
    let target = Target::Gpu(device, kernels);
    let mut model =
        block_on(Model::load(&checkpoint, target, &Options::default(), &mut |_| {})).expect("it loads");
    let mut group = c.benchmark_group(format!("{}, nothing computed", model.label()));
    group.throughput(Throughput::Elements(u64::from(TOKENS)));
    group.bench_function(format!("decode of {TOKENS} tokens behind {PROMPT}"), |b| {
        b.iter_custom(|n| repeated(n, &mut model, TOKENS + 1, |s| s.decode_s));
    });
    group.finish();
}

/// The kernels of the database that `WGFORGE_BENCH_KERNELS` names, or of none.
fn kernels(caps: &Caps) -> Kernels {
    let Some(file) = std::env::var_os("WGFORGE_BENCH_KERNELS") else { return Kernels::generic(caps) };
    let text = std::fs::read_to_string(&file).expect("a database");
    let database = Database::parse(&file.to_string_lossy(), &text).expect("a database");
    let variants = database.entries().iter().map(|entry| entry.variant.clone()).collect();
    let (kernels, refused) = Kernels::tuned(caps, "named", variants);
    for reason in refused {
        eprintln!("left out: {reason}");
    }
    kernels
}

criterion_group!(benches, model, recording);
criterion_main!(benches);
