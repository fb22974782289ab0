//! What kernels draw their inputs with.

use super::{Inputs, POISON};
use crate::{
    io,
    types::{Act, Format, Scale, stride},
};

/// A counter-based generator (`SplitMix64`).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in (-1, 1), by 24 bits.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / 8_388_608.0 - 1.0
    }

    /// Uniform below `n`.
    pub fn below(&mut self, n: u32) -> u32 {
        u32::try_from(self.bits() % u64::from(n.max(1))).unwrap_or(0)
    }

    /// One of `choices`, which must not be empty.
    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(io::word(choices.len())) as usize]
    }
}

/// The state [`crate::Kernel::draw`] draws from: called for each binding in order, it returns that
/// buffer's words.
#[derive(Debug, Clone)]
pub struct Draw {
    /// Where the numbers come from.
    pub rng: Rng,
    /// What they are to be like.
    pub inputs: Inputs,
    /// Tokens of the call.
    pub tokens: u32,
    /// Position of the first token.
    pub position: u32,
}

impl Draw {
    /// One float. Random: within `scale`, a power of two. Extreme: 0, or of magnitude `scale` / 16,
    /// `scale` or 32 `scale`. Ties: `scale` times an integer from -4 to 4.
    pub fn float(&mut self, scale: f32) -> f32 {
        match self.inputs {
            Inputs::Random => self.rng.unit() * scale,
            Inputs::Extreme => {
                let sign = self.rng.pick(&[-1.0, 1.0]);
                sign * scale * self.rng.pick(&[0.0, 0.0625, 1.0, 32.0])
            }
            Inputs::Ties => (self.rng.below(9) as f32 - 4.0) * scale,
        }
    }

    /// `n` floats, each as by [`Draw::float`].
    pub fn floats(&mut self, n: u64, scale: f32) -> Vec<u32> {
        (0..n).map(|_| self.float(scale).to_bits()).collect()
    }

    /// One int8 code. Random: all, ends more often. Extreme: mostly ends. Ties: -1, 0 or 1.
    pub fn code(&mut self) -> f32 {
        match self.inputs {
            Inputs::Random => self.rng.unit() * 140.0,
            Inputs::Extreme => self.rng.pick(&[-128.0, 127.0, -128.0, 127.0, 0.0, -1.0]),
            Inputs::Ties => self.rng.below(3) as f32 - 1.0,
        }
    }

    /// Rows of activations in [`stride`]`(columns)` elements each, whose padding is zero, as every
    /// producer leaves it: codes, or floats as by [`Draw::float`].
    pub fn rows(&mut self, rows: u32, columns: u32, act: Act, scale: f32) -> Vec<u32> {
        let width = stride(columns) as usize;
        let mut words = vec![0; words_of(u64::from(rows) * act.row_bytes(columns))];
        for r in 0..rows as usize {
            for c in 0..columns as usize {
                let v = if act == Act::I8 { self.code() } else { self.float(scale) };
                io::store(&mut words, act, r * width + c, v, 1.0);
            }
        }
        words
    }

    /// Norm weights of either sign around 1, padded: weights of one sign hide wrong sums.
    pub fn weights(&mut self, columns: u32) -> Vec<u32> {
        let mut w: Vec<u32> = (0..columns)
            .map(|_| {
                let v = match self.inputs {
                    Inputs::Random => 1.0 + 0.5 * self.rng.unit(),
                    Inputs::Extreme => self.rng.pick(&[0.001, 1.0, 20.0]),
                    Inputs::Ties => self.rng.pick(&[0.5, 1.0, 2.0]),
                };
                (self.rng.pick(&[1.0, -1.0]) * v).to_bits()
            })
            .collect();
        w.resize(stride(columns) as usize, 0);
        w
    }

    /// An integer field of `bits` bits.
    fn field(&mut self, bits: u32) -> u32 {
        let (low, high) = (1 << (bits - 1), (1 << (bits - 1)) - 1);
        match self.inputs {
            Inputs::Random => self.rng.below(1 << bits),
            Inputs::Extreme => self.rng.pick(&[low, high]),
            // Small enough that sums stay near the grid, whatever the width of the field.
            Inputs::Ties if bits > 4 => self.rng.below(16).wrapping_sub(8) & (u32::MAX >> (32 - bits)),
            Inputs::Ties => self.rng.below(1 << bits),
        }
    }

