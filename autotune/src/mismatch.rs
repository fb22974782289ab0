//! In what a database was not made for the device at hand, and what follows from it.

use wgforge_codegen::db::Header;
use wgforge_runtime::AdapterReport;

use crate::device_id;

/// A way in which a database was not made for the device at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mismatch {
    /// Another vendor's card: other best configurations altogether.
    Vendor {
        /// The adapter it was made on.
        made_on: String,
    },
    /// Other subgroups.
    Subgroups {
        /// The class it was made for.
        class: String,
        /// The class of this device.
        here: String,
    },
    /// Made with f16 in shaders for a device without, or the other way round.
    F16 {
        /// Whether it was made with f16.
        made_with: bool,
    },
    /// The device has less of something than kernels were chosen for.
    Limit {
        /// Which, in words.
        what: &'static str,
        /// What they were chosen for.
        wanted: u64,
        /// What is here.
        here: u64,
    },
    /// The templates render another text now.
    Wgsl {
        /// How many entries that concerns.
        entries: usize,
    },
    /// Another card of the same vendor.
    Device {
        /// The one it was made on.
        made_on: String,
    },
    /// Another driver or version of it.
    Driver {
        /// The one it was made with.
        made_with: String,
        /// The one here.
        here: String,
    },
    /// Another graphics API.
    Backend {
        /// The one it was made with.
        made_with: String,
        /// The one here.
        here: String,
    },
    /// Another version of wgpu.
    Wgpu {
        /// The one it was made with.
        made_with: String,
    },
    /// Another version of the kernels' crate.
    Codegen {
        /// The one it was made with.
        made_with: String,
    },
}

impl Mismatch {
    /// Hard ones mean that the database, or the entries concerned, are never used; soft ones that
    /// it is used with a notice.
    pub fn is_hard(&self) -> bool {
        matches!(
            self,
            Self::Vendor { .. }
                | Self::Subgroups { .. }
                | Self::F16 { .. }
                | Self::Limit { .. }
                | Self::Wgsl { .. }
        )
    }
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vendor { made_on } => write!(f, "was made on {made_on}, another vendor's"),
            Self::Subgroups { class, here } => write!(f, "was made for class {class}, this device is {here}"),
            Self::F16 { made_with: true } => {
                write!(f, "was made with f16 in shaders, which is not there now")
            }
            Self::F16 { made_with: false } => {
                write!(f, "was made without f16 in shaders, which is there now")
            }
            Self::Limit { what, wanted, here } => {
                write!(f, "was made for {wanted} {what}, this device has {here}")
            }
            Self::Wgsl { entries } => write!(f, "{entries} kernels: the templates changed since tuning"),
            Self::Device { made_on } => write!(f, "was made on another card, {made_on}"),
            Self::Driver { made_with, here } => write!(f, "was made with driver {made_with}, here is {here}"),
            Self::Backend { made_with, here } => write!(f, "was made with {made_with}, here is {here}"),
            Self::Wgpu { made_with } => write!(f, "was made with wgpu {made_with}, here is {WGPU}"),
            Self::Codegen { made_with } => {
                write!(f, "was made with version {made_with}, this is {}", env!("CARGO_PKG_VERSION"))
            }
        }
    }
}

/// The version of wgpu that programs of this crate run on, as the workspace pins it.
pub const WGPU: &str = "30.0.1";

/// Everything in which the device of `header` differs from `adapter`, hard ones first. Of changed
/// texts it knows nothing: they are a matter of entries. Empty for the defaults of a class.
pub fn mismatches(header: &Header, adapter: &AdapterReport) -> Vec<Mismatch> {
    let Some(made_on) = &header.device else { return Vec::new() };
    let (here, then, now) = (device_id(adapter), &header.caps, &adapter.caps);
    let mut all = Vec::new();
    if made_on.vendor != here.vendor || here.vendor == 0 && made_on.name != here.name {
        all.push(Mismatch::Vendor { made_on: made_on.name.clone() });
    }
    if (then.subgroups, then.subgroup_min) != (now.subgroups, now.subgroup_min) {
        all.push(Mismatch::Subgroups { class: then.class(), here: now.class() });
    }
    if then.f16 != now.f16 {
        all.push(Mismatch::F16 { made_with: then.f16 });
    }
    for (what, wanted, here) in [
        ("threads a workgroup", then.max_invocations.into(), now.max_invocations.into()),
        ("bytes of workgroup memory", then.max_workgroup_bytes.into(), now.max_workgroup_bytes.into()),
        ("bindings a kernel", then.max_storage_bindings.into(), now.max_storage_bindings.into()),
        ("bytes a binding", then.max_binding_bytes, now.max_binding_bytes),
    ] {
        if here < wanted {
            all.push(Mismatch::Limit { what, wanted, here });
        }
    }
    if all.iter().all(|m| !matches!(m, Mismatch::Vendor { .. }))
        && (&made_on.name, made_on.device) != (&here.name, here.device)
    {
        all.push(Mismatch::Device { made_on: made_on.name.clone() });
    }
    if made_on.driver != here.driver {
        all.push(Mismatch::Driver { made_with: made_on.driver.clone(), here: here.driver });
    }
    if made_on.backend != here.backend {
        all.push(Mismatch::Backend { made_with: made_on.backend.clone(), here: here.backend });
    }
    if let Some(made_with) = header.wgpu.clone().filter(|v| v != WGPU) {
        all.push(Mismatch::Wgpu { made_with });
    }
    if header.codegen != env!("CARGO_PKG_VERSION") {
        all.push(Mismatch::Codegen { made_with: header.codegen.clone() });
    }
    all
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_of_wgpu_is_the_pinned_one() {
        let pinned = format!("wgpu = {{ version = \"={}\"", super::WGPU);
        assert!(include_str!("../../Cargo.toml").contains(&pinned), "the workspace pins another: {pinned}");
    }
}
