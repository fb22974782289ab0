//! Per-layer inputs: `out[l] = (RMS(context[l] * scale) * weight + table[l]) / sqrt(2)` for every
//! layer `l` of every token. `context` is the projected embedding, `table` the gathered row.
//! The output is layer-major, `[layers][capacity][stride(dim)]`, so that a layer's slice can be
//! bound by itself.
//!
//! Of one token it may read the row from the table itself, and clear the sums that layers add to: two
//! dispatches fewer.

use serde::{Deserialize, Serialize};

use super::{
    NO_SUMS, clear, common_why_not, f16_choices, gather, generic_shuffle, norm::inverse_rms, reduce_bytes,
    row_why_not, shuffle_choices,
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
pub struct PleMix;

/// What it computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Layers of the model.
    pub layers: u32,
    /// Elements of one layer's input; a multiple of 4.
    pub dim: u32,
    /// Tokens the output has room for, each layer.
    pub capacity: u32,
    /// Element type of `context`.
    pub context: Act,
    /// Factor on `context`: `hidden^-1/2`.
    pub scale: f64,
    /// Added to the mean of squares.
    pub eps: f64,
    /// How the token's row is found, where `table` is the table and not that row; of `layers * dim` columns.
    /// An id outside of it finds its last row.
    #[serde(default)]
    pub gather: Option<gather::Shape>,
    /// Sums `a` and `b` of later dispatches that are cleared beside, as by [`clear`]; needs `gather`.
    #[serde(default)]
    pub zeros: Option<clear::Shape>,
}

/// How it is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads; at most the device's invocations.
    pub wg: u32,
    /// Lanes combined by shuffles; 1 uses no subgroups.
    pub sg: u32,
    /// Reads f16 by WGSL's type instead of packed words.
    pub f16: bool,
}

impl Kernel for PleMix {
    const NAME: &'static str = "ple_mix";
    const TEMPLATE: &'static str = include_str!("../../../templates/ple_mix.wgsl");
    type Shape = Shape;
    type Config = Config;