    /// A weight matrix in `format`'s layout; rows for which `real` is false are zero.
    pub fn matrix(
        &mut self,
        rows: u32,
        real: impl Fn(u32) -> bool,
        columns: u32,
        format: Format,
        fours: bool,
    ) -> Vec<u32> {
        let words = words_of(format.row_bytes(columns));
        // The products of float weights and floats must stay within f16.
        let scale = if self.inputs == Inputs::Extreme { 1.0 / 32.0 } else { 1.0 };
        let mut all = vec![0u32; rows as usize * words];
        for r in (0..rows).filter(|r| real(*r)) {
            let row = &mut all[r as usize * words..][..words];
            for c in 0..columns as usize {
                match format {
                    Format::F32 => row[c] = self.float(scale).to_bits(),
                    Format::F16 => io::store(row, Act::F16, c, self.float(scale), 1.0),
                    Format::Bf16 => row[c / 2] |= (self.float(scale).to_bits() >> 16) << (16 * (c % 2)),
                    _ => {
                        let bits = format.bits() as usize;
                        let per_word = 32 / bits;
                        let shift = 8 * (c % per_word % 4) + bits * (c % per_word / 4);
                        row[c / per_word] |= self.field(format.bits()) << shift;
                    }
                }
            }
        }
        if fours {
            for four in all.chunks_exact_mut(4 * words) {
                let rows = four.to_vec();
                four.iter_mut().enumerate().for_each(|(i, word)| *word = rows[i % 4 * words + i / 4]);
            }
        }
        all
    }

    /// The scales of a weight matrix, around 0.02.
    pub fn scales(&mut self, rows: u32, columns: u32, scale: Scale) -> Vec<u32> {
        let n = words_of(u64::from(rows) * scale.row_bytes(columns));
        let mut words = vec![0; n.next_multiple_of(4)];
        let (act, count) = if scale == Scale::Group { (Act::F16, n * 2) } else { (Act::F32, words.len()) };
        for i in 0..count {
            let v = match self.inputs {
                Inputs::Random => 0.02 + 0.01 * self.rng.unit(),
                Inputs::Extreme => self.rng.pick(&[0.001, 0.02, 0.05]),
                Inputs::Ties => self.rng.pick(&[1.0 / 64.0, 1.0 / 32.0]),
            };
            io::store(&mut words, act, i, v, 1.0);
        }
        words
    }

    /// Grids of which only the first counts, near `grid`: a power of two for ties, and so small
    /// for extreme inputs that codes saturate.
    pub fn grid(&self, grid: f32) -> Vec<u32> {
        let grid = match self.inputs {
            Inputs::Random => grid,
            Inputs::Extreme => grid / 8.0,
            Inputs::Ties => grid.log2().floor().exp2(),
        };
        vec![grid.to_bits(); 8]
    }

    /// Values to choose from with many equals, so that the order among them shows.
    pub fn equals(&mut self, n: u32) -> Vec<u32> {
        let (kinds, step) = match self.inputs {
            Inputs::Random => (500, 0.01),
            Inputs::Extreme => (500, 1e30),
            Inputs::Ties => (3, 1.0),
        };
        (0..n).map(|_| ((self.rng.below(kinds) as f32 - 200.0) * step).to_bits()).collect()
    }

    /// An output of `bytes` bytes.
    pub fn poison(bytes: u64) -> Vec<u32> {
        vec![POISON; words_of(bytes)]
    }

    /// The binding `run`: position, tokens and a seed, as `parts/prelude.wgsl` declares it.
    pub fn run(&self) -> Vec<u32> {
        vec![self.position, self.tokens, 17, 4]
    }

    /// Elements of a KV cache of `row` elements a slot: `ring` slots, or one for each position.
    pub fn cache_elements(&self, ring: u32, row: u32) -> usize {
        let slots = if ring > 0 { ring } else { self.position + self.tokens };
        slots as usize * row as usize
    }
}

/// Words that `bytes` bytes take.
fn words_of(bytes: u64) -> usize {
    usize::try_from(bytes / 4).unwrap_or(usize::MAX)
}
