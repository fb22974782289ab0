//! wgforge's matrix products beside cubecl's, on one GPU in one process: see README.md.

mod measure;
mod ours;
mod peer;
mod problem;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use pollster::block_on;
use serde_json::{Value, json};
use wgforge_runtime::{Device, DeviceOptions};

use crate::measure::{Runner, Times, measure};
use crate::peer::{Layout, Peer};
use crate::problem::{Data, Problem};

/// Versions of the other side, as pinned in Cargo.toml.
const PEER: &str = "cubecl 0.11.3, cubek-matmul 0.3.1, burn-cubecl 0.22.1";
/// Bytes that copies of the weights fill for products with vectors, so that no cache holds them.
const ROTATED: u64 = 256 << 20;
/// How the numbers come about; stands above the table.
const METHOD: &str = "µs of a dispatch: host's clock from recording to completion of a batch of at least 5 ms, over its \
     dispatches; median of 11 batches after 0.5 s of warm-up. Dispatches are dependent: all of a batch write \
     one result. Vectors: copies of the weights take turns, 256 MiB in all (one copy on software adapters). \
     `alone`: one dispatch by the GPU's timestamps. `ratio`: cubecl's time over wgforge's.";

/// Compares wgforge's matrix products with cubecl's on one GPU.
#[derive(Debug, Parser)]
struct Args {
    /// Write all results to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only rows with this text in their name.
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,
    /// Part of the adapter's name; otherwise the best one.
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Square problems of these sizes in place of all others; multiples of 64.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    sizes: Vec<u32>,
    /// Time of wgforge's tuner for each problem, s; cubecl's takes what it takes.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    tune: u64,
}

