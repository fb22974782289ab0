//! `wgforge logits`: the logits of every token of a sequence.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use pollster::block_on;
use serde_json::{Value, json};
use wgforge::model::WeightMode;

use crate::cli::{Global, LogitsArgs};
use crate::console;
use crate::numbers::{LogitDistance, logit_distance};
use crate::session::{Place, Session, Source, weights};
use crate::tensors;

/// Runs the subcommand.
pub(crate) fn execute(global: &Global, args: &LogitsArgs) -> Result<()> {
    let tokens = tensors::token_ids(&args.tokens)?;
    let (source, place) = (Source::of(global)?, Place::of(global)?);
    let mode = weights(global, WeightMode::Stored);
    let run = |mode: WeightMode| -> Result<(Session, Vec<f32>)> {
        let mut session = Session::load(global, &source, &place, mode, args.json)?;
        let logits = block_on(session.model.logits(&tokens, args.decode))?;
        Ok((session, logits))
    };
    let (session, logits) = run(mode)?;
    let vocab = session.model.config().vocab_size;
    let shape = [tokens.len(), vocab];
    tensors::write_f32(&args.out, "logits", &shape, &logits, metadata(&session))?;

    let mut result = session.json();
    result["tokens"] = json!(tokens.len());
    result["finite"] = json!(logits.iter().all(|v| v.is_finite()));
    console_note(args.json, &format!("{}: logits {shape:?}; {}", args.out.display(), session.describe()));
    // The second model takes the first one's place in memory.
    drop(session);
    if mode != WeightMode::Stored && source.is_float() {
        let (_, stored) = run(WeightMode::Stored)?;
        report(
            args.json,
            &mut result,
            "against_stored",
            "stored weights",
            logit_distance(&logits, &stored, vocab),
        );
    }
    if let Some(file) = &args.reference_file {
        let (found, wanted) = tensors::read_f32(file, "logits")?;
        ensure!(found == shape, "{}: `logits` is {found:?}; wanted {shape:?}", file.display());
        let name = file.display().to_string();
        report(args.json, &mut result, "against_file", &name, logit_distance(&logits, &wanted, vocab));
    }
    if args.json { console::json(&result) } else { Ok(()) }
}

fn report(json: bool, result: &mut Value, field: &str, name: &str, d: LogitDistance) {
    result[field] = json!({ "kl_mean": d.kl_mean, "max_abs": d.max_abs, "rms": d.rms, "top1": d.top1 });
    let text = format!(
        "against {name}: mean KL divergence {:.3e} nats, largest difference {:.3e}, rms {:.3e}, same top-1 {:.1} %",
        d.kl_mean,
        d.max_abs,
        d.rms,
        d.top1 * 100.0
    );
    console_note(json, &text);
}

fn console_note(json: bool, text: &str) {
    if !json {
        eprintln!("{text}");
    }
}

/// What a file says about its making.
pub(crate) fn metadata(session: &Session) -> HashMap<String, String> {
    let Value::Object(fields) = session.json() else { return HashMap::new() };
    let text = |v: Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let mut all: HashMap<String, String> = fields.into_iter().map(|(k, v)| (k, text(v))).collect();
    // `format` alone is what frameworks look for to know who wrote a file.
    if let Some(format) = all.remove("format") {
        all.insert("weights".into(), format);
    }
    all.insert("wgforge".into(), env!("CARGO_PKG_VERSION").into());
    all
}
