//! Inputs that make the mistakes of a kernel show: random ones, and ones made to be hard.

use wgforge_codegen::{
    Variant,
    check::Case,
    io,
    kernels::gemv::Epilogue,
    types::{Act, Scale},
};

/// Kinds of inputs. Random ones alone would not show a wrong rounding or a sum that overflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Random,
    /// Codes at the ends of their range and values that saturate every grid.
    Extreme,
    /// Results that lie exactly between two steps of a grid.
    Ties,
}

/// Kinds of inputs, tokens and positions that make a kernel's mistakes show: tails of tiles, the
/// edges of windows, a ring's wrap.
pub(crate) fn cases(variant: &Variant, few_tokens: bool) -> Vec<(Kind, u32, u32)> {
    let many = if few_tokens { 17 } else { 33 };
    match variant {
        Variant::Gemv { .. } => vec![(Kind::Random, 1, 0), (Kind::Extreme, 1, 0), (Kind::Ties, 1, 0)],
        Variant::Gemm { .. } => vec![(Kind::Random, many, 0), (Kind::Extreme, 5, 0), (Kind::Ties, 5, 0)],
        Variant::Attention { shape, .. } => {
            let tokens = if shape.decode { 1 } else { 5 };
            // The first key outside of the window, and the first slot that is written again.
            let edge = if shape.window > 0 { shape.window } else { 300 };
            let wrap = if shape.ring > 0 { shape.ring + 3 } else { 63 };
            vec![
                (Kind::Random, tokens, 0),
                (Kind::Random, tokens, edge),
                (Kind::Random, tokens, edge - 1),
                (Kind::Extreme, tokens, wrap),
            ]
        }
        Variant::Rope { shape, .. } => {
            let wrap = if shape.ring > 2 { shape.ring - 2 } else { 7 };
            vec![(Kind::Random, 5, 0), (Kind::Random, 5, wrap)]
        }
        Variant::Argmax { .. } | Variant::Topk { .. } | Variant::Sample { .. } => {
            vec![(Kind::Random, 1, 0), (Kind::Random, 1, 70)]
        }
        // As many tokens as there is room for.
        Variant::PleMix { shape, .. } => vec![(Kind::Random, shape.capacity.min(5), 21)],
        Variant::Gather { shape, .. } if shape.by_slot => vec![(Kind::Random, shape.rows.min(5), 21)],
        _ => vec![(Kind::Random, 5, 21), (Kind::Extreme, 1, 0)],
    }
}

/// Turns random inputs into adversarial ones by overwriting what decides.
pub(crate) fn sharpen(variant: &Variant, case: &mut Case, kind: Kind) {
    let names = variant.bindings();
    let at = |name: &str| names.iter().position(|n| *n == name);
    match (variant, kind) {
        (_, Kind::Random) => {}
        (Variant::Gemv { shape, .. } | Variant::Gemm { shape, .. }, Kind::Extreme) => {
            let Some(x) = at("x") else { return };
            if shape.x != Act::I8 {
                // One column that outweighs the others, as real activations have; more of them
                // would leave f16's range where the model never does.
                let row = words(shape.x.row_bytes(shape.columns));
                for r in case.buffers[x].chunks_exact_mut(row.max(1)) {
                    io::store(r, shape.x, 3.min(shape.columns as usize - 1), 8.0, 1.0);
                }
                return;
            }
            // Both ends of the range; the padding behind each row stays zero, as every producer
            // leaves it.
            for word in case.buffers[x].iter_mut().filter(|w| **w != 0) {
                let mut ends = [0u32];
                for i in 0..4 {
                    let v = match io::code(&[*word], i) {
                        0 => 0.0,
                        c if c > 0 => 127.0,
                        _ => -128.0,
                    };
                    io::store(&mut ends, Act::I8, i, v, 1.0);
                }
                *word = ends[0];
            }
        }
        (Variant::Gemv { shape, .. } | Variant::Gemm { shape, .. }, Kind::Ties) => {
            let (Some(scales), Some(grids)) = (at("scales"), at("grids")) else { return };
            if !shape.x.is_int() || shape.scale != Scale::Row {
                return;
            }
            // Powers of two keep the product exact. About one sum in 2^k then lies between steps,
            // and k grows with the sums so that not all of them saturate.
            let k = (shape.columns.max(1).ilog2() / 2 + 4).saturating_sub(shape.format.field_shift() / 2);
            let scale = (2.0f32).powi(-i32::try_from(k).unwrap_or(8));
            case.buffers[scales].fill(scale.to_bits());
            case.buffers[grids].fill(1.0f32.to_bits());
            if shape.epilogue != Epilogue::Store {
                // Epilogues multiply small numbers; a fine last grid shows their rounding.
                case.buffers[grids][4] = 0.25f32.to_bits();
            }
        }
        (Variant::Norm { shape, .. }, Kind::Extreme) => {
            for (name, act) in [("x", Act::F32), ("y", shape.y)] {
                let Some(i) = at(name) else { continue };
                // One column that dwarfs all others, as real residual streams have.
                let row = words(act.row_bytes(shape.width));
                for r in case.buffers[i].chunks_exact_mut(row.max(1)) {
                    io::store(r, act, 3.min(shape.width as usize - 1), 30_000.0, 1.0);
                }
            }
        }
        (Variant::Attention { shape, .. }, Kind::Extreme) => {
            // Scores far apart, so that the running maximum matters at every tile.
            let Some(q) = at("q") else { return };
            for word in &mut case.buffers[q] {
                *word = match shape.q {
                    Act::F32 => (f32::from_bits(*word) * 8.0).to_bits(),
                    _ => {
                        let mut out = [*word];
                        for i in 0..2 {
                            let v = io::load(&[*word], Act::F16, i, 1.0) * 8.0;
                            io::store(&mut out, Act::F16, i, v, 1.0);
                        }
                        out[0]
                    }
                };
            }
        }
        _ => {}
    }
}

/// Words of so many bytes.
pub(crate) fn words(bytes: u64) -> usize {
    usize::try_from(bytes / 4).unwrap_or(usize::MAX)
}
