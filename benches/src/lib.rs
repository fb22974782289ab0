//! What the benchmarks share: a kernel with buffers to run on, and its time on the GPU.
//!
//! Each benchmark is named after its kernel: `cargo bench -p wgforge-benches --bench gemv`.
//! Without an adapter they say so and measure nothing.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use pollster::block_on;
use wgforge_codegen::kernels::gemv;
use wgforge_codegen::types::{Act, Format, Scale};
use wgforge_codegen::{
    Target, Workload,
    check::{Case, Inputs},
};
use wgforge_runtime::{
    BindGroup, Device, DeviceOptions, KernelSource, Pipeline, Recorder, Result, Slice, bytemuck,
};

/// Dispatches of one submission: enough to hide its cost, few enough not to hang a desktop.
const BATCH: u64 = 64;
/// Bytes that rotated copies of a kernel's buffers fill, so that no cache holds them.
const ROTATED: u64 = 256 << 20;

/// The device to measure on; `None`, with a notice, where there is none.
pub fn device() -> Option<Device> {
    match block_on(Device::request(&DeviceOptions::default())) {
        Ok(device) => {
            eprintln!("on {}", device.report());
            Some(device)
        }
        Err(error) => {
            eprintln!("nothing is measured: {error}");
            None
        }
    }
}

/// A kernel ready to run again and again.
#[derive(Debug)]
pub struct Bench {
    device: Device,
    pipeline: Pipeline,
    /// One for each copy of the buffers.
    bound: Vec<BindGroup>,
    groups: [u32; 3],
    /// Of one copy.
    bytes: u64,
}

impl Bench {
    /// The generic variant of `workload` for `tokens` tokens behind `position` others, on random
    /// numbers.
    ///
    /// # Errors
    /// A kernel that this device does not compile, or buffers it has no room for.
    pub fn new(device: &Device, workload: &Workload, tokens: u32, position: u32) -> Result<Self> {
        let variant = workload.generic(device.caps());
        let rendered = variant
            .render(Target::Native)
            .unwrap_or_else(|e| panic!("the generic variant is a valid shader: {e}"));
        let source =
            KernelSource { label: variant.kernel(), wgsl: &rendered.wgsl, bindings: &rendered.bindings };
        let pipeline = block_on(device.pipeline(&source))?;
        let case = Case::draw(&variant, Inputs::Random, tokens, position, 1);
        let bytes: u64 = case.buffers.iter().map(|words| words.len() as u64 * 4).sum();
        // Software adapters have no memory of their own to be measured.
        let copies = if device.report().device_type == "cpu" { 1 } else { (ROTATED / bytes).clamp(1, 16) };
        let mut bound = Vec::new();
        for _ in 0..copies {
            let mut slices: Vec<Slice> = Vec::new();
            for (name, words) in variant.bindings().into_iter().zip(&case.buffers) {
                let size = (words.len() as u64 * 4).next_multiple_of(16);
                let slice = block_on(device.buffer(name, size))?;
                device.write(&slice, 0, bytemuck::cast_slice(words));
                slices.push(slice);
            }
            bound.push(pipeline.bind(device, &slices)?);
        }
        device.check()?;
        Ok(Self { device: device.clone(), pipeline, bound, groups: variant.groups(case.tokens), bytes })
    }

    /// The time `dispatches` dispatches take: by the GPU's clock where there is one.
    ///
    /// # Errors
    /// A failing device.
    pub fn time(&self, dispatches: u64) -> Result<Duration> {
        let mut total = Duration::ZERO;
        let mut done = 0;
        while done < dispatches {
            let n = BATCH.min(dispatches - done);
            let mut recorder = Recorder::with_timestamps(&self.device, 1)?;
            let mut pass = recorder.pass("bench");
            for group in self.bound.iter().cycle().take(usize::try_from(n).unwrap_or(1)) {
                pass.dispatch(&self.pipeline, group, self.groups)?;
            }
            drop(pass);
            let start = Instant::now();
            let submission = recorder.submit();
            block_on(submission.wait())?;
            let wall = start.elapsed();
            let times = block_on(submission.timestamps().read())?;
            total += times.map_or(wall, |us| Duration::from_secs_f64(us.iter().sum::<f64>() / 1e6));
            done += n;
        }
        Ok(total)
    }
}

/// Adds one benchmark to a group; its throughput is that of all bound bytes. What does not fit
/// the device is left out, with the reason.
pub fn add(c: &mut Criterion, device: &Device, name: &str, workload: &Workload, tokens: u32, position: u32) {
    let bench = match Bench::new(device, workload, tokens, position) {
        Ok(bench) => bench,
        Err(error) => {
            eprintln!("{name} is left out: {error}");
            return;
        }
    };
    let mut group = c.benchmark_group(workload.kernel());
    group.sample_size(10).throughput(Throughput::Bytes(bench.bytes));
    group.bench_function(name, |b| {
        b.iter_custom(|n| bench.time(n).unwrap_or_else(|e| panic!("{name}: {e}")));
    });
    group.finish();
}

/// The matrices of Gemma 4 E2B that decoding spends most of its time on, by name.
pub fn products() -> Vec<(String, gemv::Shape)> {
    let shape = |rows, columns, format, scale, x, out, epilogue| gemv::Shape {
        rows,
        total: rows,
        first: 0,
        columns,
        format,
        scale,
        x,
        out,
        grids: x == Act::I8,
        epilogue,
        split_a: 0,
        split_b: 0,
        softcap: 0.0,
        norm: None,
        tops: 0,
    };
    let mut all = Vec::new();
    for (layout, format, scale, x) in [
        ("mobile int4", Format::I4, Scale::Row, Act::I8),
        ("mobile int2", Format::I2, Scale::Row, Act::I8),
        ("int4 groups", Format::I4, Scale::Group, Act::F16),
        ("int8 groups", Format::I8, Scale::Group, Act::F16),
        ("bf16", Format::Bf16, Scale::None, Act::F16),
    ] {
        let hidden = if x == Act::I8 { Act::I8 } else { Act::F16 };
        all.push((
            format!("{layout} o 1536x2048"),
            shape(1536, 2048, format, scale, x, Act::F16, gemv::Epilogue::Store),
        ));
        all.push((
            format!("{layout} gate+up 6144x1536"),
            shape(6144, 1536, format, scale, x, hidden, gemv::Epilogue::Geglu),
        ));
        all.push((
            format!("{layout} down 1536x6144"),
            shape(1536, 6144, format, scale, x, Act::F16, gemv::Epilogue::Store),
        ));
    }
    all
}
