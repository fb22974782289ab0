//! The vocabulary shapes are written in: element types, weight formats, layouts.

use serde::{Deserialize, Serialize};

/// Rows of activations and of weights are padded with zeros to a multiple of this many columns,
/// so that every format can be read in 16-byte pieces (int2 holds 64 columns in one) and no
/// kernel needs a tail along the row.
pub const ROW_ALIGN: u32 = 64;

/// Group size of load-time quantisation: one f16 scale for this many columns.
pub const GROUP: u32 = 32;

/// `n` rounded up to a multiple of `to`.
pub const fn round_up(n: u32, to: u32) -> u32 {
    n.div_ceil(to) * to
}

/// Columns a row of `n` occupies in memory.
pub const fn stride(n: u32) -> u32 {
    round_up(n, ROW_ALIGN)
}

/// Element type of a vector handed from one kernel to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// 32-bit float.
    F32,
    /// 16-bit float, two to a word; readable with or without WGSL's `f16`.
    F16,
    /// 8-bit code on a static grid, four to a word; its value is `code * grid`.
    I8,
    /// 32-bit sum of products of codes that many workgroups add to
    /// ([`crate::kernels::slab`]); its value is `sum * scale` of its row, put on the product's
    /// output grid. Only norms before a product read it.
    I32,
    /// Sum of floats that many workgroups add to, the same in any order: two 32-bit integers, the
    /// first of 2^-23, the second of ones, which few additions reach. Of each 64 elements the first
    /// words lie side by side, then the second ones. What is rounded off is far below the epsilon of
    /// the norms, which alone read it, as they do [`Self::I32`]. Sums of 2^31 and more are lost, and so is
    /// what is no number.
    Fixed,
}

impl Act {
    /// Bytes a row of `columns` occupies.
    pub const fn row_bytes(self, columns: u32) -> u64 {
        let elements = stride(columns) as u64;
        match self {
            Self::Fixed => elements * 8,
            Self::F32 | Self::I32 => elements * 4,
            Self::F16 => elements * 2,
            Self::I8 => elements,
        }
    }

    /// True for the integer codes of a static grid.
    pub const fn is_int(self) -> bool {
        matches!(self, Self::I8)
    }

    /// True for sums that many workgroups add to.
    pub const fn is_sum(self) -> bool {
        matches!(self, Self::I32 | Self::Fixed)
    }
}

/// Storage format of a weight matrix in GPU memory.
///
/// Rows are padded to [`ROW_ALIGN`] columns. Integer formats hold two's complement fields, and
/// within each 32-bit word byte `b` holds columns `b`, `b + 4`, … low field first: so a shift
/// and a mask yield four consecutive columns as four int8 lanes, scaled by a power of two
/// ([`Format::field_shift`]). In products their rows lie in fours ([`in_fours`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit integer.
    I8,
    /// 4-bit integer.
    I4,
    /// 2-bit integer.
    I2,
}

impl Format {
    /// Bits a column takes.
    pub const fn bits(self) -> u32 {
        match self {
            Self::F32 => 32,
            Self::F16 | Self::Bf16 => 16,
            Self::I8 => 8,
            Self::I4 => 4,
            Self::I2 => 2,
        }
    }

    /// True for the integer formats.
    pub const fn is_int(self) -> bool {
        self.bits() <= 8
    }

    /// Bytes a padded row of `columns` occupies.
    pub const fn row_bytes(self, columns: u32) -> u64 {
        stride(columns) as u64 * self.bits() as u64 / 8
    }

    /// Rows and columns of which a product reads 16 bytes at once: one row of floats, four of
    /// integers ([`in_fours`]).
    pub const fn piece(self) -> (u32, u32) {
        if self.is_int() { (4, 32 / self.bits()) } else { (1, 128 / self.bits()) }
    }

    /// Groups of four consecutive columns in one 32-bit word (0 for the float formats).
    pub const fn quads_per_word(self) -> u32 {
        if self.is_int() { 8 / self.bits() } else { 0 }
    }

    /// Fields are used in place, so products carry a factor `1 << field_shift`.
    pub const fn field_shift(self) -> u32 {
        if self.is_int() { 8 - self.bits() } else { 0 }
    }
}

/// Whether the rows of such a matrix lie in fours: word `i` of rows `4 n .. 4 n + 4` side by side,
/// for each `i` in turn, and group scales likewise. A lane that reads 16 bytes has the same few
/// columns of four rows, so it meets them with a quarter of the activations that 16 bytes of one
/// row would need, and a whole subgroup can share short rows. Tables with scales by parts are
/// only looked up in; their rows stay whole.
pub const fn in_fours(format: Format, scale: Scale) -> bool {
    format.is_int() && matches!(scale, Scale::Row | Scale::Group)
}

/// How integer weights are scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Not at all (float formats).
    None,
    /// One f32 for each row.
    Row,
    /// One f32 for each of `n` equal parts of a row (tables with a scale per layer).
    Parts(u32),
    /// One f16 for each [`GROUP`] columns.
    Group,
}

impl Scale {
    /// Bytes of scales for one row of `columns` (group scales are padded to whole words).
    pub const fn row_bytes(self, columns: u32) -> u64 {
        match self {
            Self::None => 0,
            Self::Row => 4,
            Self::Parts(n) => n as u64 * 4,
            Self::Group => (stride(columns) / GROUP) as u64 * 2,
        }
    }

    /// What sums of products with such weights are kept as.
    pub const fn sums(self) -> Act {
        if matches!(self, Self::Group) { Act::Fixed } else { Act::I32 }
    }
}

/// Where a matrix of `bytes` has its scales if one binding holds both: at a place where a binding of
/// their own can begin as well.
pub const fn scales_behind(bytes: u64) -> u64 {
    bytes.next_multiple_of(256)
}
