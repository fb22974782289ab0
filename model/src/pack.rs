//! From published rows to the rows kernels read: padded, two's complement, fields ordered so that
//! a shift and a mask yield four consecutive columns ([`wgforge_codegen::types::Format`]).

use std::borrow::Cow;

use half::f16;
use wgforge_codegen::types::{Format, GROUP, Scale, in_fours, round_up, stride};

use crate::{
    Result,
    checkpoint::{self, Data, Linear, Table},
};

/// Weights as a kernel wants them, row by row out of one or two published matrices.
#[derive(Debug)]
pub(crate) struct Matrix {
    /// What it is called in messages.
    pub(crate) name: String,
    parts: Vec<Source>,
    order: Order,
    /// Storage format in GPU memory.
    pub(crate) format: Format,
    /// Scales in GPU memory.
    pub(crate) scale: Scale,
    /// Rows lie in fours ([`in_fours`]).
    fours: bool,
    /// Columns of every row.
    pub(crate) columns: u32,
    /// Results: rows, or pairs of rows when interleaved.
    pub(crate) rows: u32,
}

/// A published matrix, whether it multiplies or is looked up in.
#[derive(Debug, Clone)]
struct Source {
    rows: usize,
    columns: usize,
    format: checkpoint::Format,
    data: Data,
    /// Row scales, or several a row.
    scales: Option<Vec<f32>>,
    scales_per_row: usize,
}

/// How rows of several matrices become rows of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// One after the other.
    Stacked,
    /// Four of the first, four of the second, … (`GeGLU`).
    Fours,
}

/// How weights are stored that the checkpoint holds as floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightMode {
    /// As they are.
    #[default]
    Stored,
    /// int8 in groups of 32 with an f16 scale.
    Int8,
    /// int4 in groups of 32 with an f16 scale.
    Int4,
}

impl Matrix {
    /// Matrices stacked into one product (q, k, v), or a single one.
    pub(crate) fn stacked(linears: Vec<Linear>, mode: WeightMode) -> Self {
        Self::of_linears(linears, Order::Stacked, mode)
    }

    /// Gate and up, interleaved for the `GeGLU` epilogue.
    pub(crate) fn geglu(gate: Linear, up: Linear, mode: WeightMode) -> Self {
        Self::of_linears(vec![gate, up], Order::Fours, mode)
    }

    fn of_linears(linears: Vec<Linear>, order: Order, mode: WeightMode) -> Self {
        let name = linears.iter().map(|l| l.name.as_str()).collect::<Vec<_>>().join(" + ");
        let rows = if order == Order::Fours { linears[0].rows } else { linears.iter().map(|l| l.rows).sum() };
        let parts = linears
            .into_iter()
            .map(|l| Source {
                rows: l.rows,
                columns: l.cols,
                format: l.format,
                data: l.data,
                scales: l.row_scale,
                scales_per_row: 1,
            })
            .collect();
        Self::new(name, parts, order, rows, mode)
    }

    /// A table whose rows are gathered.
    pub(crate) fn table(table: Table, mode: WeightMode) -> Self {
        let (scales, scales_per_row) = match table.scale {
            Some((scales, n)) => (Some(scales), n),
            None => (None, 1),
        };
        let source = Source {
            rows: table.rows,
            columns: table.cols,
            format: table.format,
            data: table.data,
            scales,
            scales_per_row,
        };
        Self::new(table.name, vec![source], Order::Stacked, table.rows, mode)
    }

    fn new(name: String, parts: Vec<Source>, order: Order, rows: usize, mode: WeightMode) -> Self {
        let stored = storage(parts[0].format);
        let (format, scale) = match (stored.is_int(), mode) {
            (true, _) if parts[0].scales_per_row > 1 => {
                (stored, Scale::Parts(to_u32(parts[0].scales_per_row)))
            }
            (true, _) => (stored, Scale::Row),
            (false, WeightMode::Stored) => (stored, Scale::None),
            (false, WeightMode::Int8) => (Format::I8, Scale::Group),
            (false, WeightMode::Int4) => (Format::I4, Scale::Group),
        };
        let (fours, columns, rows) = (in_fours(format, scale), to_u32(parts[0].columns), to_u32(rows));
        Self { name, parts, order, format, scale, fours, columns, rows }
    }

    /// With rows one after the other, so that single ones can be packed.
    #[must_use]
    pub(crate) fn row_by_row(mut self) -> Self {
        self.fours = false;
        self
    }

    /// True when every part has the first one's format, so that they can be one matrix.
    pub(crate) fn uniform(&self) -> bool {
        self.parts.iter().all(|p| p.format == self.parts[0].format && p.columns == self.parts[0].columns)
    }

