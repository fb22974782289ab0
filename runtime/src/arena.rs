//! Many allocations in few large buffers.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::memory::Slice;

/// Slices are aligned at least to this, the largest binding alignment WebGPU allows a device to
/// ask for, so that layouts do not depend on the device.
const ALIGN: u64 = 256;

/// Hands out slices of large blocks; nothing is freed one by one.
///
/// What belongs into one arena is what is never written by a kernel that reads another part of it:
/// wgpu tracks whole buffers, so one dispatch cannot read one slice and write another of the same
/// block ([`Pipeline::bind`](crate::Pipeline::bind) refuses), and two dispatches that write
/// different slices of a block wait for each other. Weights fit; activations and caches get
/// [`Device::buffer`]s of their own.
#[derive(Debug)]
pub struct Arena {
    device: Device,
    label: String,
    block_bytes: u64,
    usage: wgpu::BufferUsages,
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    whole: Slice,
    used: u64,
}

impl Arena {
    /// An empty arena of blocks of `block_bytes` (at most the device's `max_buffer_bytes`) with
    /// the given usages. Takes no memory yet.
    pub fn new(device: &Device, label: &str, block_bytes: u64, usage: wgpu::BufferUsages) -> Self {
        // A last block that is larger than the limit by rounding could not be made at all.
        let most = device.caps().max_buffer_bytes / ALIGN * ALIGN;
        let block_bytes =
            block_bytes.checked_next_multiple_of(ALIGN).unwrap_or(most).clamp(ALIGN, most.max(ALIGN));
        Self { device: device.clone(), label: label.into(), block_bytes, usage, blocks: Vec::new() }
    }

    /// A slice of `bytes`, rounded up to whole words, aligned to 256 and to the device's
    /// `storage_align`. More than a block gets a buffer of its own.
    ///
    /// Its content is zero the first time its bytes are handed out, and anything after
    /// [`Arena::reset`].
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] beyond `max_buffer_bytes`; [`Error::OutOfMemory`] if the driver has no
    /// memory left. In a browser the latter shows at the next [`Device::check`] instead.
    pub fn alloc(&mut self, bytes: u64) -> Result<Slice> {
        let limit = self.device.caps().max_buffer_bytes;
        let size = match bytes.max(1).checked_next_multiple_of(4) {
            Some(size) if size <= limit => size,
            _ => return Err(Error::TooLarge { what: format!("allocation in {}", self.label), bytes, limit }),
        };
        let align = ALIGN.max(u64::from(self.device.caps().storage_align));
        for block in &mut self.blocks {
            let start = block.used.next_multiple_of(align);
            if start.checked_add(size).is_some_and(|end| end <= block.whole.size) {
                block.used = start + size;
                return block.whole.part(start, size);
            }
        }
        let label = format!("{} {}", self.label, self.blocks.len());
        let whole = self.device.buffer_now(&label, size.max(self.block_bytes), self.usage)?;
        let slice = whole.part(0, size)?;
        self.blocks.push(Block { whole, used: size });
        Ok(slice)
    }

    /// Makes all memory available again without giving it back. Slices handed out before now
    /// share their bytes with those handed out after; the caller drops the old ones.
    pub fn reset(&mut self) {
        for block in &mut self.blocks {
            block.used = 0;
        }
    }

    /// Bytes handed out, with the gaps left for alignment.
    pub fn used(&self) -> u64 {
        self.blocks.iter().map(|block| block.used).sum()
    }

    /// Bytes of all blocks.
    pub fn capacity(&self) -> u64 {
        self.blocks.iter().map(|block| block.whole.size).sum()
    }

    /// Number of buffers.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }
}
