//! The committed defaults hold what a model of Gemma 4 E2B's shapes runs.

use std::sync::Arc;

use wgforge::autotune::generic;
use wgforge::codegen::{Database, Workload, kernels::gemv::Epilogue};
use wgforge::model::{
    Kernels, Model, Options, Target, TextConfig, WeightMode,
    synth::{SynthFormat, synth_in_memory},
};
use wgforge::runtime::{CapsMask, Device, DeviceOptions};

/// E2B with one layer of each kind, and a vocabulary that takes no time to fill.
fn shape() -> TextConfig {
    let mut shape = TextConfig::e2b();
    // Layers 0 and 4 own their keys and values, 15 and 19 share those and are twice as wide.
    shape.layers = [0, 4, 15, 19].map(|i| shape.layers[i]).to_vec();
    shape.num_kv_shared = 2;
    shape.vocab_size = 4096;
    shape.vocab_size_per_layer_input = 4096;
    shape
}

/// Whether the small vocabulary or the few layers are part of the shape.
fn cut(workload: &Workload) -> bool {
    match workload {
        Workload::Gemv(s) | Workload::Gemm(s) => s.epilogue == Epilogue::Softcap || s.rows == 4 * 256,
        // Defaults are the same for long contexts as for short ones.
        Workload::DecodeAttention(s) if s.deep => true,
        Workload::Gather(_) | Workload::PleMix(_) | Workload::Argmax(_) | Workload::Topk(_) => true,
        _ => false,
    }
}

fn missing(disable: CapsMask, format: SynthFormat) -> Option<Vec<String>> {
    let device = match pollster::block_on(Device::request(&DeviceOptions { disable, ..Default::default() })) {
        Ok(device) => device,
        Err(error) => {
            let required = std::env::var_os("WGFORGE_REQUIRE_ADAPTER").is_some_and(|v| v == "1");
            assert!(!required, "an adapter is required: {error}");
            println!("skipped: {error}");
            return None;
        }
    };
    let caps = device.caps().clone();
    let class = generic::classes().into_iter().rfind(|c| {
        c.f16 == caps.f16 && (!c.subgroups || caps.subgroups && c.subgroup_min <= caps.subgroup_min)
    });
    let class = class.expect("there is a class for every device").class();
    let file = format!("generic-{class}.toml");
    let (_, database): (_, Database) = generic::databases()
        .expect("are read")
        .into_iter()
        .find(|(name, _)| *name == file)
        .expect("is there");
    let files = synth_in_memory(&shape(), format, 1).expect("is made");
    let checkpoint = Arc::new(files.into_checkpoint().expect("opens"));
    let options = Options { weights: WeightMode::Int4, ..Options::default() };
    let target = Target::Gpu(device, Kernels::generic(&caps));
    let mut model =
        pollster::block_on(Model::load(&checkpoint, target, &options, &mut |_| {})).expect("loads");
    let workloads = pollster::block_on(model.workloads()).expect("lists them");
    let compared: Vec<&Workload> = workloads.iter().filter(|w| !cut(w)).collect();
    assert!(compared.len() > 20, "{} workloads", compared.len());
    let lacking = compared.into_iter().filter(|w| database.get(w).is_none());
    Some(lacking.map(|w| format!("{file}: {} {}", w.kernel(), w.shape_json())).collect())
}

#[test]
fn defaults_hold_what_a_model_of_these_shapes_runs() {
    for disable in [CapsMask::default(), CapsMask::baseline()] {
        for format in [SynthFormat::Mobile, SynthFormat::Bf16] {
            let Some(missing) = missing(disable, format) else { return };
            assert!(missing.is_empty(), "{format:?}:\n{}", missing.join("\n"));
        }
    }
}
