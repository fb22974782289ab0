//! `RMSNorm` of every query and key head (and of values, without weight), rotary embedding, and the
//! append to the KV cache: everything between the q/k/v projection and attention.
//!
//! `angles` holds (cos, sin) for positions 0..256 and for multiples of 256, `rotary` pairs each;
//! the angle of a position is the sum of two entries, by the addition theorem.

use serde::{Deserialize, Serialize};

use super::{
    NO_SUMS, common_why_not, f16_choices, generic_shuffle, norm::inverse_rms, reduce_bytes, row_why_not,
    shuffle_choices,
};
use crate::{
    Arithmetic, Caps, Cost, Reason,
    check::{Draw, Tolerance},
    io::{self, Io},
    kernel::{Kernel, require},
    types::{Act, stride},
};

/// The family.
#[derive(Clone, Copy, Debug)]
pub struct Rope;

/// What it computes. `qkv`: rows of [`stride`]`((heads + 2 kv_heads) * dim)`, queries first, then
/// keys, then values. `q`: rows of [`stride`]`(heads * dim)`. `k`, `v`: `[slot][kv_heads][dim]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Query heads.
    pub heads: u32,
    /// Key/value heads of this layer; 0 where it reads another layer's cache.
    pub kv_heads: u32,
    /// Elements of a head; a multiple of 8.
    pub dim: u32,
    /// Pairs `(j, j + dim/2)`, counted from 0, that rotate; the rest keep angle 0.
    pub rotary: u32,
    /// Element type of `qkv`.
    pub qkv: Act,
    /// Element type of `q`.
    pub q: Act,
    /// Element type of the cache.
    pub kv: Act,
    /// Slots of a ring cache: position `p` goes to `p % ring`; 0: to `p`.
    pub ring: u32,
    /// Added to the mean of squares.
    pub eps: f64,
}

/// How it is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads; each handles quads `j` and `j + dim/2` of one head.
    pub wg: u32,
    /// Lanes combined by shuffles; 1 uses no subgroups.
    pub sg: u32,
    /// Reads and writes f16 by WGSL's type instead of packed words.
    pub f16: bool,
}

impl Shape {
    fn slots(&self) -> u32 {
        self.heads + 2 * self.kv_heads
    }

    fn rotation(&self) -> Rotation {
        Rotation { dim: self.dim, rotary: self.rotary }
    }
}

impl Kernel for Rope {
    const NAME: &'static str = "rope";
    const TEMPLATE: &'static str = include_str!("../../../templates/rope.wgsl");
    type Shape = Shape;
    type Config = Config;

    fn bindings(s: &Shape, _: &Config) -> Vec<&'static str> {
        let mut names = vec!["run", "qkv", "q_norm", "angles", "q"];
        if s.kv_heads > 0 {
            names.extend(["k_norm", "k", "v"]);
        }
        names
    }

    fn candidates(s: &Shape, caps: &Caps) -> Vec<Config> {
        let mut all = Vec::new();
        for wg in [16, 32, 64, 128] {
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
        let wg = (s.dim / 8).next_power_of_two().clamp(32, 64).min(caps.max_invocations);
        Config { wg, sg: generic_shuffle(caps, wg), f16: caps.f16 }
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        require!(
            s.heads > 0 && s.dim > 0 && s.dim.is_multiple_of(8),
            "a head of {} elements is not a multiple of 8",
            s.dim
        );
        require!(s.rotary <= s.dim / 2, "{} pairs do not fit a head of {}", s.rotary, s.dim);
        require!(![s.qkv, s.q, s.kv].iter().any(|act| act.is_sum()), "{NO_SUMS}");
        require!(!s.qkv.is_int() && !s.q.is_int() && !s.kv.is_int(), "rotation needs floats");
        row_why_not(u64::from(s.heads) + 2 * u64::from(s.kv_heads), s.dim)
            .or_else(|| common_why_not(c.wg, c.sg, reduce_bytes(c.wg, c.sg), caps))
    }

    fn groups(s: &Shape, _: &Config, tokens: u32) -> [u32; 3] {
        [s.slots(), tokens, 1]
    }

    fn derived(s: &Shape, _: &Config) -> Vec<(&'static str, u32)> {
        vec![
            ("half_quads", s.dim / 8),
            ("row_quads", stride(s.slots() * s.dim) / 4),
            ("q_quads", stride(s.heads * s.dim) / 4),
        ]
    }

    fn reference(s: &Shape, _: &Config, io: &mut Io<'_>) {
        let d = s.dim as usize;
        let (heads, kv) = (s.heads as usize, s.kv_heads as usize);
        let position = io.position();
        for t in 0..io.tokens {
            let turn = s.rotation().at(io, position + t);
            let slot = if s.ring > 0 { (position + t) % s.ring as usize } else { position + t };
            for head in 0..s.slots() as usize {
                let mut x = io.row("qkv", s.qkv, t * stride(s.slots() * s.dim) as usize + head * d, d, 1.0);
                let is_v = head >= heads + kv;
                let w = if head < heads { "q_norm" } else { "k_norm" };
                let w = (!is_v).then(|| io.row(w, Act::F32, 0, d, 1.0));
                normalise(&mut x, w.as_deref(), io::narrow(s.eps));
                if !is_v {
                    rotate(&mut x, &turn);
                }
                match head {
                    _ if head < heads => {
                        io.store("q", s.q, t * stride(s.heads * s.dim) as usize + head * d, &x, 1.0);
                    }
                    _ if is_v => io.store("v", s.kv, (slot * kv + head - heads - kv) * d, &x, 1.0),
                    _ => io.store("k", s.kv, (slot * kv + head - heads) * d, &x, 1.0),
                }
            }
        }
    }

    fn features(c: &Config) -> (bool, bool) {
        (c.sg > 1, c.f16)
    }

    fn written(s: &Shape, _: &Config) -> Vec<&'static str> {
        if s.kv_heads > 0 { vec!["q", "k", "v"] } else { vec!["q"] }
    }

    fn draw(s: &Shape, _: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        match name {
            "run" => d.run(),
            "qkv" => d.rows(d.tokens, s.slots() * s.dim, s.qkv, 1.0),
            "q_norm" | "k_norm" => d.weights(s.dim),
            "angles" => s.rotation().table(d),
            "q" => Draw::poison(u64::from(d.tokens) * s.q.row_bytes(s.heads * s.dim)),
            // Not poison: most slots of the cache stay as they are.
            _ => {
                let n = d.cache_elements(s.ring, s.kv_heads * s.dim);
                vec![0; if s.kv == Act::F16 { n / 2 } else { n }]
            }
        }
    }

    fn output(s: &Shape, _: &Config, name: &str) -> (Act, Tolerance) {
        Tolerance::float(if name == "q" { s.q } else { s.kv }, 2e-5)
    }

    fn cost(s: &Shape, _: &Config, tokens: u32, _: u32) -> Cost {
        let (t, n) = (u64::from(tokens), s.slots() * s.dim);
        let norms = (1 + u64::from(s.kv_heads > 0)) * Act::F32.row_bytes(s.dim);
        // Two entries of (cos, sin) give the angle of a pair.
        let angles = 16 * u64::from(s.rotary);
        Cost {
            read_bytes: t * (s.qkv.row_bytes(n) + angles) + norms,
            written_bytes: t * (s.q.row_bytes(s.heads * s.dim) + 2 * s.kv.row_bytes(s.kv_heads * s.dim)),
            ops: 10 * t * u64::from(n),
            kind: Arithmetic::F32,
        }
    }
}

