//! What is computed, on which numbers, and what must come out.

use anyhow::{Context as _, Result, bail};
use half::f16;
use wgforge_codegen::{
    Caps, Workload,
    check::{Case, Inputs, Rng},
    kernels::gemv::{Epilogue, Shape},
    types::{Act, Format, Scale},
};

/// Rows and columns of the matrices that a token of Gemma 4 E2B is multiplied with; the last is the
/// head.
const VECTORS: [(u32, u32); 13] = [
    (2560, 1536),
    (2048, 1536),
    (5120, 1536),
    (1536, 2048),
    (1536, 4096),
    (12_288, 1536),
    (24_576, 1536),
    (1536, 6144),
    (1536, 12_288),
    (256, 1536),
    (1536, 256),
    (8960, 1536),
    (262_144, 1536),
];
const MATMULS: [u32; 4] = [512, 1024, 2048, 4096];
/// Rows of the result that are compared, of a product of matrices.
const CHECKED_TOKENS: u32 = 4;
/// Elements of the result that are compared, of a product with a vector.
const CHECKED_ROWS: u32 = 8192;

/// `Y = X W^T`: `X` has `tokens` rows, `W` has `rows` rows, both have `columns` columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Problem {
    pub(crate) tokens: u32,
    pub(crate) rows: u32,
    pub(crate) columns: u32,
    /// Of all three matrices.
    pub(crate) act: Act,
}

/// All problems; with `sizes`, square ones of these sizes instead.
pub(crate) fn all(sizes: &[u32]) -> Vec<Problem> {
    let vector = |&(rows, columns): &(u32, u32)| Problem { tokens: 1, rows, columns, act: Act::F16 };
    let matmuls = if sizes.is_empty() { &MATMULS[..] } else { sizes };
    let mut all: Vec<Problem> = [Act::F16, Act::F32]
        .into_iter()
        .flat_map(|act| matmuls.iter().map(move |&n| Problem { tokens: n, rows: n, columns: n, act }))
        .collect();
    if sizes.is_empty() {
        all.extend(VECTORS.iter().map(vector));
    } else {
        all.extend(sizes.iter().map(|&n| vector(&(n, n))));
    }
    all
}

impl Problem {
    pub(crate) fn is_vector(&self) -> bool {
        self.tokens == 1
    }

    pub(crate) fn name(&self) -> String {
        let act = if self.act == Act::F16 { "f16" } else { "f32" };
        let Self { tokens, rows, columns, .. } = self;
        if self.is_vector() {
            format!("vector {act} {rows}x{columns}")
        } else {
            format!("matmul {act} {tokens}x{rows}x{columns}")
        }
    }

    /// Bytes of an element.
    pub(crate) fn element(&self) -> u64 {
        if self.act == Act::F16 { 2 } else { 4 }
    }

    /// Bytes of the matrix `W`.
    pub(crate) fn weight_bytes(&self) -> u64 {
        u64::from(self.rows) * u64::from(self.columns) * self.element()
    }

    /// Bytes of all three matrices.
    pub(crate) fn bytes(&self) -> u64 {
        self.weight_bytes()
            + u64::from(self.tokens) * (u64::from(self.rows) + u64::from(self.columns)) * self.element()
    }

    /// Multiplications and additions.
    pub(crate) fn flops(&self) -> u64 {
        2 * u64::from(self.tokens) * u64::from(self.rows) * u64::from(self.columns)
    }

    /// GB/s of a product with a vector, TFLOP/s of one of matrices, at `us` µs.
    pub(crate) fn rate(&self, us: f64) -> (f64, &'static str) {
        if self.is_vector() {
            (self.bytes() as f64 / us / 1e3, "GB/s")
        } else {
            (self.flops() as f64 / us / 1e6, "TFLOP/s")
        }
    }

    /// The largest error allowed, in parts of the root mean square of the results. Roundings of
    /// f16 results are up to 2^-11 of the largest, about four times that; products may also be
    /// rounded to TF32, by 2^-11 each.
    pub(crate) fn tolerance(&self) -> f64 {
        if self.act == Act::F16 { 1e-2 } else { 2e-3 }
    }

