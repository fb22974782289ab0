//! Rows of an embedding table by token id, dequantised to f32: token embeddings and per-layer
//! embeddings, in every weight format. A table over the device's binding limit is split by rows:
//! one dispatch a part, each writing only the tokens it holds.

use serde::{Deserialize, Serialize};

use super::{common_why_not, f16_choices};
use crate::{
    Arithmetic, Caps, Cost, Reason,
    check::{Draw, Tolerance},
    io::{self, Io, weight_row},
    kernel::{Kernel, require},
    types::{Act, Format, GROUP, Scale, in_fours, round_up, stride},
};

/// The family.
#[derive(Clone, Copy, Debug)]
pub struct Gather;

/// What a gather computes: `out[t, :] = table[ids[t] - first, :] * scale * multiplier`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Rows of the table (of this part of it).
    pub rows: u32,
    /// Columns of a row.
    pub columns: u32,
    /// Storage format.
    pub format: Format,
    /// Scales of integer formats.
    pub scale: Scale,
    /// Token id of the part's first row.
    pub first: u32,
    /// The host has put row `t` of the table where token `t` expects it: there are no ids.
    pub by_slot: bool,
    /// Constant factor, such as the square root of the width.
    pub multiplier: f64,
}

/// How it is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads; one quad of the row each.
    pub wg: u32,
    /// Reads group scales by WGSL's `f16` (other scales have no f16 to read).
    pub f16: bool,
}

fn quads(s: &Shape) -> u32 {
    stride(s.columns) / 4
}

/// Rows lie as in products, for the head's may be the same; those from the host come one by one.
fn fours(s: &Shape) -> bool {
    in_fours(s.format, s.scale) && !s.by_slot
}

impl Shape {
    /// Bindings of what is read.
    pub(crate) fn inputs(&self) -> Vec<&'static str> {
        let mut names = if self.by_slot { vec!["table"] } else { vec!["ids", "table"] };
        names.extend((self.scale != Scale::None).then_some("scales"));
        names
    }

    pub(crate) fn why_not(&self, caps: &Caps) -> Option<Reason> {
        require!(self.rows > 0 && self.columns > 0, "the table is empty");
        require!(
            self.format.is_int() != (self.scale == Scale::None),
            "{:?} with {:?} scales",
            self.format,
            self.scale
        );
        if let Scale::Parts(n) = self.scale {
            require!(
                n > 0 && self.columns.is_multiple_of(n) && (self.columns / n).is_multiple_of(4),
                "{n} parts do not cut {} columns into quads",
                self.columns
            );
        }
        let bytes = u64::from(self.rows) * self.format.row_bytes(self.columns);
        require!(
            bytes <= caps.max_binding_bytes,
            "{bytes} bytes of table are over the binding limit of {}",
            caps.max_binding_bytes
        );
        None
    }

    /// What the templates need to know of a table; zeros of none.
    pub(crate) fn derived(table: Option<&Self>) -> [(&'static str, u32); 5] {
        let of = |f: fn(&Self) -> u32| table.map_or(0, f);
        let parts = |s: &Self| if let Scale::Parts(n) = s.scale { n } else { 1 };
        [
            ("groups", of(|s| stride(s.columns) / GROUP)),
            ("parts", table.map_or(0, parts)),
            ("part_quads", table.map_or(0, |s| s.columns / parts(s) / 4)),
            ("factor", of(|s| 1 << s.format.field_shift())),
            ("fours", of(|s| u32::from(fours(s)))),
        ]
    }

    /// What row `row` of the table stands for.
    pub(crate) fn row(&self, row: usize, io: &Io<'_>) -> Vec<f32> {
        let scales = if self.scale == Scale::None { &[][..] } else { io.words("scales") };
        let n = self.columns as usize;
        weight_row(io.words("table"), scales, self.format, self.scale, row, n, fours(self))
            .into_iter()
            .map(|v| v * io::narrow(self.multiplier))
            .collect()
    }

    /// Bytes read for a token.
    pub(crate) fn token_bytes(&self) -> u64 {
        let ids = if self.by_slot { 0 } else { 4 };
        self.format.row_bytes(self.columns) + self.scale.row_bytes(self.columns) + ids
    }

    /// Words for one of [`Self::inputs`].
    pub(crate) fn draw(&self, name: &str, d: &mut Draw) -> Vec<u32> {
        match name {
            "ids" => (0..d.tokens).map(|_| self.first + d.rng.below(self.rows)).collect(),
            "table" => {
                d.matrix(round_up(self.rows, 4), |r| r < self.rows, self.columns, self.format, fours(self))
            }
            _ => d.scales(round_up(self.rows, 4), self.columns, self.scale),
        }
    }
}

