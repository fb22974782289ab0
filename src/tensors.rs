//! Token ids and tensors from files, tensors to files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, Result, bail, ensure};
use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};
use wgforge::runtime::bytemuck;

use crate::console::usage;

/// Token ids as `--tokens` gives them: a list, or a file of one.
pub(crate) fn token_ids(argument: &str) -> Result<Vec<u32>> {
    let looks_like_a_list = |c: char| c.is_ascii_digit() || c.is_whitespace() || ",[]".contains(c);
    let ids = if argument.chars().all(looks_like_a_list) {
        match list(argument) {
            Ok(ids) => ids,
            Err(error) => return usage(format!("--tokens: {error:#}")),
        }
    } else if argument.ends_with(".safetensors") {
        ids_of_tensor(Path::new(argument))?
    } else {
        let text =
            fs::read_to_string(argument).with_context(|| format!("reading token ids from {argument}"))?;
        list(&text).with_context(|| argument.to_owned())?
    };
    if ids.is_empty() {
        return usage("--tokens: there is not a single token id");
    }
    Ok(ids)
}

/// Numbers between commas, spaces, line ends and brackets.
fn list(text: &str) -> Result<Vec<u32>> {
    text.split(|c: char| c.is_whitespace() || ",[]".contains(c))
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().with_context(|| format!("`{part}` is not a token id")))
        .collect()
}

fn ids_of_tensor(path: &Path) -> Result<Vec<u32>> {
    let bytes = read(path)?;
    let tensors = parse(path, &bytes)?;
    let tensor = tensors.tensor("tokens").with_context(|| path.display().to_string())?;
    let data = tensor.data();
    let ids: Option<Vec<u32>> = match tensor.dtype() {
        Dtype::I64 | Dtype::U64 => {
            data.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b).try_into().ok()).collect()
        }
        Dtype::I32 | Dtype::U32 => {
            data.as_chunks::<4>().0.iter().map(|b| Some(u32::from_le_bytes(*b))).collect()
        }
        other => bail!("{}: `tokens` is stored as {other:?}; wanted 32 or 64-bit integers", path.display()),
    };
    ids.with_context(|| format!("{}: `tokens` holds a negative or huge id", path.display()))
}

/// The f32 tensor `name` of a file, with its shape.
pub(crate) fn read_f32(path: &Path, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
    let bytes = read(path)?;
    let tensors = parse(path, &bytes)?;
    let tensor = tensors.tensor(name).with_context(|| path.display().to_string())?;
    ensure!(
        tensor.dtype() == Dtype::F32,
        "{}: `{name}` is stored as {:?}; wanted F32",
        path.display(),
        tensor.dtype()
    );
    let values = tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    Ok((tensor.shape().to_vec(), values))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes)
        .with_context(|| format!("{}: damaged or not a safetensors file", path.display()))
}

/// Writes one f32 tensor. The file gets its name when it is complete.
pub(crate) fn write_f32(
    path: &Path,
    name: &str,
    shape: &[usize],
    values: &[f32],
    metadata: HashMap<String, String>,
) -> Result<()> {
    let view = TensorView::new(Dtype::F32, shape.to_vec(), bytemuck::cast_slice(values))?;
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let written = fs::File::create(&partial).and_then(|file| file.metadata()).and_then(|ours| {
        safetensors::serialize_to_file([(name, view)], Some(metadata), &partial).map_err(|e| match e {
            SafeTensorError::IoError(error) => error,
            other => io::Error::other(other),
        })?;
        // The crate makes files that only their owner can read; ours follow the user's settings.
        fs::set_permissions(&partial, ours.permissions())?;
        fs::rename(&partial, path)
    });
    if written.is_err() {
        // It may not even have been made.
        let _ = fs::remove_file(&partial);
    }
    written.with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_may_be_separated_as_people_do_it() {
        assert_eq!(token_ids("2,105, 7").expect("a list"), [2, 105, 7], "commas");
        assert_eq!(token_ids("[2 105]\n").expect("a list"), [2, 105], "brackets");
        assert!(token_ids(" ").is_err(), "nothing");
        assert!(token_ids("4294967296").is_err(), "an id of more than 32 bits");
        assert!(token_ids("-1").is_err(), "neither an id nor a file");
    }
}
