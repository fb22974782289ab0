//! `config.json` to [`TextConfig`], refusing what this engine does not compute.

use serde::de::Deserialize;
use serde_json::Value;

use super::check::check;
use super::fields::{Fields, Ids, Ordered};
use super::{LayerKind, LayerShape, Quantization, Rope, TextConfig};
use crate::{Error, Result};

pub(super) fn text_config(json: &[u8], file: &str) -> Result<TextConfig> {
    let value: Value =
        serde_json::from_slice(json).map_err(|source| Error::Json { file: file.to_owned(), source })?;
    let Value::Object(root) = &value else {
        return Err(Error::bad_field(file, "(the whole file)", "not an object", "a JSON object"));
    };
    let root = Fields { map: root, path: "", file };
    let text = match root.object("text_config")? {
        Some(map) => Fields { map, path: "text_config", file },
        None => root,
    };
    refuse_other_models(&root, &text)?;

    let num_layers = text.need_count("num_hidden_layers")?;
    let num_kv_shared = text.need_count("num_kv_shared_layers")?;
    let intermediate = text.need_count("intermediate_size")?;
    let double_wide_mlp = text.flag("use_double_wide_mlp")?;
    let layers = layers(&text, num_layers, num_kv_shared, intermediate, double_wide_mlp)?;
    let ropes = text.missing("rope_parameters", text.object("rope_parameters")?)?;
    let path = text.name("rope_parameters");
    let ropes = Fields { map: ropes, path: &path, file };
    let eps = text.missing("rms_norm_eps", text.number("rms_norm_eps")?)?;
    let eos = match root.get("eos_token_id") {
        Some(_) => ids(&root, "eos_token_id")?,
        None => ids(&text, "eos_token_id")?,
    };
    let tie = match root.get("tie_word_embeddings") {
        Some(_) => root.flag("tie_word_embeddings")?,
        None => text.get("tie_word_embeddings").is_none() || text.flag("tie_word_embeddings")?,
    };
    let config = TextConfig {
        vocab_size: text.need_count("vocab_size")?,
        vocab_size_per_layer_input: text.need_count("vocab_size_per_layer_input")?,
        hidden: text.need_count("hidden_size")?,
        heads: text.need_count("num_attention_heads")?,
        rope_sliding: rope(&ropes, "sliding_attention", has(&layers, LayerKind::Sliding))?,
        rope_full: rope(&ropes, "full_attention", has(&layers, LayerKind::Full))?,
        layers,
        intermediate,
        double_wide_mlp,
        ple_dim: text.need_count("hidden_size_per_layer_input")?,
        window: text.need_count("sliding_window")?,
        #[expect(clippy::cast_possible_truncation, reason = "the precision the model computes in")]
        rms_norm_eps: eps as f32,
        #[expect(clippy::cast_possible_truncation, reason = "the precision the model computes in")]
        softcap: text.number("final_logit_softcapping")?.map(|c| c as f32),
        num_kv_shared,
        max_position: text.need_count("max_position_embeddings")?,
        tie_word_embeddings: tie,
        eos,
        quantization: match root.object("quantization_config")? {
            Some(map) => quantization(json, &Fields { map, path: "quantization_config", file })?,
            None => None,
        },
    };
    check(&config, file)?;
    Ok(config)
}

fn has(layers: &[LayerShape], kind: LayerKind) -> bool {
    layers.iter().any(|layer| layer.kind == kind)
}

fn ids(fields: &Fields<'_>, field: &str) -> Result<Vec<u32>> {
    let read = |v: &Value| Ids::deserialize(v).ok().map(Ids::into_vec);
    Ok(fields.read(field, "a token id or a list of them", read)?.unwrap_or_default())
}