/// Which pairs of a head rotate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotation {
    /// Elements of a head.
    pub(super) dim: u32,
    /// Pairs that rotate.
    pub(super) rotary: u32,
}

impl Rotation {
    /// Cosines and sines of all pairs of a head at `position`, out of the binding `angles`.
    pub(super) fn at(self, io: &Io<'_>, position: usize) -> (Vec<f32>, Vec<f32>) {
        let n = self.rotary as usize;
        let entry = |row: usize, j: usize| {
            (io.f32("angles", 2 * (row * n + j)), io.f32("angles", 2 * (row * n + j) + 1))
        };
        (0..self.dim as usize / 2)
            .map(|j| {
                if j >= n {
                    return (1.0, 0.0);
                }
                let ((cl, sl), (ch, sh)) = (entry(position % 256, j), entry(256 + position / 256, j));
                (cl * ch - sl * sh, sl * ch + cl * sh)
            })
            .unzip()
    }

    /// The binding `angles` of a check.
    pub(super) fn table(self, d: &Draw) -> Vec<u32> {
        let table = angle_table(self.dim, self.rotary, 10_000.0, d.position + d.tokens + 256);
        table.iter().map(|v| v.to_bits()).collect()
    }
}

/// Puts a head at unit size and multiplies it by `weights`, where it has some.
pub(super) fn normalise(x: &mut [f32], weights: Option<&[f32]>, eps: f32) {
    let r = inverse_rms(x, eps);
    for (i, v) in x.iter_mut().enumerate() {
        *v = *v * r * weights.map_or(1.0, |w| w[i]);
    }
}

/// Rotates the pairs `(j, j + dim/2)` of a head by the cosines and sines of [`Rotation::at`].
pub(super) fn rotate(x: &mut [f32], (cos, sin): &(Vec<f32>, Vec<f32>)) {
    let half = cos.len();
    for j in 0..half {
        let (a, b) = (x[j], x[j + half]);
        x[j] = a * cos[j] - b * sin[j];
        x[j + half] = b * cos[j] + a * sin[j];
    }
}

/// The table `angles` for positions below `positions`: `theta^(-2j/dim)` per pair, computed in f64
/// and stored as `(cos, sin)` in f32, 256 low positions first, then the multiples of 256.
pub fn angle_table(dim: u32, rotary: u32, theta: f64, positions: u32) -> Vec<f32> {
    let mut table = Vec::new();
    let rows = (0..256u32).chain((0..positions.div_ceil(256)).map(|high| high * 256));
    for position in rows {
        for j in 0..rotary {
            let angle = f64::from(position) * theta.powf(-2.0 * f64::from(j) / f64::from(dim));
            table.extend([io::narrow(angle.cos()), io::narrow(angle.sin())]);
        }
    }
    // A buffer must not be empty even where nothing rotates.
    table.resize(table.len().max(2), 0.0);
    table
}
