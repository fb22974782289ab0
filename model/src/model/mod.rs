//! A loaded model: weights, caches and prepared programs on one backend.

mod dispatches;
mod inspect;
mod programs;
mod run;
mod tuning;

pub use dispatches::Dispatch;

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use programs::{Lane, Programs};
use wgforge_codegen::types::{Act, stride};
use wgforge_runtime::Device;

use crate::{
    Error, Request, Result,
    backend::{Backend, Cpu, Fetch, Gpu, Kernels, View},
    checkpoint::Checkpoint,
    config::{GenerationConfig, LayerKind, TextConfig},
    fusion::Fusion,
    host_rows::HostTable,
    pack::WeightMode,
    plan::{Cache, RING, Rows},
    weights::Weights,
};

/// Where to run.
#[derive(Debug)]
pub enum Target {
    /// On a device, with kernels for it.
    Gpu(Device, Kernels),
    /// On the CPU, by the kernels' references.
    Reference,
}

/// How to load and run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Storage of weights the checkpoint holds as floats.
    pub weights: WeightMode,
    /// Vectors handed between kernels: `Some(true)` f16, `Some(false)` f32; `None`: f16 where
    /// the device has the type. The residual stream and all sums are f32 in any case.
    pub f16_activations: Option<bool>,
    /// The KV cache likewise; `None`: f16 on a device, f32 in the reference.
    pub f16_kv: Option<bool>,
    /// Tokens of a prefill chunk.
    pub chunk: u32,
    /// Largest binding to use, bytes, if smaller than the device's: matrices and tables are
    /// split or gathered by the host as on a device with that limit.
    pub binding_limit: Option<u64>,
    /// Which dispatches of a decoded token are joined; `None`: as the kernels in use suggest.
    pub fusion: Option<Fusion>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            weights: WeightMode::Stored,
            f16_activations: None,
            f16_kv: None,
            chunk: 512,
            binding_limit: None,
            fusion: None,
        }
    }
}

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    /// The most likely one.
    Greedy,
    /// A draw.
    Sample {
        /// Divides the logits; above 0.
        temperature: f32,
        /// Candidates; 0 stands for [`Choice::MAX_TOP_K`], the most the sampler holds.
        top_k: u32,
        /// Probability mass of the candidates, in (0, 1].
        top_p: f32,
        /// Same seed, same model, same device: same tokens.
        seed: u64,
    },
}

impl Choice {
    /// Candidates the sampler can hold.
    pub const MAX_TOP_K: u32 = 1024;

    /// Candidates to sort.
    fn keep(top_k: u32) -> u32 {
        if top_k == 0 { Self::MAX_TOP_K } else { top_k.next_power_of_two().clamp(64, Self::MAX_TOP_K) }
    }
}

/// Tokens under way at most; a ring has room for as many past a stop.
const AHEAD: u32 = 8;
const _: () = assert!(AHEAD <= RING, "the ring of chosen tokens holds those under way");
/// Slots the global caches start with.
const FIRST_SLOTS: u32 = 1024;

/// Gemma 4 ready to run one sequence.
#[derive(Debug)]
pub struct Model {
    config: TextConfig,
    generation: GenerationConfig,
    label: String,
    format: String,
    backend: Backend,
    weights: Weights,
    host: Option<HostTable>,
    caches: Vec<Option<Cache>>,
    slots: u32,
    act: Act,
    kv: Act,
    fusion: Option<Fusion>,
    chunk: u32,
    one: Lane,
    many: Lane,
    full: Lane,
    chosen: View,
    sampling: View,
    programs: Programs,
    position: u32,
}

