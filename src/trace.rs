//! `wgforge trace`: the residual stream before and after every layer.

use anyhow::{Result, ensure};
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use pollster::block_on;
use serde_json::json;
use wgforge::model::WeightMode;

use crate::cli::{Global, TraceArgs};
use crate::console;
use crate::logits::metadata;
use crate::numbers::rms_ratio;
use crate::session::Session;
use crate::tensors;

/// A row counts as equal when its rms differs by less than this part of the golden row's.
const NEAR: f64 = 1e-4;

/// Runs the subcommand.
pub(crate) fn execute(global: &Global, args: &TraceArgs) -> Result<()> {
    let tokens = tensors::token_ids(&args.tokens)?;
    let mut session = Session::open(global, WeightMode::Stored, args.json)?;
    let config = session.model.config();
    let (hidden, layers) = (config.hidden, config.num_layers());
    let shape = [layers + 1, tokens.len(), hidden];
    let golden = match &args.inject {
        Some(file) => {
            let (found, values) = tensors::read_f32(file, "hidden")?;
            ensure!(found == shape, "{}: `hidden` is {found:?}; wanted {shape:?}", file.display());
            Some(values)
        }
        None => None,
    };
    let out = block_on(session.model.trace(&tokens, golden.as_deref()))?;
    tensors::write_f32(&args.out, "hidden", &shape, &out, metadata(&session))?;

    let mut result = session.json();
    result["tokens"] = json!(tokens.len());
    if !args.json {
        eprintln!("{}: hidden {shape:?}; {}", args.out.display(), session.describe());
    }
    if let Some(golden) = golden {
        let rows = compare(&out, &golden, tokens.len() * hidden, hidden);
        // Nothing is injected before the first layer: that row says how the embedding does.
        let layers = rows.iter().skip(1);
        let near: usize = layers.clone().map(|row| row.near).sum();
        let worst = layers.clone().map(|row| row.ratio).fold(0.0, f64::max);
        let share = near as f64 / (layers.len() * tokens.len()).max(1) as f64;
        result["layers"] =
            rows.iter().map(|row| json!({ "rms_ratio": row.ratio, "near": row.near })).collect();
        result["worst_rms_ratio"] = json!(worst);
        result["near_share"] = json!(share);
        if !args.json {
            console::line(table(&rows, tokens.len()))?;
            console::line(format_args!(
                "worst layer {worst:.3e}; {:.1} % of all rows within {NEAR:.0e}",
                share * 100.0
            ))?;
        }
    }
    if args.json { console::json(&result) } else { Ok(()) }
}

/// One layer's output against the golden one.
struct Row {
    ratio: f64,
    near: usize,
}

fn compare(out: &[f32], golden: &[f32], layer: usize, hidden: usize) -> Vec<Row> {
    out.chunks(layer)
        .zip(golden.chunks(layer))
        .map(|(a, b)| Row {
            ratio: rms_ratio(a, b),
            near: a.chunks(hidden).zip(b.chunks(hidden)).filter(|(a, b)| rms_ratio(a, b) < NEAR).count(),
        })
        .collect()
}

fn table(rows: &[Row], tokens: usize) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "layer",
        "rms(out - golden) / rms(golden)",
        "rows within 1e-4",
    ]);
    for (i, row) in rows.iter().enumerate() {
        let name = if i == 0 { "embedding".into() } else { (i - 1).to_string() };
        table.add_row([name, format!("{:.3e}", row.ratio), format!("{}/{tokens}", row.near)]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
