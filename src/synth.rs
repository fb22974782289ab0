//! `wgforge synth`: a checkpoint of random weights in a published layout.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use wgforge::model::{TextConfig, synth};

use crate::cli::{ShapeChoice, SynthArgs};
use crate::console;

/// Runs the subcommand.
pub(crate) fn execute(args: &SynthArgs) -> Result<()> {
    let format: synth::SynthFormat = args.format.parse()?;
    let shape = match args.shape {
        ShapeChoice::E2b => TextConfig::e2b(),
        ShapeChoice::E4b => TextConfig::e4b(),
        ShapeChoice::Tiny => TextConfig::tiny(),
    };
    let bar = console::bytes_bar("writing", 0, args.json);
    let start = Instant::now();
    let mut bytes = 0;
    let written = synth::synth(&shape, format, args.seed, &args.out, &mut |done, all| {
        bytes = all;
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    written?;
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        let out = args.out.display().to_string();
        return console::json(&json!({ "out": out, "bytes": bytes, "seconds": seconds, "seed": args.seed }));
    }
    eprintln!("{}: {:.1} MB of weights in {seconds:.1} s", args.out.display(), bytes as f64 / 1e6);
    eprintln!("Try: wgforge bench --model {}", args.out.display());
    Ok(())
}
