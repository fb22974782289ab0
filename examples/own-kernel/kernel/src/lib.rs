//! `y = max(x W + bias, 0)`: a layer of a network in one dispatch. All that is known about the
//! kernel stands here and in its template; the build script and the tuner use it, the program does
//! not.

use serde::{Deserialize, Serialize};
use wgforge_codegen::{
    Arithmetic, Caps, Cost, Families, Kernel, Reason,
    check::{Draw, Inputs, Tolerance},
    custom::{self, FamilyError},
    io::{self, Io},
    kernels::{common_why_not, f16_choices},
    require,
    types::Act,
};

/// The family.
#[derive(Clone, Copy, Debug)]
pub struct MatmulBiasRelu;

/// What is computed, for any number of tokens. `x`: `[token][inputs]`, `w`: `[inputs][outputs]`,
/// `y`: `[token][outputs]` in the type of `storage`; `bias`: `[outputs]` in f32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// A multiple of 4.
    pub inputs: u32,
    /// A multiple of 4.
    pub outputs: u32,
    /// `F32` or `F16`; sums are f32 either way.
    pub storage: Act,
}

/// How it is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads of a workgroup, each with four outputs.
    pub wg: u32,
    /// Tokens of a thread; each takes eight registers, so at most 16.
    pub tokens: u32,
    /// Reads and writes f16 by WGSL's type instead of packed words.
    pub f16: bool,
}

/// The layers of the program, which the tuner tunes.
pub fn workloads() -> Vec<wgforge_codegen::Workload> {
    let layer = |storage| custom::workload::<MatmulBiasRelu>(Shape { inputs: 512, outputs: 1024, storage });
    vec![layer(Act::F32), layer(Act::F16)]
}

/// The kernels that databases and evidence may name.
///
/// # Errors
/// A name that is taken.
pub fn families() -> Result<Families, FamilyError> {
    Families::builtin().with::<MatmulBiasRelu>()
}

impl Kernel for MatmulBiasRelu {
    const NAME: &'static str = "matmul_bias_relu";
    const TEMPLATE: &'static str = include_str!("matmul_bias_relu.wgsl");
    type Shape = Shape;
    type Config = Config;

    fn bindings(_: &Shape, _: &Config) -> Vec<&'static str> {
        vec!["run", "x", "w", "bias", "y"]
    }

    fn written(_: &Shape, _: &Config) -> Vec<&'static str> {
        vec!["y"]
    }

    fn candidates(s: &Shape, caps: &Caps) -> Vec<Config> {
        let mut all = Vec::new();
        for wg in [16, 32, 64, 128, 256] {
            for tokens in [1, 2, 4, 8, 16] {
                for f16 in f16_choices(caps) {
                    all.push(Config { wg, tokens, f16 });
                }
            }
        }
        all.retain(|c| Self::why_not(s, c, caps).is_none());
        all
    }

    fn generic(_: &Shape, _: &Caps) -> Config {
        Config { wg: 64, tokens: 4, f16: false }
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        require!(
            s.inputs > 0 && s.outputs > 0 && s.inputs.is_multiple_of(4) && s.outputs.is_multiple_of(4),
            "{} inputs and {} outputs are no multiples of 4",
            s.inputs,
            s.outputs
        );
        require!(s.storage != Act::I8, "there is no int8 form");
        require!(!c.f16 || s.storage == Act::F16, "there is no f16 to read");
        require!(c.tokens <= 16, "{} tokens a thread would not stay in registers (at most 16)", c.tokens);
        common_why_not(c.wg, 1, 0, caps)
    }

    fn groups(s: &Shape, c: &Config, tokens: u32) -> [u32; 3] {
        [(s.outputs / 4).div_ceil(c.wg), tokens.div_ceil(c.tokens), 1]
    }

    fn derived(s: &Shape, _: &Config) -> Vec<(&'static str, u32)> {
        vec![("quads", s.outputs / 4), ("inputs", s.inputs / 4)]
    }

    fn features(c: &Config) -> (bool, bool) {
        (false, c.f16)
    }

    fn reference(s: &Shape, _: &Config, io: &mut Io<'_>) {
        let (inputs, outputs) = (s.inputs as usize, s.outputs as usize);
        let w = io.row("w", s.storage, 0, inputs * outputs, 1.0);
        for token in 0..io.tokens {
            let x = io.row("x", s.storage, token * inputs, inputs, 1.0);
            let mut y = io.row("bias", Act::F32, 0, outputs, 1.0);
            for (x, w) in x.iter().zip(w.chunks_exact(outputs)) {
                y.iter_mut().zip(w).for_each(|(y, w)| *y += x * w);
            }
            y.iter_mut().for_each(|y| *y = y.max(0.0));
            io.store("y", s.storage, token * outputs, &y, 1.0);
        }
    }

    fn draw(s: &Shape, _: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        let words = |elements: u64| if s.storage == Act::F16 { elements / 2 } else { elements };
        let (inputs, outputs, tokens) = (u64::from(s.inputs), u64::from(s.outputs), u64::from(d.tokens));
        let elements = match name {
            "run" => return d.run(),
            "bias" => return d.floats(outputs, 1.0),
            "y" => return Draw::poison(4 * words(tokens * outputs)),
            "x" => tokens * inputs,
            _ => inputs * outputs,
        };
        // Sums of extreme products must stay within f16.
        let scale = if d.inputs == Inputs::Extreme { 1.0 / 32.0 } else { 1.0 };
        let mut all = vec![0; words(elements) as usize];
        for i in 0..elements as usize {
            let v = d.float(scale);
            io::store(&mut all, s.storage, i, v, 1.0);
        }
        all
    }

    fn output(s: &Shape, _: &Config, _: &str) -> (Act, Tolerance) {
        Tolerance::float(s.storage, 5e-5)
    }

    fn cost(s: &Shape, _: &Config, tokens: u32, _: u32) -> Cost {
        let (t, n, k) = (u64::from(tokens), u64::from(s.outputs), u64::from(s.inputs));
        let element = if s.storage == Act::F16 { 2 } else { 4 };
        Cost {
            read_bytes: element * (t * k + k * n) + 4 * n,
            written_bytes: element * t * n,
            ops: 2 * t * k * n,
            kind: Arithmetic::F32,
        }
    }
}
