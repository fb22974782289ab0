//! `wgforge autotune`: the fastest proven form of each kernel on this device.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use pollster::block_on;
use serde_json::{Value, json};
use wgforge::autotune::{
    self, Conditions, Confirmed, Event, Evidence, Lock, Mode, Request, Session as Tuned, Settled, device_id,
};
use wgforge::codegen::{FAMILIES, Families, Variant, Workload};
use wgforge::model::{Fusion, Kernels, WeightMode};
use wgforge::runtime::Device;

use crate::autotune_confirm::{self, Change};
use crate::autotune_refine::{self, Refined};
use crate::autotune_report as report;
use crate::cli::{AutotuneArgs, Global};
use crate::console::{self, Graceful, usage};
use crate::session::{self, Place, Session};

/// Seconds of `--quick` on a GPU.
const QUICK_S: u64 = 55;
/// The same on an adapter in software, where a token of E2B takes a second.
const QUICK_ON_CPU_S: u64 = 240;
/// Seconds of `--full`.
const FULL_S: u64 = 600;
/// The part of the time that the whole-program confirmation gets.
const CONFIRMATION: f64 = 0.2;
/// The same where what came close is compared behind it, which gets the second half.
const CONFIRMATION_AND_REFINEMENT: f64 = 0.3;

/// What a run of this subcommand found.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) tuned: Tuned,
    pub(crate) confirmed: Vec<(String, Confirmed)>,
    /// Winners that did not show in the whole program.
    pub(crate) dropped: Vec<Workload>,
    /// Workloads with another winner than before that was not measured in the whole program.
    pub(crate) unconfirmed: Vec<Workload>,
    /// Winners that others took the place of, because whole tokens are faster with those.
    pub(crate) refined: Vec<Refined>,
    /// Where the results are.
    pub(crate) saved: Vec<PathBuf>,
    pub(crate) seed: u64,
    pub(crate) mode: Mode,
}

impl Outcome {
    /// Joined kernels that do not stay: nothing is tuned for them, and by that a plan knows.
    fn gone(&self, cpu: bool) -> Vec<Workload> {
        self.dropped.iter().filter(|w| chooses_plan(self.mode, cpu) && w.is_joined()).cloned().collect()
    }

    /// What the model runs from now on.
    fn kernels(&self, present: &Kernels, cpu: bool) -> Kernels {
        let stays = |s: &&Settled| !self.dropped.contains(&s.workload);
        let winners: Vec<Variant> =
            self.tuned.settled.iter().filter(stays).filter_map(Settled::variant).collect();
        present.with(&winners).without(&self.gone(cpu))
    }
}

