//! Attention by online softmax, for prefill (many tokens) and decode (one token, keys split over
//! workgroups). Scores and sums are f32; there is no `1/sqrt(dim)`: the model's scale is 1.
//!
//! The query heads of one KV head are rows of a matrix (row `r`: token `r / group`, head
//! `r % group`), so a key or value row that was read serves all of them.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{NO_SUMS, attention_merge, common_why_not, f16_choices, row_why_not, shuffle_choices};
use crate::{
    Arithmetic, Caps, Cost, Reason, Workload,
    check::{Draw, Inputs, Tolerance},
    io::{self, Io, load},
    kernel::{Kernel, require},
    types::{Act, stride},
};

/// The family.
#[derive(Clone, Copy, Debug)]
pub struct Attention;

/// What it computes: `out = softmax(q k^T + mask) v` with a causal mask and, when `window > 0`,
/// only the token itself and the `window - 1` before it. Layouts as in [`super::rope`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Query heads.
    pub heads: u32,
    /// Key/value heads; divides `heads`.
    pub kv_heads: u32,
    /// Elements of a head; a multiple of 4.
    pub dim: u32,
    /// Sliding window; 0: all earlier positions.
    pub window: u32,
    /// Slots of a ring cache; 0: one slot a position.
    pub ring: u32,
    /// Element type of `q`.
    pub q: Act,
    /// Element type of the cache.
    pub kv: Act,
    /// Element type of `out`; codes are on the grid `grids[0]`.
    pub out: Act,
    /// One token at a time: the only case in which keys may be split over workgroups.
    pub decode: bool,
}

/// How it is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Rows (token, head) of a workgroup: each needs `dim` floats of workgroup memory and `dim`
    /// over the threads in registers.
    pub rows: u32,
    /// Keys of a tile.
    pub keys: u32,
    /// Threads that share a key's score; the workgroup has `keys * lanes` threads.
    pub lanes: u32,
    /// Key ranges, each a workgroup of its own, joined by `attention_merge`; decode only.
    pub splits: u32,
    /// Lanes combined by shuffles; 1 uses no subgroups.
    pub sg: u32,
    /// Reads and writes f16 by WGSL's type instead of packed words.
    pub f16: bool,
}

impl Shape {
    /// Bytes of `partials` for `tokens` tokens: `[token][head][split]` of `dim + 4` f32, the
    /// unnormalised sum, then (maximum, sum of weights, 0, 0).
    pub fn partial_bytes(&self, splits: u32, tokens: u32) -> u64 {
        u64::from(tokens * self.heads * splits) * u64::from(self.dim + 4) * 4
    }
}

impl Config {
    fn wg(&self) -> u32 {
        self.keys * self.lanes
    }

    fn shuffled(&self) -> u32 {
        self.lanes.min(self.sg)
    }
}

/// Groups of threads that share out the values of a tile: more than one where the workgroup has
/// threads for several keys' heads at once.
fn groups(s: &Shape, c: &Config) -> u32 {
    let quads = s.dim / 4;
    if quads.is_power_of_two() && c.wg() > quads { c.wg() / quads } else { 1 }
}

fn workgroup_bytes(s: &Shape, c: &Config) -> u64 {
    let parts = c.lanes / c.shuffled();
    u64::from(c.rows)
        * (u64::from(s.dim) * 4
            + u64::from(c.keys) * u64::from(parts + 1) * 4
            + 8
            + u64::from(groups(s, c)) * 4)
}

/// Key ranges of one token on a device nobody has tuned: 16, but none smaller than a tile of 16 keys.
pub(crate) fn generic_splits(window: u32) -> u32 {
    if window > 0 { window.div_ceil(16).next_power_of_two().min(16) } else { 16 }
}

impl Kernel for Attention {
    const NAME: &'static str = "attention";
    const TEMPLATE: &'static str = include_str!("../../../templates/attention.wgsl");
    type Shape = Shape;
    type Config = Config;

