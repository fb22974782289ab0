//! Residual and `RMSNorm` in one dispatch: `x' = (x + RMS(y) * post) * scalar`, then
//! `out = RMS(x') * pre`, stored as floats or as codes on the next matmul's grid.
//! The residual stream stays f32; sums of squares are f32.

use serde::{Deserialize, Serialize};

use super::{
    NO_SUMS, common_why_not, f16_choices, generic_shuffle, reduce_bytes, shuffle_choices,
    slab::{is_one, one},
};
use crate::{
    Arithmetic, Caps, Cost, Reason,
    check::{Draw, Inputs, Tolerance},
    io::{self, Io},
    kernel::{Kernel, require},
    types::{Act, stride},
};

/// The family.
#[derive(Clone, Copy, Debug)]
pub struct Norm;

/// What a norm dispatch computes, or the prologue of a product ([`super::gemv::Shape::norm`]). Rows of
/// `x`, `y`, `sum` and `out` have [`stride`]`(width)` elements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Columns of the residual stream.
    pub width: u32,
    /// Adds `RMS(y) * post` to `x` first, and stores the sum.
    pub residual: bool,
    /// Element type of `y`.
    pub y: Act,
    /// Multiplies the sum by `scalar[0]` (needs `residual`).
    pub scaled: bool,
    /// Normalises the result by `pre`; otherwise `out` is the sum itself.
    pub norm: bool,
    /// Element type of `out`; `None` stores the sum only (needs `residual`).
    pub out: Option<Act>,
    /// Added to the mean of squares.
    pub eps: f64,
    /// Rows of `y` that are added up where it holds sums of codes ([`super::slab::Second::banks`]).
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub banks: u32,
}

/// How it is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads; at most the device's invocations. Each holds `width / 4 / wg` quads in registers.
    pub wg: u32,
    /// Lanes combined by shuffles before workgroup memory; 1 uses no subgroups.
    pub sg: u32,
    /// Reads and writes f16 by WGSL's type instead of packed words.
    pub f16: bool,
}

/// Quads each of `wg` threads holds.
pub(crate) fn per_thread(shape: &Shape, wg: u32) -> u32 {
    (stride(shape.width) / 4).div_ceil(wg)
}

/// Bytes of workgroup memory the sums of a row take.
pub(crate) fn row_bytes(s: &Shape, wg: u32, sg: u32) -> u64 {
    reduce_bytes(wg, sg) * if s.residual && s.norm { 4 } else { 1 }
}

impl Kernel for Norm {
    const NAME: &'static str = "norm";
    const TEMPLATE: &'static str = include_str!("../../../templates/norm.wgsl");
    type Shape = Shape;
    type Config = Config;

    fn bindings(s: &Shape, _: &Config) -> Vec<&'static str> {
        let mut names = vec!["x"];
        if s.residual {
            names.extend(["y", "post", "sum"]);
        }
        if s.scaled {
            names.push("scalar");
        }
        if s.norm {
            names.push("pre");
        }
        if s.out == Some(Act::I8) {
            names.push("grids");
        }
        if s.out.is_some() {
            names.push("out");
        }
        names
    }

    fn candidates(s: &Shape, caps: &Caps) -> Vec<Config> {
        let mut all = Vec::new();
        for wg in [32, 64, 128, 256, 512] {
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
        // About two quads a thread keeps the two dependent reductions short.
        let wg = (stride(s.width) / 8).next_power_of_two().clamp(64, 256).min(caps.max_invocations);
        let wg = if per_thread(s, wg) > 16 { caps.max_invocations.min(1024) } else { wg };
        Config { wg, sg: generic_shuffle(caps, wg), f16: caps.f16 }
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        require!(s.width > 0, "the width is zero");
        require!(s.banks == 1, "only sums of codes lie in banks");
        require!(!s.y.is_sum() && s.out.is_none_or(|out| !out.is_sum()), "{NO_SUMS}");
        require!(s.residual || !s.scaled, "only a residual sum can be scaled");
        require!(s.residual || s.out.is_some(), "nothing would be stored");
        require!(
            per_thread(s, c.wg) <= 32,
            "{} quads a thread would not stay in registers (at most 32)",
            per_thread(s, c.wg)
        );
        common_why_not(c.wg, c.sg, row_bytes(s, c.wg, c.sg), caps)
    }

    fn groups(_: &Shape, _: &Config, tokens: u32) -> [u32; 3] {
        [tokens, 1, 1]
    }

    fn derived(s: &Shape, c: &Config) -> Vec<(&'static str, u32)> {
        vec![
            ("quads", stride(s.width) / 4),
            ("per_thread", per_thread(s, c.wg)),
            ("has_out", u32::from(s.out.is_some())),
        ]
    }

    fn reference(s: &Shape, _: &Config, io: &mut Io<'_>) {
        let (n, row) = (s.width as usize, stride(s.width) as usize);
        let tokens = io.tokens;
        let eps = io::narrow(s.eps);
        for t in 0..tokens {
            let mut x = io.row("x", Act::F32, t * row, n, 1.0);
            let vector = |name| io.row(name, Act::F32, 0, n, 1.0);
            let residual = s.residual.then(|| (io.row("y", s.y, t * row, n, 1.0), vector("post")));
            let scalar = if s.scaled { io.f32("scalar", 0) } else { 1.0 };
            let pre = s.norm.then(|| vector("pre"));
            if let Some((y, post)) = &residual {
                complete(&mut x, y, post, scalar, eps);
                x.resize(row, 0.0);
                io.store("sum", Act::F32, t * row, &x, 1.0);
                x.truncate(n);
            }
            if let Some(pre) = &pre {
                normalise(&mut x, pre, eps);
            }
            if let Some(out) = s.out {
                let grid = if out == Act::I8 { io.f32("grids", 0) } else { 1.0 };
                x.resize(row, 0.0);
                io.store("out", out, t * row, &x, grid);
            }
        }
    }

    fn features(c: &Config) -> (bool, bool) {
        (c.sg > 1, c.f16)
    }

    fn written(s: &Shape, _: &Config) -> Vec<&'static str> {
        let mut names = Vec::new();
        if s.residual {
            names.push("sum");
        }
        if s.out.is_some() {
            names.push("out");
        }
        names
    }

    fn draw(s: &Shape, _: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        // A root is exact nowhere, so ties need a sum that takes nothing from `y`.
        let silent = d.inputs == Inputs::Ties && !s.norm;
        match name {
            "x" => d.rows(d.tokens, s.width, Act::F32, 1.0),
            "y" if silent => vec![0; (u64::from(d.tokens) * s.y.row_bytes(s.width) / 4) as usize],
            "y" => d.rows(d.tokens, s.width, s.y, 1.0),
            "post" | "pre" => d.weights(s.width),
            "scalar" if d.inputs == Inputs::Ties => vec![0.5f32.to_bits(); 4],
            "scalar" => vec![0.7f32.to_bits(); 4],
            "grids" if d.inputs == Inputs::Ties && s.norm => vec![0.03f32.to_bits(); 4],
            "grids" if d.inputs == Inputs::Ties => vec![2.0f32.to_bits(); 4],
            "grids" => d.grid(0.03),
            "sum" => Draw::poison(u64::from(d.tokens) * Act::F32.row_bytes(s.width)),
            _ => Draw::poison(u64::from(d.tokens) * s.out.unwrap_or(Act::F32).row_bytes(s.width)),
        }
    }

    fn output(s: &Shape, _: &Config, name: &str) -> (Act, Tolerance) {
        let act = if name == "out" { s.out.unwrap_or(Act::F32) } else { Act::F32 };
        Tolerance::float(act, 2e-5)
    }

    fn cost(s: &Shape, _: &Config, tokens: u32, _: u32) -> Cost {
        let (t, row) = (u64::from(tokens), |act: Act| act.row_bytes(s.width));
        let (y, weights) =
            if s.residual { (row(s.y), 1 + u64::from(s.norm)) } else { (0, u64::from(s.norm)) };
        let sum = if s.residual { row(Act::F32) } else { 0 };
        Cost {
            read_bytes: t * (row(Act::F32) + y) + weights * row(Act::F32),
            written_bytes: t * (sum + s.out.map_or(0, row)),
            ops: 4 * t * u64::from(s.width) * (u64::from(s.residual) + u64::from(s.norm)),
            kind: Arithmetic::F32,
        }
    }
}

