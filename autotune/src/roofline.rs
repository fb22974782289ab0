//! What the device could do at best: bytes and operations a second, and the time between two
//! dispatches of which the second waits for the first. Measured, not looked up.

use wgforge_codegen::{Arithmetic, Cost};
use wgforge_runtime::{Access, BindGroup, Binding, Device, KernelSource, Pipeline, Result};

use crate::{bandwidth::read_gb_s_by, coop, time::Clock};

/// Steps of the inner loop of the arithmetic kernels.
const STEPS: u64 = 256;
/// Accumulators a thread holds: enough to fill any pipeline.
const CHAINS: u64 = 8;
const THREADS: u64 = 256;
/// Load after which clocks are up.
#[cfg(not(target_arch = "wasm32"))]
const WARM: std::time::Duration = std::time::Duration::from_millis(500);

/// Rates of one device.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Roofline {
    /// Memory read a second, GB (10^9 bytes).
    pub read_gb_s: f64,
    /// int8 multiplications and additions by `dot4I8Packed`, in 10^12 a second.
    pub int8_tera_ops: f64,
    /// f32 multiplications and additions, in 10^12 a second.
    pub f32_tera_ops: f64,
    /// f16 likewise; `None` without f16.
    pub f16_tera_ops: Option<f64>,
    /// f16 with f32 sums by cooperative matrices, likewise; `None` where there are none. No kernel
    /// uses them, so no bound is made of it: it says what such a kernel could gain.
    #[serde(default)]
    pub coop_tera_ops: Option<f64>,
    /// Time from one dispatch to the next that waits for it, of an almost empty kernel, µs.
    pub dispatch_us: f64,
}

impl Roofline {
    /// Measures; takes a second or two, and leaves the clocks warm.
    ///
    /// # Errors
    /// A failing device.
    pub async fn measure(device: &Device, clock: &Clock) -> Result<Self> {
        let read_gb_s = read_gb_s_by(device, clock).await?;
        let rate = async |kind| Rate::new(device, kind).await?.tera_ops(device, clock).await;
        Ok(Self {
            read_gb_s,
            int8_tera_ops: rate(Kind::Int8).await?,
            f32_tera_ops: rate(Kind::F32).await?,
            f16_tera_ops: if device.caps().f16 { Some(rate(Kind::F16).await?) } else { None },
            coop_tera_ops: coop::tera_ops(device, clock).await,
            dispatch_us: dispatch_us(device, clock).await?,
        })
    }

    /// The least time a call can take by these rates, µs.
    pub fn bound_us(&self, cost: &Cost) -> f64 {
        let memory = cost.bytes() as f64 / self.read_gb_s / 1e3;
        let rate = match cost.kind {
            Arithmetic::Int8 => self.int8_tera_ops,
            // f32 values may meet in f16 where that is faster and near enough.
            Arithmetic::F32 | Arithmetic::F16 => self.f16_tera_ops.unwrap_or(0.0).max(self.f32_tera_ops),
        };
        let arithmetic = if rate > 0.0 { cost.ops as f64 / rate / 1e6 } else { 0.0 };
        memory.max(arithmetic).max(self.dispatch_us)
    }