/// Runs the subcommand.
pub(crate) fn execute(global: &Global, args: &AutotuneArgs) -> Result<()> {
    if let Some(name) = args.kernel.iter().find(|name| !FAMILIES.contains(&name.as_str())) {
        return usage(format!("unknown kernel `{name}`; known are {}", FAMILIES.join(", ")));
    }
    let start = Instant::now();
    let Place::Gpu(device) = Place::of(global)? else {
        bail!("there is nothing to tune without a GPU adapter; `wgforge doctor` says what is missing");
    };
    let device = *device;
    let (folder, id) = (autotune::cache_folder()?, device_id(device.report()));
    let path = folder.join(autotune::file_name(&id, &device.caps().class()));
    // Two tuners would disturb each other's times as well as each other's files.
    let _lock = Lock::acquire(&folder.join(autotune::file_name(&id, "")))?;

    let mut session = Session::open(global, WeightMode::Int4, args.json)?;
    let mode = if args.full { Mode::Full } else { Mode::Quick };
    let mut workloads = Vec::new();
    let cpu = device.report().device_type == "cpu";
    for plan in plans(mode, cpu) {
        session.model.set_fusion(*plan);
        for workload in block_on(session.model.workloads())? {
            // Where workgroups would wait in vain there are no candidates.
            let hopeless = workload.waits() && workload.candidates(device.caps()).is_empty();
            if !workloads.contains(&workload) && !hopeless {
                workloads.push(workload);
            }
        }
    }
    session.model.set_fusion(None);
    if !args.kernel.is_empty() {
        workloads.retain(|w| args.kernel.iter().any(|k| k == w.kernel()));
    }
    if workloads.is_empty() {
        bail!("the model {} runs none of these kernels: {}", session.source.name(), args.kernel.join(", "));
    }
    let default = match mode {
        Mode::Full => FULL_S,
        Mode::Quick if cpu => QUICK_ON_CPU_S,
        Mode::Quick => QUICK_S,
    };
    let budget = Duration::from_secs(args.budget.unwrap_or(default));
    let deadline = start + budget;
    let seed = args.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32);
    let conditions = Conditions::of(device.report(), mode, seed);
    let (mut evidence, resumed) = Evidence::open(
        &path.with_extension("evidence.jsonl"),
        &conditions,
        &Families::builtin(),
        args.fresh,
    )?;
    if !args.json {
        let again = if resumed.is_empty() {
            String::new()
        } else {
            format!(
                "; {} kernels were settled by a run that did not finish (--fresh forgets them)",
                resumed.len()
            )
        };
        eprintln!(
            "tuning {} kernels of {} on {}, at most {} s, seed {seed}{again}",
            workloads.len(),
            session.source.name(),
            device.report(),
            budget.as_secs()
        );
    }
    let present = present(&device, global.kernels.as_deref());
    let confirming = !args.no_confirm;
    let refining = confirming && mode == Mode::Full && !cpu;
    let whole_tokens = match (confirming, refining) {
        (false, _) => 0.0,
        (true, false) => CONFIRMATION,
        (true, true) => CONFIRMATION_AND_REFINEMENT,
    };
    let searching = budget.mul_f64(1.0 - whole_tokens);
    let request = Request {
        workloads,
        before: &|w| present.choose(w.clone()).ok(),
        mode,
        budget: searching.saturating_sub(start.elapsed()),
        seed,
        resumed,
    };
    let graceful = Graceful::begin();
    let bar = report::Bar::new(args.json);
    let tuned = block_on(autotune::tune(
        &device,
        &request,
        &mut evidence,
        &mut |e: &Event<'_>| bar.event(e),
        console::interrupted(),
    ));
    bar.finish();
    let tuned = tuned.with_context(|| {
        format!("tuning; what was settled is in {} and is resumed by the next run", evidence.path().display())
    })?;

    let changed = tuned.settled.iter().filter(|s| s.changed());
    let unconfirmed = changed.map(|s| s.workload.clone()).collect();
    let mut outcome = Outcome {
        tuned,
        confirmed: Vec::new(),
        dropped: Vec::new(),
        unconfirmed,
        refined: Vec::new(),
        saved: Vec::new(),
        seed,
        mode,
    };
    if confirming && !outcome.tuned.stopped {
        let left = deadline.saturating_duration_since(Instant::now());
        let confirmed_by = if refining { deadline - left / 2 } else { deadline };
        confirm(&mut session, &present, &mut outcome, confirmed_by, args.json)?;
        if refining {
            let kernels = outcome.kernels(&present, cpu);
            let settled = &mut outcome.tuned.settled;
            let dropped = &outcome.dropped;
            outcome.refined =
                autotune_refine::refine(&mut session, kernels, settled, dropped, deadline, args.json)?;
            let refined = &outcome.refined;
            outcome.unconfirmed.retain(|w| refined.iter().all(|r| r.workload != *w));
        }
    }
    let stopped = graceful.interrupted();
    drop(graceful);

    let mut database = outcome.tuned.database(&device, &outcome.dropped);
    // What is joined and does not stay leaves no entry: by that a plan knows.
    let gone = outcome.gone(cpu);
    gone.iter().for_each(|w| database.remove(w));
    for note in autotune::save_merged_without(&database, &gone, &path)? {
        eprintln!("notice: {note}");
    }
    // A run that is killed before this loses neither what it settled nor the confirmation.
    if !stopped {
        evidence.end()?;
    }
    outcome.saved.push(path);
    if let Some(file) = &args.out {
        autotune::save(&database, file)?;
        outcome.saved.push(file.clone());
    }
    if let Some(file) = &args.report {
        report::save(file, &device, &session, &outcome)?;
        outcome.saved.push(file.clone());
    }
    if args.json {
        console::json(&report::json(&session, &outcome, stopped))?;
    } else {
        report::print(&session, &outcome)?;
    }
    if stopped {
        let unconfirmed = match outcome.unconfirmed.len() {
            0 => String::new(),
            n => format!(" ({n} changed and not confirmed in whole tokens)"),
        };
        bail!(
            "stopped; {} kernels are settled and saved{unconfirmed}, run `wgforge autotune` again for the rest",
            outcome.tuned.settled.len()
        );
    }
    Ok(())
}

