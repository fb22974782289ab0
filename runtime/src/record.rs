//! Recording commands and submitting them.

use std::sync::{Arc, OnceLock};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernel::{Bound, Kernel, TypedPipeline};
use crate::memory::{Slice, WORD};
use crate::pipeline::{BindGroup, Pipeline};
use crate::signal::signal;
use crate::timestamps::{Timer, Timestamps};

/// Where a recorder leaves the number of its submission for those who wait for it.
pub(crate) type Submitted = Arc<OnceLock<wgpu::SubmissionIndex>>;

/// One list of commands. May be recorded on another thread than it is submitted on.
#[derive(Debug)]
pub struct Recorder {
    device: Device,
    label: String,
    encoder: wgpu::CommandEncoder,
    submitted: Submitted,
    dispatches: u32,
    timer: Option<Timer>,
}

impl Recorder {
    /// An empty list.
    pub fn new(device: &Device, label: &str) -> Self {
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some(label) };
        Self {
            device: device.clone(),
            label: label.into(),
            encoder: device.wgpu().create_command_encoder(&descriptor),
            submitted: Submitted::default(),
            dispatches: 0,
            timer: None,
        }
    }

    /// An empty list whose first `capacity` passes are timed. For the time of a single dispatch
    /// give it a pass of its own. Without the capability nothing is timed and
    /// [`Timestamps::read`] gives `None`.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] for a capacity beyond 2048 or a driver that has no queries left.
    pub fn with_timestamps(device: &Device, capacity: u32) -> Result<Self> {
        let mut recorder = Self::new(device, "timed");
        if device.caps().timestamps {
            recorder.timer = Some(Timer::new(device, capacity)?);
        }
        Ok(recorder)
    }

    /// Opens a compute pass; it ends when it is dropped. Dispatches of a pass that depend on each
    /// other by their buffers run in order, others may overlap. A pass costs several microseconds,
    /// a dispatch a fraction of one: put many into one pass.
    pub fn pass(&mut self, label: &str) -> Pass<'_> {
        let timestamp_writes = self.timer.as_mut().and_then(Timer::next);
        let descriptor = wgpu::ComputePassDescriptor { label: Some(label), timestamp_writes };
        Pass {
            max_groups: self.device.caps().max_groups,
            pass: self.encoder.begin_compute_pass(&descriptor),
            dispatches: &mut self.dispatches,
        }
    }

    /// One kernel in a pass of its own.
    ///
    /// # Errors
    ///
    /// As [`Pass::dispatch`].
    pub fn dispatch_bound<K: Kernel>(
        &mut self,
        pipeline: &TypedPipeline<K>,
        bound: &Bound<K>,
        groups: [u32; 3],
    ) -> Result<()> {
        self.pass(K::INFO.name).dispatch_bound(pipeline, bound, groups)
    }

    /// Copies the first `bytes` of one slice to the start of another, outside of passes.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] if `bytes` is not in whole words or beyond one of the slices, or if
    /// both lie in the same buffer, which WebGPU does not allow.
    pub fn copy(&mut self, source: &Slice, target: &Slice, bytes: u64) -> Result<()> {
        let refuse = |report: String| Err(Error::validation(format!("copy in {}", self.label), report));
        if !bytes.is_multiple_of(WORD) || bytes > source.size || bytes > target.size {
            let (from, to) = (source.size, target.size);
            return refuse(format!(
                "{bytes} bytes do not fit in words from a slice of {from} to one of {to} bytes"
            ));
        }
        if source.buffer == target.buffer {
            return refuse("source and target lie in one buffer".into());
        }
        if bytes > 0 {
            let (from, to) = (source.offset, target.offset);
            self.encoder.copy_buffer_to_buffer(&source.buffer, from, &target.buffer, to, bytes);
        }
        Ok(())
    }

    /// Fills a slice with zeros, outside of passes. The buffer needs `COPY_DST`.
    pub fn clear(&mut self, slice: &Slice) {
        self.encoder.clear_buffer(&slice.buffer, slice.offset, Some(slice.size));
    }

    /// Dispatches recorded so far, without those of no workgroups.
    pub fn dispatches(&self) -> u32 {
        self.dispatches
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The wgpu encoder, for what this type does not do.
    pub fn encoder(&mut self) -> &mut wgpu::CommandEncoder {
        &mut self.encoder
    }

    pub(crate) fn submitted(&self) -> &Submitted {
        &self.submitted
    }

    /// Sends the commands to the device and does not wait. Errors in them show at
    /// [`Submission::wait`], at read-back or at [`Device::check`].
    pub fn submit(mut self) -> Submission {
        let timestamps = match self.timer.take() {
            Some(timer) => timer.resolve(&mut self),
            None => Timestamps::absent(&self.device),
        };
        let index = self.device.queue().submit([self.encoder.finish()]);
        // The cell is filled here only, and `self` is gone afterwards.
        let _ = self.submitted.set(index.clone());
        Submission { device: self.device, index, timestamps }
    }
}

/// An open compute pass.
#[derive(Debug)]
pub struct Pass<'a> {
    pass: wgpu::ComputePass<'a>,
    dispatches: &'a mut u32,
    max_groups: u32,
}

impl Pass<'_> {
    /// Runs a kernel with `groups` workgroups in x, y, z; none at all if one of them is 0.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyGroups`] beyond the device's `max_groups` in a dimension.
    pub fn dispatch(&mut self, pipeline: &Pipeline, group: &BindGroup, groups: [u32; 3]) -> Result<()> {
        let limit = self.max_groups;
        if groups.iter().any(|&count| count > limit) {
            return Err(Error::TooManyGroups { kernel: pipeline.label().into(), groups, limit });
        }
        if groups.contains(&0) {
            return Ok(());
        }
        self.pass.set_pipeline(pipeline.wgpu());
        self.pass.set_bind_group(0, group.wgpu(), &[]);
        self.pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
        *self.dispatches += 1;
        Ok(())
    }

    /// The same for a kernel type.
    ///
    /// # Errors
    ///
    /// As [`Pass::dispatch`].
    pub fn dispatch_bound<K: Kernel>(
        &mut self,
        pipeline: &TypedPipeline<K>,
        bound: &Bound<K>,
        groups: [u32; 3],
    ) -> Result<()> {
        self.dispatch(pipeline.pipeline(), bound.group(), groups)
    }
}

/// Commands on their way through the device.
#[derive(Debug)]
pub struct Submission {
    device: Device,
    index: wgpu::SubmissionIndex,
    timestamps: Timestamps,
}

impl Submission {
    pub(crate) fn new(device: &Device, index: wgpu::SubmissionIndex) -> Self {
        Self { device: device.clone(), index, timestamps: Timestamps::absent(device) }
    }

    /// The times of the passes, to be read when needed.
    pub fn timestamps(self) -> Timestamps {
        self.timestamps
    }

    /// Waits until the device is done with these commands; natively this blocks the thread and
    /// does not wait for later submissions.
    ///
    /// # Errors
    ///
    /// What went wrong since the last check, as [`Device::check`] gives it.
    pub async fn wait(&self) -> Result<()> {
        if cfg!(target_arch = "wasm32") {
            let (sender, receiver) = signal();
            self.device.queue().on_submitted_work_done(move || sender.send(()));
            // A closed signal means that the device is gone, which the check below tells better.
            let _ = receiver.await;
        } else {
            self.device.poll_until(&self.index);
        }
        self.device.take_fault()
    }
}
