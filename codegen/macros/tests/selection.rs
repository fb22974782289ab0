//! Which of several embedded databases an adapter gets, and what happens to stale ones.

use std::path::Path;
use std::process::Command;

use wgforge_codegen::{Database, Families, build, emit, render::Templates};
use wgforge_runtime::Caps;

/// Defaults of a class, and what was measured on cards of two vendors.
mod kernels {
    wgforge_codegen_macros::kernels!("tests/tiny.toml", "tests/card.toml", "tests/other.toml");
}

const NVIDIA: u32 = 0x10de;
const AMD: u32 = 0x1002;
const INTEL: u32 = 0x8086;

fn caps(subgroup: u32) -> Caps {
    Caps::webgpu_baseline().with_subgroups(subgroup)
}

#[test]
fn measured_kernels_go_to_the_adapter_its_vendor_and_class_only() {
    let f16 = caps(32).with_f16(true);
    for (caps, adapter, vendor, wanted) in [
        (caps(32), "A card", NVIDIA, "card"),
        (caps(32), "Another card", AMD, "other"),
        (caps(32), "A later card", NVIDIA, "card"),
        (caps(32), "A card", AMD, "other"),
        (caps(32), "A card", INTEL, "tiny"),
        (caps(32), "A card", 0, "tiny"),
        (caps(32), "", 0, "tiny"),
        (caps(64), "A card", NVIDIA, "tiny"),
        (f16, "A later card", NVIDIA, "tiny"),
    ] {
        let set = kernels::select_for(&caps, adapter, vendor).map(|set| set.name);
        assert_eq!(set, Some(wanted), "{adapter:?} of {vendor:#x}, class {}", caps.class());
    }
}

#[test]
fn what_was_measured_elsewhere_is_never_chosen() {
    // No defaults: what one card was tuned for says nothing about another vendor's or class's.
    mod measured {
        wgforge_codegen_macros::kernels!("tests/card.toml", "tests/other.toml");
    }
    let names = |caps: &Caps, adapter: &str, vendor| -> Vec<&str> {
        measured::sets_for(caps, adapter, vendor).iter().map(|set| set.name).collect()
    };
    assert_eq!(names(&caps(32), "A card", NVIDIA), ["card"]);
    assert_eq!(names(&caps(32), "A card", AMD), ["other"]);
    assert!(names(&caps(32), "A card", INTEL).is_empty(), "another vendor's");
    assert!(names(&caps(64), "A card", NVIDIA).is_empty(), "another class");
    let info = &measured::card::ALL[0];
    let found = measured::find_for(&caps(32), "A card", INTEL, info.kernel, info.shape);
    assert!(found.is_none(), "{}", info.name);
}

#[test]
fn what_the_best_set_lacks_comes_from_the_next() {
    let find = |kernel: &str, vendor| {
        let shape = kernels::tiny::ALL.iter().find(|i| i.kernel == kernel).expect("it is there").shape;
        kernels::find_for(&caps(32), "A card", vendor, kernel, shape).expect("some set has it")
    };
    assert_eq!(find("norm", NVIDIA).workgroup, [128, 1, 1], "measured on this card");
    assert_eq!(find("norm", AMD).workgroup, [256, 1, 1], "measured on this vendor's");
    assert_eq!(find("norm", INTEL).workgroup, [64, 1, 1], "the default");
    assert_eq!(find("sample", NVIDIA).name, kernels::tiny::ALL[1].name, "only the defaults have it");
    assert!(kernels::find_for(&caps(32), "A card", NVIDIA, "gemv", "{}").is_none(), "nobody has it");
}

fn generate(files: &[&str]) -> emit::Emitted {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (families, templates) = (Families::builtin(), Templates::builtin());
    build::generate(root, files, &families, &templates, emit::Texts::Inline, emit::Items::Types)
        .unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn identical_texts_are_stored_once() {
    let alone = generate(&["tests/tiny.toml"]);
    let both = generate(&["tests/tiny.toml", "tests/card.toml"]);
    // Two kernels of the card, of which one is as in the defaults; each native and for the web
    // where subgroups make a difference.
    let topk = kernels::card::ALL.iter().find(|i| i.kernel == "topk").expect("the same kernel");
    assert_eq!(both.texts.len(), alone.texts.len() + 2, "the norm's two dialects and nothing else");
    let code = build::pretty(&both.tokens).expect("a Rust file");
    let constant = format!("TOPK_{}", topk.wgsl_hash[..16].to_ascii_uppercase());
    assert_eq!(code.matches(&format!("const {constant}: &str")).count(), 1, "the text stands there once");
    assert_eq!(code.matches(&format!("wgsl: super::wgsl::{constant}")).count(), 2, "and is used twice");
}

/// Compiles a database with one stale kernel as a build script would; run by the test below in a
/// process of its own, because the answer depends on the environment and goes to stdout.
#[test]
fn build_script() {
    let Some(folder) = std::env::var_os("WGFORGE_TEST_STALE") else { return };
    let folder = Path::new(&folder);
    let builder = build::Builder::new().database(folder.join("stale.toml")).out_dir(folder);
    match builder.compile() {
        Ok(()) => println!("compiled"),
        Err(errors) => println!("failed: {errors}"),
    }
}

#[test]
fn stale_kernels_are_a_warning_or_with_strict_tuning_an_error() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tiny.toml"));
    let mut database = Database::parse("tiny.toml", &text.expect("committed")).expect("reads");
    let mut entry = database.entries()[0].clone();
    entry.wgsl_hash = "0".repeat(64);
    database.insert(entry);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("strict");
    std::fs::create_dir_all(&folder).expect("a writable target folder");
    std::fs::write(folder.join("stale.toml"), database.to_toml()).expect("written");
    let run = |strict: &str| {
        let output = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "build_script", "--nocapture"])
            .env("WGFORGE_TEST_STALE", &folder)
            .env("WGFORGE_STRICT_TUNING", strict)
            .output()
            .expect("the test starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = "templates changed since tuning: 1 of 3 kernels are stale; tune again";
    for off in ["", "0"] {
        let out = run(off);
        let warned = out.lines().any(|l| l.starts_with("cargo:warning=") && l.contains(said));
        assert!(warned && out.contains("compiled"), "{out}");
    }
    let out = run("1");
    assert!(out.contains("failed: ") && out.contains(said) && !out.contains("cargo:warning="), "{out}");
    assert!(out.contains("cargo:rerun-if-env-changed=WGFORGE_STRICT_TUNING"), "{out}");
}
