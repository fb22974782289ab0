//! Two products for one token in one dispatch, the results of the first being the input of the
//! second: the feed-forward block, or the per-layer gate and its projection.
//!
//! A workgroup computes some results of the first product as [`super::gemv`] does, norms included,
//! and keeps them as codes, or without static grids as digits; then it multiplies the columns of the
//! second matrix that meet them, all rows of it, and adds what comes out to sums that all workgroups
//! share ([`super::slab`]). So the
//! second product needs no dispatch of its own, which on a fast GPU costs more than its weights.

use serde::{Deserialize, Serialize};

use super::{
    gemv::{self, Epilogue},
    group_why_not, norm, shuffle_choices,
    slab::{Second, Share},
};
use crate::{
    Arithmetic, Caps, Cost, Reason,
    check::{Draw, Tolerance},
    io::{self, Io},
    kernel::{Kernel, require},
    types::{Act, GROUP, Scale, scales_behind, stride},
};

/// The family.
#[derive(Clone, Copy, Debug)]
pub struct GemvPair;

/// What it computes: `out += second * first(x)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// The first product, behind norms: of codes, into codes, or with group scales of floats, into floats.
    /// Group scales lie in `w` behind the weights ([`scales_behind`]).
    pub first: gemv::Shape,
    /// The second, with as many columns as the first has results.
    pub second: Second,
}

/// How it is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads of a workgroup; at most the device's invocations. With shuffles any multiple of `sg`.
    pub wg: u32,
    /// Threads that share a row of the first matrix; a power of two.
    pub lanes: u32,
    /// Rows of it a group of lanes computes at once; a multiple of 4 up to 16.
    pub rows: u32,
    /// Pieces of 16 bytes of each four rows of the second matrix that a workgroup takes: its columns
    /// are the results it computes first.
    pub pieces: u32,
    /// Threads that share four rows of the second matrix; a power of two that divides `pieces`.
    pub split: u32,
    /// When the second matrix's weights are loaded.
    pub second: When,
    /// Lanes combined by shuffles; 1 uses no subgroups.
    pub sg: u32,
    /// Sums of the first product come by `subgroupAdd`, as in [`gemv::Config::add`].
    pub add: bool,
}

/// When a thread loads its share of the second matrix. Early loads hide their time behind the first
/// product, and hold registers until the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// With the first matrix's, before anything waits.
    Start,
    /// Behind the norms, whose registers are free then.
    Norms,
    /// Behind the first product.
    Results,
}

/// Numbers that follow from shape and configuration.
struct Layout {
    /// Pieces of 16 bytes in four rows of the first matrix, and those of a lane.
    chunks: u32,
    unroll: u32,
    /// Quads of results of a workgroup, and the rows behind them.
    results: u32,
    rows: u32,
    /// Tiles in which the workgroup's groups compute those rows.
    tiles: u32,
    /// Of them, tiles whose weights are loaded before the norms.
    early: u32,
    /// Lanes that shuffles combine, and partial sums left of a row.
    shuffled: u32,
    parts: u32,
    /// Whole sums of a quad of results are in one thread, which finishes it at once.
    direct: bool,
    share: Share,
}

impl Layout {
    /// Of a configuration without zeros.
    fn of(s: &Shape, c: &Config) -> Self {
        let chunks = stride(s.first.columns) / s.first.format.piece().1;
        let unroll = chunks / c.lanes;
        let results = c.pieces * s.second.fields();
        let rows = results * s.first.rows_per_quad();
        let tiles = rows.div_ceil(c.wg / c.lanes * c.rows);
        let loads = c.rows / 4 * unroll;
        let shuffled = c.lanes.min(c.sg);
        let parts = c.lanes / shuffled;
        let share = Share { wg: c.wg, quads: s.second.quads(), pieces: c.pieces, split: c.split, sg: c.sg };
        Self {
            chunks,
            unroll,
            results,
            rows,
            tiles,
            early: (16 / loads.max(1)).clamp(1, tiles.max(1)),
            shuffled,
            parts,
            direct: parts == 1 && c.rows.is_multiple_of(s.first.rows_per_quad()),
            share,
        }
    }
}

/// Bytes of the first matrix's weights.
fn matrix_bytes(f: &gemv::Shape) -> u64 {
    u64::from(f.padded_rows()) * f.format.row_bytes(f.columns)
}

