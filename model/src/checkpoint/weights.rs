//! What a weight is, whatever file it came from.

use std::fmt;

use half::{bf16, f16};

use super::Data;
use crate::Result;

/// How the elements of a matrix are stored.
///
/// The packed formats are offset binary, lowest bits first: an `I4` byte holds columns 2c and
/// 2c+1 as `value + 8`, an `I2` byte holds columns 4c to 4c+3 as `value + 2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 32-bit floats, little endian.
    F32,
    /// 16-bit IEEE floats, little endian.
    F16,
    /// The upper half of 32-bit floats, little endian.
    Bf16,
    /// Signed bytes.
    I8,
    /// Two values of −8 to 7 a byte.
    I4,
    /// Four values of −2 to 1 a byte.
    I2,
}

impl Format {
    /// Bits of one element.
    pub fn bits(self) -> usize {
        match self {
            Self::F32 => 32,
            Self::F16 | Self::Bf16 => 16,
            Self::I8 => 8,
            Self::I4 => 4,
            Self::I2 => 2,
        }
    }

    /// Bytes of a row of `cols` elements.
    pub fn row_bytes(self, cols: usize) -> usize {
        (cols * self.bits()).div_ceil(8)
    }

    /// Whether elements are integers that need a scale.
    pub fn is_integer(self) -> bool {
        matches!(self, Self::I8 | Self::I4 | Self::I2)
    }

    /// Decodes a row without any scale. Decodes as many elements as `out` holds.
    pub fn decode(self, row: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => {
                for (o, b) in out.iter_mut().zip(row.as_chunks::<4>().0) {
                    *o = f32::from_le_bytes(*b);
                }
            }
            Self::F16 => {
                for (o, b) in out.iter_mut().zip(row.as_chunks::<2>().0) {
                    *o = f16::from_le_bytes(*b).to_f32();
                }
            }
            Self::Bf16 => {
                for (o, b) in out.iter_mut().zip(row.as_chunks::<2>().0) {
                    *o = bf16::from_le_bytes(*b).to_f32();
                }
            }
            Self::I8 => {
                for (o, b) in out.iter_mut().zip(row) {
                    *o = f32::from(b.cast_signed());
                }
            }
            Self::I4 => {
                for (c, o) in out.iter_mut().enumerate() {
                    *o = f32::from((row[c / 2] >> (4 * (c % 2))) & 15) - 8.0;
                }
            }
            Self::I2 => {
                for (c, o) in out.iter_mut().enumerate() {
                    *o = f32::from((row[c / 4] >> (2 * (c % 4))) & 3) - 2.0;
                }
            }
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I8 => "int8",
            Self::I4 => "int4",
            Self::I2 => "int2",
        })
    }
}

/// The static int8 grids of a linear layer: `x` becomes `clamp(round(x / step), −128, 127) × step`,
/// rounding half to even. A step of 0 leaves `x` as it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grids {
    /// Step of the vector that goes in.
    pub input: f32,
    /// Step of the vector that comes out.
    pub output: f32,
}

/// A matrix that multiplies: `y[r] = scale[r] · Σ_c w[r, c] · x[c]`.
#[derive(Debug, Clone)]
pub struct Linear {
    /// The module's name in the file, such as `model.language_model.layers.0.mlp.gate_proj`.
    pub name: String,
    /// Elements that come out.
    pub rows: usize,
    /// Elements that go in.
    pub cols: usize,
    /// How elements are stored.
    pub format: Format,
    /// The elements, row after row, each row [`Format::row_bytes`] long.
    pub data: Data,
    /// One factor a row; there where the format is an integer one.
    pub row_scale: Option<Vec<f32>>,
    /// Grids of the vectors around it; `None` where both are absent or 0.
    pub grids: Option<Grids>,
}

impl Linear {
    /// One row with its scale applied; `out` is `cols` long.
    ///
    /// # Errors
    /// As [`Data::range`].
    pub fn row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let bytes = self.format.row_bytes(self.cols);
        self.format.decode(&self.data.range(row * bytes..(row + 1) * bytes)?, out);
        if let Some(scale) = &self.row_scale {
            out.iter_mut().for_each(|w| *w *= scale[row]);
        }
        Ok(())
    }
}

/// A matrix of which single rows are taken.
#[derive(Debug, Clone)]
pub struct Table {
    /// The module's name in the file.
    pub name: String,
    /// Tokens.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// How elements are stored.
    pub format: Format,
    /// The elements, row after row, each row [`Format::row_bytes`] long.
    pub data: Data,
    /// Factors, and how many a row has: each holds for an equal run of columns.
    pub scale: Option<(Vec<f32>, usize)>,
}

impl Table {
    /// One row with its scales applied; `out` is `cols` long.
    ///
    /// # Errors
    /// As [`Data::range`].
    pub fn row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let bytes = self.format.row_bytes(self.cols);
        self.format.decode(&self.data.range(row * bytes..(row + 1) * bytes)?, out);
        if let Some((scales, per_row)) = &self.scale {
            let group = self.cols / per_row;
            for (run, scale) in out.chunks_mut(group).zip(&scales[row * per_row..]) {
                run.iter_mut().for_each(|w| *w *= scale);
            }
        }
        Ok(())
    }
}

/// Everything one layer holds. Norm weights multiply as they are (not 1 + weight).
#[derive(Debug, Clone)]
pub struct LayerWeights {
    /// Queries.
    pub q: Linear,
    /// Keys; `None` in layers that read another layer's.
    pub k: Option<Linear>,
    /// Values; `None` in layers that read another layer's.
    pub v: Option<Linear>,
    /// Attention's output projection.
    pub o: Linear,
    /// The feed-forward network's gate.
    pub gate: Linear,
    /// The feed-forward network's other half.
    pub up: Linear,
    /// The feed-forward network's way back.
    pub down: Linear,
    /// From the residual stream to the per-layer embedding's width.
    pub ple_gate: Linear,
    /// And back.
    pub ple_proj: Linear,
    /// Before attention.
    pub input_norm: Vec<f32>,
    /// After attention, before it is added.
    pub post_attention_norm: Vec<f32>,
    /// Before the feed-forward network.
    pub pre_feedforward_norm: Vec<f32>,
    /// After the feed-forward network, before it is added.
    pub post_feedforward_norm: Vec<f32>,
    /// After the per-layer embedding's projection, before it is added.
    pub post_ple_norm: Vec<f32>,
    /// Over each query head.
    pub q_norm: Vec<f32>,
    /// Over each key head; `None` in layers that read another layer's keys.
    pub k_norm: Option<Vec<f32>>,
    /// Multiplies the whole residual stream at the layer's end.
    pub scalar: f32,
}
