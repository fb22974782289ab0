//! What a checkpoint's `config.json` says about the model.
//!
//! [`TextConfig`] is the checked form: every size is positive and bounded, every layer has its
//! own [`LayerShape`], and everything this engine does not compute has been refused by name.

mod check;
mod fields;
mod generation;
mod parse;
mod presets;
mod quantization;
mod write;

pub use generation::GenerationConfig;
pub use quantization::Quantization;

use crate::Result;

/// How a layer attends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// To the last [`TextConfig::window`] positions, its own included.
    Sliding,
    /// To every earlier position.
    Full,
}

/// The sizes of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerShape {
    /// How it attends.
    pub kind: LayerKind,
    /// Elements of one attention head.
    pub head_dim: usize,
    /// Key/value heads; divides [`TextConfig::heads`].
    pub kv_heads: usize,
    /// Elements of the feed-forward network's inner vector.
    pub intermediate: usize,
}

/// Rotary position embedding: pair (j, j + d/2) of a head of d elements turns by
/// `position × theta^(-2j/d)` for j below [`Rope::rotated_pairs`]; the other pairs stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Base of the wavelengths.
    pub theta: f64,
    /// Fraction of the pairs that turn, in (0, 1].
    pub partial_rotary_factor: f64,
}

impl Rope {
    /// How many of the `head_dim / 2` pairs turn.
    pub fn rotated_pairs(&self, head_dim: usize) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the factor lies in (0, 1] and head_dim is bounded, so this is at most head_dim / 2"
        )]
        let angles = (self.partial_rotary_factor * head_dim as f64 / 2.0) as usize;
        angles.min(head_dim / 2)
    }

    /// Radians per position of pair `pair` (0 for the pairs that stay).
    pub fn frequency(&self, pair: usize, head_dim: usize) -> f64 {
        if pair < self.rotated_pairs(head_dim) {
            self.theta.powf(-2.0 * pair as f64 / head_dim as f64)
        } else {
            0.0
        }
    }
}

/// The text model's shape, as `config.json` states it.
///
/// Sizes are in elements unless said otherwise. Values made by [`TextConfig::from_json`] are
/// checked; whoever builds or changes one by hand calls [`TextConfig::check`].
#[derive(Debug, Clone)]
pub struct TextConfig {
    /// Rows of the embedding table and of the output head (tokens).
    pub vocab_size: usize,
    /// Rows of the per-layer embedding table; at least the vocabulary.
    pub vocab_size_per_layer_input: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads, the same in every layer.
    pub heads: usize,
    /// One entry a layer.
    pub layers: Vec<LayerShape>,
    /// Inner width of the feed-forward network before any doubling.
    pub intermediate: usize,
    /// Whether the layers without keys and values of their own have a feed-forward network of
    /// twice [`TextConfig::intermediate`]. Already accounted for in [`TextConfig::layers`].
    pub double_wide_mlp: bool,
    /// Width of one layer's slice of the per-layer embedding.
    pub ple_dim: usize,
    /// Rotary embedding of the sliding layers.
    pub rope_sliding: Rope,
    /// Rotary embedding of the full layers.
    pub rope_full: Rope,
    /// Positions a sliding layer sees, its own included.
    pub window: usize,
    /// Added to the mean square inside every RMS norm.
    pub rms_norm_eps: f32,
    /// c in `c·tanh(logit / c)` over the logits; `None` leaves them as they are.
    pub softcap: Option<f32>,
    /// How many of the last layers have no keys and values of their own.
    pub num_kv_shared: usize,
    /// Positions the model was trained for.
    pub max_position: usize,
    /// Whether the output head is the embedding table.
    pub tie_word_embeddings: bool,
    /// Tokens that end generation, as `config.json` has them. [`GenerationConfig::eos`] wins.
    pub eos: Vec<u32>,
    /// How the weights are quantised; `None` where they are plain floats.
    pub quantization: Option<Quantization>,
}

impl TextConfig {
    /// Parses and checks a `config.json`, nested under `text_config` as published or bare.
    /// `file` is what errors call it.
    pub fn from_json(json: &[u8], file: &str) -> Result<Self> {
        parse::text_config(json, file)
    }

    /// The number of layers.
    pub fn num_layers(&self) -> usize {
        self.layers.len()
    }

    /// The layer's kind.
    pub fn kind(&self, layer: usize) -> LayerKind {
        self.layers[layer].kind
    }

    /// Elements of one head in that layer.
    pub fn head_dim(&self, layer: usize) -> usize {
        self.layers[layer].head_dim
    }

    /// Key/value heads in that layer.
    pub fn kv_heads(&self, layer: usize) -> usize {
        self.layers[layer].kv_heads
    }

    /// Inner width of that layer's feed-forward network.
    pub fn intermediate(&self, layer: usize) -> usize {
        self.layers[layer].intermediate
    }

    /// Rotary embedding of that layer.
    pub fn rope(&self, layer: usize) -> Rope {
        match self.kind(layer) {
            LayerKind::Sliding => self.rope_sliding,
            LayerKind::Full => self.rope_full,
        }
    }

    /// Elements of all query heads of that layer together.
    pub fn q_dim(&self, layer: usize) -> usize {
        self.heads * self.head_dim(layer)
    }

    /// Elements of all key (or value) heads of that layer together.
    pub fn kv_dim(&self, layer: usize) -> usize {
        self.kv_heads(layer) * self.head_dim(layer)
    }

    /// Layers that compute keys and values: all before the shared ones.
    pub fn num_kv_owners(&self) -> usize {
        self.layers.len() - self.num_kv_shared
    }

    /// Whether the layer computes keys and values of its own.
    pub fn owns_kv(&self, layer: usize) -> bool {
        layer < self.num_kv_owners()
    }

    /// The layer whose keys and values this one reads: itself, or the last owner of its kind.
    pub fn kv_source(&self, layer: usize) -> usize {
        let kind = self.kind(layer);
        if self.owns_kv(layer) {
            return layer;
        }
        // `check` refuses a shared layer without an owner.
        (0..self.num_kv_owners()).rev().find(|&owner| self.kind(owner) == kind).unwrap_or(layer)
    }

    /// Width of one row of the per-layer embedding table: every layer's slice, in order.
    pub fn ple_width(&self) -> usize {
        self.layers.len() * self.ple_dim
    }

    /// Checks every bound and relation that the rest of the crate relies on. `file` is what
    /// errors call the origin.
    pub fn check(&self, file: &str) -> Result<()> {
        check::check(self, file)
    }

    /// The `config.json` of this shape, as published, for a checkpoint with these weights.
    pub fn to_json(&self) -> Result<String> {
        write::config_json(self)
    }
}