    /// A line for people.
    pub fn describe(&self) -> String {
        let f16 = self.f16_tera_ops.map_or("no f16".into(), |r| format!("f16 {r:.2} Tera-ops/s"));
        let coop = self.coop_tera_ops.map_or("no cooperative matrices".into(), |r| {
            format!("cooperative matrices {r:.1} Tera-ops/s (no kernel uses them)")
        });
        format!(
            "reads {:.1} GB/s, int8 dot {:.2} Tera-ops/s, f32 {:.2} Tera-ops/s, {f16}, {coop}, {:.2} µs from \
             dispatch to dependent dispatch",
            self.read_gb_s, self.int8_tera_ops, self.f32_tera_ops, self.dispatch_us
        )
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Int8,
    F32,
    F16,
}

/// A kernel that only computes.
#[derive(Debug)]
pub(crate) struct Rate {
    pipeline: Pipeline,
    group: BindGroup,
    ops_per_group: u64,
    /// Workgroups of a short dispatch.
    groups: u64,
    most: u64,
}

impl Rate {
    async fn new(device: &Device, kind: Kind) -> Result<Self> {
        // A dp4a is four multiplications and four additions; the others are vectors of four.
        let (head, ty, start, step, sum) = match kind {
            Kind::Int8 => {
                let step = "a# += dot4I8Packed(bitcast<u32>(a#), 0x01020304u);";
                ("", "i32", "i32(seed) + #", step, "bitcast<u32>(a#)")
            }
            Kind::F32 => {
                let step = "a# = fma(a#, vec4<f32>(0.999), vec4<f32>(0.001));";
                (
                    "",
                    "vec4<f32>",
                    "vec4<f32>(f32(seed) * 1e-9 + #.0)",
                    step,
                    "bitcast<u32>(dot(a#, vec4<f32>(1.0)))",
                )
            }
            Kind::F16 => {
                let step = "a# = fma(a#, vec4<f16>(0.5h), vec4<f16>(1.0h));";
                (
                    "enable f16;\n",
                    "vec4<f16>",
                    "vec4<f16>(f16(f32(seed) * 1e-9 + #.0))",
                    step,
                    "u32(a#.x + a#.y + a#.z + a#.w)",
                )
            }
        };
        let chains = |text: &str, join: &str| -> String {
            (0..CHAINS).map(|i| text.replace('#', &i.to_string())).collect::<Vec<_>>().join(join)
        };
        let wgsl = format!(
            "{head}@group(0) @binding(0) var<storage, read_write> out: array<u32>;\n\
             @compute @workgroup_size({THREADS})\n\
             fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {{\n\
             let seed = group.x * {THREADS}u + thread;\n\
             {}\n\
             for (var k = 0u; k < {STEPS}u; k++) {{\n{}\n}}\n\
             // Almost never true, which no compiler can know.\n\
             if ({}) == 305419896u {{ out[thread] = seed; }}\n}}\n",
            chains(&format!("var a#: {ty} = {start};"), "\n"),
            chains(step, "\n"),
            chains(sum, " ^ "),
        );
        let bindings = [Binding { name: "out".into(), access: Access::ReadWrite }];
        let source = KernelSource { label: "rate", wgsl: &wgsl, bindings: &bindings };
        let pipeline = device.pipeline(&source).await?;
        let out = device.buffer("rate out", THREADS * 4).await?;
        let group = pipeline.bind(device, &[out])?;
        let cpu = device.report().device_type == "cpu";
        let most = u64::from(device.caps().max_groups).min(if cpu { 64 } else { 32_768 });
        Ok(Self {
            pipeline,
            group,
            ops_per_group: THREADS * STEPS * CHAINS * 8,
            groups: if cpu { 16 } else { 4096 }.min(most),
            most,
        })
    }

    /// The best of a few dispatches, each long enough for the clock.
    async fn tera_ops(&self, device: &Device, clock: &Clock) -> Result<f64> {
        let mut best = 0.0f64;
        let mut groups = self.groups;
        for _ in 0..8 {
            let us = clock
                .time(device, 1, &mut |pass, _| {
                    pass.dispatch(&self.pipeline, &self.group, [u32::try_from(groups).unwrap_or(1), 1, 1])
                })
                .await?;
            if us > 0.0 {
                best = best.max(groups as f64 * self.ops_per_group as f64 / us / 1e6);
            }
            if us < clock.batch_us() {
                groups = (groups * 2).min(self.most);
            }
        }
        Ok(best)
    }
}

/// What keeps a device busy between measurements.
#[cfg(not(target_arch = "wasm32"))]
impl Rate {
    /// The kernel that keeps a device busy.
    pub(crate) async fn busy(device: &Device) -> Result<Self> {
        Self::new(device, Kind::F32).await
    }

    /// Makes a dispatch take about `time` at the clocks of a busy device.
    pub(crate) async fn sized(&mut self, device: &Device, time: std::time::Duration) -> Result<()> {
        // The clocks rise meanwhile, so the last time is the one that counts.
        let start = web_time::Instant::now();
        while start.elapsed() < WARM {
            let begun = web_time::Instant::now();
            self.run(device).await?;
            let wanted = u128::from(self.groups) * time.as_nanos() / begun.elapsed().as_nanos().max(1);
            let wanted = u64::try_from(wanted).unwrap_or(self.most);
            self.groups = wanted.clamp(self.groups.div_ceil(2), self.groups * 2).clamp(1, self.most);
        }
        Ok(())
    }

    /// Runs once and waits.
    pub(crate) async fn run(&self, device: &Device) -> Result<()> {
        let mut recorder = wgforge_runtime::Recorder::new(device, "filling");
        let groups = [u32::try_from(self.groups).unwrap_or(1), 1, 1];
        recorder.pass("filling").dispatch(&self.pipeline, &self.group, groups)?;
        recorder.submit().wait().await
    }
}

/// Dispatches that all write the same word, so that each waits for the one before.
async fn dispatch_us(device: &Device, clock: &Clock) -> Result<f64> {
    let wgsl = "@group(0) @binding(0) var<storage, read_write> out: array<u32>;\n\
        @compute @workgroup_size(32)\n\
        fn main(@builtin(local_invocation_index) thread: u32) { out[thread] += 1u; }\n";
    let bindings = [Binding { name: "out".into(), access: Access::ReadWrite }];
    let source = KernelSource { label: "dispatch", wgsl, bindings: &bindings };
    let pipeline = device.pipeline(&source).await?;
    let out = device.buffer("dispatch out", 128).await?;
    let group = pipeline.bind(device, &[out])?;
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let us = clock.time(device, 256, &mut |pass, _| pass.dispatch(&pipeline, &group, [1, 1, 1])).await?;
        best = best.min(us);
    }
    Ok(if best.is_finite() { best } else { 0.0 })
}
