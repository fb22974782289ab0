//! Random inputs for any workload, and the comparison of a device's outputs with the reference.
//!
//! Inputs are drawn afresh from a seed; outputs start poisoned, so an element nobody wrote shows.

use crate::{
    Variant,
    io::{self, Buf, Io},
    kernels::{gemv, rope::angle_table},
    types::{Act, Format, Scale, round_up, stride},
};

/// What an output that was never written holds: a NaN no kernel produces.
pub const POISON: u32 = 0x7fc0_dead;

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
}

/// Buffers for one call of a variant, in the order of its bindings.
#[derive(Debug, Clone)]
pub struct Case {
    /// Inputs filled, outputs poisoned.
    pub buffers: Vec<Vec<u32>>,
    /// Tokens of the call.
    pub tokens: u32,
    /// Position of the first token.
    pub position: u32,
}

impl Case {
    /// Draws a case. `position` sets how many keys attention sees before the first token.
    pub fn draw(variant: &Variant, tokens: u32, position: u32, seed: u64) -> Self {
        let tokens = if variant.one_token() { 1 } else { tokens };
        let mut d = Draw { rng: Rng::new(seed), tokens, position };
        let buffers = variant.bindings().into_iter().map(|name| d.buffer(variant, name)).collect();
        Self { buffers, tokens, position }
    }

    /// What the reference makes of it.
    pub fn expected(&self, variant: &Variant) -> Vec<Vec<u32>> {
        let mut buffers = self.buffers.clone();
        let names = variant.bindings();
        let written = variant.written();
        let bufs = names
            .iter()
            .zip(&mut buffers)
            .map(|(n, b)| if written.contains(n) { Buf::Write(b) } else { Buf::Read(b) })
            .collect();
        variant.workload().reference(&mut Io::new(names.clone(), bufs, self.tokens as usize));
        buffers
    }

    /// Compares outputs: integer paths bit for bit, floats within a bound relative to the row's
    /// largest value, codes that come from float sums within one step.
    ///
    /// # Errors
    /// Says which element of which output differs, and by how much.
    pub fn compare(&self, variant: &Variant, expected: &[Vec<u32>], got: &[Vec<u32>]) -> Result<(), String> {
        for (i, name) in variant.bindings().into_iter().enumerate() {
            if variant.written().contains(&name) {
                let (act, tolerance) = variant.output(name);
                compare_words(&expected[i], &got[i], act, tolerance).map_err(|e| format!("`{name}`: {e}"))?;
            }
        }
        Ok(())
    }
}

/// How an output's words are to be compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// Every bit.
    Exact,
    /// Floats: this fraction of the output's largest magnitude.
    Relative(f32),
    /// Codes: this many steps, in at most one element of a hundred (a float sum near a grid edge).
    Steps(i32),
}

fn compare_words(expected: &[u32], got: &[u32], act: Act, tolerance: Tolerance) -> Result<(), String> {
    if expected.len() != got.len() {
        return Err(format!("{} words instead of {}", got.len(), expected.len()));
    }
    match tolerance {
        Tolerance::Exact => match expected.iter().zip(got).position(|(a, b)| a != b) {
            Some(i) => Err(format!("word {i} is {:#010x} instead of {:#010x}", got[i], expected[i])),
            None => Ok(()),
        },
        Tolerance::Steps(steps) => {
            let mut moved = 0;
            for i in 0..expected.len() * 4 {
                let (a, b) = (i32::from(io::code(expected, i)), i32::from(io::code(got, i)));
                if (a - b).abs() > steps {
                    return Err(format!("code {i} is {b} instead of {a}"));
                }
                moved += usize::from(a != b);
            }
            if moved * 100 > expected.len() * 4 + 100 {
                return Err(format!("{moved} of {} codes differ", expected.len() * 4));
            }
            Ok(())
        }
        Tolerance::Relative(bound) => {
            let n = if act == Act::F16 { expected.len() * 2 } else { expected.len() };
            let live = |words: &[u32], i: usize| {
                let w = if act == Act::F16 { words[i / 2] } else { words[i] };
                (w != POISON).then(|| io::load(words, act, i, 1.0))
            };
            let largest = (0..n).filter_map(|i| live(expected, i)).fold(0.0f32, |m, v| m.max(v.abs()));
            for i in 0..n {
                match (live(expected, i), live(got, i)) {
                    (None, _) => {}
                    (Some(_), None) => return Err(format!("element {i} was not written")),
                    (Some(a), Some(b)) if (a - b).abs() <= bound * largest.max(1e-6) => {}
                    (Some(a), Some(b)) => {
                        return Err(format!(
                            "element {i} is {b} instead of {a} (largest magnitude {largest})"
                        ));
                    }
                }
            }
            Ok(())
        }
    }
}

