//! Tunes the layer on this device and writes its database: `autotune FILE`. With `--generic` the
//! defaults for devices nobody has tuned instead.

use std::{error::Error, fs};

use kernel::workloads;
use pollster::block_on;
use wgforge_codegen::{
    Caps, Database, Target, Variant,
    check::{Case, Inputs},
    db::{DeviceId, Entry, Timing},
};
use wgforge_runtime::{BindGroup, Device, DeviceOptions, KernelSource, Pipeline, Recorder, bytemuck};

/// Tokens of the calls that are timed.
const TOKENS: u32 = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (generic, file) = match arguments.as_slice() {
        [option, file] if option == "--generic" => (true, file),
        [file] if !file.starts_with('-') => (false, file),
        _ => return Err("usage: autotune [--generic] FILE".into()),
    };
    let database = if generic {
        Database::generic(&Caps::webgpu_baseline(), &workloads())?
    } else {
        tune(&block_on(Device::request(&DeviceOptions::default()))?)?
    };
    fs::write(file, database.to_toml())?;
    println!("wrote {file}");
    Ok(())
}

/// The fastest configuration of each workload among those that compute the right thing.
fn tune(device: &Device) -> Result<Database, Box<dyn Error>> {
    let report = device.report();
    let id = DeviceId {
        name: report.name.clone(),
        vendor: report.vendor,
        device: report.device,
        driver: format!("{} {}", report.driver, report.driver_info).trim().to_owned(),
        backend: report.backend.clone(),
    };
    let mut database = Database::new(device.caps().clone(), Some(id), Some("30.0.1".into()));
    for workload in workloads() {
        let mut best: Option<(Variant, Timing)> = None;
        for variant in workload.candidates(device.caps()) {
            match measure(device, &variant) {
                Ok(timing) => {
                    println!(
                        "{} {}: {:.0} us",
                        workload.shape_json(),
                        variant.config_json(),
                        timing.median_us
                    );
                    if best.as_ref().is_none_or(|(_, b)| timing.median_us < b.median_us) {
                        best = Some((variant, timing));
                    }
                }
                Err(reason) => println!("{} {}: {reason}", workload.shape_json(), variant.config_json()),
            }
        }
        let (variant, timing) = best.ok_or("no candidate is right")?;
        let wgsl_hash = variant.render(Target::Native)?.hash;
        database.insert(Entry { variant, wgsl_hash, timing: Some(timing) });
    }
    Ok(database)
}

/// Checks a variant against its reference on all kinds of inputs, then times it.
fn measure(device: &Device, variant: &Variant) -> Result<Timing, Box<dyn Error>> {
    let rendered = variant.render(Target::Native)?;
    let source = KernelSource { label: variant.kernel(), wgsl: &rendered.wgsl, bindings: &rendered.bindings };
    let pipeline = block_on(device.pipeline(&source))?;
    for inputs in Inputs::ALL {
        // No multiple of any tile.
        let case = Case::draw(variant, inputs, 5, 0, 1);
        let (group, got) = bind(device, &pipeline, variant, &case)?;
        dispatch(device, &pipeline, &group, variant.groups(case.tokens), 1)?;
        let mut outputs = Vec::new();
        for slice in got {
            outputs.push(bytemuck::pod_collect_to_vec(&block_on(device.read(&slice))?));
        }
        case.compare(variant, &case.expected(variant), &outputs).map_err(|e| format!("{inputs:?}: {e}"))?;
    }
    let case = Case::draw(variant, Inputs::Random, TOKENS, 0, 1);
    let (group, _slices) = bind(device, &pipeline, variant, &case)?;
    let mut samples = Vec::new();
    for _ in 0..8 {
        samples.push(dispatch(device, &pipeline, &group, variant.groups(TOKENS), 4)?);
    }
    // The first one warms the device up.
    samples.remove(0);
    samples.sort_by(f64::total_cmp);
    let count = u32::try_from(samples.len())?;
    Ok(Timing { median_us: samples[samples.len() / 2], min_us: samples[0], samples: count })
}

fn bind(
    device: &Device,
    pipeline: &Pipeline,
    variant: &Variant,
    case: &Case,
) -> Result<(BindGroup, Vec<wgforge_runtime::Slice>), Box<dyn Error>> {
    let mut slices = Vec::new();
    for (name, words) in variant.bindings().into_iter().zip(&case.buffers) {
        let slice = block_on(device.buffer(name, words.len() as u64 * 4))?;
        device.write(&slice, 0, bytemuck::cast_slice(words));
        slices.push(slice);
    }
    Ok((pipeline.bind(device, &slices)?, slices))
}

/// Microseconds a dispatch takes, by the GPU's clock where there is one.
fn dispatch(
    device: &Device,
    pipeline: &Pipeline,
    group: &BindGroup,
    groups: [u32; 3],
    times: u32,
) -> Result<f64, Box<dyn Error>> {
    let mut recorder = Recorder::with_timestamps(device, 1)?;
    let mut pass = recorder.pass("tune");
    for _ in 0..times {
        pass.dispatch(pipeline, group, groups)?;
    }
    drop(pass);
    let start = std::time::Instant::now();
    let submission = recorder.submit();
    block_on(submission.wait())?;
    let wall = start.elapsed().as_secs_f64() * 1e6;
    device.check()?;
    let measured = block_on(submission.timestamps().read())?;
    Ok(measured.map_or(wall, |us| us.iter().sum()) / f64::from(times))
}