/// The input of a product that `n` precedes in its dispatch ([`super::gemv::Shape::norm`]): what the
/// norms put out, as words of that type. Stores `sum`.
pub(crate) fn prologue(n: &Shape, io: &mut Io<'_>) -> Vec<u32> {
    let (width, row) = (n.width as usize, stride(n.width) as usize);
    let act = n.out.unwrap_or(Act::F32);
    let eps = io::narrow(n.eps);
    let mut x = io.row("x", Act::F32, 0, width, 1.0);
    if n.residual {
        let y = if n.y == Act::I32 {
            let words = io.words("y");
            let sum =
                |c| words[c..].iter().step_by(row).fold(0i32, |sum, w| sum.wrapping_add(w.cast_signed()));
            let scales = io.row("site", Act::F32, 2 * row + 128, width, 1.0);
            let grid = io.f32("site", 2 * row + 1);
            scales.iter().enumerate().map(|(c, scale)| io::srq(sum(c) as f32 * scale, grid)).collect()
        } else {
            io.row("y", n.y, 0, width, 1.0)
        };
        let post = io.row("site", Act::F32, 0, width, 1.0);
        let scalar = if n.scaled { io.f32("site", 2 * row) } else { 1.0 };
        complete(&mut x, &y, &post, scalar, eps);
        x.resize(row, 0.0);
        io.store("sum", Act::F32, 0, &x, 1.0);
        x.truncate(width);
    }
    if n.norm {
        normalise(&mut x, &io.row("site", Act::F32, row, width, 1.0), eps);
    }
    let grid = if act == Act::I8 { io.f32("site", 2 * row + 64) } else { 1.0 };
    let mut words = vec![0; (act.row_bytes(n.width) / 4) as usize];
    x.iter().enumerate().for_each(|(i, v)| io::store(&mut words, act, i, *v, grid));
    words
}

/// `(x + RMS(y) * post) * scalar`.
fn complete(x: &mut [f32], y: &[f32], post: &[f32], scalar: f32, eps: f32) {
    let r = inverse_rms(y, eps);
    for ((x, y), post) in x.iter_mut().zip(y).zip(post) {
        *x = (*x + y * r * post) * scalar;
    }
}

/// `RMS(x) * pre`.
fn normalise(x: &mut [f32], pre: &[f32], eps: f32) {
    let r = inverse_rms(x, eps);
    x.iter_mut().zip(pre).for_each(|(x, pre)| *x *= r * pre);
}

/// `(mean(v^2) + eps)^-1/2`.
pub(crate) fn inverse_rms(v: &[f32], eps: f32) -> f32 {
    let squares: f32 = v.iter().map(|x| x * x).sum();
    1.0 / (squares / v.len() as f32 + eps).sqrt()
}
