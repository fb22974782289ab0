//! Which adapters there are, what each can do, and which one to take.

use std::fmt;
use std::str::FromStr;

use wgforge_caps::Caps;

use crate::device::{CapsMask, DeviceOptions};
use crate::error::{Error, Result};

/// A graphics API under wgpu.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// Vulkan: Linux, Windows, Android.
    Vulkan,
    /// Metal: macOS and iOS.
    Metal,
    /// Direct3D 12: Windows.
    Dx12,
    /// OpenGL ES 3.1 or OpenGL 4.3, the fallback of old drivers; no subgroups, no `f16`.
    Gl,
    /// The browser's WebGPU.
    BrowserWebGpu,
    /// wgpu's stub for tests: buffers and copies work, shaders are checked but never run.
    Noop,
}

impl Backend {
    fn bit(self) -> wgpu::Backends {
        match self {
            Self::Vulkan => wgpu::Backends::VULKAN,
            Self::Metal => wgpu::Backends::METAL,
            Self::Dx12 => wgpu::Backends::DX12,
            Self::Gl => wgpu::Backends::GL,
            Self::BrowserWebGpu => wgpu::Backends::BROWSER_WEBGPU,
            Self::Noop => wgpu::Backends::NOOP,
        }
    }

    fn from_wgpu(backend: wgpu::Backend) -> Self {
        match backend {
            wgpu::Backend::Vulkan => Self::Vulkan,
            wgpu::Backend::Metal => Self::Metal,
            wgpu::Backend::Dx12 => Self::Dx12,
            wgpu::Backend::Gl => Self::Gl,
            wgpu::Backend::BrowserWebGpu => Self::BrowserWebGpu,
            wgpu::Backend::Noop => Self::Noop,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::Dx12 => "dx12",
            Self::Gl => "gl",
            Self::BrowserWebGpu => "webgpu",
            Self::Noop => "noop",
        })
    }
}

impl FromStr for Backend {
    type Err = Error;

    /// Reads the names that `Display` writes, in any case.
    fn from_str(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "vulkan" => Ok(Self::Vulkan),
            "metal" => Ok(Self::Metal),
            "dx12" => Ok(Self::Dx12),
            "gl" => Ok(Self::Gl),
            "webgpu" => Ok(Self::BrowserWebGpu),
            "noop" => Ok(Self::Noop),
            _ => Err(Error::UnknownBackend(name.into())),
        }
    }
}

/// What is known about an adapter, for reports and for choosing kernels.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterReport {
    /// The adapter's name as the driver gives it; browsers may leave it empty.
    pub name: String,
    /// The vendor's PCI number where there is one, else 0.
    pub vendor: u32,
    /// The device's PCI number where there is one, else 0.
    pub device: u32,
    /// `discrete`, `integrated`, `virtual`, `cpu` or `other`.
    pub device_type: String,
    /// The driver's name.
    pub driver: String,
    /// The driver's version, in its own words.
    pub driver_info: String,
    /// The backend, as [`Backend`] displays it.
    pub backend: String,
    /// What kernels may use. For a [`Device`](crate::Device) this is what was requested and
    /// granted, for [`adapters`] what could be.
    pub caps: Caps,
    /// All of wgpu's features the adapter offers, by wgpu's names, sorted.
    pub features: Vec<String>,
    /// Smallest subgroup size the driver reports, in lanes, whether usable or not.
    pub subgroup_min: u32,
    /// Largest subgroup size the driver reports, in lanes, whether usable or not.
    pub subgroup_max: u32,
    /// All of WebGPU works. Others (mostly GL) are taken only by name or for want of better.
    pub compliant: bool,
}

impl AdapterReport {
    pub(crate) fn of(adapter: &wgpu::Adapter) -> Self {
        let (info, features) = (adapter.get_info(), adapter.features());
        let mut names: Vec<String> = features.iter_names().map(|(name, _)| name.to_owned()).collect();
        names.sort_unstable();
        Self {
            name: info.name.clone(),
            vendor: info.vendor,
            device: info.device,
            device_type: type_name(info.device_type).into(),
            driver: info.driver.clone(),
            driver_info: info.driver_info.clone(),
            backend: Backend::from_wgpu(info.backend).to_string(),
            caps: caps(&info, features, &adapter.limits()),
            features: names,
            subgroup_min: info.subgroup_min_size,
            subgroup_max: info.subgroup_max_size,
            compliant: adapter.get_downlevel_capabilities().is_webgpu_compliant(),
        }
    }
}

/// `NAME (vulkan, discrete)`: how messages name an adapter.
impl fmt::Display for AdapterReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.name.is_empty() { "unnamed adapter" } else { &self.name };
        write!(f, "{name} ({}, {})", self.backend, self.device_type)
    }
}

