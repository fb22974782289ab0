//! Joins the key ranges of a split attention: rescales each range's sum to the common maximum,
//! adds, divides, and stores floats or codes on the output projection's grid.

use serde::{Deserialize, Serialize};

use super::{
    NO_SUMS, common_why_not, f16_choices, generic_shuffle, reduce_bytes, row_why_not, shuffle_choices,
};
use crate::{
    Arithmetic, Caps, Cost, Reason,
    check::{Draw, Inputs, Tolerance},
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
    /// Threads of a workgroup; at most the device's invocations.
    pub wg: u32,
    /// Quads of a head a workgroup computes; a power of two up to `wg`. What is left of `wg` shares
    /// out the key ranges.
    pub quads: u32,
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

    /// A head's row for a token.
    pub(crate) fn join(&self, io: &Io<'_>, token: usize, head: u32) -> Vec<f32> {
        let (d, splits) = (self.dim as usize, self.splits as usize);
        let base = (token * self.heads as usize + head as usize) * splits * (d + 4);
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
        out
    }

    /// Words for `partials` and `grids`.
    pub(crate) fn draw(&self, name: &str, d: &mut Draw) -> Vec<u32> {
        let dim = self.dim as usize;
        let ties = d.inputs == Inputs::Ties;
        if name == "grids" {
            return d.grid(if ties { 1.0 / 64.0 } else { 0.05 });
        }
        let sums = if ties { 1.0 / 64.0 } else { 2.0 };
        let mut words = d.floats(self.partial_bytes(d.tokens) / 4, sums);
        for (i, r) in words.chunks_exact_mut(dim + 4).enumerate() {
            // Every third range is empty, if there are others. Maxima of ties are far apart, so that one range
            // alone has weight and nothing is rounded before the grid.
            let empty = self.splits > 1 && i % 3 == 2;
            let top = if ties { 32.0 * (i % 31) as f32 } else { 2.0 * d.float(1.0) };
            let mass = if ties { 2.0 } else { 1.5 + d.rng.unit() };
            r[dim] = if empty { -3.0e38f32 } else { top }.to_bits();
            r[dim + 1] = if empty { 0.0f32 } else { mass }.to_bits();
        }
        words
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
        let f16s = if s.out == Act::F16 { f16_choices(caps) } else { vec![false] };
        for wg in [32, 64, 128, 256, 512] {
            for quads in [8, 16, 32, 64, 128] {
                for sg in shuffle_choices(caps) {
                    for &f16 in &f16s {
                        all.push(Config { wg, quads, sg, f16 });
                    }
                }
            }
        }
        // More groups than ranges, or more threads than quads, would have nothing to do.
        all.retain(|c| {
            c.quads <= c.wg
                && c.wg / c.quads <= s.splits.next_power_of_two()
                && c.quads <= (s.dim / 4).next_power_of_two()
                && Self::why_not(s, c, caps).is_none()
        });
        all
    }

    fn generic(s: &Shape, caps: &Caps) -> Config {
        let quads = (s.dim / 4).next_power_of_two().clamp(8, 32);
        let wg = (quads * s.splits.next_power_of_two().min(8)).clamp(32, 256).min(caps.max_invocations);
        let f16 = caps.f16 && s.out == Act::F16;
        Config { wg, quads, sg: generic_shuffle(caps, wg), f16 }
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        require!(s.dim > 0 && s.dim.is_multiple_of(4), "a head of {} elements is not a multiple of 4", s.dim);
        require!(s.splits > 0, "there is nothing to join");
        require!(!s.out.is_sum(), "{NO_SUMS}");
        require!(
            c.quads.is_power_of_two() && c.quads <= c.wg,
            "{} quads do not divide a workgroup of {}",
            c.quads,
            c.wg
        );
        require!(!c.f16 || s.out == Act::F16, "there is no f16 to write");
        let sums = if c.wg > c.quads { u64::from(c.wg) * 16 } else { 0 };
        let bytes = u64::from(s.splits) * 4 + sums + 2 * reduce_bytes(c.wg, c.sg);
        row_why_not(s.heads.into(), s.dim).or_else(|| common_why_not(c.wg, c.sg, bytes, caps))
    }

    fn groups(s: &Shape, c: &Config, tokens: u32) -> [u32; 3] {
        [s.heads * (s.dim / 4).div_ceil(c.quads), tokens, 1]
    }

    fn derived(s: &Shape, c: &Config) -> Vec<(&'static str, u32)> {
        let groups = c.wg / c.quads;
        let own = s.splits.div_ceil(groups);
        vec![
            ("dim4", s.dim / 4),
            ("out_quads", stride(s.heads * s.dim) / 4),
            ("groups", groups),
            ("pieces", (s.dim / 4).div_ceil(c.quads)),
            ("own", own),
            // Up to 16 quads on their way stay in registers.
            ("ahead", u32::from(own <= 16)),
        ]
    }

    fn reference(s: &Shape, _: &Config, io: &mut Io<'_>) {
        let grid = if s.out.is_int() { io.f32("grids", 0) } else { 1.0 };
        for t in 0..io.tokens {
            for head in 0..s.heads {
                let out = s.join(io, t, head);
                io.store(
                    "out",
                    s.out,
                    t * stride(s.heads * s.dim) as usize + (head * s.dim) as usize,
                    &out,
                    grid,
                );
            }
        }
    }

    fn features(c: &Config) -> (bool, bool) {
        (c.sg > 1, c.f16)
    }

    fn written(_: &Shape, _: &Config) -> Vec<&'static str> {
        vec!["out"]
    }

    fn draw(s: &Shape, _: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        match name {
            "partials" | "grids" => s.draw(name, d),
            _ => Draw::poison(u64::from(d.tokens) * s.out.row_bytes(s.heads * s.dim)),
        }
    }

    fn output(s: &Shape, _: &Config, _: &str) -> (Act, Tolerance) {
        Tolerance::float(s.out, 2e-5)
    }

    fn cost(s: &Shape, _: &Config, tokens: u32, _: u32) -> Cost {
        Cost {
            read_bytes: s.partial_bytes(tokens),
            written_bytes: u64::from(tokens) * s.out.row_bytes(s.heads * s.dim),
            ops: 2 * u64::from(tokens * s.heads * s.splits) * u64::from(s.dim),
            kind: Arithmetic::F32,
        }
    }
}
