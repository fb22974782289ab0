//! Checks and generated files of the workspace: `cargo run -p xtask -- COMMAND`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Parser, Subcommand};

mod generic;
mod snapshots;
mod tint;
mod tutorial;
mod web;

#[derive(Parser)]
#[command(about, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Rewrites the databases of default configurations.
    Generic {
        /// Fails where a committed file is not current, and writes nothing.
        #[arg(long)]
        check: bool,
    },
    /// Rewrites the snapshots of rendered shaders; the diff is for review.
    Snapshots {
        /// Fails where a snapshot is not current, and writes nothing.
        #[arg(long)]
        check: bool,
    },
    /// Renders the kernels as browsers get them and compiles each with Tint.
    Tint {
        /// Where the shaders go.
        #[arg(long, default_value = "target/tint")]
        out: PathBuf,
        /// Candidates of each workload and class, besides the generic one.
        #[arg(long, default_value_t = 3)]
        candidates: usize,
        /// Writes the shaders and stops there.
        #[arg(long)]
        render_only: bool,
    },
    /// Follows `docs/tune-your-own.md` in a temporary folder: writes its files, runs its commands.
    Tutorial,
    /// Builds the npm package and the page into `target/web`.
    Web,
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    match Args::parse().command {
        Command::Generic { check } => generic::run(root, check),
        Command::Snapshots { check } => snapshots::run(root, check),
        Command::Tint { out, candidates, render_only: true } => {
            let count = tint::render(&root.join(out), candidates)?;
            println!("{count} shaders");
            Ok(())
        }
        Command::Tint { out, candidates, .. } => tint::check(root, &root.join(out), candidates),
        Command::Tutorial => tutorial::run(root),
        Command::Web => {
            let folder = web::build(root)?;
            println!("{}", folder.display());
            Ok(())
        }
    }
}