fn type_name(device_type: wgpu::DeviceType) -> &'static str {
    match device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "cpu",
        wgpu::DeviceType::Other => "other",
    }
}

/// The part of features and limits that kernels may ask about.
pub(crate) fn caps(info: &wgpu::AdapterInfo, features: wgpu::Features, limits: &wgpu::Limits) -> Caps {
    let subgroups = features.contains(wgpu::Features::SUBGROUP) && info.subgroup_max_size > 1;
    Caps {
        subgroups,
        subgroup_min: if subgroups { info.subgroup_min_size } else { 1 },
        subgroup_max: if subgroups { info.subgroup_max_size } else { 1 },
        f16: features.contains(wgpu::Features::SHADER_F16),
        max_invocations: limits.max_compute_invocations_per_workgroup,
        max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
        max_storage_bindings: limits.max_storage_buffers_per_shader_stage,
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        max_groups: limits.max_compute_workgroups_per_dimension,
        storage_align: limits.min_storage_buffer_offset_alignment,
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
    }
}

/// Every adapter of a backend, or of all but `noop`; in the order of the drivers.
///
/// Never fails: without a driver the list is empty.
pub async fn adapters(backend: Option<Backend>) -> Vec<AdapterReport> {
    let backends = backend.map_or(wgpu::Backends::all() - wgpu::Backends::NOOP, Backend::bit);
    enumerate(backends).await.iter().map(AdapterReport::of).collect()
}

/// The adapter that best fits the options, with its report.
pub(crate) async fn choose(options: &DeviceOptions) -> Result<(wgpu::Adapter, AdapterReport)> {
    // Starting GL may need a display server, so it is looked at only for want of anything better.
    let rounds = match options.backend {
        Some(backend) => vec![backend.bit()],
        None => vec![wgpu::Backends::PRIMARY, wgpu::Backends::GL],
    };
    let mut found = Vec::new();
    for backends in rounds {
        // Nobody who asks for an adapter by name or backend wants to be told that it is not good
        // enough, and in the round of last resort anything that computes is welcome.
        let strict = options.backend.is_none() && options.name.is_none() && backends != wgpu::Backends::GL;
        let mut best: Option<(u32, wgpu::Adapter, AdapterReport)> = None;
        for adapter in enumerate(backends).await {
            let report = AdapterReport::of(&adapter);
            if let Some(reason) = why_not(&adapter, &report, options, strict) {
                found.push(format!("{report}: {reason}"));
                continue;
            }
            let rank = rank(&report);
            if best.as_ref().is_none_or(|(least, ..)| rank < *least) {
                best = Some((rank, adapter, report));
            }
        }
        if let Some((_, adapter, report)) = best {
            return Ok((adapter, report));
        }
    }
    Err(Error::NoAdapter { wanted: wanted(options), found })
}

fn wanted(options: &DeviceOptions) -> String {
    let backend =
        options.backend.map_or_else(|| "any backend".into(), |backend| format!("backend {backend}"));
    match &options.name {
        Some(name) => format!("a name with `{name}` on {backend}"),
        None => backend,
    }
}

fn why_not(
    adapter: &wgpu::Adapter,
    report: &AdapterReport,
    options: &DeviceOptions,
    strict: bool,
) -> Option<&'static str> {
    let flags = adapter.get_downlevel_capabilities().flags;
    if !flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS) {
        return Some("has no compute shaders");
    }
    if let Some(name) = &options.name {
        return (!named(&report.name, name)).then_some("has another name");
    }
    (strict && !report.compliant).then_some("lacks parts of WebGPU; ask for it by name to use it anyway")
}

fn named(name: &str, part: &str) -> bool {
    name.to_lowercase().contains(&part.to_lowercase())
}

/// Least is best. Equal ranks are decided by wgpu's order: Vulkan, Metal, Direct3D 12, GL.
fn rank(report: &AdapterReport) -> u32 {
    let kind = match report.device_type.as_str() {
        "discrete" => 0,
        "integrated" => 1,
        "cpu" => 3,
        _ => 2,
    };
    kind * 2 + u32::from(!report.compliant)
}

fn instance(backends: wgpu::Backends) -> wgpu::Instance {
    // Never with the validation of indirect dispatches, which wgpu leaves on even in release builds:
    // it adds a dispatch and a barrier to each of them and lowers the buffer limits to 4 GiB, so
    // that a debug build would also choose other kernels. WGPU_* variables may turn flags on.
    let flags = if cfg!(debug_assertions) {
        wgpu::InstanceFlags::DEBUG | wgpu::InstanceFlags::VALIDATION
    } else {
        wgpu::InstanceFlags::empty()
    };
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        flags: flags.with_env(),
        backend_options: wgpu::BackendOptions { noop: noop(), ..Default::default() },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    })
}

