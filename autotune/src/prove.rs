//! Shows that a candidate computes what its reference computes, before anybody times it: a fast
//! kernel that is wrong would win every race.

use std::borrow::Cow;

use wgforge_codegen::{
    Binding, Variant, Workload,
    check::{Case, Draw, Inputs, Rng, Tolerance},
    kernels::{attention, decode_attention},
};
use wgforge_runtime::{Device, KernelSource, Pipeline, Recorder, Slice, bytemuck};

use crate::inputs::cases;

/// Why a candidate may not be timed, or could not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The template did not render, or naga refused the text.
    #[error("does not render: {0}")]
    Render(String),
    /// The driver refused the shader, or it cannot be bound.
    #[error("does not compile: {0}")]
    Compile(String),
    /// It ran and computed something else than the reference.
    #[error("computes wrongly ({case}): {report}")]
    Wrong {
        /// The inputs that showed it.
        case: String,
        /// Which element of which output.
        report: String,
    },
    /// It failed while it ran.
    #[error("fails: {0}")]
    Fails(String),
}

impl Rejection {
    /// A word for machines: `render`, `compile`, `wrong` or `fails`.
    pub fn stage(&self) -> &'static str {
        match self {
            Self::Render(_) => "render",
            Self::Compile(_) => "compile",
            Self::Wrong { .. } => "wrong",
            Self::Fails(_) => "fails",
        }
    }
}

/// A shader by its plain parts, so that a text from anywhere can be put to the proof.
#[derive(Debug, Clone, Copy)]
pub struct Shader<'a> {
    /// Name for messages.
    pub label: &'a str,
    /// The WGSL text.
    pub wgsl: &'a str,
    /// Its bindings in order.
    pub bindings: &'a [Binding],
    /// Workgroups.
    pub groups: [u32; 3],
}

/// Inputs with what the reference makes of them.
#[derive(Debug, Clone)]
pub struct Proof {
    /// What kind of inputs, for messages: `random, 5 tokens at 21`.
    pub name: String,
    /// The inputs.
    pub case: Case,
    /// The buffers afterwards; those that are not written are left empty.
    pub expected: Vec<Vec<u32>>,
    draws: Draws,
    /// What stands behind the variant it was made with.
    followers: Vec<Workload>,
}

/// The proofs of a workload: `variant` is any of its candidates. `few_tokens`: for adapters in
/// software, where a product of 33 tokens takes its time. Expensive (it runs the reference), and
/// the same for all candidates: make it once.
pub fn proofs(variant: &Variant, seed: u64, few_tokens: bool) -> Vec<Proof> {
    let plain = plain(variant);
    cases(&plain, few_tokens)
        .into_iter()
        .zip(0u64..)
        .map(|((inputs, tokens, position), i)| {
            Proof::make(&plain, Draws { inputs, tokens, position, seed: seed.wrapping_add(i) })
        })
        .collect()
}

/// How the inputs of a proof were drawn.
#[derive(Debug, Clone, Copy)]
struct Draws {
    inputs: Inputs,
    tokens: u32,
    position: u32,
    seed: u64,
}

impl Proof {
    fn make(variant: &Variant, draws: Draws) -> Self {
        let Draws { inputs, tokens, position, seed } = draws;
        let case = Case::draw(variant, inputs, tokens, position, seed);
        let mut expected = case.expected(variant);
        // Only outputs are compared, and weights are large.
        for (name, words) in variant.bindings().iter().zip(&mut expected) {
            if !variant.written().contains(name) {
                *words = Vec::new();
            }
        }
        let name = format!("{inputs:?} inputs, {} tokens at {position}, seed {seed}", case.tokens);
        Self { name, case, expected, draws, followers: variant.followers() }
    }

