//! What needs the templates: defaults, and whether entries still mean the text they were timed with.

use super::{Database, Entry};
use crate::{Caps, Error, Target, Variant, Workload};

impl Database {
    /// The configuration of [`Workload::generic`] for each workload, for a class of devices that
    /// nobody has measured.
    ///
    /// # Errors
    /// A template that does not render.
    pub fn generic(caps: &Caps, workloads: &[Workload]) -> Result<Self, Error> {
        let mut database = Self::new(caps.clone(), None, None);
        for workload in workloads {
            let variant = workload.generic(caps);
            let wgsl_hash = native_hash(&variant)?;
            database.insert(Entry { variant, wgsl_hash, timing: None });
        }
        Ok(database)
    }

    /// The entries whose text has changed since they were recorded.
    ///
    /// # Errors
    /// As [`Entry::stale`].
    pub fn stale(&self) -> Result<Vec<&Entry>, Error> {
        let mut stale = Vec::new();
        for entry in self.entries() {
            if entry.stale()? {
                stale.push(entry);
            }
        }
        Ok(stale)
    }
}

impl Entry {
    /// Whether the templates render another text now than when this was recorded, so that its
    /// timing says nothing about the kernel any more.
    ///
    /// # Errors
    /// A template that does not render this variant at all.
    pub fn stale(&self) -> Result<bool, Error> {
        Ok(native_hash(&self.variant)? != self.wgsl_hash)
    }
}

/// The hash a database records: of the native text, whatever the target of a build.
///
/// # Errors
/// A template that does not render this variant.
pub fn native_hash(variant: &Variant) -> Result<String, Error> {
    Ok(blake3::hash(variant.wgsl(Target::Native)?.as_bytes()).to_hex().to_string())
}
