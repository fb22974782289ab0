//! Databases as text: one line a field, keys and entries in a fixed order, so that a diff shows
//! what changed and nothing else.

use std::fmt::{self, Display, Write};

use serde_json::Value;

use super::{Database, Entry, SCHEMA};

impl Database {
    /// The file's text. Equal databases give equal text.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let header = &self.header;
        writeln!(out, "schema = {SCHEMA}")?;
        writeln!(out, "class = {}", text(&header.class))?;
        writeln!(out, "codegen = {}", text(&header.codegen))?;
        if let Some(wgpu) = &header.wgpu {
            writeln!(out, "wgpu = {}", text(wgpu))?;
        }
        if !header.features.is_empty() {
            writeln!(out, "features = {}", inline(&json(&header.features)))?;
        }
        if let Some(device) = &header.device {
            write!(out, "\n[device]\n{}", lines(&json(device)))?;
        }
        write!(out, "\n[caps]\n{}", lines(&json(&header.caps)))?;
        self.entries.iter().try_for_each(|entry| write_entry(out, entry))
    }
}

fn write_entry(out: &mut String, entry: &Entry) -> fmt::Result {
    writeln!(out, "\n[[kernel]]")?;
    writeln!(out, "kernel = {}", text(entry.variant.kernel()))?;
    // Shape and configuration were made from plain data, so their JSON parses.
    for (name, json) in
        [("shape", entry.variant.workload().shape_json()), ("config", entry.variant.config_json())]
    {
        writeln!(out, "{name} = {}", inline(&serde_json::from_str(&json).unwrap_or_default()))?;
    }
    writeln!(out, "wgsl_hash = {}", text(&entry.wgsl_hash))?;
    if let Some(timing) = &entry.timing {
        out.push_str(&lines(&json(timing)));
    }
    Ok(())
}

fn json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// A TOML string. JSON's escapes are a subset of TOML's, but for DEL, which TOML refuses bare.
fn text(s: &str) -> String {
    Value::from(s).to_string().replace('\u{7f}', "\\u007f")
}

/// `key = value` lines of an object.
fn lines(value: &Value) -> String {
    let fields = value.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null());
    fields.map(|(k, v)| format!("{k} = {}\n", inline(v))).collect()
}

/// A value on one line; TOML has no null, so such fields are left out, which reads as `None`.
fn inline(value: &Value) -> String {
    fn joined(items: impl Iterator<Item = impl Display>) -> String {
        items.map(|i| i.to_string()).collect::<Vec<_>>().join(", ")
    }
    match value {
        Value::Object(map) => {
            let fields = map.iter().filter(|(_, v)| !v.is_null());
            format!("{{ {} }}", joined(fields.map(|(k, v)| format!("{k} = {}", inline(v)))))
        }
        Value::Array(items) => format!("[{}]", joined(items.iter().map(inline))),
        Value::String(s) => text(s),
        // f64 through Debug always shows that it is a float and reads back the same.
        Value::Number(n) if n.is_f64() => format!("{:?}", n.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}
