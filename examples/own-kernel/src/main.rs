//! Runs the layer on the GPU in both storage types, and checks it against a plain loop.

use std::{error::Error, time::Instant};

use half::f16;
use own_kernel::{INPUTS, LayerF16, LayerF32, OUTPUTS, choose, layer, numbers, plain};
use pollster::block_on;
use wgforge_runtime::{Device, DeviceOptions};

const TOKENS: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let device = block_on(Device::request(&DeviceOptions::default()))?;
    println!("{}", device.report());
    let (x, w, bias) = (numbers(TOKENS * INPUTS, 1), numbers(INPUTS * OUTPUTS, 2), numbers(OUTPUTS, 3));

    let start = Instant::now();
    let wanted = plain(&x, &w, &bias);
    println!("plain loop: {:.2} ms", start.elapsed().as_secs_f64() * 1e3);

    let (set, info, _) = choose::<LayerF32>(&device, TOKENS as u32).ok_or("no kernel fits")?;
    println!("f32: {} from {set}", info.name);
    // The first call compiles.
    block_on(layer::<LayerF32, f32>(&device, &x, &w, &bias))?;
    let start = Instant::now();
    let y = block_on(layer::<LayerF32, f32>(&device, &x, &w, &bias))?;
    println!(
        "  {:.2} ms with upload and read-back, error {:.1e}",
        start.elapsed().as_secs_f64() * 1e3,
        error(&y, &wanted)?
    );

    let (set, info, _) = choose::<LayerF16>(&device, TOKENS as u32).ok_or("no kernel fits")?;
    println!("f16: {} from {set}", info.name);
    let half = |v: &[f32]| v.iter().copied().map(f16::from_f32).collect::<Vec<_>>();
    let (x, w) = (half(&x), half(&w));
    block_on(layer::<LayerF16, f16>(&device, &x, &w, &bias))?;
    let start = Instant::now();
    let y = block_on(layer::<LayerF16, f16>(&device, &x, &w, &bias))?;
    let y: Vec<f32> = y.into_iter().map(f16::to_f32).collect();
    println!(
        "  {:.2} ms with upload and read-back, error {:.1e}",
        start.elapsed().as_secs_f64() * 1e3,
        error(&y, &wanted)?
    );
    Ok(())
}

/// The largest difference relative to the largest value.
fn error(y: &[f32], wanted: &[f32]) -> Result<f32, String> {
    let largest = wanted.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let worst = y.iter().zip(wanted).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / largest;
    if y.len() == wanted.len() && worst < 2e-3 {
        Ok(worst)
    } else {
        Err(format!("the result is wrong by {worst}"))
    }
}
