//! The command line of wgforge.

mod autotune;
mod autotune_confirm;
mod autotune_refine;
mod autotune_report;
mod bench;
mod bench_compare;
mod bench_report;
mod check;
mod cli;
mod console;
mod doctor;
mod kernels;
mod logits;
mod numbers;
mod run;
mod session;
mod synth;
mod tensors;
mod trace;
mod welcome;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::console::Usage;

fn main() -> ExitCode {
    // Clap itself exits with 2 for what it cannot parse, and with 0 for --help and --version.
    let cli = Cli::parse();
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has had enough of it, as in `wgforge kernels show gemv | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wgforge: {}", message(&error));
            if is_usage(&error) { ExitCode::from(2) } else { ExitCode::from(1) }
        }
    }
}

fn execute(cli: Cli) -> Result<()> {
    console::on_interrupt()?;
    let global = cli.global;
    match cli.command {
        None => welcome::execute(&global),
        Some(Command::Run(args)) => run::execute(&global, &args),
        Some(Command::Bench(args)) => bench::execute(&global, &args),
        Some(Command::Logits(args)) => logits::execute(&global, &args),
        Some(Command::Trace(args)) => trace::execute(&global, &args),
        Some(Command::Synth(args)) => synth::execute(&args),
        Some(Command::Kernels(command)) => kernels::execute(&global, &command),
        Some(Command::Doctor(args)) => doctor::execute(&global, &args),
        Some(Command::Autotune(args)) => autotune::execute(&global, &args),
    }
}

/// The error with its causes, as `{:#}` does, less those that an error's own text already names.
fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Mistakes of whoever typed the command; the model finds some of them only once it is loaded.
fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<Usage>()
            || matches!(cause.downcast_ref(), Some(wgforge::model::Error::Usage(_)))
            || matches!(cause.downcast_ref(), Some(wgforge::runtime::Error::UnknownBackend(_)))
    })
}
