//! [`TextConfig`] back to a published-style `config.json`.

use serde_json::{Value, json};

use super::{LayerKind, LayerShape, Rope, TextConfig};
use crate::{Error, Result};

pub(super) fn config_json(c: &TextConfig) -> Result<String> {
    const FILE: &str = "config.json to be written";
    c.check(FILE)?;
    let first = |kind| c.layers.iter().find(|l| l.kind == kind).or(c.layers.first());
    let (Some(sliding), Some(full)) = (first(LayerKind::Sliding), first(LayerKind::Full)) else {
        return Err(Error::Usage("a model without layers cannot be written".into()));
    };
    let kinds: Vec<&str> = c.layers.iter().map(|l| kind_name(l)).collect();
    let mut text = json!({
        "model_type": "gemma4_text",
        "vocab_size": c.vocab_size,
        "vocab_size_per_layer_input": c.vocab_size_per_layer_input,
        "hidden_size": c.hidden,
        "hidden_size_per_layer_input": c.ple_dim,
        "intermediate_size": c.intermediate,
        "num_hidden_layers": c.layers.len(),
        "num_kv_shared_layers": c.num_kv_shared,
        "num_attention_heads": c.heads,
        "num_key_value_heads": sliding.kv_heads,
        "num_global_key_value_heads": null,
        "head_dim": sliding.head_dim,
        "global_head_dim": full.head_dim,
        "layer_types": kinds,
        "sliding_window": c.window,
        "rope_parameters": {
            "sliding_attention": rope(&c.rope_sliding),
            "full_attention": rope(&c.rope_full),
        },
        "rms_norm_eps": short(c.rms_norm_eps),
        "final_logit_softcapping": c.softcap.map(short),
        "max_position_embeddings": c.max_position,
        "hidden_activation": "gelu_pytorch_tanh",
        "use_double_wide_mlp": c.double_wide_mlp,
    });
    // What this engine does not do, and what nobody here reads.
    let rest = json!({
        "attention_bias": false,
        "attention_dropout": 0.0,
        "attention_k_eq_v": false,
        "enable_moe_block": false,
        "num_experts": null,
        "top_k_experts": null,
        "moe_intermediate_size": null,
        "use_bidirectional_attention": null,
        "tie_word_embeddings": true,
        "initializer_range": 0.02,
        "use_cache": true,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
        "dtype": "bfloat16",
    });
    if let (Value::Object(text), Value::Object(rest)) = (&mut text, rest) {
        text.extend(rest);
    }
    let mut root = json!({
        "text_config": text,
        "architectures": ["Gemma4ForConditionalGeneration"],
        "model_type": "gemma4",
        "dtype": "bfloat16",
        "eos_token_id": c.eos,
        "tie_word_embeddings": c.tie_word_embeddings,
        "image_token_id": 258_880,
        "audio_token_id": 258_881,
        "video_token_id": 258_884,
    });
    // serde_json sorts objects, and the order of the rules matters: they go in as text.
    let rules = c.quantization.as_ref().map(|q| {
        root["quantization_config"] = json!({
            "quant_method": "gemma",
            "num_bits": q.default_bits,
            "quantize_embeddings": q.embeddings,
            "module_quant_configs": RULES,
            "modules_to_not_convert": q.not_convert,
        });
        let rule = |(pattern, bits): &(String, u32)| format!("{}: {{\"num_bits\": {bits}}}", json!(pattern));
        format!("{{{}}}", q.patterns().iter().map(rule).collect::<Vec<_>>().join(", "))
    });
    let mut text = format!("{root:#}\n");
    if let Some(rules) = rules {
        text = text.replacen(&format!("\"{RULES}\""), &rules, 1);
    }
    let back = TextConfig::from_json(text.as_bytes(), FILE)?;
    if format!("{back:?}") != format!("{c:?}") {
        return Err(Error::unsupported(
            "writing a config.json for this shape",
            "layers of one kind must have the same sizes",
        ));
    }
    Ok(text)
}

const RULES: &str = "MODULE_QUANT_CONFIGS";

fn kind_name(layer: &LayerShape) -> &'static str {
    match layer.kind {
        LayerKind::Sliding => "sliding_attention",
        LayerKind::Full => "full_attention",
    }
}

fn rope(rope: &Rope) -> Value {
    if rope.partial_rotary_factor == 1.0 {
        json!({ "rope_type": "default", "rope_theta": rope.theta })
    } else {
        json!({
            "rope_type": "proportional",
            "rope_theta": rope.theta,
            "partial_rotary_factor": rope.partial_rotary_factor,
        })
    }
}

/// 1e-6 and not 9.999999974752427e-7.
fn short(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
