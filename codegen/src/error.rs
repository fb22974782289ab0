//! Errors of rendering, validating and embedding kernels.

#[cfg(feature = "build")]
use crate::Reason;

/// What can go wrong between a template and a kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A template did not parse or render.
    #[error("template of kernel `{kernel}`:\n{report}")]
    Template {
        /// The kernel family.
        kernel: String,
        /// Tera's report.
        report: String,
    },
    /// A rendered shader did not parse, validate or translate.
    #[error("shader of kernel `{kernel}`:\n{report}")]
    Shader {
        /// Family, shape and configuration.
        kernel: String,
        /// Naga's report with its caret.
        report: String,
    },
    /// The shader's bindings are not the ones its Rust file lists.
    #[error("kernel `{kernel}` declares bindings [{found}], its Rust file lists [{wanted}]")]
    Bindings {
        /// Family, shape and configuration.
        kernel: String,
        /// Names by `Kernel::bindings`.
        wanted: String,
        /// Names by reflection.
        found: String,
    },
    /// A database cannot be read.
    #[cfg(feature = "build")]
    #[error(transparent)]
    Database(#[from] crate::DbErrors),
    /// A kernel cannot be added to the built-in ones.
    #[cfg(feature = "build")]
    #[error(transparent)]
    Family(#[from] crate::custom::FamilyError),
    /// A file cannot be read or written.
    #[cfg(feature = "build")]
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A database holds a configuration that its own devices cannot run.
    #[cfg(feature = "build")]
    #[error("{file}: kernel `{kernel}`: {reason}")]
    Refused {
        /// The database.
        file: String,
        /// Family, shape and configuration.
        kernel: String,
        /// Why not.
        reason: Reason,
    },
    /// The templates changed since a database was made, and `WGFORGE_STRICT_TUNING` is set.
    #[cfg(feature = "build")]
    #[error("{0}")]
    Stale(String),
    /// Workgroups of a kernel are neither constant nor proportional to the tokens, rounded up.
    #[cfg(feature = "build")]
    #[error("kernel `{kernel}`: no expression gives its workgroups for every number of tokens")]
    Geometry {
        /// Family, shape and configuration.
        kernel: String,
    },
    /// A bound WGSL struct has a field that plain Rust data cannot mirror.
    #[cfg(feature = "build")]
    #[error("kernel `{kernel}`, struct `{name}`: field `{field}` has no plain Rust form")]
    Struct {
        /// Family, shape and configuration.
        kernel: String,
        /// The struct.
        name: String,
        /// The field.
        field: String,
    },
    /// Two databases would become modules of one name.
    #[cfg(feature = "build")]
    #[error("{0} and {1} would both become a module `{2}`; rename one")]
    SameModule(String, String, String),
}
