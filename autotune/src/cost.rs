//! What one call of a workload must move and compute, whatever the configuration: the two sides
//! of a roofline.

use wgforge_codegen::{
    Workload,
    check::Case,
    kernels::{gather, gemv},
    types::{Act, stride},
};

/// Tokens of a timed call on a GPU, for the kernels whose work grows with them.
const TOKENS: u32 = 512;
/// The same where a core does the work of a GPU.
const TOKENS_ON_CPU: u32 = 16;
/// Keys a decoded token sees in a timed call.
const POSITION: u32 = 512;

/// What one call must do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Bytes that must be read or written once.
    pub bytes: u64,
    /// Multiplications and additions.
    pub ops: u64,
    /// Which units do them.
    pub unit: Unit,
}

/// The arithmetic a workload's products use at best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// `dot4I8Packed`.
    Int8,
    /// f32, or f16 where the device is faster with it.
    Float,
}

/// Tokens and position a workload is timed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Tokens.
    pub tokens: u32,
    /// Position of the first.
    pub position: u32,
}

impl Call {
    /// How `workload` is called in the part of the program that matters for it: kernels without
    /// tokens in their shape serve decode and prefill alike and are tuned for decode. `cpu`: the
    /// adapter is software.
    pub fn of(workload: &Workload, cpu: bool) -> Self {
        let many = if cpu { TOKENS_ON_CPU } else { TOKENS };
        match workload {
            Workload::Gemm(_) => Self { tokens: many, position: 0 },
            Workload::Attention(s) if s.decode => Self { tokens: 1, position: POSITION },
            Workload::Attention(_) => Self { tokens: many, position: 0 },
            _ => Self { tokens: 1, position: POSITION },
        }
    }
}

/// The cost of `workload` for one call; `case` is a drawn call of it, for the kernels whose cost
/// is their buffers.
pub fn cost(workload: &Workload, case: &Case, call: Call) -> Cost {
    let t = u64::from(call.tokens);
    match workload {
        Workload::Gemv(s) => product(s, 1),
        Workload::Gemm(s) => product(s, t),
        Workload::Gather(s) => Cost { bytes: t * gathered(s), ops: 0, unit: Unit::Float },
        Workload::Attention(s) => {
            let pairs: u64 = (0..t)
                .map(|i| {
                    let keys = u64::from(call.position) + i + 1;
                    if s.window > 0 { keys.min(u64::from(s.window)) } else { keys }
                })
                .sum();
            // Keys and values that any token of the call sees.
            let keys = u64::from(call.position) + t;
            let window = if s.window > 0 { u64::from(s.window) + t - 1 } else { u64::MAX };
            let element = if s.kv == Act::F16 { 2 } else { 4 };
            let cache = 2 * keys.min(window) * u64::from(s.kv_heads) * u64::from(s.dim) * element;
            let rows = t * (s.q.row_bytes(s.heads * s.dim) + s.out.row_bytes(s.heads * s.dim));
            let ops = 4 * pairs * u64::from(s.heads) * u64::from(s.dim);
            Cost { bytes: cache + rows, ops, unit: Unit::Float }
        }
        // The output has room for a whole chunk.
        Workload::PleMix(s) => {
            let row = s.context.row_bytes(s.layers * s.dim) + 2 * Act::F32.row_bytes(s.layers * s.dim);
            Cost { bytes: t * row, ops: 0, unit: Unit::Float }
        }
        // A cache is bound whole, and one slot a token is written.
        Workload::Rope(s) => {
            let columns = (s.heads + 2 * s.kv_heads) * s.dim;
            let bytes = t * (s.qkv.row_bytes(columns) + s.q.row_bytes(s.heads * s.dim));
            let kv = 2 * t * u64::from(s.kv_heads * s.dim) * if s.kv == Act::F16 { 2 } else { 4 };
            Cost { bytes: bytes + kv + t * u64::from(s.dim) * 4, ops: 0, unit: Unit::Float }
        }
        _ => {
            let bytes = case.buffers.iter().map(|words| words.len() as u64 * 4).sum();
            Cost { bytes, ops: 0, unit: Unit::Float }
        }
    }
}

fn product(s: &gemv::Shape, tokens: u64) -> Cost {
    let rows = u64::from(s.rows) * if s.epilogue == gemv::Epilogue::Geglu { 2 } else { 1 };
    let aux = matches!(s.epilogue, gemv::Epilogue::Ple | gemv::Epilogue::Residual);
    let per_token = s.x.row_bytes(s.columns)
        + s.out.row_bytes(s.rows)
        + if aux { u64::from(stride(s.rows)) * 4 } else { 0 };
    Cost {
        bytes: s.weight_bytes() + tokens * per_token,
        ops: 2 * rows * u64::from(s.columns) * tokens,
        unit: if s.x.is_int() { Unit::Int8 } else { Unit::Float },
    }
}

fn gathered(s: &gather::Shape) -> u64 {
    s.format.row_bytes(s.columns) + s.scale.row_bytes(s.columns) + Act::F32.row_bytes(s.columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgforge_codegen::{Caps, shapes};

    #[test]
    fn a_decode_product_costs_its_weights_and_two_operations_a_weight() {
        for workload in shapes::odd() {
            let Workload::Gemv(s) = &workload else { continue };
            let variant = workload.generic(&Caps::webgpu_baseline());
            let case = Case::draw(&variant, 1, 0, 1);
            let c = cost(&workload, &case, Call::of(&workload, false));
            assert!(c.bytes >= s.weight_bytes() && c.bytes < s.weight_bytes() + 40_000, "{c:?} {s:?}");
            let pairs = if s.epilogue == gemv::Epilogue::Geglu { 2 } else { 1 };
            assert_eq!(c.ops, u64::from(2 * s.rows * s.columns * pairs), "{s:?}");
        }
    }

    #[test]
    fn a_window_bounds_what_attention_reads() {
        let both: Vec<u64> = [0, 512]
            .into_iter()
            .map(|window| {
                let shape = shapes::e2b().into_iter().find_map(|w| match w {
                    Workload::Attention(s) if s.decode && s.window == window => Some(s),
                    _ => None,
                });
                let workload = Workload::Attention(shape.expect("E2B has both kinds"));
                let case = Case { buffers: Vec::new(), tokens: 1, position: 4000 };
                cost(&workload, &case, Call { tokens: 1, position: 4000 }).bytes
            })
            .collect();
        assert!(both[0] > 6 * both[1], "4001 keys of twice the size against 512: {both:?}");
    }
}
