//! Joins the key ranges of a split attention as [`super::attention_merge`] does, and multiplies the
//! output projection with the result, in one dispatch: a workgroup joins one head, keeps its codes (or,
//! without static grids, its digits), and adds their part of some rows' sums ([`super::slab`]).

use serde::{Deserialize, Serialize};

use super::{
    attention_merge, common_why_not, reduce_bytes, row_why_not, shuffle_choices,
    slab::{Second, Share},
};
use crate::{
    Arithmetic, Caps, Cost, Reason,
    check::{Draw, Tolerance},
    io::{self, Io},
    kernel::{Kernel, require},
    types::Act,
};

/// The family.
#[derive(Clone, Copy, Debug)]
pub struct MergeGemv;

/// What it computes for one token: `out += second * merge(partials)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// The join, into codes, or into floats for a product with group scales.
    pub merge: attention_merge::Shape,
    /// The product, with as many columns as all heads have elements.
    pub second: Second,
}

/// How it is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads of a workgroup; at least the quads of a head, at most the device's invocations.
    pub wg: u32,
    /// Ranges of rows, each a workgroup of its own that joins its head again; divides the fours of
    /// rows.
    pub ranges: u32,
    /// Threads that share four rows; a power of two that divides the pieces of a head.
    pub split: u32,
    /// Lanes combined by shuffles; 1 uses no subgroups.
    pub sg: u32,
}

/// Pieces of 16 bytes of four rows that meet a head.
fn pieces(s: &Shape) -> u32 {
    s.merge.dim / s.second.format.piece().1.max(1)
}

fn share(s: &Shape, c: &Config) -> Share {
    Share { wg: c.wg, quads: s.second.quads() / c.ranges, pieces: pieces(s), split: c.split, sg: c.sg }
}

/// Threads that have a quad of the head each, and groups of them.
fn quads(s: &Shape) -> u32 {
    (s.merge.dim / 4).next_power_of_two()
}

fn columns(s: &Shape) -> u32 {
    s.merge.heads * s.merge.dim
}

impl Kernel for MergeGemv {
    const NAME: &'static str = "merge_gemv";
    const TEMPLATE: &'static str = include_str!("../../../templates/merge_gemv.wgsl");
    type Shape = Shape;
    type Config = Config;