struct Draw {
    rng: Rng,
    tokens: u32,
    position: u32,
}

impl Draw {
    fn floats(&mut self, n: u64, scale: f32) -> Vec<u32> {
        (0..n).map(|_| (self.rng.unit() * scale).to_bits()).collect()
    }

    /// Norm weights of either sign around 1: weights of one sign hide wrong sums.
    fn weights(&mut self, columns: u32) -> Vec<u32> {
        let mut w: Vec<u32> = (0..columns)
            .map(|_| {
                let v = 1.0 + 0.5 * self.rng.unit();
                (if self.rng.below(2) == 0 { v } else { -v }).to_bits()
            })
            .collect();
        w.resize(stride(columns) as usize, 0);
        w
    }

    /// Rows of activations whose padding is zero, as every producer leaves it.
    fn rows(&mut self, rows: u32, columns: u32, act: Act) -> Vec<u32> {
        let width = stride(columns) as usize;
        let mut words = vec![0; (u64::from(rows) * act.row_bytes(columns) / 4) as usize];
        for r in 0..rows as usize {
            for c in 0..columns as usize {
                // Codes of the whole range, floats of unit size.
                let v = self.rng.unit() * if act == Act::I8 { 140.0 } else { 1.0 };
                io::store(&mut words, act, r * width + c, v, 1.0);
            }
        }
        words
    }

    fn poison(bytes: u64) -> Vec<u32> {
        vec![POISON; (bytes / 4) as usize]
    }

    fn matrix(
        &mut self,
        rows: u32,
        real_rows: impl Fn(u32) -> bool,
        columns: u32,
        format: Format,
    ) -> Vec<u32> {
        let words = (format.row_bytes(columns) / 4) as usize;
        let mut all = vec![0u32; rows as usize * words];
        for r in (0..rows).filter(|r| real_rows(*r)) {
            let row = &mut all[r as usize * words..][..words];
            for c in 0..columns as usize {
                match format {
                    Format::F32 => row[c] = self.rng.unit().to_bits(),
                    Format::F16 => io::store(row, Act::F16, c, self.rng.unit(), 1.0),
                    Format::Bf16 => row[c / 2] |= (self.rng.unit().to_bits() >> 16) << (16 * (c % 2)),
                    _ => {
                        let bits = format.bits() as usize;
                        let per_word = 32 / bits;
                        let shift = 8 * (c % per_word % 4) + bits * (c % per_word / 4);
                        row[c / per_word] |= self.rng.below(1 << bits) << shift;
                    }
                }
            }
        }
        all
    }

    fn scales(&mut self, rows: u32, columns: u32, scale: Scale) -> Vec<u32> {
        let n = (u64::from(rows) * scale.row_bytes(columns) / 4) as usize;
        if scale == Scale::Group {
            let mut words = vec![0; n.next_multiple_of(4)];
            for i in 0..n * 2 {
                let v = 0.02 + 0.01 * self.rng.unit();
                io::store(&mut words, Act::F16, i, v, 1.0);
            }
            return words;
        }
        (0..n.next_multiple_of(4)).map(|_| (0.02 + 0.01 * self.rng.unit()).to_bits()).collect()
    }

    fn product(&mut self, s: &gemv::Shape, name: &str, tokens: u32) -> Vec<u32> {
        let pairs = s.epilogue == gemv::Epilogue::Geglu;
        let (rows, n) = (s.padded_rows(), s.rows);
        match name {
            "w" => {
                self.matrix(rows, |r| if pairs { r / 8 * 4 + r % 4 < n } else { r < n }, s.columns, s.format)
            }
            "scales" => self.scales(rows, s.columns, s.scale),
            "x" => self.rows(tokens, s.columns, s.x),
            "aux" => self.rows(tokens, s.total, Act::F32),
            "grids" => {
                // Sums of `columns` products spread over the grid, with some saturation.
                let spread = 0.02
                    * 70.0
                    * 4.0
                    * (s.columns as f32).sqrt()
                    * if s.format == Format::I8 { 16.0 } else { 1.0 };
                let input = if s.x.is_int() { 0.03 } else { 0.0 };
                let out = spread * if s.x.is_int() { 0.03 } else { 0.2 } / 60.0;
                let v = [input, out, out * 1.1, out * 0.9, out * 2.0, 0.0, 0.0, 0.0];
                v.iter().map(|v| v.to_bits()).collect()
            }
            _ => Self::poison(u64::from(tokens) * s.out.row_bytes(s.total)),
        }
    }

