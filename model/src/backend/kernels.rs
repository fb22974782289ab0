//! Which configuration and which shader text a workload gets on this device.

use std::collections::HashMap;
#[cfg(feature = "jit")]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wgforge_codegen::{Binding, Caps, Variant, Workload};
use wgforge_runtime::{AdapterReport, KernelInfo};

use crate::{Error, Result, embedded};

/// A shader and its bindings.
#[cfg(feature = "jit")]
type Text = (String, Vec<Binding>);

/// Texts rendered so far, by kernel, shape and configuration. Hundreds of steps share few kernels, and a tuner
/// makes plans again and again that differ in one.
#[cfg(feature = "jit")]
#[derive(Clone, Default)]
struct Texts(Arc<Mutex<HashMap<String, Text>>>);

#[cfg(feature = "jit")]
impl Texts {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Text>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(feature = "jit")]
impl std::fmt::Debug for Texts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} texts", self.lock().len())
    }
}

/// Kernels for one device: tuned ones first, then embedded ones, then generic ones.
#[derive(Debug, Default, Clone)]
pub struct Kernels {
    caps: Caps,
    /// Name and vendor of the adapter, which embedded databases were made for or not.
    adapter: (String, u32),
    /// The adapter computes in software, where a dispatch costs little.
    software: bool,
    tuned: HashMap<(&'static str, String), Variant>,
    /// Which database `tuned` came from, for people and for `bench --json`.
    source: String,
    #[cfg(feature = "jit")]
    texts: Texts,
}

/// What was tuned on this very adapter (`here`) as it was, on others without waiting, or not at all where it cannot be
/// without; a build that cannot render has no text of that, and waits.
fn as_tuned(variant: Variant, here: bool) -> Option<Variant> {
    let no_text = cfg!(not(feature = "jit")) && !variant.workload().waits();
    if here || no_text { Some(variant) } else { variant.without_waiting() }
}

impl Kernels {
    /// No tuned kernels: every workload gets its generic configuration.
    pub fn generic(caps: &Caps) -> Self {
        Self { caps: caps.clone(), source: format!("generic-{}", caps.class()), ..Self::default() }
    }

    /// Tuned variants; the ones this device cannot run are left out and returned with the reason.
    pub fn tuned(caps: &Caps, source: &str, variants: Vec<Variant>) -> (Self, Vec<String>) {
        let mut kernels = Self::generic(caps);
        source.clone_into(&mut kernels.source);
        let mut refused = Vec::new();
        for v in variants {
            match v.why_not(caps) {
                Some(reason) => refused.push(format!("{} {}: {reason}", v.kernel(), v.config_json())),
                None => {
                    let workload = v.workload();
                    kernels.tuned.insert((workload.kernel(), workload.shape_json()), v);
                }
            }
        }
        (kernels, refused)
    }

    /// The embedded database that fits an adapter best, and why it: measured on it, on a card of the
    /// same vendor and class, or the defaults of its class.
    pub fn embedded(adapter: &AdapterReport) -> (Self, String) {
        let caps = &adapter.caps;
        let Some(set) = embedded::select_for(caps, &adapter.name, adapter.vendor) else {
            return (Self::generic(caps), "no embedded database fits this device".into());
        };
        let Some(name) = set.adapter else {
            // Defaults are found shape by shape, and count as such.
            return (Self::generic(caps), format!("untuned defaults for class {}", set.class));
        };
        let parse = |info: &KernelInfo| {
            let json = |text| serde_json::from_str(text).ok();
            Workload::parse(info.kernel, json(info.shape)?).ok()?.with_config(json(info.config)?).ok()
        };
        let why = if name == adapter.name {
            format!("measured on this {name}")
        } else {
            format!("measured on {name}, of the same vendor and class ({})", set.class)
        };
        let here = |v: Variant| as_tuned(v, name == adapter.name);
        let variants = set.kernels.iter().filter_map(parse).filter_map(here).collect();
        (Self::tuned(caps, set.name, variants).0, why)
    }

    /// The same, but for the workloads of `variants`; those this device cannot run change nothing.
    #[must_use]
    pub fn with(&self, variants: &[Variant]) -> Self {
        let mut kernels = self.clone();
        for v in variants.iter().filter(|v| v.why_not(&self.caps).is_none()) {
            let workload = v.workload();
            kernels.tuned.insert((workload.kernel(), workload.shape_json()), v.clone());
        }
        kernels
    }

    /// Prefers what was embedded for this adapter.
    pub(crate) fn prefer(&mut self, adapter: &AdapterReport) {
        self.adapter = (adapter.name.clone(), adapter.vendor);
        self.software = adapter.device_type == "cpu";
    }

    /// The same, with nothing tuned for `workloads`.
    #[must_use]
    pub fn without(&self, workloads: &[Workload]) -> Self {
        let mut kernels = self.clone();
        for w in workloads {
            kernels.tuned.remove(&(w.kernel(), w.shape_json()));
        }
        kernels
    }

