//! Buffers as the CPU references see them: words, read through element types.

use half::{bf16, f16};

use crate::types::{Act, Format, GROUP, ROW_ALIGN, Scale, stride};

/// One bound buffer of a CPU reference.
#[derive(Debug)]
pub enum Buf<'a> {
    /// Bound `read`.
    Read(&'a [u32]),
    /// Bound `read_write`.
    Write(&'a mut [u32]),
}

/// The buffers of one reference call, in the order of the kernel's bindings.
#[derive(Debug)]
pub struct Io<'a> {
    names: Vec<&'static str>,
    bufs: Vec<Buf<'a>>,
    /// Tokens of this call.
    pub tokens: usize,
}

impl<'a> Io<'a> {
    /// Pairs buffers with the names of [`crate::Kernel::bindings`].
    ///
    /// # Panics
    /// When the counts differ: the caller built the two lists from different shapes.
    pub fn new(names: Vec<&'static str>, bufs: Vec<Buf<'a>>, tokens: usize) -> Self {
        assert_eq!(names.len(), bufs.len(), "bindings {names:?} need as many buffers");
        Self { names, bufs, tokens }
    }

    fn index(&self, name: &str) -> usize {
        self.names
            .iter()
            .position(|n| *n == name)
            .unwrap_or_else(|| panic!("no binding `{name}` in {:?}", self.names))
    }

    /// The words of binding `name`.
    ///
    /// # Panics
    /// When the kernel has no such binding (a mistake in the kernel's own file).
    pub fn words(&self, name: &str) -> &[u32] {
        match &self.bufs[self.index(name)] {
            Buf::Read(w) => w,
            Buf::Write(w) => w,
        }
    }

    /// The words of the written binding `name`.
    ///
    /// # Panics
    /// When there is no such binding or it is read-only.
    pub fn words_mut(&mut self, name: &str) -> &mut [u32] {
        let i = self.index(name);
        match &mut self.bufs[i] {
            Buf::Write(w) => w,
            Buf::Read(_) => panic!("binding `{name}` is read-only"),
        }
    }

    /// Float `i` of binding `name`.
    pub fn f32(&self, name: &str, i: usize) -> f32 {
        f32::from_bits(self.words(name)[i])
    }

    /// Elements `from..from + n` of a vector of type `act`; codes are multiplied by `grid`.
    pub fn row(&self, name: &str, act: Act, from: usize, n: usize, grid: f32) -> Vec<f32> {
        let words = self.words(name);
        (from..from + n).map(|i| load(words, act, i, grid)).collect()
    }

    /// Writes `values` at element `from`.
    pub fn store(&mut self, name: &str, act: Act, from: usize, values: &[f32], grid: f32) {
        let words = self.words_mut(name);
        for (i, v) in values.iter().enumerate() {
            store(words, act, from + i, *v, grid);
        }
    }

    /// Position of the run's first token, from the binding `run`.
    pub fn position(&self) -> usize {
        self.words("run")[0] as usize
    }
}

/// Element `i` of packed `words`.
pub fn load(words: &[u32], act: Act, i: usize, grid: f32) -> f32 {
    match act {
        Act::F32 => f32::from_bits(words[i]),
        Act::F16 => f16::from_bits((words[i / 2] >> (16 * (i % 2)) & 0xffff) as u16).to_f32(),
        Act::I8 => f32::from(code(words, i)) * grid,
        Act::I32 => words[i].cast_signed() as f32 * grid,
        Act::Fixed => fixed(words, i),
    }
}

/// What the first word of [`Act::Fixed`] counts of a whole.
const FINE: f64 = 8_388_608.0;

/// The words of element `i` of [`Act::Fixed`].
pub(crate) fn fixed_words(i: usize) -> [usize; 2] {
    let align = ROW_ALIGN as usize;
    let first = i / align * 2 * align + i % align;
    [first, first + align]
}

#[expect(clippy::cast_possible_truncation, reason = "rounds to f32")]
fn fixed(words: &[u32], i: usize) -> f32 {
    let [fine, whole] = fixed_words(i).map(|at| f64::from(words[at].cast_signed()));
    (whole + fine / FINE) as f32
}

/// Adds `value` to element `i` of [`Act::Fixed`], as a workgroup does.
#[expect(clippy::cast_possible_truncation, reason = "clamped")]
pub(crate) fn add_fixed(words: &mut [u32], i: usize, value: f32) {
    let value = f64::from(value.clamp(-1_073_741_824.0, 1_073_741_824.0));
    let whole = value.round_ties_even();
    for (at, part) in fixed_words(i).into_iter().zip([((value - whole) * FINE).round(), whole]) {
        words[at] = words[at].cast_signed().wrapping_add(part as i32).cast_unsigned();
    }
}

