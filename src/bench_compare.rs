//! `wgforge bench --compare`: figures beside those of an earlier run.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde_json::{Value, json};

/// Figures that are compared: field, what to call it, whether more is better.
const FIGURES: [(&str, &str, bool); 4] = [
    ("decode_tok_s", "decode, tokens/s", true),
    ("prefill_tok_s", "prefill, tokens/s", true),
    ("first_token_ms", "first token, ms", false),
    ("dispatches_per_token", "dispatches per token", false),
];

/// What must be the same for figures to be comparable.
const CONDITIONS: [&str; 9] = [
    "adapter",
    "backend",
    "model",
    "format",
    "context",
    "prefill_tokens",
    "decode_tokens",
    "activations",
    "sampled",
];

/// An earlier run's JSON.
///
/// # Errors
/// A file that cannot be read or is no output of `bench --json`.
pub(crate) fn read(file: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let value: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))?;
    if FIGURES.iter().any(|(field, ..)| !value[field].is_number()) {
        bail!("{} is no output of `wgforge bench --json`: figures are missing in it", file.display());
    }
    Ok(value)
}

/// Conditions under which both ran and which differ, as sentences.
pub(crate) fn differences(before: &Value, now: &Value) -> Vec<String> {
    // Older files lack some of them.
    let differ = CONDITIONS.iter().filter(|c| before[**c] != now[**c] && !before[**c].is_null());
    differ.map(|c| format!("{c} is {} and was {}", now[*c], before[*c])).collect()
}

fn ratio(before: &Value, now: &Value, field: &str) -> Option<f64> {
    let (before, now) = (before[field].as_f64()?, now[field].as_f64()?);
    (before > 0.0).then_some(now / before)
}

/// Whether the intervals of all runs meet, so that the difference may be chance.
fn meet(before: &Value, now: &Value, field: &str) -> bool {
    let range = |v: &Value| {
        let all = &v[format!("{field}_range")];
        Some((all[0].as_f64()?, all[1].as_f64()?))
    };
    match (range(before), range(now)) {
        (Some(a), Some(b)) => a.0 <= b.1 && b.0 <= a.1,
        _ => false,
    }
}

/// The ratios, for machines.
pub(crate) fn as_json(before: &Value, now: &Value) -> Value {
    let ratios = FIGURES.iter().map(|(field, ..)| ((*field).to_owned(), json!(ratio(before, now, field))));
    json!({ "ratios": Value::Object(ratios.collect()), "differences": differences(before, now) })
}

/// The ratios, for people.
pub(crate) fn table(before: &Value, now: &Value) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(["what", "before", "now", "ratio", ""]);
    for (field, name, more) in FIGURES {
        let number = |v: &Value| v[field].as_f64().map_or_else(String::new, |v| format!("{v:.1}"));
        let ratio = ratio(before, now, field);
        let verdict = match ratio {
            Some(_) if meet(before, now, field) => "within the spread",
            Some(1.0) => "",
            Some(r) if (r > 1.0) == more => "better",
            Some(_) => "worse",
            None => "",
        };
        let ratio = ratio.map_or_else(String::new, |r| format!("{r:.3}"));
        table.add_row([name.to_owned(), number(before), number(now), ratio, verdict.to_owned()]);
    }
    for column in table.column_iter_mut().skip(1).take(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(decode: f64, range: [f64; 2], adapter: &str) -> Value {
        json!({
            "decode_tok_s": decode, "decode_tok_s_range": range, "prefill_tok_s": 10.0,
            "first_token_ms": 5.0, "dispatches_per_token": 7, "adapter": adapter,
        })
    }

    #[test]
    fn faster_slower_and_chance_are_told_apart() {
        let before = run(100.0, [99.0, 101.0], "a");
        let line = |now: &Value| table(&before, now).to_string().lines().nth(2).map(str::to_owned);
        let said = |now: &Value, word: &str| line(now).is_some_and(|l| l.contains(word));
        assert!(said(&run(120.0, [119.0, 121.0], "a"), "better"));
        assert!(said(&run(80.0, [79.0, 81.0], "a"), "worse"));
        assert!(said(&run(101.0, [100.5, 102.0], "a"), "within the spread"));
        assert_eq!(as_json(&before, &run(50.0, [50.0, 50.0], "a"))["ratios"]["decode_tok_s"], 0.5);
    }

    #[test]
    fn other_conditions_are_named() {
        let (a, b) = (run(1.0, [1.0, 1.0], "a"), run(1.0, [1.0, 1.0], "b"));
        assert_eq!(differences(&a, &b), ["adapter is \"b\" and was \"a\""]);
        assert!(differences(&a, &a).is_empty());
    }
}