    /// How far from this device the closest database is that has a configuration for `workload`: 0 is
    /// the one in use, then come embedded ones, those for this very adapter first.
    fn rank(&self, workload: &Workload) -> Option<usize> {
        let shape = workload.shape_json();
        if self.tuned.contains_key(&(workload.kernel(), shape.clone())) {
            return Some(0);
        }
        let (name, vendor) = &self.adapter;
        let sets = embedded::sets_for(&self.caps, name, *vendor);
        let has = |set: &&embedded::KernelSet| {
            // What waits in any case is good on the card it was tuned on.
            (!workload.waits() || set.adapter == Some(name))
                && set.find_within(&self.caps, workload.kernel(), &shape).is_some()
        };
        sets.iter().position(has).map(|at| at + 1)
    }

    /// Whether a plan has `joined` in place of what ends in `apart`: where the closest database that
    /// has either has it, for a tuner keeps it only where whole tokens gained. Where none does, a
    /// GPU's plan has it: there the dispatches that it saves nearly always cost more than what it
    /// computes twice. (Not so products of floats, see docs/rejected.md.) In software they cost little,
    /// so the defaults of a class, which are for GPUs, say nothing.
    pub(crate) fn joins(&self, joined: &Workload, apart: &Workload) -> bool {
        if self.software {
            return self.rank(joined) == Some(0) && !self.source.starts_with("generic-");
        }
        match (self.rank(joined), self.rank(apart)) {
            (Some(joined), Some(apart)) => joined <= apart,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => !joined.sums_floats() && !joined.waits() && self.choose(joined.clone()).is_ok(),
        }
    }

    /// The best embedded kernel for a workload.
    fn find(&self, workload: &Workload) -> Option<&'static KernelInfo> {
        let (name, vendor) = &self.adapter;
        embedded::find_for(&self.caps, name, *vendor, workload.kernel(), &workload.shape_json())
    }

    /// The database in use.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The configuration for `workload`.
    ///
    /// # Errors
    /// [`Error::Kernel`] when no configuration runs on this device, with the reason.
    pub fn choose(&self, workload: Workload) -> Result<Variant> {
        if let Some(v) = self.tuned.get(&(workload.kernel(), workload.shape_json())) {
            return Ok(v.clone());
        }
        if let Some(v) = self.committed(&workload) {
            return Ok(v);
        }
        if let Some(short) = workload.in_short_contexts()
            // Nobody tuned for long contexts: what serves short ones.
            && let Ok(config) = serde_json::from_str(&self.choose(short)?.config_json())
            && let Ok(variant) = workload.with_config(config)
        {
            return Ok(variant);
        }
        let variant = workload.generic(&self.caps);
        match variant.why_not(&self.caps) {
            None => Ok(variant),
            // The generic choice is a guess; the candidates are the whole space.
            Some(reason) => {
                let mut all = workload.candidates(&self.caps).into_iter();
                let runs = all.find(|v| v.why_not(&self.caps).is_none() && !v.waits());
                runs.ok_or_else(|| Error::Kernel {
                    kernel: format!("{} {}", workload.kernel(), workload.shape_json()),
                    report: format!("no configuration runs on this device: {reason}"),
                })
            }
        }
    }

    /// The configuration a committed database has for `workload`, if this device can run it.
    fn committed(&self, workload: &Workload) -> Option<Variant> {
        let ((name, vendor), shape) = (&self.adapter, workload.shape_json());
        let sets = embedded::sets_for(&self.caps, name, *vendor);
        let with = |set: &&embedded::KernelSet| {
            set.find_within(&self.caps, workload.kernel(), &shape).map(|info| (set.adapter, info))
        };
        let (measured_on, info) = sets.iter().find_map(with)?;
        let config = serde_json::from_str(info.config).ok()?;
        let variant = workload.with_config(config).ok()?;
        as_tuned(variant, measured_on == Some(name)).filter(|v| v.why_not(&self.caps).is_none())
    }

    /// The embedded text of a variant, in the dialect of the target this program was built for.
    fn embedded_shader(&self, variant: &Variant) -> Option<(String, Vec<Binding>)> {
        let workload = variant.workload();
        // The text does not depend on the context.
        let short = || workload.in_short_contexts().and_then(|short| self.find(&short));
        let config = variant.config_json();
        let info = self.find(&workload).into_iter().chain(short()).find(|info| info.config == config)?;
        let bindings =
            info.bindings.iter().map(|(name, access)| Binding { name: (*name).into(), access: *access });
        Some((info.wgsl.to_owned(), bindings.collect()))
    }

