//! Errors of rendering, validating and embedding kernels.

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
}