/// Workgroups: slabs of the second matrix's columns.
fn workgroups(s: &Shape, c: &Config) -> u32 {
    s.second.chunks(s.first.rows) / c.pieces
}

/// Whether the second matrix has columns for few workgroups, as the per-layer pair has.
fn small(s: &Shape) -> bool {
    s.second.chunks(s.first.rows) <= 64
}

impl Kernel for GemvPair {
    const NAME: &'static str = "gemv_pair";
    const TEMPLATE: &'static str = include_str!("../../../templates/gemv_pair.wgsl");
    type Shape = Shape;
    type Config = Config;

    fn bindings(s: &Shape, _: &Config) -> Vec<&'static str> {
        // Eight at most, hence the scales of the first matrix are in `site` or in `w`.
        let mut names = s.first.bindings();
        names.retain(|n| !matches!(*n, "scales" | "out"));
        names.extend(["w2", "out"]);
        names
    }

    fn candidates(s: &Shape, caps: &Caps) -> Vec<Config> {
        let mut all = Vec::new();
        // Shuffles where there are any: on an H100 all winners had them, and the space is large.
        let sg = shuffle_choices(caps).into_iter().max().unwrap_or(1);
        let sums = [(sg, false), (sg, true)];
        for wg in [128, 256, 384, 512, 768, 1024] {
            for lanes in [4, 8, 16, 32, 64, 128] {
                for rows in [4, 8, 16] {
                    for pieces in [1, 2, 3, 4, 6, 8, 12, 16] {
                        for split in [1, 2, 4, 8, 16] {
                            for second in [When::Start, When::Norms, When::Results] {
                                for (sg, add) in sums {
                                    all.push(Config { wg, lanes, rows, pieces, split, second, sg, add });
                                }
                            }
                        }
                    }
                }
            }
        }
        // Fewer workgroups leave most of a GPU idle, more make the norms and the atomics dear. A small first
        // product has no rows for all the threads that its norms are fast with.
        let most = s.second.chunks(s.first.rows);
        let idle = if small(s) { 4 } else { 2 };
        all.retain(|c| {
            let fits = || {
                (32..=512).contains(&workgroups(s, c))
                    && Layout::of(s, c).rows * idle >= c.wg / c.lanes * c.rows
            };
            Self::why_not(s, c, caps).is_none() && (most < 32 || fits())
        });
        all
    }

    fn promising(s: &Shape, c: &Config) -> bool {
        // Neighbouring threads read neighbouring pieces, at least a sector of memory together.
        let close = c.split >= c.pieces.min(2);
        // No thread is without rows, where there are enough.
        let busy = small(s) || Layout::of(s, c).rows.is_multiple_of(c.wg / c.lanes * c.rows);
        close && busy && c.sg > 1 && c.wg >= 256 && c.lanes * 2 >= c.sg
    }

    fn generic(s: &Shape, caps: &Caps) -> Config {
        let chunks = stride(s.first.columns) / s.first.format.piece().1;
        let sg = if caps.subgroups { caps.subgroup_min } else { 1 };
        let most = s.second.chunks(s.first.rows);
        // About a hundred workgroups.
        let widths = [1, 2, 3, 4, 6, 8, 12, 16, 24];
        let widths = widths.into_iter().filter(|p| most.is_multiple_of(*p));
        let pieces = widths.clone().find(|p| most / p <= 128).or(widths.clone().max()).unwrap_or(1);
        // A power of two that divides the pieces of a row.
        let widest = chunks & chunks.wrapping_neg();
        let make = |wg: u32, lanes: u32, second: When| {
            let wg = wg.min(caps.max_invocations);
            let sg = if wg.is_multiple_of(sg) { sg } else { 1 };
            // Neighbouring threads read neighbouring pieces, if shuffles can add up what they make of them.
            let split = if sg > 1 { (pieces & pieces.wrapping_neg()).min(8) } else { 1 };
            Config { wg, lanes: lanes.min(widest), rows: 4, pieces, split, second, sg, add: false }
        };
        let early = [make(256, 32, When::Start), make(256, 32, When::Norms)];
        let late = [32, 16, 64].map(|lanes| make(256, lanes, When::Results));
        // The narrowest slabs take the least memory.
        let narrow =
            |lanes: u32, pieces: u32| Config { sg: 1, pieces, split: 1, ..make(256, lanes, When::Results) };
        let narrow_ones = widths.flat_map(|pieces| [16, 32, 64].map(|lanes| narrow(lanes, pieces)));
        let all = early.into_iter().chain(late).chain(narrow_ones);
        all.into_iter().find(|c| Self::why_not(s, c, caps).is_none()).unwrap_or(narrow(16, 1))
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        let f = &s.first;
        let act = if s.second.floats() { Act::F32 } else { Act::I8 };
        require!(
            f.x == act && f.out == act && f.scale == s.second.scale && f.norm.is_some(),
            "the first of two products takes codes from norms and makes codes, or both are of floats"
        );
        require!(f.format.is_int(), "the first of two products needs integer weights, not {:?}", f.format);
        require!(
            f.first == 0
                && f.total == f.rows
                && f.tops == 0
                && !matches!(f.epilogue, Epilogue::Softcap | Epilogue::Residual),
            "the first of two products is a whole one"
        );
        if let Some(reason) = f.why_not(caps).or_else(|| s.second.why_not(f.rows, caps)) {
            return Some(reason);
        }
        require!(
            c.lanes.is_power_of_two() && c.lanes <= c.wg && c.wg.is_multiple_of(c.lanes),
            "{} lanes do not divide a workgroup of {}",
            c.lanes,
            c.wg
        );
        require!(matches!(c.rows, 4 | 8 | 16), "{} rows a thread are not supported: 4, 8 or 16", c.rows);
        require!(c.pieces > 0 && c.split > 0, "a workgroup without columns");
        let most = s.second.chunks(f.rows);
        require!(
            most.is_multiple_of(c.pieces),
            "{} pieces do not share out the {most} of a row of the second matrix",
            c.pieces
        );
        require!(
            (most / c.pieces).is_multiple_of(s.second.banks),
            "{} workgroups do not share {} banks of sums",
            most / c.pieces,
            s.second.banks
        );
        require!(
            most / c.pieces <= caps.max_groups,
            "{} workgroups exceed the device's grid",
            most / c.pieces
        );
        require!(c.sg > 0 && c.sg.is_power_of_two(), "{} shuffled lanes are no power of two", c.sg);
        let l = Layout::of(s, c);
        require!(
            l.chunks.is_multiple_of(c.lanes),
            "{} lanes do not share the {} pieces of a row",
            c.lanes,
            l.chunks
        );
        let loads = c.rows / 4 * l.unroll;
        require!(loads <= 16, "{loads} pieces of weights a thread would not stay in registers (at most 16)");
        require!(
            l.rows.is_multiple_of(c.rows),
            "a workgroup's {} rows are no multiple of {}",
            l.rows,
            c.rows
        );
        require!(l.tiles <= 8, "{} tiles of rows a workgroup are too many (at most 8)", l.tiles);
        require!(
            l.results <= c.wg,
            "a workgroup's {} quads of results are more than it has threads",
            l.results
        );
        require!(
            !c.add
                || c.sg > 1
                    && c.lanes.is_multiple_of(c.sg)
                    && caps.subgroup_min == caps.subgroup_max
                    && c.sg == caps.subgroup_max,
            "subgroupAdd needs subgroups of one known size, whole on a row"
        );
        if let Some(reason) =
            l.share.why_not().or_else(|| s.second.overflows(l.share.additions(most / c.pieces)))
        {
            return Some(reason);
        }
        require!(
            f.norm.as_ref().is_none_or(|n| norm::per_thread(n, c.wg) <= 16),
            "a row of {} would not stay in the registers of {} threads",
            f.columns,
            c.wg
        );
        let bytes = scales_behind(matrix_bytes(f)) + f.weight_bytes() - matrix_bytes(f);
        require!(
            !s.second.floats() || bytes <= caps.max_binding_bytes,
            "{bytes} bytes of weights and scales are over the binding limit of {}",
            caps.max_binding_bytes
        );
        let norm = f.norm.as_ref().map_or(0, |n| norm::row_bytes(n, c.wg, c.sg));
        let sums = if l.direct { 0 } else { l.rows * l.parts };
        let pieces = if s.second.floats() { gemv::piece_bytes(f, c.sg) } else { 0 };
        let input = s.second.input_bytes(stride(f.columns) / 4) + s.second.input_bytes(l.results) + pieces;
        let bytes = norm + input + 4 * u64::from(sums) + l.share.bytes();
        group_why_not(c.wg, c.sg, bytes, caps)
    }

    fn groups(s: &Shape, c: &Config, _: u32) -> [u32; 3] {
        [workgroups(s, c), 1, 1]
    }

    fn derived(s: &Shape, c: &Config) -> Vec<(&'static str, u32)> {
        let l = Layout::of(s, c);
        let mut d = l.share.derived(&s.second, s.first.rows).to_vec();
        d.extend([
            ("banks", s.first.norm.as_ref().map_or(1, |n| n.banks)),
            ("bank_slabs", workgroups(s, c) / s.second.banks),
            ("out_stride", stride(s.second.rows)),
        ]);
        d.extend([
            ("per_thread", s.first.norm.as_ref().map_or(0, |n| norm::per_thread(n, c.wg))),
            ("x_quads", stride(s.first.columns) / 4),
            ("fields", s.first.format.quads_per_word()),
            ("shift", s.first.format.field_shift()),
            ("factor", 1 << s.first.format.field_shift()),
            ("groups", stride(s.first.columns) / GROUP),
            ("scales", io::word((scales_behind(matrix_bytes(&s.first)) / 16) as usize)),
            ("chunks", l.chunks),
            ("unroll", l.unroll),
            ("padded_rows", s.first.padded_rows()),
            ("results", s.first.rows.div_ceil(4)),
            ("slab_results", l.results),
            ("slab_rows", l.rows),
            ("tiles", l.tiles),
            ("early", l.early),
            ("shuffled", l.shuffled),
            ("parts", l.parts),
            ("direct", u32::from(l.direct)),
            ("quads_per", c.rows / s.first.rows_per_quad()),
            ("slab_chunks", s.second.chunks(s.first.rows)),
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
        io.tokens = 1;
        if s.second.floats() {
            let results = s.first.results(io, ("w", (scales_behind(matrix_bytes(&s.first)) / 4) as usize));
            return s.second.reference_floats(&results[..s.first.rows as usize], io);
        }
        let results = s.first.results(io, ("site", s.first.site_scales()));
        let grid = s.first.grid(4, io);
        let codes: Vec<i8> =
            results[..s.first.rows as usize].iter().map(|v| io::quantize(*v, grid)).collect();
        s.second.reference(&codes, io);
    }

    fn written(s: &Shape, _: &Config) -> Vec<&'static str> {
        if s.first.norm.as_ref().is_some_and(|n| n.residual) { vec!["sum", "out"] } else { vec!["out"] }
    }

    fn draw(s: &Shape, _: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        match name {
            "w2" | "out" => s.second.draw(s.first.rows, name, d),
            "w" if s.second.floats() => {
                let mut words = s.first.draw(name, d);
                words.resize((scales_behind(matrix_bytes(&s.first)) / 4) as usize, 0);
                words.extend(d.scales(s.first.padded_rows(), s.first.columns, s.first.scale));
                words
            }
            "site" if !s.second.floats() => {
                let mut words = s.first.draw(name, d);
                words.resize(s.first.site_scales(), 0);
                words.extend(d.scales(s.first.padded_rows(), s.first.columns, Scale::Row));
                words
            }
            _ => s.first.draw(name, d),
        }
    }

    fn output(s: &Shape, _: &Config, name: &str) -> (Act, Tolerance) {
        if name == "sum" { Tolerance::float(Act::F32, 2e-5) } else { s.second.output(true) }
    }

    fn cost(s: &Shape, _: &Config, _: u32, _: u32) -> Cost {
        let first = s.first.cost(1);
        let sums = s.second.sum_bytes();
        Cost {
            read_bytes: first.read_bytes + s.second.weight_bytes(s.first.rows) + sums,
            // The results stay where they are.
            written_bytes: first.written_bytes - s.first.out.row_bytes(s.first.rows) + sums,
            ops: first.ops + 2 * u64::from(s.second.rows) * u64::from(s.first.rows),
            kind: Arithmetic::Int8,
        }
    }
}
