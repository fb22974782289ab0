//! Gemma 4 on tuned WebGPU kernels: checkpoints, tokenizer, plan, sampling, generation.

mod backend;
pub mod chat;
pub mod checkpoint;
pub mod config;
mod conversation;
pub mod embedded;
mod error;
mod fusion;
mod generate;
mod host_rows;
mod model;
mod pack;
mod plan;
pub mod synth;
pub mod tokenizer;
mod weights;

pub use backend::Kernels;
pub use checkpoint::Checkpoint;
pub use config::{GenerationConfig, LayerKind, LayerShape, Rope, TextConfig};
pub use conversation::Conversation;
pub use error::{Error, Result};
pub use fusion::Fusion;
pub use generate::{Request, Stats};
pub use model::{Choice, Dispatch, Model, Options, Target};
pub use pack::WeightMode;
pub use tokenizer::Tokenizer;
