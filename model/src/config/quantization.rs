//! `quantization_config` of the published "mobile" checkpoints (`quant_method: "gemma"`).

use regex::{Regex, RegexBuilder};

use super::TextConfig;
use crate::{Error, Result};

/// Which module is stored in how many bits.
///
/// Module names are the published ones without the last part: `lm_head`,
/// `model.language_model.layers.3.mlp.gate_proj`.
#[derive(Debug, Clone)]
pub struct Quantization {
    /// Bits of the modules that no rule names.
    pub default_bits: u32,
    /// Whether embedding tables are quantised at all.
    pub embeddings: bool,
    /// Patterns and bits, in order. The match that starts first in the name wins, and among
    /// those the earlier rule, as in the reference.
    pub rules: Vec<(Regex, u32)>,
    /// Modules that stay as they are: patterns for the beginning of a name, or its literal end.
    pub not_convert: Vec<String>,
    /// [`Quantization::not_convert`], compiled; an entry that is no pattern is only compared.
    skip: Vec<Option<Regex>>,
    /// The rules as they were written, with those that cannot concern the text model.
    patterns: Vec<(String, u32)>,
}

/// A configuration never needs more; a hostile one shall not make us compile more.
const MAX_RULES: usize = 256;

/// Module names are ASCII, and ASCII classes compile much faster than Unicode's.
fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    let build = |unicode| {
        RegexBuilder::new(pattern).unicode(unicode).size_limit(1 << 20).dfa_size_limit(1 << 20).build()
    };
    build(false).or_else(|_| build(true))
}

impl Quantization {
    /// Compiles the rules. `file` is what errors call the origin.
    pub fn new(
        default_bits: u32,
        embeddings: bool,
        rules: impl IntoIterator<Item = (String, u32)>,
        not_convert: Vec<String>,
        file: &str,
    ) -> Result<Self> {
        const FIELD: &str = "quantization_config.module_quant_configs";
        let bits_ok = |field: &str, bits| match bits {
            2 | 4 | 8 => Ok(()),
            _ => Err(Error::bad_field(file, field, bits, "2, 4 or 8 bits")),
        };
        bits_ok("quantization_config.num_bits", default_bits)?;
        let mut compiled = Vec::new();
        let mut patterns = Vec::new();
        for (pattern, bits) in rules {
            bits_ok(&format!("{FIELD}[{pattern:?}].num_bits"), bits)?;
            patterns.push((pattern.clone(), bits));
            match compile(&pattern) {
                Ok(regex) => compiled.push((regex, bits)),
                // The published file has look-ahead in a rule for the audio tower. Rules for
                // the towers never decide about the text model.
                Err(_) if names_only_a_tower(&pattern) => {}
                Err(error) => {
                    return Err(Error::bad_field(
                        file,
                        FIELD,
                        format!("{pattern:?}"),
                        format!("a regular expression without look-around ({error})"),
                    ));
                }
            }
            if patterns.len() > MAX_RULES {
                return Err(Error::bad_field(file, FIELD, "too long", format!("at most {MAX_RULES} rules")));
            }
        }
        if not_convert.len() > MAX_RULES {
            let field = "quantization_config.modules_to_not_convert";
            return Err(Error::bad_field(file, field, "too long", format!("at most {MAX_RULES} entries")));
        }
        let skip = not_convert.iter().map(|p| compile(&format!("^(?:{p})")).ok()).collect();
        Ok(Self { default_bits, embeddings, rules: compiled, not_convert, skip, patterns })
    }

    /// The rules of the published mobile checkpoints, for a model of this shape: embeddings and
    /// head in 2 bits, attention in 4, the per-layer gates in 8; the feed-forward network in 4,
    /// or in 2 where it is of double width.
    pub fn published(config: &TextConfig) -> Result<Self> {
        let owners = config.num_kv_owners();
        let narrow = match (config.double_wide_mlp, owners) {
            (false, _) => r"\d+".to_owned(),
            (true, 15) => r"(\d|1[0-4])".to_owned(),
            (true, n) => format!("({})", (0..n).map(|i| i.to_string()).collect::<Vec<_>>().join("|")),
        };
        let rule = |pattern: &str, bits| (pattern.to_owned(), bits);
        let mut rules = vec![
            rule("^lm_head$", 2),
            rule(r"language_model\.embed_tokens$", 2),
            rule(r"language_model\.embed_tokens_per_layer$", if config.double_wide_mlp { 4 } else { 2 }),
            (format!(r"language_model\.layers\.{narrow}\.mlp\."), 4),
        ];
        if config.double_wide_mlp {
            rules.push(rule(r"language_model\.layers\.\d+\.mlp\.", 2));
        }
        rules.extend([
            rule(r"language_model\.layers\.\d+\.per_layer_input_gate$", 8),
            rule(r"language_model\.layers\.\d+\.per_layer_projection$", 8),
            rule(r"language_model\.layers\.\d+\.self_attn\.", 4),
            rule("vision_tower", 8),
            rule(r"audio_tower(?!.*lconv1d\.linear_start)", 2),
            rule(r"audio_tower\.layers\.\d+\.lconv1d\.linear_start\.", 4),
        ]);
        let not_convert = [
            "model.vision_tower.patch_embedder",
            "model.audio_tower.subsample_conv_projection",
            "model.audio_tower.output_proj",
            "relative_k_proj",
            "model.embed_audio",
            "model.embed_vision",
            "per_layer_model_projection",
        ];
        Self::new(4, true, rules, not_convert.map(str::to_owned).to_vec(), "the published rules")
    }

    /// The rules as they were written, with those that cannot concern the text model.
    pub(super) fn patterns(&self) -> &[(String, u32)] {
        &self.patterns
    }

    /// Bits of the module's weights, or `None` where it is not quantised.
    pub fn bits(&self, module: &str) -> Option<u32> {
        let skipped = self.not_convert.iter().zip(&self.skip).any(|(name, regex)| {
            module.ends_with(name) || regex.as_ref().is_some_and(|r| r.is_match(module))
        });
        if skipped {
            return None;
        }
        let first = self
            .rules
            .iter()
            .filter_map(|(regex, bits)| regex.find(module).map(|found| (found.start(), *bits)))
            .min_by_key(|(start, _)| *start);
        Some(first.map_or(self.default_bits, |(_, bits)| bits))
    }
}

fn names_only_a_tower(pattern: &str) -> bool {
    let rest = pattern.trim_start_matches('^').trim_start_matches("model\\.").trim_start_matches("model.");
    (rest.starts_with("audio_tower") || rest.starts_with("vision_tower")) && !pattern.contains('|')
}
