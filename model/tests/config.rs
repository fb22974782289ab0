//! `config.json`: what is read, and what is refused by name.

use serde_json::{Value, json};
use wgforge_model::config::{GenerationConfig, Quantization};
use wgforge_model::{Error, LayerKind, TextConfig};

fn parse(value: &Value) -> Result<TextConfig, Error> {
    TextConfig::from_json(value.to_string().as_bytes(), "config.json")
}

fn tiny() -> Value {
    serde_json::from_str(&TextConfig::tiny().to_json().expect("tiny can be written")).expect("JSON")
}

/// `tiny` with one field of `text_config` changed.
fn with(field: &str, value: Value) -> Value {
    let mut config = tiny();
    config["text_config"][field] = value;
    config
}

/// The message says all of these.
fn refused(config: &Value, says: &[&str]) {
    let message = parse(config).expect_err("must be refused").to_string();
    for part in says {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn e2b_is_as_published() {
    let c = TextConfig::e2b();
    c.check("e2b").expect("valid");
    assert_eq!(c.num_layers(), 35);
    let full: Vec<usize> = (0..35).filter(|&i| c.kind(i) == LayerKind::Full).collect();
    assert_eq!(full, [4, 9, 14, 19, 24, 29, 34]);
    assert_eq!((c.head_dim(0), c.head_dim(4), c.q_dim(4), c.kv_dim(4)), (256, 512, 4096, 512));
    assert_eq!((c.intermediate(14), c.intermediate(15)), (6144, 12288));
    assert_eq!(c.ple_width(), 8960);
    for layer in 0..35 {
        let source = if layer < 15 {
            layer
        } else if layer % 5 == 4 {
            14
        } else {
            13
        };
        assert_eq!(c.kv_source(layer), source, "layer {layer}");
    }
}

#[test]
fn e4b_is_as_published() {
    let c = TextConfig::e4b();
    c.check("e4b").expect("valid");
    assert_eq!((c.num_layers(), c.hidden, c.intermediate(0), c.intermediate(41)), (42, 2560, 10240, 10240));
    assert_eq!((c.kv_heads(0), c.num_kv_owners(), c.kv_source(41), c.kv_source(40)), (2, 24, 23, 22));
    assert_eq!(c.kind(5), LayerKind::Full);
}

#[test]
fn presets_survive_writing() {
    for shape in [TextConfig::e2b(), TextConfig::e4b(), TextConfig::tiny()] {
        let mut shape = shape;
        for quantized in [false, true] {
            if quantized {
                shape.quantization = Some(Quantization::published(&shape).expect("rules"));
            }
            let json = shape.to_json().expect("written");
            let back = TextConfig::from_json(json.as_bytes(), "config.json").expect("read");
            assert_eq!(format!("{back:?}"), format!("{shape:?}"));
        }
    }
}

#[test]
fn both_styles_of_head_size_agree() {
    let published = tiny();
    let mut per_layer = published.clone();
    let text = per_layer["text_config"].as_object_mut().expect("object");
    text.remove("global_head_dim");
    text.insert("per_layer_config".into(), json!({ "4": { "head_dim": 512 }, "9": { "head_dim": 512 } }));
    let (a, b) = (parse(&published).expect("published"), parse(&per_layer).expect("per layer"));
    assert_eq!(format!("{a:?}"), format!("{b:?}"));
}

#[test]
fn a_bare_text_config_will_do() {
    let bare = parse(&tiny()["text_config"]).expect("bare");
    let nested = parse(&tiny()).expect("nested");
    assert_eq!(bare.layers, nested.layers);
    assert_eq!(bare.eos, [1]);
    assert_eq!(nested.eos, [1, 106]);
}

#[test]
fn rope_turns_the_first_quarter_of_the_pairs() {
    let c = TextConfig::e2b();
    let full = c.rope(4);
    assert_eq!(full.rotated_pairs(512), 64);
    assert_eq!(full.frequency(0, 512), 1.0);
    assert!((full.frequency(63, 512) - 1e6_f64.powf(-126.0 / 512.0)).abs() < 1e-15);
    assert_eq!(full.frequency(64, 512), 0.0);
    assert_eq!(c.rope(0).rotated_pairs(256), 128);
}

#[test]
fn every_needed_field_is_named_when_missing() {
    for field in [
        "vocab_size",
        "vocab_size_per_layer_input",
        "hidden_size",
        "hidden_size_per_layer_input",
        "intermediate_size",
        "num_hidden_layers",
        "num_kv_shared_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "global_head_dim",
        "layer_types",
        "sliding_window",
        "rope_parameters",
        "rms_norm_eps",
        "max_position_embeddings",
        "hidden_activation",
    ] {
        let mut config = tiny();
        config["text_config"].as_object_mut().expect("object").remove(field);
        refused(&config, &["config.json", &format!("text_config.{field}"), "missing"]);
    }
}

#[test]
fn other_models_are_refused() {
    refused(&with("enable_moe_block", json!(true)), &["mixture of experts"]);
    refused(&with("num_experts", json!(128)), &["mixture of experts"]);
    refused(&with("attention_bias", json!(true)), &["attention_bias"]);
    refused(&with("attention_k_eq_v", json!(true)), &["attention_k_eq_v"]);
    refused(&with("hidden_activation", json!("silu")), &["silu", "gelu_pytorch_tanh"]);
    refused(&with("use_bidirectional_attention", json!("all")), &["use_bidirectional_attention"]);
    let mut config = tiny();
    config["model_type"] = json!("gemma3");
    refused(&config, &["gemma3", "Gemma 4"]);
    config = tiny();
    config["quantization_config"] = json!({ "quant_method": "compressed-tensors" });
    refused(&config, &["compressed-tensors", "\"gemma\"", "bf16"]);
    config["quantization_config"] = json!({ "quant_method": "gemma", "num_bits": 3 });
    refused(&config, &["num_bits", "3"]);
}

#[test]
fn odd_ropes_are_refused() {
    let rope = |kind: &str, value: Value| {
        let mut config = tiny();
        config["text_config"]["rope_parameters"][kind] = value;
        config
    };
    refused(
        &rope("full_attention", json!({ "rope_theta": 1e6, "rope_type": "yarn" })),
        &["yarn", "rope_type"],
    );
    let scaled = json!({ "rope_theta": 1e4, "rope_type": "default", "factor": 8.0 });
    refused(&rope("sliding_attention", scaled), &["sliding_attention.factor", "8"]);
    refused(&rope("sliding_attention", Value::Null), &["rope_parameters.sliding_attention", "missing"]);
    let half = json!({ "rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.5 });
    refused(&rope("sliding_attention", half), &["partial_rotary_factor"]);
    refused(&rope("full_attention", json!({ "rope_theta": -1.0 })), &["rope_theta"]);
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    for field in ["vocab_size", "hidden_size", "hidden_size_per_layer_input", "intermediate_size"] {
        refused(&with(field, json!(0)), &[field, "0"]);
        refused(&with(field, json!(u64::MAX)), &[field]);
        refused(&with(field, json!(-4)), &[field, "-4"]);
        refused(&with(field, json!("many")), &[field, "many"]);
    }
    refused(&with("num_key_value_heads", json!(3)), &["num_key_value_heads", "divisor"]);
    refused(&with("head_dim", json!(33)), &["head_dim", "even"]);
    refused(&with("num_hidden_layers", json!(11)), &["layer_types", "11"]);
    refused(&with("num_kv_shared_layers", json!(10)), &["num_kv_shared_layers"]);
    refused(&with("num_kv_shared_layers", json!(6)), &["num_kv_shared_layers", "Full"]);
    refused(&with("rms_norm_eps", json!(0.0)), &["rms_norm_eps"]);
    refused(&with("final_logit_softcapping", json!(-30.0)), &["final_logit_softcapping"]);
    let mut kinds = tiny()["text_config"]["layer_types"].clone();
    kinds[3] = json!("linear_attention");
    refused(&with("layer_types", kinds), &["layer_types[3]", "linear_attention"]);
}

#[test]
fn the_published_rules_give_the_published_bits() {
    let q = Quantization::published(&TextConfig::e2b()).expect("rules");
    let layer = |i: usize, part: &str| q.bits(&format!("model.language_model.layers.{i}.{part}"));
    assert_eq!(q.bits("lm_head"), Some(2));
    assert_eq!(q.bits("model.language_model.embed_tokens"), Some(2));
    assert_eq!(q.bits("model.language_model.embed_tokens_per_layer"), Some(4));
    assert_eq!(q.bits("model.language_model.per_layer_model_projection"), None);
    assert_eq!(layer(0, "mlp.down_proj"), Some(4));
    assert_eq!(layer(14, "mlp.gate_proj"), Some(4));
    assert_eq!(layer(15, "mlp.gate_proj"), Some(2));
    assert_eq!(layer(34, "mlp.up_proj"), Some(2));
    assert_eq!(layer(34, "self_attn.o_proj"), Some(4));
    assert_eq!(layer(3, "per_layer_input_gate"), Some(8));
    assert_eq!(layer(3, "per_layer_projection"), Some(8));
}

#[test]
fn rules_keep_the_order_of_the_file() {
    // In alphabetical order the general rule would come first.
    let mut config = TextConfig::tiny();
    config.quantization = Some(Quantization::published(&config).expect("rules"));
    let json = config.to_json().expect("written").replace(
        r#""^lm_head$": {"num_bits": 2}"#,
        r#""z_proj$": {"num_bits": 8}, "[a-z]_proj$": {"num_bits": 4}, "^lm_head$": {"num_bits": 2}"#,
    );
    let q = TextConfig::from_json(json.as_bytes(), "config.json").expect("read").quantization.expect("rules");
    assert_eq!(q.bits("z_proj"), Some(8));
    assert_eq!(q.bits("y_proj"), Some(4));
}

#[test]
fn generation_settings_win_over_the_config() {
    let c = TextConfig::tiny();
    assert_eq!(GenerationConfig::for_config(&c).eos, [1, 106]);
    let json = br#"{"eos_token_id": [1, 106, 50], "temperature": 0.7, "top_k": 20, "top_p": 0.9}"#;
    let g = GenerationConfig::from_json(json, "generation_config.json", &c).expect("read");
    assert_eq!(g.eos, [1, 106, 50]);
    assert_eq!((g.temperature, g.top_k, g.top_p, g.do_sample), (0.7, 20, 0.9, true));
    let one = GenerationConfig::from_json(br#"{"eos_token_id": 7}"#, "g", &c).expect("read");
    assert_eq!(one.eos, [7]);
    let bad = GenerationConfig::from_json(br#"{"top_p": 2.0}"#, "g", &c).expect_err("refused");
    assert!(bad.to_string().contains("top_p"), "{bad}");
}