impl Model {
    /// Loads a checkpoint. `progress` is told the bytes that have been packed and sent.
    ///
    /// # Errors
    /// A damaged or unsupported checkpoint, or a device without enough memory.
    pub async fn load(
        checkpoint: &Arc<Checkpoint>,
        target: Target,
        options: &Options,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        checkpoint.validate()?;
        let config = checkpoint.config().clone();
        supported(&config)?;
        let (mut backend, auto_f16) = match target {
            Target::Gpu(device, kernels) => {
                let f16 = device.caps().f16;
                let gpu = Gpu::new(device, kernels, weight_bytes(checkpoint), options.binding_limit).await?;
                (Backend::Gpu(Box::new(gpu)), (f16, true))
            }
            Target::Reference => (Backend::Cpu(Cpu::default()), (false, false)),
        };
        let float = |f16: bool| if f16 { Act::F16 } else { Act::F32 };
        let act = float(options.f16_activations.unwrap_or(auto_f16.0));
        let kv = float(options.f16_kv.unwrap_or(auto_f16.1));
        let weights = Weights::load(checkpoint, &mut backend, options.weights, act, progress).await?;
        let chunk = options.chunk.clamp(1, to_u32(config.max_position));
        let slots = FIRST_SLOTS.min(to_u32(config.max_position)).max(chunk);
        let caches = caches(&mut backend, &config, kv, chunk, slots).await?;
        let host = if weights.ple_table.on_host {
            Some(HostTable::new(checkpoint, options.weights, &mut backend, chunk).await?)
        } else {
            None
        };
        let one = Lane {
            rows: Rows::One,
            run: backend.buffer("run", 16).await?,
            ids: backend.buffer("ids", 16).await?,
            buffers: HashMap::new(),
        };
        let many = Lane {
            rows: Rows::Many(chunk),
            run: backend.buffer("prefill run", 16).await?,
            ids: backend.buffer("prefill ids", u64::from(chunk) * 4).await?,
            buffers: HashMap::new(),
        };
        // All logits of a chunk must fit one binding.
        let row = u64::from(stride(to_u32(config.vocab_size))) * 4;
        let full_chunk = to_u32(to_usize(backend.max_binding() / row)).clamp(1, chunk);
        let full = Lane {
            rows: Rows::Many(full_chunk),
            run: backend.buffer("logits run", 16).await?,
            ids: backend.buffer("logits ids", u64::from(full_chunk) * 4).await?,
            buffers: HashMap::new(),
        };
        let chosen = backend.buffer("chosen", u64::from(RING) * 4).await?;
        let sampling = backend.buffer("sampling", 16).await?;
        Ok(Self {
            generation: checkpoint.generation().clone(),
            label: checkpoint.label().to_owned(),
            format: format_name(checkpoint, options.weights),
            config,
            backend,
            weights,
            host,
            caches,
            slots,
            act,
            kv,
            fusion: options.fusion,
            chunk,
            one,
            many,
            full,
            chosen,
            sampling,
            programs: Programs::default(),
            position: 0,
        })
    }

    /// Tokens of a piece when all logits are wanted.
    fn full_chunk(&self) -> u32 {
        match self.full.rows {
            Rows::One => 1,
            Rows::Many(n) => n,
        }
    }

    /// The model's configuration.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// Sampling defaults and stop ids.
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// What the checkpoint is called.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How weights are stored: `mobile`, `bf16`, `bf16 as int4`, …
    pub fn format(&self) -> &str {
        &self.format
    }

    /// Element types: `(activations, cache)`, `f32` or `f16`.
    pub fn precision(&self) -> (&'static str, &'static str) {
        let name = |a| if a == Act::F16 { "f16" } else { "f32" };
        (name(self.act), name(self.kv))
    }

    /// Bytes of weights a decoded token reads.
    pub fn weight_bytes_per_token(&self) -> u64 {
        self.weights.bytes_per_token
    }

    /// Bytes of device memory in use.
    pub fn memory_in_use(&self) -> u64 {
        self.backend.memory_in_use()
    }

    /// Tokens in the cache.
    pub fn position(&self) -> u32 {
        self.position
    }

    /// Forgets the sequence.
    pub fn reset(&mut self) {
        self.position = 0;
    }

    /// Compiles and runs everything a conversation needs, so that the first answer does not wait for
    /// it: some drivers compile a kernel only when it runs. `choices` are those to be ready for. The
    /// sequence is forgotten.
    ///
    /// # Errors
    /// A kernel that does not compile, a failing device.
    pub async fn warm_up(&mut self, choices: &[Choice]) -> Result<()> {
        for choice in choices {
            self.reset();
            let prompt = vec![0; 2];
            let request = Request { prompt, max_new: 2, choice: *choice, stop: Vec::new() };
            self.generate(&request, &mut |_| ControlFlow::Continue(())).await?;
        }
        self.reset();
        Ok(())
    }

    /// Forgets what follows the first `position` tokens. False, and nothing is forgotten, where they
    /// are not there, or where later tokens have taken the places of those that sliding layers would
    /// look back to: the rings hold a chunk more than a window.
    #[must_use]
    pub fn rewind(&mut self, position: u32) -> bool {
        let Some(back) = self.position.checked_sub(position) else { return false };
        let window = to_u32(self.config.window);
        // What was run past a stop has taken places too.
        let kept = |ring: u32| self.position + AHEAD <= ring || back + AHEAD <= ring.saturating_sub(window);
        let possible = self.caches.iter().flatten().all(|cache| cache.ring == 0 || kept(cache.ring));
        if possible {
            self.position = position;
        }
        possible
    }

    /// Dispatches recorded since the last call (0 in the reference).
    pub fn take_dispatches(&mut self) -> u32 {
        match &mut self.backend {
            Backend::Gpu(g) => g.take_dispatches(),
            Backend::Cpu(_) => 0,
        }
    }