    pub(crate) fn workload(&self) -> Workload {
        let shape = Shape {
            rows: self.rows,
            total: self.rows,
            first: 0,
            columns: self.columns,
            format: if self.act == Act::F16 { Format::F16 } else { Format::F32 },
            scale: Scale::None,
            x: self.act,
            out: self.act,
            grids: false,
            epilogue: Epilogue::Store,
            split_a: 0,
            split_b: 0,
            softcap: 0.0,
            norm: None,
        };
        if self.is_vector() { Workload::Gemv(shape) } else { Workload::Gemm(shape) }
    }
}

/// A problem's numbers and samples of its result.
pub(crate) struct Data {
    pub(crate) problem: Problem,
    /// Names and words of wgforge's bindings. Rows are dense: no row is padded.
    pub(crate) buffers: Vec<(&'static str, Vec<u32>)>,
    /// Places in `Y` and what is there.
    expected: Vec<(usize, f64)>,
    /// Root mean square of what is expected.
    rms: f64,
}

impl Data {
    pub(crate) fn new(problem: Problem, caps: &Caps) -> Result<Self> {
        if !problem.rows.is_multiple_of(64) || !problem.columns.is_multiple_of(64) {
            bail!("rows and columns must be multiples of 64, so that both sides see the same rows");
        }
        let variant = problem.workload().generic(caps);
        let case = Case::draw(&variant, Inputs::Random, problem.tokens, 0, 1);
        let buffers: Vec<(&'static str, Vec<u32>)> =
            variant.bindings().into_iter().zip(case.buffers).collect();
        let mut data = Self { problem, buffers, expected: Vec::new(), rms: 0.0 };
        data.expect()?;
        Ok(data)
    }

    pub(crate) fn words(&self, name: &str) -> Result<&[u32]> {
        let found = self.buffers.iter().find(|(n, _)| *n == name);
        found.map(|(_, words)| &words[..]).with_context(|| format!("the kernel has no binding `{name}`"))
    }

    /// Products of the sampled rows, in f64.
    fn expect(&mut self) -> Result<()> {
        let Problem { tokens, rows, columns, act } = self.problem;
        let (n, k) = (rows as usize, columns as usize);
        let mut rng = Rng::new(2);
        let places: Vec<(usize, usize)> = if self.problem.is_vector() {
            if rows <= CHECKED_ROWS {
                (0..n).map(|r| (0, r)).collect()
            } else {
                let inner = (2..CHECKED_ROWS).map(|_| (0, rng.below(rows) as usize));
                inner.chain([(0, 0), (0, n - 1)]).collect()
            }
        } else {
            let inner = (2..CHECKED_TOKENS).map(|_| rng.below(tokens) as usize);
            let some: Vec<usize> = inner.chain([0, tokens as usize - 1]).collect();
            some.into_iter().flat_map(|t| (0..n).map(move |r| (t, r))).collect()
        };
        let (w, x) = (self.words("w")?, self.words("x")?);
        let expected: Vec<(usize, f64)> = places
            .into_iter()
            .map(|(t, r)| {
                let sum: f64 = (0..k).map(|c| element(w, act, r * k + c) * element(x, act, t * k + c)).sum();
                (t * n + r, sum)
            })
            .collect();
        let squares: f64 = expected.iter().map(|(_, v)| v * v).sum();
        self.rms = (squares / expected.len() as f64).sqrt();
        self.expected = expected;
        Ok(())
    }

    /// The largest error of `y`, in parts of the root mean square; infinite for what is no number
    /// or not there.
    pub(crate) fn error(&self, y: &[u32]) -> f64 {
        let per_word = if self.problem.act == Act::F16 { 2 } else { 1 };
        let largest = self.expected.iter().map(|&(at, want)| {
            let got = if at / per_word < y.len() { element(y, self.problem.act, at) } else { f64::NAN };
            if got.is_finite() { (got - want).abs() / self.rms } else { f64::INFINITY }
        });
        largest.fold(0.0, f64::max)
    }
}

fn element(words: &[u32], act: Act, i: usize) -> f64 {
    if act == Act::F16 {
        let bits = (words[i / 2] >> (16 * (i % 2))) & 0xffff;
        f16::from_bits(u16::try_from(bits).unwrap_or(0)).to_f64()
    } else {
        f64::from(f32::from_bits(words[i]))
    }
}