    /// The same inputs for `variant`, with buffers as it has them.
    fn suited(&self, variant: &Variant) -> Cow<'_, Self> {
        if self.fits(variant) { Cow::Borrowed(self) } else { Cow::Owned(Self::make(variant, self.draws)) }
    }

    /// Whether the buffers are laid out for `variant` too: where a configuration splits what it
    /// computes, its outputs are its own.
    fn fits(&self, variant: &Variant) -> bool {
        let bindings = variant.bindings();
        if bindings.len() != self.case.buffers.len() || variant.followers() != self.followers {
            return false;
        }
        let Draws { inputs, position, seed, .. } = self.draws;
        let written = variant.written();
        bindings.iter().zip(self.case.buffers.iter().zip(&self.expected)).all(|(name, (words, expected))| {
            let mut draw = Draw { rng: Rng::new(seed), inputs, tokens: self.case.tokens, position };
            let is_output = written.contains(name);
            is_output != expected.is_empty()
                && (!is_output || variant.draw(name, &mut draw).len() == words.len())
        })
    }
}

/// The form of a variant the reference describes: attention without splits, and tables no longer
/// than it takes to look into them.
pub(crate) fn plain(variant: &Variant) -> Variant {
    match variant {
        Variant::Attention { shape, config } => Variant::Attention {
            shape: shape.clone(),
            config: attention::Config { splits: 1, ..config.clone() },
        },
        // Where rows are exchanged there is no other form.
        Variant::DecodeAttention { shape, config } if shape.first.is_none() => Variant::DecodeAttention {
            shape: shape.clone(),
            config: decode_attention::Config { splits: 1, project: None, ..config.clone() },
        },
        Variant::Gather { shape, config } => {
            let mut shape = shape.clone();
            shape.rows = shape.rows.min(2048);
            Variant::Gather { shape, config: config.clone() }
        }
        Variant::PleMix { shape, config } => {
            let mut shape = shape.clone();
            shape.gather.iter_mut().for_each(|g| g.rows = g.rows.min(2048));
            Variant::PleMix { shape, config: config.clone() }
        }
        other => other.clone(),
    }
}

/// Runs a shader once on `buffers` and returns what they hold then.
///
/// # Errors
/// [`Rejection::Compile`] or [`Rejection::Fails`] with the device's report.
pub async fn run(
    device: &Device,
    shader: &Shader<'_>,
    buffers: &[Vec<u32>],
) -> Result<Vec<Vec<u32>>, Rejection> {
    let source = KernelSource { label: shader.label, wgsl: shader.wgsl, bindings: shader.bindings };
    let pipeline = device.pipeline(&source).await.map_err(|e| Rejection::Compile(e.to_string()))?;
    run_pipeline(device, &pipeline, shader.groups, buffers, &mut Vec::new(), &mut 0).await
}

/// `inputs` keeps what is only read for the next candidate: uploading the weights again would take
/// longer than everything else.
async fn run_pipeline(
    device: &Device,
    pipeline: &Pipeline,
    groups: [u32; 3],
    buffers: &[Vec<u32>],
    inputs: &mut Vec<Option<Slice>>,
    room: &mut u64,
) -> Result<Vec<Vec<u32>>, Rejection> {
    let fails = |e: wgforge_runtime::Error| Rejection::Fails(e.to_string());
    inputs.resize(buffers.len(), None);
    let mut slices = Vec::with_capacity(buffers.len());
    for ((binding, words), kept) in pipeline.bindings().iter().zip(buffers).zip(inputs) {
        let read_only = binding.access != wgforge_codegen::Access::ReadWrite;
        if let Some(slice) = kept.as_ref().filter(|_| read_only) {
            slices.push(slice.clone());
            continue;
        }
        // Kernels read whole quads.
        let bytes = (words.len() as u64 * 4).next_multiple_of(16);
        let slice = device.buffer(&binding.name, bytes).await.map_err(fails)?;
        device.write(&slice, 0, bytemuck::cast_slice(words));
        if read_only && bytes <= *room {
            *room -= bytes;
            *kept = Some(slice.clone());
        }
        slices.push(slice);
    }
    let group = pipeline.bind(device, &slices).map_err(|e| Rejection::Compile(e.to_string()))?;
    let mut recorder = Recorder::new(device, "proof");
    recorder.pass("proof").dispatch(pipeline, &group, groups).map_err(fails)?;
    recorder.submit();
    let mut got = Vec::with_capacity(buffers.len());
    for ((slice, words), binding) in slices.iter().zip(buffers).zip(pipeline.bindings()) {
        // What is bound for reading cannot have changed, and weights are large.
        if binding.access != wgforge_codegen::Access::ReadWrite {
            got.push(Vec::new());
            continue;
        }
        let bytes = device.read(slice).await.map_err(fails)?;
        let mut back: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        back.truncate(words.len());
        got.push(back);
    }
    device.check().map_err(fails)?;
    Ok(got)
}