    fn bindings(s: &Shape, c: &Config) -> Vec<&'static str> {
        let mut names = vec!["run", "q", "k", "v"];
        if c.splits > 1 {
            names.push("partials");
        } else {
            if s.out.is_int() {
                names.push("grids");
            }
            names.push("out");
        }
        names
    }

    fn candidates(s: &Shape, caps: &Caps) -> Vec<Config> {
        let mut all = Vec::new();
        let splits: &[u32] = if s.decode { &[1, 4, 8, 16, 32, 64] } else { &[1] };
        for rows in [1, 2, 4, 8] {
            for keys in [8, 16, 32, 64] {
                for lanes in [1, 4, 8, 16] {
                    for &splits in splits {
                        for sg in shuffle_choices(caps) {
                            for f16 in f16_choices(caps) {
                                all.push(Config { rows, keys, lanes, splits, sg, f16 });
                            }
                        }
                    }
                }
            }
        }
        all.retain(|c| Self::why_not(s, c, caps).is_none());
        all
    }

    fn generic(s: &Shape, caps: &Caps) -> Config {
        let group = s.heads / s.kv_heads;
        let sg = if caps.subgroups { caps.subgroup_min } else { 1 };
        let lanes = 8;
        let make =
            |rows, keys, splits| Config { rows, keys, lanes, splits, sg: lanes.min(sg), f16: caps.f16 };
        let rows = if s.decode { group.next_power_of_two().min(4) } else { 4 };
        let splits = if s.decode { generic_splits(s.window) } else { 1 };
        [make(rows, 16, splits), make(2, 16, splits), make(1, 8, splits)]
            .into_iter()
            .find(|c| Self::why_not(s, c, caps).is_none())
            .unwrap_or(Config { rows: 1, keys: 16, lanes: 1, splits, sg: 1, f16: false })
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        require!(
            s.heads > 0 && s.kv_heads > 0 && s.heads.is_multiple_of(s.kv_heads),
            "{} heads do not share {} KV heads",
            s.heads,
            s.kv_heads
        );
        require!(s.dim > 0 && s.dim.is_multiple_of(4), "a head of {} elements is not a multiple of 4", s.dim);
        require!(![s.q, s.kv, s.out].iter().any(|act| act.is_sum()), "{NO_SUMS}");
        require!(!s.q.is_int() && !s.kv.is_int(), "scores need floats");
        require!(s.ring == 0 || s.window > 0, "a ring keeps only a window's keys");
        require!(s.decode || c.splits == 1, "only decode splits its keys");
        require!(
            c.splits >= 1 && c.splits <= caps.max_groups,
            "{} splits exceed the device's grid",
            c.splits
        );
        require!(
            c.lanes.is_power_of_two() && c.lanes <= s.dim / 4,
            "{} lanes share {} quads of a head",
            c.lanes,
            s.dim / 4
        );
        require!(
            c.keys.is_power_of_two(),
            "a tile of {} keys is not a power of two, which the groups need",
            c.keys
        );
        require!(c.rows >= 1 && 2 * c.rows <= c.wg(), "{} rows need at least two threads each", c.rows);
        let own = (s.dim / 4).div_ceil(c.wg());
        require!(
            c.rows * own <= 16,
            "{} accumulator quads a thread would not stay in registers (at most 16)",
            c.rows * own
        );
        row_why_not(s.heads.into(), s.dim)
            .or_else(|| common_why_not(c.wg(), c.sg, workgroup_bytes(s, c), caps))
    }

    fn groups(s: &Shape, c: &Config, tokens: u32) -> [u32; 3] {
        [(tokens * (s.heads / s.kv_heads)).div_ceil(c.rows), s.kv_heads, c.splits]
    }

    fn derived(s: &Shape, c: &Config) -> Vec<(&'static str, u32)> {
        vec![
            ("wg", c.wg()),
            ("lanes", c.lanes),
            ("shuffled", c.shuffled()),
            ("parts", c.lanes / c.shuffled()),
            ("dim4", s.dim / 4),
            ("group", s.heads / s.kv_heads),
            ("own", (s.dim / 4).div_ceil(c.wg())),
            ("groups", groups(s, c)),
            // Rows of values on their way at once.
            ("at_once", (c.keys / groups(s, c)).min(4)),
            ("q_quads", stride(s.heads * s.dim) / 4),
            ("out_quads", stride(s.heads * s.dim) / 4),
        ]
    }

    /// With splits, each key range's unnormalised sum, maximum and sum of weights; otherwise the
    /// finished rows.
    fn reference(s: &Shape, c: &Config, io: &mut Io<'_>) {
        let (d, row) = (s.dim as usize, stride(s.heads * s.dim) as usize);
        let (heads, kv_heads) = (s.heads as usize, s.kv_heads as usize);
        let splits = c.splits.max(1) as usize;
        let grid = if s.out.is_int() && splits == 1 { io.f32("grids", 0) } else { 1.0 };
        for t in 0..io.tokens {
            let end = io.position() + t + 1;
            for head in 0..heads {
                let q = io.row("q", s.q, t * row + head * d, d, 1.0);
                let at = |p: usize| {
                    let slot = if s.ring > 0 { p % s.ring as usize } else { p };
                    (slot * kv_heads + head / (heads / kv_heads)) * d
                };
                for split in 0..splits {
                    let range = key_range(end, s.window, splits, split);
                    let (keys, values) = (io.words("k"), io.words("v"));
                    let mut sums = attend(
                        &q,
                        range,
                        |p, i| load(keys, s.kv, at(p) + i, 1.0),
                        |p, i| load(values, s.kv, at(p) + i, 1.0),
                    );
                    if splits > 1 {
                        let place = ((t * heads + head) * splits + split) * (d + 4);
                        io.store("partials", Act::F32, place, &sums.partial(), 1.0);
                    } else {
                        io.store("out", s.out, t * row + head * d, sums.finish(), grid);
                    }
                }
            }
        }
    }

    fn features(c: &Config) -> (bool, bool) {
        (c.sg > 1, c.f16)
    }

    fn one_token(s: &Shape) -> bool {
        s.decode
    }

    fn written(_: &Shape, c: &Config) -> Vec<&'static str> {
        vec![if c.splits > 1 { "partials" } else { "out" }]
    }

    fn draw(s: &Shape, c: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        let ties = d.inputs == Inputs::Ties;
        match name {
            "run" => d.run(),
            // Extreme scores lie hundreds apart, and yet their sums are exact to a small fraction
            // of one, which is what the weights' relative error follows. Ties: scores are
            // multiples of 32, so the largest alone has weight and the result is one of the values.
            "q" => d.rows(
                d.tokens,
                s.heads * s.dim,
                s.q,
                match d.inputs {
                    Inputs::Random => 1.0,
                    Inputs::Extreme => 1.0 / 32.0,
                    Inputs::Ties => 32.0,
                },
            ),
            "k" | "v" => {
                let n = d.cache_elements(s.ring, s.kv_heads * s.dim);
                let mut words = vec![0; if s.kv == Act::F16 { n / 2 } else { n }];
                let scale = if ties && name == "v" { 1.0 / 128.0 } else { 1.0 };
                for i in 0..n {
                    let v = d.float(scale);
                    io::store(&mut words, s.kv, i, v, 1.0);
                }
                words
            }
            "grids" => d.grid(0.02),
            "partials" => Draw::poison(s.partial_bytes(c.splits, d.tokens)),
            _ => Draw::poison(u64::from(d.tokens) * s.out.row_bytes(s.heads * s.dim)),
        }
    }

    fn output(s: &Shape, c: &Config, _: &str) -> (Act, Tolerance) {
        Tolerance::float(if c.splits > 1 { Act::F32 } else { s.out }, 5e-5)
    }

    fn followers(s: &Shape, c: &Config) -> Vec<Workload> {
        if c.splits == 1 {
            return Vec::new();
        }
        let merge = attention_merge::Shape { heads: s.heads, dim: s.dim, splits: c.splits, out: s.out };
        vec![Workload::AttentionMerge(merge)]
    }

    fn cost(s: &Shape, c: &Config, tokens: u32, position: u32) -> Cost {
        let row = s.heads * s.dim;
        let keys = |t: u32| {
            let seen = u64::from(position) + u64::from(t) + 1;
            if s.window > 0 { seen.min(s.window.into()) } else { seen }
        };
        // Every key and value from the first token's window on, once.
        let read = u64::from(tokens.saturating_sub(1)) + keys(0);
        let scored: u64 = (0..tokens).map(keys).sum();
        let cache = u64::from(s.kv_heads * s.dim) * if s.kv == Act::F16 { 2 } else { 4 };
        let out = if c.splits > 1 {
            s.partial_bytes(c.splits, tokens)
        } else {
            u64::from(tokens) * s.out.row_bytes(row)
        };
        Cost {
            read_bytes: u64::from(tokens) * s.q.row_bytes(row) + 2 * read * cache,
            written_bytes: out,
            // Scores, and the sum of values.
            ops: 4 * scored * u64::from(row),
            kind: Arithmetic::F32,
        }
    }
}

