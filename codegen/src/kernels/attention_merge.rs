//! Joins the key ranges of a split attention: rescales each range's sum to the common maximum,
//! adds, divides, and stores floats or codes on the output projection's grid.

use serde::{Deserialize, Serialize};

use super::{common_why_not, f16_choices, generic_shuffle, row_why_not, shuffle_choices};
use crate::{
    Caps, Reason,
    io::Io,
    kernel::{Kernel, require},
    types::{Act, stride},
};

/// The family.
#[derive(Clone, Copy, Debug)]
pub struct AttentionMerge;

/// What it computes. `partials`: `[token][head][split]` of `dim + 4` f32: the unnormalised sum,
/// then (maximum, sum of weights, 0, 0).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Query heads.
    pub heads: u32,
    /// Elements of a head; a multiple of 4.
    pub dim: u32,
    /// Key ranges.
    pub splits: u32,
    /// Element type of `out`; codes are on the grid `grids[0]`.
    pub out: Act,
}

/// How it is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads; one quad of the head each.
    pub wg: u32,
    /// Lanes that search the maximum together; 1 uses no subgroups.
    pub sg: u32,
    /// Writes f16 by WGSL's type instead of packed words.
    pub f16: bool,
}

impl Shape {
    /// Bytes of `partials` for `tokens` tokens.
    pub fn partial_bytes(&self, tokens: u32) -> u64 {
        u64::from(tokens * self.heads * self.splits) * u64::from(self.dim + 4) * 4
    }
}

impl Kernel for AttentionMerge {
    const NAME: &'static str = "attention_merge";
    const TEMPLATE: &'static str = include_str!("../../../templates/attention_merge.wgsl");
    type Shape = Shape;
    type Config = Config;

    fn bindings(s: &Shape, _: &Config) -> Vec<&'static str> {
        if s.out.is_int() { vec!["partials", "grids", "out"] } else { vec!["partials", "out"] }
    }

    fn candidates(s: &Shape, caps: &Caps) -> Vec<Config> {
        let mut all = Vec::new();
        for wg in [32, 64, 128] {
            for sg in shuffle_choices(caps) {
                for f16 in f16_choices(caps) {
                    all.push(Config { wg, sg, f16 });
                }
            }
        }
        all.retain(|c| Self::why_not(s, c, caps).is_none());
        all
    }

    fn generic(s: &Shape, caps: &Caps) -> Config {
        let wg = (s.dim / 4).next_power_of_two().clamp(32, 128).min(caps.max_invocations);
        Config { wg, sg: generic_shuffle(caps, wg), f16: caps.f16 }
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        require!(s.dim > 0 && s.dim.is_multiple_of(4), "a head of {} elements is not a multiple of 4", s.dim);
        require!(s.splits > 0, "there is nothing to join");
        row_why_not(s.heads.into(), s.dim).or_else(|| common_why_not(c.wg, c.sg, 0, caps))
    }

    fn groups(s: &Shape, _: &Config, tokens: u32) -> [u32; 3] {
        [s.heads, tokens, 1]
    }

    fn derived(s: &Shape, _: &Config) -> Vec<(&'static str, u32)> {
        vec![("dim4", s.dim / 4), ("out_quads", stride(s.heads * s.dim) / 4)]
    }

    fn reference(s: &Shape, io: &mut Io<'_>) {
        let (d, splits) = (s.dim as usize, s.splits as usize);
        let grid = if s.out.is_int() { io.f32("grids", 0) } else { 1.0 };
        for t in 0..io.tokens {
            for head in 0..s.heads as usize {
                let base = (t * s.heads as usize + head) * splits * (d + 4);
                let at = |split: usize, i: usize| base + split * (d + 4) + i;
                let top = (0..splits).map(|p| io.f32("partials", at(p, d))).fold(f32::MIN, f32::max);
                let mut sum = 0.0;
                let mut out = vec![0.0f32; d];
                for p in 0..splits {
                    let mass = io.f32("partials", at(p, d + 1));
                    if mass > 0.0 {
                        let f = (io.f32("partials", at(p, d)) - top).exp();
                        sum += f * mass;
                        for (i, o) in out.iter_mut().enumerate() {
                            *o += f * io.f32("partials", at(p, i));
                        }
                    }
                }
                out.iter_mut().for_each(|o| *o /= sum);
                io.store("out", s.out, t * stride(s.heads * s.dim) as usize + head * d, &out, grid);
            }
        }
    }

    fn features(c: &Config) -> (bool, bool) {
        (c.sg > 1, c.f16)
    }
}
