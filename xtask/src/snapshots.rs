//! Snapshots of rendered shaders are written by the test that compares them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Runs the snapshot test, letting it rewrite its files unless `check`.
///
/// # Errors
/// A snapshot that differs (with `check`), or a shader that does not render.
pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let status = Command::new(cargo)
        .args(["test", "-p", "wgforge-codegen", "--test", "snapshots"])
        .env("INSTA_UPDATE", if check { "no" } else { "always" })
        .current_dir(root)
        .status()
        .context("running cargo test")?;
    ensure!(status.success(), "snapshots differ; run `cargo run -p xtask -- snapshots` and review the diff");
    Ok(())
}
