//! Text to databases. Files come from the user's cache folder and from other people, so nothing
//! about them is taken for granted: every field is checked, all mistakes are reported at once.

use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};
use toml::Table;

use super::{Database, DbError, DbErrors, Detail, DeviceId, Entry, Header, RunnerUp, SCHEMA, Timing};
use crate::{Caps, Families, Variant, Workload};

/// Integers of a shape: up to beyond any model's sizes, and small enough that products of a shape's
/// and a configuration's numbers do not overflow.
const SHAPE: RangeInclusive<u64> = 0..=1 << 22;
/// Integers of a configuration: sizes and counts, so never zero.
const CONFIG: RangeInclusive<u64> = 1..=1 << 12;

impl Database {
    /// Reads a database. `file` names it in errors.
    ///
    /// # Errors
    /// Every mistake in the file: its syntax, its schema, missing or wrong fields, kernels this
    /// version does not know, configurations that cannot run on the devices of the header.
    pub fn parse(file: &str, text: &str) -> Result<Self, DbErrors> {
        Self::parse_with(&Families::builtin(), file, text)
    }

    /// Reads a database that may name any of `families`.
    ///
    /// # Errors
    /// As [`Database::parse`].
    pub fn parse_with(families: &Families, file: &str, text: &str) -> Result<Self, DbErrors> {
        match Self::parse_lenient_with(families, file, text)? {
            (database, mistakes) if mistakes.is_empty() => Ok(database),
            (_, mistakes) => Err(DbErrors(mistakes)),
        }
    }

    /// Reads what can be read: entries with mistakes are left out and returned as errors beside
    /// the rest. Fields that are not known are not mistakes; a later version may write them.
    ///
    /// # Errors
    /// Mistakes in syntax, schema or header, which say something about every entry.
    pub fn parse_lenient(file: &str, text: &str) -> Result<(Self, Vec<DbError>), DbErrors> {
        Self::parse_lenient_with(&Families::builtin(), file, text)
    }

    /// As [`Database::parse_lenient`], of a database that may name any of `families`.
    ///
    /// # Errors
    /// As [`Database::parse_lenient`].
    pub fn parse_lenient_with(
        families: &Families,
        file: &str,
        text: &str,
    ) -> Result<(Self, Vec<DbError>), DbErrors> {
        let syntax = |e: toml::de::Error| {
            DbErrors(vec![DbError::Syntax { file: file.into(), report: e.to_string().trim_end().into() }])
        };
        let mut table: Table = text.parse().map_err(syntax)?;
        match table.get("schema").and_then(toml::Value::as_integer) {
            Some(schema) if schema == i64::from(SCHEMA) => {}
            _ => {
                let found = table.get("schema").map_or("missing".into(), ToString::to_string);
                return Err(DbErrors(vec![DbError::Schema { file: file.into(), found }]));
            }
        }
        let kernels = table.remove("kernel");
        let mut database = Self { header: header(file, table)?, entries: Vec::new() };
        let mut mistakes = Vec::new();
        let list = match kernels {
            None => Vec::new(),
            Some(toml::Value::Array(list)) => list,
            Some(_) => {
                return Err(DbErrors(vec![DbError::Header {
                    file: file.into(),
                    field: "kernel".into(),
                    report: "is not a list of tables".into(),
                }]));
            }
        };
        for (i, value) in list.into_iter().enumerate() {
            let mistake = |(field, report): (&str, String)| DbError::Entry {
                file: file.into(),
                entry: i + 1,
                field: field.into(),
                report,
            };
            match entry(families, value, &database.header.caps) {
                Ok(e) if database.get(&e.variant.workload()).is_some() => {
                    mistakes.push(mistake(("shape", "stands here a second time".into())));
                }
                Ok(e) => database.insert(e),
                Err(e) => mistakes.push(mistake(e)),
            }
        }
        Ok((database, mistakes))
    }
}

fn header(file: &str, mut table: Table) -> Result<Header, DbErrors> {
    let mut mistakes = Vec::new();
    let mut mistake = |field: &str, report: String| {
        mistakes.push(DbError::Header { file: file.into(), field: field.into(), report });
    };
    let class: Option<String> = take(&mut table, "class").unwrap_or_else(|e| {
        mistake("class", e);
        None
    });
    let codegen: Option<String> = take(&mut table, "codegen").unwrap_or_else(|e| {
        mistake("codegen", e);
        None
    });
    let wgpu: Option<String> = take(&mut table, "wgpu").unwrap_or_else(|e| {
        mistake("wgpu", e);
        None
    });
    let device: Option<DeviceId> = take(&mut table, "device").unwrap_or_else(|e| {
        mistake("device", e);
        None
    });
    let features: Option<Vec<String>> = take(&mut table, "features").unwrap_or_else(|e| {
        mistake("features", e);
        None
    });
    let caps: Option<Caps> = take(&mut table, "caps").unwrap_or_else(|e| {
        mistake("caps", e);
        None
    });
    if caps.is_none() && !table.contains_key("caps") {
        mistake("caps", "is missing".into());
    }
    match (&class, &caps) {
        (Some(class), Some(caps)) if *class != caps.class() => {
            mistake("class", format!("is `{class}`, but [caps] are those of `{}`", caps.class()));
        }
        (None, _) => mistake("class", "is missing".into()),
        _ => {}
    }
    match (class, caps) {
        (Some(class), Some(caps)) if mistakes.is_empty() => {
            let (codegen, features) = (codegen.unwrap_or_default(), features.unwrap_or_default());
            Ok(Header { class, codegen, wgpu, device, features, caps })
        }
        _ => Err(DbErrors(mistakes)),
    }
}