    fn bindings(s: &Shape, _: &Config) -> Vec<&'static str> {
        if s.second.floats() { vec!["partials", "w2", "out"] } else { vec!["partials", "grids", "w2", "out"] }
    }

    fn candidates(s: &Shape, caps: &Caps) -> Vec<Config> {
        let mut all = Vec::new();
        for wg in [32, 64, 128, 256, 512] {
            for ranges in (1..=64).filter(|r| s.second.quads().is_multiple_of(*r)) {
                for split in [1, 2, 4, 8, 16, 32, 64] {
                    for sg in shuffle_choices(caps) {
                        all.push(Config { wg, ranges, split, sg });
                    }
                }
            }
        }
        all.retain(|c| c.ranges.is_power_of_two() && Self::why_not(s, c, caps).is_none());
        all
    }

    fn promising(_: &Shape, c: &Config) -> bool {
        c.sg > 1 && matches!(c.ranges, 8 | 16) && matches!(c.wg, 128 | 256)
    }

    fn generic(s: &Shape, caps: &Caps) -> Config {
        let of = |wg: u32, ranges: u32, split: u32| {
            let wg = wg.max(quads(s)).min(caps.max_invocations);
            let ranges = if s.second.quads().is_multiple_of(ranges) { ranges } else { 1 };
            Config { wg, ranges, split, sg: super::generic_shuffle(caps, wg) }
        };
        let mut tried = Vec::new();
        for ranges in [16, 8, 32, 64, 1] {
            tried.extend([16, 8, 4, 2, 1, 32, 64].map(|split| of(128, ranges, split)));
        }
        tried.into_iter().find(|c| Self::why_not(s, c, caps).is_none()).unwrap_or(of(128, 1, 1))
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        let m = &s.merge;
        let needed = if s.second.floats() { Act::F32 } else { Act::I8 };
        require!(m.out == needed, "the product needs {needed:?}, not {:?}", m.out);
        require!(s.second.banks == 1, "the heads, a few, add to one bank of sums");
        require!(m.dim > 0 && m.dim.is_multiple_of(4), "a head of {} elements is not a multiple of 4", m.dim);
        require!((1..=64).contains(&m.splits), "{} key ranges are not 1 to 64", m.splits);
        if let Some(reason) =
            row_why_not(m.heads.into(), m.dim).or_else(|| s.second.why_not(columns(s), caps))
        {
            return Some(reason);
        }
        let wide = s.second.format.piece().1;
        require!(m.dim.is_multiple_of(wide), "a head of {} elements is not a multiple of {wide}", m.dim);
        require!(
            c.ranges > 0 && s.second.quads().is_multiple_of(c.ranges),
            "{} ranges do not share out the {} fours of rows",
            c.ranges,
            s.second.quads()
        );
        require!(c.split > 0 && c.sg > 0 && c.sg.is_power_of_two(), "lanes are powers of two");
        require!(
            c.wg.is_power_of_two() && c.wg >= quads(s),
            "a workgroup of {} is no power of two with a thread for each of {} quads of a head",
            c.wg,
            m.dim / 4
        );
        let own = m.splits.div_ceil(c.wg / quads(s));
        require!(own <= 16, "{own} ranges a thread would not stay in registers (at most 16)");
        let groups = m.heads * c.ranges;
        require!(groups <= caps.max_groups, "{groups} workgroups exceed the device's grid");
        let additions = share(s, c).additions(m.heads);
        if let Some(reason) = share(s, c).why_not().or_else(|| s.second.overflows(additions)) {
            return Some(reason);
        }
        let sums = if c.wg > quads(s) { u64::from(c.wg) * 16 } else { 0 };
        let bytes = u64::from(m.splits) * 4
            + sums
            + 2 * reduce_bytes(c.wg, c.sg)
            + s.second.input_bytes(m.dim / 4)
            + share(s, c).bytes();
        common_why_not(c.wg, c.sg, bytes, caps)
    }

    fn groups(s: &Shape, c: &Config, _: u32) -> [u32; 3] {
        [s.merge.heads * c.ranges, 1, 1]
    }

    fn derived(s: &Shape, c: &Config) -> Vec<(&'static str, u32)> {
        let groups = c.wg / quads(s);
        let mut d = share(s, c).derived(&s.second, columns(s)).to_vec();
        d.extend([
            ("dim4", s.merge.dim / 4),
            ("quads", quads(s)),
            ("groups", groups),
            ("own", s.merge.splits.div_ceil(groups)),
            ("slab_chunks", s.second.chunks(columns(s))),
        ]);
        d
    }

    fn features(c: &Config) -> (bool, bool) {
        (c.sg > 1, false)
    }

    fn one_token(_: &Shape) -> bool {
        true
    }

    fn reference(s: &Shape, _: &Config, io: &mut Io<'_>) {
        if s.second.floats() {
            let values: Vec<f32> = (0..s.merge.heads).flat_map(|head| s.merge.join(io, 0, head)).collect();
            return s.second.reference_floats(&values, io);
        }
        let grid = io.f32("grids", 0);
        let mut codes = Vec::new();
        for head in 0..s.merge.heads {
            codes.extend(s.merge.join(io, 0, head).iter().map(|v| io::quantize(*v, grid)));
        }
        s.second.reference(&codes, io);
    }

    fn written(_: &Shape, _: &Config) -> Vec<&'static str> {
        vec!["out"]
    }

    fn draw(s: &Shape, _: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        match name {
            "partials" | "grids" => s.merge.draw(name, d),
            _ => s.second.draw(columns(s), name, d),
        }
    }

    fn output(s: &Shape, _: &Config, _: &str) -> (Act, Tolerance) {
        s.second.output(false)
    }

    fn cost(s: &Shape, _: &Config, _: u32, _: u32) -> Cost {
        let sums = s.second.sum_bytes();
        Cost {
            read_bytes: s.merge.partial_bytes(1) + s.second.weight_bytes(columns(s)) + sums,
            written_bytes: sums,
            ops: 2 * u64::from(s.second.rows) * u64::from(columns(s)),
            kind: Arithmetic::Int8,
        }
    }
}
