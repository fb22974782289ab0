//! The same on a device that computes; skipped with a notice where there is none.

mod common;

use common::{test_adapter, triple, triple_bindings, words};
use pollster::block_on;
use wgforge_runtime::{CapsMask, Device, Error, KernelSource, ReadBackRing, Recorder, bytemuck};

fn triples(device: &Device) {
    let count = 64 * 100;
    let input: Vec<u32> = (0..count).map(|index| index * 7).collect();
    let bytes = u64::from(count) * 4;
    let source = block_on(device.buffer("source", bytes)).expect("a small buffer");
    let target = block_on(device.buffer("target", bytes)).expect("a small buffer");
    device.write(&source, 0, bytemuck::cast_slice(&input));
    let pipeline = block_on(device.pipeline(&triple(&triple_bindings()))).expect("a valid kernel");
    let group = pipeline.bind(device, &[source, target.clone()]).expect("two buffers");
    let mut recorder = Recorder::new(device, "triple");
    recorder.pass("triple").dispatch(&pipeline, &group, [100, 1, 1]).expect("a hundred groups");
    recorder.submit();
    let output = words(&block_on(device.read(&target)).expect("read-back"));
    let wanted: Vec<u32> = input.iter().map(|value| value * 3 + 1).collect();
    assert_eq!(output, wanted, "on {}", device.report());
    device.check().expect("nothing went wrong");
}

#[test]
fn a_trusted_kernel_computes_right() {
    let Some(device) = test_adapter(true, CapsMask::default()) else { return };
    assert!(device.trusted(), "as asked for");
    triples(&device);
}

#[test]
fn a_checked_kernel_computes_right() {
    let Some(device) = test_adapter(false, CapsMask::default()) else { return };
    assert!(!device.trusted(), "as asked for");
    triples(&device);
}

#[test]
fn a_kernel_computes_right_within_the_baseline() {
    let Some(device) = test_adapter(true, CapsMask::baseline()) else { return };
    assert_eq!(device.caps().class(), "plain", "all is masked");
    triples(&device);
}

#[test]
fn a_checked_kernel_stays_within_its_buffers() {
    let Some(device) = test_adapter(false, CapsMask::default()) else { return };
    let source = block_on(device.buffer("source", 256)).expect("a small buffer");
    let whole = block_on(device.buffer("target", 1024)).expect("a small buffer");
    let pipeline = block_on(device.pipeline(&triple(&triple_bindings()))).expect("a valid kernel");
    let target = whole.part(0, 256).expect("a quarter");
    let group = pipeline.bind(&device, &[source, target]).expect("two buffers");
    let mut recorder = Recorder::new(&device, "beyond");
    recorder.pass("beyond").dispatch(&pipeline, &group, [4, 1, 1]).expect("four groups");
    recorder.submit();
    let output = words(&block_on(device.read(&whole)).expect("read-back"));
    assert!(output[64..].iter().all(|&word| word == 0), "nothing beyond the quarter was written");
}

#[test]
fn results_come_back_while_later_work_is_in_flight() {
    let Some(device) = test_adapter(true, CapsMask::default()) else { return };
    let bytes = 64 * 4;
    let (even, odd) = (
        block_on(device.buffer("even", bytes)).expect("a small buffer"),
        block_on(device.buffer("odd", bytes)).expect("a small buffer"),
    );
    let pipeline = block_on(device.pipeline(&triple(&triple_bindings()))).expect("a valid kernel");
    let there = pipeline.bind(&device, &[even.clone(), odd.clone()]).expect("two buffers");
    let back = pipeline.bind(&device, &[odd.clone(), even.clone()]).expect("two buffers");
    let ring = block_on(ReadBackRing::new(&device, 2, bytes)).expect("two small buffers");
    let mut tickets = std::collections::VecDeque::new();
    let mut results = Vec::new();
    for step in 0..10 {
        if tickets.len() == 2 {
            let ticket = tickets.pop_front().expect("two are in flight");
            results.push(words(&block_on(ring.take(ticket)).expect("a result"))[0]);
        }
        let (group, written) = if step % 2 == 0 { (&there, &odd) } else { (&back, &even) };
        let mut recorder = Recorder::new(&device, "step");
        recorder.pass("step").dispatch(&pipeline, group, [1, 1, 1]).expect("one group");
        tickets.push_back(ring.copy(&mut recorder, written).expect("a free place"));
        recorder.submit();
    }
    for ticket in tickets {
        results.push(words(&block_on(ring.take(ticket)).expect("a result"))[0]);
    }
    let wanted: Vec<u32> = std::iter::successors(Some(1), |value| Some(value * 3 + 1)).take(10).collect();
    assert_eq!(results, wanted, "each step's own result");
}