/// One `[[kernel]]`, or the field that is wrong and why.
fn entry(families: &Families, value: toml::Value, caps: &Caps) -> Result<Entry, (&'static str, String)> {
    let toml::Value::Table(mut table) = value else {
        return Err(("kernel", "is not a table".into()));
    };
    let kernel: String = needed(&mut table, "kernel")?;
    let shape = object(&mut table, "shape", &SHAPE)?;
    let config = object(&mut table, "config", &CONFIG)?;
    let known = families.names().any(|name| name == kernel);
    let workload = Workload::parse_with(families, &kernel, shape)
        .map_err(|e| (if known { "shape" } else { "kernel" }, e))?;
    let variant: Variant = workload.with_config(config).map_err(|e| ("config", e))?;
    // Everything else about a variant may be asked only once this has passed.
    if let Some(reason) = variant.why_not(caps) {
        return Err(("config", format!("cannot run on the devices of [caps]: {reason}")));
    }
    let wgsl_hash: String = needed(&mut table, "wgsl_hash")?;
    if wgsl_hash.len() != 64 || !wgsl_hash.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(("wgsl_hash", "is not 64 hexadecimal digits".into()));
    }
    let timing = match take::<f64>(&mut table, "median_us").map_err(|e| ("median_us", e))? {
        None => None,
        Some(median_us) => {
            let (min_us, samples) = (needed(&mut table, "min_us")?, needed(&mut table, "samples")?);
            Some(Timing { median_us, min_us, samples, detail: detail(&mut table)? })
        }
    };
    Ok(Entry { variant, wgsl_hash, timing })
}

/// What later versions record; one field of it makes the others needed.
fn detail(table: &mut Table) -> Result<Option<Detail>, (&'static str, String)> {
    let Some(low_us) = take::<f64>(table, "low_us").map_err(|e| ("low_us", e))? else { return Ok(None) };
    Ok(Some(Detail {
        low_us,
        high_us: needed(table, "high_us")?,
        gb_s: needed(table, "gb_s")?,
        tflop_s: needed(table, "tflop_s")?,
        roofline: needed(table, "roofline")?,
        runner_up: take::<RunnerUp>(table, "runner_up").map_err(|e| ("runner_up", e))?,
    }))
}

fn take<T: DeserializeOwned>(table: &mut Table, field: &str) -> Result<Option<T>, String> {
    let Some(value) = table.remove(field) else { return Ok(None) };
    let value = to_json(value, &(0..=i64::MAX as u64))?;
    serde_json::from_value(value).map(Some).map_err(|e| e.to_string())
}

fn needed<T: DeserializeOwned>(table: &mut Table, field: &'static str) -> Result<T, (&'static str, String)> {
    take(table, field).map_err(|e| (field, e))?.ok_or((field, "is missing".into()))
}

fn object(
    table: &mut Table,
    field: &'static str,
    range: &RangeInclusive<u64>,
) -> Result<Value, (&'static str, String)> {
    match table.remove(field) {
        Some(value @ toml::Value::Table(_)) => to_json(value, range).map_err(|e| (field, e)),
        Some(_) => Err((field, "is not a table".into())),
        None => Err((field, "is missing".into())),
    }
}

/// TOML to JSON, which shapes and configurations are read from. The parser has bounded the depth.
fn to_json(value: toml::Value, range: &RangeInclusive<u64>) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(s) => Value::String(s),
        toml::Value::Boolean(b) => Value::Bool(b),
        toml::Value::Integer(i) => match u64::try_from(i) {
            Ok(n) if range.contains(&n) => Value::from(n),
            _ => return Err(format!("{i} is not between {} and {}", range.start(), range.end())),
        },
        toml::Value::Float(f) => {
            Value::Number(Number::from_f64(f).ok_or_else(|| format!("{f} is not a finite number"))?)
        }
        toml::Value::Array(items) => {
            Value::Array(items.into_iter().map(|v| to_json(v, range)).collect::<Result<_, _>>()?)
        }
        toml::Value::Table(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(k, v)| to_json(v, range).map(|v| (k.clone(), v)).map_err(|e| format!("{k}: {e}")))
                .collect::<Result<Map<_, _>, _>>()?,
        ),
        toml::Value::Datetime(d) => return Err(format!("{d} is a date")),
    })
}
