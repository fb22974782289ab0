//! Everything that can go wrong between a kernel and a device.

/// What a call into this crate can fail with.
///
/// Each message names the thing at fault (adapter, kernel, buffer) and, where there is one, the
/// way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter fits the request.
    #[error("no GPU adapter for {wanted}; found: {}. {}", listed(found), remedy())]
    NoAdapter {
        /// The request, in words.
        wanted: String,
        /// Adapters that are there, each with the reason it was passed over.
        found: Vec<String>,
    },
    /// A backend's name is not one of those known.
    #[error("unknown backend `{0}`; known are vulkan, metal, dx12, gl, webgpu and noop")]
    UnknownBackend(String),
    /// The adapter was found, but would not give a device.
    #[error("adapter {adapter} gave no device: {source}")]
    DeviceRequest {
        /// The adapter's name.
        adapter: String,
        /// wgpu's reason.
        #[source]
        source: wgpu::RequestDeviceError,
    },
    /// The device is gone (driver reset, unplugged, destroyed). Everything made from it is lost
    /// too; a new one must be requested.
    #[error("the GPU device was lost: {0}. Request a new device and load everything again")]
    DeviceLost(String),
    /// The driver has no memory left for an allocation.
    #[error(
        "out of GPU memory: {what} needs {bytes} bytes, {in_use} bytes are in use already. \
         Use a smaller context or a smaller weight format, or close other programs that use the GPU"
    )]
    OutOfMemory {
        /// The buffer or operation.
        what: String,
        /// Its size in bytes; 0 where the driver did not say which allocation failed.
        bytes: u64,
        /// Bytes this device had handed out before.
        in_use: u64,
    },
    /// A shader did not compile.
    #[error("kernel {kernel} does not compile:\n{report}")]
    Shader {
        /// The kernel's label.
        kernel: String,
        /// The compiler's report, with line and caret where it gives one.
        report: String,
    },
    /// Something is larger than a limit of the device.
    #[error("{what} takes {bytes} bytes, and this device allows {limit}")]
    TooLarge {
        /// The buffer or binding.
        what: String,
        /// The size asked for, in bytes.
        bytes: u64,
        /// The device's limit, in bytes.
        limit: u64,
    },
    /// A dispatch has more workgroups in one dimension than the device allows; split it.
    #[error("kernel {kernel}: {groups:?} workgroups, and this device allows {limit} per dimension")]
    TooManyGroups {
        /// The kernel's label.
        kernel: String,
        /// The workgroups asked for.
        groups: [u32; 3],
        /// The limit per dimension.
        limit: u32,
    },
    /// The number of buffers given is not the number of bindings of a kernel.
    #[error("kernel {kernel} has {wanted} bindings, but {given} buffers were given")]
    BindingCount {
        /// The kernel's label.
        kernel: String,
        /// Its number of bindings.
        wanted: usize,
        /// The number of buffers given.
        given: usize,
    },
    /// An operation breaks a rule of WebGPU: wrong alignment, usage, range or aliasing.
    #[error("{what}: {report}")]
    Validation {
        /// The operation.
        what: String,
        /// The rule, as found here or by wgpu.
        report: String,
    },
    /// Data did not come back from the device.
    #[error("read-back failed: {0}")]
    ReadBack(String),
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn validation(what: impl Into<String>, report: impl Into<String>) -> Self {
        Self::Validation { what: what.into(), report: report.into() }
    }

    /// The typed form of an error that wgpu reported for `what`; `bytes` is the allocation's size
    /// (0 if none).
    pub(crate) fn from_wgpu(what: &str, bytes: u64, in_use: u64, error: &wgpu::Error) -> Self {
        match error {
            wgpu::Error::OutOfMemory { .. } => Self::OutOfMemory { what: what.into(), bytes, in_use },
            other => Self::validation(what, other.to_string()),
        }
    }
}

fn listed(found: &[String]) -> String {
    if found.is_empty() { "none".into() } else { found.join("; ") }
}

/// What somebody without an adapter can do about it.
fn remedy() -> &'static str {
    if cfg!(target_arch = "wasm32") {
        "This browser offers no WebGPU here: use a current Chrome, Edge, Safari or Firefox with \
         hardware acceleration on"
    } else {
        "Install the GPU's Vulkan driver, or on Debian and Ubuntu the software one \
         (`apt-get install mesa-vulkan-drivers`); `--backend reference` computes on the CPU"
    }
}
