//! Where a weights file's bytes live.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

/// The bytes of a weights file: part of the program, in memory, or mapped from disk.
pub struct Bytes(Inner);

enum Inner {
    Static(&'static [u8]),
    Shared(Arc<[u8]>),
    Owned(Vec<u8>),
    #[cfg(feature = "native")]
    Mapped(memmap2::Mmap),
}

impl Bytes {
    /// Maps a file.
    #[cfg(feature = "native")]
    pub(super) fn map(path: &std::path::Path) -> crate::Result<Self> {
        use crate::Error;
        let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        if file.metadata().map_err(|e| Error::io(path, e))?.len() == 0 {
            return Ok(Self(Inner::Static(&[])));
        }
        // SAFETY: the mapping is read-only and we never hand out a mutable view of it. Every bit
        // pattern is valid for the bytes and floats that are read from it. What is left to the
        // user is what every memory-mapped file leaves to them: not to cut the file short while
        // the program runs.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        Ok(Self(Inner::Mapped(map)))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Inner::Static(bytes) => bytes,
            Inner::Shared(bytes) => bytes,
            Inner::Owned(bytes) => bytes,
            #[cfg(feature = "native")]
            Inner::Mapped(map) => map,
        }
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({})", self.len())
    }
}

impl From<&'static [u8]> for Bytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Inner::Static(bytes))
    }
}

impl From<Arc<[u8]>> for Bytes {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self(Inner::Shared(bytes))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Inner::Owned(bytes))
    }
}

impl From<Cow<'static, [u8]>> for Bytes {
    fn from(bytes: Cow<'static, [u8]>) -> Self {
        match bytes {
            Cow::Borrowed(bytes) => bytes.into(),
            Cow::Owned(bytes) => bytes.into(),
        }
    }
}