fn refuse_other_models(root: &Fields<'_>, text: &Fields<'_>) -> Result<()> {
    let file = text.file;
    for fields in [root, text] {
        if let Some(kind) = fields.read("model_type", "a string", Value::as_str)?
            && !kind.starts_with("gemma4")
        {
            return Err(Error::unsupported(
                format!("{file}: model_type {kind:?}"),
                "use a Gemma 4 checkpoint, E2B or E4B",
            ));
        }
    }
    let refuse = |what: String, why: &str| Err(Error::unsupported(format!("{file}: {what}"), why));
    let experts = text.get("num_experts").is_some_and(|n| n.as_u64() != Some(0));
    if text.flag("enable_moe_block")? || experts {
        return refuse(
            format!("{} (a mixture of experts)", text.name("enable_moe_block")),
            "use a dense Gemma 4 checkpoint, E2B or E4B",
        );
    }
    for (field, what) in
        [("attention_bias", "biases in attention"), ("attention_k_eq_v", "keys used as values")]
    {
        if text.flag(field)? {
            return refuse(
                format!("{} = true ({what})", text.name(field)),
                "use a Gemma 4 E2B or E4B checkpoint",
            );
        }
    }
    if text.get("use_bidirectional_attention").and_then(Value::as_str) == Some("all") {
        return refuse(
            format!("{} = \"all\"", text.name("use_bidirectional_attention")),
            "use a checkpoint that generates text",
        );
    }
    let activation = text.read("hidden_activation", "a string", Value::as_str)?;
    match text.missing("hidden_activation", activation)? {
        "gelu_pytorch_tanh" => Ok(()),
        other => refuse(
            format!("{} = {other:?}", text.name("hidden_activation")),
            "the one activation supported is \"gelu_pytorch_tanh\"",
        ),
    }
}

fn layers(
    text: &Fields<'_>,
    num_layers: usize,
    num_kv_shared: usize,
    intermediate: usize,
    double_wide: bool,
) -> Result<Vec<LayerShape>> {
    let head_dim = text.need_count("head_dim")?;
    let kv_heads = text.need_count("num_key_value_heads")?;
    let kinds = text.missing("layer_types", text.read("layer_types", "a list", Value::as_array)?)?;
    if kinds.len() != num_layers {
        let wanted = format!("one entry for each of the {num_layers} layers (num_hidden_layers)");
        let got = format!("{} entries long", kinds.len());
        return Err(Error::bad_field(text.file, &text.name("layer_types"), got, wanted));
    }
    let overrides = text.object("per_layer_config")?;
    let global_head_dim = text.count("global_head_dim")?;
    let mut layers = Vec::with_capacity(kinds.len());
    for (i, kind) in kinds.iter().enumerate() {
        let kind = match kind.as_str() {
            Some("sliding_attention") => LayerKind::Sliding,
            Some("full_attention") => LayerKind::Full,
            _ => {
                let field = format!("layer_types[{i}]");
                return Err(text.bad(&field, kind, "\"sliding_attention\" or \"full_attention\""));
            }
        };
        let wide = double_wide && num_kv_shared < num_layers && i >= num_layers - num_kv_shared;
        let mut layer = LayerShape {
            kind,
            head_dim,
            kv_heads,
            intermediate: intermediate.saturating_mul(if wide { 2 } else { 1 }),
        };
        if let Some(overrides) = overrides {
            let key = i.to_string();
            let path = text.name("per_layer_config");
            let entry = Fields { map: overrides, path: &path, file: text.file };
            if let Some(map) = entry.object(&key)? {
                let path = entry.name(&key);
                override_layer(&mut layer, &Fields { map, path: &path, file: text.file })?;
            }
        } else if kind == LayerKind::Full {
            layer.head_dim = text.missing("global_head_dim", global_head_dim)?;
        }
        layers.push(layer);
    }
    // The reference makes the last layer full whatever the file says.
    if layers.last().is_some_and(|l| l.kind != LayerKind::Full) {
        let field = text.name("layer_types");
        return Err(Error::bad_field(
            text.file,
            &field,
            "sliding in its last layer",
            "\"full_attention\" there",
        ));
    }
    Ok(layers)
}