    /// Rows stored, padding included.
    pub(crate) fn padded_rows(&self) -> u32 {
        round_up(self.rows, 4) * self.rows_per_result()
    }

    /// Stored rows behind one result.
    pub(crate) fn rows_per_result(&self) -> u32 {
        if self.order == Order::Fours { 2 } else { 1 }
    }

    /// Bytes of a stored row.
    pub(crate) fn row_bytes(&self) -> u64 {
        self.format.row_bytes(self.columns)
    }

    /// Bytes of weights and scales in GPU memory.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.padded_rows()) * (self.row_bytes() + self.scale.row_bytes(self.columns))
    }

    /// Scales of all stored rows, where they have one each; 0 for padding.
    pub(crate) fn row_scales(&self) -> Vec<f32> {
        let scale =
            |row| self.source(row).and_then(|(part, at)| self.parts[part].scales.as_ref().map(|s| s[at]));
        (0..self.padded_rows() as usize).map(|row| scale(row).unwrap_or(0.0)).collect()
    }

    /// The part and its row behind stored row `row`; `None` for padding.
    fn source(&self, row: usize) -> Option<(usize, usize)> {
        match self.order {
            Order::Stacked => {
                let mut at = row;
                for (number, part) in self.parts.iter().enumerate() {
                    if at < part.rows {
                        return Some((number, at));
                    }
                    at -= part.rows;
                }
                None
            }
            Order::Fours => {
                let at = row / 8 * 4 + row % 4;
                let number = row % 8 / 4;
                (at < self.parts[number].rows).then_some((number, at))
            }
        }
    }

    /// The published bytes behind stored rows `rows`, one read a part: its first row, and the bytes
    /// from there on.
    fn blocks(&self, rows: std::ops::Range<u32>) -> Result<Vec<(usize, Cow<'_, [u8]>)>> {
        let mut blocks = Vec::with_capacity(self.parts.len());
        for (i, part) in self.parts.iter().enumerate() {
            let of_part =
                |row| self.source(row as usize).filter(|(number, _)| *number == i).map(|(_, at)| at);
            let ends = rows.clone().filter_map(of_part).fold(None, |ends: Option<(usize, usize)>, at| {
                Some(ends.map_or((at, at), |(low, high)| (low.min(at), high.max(at))))
            });
            let bytes = part.format.row_bytes(part.columns);
            blocks.push(match ends {
                Some((low, high)) => (low, part.data.range(low * bytes..(high + 1) * bytes)?),
                None => (0, Cow::Borrowed(&[][..])),
            });
        }
        Ok(blocks)
    }

    /// Appends stored rows `rows` to `weights` and their scales to `scales`; whole fours where rows
    /// lie in fours.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn pack(
        &self,
        rows: std::ops::Range<u32>,
        weights: &mut Vec<u32>,
        scales: &mut Vec<u32>,
    ) -> Result<()> {
        let blocks = self.blocks(rows.clone())?;
        let (n, scale_words) =
            ((self.row_bytes() / 4) as usize, (self.scale.row_bytes(self.columns) / 4) as usize);
        let side_by_side = if self.fours { 4 } else { 1 };
        let mut words = vec![0u32; n * side_by_side];
        let mut own = Vec::with_capacity(scale_words * side_by_side);
        for first in rows.step_by(side_by_side) {
            own.clear();
            for (i, row_words) in words.chunks_exact_mut(n).enumerate() {
                match self.source(first as usize + i) {
                    Some((number, at)) => {
                        let (part, (first, block)) = (&self.parts[number], &blocks[number]);
                        let bytes = part.format.row_bytes(part.columns);
                        self.pack_row(part, at, &block[(at - first) * bytes..][..bytes], row_words, &mut own);
                    }
                    None => {
                        row_words.fill(0);
                        own.extend(std::iter::repeat_n(0, scale_words));
                    }
                }
            }
            weights.extend((0..words.len()).map(|i| words[i % side_by_side * n + i / side_by_side]));
            if self.fours && self.scale == Scale::Group {
                let half = |row: usize, g: usize| own[row * scale_words + g / 2] >> (16 * (g % 2)) & 0xffff;
                scales.extend((0..4 * scale_words).map(|i| {
                    let (g, row) = (i / 2, i % 2 * 2);
                    half(row, g) | half(row + 1, g) << 16
                }));
            } else {
                scales.extend_from_slice(&own);
            }
        }
        Ok(())
    }

    /// As [`Matrix::pack`], on all cores where there are threads: quantising ten gigabytes on one
    /// core took 80 s where the disk delivers them in two.
    pub(crate) fn pack_all_cores(
        &self,
        rows: std::ops::Range<u32>,
        weights: &mut Vec<u32>,
        scales: &mut Vec<u32>,
    ) -> Result<()> {
        #[cfg(feature = "native")]
        {
            let cores = std::thread::available_parallelism().map_or(1, |n| to_u32(n.get()).min(16));
            let share = (rows.end - rows.start).div_ceil(cores).next_multiple_of(4).max(4);
            if cores > 1 && rows.end - rows.start >= 2 * cores {
                let packed: Result<Vec<(Vec<u32>, Vec<u32>)>> = std::thread::scope(|scope| {
                    let starts = (rows.start..rows.end).step_by(share as usize);
                    let workers: Vec<_> = starts
                        .map(|first| {
                            let own = first..first.saturating_add(share).min(rows.end);
                            scope.spawn(move || {
                                let (mut w, mut s) = (Vec::new(), Vec::new());
                                self.pack(own, &mut w, &mut s)?;
                                Ok((w, s))
                            })
                        })
                        .collect();
                    workers
                        .into_iter()
                        .map(|w| w.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
                        .collect()
                });
                for (w, s) in packed? {
                    weights.extend_from_slice(&w);
                    scales.extend_from_slice(&s);
                }
                return Ok(());
            }
        }
        self.pack(rows, weights, scales)
    }

    /// `stored`: the published bytes of row `row`.
    fn pack_row(&self, part: &Source, row: usize, stored: &[u8], words: &mut [u32], scales: &mut Vec<u32>) {
        if self.scale == Scale::Group {
            let mut values = vec![0.0f32; stride(self.columns) as usize];
            part.format.decode(stored, &mut values[..part.columns]);
            quantize_groups(&values, self.format, words, scales);
            return;
        }
        words.fill(if self.format.is_int() { zero_code(self.format) } else { 0 });
        bytemuck::cast_slice_mut::<u32, u8>(words)[..stored.len()].copy_from_slice(stored);
        if self.format.is_int() {
            clear_padding(words, self.format, part.columns);
            reorder(words, self.format);
        }
        if let Some(s) = &part.scales {
            let n = part.scales_per_row;
            scales.extend(s[row * n..][..n].iter().map(|v| v.to_bits()));
        }
    }
}

fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The GPU's name for a published format.
fn storage(format: checkpoint::Format) -> Format {
    match format {
        checkpoint::Format::F32 => Format::F32,
        checkpoint::Format::F16 => Format::F16,
        checkpoint::Format::Bf16 => Format::Bf16,
        checkpoint::Format::I8 => Format::I8,
        checkpoint::Format::I4 => Format::I4,
        checkpoint::Format::I2 => Format::I2,
    }
}

/// A word of zeros in the published offset-binary code.
fn zero_code(format: Format) -> u32 {
    match format {
        Format::I4 => 0x8888_8888,
        Format::I2 => 0xaaaa_aaaa,
        _ => 0,
    }
}

/// Sets the fields behind the last column, which share its byte, to zero.
fn clear_padding(words: &mut [u32], format: Format, columns: usize) {
    let per_word = 32 / format.bits() as usize;
    let used = columns % per_word;
    if used > 0 {
        let mask = (1u32 << (used * format.bits() as usize)) - 1;
        let last = &mut words[columns / per_word];
        *last = *last & mask | zero_code(format) & !mask;
    }
}

/// Offset binary in file order to two's complement in field order, a word at a time.
fn reorder(words: &mut [u32], format: Format) {
    match format {
        Format::I4 => words.iter_mut().for_each(|w| *w = reorder_i4(*w)),
        Format::I2 => words.iter_mut().for_each(|w| *w = reorder_i2(*w)),
        _ => {}
    }
}

/// Eight nibbles, columns 0..8 from the low end, to byte `b` = column `b` low, `b + 4` high.
fn reorder_i4(word: u32) -> u32 {
    let w = word ^ 0x8888_8888;
    let spread = |x: u32| {
        let x = (x | x << 8) & 0x00ff_00ff;
        (x | x << 4) & 0x0f0f_0f0f
    };
    spread(w & 0xffff) | spread(w >> 16) << 4
}

/// Sixteen pairs of bits, columns 0..16 from the low end, to byte `b` = columns `b`, `b + 4`,
/// `b + 8`, `b + 12`: the transpose of a 4 by 4 matrix of fields, by two exchanges.
fn reorder_i2(word: u32) -> u32 {
    let mut w = word ^ 0xaaaa_aaaa;
    let t = (w >> 6 ^ w) & 0x00cc_00cc;
    w ^= t ^ t << 6;
    let t = (w >> 12 ^ w) & 0x0000_f0f0;
    w ^ t ^ t << 12
}

