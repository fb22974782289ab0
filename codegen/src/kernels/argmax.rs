//! Greedy choice on the device, in two dispatches: the best of each slice, then the best of those,
//! which becomes the next input id while the position advances. Ties go to the smaller id.
//! Where a product has left the largest of each slice ([`super::gemv::Shape::tops`]), only the last one is
//! needed: it finds the best slice, and in it the logit.

use serde::{Deserialize, Serialize};

use super::{common_why_not, generic_shuffle, shuffle_choices};
use crate::{
    Arithmetic, Caps, Cost, Reason, Workload,
    check::{Draw, Rng, Tolerance},
    io::Io,
    kernel::{Kernel, is_zero, require},
    types::{Act, round_up},
};

/// The family.
#[derive(Clone, Copy, Debug)]
pub struct Argmax;

/// What it computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Values to choose from: logits, or the slices' results in the last dispatch.
    pub n: u32,
    /// The last dispatch, which emits the token.
    pub last: bool,
    /// Slots of the ring `chosen` the host reads behind.
    pub ring: u32,
    /// Logits of a slice whose largest the values are: in place of `indices` there are then all `logits`.
    /// 0: values come with their indices.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slice: u32,
    /// Logits there are, where `slice` is not 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub of: u32,
}

/// How it is computed. Logits are f32, so there is no f16 to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads; at most the device's invocations.
    pub wg: u32,
    /// Logits of a slice (ignored by the last dispatch, which is one workgroup).
    pub slice: u32,
    /// Lanes combined by shuffles; 1 uses no subgroups.
    pub sg: u32,
}

impl Shape {
    /// The first dispatch, over `n` logits.
    pub fn first(n: u32) -> Self {
        Self { n, last: false, ring: 0, slice: 0, of: 0 }
    }

    /// The one behind it, over the best of `n` slices.
    pub fn last(n: u32, ring: u32) -> Self {
        Self { n, last: true, ring, slice: 0, of: 0 }
    }

    /// The only one, over the largest of each `slice` of `of` logits.
    pub fn search(of: u32, slice: u32, ring: u32) -> Self {
        Self { slice, of, ..Self::last(of.div_ceil(slice), ring) }
    }

    /// Slices the first dispatch makes with `config`.
    pub fn slices(&self, config: &Config) -> u32 {
        self.n.div_ceil(config.slice)
    }
}

impl Kernel for Argmax {
    const NAME: &'static str = "argmax";
    const TEMPLATE: &'static str = include_str!("../../../templates/argmax.wgsl");
    type Shape = Shape;
    type Config = Config;

