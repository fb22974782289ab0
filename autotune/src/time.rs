//! How long a dispatch takes: batches long enough for the clock at hand, on buffers no cache holds.

use std::collections::HashMap;
use web_time::Instant;

use wgforge_codegen::{
    Variant,
    check::{Case, Draw, Inputs, Rng, Tolerance},
};
use wgforge_runtime::{BindGroup, Device, Error, Pass, Pipeline, Recorder, Result, Slice, bytemuck};

/// Bytes that rotated copies of a kernel's inputs fill, so that no cache holds them.
const ROTATED: u64 = 256 << 20;
/// Copies at most: inputs so small that these stay in a cache are there in a real run as well.
const COPIES: u64 = 256;
/// Sets of outputs for independent dispatches, and the bytes they may take.
const MOST_OUTPUTS: usize = 64;
const OUTPUT_BYTES: u64 = 64 << 20;
/// Dispatches of one submission at most: more hide nothing, and hang a desktop.
const BATCH: u32 = 512;
/// What a batch should take where the clock is fine, µs.
const BATCH_US: f64 = 300.0;
/// A batch is at least this many times the clock's resolution.
const RESOLUTIONS: f64 = 200.0;
/// A coarser clock, µs, is none: [`BATCH`] of the shortest dispatches do not take [`RESOLUTIONS`] of
/// its steps. Browsers round to 100 µs.
const COARSE_US: f64 = 5.0;
/// What a batch should take where only the host's clock tells, µs.
const WALL_BATCH_US: f64 = 5000.0;

/// The clock that times dispatches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clock {
    /// The GPU's own, with its resolution in µs.
    Gpu {
        /// The smallest step it was seen to make, µs.
        resolution_us: f64,
    },
    /// The host's: the cost of a submission is taken out by comparing two lengths of batches.
    Host,
}

impl Clock {
    /// Finds out what this device has.
    ///
    /// # Errors
    /// A failing device.
    pub async fn probe(device: &Device) -> Result<Self> {
        if !device.caps().timestamps {
            return Ok(Self::Host);
        }
        let mut steps = Vec::new();
        for _ in 0..4 {
            let mut recorder = Recorder::with_timestamps(device, 64)?;
            for _ in 0..64 {
                drop(recorder.pass("clock"));
            }
            let spans = recorder.submit().timestamps().spans().await?.unwrap_or_default();
            let mut ticks: Vec<f64> = spans.iter().flat_map(|s| [s.begin, s.end]).collect();
            ticks.sort_by(f64::total_cmp);
            steps.extend(ticks.windows(2).map(|w| w[1] - w[0]).filter(|d| *d > 0.0));
        }
        Ok(Self::with_steps(steps.into_iter().reduce(f64::min)))
    }

    /// The GPU's clock, if it was seen to make steps, and small ones.
    fn with_steps(smallest_us: Option<f64>) -> Self {
        match smallest_us {
            Some(resolution_us) if resolution_us <= COARSE_US => Self::Gpu { resolution_us },
            _ => Self::Host,
        }
    }

    /// What a batch should take at least, µs.
    pub fn batch_us(&self) -> f64 {
        match self {
            Self::Gpu { resolution_us } => (RESOLUTIONS * resolution_us).max(BATCH_US),
            Self::Host => WALL_BATCH_US,
        }
    }

