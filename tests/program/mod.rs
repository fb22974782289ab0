//! Running the built program from tests.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use safetensors::SafeTensors;
use serde_json::Value;

/// A finished call.
pub(crate) struct Ran {
    code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Standard output, after success.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self.out
    }

    /// Standard output as JSON, after success.
    pub(crate) fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"))
    }

    /// Checks the exit code and that standard error holds every one of `parts`.
    pub(crate) fn fails(self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        for part in parts {
            assert!(self.err.contains(part), "no {part:?} in: {}", self.err);
        }
    }
}

pub(crate) fn wgforge(arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgforge"));
    let Output { status, stdout, stderr } =
        command.args(arguments).stdin(Stdio::null()).output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// Backends to test on: the reference, and the default one where there is an adapter.
pub(crate) fn backends() -> Vec<Vec<&'static str>> {
    let doctor = wgforge(&["doctor", "--json"]).json();
    let found = doctor["chosen"]["backend"] != "reference";
    let required = std::env::var_os("WGFORGE_REQUIRE_ADAPTER").is_some_and(|v| v == "1");
    assert!(found || !required, "WGFORGE_REQUIRE_ADAPTER is set and there is no adapter");
    let mut all = vec![vec!["--backend", "reference"]];
    if found {
        all.push(Vec::new());
    }
    all
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// A random checkpoint of the tiny shape.
pub(crate) fn synth(dir: &Path, format: &str) {
    let arguments = ["synth", "--shape", "tiny", "--format", format, "--seed", "3", "--out", path(dir)];
    wgforge(&arguments).ok();
}

/// The f32 values and the shape of a tensor.
pub(crate) fn tensor(file: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(file).expect("the file that was written");
    let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let tensor = tensors.tensor(name).expect("the tensor");
    let values = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    (tensor.shape().to_vec(), values.collect())
}

pub(crate) fn tokens(result: &Value) -> Vec<u64> {
    let list = result["tokens"].as_array().expect("tokens");
    list.iter().map(|t| t.as_u64().expect("an id")).collect()
}
