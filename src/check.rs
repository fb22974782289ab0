//! A small proof that an adapter computes: a kernel of each family against its CPU reference.

use anyhow::Result;
use pollster::block_on;
use wgforge::codegen::{
    FAMILIES, Target, Variant, Workload,
    check::{Case, Inputs},
    shapes,
};
use wgforge::runtime::{Device, KernelSource, Recorder, bytemuck};

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Kernels that agree with their references.
    pub(crate) right: usize,
    /// The others, each with what is wrong.
    pub(crate) wrong: Vec<String>,
}

/// Runs a kernel of each family on an odd shape and random numbers.
pub(crate) fn every_family(device: &Device) -> Outcome {
    let mut outcome = Outcome { right: 0, wrong: Vec::new() };
    let all = shapes::odd();
    for family in FAMILIES {
        let Some(workload) = all.iter().find(|w| w.kernel() == *family) else { continue };
        match agrees(device, workload) {
            Ok(()) => outcome.right += 1,
            Err(error) => outcome.wrong.push(format!("{family}: {error:#}")),
        }
    }
    outcome
}

fn agrees(device: &Device, workload: &Workload) -> Result<()> {
    let variant = workload.generic(device.caps());
    let case = Case::draw(&variant, Inputs::Random, 3, 5, 1);
    let got = run(device, &variant, &case)?;
    case.compare(&variant, &case.expected(&variant), &got).map_err(anyhow::Error::msg)
}

fn run(device: &Device, variant: &Variant, case: &Case) -> Result<Vec<Vec<u32>>> {
    let rendered = variant.render(Target::Native)?;
    let source = KernelSource { label: variant.kernel(), wgsl: &rendered.wgsl, bindings: &rendered.bindings };
    let pipeline = block_on(device.pipeline(&source))?;
    let mut slices = Vec::new();
    for (name, words) in variant.bindings().iter().zip(&case.buffers) {
        // Kernels read whole quads.
        let slice = block_on(device.buffer(name, (words.len() as u64 * 4).next_multiple_of(16)))?;
        device.write(&slice, 0, bytemuck::cast_slice(words));
        slices.push(slice);
    }
    let group = pipeline.bind(device, &slices)?;
    let mut recorder = Recorder::new(device, "check");
    recorder.pass("check").dispatch(&pipeline, &group, variant.groups(case.tokens))?;
    recorder.submit();
    let mut got = Vec::new();
    for (slice, words) in slices.iter().zip(&case.buffers) {
        let bytes = block_on(device.read(slice))?;
        let mut back: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        back.truncate(words.len());
        got.push(back);
    }
    device.check()?;
    Ok(got)
}
