//! Products of codes whose columns are shared out: each workgroup computes the codes of a slab of
//! columns itself, multiplies all rows of the matrix with them, and adds its part of every sum to
//! `out` atomically. Sums of integers are exact in any order, so the result does not depend on who
//! comes first; the static grids of the codes are what makes it possible. Components in
//! `templates/parts/slab.wgsl`.

use serde::{Deserialize, Serialize};

use crate::{
    Caps, Reason,
    check::{Draw, Tolerance},
    io::{self, Io},
    kernel::require,
    types::{Act, Format, round_up, stride},
};

/// A matrix of integers with row scales, whose sums are left unscaled: `w2`, rows in fours.
///
/// `out`: i32, `banks` rows of [`stride`]`(rows)` elements, added to. Whoever reads them adds up the
/// banks and scales the sums ([`Act::I32`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Second {
    /// Rows of the matrix.
    pub rows: u32,
    /// Storage format of the weights.
    pub format: Format,
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

/// Banks for a matrix whose slabs, hundreds of them, are all that is added to a row: at most 4, as many
/// as divide its pieces.
pub fn banks(columns: u32, format: Format) -> u32 {
    let chunks = stride(columns) / format.piece().1.max(1);
    [4, 2].into_iter().find(|b| chunks.is_multiple_of(*b)).unwrap_or(1)
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
    pub(crate) fn derived(self, second: &Second) -> [(&'static str, u32); 9] {
        [
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

    /// Bytes of `w2`.
    pub(crate) fn weight_bytes(&self, columns: u32) -> u64 {
        u64::from(round_up(self.rows, 4)) * self.format.row_bytes(columns)
    }

    pub(crate) fn why_not(&self, columns: u32, caps: &Caps) -> Option<Reason> {
        require!(self.rows > 0 && columns > 0, "the second matrix is empty");
        require!(self.format.is_int(), "sums of codes need integer weights, not {:?}", self.format);
        require!(
            self.banks > 0 && self.chunks(columns).is_multiple_of(self.banks),
            "{} banks do not share {columns} columns",
            self.banks
        );
        require!(columns <= 1 << 16, "{columns} columns could overflow the 32-bit sum (at most 65536)");
        let bytes = self.weight_bytes(columns);
        require!(
            bytes <= caps.max_binding_bytes,
            "{bytes} bytes of weights are over the binding limit of {}",
            caps.max_binding_bytes
        );
        None
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
            "w2" => d.matrix(round_up(self.rows, 4), |r| r < self.rows, columns, self.format, true),
            // Sums others have begun.
            _ => (0..self.banks * stride(self.rows)).map(|_| d.rng.below(1000)).collect(),
        }
    }

    /// A code near an edge of its grid moves every sum by a weight; behind norms of floats there may
    /// be some of them.
    pub(crate) fn output(normed: bool) -> (Act, Tolerance) {
        (Act::I32, Tolerance::Relative(if normed { 0.1 } else { 0.02 }))
    }
}
