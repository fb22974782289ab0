//! What every kernel family provides, and the erased forms the tuner, plans and databases use.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Caps, Cost,
    check::{Draw, Tolerance},
    custom::{self, Families},
    io::Io,
    types::Act,
};

/// Why a configuration cannot run a shape on a device; shown to people, so a whole sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(pub String);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns a [`Reason`] from `why_not` when the condition does not hold; what follows the condition
/// are the arguments of [`format!`].
#[macro_export]
macro_rules! require {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return ::core::option::Option::Some($crate::Reason(::std::format!($($why)+)));
        }
    };
}
pub(crate) use require;

/// One kernel family: a template and the Rust that knows its bounds.
///
/// Everything about a kernel stands in its implementation, here or in any other crate (see
/// [`custom`]). Shapes and configurations are plain data: numbers, booleans, strings and enums. In
/// databases a shape's integers lie between 0 and 4194304, a configuration's between 1 and 4096.
pub trait Kernel: Copy + fmt::Debug + Send + Sync + 'static {
    /// Name of the family, of its template and of its module.
    const NAME: &'static str;
    /// The template's text, which may use the components of `templates/parts`.
    ///
    /// It sees the shape as `s`, the configuration as `c`, [`Kernel::derived`] as `d`, the number
    /// of each binding as `b.NAME`, `use.subgroups` and `use.f16` by [`Kernel::features`], and
    /// `web`, which is true where the shader is for browsers.
    const TEMPLATE: &'static str;
    /// What must be computed.
    type Shape: Clone + fmt::Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// How it is computed: plain data, chosen by the tuner.
    type Config: Clone + fmt::Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Names of the bindings in order; the template numbers its variables by this list and
    /// reflection checks that it did.
    fn bindings(shape: &Self::Shape, config: &Self::Config) -> Vec<&'static str>;

    /// Names of the bindings it writes.
    fn written(shape: &Self::Shape, config: &Self::Config) -> Vec<&'static str>;

    /// Every configuration worth trying, each passing [`Kernel::why_not`].
    fn candidates(shape: &Self::Shape, caps: &Caps) -> Vec<Self::Config>;

    /// Whether a candidate is like those that won elsewhere: a search of a large space tries some of
    /// these before it draws any at random.
    fn promising(shape: &Self::Shape, config: &Self::Config) -> bool {
        let _ = (shape, config);
        false
    }

    /// The configuration to use on a device nobody has tuned.
    fn generic(shape: &Self::Shape, caps: &Caps) -> Self::Config;

    /// `None` when `config` can run `shape` on a device with `caps`. Asked before anything else of
    /// a configuration out of a file.
    fn why_not(shape: &Self::Shape, config: &Self::Config, caps: &Caps) -> Option<Reason>;

    /// Workgroups to dispatch for `tokens` tokens: constant, or proportional to the tokens and
    /// rounded up.
    fn groups(shape: &Self::Shape, config: &Self::Config, tokens: u32) -> [u32; 3];

    /// Numbers the template needs that follow from shape and configuration.
    fn derived(shape: &Self::Shape, config: &Self::Config) -> Vec<(&'static str, u32)> {
        let _ = (shape, config);
        Vec::new()
    }

    /// `(uses subgroups, uses WGSL f16)` of a configuration.
    fn features(config: &Self::Config) -> (bool, bool) {
        let _ = config;
        (false, false)
    }

    /// Whether it runs for one token only, whatever the number of tokens of a step.
    fn one_token(shape: &Self::Shape) -> bool {
        let _ = shape;
        false
    }

    /// The same computation on the CPU, written for reading: the oracle of every check. The
    /// configuration matters only where it decides how outputs are laid out.
    fn reference(shape: &Self::Shape, config: &Self::Config, io: &mut Io<'_>);

    /// Words for the binding `name` in a check: inputs of the kind [`Draw::inputs`] asks for,
    /// [`Draw::poison`] for outputs. Called once for each binding, in order.
    fn draw(shape: &Self::Shape, config: &Self::Config, name: &str, draw: &mut Draw) -> Vec<u32>;

    /// Element type of the output `name`, and how closely it must agree with the reference.
    fn output(shape: &Self::Shape, config: &Self::Config, name: &str) -> (Act, Tolerance);

    /// What one call must move and compute for `tokens` tokens, the first at `position`: for
    /// rooflines, so whatever the configuration reads twice counts once.
    fn cost(shape: &Self::Shape, config: &Self::Config, tokens: u32, position: u32) -> Cost;

    /// What must be dispatched behind a configuration that leaves pieces for others to finish; its
    /// outputs are then laid out as no other configuration's. Most leave none.
    fn followers(_: &Self::Shape, _: &Self::Config) -> Vec<Workload> {
        Vec::new()
    }
}