    fn bindings(s: &Shape, _: &Config) -> Vec<&'static str> {
        let mut names = vec!["context"];
        names.extend(s.gather.as_ref().map_or(vec!["table"], gather::Shape::inputs));
        names.extend(["weight", "out"]);
        names.extend(s.zeros.iter().flat_map(|_| ["a", "b"]));
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
        let wg = (s.dim / 4).next_power_of_two().clamp(32, 128).min(caps.max_invocations);
        Config { wg, sg: generic_shuffle(caps, wg), f16: caps.f16 }
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        require!(s.dim > 0 && s.dim.is_multiple_of(4), "a layer's {} inputs are not a multiple of 4", s.dim);
        require!(!s.context.is_sum(), "{NO_SUMS}");
        require!(s.layers <= caps.max_groups, "{} layers exceed the device's workgroups", s.layers);
        let elements = u64::from(s.layers) * u64::from(s.capacity) * u64::from(stride(s.dim));
        require!(
            elements <= 1 << 31,
            "{elements} mixed inputs are more than indices allow for (at most 2^31)"
        );
        if let Some(g) = &s.gather {
            let per = (s.dim / 4).div_ceil(c.wg.max(1));
            require!(per <= 16, "{per} quads of the table a thread would not stay in registers (at most 16)");
            require!(
                g.columns == s.layers * s.dim,
                "a table of {} columns has none for {} layers of {}",
                g.columns,
                s.layers,
                s.dim
            );
            if let Some(reason) = g.why_not(caps) {
                return Some(reason);
            }
        }
        if let Some(z) = &s.zeros {
            require!(s.gather.is_some(), "sums are cleared beside one token, whose row comes from the table");
            if let Some(reason) = z.why_not() {
                return Some(reason);
            }
        }
        row_why_not(s.layers.into(), s.dim)
            .or_else(|| common_why_not(c.wg, c.sg, reduce_bytes(c.wg, c.sg), caps))
    }

    fn groups(s: &Shape, _: &Config, tokens: u32) -> [u32; 3] {
        [if s.gather.is_some() { 1 } else { tokens }, s.layers, 1]
    }

    fn derived(s: &Shape, c: &Config) -> Vec<(&'static str, u32)> {
        let (table, zeros) = (s.gather.as_ref(), s.zeros.as_ref());
        let mut d = vec![
            ("quads", s.dim / 4),
            ("row_quads", stride(s.layers * s.dim) / 4),
            ("out_quads", stride(s.dim) / 4),
            ("layer_quads", s.capacity * stride(s.dim) / 4),
            ("per", (s.dim / 4).div_ceil(c.wg)),
        ];
        d.extend(gather::Shape::derived(table));
        d.extend([("a_quads", zeros.map_or(0, |z| z.a / 4)), ("b_quads", zeros.map_or(0, |z| z.b / 4))]);
        d
    }

    fn one_token(s: &Shape) -> bool {
        s.gather.is_some()
    }

    fn reference(s: &Shape, _: &Config, io: &mut Io<'_>) {
        let (n, row) = (s.dim as usize, stride(s.layers * s.dim) as usize);
        let out_row = stride(s.dim) as usize;
        let weight = io.row("weight", Act::F32, 0, n, 1.0);
        if s.gather.is_some() {
            io.tokens = 1;
        }
        let gathered = s.gather.as_ref().map(|g| {
            let id = if g.by_slot { 0 } else { io.words("ids")[0].wrapping_sub(g.first).min(g.rows - 1) };
            g.row(id as usize, io)
        });
        for t in 0..io.tokens {
            for l in 0..s.layers as usize {
                let mut c = io.row("context", s.context, t * row + l * n, n, 1.0);
                c.iter_mut().for_each(|v| *v *= io::narrow(s.scale));
                let a = match &gathered {
                    Some(row) => row[l * n..][..n].to_vec(),
                    None => io.row("table", Act::F32, t * row + l * n, n, 1.0),
                };
                let r = inverse_rms(&c, io::narrow(s.eps));
                let mixed: Vec<f32> =
                    (0..n).map(|i| (c[i] * r * weight[i] + a[i]) * std::f32::consts::FRAC_1_SQRT_2).collect();
                io.store("out", Act::F32, (l * s.capacity as usize + t) * out_row, &mixed, 1.0);
            }
        }
        if s.zeros.is_some() {
            io.words_mut("a").fill(0);
            io.words_mut("b").fill(0);
        }
    }

    fn features(c: &Config) -> (bool, bool) {
        (c.sg > 1, c.f16)
    }

    fn written(s: &Shape, _: &Config) -> Vec<&'static str> {
        if s.zeros.is_some() { vec!["out", "a", "b"] } else { vec!["out"] }
    }

    fn draw(s: &Shape, _: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        match name {
            "context" => d.rows(d.tokens, s.layers * s.dim, s.context, 1.0),
            "weight" => d.weights(s.dim),
            "a" | "b" => s.zeros.as_ref().map_or_else(Vec::new, |z| z.poison(name)),
            "ids" | "table" | "scales" => match &s.gather {
                Some(g) => g.draw(name, d),
                None => d.rows(d.tokens, s.layers * s.dim, Act::F32, 1.0),
            },
            _ => Draw::poison(u64::from(s.layers * s.capacity) * Act::F32.row_bytes(s.dim)),
        }
    }

    fn output(_: &Shape, _: &Config, name: &str) -> (Act, Tolerance) {
        if name == "out" { Tolerance::float(Act::F32, 2e-5) } else { (Act::I32, Tolerance::Exact) }
    }

    fn cost(s: &Shape, _: &Config, tokens: u32, _: u32) -> Cost {
        let (t, n) = (u64::from(tokens), s.layers * s.dim);
        Cost {
            read_bytes: t
                * (s.context.row_bytes(n)
                    + s.gather.as_ref().map_or(Act::F32.row_bytes(n), gather::Shape::token_bytes))
                + Act::F32.row_bytes(s.dim),
            written_bytes: t * u64::from(s.layers) * Act::F32.row_bytes(s.dim)
                + s.zeros.as_ref().map_or(0, clear::Shape::bytes),
            ops: 7 * t * u64::from(n),
            kind: Arithmetic::F32,
        }
    }
}
