//! Random checkpoints: the published names and sizes, and files that open.

use std::path::Path;

use wgforge_model::checkpoint::{Dtype, Format};
use wgforge_model::synth::{Plan, SynthFormat, synth_in_memory, synth_with_threads};
use wgforge_model::{Checkpoint, TextConfig};

#[test]
fn e2b_mobile_has_the_published_tensors() {
    let plan = Plan::new(&TextConfig::e2b(), SynthFormat::Mobile).expect("plan");
    let is_head = |name: &str| matches!(name, "lm_head.weight" | "lm_head.weight_scale");
    let text: Vec<_> = plan.tensors().iter().filter(|t| !is_head(&t.name)).collect();
    assert_eq!(text.len(), 1439);
    assert_eq!(text.iter().map(|t| t.bytes).sum::<u64>(), 2_006_857_726);
    assert_eq!(plan.data_bytes() - 2_006_857_726, 262_144 * (384 + 4));
    let shape = |name: &str| {
        let t = plan.tensors().iter().find(|t| t.name == name).expect(name);
        (t.dtype, t.shape.clone())
    };
    let p = "model.language_model.";
    assert_eq!(shape("lm_head.weight"), (Dtype::U8, vec![262_144, 384]));
    assert_eq!(
        shape(&format!("{p}embed_tokens_per_layer.embedding_quantized")),
        (Dtype::U8, vec![262_144, 4480])
    );
    assert_eq!(shape(&format!("{p}embed_tokens_per_layer.embedding_scale")), (Dtype::F32, vec![262_144, 35]));
    assert_eq!(shape(&format!("{p}layers.14.mlp.down_proj.weight")), (Dtype::U8, vec![1536, 3072]));
    assert_eq!(shape(&format!("{p}layers.15.mlp.down_proj.weight")), (Dtype::U8, vec![1536, 3072]));
    assert_eq!(shape(&format!("{p}layers.15.mlp.gate_proj.weight")), (Dtype::U8, vec![12_288, 384]));
    assert_eq!(shape(&format!("{p}layers.4.self_attn.o_proj.weight")), (Dtype::U8, vec![1536, 2048]));
    assert_eq!(shape(&format!("{p}layers.0.per_layer_projection.weight")), (Dtype::I8, vec![1536, 256]));
    assert_eq!(shape(&format!("{p}layers.0.self_attn.q_proj.input_activation_scale")), (Dtype::F32, vec![]));
    assert!(!plan.tensors().iter().any(|t| t.name.contains("layers.15.self_attn.k_proj")));
}

#[test]
fn e2b_bf16_has_the_published_parameters() {
    let plan = Plan::new(&TextConfig::e2b(), SynthFormat::Bf16).expect("plan");
    assert_eq!(plan.data_bytes(), 2 * 4_628_569_379);
    assert!(plan.tensors().iter().all(|t| t.dtype == Dtype::BF16));
    assert!(!plan.tensors().iter().any(|t| t.name.starts_with("lm_head")));
}

#[test]
fn the_header_is_one_that_others_read() {
    let files = synth_in_memory(&TextConfig::tiny(), SynthFormat::Mobile, 3).expect("made");
    let tensors = safetensors::SafeTensors::deserialize(&files.safetensors).expect("read by the crate");
    assert_eq!(tensors.len(), 10 * 37 + 6 * 9 + 9 + 2);
}

fn written(folder: &Path, format: SynthFormat, threads: usize) -> Checkpoint {
    let mut last = (0, 1);
    let mut progress = |done, total| last = (done, total);
    synth_with_threads(&TextConfig::tiny(), format, 7, folder, threads, &mut progress).expect("written");
    assert_eq!(last.0, last.1, "progress reaches the end");
    let names: Vec<_> =
        std::fs::read_dir(folder).expect("folder").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names.len(), 3, "nothing temporary stays: {names:?}");
    Checkpoint::open(folder).expect("opens")
}

#[test]
fn a_written_checkpoint_opens() {
    for (format, name) in [(SynthFormat::Mobile, "mobile"), (SynthFormat::Bf16, "bf16")] {
        let folder = tempfile::tempdir().expect("folder");
        let checkpoint = written(folder.path(), format, 2);
        checkpoint.validate().expect("valid");
        assert_eq!(checkpoint.format_name(), name);
        assert_eq!(checkpoint.generation().eos, [1, 106, 50]);
        let (head, embed) = (checkpoint.head().expect("head"), checkpoint.embed().expect("embed"));
        assert!(head.data.same(&embed.data).expect("read"), "{name}: the head is the embedding");
        if format == SynthFormat::Mobile {
            assert_eq!(head.name, "lm_head");
            assert_eq!(head.row_scale.as_deref(), embed.scale.as_ref().map(|(s, _)| &s[..]));
            assert_eq!(head.grids, None);
        }
    }
}

