//! Attention of one token straight from its row of q/k/v: what [`super::rope`] and
//! [`super::attention`] do for decode, in one dispatch, so that a layer waits for one dispatch less.
//!
//! Every workgroup normalises and rotates its query heads anew, which costs less than a dispatch.
//! The token's own key and value take part as they were computed, in f32, and are never read back:
//! the one workgroup a KV head that stores them may be later than those that need them. (Workgroups that
//! compute its range for it store the same. Where rows of q, k and v are late, both may store what is not theirs yet,
//! and store again what is before they end: whoever lacks rows repeats its range.)
//!
//! A head's key ranges are joined by the dispatch behind, or here: then its workgroups exchange their sums,
//! wait for each other and multiply the output projection ([`Config::project`]), which saves that dispatch
//! where they run side by side. WebGPU does not promise that they do, nor an order in which what one stores
//! is seen by others. Nothing here counts on either: what is exchanged are atomic words that say by themselves
//! which dispatch they are of, and a workgroup that has waited too long computes what is missing.
//!
//! In the same way they may share out the product that makes q, k and v ([`Shape::first`]), which saves another
//! dispatch: each computes some rows of it, norms included, and looks for those of its head (`rows.rs`).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{
    NO_SUMS,
    attention::{attend, generic_splits, key_range},
    attention_merge, common_why_not, f16_choices, gemv, merge_gemv, rope, row_why_not,
    rows::Rows,
    shuffle_choices,
    slab::{Second, Share},
};
use crate::{
    Arithmetic, Caps, Cost, Reason, Workload,
    check::{Draw, Inputs, Tolerance},
    io::{self, Io, load},
    kernel::{Kernel, require},
    types::{Act, Format, Scale, stride},
};

/// The family.
#[derive(Clone, Copy, Debug)]
pub struct DecodeAttention;

/// What it computes for one token: `out = softmax(q k^T + mask) v`, q and the token's own k and v
/// out of `qkv` as by [`super::rope`], the other keys and values out of the cache, the mask as by
/// [`super::attention`].
///
/// `qkv`: [`stride`]`((heads + 2 kv_heads) * dim)` elements, queries first, then keys, then values;
/// `heads * dim` without `append`. `norms`: [`stride`]`(dim)` weights of a query head, then with
/// `append` as many of a key head. `k`, `v`: `[slot][kv_heads][dim]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Query heads.
    pub heads: u32,
    /// Key/value heads; divides `heads`.
    pub kv_heads: u32,
    /// Elements of a head; a multiple of 8.
    pub dim: u32,
    /// Pairs `(j, j + dim/2)`, counted from 0, that rotate; the rest keep angle 0.
    pub rotary: u32,
    /// Sliding window; 0: all earlier positions.
    pub window: u32,
    /// Slots of a ring cache, at least `window`; 0: one slot a position.
    pub ring: u32,
    /// The layer owns its cache: the token's key and value are in `qkv` and go into the cache.
    /// Otherwise they are in the cache already.
    pub append: bool,
    /// Element type of `qkv`.
    pub qkv: Act,
    /// Element type of the cache.
    pub kv: Act,
    /// Element type of `out`; codes are on the grid `grids[0]`.
    pub out: Act,
    /// Added to the mean of squares.
    pub eps: f64,
    /// The output projection, where it follows in the dispatch that joins the key ranges
    /// ([`merge_gemv`], or this one): then ranges are left to it even if there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Second>,
    /// The product that makes `qkv`, behind norms, where it comes first in this dispatch: its bindings are in the
    /// place of `qkv`. Of codes, and only for configurations that project, which exchange what they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<gemv::Shape>,
    /// For contexts of many thousand keys, which other configurations are best for; it computes the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deep: bool,
}

