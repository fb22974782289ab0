//! What `wgforge autotune` shows: progress, a table, JSON, the report's file.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use wgforge::autotune::{Event, html};
use wgforge::runtime::Device;

use crate::autotune::{Outcome, as_json, named, short};
use crate::console;
use crate::session::Session;

/// Progress on standard error; silent where nobody watches.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    quiet: bool,
}

impl Bar {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { bar: console::steps_bar("measuring the device", quiet), quiet }
    }

    pub(crate) fn event(&self, event: &Event<'_>) {
        match event {
            Event::Roofline(roofline) if !self.quiet => {
                self.bar.suspend(|| eprintln!("{}", roofline.describe()));
            }
            Event::Roofline(_) => {}
            Event::Begin { index, count, workload } => {
                self.bar.set_length(*count as u64);
                self.bar.set_position(*index as u64);
                self.bar.set_message(named(workload));
            }
            Event::Tried { proven, refused } => {
                let refused = if *refused > 0 { format!(", {refused} refused") } else { String::new() };
                self.bar.set_prefix(format!("{proven} proven{refused} "));
            }
            // A wrong kernel is worth a line: it is a mistake of a template or of a driver.
            Event::Refused { workload, config, reason } => {
                self.bar.suspend(|| eprintln!("refused: {} {config}: {reason}", named(workload)));
            }
            Event::Alarm(text) => {
                self.bar.suspend(|| eprintln!("WARNING: {text}; update the driver, and report it"));
            }
            Event::Left(workload, why) => {
                self.bar.suspend(|| eprintln!("notice: {} stays as it was: {why}", named(workload)));
            }
            Event::Settled(_) => self.bar.inc(1),
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// The table for people.
pub(crate) fn print(session: &Session, outcome: &Outcome) -> Result<()> {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header([
        "kernel",
        "shape",
        "before µs",
        "after µs",
        "interval",
        "speed-up",
        "GB/s",
        "of roofline",
    ]);
    for one in &outcome.tuned.settled {
        let mark = if outcome.dropped.contains(&one.workload) {
            " *"
        } else if outcome.unconfirmed.contains(&one.workload) {
            " ?"
        } else {
            ""
        };
        let before = one.before.as_ref().map_or("–".into(), |b| format!("{:.2}", b.us.median));
        table.add_row([
            one.workload.kernel().to_owned(),
            short(&one.workload),
            before,
            format!("{:.2}{mark}", one.winner.us.median),
            format!("{:.2}–{:.2}", one.winner.us.low, one.winner.us.high),
            format!("{:.2}×", one.speedup()),
            format!("{:.1}", one.gb_s()),
            format!("{:.0} %", one.fraction() * 100.0),
        ]);
    }
    for column in 2..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    console::line(&table)?;
    if !outcome.dropped.is_empty() {
        console::line("* faster alone and not in whole tokens: stays as it was")?;
    }
    if !outcome.unconfirmed.is_empty() {
        console::line("? faster alone, and not measured in whole tokens")?;
    }
    for (what, c) in &outcome.confirmed {
        let gain = (c.after / c.before - 1.0) * 100.0;
        console::line(format_args!("{what}: {:.1} before, {:.1} after ({gain:+.1} %)", c.before, c.after))?;
        for s in &c.shares {
            let fate = if s.kept { "" } else { ", not kept" };
            console::line(format_args!(
                "  without {}: {:+.1} % time{fate}",
                s.name,
                s.slower_without * 100.0
            ))?;
        }
    }
    for r in &outcome.refined {
        let what = named(&r.workload);
        console::line(format_args!(
            "{what}: tokens are {:.1} % faster with {} than with what is fastest alone, {}",
            r.gain * 100.0,
            r.config,
            r.alone
        ))?;
    }
    let changed = outcome.tuned.settled.iter().filter(|s| s.changed()).count();
    console::line(format_args!(
        "{} kernels of {} settled, {changed} changed, {} left as they were, in {:.1} s (seed {})",
        outcome.tuned.settled.len(),
        session.source.name(),
        outcome.tuned.left.len(),
        outcome.tuned.elapsed.as_secs_f64(),
        outcome.seed
    ))?;
    for path in &outcome.saved {
        console::line(format_args!("saved to {}", path.display()))?;
    }
    Ok(())
}

/// The same for programs.
pub(crate) fn json(session: &Session, outcome: &Outcome, stopped: bool) -> Value {
    let tuned = &outcome.tuned;
    let confirmed: Vec<Value> = outcome
        .confirmed
        .iter()
        .map(|(what, c)| {
            let shares: Vec<Value> = c
                .shares
                .iter()
                .map(|s| json!({ "group": s.name, "slower_without": s.slower_without, "interval": s.interval, "kept": s.kept }))
                .collect();
            json!({ "what": what, "before": c.before, "after": c.after, "rounds": c.rounds, "groups": shares })
        })
        .collect();
    let kernels: Vec<Value> = tuned.settled.iter().map(|s| as_json(s, outcome)).collect();
    let left: Vec<Value> =
        tuned.left.iter().map(|(w, why)| json!({ "kernel": named(w), "why": why })).collect();
    let mut result = session.json();
    result["mode"] = json!(outcome.mode.name());
    result["seed"] = json!(outcome.seed);
    result["elapsed_s"] = json!(tuned.elapsed.as_secs_f64());
    result["stopped"] = json!(stopped);
    result["roofline"] = json!(tuned.roofline);
    result["tuned"] = json!(kernels);
    result["left"] = json!(left);
    result["alarms"] = json!(tuned.alarms);
    result["confirmed"] = json!(confirmed);
    let refined = outcome.refined.iter().map(
        |r| json!({ "kernel": named(&r.workload), "alone": r.alone, "config": r.config, "gain": r.gain }),
    );
    result["refined"] = refined.collect();
    result["saved"] = json!(outcome.saved);
    result
}

/// Writes the report, whole or not at all.
pub(crate) fn save(path: &Path, device: &Device, session: &Session, outcome: &Outcome) -> Result<()> {
    let about = [
        ("adapter", device.report().to_string()),
        ("driver", format!("{} {}", device.report().driver, device.report().driver_info)),
        ("model", format!("{} ({})", session.source.name(), session.model.format())),
        ("device", outcome.tuned.roofline.describe()),
        ("clock", format!("{:?}", outcome.tuned.clock)),
        ("mode", format!("{}, seed {}", outcome.mode.name(), outcome.seed)),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let left: Vec<(String, String)> =
        outcome.tuned.left.iter().map(|(w, why)| (named(w), why.clone())).collect();
    let page = html(&about, &outcome.tuned.settled, &left, &outcome.confirmed);
    let write = || -> std::io::Result<()> {
        let partial = path.with_extension("html.part");
        let mut file = std::fs::File::create(&partial)?;
        file.write_all(page.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}