#[test]
fn bytes_depend_on_the_seed_and_not_on_threads() {
    let files = synth_in_memory(&TextConfig::tiny(), SynthFormat::Mobile, 7).expect("made");
    for threads in [1, 2, 5] {
        let folder = tempfile::tempdir().expect("folder");
        written(folder.path(), SynthFormat::Mobile, threads);
        let bytes = std::fs::read(folder.path().join("model.safetensors")).expect("read");
        assert!(bytes == files.safetensors, "{threads} threads");
    }
    let other = synth_in_memory(&TextConfig::tiny(), SynthFormat::Mobile, 8).expect("made");
    assert!(other.safetensors != files.safetensors);
}

#[test]
fn weights_keep_the_size_of_what_they_multiply() {
    for format in [SynthFormat::Mobile, SynthFormat::Bf16] {
        let checkpoint =
            synth_in_memory(&TextConfig::tiny(), format, 1).expect("made").into_checkpoint().expect("opens");
        for layer in [0, 9] {
            let w = checkpoint.layer(layer).expect("layer");
            for linear in [&w.q, &w.o, &w.gate, &w.up, &w.down, &w.ple_gate, &w.ple_proj] {
                let mut row = vec![0.0; linear.cols];
                let mut sum = 0.0;
                for r in 0..linear.rows {
                    linear.row(r, &mut row).expect("read");
                    sum += row.iter().map(|&w| f64::from(w * w)).sum::<f64>();
                }
                // Σ over a row of w² is what multiplies the mean square.
                let gain = (sum / linear.rows as f64).sqrt();
                assert!((0.9..1.1).contains(&gain), "{}: {gain}", linear.name);
            }
            assert!((0.5..=1.0).contains(&w.scalar));
        }
        let table = checkpoint.ple_table().expect("table");
        let mut row = vec![0.0; table.cols];
        table.row(5, &mut row).expect("read");
        let mean = row.iter().map(|&w| f64::from(w * w)).sum::<f64>() / row.len() as f64;
        assert!((0.8..1.25).contains(&(mean * 64.0)), "{mean}");
    }
}

#[test]
fn all_codes_occur() {
    let checkpoint = synth_in_memory(&TextConfig::tiny(), SynthFormat::Mobile, 1)
        .expect("made")
        .into_checkpoint()
        .expect("opens");
    let w = checkpoint.layer(9).expect("layer");
    for (linear, low, high) in [(&w.q, -8.0, 7.0), (&w.gate, -2.0, 1.0), (&w.ple_gate, -128.0, 127.0)] {
        let mut codes = vec![0.0; linear.rows * linear.cols];
        linear.format.decode(&linear.data.all().expect("read"), &mut codes);
        let seen = codes.iter().fold((0.0_f32, 0.0_f32), |(a, b), &c| (a.min(c), b.max(c)));
        assert_eq!(seen, (low, high), "{}", linear.name);
        let mean = codes.iter().sum::<f32>() / codes.len() as f32;
        assert!(mean.abs() < 0.005 * (high - low), "{}: mean {mean}", linear.name);
    }
    assert_eq!((w.q.format, w.gate.format, w.ple_gate.format), (Format::I4, Format::I2, Format::I8));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("occupied");
    std::fs::write(&file, b"").expect("written");
    let error = synth_with_threads(&TextConfig::tiny(), SynthFormat::Bf16, 1, &file, 1, &mut |_, _| ())
        .expect_err("a file stands there");
    assert!(error.to_string().contains("occupied"), "{error}");
}

/// `/dev/full` is a disk without any room left.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_to_be_one() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().expect("folder");
    let temporary = format!("model.safetensors.{}.partial", std::process::id());
    symlink("/dev/full", folder.path().join(temporary)).expect("link");
    let error =
        synth_with_threads(&TextConfig::tiny(), SynthFormat::Bf16, 1, folder.path(), 2, &mut |_, _| ())
            .expect_err("no room");
    let message = error.to_string();
    assert!(message.contains("disk is full") && message.contains("model.safetensors"), "{message}");
    let left = std::fs::read_dir(folder.path()).expect("folder").count();
    assert_eq!(left, 0, "nothing stays behind");
}

#[test]
fn q4_0_is_refused_with_a_way_out() {
    let error = "q4_0".parse::<SynthFormat>().expect_err("not there yet").to_string();
    assert!(error.contains("q4_0") && error.contains("mobile"), "{error}");
    assert!("int3".parse::<SynthFormat>().is_err());
}