async fn enumerate(backends: wgpu::Backends) -> Vec<wgpu::Adapter> {
    let instance = instance(backends);
    if cfg!(target_arch = "wasm32") {
        // A browser shows one adapter; ask for the fast one of a laptop's two.
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        instance.request_adapter(&options).await.into_iter().collect()
    } else {
        instance.enumerate_adapters(backends).await
    }
}

/// The stub pretends to be a desktop GPU: with wgpu's own default of no limits at all, host logic
/// that divides by limits or allocates up to them would be tested against nonsense. Only a buffer
/// may be absurdly large, so that running out of memory can be tested too.
fn noop() -> wgpu::NoopBackendOptions {
    wgpu::NoopBackendOptions {
        limits: Some(wgpu::Limits {
            max_storage_buffers_per_shader_stage: 32,
            max_storage_buffer_binding_size: (2 << 30) - 4,
            max_buffer_size: 1 << 60,
            min_storage_buffer_offset_alignment: 32,
            max_compute_workgroup_storage_size: 32 << 10,
            max_compute_invocations_per_workgroup: 1024,
            max_compute_workgroup_size_x: 1024,
            max_compute_workgroup_size_y: 1024,
            ..wgpu::Limits::defaults()
        }),
        subgroup_min_size: Some(32),
        subgroup_max_size: Some(32),
        ..wgpu::NoopBackendOptions::enabled()
    }
}

/// The features and limits to request: all that is of use here and there, less what the mask hides.
pub(crate) fn request(adapter: &wgpu::Adapter, mask: CapsMask) -> (wgpu::Features, wgpu::Limits) {
    use wgpu::Features;
    let groups = [
        (mask.subgroups, Features::SUBGROUP | Features::SUBGROUP_BARRIER),
        (mask.f16, Features::SHADER_F16),
        (
            mask.timestamps,
            Features::TIMESTAMP_QUERY
                | Features::TIMESTAMP_QUERY_INSIDE_ENCODERS
                | Features::TIMESTAMP_QUERY_INSIDE_PASSES,
        ),
        (false, Features::PIPELINE_CACHE),
    ];
    let wanted = groups
        .into_iter()
        .filter(|&(hidden, _)| !hidden)
        .fold(Features::empty(), |wanted, (_, features)| wanted | features);
    let limits = adapter.limits();
    let limits = if mask.limits { wgpu::Limits::defaults().or_worse_values_from(&limits) } else { limits };
    (wanted & adapter.features(), limits)
}

/// Whether the adapter has the one kind of cooperative matrices that [`crate::Device`] speaks of.
pub(crate) fn has_cooperative_matrices(adapter: &wgpu::Adapter) -> bool {
    use wgpu::CooperativeScalarType::{F16, F32};
    adapter.features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16)
        && adapter
            .cooperative_matrix_properties()
            .iter()
            .any(|p| (p.m_size, p.n_size, p.k_size, p.ab_type, p.cr_type) == (16, 16, 16, F16, F32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_written_and_read_by_the_same_names() {
        use Backend::{BrowserWebGpu, Dx12, Gl, Metal, Noop, Vulkan};
        for backend in [Vulkan, Metal, Dx12, Gl, BrowserWebGpu, Noop] {
            let name = backend.to_string();
            assert_eq!(name.parse::<Backend>().ok(), Some(backend), "{name}");
            assert_eq!(name.to_uppercase().parse::<Backend>().ok(), Some(backend), "case of {name}");
        }
        let error = "glide".parse::<Backend>().expect_err("not a backend");
        assert!(error.to_string().contains("glide"), "{error}");
    }

    #[test]
    fn a_part_of_the_name_in_any_case_is_enough() {
        assert!(named("NVIDIA H200", "nvidia"), "lower case part");
        assert!(named("llvmpipe (LLVM 15.0.6, 256 bits)", "LLVM"), "upper case part");
        assert!(!named("NVIDIA H200", "radeon"), "another name");
    }
    #[test]
    fn discrete_adapters_come_first_and_software_last() {
        let report = |device_type: &str, compliant| AdapterReport {
            name: String::new(),
            vendor: 0,
            device: 0,
            device_type: device_type.into(),
            driver: String::new(),
            driver_info: String::new(),
            backend: "vulkan".into(),
            caps: Caps::default(),
            features: Vec::new(),
            subgroup_min: 1,
            subgroup_max: 1,
            compliant,
        };
        let order =
            [("discrete", true), ("discrete", false), ("integrated", true), ("virtual", true), ("cpu", true)];
        let ranks: Vec<_> = order.iter().map(|&(kind, compliant)| rank(&report(kind, compliant))).collect();
        assert!(ranks.is_sorted_by(|a, b| a < b), "least is best: {ranks:?}");
        assert_eq!(rank(&report("virtual", true)), rank(&report("other", true)), "both are neither");
    }
}
