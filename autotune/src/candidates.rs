//! The candidates of one workload on a device: rendered and compiled on all cores, proven, timed.

use std::collections::HashMap;
use std::iter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

#[cfg(not(target_arch = "wasm32"))]
use pollster::block_on;
use serde_json::Value;
use web_time::Instant;
use wgforge_codegen::{Caps, Rendered, Target, Variant, Workload, db::native_hash};
use wgforge_runtime::{Device, KernelSource, Pipeline};

use crate::{
    evidence::{Record, Settled},
    keeper::Keeper,
    prove::{Rejection, Uploads, prove},
    reference::Material,
    search::{Lab, Trial},
    time::{Bound, Track},
    tuner::Event,
};

/// The dialect of this program's devices.
const TARGET: Target = if cfg!(target_arch = "wasm32") { Target::Web } else { Target::Native };

/// The variants of a workload that this device can run.
#[derive(Debug)]
pub(crate) struct Choices {
    pub(crate) variants: Vec<Variant>,
    /// The one in use now.
    pub(crate) before: usize,
    /// The one for devices nobody has tuned.
    pub(crate) generic: usize,
}

impl Choices {
    pub(crate) fn of(workload: &Workload, caps: &Caps, before: Option<Variant>) -> Self {
        let mut variants: Vec<Variant> =
            workload.candidates(caps).into_iter().filter(|v| v.why_not(caps).is_none()).collect();
        let mut place = |v: Variant| match variants.iter().position(|known| *known == v) {
            Some(i) => i,
            // Defaults are not always among the candidates.
            None => {
                variants.push(v);
                variants.len() - 1
            }
        };
        let usable = |v: &Variant| v.why_not(caps).is_none();
        let generic = Some(workload.generic(caps)).filter(usable).map_or(0, &mut place);
        let before = before.filter(usable).map_or(generic, &mut place);
        Self { variants, before, generic }
    }

    /// Where to begin: the generic one, and at most `most` of the promising ones, evenly taken. The last ones first:
    /// families list what is special behind what is plain, and time may run out.
    pub(crate) fn known(&self, most: usize) -> Vec<usize> {
        let promising: Vec<usize> =
            (0..self.variants.len()).filter(|i| self.variants[*i].promising()).collect();
        let stride = promising.len().div_ceil(most.max(1)).max(1);
        iter::once(self.generic).chain(promising.into_iter().rev().step_by(stride)).collect()
    }

    pub(crate) fn configs(&self) -> Vec<Value> {
        self.variants.iter().map(config).collect()
    }
}

fn config(variant: &Variant) -> Value {
    // Made from plain data, so it parses.
    serde_json::from_str(&variant.config_json()).unwrap_or_default()
}

/// A trial as it goes into the evidence.
pub(crate) fn record(trial: &Trial, choices: &Choices, hash: Option<&String>) -> Record {
    Record::of(trial, config(&choices.variants[trial.candidate]), hash.cloned())
}

/// Candidates on the bench.
pub(crate) struct Bench<'a> {
    device: &'a Device,
    keeper: &'a Keeper,
    choices: &'a Choices,
    material: &'a Material,
    track: Track,
    ready: HashMap<usize, (Bound, u32)>,
    hashes: HashMap<usize, String>,
    uploads: Uploads,
    /// Time of the dispatches behind each candidate, µs.
    behind: HashMap<usize, f64>,
    deadline: Instant,
    stop: &'a AtomicBool,
    observer: &'a mut dyn FnMut(&Event<'_>),
    proven: usize,
    refused: usize,
    /// What the last candidate took, µs: a first guess at the next.
    usual_us: Option<f64>,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(
        device: &'a Device,
        keeper: &'a Keeper,
        choices: &'a Choices,
        material: &'a Material,
        track: Track,
        deadline: Instant,
        stop: &'a AtomicBool,
        observer: &'a mut dyn FnMut(&Event<'_>),
    ) -> Self {
        Self {
            device,
            keeper,
            choices,
            material,
            track,
            ready: HashMap::new(),
            hashes: HashMap::new(),
            uploads: Uploads::default(),
            behind: HashMap::new(),
            deadline,
            stop,
            observer,
            proven: 0,
            refused: 0,
            usual_us: None,
        }
    }

    /// Looks up what stands behind each candidate.
    pub(crate) fn follow(&mut self, settled: &[Settled]) {
        for (i, variant) in self.choices.variants.iter().enumerate() {
            for workload in variant.followers() {
                let one = settled.iter().find(|s| s.workload == workload);
                // An unsettled follower is not free: without its time the candidate is unknown.
                *self.behind.entry(i).or_default() += one.map_or(f64::NAN, |s| s.winner.us.median);
            }
        }
    }

    pub(crate) fn hashes(&self) -> HashMap<usize, String> {
        self.hashes.clone()
    }

    pub(crate) fn observe(&mut self, event: &Event<'_>) {
        (self.observer)(event);
    }

    /// Time of one dispatch where dispatches may overlap, µs.
    pub(crate) async fn independent(&mut self, candidate: usize) -> Option<f64> {
        let (bound, _) = self.ready.get(&candidate)?;
        let _quiet = self.keeper.pause();
        self.track.independent(&self.choices.variants[candidate], bound).await.ok()
    }

    async fn finish(
        &mut self,
        candidate: usize,
        made: Result<(String, Pipeline), Rejection>,
    ) -> Result<(), Rejection> {
        let variant = &self.choices.variants[candidate];
        let (hash, pipeline) = made?;
        self.hashes.insert(candidate, hash);
        if self.behind.get(&candidate).is_some_and(|us| us.is_nan()) {
            return Err(Rejection::Fails("what must follow it could not be timed".into()));
        }
        prove(self.device, &pipeline, variant, &self.material.proofs, &mut self.uploads).await?;
        let bound =
            self.track.bind(variant, &pipeline).await.map_err(|e| Rejection::Compile(e.to_string()))?;
        let n = self.track.batch_for(self.usual_us.unwrap_or(100.0));
        self.ready.insert(candidate, (bound, n));
        Ok(())
    }
}