/// The positions of range `split` of `splits`, of those that the token before `end` sees.
pub(super) fn key_range(end: usize, window: u32, splits: usize, split: usize) -> Range<usize> {
    let first = if window > 0 { end.saturating_sub(window as usize) } else { 0 };
    let span = (end - first).div_ceil(splits);
    let from = first + split * span;
    from..(from + span).min(end)
}

/// What a range of keys comes to.
#[derive(Debug)]
pub(super) struct Sums {
    /// The sum of the values, each by the exponential of its score less `top`.
    out: Vec<f32>,
    /// The largest score; -3e38 where there is none.
    top: f32,
    /// The sum of the exponentials.
    mass: f32,
}

impl Sums {
    /// As `attention_merge` reads them.
    pub(super) fn partial(mut self) -> Vec<f32> {
        self.out.extend([self.top, self.mass, 0.0, 0.0]);
        self.out
    }

    /// The result where there are no other ranges.
    pub(super) fn finish(&mut self) -> &[f32] {
        self.out.iter_mut().for_each(|o| *o /= self.mass);
        &self.out
    }
}

/// Softmax of the scores of the keys in `range` against `q`, and the sum of the values by it.
/// `key` and `value` give element `i` of position `p`'s row.
pub(super) fn attend(
    q: &[f32],
    range: Range<usize>,
    key: impl Fn(usize, usize) -> f32,
    value: impl Fn(usize, usize) -> f32,
) -> Sums {
    let scores: Vec<f32> =
        range.clone().map(|p| q.iter().enumerate().map(|(i, q)| q * key(p, i)).sum()).collect();
    let top = scores.iter().copied().fold(-3.0e38, f32::max);
    let mut sums = Sums { out: vec![0.0; q.len()], top, mass: 0.0 };
    for (p, score) in range.zip(&scores) {
        let w = (score - top).exp();
        sums.mass += w;
        for (i, o) in sums.out.iter_mut().enumerate() {
            *o += w * value(p, i);
        }
    }
    sums
}
