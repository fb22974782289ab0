//! Devices and kernels that the tests share.

#![allow(dead_code, reason = "every test file uses its own part of this")]

use wgforge_runtime::{Access, Backend, Binding, CapsMask, Device, DeviceOptions, Error, KernelSource};

/// wgpu's stub, for host logic: runs anywhere.
pub(crate) fn noop() -> Device {
    let options = DeviceOptions { backend: Some(Backend::Noop), ..Default::default() };
    pollster::block_on(Device::request(&options)).expect("the noop backend is always there")
}

/// A device that computes, or `None` with a notice where there is none. The variable
/// `WGFORGE_REQUIRE_ADAPTER=1` makes that a failure, so that CI cannot skip in silence.
pub(crate) fn test_adapter(trusted: bool, disable: CapsMask) -> Option<Device> {
    let options = DeviceOptions { trusted, disable, ..Default::default() };
    match pollster::block_on(Device::request(&options)) {
        Ok(device) => Some(device),
        Err(error @ Error::NoAdapter { .. }) => {
            let required = std::env::var_os("WGFORGE_REQUIRE_ADAPTER").is_some_and(|value| value == "1");
            assert!(!required, "WGFORGE_REQUIRE_ADAPTER is set: {error}");
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("an adapter gave no device: {error}"),
    }
}

pub(crate) fn binding(name: &str, access: Access) -> Binding {
    Binding { name: name.into(), access }
}

/// `target[i] = source[i] * 3 + 1` for 64 invocations a workgroup, without bounds checks.
pub(crate) const TRIPLE: &str = "
@group(0) @binding(0) var<storage, read> source: array<u32>;
@group(0) @binding(1) var<storage, read_write> target_: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    target_[id.x] = source[id.x] * 3u + 1u;
}
";

pub(crate) fn triple_bindings() -> [Binding; 2] {
    [binding("source", Access::Read), binding("target_", Access::ReadWrite)]
}

pub(crate) fn triple(bindings: &[Binding]) -> KernelSource<'_> {
    KernelSource { label: "triple", wgsl: TRIPLE, bindings }
}

pub(crate) fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect()
}