/// How it is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads; at most the device's invocations.
    pub wg: u32,
    /// Query heads of a workgroup, which share the rows of keys and values it reads; divides the
    /// heads of a KV head. Each needs `dim` floats over the threads in registers.
    pub heads: u32,
    /// Key ranges, each a workgroup of its own, joined by the dispatch behind unless it projects; at most 64.
    pub splits: u32,
    /// Keys of a tile; a power of two. Its rows are held in registers, up to 16 quads a thread.
    pub keys: u32,
    /// Threads that share a key's score; a power of two that divides the quads of a head.
    pub lanes: u32,
    /// Loads the first tile's values with its keys, before anything waits, and later tiles' as soon
    /// as there is room; otherwise a tile's values are loaded behind its scores.
    pub values_ahead: bool,
    /// Lanes combined by shuffles; 1 uses no subgroups.
    pub sg: u32,
    /// Reads and writes f16 by WGSL's type instead of packed words.
    pub f16: bool,
    /// Multiplies the output projection ([`Shape::then`]) in this dispatch, each workgroup of a head some of
    /// its rows, with so many threads sharing four of them: a power of two that divides the pieces of 16 bytes in
    /// which four rows meet a head. `None`: that is left to the dispatch behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<u32>,
}

/// Tickets that a dispatch takes, whatever its workgroups are; 2^32 is a multiple of four times as many.
const TICKETS: u32 = 4096;

impl Shape {
    /// Heads of `qkv`.
    pub(crate) fn slots(&self) -> u32 {
        self.heads + if self.append { 2 * self.kv_heads } else { 0 }
    }

    fn any_f16(&self) -> bool {
        [self.qkv, self.kv, self.out].contains(&Act::F16)
    }

    fn rotation(&self) -> rope::Rotation {
        rope::Rotation { dim: self.dim, rotary: self.rotary }
    }

    /// How workgroups share out the rows of [`Self::first`].
    fn rows(&self, c: &Config) -> Option<(&gemv::Shape, Rows)> {
        let first = self.first.as_ref()?;
        let each = self.dim / c.splits.max(1);
        let behind = if self.append { 2 * self.kv_heads * c.splits } else { 0 };
        let beside = behind.div_ceil(self.heads.max(1));
        Some((first, Rows { wg: c.wg, each, owners: self.heads * c.splits + behind, beside, sg: c.sg }))
    }

    /// Workgroups of a head, where they exchange: its key ranges, and those that only compute rows.
    fn workgroups_of_head(&self, c: &Config) -> u32 {
        c.splits + self.rows(c).map_or(0, |(_, rows)| rows.beside)
    }

    /// Words that key ranges exchange, and those of rows behind them.
    fn range_words(&self, c: &Config) -> u64 {
        64 + u64::from(self.heads) * u64::from(c.splits) * (u64::from(self.dim) + 32)
    }

    /// Whether key ranges are left to others to join.
    fn parts(&self, c: &Config) -> bool {
        c.project.is_none() && (c.splits > 1 || self.then.is_some())
    }

    /// The product that a configuration multiplies itself, and how its threads share it.
    fn projects(&self, c: &Config) -> Option<(&Second, Share)> {
        let (second, split) = (self.then.as_ref()?, c.project?);
        let pieces = self.dim / second.format.piece().1.max(1);
        Some((second, Share { wg: c.wg, quads: second.quads() / c.splits.max(1), pieces, split, sg: c.sg }))
    }

    /// Bytes of workgroup memory that projecting takes.
    fn exchanging_bytes(&self, c: &Config) -> u64 {
        let Some((second, share)) = self.projects(c) else { return 0 };
        let of = |n: u32| u64::from(n);
        let groups = c.wg / (self.dim / 4);
        let joined = if groups > 1 { 16 * of(c.wg) + 4 * of(groups) } else { 0 };
        let rows = self.rows(c).map_or(0, |(first, rows)| rows.bytes(first));
        8 + 8 * of(c.splits) + joined + second.input_bytes(self.dim / 4) + share.bytes() + rows
    }

    fn columns(&self) -> u32 {
        self.heads * self.dim
    }

    /// Bytes of `exchange`, zeros before its first use: what the key ranges' workgroups tell each other under
    /// a configuration that projects; 0 under others.
    pub fn exchange_bytes(&self, c: &Config) -> u64 {
        let rows = self.first.as_ref().map_or(0, |first| u64::from(first.rows));
        if c.project.is_some() { 4 * (self.range_words(c) + rows) } else { 0 }
    }

    /// Bytes of `partials`: `[head][split]` of `dim + 4` f32, as [`attention_merge`] reads them.
    fn partial_bytes(&self, splits: u32) -> u64 {
        u64::from(self.heads * splits) * u64::from(self.dim + 4) * 4
    }
}

