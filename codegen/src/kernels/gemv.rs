//! `y = W x` for one token, with the epilogues that would otherwise be dispatches of their own.
//!
//! Decode reads every weight once, so this is the kernel that decides its speed. A group of
//! `lanes` threads walks `rows` rows together, pieces of 16 bytes a thread at a time
//! ([`Format::piece`]: columns of one row of floats, or of four rows of integers); neighbouring
//! threads read neighbouring bytes, and `unroll` pieces of each row are on their way before the
//! arithmetic. Integer activations make the sum exact and independent of order. Float activations
//! can be split into int8 digits first, so that integer weights meet integer dot products there
//! too.

use serde::{Deserialize, Serialize};

use super::{
    NO_SUMS, argmax, f16_choices, generic_shuffle, group_why_not, norm, reduce_bytes, shuffle_choices,
};
use crate::{
    Arithmetic, Caps, Cost, Reason, Workload,
    check::{Draw, Inputs, Tolerance},
    io::{self, Io},
    kernel::{Kernel, is_zero, require},
    types::{Act, Format, GROUP, Scale, in_fours, round_up, stride},
};

/// The family.
#[derive(Clone, Copy, Debug)]
pub struct Gemv;

/// What follows the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Epilogue {
    /// `y`.
    Store,
    /// `gelu(gate) * up`. Rows of the matrix alternate: four gates, four ups, four gates, …
    Geglu,
    /// `gelu(y) * aux`: the gate of the per-layer inputs.
    Ple,
    /// `y + aux`.
    Residual,
    /// `c * tanh(y / c)` with `c = softcap`.
    Softcap,
}

/// What a matrix product computes; shared by [`Gemv`] and [`super::gemm::Gemm`].
///
/// `w`: rows of [`Format::row_bytes`], padded to a multiple of four rows (`GeGLU`: eight) with
/// zeros; integer rows lie in fours ([`in_fours`]). `scales`: f32 a row, or f16 a group. `x` and `out`: rows of [`stride`] elements; `aux`:
/// f32 rows of the same stride as `out`. `grids`: f32 `[input, output of segment 0, 1, 2, out]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Results: rows of the matrix, or pairs of rows for `GeGLU`.
    pub rows: u32,
    /// Results of the whole row of `out`, and the place of this matrix's first in it: a matrix
    /// over the binding limit is split by rows, one dispatch a part. A multiple of 4.
    pub total: u32,
    /// See `total`.
    pub first: u32,
    /// Columns of the matrix.
    pub columns: u32,
    /// Storage format of the weights.
    pub format: Format,
    /// Their scales.
    pub scale: Scale,
    /// Element type of the input; codes need integer weights with row scales.
    pub x: Act,
    /// Element type of the result; codes are on the grid `grids[4]`.
    pub out: Act,
    /// Puts the product on its static output grid before the epilogue.
    pub grids: bool,
    /// What follows.
    pub epilogue: Epilogue,
    /// Fused matrices: rows below `split_a` use output grid 0, below `split_b` grid 1, the rest
    /// grid 2. Both 0 when there is one matrix. Multiples of 4.
    pub split_a: u32,
    /// See `split_a`.
    pub split_b: u32,
    /// The `c` of [`Epilogue::Softcap`].
    pub softcap: f64,
    /// Norms that come first, in every workgroup by itself, so that they need no dispatch: `x` is
    /// then the residual stream in f32, and the product's input is what [`norm::Norm`] of this
    /// shape would put out. Only for one token. In place of its vectors and of `grids` there is one
    /// binding, `site`: f32 rows of [`stride`]`(columns)` with `post` and `pre`, then 64 elements
    /// that begin with `scalar`, then 64 that begin with `grids`. The first workgroup stores `sum`.
    /// Where `y` are sums of codes ([`Act::I32`]), a row of their scales follows, and their grid
    /// stands behind `scalar`. [`super::gemv_pair`] has the scales of its own rows behind that row.
    pub norm: Option<norm::Shape>,
    /// Leaves the largest of so many results in a row, those of a workgroup, in `tops` (f32) as well: a
    /// greedy choice reads these instead of all results. 0: it does not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tops: u32,
}