/// The plans whose kernels are tuned. In a hurry it is only the one that the device has now: half as
/// many kernels settle twice as well. In software (`cpu`) joined kernels lose by far
/// (docs/rejected.md).
fn plans(mode: Mode, cpu: bool) -> &'static [Option<Fusion>] {
    match mode {
        Mode::Quick => &[None],
        Mode::Full if cpu => &[Some(Fusion::NONE)],
        Mode::Full => &[Some(Fusion::NONE), Some(Fusion::STEPS), Some(Fusion::ALL), Some(Fusion::EXCHANGE)],
    }
}

/// Whether whole tokens decide between the plans: where the kernels of all of them were tuned.
fn chooses_plan(mode: Mode, cpu: bool) -> bool {
    plans(mode, cpu).len() > 1
}

/// What the device runs now: the measure of all winners.
fn present(device: &Device, file: Option<&Path>) -> Kernels {
    let caps = device.caps();
    match session::choose_kernels(device.report(), file) {
        Ok(chosen) => {
            let variants = chosen.database.entries().iter().map(|e| e.variant.clone()).collect();
            Kernels::tuned(caps, &chosen.name, variants).0
        }
        Err(_) => Kernels::generic(caps),
    }
}

/// Measures whole tokens with and without the winners, and drops those that do not show.
fn confirm(
    session: &mut Session,
    present: &Kernels,
    outcome: &mut Outcome,
    deadline: Instant,
    quiet: bool,
) -> Result<()> {
    let settled = || outcome.tuned.settled.iter();
    // Where the plan is chosen as well, joined kernels are compared with the plan that has none.
    let cpu = session.in_software();
    let joins = |w: &Workload| chooses_plan(outcome.mode, cpu) && w.is_joined();
    let before = |s: &Settled| {
        let measured = s.before.as_ref().filter(|_| !joins(&s.workload))?;
        s.workload.with_config(measured.config.clone()).ok()
    };
    // The tokens that are measured have short contexts.
    session.model.set_kernels(outcome.kernels(present, cpu));
    let (mut shown, mut long) = (Vec::new(), Vec::new());
    for plan in plans(outcome.mode, cpu) {
        session.model.set_fusion(*plan);
        let [short, only_long] = block_on(session.model.workloads_by_context())?;
        shown.extend(short);
        long.extend(only_long);
    }
    session.model.set_fusion(None);
    let hidden = |w: &Workload| long.contains(w) && !shown.contains(w);
    let changes: Vec<Change> = settled()
        .filter(|s| (s.changed() || joins(&s.workload)) && !hidden(&s.workload))
        .filter_map(|s| s.variant().map(|variant| Change { workload: s.workload.clone(), variant }))
        .collect();
    if changes.is_empty() {
        session.model.set_kernels(present.clone());
        return Ok(());
    }
    let apart: Vec<Variant> = settled().filter_map(before).collect();
    let joined: Vec<Workload> = settled().map(|s| s.workload.clone()).filter(joins).collect();
    let base = autotune_confirm::base(present, &apart, &joined);
    let verdict = autotune_confirm::confirm(session, present, &base, &changes, deadline, quiet)?;
    let unseen = |s: &&Settled| s.changed() && hidden(&s.workload);
    let unseen: Vec<Workload> = settled().filter(unseen).map(|s| s.workload.clone()).collect();
    let mut dropped = verdict.dropped;
    // Where a plan loses its joined attention, it loses that of long contexts, and what only this needs.
    let gone = |w: &Workload| joins(w) && w.in_short_contexts().is_some_and(|short| dropped.contains(&short));
    // What exchanges rows goes alone: all it is made of stays.
    let all_gone = settled().any(|s| gone(&s.workload) && !s.workload.waits());
    if settled().any(|s| gone(&s.workload)) {
        let with_it = settled().map(|s| &s.workload).filter(|w| gone(w) || all_gone && joins(w) && hidden(w));
        let with_it: Vec<Workload> = with_it.cloned().collect();
        dropped.extend(with_it);
    }
    outcome.confirmed = verdict.confirmed;
    outcome.unconfirmed = verdict.unconfirmed;
    outcome.unconfirmed.extend(unseen);
    outcome.dropped = dropped;
    Ok(())
}

