//! The build-script door.
//!
//! ```no_run
//! // build.rs
//! fn main() -> Result<(), wgforge_codegen::build::Errors> {
//!     wgforge_codegen::build::compile(&["tuned/generic-plain.toml", "tuned/h200.toml"])
//! }
//! ```
//! ```ignore
//! // src/lib.rs
//! pub mod kernels {
//!     include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
//! }
//! ```

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

pub use crate::emit::Errors;
use crate::{
    Error,
    emit::{Emitted, Source, Texts, emit},
};

/// Set to anything but `0`, stale databases fail the build instead of warning.
const STRICT: &str = "WGFORGE_STRICT_TUNING";

/// Writes `$OUT_DIR/kernels.rs` from databases; paths are relative to the package.
///
/// # Errors
/// As [`Builder::compile`].
pub fn compile<P: AsRef<Path>>(databases: &[P]) -> Result<(), Errors> {
    databases.iter().fold(Builder::new(), |b, path| b.database(path)).compile()
}

/// What to generate, and where.
#[derive(Clone, Debug)]
pub struct Builder {
    databases: Vec<PathBuf>,
    out: Option<PathBuf>,
    strict: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// Nothing yet.
    pub fn new() -> Self {
        let strict = env::var_os(STRICT).is_some_and(|v| !v.is_empty() && v != "0");
        Self { databases: Vec::new(), out: None, strict }
    }

    /// Adds a database; a relative path starts at the package's folder.
    #[must_use]
    pub fn database(mut self, path: impl AsRef<Path>) -> Self {
        self.databases.push(path.as_ref().into());
        self
    }

    /// Writes into this folder instead of `$OUT_DIR`. The generated code finds its shaders by
    /// `$OUT_DIR` all the same.
    #[must_use]
    pub fn out_dir(mut self, out: impl AsRef<Path>) -> Self {
        self.out = Some(out.as_ref().into());
        self
    }

    /// Whether stale entries are errors; otherwise they are cargo warnings.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Renders, validates and writes `kernels.rs` with its shaders, and tells cargo what to watch.
    /// Templates need no watching: they are part of this crate, and a build script runs again when
    /// the crates it is made of change.
    ///
    /// # Errors
    /// Everything that is wrong with any database or kernel. Nothing is written then.
    pub fn compile(self) -> Result<(), Errors> {
        let out = match self.out.clone().or_else(|| env::var_os("OUT_DIR").map(PathBuf::from)) {
            Some(out) => out,
            None => {
                let source =
                    io::Error::new(io::ErrorKind::NotFound, "OUT_DIR is not set: not a build script?");
                return Err(Errors(vec![Error::File { file: "kernels.rs".into(), source }]));
            }
        };
        println!("cargo:rerun-if-env-changed={STRICT}");
        let root = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
        for path in &self.databases {
            println!("cargo:rerun-if-changed={}", root.join(path).display());
        }
        let emitted = generate(&root, &self.databases, Texts::Files)?;
        if self.strict && !emitted.stale.is_empty() {
            return Err(Errors(emitted.stale.into_iter().map(Error::Stale).collect()));
        }
        for line in &emitted.stale {
            println!("cargo:warning={line}");
        }
        write(&out, &emitted).map_err(|e| Errors(vec![e]))
    }
}

/// Reads databases relative to `root` and generates their code. Shared with the macro.
///
/// # Errors
/// Files that cannot be read, and everything [`emit`] finds.
pub fn generate<P: AsRef<Path>>(root: &Path, databases: &[P], texts: Texts) -> Result<Emitted, Errors> {
    let mut errors = Vec::new();
    let mut sources = Vec::new();
    for path in databases {
        let file = root.join(path);
        let source = match fs::read_to_string(&file) {
            Ok(text) => Source::parse(&path.as_ref().to_string_lossy(), &text),
            Err(source) => Err(Error::File { file, source }),
        };
        match source {
            Ok(source) => sources.push(source),
            Err(e) => errors.push(e),
        }
    }
    match emit(&sources, texts) {
        Ok(emitted) if errors.is_empty() => Ok(emitted),
        Ok(_) => Err(Errors(errors)),
        Err(more) => {
            errors.extend(more.0);
            Err(Errors(errors))
        }
    }
}

fn write(out: &Path, emitted: &Emitted) -> Result<(), Error> {
    let folder = out.join("wgsl");
    let fail = |file: &Path| {
        let file = file.to_owned();
        |source| Error::File { file, source }
    };
    fs::create_dir_all(&folder).map_err(fail(&folder))?;
    for (name, text) in &emitted.texts {
        let path = folder.join(name);
        fs::write(&path, text).map_err(fail(&path))?;
    }
    let path = out.join("kernels.rs");
    let text = pretty(&emitted.tokens)
        .map_err(|e| Error::Shader { kernel: "kernels.rs".into(), report: e.to_string() })?;
    fs::write(&path, text).map_err(fail(&path))
}

/// Generated code as a person would lay it out.
///
/// # Errors
/// Tokens that are no Rust file.
pub fn pretty(tokens: &proc_macro2::TokenStream) -> syn::Result<String> {
    Ok(prettyplease::unparse(&syn::parse2(tokens.clone())?))
}
