//! Checkpoints in the published layouts: opened, held against reference numbers, and in the
//! forms in which they are found elsewhere (shards, other prefixes, unaligned).

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::json;
use wgforge_model::checkpoint::{Dtype, Format, Grids};
use wgforge_model::synth::{SynthFiles, SynthFormat, synth_in_memory};
use wgforge_model::{Checkpoint, TextConfig};

/// Fixtures that are not part of this repository: beside it, or where `WGFORGE_SHARED` says.
/// On CI they must be there.
fn shared(part: &str) -> Option<PathBuf> {
    let base = std::env::var_os("WGFORGE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let path = base.join(part);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", path.display());
    eprintln!("skipped: {} is missing (set WGFORGE_SHARED)", path.display());
    None
}

fn tiny(format: SynthFormat) -> SynthFiles {
    synth_in_memory(&TextConfig::tiny(), format, 5).expect("made")
}

type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

fn unpack(file: &[u8]) -> Vec<Tensor> {
    let mut tensors: Vec<Tensor> = SafeTensors::deserialize(file)
        .expect("a safetensors file")
        .iter()
        .map(|(name, t)| (name.to_owned(), t.dtype(), t.shape().to_vec(), t.data().to_vec()))
        .collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}

/// The tensors one after another, behind a header padded with `pad` spaces.
fn pack(tensors: &[Tensor], pad: usize) -> Vec<u8> {
    let mut map = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let start = data.len();
        data.extend_from_slice(bytes);
        let info = json!({ "dtype": dtype.to_string(), "shape": shape, "data_offsets": [start, data.len()] });
        map.insert(name.clone(), info);
    }
    let mut header = serde_json::Value::Object(map).to_string();
    header.extend(std::iter::repeat_n(' ', pad));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&data);
    file
}

#[test]
fn packed_codes_decode_low_bits_first() {
    let mut out = [0.0; 4];
    Format::I4.decode(&[0x80, 0x7F], &mut out);
    assert_eq!(out, [-8.0, 0.0, 7.0, -1.0]);
    Format::I2.decode(&[0b11_10_01_00], &mut out);
    assert_eq!(out, [-2.0, -1.0, 0.0, 1.0]);
    Format::I8.decode(&[0x80, 0xFF, 0, 0x7F], &mut out);
    assert_eq!(out, [-128.0, -1.0, 0.0, 127.0]);
    Format::Bf16.decode(&[0x80, 0x3F, 0x00, 0xC0, 0, 0, 0x20, 0x41], &mut out);
    assert_eq!(out, [1.0, -2.0, 0.0, 10.0]);
}

#[test]
fn layers_have_the_shapes_of_the_config() {
    for format in [SynthFormat::Mobile, SynthFormat::Bf16] {
        let checkpoint = tiny(format).into_checkpoint().expect("opens");
        checkpoint.validate().expect("valid");
        let c = checkpoint.config().clone();
        for i in 0..c.num_layers() {
            let w = checkpoint.layer(i).expect("layer");
            assert_eq!((w.q.rows, w.q.cols), (c.q_dim(i), c.hidden));
            assert_eq!((w.down.rows, w.down.cols), (c.hidden, c.intermediate(i)));
            assert_eq!(w.k.is_some(), c.owns_kv(i));
            assert_eq!(w.k.is_some(), w.v.is_some() && w.k_norm.is_some());
            assert_eq!(w.q_norm.len(), c.head_dim(i));
            for linear in [&w.q, &w.o, &w.gate, &w.up, &w.down, &w.ple_gate, &w.ple_proj] {
                assert_eq!(linear.data.len(), linear.rows * linear.format.row_bytes(linear.cols));
                assert_eq!(linear.row_scale.as_ref().map(|s| s.len()), linear.grids.map(|_| linear.rows));
                assert_eq!(linear.grids.is_some(), format == SynthFormat::Mobile);
            }
        }
        assert!(checkpoint.layer(c.num_layers()).is_err());
        let projection = checkpoint.ple_projection().expect("projection");
        assert_eq!((projection.format, projection.rows), (Format::Bf16, c.ple_width()));
    }
}

