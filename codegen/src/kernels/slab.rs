//! Products whose columns are shared out: each workgroup computes the input of a slab of columns
//! itself, multiplies all rows of the matrix with it, and adds its part of every sum to `out`
//! atomically. Sums of integers are exact in any order, so the result does not depend on who
//! comes first. Codes on static grids meet weights with row scales, and their sums are integers by
//! themselves; floats meet weights with group scales, split into two int8 digits a quad at a time,
//! and what a workgroup adds is rounded to [`Act::Fixed`]. Components in `templates/parts/slab.wgsl`.

use serde::{Deserialize, Serialize};

use crate::{
    Caps, Reason,
    check::{Draw, Tolerance},
    io::{self, Io},
    kernel::require,
    types::{Act, Format, GROUP, Scale, in_fours, round_up, scales_behind, stride},
};

/// A matrix of integers, whose sums many workgroups add to: `w2`, rows in fours.
///
/// `out`: `banks` rows of [`stride`]`(rows)` elements, added to, of the type [`Scale::sums`]. Whoever reads
/// them adds up the banks. Sums of codes are left without the rows' scales; group scales lie in `w2` behind
/// the weights ([`scales_behind`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Second {
    /// Rows of the matrix.
    pub rows: u32,
    /// Storage format of the weights.
    pub format: Format,
    /// Their scales: of rows, for codes, or of groups, for floats.
    #[serde(default = "by_row", skip_serializing_if = "is_by_row")]
    pub scale: Scale,
    /// Sums of so many equal ranges of columns lie apart: additions to one place wait for each other.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub banks: u32,
}

/// A single bank: what shapes that do not name the number have.
pub(crate) fn one() -> u32 {
    1
}

pub(crate) fn is_one(banks: &u32) -> bool {
    *banks == 1
}

/// Scales of what shapes without a name for them multiply.
fn by_row() -> Scale {
    Scale::Row
}

fn is_by_row(scale: &Scale) -> bool {
    *scale == Scale::Row
}

/// Banks for a matrix whose slabs, hundreds of them, are all that is added to a row: at most 4, as many
/// as divide its pieces. Sums of floats, whose two words whoever adds them must read of every bank, have one.
pub fn banks(columns: u32, format: Format, scale: Scale) -> u32 {
    let chunks = stride(columns) / format.piece().1.max(1);
    let most: &[u32] = if scale.sums() == Act::Fixed { &[] } else { &[4, 2] };
    most.iter().copied().find(|b| chunks.is_multiple_of(*b)).unwrap_or(1)
}

/// Bytes of each of two buffers in which the layers of a model leave their sums: of two layers together, in each a row of
/// the output projection and of the per-layer inputs, and the `banks` of a feed-forward block. `row`: bytes of a row of
/// sums. Nobody may read sums where it adds to others, so every next sums are in the other buffer.
pub fn sum_bytes(layers: u32, banks: u32, row: u64) -> u64 {
    u64::from(layers.div_ceil(2)) * (2 + u64::from(banks)) * row
}

/// The buffer that has sums `which` of a layer, 0 to 2 in the order in which they are left, and the rows before them.
pub fn place_of_sums(layer: u32, which: u32, banks: u32) -> (usize, u64) {
    // Of an even layer the outer two and of an odd one the middle, or the other way around.
    let second = (layer + which) % 2;
    let before = match (layer % 2, which) {
        (0, 0 | 1) => 0,
        (0, _) => 1,
        (_, 0) => banks,
        (_, 1) => 2,
        _ => banks + 1,
    };
    (second as usize, u64::from(layer / 2) * (2 + u64::from(banks)) + u64::from(before))
}

/// How the threads of a workgroup share it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// Threads.
    pub(crate) wg: u32,
    /// Rows in fours that the workgroup has.
    pub(crate) quads: u32,
    /// Pieces of 16 bytes of each four rows that the slab is wide.
    pub(crate) pieces: u32,
    /// Threads that share four rows; divides `pieces`.
    pub(crate) split: u32,
    /// Lanes combined by shuffles; 1 uses none.
    pub(crate) sg: u32,
}

impl Share {
    /// Fours of rows a thread has a part in.
    pub(crate) fn per(self) -> u32 {
        (self.quads * self.split).div_ceil(self.wg)
    }

    /// Pieces it reads of each.
    pub(crate) fn mine(self) -> u32 {
        self.pieces / self.split
    }

