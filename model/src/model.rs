//! A loaded model: weights, caches and prepared programs on one backend.

use std::{collections::HashMap, sync::Arc};

use wgforge_codegen::types::{Act, stride};
use wgforge_runtime::Device;

use crate::{
    Error, Result,
    backend::{Backend, Cpu, Fetch, Gpu, Kernels, Program, View, Work},
    checkpoint::Checkpoint,
    config::{GenerationConfig, LayerKind, TextConfig},
    host_rows::HostTable,
    pack::WeightMode,
    plan::{Builder, Cache, RING, Rows, Stream, stream_bytes},
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
}

impl Default for Options {
    fn default() -> Self {
        Self { weights: WeightMode::Stored, f16_activations: None, f16_kv: None, chunk: 512, binding_limit: None }
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
    chunk: u32,
    one: Lane,
    many: Lane,
    chosen: View,
    sampling: View,
    programs: Programs,
    position: u32,
}

/// The inputs and buffers of one kind of plan.
#[derive(Debug)]
struct Lane {
    rows: Rows,
    run: View,
    ids: View,
    buffers: HashMap<String, View>,
}

/// Programs made so far; dropped when a cache grows, for bind groups hold its old buffer.
#[derive(Debug, Default)]
struct Programs {
    decode: Option<Decode>,
    sampled: HashMap<u32, Program>,
    prefill: Option<(Program, Stream)>,
    full: Option<(Program, View)>,
}

impl Programs {
    fn chooser<'a>(&'a self, decode: &'a Decode, choice: Choice) -> &'a Program {
        match choice {
            Choice::Greedy => &decode.greedy,
            Choice::Sample { top_k, .. } => &self.sampled[&Choice::keep(top_k)],
        }
    }
}

/// Decode in two halves: prefill runs its own first half and this second one for the last token.
#[derive(Debug)]
struct Decode {
    lower: Program,
    upper: Program,
    greedy: Program,
    /// What the lower half leaves to the upper one.
    between: Stream,
    logits: View,
    ple: View,
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
            chunk,
            one,
            many,
            chosen,
            sampling,
            programs: Programs::default(),
            position: 0,
        })
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

    /// Dispatches recorded since the last call (0 in the reference).
    pub fn take_dispatches(&mut self) -> u32 {
        match &mut self.backend {
            Backend::Gpu(g) => g.take_dispatches(),
            Backend::Cpu(_) => 0,
        }
    }

    /// How many submissions may be under way: one where the host must gather for the next token.
    pub(crate) fn depth(&self) -> usize {
        if self.host.is_some() || matches!(self.backend, Backend::Cpu(_)) { 1 } else { 4 }
    }

    pub(crate) fn set_position(&mut self, position: u32) {
        self.position = position;
    }

    pub(crate) async fn take(&mut self, fetch: Fetch) -> Result<u32> {
        let bytes = self.backend.take(fetch).await?;
        Ok(bytes.first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b)))
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

    fn builder(&mut self, many: bool) -> Builder<'_> {
        let lane = if many { &mut self.many } else { &mut self.one };
        Builder {
            backend: &mut self.backend,
            config: &self.config,
            weights: &self.weights,
            caches: &self.caches,
            act: self.act,
            kv: self.kv,
            rows: lane.rows,
            run: lane.run,
            ids: lane.ids,
            buffers: &mut lane.buffers,
            steps: Vec::new(),
        }
    }

    async fn prepare_decode(&mut self) -> Result<()> {
        if self.programs.decode.is_some() {
            return Ok(());
        }
        let (owners, layers, chosen) = (self.config.num_kv_owners(), self.config.num_layers(), self.chosen);
        let host = self.host.as_ref().map(|h| h.one);
        let mut b = self.builder(false);
        let mut stream = Stream::Whole(b.embed(host).await?);
        for i in 0..owners {
            stream = b.layer(i, stream).await?;
        }
        let between = stream;
        let lower = std::mem::take(&mut b.steps);
        for i in owners..layers {
            stream = b.layer(i, stream).await?;
        }
        let logits = b.head(stream).await?;
        let upper = std::mem::take(&mut b.steps);
        b.greedy(logits, chosen).await?;
        let greedy = std::mem::take(&mut b.steps);
        let ple = b.ple().await?;
        self.programs.decode = Some(Decode {
            lower: self.backend.prepare(lower).await?,
            upper: self.backend.prepare(upper).await?,
            greedy: self.backend.prepare(greedy).await?,
            between,
            logits,
            ple,
        });
        Ok(())
    }

    async fn prepare_prefill(&mut self) -> Result<()> {
        if self.programs.prefill.is_some() {
            return Ok(());
        }
        let owners = self.config.num_kv_owners();
        let host = self.host.as_ref().map(|h| h.many);
        let mut b = self.builder(true);
        let mut stream = Stream::Whole(b.embed(host).await?);
        for i in 0..owners {
            stream = b.layer(i, stream).await?;
        }
        let steps = std::mem::take(&mut b.steps);
        self.programs.prefill = Some((self.backend.prepare(steps).await?, stream));
        Ok(())
    }

    async fn prepare_sampler(&mut self, keep: u32) -> Result<()> {
        self.prepare_decode().await?;
        if self.programs.sampled.contains_key(&keep) {
            return Ok(());
        }
        let Some(logits) = self.programs.decode.as_ref().map(|d| d.logits) else { return Ok(()) };
        let (chosen, sampling) = (self.chosen, self.sampling);
        let mut b = self.builder(false);
        b.sampled(logits, chosen, sampling, keep).await?;
        let steps = std::mem::take(&mut b.steps);
        let program = self.backend.prepare(steps).await?;
        self.programs.sampled.insert(keep, program);
        Ok(())
    }

    /// Runs `tokens` (at least one) and submits the choice of the one that follows.
    pub(crate) async fn prefill(&mut self, tokens: &[u32], choice: Choice) -> Result<Fetch> {
        self.check_tokens(tokens)?;
        self.reserve(to_u32(tokens.len())).await?;
        self.prepare_choice(choice).await?;
        let (last, before) = tokens.split_last().ok_or_else(|| Error::Usage("the prompt is empty".into()))?;
        // A single token is decode's business.
        if before.is_empty() {
            self.write_one(*last, choice)?;
            return self.decode(choice);
        }
        self.prepare_prefill().await?;
        let chunk = self.chunk as usize;
        let mut rest = tokens;
        while rest.len() > chunk {
            self.write_many(&rest[..chunk])?;
            let Some((program, _)) = &self.programs.prefill else { break };
            self.backend.execute(&[Work::Run(program, self.chunk)], None)?;
            self.position += self.chunk;
            rest = &rest[chunk..];
        }
        self.write_many(rest)?;
        let n = to_u32(rest.len());
        self.position += n - 1;
        self.write_one(*last, choice)?;
        let (Some((program, stream)), Some(decode)) = (&self.programs.prefill, &self.programs.decode) else {
            unreachable!("both were prepared")
        };
        // The last token continues alone: its rows move to decode's buffers.
        let mut work = vec![Work::Run(program, n)];
        let row = |view: View, bytes: u64| view.part(bytes * u64::from(n - 1), bytes);
        match (*stream, decode.between) {
            (Stream::Pending { x, y, .. }, Stream::Pending { x: to_x, y: to_y, .. }) => {
                let y_bytes = self.act.row_bytes(to_u32(self.config.hidden));
                work.push(Work::Copy(
                    row(x, stream_bytes(&self.config)),
                    to_x.part(0, stream_bytes(&self.config)),
                ));
                work.push(Work::Copy(row(y, y_bytes), to_y.part(0, y_bytes)));
            }
            _ => unreachable!("a model has at least one layer with a cache"),
        }
        let ple_row = Act::F32.row_bytes(to_u32(self.config.ple_dim));
        let many_ple = self.many.buffers.iter().find(|(k, _)| k.starts_with("ple:")).map(|(_, v)| *v);
        let many_ple = many_ple.unwrap_or_else(|| unreachable!("prefill made its per-layer inputs"));
        for i in 0..self.config.num_layers() as u64 {
            let from = many_ple.part((i * u64::from(self.chunk) + u64::from(n - 1)) * ple_row, ple_row);
            work.push(Work::Copy(from, decode.ple.part(i * ple_row, ple_row)));
        }
        work.push(Work::Run(&decode.upper, 1));
        work.push(Work::Run(self.programs.chooser(decode, choice), 1));
        let fetch = work_fetch(&mut self.backend, &work, self.chosen, self.position);
        self.finish(fetch)
    }

    /// Submits one token whose id the previous submission chose, and the choice of the next.
    pub(crate) fn decode(&mut self, choice: Choice) -> Result<Fetch> {
        let Some(decode) = &self.programs.decode else { unreachable!("decode was prepared") };
        let chooser = self.programs.chooser(decode, choice);
        let work = [Work::Run(&decode.lower, 1), Work::Run(&decode.upper, 1), Work::Run(chooser, 1)];
        let fetch = work_fetch(&mut self.backend, &work, self.chosen, self.position);
        self.finish(fetch)
    }

    fn finish(&mut self, fetch: Result<Fetch>) -> Result<Fetch> {
        self.position += 1;
        fetch
    }

    /// Before decoding a token whose id the host knows: gathers its per-layer embedding where the
    /// device cannot.
    pub(crate) fn gather_for(&mut self, token: u32) -> Result<()> {
        match &self.host {
            Some(h) => h.gather(&mut self.backend, &[token], false),
            None => Ok(()),
        }
    }

    pub(crate) async fn prepare_choice(&mut self, choice: Choice) -> Result<()> {
        self.prepare_decode().await?;
        if let Choice::Sample { temperature, top_k, top_p, .. } = choice {
            self.prepare_sampler(Choice::keep(top_k)).await?;
            let params = [temperature.to_bits(), top_p.to_bits(), top_k, 0];
            self.backend.write(self.sampling, bytemuck::cast_slice(&params));
        }
        Ok(())
    }

    fn write_one(&mut self, token: u32, choice: Choice) -> Result<()> {
        let seed = if let Choice::Sample { seed, .. } = choice { seed } else { 0 };
        let [low, high] = bytemuck::cast::<u64, [u32; 2]>(seed);
        self.backend.write(self.one.run, bytemuck::cast_slice(&[self.position, 1, low, high]));
        self.backend.write(self.one.ids, bytemuck::cast_slice(&[token]));
        self.gather_for(token)
    }

    fn write_many(&mut self, tokens: &[u32]) -> Result<()> {
        let run = [self.position, to_u32(tokens.len()), 0, 0];
        self.backend.write(self.many.run, bytemuck::cast_slice(&run));
        self.backend.write(self.many.ids, bytemuck::cast_slice(tokens));
        match &self.host {
            Some(h) => h.gather(&mut self.backend, tokens, true),
            None => Ok(()),
        }
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let vocab = self.config.vocab_size.min(self.config.vocab_size_per_layer_input);
        match tokens.iter().find(|t| **t as usize >= vocab) {
            Some(t) => Err(Error::Usage(format!("token id {t} is outside the vocabulary of {vocab}"))),
            None => Ok(()),
        }
    }

    /// Logits after the softcap for every token, `[tokens, vocab]` row-major, either as prefill
    /// does it or one token at a time. The sequence starts anew.
    ///
    /// # Errors
    /// Ids outside the vocabulary, more tokens than the context, a failing device.
    pub async fn logits(&mut self, tokens: &[u32], one_by_one: bool) -> Result<Vec<f32>> {
        self.check_tokens(tokens)?;
        self.reset();
        self.reserve(to_u32(tokens.len())).await?;
        let vocab = self.config.vocab_size;
        let row = stride(to_u32(vocab)) as usize;
        let mut all = Vec::with_capacity(tokens.len() * vocab);
        let pieces = if one_by_one {
            self.prepare_decode().await?;
            tokens.chunks(1)
        } else {
            self.prepare_full().await?;
            tokens.chunks(self.chunk as usize)
        };
        for piece in pieces {
            let n = to_u32(piece.len());
            let view = if one_by_one {
                self.write_one(piece[0], Choice::Greedy)?;
                let Some(d) = &self.programs.decode else { unreachable!("decode was prepared") };
                self.backend.execute(&[Work::Run(&d.lower, 1), Work::Run(&d.upper, 1)], None)?;
                d.logits
            } else {
                self.write_many(piece)?;
                let Some((program, logits)) = &self.programs.full else { unreachable!("it was prepared") };
                self.backend.execute(&[Work::Run(program, n)], None)?;
                *logits
            };
            let bytes = self.backend.read(view.part(0, row as u64 * 4 * u64::from(n))).await?;
            for r in bytes.chunks_exact(row * 4) {
                all.extend(r.as_chunks::<4>().0[..vocab].iter().map(|b| f32::from_le_bytes(*b)));
            }
            self.position += n;
        }
        Ok(all)
    }

    async fn prepare_full(&mut self) -> Result<()> {
        if self.programs.full.is_some() {
            return Ok(());
        }
        let layers = self.config.num_layers();
        let host = self.host.as_ref().map(|h| h.many);
        let mut b = self.builder(true);
        let mut stream = Stream::Whole(b.embed(host).await?);
        for i in 0..layers {
            stream = b.layer(i, stream).await?;
        }
        let logits = b.head(stream).await?;
        let steps = std::mem::take(&mut b.steps);
        self.programs.full = Some((self.backend.prepare(steps).await?, logits));
        Ok(())
    }

    /// The residual stream before layer 0 and after every layer, `[layers + 1, tokens, hidden]`
    /// row-major. With `inject` (of the same shape) each layer is fed that stream instead of its
    /// own input. The sequence starts anew.
    ///
    /// # Errors
    /// As [`Model::logits`]; `inject` of another size.
    pub async fn trace(&mut self, tokens: &[u32], inject: Option<&[f32]>) -> Result<Vec<f32>> {
        self.check_tokens(tokens)?;
        self.reset();
        self.reserve(to_u32(tokens.len())).await?;
        let (layers, hidden, t) = (self.config.num_layers(), self.config.hidden, tokens.len());
        let size = (layers + 1) * t * hidden;
        if let Some(got) = inject.map(<[f32]>::len).filter(|n| *n != size) {
            return Err(Error::Usage(format!(
                "the injected `hidden` has {got} values; {layers}+1 layers of {t} tokens of {hidden} are {size}"
            )));
        }
        let mut all = vec![0.0f32; size];
        for (c, piece) in tokens.chunks(self.chunk as usize).enumerate() {
            let start = c * self.chunk as usize;
            self.write_many(piece)?;
            let host = self.host.as_ref().map(|h| h.many);
            let mut b = self.builder(true);
            let mut x = b.embed(host).await?;
            let steps = std::mem::take(&mut b.steps);
            self.run_now(steps, piece.len()).await?;
            self.collect(x, &mut all, 0, start, piece.len(), t).await?;
            for i in 0..layers {
                if let Some(given) = inject {
                    self.write_stream(x, &given[(i * t + start) * hidden..][..piece.len() * hidden]);
                }
                let mut b = self.builder(true);
                let stream = b.layer(i, Stream::Whole(x)).await?;
                x = b.settle(stream, &format!("hidden{}", i % 2)).await?;
                let steps = std::mem::take(&mut b.steps);
                self.run_now(steps, piece.len()).await?;
                self.collect(x, &mut all, i + 1, start, piece.len(), t).await?;
            }
            self.position += to_u32(piece.len());
        }
        Ok(all)
    }

    async fn run_now(&mut self, steps: Vec<crate::backend::Step>, tokens: usize) -> Result<()> {
        let program = self.backend.prepare(steps).await?;
        self.backend.execute(&[Work::Run(&program, to_u32(tokens))], None)?;
        Ok(())
    }

    async fn collect(
        &mut self,
        x: View,
        all: &mut [f32],
        layer: usize,
        start: usize,
        n: usize,
        t: usize,
    ) -> Result<()> {
        let (hidden, row) = (self.config.hidden, to_usize(stream_bytes(&self.config)));
        let bytes = self.backend.read(x.part(0, (row * n) as u64)).await?;
        for (i, r) in bytes.chunks_exact(row).enumerate() {
            let to = &mut all[(layer * t + start + i) * hidden..][..hidden];
            for (v, b) in to.iter_mut().zip(r.as_chunks::<4>().0) {
                *v = f32::from_le_bytes(*b);
            }
        }
        Ok(())
    }

    fn write_stream(&mut self, x: View, values: &[f32]) {
        let (hidden, row) = (self.config.hidden, to_usize(stream_bytes(&self.config)) / 4);
        let mut padded = vec![0.0f32; values.len() / hidden * row];
        for (to, from) in padded.chunks_exact_mut(row).zip(values.chunks_exact(hidden)) {
            to[..hidden].copy_from_slice(from);
        }
        self.backend.write(x, bytemuck::cast_slice(&padded));
    }

    /// GPU time of every decode step at the current position, `(label, kernel, µs)`; `None`
    /// where the device has no timestamps. Leaves the sequence as it was.
    ///
    /// # Errors
    /// A failing device.
    pub async fn profile_decode(&mut self) -> Result<Option<Vec<(String, &'static str, f64)>>> {
        self.reserve(1).await?;
        self.prepare_decode().await?;
        let position = self.position;
        self.write_one(2, Choice::Greedy)?;
        let (Some(d), Backend::Gpu(gpu)) = (&self.programs.decode, &mut self.backend) else {
            return Ok(None);
        };
        let mut rows = Vec::new();
        for program in [&d.lower, &d.upper, &d.greedy] {
            let Some(times) = gpu.profile(program, 1).await? else { return Ok(None) };
            rows.extend(
                program.steps.iter().zip(times).map(|(s, t)| (s.label.clone(), s.variant.kernel(), t)),
            );
        }
        self.position = position;
        Ok(Some(rows))
    }
}

fn work_fetch(backend: &mut Backend, work: &[Work<'_>], chosen: View, position: u32) -> Result<Fetch> {
    let slot = chosen.part(u64::from(position % RING) * 4, 4);
    let fetch = backend.execute(work, Some(slot))?;
    Ok(fetch.unwrap_or_else(|| unreachable!("a view was asked for")))
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
/// chunk is appended before its first token looks back.
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
                to_u32(config.window).saturating_add(chunk)
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
    if config.ple_dim % 4 != 0 {
        return Err(Error::unsupported(format!("hidden_size_per_layer_input = {}", config.ple_dim), advice));
    }
    for i in 0..config.num_layers() {
        if config.head_dim(i) % 8 != 0 {
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