/// A workload in a few words: what tells it from the others of its family.
pub(crate) fn short(workload: &Workload) -> String {
    let shape: Value = serde_json::from_str(&workload.shape_json()).unwrap_or_default();
    let fields: HashMap<String, Value> = shape.as_object().cloned().unwrap_or_default().into_iter().collect();
    let text = |name: &str| match &fields.get(name) {
        Some(Value::String(s)) => s.clone(),
        Some(v) => v.to_string(),
        None => String::new(),
    };
    match workload {
        Workload::Gemv(_) | Workload::Gemm(_) => {
            let norms = match fields.get("norm").filter(|n| !n.is_null()) {
                Some(n) if n["residual"] == true => "residual + norms + ",
                Some(_) => "norms + ",
                None => "",
            };
            let (rows, columns) = (text("rows"), text("columns"));
            let rows = format!("{norms}{rows}×{columns} {} {}", text("format"), text("epilogue"));
            let tops = match fields.get("tops") {
                Some(n) => format!(" and the largest of each {n}"),
                None => String::new(),
            };
            format!("{rows}, {} → {}{tops}", text("x"), text("out"))
        }
        Workload::GemvPair(s) => {
            let first = short(&Workload::Gemv(s.first.clone()));
            format!("{first}, then {}×{} {:?}", s.second.rows, s.first.rows, s.second.format)
        }
        Workload::MergeGemv(s) => {
            let (m, second) = (&s.merge, &s.second);
            let merge = format!("{} splits, {} heads of {}", m.splits, m.heads, m.dim);
            format!("{merge}, then {} rows {:?}", second.rows, second.format)
        }
        Workload::Attention(s) => {
            let window = if s.window > 0 { format!("window {}", s.window) } else { "all keys".into() };
            let stage = if s.decode { "decode" } else { "prefill" };
            format!("{stage}, {} heads of {}, {window} → {}", s.heads, s.dim, text("out"))
        }
        Workload::DecodeAttention(s) => {
            let window = if s.window > 0 { format!("window {}", s.window) } else { "all keys".into() };
            let cache = if s.append { "own" } else { "shared" };
            let window = if s.deep { format!("{window} of long contexts") } else { window };
            let ahead = if s.first.is_some() { "norms, q, k, v, then " } else { "" };
            let behind = match &s.then {
                Some(second) => format!(", then {} rows {:?}", second.rows, second.format),
                None => format!(" → {}", text("out")),
            };
            format!("{ahead}{} heads of {}, {window}, {cache} cache{behind}", s.heads, s.dim)
        }
        Workload::AttentionMerge(s) => {
            format!("{} splits, {} heads of {} → {}", s.splits, s.heads, s.dim, text("out"))
        }
        Workload::Norm(s) => {
            let residual = if s.residual { "residual + " } else { "" };
            format!("{residual}{} → {}", s.width, text("out"))
        }
        Workload::Rope(s) => format!("{}+2·{} heads of {}", s.heads, s.kv_heads, s.dim),
        Workload::Argmax(s) if s.slice > 0 => format!("the largest of {} in slices of {}", s.of, s.slice),
        Workload::Argmax(s) => format!("{}{}", s.n, if s.last { ", last" } else { "" }),
        _ => ["rows", "layers", "n", "columns", "dim", "keep"]
            .into_iter()
            .filter(|f| fields.contains_key(*f))
            .map(|f| format!("{f} {}", text(f)))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// A workload by name and shape, for messages.
pub(crate) fn named(workload: &Workload) -> String {
    format!("{} {}", workload.kernel(), short(workload))
}

/// One settled workload as JSON.
pub(crate) fn as_json(one: &Settled, outcome: &Outcome) -> Value {
    let among = |list: &[Workload]| list.contains(&one.workload);
    json!({
        "kernel": one.workload.kernel(),
        "shape": serde_json::from_str::<Value>(&one.workload.shape_json()).unwrap_or_default(),
        "before": one.before.as_ref().map(|b| &b.config),
        "before_us": one.before.as_ref().map(|b| b.us.median),
        "generic_us": one.generic.as_ref().map(|g| g.us.median),
        "config": one.winner.config,
        "after_us": one.winner.us.median,
        "low_us": one.winner.us.low,
        "high_us": one.winner.us.high,
        "samples": one.winner.us.count,
        "speedup": one.speedup(),
        "gb_s": one.gb_s(),
        "tflop_s": one.tflop_s(),
        "roofline_us": one.bound_us,
        "roofline_fraction": one.fraction(),
        "independent_us": one.winner.independent_us,
        "candidates": one.records.len(),
        "refused": one.records.iter().filter(|r| r.reason.is_some()).count(),
        "ended": one.ended,
        "kept": !among(&outcome.dropped),
        // Nothing is to be confirmed where nothing changed.
        "confirmed": one.changed().then(|| !among(&outcome.unconfirmed)),
    })
}
