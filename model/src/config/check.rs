//! The bounds and relations that the rest of the crate relies on.

use super::TextConfig;
use crate::{Error, Result};

/// Bounds far above any model of this family: products of any three stay below 2^53, and a
/// damaged file cannot make anybody allocate.
pub(super) fn check(c: &TextConfig, file: &str) -> Result<()> {
    let within = |field: &str, value: usize, max: usize| {
        if value == 0 || value > max {
            return Err(Error::bad_field(file, field, value, format!("1 to {max}")));
        }
        Ok(())
    };
    within("vocab_size", c.vocab_size, 1 << 22)?;
    within("vocab_size_per_layer_input", c.vocab_size_per_layer_input, 1 << 22)?;
    within("hidden_size", c.hidden, 1 << 16)?;
    within("num_hidden_layers", c.layers.len(), 512)?;
    within("num_attention_heads", c.heads, 1024)?;
    within("intermediate_size", c.intermediate, 1 << 20)?;
    within("hidden_size_per_layer_input", c.ple_dim, 1 << 14)?;
    within("sliding_window", c.window, 1 << 24)?;
    within("max_position_embeddings", c.max_position, 1 << 24)?;
    if c.num_kv_shared >= c.layers.len() {
        let wanted = format!("fewer than the {} layers", c.layers.len());
        return Err(Error::bad_field(file, "num_kv_shared_layers", c.num_kv_shared, wanted));
    }
    if !(c.rms_norm_eps.is_finite() && c.rms_norm_eps > 0.0) {
        return Err(Error::bad_field(file, "rms_norm_eps", c.rms_norm_eps, "a number > 0"));
    }
    if let Some(cap) = c.softcap
        && !(cap.is_finite() && cap > 0.0)
    {
        return Err(Error::bad_field(file, "final_logit_softcapping", cap, "a number > 0, or null"));
    }
    for (name, rope) in [("sliding_attention", c.rope_sliding), ("full_attention", c.rope_full)] {
        if !(rope.theta.is_finite() && rope.theta > 1.0) {
            let field = format!("rope_parameters.{name}.rope_theta");
            return Err(Error::bad_field(file, &field, rope.theta, "a number > 1"));
        }
        if !(rope.partial_rotary_factor > 0.0 && rope.partial_rotary_factor <= 1.0) {
            let field = format!("rope_parameters.{name}.partial_rotary_factor");
            return Err(Error::bad_field(file, &field, rope.partial_rotary_factor, "a number in (0, 1]"));
        }
    }
    let packed = c.quantization.is_some();
    let multiple_of_4 = |field: &str, value: usize| {
        if packed && !value.is_multiple_of(4) {
            return Err(Error::bad_field(file, field, value, "a multiple of 4 where weights are packed"));
        }
        Ok(())
    };
    multiple_of_4("hidden_size", c.hidden)?;
    multiple_of_4("hidden_size_per_layer_input", c.ple_dim)?;
    for (i, layer) in c.layers.iter().enumerate() {
        let named = |field: &str| format!("{field} (layer {i})");
        within(&named("head_dim"), layer.head_dim, 4096)?;
        within(&named("num_key_value_heads"), layer.kv_heads, 1024)?;
        within(&named("intermediate_size"), layer.intermediate, 1 << 20)?;
        if !layer.head_dim.is_multiple_of(2) {
            let wanted = "an even number: rotary embedding turns pairs";
            return Err(Error::bad_field(file, &named("head_dim"), layer.head_dim, wanted));
        }
        if !c.heads.is_multiple_of(layer.kv_heads) {
            let wanted = format!("a divisor of num_attention_heads ({})", c.heads);
            return Err(Error::bad_field(file, &named("num_key_value_heads"), layer.kv_heads, wanted));
        }
        multiple_of_4(&named("head_dim × num_attention_heads"), c.q_dim(i))?;
        multiple_of_4(&named("intermediate_size"), layer.intermediate)?;
        check_source(c, i, file)?;
    }
    Ok(())
}

/// A layer without keys and values needs an owner of its kind, of the same sizes.
fn check_source(c: &TextConfig, layer: usize, file: &str) -> Result<()> {
    if c.owns_kv(layer) {
        return Ok(());
    }
    let source = c.kv_source(layer);
    if source == layer {
        let wanted = format!("an own layer of the kind of layer {layer} ({:?}) to read from", c.kind(layer));
        return Err(Error::bad_field(file, "num_kv_shared_layers", c.num_kv_shared, wanted));
    }
    if (c.head_dim(layer), c.kv_heads(layer)) != (c.head_dim(source), c.kv_heads(source)) {
        let got = format!("{} (layer {layer})", c.head_dim(layer));
        let wanted = format!("the sizes of layer {source}, whose keys and values it reads");
        return Err(Error::bad_field(file, "head_dim", got, wanted));
    }
    Ok(())
}
