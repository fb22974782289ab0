//! Published weights, described by what they are and not by where they lie.
//!
//! [`Checkpoint`] opens a folder (or bytes that are already in memory), checks the file
//! thoroughly, and hands out [`Linear`]s, [`Table`]s and norms that still lie in the mapped
//! file. Nothing is converted here.
//!
//! ```no_run
//! # fn main() -> wgforge_model::Result<()> {
//! let checkpoint = wgforge_model::Checkpoint::open("gemma-4-E2B-it")?;
//! checkpoint.validate()?;
//! let layer = checkpoint.layer(0)?;
//! println!("{} is {} x {}", layer.gate.name, layer.gate.rows, layer.gate.cols);
//! # Ok(()) }
//! ```

mod access;
mod bytes;
mod header;
#[cfg(feature = "native")]
mod open;
mod weights;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use bytes::{Bytes, Data, ReadAt};
pub use header::{Header, TensorInfo};
pub use safetensors::Dtype;
pub use weights::{Format, Grids, LayerWeights, Linear, Table};

use crate::{Error, GenerationConfig, Result, TextConfig};

/// One tensor as it lies in the file.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// How its elements are stored.
    pub dtype: Dtype,
    /// Its sizes, outermost first; empty for a scalar.
    pub shape: &'a [usize],
    /// Its bytes, little endian, row after row.
    pub data: Data,
}

/// One weights file.
struct Shard {
    file: Arc<str>,
    bytes: Bytes,
    /// Where the tensors' bytes begin.
    data_start: u64,
}

/// The weights of one model with their configuration.
pub struct Checkpoint {
    label: String,
    path: Option<PathBuf>,
    config: TextConfig,
    generation: GenerationConfig,
    shards: Vec<Shard>,
    /// Tensor name to shard number and place.
    tensors: HashMap<String, (usize, TensorInfo)>,
    /// What stands before `embed_tokens` in this file.
    prefix: &'static str,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("label", &self.label)
            .field("format", &self.format_name())
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

/// The published prefix first.
const PREFIXES: [&str; 3] = ["model.language_model.", "language_model.model.", "model."];

impl Checkpoint {
    /// Opens a folder with `config.json`, `generation_config.json` (optional) and
    /// `model.safetensors` or `model.safetensors.index.json` with its shards. The weights are
    /// mapped, not read.
    #[cfg(feature = "native")]
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        open::open(path.as_ref())
    }

    /// A checkpoint that is already in memory: the contents of the three files.
    pub fn from_bytes(
        config_json: &[u8],
        generation_json: Option<&[u8]>,
        safetensors: impl Into<Bytes>,
    ) -> Result<Self> {
        let files = vec![("model.safetensors".to_owned(), safetensors.into())];
        Self::from_files("embedded", config_json, generation_json, files)
    }

    /// A checkpoint whose weights are read when they are needed: names, for messages, and bytes of
    /// its one or more files.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_files(
        label: &str,
        config_json: &[u8],
        generation_json: Option<&[u8]>,
        files: Vec<(String, Bytes)>,
    ) -> Result<Self> {
        let config = TextConfig::from_json(config_json, "config.json")?;
        let generation = match generation_json {
            Some(json) => GenerationConfig::from_json(json, "generation_config.json", &config)?,
            None => GenerationConfig::for_config(&config),
        };
        Self::assemble(label.to_owned(), None, config, generation, files)
    }

    fn assemble(
        label: String,
        path: Option<PathBuf>,
        config: TextConfig,
        generation: GenerationConfig,
        files: Vec<(String, Bytes)>,
    ) -> Result<Self> {
        let mut shards = Vec::with_capacity(files.len());
        let mut tensors = HashMap::new();
        for (number, (file, bytes)) in files.into_iter().enumerate() {
            let header = header(&bytes, &file)?;
            let place = |at: usize| (header.data_start + at) as u64;
            for (name, info) in header.tensors {
                if !bytes.has(place(info.data_offsets.0)..place(info.data_offsets.1)) {
                    continue;
                }
                if tensors.contains_key(&name) {
                    let reason = format!("the tensor `{name}` is also in another shard");
                    return Err(Error::BadSafetensors { file, reason });
                }
                tensors.insert(name, (number, info));
            }
            shards.push(Shard { file: file.into(), bytes, data_start: header.data_start as u64 });
        }
        let holds = |prefix: &&str| {
            ["weight", "embedding_quantized"]
                .iter()
                .any(|part| tensors.contains_key(&format!("{prefix}embed_tokens.{part}")))
        };
        let Some(prefix) = PREFIXES.into_iter().find(holds) else {
            let tensor = if config.quantization.is_some() { "embedding_quantized" } else { "weight" };
            let tensor = format!("{}embed_tokens.{tensor}", PREFIXES[0]);
            return Err(Error::MissingTensor { file: label, tensor });
        };
        Ok(Self { label, path, config, generation, shards, tensors, prefix })
    }

    /// The model's shape.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// How the publisher recommends to sample, and which tokens end a text.
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// The folder, where there is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What to call this checkpoint: its folder's name, or "embedded".
    pub fn label(&self) -> &str {
        &self.label
    }

    /// "mobile" for the published int2/int4/int8 layout, else the floats' type: "bf16", "f16"
    /// or "f32".
    pub fn format_name(&self) -> &'static str {
        if self.config.quantization.is_some() {
            return "mobile";
        }
        let embed = self.tensors.get(&format!("{}embed_tokens.weight", self.prefix));
        match embed.map(|(_, info)| info.dtype) {
            Some(Dtype::F16) => "f16",
            Some(Dtype::F32) => "f32",
            _ => "bf16",
        }
    }

    /// The names of all tensors in the files, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is such a tensor; see [`Checkpoint::tensor`] for names.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// A tensor by its name in the file, or by its published name (`model.language_model.…`)
    /// whatever prefix this file uses.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        let missing = || Error::MissingTensor { file: self.label.clone(), tensor: name.to_owned() };
        let (name, (shard, info)) = self.find(name).ok_or_else(missing)?;
        let shard = &self.shards[*shard];
        // The header's checks hold every range inside the file.
        let (start, end) = info.data_offsets;
        let data = Data::new(&shard.bytes, &shard.file, shard.data_start + start as u64, end - start);
        Ok(TensorView { name, dtype: info.dtype, shape: &info.shape, data })
    }

    fn find(&self, name: &str) -> Option<(&str, &(usize, TensorInfo))> {
        let other = || {
            let rest = name.strip_prefix(PREFIXES[0])?;
            self.tensors.get_key_value(&format!("{}{rest}", self.prefix))
        };
        self.tensors.get_key_value(name).or_else(other).map(|(name, place)| (name.as_str(), place))
    }
}

/// The header of a weights file.
fn header(bytes: &Bytes, file: &str) -> Result<Header> {
    let size = bytes.size();
    let first = bytes.range(0..size.min(8), file)?;
    let len = match first.first_chunk::<8>() {
        Some(first) => Header::prefix_len(*first, size, file)?,
        // Too short for a length, which parsing says better.
        None => size,
    };
    Header::parse(&bytes.range(0..len, file)?, size, file)
}
