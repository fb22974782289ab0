//! Files that are damaged or lie: refused by name, and never with a panic.
//!
//! `WGFORGE_FUZZ_SECONDS` sets how long the mutation test runs (2 by default). The same seeds
//! feed `cargo fuzz run checkpoint`; `cargo test --test checkpoint_hostile -- --ignored` writes
//! them to `fuzz/seeds/checkpoint`.

use std::panic;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wgforge_model::synth::{SynthFiles, SynthFormat, synth_in_memory};
use wgforge_model::{Checkpoint, Error, LayerKind, LayerShape, TextConfig};

/// The smallest model with everything in it.
fn micro(format: SynthFormat) -> SynthFiles {
    let mut shape = TextConfig::tiny();
    let layer = |kind, head_dim, intermediate| LayerShape { kind, head_dim, kv_heads: 1, intermediate };
    shape.layers = vec![
        layer(LayerKind::Sliding, 4, 8),
        layer(LayerKind::Full, 8, 8),
        layer(LayerKind::Sliding, 4, 16),
        layer(LayerKind::Full, 8, 16),
    ];
    shape.num_kv_shared = 2;
    shape.intermediate = 8;
    shape.vocab_size = 12;
    shape.vocab_size_per_layer_input = 12;
    shape.hidden = 8;
    shape.heads = 2;
    shape.ple_dim = 4;
    shape.window = 4;
    synth_in_memory(&shape, format, 1).expect("made")
}

fn load(config: &[u8], weights: Vec<u8>) -> Result<(), Error> {
    Checkpoint::from_bytes(config, None, weights)?.validate()
}

/// The header's JSON and the data behind it.
fn split(file: &[u8]) -> (Value, Vec<u8>) {
    let len = usize::try_from(u64::from_le_bytes(file[..8].try_into().expect("8 bytes"))).expect("small");
    (serde_json::from_slice(&file[8..8 + len]).expect("JSON"), file[8 + len..].to_vec())
}

