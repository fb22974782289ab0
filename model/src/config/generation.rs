//! `generation_config.json`.

use serde::Deserialize;

use super::{TextConfig, fields::Ids};
use crate::{Error, Result};

/// How the publisher recommends to sample.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationConfig {
    /// Divides the logits before softmax.
    pub temperature: f32,
    /// Only this many of the most likely tokens stay; 0 keeps all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability stay, in (0, 1].
    pub top_p: f32,
    /// False: always the most likely token.
    pub do_sample: bool,
    /// Tokens that end generation.
    pub eos: Vec<u32>,
}

#[derive(Deserialize)]
struct Raw {
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    do_sample: Option<bool>,
    eos_token_id: Option<Ids>,
}

impl GenerationConfig {
    /// What holds where there is no `generation_config.json`: Gemma 4's published settings and
    /// the ends of sequence that `config.json` names.
    pub fn for_config(config: &TextConfig) -> Self {
        Self { temperature: 1.0, top_k: 64, top_p: 0.95, do_sample: true, eos: config.eos.clone() }
    }

    /// Parses a `generation_config.json`; what it leaves out comes from
    /// [`GenerationConfig::for_config`]. `file` is what errors call it.
    pub fn from_json(json: &[u8], file: &str, config: &TextConfig) -> Result<Self> {
        let raw: Raw =
            serde_json::from_slice(json).map_err(|source| Error::Json { file: file.to_owned(), source })?;
        let base = Self::for_config(config);
        let out = Self {
            temperature: raw.temperature.unwrap_or(base.temperature),
            top_k: raw.top_k.unwrap_or(base.top_k),
            top_p: raw.top_p.unwrap_or(base.top_p),
            do_sample: raw.do_sample.unwrap_or(base.do_sample),
            eos: raw.eos_token_id.map_or(base.eos, Ids::into_vec),
        };
        if !(out.temperature.is_finite() && out.temperature >= 0.0) {
            return Err(Error::bad_field(file, "temperature", out.temperature, "a number ≥ 0"));
        }
        if !(out.top_p > 0.0 && out.top_p <= 1.0) {
            return Err(Error::bad_field(file, "top_p", out.top_p, "a number in (0, 1]"));
        }
        Ok(out)
    }
}
