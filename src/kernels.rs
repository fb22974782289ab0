//! `wgforge kernels`: the families, and any kernel as the GPU gets it.

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use wgforge::codegen::{Caps, FAMILIES, Rendered, TEMPLATES, Target, Variant, Workload, shapes};

use crate::cli::{Global, KernelsCommand, ShowArgs, TargetChoice};
use crate::console::{self, Usage, usage};
use crate::session::{Place, device_options};

/// Tokens for which `show` prints the size of the grid.
const GRID_TOKENS: [u32; 2] = [1, 512];

/// Runs the subcommand.
pub(crate) fn execute(global: &Global, command: &KernelsCommand) -> Result<()> {
    match command {
        KernelsCommand::List { json } => list(*json),
        KernelsCommand::Show(args) => show(global, args),
    }
}

fn list(json: bool) -> Result<()> {
    let caps = Caps::webgpu_baseline();
    let all = shapes::e2b();
    let rows: Vec<(&str, String, usize, usize)> = TEMPLATES
        .iter()
        .map(|(name, template)| {
            let of_family: Vec<_> = all.iter().filter(|w| w.kernel() == *name).collect();
            let candidates = of_family.first().map_or(0, |w| w.candidates(&caps).len());
            (*name, summary(template), of_family.len(), candidates)
        })
        .collect();
    if json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|(name, does, shapes, candidates)| {
                json!({ "kernel": name, "does": does, "e2b_shapes": shapes, "baseline_candidates": candidates })
            })
            .collect();
        return console::json(&json!(rows));
    }
    let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
    for (name, does, ..) in rows {
        console::line(format_args!("{name:<width$}  {does}"))?;
    }
    Ok(())
}

/// What the comment at the head of a template says first.
fn summary(template: &str) -> String {
    let comment = template.trim_start().strip_prefix("{#-").and_then(|t| t.split_once("-#}"));
    let text: Vec<&str> = comment.map_or("", |(text, _)| text).split_whitespace().collect();
    let text = text.join(" ");
    let end = text.find("; see ").or_else(|| text.find(". ")).unwrap_or(text.len());
    let first = text.find(". ").unwrap_or(end).min(end);
    text[..first].to_owned()
}

fn show(global: &Global, args: &ShowArgs) -> Result<()> {
    let workload = workload(args)?;
    let caps = caps(global, args)?;
    let variant = variant(&workload, &caps, args.config.as_deref())?;
    if let Some(reason) = variant.why_not(&caps) {
        eprintln!("notice: not for a device of the class {}: {reason}", caps.class());
    }
    let target = match args.target {
        TargetChoice::Native => Target::Native,
        TargetChoice::Web => Target::Web,
    };
    let rendered = variant.render(target)?;
    if args.json {
        return console::json(&as_json(&variant, &caps, &rendered)?);
    }
    console::write(&preamble(&variant, &caps, &rendered))?;
    console::write(&rendered.wgsl)
}

fn workload(args: &ShowArgs) -> Result<Workload> {
    let name = args.kernel.as_str();
    if !FAMILIES.contains(&name) {
        return usage(format!("unknown kernel `{name}`; known are {}", FAMILIES.join(", ")));
    }
    let default = shapes::e2b()
        .into_iter()
        .find(|w| w.kernel() == name)
        .with_context(|| format!("no shape of `{name}` is known; give one with --shape"))?;
    let Some(text) = &args.shape else { return Ok(default) };
    let given = parse("--shape", text)?;
    Workload::parse(name, given)
        .map_err(|e| Usage(format!("--shape: {e}; an example is {}", default.shape_json())).into())
}