    /// Lanes of a split that shuffles combine.
    fn shuffled(self) -> u32 {
        self.split.min(self.sg)
    }

    /// Whether sums meet in workgroup memory before they are added to `out`: too few lanes share them to leave
    /// a row to each, and additions 16 bytes apart take long. Without subgroups that memory is needed elsewhere.
    fn gathered(self) -> bool {
        self.sg > 1 && self.split < 4
    }

    /// Most additions to one sum that `workgroups` make: what shuffles do not combine is added apart.
    pub(crate) fn additions(self, workgroups: u32) -> u32 {
        workgroups.saturating_mul(self.split / self.shuffled().max(1))
    }

    /// Bytes of workgroup memory for that.
    pub(crate) fn bytes(self) -> u64 {
        if self.gathered() { 16 * u64::from(self.quads) } else { 0 }
    }

    pub(crate) fn why_not(self) -> Option<Reason> {
        let Self { wg, pieces, split, .. } = self;
        require!(
            split.is_power_of_two() && split <= wg && pieces.is_multiple_of(split),
            "{split} threads do not share {pieces} pieces"
        );
        let loads = self.per() * self.mine();
        require!(
            loads <= 16,
            "{loads} pieces of the second matrix a thread would not stay in registers (at most 16)"
        );
        None
    }

    /// Numbers for the components.
    pub(crate) fn derived(self, second: &Second, columns: u32) -> [(&'static str, u32); 12] {
        [
            ("slab_floats", u32::from(second.floats())),
            ("slab_groups", stride(columns) / GROUP),
            ("slab_scales", io::word((scales_behind(second.matrix_bytes(columns)) / 16) as usize)),
            ("slab_quads", self.quads),
            ("slab_pieces", self.pieces),
            ("slab_fields", second.fields()),
            ("slab_bits", second.format.bits()),
            ("slab_per", self.per()),
            ("slab_mine", self.mine()),
            ("slab_shuffled", self.shuffled()),
            ("slab_gathered", u32::from(self.gathered())),
            ("slab_whole", u32::from((self.quads * self.split).is_multiple_of(self.wg))),
        ]
    }
}

impl Second {
    /// Fours of rows.
    pub(crate) fn quads(&self) -> u32 {
        self.rows.div_ceil(4)
    }

    /// Quads of codes that a piece of 16 bytes meets.
    pub(crate) fn fields(&self) -> u32 {
        self.format.quads_per_word()
    }

    /// Pieces of 16 bytes in four rows of `columns`.
    pub(crate) fn chunks(&self, columns: u32) -> u32 {
        stride(columns) / self.format.piece().1
    }

    /// Why so many additions to one sum of floats could overflow its first word, each of at most 2^22.
    pub(crate) fn overflows(&self, additions: u32) -> Option<Reason> {
        require!(
            !self.floats() || additions < 1 << 9,
            "{additions} additions could overflow a sum (at most 511)"
        );
        None
    }

    /// Whether it multiplies floats.
    pub(crate) fn floats(&self) -> bool {
        self.scale == Scale::Group
    }

    /// Bytes of workgroup memory for `quads` quads of its input.
    pub(crate) fn input_bytes(&self, quads: u32) -> u64 {
        u64::from(quads) * if self.floats() { 12 } else { 4 }
    }

    /// Bytes of the weights alone.
    fn matrix_bytes(&self, columns: u32) -> u64 {
        u64::from(round_up(self.rows, 4)) * self.format.row_bytes(columns)
    }

    /// Bytes of `w2`.
    pub(crate) fn weight_bytes(&self, columns: u32) -> u64 {
        let bytes = self.matrix_bytes(columns);
        let scales = u64::from(round_up(self.rows, 4)) * self.scale.row_bytes(columns);
        if self.floats() { scales_behind(bytes) + scales } else { bytes }
    }

    /// Bytes of the sums.
    pub fn sum_bytes(&self) -> u64 {
        u64::from(self.banks) * self.scale.sums().row_bytes(self.rows)
    }

