//! The published shapes, for checkpoints made up of random weights.

use super::{LayerKind, LayerShape, Rope, TextConfig};

/// What differs between the presets.
struct Preset {
    layers: usize,
    /// Every so many layers one is full.
    period: usize,
    hidden: usize,
    intermediate: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: [usize; 2],
    ple_dim: usize,
    vocab: usize,
    window: usize,
    num_kv_shared: usize,
    double_wide_mlp: bool,
    max_position: usize,
}

impl TextConfig {
    /// Gemma 4 E2B: 35 layers, 1536 wide.
    pub fn e2b() -> Self {
        build(&Preset {
            layers: 35,
            period: 5,
            hidden: 1536,
            intermediate: 6144,
            heads: 8,
            kv_heads: 1,
            head_dim: [256, 512],
            ple_dim: 256,
            vocab: 262_144,
            window: 512,
            num_kv_shared: 20,
            double_wide_mlp: true,
            max_position: 131_072,
        })
    }

    /// Gemma 4 E4B: 42 layers, 2560 wide.
    pub fn e4b() -> Self {
        build(&Preset {
            layers: 42,
            period: 6,
            hidden: 2560,
            intermediate: 10_240,
            heads: 8,
            kv_heads: 2,
            head_dim: [256, 512],
            ple_dim: 256,
            vocab: 262_144,
            window: 512,
            num_kv_shared: 18,
            double_wide_mlp: false,
            max_position: 131_072,
        })
    }

    /// Ten layers of E2B's pattern, 256 wide, with a vocabulary of 768: for tests.
    pub fn tiny() -> Self {
        build(&Preset {
            layers: 10,
            period: 5,
            hidden: 256,
            intermediate: 384,
            heads: 8,
            kv_heads: 1,
            head_dim: [256, 512],
            ple_dim: 64,
            vocab: 768,
            window: 32,
            num_kv_shared: 4,
            double_wide_mlp: true,
            max_position: 4096,
        })
    }
}

fn build(p: &Preset) -> TextConfig {
    let layers = (0..p.layers)
        .map(|i| {
            let full = i % p.period == p.period - 1;
            let shared = i >= p.layers - p.num_kv_shared;
            LayerShape {
                kind: if full { LayerKind::Full } else { LayerKind::Sliding },
                head_dim: p.head_dim[usize::from(full)],
                kv_heads: p.kv_heads,
                intermediate: p.intermediate * if shared && p.double_wide_mlp { 2 } else { 1 },
            }
        })
        .collect();
    TextConfig {
        vocab_size: p.vocab,
        vocab_size_per_layer_input: p.vocab,
        hidden: p.hidden,
        heads: p.heads,
        layers,
        intermediate: p.intermediate,
        double_wide_mlp: p.double_wide_mlp,
        ple_dim: p.ple_dim,
        rope_sliding: Rope { theta: 1e4, partial_rotary_factor: 1.0 },
        rope_full: Rope { theta: 1e6, partial_rotary_factor: 0.25 },
        window: p.window,
        rms_norm_eps: 1e-6,
        softcap: Some(30.0),
        num_kv_shared: p.num_kv_shared,
        max_position: p.max_position,
        tie_word_embeddings: true,
        eos: vec![1, 106],
        quantization: None,
    }
}
