//! A tuning session: workload after workload, each searched among proven candidates.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use web_time::Instant;

use wgforge_codegen::{Variant, Workload};
use wgforge_runtime::Device;

use crate::{
    Error,
    call::Call,
    candidates::{Bench, Choices, record},
    evidence::{Evidence, Measured, Record, Settled, ended},
    keeper::Keeper,
    prove::Rejection,
    reference::{Job, Material, Shelf},
    roofline::Roofline,
    search::{Effort, Space, search},
    time::{Clock, Rotation, Track},
};

/// How thorough to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Under a minute on a fast GPU: few candidates, few samples.
    Quick,
    /// As long as it pays.
    Full,
}

impl Mode {
    /// `quick` or `full`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Full => "full",
        }
    }

    /// The search effort; `cpu`: on an adapter in software, which is slow.
    pub fn effort(self, cpu: bool) -> Effort {
        match (self, cpu) {
            (Self::Quick, true) => Effort { exhaustive: 8, random: 3, most: 10, first: 2, last: 5, batch: 2 },
            (Self::Quick, false) => {
                Effort { exhaustive: 24, random: 12, most: 40, first: 3, last: 12, batch: 6 }
            }
            (Self::Full, true) => {
                Effort { exhaustive: 48, random: 16, most: 64, first: 3, last: 12, batch: 4 }
            }
            (Self::Full, false) => {
                Effort { exhaustive: 200, random: 64, most: 240, first: 4, last: 32, batch: 32 }
            }
        }
    }
}

/// What to tune, and for how long.
pub struct Request<'a> {
    /// The workloads. What must follow them is tuned with them.
    pub workloads: Vec<Workload>,
    /// The configuration each has now; `None` stands for the generic one.
    pub before: &'a dyn Fn(&Workload) -> Option<Variant>,
    /// How thorough to be.
    pub mode: Mode,
    /// All the time there is.
    pub budget: Duration,
    /// Seed of inputs and search.
    pub seed: u64,
    /// What a killed run settled already.
    pub resumed: Vec<Settled>,
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { workloads, mode, budget, seed, .. } = self;
        f.debug_struct("Request")
            .field("workloads", &workloads.len())
            .field("mode", mode)
            .field("budget", budget)
            .field("seed", seed)
            .finish_non_exhaustive()
    }
}

