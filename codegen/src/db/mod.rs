//! Tuning databases: which configuration computes each workload on a class of device.
//!
//! A database is a TOML file that is committed and read by people: a header that says what it was
//! made for, and one `[[kernel]]` for each workload. It holds configurations and a hash of the
//! WGSL, never text; the text is rendered again, and a hash that differs says which entries are
//! stale.

mod parse;
#[cfg(feature = "render")]
mod render;
#[cfg(feature = "render")]
pub use render::native_hash;
mod write;

use serde::{Deserialize, Serialize};

use crate::{Caps, Variant, Workload};

/// The layout of the file. A reader refuses any other.
pub const SCHEMA: u32 = 1;

/// What is wrong with a database file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// Not TOML.
    #[error("{file}: {report}")]
    Syntax {
        /// The file as it was named by the caller.
        file: String,
        /// The parser's report with line and column.
        report: String,
    },
    /// Written by another version of this crate.
    #[error("{file}: `schema` is {found}, this version reads {SCHEMA}; tune again")]
    Schema {
        /// The file.
        file: String,
        /// What stands there.
        found: String,
    },
    /// A field before the first `[[kernel]]`.
    #[error("{file}: `{field}`: {report}")]
    Header {
        /// The file.
        file: String,
        /// The field.
        field: String,
        /// What is wrong with it.
        report: String,
    },
    /// A field of a `[[kernel]]`.
    #[error("{file}: kernel {entry}: `{field}`: {report}")]
    Entry {
        /// The file.
        file: String,
        /// Which `[[kernel]]`, counted from 1.
        entry: usize,
        /// The field.
        field: String,
        /// What is wrong with it.
        report: String,
    },
}

/// Everything wrong with a database file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DbErrors(pub Vec<DbError>);

impl std::fmt::Display for DbErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, e) in self.0.iter().enumerate() {
            write!(f, "{}{e}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for DbErrors {}

/// The adapter a database was measured on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceId {
    /// The adapter's name as its driver gives it.
    pub name: String,
    /// PCI number of the vendor, 0 where there is none.
    pub vendor: u32,
    /// PCI number of the device, 0 where there is none.
    pub device: u32,
    /// The driver and its version.
    pub driver: String,
    /// The graphics API.
    pub backend: String,
}

/// What a database was made for.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// [`Caps::class`] of `caps`.
    pub class: String,
    /// Version of this crate.
    pub codegen: String,
    /// Version of wgpu that timed the kernels; `None` where nothing was timed.
    pub wgpu: Option<String>,
    /// The adapter; `None` for the defaults of a whole class.
    pub device: Option<DeviceId>,
    /// wgpu's names of the features the adapter had; empty for defaults.
    pub features: Vec<String>,
    /// What the kernels may use.
    pub caps: Caps,
}

/// The evidence for a configuration: the time of a dispatch that waits for the one before it,
/// together with the dispatches that must stand behind it (the merge of a split attention).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Median of the samples, microseconds.
    pub median_us: f64,
    /// Fastest sample, microseconds.
    pub min_us: f64,
    /// Samples taken.
    pub samples: u32,
    /// What else was measured; `None` in files of earlier versions.
    #[serde(flatten)]
    pub detail: Option<Detail>,
}

/// What a [`Timing`] says beyond its samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// Lower end of the 95 % interval of the median, microseconds.
    pub low_us: f64,
    /// Its upper end, microseconds.
    pub high_us: f64,
    /// Bytes that must be moved over the median, GB (10^9 bytes) a second.
    pub gb_s: f64,
    /// Operations that must be done over the median, 10^12 a second; 0 where bytes are all there is.
    pub tflop_s: f64,
    /// The least time the device's measured rates allow over the median: 1 is as fast as can be.
    pub roofline: f64,
    /// The next best configuration, if another was proven.
    pub runner_up: Option<RunnerUp>,
}

/// The configuration that came second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunnerUp {
    /// The configuration as JSON; it is shown, never run.
    pub config: serde_json::Value,
    /// Median of its samples, microseconds.
    pub median_us: f64,
}

/// One workload with its configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What is computed, and how.
    pub variant: Variant,
    /// blake3 of the native WGSL text at the time of tuning, hexadecimal.
    pub wgsl_hash: String,
    /// What was measured; `None` for defaults.
    pub timing: Option<Timing>,
}

impl Entry {
    /// The workload's identity: family and shape.
    pub fn key(&self) -> (&'static str, String) {
        (self.variant.kernel(), self.variant.workload().shape_json())
    }
}

/// A tuning database.
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    /// What it was made for.
    pub header: Header,
    entries: Vec<Entry>,
}

impl Database {
    /// An empty database for devices with `caps`; `device` and `wgpu` where one was measured.
    pub fn new(caps: Caps, device: Option<DeviceId>, wgpu: Option<String>) -> Self {
        let codegen = env!("CARGO_PKG_VERSION").to_owned();
        let header = Header { class: caps.class(), codegen, wgpu, device, features: Vec::new(), caps };
        Self { header, entries: Vec::new() }
    }

    /// All entries, sorted by family and shape.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds an entry, or replaces the one for the same workload.
    pub fn insert(&mut self, entry: Entry) {
        let key = entry.key();
        match self.entries.binary_search_by_key(&key, Entry::key) {
            Ok(i) => self.entries[i] = entry,
            Err(i) => self.entries.insert(i, entry),
        }
    }

    /// Takes out the entry of a workload.
    pub fn remove(&mut self, workload: &Workload) {
        self.entries.retain(|e| e.variant.workload() != *workload);
    }

    /// The entry for a family and a shape as [`Workload::shape_json`] writes it.
    pub fn lookup(&self, kernel: &str, shape_json: &str) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|e| {
            let (k, s) = e.key();
            (k, s.as_str()).cmp(&(kernel, shape_json))
        });
        at.ok().map(|i| &self.entries[i])
    }

    /// The entry for `workload`.
    pub fn get(&self, workload: &Workload) -> Option<&Entry> {
        self.lookup(workload.kernel(), &workload.shape_json())
    }
}
