//! The embedded kernels compute what a plain loop does, for any number of tokens.

use half::f16;
use own_kernel::{INPUTS, LayerF16, LayerF32, OUTPUTS, kernels, layer, numbers, plain};
use pollster::block_on;
use wgforge_runtime::{CapsMask, Device, DeviceOptions, Kernel};

fn close(y: &[f32], wanted: &[f32], bound: f32) {
    assert_eq!(y.len(), wanted.len());
    let largest = wanted.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for (i, (a, b)) in y.iter().zip(wanted).enumerate() {
        assert!((a - b).abs() <= bound * largest, "output {i} is {a} instead of {b}");
    }
}

#[test]
fn the_layer_equals_a_plain_loop() {
    for disable in [CapsMask::default(), CapsMask::baseline()] {
        let device = match block_on(Device::request(&DeviceOptions { disable, ..Default::default() })) {
            Ok(device) => device,
            Err(e) if std::env::var_os("WGFORGE_REQUIRE_ADAPTER").is_none() => {
                return eprintln!("skipped: {e}");
            }
            Err(e) => panic!("{e}"),
        };
        let (w, bias) = (numbers(INPUTS * OUTPUTS, 2), numbers(OUTPUTS, 3));
        let half = |v: &[f32]| v.iter().copied().map(f16::from_f32).collect::<Vec<_>>();
        for tokens in [1, 5, 16] {
            let x = numbers(tokens * INPUTS, 1);
            let wanted = plain(&x, &w, &bias);
            close(&block_on(layer::<LayerF32, f32>(&device, &x, &w, &bias)).expect("runs"), &wanted, 1e-5);
            let y = block_on(layer::<LayerF16, f16>(&device, &half(&x), &half(&w), &bias)).expect("runs");
            let y: Vec<f32> = y.into_iter().map(f16::to_f32).collect();
            close(&y, &wanted, 2e-3);
        }
    }
}

#[test]
fn what_was_measured_is_for_its_device_and_the_rest_for_all() {
    let find = |name: &str| kernels::SETS.iter().find(|set| set.name == name).expect("embedded");
    assert_eq!(find("generic").adapter, None);
    let measured = find("llvmpipe");
    assert!(measured.adapter.is_some_and(|name| name.starts_with("llvmpipe")));
    for info in [LayerF32::INFO, LayerF16::INFO] {
        assert!(measured.find(info.kernel, info.shape).is_some(), "{} was tuned", info.name);
    }
}