/// One entry of `per_layer_config`.
fn override_layer(layer: &mut LayerShape, entry: &Fields<'_>) -> Result<()> {
    for (field, value) in entry.map {
        match field.as_str() {
            "head_dim" => layer.head_dim = entry.need_count(field)?,
            "num_key_value_heads" => layer.kv_heads = entry.need_count(field)?,
            "intermediate_size" => layer.intermediate = entry.need_count(field)?,
            _ if value.is_null() => {}
            _ => {
                return Err(Error::unsupported(
                    format!("{}: {} for one layer only", entry.file, entry.name(field)),
                    "supported there are head_dim, num_key_value_heads and intermediate_size",
                ));
            }
        }
    }
    Ok(())
}

fn rope(ropes: &Fields<'_>, kind: &str, used: bool) -> Result<Rope> {
    let Some(map) = ropes.object(kind)? else {
        if used {
            return Err(Error::missing_field(ropes.file, &ropes.name(kind)));
        }
        return Ok(Rope { theta: 1e4, partial_rotary_factor: 1.0 });
    };
    let path = ropes.name(kind);
    let fields = Fields { map, path: &path, file: ropes.file };
    let theta = fields.missing("rope_theta", fields.number("rope_theta")?)?;
    let factor = fields.number("partial_rotary_factor")?.unwrap_or(1.0);
    let unsupported = |field: &str, value: String, advice: &str| {
        Err(Error::unsupported(format!("{}: {} = {value}", fields.file, fields.name(field)), advice))
    };
    match fields.read("rope_type", "a string", Value::as_str)?.unwrap_or("default") {
        "proportional" => {}
        "default" if factor == 1.0 => {}
        "default" => {
            return unsupported(
                "partial_rotary_factor",
                factor.to_string(),
                "with rope_type \"default\" only 1 is",
            );
        }
        other => {
            return unsupported(
                "rope_type",
                format!("{other:?}"),
                "supported are \"default\" and \"proportional\"",
            );
        }
    }
    if let Some(scaling) = fields.number("factor")?
        && scaling != 1.0
    {
        return unsupported("factor", scaling.to_string(), "use the checkpoint without a stretched context");
    }
    Ok(Rope { theta, partial_rotary_factor: factor })
}

fn quantization(json: &[u8], fields: &Fields<'_>) -> Result<Option<Quantization>> {
    #[derive(serde::Deserialize)]
    struct Rule {
        num_bits: Option<u32>,
    }
    #[derive(serde::Deserialize)]
    struct Outer {
        quantization_config: Inner,
    }
    #[derive(serde::Deserialize)]
    struct Inner {
        num_bits: Option<u32>,
        quantize_embeddings: Option<bool>,
        module_quant_configs: Option<Ordered<Rule>>,
        modules_to_not_convert: Option<Vec<String>>,
    }
    let method = fields.read("quant_method", "a string", Value::as_str)?;
    let method = fields.missing("quant_method", method)?;
    if method != "gemma" {
        return Err(Error::unsupported(
            format!("{}: {} = {method:?}", fields.file, fields.name("quant_method")),
            "supported are \"gemma\" (the published mobile checkpoints) and weights that are not quantised (bf16)",
        ));
    }
    let Outer { quantization_config: q } = serde_json::from_slice(json)
        .map_err(|source| Error::Json { file: format!("{}: quantization_config", fields.file), source })?;
    let default_bits = q.num_bits.unwrap_or(4);
    let rules = q.module_quant_configs.map_or_else(Vec::new, |o| o.0);
    let rules = rules.into_iter().map(|(pattern, rule)| (pattern, rule.num_bits.unwrap_or(default_bits)));
    let not_convert = q.modules_to_not_convert.unwrap_or_default();
    let embeddings = q.quantize_embeddings.unwrap_or(false);
    Quantization::new(default_bits, embeddings, rules, not_convert, fields.file).map(Some)
}
