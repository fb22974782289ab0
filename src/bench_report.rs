//! What `wgforge bench` prints.

use std::collections::BTreeMap;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde_json::{Value, json};
use wgforge::model::Dispatch;

use crate::bench_compare;
use crate::cli::BenchArgs;
use crate::console;
use crate::numbers::Spread;
use crate::session::Session;

/// What was measured.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Tokens in the cache when decoding begins.
    pub(crate) context: u32,
    pub(crate) prefill_tokens: u32,
    pub(crate) prefill_tok_s: Spread,
    pub(crate) first_token_ms: Spread,
    pub(crate) decode_tokens: u32,
    pub(crate) decode_tok_s: Spread,
    pub(crate) dispatches_per_token: u32,
    /// Tokens were drawn and not the most likely ones.
    pub(crate) sampled: bool,
    /// What a token joins, as asked for.
    pub(crate) plan: String,
    pub(crate) weight_bytes_per_token: u64,
    /// `None` on the CPU.
    pub(crate) read_bandwidth_gb_s: Option<f64>,
    /// GPU time over wall time while decoding; `None` without timestamps.
    pub(crate) gpu_busy: Option<f64>,
    pub(crate) memory_bytes: u64,
    pub(crate) load_s: f64,
    pub(crate) logits_finite: bool,
    pub(crate) runs: u32,
}

impl Figures {
    fn achieved_gb_s(&self) -> f64 {
        self.weight_bytes_per_token as f64 * self.decode_tok_s.median / 1e9
    }

    fn bandwidth_fraction(&self) -> Option<f64> {
        self.read_bandwidth_gb_s.map(|peak| self.achieved_gb_s() / peak)
    }
}

/// What was asked for besides.
#[derive(Debug)]
pub(crate) struct Details {
    /// Every dispatch of a token.
    pub(crate) steps: Vec<Dispatch>,
    /// An earlier run to compare with.
    pub(crate) before: Option<Value>,
}

/// Prints figures as a table or as JSON.
pub(crate) fn print(session: &Session, f: &Figures, args: &BenchArgs, details: &Details) -> Result<()> {
    // All have a time, or none.
    let timed = details.steps.iter().all(|d| d.us.is_some());
    let mut all = as_json(session, f);
    if args.json {
        if let Some(before) = &details.before {
            let compared = bench_compare::as_json(before, &all);
            all["compared"] = compared;
        }
        if args.profile {
            all["profile"] = if timed { profile_json(&details.steps) } else { Value::Null };
        }
        if args.steps {
            all["steps"] = details.steps.iter().map(step_json).collect();
        }
        return console::json(&all);
    }
    eprintln!("{}", session.describe());
    console::line(table(f))?;
    if let Some(before) = &details.before {
        for difference in bench_compare::differences(before, &all) {
            eprintln!("notice: not the same conditions: {difference}");
        }
        console::line("")?;
        console::line(bench_compare::table(before, &all))?;
    }
    if !f.logits_finite {
        console::line("WARNING: some logits are not finite numbers")?;
    }
    if args.profile && timed {
        console::line("")?;
        console::line(profile_table(&details.steps))?;
    } else if args.profile {
        console::line("no profile: there are no timestamps here")?;
    }
    if args.steps {
        console::line("")?;
        console::line(steps_table(&details.steps))?;
    }
    Ok(())
}

fn as_json(session: &Session, f: &Figures) -> Value {
    let mut all = session.json();
    let spread = |s: &Spread| json!([s.min, s.max]);
    let fields = json!({
        "context": f.context,
        "prefill_tokens": f.prefill_tokens,
        "prefill_tok_s": f.prefill_tok_s.median,
        "prefill_tok_s_range": spread(&f.prefill_tok_s),
        "first_token_ms": f.first_token_ms.median,
        "first_token_ms_range": spread(&f.first_token_ms),
        "decode_tokens": f.decode_tokens,
        "decode_tok_s": f.decode_tok_s.median,
        "decode_tok_s_range": spread(&f.decode_tok_s),
        "dispatches_per_token": f.dispatches_per_token,
        "plan": f.plan,
        "sampled": f.sampled,
        "weight_bytes_per_token": f.weight_bytes_per_token,
        "achieved_gb_s": f.achieved_gb_s(),
        "read_bandwidth_gb_s": f.read_bandwidth_gb_s,
        "bandwidth_fraction": f.bandwidth_fraction(),
        "gpu_busy": f.gpu_busy,
        "memory_bytes": f.memory_bytes,
        "load_s": f.load_s,
        "logits_finite": f.logits_finite,
        "runs": f.runs,
    });
    if let (Value::Object(all), Value::Object(fields)) = (&mut all, fields) {
        all.extend(fields);
    }
    all
}