    fn run(&self) -> Vec<u32> {
        vec![self.position, self.tokens, 17, 4]
    }

    fn buffer(&mut self, variant: &Variant, name: &str) -> Vec<u32> {
        let t = self.tokens;
        match (variant, name) {
            (_, "run") => self.run(),
            (_, "ids") if variant.written().contains(&"ids") => vec![0; 4],
            (_, "chosen") => vec![0; 64],
            (Variant::Gemv { shape, .. } | Variant::Gemm { shape, .. }, _) => self.product(shape, name, t),
            (Variant::Gather { shape: s, .. }, _) => match name {
                "ids" => (0..t).map(|_| s.first + self.rng.below(s.rows)).collect(),
                "table" => self.matrix(s.rows, |_| true, s.columns, s.format),
                "scales" => self.scales(s.rows, s.columns, s.scale),
                _ => vec![0; (u64::from(t) * Act::F32.row_bytes(s.columns) / 4) as usize],
            },
            (Variant::PleMix { shape: s, .. }, _) => match name {
                "context" => self.rows(t, s.layers * s.dim, s.context),
                "table" => self.rows(t, s.layers * s.dim, Act::F32),
                "weight" => self.weights(s.dim),
                _ => Self::poison(u64::from(s.layers * s.capacity) * Act::F32.row_bytes(s.dim)),
            },
            (Variant::Norm { shape: s, .. }, _) => match name {
                "x" => self.rows(t, s.width, Act::F32),
                "y" => self.rows(t, s.width, s.y),
                "post" | "pre" => self.weights(s.width),
                "scalar" => vec![0.7f32.to_bits(); 4],
                "grids" => vec![0.03f32.to_bits(); 4],
                "sum" => Self::poison(u64::from(t) * Act::F32.row_bytes(s.width)),
                _ => Self::poison(u64::from(t) * s.out.unwrap_or(Act::F32).row_bytes(s.width)),
            },
            (Variant::Rope { shape: s, .. }, _) => match name {
                "qkv" => self.rows(t, (s.heads + 2 * s.kv_heads) * s.dim, s.qkv),
                "q_norm" | "k_norm" => self.weights(s.dim),
                "angles" => angle_table(s.dim, s.rotary, 10_000.0, self.position + t + 256)
                    .iter()
                    .map(|v| v.to_bits())
                    .collect(),
                "q" => Self::poison(u64::from(t) * s.q.row_bytes(s.heads * s.dim)),
                _ => vec![0; self.cache_words(s.ring, s.kv_heads * s.dim, s.kv)],
            },
            (Variant::Attention { shape: s, .. }, _) => match name {
                "q" => self.rows(t, s.heads * s.dim, s.q),
                "k" | "v" => {
                    let n = self.cache_words(s.ring, s.kv_heads * s.dim, s.kv);
                    let mut words = vec![0; n];
                    let per = if s.kv == Act::F16 { 2 } else { 1 };
                    for i in 0..n * per {
                        io::store(&mut words, s.kv, i, self.rng.unit(), 1.0);
                    }
                    words
                }
                "grids" => vec![0.02f32.to_bits(); 8],
                _ => Self::poison(u64::from(t) * s.out.row_bytes(s.heads * s.dim)),
            },
            (Variant::AttentionMerge { shape: s, .. }, _) => match name {
                "partials" => {
                    let mut words = self.floats(s.partial_bytes(t) / 4, 3.0);
                    let row = s.dim as usize + 4;
                    for (i, r) in words.chunks_exact_mut(row).enumerate() {
                        // Every third range is empty.
                        let empty = i % 3 == 2;
                        r[s.dim as usize] =
                            (if empty { -3.0e38f32 } else { 2.0 * self.rng.unit() }).to_bits();
                        r[s.dim as usize + 1] = (if empty { 0.0 } else { 1.5 + self.rng.unit() }).to_bits();
                    }
                    words
                }
                "grids" => vec![0.05f32.to_bits(); 8],
                _ => Self::poison(u64::from(t) * s.out.row_bytes(s.heads * s.dim)),
            },
            (Variant::Argmax { shape: s, config }, _) => match name {
                "logits" => self.ties(s.n),
                "values" if s.last => self.ties(s.n),
                "indices" if s.last => (0..s.n).map(|i| 3 * i + 1).collect(),
                _ => Self::poison(u64::from(round_up(s.slices(config), 4)) * 4),
            },
            (Variant::Topk { shape: s, .. }, _) => match name {
                "values" => self.ties(s.n),
                "indices" => (0..s.n).map(|i| 3 * i + 1).collect(),
                _ => Self::poison(u64::from(s.slices() * s.keep) * 4),
            },
            (Variant::Sample { shape: s, .. }, _) => match name {
                "values" => (0..s.n).map(|i| (5.0 - 0.05 * i as f32).to_bits()).collect(),
                "indices" => (0..s.n).map(|i| 7 * i + 2).collect(),
                _ => vec![0.8f32.to_bits(), 0.9f32.to_bits(), 50, 0],
            },
        }
    }

