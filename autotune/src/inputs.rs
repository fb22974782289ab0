//! Inputs that make the mistakes of a kernel show: random ones, and ones made to be hard.

use wgforge_codegen::{Variant, check::Inputs};

/// Kinds of inputs, tokens and positions that make a kernel's mistakes show: tails of tiles, the
/// edges of windows, a ring's wrap.
pub(crate) fn cases(variant: &Variant, few_tokens: bool) -> Vec<(Inputs, u32, u32)> {
    let many = if few_tokens { 17 } else { 33 };
    let few = |room: u32| {
        vec![(Inputs::Random, room.min(5), 21), (Inputs::Extreme, 1, 0), (Inputs::Ties, room.min(5), 0)]
    };
    match variant {
        Variant::Gemv { .. } | Variant::GemvPair { .. } | Variant::MergeGemv { .. } => {
            vec![(Inputs::Random, 1, 0), (Inputs::Extreme, 1, 0), (Inputs::Ties, 1, 0)]
        }
        Variant::Gemm { .. } => {
            vec![(Inputs::Random, many, 0), (Inputs::Extreme, 5, 0), (Inputs::Ties, 5, 0)]
        }
        Variant::Attention { shape, .. } => {
            let tokens = if shape.decode { 1 } else { 5 };
            // The first key outside of the window, and the first slot that is written again.
            let edge = if shape.window > 0 { shape.window } else { 300 };
            let wrap = if shape.ring > 0 { shape.ring + 3 } else { 63 };
            vec![
                (Inputs::Random, tokens, 0),
                (Inputs::Random, tokens, edge),
                (Inputs::Random, tokens, edge - 1),
                (Inputs::Extreme, tokens, wrap),
                (Inputs::Ties, tokens, wrap),
            ]
        }
        Variant::DecodeAttention { shape, .. } if shape.deep => {
            // More than one tile of each key range, whatever the two.
            vec![(Inputs::Random, 1, 0), (Inputs::Random, 1, 8300), (Inputs::Extreme, 1, 700)]
        }
        Variant::DecodeAttention { shape, .. } => {
            let edge = if shape.window > 0 { shape.window } else { 300 };
            let wrap = if shape.ring > 0 { shape.ring + 3 } else { 63 };
            vec![
                (Inputs::Random, 1, 0),
                (Inputs::Random, 1, edge),
                (Inputs::Random, 1, edge - 1),
                (Inputs::Extreme, 1, wrap),
            ]
        }
        Variant::Rope { shape, .. } => {
            let wrap = if shape.ring > 2 { shape.ring - 2 } else { 7 };
            vec![(Inputs::Random, 5, 0), (Inputs::Random, 5, wrap), (Inputs::Extreme, 5, 0)]
        }
        Variant::Argmax { .. } | Variant::Topk { .. } | Variant::Sample { .. } => {
            vec![
                (Inputs::Random, 1, 0),
                (Inputs::Random, 1, 70),
                (Inputs::Extreme, 1, 0),
                (Inputs::Ties, 1, 0),
            ]
        }
        // Whatever it computes: tails of tiles, one token, adversarial ones.
        Variant::Custom(_) => vec![
            (Inputs::Random, many, 0),
            (Inputs::Random, 1, 21),
            (Inputs::Extreme, 5, 0),
            (Inputs::Ties, 5, 0),
        ],
        // As many tokens as there is room for.
        Variant::PleMix { shape, .. } => few(shape.capacity),
        Variant::Gather { shape, .. } if shape.by_slot => few(shape.rows),
        _ => vec![(Inputs::Random, 5, 21), (Inputs::Extreme, 1, 0), (Inputs::Ties, 5, 0)],
    }
}
