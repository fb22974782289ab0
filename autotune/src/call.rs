//! The calls workloads are timed with.

use wgforge_codegen::Workload;

/// Tokens of a timed call on a GPU, for the kernels whose work grows with them.
const TOKENS: u32 = 512;
/// The same where a core does the work of a GPU.
const TOKENS_ON_CPU: u32 = 16;
/// Keys a decoded token sees in a timed call.
const POSITION: u32 = 512;
/// The same where contexts are long.
const DEEP: u32 = 8191;

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
            Workload::Custom(_) if !workload.one_token() => Self { tokens: many, position: 0 },
            Workload::Attention(s) if s.decode => Self { tokens: 1, position: POSITION },
            Workload::Attention(_) => Self { tokens: many, position: 0 },
            Workload::DecodeAttention(s) if s.deep => Self { tokens: 1, position: DEEP },
            _ => Self { tokens: 1, position: POSITION },
        }
    }
}