#[test]
fn other_prefixes_are_found() {
    let files = tiny(SynthFormat::Mobile);
    let want = files.clone().into_checkpoint().expect("published");
    for prefix in ["model.", "language_model.model."] {
        let mut tensors = unpack(&files.safetensors);
        for (name, ..) in &mut tensors {
            *name = name.replace("model.language_model.", prefix);
        }
        let bytes = pack(&tensors, 0);
        let got = Checkpoint::from_bytes(files.config.as_bytes(), None, bytes).expect("opens");
        got.validate().expect("valid");
        let (a, b) = (want.layer(7).expect("layer"), got.layer(7).expect("layer"));
        assert!(a.gate.data.same(&b.gate.data).expect("read") && a.gate.format == b.gate.format, "{prefix}");
        let name = "model.language_model.norm.weight";
        assert_eq!(got.tensor(name).expect("by its published name").name, format!("{prefix}norm.weight"));
    }
}

#[test]
fn unaligned_floats_are_copied() {
    let files = tiny(SynthFormat::Mobile);
    let tensors = unpack(&files.safetensors);
    let scales: Vec<_> = (0..4)
        .map(|pad| {
            let c =
                Checkpoint::from_bytes(files.config.as_bytes(), None, pack(&tensors, pad)).expect("opens");
            c.layer(0).expect("layer").q.row_scale.expect("scale")
        })
        .collect();
    assert!(scales.iter().all(|s| *s == scales[0]));
}

#[test]
fn dead_and_foreign_tensors_are_ignored() {
    let files = tiny(SynthFormat::Bf16);
    let mut tensors = unpack(&files.safetensors);
    let dead = "model.language_model.layers.9.self_attn.k_proj.weight";
    tensors.push((dead.into(), Dtype::BF16, vec![1, 1], vec![0, 0]));
    tensors.push(("model.vision_tower.x".into(), Dtype::I64, vec![1], vec![0; 8]));
    let c = Checkpoint::from_bytes(files.config.as_bytes(), None, pack(&tensors, 0)).expect("opens");
    c.validate().expect("valid");
    assert!(c.layer(9).expect("layer").k.is_none());
    assert!(c.has("model.vision_tower.x"));
}

#[test]
fn f32_and_f16_weights_will_do() {
    for (dtype, name) in [(Dtype::F32, "f32"), (Dtype::F16, "f16")] {
        let files = tiny(SynthFormat::Bf16);
        let mut tensors = unpack(&files.safetensors);
        for (_, stored, _, bytes) in &mut tensors {
            let values = bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32());
            *bytes = match dtype {
                Dtype::F32 => values.flat_map(f32::to_le_bytes).collect(),
                _ => values.flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect(),
            };
            *stored = dtype;
        }
        let c = Checkpoint::from_bytes(files.config.as_bytes(), None, pack(&tensors, 0)).expect("opens");
        c.validate().expect("valid");
        assert_eq!(c.format_name(), name);
        let want = files.into_checkpoint().expect("bf16").layer(2).expect("layer").input_norm;
        assert_eq!(c.layer(2).expect("layer").input_norm, want);
    }
}

#[test]
fn zero_grids_are_none() {
    let files = tiny(SynthFormat::Mobile);
    let mut tensors = unpack(&files.safetensors);
    tensors.retain(|t| !t.0.contains("layers.0.mlp.up_proj.input"));
    for t in tensors.iter_mut().filter(|t| t.0.contains("layers.0.mlp.gate_proj.") && t.2.is_empty()) {
        t.3 = vec![0; 4];
    }
    let c = Checkpoint::from_bytes(files.config.as_bytes(), None, pack(&tensors, 0)).expect("opens");
    let w = c.layer(0).expect("layer");
    assert_eq!(w.gate.grids, None);
    assert!(matches!(w.up.grids, Some(Grids { input: 0.0, output }) if output > 0.0));
}

/// Writes the tensors as two shards with an index.
fn shards(folder: &Path, files: &SynthFiles) {
    let tensors = unpack(&files.safetensors);
    let (a, b) = tensors.split_at(tensors.len() / 2);
    let mut map = serde_json::Map::new();
    for (number, part) in [(1, a), (2, b)] {
        let name = format!("model-0000{number}-of-00002.safetensors");
        std::fs::write(folder.join(&name), pack(part, 0)).expect("written");
        map.extend(part.iter().map(|t| (t.0.clone(), json!(name))));
    }
    let index = json!({ "metadata": {}, "weight_map": map }).to_string();
    std::fs::write(folder.join("model.safetensors.index.json"), index).expect("written");
    std::fs::write(folder.join("config.json"), &files.config).expect("written");
}

