//! Mistakes that must not compile, and where the compiler points. After a change of wording:
//! `TRYBUILD=overwrite cargo test --workspace --test ui`, and review the diff.

use std::{fs, path::Path, process::Command};

/// The macro reads files relative to the package, which here is one that trybuild makes.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a writable target folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("listed").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else if path.extension().is_some_and(|e| e == "toml" || e == "wgsl") {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

/// Compiles the cases a variable names; run by the test below in a process of its own, because what
/// is said of stale databases depends on the environment.
#[test]
fn cases() {
    if let Ok(cases) = std::env::var("WGFORGE_TEST_UI") {
        trybuild::TestCases::new().compile_fail(cases);
    }
}

#[test]
fn mistakes_are_compile_errors_at_their_place() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    let package = target.join("tests/trybuild").join(env!("CARGO_PKG_NAME"));
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), &package.join("tests"));
    for (strict, cases) in [("1", "tests/ui/fail/*.rs"), ("0", "tests/ui/warn/*.rs")] {
        let status = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "cases", "--nocapture"])
            .env("WGFORGE_TEST_UI", cases)
            .env("WGFORGE_STRICT_TUNING", strict)
            .status()
            .expect("the test starts");
        assert!(status.success(), "{cases}");
    }
}