/// Whether `shader`, an implementation of `variant`, agrees with the reference on one proof.
///
/// # Errors
/// [`Rejection::Wrong`] with the first element that differs, or why it did not run.
pub async fn agrees(
    device: &Device,
    shader: &Shader<'_>,
    variant: &Variant,
    proof: &Proof,
) -> Result<(), Rejection> {
    let proof = proof.suited(variant);
    let got = run(device, shader, &proof.case.buffers).await?;
    compare(variant, &proof, &got)
}

fn compare(variant: &Variant, proof: &Proof, got: &[Vec<u32>]) -> Result<(), Rejection> {
    let wrong = |report| Rejection::Wrong { case: proof.name.clone(), report };
    proof.case.compare(variant, &proof.expected, got).map_err(wrong)
}

/// Puts a compiled variant to all proofs of its workload.
///
/// # Errors
/// As [`agrees`].
pub(crate) async fn prove(
    device: &Device,
    pipeline: &Pipeline,
    variant: &Variant,
    proofs: &[Proof],
    uploads: &mut Uploads,
) -> Result<(), Rejection> {
    let shortened = plain(variant);
    let short = matches!(variant, Variant::Gather { .. } | Variant::PleMix { .. });
    let variant = if short { &shortened } else { variant };
    let Uploads { kept, room } = uploads;
    kept.resize(proofs.len(), Vec::new());
    // Further calls on one of them, with several keys where attention is proven.
    let again = proofs.len().min(2);
    for ((proof, kept), number) in proofs.iter().zip(kept).zip(1..) {
        let proof = proof.suited(variant);
        let mut none = Vec::new();
        let groups = variant.groups(proof.case.tokens);
        let buffers = &proof.case.buffers;
        let got = match &proof {
            Cow::Borrowed(_) => run_pipeline(device, pipeline, groups, buffers, kept, room).await?,
            Cow::Owned(_) => run_pipeline(device, pipeline, groups, buffers, &mut none, &mut 0).await?,
        };
        compare(variant, &proof, &got)?;
        // What it notes for itself is from the call before, in real runs.
        let notes = |name: &&str| variant.output(name).1 == Tolerance::Ignored;
        if number == again
            && let Some(at) =
                variant.bindings().iter().position(|n| variant.written().contains(n) && notes(n))
        {
            let (mut buffers, mut got) = (buffers.clone(), got);
            for _ in 0..3 {
                std::mem::swap(&mut buffers[at], &mut got[at]);
                got = run_pipeline(device, pipeline, groups, &buffers, &mut none, &mut 0).await?;
                compare(variant, &proof, &got)?;
            }
        }
    }
    Ok(())
}

/// The inputs of a workload's proofs on the device, for all its candidates: by proof and binding.
#[derive(Debug)]
pub(crate) struct Uploads {
    kept: Vec<Vec<Option<Slice>>>,
    /// Bytes that may still be kept; what is larger is uploaded for each candidate.
    room: u64,
}

impl Default for Uploads {
    /// Room for three sets of the largest int2 head, beside the copies that are timed.
    fn default() -> Self {
        Self { kept: Vec::new(), room: 384 << 20 }
    }
}
