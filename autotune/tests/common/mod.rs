//! What the tests on a device share.

use wgforge_runtime::{Device, DeviceOptions};

/// The device; `None`, with a notice, where there is none and none is required.
pub(crate) fn device() -> Option<Device> {
    device_with(&DeviceOptions::default())
}

/// The same, as `options` want it.
pub(crate) fn device_with(options: &DeviceOptions) -> Option<Device> {
    match pollster::block_on(Device::request(options)) {
        Ok(device) => Some(device),
        Err(error) => {
            let required = std::env::var_os("WGFORGE_REQUIRE_ADAPTER").is_some_and(|v| v == "1");
            assert!(!required, "an adapter is required: {error}");
            println!("skipped: {error}");
            None
        }
    }
}
