//! The device: one open connection to an adapter, shared by everything made from it.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use wgforge_caps::Caps;

use crate::adapter::{self, AdapterReport, Backend};
use crate::error::{Error, Result};
use crate::faults::{Faults, scoped};
use crate::pipeline::{Pipeline, PipelineKey};
use crate::timestamps::QueryBlock;

/// Which device to open, and how.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// Only this backend; `None` takes the best adapter of all but `noop`.
    pub backend: Option<Backend>,
    /// Part of the adapter's name, in any case.
    pub name: Option<String>,
    /// Run shaders natively without the bounds, loop and division checks that wgpu would add. The
    /// caller vouches for every kernel it makes a pipeline of: no index out of bounds, no endless
    /// loop, no division by zero. The web always checks.
    pub trusted: bool,
    /// What to pretend is missing.
    pub disable: CapsMask,
    /// Also ask for cooperative matrices, see [`Device::cooperative_matrices`]. They are an
    /// experiment of wgpu: a device opened with them is for trying them, not for work.
    pub cooperative_matrices: bool,
    /// What the caller knows of the adapter and wgpu does not say, as in browsers.
    pub identity: Option<Identity>,
}

/// An adapter by what databases know adapters by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Its vendor's PCI number, or 0.
    pub vendor: u32,
    /// It computes in software.
    pub software: bool,
}

impl Default for DeviceOptions {
    /// The best adapter, trusted, with all it has.
    fn default() -> Self {
        let disable = CapsMask::default();
        Self {
            backend: None,
            name: None,
            trusted: true,
            disable,
            cooperative_matrices: false,
            identity: None,
        }
    }
}

/// Capabilities to leave unused although the adapter has them, so that every path can be run on
/// one machine; `true` hides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapsMask {
    /// Hide subgroup operations.
    pub subgroups: bool,
    /// Hide `f16` in shaders.
    pub f16: bool,
    /// Hide timestamp queries.
    pub timestamps: bool,
    /// Allow no limit beyond what every WebGPU implementation grants.
    pub limits: bool,
}

impl CapsMask {
    /// Hides everything: the device is then [`Caps::webgpu_baseline`].
    pub fn baseline() -> Self {
        Self { subgroups: true, f16: true, timestamps: true, limits: true }
    }
}

/// An open device with its queue. Clones are handles to the same device.
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
}

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    limits: wgpu::Limits,
    report: AdapterReport,
    trusted: bool,
    faults: Arc<Faults>,
    in_use: Arc<AtomicU64>,
    pipelines: Mutex<HashMap<PipelineKey, Pipeline>>,
    query_blocks: Mutex<Vec<QueryBlock>>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("adapter", &self.inner.report.to_string())
            .field("trusted", &self.inner.trusted)
            .field("memory_in_use", &self.memory_in_use())
            .finish_non_exhaustive()
    }
}