    pub(crate) fn why_not(&self, columns: u32, caps: &Caps) -> Option<Reason> {
        require!(self.rows > 0 && columns > 0, "the second matrix is empty");
        require!(self.format.is_int(), "sums of integers need integer weights, not {:?}", self.format);
        require!(
            matches!(self.scale, Scale::Row | Scale::Group),
            "sums of many workgroups need scales of rows or groups, not {:?}",
            self.scale
        );
        require!(
            self.banks > 0 && self.chunks(columns).is_multiple_of(self.banks),
            "{} banks do not share {columns} columns",
            self.banks
        );
        require!(!self.floats() || self.banks == 1, "sums of floats lie in one bank");
        require!(columns <= 1 << 16, "{columns} columns could overflow the 32-bit sum (at most 65536)");
        let bytes = self.weight_bytes(columns);
        require!(
            bytes <= caps.max_binding_bytes,
            "{bytes} bytes of weights are over the binding limit of {}",
            caps.max_binding_bytes
        );
        None
    }

    /// Adds the products with `values` to `out`, as floats.
    pub(crate) fn reference_floats(&self, values: &[f32], io: &mut Io<'_>) {
        let columns = io::word(values.len());
        let scales = (scales_behind(self.matrix_bytes(columns)) / 4) as usize;
        for r in 0..self.rows as usize {
            let w2 = io.words("w2");
            let row = io::weight_row(w2, &w2[scales..], self.format, self.scale, r, values.len(), true);
            io::add_fixed(io.words_mut("out"), r, io::dot(values, &row));
        }
    }

    /// Adds the products with `codes` to `out`.
    pub(crate) fn reference(&self, codes: &[i8], io: &mut Io<'_>) {
        let columns = io::word(codes.len());
        let words = (self.format.row_bytes(columns) / 4) as usize;
        let (stride, range) = (stride(self.rows) as usize, (stride(columns) / self.banks) as usize);
        for r in 0..self.rows as usize {
            let row = io::row_words(io.words("w2"), words, r, true);
            for (bank, codes) in codes.chunks(range).enumerate() {
                let products = codes.iter().zip(bank * range..);
                let sum: i32 = products.map(|(x, c)| i32::from(*x) * io::field(&row, self.format, c)).sum();
                let out = &mut io.words_mut("out")[bank * stride + r];
                *out = out.wrapping_add(sum.cast_unsigned());
            }
        }
    }

    /// Words for `w2` and `out`.
    pub(crate) fn draw(&self, columns: u32, name: &str, d: &mut Draw) -> Vec<u32> {
        match name {
            "w2" => {
                let rows = round_up(self.rows, 4);
                let mut words = d.matrix(
                    rows,
                    |r| r < self.rows,
                    columns,
                    self.format,
                    in_fours(self.format, self.scale),
                );
                if self.floats() {
                    words.resize((scales_behind(self.matrix_bytes(columns)) / 4) as usize, 0);
                    words.extend(d.scales(rows, columns, self.scale));
                }
                words
            }
            // Sums others have begun; of floats ones that do not hide what is added.
            _ if self.floats() => d.rows(1, self.rows, Act::Fixed, 1.0),
            _ => (0..self.sum_bytes() / 4).map(|_| d.rng.below(1000)).collect(),
        }
    }

    /// A code near an edge of its grid moves every sum by a weight; behind norms of floats there may
    /// be some of them.
    pub(crate) fn output(&self, normed: bool) -> (Act, Tolerance) {
        // Digits hold 15 bits of the largest of a quad, and GeGLU multiplies two such sums.
        let bound = match (self.floats(), normed) {
            (true, true) => 2e-3,
            (true, false) => 4e-4,
            (false, true) => 0.1,
            (false, false) => 0.02,
        };
        (self.scale.sums(), Tolerance::Relative(bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_lie_apart_and_the_next_ones_in_the_other_buffer() {
        for banks in [1, 2, 4] {
            for layers in 1..=6 {
                let mut taken = [Vec::new(), Vec::new()];
                let mut last = None;
                for (layer, which) in (0..layers).flat_map(|l| [(l, 0), (l, 1), (l, 2)]) {
                    let (buffer, before) = place_of_sums(layer, which, banks);
                    assert_ne!(last, Some(buffer), "{which} of layer {layer} adds where it reads");
                    last = Some(buffer);
                    let rows = if which == 1 { u64::from(banks) } else { 1 };
                    taken[buffer].extend(before..before + rows);
                }
                for mut rows in taken {
                    let count = rows.len();
                    rows.sort_unstable();
                    rows.dedup();
                    assert_eq!(rows.len(), count, "two sums in one place");
                    assert!(rows.last().is_none_or(|last| last * 256 < sum_bytes(layers, banks, 256)));
                }
            }
        }
    }
}
