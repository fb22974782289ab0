//! `wgforge doctor`: adapters, what each can do, which kernels it gets, and what is missing.

use anyhow::Result;
use pollster::block_on;
use serde_json::{Value, json};
use wgforge::autotune::{devices, generic};
use wgforge::runtime::{AdapterReport, Device, DeviceOptions};

use crate::check::{self, Outcome};
use crate::cli::{DoctorArgs, Global};
use crate::console;
use crate::session::{self, Place};

/// What one binding must hold for every table of Gemma 4 E2B in the mobile layout.
const LARGEST_TABLE: u64 = 1_174_405_120;

/// What was found out about one adapter.
struct Finding {
    report: AdapterReport,
    /// Which kernels it gets, and why.
    kernels: Result<String>,
    /// Notes on databases that were passed over, and on what the chosen one was not made for.
    notes: Vec<String>,
    /// The latter as data: what differs, and whether that is hard.
    mismatches: Vec<(String, bool)>,
    /// Whether kernels compute there what they should.
    check: Result<Outcome>,
}

/// Runs the subcommand.
pub(crate) fn execute(global: &Global, args: &DoctorArgs) -> Result<()> {
    let options = session::device_options(global);
    let all: Vec<Finding> = block_on(wgforge::runtime::adapters(options.backend))
        .into_iter()
        .filter(|report| matches(report, &options))
        .map(|report| examine(global, &options, report))
        .collect();
    let chosen = Place::of(&Global { kernels: None, ..global.clone() })?;
    let missing = missing(&all, &chosen);
    if args.json {
        return console::json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "adapters": all.iter().map(as_json).collect::<Value>(),
            "chosen": { "adapter": chosen.adapter(), "backend": chosen.backend() },
            "missing": missing,
        }));
    }
    console::line(format_args!("wgforge {}", env!("CARGO_PKG_VERSION")))?;
    for finding in &all {
        console::line("")?;
        console::write(&as_text(finding))?;
    }
    console::line(format_args!("\nchosen   {} ({})", chosen.adapter(), chosen.backend()))?;
    for advice in missing {
        console::line(format_args!("missing  {advice}"))?;
    }
    Ok(())
}

fn matches(report: &AdapterReport, options: &DeviceOptions) -> bool {
    let part = options.name.as_deref().unwrap_or_default().to_lowercase();
    report.name.to_lowercase().contains(&part)
}

fn examine(global: &Global, options: &DeviceOptions, report: AdapterReport) -> Finding {
    let opened = report.backend.parse().and_then(|backend| {
        let name = Some(report.name.clone());
        block_on(Device::request(&DeviceOptions { backend: Some(backend), name, ..options.clone() }))
    });
    match opened {
        Err(error) => {
            let text = error.to_string();
            Finding {
                report,
                kernels: Err(error.into()),
                notes: Vec::new(),
                mismatches: Vec::new(),
                check: Err(anyhow::anyhow!(text)),
            }
        }
        Ok(device) => {
            let chosen = session::choose_kernels(device.report(), global.kernels.as_deref());
            let (kernels, notes, mismatches) = match chosen {
                Ok(selection) => {
                    let found = selection.mismatches.iter().map(|m| (m.to_string(), m.is_hard())).collect();
                    (Ok(selection.why), selection.notes, found)
                }
                Err(error) => (Err(error), Vec::new(), Vec::new()),
            };
            let check = Ok(check::every_family(&device));
            // What was granted, masks included.
            Finding { report: device.report().clone(), kernels, notes, mismatches, check }
        }
    }
}