/// One side's outcome for a problem.
#[derive(Debug)]
struct Outcome {
    times: Times,
    /// Largest error, in parts of the root mean square of the results.
    error: f64,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let options = DeviceOptions { name: args.adapter.clone(), ..DeviceOptions::default() };
    let device = block_on(Device::request(&options))?;
    let report = device.report().clone();
    let peer = Peer::open(&report);
    let runtime = match &peer {
        Ok(peer) => peer.runtime().to_owned(),
        Err(error) => format!("does not run: {error:#}"),
    };
    println!("{report}, driver {} {}\n{PEER}: {runtime}\n{METHOD}\n", report.driver, report.driver_info);

    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header([
        "problem",
        "wgforge µs",
        "min–max",
        "alone",
        "rate",
        "cubecl µs",
        "min–max",
        "alone",
        "rate",
        "layout",
        "ratio",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let (mut rows, mut wrong) = (Vec::new(), false);
    let chosen = |p: &Problem| args.only.as_ref().is_none_or(|text| p.name().contains(text.as_str()));
    for problem in problem::all(&args.sizes).into_iter().filter(chosen) {
        eprintln!("{}", problem.name());
        let row = compare(&device, peer.as_ref().ok(), problem, args.tune, &mut wrong);
        table.add_row(row.cells);
        rows.push(row.json);
        if let Some(path) = &args.json {
            // After each row: a run that is ended early leaves what it has.
            let all = json!({
                "adapter": report.name, "backend": report.backend,
                "driver": format!("{} {}", report.driver, report.driver_info),
                "peer": PEER, "peer_runtime": runtime, "method": METHOD, "rows": rows,
            });
            std::fs::write(path, serde_json::to_string_pretty(&all)?)
                .with_context(|| format!("writing {}", path.display()))?;
        }
    }
    println!("{table}");
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

struct Row {
    cells: Vec<String>,
    json: Value,
}

/// Both sides on one problem. What cannot run says why in its cells.
fn compare(device: &Device, peer: Option<&Peer>, problem: Problem, seconds: u64, wrong: &mut bool) -> Row {
    let data = match Data::new(problem, device.caps()) {
        Ok(data) => data,
        Err(error) => {
            return Row {
                cells: vec![problem.name(), format!("{error:#}")],
                json: json!({ "problem": problem.name(), "error": format!("{error:#}") }),
            };
        }
    };
    let (unit, mut cells) = (problem.rate(1.0).1, vec![problem.name()]);
    let mut json = json!({
        "problem": problem.name(), "tokens": problem.tokens, "rows": problem.rows, "columns": problem.columns,
        "bytes": problem.bytes(), "flops": problem.flops(), "unit": unit,
        "tolerance": problem.tolerance(), "copies": ours::copies(device, &problem),
    });

    let ours = wgforge(device, &data, seconds, &mut json["wgforge"]);
    side(&problem, &ours, &mut cells, &mut json["wgforge"], wrong);

    let copies = ours::copies(device, &problem);
    let mut best: Option<(Layout, Outcome)> = None;
    let mut failed = None;
    for &layout in Layout::of(&problem) {
        let Some(peer) = peer else {
            failed = Some(anyhow::anyhow!("no device"));
            break;
        };
        let outcome = peer.bind(&data, layout, copies).and_then(|mut bound| outcome(&mut bound, &data));
        peer.clean();
        let at = &mut json["cubecl"][layout.name()];
        match outcome {
            Ok(found) => {
                *at = as_json(&problem, &found);
                // A wrong result does not win, and does not pass in silence.
                let right = found.error <= problem.tolerance();
                if !right {
                    eprintln!("  cubecl {}: WRONG by {:.3} RMS", layout.name(), found.error);
                    *wrong = true;
                }
                let rank = |o: &Outcome| (o.error > problem.tolerance(), o.times.median);
                if best.as_ref().is_none_or(|(_, b)| rank(&found) < rank(b)) {
                    best = Some((layout, found));
                }
            }
            Err(error) => {
                eprintln!("  cubecl {}: {error:#}", layout.name());
                *at = json!({ "error": format!("{error:#}") });
                failed = Some(error);
            }
        }
    }
    let (layout, theirs) = match (best, failed) {
        (Some((layout, found)), _) => (layout.name(), Ok(found)),
        (None, error) => ("", Err(error.unwrap_or_else(|| anyhow::anyhow!("nothing ran")))),
    };
    side(&problem, &theirs, &mut cells, &mut Value::Null, wrong);
    cells.push(layout.to_owned());
    if let (Ok(ours), Ok(theirs)) = (&ours, &theirs) {
        let ratio = theirs.times.median / ours.times.median;
        cells.push(format!("{ratio:.2}"));
        json["best_layout"] = layout.into();
        json["ratio"] = ratio.into();
    }
    Row { cells, json }
}

/// Tunes and measures wgforge; `json` gets what was tuned.
fn wgforge(device: &Device, data: &Data, seconds: u64, json: &mut Value) -> Result<Outcome> {
    let tuned = ours::tuned(device, data, seconds)?;
    eprintln!("  wgforge: {} configurations in {:.1} s", tuned.tried.0, tuned.seconds);
    *json = json!({
        "kernel": tuned.variant.kernel(),
        "config": serde_json::from_str::<Value>(&tuned.variant.config_json()).unwrap_or_default(),
        "proven": tuned.tried.0, "refused": tuned.tried.1, "tuning_s": tuned.seconds,
    });
    outcome(&mut ours::Bound::new(device, data, &tuned.variant)?, data)
}

fn outcome(runner: &mut dyn Runner, data: &Data) -> Result<Outcome> {
    runner.batch(1)?;
    let first = data.error(&runner.result()?);
    let times = measure(runner)?;
    // Again after the batches: what ran when it was timed must be right.
    Ok(Outcome { error: data.error(&runner.result()?).max(first), times })
}

/// Four cells of one side, and its part of the JSON.
fn side(
    problem: &Problem,
    outcome: &Result<Outcome>,
    cells: &mut Vec<String>,
    json: &mut Value,
    wrong: &mut bool,
) {
    match outcome {
        Ok(o) => {
            let right = o.error <= problem.tolerance();
            *wrong |= !right;
            let (rate, unit) = problem.rate(o.times.median);
            let mark = if right { "" } else { "WRONG " };
            cells.push(format!("{mark}{:.1}", o.times.median));
            cells.push(format!("{:.1}–{:.1}", o.times.min, o.times.max));
            cells.push(o.times.alone.map_or_else(String::new, |us| format!("{us:.1}")));
            cells.push(format!("{rate:.3} {unit}"));
            merge(json, as_json(problem, o));
        }
        Err(error) => {
            cells.push(format!("{error:#}"));
            cells.extend([const { String::new() }; 3]);
            merge(json, json!({ "error": format!("{error:#}") }));
        }
    }
}

fn as_json(problem: &Problem, o: &Outcome) -> Value {
    let t = &o.times;
    json!({
        "us": t.median, "min_us": t.min, "max_us": t.max, "host_us": t.host, "alone_us": t.alone,
        "batch": t.batch, "rate": problem.rate(t.median).0, "error_rms": o.error,
        "wrong": o.error > problem.tolerance(),
    })
}

fn merge(into: &mut Value, more: Value) {
    if !into.is_object() {
        *into = json!({});
    }
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}
