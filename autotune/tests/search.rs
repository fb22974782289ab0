//! The search against tables of times.

use std::cell::Cell;
use std::collections::HashMap;

use pollster::block_on;
use serde_json::json;
use wgforge_autotune::{
    Rejection,
    search::{Effort, Ended, Lab, Space, search},
};

/// Candidates with known times; counts what is asked of it.
struct Table {
    us: Vec<f64>,
    wrong: Vec<usize>,
    prepared: Vec<usize>,
    samples: HashMap<usize, usize>,
    noise: f64,
    /// Samples spread evenly over this part below and above the time.
    spread: f64,
    calls: Cell<u64>,
    most_calls: u64,
}

impl Table {
    fn new(us: Vec<f64>) -> Self {
        Self {
            us,
            wrong: Vec::new(),
            prepared: Vec::new(),
            samples: HashMap::new(),
            noise: 0.002,
            spread: 0.0,
            calls: Cell::new(0),
            most_calls: u64::MAX,
        }
    }
}

impl Lab for Table {
    async fn prepare(&mut self, batch: &[usize]) -> Vec<Result<(), Rejection>> {
        self.prepared.extend(batch);
        let wrong = |i| Rejection::Wrong { case: "a case".into(), report: format!("candidate {i}") };
        batch.iter().map(|i| if self.wrong.contains(i) { Err(wrong(i)) } else { Ok(()) }).collect()
    }

    async fn sample(&mut self, candidate: usize, probe: bool) -> Result<f64, Rejection> {
        assert!(self.prepared.contains(&candidate), "{candidate} was timed before it was proven");
        assert!(!self.wrong.contains(&candidate), "{candidate} is wrong and was timed");
        self.calls.set(self.calls.get() + 1);
        let n = self.samples.entry(candidate).or_default();
        *n += 1;
        // A fixed pattern instead of chance, and a first sample that is far off.
        let even = (*n as f64 * 0.618_034).fract() * 2.0 - 1.0;
        let wobble = 1.0 + self.noise * ((*n * 7 % 5) as f64 - 2.0) + self.spread * even;
        Ok(self.us[candidate] * if probe { 1.8 } else { wobble })
    }

    fn over(&self) -> bool {
        self.calls.get() >= self.most_calls
    }
}

const QUICK: Effort = Effort { exhaustive: 24, random: 12, most: 60, first: 3, last: 12, batch: 8 };

fn small(us: &[f64], before: usize) -> (Space, Table) {
    let configs = (0..us.len()).map(|i| json!({ "wg": i })).collect();
    (Space { configs, before, known: Vec::new(), bound_us: None }, Table::new(us.to_vec()))
}

#[test]
fn a_small_space_is_tried_whole_and_the_fastest_wins() {
    let (space, mut table) = small(&[10.0, 7.0, 9.0, 30.0, 7.4], 0);
    let found = block_on(search(&space, &QUICK, 1, &mut table));
    assert_eq!((found.winner, found.ended), (Some(1), Ended::Exhausted), "{found:?}");
    assert_eq!(found.runner_up, Some(4), "the next best");
    assert_eq!(found.trials.len(), 5, "each was tried");
    let samples = |i| found.trial(i).expect("tried").samples.len();
    assert_eq!(samples(1), QUICK.last, "finalists get all samples");
    assert!(samples(3) < 4, "one that is four times slower gets few: {}", samples(3));
    assert!(found.trials.iter().flat_map(|t| &t.samples).all(|us| *us != 7.0 * 1.8), "probes are dropped");
}

#[test]
fn wrong_candidates_are_never_timed_and_have_their_reason() {
    let (space, mut table) = small(&[10.0, 1.0, 9.0], 0);
    table.wrong = vec![1];
    let found = block_on(search(&space, &QUICK, 1, &mut table));
    assert_eq!(found.winner, Some(2), "the fastest is wrong");
    let wrong = found.trial(1).expect("recorded");
    assert!(matches!(&wrong.rejected, Some(Rejection::Wrong { report, .. }) if report == "candidate 1"));
    assert!(wrong.samples.is_empty(), "{wrong:?}");
}

#[test]
fn where_all_are_wrong_nothing_wins() {
    let (space, mut table) = small(&[10.0, 1.0], 0);
    table.wrong = vec![0, 1];
    let found = block_on(search(&space, &QUICK, 1, &mut table));
    assert_eq!((found.winner, found.trials.len()), (None, 2));
}

