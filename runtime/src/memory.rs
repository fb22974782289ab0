//! Slices of GPU memory, and their content.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::faults::scoped;
use crate::readback::Download;
use crate::record::Recorder;
use crate::signal::now;

/// Copies and mappings work in words of this many bytes.
pub(crate) const WORD: u64 = 4;

/// The most that one read-back stages at a time, in bytes.
const READ_BLOCK: u64 = 64 << 20;

/// A range of a buffer; clones are handles to the same bytes.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The buffer.
    pub buffer: wgpu::Buffer,
    /// First byte in the buffer; a multiple of 4, and of the device's alignment where it is bound.
    pub offset: u64,
    /// Bytes; a multiple of 4, never 0.
    pub size: u64,
    /// Keeps the buffer's bytes in the device's count; `None` for buffers from elsewhere.
    #[expect(dead_code, reason = "held for what its drop does")]
    lease: Option<Arc<Lease>>,
}

impl Slice {
    /// A range of a buffer that this crate did not make. It is not counted in
    /// [`Device::memory_in_use`].
    pub fn new(buffer: wgpu::Buffer, offset: u64, size: u64) -> Self {
        Self { buffer, offset, size, lease: None }
    }

    /// The `size` bytes from `offset` on within this slice.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] if the range is empty, not in whole words or beyond the slice.
    pub fn part(&self, offset: u64, size: u64) -> Result<Self> {
        let end = offset.checked_add(size);
        let valid = size > 0
            && offset.is_multiple_of(WORD)
            && size.is_multiple_of(WORD)
            && end.is_some_and(|end| end <= self.size);
        if !valid {
            let report =
                format!("{size} bytes at {offset} are no part in words of a slice of {} bytes", self.size);
            return Err(Error::validation("part of a slice", report));
        }
        Ok(Self { offset: self.offset + offset, size, ..self.clone() })
    }

    /// One past the last byte in the buffer.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.size)
    }
}

