//! Where a plan runs: on a GPU through the runtime, or on the CPU by the kernels' references.

mod cpu;
mod gpu;
mod kernels;

pub(crate) use cpu::Cpu;
pub(crate) use gpu::Gpu;
pub use kernels::Kernels;

use wgforge_codegen::{Variant, Workload, types::scales_behind};

use crate::{Result, pack::Matrix};

/// A range of one of the backend's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Index of the buffer.
    pub(crate) buffer: usize,
    /// Bytes from its start.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) bytes: u64,
}

impl View {
    /// Whether both have bytes in common.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.buffer == other.buffer
            && self.offset < other.offset + other.bytes
            && other.offset < self.offset + self.bytes
    }

    /// `bytes` from `offset` on within this view.
    pub(crate) fn part(self, offset: u64, bytes: u64) -> Self {
        debug_assert!(offset + bytes <= self.bytes, "part {offset}+{bytes} of {self:?}");
        Self { buffer: self.buffer, offset: self.offset + offset, bytes }
    }
}

/// A matrix in the device's memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packed {
    pub(crate) weights: View,
    pub(crate) scales: Option<View>,
    /// Weights and, at [`scales_behind`] them, scales.
    pub(crate) both: Option<View>,
}

impl Packed {
    fn together(both: View, bytes: u64, scale_bytes: u64) -> Self {
        let scales = both.part(scales_behind(bytes), scale_bytes);
        Self { weights: both.part(0, bytes), scales: Some(scales), both: Some(both) }
    }
}

/// One dispatch of a plan.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Where in the model it stands: `3.down`, `head`, …
    pub(crate) label: String,
    /// The kernel and how it is computed.
    pub(crate) variant: Variant,
    /// Its buffers, in the order of [`Variant::bindings`].
    pub(crate) views: Vec<View>,
}

/// Steps made ready to run.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) steps: Vec<Step>,
    ready: gpu::Ready,
}

/// What one submission does, in order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work<'a> {
    /// Runs a program for a number of tokens.
    Run(&'a Program, u32),
    /// Copies a view onto another of the same size.
    Copy(View, View),
}

/// The result of [`Backend::execute`] that will hold a view's content when the work is done.
#[derive(Debug)]
pub(crate) enum Fetch {
    /// Already here.
    Now(Vec<u8>),
    /// Under way.
    Later(wgforge_runtime::Ticket),
}

/// A place to run plans.
#[derive(Debug)]
pub(crate) enum Backend {
    /// A device.
    Gpu(Box<Gpu>),
    /// The references.
    Cpu(Cpu),
}

impl Backend {
    /// The configuration this backend computes `workload` with.
    pub(crate) fn choose(&self, workload: Workload) -> Result<Variant> {
        match self {
            Self::Gpu(g) => g.kernels.choose(workload),
            Self::Cpu(_) => Ok(cpu::choose(&workload)),
        }
    }

    /// Largest binding, bytes.
    pub(crate) fn max_binding(&self) -> u64 {
        match self {
            Self::Gpu(g) => g.max_binding,
            Self::Cpu(_) => u64::MAX,
        }
    }

    /// Whether a plan has `joined` in place of several dispatches that end in `apart`.
    pub(crate) fn joins(&self, joined: &Workload, apart: &Workload) -> bool {
        match self {
            Self::Gpu(g) => g.kernels.joins(joined, apart),
            Self::Cpu(_) => false,
        }
    }

    /// A zeroed buffer of its own.
    pub(crate) async fn buffer(&mut self, label: &str, bytes: u64) -> Result<View> {
        let bytes = bytes.max(16).next_multiple_of(16);
        match self {
            Self::Gpu(g) => g.buffer(label, bytes).await,
            Self::Cpu(c) => Ok(c.buffer(bytes)),
        }
    }

    /// Gives a view's whole buffer back; nothing may use it any more.
    pub(crate) fn free(&mut self, view: View) {
        match self {
            Self::Gpu(g) => g.free(view),
            Self::Cpu(c) => c.free(view),
        }
    }

    /// Puts constant data into one of the few large buffers.
    pub(crate) async fn constant(&mut self, words: &[u32]) -> Result<View> {
        match self {
            Self::Gpu(g) => g.constant(words).await,
            Self::Cpu(c) => Ok(c.constant(words.to_vec())),
        }
    }

