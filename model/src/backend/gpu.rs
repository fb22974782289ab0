//! Plans on a device: weights in an arena of few large buffers, activations in buffers of their
//! own, pipelines by shader text, bind groups made once, one pass for all steps of a submission.

use wgforge_codegen::types::scales_behind;
use wgforge_runtime::{
    Arena, BindGroup, Device, KernelSource, Pipeline, ReadBackRing, Recorder, Slice, Ticket, Timestamps,
    Uploader, wgpu,
};

use super::{Fetch, Kernels, Packed, Program, Step, View, Work};
use crate::{Result, pack::Matrix};

/// Bytes packed and uploaded at a time.
const PIECE: u64 = 32 << 20;
/// Results that may be on their way back at once.
const IN_FLIGHT: usize = 16;
/// Bytes of one such result.
const FETCH_BYTES: u64 = 1024;

/// A device with the buffers of one model.
#[derive(Debug)]
pub(crate) struct Gpu {
    pub(crate) device: Device,
    pub(crate) kernels: Kernels,
    /// Bytes a binding may have.
    pub(crate) max_binding: u64,
    buffers: Vec<Slice>,
    /// Places in `buffers` whose buffer is gone.
    spare: Vec<usize>,
    arena: Arena,
    uploader: Uploader,
    ring: ReadBackRing,
    dispatches: u32,
    /// GPU times of the submissions since they were asked for.
    times: Option<Vec<Timestamps>>,
}

/// What a program's steps dispatch, in their order.
#[derive(Debug, Default)]
pub(crate) struct Ready(Vec<Dispatch>);

#[derive(Debug)]
struct Dispatch {
    pipeline: Pipeline,
    group: BindGroup,
    /// Workgroups for one token: counted once, as decoding needs them for every token.
    one: [u32; 3],
}

impl Dispatch {
    fn groups(&self, step: &Step, tokens: u32) -> [u32; 3] {
        if tokens == 1 { self.one } else { step.variant.groups(tokens) }
    }
}

impl Gpu {
    /// `weight_bytes` sizes the arena's blocks: a small model must not take a large one.
    pub(crate) async fn new(
        device: Device,
        mut kernels: Kernels,
        weight_bytes: u64,
        binding_limit: Option<u64>,
    ) -> Result<Self> {
        kernels.prefer(device.report());
        let block = weight_bytes.clamp(1 << 20, 256 << 20);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let arena = Arena::new(&device, "weights", block, usage);
        let ring = ReadBackRing::new(&device, IN_FLIGHT, FETCH_BYTES).await?;
        let uploader = Uploader::new(&device);
        let caps = device.caps();
        let max_binding =
            caps.max_binding_bytes.min(caps.max_buffer_bytes).min(binding_limit.unwrap_or(u64::MAX));
        let (buffers, spare) = (Vec::new(), Vec::new());
        Ok(Self {
            device,
            kernels,
            max_binding,
            buffers,
            spare,
            arena,
            uploader,
            ring,
            dispatches: 0,
            times: None,
        })
    }

    /// Dispatches recorded since the last call.
    pub(crate) fn take_dispatches(&mut self) -> u32 {
        std::mem::take(&mut self.dispatches)
    }

    /// Times the submissions from now on. There are only so many queries: for some dozens of them.
    pub(crate) fn time_submissions(&mut self) {
        self.times = Some(Vec::new());
    }

    /// Ends that, and gives the µs that each submission's passes took; `None` without timestamps.
    pub(crate) async fn submission_times(&mut self) -> Result<Option<Vec<f64>>> {
        let mut all = Vec::new();
        for times in self.times.take().unwrap_or_default() {
            let Some(passes) = times.read().await? else { return Ok(None) };
            all.push(passes.iter().sum());
        }
        Ok(Some(all))
    }

    pub(crate) fn slice(&self, view: View) -> Slice {
        let whole = &self.buffers[view.buffer];
        whole
            .part(view.offset, view.bytes)
            .unwrap_or_else(|e| unreachable!("views lie in their buffers: {e}"))
    }

    fn add(&mut self, slice: Slice) -> View {
        let bytes = slice.size;
        let buffer = match self.spare.pop() {
            Some(place) => {
                self.buffers[place] = slice;
                place
            }
            None => {
                self.buffers.push(slice);
                self.buffers.len() - 1
            }
        };
        View { buffer, offset: 0, bytes }
    }

    /// Gives a view's whole buffer back once no bind group holds it.
    pub(super) fn free(&mut self, view: View) {
        // Something must stand there until the place is used again; the first buffer always lives.
        self.buffers[view.buffer] = self.buffers[0].clone();
        self.spare.push(view.buffer);
    }

    pub(super) async fn buffer(&mut self, label: &str, bytes: u64) -> Result<View> {
        let slice = self.zeros(label, bytes).await?;
        Ok(self.add(slice))
    }

    /// A new buffer, cleared here and now. wgpu would clear it when it is first used; but of a bind group that
    /// was made before, it asks in every dispatch what is left to clear: 7 % of the host's part of a token.
    async fn zeros(&self, label: &str, bytes: u64) -> Result<Slice> {
        let slice = self.device.buffer(label, bytes).await?;
        let mut recorder = Recorder::new(&self.device, label);
        recorder.clear(&slice);
        recorder.submit();
        Ok(slice)
    }

    pub(super) async fn constant(&mut self, words: &[u32]) -> Result<View> {
        // Quads are read whole, so a constant ends at a whole quad.
        let slice = self.arena.alloc((words.len() as u64 * 4).next_multiple_of(16))?;
        self.uploader.write(&slice, 0, bytemuck::cast_slice(words)).await?;
        Ok(self.add(slice))
    }