#[test]
fn what_is_there_stays_unless_another_is_clearly_better() {
    for (other, winner) in [(9.9, 0), (9.85, 0), (9.0, 1)] {
        let (space, mut table) = small(&[10.0, other], 0);
        assert_eq!(
            block_on(search(&space, &QUICK, 1, &mut table)).winner,
            Some(winner),
            "10 against {other}"
        );
    }
    // Noise that covers the difference.
    let (space, mut table) = small(&[10.0, 9.5], 0);
    table.noise = 0.2;
    assert_eq!(block_on(search(&space, &QUICK, 1, &mut table)).winner, Some(0), "intervals overlap");
}

#[test]
fn noise_that_hides_a_large_gain_is_sampled_away() {
    let run = |other| {
        let (space, mut table) = small(&[10.0, other], 0);
        table.spread = 0.3;
        let found = block_on(search(&space, &QUICK, 1, &mut table));
        (found.winner, found.trial(0).expect("tried").samples.len())
    };
    let (winner, samples) = run(8.0);
    assert_eq!(winner, Some(1), "a fifth faster, of which twelve samples are not sure");
    assert!(samples > QUICK.last && samples <= 4 * QUICK.last, "{samples} samples");
    assert_eq!(run(9.8), (Some(0), QUICK.last), "a small gain is not worth it");
    assert_eq!(run(9.2), (Some(0), 4 * QUICK.last), "what stays hidden, stays out");
}

#[test]
fn equals_go_to_the_earlier_one() {
    let (space, mut table) = small(&[10.0, 5.01, 5.0, 5.0], 0);
    assert_eq!(block_on(search(&space, &QUICK, 1, &mut table)).winner, Some(1));
}

/// 4 fields of 6 values; the time is a bowl with its floor at (4, 1, 3, 2).
fn large() -> (Space, Table) {
    let (mut configs, mut us) = (Vec::new(), Vec::new());
    for n in 0..6u32.pow(4) {
        let at: Vec<u32> = (0..4).map(|k| n / 6u32.pow(k) % 6).collect();
        let far: f64 = at.iter().zip([4.0, 1.0, 3.0, 2.0]).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
        configs.push(json!({ "wg": at[0], "rows": at[1], "lanes": at[2], "sg": at[3] }));
        us.push(10.0 + far);
    }
    (Space { configs, before: 0, known: vec![7], bound_us: None }, Table::new(us))
}

#[test]
fn a_large_space_is_descended_not_enumerated() {
    let (space, mut table) = large();
    let effort = Effort { most: 200, ..QUICK };
    let found = block_on(search(&space, &effort, 5, &mut table));
    let best = &space.configs[found.winner.expect("one wins")];
    assert_eq!(*best, json!({ "wg": 4, "rows": 1, "lanes": 3, "sg": 2 }), "the floor of the bowl");
    assert!(found.trials.len() <= 200, "{} of {} tried", found.trials.len(), space.configs.len());
    assert_eq!(found.trials[0].candidate, 0, "begins with what is there");
}

#[test]
fn the_same_seed_goes_the_same_way_and_budgets_are_kept() {
    let run = |seed| {
        let (space, mut table) = large();
        let found = block_on(search(&space, &QUICK, seed, &mut table));
        (found.winner, found.trials.iter().map(|t| t.candidate).collect::<Vec<_>>())
    };
    assert_eq!(run(3), run(3), "deterministic");
    assert_ne!(run(3).1, run(4).1, "seeds matter");
    assert!(run(3).1.len() <= QUICK.most, "no more than allowed");
}

#[test]
fn the_roofline_ends_a_search() {
    let (mut space, mut table) = small(&[10.0, 5.0, 7.0, 6.0, 8.0, 9.0], 0);
    space.bound_us = Some(4.9);
    let effort = Effort { batch: 2, ..QUICK };
    let found = block_on(search(&space, &effort, 1, &mut table));
    assert_eq!((found.winner, found.ended), (Some(1), Ended::Bound), "{found:?}");
    assert!(found.trials.len() < 6, "the rest was not tried");
}

#[test]
fn time_that_is_up_ends_it_with_what_is_known() {
    let us: Vec<f64> = (0..20).map(|i| 20.0 - f64::from(i) * 0.5).collect();
    let (space, mut table) = small(&us, 0);
    table.most_calls = 12;
    let effort = Effort { batch: 2, ..QUICK };
    let found = block_on(search(&space, &effort, 1, &mut table));
    assert_eq!(found.ended, Ended::Interrupted);
    assert!(found.trials.len() < 20 && found.winner.is_some(), "{found:?}");
    let (space, mut table) = small(&us, 0);
    table.most_calls = 0;
    let found = block_on(search(&space, &effort, 1, &mut table));
    assert_eq!(found.winner, Some(0), "no time at all leaves what is there");
}