/// How it is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads of a workgroup; at most the device's invocations.
    pub wg: u32,
    /// Threads that share a row; a power of two that divides `wg`.
    pub lanes: u32,
    /// Rows a group of lanes computes at once: each needs an accumulator in registers, so at most
    /// 8 of floats and 16 of integers, whose rows come in fours.
    pub rows: u32,
    /// Pieces of 16 bytes of each row (of integers: of each four) a lane loads before it computes
    /// with any; all of them stay in registers, so at most 16.
    pub unroll: u32,
    /// Tiles of rows a workgroup computes one after the other, so that what precedes the first of
    /// them is done less often; at most 64.
    pub tiles: u32,
    /// A workgroup reads `x` once into its memory instead of each group of lanes from the cache.
    pub shared: bool,
    /// int8 digits that a float activation is split into (2: 15 bits, 3: 23 bits of the largest
    /// magnitude), so that products with integer weights are integer dot products; 1: products are
    /// float. Only for float activations on integer weights. What counts as the largest is that of the
    /// vector or, with group scales, of the columns of a piece. The digits are kept in workgroup
    /// memory (but see `own`), so `x` is not as well.
    pub digits: u32,
    /// Each lane splits the part of `x` that it needs by itself, in registers, and nobody waits for
    /// others: where several groups of lanes share a row of `x`, each does it again. Only for digits
    /// with group scales and without norms.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// Lanes combined by shuffles; 1 uses no subgroups.
    pub sg: u32,
    /// Sums come by `subgroupAdd`, one instruction for integers on some GPUs. Only where `sg`
    /// lanes are a whole subgroup, whatever size the device chooses, and share their rows.
    #[serde(default)]
    pub add: bool,
    /// Reads and writes f16 by WGSL's type instead of packed words.
    pub f16: bool,
}

impl Shape {
    /// Rows stored: padded so that a quad of results never straddles the end.
    pub fn padded_rows(&self) -> u32 {
        round_up(self.rows, 4) * if self.epilogue == Epilogue::Geglu { 2 } else { 1 }
    }

    /// Bytes of weights and scales one product reads.
    pub fn weight_bytes(&self) -> u64 {
        u64::from(self.padded_rows())
            * (self.format.row_bytes(self.columns) + self.scale.row_bytes(self.columns))
    }

    /// Matrix rows behind one stored quad of results.
    pub(crate) fn rows_per_quad(&self) -> u32 {
        if self.epilogue == Epilogue::Geglu { 8 } else { 4 }
    }

    /// Whether the binding `grids` exists.
    pub fn has_grids(&self) -> bool {
        self.grids || self.x.is_int() || self.out.is_int()
    }

    /// Where `site` has the scales of this matrix's rows for those who read them there.
    pub(crate) fn site_scales(&self) -> usize {
        3 * stride(self.columns) as usize + 128
    }

    /// Whether the residual adds sums of codes.
    fn adds_sums(&self) -> bool {
        self.norm.as_ref().is_some_and(|n| n.residual && n.y == Act::I32)
    }

    pub(crate) fn has_aux(&self) -> bool {
        matches!(self.epilogue, Epilogue::Ple | Epilogue::Residual)
    }