/// Symmetric quantisation in groups of [`GROUP`] columns, after llama.cpp's `Q4_0` and `Q8_0`: the
/// scale maps the value of largest magnitude to -8 (int4, which has one more code on that side)
/// or its magnitude to 127 (int8), is rounded to f16 first, and codes are rounded half to even.
fn quantize_groups(values: &[f32], format: Format, words: &mut [u32], scales: &mut Vec<u32>) {
    let int4 = format == Format::I4;
    let (low, high) = if int4 { (-8.0, 7.0) } else { (-127.0, 127.0) };
    let words_per_group = words.len() / (values.len() / GROUP as usize);
    let mut halves = Vec::with_capacity(values.len() / GROUP as usize);
    for (group, out) in values.chunks_exact(GROUP as usize).zip(words.chunks_exact_mut(words_per_group)) {
        // Minus zero, so that a group of zeros gets the scale +0.
        let extreme = group.iter().copied().fold(-0.0f32, |a, b| if b.abs() > a.abs() { b } else { a });
        let scale = f16::from_f32(if int4 { -extreme / 8.0 } else { extreme.abs() / 127.0 });
        halves.push(u32::from(scale.to_bits()));
        let scale = scale.to_f32();
        let mut codes = [0i8; GROUP as usize];
        if scale != 0.0 {
            for (code, v) in codes.iter_mut().zip(group) {
                #[expect(clippy::cast_possible_truncation, reason = "clamped to the format's range")]
                let rounded = (v / scale).round_ties_even().clamp(low, high) as i8;
                *code = rounded;
            }
        }
        if int4 {
            // Byte `b` holds columns `b` and `b + 4`.
            for (word, c) in out.iter_mut().zip(codes.as_chunks::<8>().0) {
                let byte = |b: usize| c[b].cast_unsigned() & 15 | c[b + 4].cast_unsigned() << 4;
                *word = u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]);
            }
        } else {
            for (word, c) in out.iter_mut().zip(codes.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(c.map(i8::cast_unsigned));
            }
        }
    }
    scales.extend(halves.chunks_exact(2).map(|p| p[0] | p[1] << 16));
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgforge_codegen::io::field;

    #[test]
    fn reordered_fields_are_the_published_columns() {
        let word = 0x1f2e_3d4cu32;
        let i4: Vec<i32> = (0..8).map(|c| (word >> (4 * c) & 15).cast_signed() - 8).collect();
        let got: Vec<i32> = (0..8).map(|c| field(&[reorder_i4(word)], Format::I4, c)).collect();
        assert_eq!(got, i4, "int4");
        let i2: Vec<i32> = (0..16).map(|c| (word >> (2 * c) & 3).cast_signed() - 2).collect();
        let got: Vec<i32> = (0..16).map(|c| field(&[reorder_i2(word)], Format::I2, c)).collect();
        assert_eq!(got, i2, "int2");
    }

    #[test]
    fn columns_behind_the_end_are_zero_whatever_the_file_holds_there() {
        let linear = Linear {
            name: "odd".into(),
            rows: 1,
            cols: 3,
            format: checkpoint::Format::I4,
            data: Data::of(vec![0x12, 0xf3]),
            row_scale: Some(vec![0.5]),
            grids: None,
        };
        let m = Matrix::stacked(vec![linear], WeightMode::Stored);
        let (mut w, mut s) = (Vec::new(), Vec::new());
        m.pack(0..m.padded_rows(), &mut w, &mut s).expect("in memory");
        let row = wgforge_codegen::io::row_words(&w, 8, 0, true);
        let row: Vec<i32> = (0..64).map(|c| field(&row, Format::I4, c)).collect();
        assert_eq!(&row[..4], &[2 - 8, 1 - 8, 3 - 8, 0], "three columns and padding");
        assert!(row[4..].iter().all(|v| *v == 0), "padding is zero");
        assert_eq!(s, [0.5f32.to_bits(), 0, 0, 0], "padding rows have scale 0");
    }

    #[test]
    fn group_quantisation_keeps_the_extreme_and_zero_groups() {
        let mut values = vec![0.0f32; 64];
        values[3] = -4.0;
        values[7] = 3.5;
        let (mut words, mut scales) = (vec![0; 8], Vec::new());
        quantize_groups(&values, Format::I4, &mut words, &mut scales);
        let scale = f16::from_bits((scales[0] & 0xffff) as u16).to_f32();
        assert_eq!(scale, 0.5, "-4 is code -8");
        assert_eq!(field(&words, Format::I4, 3), -8, "extreme");
        assert_eq!(field(&words, Format::I4, 7), 7, "3.5");
        assert_eq!(scales[0] >> 16, 0, "a group of zeros has scale 0");
    }
}
