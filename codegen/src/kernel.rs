//! What every kernel family provides, and the erased forms the tuner, plans and databases use.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Caps, io::Io};

/// Why a configuration cannot run a shape on a device; shown to people, so a whole sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(pub String);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns a [`Reason`] from `why_not` when the condition does not hold.
macro_rules! require {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Some($crate::Reason(format!($($why)+)));
        }
    };
}
pub(crate) use require;

/// One kernel family: a template and the Rust that knows its bounds.
pub trait Kernel: Copy + fmt::Debug {
    /// Name of the family, of `templates/NAME.wgsl` and of the module.
    const NAME: &'static str;
    /// The template's text.
    const TEMPLATE: &'static str;
    /// What must be computed.
    type Shape: Clone + fmt::Debug + PartialEq + Serialize + DeserializeOwned;
    /// How it is computed: plain data, chosen by the tuner.
    type Config: Clone + fmt::Debug + PartialEq + Serialize + DeserializeOwned;

    /// Names of the bindings in order; the template numbers its variables by this list and
    /// reflection checks that it did.
    fn bindings(shape: &Self::Shape, config: &Self::Config) -> Vec<&'static str>;

    /// Every configuration worth trying, each passing [`Kernel::why_not`].
    fn candidates(shape: &Self::Shape, caps: &Caps) -> Vec<Self::Config>;

    /// The configuration to use on a device nobody has tuned.
    fn generic(shape: &Self::Shape, caps: &Caps) -> Self::Config;

    /// `None` when `config` can run `shape` on a device with `caps`.
    fn why_not(shape: &Self::Shape, config: &Self::Config, caps: &Caps) -> Option<Reason>;

    /// Workgroups to dispatch for `tokens` tokens.
    fn groups(shape: &Self::Shape, config: &Self::Config, tokens: u32) -> [u32; 3];

