//! `wgforge` alone: what was found, a text by the demo model, and where to go from here.

use anyhow::Result;
use wgforge::model::{Choice, Request, WeightMode};

use crate::cli::Global;
use crate::console;
use crate::run;
use crate::session::Session;

/// Tokens of the demo text.
const TOKENS: u32 = 160;
/// Any would do; a fixed one gives the same text on every device of a kind.
const SEED: u64 = 7;

/// Runs the command without a subcommand.
pub(crate) fn execute(global: &Global) -> Result<()> {
    let mut session = Session::open(global, WeightMode::Int4, false)?;
    eprintln!("adapter  {} ({})", session.place.adapter(), session.place.backend());
    eprintln!("kernels  {}", session.kernels);
    eprintln!("model    {} ({})\n", session.source.name(), session.model.format());

    let source = session.source.clone();
    let Some(tokenizer) = source.tokenizer.as_deref() else {
        eprintln!("The checkpoint has no tokenizer.json. Try: wgforge run --model … --tokens \"2,105,…\"");
        return Ok(());
    };
    let text = if source.demo { wgforge::demo::PROMPT } else { "The" };
    let generation = session.model.generation();
    let choice = Choice::Sample {
        temperature: generation.temperature,
        top_k: u32::try_from(generation.top_k).unwrap_or(u32::MAX).min(Choice::MAX_TOP_K),
        top_p: generation.top_p,
        seed: SEED,
    };
    let stop = generation.eos.clone();
    let request = Request { prompt: run::encode(tokenizer, text)?, max_new: TOKENS, choice, stop };
    console::write(text)?;
    let (stats, _) = run::stream(&mut session, &request, Some(tokenizer), false, &mut Vec::new())?;

    eprintln!("\n{}", run::statistics(&stats));
    if source.demo {
        eprintln!("\nThat was a model of six million parameters. Next:");
        eprintln!(
            "  wgforge run --model FOLDER \"Once upon a time\"   a Gemma 4 E2B checkpoint you downloaded"
        );
        eprintln!("  wgforge synth --shape e2b --format mobile --out FOLDER");
        eprintln!(
            "  wgforge bench --model FOLDER                     the speed of a real-size one, weights random"
        );
        eprintln!(
            "  wgforge doctor                                   what this machine can do, and what is missing"
        );
    }
    Ok(())
}
