//! wgforge's side: each product tuned, then bound to rotated weights.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use pollster::block_on;
use wgforge_autotune::{Conditions, Event, Evidence, Mode, Record, Request, Settled, tune};
use wgforge_codegen::{Families, Target, Variant};
use wgforge_runtime::{BindGroup, Device, KernelSource, Pipeline, Recorder, Slice, bytemuck};

use crate::ROTATED;
use crate::measure::{Runner, quick};
use crate::problem::{Data, Problem};

/// Configurations that are timed once more at the size of the problem, where that is not the one
/// the tuner times at.
const FINALISTS: usize = 6;
/// Time of a tuning session before its search on a GPU, and on an adapter in software: it measures
/// the device's rates.
const BEGIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// Elements a second that inputs and their reference are made with on one core, roughly.
const PREPARED: f64 = 15e6;
/// Bytes written before the queue may start.
const PART: usize = 64 << 20;

/// What was found for a problem.
pub(crate) struct Tuned {
    pub(crate) variant: Variant,
    /// Candidates that were proven and timed, and those that were refused.
    pub(crate) tried: (usize, usize),
    /// Time the search took, s.
    pub(crate) seconds: f64,
}

/// The fastest configuration for `data`'s problem that a search of about `seconds` finds.
pub(crate) fn tuned(device: &Device, data: &Data, seconds: u64) -> Result<Tuned> {
    let start = Instant::now();
    let problem = data.problem;
    let workload = problem.workload();
    if let Some(reason) = workload.generic(device.caps()).why_not(device.caps()) {
        bail!("{reason}");
    }
    let settled = settle(device, &problem, seconds)?;
    let times = |r: &Record| r.samples.iter().copied().reduce(f64::min);
    let refused = settled.records.iter().filter(|r| r.reason.is_some()).count();
    let mut proven: Vec<(f64, &Record)> =
        settled.records.iter().filter(|r| r.reason.is_none()).filter_map(|r| Some((times(r)?, r))).collect();
    proven.sort_by(|a, b| a.0.total_cmp(&b.0));
    let tried = (proven.len(), refused);
    let mut variant = settled.variant().context("the winner is of another version")?;
    if settled.tokens != problem.tokens {
        let generic = workload.generic(device.caps());
        let others = proven.iter().take(FINALISTS).map(|(_, r)| workload.with_config(r.config.clone()));
        let mut best = f64::INFINITY;
        for finalist in [Ok(variant.clone()), Ok(generic)].into_iter().chain(others) {
            let finalist = finalist.map_err(anyhow::Error::msg)?;
            let us = quick(&mut Bound::new(device, data, &finalist)?)?;
            if us < best {
                (best, variant) = (us, finalist);
            }
        }
    }
    Ok(Tuned { variant, tried, seconds: start.elapsed().as_secs_f64() })
}

fn settle(device: &Device, problem: &Problem, seconds: u64) -> Result<Settled> {
    let folder = tempfile::tempdir().context("a folder for the tuner's evidence")?;
    let (mode, seed) = (Mode::Full, 1);
    let conditions = Conditions::of(device.report(), mode, seed);
    let path = folder.path().join("evidence.jsonl");
    let (mut evidence, _) = Evidence::open(&path, &conditions, &Families::builtin(), true)?;
    let elements = f64::from(problem.rows) * f64::from(problem.columns);
    // A session's budget also pays for its inputs and for the device's rates.
    let begin = BEGIN[usize::from(device.report().device_type == "cpu")];
    let extra = begin + Duration::from_secs_f64(elements / PREPARED);
    let request = Request {
        workloads: vec![problem.workload()],
        before: &|_| None,
        mode,
        budget: Duration::from_secs(seconds) + extra,
        seed,
        resumed: Vec::new(),
    };
    let mut observer = |event: &Event<'_>| {
        if let Event::Alarm(text) = event {
            eprintln!("notice: {text}");
        }
    };
    let session = tune(device, &request, &mut evidence, &mut observer, &AtomicBool::new(false))?;
    if let Some((_, why)) = session.left.first() {
        bail!("not tuned: {why}");
    }
    session.settled.into_iter().next().context("not tuned")
}