/// Numbers that follow from shape and configuration.
struct Layout {
    /// Rows in workgroup memory: the query heads, and the token's key and value.
    rows: u32,
    /// Keys whose scores a thread has a part in.
    per: u32,
    /// Quads of a key it reads for that.
    quads: u32,
    /// Partial scores of a key that meet in workgroup memory.
    parts: u32,
    /// Groups of threads that share out the values of a tile.
    groups: u32,
    /// Quads of a value row a thread has.
    own: u32,
    /// Threads that share a head's norm and rotation.
    team: u32,
    /// Those of them that shuffles combine.
    team_shuffled: u32,
    /// Heads each team takes.
    passes: u32,
    /// Pairs of quads of a head a thread of the team takes.
    pairs: u32,
}

impl Layout {
    /// Of a configuration whose numbers [`Kernel::why_not`] has found to divide each other.
    fn of(s: &Shape, c: &Config) -> Self {
        let (dim4, half) = (s.dim / 4, s.dim / 8);
        let rows = c.heads + if s.append { 2 } else { 0 };
        let groups = if dim4.is_power_of_two() && c.wg > dim4 { c.wg / dim4 } else { 1 };
        let whole = half.next_power_of_two().min(c.wg);
        // A team within a subgroup needs no barrier for its sum; too small a team would take many steps.
        let team = if c.sg > 1 && half <= 4 * c.sg { whole.min(c.sg) } else { whole };
        Self {
            rows,
            per: c.keys * c.lanes / c.wg,
            quads: dim4 / c.lanes,
            parts: c.lanes / c.lanes.min(c.sg),
            groups,
            own: dim4.div_ceil(c.wg),
            team,
            team_shuffled: team.min(c.sg),
            passes: rows.div_ceil(c.wg / team),
            pairs: half.div_ceil(team),
        }
    }

    fn workgroup_bytes(&self, s: &Shape, c: &Config) -> u64 {
        let of = |n: u32| u64::from(n);
        let row = of(s.dim) * 4;
        let squares =
            if self.team > self.team_shuffled { self.rows * (self.team / self.team_shuffled) } else { 0 };
        let own_scores = if s.append && self.parts > 1 { c.heads * self.parts } else { 0 };
        of(self.rows) * row
            + 8 * of(c.heads) * of(c.keys) * of(self.parts)
            + 4 * of(squares + own_scores)
            + of(self.groups - 1) * of(c.heads) * (row + 4)
    }
}

impl Kernel for DecodeAttention {
    const NAME: &'static str = "decode_attention";
    const TEMPLATE: &'static str = include_str!("../../../templates/decode_attention.wgsl");
    type Shape = Shape;
    type Config = Config;

