//! Readable names: what a person would call a kernel of this shape.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::Workload;

/// An object's fields in the order of the text, which is the order of the Rust struct.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        d.deserialize_map(InOrder)
    }
}

/// The marker type of a workload: `Gemv2560x1536I4RowI8F16Grids…`. Zeros, absent fields and
/// fractions are left out, so two workloads may share a name; [`super`] then tells them apart.
pub(super) fn marker(workload: &Workload) -> String {
    let mut name = camel(workload.kernel());
    let fields = serde_json::from_str::<Fields>(&workload.shape_in_order()).map(|f| f.0).unwrap_or_default();
    let mut after_number = false;
    for (key, value) in fields {
        let (word, number) = match value {
            Value::Bool(true) => (camel(&key), false),
            Value::String(s) => (camel(&s), false),
            Value::Number(n) if n.is_u64() && n.as_u64() != Some(0) => (n.to_string(), true),
            // An enum variant with a number, as in scales by parts.
            Value::Object(o) => (o.iter().map(|(k, v)| format!("{}{v}", camel(k))).collect(), false),
            _ => continue,
        };
        if number && after_number {
            name.push('x');
        } else if number && name.ends_with(|c: char| c.is_ascii_digit()) {
            name.push('_');
        }
        name.push_str(&word);
        after_number = number;
    }
    // Whatever a family's fields may hold, the result must be an identifier.
    name.retain(|c| c.is_ascii_alphanumeric() || c == '_');
    name
}

/// A configuration in few characters, for labels: `lanes32 rows4 wg128`.
pub(super) fn label(config_json: &str) -> String {
    let fields = serde_json::from_str::<Fields>(config_json).map(|f| f.0).unwrap_or_default();
    let words = fields.into_iter().filter_map(|(key, value)| match value {
        Value::Bool(true) => Some(key),
        Value::Bool(false) | Value::Null => None,
        Value::String(s) => Some(format!("{key}-{s}")),
        other => Some(format!("{key}{other}")),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// `attention_merge` to `AttentionMerge`.
pub(super) fn camel(snake: &str) -> String {
    let words = snake.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    words.map(|w| w[..1].to_ascii_uppercase() + &w[1..]).collect()
}

/// A module's name from a file's: `generic-subgroup32.toml` to `generic_subgroup32`.
pub(super) fn module(file: &str) -> String {
    let stem = std::path::Path::new(file).file_stem().map(|s| s.to_string_lossy().to_ascii_lowercase());
    let name: String =
        stem.unwrap_or_default().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("database_{name}") }
}

/// An identifier, raw where the word is a keyword.
pub(super) fn ident(name: &str) -> proc_macro2::Ident {
    let span = proc_macro2::Span::call_site();
    if syn::parse_str::<syn::Ident>(name).is_ok() {
        return proc_macro2::Ident::new(name, span);
    }
    match name {
        // Keywords that may not be raw.
        "self" | "super" | "crate" | "Self" | "_" => proc_macro2::Ident::new(&format!("{name}_"), span),
        _ => proc_macro2::Ident::new_raw(name, span),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_reads_like_its_shape() {
        let workload = Workload::parse(
            "topk",
            serde_json::json!({ "n": 4096, "chunk": 1024, "keep": 64, "first": true }),
        );
        assert_eq!(marker(&workload.expect("a valid shape")), "Topk4096x1024x64First");
    }

    #[test]
    fn odd_file_names_become_modules() {
        assert_eq!(module("tuned/generic-subgroup32-f16.toml"), "generic_subgroup32_f16");
        assert_eq!(module("7900 XTX.toml"), "database_7900_xtx");
    }
}
