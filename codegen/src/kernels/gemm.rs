//! `Y = X W^T` for many tokens: prefill. The same shapes, formats and epilogues as
//! [`super::gemv`]; tiles of both operands pass through workgroup memory, as int8 words where the
//! activations are codes and as floats otherwise.
//!
//! There is no variant with subgroups: threads share operands by workgroup memory and no sum
//! crosses threads, so a shuffle would have nothing to combine.

use serde::{Deserialize, Serialize};

use super::{
    common_why_not, f16_choices,
    gemv::{Epilogue, Shape},
};
use crate::{
    Caps, Cost, Reason,
    check::{Draw, Tolerance},
    io::Io,
    kernel::{Kernel, require},
    types::{Act, Format, stride},
};

/// The family.
#[derive(Clone, Copy, Debug)]
pub struct Gemm;

/// How it is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Tokens of a tile.
    pub bm: u32,
    /// Matrix rows of a tile.
    pub bn: u32,
    /// Quads of columns of a tile; divides 16, the quads of the row alignment.
    pub bk: u32,
    /// Tokens a thread computes; with four rows (`GeGLU`: eight) that many accumulators.
    pub tm: u32,
    /// Reads and writes f16 by WGSL's type instead of packed words.
    pub f16: bool,
    /// Keeps tiles in workgroup memory as f16: half the memory. Needs f16 activations and
    /// weights whose values f16 holds exactly (not f32, nor bf16 for its range).
    pub f16_tile: bool,
}

fn tn(s: &Shape) -> u32 {
    if s.epilogue == Epilogue::Geglu { 8 } else { 4 }
}

fn wg(s: &Shape, c: &Config) -> u32 {
    (c.bm / c.tm) * (c.bn / tn(s))
}

impl Kernel for Gemm {
    const NAME: &'static str = "gemm";
    const TEMPLATE: &'static str = include_str!("../../../templates/gemm.wgsl");
    type Shape = Shape;
    type Config = Config;

    fn bindings(s: &Shape, _: &Config) -> Vec<&'static str> {
        [vec!["run"], s.bindings()].concat()
    }

    fn candidates(s: &Shape, caps: &Caps) -> Vec<Config> {
        let mut all = Vec::new();
        for (bm, bn) in [(16, 32), (16, 64), (32, 32), (32, 64), (64, 64), (64, 128)] {
            for bk in [4, 8, 16] {
                for tm in [1, 2, 4, 8] {
                    for f16 in f16_choices(caps) {
                        for f16_tile in f16_choices(caps) {
                            all.push(Config { bm, bn, bk, tm, f16, f16_tile });
                        }
                    }
                }
            }
        }
        all.retain(|c| Self::why_not(s, c, caps).is_none());
        all
    }

    fn generic(s: &Shape, caps: &Caps) -> Config {
        let tile = |bm, bn, bk, tm| Config { bm, bn, bk, tm, f16: caps.f16, f16_tile: false };
        // Codes are a quarter of the size of floats, so their tiles may be larger.
        let wished = if s.x.is_int() { tile(64, 64, 16, 4) } else { tile(32, 64, 8, 4) };
        [wished, tile(32, 64, 4, 4), tile(16, 32, 4, 2)]
            .into_iter()
            .find(|c| Self::why_not(s, c, caps).is_none())
            .unwrap_or(Config { bm: 16, bn: 32, bk: 4, tm: 4, f16: false, f16_tile: false })
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        require!(s.norm.is_none(), "norms come first in products of one token only");
        require!(s.tops == 0, "the largest result is found for one token only");
        require!(
            c.tm > 0 && c.bm.is_multiple_of(c.tm),
            "{} tokens a thread do not divide a tile of {}",
            c.tm,
            c.bm
        );
        require!(c.bn.is_multiple_of(tn(s)), "a tile of {} rows is not a multiple of {}", c.bn, tn(s));
        require!(c.bk > 0 && 16 % c.bk == 0, "{} quads do not divide the row alignment of 16", c.bk);
        require!(
            c.tm * tn(s) <= 64,
            "{} accumulators a thread would not stay in registers (at most 64)",
            c.tm * tn(s)
        );
        require!(!c.f16_tile || s.x == Act::F16, "f16 tiles need f16 activations");
        require!(
            !c.f16_tile || !matches!(s.format, Format::F32 | Format::Bf16),
            "f16 does not hold every value of {:?} weights",
            s.format
        );
        let threads = wg(s, c);
        require!(threads >= 16, "{threads} threads are too few for a workgroup");
        let element = if s.x.is_int() {
            4
        } else if c.f16_tile {
            8
        } else {
            16
        };
        let bytes = u64::from(c.bm + c.bn) * u64::from(c.bk + 1) * element;
        require!(s.padded_rows().div_ceil(c.bn) <= caps.max_groups, "the rows exceed the device's grid");
        s.why_not(caps).or_else(|| common_why_not(threads, 1, bytes, caps))
    }

    fn groups(s: &Shape, c: &Config, tokens: u32) -> [u32; 3] {
        [tokens.div_ceil(c.bm), s.padded_rows().div_ceil(c.bn), 1]
    }

    fn derived(s: &Shape, c: &Config) -> Vec<(&'static str, u32)> {
        let mut d = s.common_derived();
        d.extend([("wg", wg(s, c)), ("tn", tn(s)), ("row_quads", stride(s.columns) / 4)]);
        d
    }

    fn reference(s: &Shape, _: &Config, io: &mut Io<'_>) {
        s.reference(io);
    }

    fn features(c: &Config) -> (bool, bool) {
        (false, c.f16 || c.f16_tile)
    }

    fn written(_: &Shape, _: &Config) -> Vec<&'static str> {
        vec!["out"]
    }

    fn draw(s: &Shape, _: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        s.draw(name, d)
    }

    fn output(s: &Shape, c: &Config, _: &str) -> (Act, Tolerance) {
        // Tiles in f16 round each operand to 11 bits.
        if c.f16_tile { Tolerance::float(s.out, 3e-3) } else { s.output() }
    }

    fn cost(s: &Shape, _: &Config, tokens: u32, _: u32) -> Cost {
        s.cost(tokens)
    }
}