/// The bytes of one buffer in a device's count, for as long as a slice of it lives.
pub(crate) struct Lease {
    bytes: u64,
    total: Arc<AtomicU64>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} bytes)", self.bytes)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Device {
    /// A zeroed buffer of its own for kernels to read and write: usages `STORAGE`, `COPY_SRC` and
    /// `COPY_DST`. `bytes` is rounded up to whole words, at least one.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] beyond `max_buffer_bytes`, [`Error::OutOfMemory`] if the driver has no
    /// memory left.
    pub async fn buffer(&self, label: &str, bytes: u64) -> Result<Slice> {
        let storage = wgpu::BufferUsages::STORAGE;
        self.buffer_for(label, bytes, storage | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST)
            .await
    }

    /// A zeroed buffer for `var<uniform>`: usages `UNIFORM`, `COPY_SRC` and `COPY_DST`. `bytes` is
    /// rounded up to 16, the granule of WGSL's uniform layout.
    ///
    /// # Errors
    ///
    /// As [`Device::buffer`].
    pub async fn uniform(&self, label: &str, bytes: u64) -> Result<Slice> {
        let uniform = wgpu::BufferUsages::UNIFORM;
        let bytes = bytes.max(1).checked_next_multiple_of(16).unwrap_or(u64::MAX);
        self.buffer_for(label, bytes, uniform | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST)
            .await
    }

    /// A zeroed buffer with usages of the caller's choice.
    ///
    /// # Errors
    ///
    /// As [`Device::buffer`].
    pub async fn buffer_for(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<Slice> {
        let size = self.rounded(label, bytes)?;
        let (buffer, error) = scoped(self.wgpu(), || self.create(label, size, usage));
        self.checked(label, buffer, size, error.await)
    }

    /// The same for callers that cannot await. In a browser a failure shows at the next
    /// [`Device::check`] instead, because its answer comes later.
    pub(crate) fn buffer_now(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<Slice> {
        let size = self.rounded(label, bytes)?;
        if cfg!(target_arch = "wasm32") {
            return Ok(self.leased(self.create(label, size, usage), size));
        }
        let (buffer, error) = scoped(self.wgpu(), || self.create(label, size, usage));
        self.checked(label, buffer, size, now(error).flatten())
    }

    fn rounded(&self, label: &str, bytes: u64) -> Result<u64> {
        let limit = self.caps().max_buffer_bytes;
        match bytes.max(1).checked_next_multiple_of(WORD) {
            Some(size) if size <= limit => Ok(size),
            _ => Err(Error::TooLarge { what: format!("buffer {label}"), bytes, limit }),
        }
    }

    fn create(&self, label: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        self.wgpu().create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        })
    }

    fn checked(
        &self,
        label: &str,
        buffer: wgpu::Buffer,
        size: u64,
        error: Option<wgpu::Error>,
    ) -> Result<Slice> {
        if let Some(error) = error {
            return Err(Error::from_wgpu(&format!("buffer {label}"), size, self.memory_in_use(), &error));
        }
        self.alive()?;
        Ok(self.leased(buffer, size))
    }

    fn leased(&self, buffer: wgpu::Buffer, size: u64) -> Slice {
        let total = Arc::clone(self.in_use());
        total.fetch_add(size, Ordering::Relaxed);
        Slice { buffer, offset: 0, size, lease: Some(Arc::new(Lease { bytes: size, total })) }
    }

    /// A buffer that the host can map for reading. Counted as staging, that is, not.
    pub(crate) fn staging(&self, label: &str, size: u64) -> wgpu::Buffer {
        self.create(label, size, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)
    }

    /// Writes bytes into a slice, `offset` (a multiple of 4) bytes from its start, before
    /// everything that is submitted later. A last incomplete word is filled with zeros.
    ///
    /// A write beyond the slice is not done; like other errors of work in flight it shows at the
    /// next [`Device::check`]. For much data use [`Uploader`](crate::Uploader).
    pub fn write(&self, slice: &Slice, offset: u64, data: &[u8]) {
        if let Err(error) = self.try_write(slice, offset, data) {
            self.add_fault(error);
        }
    }

    pub(crate) fn try_write(&self, slice: &Slice, offset: u64, data: &[u8]) -> Result<()> {
        let size = data.len() as u64;
        let fits = offset.checked_add(size).is_some_and(|end| end <= slice.size);
        if !fits || !offset.is_multiple_of(WORD) {
            let report =
                format!("{size} bytes at {offset} do not fit in words into a slice of {} bytes", slice.size);
            return Err(Error::validation("write", report));
        }
        let (words, rest) = data.split_at(data.len() / 4 * 4);
        let target = slice.offset + offset;
        if !words.is_empty() {
            self.queue().write_buffer(&slice.buffer, target, words);
        }
        if !rest.is_empty() {
            let mut word = [0; 4];
            word[..rest.len()].copy_from_slice(rest);
            self.queue().write_buffer(&slice.buffer, target + words.len() as u64, &word);
        }
        Ok(())
    }

    /// Reads a slice back, after everything submitted so far. The buffer needs `COPY_SRC`.
    ///
    /// This waits for the GPU; in a loop use [`ReadBackRing`](crate::ReadBackRing).
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`], [`Error::ReadBack`], or an error of earlier work as
    /// [`Device::check`] gives it.
    pub async fn read(&self, slice: &Slice) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut staging = self.staging("read-back", slice.size.clamp(WORD, READ_BLOCK));
        let mut offset = 0;
        while offset < slice.size {
            let part = slice.part(offset, READ_BLOCK.min(slice.size - offset))?;
            let mut recorder = Recorder::new(self, "read-back");
            let download = Download::record(&mut recorder, staging, &part)?;
            recorder.submit();
            let (block, back) = download.finish(self).await?;
            staging = back;
            offset += part.size;
            if bytes.is_empty() {
                // The usual case is a single block, which need not be copied again.
                bytes = block;
            } else {
                bytes.extend_from_slice(&block);
            }
        }
        Ok(bytes)
    }
}
