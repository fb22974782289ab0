mod kernels {
    wgforge_codegen_macros::kernels!("tests/tiny.toml");
}

use kernels::tiny;
use wgforge_runtime::{Bound, Device, Result, Slice, TypedPipeline};

fn bind(
    device: &Device,
    norm: &TypedPipeline<tiny::Norm256F32NormF32>,
    [a, b, c]: [&Slice; 3],
) -> Result<Bound<tiny::Norm256F32NormF32>> {
    norm.bind(device, &tiny::Topk4096x1024x64FirstBindings { values: a, top_values: b, top_indices: c })
}

fn main() {}