/// Defines the erased enums over all kernel families.
macro_rules! registry {
    ($($module:ident :: $kernel:ident),+ $(,)?) => {
        /// What must be computed: a kernel family and its shape.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "each variant is the family of the same name")]
        pub enum Workload {
            $($kernel(<crate::kernels::$module::$kernel as Kernel>::Shape),)+
            /// A kernel of another crate.
            Custom(custom::Workload),
        }

        /// A workload and the configuration that computes it.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "each variant is the family of the same name")]
        pub enum Variant {
            $($kernel {
                shape: <crate::kernels::$module::$kernel as Kernel>::Shape,
                config: <crate::kernels::$module::$kernel as Kernel>::Config,
            },)+
            /// A kernel of another crate.
            Custom(custom::Variant),
        }

        impl Workload {
            /// Whether it does in one dispatch what others of a plan do in several, so that a plan
            /// has either it or them.
            pub fn is_joined(&self) -> bool {
                match self {
                    Self::Gemv(s) => s.norm.is_some(),
                    Self::PleMix(s) => s.gather.is_some(),
                    Self::DecodeAttention(_) | Self::GemvPair(_) | Self::MergeGemv(_) => true,
                    _ => false,
                }
            }

            /// Whether products of floats are joined in it, or in what follows it.
            pub fn sums_floats(&self) -> bool {
                match self {
                    Self::GemvPair(s) => s.second.floats(),
                    Self::MergeGemv(s) => s.second.floats(),
                    Self::DecodeAttention(s) => s.then.as_ref().is_some_and(|then| then.floats()),
                    _ => false,
                }
            }

            /// Whether its workgroups wait for others however it is configured: a plan has it only where it was tuned.
            pub fn waits(&self) -> bool {
                matches!(self, Self::DecodeAttention(s) if s.first.is_some())
            }

            /// What computes the same in short contexts, of a workload for long ones.
            pub fn in_short_contexts(&self) -> Option<Self> {
                match self {
                    Self::DecodeAttention(s) if s.deep => {
                        let short = crate::kernels::decode_attention::Shape { deep: false, ..s.clone() };
                        Some(Self::DecodeAttention(short))
                    }
                    _ => None,
                }
            }
        }

        /// Names of the built-in families, in the order of the registry.
        pub const FAMILIES: &[&str] = &[$(<crate::kernels::$module::$kernel as Kernel>::NAME),+];

        /// `(name, template)` of every built-in family.
        pub const TEMPLATES: &[(&str, &str)] = &[$((
            <crate::kernels::$module::$kernel as Kernel>::NAME,
            <crate::kernels::$module::$kernel as Kernel>::TEMPLATE,
        )),+];

        impl Workload {
            /// Name of the family.
            pub fn kernel(&self) -> &'static str {
                match self { $(Self::$kernel(_) => <crate::kernels::$module::$kernel as Kernel>::NAME,)+ Self::Custom(w) => w.inner().kernel() }
            }

            /// The shape as JSON with sorted keys: part of the identity in databases.
            pub fn shape_json(&self) -> String {
                match self { $(Self::$kernel(s) => canonical_json(s),)+ Self::Custom(w) => w.inner().shape_json() }
            }

            /// The shape as JSON with keys in the order of its struct, for names people read.
            #[cfg(feature = "build")]
            pub(crate) fn shape_in_order(&self) -> String {
                match self {
                    $(Self::$kernel(s) => serde_json::to_string(s).unwrap_or_default(),)+
                    Self::Custom(w) => w.inner().shape_in_order(),
                }
            }

            /// Every configuration worth trying on a device with `caps`.
            pub fn candidates(&self, caps: &Caps) -> Vec<Variant> {
                match self { $(Self::$kernel(s) =>
                    <crate::kernels::$module::$kernel as Kernel>::candidates(s, caps).into_iter()
                        .map(|config| Variant::$kernel { shape: s.clone(), config }).collect(),)+
                    Self::Custom(w) => w.inner().candidates(caps).into_iter().map(Variant::Custom).collect() }
            }

            /// The configuration for a device nobody has tuned.
            pub fn generic(&self, caps: &Caps) -> Variant {
                match self { $(Self::$kernel(s) => Variant::$kernel {
                    shape: s.clone(),
                    config: <crate::kernels::$module::$kernel as Kernel>::generic(s, caps),
                },)+ Self::Custom(w) => Variant::Custom(w.inner().generic(caps)) }
            }

            /// Whether it runs for one token only, whatever the number of tokens of a step.
            pub fn one_token(&self) -> bool {
                match self { $(Self::$kernel(s) => <crate::kernels::$module::$kernel as Kernel>::one_token(s),)+ Self::Custom(w) => w.inner().one_token() }
            }

            /// Reads a workload of a built-in family from its name and its shape as JSON.
            ///
            /// # Errors
            /// An unknown family, or a shape with missing or wrong fields; the text says which.
            pub fn parse(kernel: &str, shape: serde_json::Value) -> Result<Self, String> {
                Self::parse_with(&Families::builtin(), kernel, shape)
            }

            /// Reads a workload of any of `families`.
            ///
            /// # Errors
            /// As [`Workload::parse`].
            pub fn parse_with(
                families: &Families,
                kernel: &str,
                shape: serde_json::Value,
            ) -> Result<Self, String> {
                match kernel {
                    $(<crate::kernels::$module::$kernel as Kernel>::NAME => serde_json::from_value(shape)
                        .map(Self::$kernel)
                        .map_err(|e| format!("shape of kernel `{kernel}`: {e}")),)+
                    other => match families.get(other) {
                        Some(family) => family.parse(shape).map(Self::Custom)
                            .map_err(|e| format!("shape of kernel `{kernel}`: {e}")),
                        None => {
                            let known: Vec<_> = families.names().collect();
                            Err(format!("unknown kernel `{other}`; known: {}", known.join(", ")))
                        }
                    },
                }
            }

            /// Joins this workload with a configuration given as JSON.
            ///
            /// # Errors
            /// A configuration with missing or wrong fields.
            pub fn with_config(&self, config: serde_json::Value) -> Result<Variant, String> {
                let fail = |e: String| format!("configuration of kernel `{}`: {e}", self.kernel());
                match self {
                    $(Self::$kernel(s) => serde_json::from_value(config)
                        .map(|config| Variant::$kernel { shape: s.clone(), config })
                        .map_err(|e| fail(e.to_string())),)+
                    Self::Custom(w) => w.inner().with_config(config).map(Variant::Custom).map_err(fail),
                }
            }
        }

        impl Variant {
            /// Name of the family.
            pub fn kernel(&self) -> &'static str {
                match self { $(Self::$kernel { .. } => <crate::kernels::$module::$kernel as Kernel>::NAME,)+ Self::Custom(v) => v.inner().kernel() }
            }

            /// The workload this variant computes.
            pub fn workload(&self) -> Workload {
                match self {
                    $(Self::$kernel { shape, .. } => Workload::$kernel(shape.clone()),)+
                    Self::Custom(v) => Workload::Custom(v.inner().workload()),
                }
            }

            /// The configuration as JSON with sorted keys.
            pub fn config_json(&self) -> String {
                match self { $(Self::$kernel { config, .. } => canonical_json(config),)+ Self::Custom(v) => v.inner().config_json() }
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
                    <crate::kernels::$module::$kernel as Kernel>::why_not(shape, config, caps),)+ Self::Custom(v) => v.inner().why_not(caps) }
            }

            /// Whether workgroups wait for others: it is right anywhere, and fast where they run side by side. What
            /// was tuned on one device says nothing of another then.
            pub fn waits(&self) -> bool {
                matches!(self, Self::DecodeAttention { config, .. } if config.project.is_some())
            }

            /// The same, leaving what comes behind the wait to another dispatch.
            #[must_use]
            pub fn without_waiting(&self) -> Option<Self> {
                let mut variant = self.clone();
                if let Self::DecodeAttention { config, .. } = &mut variant {
                    config.project = None;
                }
                (!self.workload().waits()).then_some(variant)
            }

            /// Names of the bindings in order.
            pub fn bindings(&self) -> Vec<&'static str> {
                match self { $(Self::$kernel { shape, config } =>
                    <crate::kernels::$module::$kernel as Kernel>::bindings(shape, config),)+ Self::Custom(v) => v.inner().bindings() }
            }

            /// Workgroups to dispatch for `tokens` tokens.
            pub fn groups(&self, tokens: u32) -> [u32; 3] {
                match self { $(Self::$kernel { shape, config } =>
                    <crate::kernels::$module::$kernel as Kernel>::groups(shape, config, tokens),)+ Self::Custom(v) => v.inner().groups(tokens) }
            }

            /// `(uses subgroups, uses WGSL f16)`.
            pub fn features(&self) -> (bool, bool) {
                match self { $(Self::$kernel { config, .. } =>
                    <crate::kernels::$module::$kernel as Kernel>::features(config),)+ Self::Custom(v) => v.inner().features() }
            }

            /// Names of the bindings it writes.
            pub fn written(&self) -> Vec<&'static str> {
                match self { $(Self::$kernel { shape, config } =>
                    <crate::kernels::$module::$kernel as Kernel>::written(shape, config),)+ Self::Custom(v) => v.inner().written() }
            }

            /// The CPU reference, with buffers in the order of the bindings.
            pub fn reference(&self, io: &mut Io<'_>) {
                match self { $(Self::$kernel { shape, config } =>
                    <crate::kernels::$module::$kernel as Kernel>::reference(shape, config, io),)+ Self::Custom(v) => v.inner().reference(io) }
            }

            /// Words for the binding `name` in a check.
            pub fn draw(&self, name: &str, draw: &mut Draw) -> Vec<u32> {
                match self { $(Self::$kernel { shape, config } =>
                    <crate::kernels::$module::$kernel as Kernel>::draw(shape, config, name, draw),)+ Self::Custom(v) => v.inner().draw(name, draw) }
            }

            /// Element type of an output and how closely it must agree with the reference.
            pub fn output(&self, name: &str) -> (Act, Tolerance) {
                match self { $(Self::$kernel { shape, config } =>
                    <crate::kernels::$module::$kernel as Kernel>::output(shape, config, name),)+ Self::Custom(v) => v.inner().output(name) }
            }

            /// What one call must move and compute for `tokens` tokens, the first at `position`.
            pub fn cost(&self, tokens: u32, position: u32) -> Cost {
                let tokens = if self.workload().one_token() { 1 } else { tokens };
                match self { $(Self::$kernel { shape, config } =>
                    <crate::kernels::$module::$kernel as Kernel>::cost(shape, config, tokens, position),)+ Self::Custom(v) => v.inner().cost(tokens, position) }
            }

            /// Whether it is like those that won elsewhere.
            pub fn promising(&self) -> bool {
                match self { $(Self::$kernel { shape, config } =>
                    <crate::kernels::$module::$kernel as Kernel>::promising(shape, config),)+ Self::Custom(v) => v.inner().promising() }
            }

            /// The workloads that must be dispatched behind this variant: what joins a split attention,
            /// what ends a first stage of argmax. Their time is part of what it costs.
            pub fn followers(&self) -> Vec<Workload> {
                match self { $(Self::$kernel { shape, config } =>
                    <crate::kernels::$module::$kernel as Kernel>::followers(shape, config),)+ Self::Custom(v) => v.inner().followers() }
            }

            /// The text of its template.
            #[cfg(feature = "render")]
            pub fn template(&self) -> &'static str {
                match self { $(Self::$kernel { .. } =>
                    <crate::kernels::$module::$kernel as Kernel>::TEMPLATE,)+ Self::Custom(v) => v.inner().template() }
            }

            /// Shape, configuration, derived numbers and binding numbers as the template sees them.
            pub fn context(&self) -> serde_json::Value {
                let (shape, config, derived) = match self { $(Self::$kernel { shape, config } => (
                    serde_json::to_value(shape).unwrap_or_default(),
                    serde_json::to_value(config).unwrap_or_default(),
                    <crate::kernels::$module::$kernel as Kernel>::derived(shape, config),
                ),)+ Self::Custom(v) => v.inner().values() };
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

/// For fields that are left out where they are 0.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands fields over by reference")]
pub(crate) fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// JSON with keys in sorted order, so that equal values give equal text.
pub(crate) fn canonical_json<T: Serialize>(value: &T) -> String {
    // serde_json's map is a BTreeMap (feature `preserve_order` is off), hence sorted.
    serde_json::to_value(value).map(|v| v.to_string()).unwrap_or_default()
}

registry! {
    gather::Gather,
    ple_mix::PleMix,
    clear::Clear,
    norm::Norm,
    gemv::Gemv,
    gemv_pair::GemvPair,
    gemm::Gemm,
    rope::Rope,
    attention::Attention,
    attention_merge::AttentionMerge,
    merge_gemv::MergeGemv,
    decode_attention::DecodeAttention,
    argmax::Argmax,
    topk::Topk,
    sample::Sample,
}
