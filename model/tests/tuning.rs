//! A loaded model given other kernels: it lists what it runs, and computes the same.

mod common;

use std::ops::ControlFlow;

use wgforge_codegen::{Variant, Workload};
use wgforge_model::{Choice, Fusion, Kernels, Model, Options, Request};

fn greedy(model: &mut Model) -> Vec<u32> {
    let request =
        Request { prompt: vec![2, 17, 30, 41, 5], max_new: 16, choice: Choice::Greedy, stop: Vec::new() };
    let mut ids = Vec::new();
    model.reset();
    pollster::block_on(model.generate(&request, &mut |id| {
        ids.push(id);
        ControlFlow::Continue(())
    }))
    .expect("it generates");
    ids
}

#[test]
fn other_kernels_compute_the_same_without_loading_again() {
    let Some(device) = common::device() else { return };
    let exact = Options { f16_activations: Some(false), f16_kv: Some(false), ..Options::default() };
    let Some(mut model) = common::load(&common::demo(), true, &exact) else { return };
    model.set_fusion(Some(Fusion::NONE));
    let workloads = pollster::block_on(model.workloads()).expect("it lists its workloads");
    for kernel in
        ["gather", "ple_mix", "norm", "gemv", "gemm", "rope", "attention", "argmax", "topk", "sample"]
    {
        assert!(workloads.iter().any(|w| w.kernel() == kernel), "{kernel} is among them");
    }
    model.set_fusion(Some(Fusion::ALL));
    let joined = pollster::block_on(model.workloads()).expect("it lists its workloads");
    let decodes = |w: &Workload| matches!(w, Workload::Attention(s) if s.decode);
    assert!(workloads.iter().any(decodes) && !joined.iter().any(decodes), "what is joined is not listed");
    assert!(joined.iter().any(|w| w.kernel() == "decode_attention"), "what joins it is");
    model.set_fusion(Some(Fusion::NONE));
    let twice = workloads.iter().enumerate().find(|(i, w)| workloads[..*i].contains(w));
    assert!(twice.is_none(), "each once: {twice:?}");
    let before = greedy(&mut model);
    let memory = model.memory_in_use();
    let generic = Kernels::generic(device.caps());
    let others: Vec<Variant> = workloads
        .iter()
        .filter_map(|w| {
            let usual = generic.choose(w.clone()).ok()?;
            let mut all = w.candidates(device.caps());
            all.retain(|v| v.config_json() != usual.config_json());
            // The last: far from the first, which most defaults resemble.
            all.pop()
        })
        .collect();
    assert!(others.len() > 10, "{} workloads have a choice", others.len());
    model.set_kernels(generic.with(&others));
    assert_eq!(greedy(&mut model), before, "other kernels, the same tokens");
    for _ in 0..3 {
        model.set_kernels(generic.clone());
        assert_eq!(greedy(&mut model), before, "the first kernels again");
    }
    let now = model.memory_in_use();
    assert!(now <= memory + memory / 8, "{now} bytes are held where {memory} were");
}

/// What embedded databases say, and what is joined, depends on the adapter: kernels given later must
/// know it as those a model was loaded with.
#[test]
fn the_same_kernels_again_are_the_same_plan() {
    let Some(device) = common::device() else { return };
    let (kernels, why) = Kernels::embedded(device.report());
    assert!(!why.is_empty(), "it says why");
    let Some(mut model) = common::load(&common::demo(), true, &Options::default()) else { return };
    let dispatches = |model: &mut Model| {
        model.take_dispatches();
        greedy(model);
        model.take_dispatches()
    };
    let loaded = Kernels::generic(device.caps());
    model.set_kernels(loaded.clone());
    let generic = dispatches(&mut model);
    model.set_kernels(loaded);
    assert_eq!(dispatches(&mut model), generic, "the untuned ones twice");
    model.set_kernels(kernels.clone());
    let tuned = dispatches(&mut model);
    model.set_kernels(kernels.with(&[]));
    assert_eq!(dispatches(&mut model), tuned, "the embedded ones twice");
    if device.report().device_type == "cpu" {
        // In software untuned kernels join nothing: every step is a dispatch.
        let apart = {
            model.set_kernels(Kernels::generic(device.caps()));
            model.set_fusion(Some(Fusion::NONE));
            dispatches(&mut model)
        };
        assert_eq!(generic, apart, "{generic} dispatches joined, {apart} apart");
    }
}

/// The demo model with a longer context than it was trained for.
fn with_long_context() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(common::demo()).expect("the demo model") {
        let entry = entry.expect("a file of it");
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("is copied");
    }
    let file = dir.path().join("config.json");
    let text = std::fs::read_to_string(&file).expect("its configuration");
    let longer = text.replace(r#""max_position_embeddings": 4096"#, r#""max_position_embeddings": 16384"#);
    assert_ne!(text, longer, "the limit is there");
    std::fs::write(file, longer).expect("is written");
    dir
}

#[test]
fn long_contexts_have_attention_of_their_own_that_computes_the_same() {
    let Some(device) = common::device() else { return };
    let exact = Options { f16_activations: Some(false), f16_kv: Some(false), ..Options::default() };
    let dir = with_long_context();
    let Some(mut model) = common::load(dir.path(), true, &exact) else { return };
    model.set_fusion(Some(Fusion::ALL));
    let listed = pollster::block_on(model.workloads()).expect("it lists its workloads");
    let deep: Vec<&Workload> =
        listed.iter().filter(|w| matches!(w, Workload::DecodeAttention(s) if s.deep)).collect();
    assert!(!deep.is_empty(), "long contexts are among them");
    let [short, long] = pollster::block_on(model.workloads_by_context()).expect("both");
    assert!(deep.iter().all(|w| long.contains(w) && !short.contains(w)), "short contexts do without");
    for w in &deep {
        assert!(matches!(w, Workload::DecodeAttention(s) if s.window == 0), "{}", w.shape_json());
    }

    let generic = Kernels::generic(device.caps());
    let usual = |w: &Workload| generic.choose(w.clone()).expect("runs").config_json();
    let others: Vec<Variant> = deep
        .iter()
        .filter_map(|w| w.candidates(device.caps()).into_iter().rfind(|v| v.config_json() != usual(w)))
        .collect();
    model.set_kernels(generic.with(&others));
    let runs_others = |model: &mut Model| {
        let plan = pollster::block_on(model.dispatches()).expect("its plan");
        plan.iter().filter(|d| others.iter().any(|v| v.config_json() == d.config)).count()
    };
    let tokens = |model: &mut Model, room: u32| {
        let prompt = vec![2, 17, 30, 41, 5];
        let request = Request { prompt, max_new: room, choice: Choice::Greedy, stop: Vec::new() };
        let mut ids = Vec::new();
        model.reset();
        pollster::block_on(model.generate(&request, &mut |id| {
            ids.push(id);
            if ids.len() < 12 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        }))
        .expect("it generates");
        ids
    };
    let short = tokens(&mut model, 12);
    assert_eq!(runs_others(&mut model), 0, "a short context has the usual kernels");
    assert_eq!(tokens(&mut model, 6000), short, "the same tokens");
    assert!(runs_others(&mut model) > 0, "room for 6000 more is a long context");
}
