//! Where a weights file's bytes live.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::{Error, Result};

/// A weights file that is neither in memory nor mapped but can be read at any place: a file in a
/// browser's private storage, one that was dropped on a page, ranges of a URL.
pub trait ReadAt: Send + Sync {
    /// Bytes of the file.
    fn size(&self) -> u64;

    /// Fills `into` with the bytes from `offset` on.
    ///
    /// # Errors
    /// Whatever keeps the bytes from being read; the text should say what to do about it.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> std::io::Result<()>;

    /// Whether a range is there. Tensors that were not fetched, such as those of towers for other
    /// senses, are as if the file did not have them.
    fn has(&self, _range: Range<u64>) -> bool {
        true
    }
}

/// The bytes of a weights file: part of the program, in memory, mapped from disk, or elsewhere.
#[derive(Clone)]
pub struct Bytes(Inner);

#[derive(Clone)]
enum Inner {
    Static(&'static [u8]),
    Owned(Arc<Vec<u8>>),
    #[cfg(feature = "native")]
    Mapped(Arc<memmap2::Mmap>),
    Elsewhere(Arc<dyn ReadAt>),
}

impl Bytes {
    /// Maps a file.
    #[cfg(feature = "native")]
    pub(super) fn map(path: &std::path::Path) -> Result<Self> {
        let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        if file.metadata().map_err(|e| Error::io(path, e))?.len() == 0 {
            return Ok(Self(Inner::Static(&[])));
        }
        // SAFETY: the mapping is read-only and we never hand out a mutable view of it. Every bit
        // pattern is valid for the bytes and floats that are read from it. What is left to the
        // user is what every memory-mapped file leaves to them: not to cut the file short while
        // the program runs.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        Ok(Self(Inner::Mapped(Arc::new(map))))
    }

    /// A file that is read piece by piece.
    pub fn elsewhere(file: impl ReadAt + 'static) -> Self {
        Self(Inner::Elsewhere(Arc::new(file)))
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        match &self.0 {
            Inner::Elsewhere(file) => file.size(),
            _ => self.memory().len() as u64,
        }
    }

    /// Whether a range is there, see [`ReadAt::has`].
    pub(super) fn has(&self, range: Range<u64>) -> bool {
        match &self.0 {
            Inner::Elsewhere(file) => file.has(range),
            _ => true,
        }
    }

    /// What is in memory; nothing of a file elsewhere.
    fn memory(&self) -> &[u8] {
        match &self.0 {
            Inner::Static(bytes) => bytes,
            Inner::Owned(bytes) => bytes,
            #[cfg(feature = "native")]
            Inner::Mapped(map) => map,
            Inner::Elsewhere(_) => &[],
        }
    }

    /// A range of the file: where it lies, or a copy of it. `file` is what errors call it.
    pub(super) fn range(&self, range: Range<u64>, file: &str) -> Result<Cow<'_, [u8]>> {
        let cut = || Error::BadSafetensors {
            file: file.to_owned(),
            reason: format!("the bytes {} to {} are beyond its {}", range.start, range.end, self.size()),
        };
        let fits = range.start <= range.end && range.end <= self.size();
        let places = (usize::try_from(range.start), usize::try_from(range.end));
        match (&self.0, places) {
            _ if !fits => Err(cut()),
            (Inner::Elsewhere(source), _) => {
                let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(|_| cut())?];
                source.read_at(range.start, &mut bytes).map_err(|e| Error::io(file, e))?;
                Ok(Cow::Owned(bytes))
            }
            (_, (Ok(start), Ok(end))) => self.memory().get(start..end).map(Cow::Borrowed).ok_or_else(cut),
            _ => Err(cut()),
        }
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({})", self.size())
    }
}

impl From<&'static [u8]> for Bytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Inner::Static(bytes))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Inner::Owned(Arc::new(bytes)))
    }
}

/// A range of a weights file, not read yet. Clones are handles to the same bytes.
#[derive(Clone, Debug)]
pub struct Data {
    bytes: Bytes,
    file: Arc<str>,
    start: u64,
    len: usize,
}

/// Bytes compared at a time.
const PIECE: usize = 1 << 20;

impl Data {
    pub(super) fn new(bytes: &Bytes, file: &Arc<str>, start: u64, len: usize) -> Self {
        Self { bytes: bytes.clone(), file: Arc::clone(file), start, len }
    }

    /// Bytes that are already in memory.
    pub fn of(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let len = bytes.memory().len();
        Self { bytes, file: "memory".into(), start: 0, len }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Some of the bytes: where they lie, or a copy.
    ///
    /// # Errors
    /// A file elsewhere that cannot be read; a range beyond the end.
    pub fn range(&self, range: Range<usize>) -> Result<Cow<'_, [u8]>> {
        let reason = || format!("the bytes {} to {} of {}", range.start, range.end, self.len);
        if range.end > self.len {
            return Err(Error::BadSafetensors { file: self.file.to_string(), reason: reason() });
        }
        self.bytes.range(self.start + range.start as u64..self.start + range.end as u64, &self.file)
    }

    /// All of the bytes.
    ///
    /// # Errors
    /// As [`Data::range`].
    pub fn all(&self) -> Result<Cow<'_, [u8]>> {
        self.range(0..self.len)
    }

    /// Whether both hold the same bytes.
    ///
    /// # Errors
    /// As [`Data::range`].
    pub fn same(&self, other: &Self) -> Result<bool> {
        if self.len != other.len {
            return Ok(false);
        }
        for start in (0..self.len).step_by(PIECE) {
            let piece = start..(start + PIECE).min(self.len);
            if self.range(piece.clone())? != other.range(piece)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