    /// µs of one of `n` dispatches that `record` puts into one pass, one call each.
    ///
    /// # Errors
    /// What `record` or the device reports.
    pub async fn time(
        &self,
        device: &Device,
        n: u32,
        record: &mut dyn FnMut(&mut Pass<'_>, u32) -> Result<()>,
    ) -> Result<f64> {
        let n = n.max(1);
        match self {
            Self::Gpu { .. } => {
                let (_, gpu) = batch(device, n, true, record).await?;
                Ok(gpu.unwrap_or(0.0) / f64::from(n))
            }
            Self::Host => {
                let (short, _) = batch(device, n, false, record).await?;
                let (long, _) = batch(device, n * 3, false, record).await?;
                let difference = (long - short) / f64::from(2 * n);
                // A hiccup in the short batch: the whole of the long one is an upper bound.
                Ok(if difference > 0.0 { difference } else { long / f64::from(3 * n) })
            }
        }
    }
}

/// Wall time and, if asked for, GPU time of a batch, µs.
async fn batch(
    device: &Device,
    n: u32,
    stamped: bool,
    record: &mut dyn FnMut(&mut Pass<'_>, u32) -> Result<()>,
) -> Result<(f64, Option<f64>)> {
    let mut recorder =
        if stamped { Recorder::with_timestamps(device, 1)? } else { Recorder::new(device, "batch") };
    let mut pass = recorder.pass("batch");
    for i in 0..n {
        record(&mut pass, i)?;
    }
    drop(pass);
    let start = Instant::now();
    let submission = recorder.submit();
    submission.wait().await?;
    let wall = start.elapsed().as_secs_f64() * 1e6;
    let times = submission.timestamps().read().await?;
    Ok((wall, times.map(|us| us.iter().sum())))
}

/// Large buffers the copies of all workloads' inputs are put into, one after the other: made once,
/// because making them costs more than most measurements.
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    blocks: Vec<Slice>,
}

/// A candidate ready to be timed.
#[derive(Debug)]
pub(crate) struct Bound {
    pipeline: Pipeline,
    groups: [u32; 3],
    /// One for each copy of the inputs; all share the outputs.
    dependent: Vec<BindGroup>,
}

/// The inputs of one workload, in as many copies as it takes, and its outputs.
#[derive(Debug)]
pub(crate) struct Track {
    device: Device,
    clock: Clock,
    /// By name; a list with one slice a copy.
    inputs: HashMap<&'static str, Vec<Slice>>,
    outputs: HashMap<String, Slice>,
    /// Bytes of the outputs whose size is a matter of the shape.
    sizes: HashMap<&'static str, u64>,
    copies: usize,
    tokens: u32,
    position: u32,
    /// Where the next batch begins among the copies.
    cursor: usize,
}

impl Track {
    /// Uploads `case`, a call of `plain`, with what only some of `variants` read, and copies it on the device.
    pub(crate) async fn new(
        device: &Device,
        clock: Clock,
        rotation: &mut Rotation,
        plain: &Variant,
        case: &Case,
        variants: &[Variant],
    ) -> Result<Self> {
        let align = u64::from(device.caps().storage_align.max(16));
        let written = plain.written();
        let others = inputs_of_others(plain, case, variants);
        let of_plain = plain.bindings().into_iter().zip(&case.buffers).filter(|(n, _)| !written.contains(n));
        let read: Vec<(&'static str, &Vec<u32>)> =
            of_plain.chain(others.iter().map(|(name, words)| (*name, words))).collect();
        let size = |words: &Vec<u32>| (words.len() as u64 * 4).next_multiple_of(align);
        let set: u64 = read.iter().map(|(_, w)| size(w)).sum();
        let cpu = device.report().device_type == "cpu";
        let copies = if cpu { 1 } else { (ROTATED / set.max(1)).clamp(1, COPIES) };
        let mut places = rotation.places(device, read.iter().map(|(_, w)| size(w)).collect(), copies).await?;
        let mut inputs: HashMap<&'static str, Vec<Slice>> = HashMap::new();
        let mut recorder = Recorder::new(device, "copies");
        for (i, (name, words)) in read.iter().enumerate() {
            let source = device.buffer(name, words.len() as u64 * 4).await?;
            device.write(&source, 0, bytemuck::cast_slice(words));
            let mut slices = std::mem::take(&mut places[i]);
            for slice in &mut slices {
                recorder.copy(&source, slice, source.size)?;
                // Bound to the quad, as in a real run: kernels see the length.
                *slice = slice.part(0, source.size.next_multiple_of(16))?;
            }
            inputs.insert(name, slices);
        }
        recorder.submit().wait().await?;
        let copies = usize::try_from(copies).unwrap_or(1);
        let mut track = Self {
            device: device.clone(),
            clock,
            inputs,
            outputs: HashMap::new(),
            sizes: HashMap::new(),
            copies,
            tokens: case.tokens,
            position: case.position,
            cursor: 0,
        };
        for (name, words) in plain.bindings().into_iter().zip(&case.buffers) {
            if written.contains(&name) {
                let bytes = words.len() as u64 * 4;
                track.sizes.insert(name, bytes);
                let slice = track.output(name, bytes, false).await?;
                device.write(&slice, 0, bytemuck::cast_slice(words));
            }
        }
        Ok(track)
    }

    /// `own`: notes of a kernel for itself, which others with another size of them must not have written.
    async fn output(&mut self, name: &str, bytes: u64, own: bool) -> Result<Slice> {
        let bytes = bytes.max(16).next_multiple_of(16);
        let fits = |s: &&Slice| if own { s.size == bytes } else { s.size >= bytes };
        if let Some(slice) = self.outputs.get(name).filter(fits) {
            return Ok(slice.clone());
        }
        let slice = self.device.buffer(name, bytes).await?;
        self.outputs.insert(name.to_owned(), slice.clone());
        Ok(slice)
    }

    /// Binds a candidate to all copies.
    pub(crate) async fn bind(&mut self, variant: &Variant, pipeline: &Pipeline) -> Result<Bound> {
        let outputs = self.outputs_of(variant, pipeline).await?;
        let dependent =
            (0..self.copies).map(|i| self.group(pipeline, i, &outputs)).collect::<Result<Vec<_>>>()?;
        Ok(Bound { pipeline: pipeline.clone(), groups: variant.groups(self.tokens), dependent })
    }

    async fn outputs_of(&mut self, variant: &Variant, pipeline: &Pipeline) -> Result<HashMap<String, Slice>> {
        let mut all = HashMap::new();
        for binding in pipeline.bindings() {
            let name = binding.name.as_str();
            let known = variant.bindings().into_iter().find(|n| *n == name);
            if known.is_some_and(|n| self.inputs.contains_key(n)) {
                continue;
            }
            let of_plain = self.sizes.get(name).copied();
            let laid_out = match of_plain {
                Some(_) if variant.followers().is_empty() => 0,
                _ => self.bytes_of(variant, name),
            };
            let bytes = laid_out.max(of_plain.unwrap_or(0));
            let own = known.is_some_and(|n| variant.output(n).1 == Tolerance::Ignored);
            all.insert(name.to_owned(), self.output(name, bytes, own).await?);
        }
        Ok(all)
    }

    /// Bytes of an output that a configuration lays out in its own way.
    fn bytes_of(&self, variant: &Variant, name: &str) -> u64 {
        let (inputs, tokens, position) = (Inputs::Random, self.tokens, self.position);
        variant.draw(name, &mut Draw { rng: Rng::new(0), inputs, tokens, position }).len() as u64 * 4
    }

    fn group(&self, pipeline: &Pipeline, copy: usize, outputs: &HashMap<String, Slice>) -> Result<BindGroup> {
        let slices: Option<Vec<Slice>> = pipeline
            .bindings()
            .iter()
            .map(|b| match self.inputs.get(b.name.as_str()) {
                Some(slices) => slices.get(copy).cloned(),
                None => outputs.get(&b.name).cloned(),
            })
            .collect();
        let missing = || Error::BindingCount {
            kernel: pipeline.label().into(),
            wanted: pipeline.bindings().len(),
            given: self.inputs.len() + outputs.len(),
        };
        pipeline.bind(&self.device, &slices.ok_or_else(missing)?)
    }

    /// Dispatches a batch of a kernel that takes `us` µs should have.
    pub(crate) fn batch_for(&self, us: f64) -> u32 {
        let n = (self.clock.batch_us() / us.max(0.01)).ceil();
        if n >= f64::from(BATCH) { BATCH } else { (1..BATCH).rfind(|i| f64::from(*i) <= n).unwrap_or(1) }
    }

    /// µs of a dispatch that waits for the one before, as in a decoded token.
    pub(crate) async fn dependent(&mut self, bound: &Bound, n: u32) -> Result<f64> {
        let (start, groups) = (self.cursor, &bound.dependent);
        self.cursor = (start + n as usize) % groups.len().max(1);
        self.clock
            .time(&self.device, n, &mut |pass, i| {
                let group = &groups[(start + i as usize) % groups.len()];
                pass.dispatch(&bound.pipeline, group, bound.groups)
            })
            .await
    }

    /// µs of a dispatch that may overlap with those before and behind: what throughput allows. Each
    /// has outputs of its own, since writing the same ones again would have to wait.
    pub(crate) async fn independent(&mut self, variant: &Variant, bound: &Bound) -> Result<f64> {
        let mut groups: Vec<BindGroup> = Vec::new();
        let mut held = 0;
        while groups.len() < MOST_OUTPUTS && (groups.is_empty() || held < OUTPUT_BYTES) {
            self.outputs.clear();
            let outputs = self.outputs_of(variant, &bound.pipeline).await?;
            for slice in outputs.values() {
                // A position advances in `run`, and wants a start that is one.
                self.device.write(slice, 0, &[0; 16]);
                held += slice.size;
            }
            groups.push(self.group(&bound.pipeline, groups.len() % self.copies, &outputs)?);
        }
        let n = u32::try_from(groups.len()).unwrap_or(1);
        let mut best = f64::INFINITY;
        for _ in 0..8 {
            let us = self
                .clock
                .time(&self.device, n, &mut |pass, i| {
                    pass.dispatch(&bound.pipeline, &groups[i as usize % groups.len()], bound.groups)
                })
                .await?;
            best = best.min(us);
        }
        Ok(best)
    }
}

/// What variants read that `plain`, whose call is `case`, has no binding for.
fn inputs_of_others(plain: &Variant, case: &Case, variants: &[Variant]) -> Vec<(&'static str, Vec<u32>)> {
    let known = plain.bindings();
    let mut others: Vec<(&'static str, Vec<u32>)> = Vec::new();
    for variant in variants {
        let written = variant.written();
        for name in variant.bindings() {
            let new = !known.contains(&name) && !written.contains(&name);
            if new && !others.iter().any(|(n, _)| *n == name) {
                let (inputs, tokens, position) = (Inputs::Random, case.tokens, case.position);
                let mut draw = Draw { rng: Rng::new(0), inputs, tokens, position };
                others.push((name, variant.draw(name, &mut draw)));
            }
        }
    }
    others
}

impl Rotation {
    /// For each of `sizes`, `copies` slices that overlap nothing else.
    async fn places(&mut self, device: &Device, sizes: Vec<u64>, copies: u64) -> Result<Vec<Vec<Slice>>> {
        let most = device.caps().max_buffer_bytes.min(ROTATED);
        if copies == 1 {
            self.blocks.clear();
        }
        let mut places = vec![Vec::new(); sizes.len()];
        let (mut block, mut used) = (0, 0);
        for _ in 0..copies {
            for (i, size) in sizes.iter().enumerate() {
                while self.blocks.get(block).is_some_and(|b| b.size < used + size) {
                    block += 1;
                    used = 0;
                }
                if block == self.blocks.len() {
                    // Small devices get small blocks, and what is larger than one its own.
                    let whole = if copies > 1 { most } else { *size };
                    self.blocks.push(device.buffer("rotation", whole.max(*size)).await?);
                    used = 0;
                }
                places[i].push(self.blocks[block].part(used, *size)?);
                used += size;
            }
        }
        Ok(places)
    }

    /// Gives the memory back, as after a workload whose inputs were larger than any other's.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let mut held = 0;
        self.blocks.retain(|b| {
            held += b.size;
            held <= bytes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_stand_still_or_take_long_steps_are_not_used() {
        assert_eq!(Clock::with_steps(Some(0.032)), Clock::Gpu { resolution_us: 0.032 });
        assert_eq!(Clock::with_steps(Some(100.0)), Clock::Host, "as in a browser");
        assert_eq!(Clock::with_steps(None), Clock::Host);
    }
}
