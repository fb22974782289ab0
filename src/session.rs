//! From the global options to a checkpoint, an adapter, kernels and a loaded model.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use pollster::block_on;
use serde_json::{Value, json};
use wgforge::autotune::{self, Candidate, Origin, Selection};
use wgforge::model::{Checkpoint, Error, Kernels, Model, Options, Target, Tokenizer, WeightMode};
use wgforge::runtime::{AdapterReport, Backend, CapsMask, Device, DeviceOptions};

use crate::cli::{BackendChoice, FloatChoice, Global, WeightChoice};
use crate::console::{self, usage};

/// Where to compute.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Gpu(Box<Device>),
    Reference,
}

impl Place {
    /// The place the options ask for. Without an adapter, and if nobody asked for one, that is the
    /// CPU, with a notice.
    pub(crate) fn of(global: &Global) -> Result<Self> {
        if global.backend == Some(BackendChoice::Reference) {
            if let Some(file) = &global.kernels {
                return usage(format!("the reference backend uses no kernels of {}", file.display()));
            }
            return Ok(Self::Reference);
        }
        match block_on(Device::request(&device_options(global))) {
            Ok(device) => Ok(Self::Gpu(Box::new(device))),
            Err(error) if global.backend.is_some() || global.adapter.is_some() => Err(error.into()),
            Err(error) => {
                let reason = match error {
                    // Its own text lists what was passed over and what to install, as this does.
                    wgforge::runtime::Error::NoAdapter { .. } => "no GPU adapter was found".to_owned(),
                    other => other.to_string(),
                };
                eprintln!("notice: {reason}; computing on the CPU instead, which is slow. {}.", remedy());
                Ok(Self::Reference)
            }
        }
    }

    /// Name of the adapter.
    pub(crate) fn adapter(&self) -> String {
        match self {
            Self::Gpu(device) => device.report().name.clone(),
            Self::Reference => "CPU".into(),
        }
    }

    /// Name of the backend, as `--backend` takes it.
    pub(crate) fn backend(&self) -> String {
        match self {
            Self::Gpu(device) => device.report().backend.clone(),
            Self::Reference => "reference".into(),
        }
    }
}

/// What installs a driver here.
pub(crate) fn remedy() -> &'static str {
    if cfg!(target_os = "macos") {
        "Metal is part of macOS: this machine or virtual machine has no GPU that offers it"
    } else if cfg!(target_os = "windows") {
        "Install the GPU vendor's current driver (NVIDIA, AMD or Intel), which brings Vulkan and Direct3D 12"
    } else {
        "Install the GPU vendor's Vulkan driver, or a software one: on Debian and Ubuntu \
         `sudo apt-get install mesa-vulkan-drivers`"
    }
}

/// The runtime's form of the global options.
pub(crate) fn device_options(global: &Global) -> DeviceOptions {
    let backend = global.backend.and_then(|choice| match choice {
        BackendChoice::Vulkan => Some(Backend::Vulkan),
        BackendChoice::Metal => Some(Backend::Metal),
        BackendChoice::Dx12 => Some(Backend::Dx12),
        BackendChoice::Gl => Some(Backend::Gl),
        BackendChoice::Reference => None,
    });
    let disable = CapsMask { subgroups: global.no_subgroups, f16: global.no_f16, ..CapsMask::default() };
    DeviceOptions { backend, name: global.adapter.clone(), disable, ..DeviceOptions::default() }
}

/// A checkpoint with its vocabulary, where it has one.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) checkpoint: Arc<Checkpoint>,
    pub(crate) tokenizer: Option<Arc<Tokenizer>>,
    /// The built-in one.
    pub(crate) demo: bool,
}

impl Source {
    /// Opens `--model`, or the demo model.
    pub(crate) fn of(global: &Global) -> Result<Self> {
        let Some(path) = &global.model else {
            let checkpoint = Arc::new(wgforge::demo::checkpoint()?);
            let tokenizer = Some(Arc::new(wgforge::demo::tokenizer()?));
            return Ok(Self { checkpoint, tokenizer, demo: true });
        };
        refuse_what_is_no_folder(path)?;
        let checkpoint = Arc::new(Checkpoint::open(path)?);
        let tokenizer = match Tokenizer::from_file(path) {
            Ok(tokenizer) => Some(Arc::new(tokenizer)),
            Err(Error::MissingFile { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { checkpoint, tokenizer, demo: false })
    }

    /// What to call it.
    pub(crate) fn name(&self) -> &str {
        if self.demo { "demo" } else { self.checkpoint.label() }
    }

    /// Whether the file holds floats, so that `--weights` has a meaning.
    pub(crate) fn is_float(&self) -> bool {
        self.checkpoint.format_name() != "mobile"
    }
}

fn refuse_what_is_no_folder(path: &Path) -> Result<()> {
    let text = path.to_string_lossy();
    let advice =
        "download the checkpoint (config.json, model.safetensors, tokenizer.json) and give its folder";
    if text.to_ascii_lowercase().ends_with(".gguf") {
        bail!("{text}: GGUF files are not supported yet in this version; {advice}");
    }
    // `owner/name` and nothing there: surely a repository.
    let parts: Vec<&str> = text.split('/').collect();
    let plain = |part: &&str| !part.is_empty() && !part.starts_with('.') && !part.contains('\\');
    if !path.exists() && parts.len() == 2 && parts.iter().all(plain) {
        bail!(
            "{text}: no such folder, and fetching a repository is not supported yet in this version; {advice}"
        );
    }
    Ok(())
}

/// A model ready to run, and what to say about it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) model: Model,
    pub(crate) source: Source,
    pub(crate) place: Place,
    /// The database its kernels come from.
    pub(crate) kernels: String,
    pub(crate) load_s: f64,
}

impl Session {
    /// Whether the adapter computes in software.
    pub(crate) fn in_software(&self) -> bool {
        matches!(&self.place, Place::Gpu(d) if d.report().device_type == "cpu")
    }