async fn compile(
    device: &Device,
    variant: &Variant,
    rendered: &Rendered,
) -> wgforge_runtime::Result<Pipeline> {
    let source = KernelSource { label: variant.kernel(), wgsl: &rendered.wgsl, bindings: &rendered.bindings };
    device.pipeline(&source).await
}

async fn make(device: &Device, variant: &Variant) -> Result<(String, Pipeline), Rejection> {
    let rendered = variant.render(TARGET).map_err(|e| Rejection::Render(e.to_string()))?;
    let pipeline =
        compile(device, variant, &rendered).await.map_err(|e| Rejection::Compile(e.to_string()))?;
    // Databases know a kernel by its native text, whatever the dialect it was tried in.
    let hash = match TARGET {
        Target::Native => rendered.hash,
        Target::Web => native_hash(variant).map_err(|e| Rejection::Render(e.to_string()))?,
    };
    Ok((hash, pipeline))
}

/// Renders and compiles some candidates, each on a thread of its own.
#[cfg(not(target_arch = "wasm32"))]
async fn make_all(
    device: &Device,
    variants: &[Variant],
    some: &[usize],
) -> Vec<Result<(String, Pipeline), Rejection>> {
    thread::scope(|scope| {
        let workers: Vec<_> =
            some.iter().map(|i| scope.spawn(move || block_on(make(device, &variants[*i])))).collect();
        let died = || Err(Rejection::Compile("the compiler's thread panicked".into()));
        workers.into_iter().map(|w| w.join().unwrap_or_else(|_| died())).collect()
    })
}

/// The same one after the other: a browser has threads of its own for it.
#[cfg(target_arch = "wasm32")]
async fn make_all(
    device: &Device,
    variants: &[Variant],
    some: &[usize],
) -> Vec<Result<(String, Pipeline), Rejection>> {
    let mut made = Vec::with_capacity(some.len());
    for i in some {
        made.push(make(device, &variants[*i]).await);
    }
    made
}

impl Lab for Bench<'_> {
    async fn prepare(&mut self, batch: &[usize]) -> Vec<Result<(), Rejection>> {
        let cores = thread::available_parallelism().map_or(1, |n| n.get()).min(16);
        let mut outcomes = Vec::with_capacity(batch.len());
        for some in batch.chunks(cores) {
            let made = make_all(self.device, &self.choices.variants, some).await;
            for (i, made) in some.iter().zip(made) {
                let outcome = self.finish(*i, made).await;
                match &outcome {
                    Ok(()) => self.proven += 1,
                    Err(reason) => {
                        self.refused += 1;
                        let variant = &self.choices.variants[*i];
                        let (workload, config) = (variant.workload(), variant.config_json());
                        (self.observer)(&Event::Refused { workload: &workload, config: &config, reason });
                    }
                }
                (self.observer)(&Event::Tried { proven: self.proven, refused: self.refused });
                outcomes.push(outcome);
            }
        }
        outcomes
    }

    async fn sample(&mut self, candidate: usize, probe: bool) -> Result<f64, Rejection> {
        let fails = |e: wgforge_runtime::Error| Rejection::Fails(e.to_string());
        let missing = || Rejection::Fails("it was not prepared".into());
        let (bound, n) = self.ready.get(&candidate).ok_or_else(missing)?;
        // A first batch is short: this one may be a hundred times slower than the last.
        let n = if probe { (*n / 8).max(1) } else { *n };
        let quiet = self.keeper.pause();
        let us = self.track.dependent(bound, n).await.map_err(fails)?;
        drop(quiet);
        if us.is_nan() || us <= 0.0 {
            return Err(Rejection::Fails("the clock showed no time".into()));
        }
        if probe {
            let n = self.track.batch_for(us);
            if let Some(ready) = self.ready.get_mut(&candidate) {
                ready.1 = n;
            }
            self.usual_us = Some(us);
        }
        Ok(us + self.behind.get(&candidate).copied().unwrap_or(0.0))
    }

    fn over(&self) -> bool {
        self.stop.load(Ordering::SeqCst) || Instant::now() >= self.deadline
    }
}
