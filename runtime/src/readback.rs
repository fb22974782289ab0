//! Results on their way back to the host.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::faults::scoped;
use crate::memory::Slice;
use crate::record::{Recorder, Submitted};
use crate::signal::{Closed, Receiver, signal};

/// One copy to the host: recorded, then submitted with its recorder, then awaited.
#[derive(Debug)]
pub(crate) struct Download {
    staging: wgpu::Buffer,
    bytes: u64,
    mapped: Receiver<Result<(), wgpu::BufferAsyncError>>,
    submitted: Submitted,
}

impl Download {
    /// Records the copy of `slice` into `staging` (a mappable buffer, large enough) and the
    /// mapping that follows it.
    pub(crate) fn record(recorder: &mut Recorder, staging: wgpu::Buffer, slice: &Slice) -> Result<Self> {
        if !slice.buffer.usage().contains(wgpu::BufferUsages::COPY_SRC) {
            return Err(Error::ReadBack("the buffer was made without COPY_SRC".into()));
        }
        recorder.copy(slice, &Slice::new(staging.clone(), 0, staging.size()), slice.size)?;
        Ok(Self::map(recorder, staging, slice.size))
    }

    /// Records the mapping alone, for a copy that is recorded already.
    pub(crate) fn map(recorder: &mut Recorder, staging: wgpu::Buffer, bytes: u64) -> Self {
        let (sender, mapped) = signal();
        let submitted = Arc::clone(recorder.submitted());
        // With the submission, not after it: the device may then be busy with the next one when
        // the bytes are asked for.
        let encoder = recorder.encoder();
        encoder
            .map_buffer_on_submit(&staging, wgpu::MapMode::Read, 0..bytes, move |result| sender.send(result));
        Self { staging, bytes, mapped, submitted }
    }

    /// Waits for the bytes and gives them together with the staging buffer, free for reuse.
    pub(crate) async fn finish(self, device: &Device) -> Result<(Vec<u8>, wgpu::Buffer)> {
        let Self { staging, bytes, mapped, submitted } = self;
        let Some(index) = submitted.get() else {
            return Err(Error::ReadBack("the recorder of this copy has not been submitted".into()));
        };
        let result = if cfg!(target_arch = "wasm32") {
            mapped.await
        } else {
            loop {
                let done = device.poll_until(index);
                if let Some(result) = mapped.try_take() {
                    break result;
                }
                if !done || device.is_lost() {
                    break Err(Closed);
                }
                // The wait is over, so another thread that polls holds our callback.
                std::thread::yield_now();
            }
        };
        if cfg!(target_arch = "wasm32") && !matches!(result, Ok(Ok(()))) {
            // A browser refuses the mapping first and tells why afterwards.
            let (sender, done) = signal();
            device.queue().on_submitted_work_done(move || sender.send(()));
            let _ = done.await;
        }
        // A failed submission maps just as well, only without the data: look at errors first.
        device.take_fault()?;
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Error::ReadBack(error.to_string())),
            Err(_) => return Err(Error::ReadBack("the device dropped the request".into())),
        }
        let view = staging.get_mapped_range(0..bytes).map_err(|error| Error::ReadBack(error.to_string()))?;
        let data = view.to_vec();
        drop(view);
        staging.unmap();
        Ok((data, staging))
    }
}

/// A few staging buffers in turn, so that several submissions can be in flight, each with its
/// result on the way.
#[derive(Debug)]
pub struct ReadBackRing {
    device: Device,
    slots: usize,
    bytes: u64,
    /// Staging buffers that are neither mapped nor in flight.
    free: Mutex<Vec<wgpu::Buffer>>,
    /// Tickets that exist.
    taken: Arc<AtomicUsize>,
}

/// The right to one result of a ring. A ticket dropped untaken gives its place back.
#[derive(Debug)]
pub struct Ticket {
    download: Download,
    /// Counts the ticket out when it goes.
    _place: Place,
}

#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl ReadBackRing {
    /// A ring for `slots` results in flight, each of at most `bytes` (rounded up to whole words).
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] beyond `max_buffer_bytes`, [`Error::OutOfMemory`] if the driver has no
    /// memory left.
    pub async fn new(device: &Device, slots: usize, bytes: u64) -> Result<Self> {
        let limit = device.caps().max_buffer_bytes;
        let size = match bytes.max(1).checked_next_multiple_of(4) {
            Some(size) if size <= limit => size,
            _ => return Err(Error::TooLarge { what: "read-back ring".into(), bytes, limit }),
        };
        let slots = slots.max(1);
        let (free, error) = scoped(device.wgpu(), || {
            (0..slots).map(|_| device.staging("read-back ring", size)).collect::<Vec<_>>()
        });
        if let Some(error) = error.await {
            let total = size.saturating_mul(slots as u64);
            return Err(Error::from_wgpu("read-back ring", total, device.memory_in_use(), &error));
        }
        Ok(Self { device: device.clone(), slots, bytes: size, free: Mutex::new(free), taken: Arc::default() })
    }

    /// Records the copy of a slice to the host, after what the recorder has so far and before what
    /// it gets later. The recorder is to be submitted before the ticket is taken.
    ///
    /// # Errors
    ///
    /// [`Error::ReadBack`] if all places are taken: take a ticket first. [`Error::TooLarge`] for a
    /// slice larger than the ring was made for.
    pub fn copy(&self, recorder: &mut Recorder, slice: &Slice) -> Result<Ticket> {
        if slice.size > self.bytes {
            let what = "slice for the read-back ring".into();
            return Err(Error::TooLarge { what, bytes: slice.size, limit: self.bytes });
        }
        let place = Place(Arc::clone(&self.taken));
        if self.taken.fetch_add(1, Ordering::AcqRel) >= self.slots {
            let report =
                format!("all {} places of the ring are in flight; take the oldest ticket first", self.slots);
            return Err(Error::ReadBack(report));
        }
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // A ticket dropped in flight took its buffer with it: the device may still write there.
        let staging = free.unwrap_or_else(|| self.device.staging("read-back ring", self.bytes));
        let download = Download::record(recorder, staging, slice)?;
        Ok(Ticket { download, _place: place })
    }

    /// The bytes of one copy, when its submission is done. Tickets are best taken in the order
    /// they were given, but any order is right.
    ///
    /// # Errors
    ///
    /// [`Error::ReadBack`] if the recorder was dropped or not yet submitted,
    /// [`Error::DeviceLost`], or an error of earlier work as [`Device::check`] gives it.
    pub async fn take(&self, ticket: Ticket) -> Result<Vec<u8>> {
        let Ticket { download, _place } = ticket;
        let (bytes, staging) = download.finish(&self.device).await?;
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(staging);
        Ok(bytes)
    }

    /// Places not taken.
    pub fn free(&self) -> usize {
        self.slots.saturating_sub(self.taken.load(Ordering::Acquire))
    }
}