    /// Opens and loads what the options name. `auto` is what `--weights auto` means here.
    pub(crate) fn open(global: &Global, auto: WeightMode, quiet: bool) -> Result<Self> {
        let source = Source::of(global)?;
        let place = Place::of(global)?;
        Self::load(global, &source, &place, weights(global, auto), quiet)
    }

    /// Loads a checkpoint with its float weights held as `weights`.
    pub(crate) fn load(
        global: &Global,
        source: &Source,
        place: &Place,
        weights: WeightMode,
        quiet: bool,
    ) -> Result<Self> {
        let (target, kernels) = match place {
            Place::Reference => (Target::Reference, "reference".to_owned()),
            Place::Gpu(device) => {
                let kernels = kernels(device, global.kernels.as_deref())?;
                let name = kernels.source().to_owned();
                (Target::Gpu((**device).clone(), kernels), name)
            }
        };
        let f16 = |choice| match choice {
            FloatChoice::Auto => None,
            FloatChoice::F32 => Some(false),
            FloatChoice::F16 => Some(true),
        };
        let options = Options {
            weights,
            f16_activations: f16(global.activations),
            f16_kv: f16(global.kv),
            ..Options::default()
        };
        let bar = console::bytes_bar("loading", packed_bytes(&source.checkpoint, weights), quiet);
        let start = Instant::now();
        let model = block_on(Model::load(&source.checkpoint, target, &options, &mut |bytes| bar.inc(bytes)));
        bar.finish_and_clear();
        let model = model.with_context(|| format!("loading {}", source.name()))?;
        let load_s = start.elapsed().as_secs_f64();
        Ok(Self { model, source: source.clone(), place: place.clone(), kernels, load_s })
    }

    /// The fields by which every JSON output says what it is about.
    pub(crate) fn json(&self) -> Value {
        let (activations, kv) = self.model.precision();
        json!({
            "adapter": self.place.adapter(),
            "backend": self.place.backend(),
            "kernels": self.kernels,
            "model": self.source.name(),
            "format": self.model.format(),
            "activations": activations,
            "kv": kv,
        })
    }

    /// The same in one line for people.
    pub(crate) fn describe(&self) -> String {
        let (activations, kv) = self.model.precision();
        format!(
            "{} ({}), activations {activations}, KV {kv}, on {} ({}), kernels {}",
            self.source.name(),
            self.model.format(),
            self.place.adapter(),
            self.place.backend(),
            self.kernels
        )
    }
}

/// What `--weights` means where `auto` stands for `auto`.
pub(crate) fn weights(global: &Global, auto: WeightMode) -> WeightMode {
    match global.weights {
        WeightChoice::Auto => auto,
        WeightChoice::Stored => WeightMode::Stored,
        WeightChoice::Int8 => WeightMode::Int8,
        WeightChoice::Int4 => WeightMode::Int4,
    }
}

/// The database a device gets: the named one, or the best there is.
pub(crate) fn choose_kernels(adapter: &AdapterReport, file: Option<&Path>) -> Result<Selection> {
    let Some(file) = file else { return Ok(autotune::for_adapter(adapter)?) };
    let (database, mistakes) = autotune::load(file)?;
    let candidate = Candidate { name: file.display().to_string(), origin: Origin::Named, database };
    let mut chosen = autotune::select(adapter, vec![candidate])?;
    chosen.notes.extend(mistakes.iter().map(ToString::to_string));
    Ok(chosen)
}

/// The kernels of that database.
fn kernels(device: &Device, file: Option<&Path>) -> Result<Kernels> {
    let chosen = match choose_kernels(device.report(), file) {
        Ok(chosen) => chosen,
        // Nobody asked for a database, and every kernel can do without one.
        Err(error) if file.is_none() => {
            eprintln!("notice: kernels without a database: {error:#}");
            return Ok(Kernels::generic(device.caps()));
        }
        Err(error) => return Err(error),
    };
    // What became of the user's own files; databases of other devices are doctor's subject.
    let own = file.is_some() || !chosen.mismatches.is_empty() && chosen.origin == Origin::Cache;
    for note in if own { &chosen.notes } else { &chosen.lost } {
        eprintln!("notice: {note}");
    }
    // What this device cannot run has been left out, with a note.
    let variants = chosen.database.entries().iter().map(|entry| entry.variant.clone()).collect();
    Ok(Kernels::tuned(device.caps(), &chosen.name, variants).0)
}

/// Bytes that packing will yield, near enough for a progress bar.
fn packed_bytes(checkpoint: &Checkpoint, weights: WeightMode) -> u64 {
    let stored: u64 =
        checkpoint.names().filter_map(|n| checkpoint.tensor(n).ok()).map(|t| t.data.len() as u64).sum();
    match weights {
        _ if checkpoint.format_name() == "mobile" => stored,
        WeightMode::Stored => stored,
        // Of 32 bits for two bf16 weights, 17 and 9 remain.
        WeightMode::Int8 => stored * 17 / 32,
        WeightMode::Int4 => stored * 9 / 32,
    }
}
