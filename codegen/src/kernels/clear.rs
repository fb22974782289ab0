//! Zeros in two buffers, for sums that workgroups of later dispatches add to.

use serde::{Deserialize, Serialize};

use super::common_why_not;
use crate::{
    Arithmetic, Caps, Cost, Reason,
    check::{Draw, Tolerance},
    io::Io,
    kernel::{Kernel, require},
    types::Act,
};

/// The family.
#[derive(Clone, Copy, Debug)]
pub struct Clear;

/// What it writes. Both buffers have room for a multiple of 16 bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Words of the first; a multiple of 4.
    pub a: u32,
    /// Words of the second; a multiple of 4.
    pub b: u32,
}

impl Shape {
    pub(crate) fn why_not(&self) -> Option<Reason> {
        require!(self.a > 0 && self.b > 0, "there is nothing to clear");
        let quads = self.a.is_multiple_of(4) && self.b.is_multiple_of(4);
        require!(quads, "{} and {} words are no quads", self.a, self.b);
        None
    }

    /// What stands in `name` before.
    pub(crate) fn poison(&self, name: &str) -> Vec<u32> {
        Draw::poison(4 * u64::from(if name == "a" { self.a } else { self.b }))
    }

    /// Bytes of both.
    pub(crate) fn bytes(&self) -> u64 {
        4 * (u64::from(self.a) + u64::from(self.b))
    }
}

/// How it is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads; at most the device's invocations.
    pub wg: u32,
}

impl Kernel for Clear {
    const NAME: &'static str = "clear";
    const TEMPLATE: &'static str = include_str!("../../../templates/clear.wgsl");
    type Shape = Shape;
    type Config = Config;

    fn bindings(_: &Shape, _: &Config) -> Vec<&'static str> {
        vec!["a", "b"]
    }

    fn candidates(s: &Shape, caps: &Caps) -> Vec<Config> {
        let all = [64, 128, 256, 512].map(|wg| Config { wg });
        all.into_iter().filter(|c| Self::why_not(s, c, caps).is_none()).collect()
    }

    fn generic(_: &Shape, caps: &Caps) -> Config {
        Config { wg: 128.min(caps.max_invocations) }
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        if let Some(reason) = s.why_not() {
            return Some(reason);
        }
        require!(c.wg > 0, "a workgroup without threads");
        require!(
            s.a.max(s.b).div_ceil(4 * c.wg) <= caps.max_groups,
            "{} words exceed the device's grid",
            s.a.max(s.b)
        );
        common_why_not(c.wg, 1, 0, caps)
    }

    fn groups(s: &Shape, c: &Config, _: u32) -> [u32; 3] {
        [s.a.max(s.b).div_ceil(4 * c.wg), 1, 1]
    }

    fn derived(s: &Shape, _: &Config) -> Vec<(&'static str, u32)> {
        vec![("a_quads", s.a / 4), ("b_quads", s.b / 4)]
    }

    fn one_token(_: &Shape) -> bool {
        true
    }

    fn reference(_: &Shape, _: &Config, io: &mut Io<'_>) {
        io.words_mut("a").fill(0);
        io.words_mut("b").fill(0);
    }

    fn written(_: &Shape, _: &Config) -> Vec<&'static str> {
        vec!["a", "b"]
    }

    fn draw(s: &Shape, _: &Config, name: &str, _: &mut Draw) -> Vec<u32> {
        s.poison(name)
    }

    fn output(_: &Shape, _: &Config, _: &str) -> (Act, Tolerance) {
        (Act::I32, Tolerance::Exact)
    }

    fn cost(s: &Shape, _: &Config, _: u32, _: u32) -> Cost {
        Cost { read_bytes: 0, written_bytes: s.bytes(), ops: 0, kind: Arithmetic::Int8 }
    }
}
