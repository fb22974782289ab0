//! Which dispatches of a decoded token are joined.

/// What decode does in one dispatch where the plain plan has several; prefill is not affected.
/// Which is faster depends on what a dispatch costs on the device: left to itself, a plan joins
/// what the tuned kernels of the device list. Whatever cannot run on a device stays apart there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fusion {
    /// Rotation, the append to the cache and attention, by `decode_attention`.
    pub attention: bool,
    /// Residual sums and norms, made by every workgroup of the product that reads them.
    pub norms: bool,
    /// Products with the ones before them, where sums are the same in any order, because static grids make
    /// them integers or because sums of floats (of weights with group scales) are rounded to such: `down`
    /// with gate and up, the two of the per-layer inputs, and the output projection with the join of
    /// attention's key ranges, or with attention itself. Needs `norms`, which add what they leave, and for the last of them
    /// `attention`. The mix of the per-layer inputs then reads their table itself and clears the sums.
    pub products: bool,
    /// Norms, q, k and v with all that `attention` and `products` join behind them, where workgroups exchange what they
    /// have: one dispatch for a layer's half. Needs both, and pays only where a GPU's workgroups run side by side.
    pub exchange: bool,
    /// The search for the largest logit with the head, which leaves that of each of its workgroups.
    pub choice: bool,
}

impl Fusion {
    /// Every step is a dispatch of its own.
    pub const NONE: Self =
        Self { attention: false, norms: false, products: false, exchange: false, choice: false };
    /// Products stay apart.
    pub const STEPS: Self = Self { attention: true, norms: true, choice: true, ..Self::NONE };
    /// All that can be joined is, but for rows of q, k and v.
    pub const ALL: Self = Self { products: true, ..Self::STEPS };
    /// That as well.
    pub const EXCHANGE: Self = Self { exchange: true, ..Self::ALL };
}
