//! A program with embedded kernels links neither the templates' engine nor the code generator.

use std::process::Command;

/// Names of all packages the runtime's library is made of, with the given features.
fn packages(arguments: &[&str]) -> Vec<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let output = Command::new(cargo)
        // Not `--offline`: what only other targets need was not fetched to build this test.
        .args(["tree", "--locked", "--prefix", "none", "--edges", "normal", "--format", "{p}"])
        .args(["--package", "wgforge-runtime"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_runtime_has_no_code_generator() {
    for arguments in [&[][..], &["--all-features"], &["--target", "wasm32-unknown-unknown"]] {
        let packages = packages(arguments);
        assert!(packages.iter().any(|p| p == "wgpu"), "{packages:?} are not the runtime's");
        for unwanted in ["wgforge-codegen", "wgforge-codegen-macros", "tera", "toml", "blake3"] {
            assert!(!packages.iter().any(|p| p == unwanted), "{unwanted} is linked, with {arguments:?}");
        }
    }
}
