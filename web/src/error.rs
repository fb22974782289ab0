//! Errors as JavaScript sees them: an `Error` whose `name` says what a program can do about it.

use wasm_bindgen::JsValue;
use wgforge_model::Error;
use wgforge_runtime::Error as Device;

/// The name by which JavaScript tells errors apart; `wgforge.d.ts` lists them.
fn name(error: &Error) -> &'static str {
    match error {
        Error::Runtime(Device::DeviceLost(_)) => "DeviceLostError",
        Error::Runtime(Device::OutOfMemory { .. } | Device::TooLarge { .. }) => "OutOfMemoryError",
        Error::Runtime(Device::NoAdapter { .. } | Device::DeviceRequest { .. }) => "NoAdapterError",
        Error::Runtime(_) | Error::Kernel { .. } => "DeviceError",
        Error::ContextOverflow { .. } => "ContextOverflowError",
        Error::Usage(_) => "UsageError",
        Error::Io { .. } => "ReadError",
        _ => "ModelError",
    }
}

/// An error with a name of its own.
pub(crate) fn named(name: &str, message: &str) -> JsValue {
    let error = js_sys::Error::new(message);
    error.set_name(name);
    error.into()
}

pub(crate) fn js(error: impl Into<Error>) -> JsValue {
    let error = error.into();
    named(name(&error), &error.to_string())
}

/// A mistake in what the worker passed.
pub(crate) fn usage(error: impl std::fmt::Display) -> JsValue {
    named("UsageError", &error.to_string())
}