/// The class that is asked for, or that of the device at hand.
fn caps(global: &Global, args: &ShowArgs) -> Result<Caps> {
    if let Some(class) = &args.class {
        return class_caps(class).ok_or_else(|| {
            Usage(format!(
                "--class {class}: wanted plain, plain-f16, subgroupN or subgroupN-f16, N a power of two"
            ))
            .into()
        });
    }
    match Place::of(&Global { kernels: None, ..global.clone() }) {
        Ok(Place::Gpu(device)) => Ok(device.caps().clone()),
        Ok(Place::Reference) => {
            let mask = device_options(global).disable;
            Ok(Caps::webgpu_baseline().with_f16(!mask.f16))
        }
        Err(error) => Err(error),
    }
}

fn class_caps(class: &str) -> Option<Caps> {
    let (base, f16) = class.strip_suffix("-f16").map_or((class, false), |base| (base, true));
    let caps = if base == "plain" {
        Caps::webgpu_baseline()
    } else {
        let size: u32 = base.strip_prefix("subgroup")?.parse().ok()?;
        Caps::webgpu_baseline().with_subgroups(Some(size).filter(|n| n.is_power_of_two() && *n <= 128)?)
    };
    Some(caps.with_f16(f16))
}

/// The generic variant with the fields given put over its configuration.
fn variant(workload: &Workload, caps: &Caps, config: Option<&str>) -> Result<Variant> {
    let generic = workload.generic(caps);
    let Some(text) = config else { return Ok(generic) };
    let mut fields = parse("--config", &generic.config_json())?;
    match (parse("--config", text)?, &mut fields) {
        (Value::Object(given), Value::Object(fields)) => fields.extend(given),
        _ => return usage("--config: wanted a JSON object"),
    }
    workload
        .with_config(fields)
        .map_err(|e| Usage(format!("--config: {e}; the default is {}", generic.config_json())).into())
}

fn parse(option: &str, text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| anyhow!(Usage(format!("{option}: not JSON: {e}"))))
}

fn as_json(variant: &Variant, caps: &Caps, rendered: &Rendered) -> Result<Value> {
    let workload = variant.workload();
    Ok(json!({
        "kernel": variant.kernel(),
        "class": caps.class(),
        "shape": serde_json::from_str::<Value>(&workload.shape_json())?,
        "config": serde_json::from_str::<Value>(&variant.config_json())?,
        "workgroup": rendered.workgroup,
        "workgroup_bytes": rendered.workgroup_bytes,
        "bindings": rendered.bindings,
        "groups": GRID_TOKENS.map(|n| json!({ "tokens": n, "groups": variant.groups(n) })),
        "hash": rendered.hash,
        "wgsl": rendered.wgsl,
    }))
}

/// The same as comments, so that what is printed remains a shader.
fn preamble(variant: &Variant, caps: &Caps, rendered: &Rendered) -> String {
    let mut text = format!("// kernel    {}, for the class {}\n", variant.kernel(), caps.class());
    text += &format!("// shape     {}\n", variant.workload().shape_json());
    text += &format!("// config    {}\n", variant.config_json());
    let [x, y, z] = rendered.workgroup;
    text += &format!("// workgroup {x} x {y} x {z} threads, {} bytes of memory\n", rendered.workgroup_bytes);
    for tokens in GRID_TOKENS {
        let [x, y, z] = variant.groups(tokens);
        text += &format!("// dispatch  {x} x {y} x {z} workgroups for {tokens} tokens\n");
    }
    for (i, binding) in rendered.bindings.iter().enumerate() {
        text += &format!("// binding {i} {} ({:?})\n", binding.name, binding.access);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_read_as_caps_write_them() {
        for class in ["plain", "plain-f16", "subgroup4", "subgroup32-f16"] {
            assert_eq!(class_caps(class).map(|c| c.class()).as_deref(), Some(class), "{class}");
        }
        for class in ["", "subgroup", "subgroup3", "subgroup256", "fast"] {
            assert!(class_caps(class).is_none(), "{class}");
        }
    }

    #[test]
    fn every_template_says_what_it_does() {
        for (name, template) in TEMPLATES {
            let text = summary(template);
            assert!(text.len() > 10 && !text.contains("codegen/"), "{name}: {text}");
        }
    }
}