impl Kernel for Gather {
    const NAME: &'static str = "gather";
    const TEMPLATE: &'static str = include_str!("../../../templates/gather.wgsl");
    type Shape = Shape;
    type Config = Config;

    fn bindings(s: &Shape, _: &Config) -> Vec<&'static str> {
        let mut names = s.inputs();
        names.push("out");
        names
    }

    fn candidates(s: &Shape, caps: &Caps) -> Vec<Config> {
        let mut all = Vec::new();
        for wg in [32, 64, 128, 256] {
            for f16 in f16_choices(caps) {
                all.push(Config { wg, f16 });
            }
        }
        all.retain(|c| Self::why_not(s, c, caps).is_none());
        all
    }

    fn generic(s: &Shape, caps: &Caps) -> Config {
        let wg = quads(s).next_power_of_two().clamp(32, 128).min(caps.max_invocations);
        Config { wg, f16: caps.f16 && s.scale == Scale::Group }
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        require!(c.wg > 0, "a workgroup needs threads");
        if let Some(reason) = s.why_not(caps) {
            return Some(reason);
        }
        require!(!c.f16 || s.scale == Scale::Group, "there is no f16 to read");
        require!(
            quads(s).div_ceil(c.wg) <= caps.max_groups,
            "the row needs more workgroups than a dimension has"
        );
        common_why_not(c.wg, 1, 0, caps)
    }

    fn groups(s: &Shape, c: &Config, tokens: u32) -> [u32; 3] {
        [tokens, quads(s).div_ceil(c.wg), 1]
    }

    fn derived(s: &Shape, _: &Config) -> Vec<(&'static str, u32)> {
        let mut d = vec![("quads", quads(s))];
        d.extend(Shape::derived(Some(s)));
        d
    }

    fn reference(s: &Shape, _: &Config, io: &mut Io<'_>) {
        let row = stride(s.columns) as usize;
        for t in 0..io.tokens {
            let id = if s.by_slot { t } else { (io.words("ids")[t] as usize).wrapping_sub(s.first as usize) };
            if !s.by_slot && id >= s.rows as usize {
                continue;
            }
            let values = s.row(id, io);
            io.store("out", Act::F32, t * row, &values, 1.0);
        }
    }

    fn features(c: &Config) -> (bool, bool) {
        (false, c.f16)
    }

    fn written(_: &Shape, _: &Config) -> Vec<&'static str> {
        vec!["out"]
    }

    fn draw(s: &Shape, _: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        match name {
            // Not poison: the parts of a split table leave each other's rows alone.
            "out" => vec![0; (u64::from(d.tokens) * Act::F32.row_bytes(s.columns) / 4) as usize],
            _ => s.draw(name, d),
        }
    }

    fn output(_: &Shape, _: &Config, _: &str) -> (Act, Tolerance) {
        Tolerance::float(Act::F32, 2e-5)
    }

    fn cost(s: &Shape, _: &Config, tokens: u32, _: u32) -> Cost {
        let t = u64::from(tokens);
        Cost {
            read_bytes: t * s.token_bytes(),
            written_bytes: t * Act::F32.row_bytes(s.columns),
            ops: t * u64::from(s.columns),
            kind: Arithmetic::F32,
        }
    }
}
