//! One module a kernel family, named as its template; [`slab`], which three of them share, and `rows`.

pub mod argmax;
pub mod attention;
pub mod attention_merge;
pub mod clear;
pub mod decode_attention;
pub mod gather;
pub mod gemm;
pub mod gemv;
pub mod gemv_pair;
pub mod merge_gemv;
pub mod norm;
pub mod ple_mix;
pub mod rope;
pub(crate) mod rows;
pub mod sample;
pub mod slab;
pub mod topk;

use crate::{Caps, Reason, kernel::require};

/// Lanes to combine by shuffles: none, or the smallest subgroup the device may choose.
pub fn shuffle_choices(caps: &Caps) -> Vec<u32> {
    if caps.subgroups && caps.subgroup_min > 1 { vec![1, caps.subgroup_min] } else { vec![1] }
}

/// The best of [`shuffle_choices`] that divides a workgroup of `wg`.
pub fn generic_shuffle(caps: &Caps, wg: u32) -> u32 {
    shuffle_choices(caps).into_iter().filter(|sg| wg.is_multiple_of(*sg)).max().unwrap_or(1)
}

/// With and, where the device has it, with WGSL's `f16`.
pub fn f16_choices(caps: &Caps) -> Vec<bool> {
    if caps.f16 { vec![false, true] } else { vec![false] }
}

/// Bounds every kernel shares: the workgroup's size and its memory, and the shuffle width.
pub fn common_why_not(wg: u32, sg: u32, workgroup_bytes: u64, caps: &Caps) -> Option<Reason> {
    require!(wg.is_power_of_two(), "a workgroup of {wg} is not a power of two, which the reductions need");
    group_why_not(wg, sg, workgroup_bytes, caps)
}

/// The same for kernels whose workgroups may be any number of subgroups.
pub(crate) fn group_why_not(wg: u32, sg: u32, workgroup_bytes: u64, caps: &Caps) -> Option<Reason> {
    require!(
        wg.is_power_of_two() || sg > 1,
        "a workgroup of {wg} is not a power of two, which reductions without shuffles need"
    );
    require!(wg <= caps.max_invocations, "a workgroup of {wg} is over the device's {}", caps.max_invocations);
    require!(
        sg.is_power_of_two() && wg.is_multiple_of(sg),
        "{sg} shuffled lanes do not divide a workgroup of {wg}"
    );
    require!(
        sg == 1 || sg <= caps.subgroup_min,
        "{sg} shuffled lanes exceed the smallest subgroup, {}",
        caps.subgroup_min
    );
    require!(
        workgroup_bytes <= u64::from(caps.max_workgroup_bytes),
        "{workgroup_bytes} bytes of workgroup memory are over the device's {}",
        caps.max_workgroup_bytes
    );
    None
}

/// Bounds a row of `count` heads (or layers) of `dim` elements, so that indices fit 32 bits.
pub(crate) fn row_why_not(count: u64, dim: u32) -> Option<Reason> {
    let elements = count * u64::from(dim);
    require!(
        elements <= 1 << 20,
        "a row of {elements} elements is longer than indices allow for (at most 1048576)"
    );
    None
}

/// Why a vector may not be such that [`crate::types::Act::is_sum`].
pub(crate) const NO_SUMS: &str =
    "sums of many workgroups are read by norms before a product and by nothing else";

/// Bytes of the partial sums of `parts/reduce.wgsl`.
pub fn reduce_bytes(wg: u32, sg: u32) -> u64 {
    u64::from(wg / sg) * 4
}
