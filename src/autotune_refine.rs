//! Which of several candidates that are about as fast alone is the fastest in whole tokens.
//!
//! Timed by itself, a kernel finds its own code in the instruction cache. In a token other kernels come
//! between: on an H100, code that the cache has lost costs attention 3 to 7 µs of 8 to 16, and the larger
//! the shader, the more.

use std::time::Instant;

use anyhow::Result;
use pollster::block_on;
use serde_json::Value;
use wgforge::autotune::{Measured, Settled, WORTH, ratios, stats};
use wgforge::codegen::{Variant, Workload};
use wgforge::model::Kernels;

use crate::autotune_confirm::{stopped, token_seconds};
use crate::console;
use crate::session::Session;

/// Candidates tried beside the winner.
const RIVALS: usize = 4;
/// Their own time, with what follows them, is at most this many times the winner's.
const CLOSE: f64 = 1.1;
/// Rounds of a comparison; a rival must win all.
const ROUNDS: usize = 3;
/// Seconds of a sample.
const SAMPLE_S: f64 = 0.15;

/// A winner that gave way.
#[derive(Debug, Clone)]
pub(crate) struct Refined {
    pub(crate) workload: Workload,
    /// The configuration that is the fastest alone.
    pub(crate) alone: Value,
    /// The one whole tokens are faster with.
    pub(crate) config: Value,
    /// By how much: the median of paired ratios less 1.
    pub(crate) gain: f64,
}

/// Where in the order of comparisons a workload of a decoded token stands: what is dispatched in every
/// layer, the shortest first. `None`: it is not compared.
fn rank(workload: &Workload) -> Option<u32> {
    match workload {
        Workload::DecodeAttention(_) => Some(0),
        Workload::GemvPair(_) => Some(1),
        Workload::MergeGemv(_) => Some(2),
        Workload::Gemv(s) if s.norm.is_some() => Some(3),
        _ => None,
    }
}

/// Candidates close to the winner, the fastest first.
fn rivals(one: &Settled) -> Vec<Measured> {
    let close = one.winner.us.median * CLOSE;
    let proven = one.records.iter().filter(|r| r.outcome == "proven" && r.config != one.winner.config);
    let mut all: Vec<Measured> = proven
        .filter_map(|r| {
            let (us, wgsl_hash) = (stats::summary(&r.samples)?, r.wgsl_hash.clone()?);
            Some(Measured { config: r.config.clone(), wgsl_hash, us, independent_us: None })
        })
        .filter(|m| m.us.median <= close)
        .collect();
    all.sort_by(|a, b| a.us.median.total_cmp(&b.us.median));
    all.truncate(RIVALS);
    all
}

/// The rival that won every round against the winner, by the most in the median, and by how much.
fn best(winner: &[f64], rivals: &[Vec<f64>]) -> Option<(usize, f64)> {
    let gain = |rival: &Vec<f64>| {
        let gains = ratios(winner, rival);
        let all_won = gains.iter().all(|gain| *gain > 0.0);
        stats::median(&gains).filter(|gain| all_won && *gain >= WORTH)
    };
    let gains = rivals.iter().enumerate().filter_map(|(i, rival)| Some((i, gain(rival)?)));
    gains.max_by(|a, b| a.1.total_cmp(&b.1))
}

/// Puts the candidates that whole tokens are fastest with in the winners' places, for as long as there is
/// time. `kernels` are those the model is to run with, winners included; `dropped` workloads stay as they
/// were.
pub(crate) fn refine(
    session: &mut Session,
    mut kernels: Kernels,
    settled: &mut [Settled],
    dropped: &[Workload],
    deadline: Instant,
    quiet: bool,
) -> Result<Vec<Refined>> {
    let bar = console::spinner("refining in whole tokens", quiet);
    session.model.set_kernels(kernels.clone());
    let used = block_on(session.model.workloads())?;
    let mut order: Vec<usize> = (0..settled.len())
        .filter(|i| {
            let workload = &settled[*i].workload;
            rank(workload).is_some() && used.contains(workload) && !dropped.contains(workload)
        })
        .collect();
    order.sort_by_key(|i| rank(&settled[*i].workload));
    let mut all = Vec::new();
    'workloads: for i in order {
        let one = &settled[i];
        let Some(winner) = one.variant() else { continue };
        let rivals: Vec<(Measured, Variant)> = rivals(one)
            .into_iter()
            .filter_map(|m| Some((m.clone(), one.workload.with_config(m.config).ok()?)))
            .collect();
        if rivals.is_empty() {
            continue;
        }
        let variants: Vec<&Variant> = [&winner].into_iter().chain(rivals.iter().map(|(_, v)| v)).collect();
        let mut times = vec![Vec::new(); variants.len()];
        for round in 0..ROUNDS {
            // Each round begins elsewhere: whoever is always first would have the coldest clocks.
            for k in 0..variants.len() {
                if stopped() || Instant::now() >= deadline {
                    break 'workloads;
                }
                bar.tick();
                let which = (k + round) % variants.len();
                session.model.set_kernels(kernels.with(&[variants[which].clone()]));
                times[which].push(token_seconds(session, SAMPLE_S)?);
            }
        }
        if let Some((rival, gain)) = best(&times[0], &times[1..]) {
            let (measured, variant) = &rivals[rival];
            kernels = kernels.with(std::slice::from_ref(variant));
            let (measured, one) = (measured.clone(), &mut settled[i]);
            let alone = std::mem::replace(&mut one.winner, measured);
            all.push(Refined {
                workload: one.workload.clone(),
                alone: alone.config.clone(),
                config: one.winner.config.clone(),
                gain,
            });
            one.runner_up = Some(alone);
        }
    }
    bar.finish_and_clear();
    session.model.set_kernels(kernels);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn a_rival_must_win_every_round_by_something() {
        let winner = [100.0, 101.0, 99.0];
        let (once, little, clear) =
            (vec![90.0, 102.0, 90.0], vec![99.9, 100.9, 98.9], vec![98.0, 99.0, 97.0]);
        assert_eq!(best(&winner, &[once.clone(), little.clone()]), None, "lost a round; gained a thousandth");
        let found = best(&winner, &[once, little, clear]).expect("two hundredths in every round");
        assert!(found.0 == 2 && (found.1 - 0.0204).abs() < 1e-3, "{found:?}");
    }
}
