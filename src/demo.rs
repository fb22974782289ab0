//! A small Gemma 4 that is part of the program: six million parameters that write
//! like Shakespeare's plays, in the published int2/int4/int8 layout.

use wgforge_model::{Checkpoint, Result, Tokenizer};

/// What the demo model is asked to continue when nobody says otherwise.
pub const PROMPT: &str = "ROMEO:\n";

const CONFIG: &[u8] = include_bytes!("../model/demo/config.json");
const GENERATION: &[u8] = include_bytes!("../model/demo/generation_config.json");
const TOKENIZER: &[u8] = include_bytes!("../model/demo/tokenizer.json");
const WEIGHTS: &[u8] = include_bytes!("../model/demo/model.safetensors");

/// Its weights and configuration.
///
/// # Errors
/// Never for an unchanged source tree.
pub fn checkpoint() -> Result<Checkpoint> {
    Checkpoint::from_bytes(CONFIG, Some(GENERATION), WEIGHTS)
}

/// Its vocabulary of 2048 tokens.
///
/// # Errors
/// Never for an unchanged source tree.
pub fn tokenizer() -> Result<Tokenizer> {
    Tokenizer::from_bytes(TOKENIZER)
}
