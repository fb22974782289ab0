//! What a call must at least move and compute: what a tuner compares times with.

/// The arithmetic that dominates a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// Products of four int8 lanes (`dot4I8Packed`).
    Int8,
    /// WGSL's `f16`.
    F16,
    /// `f32`.
    F32,
}

/// The work of one call, whatever the configuration spends beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Bytes that must be read, each once.
    pub read_bytes: u64,
    /// Bytes that must be written, each once.
    pub written_bytes: u64,
    /// Arithmetic operations; a multiplication with its addition counts as two.
    pub ops: u64,
    /// Of which kind most of them are.
    pub kind: Arithmetic,
}

impl Cost {
    /// Bytes moved either way.
    pub fn bytes(&self) -> u64 {
        self.read_bytes + self.written_bytes
    }
}
