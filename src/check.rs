//! A small proof that an adapter computes: one generated kernel against its CPU reference.

use anyhow::Result;
use pollster::block_on;
use wgforge::codegen::io::{Buf, Io};
use wgforge::codegen::kernels::gemv::{Epilogue, Shape};
use wgforge::codegen::types::{Act, Format, Scale, stride};
use wgforge::codegen::{Target, Workload};
use wgforge::runtime::{Device, KernelSource, Recorder, Slice, bytemuck};

use crate::numbers::random;

/// Sizes that no tile divides.
const ROWS: u32 = 203;
const COLUMNS: u32 = 331;

/// Multiplies int4 weights with int8 activations and gives the largest relative difference from
/// the reference: 0 wherever multiplication is IEEE's, for the sums are of integers.
pub(crate) fn largest_error(device: &Device) -> Result<f64> {
    let shape = Shape {
        rows: ROWS,
        total: ROWS,
        first: 0,
        columns: COLUMNS,
        format: Format::I4,
        scale: Scale::Row,
        x: Act::I8,
        out: Act::F32,
        grids: false,
        epilogue: Epilogue::Store,
        split_a: 0,
        split_b: 0,
        softcap: 0.0,
    };
    let rows = u64::from(shape.padded_rows());
    let weights = noise(1, rows * shape.format.row_bytes(COLUMNS) / 4);
    let scales = floats(2, rows);
    let x = noise(3, Act::I8.row_bytes(COLUMNS) / 4);
    let grids = floats(4, 8);
    let mut out = vec![0; stride(ROWS) as usize];

    let workload = Workload::Gemv(shape);
    let variant = workload.generic(device.caps());
    let rendered = variant.render(Target::Native)?;
    let source = KernelSource { label: "check", wgsl: &rendered.wgsl, bindings: &rendered.bindings };
    let pipeline = block_on(device.pipeline(&source))?;
    let upload = |label: &str, words: &[u32]| -> Result<Slice> {
        let slice = block_on(device.buffer(label, words.len() as u64 * 4))?;
        device.write(&slice, 0, bytemuck::cast_slice(words));
        Ok(slice)
    };
    let slices = [
        upload("w", &weights)?,
        upload("scales", &scales)?,
        upload("x", &x)?,
        upload("grids", &grids)?,
        upload("out", &out)?,
    ];
    let group = pipeline.bind(device, &slices)?;
    let mut recorder = Recorder::new(device, "check");
    recorder.pass("check").dispatch(&pipeline, &group, variant.groups(1))?;
    recorder.submit();
    let got = block_on(device.read(&slices[4]))?;

    let bufs =
        vec![Buf::Read(&weights), Buf::Read(&scales), Buf::Read(&x), Buf::Read(&grids), Buf::Write(&mut out)];
    workload.reference(&mut Io::new(variant.bindings(), bufs, 1));
    let errors = got.as_chunks::<4>().0.iter().zip(&out).take(ROWS as usize).map(|(got, wanted)| {
        let (got, wanted) = (f64::from(f32::from_le_bytes(*got)), f64::from(f32::from_bits(*wanted)));
        (got - wanted).abs() / wanted.abs().max(f64::from(f32::MIN_POSITIVE))
    });
    Ok(errors.fold(0.0, |most: f64, e| if e.is_nan() || e > most { e } else { most }))
}

fn noise(seed: u64, words: u64) -> Vec<u32> {
    #[expect(clippy::cast_possible_truncation, reason = "the low half of a random number is one as well")]
    (0..words).map(|i| random(seed, i) as u32).collect()
}

/// Floats from 0.5 to 1.
fn floats(seed: u64, words: u64) -> Vec<u32> {
    noise(seed, words).into_iter().map(|bits| (bits & 0x7f_ffff) | 0x3f00_0000).collect()
}
