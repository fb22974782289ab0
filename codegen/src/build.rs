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
    Error, Families, Kernel,
    custom::{self, FamilyError},
    emit::{Emitted, Items, Source, Texts, emit},
    render::Templates,
};

/// The variable that, set to anything but `0`, makes stale databases fail the build instead of warning.
pub const STRICT: &str = "WGFORGE_STRICT_TUNING";

/// Whether [`STRICT`] is set.
pub fn strict() -> bool {
    env::var_os(STRICT).is_some_and(|v| !v.is_empty() && v != "0")
}

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
    families: Families,
    templates: Option<PathBuf>,
    refused: Vec<FamilyError>,
    out: Option<PathBuf>,
    strict: bool,
    items: Items,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            databases: Vec::new(),
            families: Families::builtin(),
            templates: None,
            refused: Vec::new(),
            out: None,
            strict: strict(),
            items: Items::Types,
        }
    }

    /// Adds a database; a relative path starts at the package's folder.
    #[must_use]
    pub fn database(mut self, path: impl AsRef<Path>) -> Self {
        self.databases.push(path.as_ref().into());
        self
    }

    /// Lets databases name the kernel `K`, which another crate than wgforge-codegen defines.
    #[must_use]
    pub fn kernel<K: Kernel>(mut self) -> Self {
        // Kept for `compile`, which can return it.
        self.refused.extend(self.families.add(custom::family::<K>()).err());
        self
    }

    /// Renders with the templates of a folder in the place of those of the same name:
    /// `norm.wgsl` for the kernel `norm`, `parts/reduce.wgsl` for that component. A relative path
    /// starts at the package's folder.
    #[must_use]
    pub fn templates(mut self, folder: impl AsRef<Path>) -> Self {
        self.templates = Some(folder.as_ref().into());
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

    /// Writes tables only, without a type for each kernel. For a program that finds its kernels by shape
    /// (`find_for`): over 2,232 types rustdoc alone took three minutes.
    #[must_use]
    pub fn rows_only(mut self) -> Self {
        self.items = Items::Rows;
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
        if !self.refused.is_empty() {
            return Err(Errors(self.refused.into_iter().map(Error::Family).collect()));
        }
        println!("cargo:rerun-if-env-changed={STRICT}");
        let root = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
        for path in &self.databases {
            println!("cargo:rerun-if-changed={}", root.join(path).display());
        }
        let templates = match &self.templates {
            Some(folder) => {
                let folder = root.join(folder);
                println!("cargo:rerun-if-changed={}", folder.display());
                read_templates(&folder, &self.families).map_err(|e| Errors(vec![e]))?
            }
            None => Templates::builtin(),
        };
        let emitted = generate(&root, &self.databases, &self.families, &templates, Texts::Files, self.items)?;
        if self.strict && !emitted.stale.is_empty() {
            return Err(Errors(emitted.stale.into_iter().map(Error::Stale).collect()));
        }
        for line in &emitted.stale {
            println!("cargo:warning={line}");
        }
        write(&out, &emitted).map_err(|e| Errors(vec![e]))
    }
}

/// Reads a folder's templates: `NAME.wgsl` for kernels, `parts/NAME.wgsl` for components.
///
/// # Errors
/// [`Error::File`] for what cannot be read, [`Error::Template`] for a file named as no kernel of
/// `families` or that does not parse.
pub fn read_templates(folder: &Path, families: &Families) -> Result<Templates, Error> {
    let mut templates = Templates::builtin();
    for path in template_files(folder)? {
        let text = fs::read_to_string(&path).map_err(|source| Error::File { file: path.clone(), source })?;
        let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        let kernel = name.strip_suffix(".wgsl").filter(|n| !n.contains('/'));
        if let Some(kernel) = kernel.filter(|k| families.names().all(|name| name != *k)) {
            let known: Vec<_> = families.names().collect();
            let report = format!("{} is named as no kernel; there are {}", path.display(), known.join(", "));
            return Err(Error::Template { kernel: kernel.into(), report });
        }
        templates.replace(kernel.unwrap_or(&name), text);
    }
    templates.check()?;
    Ok(templates)
}

/// The `.wgsl` files of a folder and of its `parts`, sorted.
///
/// # Errors
/// [`Error::File`] for a folder that cannot be listed.
pub fn template_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let fail = |file: &Path| {
        let file = file.to_owned();
        |source| Error::File { file, source }
    };
    let mut files = Vec::new();
    let parts = folder.join("parts");
    for folder in [folder, &parts] {
        if folder == parts && !parts.exists() {
            continue;
        }
        for entry in fs::read_dir(folder).map_err(fail(folder))? {
            let path = entry.map_err(fail(folder))?.path();
            if path.extension().is_some_and(|e| e == "wgsl") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Reads databases relative to `root` and generates their code. Shared with the macro.
///
/// # Errors
/// Files that cannot be read, and everything [`emit`] finds.
pub fn generate<P: AsRef<Path>>(
    root: &Path,
    databases: &[P],
    families: &Families,
    templates: &Templates,
    texts: Texts,
    items: Items,
) -> Result<Emitted, Errors> {
    let mut errors = Vec::new();
    let mut sources = Vec::new();
    for path in databases {
        let file = root.join(path);
        let source = match fs::read_to_string(&file) {
            Ok(text) => Source::parse_with(families, &path.as_ref().to_string_lossy(), &text),
            Err(source) => Err(Error::File { file, source }),
        };
        match source {
            Ok(source) => sources.push(Source { templates: templates.clone(), ..source }),
            Err(e) => errors.push(e),
        }
    }
    match emit(&sources, texts, items) {
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