impl Device {
    /// Opens the adapter that best fits the options, with all its limits.
    ///
    /// Discrete GPUs are preferred to integrated ones, those to others, and software comes last.
    ///
    /// # Errors
    ///
    /// [`Error::NoAdapter`] if nothing fits, [`Error::DeviceRequest`] if the driver refuses.
    pub async fn request(options: &DeviceOptions) -> Result<Self> {
        let (adapter, mut report) = adapter::choose(options).await?;
        if let Some(identity) = &options.identity {
            identity.name.clone_into(&mut report.name);
            report.vendor = identity.vendor;
            if identity.software {
                report.device_type = "cpu".into();
            }
        }
        let (mut features, limits) = adapter::request(&adapter, options.disable);
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if options.cooperative_matrices && adapter::has_cooperative_matrices(&adapter) {
            features |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
            // SAFETY: there is no promise but to know that such features may have bugs; whoever
            // sets the option is told, and no other device is opened with them.
            experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("wgforge"),
            required_features: features,
            required_limits: limits,
            experimental_features,
            // Arenas take memory in large blocks of their own; blocks reserved by wgpu beside
            // them would stay mostly empty.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|source| Error::DeviceRequest { adapter: report.to_string(), source })?;

        let faults = Arc::new(Faults::default());
        let in_use = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&faults);
        device.set_device_lost_callback(move |reason, message| {
            let message = if message.is_empty() { "the driver gave no reason" } else { &message };
            lost.lose(format!("{message} ({reason:?})"));
        });
        let (uncaptured, used) = (Arc::clone(&faults), Arc::clone(&in_use));
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            uncaptured.add(Error::from_wgpu("GPU work", 0, used.load(Ordering::Relaxed), &error));
        }));

        let limits = device.limits();
        report.caps = adapter::caps(&adapter.get_info(), device.features(), &limits);
        if cfg!(target_arch = "wasm32") && !options.disable.subgroups && accepts_subgroups(&device).await {
            report.caps.subgroups = report.subgroup_max > 1;
            report.caps.subgroup_min = report.subgroup_min.max(1);
            report.caps.subgroup_max = report.subgroup_max.max(1);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                device,
                queue,
                limits,
                report,
                trusted: options.trusted && cfg!(not(target_arch = "wasm32")),
                faults,
                in_use,
                pipelines: Mutex::default(),
                query_blocks: Mutex::default(),
            }),
        })
    }

    /// The adapter, with the capabilities this device was opened with.
    pub fn report(&self) -> &AdapterReport {
        &self.inner.report
    }

    /// What kernels may use on this device.
    pub fn caps(&self) -> &Caps {
        &self.inner.report.caps
    }

    /// Shaders run without wgpu's checks.
    pub fn trusted(&self) -> bool {
        self.inner.trusted
    }

    /// Whether WGSL may multiply matrices of 16 by 16 f16 elements with f32 sums, one a subgroup, by
    /// wgpu's `enable wgpu_cooperative_matrix;`. Only where [`DeviceOptions`] asked for it.
    pub fn cooperative_matrices(&self) -> bool {
        self.inner.device.features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX)
    }

    /// The wgpu device, for what this crate does not do. Memory made with it is not counted.
    pub fn wgpu(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// The wgpu queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    /// Reports what went wrong outside of any call since the last check: most errors of recorded
    /// commands are found only when they are submitted or run.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`] from then on, else the first [`Error::OutOfMemory`] or
    /// [`Error::Validation`], once.
    pub fn check(&self) -> Result<()> {
        // Natively a loss is noticed only while polling.
        self.poll(false);
        self.inner.faults.take()
    }

    /// Bytes of the buffers and arena blocks handed out by this device and still held by anybody.
    /// Staging memory for uploads and read-back is not counted.
    pub fn memory_in_use(&self) -> u64 {
        self.inner.in_use.load(Ordering::Relaxed)
    }

    /// Runs the callbacks of finished work; with `wait`, first waits for all submitted work.
    /// The web does both by itself: there this does nothing.
    pub fn poll(&self, wait: bool) {
        self.poll_as(if wait { wgpu::PollType::wait_indefinitely() } else { wgpu::PollType::Poll });
    }

    /// Waits until one submission is done, whatever was submitted after it. `false` if it never
    /// will be: the device is lost, or the commands were invalid and never ran.
    pub(crate) fn poll_until(&self, submission: &wgpu::SubmissionIndex) -> bool {
        self.poll_as(wgpu::PollType::Wait { submission_index: Some(submission.clone()), timeout: None })
    }

    fn poll_as(&self, poll: wgpu::PollType) -> bool {
        // wgpu 30 panics when it finds out while polling that the device is lost. The loss itself
        // has reached the callback by then, so the panic carries nothing that `check` will not say.
        match catch_unwind(AssertUnwindSafe(|| self.inner.device.poll(poll))) {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) => self.add_fault(Error::validation("waiting for the GPU", error.to_string())),
            Err(_) => self.inner.faults.lose("waiting for the GPU failed".into()),
        }
        false
    }

    pub(crate) fn limits(&self) -> &wgpu::Limits {
        &self.inner.limits
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.inner.faults.is_lost()
    }

    /// Fails on a lost device, where wgpu itself makes things silently that do not work.
    pub(crate) fn alive(&self) -> Result<()> {
        if self.is_lost() { self.take_fault() } else { Ok(()) }
    }

    pub(crate) fn add_fault(&self, error: Error) {
        self.inner.faults.add(error);
    }

    /// Like [`Device::check`] without polling, for callers that just have polled.
    pub(crate) fn take_fault(&self) -> Result<()> {
        self.inner.faults.take()
    }

    pub(crate) fn in_use(&self) -> &Arc<AtomicU64> {
        &self.inner.in_use
    }

    pub(crate) fn pipelines(&self) -> &Mutex<HashMap<PipelineKey, Pipeline>> {
        &self.inner.pipelines
    }

    pub(crate) fn query_blocks(&self) -> &Mutex<Vec<QueryBlock>> {
        &self.inner.query_blocks
    }
}

/// Whether a browser's device takes subgroup operations. wgpu 30 cannot request the feature on the
/// web, but a page can add it to the device request itself; only a shader shows whether it did.
async fn accepts_subgroups(device: &wgpu::Device) -> bool {
    const PROBE: &str = "enable subgroups;
        @compute @workgroup_size(32) fn main() { _ = subgroupAdd(1u); }";
    let (_module, error) = scoped(device, || {
        device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("subgroup probe"),
            source: wgpu::ShaderSource::Wgsl(PROBE.into()),
        })
    });
    error.await.is_none()
}