    /// Packs stored rows `rows` of a matrix into the device's memory: weights, then scales, together where
    /// one binding can have both.
    pub(crate) async fn matrix(
        &mut self,
        matrix: &Matrix,
        rows: std::ops::Range<u32>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Packed> {
        match self {
            Self::Gpu(g) => g.matrix(matrix, rows, progress).await,
            Self::Cpu(c) => {
                let (mut weights, mut scales) = (Vec::new(), Vec::new());
                matrix.pack_all_cores(rows, &mut weights, &mut scales)?;
                progress((weights.len() + scales.len()) as u64 * 4);
                let [bytes, scale_bytes] = [&weights, &scales].map(|words| words.len() as u64 * 4);
                if scales.is_empty() {
                    return Ok(Packed { weights: c.constant(weights), scales: None, both: None });
                }
                weights.resize((scales_behind(bytes) / 4).try_into().unwrap_or(usize::MAX), 0);
                weights.append(&mut scales);
                Ok(Packed::together(c.constant(weights), bytes, scale_bytes))
            }
        }
    }

    /// Waits until all uploads have arrived.
    pub(crate) async fn finish_uploads(&mut self) -> Result<()> {
        match self {
            Self::Gpu(g) => g.finish_uploads().await,
            Self::Cpu(_) => Ok(()),
        }
    }

    /// Gives view `old`'s whole buffer a new size, keeping its content; programs that use it
    /// must be prepared again.
    pub(crate) async fn grow(&mut self, old: View, label: &str, bytes: u64) -> Result<View> {
        let bytes = bytes.next_multiple_of(16);
        match self {
            Self::Gpu(g) => g.grow(old, label, bytes).await,
            Self::Cpu(c) => Ok(c.grow(old, bytes)),
        }
    }

    /// Compiles and binds a plan's steps.
    pub(crate) async fn prepare(&mut self, steps: Vec<Step>) -> Result<Program> {
        let ready = match self {
            Self::Gpu(g) => g.prepare(&steps).await?,
            Self::Cpu(_) => gpu::Ready::default(),
        };
        Ok(Program { steps, ready })
    }

    /// Writes bytes (a multiple of 4) at the start of a view.
    pub(crate) fn write(&mut self, view: View, data: &[u8]) {
        match self {
            Self::Gpu(g) => g.device.write(&g.slice(view), 0, data),
            Self::Cpu(c) => c.write(view, data),
        }
    }

    /// Runs `work` in one submission and returns without waiting; `fetch` is copied out behind it.
    pub(crate) fn execute(&mut self, work: &[Work<'_>], fetch: Option<View>) -> Result<Option<Fetch>> {
        match self {
            Self::Gpu(g) => g.execute(work, fetch),
            Self::Cpu(c) => {
                for w in work {
                    match *w {
                        Work::Run(program, tokens) => c.run(&program.steps, tokens),
                        Work::Copy(from, to) => c.copy(from, to),
                    }
                }
                Ok(fetch.map(|v| Fetch::Now(c.read(v))))
            }
        }
    }

    /// The content a fetch was made for.
    pub(crate) async fn take(&mut self, fetch: Fetch) -> Result<Vec<u8>> {
        match (fetch, self) {
            (Fetch::Now(data), _) => Ok(data),
            (Fetch::Later(ticket), Self::Gpu(g)) => g.take(ticket).await,
            (Fetch::Later(_), Self::Cpu(_)) => unreachable!("the CPU never fetches later"),
        }
    }

    /// Reads a view once everything submitted is done.
    pub(crate) async fn read(&mut self, view: View) -> Result<Vec<u8>> {
        match self {
            Self::Gpu(g) => {
                let data = g.device.read(&g.slice(view)).await?;
                g.device.check()?;
                Ok(data)
            }
            Self::Cpu(c) => Ok(c.read(view)),
        }
    }

    /// Bytes of device memory in use.
    pub(crate) fn memory_in_use(&self) -> u64 {
        match self {
            Self::Gpu(g) => g.device.memory_in_use(),
            Self::Cpu(c) => c.memory_in_use(),
        }
    }
}