fn join(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

fn refused(what: &str, result: Result<(), Error>, says: &[&str]) {
    let message = match result {
        Ok(()) => panic!("{what}: accepted"),
        Err(error) => error.to_string(),
    };
    for part in says {
        assert!(message.contains(part), "{what}: {message:?} does not say {part:?}");
    }
}

const UP: &str = "model.language_model.layers.2.mlp.up_proj";

/// A mobile file with its header changed.
fn header(what: &str, change: impl FnOnce(&mut Value), says: &[&str]) {
    let files = micro(SynthFormat::Mobile);
    let (mut header, data) = split(&files.safetensors);
    change(&mut header);
    refused(what, load(files.config.as_bytes(), join(&header.to_string(), &data)), says);
}

#[test]
fn the_seeds_themselves_are_sound() {
    for format in [SynthFormat::Mobile, SynthFormat::Bf16] {
        let files = micro(format);
        load(files.config.as_bytes(), files.safetensors).expect("valid");
    }
}

#[test]
fn truncated_files() {
    let files = micro(SynthFormat::Mobile);
    let full = files.safetensors.len();
    let header_len = full - split(&files.safetensors).1.len();
    for (len, says) in [
        (0, "0 bytes"),
        (7, "7 bytes"),
        (8, "header claims"),
        (header_len - 1, "header claims"),
        (header_len, "cut short"),
        (full - 1, "cut short"),
    ] {
        let cut = files.safetensors[..len].to_vec();
        refused("truncated", load(files.config.as_bytes(), cut), &["model.safetensors", says]);
    }
    let mut long = files.safetensors.clone();
    long.push(0);
    refused("longer", load(files.config.as_bytes(), long), &["1 bytes at its end"]);
}

#[test]
fn lying_header_lengths() {
    let files = micro(SynthFormat::Mobile);
    for (len, says) in
        [(u64::MAX, "allowed"), (1 << 40, "allowed"), (99_000_000, "whole file"), (0, "header")]
    {
        let mut file = files.safetensors.clone();
        file[..8].copy_from_slice(&len.to_le_bytes());
        refused("length", load(files.config.as_bytes(), file), &["model.safetensors", says]);
    }
}

#[test]
fn headers_that_are_not_json() {
    let files = micro(SynthFormat::Mobile);
    let config = files.config.as_bytes();
    let mut file = files.safetensors.clone();
    file[12] = 0xFF;
    refused("utf8", load(config, file), &["UTF-8"]);
    for text in
        ["[]", "{", "{\"a\": 3}", "{\"a\": {\"dtype\": \"Q7\", \"shape\": [], \"data_offsets\": [0, 0]}}"]
    {
        refused("json", load(config, join(text, &[])), &["model.safetensors", "header"]);
    }
    let nested = "[".repeat(100_000);
    refused("nested", load(config, join(&format!("{{\"a\": {nested}"), &[])), &["header"]);
    let (header, data) = split(&files.safetensors);
    let norm = "model.language_model.norm.weight";
    let twice = header.to_string().replacen('{', &format!("{{\"{norm}\":{},", header[norm]), 1);
    refused("twice", load(config, join(&twice, &data)), &[norm, "twice"]);
}

#[test]
fn lying_offsets_and_sizes() {
    let name = format!("{UP}.weight");
    let offsets = |a: u64, b: u64| {
        let name = name.clone();
        move |h: &mut Value| h[&name]["data_offsets"] = json!([a, b])
    };
    header("outside", offsets(0, u64::MAX), &[&name]);
    let backwards = |h: &mut Value| h[&name]["data_offsets"][1] = json!(1);
    header("backwards", backwards, &[&name, "to 1 of"]);
    header("gap before", offsets(1 << 40, 1 << 41), &["leaves a gap"]);
    header("overlap", offsets(0, 32), &["overlaps"]);
    let shape = |shape: Value| {
        let name = name.clone();
        move |h: &mut Value| h[&name]["shape"] = shape
    };
    header("size", shape(json!([16, 3])), &[&name, "not the size of [16, 3]"]);
    header("overflow", shape(json!([u64::MAX, u64::MAX])), &[&name]);
    header("negative", shape(json!([-1, 2])), &["header"]);
    let gap = |h: &mut Value| {
        h.as_object_mut().expect("object").remove(&name);
    };
    header("gap", gap, &["leaves a gap"]);
}

#[test]
fn tensors_of_the_wrong_shape_or_type() {
    let name = format!("{UP}.weight");
    header("transposed", |h| h[&name]["shape"] = json!([2, 16]), &[&name, "[2, 16]", "[16, 2]"]);
    header("typed", |h| h[&name]["dtype"] = json!("I8"), &[&name, "I8", "U8", "2 bits"]);
    let norm = "model.language_model.norm.weight";
    header("norm", |h| h[norm]["shape"] = json!([8, 1]), &[norm, "[8, 1]", "[8]"]);
    header("norm type", |h| h[norm]["dtype"] = json!("I16"), &[norm, "I16", "BF16"]);
    let scale = format!("{UP}.weight_scale");
    header("scale", |h| h[&scale]["shape"] = json!([8, 2]), &[&scale, "[8, 2]", "[16, 1]"]);
    header("two scales", |h| h["lm_head.weight_scale"]["shape"] = json!([2, 6]), &["lm_head.weight_scale"]);
    let grid = format!("{UP}.input_activation_scale");
    header("grid", |h| h[&grid]["dtype"] = json!("I32"), &[&grid, "I32"]);
}

#[test]
fn missing_tensors() {
    let rename = |name: &str| {
        let name = name.to_owned();
        move |h: &mut Value| {
            let map = h.as_object_mut().expect("object");
            let info = map.remove(&name).expect("there");
            map.insert("elsewhere".into(), info);
        }
    };
    for name in [
        "model.language_model.embed_tokens.embedding_quantized",
        "model.language_model.embed_tokens_per_layer.embedding_scale",
        "model.language_model.per_layer_model_projection.weight",
        "model.language_model.layers.2.mlp.up_proj.weight",
        "model.language_model.layers.2.mlp.up_proj.weight_scale",
        "model.language_model.layers.0.self_attn.k_norm.weight",
        "model.language_model.layers.3.layer_scalar",
        "lm_head.weight_scale",
    ] {
        header("missing", rename(name), &[name, "missing"]);
    }
    // A bf16 model that says it has a head of its own must have it.
    let files = micro(SynthFormat::Bf16);
    let config = files.config.replace("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
    refused("head", load(config.as_bytes(), files.safetensors), &["lm_head.weight", "missing"]);
}

#[test]
fn numbers_that_would_spoil_everything() {
    let files = micro(SynthFormat::Mobile);
    let (header, data) = split(&files.safetensors);
    let poison = |name: &str, index: usize, bytes: &[u8]| {
        let start = header[name]["data_offsets"][0].as_u64().expect("offset");
        let at = usize::try_from(start).expect("small") + index * bytes.len();
        let mut data = data.clone();
        data[at..at + bytes.len()].copy_from_slice(bytes);
        load(files.config.as_bytes(), join(&header.to_string(), &data))
    };
    let scale = format!("{UP}.weight_scale");
    refused("nan", poison(&scale, 3, &f32::NAN.to_le_bytes()), &[&scale, "NaN", "index 3"]);
    refused("inf", poison(&scale, 0, &f32::INFINITY.to_le_bytes()), &[&scale, "inf", "index 0"]);
    refused("negative", poison(&scale, 0, &(-1.0_f32).to_le_bytes()), &[&scale, "-1"]);
    poison(&scale, 0, &0.0_f32.to_le_bytes()).expect("a dead row may have the scale 0");
    let grid = format!("{UP}.output_activation_scale");
    refused("grid", poison(&grid, 0, &f32::NAN.to_le_bytes()), &[&grid, "NaN"]);
    refused("grid", poison(&grid, 0, &(-0.5_f32).to_le_bytes()), &[&grid, "-0.5"]);
    let table = "model.language_model.embed_tokens_per_layer.embedding_scale";
    refused("table", poison(table, 47, &f32::NAN.to_le_bytes()), &[table, "index 47"]);
    let nan = half::bf16::NAN.to_le_bytes();
    let norm = "model.language_model.layers.1.post_attention_layernorm.weight";
    refused("norm", poison(norm, 7, &nan), &[norm, "NaN", "index 7"]);
    let scalar = "model.language_model.layers.1.layer_scalar";
    refused("scalar", poison(scalar, 0, &nan), &[scalar, "NaN"]);
}

#[test]
fn configurations_that_do_not_fit() {
    let files = micro(SynthFormat::Mobile);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut config: Value = serde_json::from_str(&files.config).expect("JSON");
        change(&mut config);
        load(config.to_string().as_bytes(), files.safetensors.clone())
    };
    let removed = with(&|c| {
        c["text_config"].as_object_mut().expect("object").remove("sliding_window");
    });
    refused("field", removed, &["config.json", "text_config.sliding_window", "missing"]);
    let method = with(&|c| c["quantization_config"]["quant_method"] = json!("awq"));
    refused("method", method, &["quant_method", "awq", "\"gemma\""]);
    let wide = with(&|c| c["text_config"]["hidden_size"] = json!(16));
    refused("hidden", wide, &["embed_tokens.embedding_quantized", "[12, 2]", "[12, 4]"]);
    let plain = with(&|c| {
        c.as_object_mut().expect("object").remove("quantization_config");
    });
    refused("not quantised", plain, &["embed_tokens.weight", "missing"]);
    let look =
        with(&|c| c["quantization_config"]["module_quant_configs"] = json!({ "a(?=b)": { "num_bits": 4 } }));
    refused("look-around", look, &["module_quant_configs", "look-around"]);
    refused("not json", load(b"\xFF\xFE", files.safetensors.clone()), &["config.json", "JSON"]);
    refused("empty", load(b"", files.safetensors.clone()), &["config.json"]);
    refused("list", load(b"[1]", files.safetensors.clone()), &["config.json", "object"]);
}

/// A file in the parts where lies are told.
#[derive(Clone)]
struct Seed {
    config: Vec<u8>,
    header: Vec<u8>,
    data: Vec<u8>,
}

impl Seed {
    fn all() -> Vec<(&'static str, Self)> {
        [("mobile", SynthFormat::Mobile), ("bf16", SynthFormat::Bf16)]
            .map(|(name, format)| {
                let files = micro(format);
                let (_, data) = split(&files.safetensors);
                let header = files.safetensors[8..files.safetensors.len() - data.len()].to_vec();
                (name, Self { config: files.config.into_bytes(), header, data })
            })
            .to_vec()
    }

    fn weights(&self) -> Vec<u8> {
        [&(self.header.len() as u64).to_le_bytes(), &self.header[..], &self.data].concat()
    }

    /// As the fuzz target reads it: the length of the configuration in 4 bytes, the
    /// configuration, the weights.
    fn bytes(&self) -> Vec<u8> {
        let len = u32::try_from(self.config.len()).expect("small");
        [&len.to_le_bytes(), &self.config[..], &self.weights()].concat()
    }
}

#[test]
#[ignore = "writes the fuzz seeds"]
fn write_seeds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/checkpoint");
    std::fs::create_dir_all(&folder).expect("folder");
    for (name, seed) in Seed::all() {
        std::fs::write(folder.join(name), seed.bytes()).expect("written");
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % n.max(1) as u64).expect("below n")
    }
}