#[test]
fn shards_are_put_together() {
    let files = tiny(SynthFormat::Bf16);
    let folder = tempfile::tempdir().expect("folder");
    shards(folder.path(), &files);
    let c = Checkpoint::open(folder.path()).expect("opens");
    c.validate().expect("valid");
    let whole = files.into_checkpoint().expect("opens");
    let up = |c: &Checkpoint| c.layer(5).expect("layer").up.data;
    assert!(up(&c).same(&up(&whole)).expect("read"), "the same bytes");
    assert_eq!(c.generation().eos, [1, 106], "from config.json");
    assert_eq!(c.path(), Some(folder.path()));
}

#[test]
fn folders_that_lack_something_say_what() {
    let says = |folder: &Path, parts: &[&str]| {
        let message = Checkpoint::open(folder).expect_err("must fail").to_string();
        for part in parts {
            assert!(message.contains(part), "{message:?} does not say {part:?}");
        }
    };
    let folder = tempfile::tempdir().expect("folder");
    let dir = folder.path();
    says(&dir.join("nowhere"), &["nowhere", "config.json", "no such file"]);
    let files = tiny(SynthFormat::Bf16);
    std::fs::write(dir.join("config.json"), &files.config).expect("written");
    says(&dir.join("config.json"), &["is a file", "folder"]);
    says(dir, &["model.safetensors", "fetch the weights"]);
    shards(dir, &files);
    std::fs::remove_file(dir.join("model-00002-of-00002.safetensors")).expect("removed");
    says(dir, &["model-00002-of-00002.safetensors", "no such file"]);
    let index = dir.join("model.safetensors.index.json");
    for evil in ["../x.safetensors", "/etc/x.safetensors", "..\\x.safetensors", "passwd"] {
        std::fs::write(&index, json!({ "weight_map": { "a.b": evil } }).to_string()).expect("written");
        says(dir, &["index.json", "weight_map.a.b"]);
    }
    std::fs::write(&index, "{}").expect("written");
    says(dir, &["index.json", "weight_map"]);
    std::fs::write(dir.join("model.safetensors"), b"").expect("written");
    says(dir, &["model.safetensors", "0 bytes"]);
    std::fs::write(dir.join("generation_config.json"), "[").expect("written");
    says(dir, &["generation_config.json", "JSON"]);
}

/// The embedding times √hidden is what the reference feeds its first layer.
#[test]
fn fixtures_open_and_embed_as_the_reference() {
    for name in ["tiny-bf16", "tiny-mobile"] {
        let Some(folder) = shared(&format!("fixtures/{name}")) else { return };
        let c = Checkpoint::open(&folder).expect("opens");
        c.validate().expect("valid");
        assert_eq!(c.label(), name);
        assert_eq!(c.format_name(), name.trim_start_matches("tiny-"));
        assert_eq!(c.generation().eos, [1, 106, 50]);
        let golden = std::fs::read(folder.join("golden.safetensors")).expect("golden");
        let golden = SafeTensors::deserialize(&golden).expect("golden");
        let tokens = golden.tensor("tokens").expect("tokens");
        let hidden = golden.tensor("hidden").expect("hidden");
        let h = c.config().hidden;
        let embed = c.embed().expect("embed");
        let factor = (h as f32).sqrt();
        for (t, id) in tokens.data().as_chunks::<8>().0.iter().enumerate() {
            let mut row = vec![0.0; h];
            embed.row(usize::try_from(i64::from_le_bytes(*id)).expect("an id"), &mut row).expect("read");
            let want = hidden.data()[t * h * 4..][..h * 4].as_chunks::<4>().0;
            for (got, want) in row.iter().zip(want) {
                let want = f32::from_le_bytes(*want);
                assert!((got * factor - want).abs() <= 1e-6 * want.abs().max(1e-3), "{name} token {t}");
            }
        }
    }
}

#[test]
fn both_config_styles_of_the_fixture_agree() {
    let Some(folder) = shared("fixtures/tiny-bf16") else { return };
    let read = |name: &str| {
        let json = std::fs::read(folder.join(name)).expect("readable");
        format!("{:?}", TextConfig::from_json(&json, name).expect(name))
    };
    assert_eq!(read("config.json"), read("config-per-layer-style.json"));
}
