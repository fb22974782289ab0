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
const RIVALS: usize = 12;
/// Their own time, with what follows them, is at most this many times the winner's; what a token adds to it
/// (above) differs by more.
const CLOSE: f64 = 1.15;
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
/// layer, what takes the most of it first. `None`: it is not compared.
fn rank(workload: &Workload) -> Option<u32> {
    match workload {
        Workload::GemvPair(_) => Some(0),
        Workload::Gemv(s) if s.norm.is_some() => Some(1),
        Workload::DecodeAttention(_) => Some(2),
        Workload::MergeGemv(_) => Some(3),
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

/// Which of `rivals` (numbered from 1; 0 is the winner) beats the winner in every round, by the most in the
/// median, and then again in as many pairs of their own; and by how much in those: the best of many looks
/// better than it is. Who loses a round is not measured again. `measure` gives seconds, or `None` when time is
/// up: then nobody is better.
///
/// # Errors
/// What `measure` reports.
fn race<E>(
    rivals: usize,
    measure: &mut dyn FnMut(usize) -> Result<Option<f64>, E>,
) -> Result<Option<(usize, f64)>, E> {
    let mut running: Vec<usize> = (0..=rivals).collect();
    let mut times = vec![Vec::new(); 1 + rivals];
    for round in 0..ROUNDS {
        if running.len() == 1 {
            return Ok(None);
        }
        for &which in &running {
            let Some(time) = measure(which)? else { return Ok(None) };
            times[which].push(time);
        }
        running.retain(|which| *which == 0 || times[*which][round] < times[0][round]);
        // The next round begins elsewhere: whoever is always first would have the coldest clocks.
        running.rotate_left(1);
    }
    let gain = |times: &[Vec<f64>], rival: usize| stats::median(&ratios(&times[0], &times[rival]));
    let gains = running.into_iter().filter(|r| *r > 0).filter_map(|r| Some((r, gain(&times, r)?)));
    let Some((best, _)) = gains.max_by(|a, b| a.1.total_cmp(&b.1)) else { return Ok(None) };
    let mut pairs = vec![Vec::new(); 2];
    for round in 0..ROUNDS {
        for k in 0..2 {
            let which = (k + round) % 2;
            let Some(time) = measure(which * best)? else { return Ok(None) };
            pairs[which].push(time);
        }
        if pairs[1][round] >= pairs[0][round] {
            return Ok(None);
        }
    }
    Ok(gain(&pairs, 1).filter(|gain| *gain >= WORTH).map(|gain| (best, gain)))
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
    // The tokens that are timed have short contexts.
    let [used, _] = block_on(session.model.workloads_by_context())?;
    let mut order: Vec<usize> = (0..settled.len())
        .filter(|i| {
            let workload = &settled[*i].workload;
            rank(workload).is_some() && used.contains(workload) && !dropped.contains(workload)
        })
        .collect();
    order.sort_by_key(|i| rank(&settled[*i].workload));
    let mut all = Vec::new();
    for i in order {
        let one = &settled[i];
        let Some(winner) = one.variant() else { continue };
        let rivals: Vec<(Measured, Variant)> = rivals(one)
            .into_iter()
            .filter_map(|m| Some((m.clone(), one.workload.with_config(m.config).ok()?)))
            .collect();
        let mut over = false;
        let better = race(rivals.len(), &mut |which| {
            if stopped() || Instant::now() >= deadline {
                over = true;
                return Ok::<_, anyhow::Error>(None);
            }
            bar.tick();
            let variant = if which == 0 { &winner } else { &rivals[which - 1].1 };
            session.model.set_kernels(kernels.with(std::slice::from_ref(variant)));
            token_seconds(session, SAMPLE_S).map(Some)
        })?;
        if let Some((rival, gain)) = better {
            let (measured, variant) = &rivals[rival - 1];
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
        if over {
            break;
        }
    }
    bar.finish_and_clear();
    session.model.set_kernels(kernels);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::race;

    /// What a race between these times, of both parts, finds, and in which order it measured.
    fn run(times: &[[f64; 6]]) -> (Option<(usize, f64)>, Vec<usize>) {
        let mut order = Vec::new();
        let found = race(times.len() - 1, &mut |which| {
            let nth = order.iter().filter(|w| **w == which).count();
            order.push(which);
            Ok::<_, ()>(Some(times[which][nth]))
        });
        (found.expect("nothing fails"), order)
    }

    #[test]
    fn a_rival_must_win_every_round_by_something() {
        let winner = [100.0, 101.0, 99.0, 100.0, 100.0, 100.0];
        let once = [90.0, 102.0, 90.0, 90.0, 90.0, 90.0];
        let little = [99.9, 100.9, 98.9, 99.9, 99.9, 99.9];
        let clear = [98.0, 99.0, 97.0, 99.0, 98.0, 97.0];
        let (found, order) = run(&[winner, once, little]);
        assert_eq!(found, None, "lost a round; gained a thousandth");
        // Who lost is not measured again, and rounds begin in turns; then the best meets the winner.
        assert_eq!(order, [0, 1, 2, 1, 2, 0, 0, 2, 0, 2, 2, 0, 0, 2]);
        let found = run(&[winner, once, little, clear]).0.expect("two hundredths in every round");
        assert!(found.0 == 3 && (found.1 - 0.0204).abs() < 1e-3, "{found:?}");
        assert_eq!(run(&[winner]), (None, vec![]), "without rivals there is no race");
    }

    #[test]
    fn the_best_of_many_must_win_again() {
        let winner = [100.0; 6];
        let lucky = [90.0, 90.0, 90.0, 99.0, 101.0, 99.0];
        assert_eq!(run(&[winner, lucky]).0, None);
    }

    #[test]
    fn nobody_wins_a_race_that_time_ends() {
        let mut left = 5;
        let found = race(2, &mut |which| {
            left -= 1;
            Ok::<_, ()>((left > 0).then_some([100.0, 50.0, 60.0][which]))
        });
        assert_eq!(found, Ok(None));
    }
}
