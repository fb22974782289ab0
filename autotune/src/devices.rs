//! Databases measured on devices, committed as `tuned/DEVICE.toml` and built into programs. Each is
//! what `wgforge autotune --full` wrote there; entries without times are another card's configurations, or chosen by hand.

use wgforge_codegen::Database;

macro_rules! embedded {
    ($($name:literal),+ $(,)?) => {
        /// File name and text of each.
        pub const FILES: &[(&str, &str)] =
            &[$((concat!($name, ".toml"), include_str!(concat!("../tuned/", $name, ".toml")))),+];
    };
}

embedded!("nvidia-h100", "nvidia-h200", "llvmpipe", "swiftshader");

/// Every committed database of a device, read.
///
/// # Errors
/// A file that this version does not read; a test keeps them current.
pub fn databases() -> Result<Vec<(&'static str, Database)>, crate::DbErrors> {
    FILES.iter().map(|(name, text)| Ok((*name, Database::parse(name, text)?))).collect()
}
