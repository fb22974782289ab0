//! A product whose rows are shared out among workgroups of one dispatch that need each other's results: the counterpart
//! of [`super::slab`]. Each makes the norms in front by itself, computes its rows of codes, and leaves the results
//! where the others look for them; who has waited too long computes what is missing. Components in
//! `templates/decode_attention.wgsl`.

use super::{
    gemv::{Epilogue, Shape},
    norm,
};
use crate::{
    Caps, Reason,
    kernel::require,
    types::{Act, Scale, stride},
};

/// How the workgroups share them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    /// Threads.
    pub(crate) wg: u32,
    /// Rows that each owner has; a multiple of 4.
    pub(crate) each: u32,
    /// Owners of rows, each a workgroup.
    pub(crate) owners: u32,
    /// Those beside the workgroups of a head, which have no other part.
    pub(crate) beside: u32,
    /// Lanes combined by shuffles; 1 uses none.
    pub(crate) sg: u32,
}

impl Rows {
    /// Fours of rows of an owner.
    fn quads(self) -> u32 {
        (self.each / 4).max(1)
    }

    /// Threads that share four rows.
    fn lanes(self) -> u32 {
        (self.wg / self.quads()).max(1)
    }

    /// Lanes of those that shuffles combine: four to 64, four of which are left with one row's sum each.
    fn shuffled(self) -> u32 {
        let shuffled = self.lanes().min(self.sg).min(64);
        if shuffled >= 4 { shuffled } else { 1 }
    }

    /// Partial sums of a row that meet in workgroup memory.
    fn parts(self) -> u32 {
        self.lanes() / self.shuffled()
    }

    /// Bytes of workgroup memory: codes of the input, partial sums, and the norms' reduction.
    pub(crate) fn bytes(self, p: &Shape) -> u64 {
        let norm = p.norm.as_ref().map_or(0, |n| norm::row_bytes(n, self.wg, self.sg));
        u64::from(stride(p.columns)) + 4 * u64::from(self.each) * u64::from(self.parts()) + norm
    }

    pub(crate) fn why_not(self, p: &Shape, caps: &Caps) -> Option<Reason> {
        require!(
            p.x == Act::I8 && p.scale == Scale::Row && p.norm.is_some(),
            "rows that are exchanged are products of codes from norms, with row scales"
        );
        let plain = p.epilogue == Epilogue::Store && p.tops == 0 && p.first == 0 && p.total == p.rows;
        require!(plain, "rows that are exchanged are those of one whole matrix, without an epilogue");
        let chunks = chunks(p);
        require!(
            self.quads().is_power_of_two() && self.quads() <= self.wg,
            "{} fours of rows do not share {} threads",
            self.quads(),
            self.wg
        );
        require!(self.each <= self.wg, "{} rows have no thread each among {}", self.each, self.wg);
        require!(
            chunks.is_multiple_of(self.lanes()),
            "{} threads do not share the {chunks} pieces of four rows",
            self.lanes()
        );
        let loads = chunks / self.lanes();
        require!(loads <= 16, "{loads} pieces of weights a thread would not stay in registers (at most 16)");
        require!(
            p.norm.as_ref().is_none_or(|n| norm::per_thread(n, self.wg) <= 16),
            "a row of {} would not stay in the registers of {} threads",
            p.columns,
            self.wg
        );
        p.why_not(caps)
    }

    /// Numbers for the components; zeros where there is no product.
    pub(crate) fn derived(of: Option<(&Shape, Self)>) -> [(&'static str, u32); 13] {
        let n = |number: fn(&Shape, Self) -> u32| of.map_or(0, |(p, rows)| number(p, rows));
        [
            ("first_rows", n(|_, rows| rows.each)),
            ("first_quads", n(|_, rows| rows.quads())),
            ("first_lanes", n(|_, rows| rows.lanes())),
            ("first_chunks", n(|p, _| chunks(p))),
            ("first_mine", n(|p, rows| chunks(p) / rows.lanes())),
            ("first_shuffled", n(|_, rows| rows.shuffled())),
            ("first_parts", n(|_, rows| rows.parts())),
            ("first_fields", n(|p, _| p.format.quads_per_word())),
            ("first_shift", n(|p, _| p.format.field_shift())),
            ("owners", n(|_, rows| rows.owners)),
            ("x_quads", n(|p, _| stride(p.columns) / 4)),
            ("per_thread", n(|p, rows| p.norm.as_ref().map_or(0, |n| norm::per_thread(n, rows.wg)))),
            ("banks", n(|p, _| p.norm.as_ref().map_or(1, |n| n.banks))),
        ]
    }
}

/// Pieces of 16 bytes in four rows.
fn chunks(p: &Shape) -> u32 {
    stride(p.columns) / p.format.piece().1.max(1)
}