    pub(crate) fn bindings(&self) -> Vec<&'static str> {
        let mut names = vec!["w"];
        if self.scale != Scale::None {
            names.push("scales");
        }
        names.push("x");
        if let Some(n) = &self.norm {
            names.extend(n.residual.then_some("y"));
            names.push("site");
            names.extend(n.residual.then_some("sum"));
        } else if self.has_grids() {
            names.push("grids");
        }
        if self.has_aux() {
            names.push("aux");
        }
        names.push("out");
        if self.tops > 0 {
            names.push("tops");
        }
        names
    }

    pub(crate) fn why_not(&self, caps: &Caps) -> Option<Reason> {
        require!(self.rows > 0 && self.columns > 0, "the matrix is empty");
        require!(!self.x.is_sum() && !self.out.is_sum(), "{NO_SUMS}");
        require!(
            self.format.is_int() != (self.scale == Scale::None),
            "{:?} with {:?} scales",
            self.format,
            self.scale
        );
        require!(!matches!(self.scale, Scale::Parts(_)), "only tables have scales by parts");
        require!(
            !self.x.is_int() || self.scale == Scale::Row,
            "integer activations need integer weights with row scales"
        );
        // |x| <= 128, |field| <= 128 as shifted: the sum stays below 2^31 up to 2^17 columns.
        require!(
            self.columns <= 1 << 16,
            "{} columns could overflow the 32-bit sum (at most 65536)",
            self.columns
        );
        if let Some(n) = &self.norm {
            require!(
                n.width == self.columns && n.out == Some(self.x) && self.x != Act::F16,
                "the norms put out {:?} rows of {} for a product of {:?} rows of {}",
                n.out,
                n.width,
                self.x,
                self.columns
            );
            require!(n.residual || !n.scaled, "only a residual sum can be scaled");
            require!(n.banks == 1 || n.y == Act::I32, "only sums of codes lie in banks");
            require!((1..=64).contains(&n.banks), "sums in {} banks are not supported: 1 to 64", n.banks);
        }
        let floats = self.out == Act::F32 && self.epilogue != Epilogue::Geglu;
        require!(
            self.tops == 0 || floats && self.total == self.rows,
            "the largest results are of whole rows of f32"
        );
        require!(
            self.first.is_multiple_of(4)
                && u64::from(self.first) + u64::from(self.rows) <= u64::from(self.total),
            "rows {} to {} do not lie in {}",
            self.first,
            self.first + self.rows,
            self.total
        );
        require!(
            self.split_a.is_multiple_of(4) && self.split_b.is_multiple_of(4),
            "fused matrices must start at a multiple of four rows"
        );
        let bytes = u64::from(self.padded_rows()) * self.format.row_bytes(self.columns);
        require!(
            bytes <= caps.max_binding_bytes,
            "{bytes} bytes of weights are over the binding limit of {}",
            caps.max_binding_bytes
        );
        None
    }

    pub(crate) fn common_derived(&self) -> Vec<(&'static str, u32)> {
        vec![
            ("padded_rows", self.padded_rows()),
            ("out_quads", round_up(self.rows, 4) / 4),
            ("out_stride4", stride(self.total) / 4),
            ("first4", self.first / 4),
            ("groups", stride(self.columns) / GROUP),
            ("shift", self.format.field_shift()),
            ("factor", 1 << self.format.field_shift()),
            ("has_grids", u32::from(self.has_grids())),
        ]
    }

    /// The CPU version, for any number of tokens.
    pub(crate) fn reference(&self, io: &mut Io<'_>) {
        let (n, out_row) = (round_up(self.rows, 4) as usize, stride(self.total) as usize);
        let finished = self.results(io, ("scales", 0));
        let out_grid = if self.out.is_int() { self.grid(4, io) } else { 1.0 };
        for t in 0..io.tokens {
            io.store("out", self.out, t * out_row + self.first as usize, &finished[t * n..][..n], out_grid);
        }
    }

    /// Grid `i` of the row of grids; 0 where there are none.
    pub(crate) fn grid(&self, i: usize, io: &Io<'_>) -> f32 {
        match self.norm {
            _ if !self.has_grids() => 0.0,
            Some(_) => io.f32("site", 2 * stride(self.columns) as usize + 64 + i),
            None => io.f32("grids", i),
        }
    }

    /// What [`Self::reference`] stores, for each token as many as there are rows, in fours. `scales`:
    /// the binding that has them, and the first one's place in it.
    pub(crate) fn results(&self, io: &mut Io<'_>, scales: (&'static str, usize)) -> Vec<f32> {
        let (k, x_row, out_row) =
            (self.columns as usize, stride(self.columns) as usize, stride(self.total) as usize);
        let words = (self.format.row_bytes(self.columns) / 4) as usize;
        let fours = in_fours(self.format, self.scale);
        let tokens = io.tokens;
        let x_words = match &self.norm {
            Some(n) => norm::prologue(n, io),
            None => io.words("x").to_vec(),
        };
        let io = &*io;
        let (name, at) = scales;
        let scales = if self.scale == Scale::None { &[][..] } else { &io.words(name)[at..] };
        let grid = |i: usize| self.grid(i, io);
        // Products first, row by row, so that a row is unpacked once for all tokens.
        let mut y = vec![0.0f32; tokens * self.padded_rows() as usize];
        let per_token = self.padded_rows() as usize;
        if self.x.is_int() {
            let x: Vec<i32> = (0..tokens * x_row).map(|i| i32::from(io::code(&x_words, i))).collect();
            for r in 0..per_token {
                let w = io::row_words(io.words("w"), words, r, fours);
                let w: Vec<i32> = (0..k).map(|c| io::field(&w, self.format, c)).collect();
                let scale = grid(0) * f32::from_bits(scales[r]);
                for t in 0..tokens {
                    let sum: i32 = x[t * x_row..].iter().zip(&w).map(|(a, b)| a * b).sum();
                    y[t * per_token + r] = sum as f32 * scale;
                }
            }
        } else {
            let x: Vec<f32> = (0..tokens * x_row).map(|i| io::load(&x_words, self.x, i, 1.0)).collect();
            for r in 0..per_token {
                let w = io::weight_row(io.words("w"), scales, self.format, self.scale, r, k, fours);
                for t in 0..tokens {
                    y[t * per_token + r] = io::dot(&x[t * x_row..][..k], &w);
                }
            }
        }
        let on_grid = |row: usize, v: f32| {
            let row = row + self.first as usize;
            let segment = match row {
                _ if self.split_a == 0 || row < self.split_a as usize => 1,
                _ if row < self.split_b as usize => 2,
                _ => 3,
            };
            if self.grids { io::srq(v, grid(segment)) } else { v }
        };
        let n = round_up(self.rows, 4) as usize;
        let mut finished = vec![0.0f32; tokens * n];
        for t in 0..tokens {
            let y = &y[t * per_token..][..per_token];
            for i in 0..n {
                finished[t * n + i] = match self.epilogue {
                    Epilogue::Store => on_grid(i, y[i]),
                    Epilogue::Geglu => {
                        let at = i / 4 * 8 + i % 4;
                        let (gate, up) = if self.grids {
                            (io::srq(y[at], grid(1)), io::srq(y[at + 4], grid(2)))
                        } else {
                            (y[at], y[at + 4])
                        };
                        io::gelu(gate) * up
                    }
                    Epilogue::Ple => {
                        io::gelu(on_grid(i, y[i])) * io.f32("aux", t * out_row + self.first as usize + i)
                    }
                    Epilogue::Residual => {
                        on_grid(i, y[i]) + io.f32("aux", t * out_row + self.first as usize + i)
                    }
                    Epilogue::Softcap => {
                        let c = io::narrow(self.softcap);
                        c * (on_grid(i, y[i]) / c).tanh()
                    }
                };
            }
        }
        finished
    }
}

