//! Which adapter this is, in the words of databases.

use serde::Deserialize;
use wgforge_runtime::Identity;

/// `GPUAdapterInfo`, as far as it is of use. wgpu passes on the description alone.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AdapterInfo {
    vendor: String,
    architecture: String,
    device: String,
    description: String,
    fallback: bool,
}

impl AdapterInfo {
    /// Browsers name vendors; databases know them by their PCI numbers.
    pub(crate) fn identity(&self) -> Identity {
        let vendor = match self.vendor.as_str() {
            "amd" => 0x1002,
            "apple" => 0x106b,
            "arm" => 0x13b5,
            "google" => 0x1ae0,
            "intel" => 0x8086,
            "nvidia" => 0x10de,
            "qualcomm" => 0x5143,
            _ => 0,
        };
        let known = [&self.vendor, &self.architecture, &self.device];
        let words: Vec<&str> = known.into_iter().map(String::as_str).filter(|w| !w.is_empty()).collect();
        let name = if self.description.is_empty() { words.join(" ") } else { self.description.clone() };
        let software = self.fallback || self.architecture == "swiftshader";
        Identity { name, vendor, software }
    }
}