/// A variant bound to a problem's numbers.
pub(crate) struct Bound {
    device: Device,
    pipeline: Pipeline,
    /// One for each copy of the weights.
    groups: Vec<BindGroup>,
    grid: [u32; 3],
    out: Slice,
    next: usize,
}

impl Bound {
    pub(crate) fn new(device: &Device, data: &Data, variant: &Variant) -> Result<Self> {
        let rendered = variant.render(Target::Native)?;
        let source =
            KernelSource { label: variant.kernel(), wgsl: &rendered.wgsl, bindings: &rendered.bindings };
        let pipeline = block_on(device.pipeline(&source))?;
        let copies = copies(device, &data.problem);
        // Everything but the weights is there once; the result as well, so that each dispatch
        // waits for the one before.
        let mut shared = Vec::new();
        for (name, words) in data.buffers.iter().filter(|(name, _)| *name != "w") {
            shared.push((*name, upload(device, name, words)?));
        }
        let out = shared.iter().find(|(name, _)| *name == "out").map(|(_, slice)| slice.clone());
        let mut groups = Vec::new();
        for _ in 0..copies {
            let w = upload(device, "w", data.words("w")?)?;
            let slices: Vec<Slice> = data
                .buffers
                .iter()
                .map(|(name, _)| shared.iter().find(|(n, _)| n == name).map_or(&w, |(_, slice)| slice))
                .cloned()
                .collect();
            groups.push(pipeline.bind(device, &slices)?);
        }
        device.check()?;
        Ok(Self {
            device: device.clone(),
            pipeline,
            groups,
            grid: variant.groups(data.problem.tokens),
            out: out.context("the kernel has no binding `out`")?,
            next: 0,
        })
    }

    fn run(&mut self, mut recorder: Recorder, n: u32) -> Result<(Recorder, Instant)> {
        let start = Instant::now();
        let mut pass = recorder.pass("peers");
        for _ in 0..n {
            pass.dispatch(&self.pipeline, &self.groups[self.next], self.grid)?;
            self.next = (self.next + 1) % self.groups.len();
        }
        drop(pass);
        Ok((recorder, start))
    }
}

/// How often the weights of `problem` are there.
pub(crate) fn copies(device: &Device, problem: &Problem) -> u64 {
    // Software adapters have no memory of their own to be measured.
    if !problem.is_vector() || device.report().device_type == "cpu" {
        1
    } else {
        ROTATED.div_ceil(problem.weight_bytes())
    }
}

fn upload(device: &Device, name: &str, words: &[u32]) -> Result<Slice> {
    let bytes: &[u8] = bytemuck::cast_slice(words);
    let slice = block_on(device.buffer(name, (bytes.len() as u64).next_multiple_of(16)))?;
    for (i, part) in bytes.chunks(PART).enumerate() {
        device.write(&slice, (i * PART) as u64, part);
        if part.len() == PART {
            block_on(Recorder::new(device, "upload").submit().wait())?;
        }
    }
    Ok(slice)
}

impl Runner for Bound {
    fn batch(&mut self, n: u32) -> Result<(Duration, Duration)> {
        let (recorder, start) = self.run(Recorder::new(&self.device, "peers"), n)?;
        let submission = recorder.submit();
        let host = start.elapsed();
        block_on(submission.wait())?;
        Ok((host, start.elapsed()))
    }

    fn alone(&mut self) -> Result<Option<f64>> {
        let (recorder, _) = self.run(Recorder::with_timestamps(&self.device, 1)?, 1)?;
        let times = block_on(recorder.submit().timestamps().read())?;
        Ok(times.map(|us| us.iter().sum()))
    }

    fn result(&mut self) -> Result<Vec<u32>> {
        Ok(bytemuck::pod_collect_to_vec(&block_on(self.device.read(&self.out))?))
    }
}