const INTERESTING: [&str; 16] = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "255",
    "65536",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "1e308",
    "null",
    "true",
    "\"x\"",
    "[]",
];

/// One small change: bytes, or a number of the JSON text exchanged for an awkward one.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    match random.below(8) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = u8::try_from(random.below(256)).expect("a byte"),
        2 => bytes.truncate(at),
        3 => {
            let end = (at + random.below(32)).min(bytes.len());
            bytes.drain(at..end);
        }
        4 => {
            let end = (at + random.below(64)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, piece);
        }
        _ => {
            let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|d| at + d) else { return };
            let len = bytes[start..].iter().position(|b| !b.is_ascii_digit()).unwrap_or(1);
            let new = INTERESTING[random.below(INTERESTING.len())];
            bytes.splice(start..start + len, new.bytes());
        }
    }
}

#[test]
fn mutated_files_never_panic() {
    let seconds = std::env::var("WGFORGE_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(2);
    let end = Instant::now() + Duration::from_secs(seconds);
    let seeds = Seed::all();
    let (mut run, mut accepted) = (0_u64, 0_u64);
    while Instant::now() < end {
        let mut random = Random(run);
        let mut seed = seeds[random.below(seeds.len())].1.clone();
        for _ in 0..=random.below(4) {
            match random.below(8) {
                0..3 => mutate(&mut seed.config, &mut random),
                3..7 => mutate(&mut seed.header, &mut random),
                _ => mutate(&mut seed.data, &mut random),
            }
        }
        let mut weights = seed.weights();
        if random.below(16) == 0 {
            mutate(&mut weights, &mut random);
        }
        match panic::catch_unwind(|| load(&seed.config, weights)) {
            Ok(result) => accepted += u64::from(result.is_ok()),
            Err(_) => panic!("mutation {run} panicked"),
        }
        run += 1;
    }
    eprintln!("{run} mutated files, {accepted} of them still valid");
    assert!(run > 100, "only {run} files in {seconds} s");
    if let Some(peak) = peak_kib() {
        assert!(peak < 512 << 10, "files of 30 kB made this process hold {peak} KiB");
    }
}

/// The most memory this process ever held, where the system tells.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}
