//! How fast this device reads memory: what a decoder that waits for nothing else would reach.

use wgforge_runtime::{Access, BindGroup, Binding, Device, KernelSource, Pipeline, Recorder, Result, Slice};

use crate::time::Clock;

/// Bytes a thread reads at a time.
const QUAD: u64 = 16;
const THREADS: u64 = 256;
/// What buffers are a multiple of, so that no workgroup reads beyond the end.
const GRAIN: u64 = 1 << 20;
/// More than any cache holds. A software adapter has no more bandwidth for more bytes.
const TOTAL: u64 = 1 << 30;
const TOTAL_ON_CPU: u64 = 256 << 20;
/// One buffer; larger ones are no faster.
const LARGEST: u64 = 256 << 20;
/// Quads a thread reads, one variant of the kernel each.
const QUADS_PER_THREAD: [u64; 3] = [4, 16, 64];
/// Passes over all buffers for each variant; the best counts.
const ROUNDS: usize = 5;

/// Bytes read a second, in GB (10^9), by the best of a few plain kernels.
///
/// # Errors
/// A device that has no room for the buffers, or fails.
pub async fn read_gb_s(device: &Device) -> Result<f64> {
    read_gb_s_by(device, &Clock::probe(device).await?).await
}

/// The same by a clock that is known already.
pub(crate) async fn read_gb_s_by(device: &Device, clock: &Clock) -> Result<f64> {
    let total = if device.report().device_type == "cpu" { TOTAL_ON_CPU } else { TOTAL };
    let buffers = buffers(device, total).await?;
    // One word for each workgroup, so that nothing read is without use.
    let out = device.buffer("bandwidth out", (LARGEST / QUAD / THREADS) * 4).await?;
    fill(device, &buffers).await?;
    let mut best = 0.0f64;
    for quads in QUADS_PER_THREAD {
        let wgsl = read_wgsl(quads);
        let bindings = [("data", Access::Read), ("out", Access::ReadWrite)];
        let pipeline = pipeline(device, "bandwidth", &wgsl, &bindings).await?;
        let mut work = Vec::new();
        for buffer in &buffers {
            let group = pipeline.bind(device, &[buffer.clone(), out.clone()])?;
            work.push((group, buffer.size / QUAD / THREADS / quads, buffer.size));
        }
        // The first round pays for compilation.
        for round in 0..=ROUNDS {
            let rate = measure(device, clock, &pipeline, &work).await?;
            if round > 0 {
                best = best.max(rate);
            }
        }
    }
    Ok(best)
}

/// As many bytes as there is room for, up to `total`, in buffers that can be bound.
async fn buffers(device: &Device, total: u64) -> Result<Vec<Slice>> {
    let caps = device.caps();
    let most = caps.max_binding_bytes.min(caps.max_buffer_bytes).min(LARGEST).min(total) / GRAIN * GRAIN;
    // 65535 workgroups a dimension is what any device allows; the smallest variant needs most.
    let groups = u64::from(caps.max_groups) * THREADS * QUAD * QUADS_PER_THREAD[0];
    let size = most.min(groups / GRAIN * GRAIN).max(GRAIN);
    let mut all = Vec::new();
    while (all.len() as u64 + 1) * size <= total {
        match device.buffer("bandwidth", size).await {
            Ok(buffer) => all.push(buffer),
            // What fits beside the model has to do.
            Err(_) if !all.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Writes noise: memory that was never written, or holds only zeros, may cost nothing to read.
async fn fill(device: &Device, buffers: &[Slice]) -> Result<()> {
    let quads = QUADS_PER_THREAD[0];
    let wgsl = format!(
        "@group(0) @binding(0) var<storage, read_write> data: array<vec4<u32>>;\n\
         @compute @workgroup_size({THREADS})\n\
         fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {{\n\
         for (var i = 0u; i < {quads}u; i++) {{\n\
         let at = group.x * {span}u + i * {THREADS}u + thread;\n\
         data[at] = (vec4(at) + vec4(0u, 1u, 2u, 3u)) * 2654435769u;\n}}\n}}\n",
        span = THREADS * quads
    );
    let pipeline = pipeline(device, "bandwidth fill", &wgsl, &[("data", Access::ReadWrite)]).await?;
    let mut recorder = Recorder::new(device, "bandwidth fill");
    for buffer in buffers {
        let group = pipeline.bind(device, std::slice::from_ref(buffer))?;
        recorder.pass("fill").dispatch(&pipeline, &group, groups(buffer.size / QUAD / THREADS / quads))?;
    }
    recorder.submit().wait().await
}

/// Bytes a second of one pass over all buffers, in GB.
async fn measure(
    device: &Device,
    clock: &Clock,
    pipeline: &Pipeline,
    work: &[(BindGroup, u64, u64)],
) -> Result<f64> {
    let count = u32::try_from(work.len()).unwrap_or(u32::MAX);
    let us = match clock {
        Clock::Gpu { .. } => stamped_us(device, count, pipeline, work).await?,
        Clock::Host => {
            let each = clock
                .time(device, count, &mut |pass, i| {
                    let (group, workgroups, _) = &work[i as usize % work.len()];
                    pass.dispatch(pipeline, group, groups(*workgroups))
                })
                .await?;
            each * f64::from(count)
        }
    };
    let bytes: u64 = work.iter().map(|(.., bytes)| bytes).sum();
    // A clock that stood still says nothing.
    Ok(if us > 0.0 { bytes as f64 / us / 1e3 } else { 0.0 })
}

/// The GPU's time for each buffer, without what lies between them.
async fn stamped_us(
    device: &Device,
    count: u32,
    pipeline: &Pipeline,
    work: &[(BindGroup, u64, u64)],
) -> Result<f64> {
    let mut recorder = Recorder::with_timestamps(device, count)?;
    for (group, workgroups, _) in work {
        recorder.pass("bandwidth").dispatch(pipeline, group, groups(*workgroups))?;
    }
    let times = recorder.submit().timestamps().read().await?;
    Ok(times.unwrap_or_default().iter().sum())
}

fn groups(n: u64) -> [u32; 3] {
    [u32::try_from(n).unwrap_or(u32::MAX), 1, 1]
}

async fn pipeline(device: &Device, label: &str, wgsl: &str, bindings: &[(&str, Access)]) -> Result<Pipeline> {
    let bindings: Vec<Binding> =
        bindings.iter().map(|(name, access)| Binding { name: (*name).to_owned(), access: *access }).collect();
    device.pipeline(&KernelSource { label, wgsl, bindings: &bindings }).await
}

/// A workgroup reads one stretch of memory, neighbouring threads neighbouring quads.
fn read_wgsl(quads: u64) -> String {
    format!(
        "@group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;\n\
         @group(0) @binding(1) var<storage, read_write> out: array<atomic<u32>>;\n\
         @compute @workgroup_size({THREADS})\n\
         fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {{\n\
         let start = group.x * {span}u + thread;\n\
         var sum = vec4(0u);\n\
         for (var i = 0u; i < {quads}u; i += 4u) {{\n\
         let at = start + i * {THREADS}u;\n\
         sum ^= data[at] ^ data[at + {one}u] ^ data[at + {two}u] ^ data[at + {three}u];\n\
         }}\n\
         // Almost never true, which no compiler can know.\n\
         if all(sum == vec4(305419896u)) {{ atomicAdd(&out[group.x], 1u); }}\n}}\n",
        span = THREADS * quads,
        one = THREADS,
        two = 2 * THREADS,
        three = 3 * THREADS,
    )
}