    fn bindings(s: &Shape, c: &Config) -> Vec<&'static str> {
        // Eight at most, hence one binding for both norms; ten where it projects, and fifteen with rows.
        let mut names = vec!["run"];
        match &s.first {
            Some(first) => names.extend(first.bindings().into_iter().filter(|n| *n != "out")),
            None => names.push("qkv"),
        }
        names.extend(["norms", "angles", "k", "v"]);
        if c.project.is_some() {
            names.push("exchange");
            if s.out.is_int() {
                names.push("grids");
            }
            names.extend(["w2", "out"]);
        } else if s.parts(c) {
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
        let group = s.heads / s.kv_heads.max(1);
        let f16s = if s.any_f16() { f16_choices(caps) } else { vec![false] };
        for wg in [32, 64, 128, 256] {
            for heads in (1..=group.min(8)).filter(|h| group.is_multiple_of(*h)) {
                for splits in [1, 8, 16, 32, 64] {
                    for keys in [8, 16, 32, 64] {
                        for lanes in [1, 2, 4, 8, 16, 32] {
                            for values_ahead in [true, false] {
                                for sg in shuffle_choices(caps) {
                                    for &f16 in &f16s {
                                        let project = None;
                                        all.push(Config {
                                            wg,
                                            heads,
                                            splits,
                                            keys,
                                            lanes,
                                            values_ahead,
                                            sg,
                                            f16,
                                            project,
                                        });
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        // Narrow subgroups are those of processors (16 lanes at most) and small GPUs, whose workgroups take turns and
        // would wait in vain. One head a workgroup, or too few share out the projection.
        let waits = caps.subgroup_min >= 32 && s.then.is_some();
        let can = |c: &&Config| waits && c.heads == 1 && c.splits > 1 && c.keys >= 16 && c.wg >= 128;
        let projecting: Vec<Config> = (all.iter().filter(can))
            .flat_map(|c| [4, 8, 16].map(|split| Config { project: Some(split), ..c.clone() }))
            .collect();
        all.extend(projecting);
        all.retain(|c| Self::why_not(s, c, caps).is_none());
        all
    }

    fn promising(s: &Shape, c: &Config) -> bool {
        if s.first.is_some() && c.f16 {
            return false;
        }
        if c.project.is_some() {
            // As many workgroups as a large GPU has cores, all their keys in one tile.
            let tile = c.wg == 256 && c.splits == 16 && c.keys == 32 && c.lanes >= 16;
            return tile && !c.values_ahead && c.project > Some(4);
        }
        if s.deep {
            // Keys and values, which come from memory, are read for several heads at once.
            return c.heads > 1 && c.splits >= 32 && c.keys >= 16;
        }
        // Small shaders: layers of the other kind come between, and their code takes its place in the
        // instruction cache.
        c.heads == 1 && c.splits == 32 && c.keys <= 16
    }

    fn generic(s: &Shape, caps: &Caps) -> Config {
        if s.first.is_some() {
            return exchanging(s, caps);
        }
        let sg = if caps.subgroups { caps.subgroup_min } else { 1 };
        // A power of two that divides the quads of a head: its lowest bit.
        let lanes = (s.dim / 4) & (s.dim / 4).wrapping_neg();
        let lanes = lanes.clamp(1, 16).min(8 * sg);
        let f16 = caps.f16 && s.any_f16();
        let splits = generic_splits(s.window);
        let make = |wg: u32, keys: u32| {
            let wg = wg.min(keys * lanes).min(caps.max_invocations);
            let sg = if wg.is_multiple_of(sg) { sg } else { 1 };
            Config { wg, heads: 1, splits, keys, lanes, values_ahead: true, sg, f16, project: None }
        };
        [make(128, 16), make(256, 16), make(64, 16), make(64, 8)]
            .into_iter()
            .find(|c| Self::why_not(s, c, caps).is_none())
            .unwrap_or(Config { sg: 1, f16: false, ..make(32, 32) })
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        require!(
            s.heads > 0 && s.kv_heads > 0 && s.heads.is_multiple_of(s.kv_heads),
            "{} heads do not share {} KV heads",
            s.heads,
            s.kv_heads
        );
        require!(s.dim > 0 && s.dim.is_multiple_of(8), "a head of {} elements is not a multiple of 8", s.dim);
        require!(s.rotary <= s.dim / 2, "{} pairs do not fit a head of {}", s.rotary, s.dim);
        require!(![s.qkv, s.kv, s.out].iter().any(|act| act.is_sum()), "{NO_SUMS}");
        require!(
            s.then.as_ref().is_none_or(|then| (s.out == Act::I8) != then.floats()),
            "a product in the same dispatch needs codes, or floats where it has group scales"
        );
        require!(!s.qkv.is_int() && !s.kv.is_int(), "scores need floats");
        require!(
            s.first.is_none() || c.project.is_some(),
            "only workgroups that exchange their sums exchange rows of q, k and v"
        );
        require!(
            s.ring == 0 || s.window > 0 && s.window <= s.ring,
            "a ring of {} slots keeps only a window's keys, not {}",
            s.ring,
            s.window
        );
        let group = s.heads / s.kv_heads;
        require!(
            c.heads > 0 && group.is_multiple_of(c.heads),
            "{} heads a workgroup do not divide the {group} of a KV head",
            c.heads
        );
        require!(c.splits >= 1 && c.splits <= 64, "{} key ranges are more than 64", c.splits);
        require!(c.splits <= caps.max_groups, "{} splits exceed the device's grid", c.splits);
        let dim4 = s.dim / 4;
        require!(
            c.lanes.is_power_of_two() && dim4.is_multiple_of(c.lanes),
            "{} lanes do not share {dim4} quads of a head",
            c.lanes
        );
        require!(
            c.keys.is_power_of_two() && c.keys <= 256,
            "a tile of {} keys is not a power of two up to 256",
            c.keys
        );
        require!(!c.f16 || s.any_f16(), "there is no f16 to read or write");
        if let Some(reason) =
            row_why_not(s.slots().into(), s.dim).or_else(|| common_why_not(c.wg, c.sg, 0, caps))
        {
            return Some(reason);
        }
        require!(
            (c.keys * c.lanes).is_multiple_of(c.wg),
            "{} keys of {} lanes are no whole number of workgroups of {}",
            c.keys,
            c.lanes,
            c.wg
        );
        let l = Layout::of(s, c);
        require!(
            c.keys.is_multiple_of(l.groups),
            "a tile of {} keys does not share out among {} groups",
            c.keys,
            l.groups
        );
        let weighed = c.keys / l.groups;
        let (of_keys, of_values) = (l.per * l.quads, weighed * l.own);
        // Every thread adds up the parts of every score; compilers unroll that.
        require!(l.parts <= 8, "{} parts of a score in workgroup memory are too many (at most 8)", l.parts);
        require!(
            of_keys <= 16 && of_values <= 16,
            "{of_keys} quads of keys and {of_values} of values a thread would not stay in registers (at most 16)"
        );
        require!(
            c.heads * l.own <= 16,
            "{} accumulator quads a thread would not stay in registers (at most 16)",
            c.heads * l.own
        );
        require!(
            c.heads * weighed <= 32,
            "{} exponentials a thread and tile are more than the barrier they save is worth (at most 32)",
            c.heads * weighed
        );
        require!(
            l.passes * l.pairs <= 16,
            "{} pairs of quads to rotate a thread would not stay in registers (at most 16)",
            l.passes * l.pairs
        );
        if let Some(split) = c.project {
            let Some((second, share)) = s.projects(c) else {
                return Some(Reason("there is no output projection to multiply".into()));
            };
            require!(c.heads == 1, "{} heads a workgroup do not share out a head's columns", c.heads);
            require!(
                dim4.is_power_of_two() && c.wg.is_power_of_two() && c.wg >= dim4,
                "a workgroup of {} has no thread for each of {dim4} quads of a head",
                c.wg
            );
            require!(c.wg >= c.splits, "{} threads do not look for {} key ranges", c.wg, c.splits);
            require!(split > 0, "no thread multiplies the output projection");
            require!(
                second.quads().is_multiple_of(c.splits),
                "{} key ranges do not share out the {} fours of rows",
                c.splits,
                second.quads()
            );
            let wide = second.format.piece().1;
            require!(s.dim.is_multiple_of(wide), "a head of {} is not a multiple of {wide}", s.dim);
            if let Some((first, rows)) = s.rows(c) {
                require!(
                    first.rows == s.slots() * s.dim && first.out == s.qkv,
                    "{} results are not the q, k and v of {} heads",
                    first.rows,
                    s.slots()
                );
                require!(
                    s.dim.is_multiple_of(4 * c.splits),
                    "{} key ranges do not share out the fours of rows of a head of {}",
                    c.splits,
                    s.dim
                );
                require!(
                    s.dim.is_power_of_two(),
                    "a head of {} leaves threads over where rows are exchanged",
                    s.dim
                );
                if let Some(reason) = rows.why_not(first, caps) {
                    return Some(reason);
                }
            }
            let groups = s.heads * s.workgroups_of_head(c);
            require!(groups < TICKETS, "{groups} workgroups are more than tickets tell apart");
            let ranges = c.splits.div_ceil(c.wg / dim4);
            require!(ranges <= 16, "{ranges} ranges a thread would not stay in registers (at most 16)");
            require!(second.banks == 1, "the heads, a few, add to one bank of sums");
            let additions = share.additions(s.heads);
            if let Some(reason) = second
                .why_not(s.columns(), caps)
                .or_else(|| share.why_not())
                .or_else(|| second.overflows(additions))
            {
                return Some(reason);
            }
        }
        common_why_not(c.wg, c.sg, l.workgroup_bytes(s, c) + s.exchanging_bytes(c), caps)
    }

    fn groups(s: &Shape, c: &Config, _: u32) -> [u32; 3] {
        [s.heads / c.heads, s.workgroups_of_head(c), 1]
    }

    fn derived(s: &Shape, c: &Config) -> Vec<(&'static str, u32)> {
        let l = Layout::of(s, c);
        let mut d = vec![
            ("dim4", s.dim / 4),
            ("half", s.dim / 8),
            ("partial", u32::from(s.parts(c))),
            ("projects", u32::from(c.project.is_some())),
            ("norm_quads", stride(s.dim) / 4),
            // Workgroups of a KV head and range.
            ("sharers", s.heads / s.kv_heads / c.heads),
            ("rows", l.rows),
            ("per", l.per),
            ("quads", l.quads),
            ("step", c.wg / c.lanes),
            ("shuffled", c.lanes.min(c.sg)),
            ("parts", l.parts),
            ("groups", l.groups),
            ("own", l.own),
            // Keys of a tile whose values a thread adds.
            ("weighed", c.keys / l.groups),
            ("team", l.team),
            ("teams", c.wg / l.team),
            ("team_shuffled", l.team_shuffled),
            // Partial sums of squares of a head.
            ("squares", l.team / l.team_shuffled),
            ("passes", l.passes),
            ("pairs", l.pairs),
            // All pairs of a quad rotate, or none.
            ("whole_turns", u32::from(s.rotary.is_multiple_of(4))),
            ("ragged", u32::from(l.pairs * l.team != s.dim / 8)),
        ];
        // Where the projection is left to others: of some product, and in no text.
        let some = Second { rows: 4, format: Format::I4, scale: Scale::Row, banks: 1 };
        let shared = Share { wg: c.wg, quads: 1, pieces: 1, split: 1, sg: 1 };
        let (second, share) = s.projects(c).unwrap_or((&some, shared));
        d.extend(share.derived(second, s.columns()));
        d.extend([
            ("slab_chunks", second.chunks(s.columns())),
            ("slab_split", share.split),
            ("tickets", TICKETS),
            ("workgroups", s.heads * s.workgroups_of_head(c)),
            // Key ranges whose sums a thread joins.
            ("ranges", c.splits.div_ceil(l.groups)),
            ("computes", u32::from(s.first.is_some())),
        ]);
        d.extend(Rows::derived(s.rows(c)));
        d.push(("rows_at", u32::try_from(s.range_words(c)).unwrap_or(u32::MAX)));
        d
    }

    /// With splits, each key range's unnormalised sum, maximum and sum of weights; otherwise the
    /// finished rows, or what a configuration that projects makes of them.
    fn reference(s: &Shape, c: &Config, io: &mut Io<'_>) {
        let (d, position) = (s.dim as usize, io.position());
        let (heads, kv_heads) = (s.heads as usize, s.kv_heads as usize);
        let turn = s.rotation().at(io, position);
        let eps = io::narrow(s.eps);
        // Rows that others compute are rounded as in memory.
        let computed = s.first.as_ref().map(|first| {
            let mut words = vec![0; (s.qkv.row_bytes(first.rows) / 4) as usize];
            io.tokens = 1;
            let results = first.results(io, ("scales", 0));
            results.iter().enumerate().for_each(|(i, v)| io::store(&mut words, s.qkv, i, *v, 1.0));
            words
        });
        let head = |io: &Io<'_>, i: usize| match &computed {
            Some(words) => (i * d..(i + 1) * d).map(|i| load(words, s.qkv, i, 1.0)).collect(),
            None => io.row("qkv", s.qkv, i * d, d, 1.0),
        };
        let weights = |io: &Io<'_>, i: usize| io.row("norms", Act::F32, i * stride(s.dim) as usize, d, 1.0);
        let slot_of = |p: usize| if s.ring > 0 { p % s.ring as usize } else { p };

        // The token's own keys and values; none where the cache has them.
        let mut own: Vec<(Vec<f32>, Vec<f32>)> = Vec::new();
        for kv in 0..if s.append { kv_heads } else { 0 } {
            let (mut key, mut value) = (head(io, heads + kv), head(io, heads + kv_heads + kv));
            rope::normalise(&mut key, Some(&weights(io, 1)), eps);
            rope::rotate(&mut key, &turn);
            rope::normalise(&mut value, None, eps);
            let at = (slot_of(position) * kv_heads + kv) * d;
            io.store("k", s.kv, at, &key, 1.0);
            io.store("v", s.kv, at, &value, 1.0);
            own.push((key, value));
        }

        let splits = if c.project.is_some() { 1 } else { c.splits.max(1) as usize };
        let grid = if s.out.is_int() && !s.parts(c) { io.f32("grids", 0) } else { 1.0 };
        let mut finished: Vec<f32> = Vec::new();
        for i in 0..heads {
            let mut q = head(io, i);
            rope::normalise(&mut q, Some(&weights(io, 0)), eps);
            rope::rotate(&mut q, &turn);
            let kv = i / (heads / kv_heads);
            let own = own.get(kv);
            for split in 0..splits {
                let range = key_range(position + 1, s.window, splits, split);
                let (keys, values) = (io.words("k"), io.words("v"));
                let at = |p: usize| (slot_of(p) * kv_heads + kv) * d;
                let mut sums = attend(
                    &q,
                    range,
                    |p, j| match own {
                        Some((key, _)) if p == position => key[j],
                        _ => load(keys, s.kv, at(p) + j, 1.0),
                    },
                    |p, j| match own {
                        Some((_, value)) if p == position => value[j],
                        _ => load(values, s.kv, at(p) + j, 1.0),
                    },
                );
                if c.project.is_some() {
                    finished.extend(sums.finish());
                } else if s.parts(c) {
                    io.store("partials", Act::F32, (i * splits + split) * (d + 4), &sums.partial(), 1.0);
                } else {
                    io.store("out", s.out, i * d, sums.finish(), grid);
                }
            }
        }
        match s.projects(c) {
            Some((second, _)) if second.floats() => second.reference_floats(&finished, io),
            Some((second, _)) => {
                let codes: Vec<i8> = finished.iter().map(|v| io::quantize(*v, grid)).collect();
                second.reference(&codes, io);
            }
            None => {}
        }
    }

    fn features(c: &Config) -> (bool, bool) {
        (c.sg > 1, c.f16)
    }

    fn one_token(_: &Shape) -> bool {
        true
    }

    fn written(s: &Shape, c: &Config) -> Vec<&'static str> {
        let completes = s.first.as_ref().and_then(|f| f.norm.as_ref()).is_some_and(|n| n.residual);
        let mut names = if completes { vec!["sum"] } else { Vec::new() };
        if s.append {
            names.extend(["k", "v"]);
        }
        if c.project.is_some() {
            names.push("exchange");
        }
        names.push(if s.parts(c) { "partials" } else { "out" });
        names
    }

    fn draw(s: &Shape, c: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        match name {
            "run" => d.run(),
            "qkv" => d.rows(1, s.slots() * s.dim, s.qkv, 1.0),
            // Norms put every row at unit size, so their weights decide how far scores lie apart: a
            // few units, so that many keys have weight; hundreds for extremes, and for ties, where
            // the largest alone should have weight and the result be one of the values.
            "norms" => {
                let scale = match d.inputs {
                    Inputs::Random | Inputs::Extreme => 0.25,
                    Inputs::Ties => 4.0,
                };
                let mut words = d.weights(s.dim);
                if s.append {
                    words.extend(d.weights(s.dim));
                }
                words.iter_mut().for_each(|w| *w = (f32::from_bits(*w) * scale).to_bits());
                words
            }
            "angles" => s.rotation().table(d),
            "k" | "v" => {
                let row = s.kv_heads * s.dim;
                let n = d.cache_elements(s.ring, row);
                let mut words = vec![0; if s.kv == Act::F16 { n / 2 } else { n }];
                let scale = match (d.inputs, name) {
                    (Inputs::Extreme, "k") => 1.0 / 32.0,
                    (Inputs::Random, "k") => 0.5,
                    (Inputs::Ties, "v") => 1.0 / 128.0,
                    _ => 1.0,
                };
                for i in 0..n {
                    let v = d.float(scale);
                    io::store(&mut words, s.kv, i, v, 1.0);
                }
                if s.append {
                    // Whoever reads what is only about to be stored cannot hide it.
                    let slot = if s.ring > 0 { d.position % s.ring } else { d.position };
                    for i in slot * row..(slot + 1) * row {
                        io::store(&mut words, s.kv, i as usize, f32::NAN, 1.0);
                    }
                }
                words
            }
            "grids" => d.grid(0.02),
            "partials" => Draw::poison(s.partial_bytes(c.splits)),
            "exchange" => vec![0; (s.exchange_bytes(c) / 4) as usize],
            "w" | "scales" | "x" | "y" | "site" | "sum" => {
                s.first.as_ref().map_or_else(Vec::new, |first| first.draw(name, d))
            }
            "w2" | "out" if c.project.is_some() => {
                s.then.as_ref().map_or_else(Vec::new, |second| second.draw(s.columns(), name, d))
            }
            _ => Draw::poison(s.out.row_bytes(s.heads * s.dim)),
        }
    }

    fn output(s: &Shape, c: &Config, name: &str) -> (Act, Tolerance) {
        if let ("out", Some((second, _))) = (name, s.projects(c)) {
            return second.output(true);
        }
        match name {
            "exchange" => (Act::I32, Tolerance::Ignored),
            "sum" => Tolerance::float(Act::F32, 2e-5),
            // A code of the product's input near an edge moves all of its results.
            "k" | "v" if s.first.is_some() => Tolerance::float(s.kv, 0.05),
            "k" | "v" => Tolerance::float(s.kv, 2e-5),
            // A norm's last bits count by the size of a score, and weights follow scores.
            "partials" => Tolerance::float(Act::F32, 2e-4),
            _ => Tolerance::float(s.out, 2e-4),
        }
    }

    fn followers(s: &Shape, c: &Config) -> Vec<Workload> {
        // Floats that stay in a workgroup are f32.
        let inside = s.then.is_some() && s.out != Act::I8;
        let out = if inside { Act::F32 } else { s.out };
        let merge = attention_merge::Shape { heads: s.heads, dim: s.dim, splits: c.splits, out };
        match &s.then {
            Some(_) if c.project.is_some() => Vec::new(),
            Some(second) => {
                vec![Workload::MergeGemv(merge_gemv::Shape { merge, second: second.clone() })]
            }
            None if c.splits > 1 => vec![Workload::AttentionMerge(merge)],
            None => Vec::new(),
        }
    }

    fn cost(s: &Shape, c: &Config, _: u32, position: u32) -> Cost {
        let Range { start, end } = key_range(position as usize + 1, s.window, 1, 0);
        let keys = (end - start) as u64;
        let cached = keys - u64::from(s.append);
        let row = u64::from(s.kv_heads * s.dim) * if s.kv == Act::F16 { 2 } else { 4 };
        let (norms, appended) = if s.append { (2, 2 * row) } else { (1, 0) };
        // Two entries of (cos, sin) give the angle of a pair.
        let angles = 16 * u64::from(s.rotary);
        let all = s.slots() * s.dim;
        let (out, projected, products) = match s.projects(c) {
            Some((second, _)) => {
                let read = second.weight_bytes(s.columns()) + second.sum_bytes();
                (second.sum_bytes(), read, u64::from(second.rows) * u64::from(s.columns()))
            }
            None if s.parts(c) => (s.partial_bytes(c.splits), 0, 0),
            None => (s.out.row_bytes(s.heads * s.dim), 0, 0),
        };
        let (qkv, stream, firsts) = match &s.first {
            Some(first) => {
                let cost = first.cost(1);
                // The results stay where they are.
                (cost.read_bytes, cost.written_bytes - first.out.row_bytes(first.rows), cost.ops)
            }
            None => (s.qkv.row_bytes(all), 0, 0),
        };
        let of_inputs = qkv + norms * Act::F32.row_bytes(s.dim) + angles;
        Cost {
            read_bytes: of_inputs + 2 * cached * row + projected,
            written_bytes: out + appended + stream,
            // Norms and rotation, scores, the sum of values, and the products.
            ops: 10 * u64::from(all) + 4 * keys * u64::from(s.heads * s.dim) + 2 * products + firsts,
            kind: Arithmetic::F32,
        }
    }
}

/// A configuration that exchanges rows, the first that runs: one must be tuned to be worth it.
fn exchanging(s: &Shape, caps: &Caps) -> Config {
    let sg = if caps.subgroups { caps.subgroup_min } else { 1 };
    let make = |wg: u32, splits: u32, split: u32, sg: u32| {
        let (lanes, project) = ((s.dim / 4).clamp(1, 16), Some(split));
        let keys = (2 * wg / lanes).max(wg / (s.dim / 4).max(1));
        Config { wg, heads: 1, splits, keys, lanes, values_ahead: false, sg, f16: false, project }
    };
    let all = [256, 128, 64, 512].into_iter().flat_map(|wg| {
        let splits = [16, 8, 4, 2].into_iter();
        splits.flat_map(move |splits| [8, 4, 2, 1].into_iter().map(move |split| (wg, splits, split)))
    });
    let mut all = all.flat_map(|(wg, splits, split)| [sg, 1].map(|sg| make(wg, splits, split, sg)));
    all.find(|c| DecodeAttention::why_not(s, c, caps).is_none()).unwrap_or_else(|| make(256, 16, 8, 1))
}
