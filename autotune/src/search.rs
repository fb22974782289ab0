//! Which candidates to try, in which order, and when to stop. Knows no device: whatever can
//! prepare and time a candidate by its number will do, so tests use a table of times.

use std::collections::HashSet;

use serde_json::Value;
use wgforge_codegen::check::Rng;

use crate::{
    prove::Rejection,
    stats::{Summary, median, summary},
};

/// A candidate this many times slower than the leader in its first samples is not sampled further.
const HOPELESS: f64 = 1.6;
/// The leader has reached the roofline within this.
const AT_BOUND: f64 = 1.04;
/// What was there before stays unless another is better by more than this.
const MARGIN: f64 = 0.02;
/// A gain of this is worth more samples where their noise hides it.
const DOUBT: f64 = 0.05;
/// This many times the samples of other finalists at most.
const PATIENCE: usize = 4;

/// What a search needs to be able to do with candidates.
#[expect(async_fn_in_trait, reason = "a lab is used by one thread: its device may be a browser's")]
pub trait Lab {
    /// Renders, compiles and proves candidates; those refused are never timed.
    async fn prepare(&mut self, batch: &[usize]) -> Vec<Result<(), Rejection>>;
    /// One sample of a prepared candidate, µs. `probe`: the first, whose time may be biased and
    /// whose batch may be short.
    ///
    /// # Errors
    /// Why it failed while it ran.
    async fn sample(&mut self, candidate: usize, probe: bool) -> Result<f64, Rejection>;
    /// Whether time is up, or somebody wants to stop.
    fn over(&self) -> bool;
}

/// How hard to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Spaces up to this size are tried whole.
    pub exhaustive: usize,
    /// Candidates drawn at random from larger ones.
    pub random: usize,
    /// Candidates tried in all.
    pub most: usize,
    /// Samples of each candidate at first.
    pub first: usize,
    /// Samples of the finalists.
    pub last: usize,
    /// Candidates prepared together.
    pub batch: usize,
}

/// The candidates of a workload.
#[derive(Debug, Clone)]
pub struct Space {
    /// Their configurations as JSON objects; neighbours differ in one field.
    pub configs: Vec<Value>,
    /// What is in use now: the measure of all others.
    pub before: usize,
    /// Others to begin with, such as the generic one.
    pub known: Vec<usize>,
    /// The least time any candidate can take, µs, where it is known.
    pub bound_us: Option<f64>,
}

/// What was found out about one candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Its number in the space.
    pub candidate: usize,
    /// Why it was refused; it then has no samples.
    pub rejected: Option<Rejection>,
    /// µs each. The biased first one is left out, unless it is the only one: of a candidate so slow
    /// that no bias explains it.
    pub samples: Vec<f64>,
}

impl Trial {
    /// What the samples say.
    pub fn summary(&self) -> Option<Summary> {
        summary(&self.samples).filter(|_| self.rejected.is_none())
    }
}

/// Why a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nothing was left to try.
    Exhausted,
    /// As many as the effort allows were tried.
    Enough,
    /// The leader reached the roofline.
    Bound,
    /// Time was up, or somebody stopped it.
    Interrupted,
}

/// The end of a search.
#[derive(Debug, Clone)]
pub struct Found {
    /// The candidate to use; `None` where not one could be timed.
    pub winner: Option<usize>,
    /// The next best, if there is one.
    pub runner_up: Option<usize>,
    /// Everything that was tried, in that order.
    pub trials: Vec<Trial>,
    /// Why it ended.
    pub ended: Ended,
}

impl Found {
    /// The trial of a candidate.
    pub fn trial(&self, candidate: usize) -> Option<&Trial> {
        self.trials.iter().find(|t| t.candidate == candidate)
    }
}

/// Searches. The same seed and the same times give the same result.
pub async fn search<L: Lab>(space: &Space, effort: &Effort, seed: u64, lab: &mut L) -> Found {
    let mut s = Search { space, effort, lab, trials: Vec::new(), seen: HashSet::new() };
    // Where time is short, what is there now and the default are measured, and as much else as there
    // is time for.
    let (default, others) = space.known.split_at(space.known.len().min(1));
    s.attempt(&[&[space.before], default].concat()).await;
    let ended = match s.walk(others.to_vec(), Ended::Enough).await {
        Ended::Enough => s.explore(seed).await,
        early => early,
    };
    let alive = s.halve().await;
    s.resolve(&alive).await;
    let (winner, runner_up) = s.choose(&alive);
    Found { winner, runner_up, trials: s.trials, ended }
}

struct Search<'a, L> {
    space: &'a Space,
    effort: &'a Effort,
    lab: &'a mut L,
    trials: Vec<Trial>,
    seen: HashSet<usize>,
}