/// Whether float activations could be split into digits.
fn splittable(s: &Shape) -> bool {
    s.format.is_int() && !s.x.is_int()
}

fn tile(c: &Config) -> u32 {
    c.wg / c.lanes * c.rows
}

/// Blocks of `unroll` pieces in which every lane has work.
fn blocks(s: &Shape, c: &Config) -> u32 {
    chunks(s) / c.lanes / c.unroll
}

/// Pieces of 16 bytes in a row, or in four rows of integers.
fn chunks(s: &Shape) -> u32 {
    stride(s.columns) / s.format.piece().1
}

/// Pieces a lane has on their way at once.
fn loads(s: &Shape, c: &Config) -> u32 {
    c.rows / s.format.piece().0 * c.unroll
}

/// Whether digits have a unit for each piece: where group scales are met piece by piece.
fn pieced(s: &Shape, c: &Config) -> bool {
    c.digits > 1 && s.scale == Scale::Group
}

/// Bytes of workgroup memory in which threads find the largest of a piece, where no shuffles do.
pub(crate) fn piece_bytes(s: &Shape, sg: u32) -> u64 {
    let quads = s.format.quads_per_word();
    if s.norm.is_some() && quads > 1 && sg < quads { u64::from(stride(s.columns)) } else { 0 }
}

/// Whether products are of int8 words, of codes or of digits.
fn integer(s: &Shape, c: &Config) -> bool {
    s.x.is_int() || c.digits > 1
}

/// Whether the sums of two digits can be one integer: no partial sum of any order reaches 2^31.
/// A weight is at most `2^(bits - 1)`, both digits together less than 2^15.
fn whole(s: &Shape, c: &Config) -> bool {
    c.digits == 2 && s.scale == Scale::Row && s.columns < 1 << (17 - s.format.bits())
}

/// Whether a lane's part of `x` is the same for all tiles and small enough for registers.
fn held(s: &Shape, c: &Config) -> bool {
    let words = s.format.piece().1 / 4 * c.unroll * c.digits;
    c.tiles > 1 && integer(s, c) && blocks(s, c) == 1 && !rest(s, c) && words <= 32
}

/// Whether pieces are left that fill no block.
fn rest(s: &Shape, c: &Config) -> bool {
    blocks(s, c) * c.unroll * c.lanes < chunks(s)
}

/// Shuffles give each lane whole sums of whole quads, which it can finish by itself.
fn direct(s: &Shape, c: &Config) -> bool {
    shuffled(c) == c.lanes && c.rows.is_multiple_of(s.rows_per_quad())
}

/// Of how many results a model's head leaves the largest: few enough for many workgroups, and for one to
/// search what they leave.
pub const TOPS: u32 = 512;

/// Results of a workgroup, in a row.
fn slice(s: &Shape, c: &Config) -> u32 {
    tile(c) * c.tiles * 4 / s.rows_per_quad()
}

/// Workgroups of a product.
fn workgroups(s: &Shape, c: &Config) -> u32 {
    s.padded_rows().div_ceil(tile(c) * c.tiles)
}

/// Bytes of workgroup memory: partial sums, and `x` where it is kept there.
fn workgroup_bytes(s: &Shape, c: &Config) -> u64 {
    let sums = if direct(s, c) { 0 } else { u64::from(tile(c) * (c.lanes / shuffled(c))) * 4 };
    let columns = u64::from(stride(s.columns));
    let norm = s.norm.as_ref().map_or(0, |n| norm::row_bytes(n, c.wg, c.sg));
    let tops = if s.tops > 0 { reduce_bytes(c.wg, c.sg) } else { 0 };
    norm + sums
        + tops
        + match (c.digits, c.shared, s.x.is_int()) {
            (1, false, _) => 0,
            (1, true, true) => columns,
            (1, true, false) => columns * 4,
            _ if c.own => 0,
            (digits, ..) if s.scale == Scale::Group => {
                columns * u64::from(digits) + 4 * u64::from(chunks(s)) + piece_bytes(s, c.sg)
            }
            // Digits, and the search for the largest.
            (digits, ..) => columns * u64::from(digits) + reduce_bytes(c.wg, c.sg),
        }
}

