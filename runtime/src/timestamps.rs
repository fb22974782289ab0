//! Times taken by the GPU itself.

use std::sync::PoisonError;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::faults::scoped;
use crate::readback::Download;
use crate::record::Recorder;
use crate::signal::now;

/// Bytes of one timestamp.
const TICK: u64 = 8;

/// Queries with the buffers they are resolved through. Kept by the device for reuse: Metal allows
/// only a few dozen query sets at a time.
#[derive(Debug)]
pub(crate) struct QueryBlock {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
    /// Passes it has room for, two queries each.
    capacity: u32,
}

/// Gives each pass of a recorder its two queries.
#[derive(Debug)]
pub(crate) struct Timer {
    block: QueryBlock,
    /// Passes that are timed. A block kept from before may have room for more, but what is timed
    /// should not depend on what was timed before.
    capacity: u32,
    /// Passes begun.
    passes: u32,
}

impl Timer {
    pub(crate) fn new(device: &Device, capacity: u32) -> Result<Self> {
        let most = wgpu::QUERY_SET_MAX_QUERIES / 2;
        if capacity == 0 || capacity > most {
            let report = format!("room for {capacity} passes was asked for; 1 to {most} are possible");
            return Err(Error::validation("timestamps", report));
        }
        let kept = {
            let mut blocks = device.query_blocks().lock().unwrap_or_else(PoisonError::into_inner);
            let fitting = blocks.iter().position(|block| block.capacity >= capacity);
            fitting.map(|index| blocks.swap_remove(index))
        };
        let block = match kept {
            Some(block) => block,
            None => Self::block(device, capacity)?,
        };
        Ok(Self { block, capacity, passes: 0 })
    }

    fn block(device: &Device, capacity: u32) -> Result<QueryBlock> {
        let size = u64::from(capacity) * 2 * TICK;
        let (block, error) = scoped(device.wgpu(), || QueryBlock {
            set: device.wgpu().create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: capacity * 2,
            }),
            resolved: device.wgpu().create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            }),
            staging: device.staging("timestamps", size),
            capacity,
        });
        match now(error).flatten() {
            Some(error) => Err(Error::from_wgpu("timestamps", size, device.memory_in_use(), &error)),
            None => Ok(block),
        }
    }

    /// The queries of the next pass; `None` beyond the capacity.
    pub(crate) fn next(&mut self) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let index = self.passes;
        self.passes += 1;
        (index < self.capacity).then(|| wgpu::ComputePassTimestampWrites {
            query_set: &self.block.set,
            beginning_of_pass_write_index: Some(2 * index),
            end_of_pass_write_index: Some(2 * index + 1),
        })
    }

    /// Records the way of the timestamps to the host.
    pub(crate) fn resolve(self, recorder: &mut Recorder) -> Timestamps {
        let device = recorder.device().clone();
        let Self { block, capacity, passes } = self;
        let timed = passes.min(capacity);
        let download = (timed > 0).then(|| {
            let bytes = u64::from(timed) * 2 * TICK;
            let encoder = recorder.encoder();
            encoder.resolve_query_set(&block.set, 0..2 * timed, &block.resolved, 0);
            encoder.copy_buffer_to_buffer(&block.resolved, 0, &block.staging, 0, bytes);
            Download::map(recorder, block.staging.clone(), bytes)
        });
        Timestamps { device, passes, capacity, pending: Some((block, download)) }
    }
}

/// When one pass ran, in microseconds since the first timed pass of its recorder began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span {
    /// Begin of the pass, µs.
    pub begin: f64,
    /// End of the pass, µs.
    pub end: f64,
}

/// The times of a submission's passes, still on the device.
#[derive(Debug)]
pub struct Timestamps {
    device: Device,
    passes: u32,
    capacity: u32,
    /// The queries, and the copy of their results if there was a pass at all; `None` if nothing
    /// was timed.
    pending: Option<(QueryBlock, Option<Download>)>,
}

impl Timestamps {
    pub(crate) fn absent(device: &Device) -> Self {
        Self { device: device.clone(), passes: 0, capacity: 0, pending: None }
    }

    /// Waits for the submission and gives each pass's duration in µs, in the order of the passes.
    /// `None` if the device has no timestamps or the recorder was not timed.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] if there were more passes than room for their times; otherwise as
    /// [`Device::read`].
    pub async fn read(self) -> Result<Option<Vec<f64>>> {
        let spans = self.spans().await?;
        Ok(spans.map(|spans| spans.iter().map(|span| span.end - span.begin).collect()))
    }

    /// The same as begin and end of each pass, which shows gaps and overlaps.
    ///
    /// # Errors
    ///
    /// As [`Timestamps::read`].
    pub async fn spans(self) -> Result<Option<Vec<Span>>> {
        let Some((block, download)) = self.pending else { return Ok(None) };
        let Some(download) = download else { return Ok(Some(Vec::new())) };
        if self.passes > self.capacity {
            let report = format!("{} passes were recorded, with room for {}", self.passes, self.capacity);
            return Err(Error::validation("timestamps", report));
        }
        let (bytes, _) = download.finish(&self.device).await?;
        self.device.query_blocks().lock().unwrap_or_else(PoisonError::into_inner).push(block);
        let period = f64::from(self.device.queue().get_timestamp_period());
        Ok(Some(spans(&bytes, period)))
    }
}

/// Ticks of `period` nanoseconds, as pairs of little-endian `u64`, to microseconds.
fn spans(bytes: &[u8], period: f64) -> Vec<Span> {
    let ticks: Vec<u64> = bytes.chunks_exact(8).map(bytemuck::pod_read_unaligned).collect();
    let first = ticks.first().copied().unwrap_or(0);
    // Differences first: a clock's absolute ticks may exceed the 53 bits of an f64. Clocks of some
    // drivers step back by a tick, hence saturating.
    let micros = |tick: u64| tick.saturating_sub(first) as f64 * period / 1000.0;
    ticks
        .chunks_exact(2)
        .map(|pair| Span {
            begin: micros(pair[0]),
            end: micros(pair[0]) + micros(first + pair[1].saturating_sub(pair[0])),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_microseconds_from_the_first_pass_on() {
        let base = 1_u64 << 60;
        let ticks = [base, base + 1000, base + 1500, base + 1400];
        let spans = spans(bytemuck::cast_slice(&ticks), 2.0);
        assert_eq!(spans[0], Span { begin: 0.0, end: 2.0 }, "1000 ticks of 2 ns");
        assert_eq!(spans[1], Span { begin: 3.0, end: 3.0 }, "a clock that steps back counts as no time");
    }
}
