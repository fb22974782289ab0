//! The rate of cooperative matrices, where a subgroup multiplies whole tiles. wgpu has them as an
//! experiment, so they are measured on a device of their own, opened for that and closed again.

use wgforge_runtime::{
    Access, Backend, Binding, Device, DeviceOptions, KernelSource, Recorder, Result, bytemuck,
};

use crate::time::Clock;

const STEPS: u64 = 1024;
/// Sums a subgroup holds: the next multiplication does not wait for the one before.
const CHAINS: u64 = 4;
const THREADS: u64 = 128;
/// Elements of a tile.
const TILE: u64 = 16 * 16;

/// f16 multiplications and additions with f32 sums by tiles of 16, in 10^12 a second; `None` where
/// the adapter or its driver does not take them.
pub(crate) async fn tera_ops(device: &Device, clock: &Clock) -> Option<f64> {
    let report = device.report();
    // The APIs wgpu has them on.
    let backend = [Backend::Vulkan, Backend::Metal].into_iter().find(|b| b.to_string() == report.backend)?;
    let options = DeviceOptions {
        backend: Some(backend),
        name: Some(report.name.clone()),
        cooperative_matrices: true,
        ..DeviceOptions::default()
    };
    let device = Device::request(&options).await.ok().filter(Device::cooperative_matrices)?;
    // What is an experiment may fail; then nobody can use it.
    measure(&device, clock).await.ok().filter(|rate| rate.is_finite() && *rate > 0.0)
}

fn wgsl() -> String {
    let chains = |text: &str| -> String {
        (0..CHAINS)
            .map(|i| text.replace('#', &i.to_string()).replace('@', &(i * TILE).to_string()))
            .collect::<Vec<_>>()
            .join("\n")
    };
    format!(
        "enable f16;\nenable wgpu_cooperative_matrix;\n\
         @group(0) @binding(0) var<storage, read> ab: array<f16>;\n\
         @group(0) @binding(1) var<storage, read_write> out: array<f32>;\n\
         @compute @workgroup_size({THREADS})\nfn main() {{\n\
         let a = coopLoadT<coop_mat16x16<f16, A>>(&ab[0], 16u);\n\
         let b = coopLoadT<coop_mat16x16<f16, B>>(&ab[{TILE}], 16u);\n\
         {}\nfor (var k = 0u; k < {STEPS}u; k++) {{\n{}\n}}\n{}\n}}\n",
        chains("var c# = coopLoadT<coop_mat16x16<f32, C>>(&out[@], 16u);"),
        chains("c# = coopMultiplyAdd(a, b, c#);"),
        chains("coopStoreT(c#, &out[@], 16u);"),
    )
}

async fn measure(device: &Device, clock: &Clock) -> Result<f64> {
    let bindings = [
        Binding { name: "ab".into(), access: Access::Read },
        Binding { name: "out".into(), access: Access::ReadWrite },
    ];
    let source = KernelSource { label: "cooperative matrices", wgsl: &wgsl(), bindings: &bindings };
    let pipeline = device.pipeline(&source).await?;
    let ab = device.buffer("tiles", 2 * TILE * 2).await?;
    // Values near 0.001, so that sums stay finite and the multipliers are not idle on zeros.
    let values: Vec<u16> = (0u16..2 * 256).map(|i| 0x1400 | (i % 97)).collect();
    device.write(&ab, 0, bytemuck::cast_slice(&values));
    let out = device.buffer("sums", CHAINS * TILE * 4).await?;
    let group = pipeline.bind(device, &[ab, out.clone()])?;
    let subgroups = THREADS / u64::from(device.caps().subgroup_min.max(1));
    let ops = subgroups * CHAINS * STEPS * 2 * 16 * 16 * 16;
    let mut best = 0.0f64;
    let mut groups = 1024u32;
    for _ in 0..8 {
        let us =
            clock.time(device, 1, &mut |pass, _| pass.dispatch(&pipeline, &group, [groups, 1, 1])).await?;
        if us > 0.0 {
            best = best.max(f64::from(groups) * ops as f64 / us / 1e6);
        }
        if us < clock.batch_us() {
            groups = (groups * 2).min(device.caps().max_groups);
        }
    }
    // A device that did not compute is infinitely fast.
    let mut recorder = Recorder::new(device, "cooperative matrices");
    recorder.pass("once").dispatch(&pipeline, &group, [1, 1, 1])?;
    recorder.submit().wait().await?;
    let sums = device.read(&out).await?;
    device.check()?;
    Ok(if sums.chunks_exact(4).any(|b| b != [0; 4]) { best } else { 0.0 })
}