/// What the chosen adapter lacks, and whether there should be a better one.
fn missing(all: &[Finding], chosen: &Place) -> Vec<String> {
    let mut advice = Vec::new();
    if all.is_empty() {
        advice.push(format!("any adapter. {}", session::remedy()));
    } else if all.iter().all(|f| f.report.device_type == "cpu") {
        let what = "a GPU: only software adapters were found. If there is one in this machine, install";
        advice.push(format!("{what} its vendor's driver"));
    }
    if let Place::Gpu(device) = chosen {
        let (name, caps) = (device.report(), device.caps());
        if !caps.f16 {
            advice.push(format!(
                "{name}: f16 in shaders; activations and KV cache take twice the memory traffic"
            ));
        }
        if !caps.subgroups {
            advice.push(format!("{name}: subgroup operations; sums go through workgroup memory"));
        }
        if !caps.timestamps {
            advice.push(format!("{name}: timestamps; `bench --profile` and tuning need them"));
        }
        if caps.max_binding_bytes < LARGEST_TABLE {
            advice.push(format!(
                "{name}: bindings of {} MB (it has {}); E2B's per-layer table is gathered on the host",
                LARGEST_TABLE >> 20,
                caps.max_binding_bytes >> 20
            ));
        }
    }
    advice
}

fn as_text(f: &Finding) -> String {
    let (r, c) = (&f.report, &f.report.caps);
    let yes = |b: bool| if b { "yes" } else { "no" };
    let subgroups =
        if c.subgroups { format!("{} to {} lanes", c.subgroup_min, c.subgroup_max) } else { "no".into() };
    let mut text = format!("{r}\n");
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<12}{value}\n"));
    line("driver", format!("{} {}", r.driver, r.driver_info));
    line("class", c.class());
    line("subgroups", subgroups);
    line("f16", yes(c.f16).into());
    line("timestamps", yes(c.timestamps).into());
    line("WebGPU", if r.compliant { "all of it".into() } else { "parts are missing".into() });
    line("workgroup", format!("{} threads, {} KiB", c.max_invocations, c.max_workgroup_bytes >> 10));
    line("binding", format!("{} MiB, {} a kernel", c.max_binding_bytes >> 20, c.max_storage_bindings));
    line("buffer", format!("{} MiB", c.max_buffer_bytes >> 20));
    line(
        "kernels",
        match &f.kernels {
            Ok(why) => why.clone(),
            Err(error) => format!("none: {error:#}"),
        },
    );
    // That other devices and classes have other databases is no news.
    let chosen = f.kernels.as_deref().unwrap_or_default();
    let embedded = |note: &&String| {
        let mut names = devices::FILES.iter().chain(generic::FILES).map(|(name, _)| *name);
        names.any(|name| note.starts_with(name) && !chosen.starts_with(name))
    };
    for note in f.notes.iter().filter(|note| !embedded(note)) {
        line("", note.clone());
    }
    line(
        "computes",
        match &f.check {
            Ok(o) if o.wrong.is_empty() => format!("right: {} kernels agree with their references", o.right),
            Ok(o) => format!("WRONG, update the driver: {}", o.wrong.join("; ")),
            Err(error) => format!("not at all: {error:#}"),
        },
    );
    text
}

fn as_json(f: &Finding) -> Value {
    let r = &f.report;
    let text = |e: &anyhow::Error| format!("{e:#}");
    json!({
        "name": r.name,
        "backend": r.backend,
        "device_type": r.device_type,
        "vendor": r.vendor,
        "device": r.device,
        "driver": r.driver,
        "driver_info": r.driver_info,
        "compliant": r.compliant,
        "class": r.caps.class(),
        "caps": r.caps,
        "features": r.features,
        "subgroup_min": r.subgroup_min,
        "subgroup_max": r.subgroup_max,
        "kernels": f.kernels.as_ref().ok(),
        "notes": f.notes,
        "mismatches": f.mismatches.iter().map(|(what, hard)| json!({ "what": what, "hard": hard })).collect::<Value>(),
        "computes_right": f.check.as_ref().is_ok_and(|o| o.wrong.is_empty()),
        "wrong": f.check.as_ref().map(|o| o.wrong.clone()).unwrap_or_default(),
        "error": f.check.as_ref().err().or(f.kernels.as_ref().err()).map(text),
    })
}