    /// Numbers the template needs that follow from shape and configuration.
    fn derived(shape: &Self::Shape, config: &Self::Config) -> Vec<(&'static str, u32)>;

    /// The same computation on the CPU, written for reading: the oracle of every check.
    fn reference(shape: &Self::Shape, io: &mut Io<'_>);

    /// `(uses subgroups, uses WGSL f16)` of a configuration.
    fn features(config: &Self::Config) -> (bool, bool);
}

/// Defines the erased enums over all kernel families.
macro_rules! registry {
    ($($module:ident :: $kernel:ident),+ $(,)?) => {
        /// What must be computed: a kernel family and its shape.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kernel", content = "shape", rename_all = "snake_case")]
        #[expect(missing_docs, reason = "each variant is the family of the same name")]
        pub enum Workload { $($kernel(<crate::kernels::$module::$kernel as Kernel>::Shape)),+ }

        /// A workload and the configuration that computes it.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "each variant is the family of the same name")]
        pub enum Variant { $($kernel {
            shape: <crate::kernels::$module::$kernel as Kernel>::Shape,
            config: <crate::kernels::$module::$kernel as Kernel>::Config,
        }),+ }

        /// Names of all families, in the order of the registry.
        pub const FAMILIES: &[&str] = &[$(<crate::kernels::$module::$kernel as Kernel>::NAME),+];

        /// `(name, template)` of every family.
        pub const TEMPLATES: &[(&str, &str)] = &[$((
            <crate::kernels::$module::$kernel as Kernel>::NAME,
            <crate::kernels::$module::$kernel as Kernel>::TEMPLATE,
        )),+];

        impl Workload {
            /// Name of the family.
            pub fn kernel(&self) -> &'static str {
                match self { $(Self::$kernel(_) => <crate::kernels::$module::$kernel as Kernel>::NAME),+ }
            }

            /// The shape as JSON with sorted keys: part of the identity in databases.
            pub fn shape_json(&self) -> String {
                match self { $(Self::$kernel(s) => canonical_json(s)),+ }
            }

            /// Every configuration worth trying on a device with `caps`.
            pub fn candidates(&self, caps: &Caps) -> Vec<Variant> {
                match self { $(Self::$kernel(s) =>
                    <crate::kernels::$module::$kernel as Kernel>::candidates(s, caps).into_iter()
                        .map(|config| Variant::$kernel { shape: s.clone(), config }).collect()),+ }
            }

            /// The configuration for a device nobody has tuned.
            pub fn generic(&self, caps: &Caps) -> Variant {
                match self { $(Self::$kernel(s) => Variant::$kernel {
                    shape: s.clone(),
                    config: <crate::kernels::$module::$kernel as Kernel>::generic(s, caps),
                }),+ }
            }

            /// The CPU reference, with buffers in the order of the bindings.
            pub fn reference(&self, io: &mut Io<'_>) {
                match self { $(Self::$kernel(s) => <crate::kernels::$module::$kernel as Kernel>::reference(s, io)),+ }
            }

            /// Reads a workload from a family name and its shape as JSON.
            ///
            /// # Errors
            /// An unknown family, or a shape with missing or wrong fields; the text says which.
            pub fn parse(kernel: &str, shape: serde_json::Value) -> Result<Self, String> {
                match kernel {
                    $(<crate::kernels::$module::$kernel as Kernel>::NAME => serde_json::from_value(shape)
                        .map(Self::$kernel)
                        .map_err(|e| format!("shape of kernel `{kernel}`: {e}")),)+
                    other => Err(format!("unknown kernel `{other}`; known: {}", FAMILIES.join(", "))),
                }
            }

            /// Joins this workload with a configuration given as JSON.
            ///
            /// # Errors
            /// A configuration with missing or wrong fields.
            pub fn with_config(&self, config: serde_json::Value) -> Result<Variant, String> {
                match self { $(Self::$kernel(s) => serde_json::from_value(config)
                    .map(|config| Variant::$kernel { shape: s.clone(), config })
                    .map_err(|e| format!("configuration of kernel `{}`: {e}", self.kernel()))),+ }
            }
        }

        impl Variant {
            /// Name of the family.
            pub fn kernel(&self) -> &'static str {
                match self { $(Self::$kernel { .. } => <crate::kernels::$module::$kernel as Kernel>::NAME),+ }
            }

            /// The workload this variant computes.
            pub fn workload(&self) -> Workload {
                match self { $(Self::$kernel { shape, .. } => Workload::$kernel(shape.clone())),+ }
            }

            /// The configuration as JSON with sorted keys.
            pub fn config_json(&self) -> String {
                match self { $(Self::$kernel { config, .. } => canonical_json(config)),+ }
            }

            /// `None` when this variant can run on a device with `caps`.
            pub fn why_not(&self, caps: &Caps) -> Option<Reason> {
                let (subgroups, f16) = self.features();
                require!(!subgroups || caps.subgroups, "it uses subgroups and the device has none");
                require!(!f16 || caps.f16, "it uses f16 and the device lacks shader-f16");
                let bindings = self.bindings().len();
                require!(
                    bindings <= caps.max_storage_bindings as usize,
                    "it has {bindings} bindings and the device allows {}", caps.max_storage_bindings
                );
                match self { $(Self::$kernel { shape, config } =>
                    <crate::kernels::$module::$kernel as Kernel>::why_not(shape, config, caps)),+ }
            }

            /// Names of the bindings in order.
            pub fn bindings(&self) -> Vec<&'static str> {
                match self { $(Self::$kernel { shape, config } =>
                    <crate::kernels::$module::$kernel as Kernel>::bindings(shape, config)),+ }
            }

            /// Workgroups to dispatch for `tokens` tokens.
            pub fn groups(&self, tokens: u32) -> [u32; 3] {
                match self { $(Self::$kernel { shape, config } =>
                    <crate::kernels::$module::$kernel as Kernel>::groups(shape, config, tokens)),+ }
            }

            /// `(uses subgroups, uses WGSL f16)`.
            pub fn features(&self) -> (bool, bool) {
                match self { $(Self::$kernel { config, .. } =>
                    <crate::kernels::$module::$kernel as Kernel>::features(config)),+ }
            }

            /// Shape, configuration, derived numbers and binding numbers as the template sees them.
            pub fn context(&self) -> serde_json::Value {
                let (shape, config, derived) = match self { $(Self::$kernel { shape, config } => (
                    serde_json::to_value(shape).unwrap_or_default(),
                    serde_json::to_value(config).unwrap_or_default(),
                    <crate::kernels::$module::$kernel as Kernel>::derived(shape, config),
                )),+ };
                let (subgroups, f16) = self.features();
                serde_json::json!({
                    "s": shape,
                    "c": config,
                    "d": derived.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
                    "b": self.bindings().into_iter().enumerate().map(|(i, n)| (n, i))
                        .collect::<std::collections::BTreeMap<_, _>>(),
                    "use": { "subgroups": subgroups, "f16": f16 },
                })
            }
        }
    };
}

/// JSON with keys in sorted order, so that equal values give equal text.
fn canonical_json<T: Serialize>(value: &T) -> String {
    // serde_json's map is a BTreeMap (feature `preserve_order` is off), hence sorted.
    serde_json::to_value(value).map(|v| v.to_string()).unwrap_or_default()
}

registry! {
    gather::Gather,
    ple_mix::PleMix,
    norm::Norm,
    gemv::Gemv,
    gemm::Gemm,
    rope::Rope,
    attention::Attention,
    attention_merge::AttentionMerge,
    argmax::Argmax,
    topk::Topk,
    sample::Sample,
}