#[test]
fn longer_work_takes_longer_by_the_gpus_clock() {
    let Some(device) = test_adapter(true, CapsMask::default()) else { return };
    let wgsl = "
        @group(0) @binding(0) var<storage, read> rounds: array<u32>;
        @group(0) @binding(1) var<storage, read_write> result: array<u32>;
        @compute @workgroup_size(64)
        fn main(@builtin(global_invocation_id) id: vec3<u32>) {
            var value = id.x;
            for (var i = 0u; i < rounds[0]; i++) { value = value * 1664525u + 1013904223u; }
            result[id.x] = value;
        }";
    let bindings = [
        common::binding("rounds", wgforge_runtime::Access::Read),
        common::binding("result", wgforge_runtime::Access::ReadWrite),
    ];
    let pipeline = block_on(device.pipeline(&KernelSource { label: "spin", wgsl, bindings: &bindings }));
    let pipeline = pipeline.expect("a valid kernel");
    let result = block_on(device.buffer("result", 64 * 64 * 4)).expect("a small buffer");
    let groups: Vec<_> = [1000_u32, 1_000_000]
        .iter()
        .map(|rounds| {
            let buffer = block_on(device.buffer("rounds", 4)).expect("a small buffer");
            device.write(&buffer, 0, &rounds.to_le_bytes());
            pipeline.bind(&device, &[buffer, result.clone()]).expect("two buffers")
        })
        .collect();
    // The first run compiles the shader on some drivers, so only the second is looked at.
    for run in 0..2 {
        let mut recorder = Recorder::with_timestamps(&device, 2).expect("two timed passes");
        for group in &groups {
            recorder.pass("spin").dispatch(&pipeline, group, [64, 1, 1]).expect("64 groups");
        }
        let times = block_on(recorder.submit().timestamps().read()).expect("read-back");
        assert_eq!(times.is_some(), device.caps().timestamps, "times where there is a clock");
        let Some(times) = times else { return };
        if run == 1 {
            assert!(times[1] > times[0], "a thousand times the work: {times:?} µs");
            assert!(times[1] < 60e6, "microseconds, not nanoseconds: {times:?}");
        }
    }
}

#[test]
fn a_lost_device_is_an_error_and_not_a_panic() {
    let Some(device) = test_adapter(true, CapsMask::default()) else { return };
    let slice = block_on(device.buffer("test", 64)).expect("a small buffer");
    let ring = block_on(ReadBackRing::new(&device, 1, 64)).expect("a small buffer");
    let mut recorder = Recorder::new(&device, "in flight");
    let ticket = ring.copy(&mut recorder, &slice).expect("a free place");
    recorder.submit();
    device.wgpu().destroy();
    let error = block_on(ring.take(ticket)).expect_err("the device is gone");
    assert!(matches!(error, Error::DeviceLost(_)), "{error}");
    assert!(matches!(block_on(device.read(&slice)), Err(Error::DeviceLost(_))), "for reads too");
}

#[test]
fn what_a_real_device_cannot_hold_is_an_error() {
    let Some(device) = test_adapter(true, CapsMask::default()) else { return };
    let error = block_on(device.buffer("absurd", 1 << 60)).expect_err("an exabyte");
    assert!(matches!(error, Error::TooLarge { .. } | Error::OutOfMemory { .. }), "{error}");
    device.check().expect("the device lives on");
}
