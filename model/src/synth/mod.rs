//! Checkpoints of random weights in the published layouts, at any published size.
//!
//! The published weights are large and not everywhere at hand; what is measured and tested here
//! needs files of the same names, types and sizes. The numbers are drawn so that a forward pass
//! stays sane: matrices keep the size of what they multiply, the residual stream is bounded at
//! any depth, activations fill their int8 grids, logits spread over a few units. The text that
//! such a model writes is noise.
//!
//! The bytes depend on the shape, the format and the seed alone.

mod fill;
mod plan;
#[cfg(feature = "native")]
mod write;

use std::str::FromStr;

pub use plan::{Plan, PlannedTensor};

use crate::{Checkpoint, Error, Result, TextConfig};

/// Which published layout to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SynthFormat {
    /// int2, int4 and int8 with static activation grids, as `…-qat-mobile-transformers`.
    Mobile,
    /// Every tensor bf16, as `gemma-4-E2B-it`.
    Bf16,
}

impl FromStr for SynthFormat {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "mobile" => Ok(Self::Mobile),
            "bf16" => Ok(Self::Bf16),
            "q4_0" => Err(Error::unsupported(
                "writing a random checkpoint as q4_0 (a GGUF file)",
                "choose mobile or bf16",
            )),
            _ => Err(Error::Usage(format!("unknown format {name:?}; choose mobile or bf16"))),
        }
    }
}

/// Writes `config.json`, `generation_config.json` and `model.safetensors` into the folder `out`,
/// which is made where it does not exist. The weights get their name when they are complete;
/// nothing half-written stays. `progress` is told the bytes done and the bytes in all.
#[cfg(feature = "native")]
pub fn synth(
    shape: &TextConfig,
    format: SynthFormat,
    seed: u64,
    out: &std::path::Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    write::write(&Plan::new(shape, format)?, seed, out, threads, progress)
}

/// Like [`synth()`] with a given number of threads. The bytes are the same for any.
#[cfg(feature = "native")]
pub fn synth_with_threads(
    shape: &TextConfig,
    format: SynthFormat,
    seed: u64,
    out: &std::path::Path,
    threads: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    write::write(&Plan::new(shape, format)?, seed, out, threads.max(1), progress)
}

/// The three files of a random checkpoint, in memory.
#[derive(Debug, Clone)]
pub struct SynthFiles {
    /// `config.json`.
    pub config: String,
    /// `generation_config.json`.
    pub generation: String,
    /// `model.safetensors`.
    pub safetensors: Vec<u8>,
}

impl SynthFiles {
    /// Opens them.
    pub fn into_checkpoint(self) -> Result<Checkpoint> {
        Checkpoint::from_bytes(self.config.as_bytes(), Some(self.generation.as_bytes()), self.safetensors)
    }
}

/// The same bytes as [`synth()`] writes, without a file.
pub fn synth_in_memory(shape: &TextConfig, format: SynthFormat, seed: u64) -> Result<SynthFiles> {
    let plan = Plan::new(shape, format)?;
    let mut safetensors = plan.header();
    for tensor in plan.tensors() {
        let at = safetensors.len();
        let len = usize::try_from(tensor.bytes)
            .map_err(|_| Error::Usage(format!("{} does not fit into memory", tensor.name)))?;
        safetensors.resize(at + len, 0);
        tensor.fill(seed, 0, &mut safetensors[at..]);
    }
    Ok(SynthFiles { config: plan.config_json().to_owned(), generation: plan.generation_json(), safetensors })
}