/// What happens in a session, for whoever watches.
#[derive(Debug)]
pub enum Event<'a> {
    /// The device was measured.
    Roofline(&'a Roofline),
    /// A workload's turn has come.
    Begin {
        /// Its number, from 0.
        index: usize,
        /// How many there are.
        count: usize,
        /// Which.
        workload: &'a Workload,
    },
    /// Candidates of it have been proven or refused.
    Tried {
        /// Proven so far.
        proven: usize,
        /// Refused so far.
        refused: usize,
    },
    /// A candidate was refused: never silently.
    Refused {
        /// Of which workload.
        workload: &'a Workload,
        /// Its configuration as JSON.
        config: &'a str,
        /// Why.
        reason: &'a Rejection,
    },
    /// The configuration for untuned devices fails here: programs that rely on it compute wrongly.
    Alarm(&'a str),
    /// It is done.
    Settled(&'a Settled),
    /// It stays as it was.
    Left(&'a Workload, &'a str),
}

/// The end of a session.
#[derive(Debug)]
pub struct Session {
    /// The device's rates.
    pub roofline: Roofline,
    /// What times it.
    pub clock: Clock,
    /// Workloads with winners, those of a resumed run among them.
    pub settled: Vec<Settled>,
    /// Workloads that stay as they were, and why.
    pub left: Vec<(Workload, String)>,
    /// Generic configurations that fail here.
    pub alarms: Vec<String>,
    /// Somebody stopped it.
    pub stopped: bool,
    /// How long it took.
    pub elapsed: Duration,
}

/// Tunes. Stops early, with what it has, when `stop` is set or the budget is spent. Once the result
/// is where it belongs, the caller says so with [`Evidence::end`]: until then a next session resumes.
///
/// # Errors
/// A device that fails as a whole, or an evidence file that cannot be written. What was settled
/// until then is in the evidence.
pub async fn tune(
    device: &Device,
    request: &Request<'_>,
    evidence: &mut Evidence,
    observer: &mut dyn FnMut(&Event<'_>),
    stop: &AtomicBool,
) -> Result<Session, Error> {
    let start = Instant::now();
    let clock = Clock::probe(device).await?;
    let roofline = Roofline::measure(device, &clock).await?;
    evidence.roofline(roofline)?;
    observer(&Event::Roofline(&roofline));

    let cpu = device.report().device_type == "cpu";
    let mut settled = request.resumed.clone();
    let order: Vec<Workload> = ordered(&request.workloads, device)
        .into_iter()
        .filter(|w| settled.iter().all(|s| s.workload != *w))
        .collect();
    let jobs = order.iter().map(|w| Job {
        variant: w.generic(device.caps()),
        call: Call::of(w, cpu),
        seed: request.seed,
        few_tokens: cpu,
    });
    // Where the processor does the work of the GPU, threads ahead would only disturb the times; a
    // browser gives none.
    let cores = thread::available_parallelism().map_or(1, |n| n.get());
    let workers = if cpu || cfg!(target_arch = "wasm32") { 0 } else { cores.saturating_sub(2).min(6) };
    let shelf = Arc::new(Shelf::new(jobs.collect(), workers + 1));
    let mut tuner = Tuner {
        device,
        request,
        clock,
        roofline,
        cpu,
        keeper: Keeper::new(device).await?,
        rotation: Rotation::default(),
        alarms: Vec::new(),
        end: start + request.budget,
        stop,
    };
    let mut left = Vec::new();
    // They go home whichever way this ends.
    let _workers = Workers::start(&shelf, workers);
    let mut pace = Pace::default();
    let mut weights: f64 = order.iter().map(weight).sum();
    for (index, workload) in order.iter().enumerate() {
        observer(&Event::Begin { index, count: order.len(), workload });
        let call = Call::of(workload, cpu);
        let share = weight(workload) / weights.max(1e-9);
        weights -= weight(workload);
        let mut leave = |why: &str, observer: &mut dyn FnMut(&Event<'_>)| {
            observer(&Event::Left(workload, why));
            left.push((workload.clone(), why.to_owned()));
        };
        if stop.load(Ordering::SeqCst) {
            leave("it was stopped before", observer);
            continue;
        }
        let remaining = tuner.end.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            leave("the time was spent before", observer);
            continue;
        }
        // Where no threads work ahead, references take of the same time, and the device, in software,
        // several times as long as they for the proofs of each candidate: for a real model's `gemm`
        // more than all the rest. Half of what is left must remain for the search.
        let work = workload.generic(device.caps()).cost(call.tokens, call.position).ops;
        if workers == 0 && 4.0 * pace.seconds(work) > remaining.as_secs_f64() / 2.0 {
            leave("proving it would take longer than there is time", observer);
            continue;
        }
        let began = Instant::now();
        let material = shelf.take(index);
        pace.note(work, began.elapsed());
        // The first are worth the most. More than this, and the last would see nothing of a short
        // session: every search overruns its slice by a batch.
        let slice = remaining.mul_f64((share * 1.15).min(1.0));
        match tuner.settle(workload, &material, slice, &settled, observer).await? {
            Ok(one) => {
                evidence.settled(&one)?;
                observer(&Event::Settled(&one));
                settled.push(one);
            }
            Err((why, records)) => {
                evidence.rejected(workload, &records)?;
                leave(&why, observer);
            }
        }
    }
    let stopped = stop.load(Ordering::SeqCst);
    Ok(Session { roofline, clock, settled, left, alarms: tuner.alarms, stopped, elapsed: start.elapsed() })
}

/// How fast proofs have been made so far.
#[derive(Debug, Default)]
struct Pace {
    work: f64,
    seconds: f64,
}

impl Pace {
    /// `work`: operations of one call of what was proven.
    fn note(&mut self, work: u64, took: Duration) {
        self.work += work as f64;
        self.seconds += took.as_secs_f64();
    }

    /// What those of `work` may take; 0 as long as nothing is known.
    fn seconds(&self, work: u64) -> f64 {
        if self.work > 0.0 { self.seconds * work as f64 / self.work } else { 0.0 }
    }
}

/// The threads that make proofs ahead.
struct Workers {
    shelf: Arc<Shelf>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    fn start(shelf: &Arc<Shelf>, count: usize) -> Self {
        let begin = |_| {
            let shelf = Arc::clone(shelf);
            thread::spawn(move || shelf.work())
        };
        Self { shelf: Arc::clone(shelf), threads: (0..count).map(begin).collect() }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shelf.close();
        for thread in self.threads.drain(..) {
            // One that panicked has left its job to whoever takes it.
            let _ = thread.join();
        }
    }
}

/// All workloads once, what follows them before them, the most valuable first: when time runs out
/// it is the rest that stays as it was.
fn ordered(workloads: &[Workload], device: &Device) -> Vec<Workload> {
    let rank = |w: &Workload| match w {
        Workload::Gemv(_) | Workload::GemvPair(_) => 0,
        Workload::Attention(s) if s.decode => 1,
        Workload::DecodeAttention(_) | Workload::AttentionMerge(_) | Workload::MergeGemv(_) => 1,
        Workload::Norm(_) => 2,
        Workload::Rope(_) => 3,
        Workload::Gemm(_) => 4,
        Workload::Attention(_) => 5,
        _ => 6,
    };
    let mut sorted: Vec<&Workload> = workloads.iter().collect();
    sorted.sort_by_key(|w| rank(w));
    let mut all: Vec<Workload> = Vec::new();
    for workload in sorted {
        let behind =
            workload.candidates(device.caps()).iter().flat_map(Variant::followers).collect::<Vec<_>>();
        for w in behind.into_iter().chain([workload.clone()]) {
            if !all.contains(&w) {
                all.push(w);
            }
        }
    }
    all
}

/// A workload's claim on the time there is.
fn weight(workload: &Workload) -> f64 {
    match workload {
        Workload::Gemv(_) | Workload::GemvPair(_) | Workload::Gemm(_) => 3.0,
        Workload::Attention(_) | Workload::DecodeAttention(_) => 3.0,
        Workload::AttentionMerge(_) | Workload::MergeGemv(_) => 0.5,
        _ => 1.0,
    }
}

/// Workloads settled, or why not, with the candidates that were refused.
type Verdict = Result<Settled, (String, Vec<Record>)>;

struct Tuner<'a> {
    device: &'a Device,
    request: &'a Request<'a>,
    clock: Clock,
    roofline: Roofline,
    cpu: bool,
    keeper: Keeper,
    rotation: Rotation,
    alarms: Vec<String>,
    end: Instant,
    stop: &'a AtomicBool,
}

impl Tuner<'_> {
    async fn settle(
        &mut self,
        workload: &Workload,
        material: &Arc<Material>,
        slice: Duration,
        settled: &[Settled],
        observer: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Verdict, Error> {
        let choices = Choices::of(workload, self.device.caps(), (self.request.before)(workload));
        if choices.variants.is_empty() {
            return Ok(Err(("no configuration runs on this device".into(), Vec::new())));
        }
        let call = Call::of(workload, self.cpu);
        let plain = crate::prove::plain(&choices.variants[0]);
        let cost = choices.variants[choices.generic].cost(call.tokens, call.position);
        let bound_us = self.roofline.bound_us(&cost);
        let (timed, all) = (&material.timed, &choices.variants[..]);
        let track = Track::new(self.device, self.clock, &mut self.rotation, &plain, timed, all).await?;
        let deadline = (Instant::now() + slice).min(self.end);
        let mut bench =
            Bench::new(self.device, &self.keeper, &choices, material, track, deadline, self.stop, observer);
        bench.follow(settled);
        let effort = self.request.mode.effort(self.cpu);
        let space = Space {
            configs: choices.configs(),
            before: choices.before,
            known: choices.known(effort.random),
            // Software's rates vary by more than a bound is worth.
            bound_us: Some(bound_us).filter(|_| !self.cpu),
        };
        let found = search(&space, &effort, self.request.seed, &mut bench).await;
        let hashes = bench.hashes();
        let records: Vec<Record> =
            found.trials.iter().map(|t| record(t, &choices, hashes.get(&t.candidate))).collect();
        if let Some(reason) = found.trial(choices.generic).and_then(|t| t.rejected.as_ref()) {
            let alarm = format!(
                "the generic configuration of {} {} cannot be used on this device: it {reason}",
                workload.kernel(),
                workload.shape_json()
            );
            bench.observe(&Event::Alarm(&alarm));
            self.alarms.push(alarm);
        }
        let measured = async |bench: &mut Bench<'_>, candidate: usize, overlap: bool| -> Option<Measured> {
            let us = found.trial(candidate)?.summary()?;
            let independent_us = if overlap { bench.independent(candidate).await } else { None };
            Some(Measured {
                config: space.configs[candidate].clone(),
                wgsl_hash: hashes.get(&candidate)?.clone(),
                us,
                independent_us,
            })
        };
        // A lost device explains every failure, and nothing can follow it.
        self.device.check()?;
        let winner = match found.winner {
            Some(w) => measured(&mut bench, w, true).await,
            None => None,
        };
        let Some(winner) = winner else {
            return Ok(Err(("not one candidate could be proven and timed".into(), records)));
        };
        let runner_up = match found.runner_up {
            Some(r) => measured(&mut bench, r, false).await,
            None => None,
        };
        let one = Settled {
            workload: workload.clone(),
            tokens: call.tokens,
            position: call.position,
            bytes: cost.bytes(),
            ops: cost.ops,
            bound_us,
            before: measured(&mut bench, choices.before, false).await,
            generic: measured(&mut bench, choices.generic, true).await,
            runner_up,
            winner,
            ended: ended(found.ended),
            records,
        };
        drop(bench);
        self.device.forget_pipelines();
        self.rotation.shrink(512 << 20);
        Ok(Ok(one))
    }
}
