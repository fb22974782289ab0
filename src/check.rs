//! A small proof that an adapter computes: a kernel of each family against its CPU reference.

use anyhow::Result;
use wgforge::autotune::{self, Shader};
use wgforge::codegen::{
    FAMILIES, Target, Workload,
    check::{Case, Inputs},
    shapes,
};
use wgforge::runtime::Device;

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
    let rendered = variant.render(Target::Native)?;
    let shader = Shader {
        label: variant.kernel(),
        wgsl: &rendered.wgsl,
        bindings: &rendered.bindings,
        groups: variant.groups(case.tokens),
    };
    let got = pollster::block_on(autotune::run(device, &shader, &case.buffers))?;
    case.compare(&variant, &case.expected(&variant), &got).map_err(anyhow::Error::msg)
}
