//! The web form of every kernel, compiled by Tint: naga accepts what browsers refuse (barriers in
//! non-uniform flow, constants that overflow, reserved words).

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use wgforge_autotune::{devices, generic};
use wgforge_codegen::{Caps, Target, Variant, Workload, shapes};

/// The classes of device to render for: with and without each feature, and a roomy one.
fn classes() -> Vec<Caps> {
    let roomy = Caps {
        max_invocations: 1024,
        max_workgroup_bytes: 32 << 10,
        max_binding_bytes: 2 << 30,
        ..Caps::default()
    };
    vec![
        Caps::webgpu_baseline(),
        Caps::webgpu_baseline().with_f16(true),
        Caps::webgpu_baseline().with_subgroups(4),
        roomy.clone().with_subgroups(32),
        roomy.with_subgroups(64).with_f16(true),
    ]
}

/// Up to `count` candidates spread over the whole space, and the generic one.
fn drawn(workload: &Workload, caps: &Caps, count: usize) -> Vec<Variant> {
    let all = workload.candidates(caps);
    let stride = all.len().div_ceil(count.max(1)).max(1);
    all.into_iter().step_by(stride).chain([workload.generic(caps)]).collect()
}

/// What programs run: the generic configurations and some candidates of every class, and all that
/// committed databases hold.
fn variants(count: usize) -> Result<Vec<Variant>> {
    let mut all = Vec::new();
    for caps in classes() {
        for workload in shapes::e2b().iter().chain(&shapes::odd()) {
            all.extend(drawn(workload, &caps, count));
        }
    }
    // Native devices have more bindings than a browser's; the language is the same.
    let many = Caps { max_storage_bindings: 16, ..Caps::webgpu_baseline() }.with_subgroups(32);
    for workload in shapes::exchanging() {
        all.extend(drawn(&workload, &many, count));
    }
    for (_, database) in devices::databases()?.into_iter().chain(generic::databases()?) {
        all.extend(database.entries().iter().map(|entry| entry.variant.clone()));
    }
    Ok(all)
}

/// Writes one file for each distinct shader into `out`, with an index that says what each is.
///
/// # Errors
/// A template that does not render, or a file that cannot be written.
pub(crate) fn render(out: &Path, count: usize) -> Result<usize> {
    fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "wgsl") {
            fs::remove_file(&path)?;
        }
    }
    let mut seen = HashSet::new();
    let mut index = BTreeMap::new();
    for variant in variants(count)? {
        let text = variant.wgsl(Target::Web).with_context(|| format!("{variant:?}"))?;
        if !seen.insert(text.clone()) {
            continue;
        }
        let file = format!("{}-{:05}.wgsl", variant.kernel(), seen.len());
        fs::write(out.join(&file), text)?;
        index.insert(file, format!("{} {}", variant.workload().shape_json(), variant.config_json()));
    }
    fs::write(out.join("index.json"), serde_json::to_string_pretty(&index)?)?;
    Ok(index.len())
}

/// Renders into `out` and compiles everything with Tint.
///
/// # Errors
/// Shaders that Tint refuses (printed by the checker), or a missing node installation.
pub(crate) fn check(root: &Path, out: &Path, count: usize) -> Result<()> {
    let count = render(out, count)?;
    println!("{count} shaders in {}", out.display());
    let tool = root.join("tools/tint");
    if !tool.join("node_modules/webgpu").exists() {
        let status = Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(&tool)
            .status()
            .context("running npm; node 20 or later is needed")?;
        ensure!(status.success(), "npm ci failed in {}", tool.display());
    }
    let out: PathBuf = fs::canonicalize(out)?;
    let status =
        Command::new("node").arg(tool.join("check.mjs")).arg(out).status().context("running node")?;
    ensure!(status.success(), "Tint refuses shaders; see above");
    Ok(())
}
