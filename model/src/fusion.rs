//! Which dispatches of a decoded token are joined.

/// What decode does in one dispatch where the plain plan has several; prefill is not affected.
/// Which is faster depends on what a dispatch costs on the device: left to itself, a plan joins
/// what the tuned kernels of the device list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fusion {
    /// Rotation, the append to the cache and attention, by `decode_attention`.
    pub attention: bool,
    /// Residual sums and norms, made by every workgroup of the product that reads them.
    pub norms: bool,
}

impl Fusion {
    /// Every step is a dispatch of its own.
    pub const NONE: Self = Self { attention: false, norms: false };
    /// All that can be joined is.
    pub const ALL: Self = Self { attention: true, norms: true };
}
