//! A layer `max(x W + bias, 0)` on the GPU, by kernels that were tuned before and embedded.

use wgforge_runtime::{Device, Kernel, KernelInfo, Recorder, Result, bytemuck};

/// What the build script wrote: a module a database, and the choice among them.
pub mod kernels {
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

pub use kernels::generic::{MatmulBiasRelu512x1024F16 as LayerF16, MatmulBiasRelu512x1024F32 as LayerF32};

/// Inputs of the layer.
pub const INPUTS: usize = 512;
/// Outputs of the layer.
pub const OUTPUTS: usize = 1024;

/// The best kernel for the shape of `K` on this device, its database, and its workgroups.
pub fn choose<K: Kernel>(
    device: &Device,
    tokens: u32,
) -> Option<(&'static str, &'static KernelInfo, [u32; 3])> {
    let (report, shape) = (device.report(), K::INFO.shape);
    kernels::sets_for(device.caps(), &report.name, report.vendor).into_iter().find_map(|set| {
        Some((
            set.name,
            set.find_within(device.caps(), K::INFO.kernel, shape)?,
            set.groups(K::INFO.kernel, shape, tokens)?,
        ))
    })
}

/// Computes the layer for `x.len() / INPUTS` tokens: `x` is `[token][INPUTS]`, `w` is
/// `[INPUTS][OUTPUTS]`, the result `[token][OUTPUTS]`, with elements `T` as `K` stores them.
///
/// # Errors
/// What the device reports.
///
/// # Panics
/// When no embedded kernel fits the device; the generic one fits any.
pub async fn layer<K: Kernel, T: bytemuck::Pod>(
    device: &Device,
    x: &[T],
    w: &[T],
    bias: &[f32],
) -> Result<Vec<T>> {
    let tokens = (x.len() / INPUTS) as u32;
    let (_, info, groups) = choose::<K>(device, tokens).expect("the generic kernel fits any device");
    let pipeline = device.kernel(info).await?;

    let step = kernels::data::Step { position: 0, tokens, seed_low: 0, seed_high: 0 };
    let mut slices = Vec::new();
    for (name, bytes) in [
        ("run", bytemuck::bytes_of(&step)),
        ("x", bytemuck::cast_slice(x)),
        ("w", bytemuck::cast_slice(w)),
        ("bias", bytemuck::cast_slice(bias)),
    ] {
        let slice = device.buffer(name, bytes.len() as u64).await?;
        device.write(&slice, 0, bytes);
        slices.push(slice);
    }
    let y = device.buffer("y", (tokens as usize * OUTPUTS * size_of::<T>()) as u64).await?;
    slices.push(y.clone());

    let group = pipeline.bind(device, &slices)?;
    let mut recorder = Recorder::new(device, "layer");
    recorder.pass("layer").dispatch(&pipeline, &group, groups)?;
    recorder.submit();
    let bytes = device.read(&y).await?;
    device.check()?;
    Ok(bytemuck::pod_collect_to_vec(&bytes))
}

/// The same by a plain loop.
pub fn plain(x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f32> {
    let mut y = Vec::new();
    for x in x.chunks_exact(INPUTS) {
        for (n, bias) in bias.iter().enumerate() {
            let sum: f32 = x.iter().enumerate().map(|(k, x)| x * w[k * OUTPUTS + n]).sum();
            y.push((sum + bias).max(0.0));
        }
    }
    y
}

/// Numbers between -1 and 1 that look random.
pub fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let hash = |i: u32| (i ^ seed).wrapping_mul(2_654_435_761).rotate_left(15).wrapping_mul(2_246_822_519);
    (0..n as u32).map(|i| (hash(i) >> 8) as f32 / 8_388_608.0 - 1.0).collect()
}
