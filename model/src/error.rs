//! The one error type of this crate.

use std::path::{Path, PathBuf};

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where (file, field, tensor, kernel), and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },

    /// The disk is full. Nothing half-written is left under its final name.
    #[error("{}: the disk is full ({needed} bytes are needed in all); free some space or choose another folder", path.display())]
    DiskFull {
        /// The file that was being written.
        path: PathBuf,
        /// Bytes the whole file needs.
        needed: u64,
    },

    /// A file of the checkpoint is not there.
    #[error("{}: no such file; {advice}", path.display())]
    MissingFile {
        /// The file that was looked for.
        path: PathBuf,
        /// Where to get it.
        advice: String,
    },

    /// A file is not JSON, or a field has the wrong type.
    #[error("{file}: not readable as JSON: {source}; fetch the file again")]
    Json {
        /// The file.
        file: String,
        /// Where and why parsing stopped.
        source: serde_json::Error,
    },

    /// A configuration file lacks a field that the model cannot do without.
    #[error("{file}: the field `{field}` is missing; use the config.json published with the weights")]
    MissingField {
        /// The file.
        file: String,
        /// The field, with the objects it lies in.
        field: String,
    },

    /// A configuration field has a value that cannot be right.
    #[error("{file}: the field `{field}` is {got}, which cannot be: wanted {wanted}")]
    BadField {
        /// The file.
        file: String,
        /// The field, with the objects it lies in.
        field: String,
        /// The value found.
        got: String,
        /// What was expected.
        wanted: String,
    },

    /// A valid file asks for something this engine does not do.
    #[error("{what} is not supported; {advice}")]
    Unsupported {
        /// What was asked for, with the file or field that asks.
        what: String,
        /// What can be done instead.
        advice: String,
    },

    /// A weights file is damaged or was cut short.
    #[error("{file}: damaged safetensors file: {reason}; fetch the file again")]
    BadSafetensors {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A tensor that the configuration calls for is not in the weights.
    #[error(
        "{file}: the tensor `{tensor}` is missing; config.json and the weights do not belong together, or the file is incomplete"
    )]
    MissingTensor {
        /// The file or folder that was searched.
        file: String,
        /// The tensor's full name.
        tensor: String,
    },

    /// A tensor does not have the shape that the configuration calls for.
    #[error(
        "the tensor `{tensor}` has the shape {got:?} where config.json calls for {wanted:?}; config.json and the weights do not belong together"
    )]
    TensorShape {
        /// The tensor's full name.
        tensor: String,
        /// The shape in the file.
        got: Vec<usize>,
        /// The shape that the configuration calls for.
        wanted: Vec<usize>,
    },

    /// A tensor is stored in a type that its place does not allow.
    #[error("the tensor `{tensor}` is stored as {got}; wanted {wanted}")]
    TensorDtype {
        /// The tensor's full name.
        tensor: String,
        /// The type in the file.
        got: String,
        /// The types allowed there.
        wanted: String,
    },

    /// A tensor holds a number that would spoil every result.
    #[error("the tensor `{tensor}` holds {value} at index {index}; wanted {wanted}; fetch the file again")]
    TensorValue {
        /// The tensor's full name.
        tensor: String,
        /// The first offending element.
        index: usize,
        /// Its value.
        value: f32,
        /// What was expected.
        wanted: &'static str,
    },

    /// The tokenizer's file cannot be used, or it cannot handle a text.
    #[error("{file}: {reason}")]
    Tokenizer {
        /// The file.
        file: String,
        /// What is wrong, and what to do.
        reason: String,
    },

    /// The vocabulary has no such token.
    #[error("the tokenizer has no token `{token}`; is this tokenizer.json Gemma 4's?")]
    UnknownToken {
        /// The token's text, or its id as a number.
        token: String,
    },

    /// More tokens than fit.
    #[error(
        "{wanted} tokens do not fit into a context of {limit}; shorten the prompt or allow a longer context"
    )]
    ContextOverflow {
        /// Tokens asked for, prompt included.
        wanted: usize,
        /// Tokens that fit.
        limit: usize,
    },

    /// The GPU, its driver, or the way to them failed.
    #[error(transparent)]
    Runtime(#[from] wgforge_runtime::Error),

    /// A caller's mistake: an argument that makes no sense here.
    #[error("{0}")]
    Usage(String),

    /// A kernel could not be rendered, compiled or run.
    #[error("kernel {kernel}: {report}")]
    Kernel {
        /// The kernel and the shape it was for.
        kernel: String,
        /// The renderer's or compiler's whole report.
        report: String,
    },
}

impl Error {
    /// Wraps an input/output error with the path it happened on.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_owned(), source }
    }

    /// A feature that is not there, and what to do instead.
    pub fn unsupported(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), advice: advice.into() }
    }

    pub(crate) fn missing_field(file: &str, field: &str) -> Self {
        Self::MissingField { file: file.to_owned(), field: field.to_owned() }
    }

    pub(crate) fn bad_field(
        file: &str,
        field: &str,
        got: impl std::fmt::Display,
        wanted: impl Into<String>,
    ) -> Self {
        Self::BadField {
            file: file.to_owned(),
            field: field.to_owned(),
            got: got.to_string(),
            wanted: wanted.into(),
        }
    }
}