/// Lanes of a row that shuffles combine.
fn shuffled(c: &Config) -> u32 {
    c.lanes.min(c.sg)
}

impl Kernel for Gemv {
    const NAME: &'static str = "gemv";
    const TEMPLATE: &'static str = include_str!("../../../templates/gemv.wgsl");
    type Shape = Shape;
    type Config = Config;

    fn bindings(s: &Shape, _: &Config) -> Vec<&'static str> {
        s.bindings()
    }

    fn candidates(s: &Shape, caps: &Caps) -> Vec<Config> {
        // Without f16 vectors there is nothing to read as f16.
        let f16s = if s.x == Act::F16 || s.out == Act::F16 { f16_choices(caps) } else { vec![false] };
        let digits: &[u32] = if splittable(s) { &[1, 2, 3] } else { &[1] };
        let mut all = Vec::new();
        let rows: &[u32] = if s.format.is_int() { &[4, 8, 16] } else { &[1, 2, 4, 8] };
        let sums: Vec<(u32, bool)> =
            shuffle_choices(caps).into_iter().flat_map(|sg| [(sg, false), (sg, true)]).collect();
        // A row of 1536 is 384 quads: norms leave no thread of such a workgroup idle, and a larger one has fewer
        // norms to make.
        let wgs: &[u32] =
            if s.norm.is_some() { &[32, 64, 128, 256, 384, 512, 768] } else { &[32, 64, 128, 256, 512] };
        for &wg in wgs {
            for lanes in [1, 4, 8, 16, 32, 64, 128, 256] {
                for &rows in rows {
                    for unroll in [1, 2, 3, 4, 6, 8] {
                        for tiles in [1, 2, 4, 8, 16, 32] {
                            for &digits in digits {
                                let shared: &[bool] = match (digits, s.norm.is_some()) {
                                    (1, true) => &[true],
                                    (1, false) => &[false, true],
                                    _ => &[false],
                                };
                                for &shared in shared {
                                    let owns: &[bool] =
                                        if digits > 1 && s.scale == Scale::Group && s.norm.is_none() {
                                            &[false, true]
                                        } else {
                                            &[false]
                                        };
                                    for (own, (sg, add)) in
                                        owns.iter().flat_map(|own| sums.iter().map(|sum| (*own, *sum)))
                                    {
                                        for &f16 in &f16s {
                                            all.push(Config {
                                                wg,
                                                lanes,
                                                rows,
                                                unroll,
                                                tiles,
                                                shared,
                                                digits,
                                                own,
                                                sg,
                                                add,
                                                f16,
                                            });
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        // A block larger than the row has no work, and one that leaves a rest is mostly that rest.
        all.retain(|c| {
            if c.lanes > c.wg {
                return false;
            }
            let rounds = chunks(s) / c.lanes;
            (c.unroll == 1 || rounds.is_multiple_of(c.unroll) && rounds > 0)
                && (c.sg == 1 || c.lanes > 1 || c.digits > 1)
                // Several tiles pay where something precedes them, or where workgroups are many.
                && (c.tiles == 1 || workgroups(s, c) >= 512 || s.tops > 0)
                && Self::why_not(s, c, caps).is_none()
        });
        all
    }

    fn generic(s: &Shape, caps: &Caps) -> Config {
        let chunks = chunks(s);
        // A subgroup on a row where the row is long enough to feed it; otherwise fewer lanes.
        let want = if caps.subgroups { caps.subgroup_min } else { 32 };
        let lanes = want.min(chunks.next_power_of_two()).max(1);
        let wg = 128.max(lanes).min(caps.max_invocations);
        let rows = s.rows_per_quad().div_ceil(wg / lanes).max(if s.rows >= 1 << 13 { 4 } else { 2 });
        // Digits are left to the tuner: where dot4I8Packed is emulated (Apple, older Adreno) they lose.
        let c = Config {
            wg,
            lanes,
            rows: rows.next_power_of_two().clamp(s.format.piece().0, 8),
            unroll: 1,
            tiles: 1,
            shared: s.norm.is_some(),
            digits: 1,
            own: false,
            sg: generic_shuffle(caps, wg),
            add: false,
            f16: caps.f16,
        };
        // As many tiles as the largest is wanted of.
        let fit = |c: Config| if s.tops > 0 { Config { tiles: s.tops / tile(&c).max(1), ..c } } else { c };
        let c = fit(c);
        if Self::why_not(s, &c, caps).is_none() {
            return c;
        }
        fit(Config {
            wg: 64.min(caps.max_invocations),
            lanes: 8,
            rows: s.format.piece().0,
            unroll: 1,
            tiles: 1,
            shared: s.norm.is_some(),
            digits: 1,
            own: false,
            sg: 1,
            add: false,
            f16: false,
        })
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        require!(
            c.lanes.is_power_of_two() && c.lanes <= c.wg && c.wg.is_multiple_of(c.lanes),
            "{} lanes do not divide a workgroup of {}",
            c.lanes,
            c.wg
        );
        let (most, four) = if s.format.is_int() { (16, 4) } else { (8, 1) };
        require!(
            (1..=most).contains(&c.rows) && c.rows.is_multiple_of(four),
            "{} rows a thread are not supported: up to {most}, in {four}s",
            c.rows
        );
        require!((1..=64).contains(&c.tiles), "{} tiles a workgroup are not supported: 1 to 64", c.tiles);
        require!(
            tile(c).is_multiple_of(s.rows_per_quad()),
            "a workgroup's {} rows are not a multiple of {}",
            tile(c),
            s.rows_per_quad()
        );
        require!(
            (1..=16).contains(&c.unroll) && loads(s, c) <= 16,
            "{} pieces of weights a thread would not stay in registers (at most 16)",
            loads(s, c)
        );
        require!(
            (1..=3).contains(&c.digits),
            "{} digits are not supported: 1 (float products), 2 or 3",
            c.digits
        );
        require!(
            c.digits == 1 || splittable(s) && !c.shared,
            "digits are for float activations on integer weights, and take the place of `x` in workgroup memory"
        );
        require!(
            !c.own || pieced(s, c) && s.norm.is_none(),
            "a lane has digits of its own with group scales and without norms only"
        );
        require!(
            direct(s, c) || tile(c) / s.rows_per_quad() <= c.wg,
            "a workgroup's {} rows are more quads than it has threads",
            tile(c)
        );
        require!(
            c.lanes <= chunks(s).next_power_of_two(),
            "{} lanes share a row of {} pieces",
            c.lanes,
            chunks(s)
        );
        require!(
            !c.add || c.sg > 1 && c.lanes.is_multiple_of(c.sg) && caps.subgroup_min == caps.subgroup_max,
            "subgroupAdd needs subgroups of one known size, whole on a row"
        );
        require!(
            !c.add || c.sg == caps.subgroup_max,
            "subgroupAdd adds {} lanes, not {}",
            caps.subgroup_max,
            c.sg
        );
        require!(
            s.norm.is_none() || c.shared || c.digits > 1,
            "what the norms put out is kept in workgroup memory"
        );
        require!(
            s.norm.as_ref().is_none_or(|n| norm::per_thread(n, c.wg) <= 16),
            "a row of {} would not stay in the registers of {} threads",
            s.columns,
            c.wg
        );
        require!(
            s.tops == 0 || slice(s, c) == s.tops,
            "the {} results of a workgroup are not the {} that one is the largest of",
            slice(s, c),
            s.tops
        );
        let groups = workgroups(s, c);
        require!(
            groups.div_ceil(caps.max_groups) <= caps.max_groups,
            "{groups} workgroups exceed the device's grid"
        );
        s.why_not(caps).or_else(|| group_why_not(c.wg, c.sg, workgroup_bytes(s, c), caps))
    }

    fn promising(s: &Shape, c: &Config) -> bool {
        // A lane's whole share of a row in one go: who waits for the call before waits for memory once.
        c.lanes * c.unroll == chunks(s)
            && c.sg > 1
            && !c.f16
            && (128..=768).contains(&c.wg)
            && loads(s, c) <= 8
            && c.rows <= 8
            && matches!(c.tiles, 1 | 8)
            && if splittable(s) { c.digits == 2 } else { c.shared }
    }

    fn groups(s: &Shape, c: &Config, _: u32) -> [u32; 3] {
        let groups = workgroups(s, c);
        let x = grid_x(groups);
        [x, groups.div_ceil(x), 1]
    }

    fn derived(s: &Shape, c: &Config) -> Vec<(&'static str, u32)> {
        let mut d = s.common_derived();
        d.extend([
            ("per_thread", s.norm.as_ref().map_or(0, |n| norm::per_thread(n, c.wg))),
            ("banks", s.norm.as_ref().map_or(1, |n| n.banks)),
            ("chunks", chunks(s)),
            ("blocks", blocks(s, c)),
            ("hoisted", u32::from(blocks(s, c) == 1)),
            ("direct", u32::from(direct(s, c))),
            ("rest", u32::from(rest(s, c))),
            ("held", u32::from(held(s, c))),
            ("whole", u32::from(whole(s, c))),
            ("pieced", u32::from(pieced(s, c))),
            ("own", u32::from(c.own)),
            ("piece_rows", s.format.piece().0),
            ("x_quads", stride(s.columns) / 4),
            // The largest digit is 127 in the first place.
            ("digit_top", if c.digits == 1 { 0 } else { 127 << (8 * (c.digits - 1)) }),
            ("quads", s.format.piece().1 / 4),
            ("parts", c.lanes / shuffled(c)),
            ("shuffled", shuffled(c)),
            ("tile", tile(c)),
            ("rows_per_quad", s.rows_per_quad()),
            ("grid_x", grid_x(workgroups(s, c))),
            ("tops", if s.tops > 0 { s.rows } else { 0 }),
            ("top_groups", workgroups(s, c)),
        ]);
        d
    }

    fn reference(s: &Shape, _: &Config, io: &mut Io<'_>) {
        io.tokens = 1;
        s.reference(io);
        if s.tops > 0 {
            let results: Vec<f32> = (0..s.rows as usize).map(|i| io.f32("out", i)).collect();
            for (i, of) in results.chunks(s.tops as usize).enumerate() {
                let top = of.iter().copied().fold(-3.4e38, f32::max);
                io.words_mut("tops")[i] = top.to_bits();
            }
        }
    }

    fn features(c: &Config) -> (bool, bool) {
        (c.sg > 1, c.f16)
    }

    fn one_token(_: &Shape) -> bool {
        true
    }

    fn written(s: &Shape, _: &Config) -> Vec<&'static str> {
        let mut names = if s.norm.as_ref().is_some_and(|n| n.residual) { vec!["sum"] } else { Vec::new() };
        names.push("out");
        names.extend((s.tops > 0).then_some("tops"));
        names
    }

    fn draw(s: &Shape, _: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        match name {
            "tops" => Draw::poison(u64::from(s.rows.div_ceil(s.tops)) * 4),
            _ => s.draw(name, d),
        }
    }

    fn followers(s: &Shape, _: &Config) -> Vec<Workload> {
        if s.tops == 0 {
            return Vec::new();
        }
        // The ring's slots are a matter of the caller's program; 64 is what the model has.
        vec![Workload::Argmax(argmax::Shape::search(s.rows, s.tops, 64))]
    }

    fn output(s: &Shape, c: &Config, name: &str) -> (Act, Tolerance) {
        if name == "sum" {
            return Tolerance::float(Act::F32, 2e-5);
        }
        match s.output() {
            // 15 bits of the largest activation in place of 24 of each; `aux` may magnify what is
            // cut off.
            (act, Tolerance::Relative(bound)) if c.digits == 2 => {
                // GeGLU multiplies two such sums, and gelu is steeper than its argument.
                let times = if s.epilogue == Epilogue::Geglu { 20.0 } else { 8.0 };
                (act, Tolerance::Relative(bound * times))
            }
            other => other,
        }
    }

    fn cost(s: &Shape, c: &Config, _: u32, _: u32) -> Cost {
        let mut cost = s.cost(1);
        if c.digits > 1 {
            cost.ops *= u64::from(c.digits);
            cost.kind = Arithmetic::Int8;
        }
        cost
    }
}

/// Workgroups along x: every device allows 65535, so more fold into rows of 32768.
fn grid_x(groups: u32) -> u32 {
    if groups <= 65_535 { groups } else { 32_768 }
}

/// What checks and rooflines need to know, the same for any number of tokens.
impl Shape {
    pub(crate) fn draw(&self, name: &str, d: &mut Draw) -> Vec<u32> {
        let pairs = self.epilogue == Epilogue::Geglu;
        // Sums of floats must stay within f16, and GeGLU multiplies two of them.
        let exact = self.norm.is_some() && self.x.is_int();
        let scale = if d.inputs == Inputs::Random || exact { 1.0 } else { 1.0 / 16.0 };
        match name {
            "run" => d.run(),
            "w" => {
                let real = |r| if pairs { r / 8 * 4 + r % 4 < self.rows } else { r < self.rows };
                let fours = in_fours(self.format, self.scale);
                d.matrix(self.padded_rows(), real, self.columns, self.format, fours)
            }
            "scales" => d.scales(self.padded_rows(), self.columns, self.scale),
            "x" if self.norm.is_some() => d.rows(1, self.columns, Act::F32, scale),
            "y" if self.adds_sums() => {
                let mut sum = |c| if c < self.columns { 2000 - d.rng.below(4000).cast_signed() } else { 0 };
                let row = stride(self.columns);
                let banks = self.norm.as_ref().map_or(1, |n| n.banks);
                (0..banks * row).map(|i| sum(i % row).cast_unsigned()).collect()
            }
            "y" => d.rows(1, self.columns, self.norm.as_ref().map_or(Act::F32, |n| n.y), scale),
            "site" => {
                let by = |scale: f32, words: Vec<u32>| {
                    words.into_iter().map(move |w| (f32::from_bits(w) * scale).to_bits())
                };
                // A norm takes the size of its input away, so its own weights give it back.
                let mut words = d.weights(self.columns);
                words.extend(by(scale, d.weights(self.columns)));
                words.extend([0.7f32.to_bits()].into_iter().chain([0; 63]));
                words.extend(self.draw_grids(d.inputs).iter().map(|v| v.to_bits()));
                words.resize(words.len() + 56, 0);
                if self.adds_sums() {
                    let scalar = 2 * stride(self.columns) as usize;
                    // As many steps as codes have.
                    words[scalar + 1] = (scale / 64.0).to_bits();
                    words.extend(by(scale / 2000.0, d.weights(self.columns)));
                }
                words
            }
            "sum" => Draw::poison(Act::F32.row_bytes(self.columns)),
            "x" => d.rows(d.tokens, self.columns, self.x, scale),
            // What is multiplied with it must stay within f16.
            "aux" if self.out == Act::F16 => d.rows(d.tokens, self.total, Act::F32, 1.0 / 16.0),
            "aux" => d.rows(d.tokens, self.total, Act::F32, 1.0),
            "grids" => self.draw_grids(d.inputs).iter().map(|v| v.to_bits()).collect(),
            _ => Draw::poison(u64::from(d.tokens) * self.out.row_bytes(self.total)),
        }
    }

    /// `[input, output of segment 0, 1, 2, next input, 0, 0, 0]`.
    fn draw_grids(&self, inputs: Inputs) -> [f32; 8] {
        let wide = self.format == Format::I8;
        if inputs == Inputs::Ties && self.x.is_int() && self.norm.is_none() {
            // Sums of products of -1, 0, 1 with fields, times the scale 1/64 or 1/32 and the input
            // grid 512: multiples of 8, where gelu is the identity or zero to the last bit. On a
            // grid of 16 or more every other sum at least lies halfway between two codes.
            let field = if self.format == Format::I2 { 1.1 } else { 4.6 };
            let sum = 8.0 * 0.8 * field * (self.columns as f32).sqrt();
            let grid = (sum / 8.0).log2().round().exp2().max(16.0);
            let out = if self.epilogue == Epilogue::Geglu { 4.0 * grid * grid } else { 2.0 * grid };
            return [512.0, grid, 2.0 * grid, grid, out, 0.0, 0.0, 0.0];
        }
        // Sums of `columns` products spread over the grid, with some saturation.
        let spread = 0.02 * 70.0 * 4.0 * (self.columns as f32).sqrt() * if wide { 16.0 } else { 1.0 };
        let input = if self.x.is_int() { 0.03 } else { 0.0 };
        let out = spread * if self.x.is_int() { 0.03 } else { 0.2 } / 60.0;
        let out = if inputs == Inputs::Extreme { out / 8.0 } else { out };
        [input, out, out * 1.1, out * 0.9, out * 2.0, 0.0, 0.0, 0.0]
    }

    pub(crate) fn output(&self) -> (Act, Tolerance) {
        let transcendental = matches!(self.epilogue, Epilogue::Geglu | Epilogue::Ple | Epilogue::Softcap);
        match (self.x, self.out, transcendental) {
            // A norm near an edge of the input's grid moves every sum by a little, and so some of
            // them over an edge of their own. Without norms the same sums are exact.
            (Act::I8, Act::I8, _) if self.norm.is_some() => (self.out, Tolerance::Within(6)),
            (Act::I8, out, _) if self.norm.is_some() => {
                Tolerance::float(out, if self.grids { 0.05 } else { 5e-3 })
            }
            (Act::I8, Act::F16, false) if self.grids => (self.out, Tolerance::Edges(1.1e-3)),
            (Act::I8, _, false) if self.grids => (self.out, Tolerance::Edges(0.0)),
            (Act::I8, Act::I8 | Act::F32, false) => (self.out, Tolerance::Exact),
            (Act::I8, out, _) => Tolerance::float(out, 2e-5),
            // A float sum on an output grid may fall on either side of an edge.
            (_, out, _) if self.grids => Tolerance::float(out, 0.05),
            (_, out, _) => Tolerance::float(out, 5e-5),
        }
    }

    pub(crate) fn cost(&self, tokens: u32) -> Cost {
        let t = u64::from(tokens);
        // This matrix's part of the whole row.
        let row = |act: Act| act.row_bytes(self.rows);
        let aux = if self.has_aux() { row(Act::F32) } else { 0 };
        let stream = |n: &norm::Shape| {
            let one = Act::F32.row_bytes(self.columns);
            let residual =
                if n.residual { one + u64::from(n.banks) * n.y.row_bytes(self.columns) } else { 0 };
            one + residual + if n.norm { one } else { 0 }
        };
        let x = self.norm.as_ref().map_or(self.x.row_bytes(self.columns), stream);
        Cost {
            read_bytes: self.weight_bytes() + t * (x + aux),
            written_bytes: t * row(self.out)
                + self.norm.as_ref().filter(|n| n.residual).map_or(0, |_| Act::F32.row_bytes(self.columns)),
            ops: 2 * t * u64::from(self.padded_rows()) * u64::from(self.columns),
            kind: if self.x.is_int() { Arithmetic::Int8 } else { Arithmetic::F32 },
        }
    }
}
