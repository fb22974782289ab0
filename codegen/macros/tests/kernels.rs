//! Emitted code compiles, passes wgpu's own validation, and says the same as the database.

use std::path::Path;

use wgforge_codegen::{Database, Families, build, emit, render::Templates};
use wgforge_runtime::{Backend, Caps, Device, DeviceOptions, Kernel, Recorder, TypedPipeline};

/// What the macro leaves in its place.
mod kernels {
    wgforge_codegen_macros::kernels!("tests/tiny.toml");
}

use kernels::tiny;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tiny.toml");

fn database() -> Database {
    let text = std::fs::read_to_string(FILE).expect("the committed database");
    Database::parse(FILE, &text).unwrap_or_else(|e| panic!("{e}"))
}

fn generate<P: AsRef<Path>>(root: &Path, files: &[P]) -> Result<emit::Emitted, build::Errors> {
    build::generate(
        root,
        files,
        &Families::builtin(),
        &Templates::builtin(),
        emit::Texts::Files,
        emit::Items::Types,
    )
}

fn caps(subgroup: u32, f16: bool) -> Caps {
    Caps::webgpu_baseline().with_subgroups(subgroup).with_f16(f16)
}

#[test]
fn the_list_is_the_database() {
    let database = database();
    assert_eq!(tiny::ALL.len(), database.entries().len(), "as many kernels as entries");
    for (info, entry) in tiny::ALL.iter().zip(database.entries()) {
        let (kernel, shape) = entry.key();
        assert_eq!((info.kernel, info.shape), (kernel, shape.as_str()), "the order of the database");
        assert_eq!(info.config, entry.variant.config_json(), "the configuration");
        assert_eq!(info.wgsl_hash, entry.wgsl_hash, "the committed database is current");
        let names: Vec<_> = info.bindings.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, entry.variant.bindings(), "the bindings of {}", info.name);
        assert_eq!(tiny::find(kernel, &shape).map(|i| i.name), Some(info.name), "lookup");
    }
    assert!(tiny::find("gemv", "{}").is_none(), "a shape that is not there");
}

#[test]
fn groups_agree_with_the_kernels_for_all_token_counts() {
    for (groups, entry) in tiny::GROUPS.iter().zip(database().entries()) {
        for tokens in 1..600 {
            assert_eq!(
                groups(tokens),
                entry.variant.groups(tokens),
                "{} at {tokens}",
                entry.variant.kernel()
            );
        }
    }
}

#[test]
fn a_set_is_selected_only_where_it_fits() {
    assert_eq!(kernels::select(&caps(32, true)).len(), 3, "a device of the class");
    assert_eq!(kernels::select(&caps(64, false)).len(), 3, "a device of wider subgroups");
    assert!(kernels::select(&caps(16, true)).is_empty(), "a device of narrower subgroups");
    assert!(kernels::select(&caps(1, true)).is_empty(), "a device without subgroups");
    let small = Caps { max_invocations: 32, ..caps(32, true) };
    assert!(kernels::select_for(&small, "", 0).is_none(), "a device with smaller workgroups");
    let shape = kernels::SETS[0].kernels[0].shape;
    let kernel = kernels::SETS[0].kernels[0].kernel;
    assert!(kernels::find(&caps(32, false), kernel, shape).is_some(), "lookup over all sets");
    assert_eq!(kernels::SETS[0].groups(kernel, shape, 5), Some(tiny::GROUPS[0](5)), "geometry by lookup");
}

#[test]
fn host_structs_are_laid_out_as_in_wgsl() {
    use wgforge_runtime::bytemuck::bytes_of;
    let step = kernels::data::Step { position: 1, tokens: 2, seed_low: 3, seed_high: 4 };
    assert_eq!(bytes_of(&step), [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0], "sixteen bytes in order");
    let sampling = kernels::data::Sampling { temperature: 1.0, top_p: 0.5, top_k: 40, unused: 0 };
    assert_eq!(bytes_of(&sampling).len(), 16, "no padding was added");
}