    /// The shader of a variant: embedded at build time, or rendered now.
    ///
    /// # Errors
    /// [`Error::Kernel`] when it is not embedded and this build cannot render (feature `jit`),
    /// or when it does not validate.
    pub(crate) fn shader(&self, variant: &Variant) -> Result<(String, Vec<Binding>)> {
        if let Some(found) = self.embedded_shader(variant) {
            return Ok(found);
        }
        #[cfg(feature = "jit")]
        {
            let key =
                format!("{} {} {}", variant.kernel(), variant.workload().shape_json(), variant.config_json());
            if let Some(found) = self.texts.lock().get(&key) {
                return Ok(found.clone());
            }
            let target = if cfg!(target_arch = "wasm32") {
                wgforge_codegen::Target::Web
            } else {
                wgforge_codegen::Target::Native
            };
            let rendered = variant
                .render(target)
                .map_err(|e| Error::Kernel { kernel: variant.kernel().into(), report: e.to_string() })?;
            let text = (rendered.wgsl, rendered.bindings);
            self.texts.lock().insert(key, text.clone());
            Ok(text)
        }
        #[cfg(not(feature = "jit"))]
        Err(Error::Kernel {
            kernel: format!("{} {}", variant.kernel(), variant.workload().shape_json()),
            report: "it was not embedded when this program was built, and the feature `jit` is off".into(),
        })
    }
}

#[cfg(all(test, feature = "jit"))]
mod tests {
    use super::*;

    /// The card of the committed databases that makes q, k and v in attention, as its driver shows it.
    const CARD: &str = "NVIDIA H200";
    const NVIDIA: u32 = 0x10de;

    fn adapter(name: &str, storage_bindings: u32) -> AdapterReport {
        let caps = Caps {
            max_invocations: 1024,
            max_workgroup_bytes: 48 << 10,
            max_storage_bindings: storage_bindings,
            ..Caps::webgpu_baseline().with_subgroups(32).with_f16(true)
        };
        AdapterReport {
            name: name.into(),
            vendor: NVIDIA,
            device: 0,
            device_type: "discrete".into(),
            driver: "NVIDIA".into(),
            driver_info: "1".into(),
            backend: "vulkan".into(),
            subgroup_min: 32,
            subgroup_max: 32,
            caps,
            features: Vec::new(),
            compliant: true,
        }
    }

    fn of_card() -> &'static embedded::KernelSet {
        embedded::SETS.iter().find(|set| set.adapter == Some(CARD)).expect("its database is embedded")
    }

    fn workload(info: &KernelInfo) -> Workload {
        let shape = serde_json::from_str(info.shape).expect("a shape");
        Workload::parse(info.kernel, shape).expect("a workload")
    }

    /// A workload that waits in any case, and one that does not; both in the card's database.
    fn waiting_and_apart() -> (Workload, Workload) {
        let mut all = of_card().kernels.iter().map(workload);
        let waiting = all.clone().find(Workload::waits).expect("the card's attention makes q, k and v");
        (waiting, all.find(|w| w.kernel() == "gemv").expect("every database has products"))
    }

    fn embedded(adapter: &AdapterReport) -> Kernels {
        let (mut kernels, _) = Kernels::embedded(adapter);
        kernels.prefer(adapter);
        kernels
    }

    #[test]
    fn what_waits_is_chosen_on_the_card_it_was_tuned_on_alone() {
        let (waiting, apart) = waiting_and_apart();
        let here = embedded(&adapter(CARD, 32));
        assert_eq!((here.rank(&waiting), here.rank(&apart)), (Some(0), Some(0)), "both are this card's");
        assert!(here.joins(&waiting, &apart), "a plan of this card waits");
        let other = embedded(&adapter("NVIDIA L4", 32));
        assert_eq!(other.rank(&waiting), None, "nobody tuned it there");
        assert!(!other.joins(&waiting, &apart), "another card of the vendor does not wait");
    }

    #[test]
    fn what_the_user_tuned_without_waiting_comes_before_an_embedded_database_that_waits() {
        let (waiting, apart) = waiting_and_apart();
        let card = adapter(CARD, 32);
        let tuned = vec![apart.generic(&card.caps)];
        let (mut kernels, refused) = Kernels::tuned(&card.caps, "of the user", tuned);
        assert_eq!(refused, Vec::<String>::new(), "the card runs a generic product");
        kernels.prefer(&card);
        assert_eq!(kernels.rank(&waiting), Some(1), "the embedded one is second");
        assert!(!kernels.joins(&waiting, &apart), "the user's tuner kept them apart");
    }

    #[test]
    fn a_device_with_few_bindings_goes_without_single_kernels_and_not_without_the_database() {
        let (waiting, apart) = waiting_and_apart();
        let few = adapter(CARD, 10);
        let most = of_card().kernels.iter().map(KernelInfo::storage_bindings).max().unwrap_or(0);
        assert!(most > 10, "something needs more than ten bindings, not {most}");
        let kernels = embedded(&few);
        assert_eq!(kernels.source(), of_card().name, "the rest of it is of use");
        assert_eq!((kernels.rank(&waiting), kernels.rank(&apart)), (None, Some(0)), "{most} bindings of 10");
        assert!(kernels.find(&waiting).is_none(), "its text is not offered either");
        assert!(!kernels.joins(&waiting, &apart), "a plan of ten bindings");
    }
}
