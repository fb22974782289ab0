//! The npm package and the page: the engine compiled to WebAssembly, its glue, and the files of `web/`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

const TARGET: &str = "wasm32-unknown-unknown";

/// Builds `target/web/package` (what npm gets) and `target/web/site` (the page with the package
/// inside), and returns the folder.
pub(crate) fn build(root: &Path) -> Result<PathBuf> {
    let module = compile(root)?;
    let out = root.join("target/web");
    let (package, site) = (out.join("package"), out.join("site"));
    for folder in [&package, &site] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
    }
    glue(root, &module, &package.join("engine"))?;
    let web = root.join("web");
    copy(&web.join("js"), &package.join("js"))?;
    for name in ["package.json", "README.md"] {
        fs::copy(web.join(name), package.join(name)).with_context(|| format!("web/{name}"))?;
    }
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        fs::copy(root.join(name), package.join(name)).with_context(|| name.to_owned())?;
    }
    fs::create_dir_all(package.join("demo"))?;
    for name in ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(root.join("model/demo").join(name), package.join("demo").join(name))?;
    }
    copy(&web.join("page"), &site)?;
    copy(&package, &site.join("wgforge"))?;
    // What the page needs without a network.
    let mut files = Vec::new();
    list(&site, "", &mut files)?;
    files.sort();
    fs::write(site.join("files.json"), serde_json::to_vec_pretty(&files)?)?;
    Ok(out)
}

/// The engine. Where rustup's target is not installed, Debian's compiler for WebAssembly takes its
/// place, with the standard library compiled from its sources and rustup's linker.
fn compile(root: &Path) -> Result<PathBuf> {
    let folder = root.join("target/wasm");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args([
        "build",
        "--profile",
        "web",
        "--package",
        "wgforge-web",
        "--target",
        TARGET,
    ]);
    cargo.arg("--target-dir").arg(&folder);
    // What a surrounding build was told is not meant for this one.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
    let library = printed("target-libdir", Some(TARGET))?;
    if !library.is_dir() {
        let debian = Path::new("/usr/bin/rustc");
        if !debian.exists() || !Path::new("/usr/lib/rustlib/src/rust").exists() {
            bail!(
                "there is no compiler for {TARGET}: `rustup target add {TARGET}`, or on Debian `apt-get install rustc-web rust-web-src`"
            );
        }
        let linker =
            printed("target-libdir", None)?.parent().map(|p| p.join("bin/rust-lld")).unwrap_or_default();
        cargo.env("RUSTC", debian).env("RUSTC_BOOTSTRAP", "1").args(["-Z", "build-std=std,panic_abort"]);
        cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    }
    run(&mut cargo)?;
    Ok(folder.join(TARGET).join("web/wgforge_web.wasm"))
}

/// A path that `rustc --print` tells.
fn printed(what: &str, target: Option<&str>) -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", what]);
    if let Some(target) = target {
        rustc.args(["--target", target]);
    }
    let output = rustc.output().context("rustc")?;
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// JavaScript's side of the module.
fn glue(root: &Path, module: &Path, out: &Path) -> Result<()> {
    let manifest = root.join("web/bindgen/Cargo.toml");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--release", "--locked", "--quiet", "--manifest-path"]).arg(manifest);
    cargo.arg("--target-dir").arg(root.join("target/bindgen")).arg("--").arg(module).arg(out);
    run(&mut cargo)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}

/// The files under a folder, as a page names them.
fn list(folder: &Path, prefix: &str, files: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{name}/"), files)?;
        } else if name != "sw.js" {
            files.push(name);
        }
    }
    Ok(())
}

/// A folder with what is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