#[test]
fn kernels_bind_and_dispatch_by_type() {
    pollster::block_on(async {
        let options = DeviceOptions { backend: Some(Backend::Noop), ..Default::default() };
        let device = Device::request(&options).await.expect("the noop backend is always there");
        let pipeline = TypedPipeline::<tiny::Norm256F32NormF32>::new(&device).await.expect("a valid shader");
        let (x, pre, out) = (
            device.buffer("x", 5 * 1024).await.expect("memory"),
            device.buffer("pre", 1024).await.expect("memory"),
            device.buffer("out", 5 * 1024).await.expect("memory"),
        );
        let bindings = tiny::Norm256F32NormF32Bindings { x: &x, pre: &pre, out: &out };
        let bound = pipeline.bind(&device, &bindings).expect("the right bindings");
        let mut recorder = Recorder::new(&device, "test");
        recorder
            .dispatch_bound(&pipeline, &bound, tiny::Norm256F32NormF32::groups(5))
            .expect("within the device's grid");
        recorder.submit().wait().await.expect("runs");
        assert_eq!(tiny::Norm256F32NormF32::INFO.kernel, "norm", "the family");
    });
}

#[test]
fn the_build_script_door_writes_the_same_items() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let emitted = generate(root, &["tests/tiny.toml"]).unwrap_or_else(|e| panic!("{e}"));
    let code = build::pretty(&emitted.tokens).expect("a Rust file");
    for wanted in
        ["pub mod tiny", "pub struct Norm256F32NormF32;", "pub fn select(", "/wgsl/norm_", "pub struct Step"]
    {
        assert!(code.contains(wanted), "no {wanted:?} in\n{code}");
    }
    assert!(emitted.stale.is_empty(), "{:?}", emitted.stale);
    assert!(emitted.texts.len() >= tiny::ALL.len(), "a file for each text");
}

#[test]
fn rows_alone_hold_the_same_kernels() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (families, templates) = (Families::builtin(), Templates::builtin());
    let (texts, items) = (emit::Texts::Files, emit::Items::Rows);
    let emitted = build::generate(root, &["tests/tiny.toml"], &families, &templates, texts, items)
        .unwrap_or_else(|e| panic!("{e}"));
    let code = build::pretty(&emitted.tokens).expect("a Rust file");
    assert_eq!(code.matches("wgsl_hash:").count(), tiny::ALL.len(), "a row for each kernel in\n{code}");
    for info in tiny::ALL {
        for field in [info.name, info.wgsl_hash, info.shape, info.config] {
            assert!(code.contains(&format!("{field:?}")), "no {field:?} in\n{code}");
        }
    }
    assert!(!code.contains("struct Norm256F32NormF32"), "a type in\n{code}");
}

#[test]
fn all_errors_are_reported_together() {
    let root = Path::new("/nowhere");
    let errors = generate(root, &["a.toml", "b.toml"]).expect_err("no such files");
    assert_eq!(errors.0.len(), 2, "{errors}");
    assert!(errors.to_string().contains("a.toml") && errors.to_string().contains("b.toml"), "{errors}");
}

#[test]
fn strict_builds_refuse_stale_databases() {
    let mut database = database();
    let mut entry = database.entries()[0].clone();
    entry.wgsl_hash = "0".repeat(64);
    database.insert(entry);
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join("stale.toml");
    std::fs::write(&file, database.to_toml()).expect("a writable target folder");
    let builder = || build::Builder::new().database(&file).out_dir(folder.join("out"));
    let refused = builder().strict(true).compile().expect_err("strict");
    assert!(refused.to_string().contains("1 of 3 kernels are stale"), "{refused}");
    builder().strict(false).compile().expect("a warning otherwise");
    assert!(folder.join("out/kernels.rs").exists(), "the code was written");
}

#[test]
fn all_committed_databases_embed_together() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("../../autotune/tuned");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the committed databases")
        .map(|f| f.expect("listed").path())
        .collect();
    files.sort();
    let emitted = generate(root, &files).unwrap_or_else(|e| panic!("{e}"));
    assert!(emitted.stale.is_empty(), "{:?}", emitted.stale);
    let code = build::pretty(&emitted.tokens).expect("a Rust file");
    for file in &files {
        let module = file.file_stem().and_then(|s| s.to_str()).expect("a name").replace('-', "_");
        assert!(code.contains(&format!("pub mod {module} ")), "no module `{module}`");
    }
}

/// The same database with another template for one of its kernels.
mod replaced {
    wgforge_codegen_macros::kernels!("tests/tiny.toml", templates = "tests/ui/pass");
}

#[test]
fn a_folder_of_templates_stands_in_for_ours() {
    let [norm, sample, ..] = replaced::tiny::ALL else { panic!("three kernels") };
    assert!(norm.wgsl.contains("replaced_1"), "the folder's template:\n{}", norm.wgsl);
    assert_ne!(norm.wgsl_hash, tiny::ALL[0].wgsl_hash, "another text has another hash");
    assert_eq!(sample.wgsl, tiny::ALL[1].wgsl, "templates the folder does not have stay ours");
}
