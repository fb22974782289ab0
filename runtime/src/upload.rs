//! Gigabytes of weights to the device without gigabytes of staging memory.

use crate::device::Device;
use crate::error::Result;
use crate::memory::Slice;
use crate::record::Submission;

/// Bytes written between two submissions. wgpu and the drivers keep a copy of all written data
/// until the submission after it is done, so this bounds the host's memory: two windows, one being
/// filled while the other is copied.
const WINDOW: u64 = 64 << 20;

/// Bytes in one write; wgpu makes one staging buffer for each.
const PIECE: usize = 16 << 20;

/// Writes much data with bounded staging memory (about 128 MiB).
#[derive(Debug)]
pub struct Uploader {
    device: Device,
    /// Bytes written since the last submission.
    pending: u64,
    /// Bytes written in all.
    total: u64,
    in_flight: Option<Submission>,
}

impl Uploader {
    /// An uploader for slices of this device.
    pub fn new(device: &Device) -> Self {
        Self { device: device.clone(), pending: 0, total: 0, in_flight: None }
    }

    /// Writes `data` at `offset` bytes (a multiple of 4) from the slice's start. A last incomplete
    /// word is filled with zeros. From time to time this waits for earlier data to arrive.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`](crate::Error::Validation) if the data does not fit,
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) or
    /// [`Error::DeviceLost`](crate::Error::DeviceLost) if the device fails.
    pub async fn write(&mut self, slice: &Slice, offset: u64, data: &[u8]) -> Result<()> {
        let mut offset = offset;
        for piece in data.chunks(PIECE) {
            self.device.try_write(slice, offset, piece)?;
            let bytes = piece.len() as u64;
            offset += bytes;
            self.total += bytes;
            self.pending += bytes;
            if self.pending >= WINDOW {
                self.turn().await?;
            }
        }
        Ok(())
    }

    /// Submits what was written and waits until all of it has arrived.
    ///
    /// # Errors
    ///
    /// As [`Uploader::write`].
    pub async fn flush(&mut self) -> Result<()> {
        self.turn().await?;
        match self.in_flight.take() {
            Some(submission) => submission.wait().await,
            None => Ok(()),
        }
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.total
    }

    /// Submits this window and waits for the one before it.
    async fn turn(&mut self) -> Result<()> {
        if self.pending == 0 {
            return Ok(());
        }
        self.pending = 0;
        let index = self.device.queue().submit([]);
        let before = self.in_flight.replace(Submission::new(&self.device, index));
        match before {
            Some(submission) => submission.wait().await,
            None => self.device.check(),
        }
    }
}
