//! What the model's tests share: fixtures, devices, comparisons.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use half::f16;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use wgforge_codegen::{
    Caps, Variant, Workload,
    kernels::decode_attention::{Config, Shape},
};
use wgforge_model::{Checkpoint, Kernels, Model, Options, Target, WeightMode};
use wgforge_runtime::{Device, DeviceOptions};

/// A fixture's folder beside the repository; `None`, with a notice, where there is none.
pub(crate) fn fixture(name: &str) -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures").join(name);
    if dir.is_dir() {
        return Some(dir);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing", dir.display());
    println!("skipped: {} is missing", dir.display());
    None
}

/// The demo model's folder, with transformers' outputs for it.
pub(crate) fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo")
}

/// The device at hand; `None`, with a notice, where there is none.
pub(crate) fn device() -> Option<Device> {
    match pollster::block_on(Device::request(&DeviceOptions::default())) {
        Ok(d) => Some(d),
        Err(e) => {
            assert!(std::env::var_os("WGFORGE_REQUIRE_ADAPTER").is_none(), "an adapter is required: {e}");
            println!("skipped: {e}");
            None
        }
    }
}

/// Configurations of attention that go on to the output projection, on any device that can run them: a tuner tries
/// them only where workgroups are believed to run side by side.
pub(crate) fn projecting(workload: &Workload, caps: &Caps) -> Vec<Variant> {
    let Workload::DecodeAttention(shape) = workload else { return Vec::new() };
    // On narrow subgroups nothing that waits is a candidate.
    let leaving = Workload::DecodeAttention(Shape { first: None, ..shape.clone() });
    let all = leaving.candidates(caps).into_iter().flat_map(|v| {
        let Variant::DecodeAttention { config, .. } = v else { return Vec::new() };
        let with = |split| Config { project: Some(split), ..config.clone() };
        [1, 2, 4, 8, 16]
            .map(|split| Variant::DecodeAttention { shape: shape.clone(), config: with(split) })
            .into()
    });
    all.filter(|v| v.why_not(caps).is_none()).collect()
}

/// Loads a checkpoint on the device or in the reference.
pub(crate) fn load(dir: &Path, gpu: bool, options: &Options) -> Option<Model> {
    let checkpoint = Arc::new(Checkpoint::open(dir).expect("checkpoint opens"));
    let target = if gpu {
        let device = device()?;
        let kernels = Kernels::generic(device.caps());
        Target::Gpu(device, kernels)
    } else {
        Target::Reference
    };
    Some(pollster::block_on(Model::load(&checkpoint, target, options, &mut |_| {})).expect("model loads"))
}

/// transformers' outputs for a fixture.
pub(crate) struct Golden {
    pub(crate) tokens: Vec<u32>,
    pub(crate) logits: Vec<f32>,
    pub(crate) hidden: Vec<f32>,
    pub(crate) greedy: Vec<u32>,
    /// How far the reference itself moves from f32 to f64, rms of logits.
    pub(crate) noise_rms: f64,
}

impl Golden {
    pub(crate) fn open(dir: &Path) -> Self {
        let bytes = std::fs::read(dir.join("golden.safetensors")).expect("golden.safetensors");
        let file = SafeTensors::deserialize(&bytes).expect("golden parses");
        let floats = |n: &str| -> Vec<f32> {
            let t = file.tensor(n).expect(n);
            t.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        };
        let ids = |n: &str| -> Vec<u32> {
            let t = file.tensor(n).expect(n);
            t.data()
                .as_chunks::<8>()
                .0
                .iter()
                .map(|b| u32::try_from(i64::from_le_bytes(*b)).expect("an id"))
                .collect()
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("header");
        let noise = header.metadata().as_ref().and_then(|m| m.get("noise")).cloned().unwrap_or_default();
        let noise: serde_json::Value = serde_json::from_str(&noise).unwrap_or_default();
        Self {
            tokens: ids("tokens"),
            logits: floats("logits"),
            hidden: floats("hidden"),
            greedy: ids("greedy"),
            noise_rms: noise["torch.float64"]["rms"].as_f64().unwrap_or(0.0),
        }
    }
}

pub(crate) fn max_abs(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "lengths");
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, |m, d| if d >= m || d.is_nan() { d } else { m })
}

pub(crate) fn rms_difference(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "lengths");
    let sum: f64 = a.iter().zip(b).map(|(x, y)| f64::from(x - y).powi(2)).sum();
    (sum / a.len() as f64).sqrt()
}

/// `rms(a - b) / rms(b)`.
pub(crate) fn rms_ratio(a: &[f32], b: &[f32]) -> f64 {
    let norm: f64 = b.iter().map(|y| f64::from(*y).powi(2)).sum();
    rms_difference(a, b) / (norm / b.len() as f64).sqrt()
}

pub(crate) fn top(row: &[f32]) -> usize {
    (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("a row")
}

/// The checkpoint in `dir` with every matrix quantised in groups of 32 as the documentation says
/// and written back as f32: an independent reading of the rule, not the loader's code.
pub(crate) fn quantised_copy(dir: &Path, mode: WeightMode) -> tempfile::TempDir {
    let out = tempfile::tempdir().expect("a temporary folder");
    for name in ["config.json", "generation_config.json"] {
        std::fs::copy(dir.join(name), out.path().join(name)).expect("copy");
    }
    let bytes = std::fs::read(dir.join("model.safetensors")).expect("weights");
    let file = SafeTensors::deserialize(&bytes).expect("weights parse");
    let mut tensors: HashMap<String, (Vec<usize>, Vec<u8>)> = HashMap::new();
    for (name, t) in file.tensors() {
        let values: Vec<f32> =
            t.data().as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect();
        let values = if t.shape().len() == 2 {
            values
                .chunks(t.shape()[1])
                .flat_map(|row| row.chunks(32).flat_map(|g| requantise(g, mode)))
                .collect()
        } else {
            values
        };
        tensors.insert(name, (t.shape().to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect()));
    }
    let views = tensors
        .iter()
        .map(|(n, (s, d))| (n.clone(), TensorView::new(Dtype::F32, s.clone(), d).expect("a view")));
    safetensors::serialize_to_file(views, None, &out.path().join("model.safetensors")).expect("written");
    out
}

fn requantise(group: &[f32], mode: WeightMode) -> Vec<f32> {
    let extreme = group.iter().copied().fold(0.0f32, |m, v| if v.abs() > m.abs() { v } else { m });
    let (divisor, low, high) =
        if mode == WeightMode::Int4 { (-8.0, -8.0, 7.0) } else { (127.0, -127.0, 127.0) };
    let extreme = if mode == WeightMode::Int4 { extreme } else { extreme.abs() };
    let scale = f16::from_f32(extreme / divisor).to_f32();
    group
        .iter()
        .map(|v| if scale == 0.0 { 0.0 } else { (v / scale).round_ties_even().clamp(low, high) * scale })
        .collect()
}