/// Int8 code `i` of packed `words`.
#[expect(clippy::cast_possible_truncation, reason = "picks one byte")]
pub fn code(words: &[u32], i: usize) -> i8 {
    (words[i / 4] >> (8 * (i % 4))) as u8 as i8
}

/// Writes element `i` of packed `words`; integer codes are rounded half to even and saturate.
pub fn store(words: &mut [u32], act: Act, i: usize, value: f32, grid: f32) {
    match act {
        Act::F32 => words[i] = value.to_bits(),
        Act::F16 => put(words, i, 16, u32::from(f16::from_f32(value).to_bits())),
        Act::I8 => put(words, i, 8, u32::from(quantize(value, grid) as u8)),
        Act::I32 => words[i] = whole(value / grid).cast_unsigned(),
        Act::Fixed => {
            fixed_words(i).into_iter().for_each(|at| words[at] = 0);
            add_fixed(words, i, value);
        }
    }
}

/// A whole number.
#[expect(clippy::cast_possible_truncation, reason = "saturates, as kernels do")]
fn whole(value: f32) -> i32 {
    value as i32
}

/// A constant of a shape as kernels hold it.
#[expect(clippy::cast_possible_truncation, reason = "shapes keep f64 so that files show what people wrote")]
pub(crate) fn narrow(constant: f64) -> f32 {
    constant as f32
}

/// An index as kernels hold it.
#[expect(clippy::cast_possible_truncation, reason = "shapes count in u32")]
pub(crate) fn word(index: usize) -> u32 {
    index as u32
}

fn put(words: &mut [u32], i: usize, bits: usize, value: u32) {
    let per = 32 / bits;
    let shift = bits * (i % per);
    let mask = u32::MAX >> (32 - bits);
    words[i / per] = words[i / per] & !(mask << shift) | (value & mask) << shift;
}

/// `clamp(round_half_even(x / grid), -128, 127)`.
#[expect(clippy::cast_possible_truncation, reason = "clamped to the range of i8")]
pub fn quantize(x: f32, grid: f32) -> i8 {
    (x / grid).round_ties_even().clamp(-128.0, 127.0) as i8
}

/// A value put on a static grid and back; grid 0 means there is none.
pub fn srq(x: f32, grid: f32) -> f32 {
    if grid == 0.0 { x } else { (x / grid).round_ties_even().clamp(-128.0, 127.0) * grid }
}

/// Integer field `column` of a row that starts at `words[0]`, in [`Format`]'s layout.
pub fn field(words: &[u32], format: Format, column: usize) -> i32 {
    let bits = format.bits() as usize;
    let per_word = 32 / bits;
    let in_word = column % per_word;
    let (byte, level) = (in_word % 4, in_word / 4);
    let raw = words[column / per_word] >> (8 * byte + bits * level);
    ((raw << (32 - bits)) as i32) >> (32 - bits)
}

/// The `n` words of row `row`, whose rows lie in fours ([`crate::types::in_fours`]) or one after
/// the other.
pub fn row_words(w: &[u32], n: usize, row: usize, fours: bool) -> Vec<u32> {
    if fours {
        w[row / 4 * 4 * n + row % 4..].iter().step_by(4).take(n).copied().collect()
    } else {
        w[row * n..][..n].to_vec()
    }
}

/// Row `row` of a weight matrix as floats, scales applied.
pub fn weight_row(
    w: &[u32],
    scales: &[u32],
    format: Format,
    scale: Scale,
    row: usize,
    columns: usize,
    fours: bool,
) -> Vec<f32> {
    let words = &row_words(w, (format.row_bytes(word(columns)) / 4) as usize, row, fours)[..];
    let groups = (stride(word(columns)) / GROUP) as usize;
    let scale_of = |c: usize| match scale {
        Scale::None => 1.0,
        Scale::Row => f32::from_bits(scales[row]),
        Scale::Parts(n) => f32::from_bits(scales[row * n as usize + c / (columns / n as usize)]),
        Scale::Group if fours => {
            load(scales, Act::F16, (row / 4 * groups + c / GROUP as usize) * 4 + row % 4, 1.0)
        }
        Scale::Group => load(scales, Act::F16, row * groups + c / GROUP as usize, 1.0),
    };
    (0..columns)
        .map(|c| match format {
            Format::F32 => f32::from_bits(words[c]),
            Format::F16 => load(words, Act::F16, c, 1.0),
            Format::Bf16 => bf16::from_bits((words[c / 2] >> (16 * (c % 2)) & 0xffff) as u16).to_f32(),
            _ => field(words, format, c) as f32 * scale_of(c),
        })
        .collect()
}

/// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, the published activation.
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh())
}

/// Sum of products in eight running sums, which the compiler turns into vector code.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a8.zip(b8) {
        for i in 0..8 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f32>() + tail
}