    fn bindings(s: &Shape, _: &Config) -> Vec<&'static str> {
        if s.last {
            let beside = if s.slice > 0 { "logits" } else { "indices" };
            vec!["run", "values", beside, "ids", "chosen"]
        } else {
            vec!["logits", "values", "indices"]
        }
    }

    fn candidates(s: &Shape, caps: &Caps) -> Vec<Config> {
        let mut all = Vec::new();
        for wg in [32, 64, 128, 256] {
            for slice in [512, 1024, 2048, 4096] {
                for sg in shuffle_choices(caps) {
                    all.push(Config { wg, slice, sg });
                }
            }
        }
        all.retain(|c| Self::why_not(s, c, caps).is_none());
        all
    }

    fn generic(s: &Shape, caps: &Caps) -> Config {
        let wg = if s.n < 4096 && s.slice == 0 { 64 } else { 256 }.min(caps.max_invocations);
        Config { wg, slice: 1024, sg: generic_shuffle(caps, wg) }
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        require!(s.n > 0 && c.slice > 0, "there is nothing to choose from");
        require!(s.ring > 0 || !s.last, "the ring has no slots");
        require!(
            if s.slice > 0 { s.last && s.of.div_ceil(s.slice) == s.n } else { s.of == 0 },
            "{} slices of {} logits are not all {}",
            s.n,
            s.slice,
            s.of
        );
        require!(s.slices(c) <= caps.max_groups, "{} slices exceed the device's grid", s.slices(c));
        common_why_not(c.wg, c.sg, u64::from(c.wg / c.sg) * 8, caps)
    }

    fn groups(s: &Shape, c: &Config, _: u32) -> [u32; 3] {
        [if s.last { 1 } else { s.slices(c) }, 1, 1]
    }

    fn derived(s: &Shape, _: &Config) -> Vec<(&'static str, u32)> {
        // Shapes leave zeros out.
        vec![("slice", s.slice), ("of", s.of)]
    }

    fn reference(s: &Shape, c: &Config, io: &mut Io<'_>) {
        let best = |io: &Io<'_>, name: &str, from: u32, to: u32| {
            let value = |i: u32| f32::from_bits(io.words(name)[i as usize]);
            let id = |i: u32| if s.last && s.slice == 0 { io.words("indices")[i as usize] } else { i };
            (from..to)
                .map(|i| (value(i), id(i)))
                .fold((-3.4e38, u32::MAX), |a, b| if b.0 > a.0 || (b.0 == a.0 && b.1 < a.1) { b } else { a })
        };
        if s.last {
            let (_, mut token) = best(io, "values", 0, s.n);
            if s.slice > 0 && token < s.n {
                let from = token * s.slice;
                token = best(io, "logits", from, (from + s.slice).min(s.of)).1;
            }
            return emit_token(io, token, s.ring);
        }
        for slice in 0..s.slices(c) {
            let from = slice * c.slice;
            let (value, id) = best(io, "logits", from, (from + c.slice).min(s.n));
            io.words_mut("values")[slice as usize] = value.to_bits();
            io.words_mut("indices")[slice as usize] = id;
        }
    }

    fn features(c: &Config) -> (bool, bool) {
        (c.sg > 1, false)
    }

    fn one_token(_: &Shape) -> bool {
        true
    }

    fn written(s: &Shape, _: &Config) -> Vec<&'static str> {
        if s.last { vec!["run", "ids", "chosen"] } else { vec!["values", "indices"] }
    }

    fn draw(s: &Shape, c: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        match name {
            "run" => d.run(),
            "logits" if !s.last => d.equals(s.n),
            "logits" => logits(s, d),
            "values" if s.slice > 0 => {
                let all = logits(s, d);
                let largest = |of: &[u32]| of.iter().map(|w| f32::from_bits(*w)).fold(-3.4e38, f32::max);
                all.chunks(s.slice as usize).map(|of| largest(of).to_bits()).collect()
            }
            "values" if s.last => d.equals(s.n),
            "indices" if s.last => (0..s.n).map(|i| 3 * i + 1).collect(),
            "ids" => vec![0; 4],
            "chosen" => vec![0; s.ring as usize],
            _ => Draw::poison(u64::from(round_up(s.slices(c), 4)) * 4),
        }
    }

    fn output(_: &Shape, _: &Config, _: &str) -> (Act, Tolerance) {
        (Act::F32, Tolerance::Exact)
    }

    fn cost(s: &Shape, c: &Config, _: u32, _: u32) -> Cost {
        let n = u64::from(s.n);
        Cost {
            read_bytes: match (s.last, s.slice) {
                (false, _) => 4 * n,
                (true, 0) => 8 * n,
                (true, slice) => 4 * (n + u64::from(slice)),
            },
            written_bytes: if s.last { 24 } else { 8 * u64::from(s.slices(c)) },
            ops: n,
            kind: Arithmetic::F32,
        }
    }

    fn followers(s: &Shape, c: &Config) -> Vec<Workload> {
        if s.last {
            return Vec::new();
        }
        // The ring's slots are a matter of the caller's program; 64 is what the model has.
        vec![Workload::Argmax(Shape::last(s.slices(c), 64))]
    }
}

/// All logits, of which `values` are the largest: the same whenever a check asks.
fn logits(s: &Shape, d: &Draw) -> Vec<u32> {
    let (inputs, tokens, position) = (d.inputs, d.tokens, d.position);
    Draw { rng: Rng::new(u64::from(position)), inputs, tokens, position }.equals(s.of)
}

/// `parts/token.wgsl`: the token becomes the next input, the ring keeps it, the position advances.
pub(crate) fn emit_token(io: &mut Io<'_>, token: u32, ring: u32) {
    let (position, tokens) = (io.words("run")[0], io.words("run")[1]);
    io.words_mut("ids")[0] = token;
    io.words_mut("chosen")[(position % ring) as usize] = token;
    let run = io.words_mut("run");
    run[0] = position + tokens;
    run[1] = 1;
}
