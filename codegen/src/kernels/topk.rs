//! The largest logits in falling order, by rounds: every slice of `chunk` values is sorted in
//! workgroup memory and its first `keep` survive, until one slice is left. What sampling needs.

use serde::{Deserialize, Serialize};

use super::{common_why_not, generic_shuffle, shuffle_choices};
use crate::{
    Arithmetic, Caps, Cost, Reason,
    check::{Draw, Tolerance},
    io::{self, Io},
    kernel::{Kernel, require},
    types::Act,
};

/// The family.
#[derive(Clone, Copy, Debug)]
pub struct Topk;

/// What one round computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Values that come in.
    pub n: u32,
    /// Values of a slice: a power of two; 8 bytes of workgroup memory each.
    pub chunk: u32,
    /// Values that survive of each slice; missing ones are (-3.4e38, 0xffffffff).
    pub keep: u32,
    /// The first round: indices are the values' own places.
    pub first: bool,
}

/// How it is computed. Logits are f32, so there is no f16 here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads; each compares `chunk / 2 / wg` pairs a step.
    pub wg: u32,
    /// Lanes that exchange by shuffles at distances below their number, without barriers; 1 uses no
    /// subgroups.
    pub sg: u32,
}

impl Shape {
    /// Slices of this round.
    pub fn slices(&self) -> u32 {
        self.n.div_ceil(self.chunk)
    }

    /// The rounds that bring `n` values down to one slice of `keep`.
    pub fn rounds(n: u32, keep: u32) -> Vec<Self> {
        let chunk = (2 * keep).next_power_of_two().max(1024);
        let mut rounds = vec![Self { n, chunk, keep, first: true }];
        while let Some(last) = rounds.last().filter(|r| r.slices() > 1) {
            rounds.push(Self { n: last.slices() * keep, chunk, keep, first: false });
        }
        rounds
    }
}

impl Kernel for Topk {
    const NAME: &'static str = "topk";
    const TEMPLATE: &'static str = include_str!("../../../templates/topk.wgsl");
    type Shape = Shape;
    type Config = Config;

    fn bindings(s: &Shape, _: &Config) -> Vec<&'static str> {
        if s.first {
            vec!["values", "top_values", "top_indices"]
        } else {
            vec!["values", "indices", "top_values", "top_indices"]
        }
    }

    fn candidates(s: &Shape, caps: &Caps) -> Vec<Config> {
        let mut all = Vec::new();
        for wg in [32, 64, 128, 256, 512] {
            all.extend(shuffle_choices(caps).into_iter().map(|sg| Config { wg, sg }));
        }
        all.retain(|c| Self::why_not(s, c, caps).is_none());
        all
    }

    fn generic(s: &Shape, caps: &Caps) -> Config {
        let wg = 256.min(caps.max_invocations);
        let shuffled = Config { wg, sg: generic_shuffle(caps, wg) };
        if Self::why_not(s, &shuffled, caps).is_none() { shuffled } else { Config { wg, sg: 1 } }
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        require!(
            s.chunk.is_power_of_two() && s.chunk >= 2,
            "a slice of {} cannot be sorted bitonically",
            s.chunk
        );
        require!(
            s.keep > 0 && s.keep <= s.chunk / 2,
            "{} of a slice of {} would not shrink the values",
            s.keep,
            s.chunk
        );
        require!(s.slices() <= caps.max_groups, "{} slices exceed the device's grid", s.slices());
        require!(
            c.sg <= 1 || c.wg > 0 && (s.chunk / 2).is_multiple_of(c.wg) && 2 * c.sg <= s.chunk,
            "{} threads do not share a slice of {} in runs of {}",
            c.wg,
            s.chunk,
            2 * c.sg
        );
        common_why_not(c.wg, c.sg, u64::from(s.chunk) * 8, caps)
    }

    fn groups(s: &Shape, _: &Config, _: u32) -> [u32; 3] {
        [s.slices(), 1, 1]
    }

    fn derived(_: &Shape, _: &Config) -> Vec<(&'static str, u32)> {
        Vec::new()
    }

    fn reference(s: &Shape, _: &Config, io: &mut Io<'_>) {
        for slice in 0..s.slices() as usize {
            let start = slice * s.chunk as usize;
            let mut all: Vec<(f32, u32)> = (start..(start + s.chunk as usize).min(s.n as usize))
                .map(|i| (io.f32("values", i), if s.first { io::word(i) } else { io.words("indices")[i] }))
                .collect();
            all.resize(s.chunk as usize, (-3.4e38, u32::MAX));
            all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            for (i, (v, id)) in all.into_iter().take(s.keep as usize).enumerate() {
                io.words_mut("top_values")[slice * s.keep as usize + i] = v.to_bits();
                io.words_mut("top_indices")[slice * s.keep as usize + i] = id;
            }
        }
    }

    fn features(c: &Config) -> (bool, bool) {
        (c.sg > 1, false)
    }

    fn one_token(_: &Shape) -> bool {
        true
    }

    fn written(_: &Shape, _: &Config) -> Vec<&'static str> {
        vec!["top_values", "top_indices"]
    }

    fn draw(s: &Shape, _: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        match name {
            "values" => d.equals(s.n),
            "indices" => (0..s.n).map(|i| 3 * i + 1).collect(),
            _ => Draw::poison(u64::from(s.slices() * s.keep) * 4),
        }
    }

    fn output(_: &Shape, _: &Config, _: &str) -> (Act, Tolerance) {
        (Act::F32, Tolerance::Exact)
    }

    fn cost(s: &Shape, _: &Config, _: u32, _: u32) -> Cost {
        let n = u64::from(s.n);
        let steps = u64::from(s.chunk.ilog2());
        Cost {
            read_bytes: n * if s.first { 4 } else { 8 },
            written_bytes: 8 * u64::from(s.slices()) * u64::from(s.keep),
            // Bitonic: half the slice compared in each of k (k + 1) / 2 steps.
            ops: u64::from(s.slices()) * u64::from(s.chunk) / 2 * steps * (steps + 1) / 2,
            kind: Arithmetic::F32,
        }
    }
}
