//! Reading JSON objects so that every complaint names its field.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// One token id or a list of them.
#[derive(serde::Deserialize)]
#[serde(untagged)]
pub(super) enum Ids {
    One(u32),
    Many(Vec<u32>),
}

impl Ids {
    pub(super) fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

/// A JSON object in the order of the file: the first matching rule wins.
pub(super) struct Ordered<T>(pub(super) Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
            type Value = Vec<(String, T)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Pairs(std::marker::PhantomData)).map(Self)
    }
}

/// An object of the file, with the path that leads to it.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) map: &'a Map<String, Value>,
    pub(super) path: &'a str,
    pub(super) file: &'a str,
}

impl<'a> Fields<'a> {
    pub(super) fn name(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// The value, where it is there and not null.
    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|v| !v.is_null())
    }

    pub(super) fn missing<T>(&self, field: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| Error::missing_field(self.file, &self.name(field)))
    }

    pub(super) fn bad(&self, field: &str, got: &Value, wanted: &str) -> Error {
        let mut got = got.to_string();
        if let Some((cut, _)) = got.char_indices().nth(80) {
            got.truncate(cut);
            got.push('…');
        }
        Error::bad_field(self.file, &self.name(field), got, wanted)
    }

    /// A value that `read` understands; `wanted` says what that is.
    pub(super) fn read<T>(
        &self,
        field: &str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        self.get(field).map(|v| read(v).ok_or_else(|| self.bad(field, v, wanted))).transpose()
    }

    pub(super) fn count(&self, field: &str) -> Result<Option<usize>> {
        self.read(field, "a whole number ≥ 0", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    pub(super) fn need_count(&self, field: &str) -> Result<usize> {
        self.missing(field, self.count(field)?)
    }

    pub(super) fn number(&self, field: &str) -> Result<Option<f64>> {
        self.read(field, "a number", Value::as_f64)
    }

    pub(super) fn flag(&self, field: &str) -> Result<bool> {
        Ok(self.read(field, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    pub(super) fn object(&self, field: &str) -> Result<Option<&'a Map<String, Value>>> {
        self.read(field, "an object", Value::as_object)
    }
}