impl<L: Lab> Search<'_, L> {
    async fn explore(&mut self, seed: u64) -> Ended {
        let all = self.space.configs.len();
        if all <= self.effort.exhaustive {
            return self.walk((0..all).collect(), Ended::Exhausted).await;
        }
        let mut rng = Rng::new(seed);
        let n = u32::try_from(all).unwrap_or(u32::MAX);
        let drawn = (0..self.effort.random).map(|_| rng.below(n) as usize).collect();
        let ended = self.walk(drawn, Ended::Enough).await;
        if ended != Ended::Enough {
            return ended;
        }
        // Downhill along one field at a time, from the best so far, until no field helps.
        while let Some(leader) = self.leader() {
            let near: Vec<usize> =
                (0..all).filter(|i| !self.seen.contains(i) && self.adjacent(leader, *i)).collect();
            if near.is_empty() {
                return if self.seen.len() == all { Ended::Exhausted } else { Ended::Enough };
            }
            let ended = self.walk(near, Ended::Enough).await;
            if ended != Ended::Enough || self.leader() == Some(leader) || self.seen.len() >= self.effort.most
            {
                return ended;
            }
        }
        Ended::Enough
    }

    /// Tries a list in batches.
    async fn walk(&mut self, list: Vec<usize>, at_end: Ended) -> Ended {
        for batch in list.chunks(self.effort.batch.max(1)) {
            if self.lab.over() {
                return Ended::Interrupted;
            }
            if self.at_bound() {
                return Ended::Bound;
            }
            let room = self.effort.most.saturating_sub(self.seen.len());
            if room == 0 {
                return Ended::Enough;
            }
            let mut fresh: Vec<usize> = batch.iter().copied().filter(|i| !self.seen.contains(i)).collect();
            fresh.truncate(room);
            self.attempt(&fresh).await;
        }
        if self.lab.over() { Ended::Interrupted } else { at_end }
    }

    /// Prepares and first samples, in rounds, so that a drift of clocks meets all alike. The
    /// leader takes part, to be compared under the same conditions.
    async fn attempt(&mut self, list: &[usize]) {
        let mut fresh: Vec<usize> = Vec::new();
        for &i in list {
            if i < self.space.configs.len() && self.seen.insert(i) {
                fresh.push(i);
            }
        }
        let leader = self.leader();
        let from = self.trials.len();
        for (candidate, outcome) in fresh.iter().zip(self.lab.prepare(&fresh).await) {
            self.trials.push(Trial { candidate: *candidate, rejected: outcome.err(), samples: Vec::new() });
        }
        let best = self.best_us();
        let mut racing: Vec<usize> = Vec::new();
        for at in from..self.trials.len() {
            if self.trials[at].rejected.is_some() {
                continue;
            }
            match self.lab.sample(self.trials[at].candidate, true).await {
                // Biased upwards, but not by that much.
                Ok(us) if best.is_some_and(|b| us > b * 4.0) => self.trials[at].samples.push(us),
                Ok(_) => racing.push(at),
                Err(e) => self.trials[at].rejected = Some(e),
            }
        }
        let leader = leader.and_then(|l| self.position(l));
        for _ in 0..self.effort.first.max(2) {
            for at in racing.clone().into_iter().chain(leader.filter(|_| !racing.is_empty())) {
                self.sample(at).await;
                let best = self.best_us();
                let mine = self.trials[at].samples.iter().copied().fold(f64::INFINITY, f64::min);
                if best.is_some_and(|b| mine > b * HOPELESS) || self.trials[at].rejected.is_some() {
                    racing.retain(|r| *r != at);
                }
            }
            // Every candidate that was begun has a sample to show, whatever the time.
            if self.lab.over() {
                break;
            }
        }
    }

    async fn sample(&mut self, at: usize) {
        match self.lab.sample(self.trials[at].candidate, false).await {
            Ok(us) => self.trials[at].samples.push(us),
            Err(e) => self.trials[at].rejected = Some(e),
        }
    }

    /// Successive halving: the better half of those not clearly behind, with twice the samples.
    async fn halve(&mut self) -> Vec<usize> {
        let mut wanted = self.effort.first.max(2);
        loop {
            let mut alive: Vec<(usize, Summary)> =
                (0..self.trials.len()).filter_map(|at| self.trials[at].summary().map(|s| (at, s))).collect();
            alive.sort_by(|a, b| a.1.median.total_cmp(&b.1.median));
            let Some((_, leader)) = alive.first().copied() else { return Vec::new() };
            let keep = alive.len().div_ceil(2).max(2);
            let clear = leader.high.max(leader.median * (1.0 + MARGIN));
            // Equals stay together, so that chance does not decide between them.
            let equal = leader.median * (1.0 + MARGIN / 2.0);
            let mut staying: Vec<usize> = alive
                .iter()
                .enumerate()
                .filter(|(rank, (_, s))| s.low <= clear && (*rank < keep || s.median <= equal))
                .map(|(_, (at, _))| *at)
                .take(16)
                .collect();
            // What is there now stays to the end: the winner has to beat it.
            let before =
                alive.iter().map(|(at, _)| *at).find(|at| self.trials[*at].candidate == self.space.before);
            staying.extend(before.filter(|at| !staying.contains(at)));
            wanted = (wanted * 2).min(self.effort.last);
            let short = |s: &Self, at: usize| s.trials[at].samples.len() < wanted;
            while staying.iter().any(|at| short(self, *at)) {
                for at in staying.clone() {
                    if short(self, at) {
                        self.sample(at).await;
                    }
                }
                staying.retain(|at| self.trials[*at].rejected.is_none());
                if self.lab.over() {
                    return staying;
                }
            }
            if wanted >= self.effort.last {
                return staying;
            }
        }
    }

    /// On a noisy device the intervals of what is there now and of a much better one may meet, and it
    /// would stay: both are sampled on until they do not, or until the gain proves small.
    async fn resolve(&mut self, alive: &[usize]) {
        let now = alive.iter().copied().find(|at| self.trials[*at].candidate == self.space.before);
        while let Some(now) = now.filter(|_| !self.lab.over()) {
            let running = alive.iter().filter(|at| self.trials[**at].rejected.is_none());
            let timed = running.filter_map(|at| median(&self.trials[*at].samples).map(|m| (*at, m)));
            let Some((best, _)) = timed.min_by(|a, b| a.1.total_cmp(&b.1)) else { return };
            let (Some(n), Some(b)) = (self.trials[now].summary(), self.trials[best].summary()) else {
                return;
            };
            if n.low > b.high || b.median >= n.median * (1.0 - DOUBT) {
                return;
            }
            let short = [now, best].map(|at| self.trials[at].samples.len() < self.effort.last * PATIENCE);
            if short == [false, false] {
                return;
            }
            for (at, _) in [now, best].into_iter().zip(short).filter(|(_, short)| *short) {
                self.sample(at).await;
            }
        }
    }

    /// The winner among the survivors, and the next.
    fn choose(&self, alive: &[usize]) -> (Option<usize>, Option<usize>) {
        let mut ranked: Vec<(usize, Summary)> = alive
            .iter()
            .filter_map(|at| self.trials[*at].summary().map(|s| (self.trials[*at].candidate, s)))
            .collect();
        ranked.sort_by(|a, b| a.1.median.total_cmp(&b.1.median));
        let Some((_, best)) = ranked.first().copied() else { return (None, None) };
        // Equals go to the one that stands earlier in the list, so that two runs agree.
        let equal = |s: &Summary| s.median <= best.median * 1.005 && s.low <= best.high;
        let winner = ranked.iter().filter(|(_, s)| equal(s)).map(|(c, _)| *c).min();
        let before = ranked.iter().find(|(c, _)| *c == self.space.before).map(|(_, s)| *s);
        let winner = match before {
            Some(b) if b.median * (1.0 - MARGIN) <= best.median || b.low <= best.high => {
                Some(self.space.before)
            }
            _ => winner,
        };
        let others = self.trials.iter().filter(|t| Some(t.candidate) != winner);
        let timed = others.filter_map(|t| t.summary().map(|s| (t.candidate, s.median)));
        (winner, timed.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(c, _)| c))
    }

    fn position(&self, candidate: usize) -> Option<usize> {
        self.trials.iter().position(|t| t.candidate == candidate)
    }

    fn leader(&self) -> Option<usize> {
        let timed = self.trials.iter().filter_map(|t| t.summary().map(|s| (t.candidate, s.median)));
        timed.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(c, _)| c)
    }

    fn best_us(&self) -> Option<f64> {
        self.trials.iter().filter_map(|t| t.summary().map(|s| s.median)).reduce(f64::min)
    }

    /// Two samples of the leader confirm that nothing can be much faster.
    fn at_bound(&self) -> bool {
        let Some(bound) = self.space.bound_us else { return false };
        self.trials.iter().filter(|t| t.rejected.is_none()).any(|t| {
            t.samples.iter().filter(|us| **us <= bound * AT_BOUND).count() >= 2
                && t.summary().is_some_and(|s| s.median <= bound * AT_BOUND)
        })
    }

    /// Whether two configurations differ in one field.
    fn adjacent(&self, a: usize, b: usize) -> bool {
        let (Some(a), Some(b)) = (self.space.configs[a].as_object(), self.space.configs[b].as_object())
        else {
            return false;
        };
        // A field may be there in one of them only.
        let added = b.keys().filter(|k| !a.contains_key(*k)).count();
        a.iter().filter(|(k, v)| b.get(*k) != Some(v)).count() + added == 1
    }
}
