//! Which kernels there are, for whatever reads their names from a file.

use std::sync::Arc;

use super::{Family, family};
use crate::{Kernel, kernel::FAMILIES};

/// Why a family cannot be added to a set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FamilyError {
    /// Another family has the name.
    #[error("there is a kernel `{0}` already; give `Kernel::NAME` another value")]
    Taken(&'static str),
    /// The name could not become that of files and of Rust items.
    #[error(
        "`{0}` is no name for a kernel: it needs a lower-case letter, then lower-case letters, digits or `_`"
    )]
    Name(&'static str),
}

/// The kernels a database may name: the built-in ones and added ones.
#[derive(Clone, Debug, Default)]
pub struct Families {
    added: Vec<Arc<dyn Family>>,
}

impl Families {
    /// The built-in ones.
    pub fn builtin() -> Self {
        Self::default()
    }

    /// These and the family of a kernel type.
    ///
    /// # Errors
    /// As [`Families::add`].
    pub fn with<K: Kernel>(mut self) -> Result<Self, FamilyError> {
        self.add(family::<K>())?;
        Ok(self)
    }

    /// Adds a family.
    ///
    /// # Errors
    /// A name that is taken, or that is none.
    pub fn add(&mut self, family: Arc<dyn Family>) -> Result<(), FamilyError> {
        let name = family.name();
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(fine) {
            return Err(FamilyError::Name(name));
        }
        if self.names().any(|n| n == name) {
            return Err(FamilyError::Taken(name));
        }
        self.added.push(family);
        Ok(())
    }

    /// Names of all families.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        FAMILIES.iter().copied().chain(self.added.iter().map(|f| f.name()))
    }

    /// The added family of a name.
    pub(crate) fn get(&self, name: &str) -> Option<&dyn Family> {
        self.added.iter().find(|f| f.name() == name).map(|f| &**f)
    }
}