    pub(super) async fn matrix(
        &mut self,
        matrix: &Matrix,
        rows: std::ops::Range<u32>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Packed> {
        let count = u64::from(rows.end - rows.start);
        let bytes = count * matrix.row_bytes();
        let scale_bytes = matrix.scale.row_bytes(matrix.columns);
        let all_scales = (count * scale_bytes).next_multiple_of(16);
        let behind = scales_behind(bytes);
        let (weights, scales, both) = if scale_bytes == 0 {
            (self.arena.alloc(bytes)?, None, None)
        } else if behind + all_scales <= self.max_binding {
            let both = self.arena.alloc(behind + all_scales)?;
            (both.part(0, bytes)?, Some(both.part(behind, all_scales)?), Some(both))
        } else {
            (self.arena.alloc(bytes)?, Some(self.arena.alloc(all_scales)?), None)
        };
        // Whole fours of rows.
        let step = u32::try_from((PIECE / matrix.row_bytes() / 4 * 4).max(4)).unwrap_or(u32::MAX);
        let (mut w, mut s) = (Vec::new(), Vec::new());
        let mut row = rows.start;
        while row < rows.end {
            let end = row.saturating_add(step).min(rows.end);
            w.clear();
            s.clear();
            matrix.pack_all_cores(row..end, &mut w, &mut s)?;
            let done = u64::from(row - rows.start);
            self.uploader.write(&weights, done * matrix.row_bytes(), bytemuck::cast_slice(&w)).await?;
            if let Some(scales) = &scales {
                self.uploader.write(scales, done * scale_bytes, bytemuck::cast_slice(&s)).await?;
            }
            progress((w.len() + s.len()) as u64 * 4);
            row = end;
        }
        if let Some(both) = both {
            return Ok(Packed::together(self.add(both), bytes, all_scales));
        }
        let weights = self.add(weights);
        Ok(Packed { weights, scales: scales.map(|s| self.add(s)), both: None })
    }

    pub(super) async fn finish_uploads(&mut self) -> Result<()> {
        self.uploader.flush().await?;
        Ok(self.device.check()?)
    }

    pub(super) async fn grow(&mut self, old: View, label: &str, bytes: u64) -> Result<View> {
        let new = self.zeros(label, bytes).await?;
        let mut recorder = Recorder::new(&self.device, "grow");
        recorder.copy(&self.slice(old), &new, old.bytes)?;
        recorder.submit();
        self.buffers[old.buffer] = new;
        Ok(View { bytes, ..old })
    }

    pub(super) async fn prepare(&mut self, steps: &[Step]) -> Result<Ready> {
        let mut ready = Vec::with_capacity(steps.len());
        for step in steps {
            let (wgsl, bindings) = self.kernels.shader(&step.variant)?;
            let source = KernelSource { label: step.variant.kernel(), wgsl: &wgsl, bindings: &bindings };
            let pipeline = self.device.pipeline(&source).await?;
            let slices: Vec<Slice> = step.views.iter().map(|v| self.slice(*v)).collect();
            let group = pipeline.bind(&self.device, &slices)?;
            ready.push(Dispatch { pipeline, group, one: step.variant.groups(1) });
        }
        Ok(Ready(ready))
    }

    pub(super) fn execute(&mut self, work: &[Work<'_>], fetch: Option<View>) -> Result<Option<Fetch>> {
        let mut recorder = match self.times {
            Some(_) => {
                Recorder::with_timestamps(&self.device, u32::try_from(work.len()).unwrap_or(u32::MAX))?
            }
            None => Recorder::new(&self.device, "model"),
        };
        let mut rest = work;
        while let Some(first) = rest.first() {
            if let Work::Copy(from, to) = *first {
                recorder.copy(&self.slice(from), &self.slice(to), from.bytes)?;
                rest = &rest[1..];
                continue;
            }
            // Consecutive programs share a pass: a pass costs more than a dispatch.
            let mut pass = recorder.pass("model");
            while let Some(Work::Run(program, tokens)) = rest.first() {
                for (step, ready) in program.steps.iter().zip(&program.ready.0) {
                    pass.dispatch(&ready.pipeline, &ready.group, ready.groups(step, *tokens))?;
                }
                rest = &rest[1..];
            }
        }
        self.dispatches += recorder.dispatches();
        let ticket = match fetch {
            Some(view) => Some(self.ring.copy(&mut recorder, &self.slice(view))?),
            None => None,
        };
        let submission = recorder.submit();
        if let Some(times) = &mut self.times {
            times.push(submission.timestamps());
        }
        Ok(ticket.map(Fetch::Later))
    }

    pub(super) async fn take(&mut self, ticket: Ticket) -> Result<Vec<u8>> {
        Ok(self.ring.take(ticket).await?)
    }

    /// GPU time of each step of a program, µs, each in a pass of its own; `None` without
    /// timestamps. The steps see each other's results as in a normal run.
    pub(crate) async fn profile(&mut self, program: &Program, tokens: u32) -> Result<Option<Vec<f64>>> {
        let capacity = u32::try_from(program.steps.len()).unwrap_or(u32::MAX);
        if !self.device.caps().timestamps {
            return Ok(None);
        }
        let mut recorder = Recorder::with_timestamps(&self.device, capacity)?;
        for (step, ready) in program.steps.iter().zip(&program.ready.0) {
            let groups = ready.groups(step, tokens);
            recorder.pass(&step.label).dispatch(&ready.pipeline, &ready.group, groups)?;
        }
        Ok(recorder.submit().timestamps().read().await?)
    }
}
