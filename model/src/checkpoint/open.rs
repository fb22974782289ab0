//! A checkpoint folder on disk.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use super::{Bytes, Checkpoint};
use crate::{Error, GenerationConfig, Result, TextConfig};

/// Configuration files are a few kilobytes; shard indices of the largest models a few megabytes.
const MAX_JSON: u64 = 64 << 20;
const MAX_SHARDS: usize = 1000;

pub(super) fn open(folder: &Path) -> Result<Checkpoint> {
    if folder.is_file() {
        return Err(Error::Usage(format!(
            "{} is a file; give the folder that holds config.json and model.safetensors",
            folder.display()
        )));
    }
    let path = folder.join("config.json");
    let Some(json) = read(&path)? else {
        let advice = "give a folder that holds config.json and model.safetensors".to_owned();
        return Err(Error::MissingFile { path, advice });
    };
    let config = TextConfig::from_json(&json, &path.display().to_string())?;
    let path = folder.join("generation_config.json");
    let generation = match read(&path)? {
        Some(json) => GenerationConfig::from_json(&json, &path.display().to_string(), &config)?,
        None => GenerationConfig::for_config(&config),
    };
    let mut files = Vec::new();
    for name in weights(folder)? {
        let path = folder.join(&name);
        if !path.is_file() {
            let advice = "it is named in model.safetensors.index.json; fetch it as well".to_owned();
            return Err(Error::MissingFile { path, advice });
        }
        files.push((path.display().to_string(), Bytes::map(&path)?));
    }
    let label = folder
        .canonicalize()
        .ok()
        .and_then(|p| p.file_name().map(|n| n.to_string_lossy().into_owned()))
        .unwrap_or_else(|| folder.display().to_string());
    Checkpoint::assemble(label, Some(folder.to_owned()), config, generation, files)
}

/// The names of the weights files.
fn weights(folder: &Path) -> Result<Vec<String>> {
    let single = "model.safetensors";
    if folder.join(single).is_file() {
        return Ok(vec![single.to_owned()]);
    }
    let path = folder.join("model.safetensors.index.json");
    let Some(json) = read(&path)? else {
        let advice = "fetch the weights as well (or model.safetensors.index.json with its shards)".to_owned();
        return Err(Error::MissingFile { path: folder.join(single), advice });
    };
    let file = path.display().to_string();
    let value: Value =
        serde_json::from_slice(&json).map_err(|source| Error::Json { file: file.clone(), source })?;
    let Some(map) = value.get("weight_map").and_then(Value::as_object) else {
        return Err(Error::missing_field(&file, "weight_map"));
    };
    let mut names = BTreeSet::new();
    for (tensor, shard) in map {
        // The index comes from the network: it may only name files beside itself.
        let name = shard.as_str().filter(|name| {
            name.ends_with(".safetensors") && !name.contains(['/', '\\', ':']) && !name.starts_with('.')
        });
        let Some(name) = name else {
            let field = format!("weight_map.{tensor}");
            return Err(Error::bad_field(&file, &field, shard, "the name of a .safetensors file beside it"));
        };
        names.insert(name.to_owned());
    }
    if names.is_empty() || names.len() > MAX_SHARDS {
        let got = format!("{} files", names.len());
        return Err(Error::bad_field(&file, "weight_map", got, format!("1 to {MAX_SHARDS} files")));
    }
    Ok(names.into_iter().collect())
}

/// The file's contents, or `None` where there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let len = match fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path, error)),
    };
    if len > MAX_JSON {
        let reason = io::Error::other(format!("{len} bytes are too many for a configuration file"));
        return Err(Error::io(path, reason));
    }
    fs::read(path).map(Some).map_err(|error| Error::io(path, error))
}
