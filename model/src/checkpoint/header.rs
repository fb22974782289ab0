//! The header of a safetensors file, believed only where it adds up.

use std::collections::HashSet;
use std::fmt;

use safetensors::tensor::Metadata;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::{Error, Result};

pub use safetensors::tensor::TensorInfo;

/// No published header comes near; a damaged length shall not make us allocate.
const MAX_HEADER: u64 = 100_000_000;

/// What a safetensors file says it holds, checked: names are unique, every size is that of its
/// shape and type, and the tensors fill the rest of the file without gap or overlap.
#[derive(Debug, Clone)]
pub struct Header {
    /// Names and places, in the order of the data. Offsets count from [`Header::data_start`].
    pub tensors: Vec<(String, TensorInfo)>,
    /// Bytes before the first tensor's data.
    pub data_start: usize,
}

impl Header {
    /// Bytes from the beginning of a file that [`Header::parse`] needs, told by the first eight.
    pub fn prefix_len(first: [u8; 8], file_len: u64, file: &str) -> Result<u64> {
        let bad = |reason: String| Err(Error::BadSafetensors { file: file.to_owned(), reason });
        let len = u64::from_le_bytes(first);
        if len > MAX_HEADER {
            return bad(format!("its header claims {len} bytes, more than the {MAX_HEADER} allowed"));
        }
        if len + 8 > file_len {
            return bad(format!("its header claims {len} bytes, but the whole file has {file_len}"));
        }
        Ok(len + 8)
    }

    /// Parses the header. `bytes` is the file or at least its first [`Header::prefix_len`]
    /// bytes, `file_len` the length of the whole file, and `file` what errors call it.
    pub fn parse(bytes: &[u8], file_len: u64, file: &str) -> Result<Self> {
        let bad = |reason: String| Error::BadSafetensors { file: file.to_owned(), reason };
        let Some(first) = bytes.first_chunk::<8>() else {
            return Err(bad(format!("it has {} bytes; 8 are the least", bytes.len())));
        };
        let end = usize::try_from(Self::prefix_len(*first, file_len, file)?).unwrap_or(usize::MAX);
        let Some(header) = bytes.get(8..end) else {
            return Err(bad(format!("its header of {end} bytes was cut short at {}", bytes.len())));
        };
        let text = std::str::from_utf8(header).map_err(|e| bad(format!("its header is not UTF-8: {e}")))?;
        let Raw(mut tensors) =
            serde_json::from_str(text).map_err(|e| bad(format!("its header is not as it must be: {e}")))?;
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        check(&tensors, file_len - end as u64).map_err(bad)?;
        // The crate that writes these files has the last word, where its sums of bits fit its integers.
        if cfg!(target_pointer_width = "64")
            && let Err(error) = Metadata::new(None, tensors.clone())
        {
            return Err(bad(error.to_string()));
        }
        Ok(Self { tensors, data_start: end })
    }
}

/// `tensors` are sorted by offset; `data_len` bytes lie behind the header.
fn check(tensors: &[(String, TensorInfo)], data_len: u64) -> Result<(), String> {
    let mut names = HashSet::with_capacity(tensors.len());
    let mut expected = 0;
    for (name, info) in tensors {
        if !names.insert(name.as_str()) {
            return Err(format!("the tensor `{name}` is there twice"));
        }
        let (start, end) = info.data_offsets;
        if end < start || end as u64 > data_len {
            return Err(format!(
                "the tensor `{name}` claims the bytes {start} to {end} of {data_len}; the file was cut short or its header lies"
            ));
        }
        if start != expected {
            let what =
                if start < expected { "overlaps the tensor before it" } else { "leaves a gap before it" };
            return Err(format!("the tensor `{name}` {what} (begins at {start}, wanted {expected})"));
        }
        expected = end;
        let elements = info.shape.iter().try_fold(1_u64, |n, &dim| n.checked_mul(dim as u64));
        let bits = elements.and_then(|n| n.checked_mul(info.dtype.bitsize() as u64));
        if bits != Some((end - start) as u64 * 8) {
            return Err(format!(
                "the tensor `{name}` has {} bytes, which is not the size of {:?} {}",
                end - start,
                info.shape,
                info.dtype
            ));
        }
    }
    if expected as u64 != data_len {
        return Err(format!("{} bytes at its end belong to no tensor", data_len - expected as u64));
    }
    Ok(())
}

/// The header's object with repeated names kept, so that they can be refused.
struct Raw(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Vec<(String, TensorInfo)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        tensors.push((name, map.next_value()?));
                    }
                }
                Ok(tensors)
            }
        }
        deserializer.deserialize_map(Pairs).map(Self)
    }
}