    /// How many tokens may be under way: one where the host must gather for the next.
    pub(crate) fn ahead(&self) -> u32 {
        if self.host.is_some() || matches!(self.backend, Backend::Cpu(_)) { 1 } else { AHEAD }
    }

    pub(crate) fn set_position(&mut self, position: u32) {
        self.position = position;
    }

    pub(crate) async fn take(&mut self, ids: Fetch) -> Result<Vec<u32>> {
        let bytes = self.backend.take(ids).await?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect())
    }

    /// Makes room for `tokens` more tokens.
    pub(crate) async fn reserve(&mut self, tokens: u32) -> Result<()> {
        let wanted = u64::from(self.position) + u64::from(tokens);
        if wanted > self.config.max_position as u64 {
            return Err(Error::ContextOverflow { wanted: to_usize(wanted), limit: self.config.max_position });
        }
        let wanted = to_u32(to_usize(wanted));
        if wanted <= self.slots {
            return Ok(());
        }
        let slots = wanted.next_power_of_two().min(to_u32(self.config.max_position));
        for i in 0..self.caches.len() {
            if let Some(cache) = self.caches[i].filter(|c| c.ring == 0) {
                let bytes = cache_bytes(&self.config, i, self.kv, slots);
                let k = self.backend.grow(cache.k, &format!("{i}.k"), bytes).await?;
                let v = self.backend.grow(cache.v, &format!("{i}.v"), bytes).await?;
                self.caches[i] = Some(Cache { k, v, ring: 0 });
            }
        }
        self.slots = slots;
        self.programs = Programs::default();
        Ok(())
    }
}

fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Bytes of all tensors of a file, dead ones included.
fn weight_bytes(checkpoint: &Checkpoint) -> u64 {
    checkpoint.names().filter_map(|n| checkpoint.tensor(n).ok()).map(|t| t.data.len() as u64).sum()
}

/// Bytes of one of a layer's two caches with `slots` slots.
fn cache_bytes(config: &TextConfig, layer: usize, kv: Act, slots: u32) -> u64 {
    let element = if kv == Act::F16 { 2 } else { 4 };
    u64::from(slots) * config.kv_heads(layer) as u64 * config.head_dim(layer) as u64 * element
}

/// Caches of the layers that own one. A sliding layer's ring holds a window and a chunk, since a
/// chunk is appended before its first token looks back; or what is under way and as much again, to be
/// taken back.
async fn caches(
    backend: &mut Backend,
    config: &TextConfig,
    kv: Act,
    chunk: u32,
    slots: u32,
) -> Result<Vec<Option<Cache>>> {
    let mut caches = Vec::new();
    for i in 0..config.num_layers() {
        caches.push(if config.owns_kv(i) {
            let ring = if config.kind(i) == LayerKind::Sliding {
                to_u32(config.window).saturating_add(chunk.max(2 * AHEAD))
            } else {
                0
            };
            let bytes = cache_bytes(config, i, kv, if ring > 0 { ring } else { slots });
            let k = backend.buffer(&format!("{i}.k"), bytes).await?;
            let v = backend.buffer(&format!("{i}.v"), bytes).await?;
            Some(Cache { k, v, ring })
        } else {
            None
        });
    }
    Ok(caches)
}

/// Shapes the kernels cannot take, said before anything is loaded.
fn supported(config: &TextConfig) -> Result<()> {
    let advice = "no published Gemma 4 has such a shape; check config.json";
    if !config.ple_dim.is_multiple_of(4) {
        return Err(Error::unsupported(format!("hidden_size_per_layer_input = {}", config.ple_dim), advice));
    }
    if config.vocab_size_per_layer_input < config.vocab_size {
        let what = format!(
            "a per-layer vocabulary of {} under the vocabulary of {}",
            config.vocab_size_per_layer_input, config.vocab_size
        );
        return Err(Error::unsupported(what, advice));
    }
    for i in 0..config.num_layers() {
        let alike = (0..i).find(|j| config.kind(*j) == config.kind(i));
        if let Some(j) = alike.filter(|j| config.head_dim(*j) != config.head_dim(i)) {
            return Err(Error::unsupported(
                format!("different head sizes in layers {j} and {i}, which are of one kind"),
                advice,
            ));
        }
        if !config.head_dim(i).is_multiple_of(8) {
            return Err(Error::unsupported(
                format!("a head size of {} in layer {i}", config.head_dim(i)),
                advice,
            ));
        }
    }
    Ok(())
}

fn format_name(checkpoint: &Checkpoint, mode: WeightMode) -> String {
    match (checkpoint.format_name(), mode) {
        ("mobile", _) | (_, WeightMode::Stored) => checkpoint.format_name().to_owned(),
        (stored, WeightMode::Int8) => format!("{stored} as int8"),
        (stored, WeightMode::Int4) => format!("{stored} as int4"),
    }
}