    /// Values with many equals, so that the order among ties shows.
    fn ties(&mut self, n: u32) -> Vec<u32> {
        (0..n).map(|_| (self.rng.below(500) as f32 * 0.01 - 2.0).to_bits()).collect()
    }

    fn cache_words(&self, ring: u32, row: u32, kv: Act) -> usize {
        let slots = if ring > 0 { ring } else { self.position + self.tokens };
        let elements = slots as usize * row as usize;
        if kv == Act::F16 { elements / 2 } else { elements }
    }
}

impl Variant {
    /// True for the kernels that run once, whatever the number of tokens.
    pub fn one_token(&self) -> bool {
        match self {
            Self::Gemv { .. } | Self::Argmax { .. } | Self::Topk { .. } | Self::Sample { .. } => true,
            Self::Attention { shape, .. } => shape.decode,
            _ => false,
        }
    }

    /// Names of the bindings the kernel writes; reflection agrees, by test.
    pub fn written(&self) -> &'static [&'static str] {
        match self {
            Self::Norm { .. } => &["sum", "out"],
            Self::Rope { .. } => &["q", "k", "v"],
            Self::Argmax { shape, .. } if shape.last => &["run", "ids", "chosen"],
            Self::Argmax { .. } => &["values", "indices"],
            Self::Topk { .. } => &["top_values", "top_indices"],
            Self::Sample { .. } => &["run", "ids", "chosen"],
            Self::Attention { .. } => &["out", "partials"],
            _ => &["out"],
        }
    }

    /// Element type of an output and how closely it must agree with the reference.
    pub fn output(&self, name: &str) -> (Act, Tolerance) {
        let float = |act: Act, bound: f32| match act {
            Act::F32 => (act, Tolerance::Relative(bound)),
            // One rounding to 11 bits, either way.
            Act::F16 => (act, Tolerance::Relative(bound.max(1.1e-3))),
            Act::I8 => (act, Tolerance::Steps(1)),
        };
        match (self, name) {
            (Self::Gemv { shape: s, .. } | Self::Gemm { shape: s, .. }, _) => {
                let transcendental = matches!(
                    s.epilogue,
                    gemv::Epilogue::Geglu | gemv::Epilogue::Ple | gemv::Epilogue::Softcap
                );
                // Tiles in f16 round each operand to 11 bits.
                let f16_tile = matches!(self, Self::Gemm { config, .. } if config.f16_tile);
                match (s.x, s.out, transcendental) {
                    _ if f16_tile => float(s.out, 3e-3),
                    (Act::I8, Act::I8 | Act::F32, false) => (s.out, Tolerance::Exact),
                    (Act::I8, _, _) => float(s.out, 2e-5),
                    // A float sum on an output grid may fall on either side of an edge.
                    (_, out, _) if s.grids => float(out, 0.05),
                    (_, out, _) => float(out, 5e-5),
                }
            }
            (Self::Norm { shape: s, .. }, "out") => float(s.out.unwrap_or(Act::F32), 2e-5),
            (Self::Rope { shape: s, .. }, "q") => float(s.q, 2e-5),
            (Self::Rope { shape: s, .. }, _) => float(s.kv, 2e-5),
            (Self::Attention { shape: s, .. }, _) => float(s.out, 5e-5),
            (Self::AttentionMerge { shape: s, .. }, _) => float(s.out, 2e-5),
            (Self::Argmax { .. } | Self::Topk { .. } | Self::Sample { .. }, _) => {
                (Act::F32, Tolerance::Exact)
            }
            _ => (Act::F32, Tolerance::Relative(2e-5)),
        }
    }
}
