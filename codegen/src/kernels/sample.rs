//! Draws the next token from sorted candidates: temperature, then top-k, then top-p, in the order
//! transformers applies them. The random number is a hash of (seed, position), so the same seed
//! gives the same tokens whatever ran before.

use serde::{Deserialize, Serialize};

use super::{argmax::emit_token, common_why_not, generic_shuffle, reduce_bytes, shuffle_choices};
use crate::{
    Arithmetic, Caps, Cost, Reason,
    check::{Draw, Inputs, Tolerance},
    io::Io,
    kernel::{Kernel, require},
    types::Act,
};

/// The family.
#[derive(Clone, Copy, Debug)]
pub struct Sample;

/// What it computes. `sampling` is `{ temperature: f32, top_p: f32, top_k: u32, 0 }`; `top_k` 0
/// stands for all candidates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Candidates, in falling order.
    pub n: u32,
    /// Slots of the ring `chosen` the host reads behind.
    pub ring: u32,
}

/// How it is computed. Candidates are f32, so there is no f16 to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads.
    pub wg: u32,
    /// Lanes combined by shuffles; 1 uses no subgroups.
    pub sg: u32,
}

impl Kernel for Sample {
    const NAME: &'static str = "sample";
    const TEMPLATE: &'static str = include_str!("../../../templates/sample.wgsl");
    type Shape = Shape;
    type Config = Config;

    fn bindings(_: &Shape, _: &Config) -> Vec<&'static str> {
        vec!["run", "values", "indices", "sampling", "ids", "chosen"]
    }

    fn candidates(s: &Shape, caps: &Caps) -> Vec<Config> {
        let mut all = Vec::new();
        for wg in [32, 64, 128, 256] {
            for sg in shuffle_choices(caps) {
                all.push(Config { wg, sg });
            }
        }
        all.retain(|c| Self::why_not(s, c, caps).is_none());
        all
    }

    fn generic(_: &Shape, caps: &Caps) -> Config {
        let wg = 64.min(caps.max_invocations);
        Config { wg, sg: generic_shuffle(caps, wg) }
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        require!(s.n > 0 && s.ring > 0, "there is nothing to draw from");
        common_why_not(c.wg, c.sg, u64::from(s.n) * 4 + reduce_bytes(c.wg, c.sg), caps)
    }

    fn groups(_: &Shape, _: &Config, _: u32) -> [u32; 3] {
        [1, 1, 1]
    }

    fn derived(_: &Shape, _: &Config) -> Vec<(&'static str, u32)> {
        Vec::new()
    }

    fn reference(s: &Shape, _: &Config, io: &mut Io<'_>) {
        let (temperature, top_p) = (io.f32("sampling", 0), io.f32("sampling", 1));
        let top_k = io.words("sampling")[2] as usize;
        let n = s.n as usize;
        let kept = if top_k == 0 { n } else { top_k.min(n) };
        let top = io.f32("values", 0);
        let weight: Vec<f32> = (0..n)
            .map(|i| {
                let live = i < kept && io.words("indices")[i] != u32::MAX;
                if live { ((io.f32("values", i) - top) / temperature).exp() } else { 0.0 }
            })
            .collect();
        let total: f32 = weight.iter().sum();
        let (mut mass, mut last) = (0.0f32, 0);
        for (i, w) in weight.iter().enumerate().take(kept) {
            if i > 0 && mass >= top_p * total {
                break;
            }
            mass += w;
            last = i;
        }
        let run = io.words("run");
        let bits = scramble(run[2] ^ scramble(run[3] ^ scramble(run[0])));
        let target = (bits >> 8) as f32 * 5.960_464_5e-8 * mass;
        let mut walked = 0.0;
        let pick = (0..last)
            .find(|i| {
                walked += weight[*i];
                walked > target
            })
            .unwrap_or(last);
        let token = io.words("indices")[pick];
        emit_token(io, token, s.ring);
    }

    fn features(c: &Config) -> (bool, bool) {
        (c.sg > 1, false)
    }

    fn one_token(_: &Shape) -> bool {
        true
    }

    fn written(_: &Shape, _: &Config) -> Vec<&'static str> {
        vec!["run", "ids", "chosen"]
    }

    fn draw(s: &Shape, _: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        // Falling values; extreme ones leave only the first any weight, ties weigh all the same.
        let step = match d.inputs {
            Inputs::Random => 0.05,
            Inputs::Extreme => 1e6,
            Inputs::Ties => 0.0,
        };
        match name {
            "run" => d.run(),
            "values" => (0..s.n).map(|i| (5.0 - step * i as f32).to_bits()).collect(),
            "indices" => (0..s.n).map(|i| 7 * i + 2).collect(),
            "ids" => vec![0; 4],
            "chosen" => vec![0; s.ring as usize],
            _ => vec![0.8f32.to_bits(), 0.9f32.to_bits(), 50, 0],
        }
    }

    fn output(_: &Shape, _: &Config, _: &str) -> (Act, Tolerance) {
        (Act::F32, Tolerance::Exact)
    }

    fn cost(s: &Shape, _: &Config, _: u32, _: u32) -> Cost {
        let n = u64::from(s.n);
        Cost { read_bytes: 8 * n + 32, written_bytes: 24, ops: 4 * n, kind: Arithmetic::F32 }
    }
}

/// PCG-style mixing of a 32-bit word.
fn scramble(x: u32) -> u32 {
    let s = x.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let w = ((s >> ((s >> 28) + 4)) ^ s).wrapping_mul(277_803_737);
    (w >> 22) ^ w
}
