//! Tuning in the browser: the same search, proofs and databases as the command line's, within a time
//! budget, confirmed by whole tokens.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use js_sys::Function;
use serde::Serialize;
use wasm_bindgen::prelude::*;
use web_time::Instant;
use wgforge_autotune::{self as autotune, Event, Evidence, Mode, stats::median};
use wgforge_codegen::{Database, Variant};
use wgforge_model::{Choice, Kernels, Model, Request};
use wgforge_runtime::{AdapterReport, Device};

use crate::error::{js, named};

/// Whole tokens must gain this much, or what was found is not used.
const MARGIN: f64 = 1.01;
/// Tokens of a comparison, and how often it is made.
const TOKENS: u32 = 32;
const ROUNDS: usize = 5;
/// What of the budget is for the search; the rest for whole tokens.
const SEARCH: f64 = 0.8;

/// What became of a session.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tuned {
    /// Whole tokens gained, so the new kernels are in use.
    pub(crate) kept: bool,
    /// Tokens a second before and after, medians.
    before: f64,
    after: f64,
    settled: usize,
    changed: usize,
    /// Kernels there was no time for, or nothing to be done for.
    left: usize,
    seconds: f64,
    /// The database, as `wgforge autotune` writes it. Of use where `kept`.
    pub(crate) toml: String,
}

/// The kernels of a database that was tuned in this browser, over those there are; the reason where
/// it does not fit.
pub(crate) fn with_tuned(
    kernels: &Kernels,
    adapter: &AdapterReport,
    toml: &str,
) -> Result<(Kernels, String), String> {
    let (database, _) = Database::parse_lenient("tuned here", toml).map_err(|e| e.to_string())?;
    let made_on = database.header.device.as_ref().map_or("", |d| d.name.as_str());
    if made_on != adapter.name || database.header.class != adapter.caps.class() {
        return Err(format!("it was tuned on {made_on} ({})", database.header.class));
    }
    let fresh = |entry: &&autotune::Entry| !entry.stale().unwrap_or(true);
    let variants: Vec<Variant> =
        database.entries().iter().filter(fresh).map(|entry| entry.variant.clone()).collect();
    let why = format!("{} kernels tuned in this browser on this adapter", variants.len());
    Ok((kernels.with(&variants), why))
}

/// Tunes what `model` runs, and leaves it with the kernels that are faster. `tell` is told what
/// happens as JSON, and ends the session with what it has by returning true.
pub(crate) async fn tune(
    device: &Device,
    model: &mut Model,
    kernels: &mut Kernels,
    budget: Duration,
    tell: &Function,
) -> Result<Tuned, JsValue> {
    let start = Instant::now();
    let stop = AtomicBool::new(false);
    let say = |value: serde_json::Value| {
        let told = tell.call1(&JsValue::NULL, &value.to_string().into());
        if told.is_ok_and(|answer| answer.is_truthy()) {
            stop.store(true, Ordering::SeqCst);
        }
    };
    let workloads = model.workloads().await.map_err(js)?;
    let now = kernels.clone();
    let request = autotune::Request {
        workloads,
        before: &|workload| now.choose(workload.clone()).ok(),
        mode: Mode::Quick,
        budget: budget.mul_f64(SEARCH),
        seed: 1,
        resumed: Vec::new(),
    };
    let mut observer = |event: &Event<'_>| match event {
        Event::Begin { index, count, workload } => {
            say(serde_json::json!({ "done": index, "count": count, "kernel": workload.kernel() }));
        }
        Event::Refused { workload, config, reason } => {
            let text = format!("{} {config} {reason}", workload.kernel());
            say(serde_json::json!({ "refused": text }));
        }
        Event::Alarm(text) => say(serde_json::json!({ "alarm": text })),
        _ => say(serde_json::json!({})),
    };
    let session = autotune::tune(device, &request, &mut Evidence::none(), &mut observer, &stop)
        .await
        .map_err(|e| match e {
            autotune::Error::Device(lost) => js(lost),
            other => named("DeviceError", &other.to_string()),
        })?;
    let changes =
        |one: &&autotune::Settled| one.before.as_ref().is_none_or(|b| b.config != one.winner.config);
    let changed = session.settled.iter().filter(changes).count();
    let database = session.database(device, &[]);
    let found: Vec<Variant> = database.entries().iter().map(|entry| entry.variant.clone()).collect();
    let tuned = kernels.with(&found);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    if changed > 0 {
        // One after the other, so that a drift of clocks meets both.
        for round in 0..=ROUNDS {
            if stop.load(Ordering::SeqCst) {
                // Too few to say anything: what there was stays.
                after.clear();
                break;
            }
            for (candidate, times) in [(&*kernels, &mut before), (&tuned, &mut after)] {
                model.set_kernels(candidate.clone());
                let outcome = speed(model).await;
                if outcome.is_err() {
                    model.set_kernels(kernels.clone());
                }
                let speed = outcome?;
                // The first of each compiles.
                if round > 0 {
                    times.push(speed);
                }
            }
            say(serde_json::json!({ "confirming": round }));
        }
    }
    let (before, after) = (median(&before).unwrap_or(0.0), median(&after).unwrap_or(0.0));
    let kept = after > before * MARGIN;
    if kept {
        *kernels = tuned;
    }
    model.set_kernels(kernels.clone());
    Ok(Tuned {
        kept,
        before,
        after,
        settled: session.settled.len(),
        changed,
        left: session.left.len(),
        seconds: start.elapsed().as_secs_f64(),
        toml: database.to_toml(),
    })
}

/// Tokens a second behind a short prompt.
async fn speed(model: &mut Model) -> Result<f64, JsValue> {
    model.reset();
    let request = Request { prompt: vec![0; 2], max_new: TOKENS, choice: Choice::Greedy, stop: Vec::new() };
    let stats = model.generate(&request, &mut |_| ControlFlow::Continue(())).await.map_err(js)?;
    model.reset();
    Ok(stats.tokens_per_second())
}
