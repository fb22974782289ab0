//! Committed databases: the defaults of each class, and the small ones the macro is tested with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use wgforge_autotune::generic;
use wgforge_codegen::{
    Caps, Database, Target, Workload,
    db::{DeviceId, Entry},
};

/// Larger files are not read by anybody, and slow every build.
const MOST_BYTES: usize = 80_000;

/// Path and text of every committed database.
fn files(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut all = Vec::new();
    for caps in generic::classes() {
        let text = generic::database(&caps, &generic::workloads(&caps))?.to_toml();
        all.push((root.join(format!("autotune/tuned/generic-{}.toml", caps.class())), text));
    }
    let tests = root.join("codegen/macros/tests");
    let tiny = tiny()?;
    all.push((tests.join("card.toml"), measured(&tiny, "A card", 0x10de, 128)?.to_toml()));
    all.push((tests.join("other.toml"), measured(&tiny, "Another card", 0x1002, 256)?.to_toml()));
    all.push((tests.join("tiny.toml"), tiny.to_toml()));
    Ok(all)
}

/// One kernel with a bound struct, one with tokens in its geometry, one with subgroups.
fn tiny() -> Result<Database> {
    let caps = Caps::webgpu_baseline().with_subgroups(32);
    let workloads = [
        ("sample", r#"{"n":64,"ring":64}"#),
        (
            "norm",
            r#"{"width":256,"residual":false,"y":"f32","scaled":false,"norm":true,"out":"f32","eps":1e-6}"#,
        ),
        ("topk", r#"{"n":4096,"chunk":1024,"keep":64,"first":true}"#),
    ];
    let workloads: Vec<Workload> = workloads
        .iter()
        .map(|(kernel, shape)| {
            Workload::parse(kernel, serde_json::from_str(shape)?).map_err(anyhow::Error::msg)
        })
        .collect::<Result<_>>()?;
    let mut database = Database::generic(&caps, &workloads)?;
    // Without subgroups, whose texts differ between native and the web.
    let topk = database.entries().iter().find(|e| e.variant.kernel() == "topk").cloned();
    if let Some(mut entry) = topk {
        configure(&mut entry, serde_json::json!({ "wg": 256, "sg": 1 }))?;
        database.insert(entry);
    }
    Ok(database)
}

/// Gives an entry another configuration.
fn configure(entry: &mut Entry, config: serde_json::Value) -> Result<()> {
    entry.variant = entry.variant.workload().with_config(config).map_err(anyhow::Error::msg)?;
    entry.wgsl_hash = entry.variant.render(Target::Native)?.hash;
    Ok(())
}

/// As if it had been measured: the norm of the small database with other threads, and one kernel
/// as it is there.
fn measured(tiny: &Database, name: &str, vendor: u32, wg: u32) -> Result<Database> {
    let device =
        DeviceId { name: name.into(), vendor, device: 1, driver: "made up".into(), backend: "vulkan".into() };
    let mut database = Database::new(tiny.header.caps.clone(), Some(device), Some("30.0.1".into()));
    for entry in tiny.entries().iter().filter(|e| e.variant.kernel() != "sample") {
        let mut entry = entry.clone();
        if entry.variant.kernel() == "norm" {
            configure(&mut entry, serde_json::json!({ "wg": wg, "sg": 32, "f16": false }))?;
        }
        database.insert(entry);
    }
    Ok(database)
}

/// Writes the files, or with `check` fails where one is not what would be written.
///
/// # Errors
/// Files that differ, that are too large, or that cannot be written.
pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    let mut outdated = Vec::new();
    for (path, text) in files(root)? {
        let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        if text.len() > MOST_BYTES {
            bail!("{shown} would have {} bytes, over {MOST_BYTES}", text.len());
        }
        let current = fs::read_to_string(&path).unwrap_or_default();
        if current == text {
            continue;
        }
        if check {
            outdated.push(shown);
        } else {
            fs::write(&path, &text).with_context(|| format!("writing {shown}"))?;
            println!("wrote {shown}: {} bytes", text.len());
        }
    }
    if !outdated.is_empty() {
        bail!("run `cargo run -p xtask -- generic`; outdated: {}", outdated.join(", "));
    }
    Ok(())
}