fn table(f: &Figures) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(["what", "median", "range"]);
    let mut row = |what: String, value: String, range: String| {
        table.add_row([what, value, range]);
    };
    let range = |s: &Spread| format!("{:.1} to {:.1}", s.min, s.max);
    row(
        format!("prefill of {} tokens", f.prefill_tokens),
        format!("{:.1} tokens/s", f.prefill_tok_s.median),
        range(&f.prefill_tok_s),
    );
    row("first token".into(), format!("{:.1} ms", f.first_token_ms.median), range(&f.first_token_ms));
    row(
        format!(
            "{} of {} tokens behind {}",
            if f.sampled { "sampled decode" } else { "decode" },
            f.decode_tokens,
            f.context
        ),
        format!("{:.1} tokens/s", f.decode_tok_s.median),
        range(&f.decode_tok_s),
    );
    let mut plain = |what: &str, value: String| row(what.into(), value, String::new());
    plain("dispatches per token", f.dispatches_per_token.to_string());
    plain("weights read per token", format!("{:.1} MB", f.weight_bytes_per_token as f64 / 1e6));
    plain("achieved", format!("{:.2} GB/s", f.achieved_gb_s()));
    if let (Some(peak), Some(fraction)) = (f.read_bandwidth_gb_s, f.bandwidth_fraction()) {
        plain("this device's reads, measured", format!("{peak:.1} GB/s"));
        plain("fraction of them", format!("{:.1} %", fraction * 100.0));
    }
    if let Some(busy) = f.gpu_busy {
        plain("GPU at work while decoding", format!("{:.1} %", busy * 100.0));
    }
    plain("memory in use", format!("{:.1} MB", f.memory_bytes as f64 / 1e6));
    plain("loading", format!("{:.2} s", f.load_s));
    table
}

/// µs and number of steps by kernel, then by label without the layer's number.
fn grouped(steps: &[Dispatch]) -> BTreeMap<(&'static str, String), (f64, usize)> {
    let mut all = BTreeMap::new();
    for Dispatch { step: label, kernel, us, .. } in steps {
        let place = label.split_once('.').filter(|(layer, _)| layer.parse::<u32>().is_ok());
        let place = place.map_or(label.as_str(), |(_, rest)| rest).to_owned();
        let sum: &mut (f64, usize) = all.entry((*kernel, place)).or_default();
        sum.0 += us.unwrap_or(0.0);
        sum.1 += 1;
    }
    all
}

fn profile_json(steps: &[Dispatch]) -> Value {
    grouped(steps)
        .into_iter()
        .map(|((kernel, label), (us, steps))| json!({ "kernel": kernel, "label": label, "steps": steps, "us": us }))
        .collect()
}

fn step_json(d: &Dispatch) -> Value {
    json!({
        "step": d.step,
        "kernel": d.kernel,
        "config": serde_json::from_str::<Value>(&d.config).unwrap_or_default(),
        "groups": d.groups,
        "bytes": d.bytes,
        "us": d.us,
        "waits_for": d.waits_for.as_ref().map(|(step, binding)| json!({ "step": step, "binding": binding })),
    })
}

fn steps_table(steps: &[Dispatch]) -> Table {
    let mut table = Table::new();
    let header = ["step", "kernel", "groups", "KB", "µs", "waits for", "configuration"];
    table.load_style(ASCII_MARKDOWN).set_header(header);
    for d in steps {
        let waits = d.waits_for.as_ref().map(|(step, binding)| format!("{step} ({binding})"));
        table.add_row([
            d.step.clone(),
            d.kernel.to_owned(),
            d.groups.map(|n| n.to_string()).join("×"),
            format!("{:.1}", d.bytes as f64 / 1e3),
            d.us.map_or_else(String::new, |us| format!("{us:.1}")),
            waits.unwrap_or_default(),
            d.config.clone(),
        ]);
    }
    for column in table.column_iter_mut().skip(2).take(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn profile_table(steps: &[Dispatch]) -> Table {
    let total: f64 = steps.iter().filter_map(|d| d.us).sum();
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(["kernel", "step", "times", "µs in all", "µs each", "share"]);
    let mut rows: Vec<_> = grouped(steps).into_iter().collect();
    rows.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    for ((kernel, label), (us, n)) in rows {
        table.add_row([
            kernel.to_owned(),
            label,
            n.to_string(),
            format!("{us:.1}"),
            format!("{:.1}", us / n.max(1) as f64),
            format!("{:.1} %", us / total.max(f64::MIN_POSITIVE) * 100.0),
        ]);
    }
    table.add_row(["all", "", &steps.len().to_string(), &format!("{total:.1}"), "", ""]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
