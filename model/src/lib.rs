//! Gemma 4 on tuned WebGPU kernels: checkpoints, tokenizer, plan, sampling, generation.

pub mod checkpoint;
pub mod config;
mod error;
pub mod synth;
pub mod tokenizer;

pub use checkpoint::Checkpoint;
pub use config::{GenerationConfig, LayerKind, LayerShape, Rope, TextConfig};
pub use error::{Error, Result};
pub use tokenizer::Tokenizer;
