//! Recording, read-back rings and timestamps, on wgpu's stub backend.

mod common;

use common::{noop, triple, triple_bindings};
use pollster::block_on;
use wgforge_runtime::{
    Backend, BindGroup, CapsMask, Device, DeviceOptions, Error, Pipeline, ReadBackRing, Recorder, Slice,
};

fn buffer(device: &Device, bytes: u64) -> Slice {
    block_on(device.buffer("test", bytes)).expect("a small buffer")
}

fn kernel(device: &Device) -> (Pipeline, BindGroup) {
    let pipeline = block_on(device.pipeline(&triple(&triple_bindings()))).expect("a valid kernel");
    let group = pipeline.bind(device, &[buffer(device, 256), buffer(device, 256)]).expect("two buffers");
    (pipeline, group)
}

#[test]
fn dispatches_are_counted_and_empty_ones_skipped() {
    let device = noop();
    let (pipeline, group) = kernel(&device);
    let mut recorder = Recorder::new(&device, "test");
    let mut pass = recorder.pass("first");
    pass.dispatch(&pipeline, &group, [1, 1, 1]).expect("one group");
    pass.dispatch(&pipeline, &group, [3, 0, 1]).expect("no groups");
    drop(pass);
    recorder.pass("second").dispatch(&pipeline, &group, [2, 1, 1]).expect("two groups");
    assert_eq!(recorder.dispatches(), 2, "the empty one does not count");
    block_on(recorder.submit().wait()).expect("valid commands");
}

#[test]
fn more_groups_than_a_dimension_holds_are_refused() {
    let device = noop();
    let (pipeline, group) = kernel(&device);
    let limit = device.caps().max_groups;
    let mut recorder = Recorder::new(&device, "test");
    let mut pass = recorder.pass("test");
    assert!(pass.dispatch(&pipeline, &group, [1, limit, 1]).is_ok(), "the limit itself is allowed");
    let error = pass.dispatch(&pipeline, &group, [1, limit + 1, 1]).expect_err("one too many");
    assert!(matches!(&error, Error::TooManyGroups { kernel, .. } if kernel == "triple"), "{error}");
}

#[test]
fn copies_stay_in_their_slices() {
    let device = noop();
    let (source, target) = (buffer(&device, 64), buffer(&device, 64));
    device.write(&source, 0, &[7; 64]);
    let mut recorder = Recorder::new(&device, "test");
    let part = target.part(8, 16).expect("a part");
    recorder.copy(&source, &part, 12).expect("it fits");
    for (from, to, bytes) in [(&source, &part, 20), (&source, &target, 6), (&target, &part, 4)] {
        let error = recorder.copy(from, to, bytes).expect_err("too long, not in words, one buffer");
        assert!(matches!(error, Error::Validation { .. }), "{error}");
    }
    recorder.submit();
    let mut wanted = [0; 64];
    wanted[8..20].fill(7);
    assert_eq!(block_on(device.read(&target)).expect("read-back"), wanted, "twelve bytes were copied");
    let mut recorder = Recorder::new(&device, "test");
    recorder.clear(&part);
    recorder.submit();
    assert_eq!(block_on(device.read(&target)).expect("read-back"), [0; 64], "and cleared");
}

#[test]
fn a_ring_gives_each_submission_its_own_result_in_any_order() {
    let device = noop();
    let ring = block_on(ReadBackRing::new(&device, 3, 8)).expect("three small buffers");
    let slice = buffer(&device, 8);
    let send = |value: u8| {
        device.write(&slice, 0, &[value; 8]);
        let mut recorder = Recorder::new(&device, "token");
        let ticket = ring.copy(&mut recorder, &slice).expect("a free place");
        recorder.submit();
        ticket
    };
    let take = |ticket| block_on(ring.take(ticket)).expect("a result")[0];
    for _ in 0..3 {
        let (first, second, third) = (send(1), send(2), send(3));
        assert_eq!(ring.free(), 0, "all places are taken");
        assert_eq!(take(first), 1, "the first");
        assert_eq!(take(third), 3, "the third, before the second");
        assert_eq!(take(second), 2, "the second");
    }
    assert_eq!(ring.free(), 3, "all places are free again");
}

#[test]
fn a_full_ring_refuses_until_a_ticket_is_taken_or_dropped() {
    let device = noop();
    let ring = block_on(ReadBackRing::new(&device, 1, 8)).expect("a small buffer");
    let slice = buffer(&device, 8);
    let mut recorder = Recorder::new(&device, "token");
    let ticket = ring.copy(&mut recorder, &slice).expect("a free place");
    let error = ring.copy(&mut recorder, &slice).expect_err("the ring is full");
    assert!(matches!(error, Error::ReadBack(_)), "{error}");
    recorder.submit();
    drop(ticket);
    let mut recorder = Recorder::new(&device, "token");
    let ticket = ring.copy(&mut recorder, &slice).expect("the place is free again");
    recorder.submit();
    assert_eq!(block_on(ring.take(ticket)).expect("a result").len(), 8, "and works");
    let large = buffer(&device, 12);
    let error = ring.copy(&mut Recorder::new(&device, "token"), &large).expect_err("12 bytes into 8");
    assert!(matches!(error, Error::TooLarge { bytes: 12, limit: 8, .. }), "{error}");
    assert_eq!(ring.free(), 1, "a refusal takes no place");
}

#[test]
fn a_ticket_of_commands_that_were_never_submitted_is_an_error() {
    let device = noop();
    let ring = block_on(ReadBackRing::new(&device, 1, 8)).expect("a small buffer");
    let slice = buffer(&device, 8);
    let mut recorder = Recorder::new(&device, "token");
    let ticket = ring.copy(&mut recorder, &slice).expect("a free place");
    let error = block_on(ring.take(ticket)).expect_err("not submitted");
    assert!(error.to_string().contains("submitted"), "{error}");
    assert_eq!(ring.free(), 1, "the place is free again");
}

#[test]
fn an_invalid_submission_shows_instead_of_its_result() {
    let device = noop();
    let ring = block_on(ReadBackRing::new(&device, 1, 8)).expect("a small buffer");
    let slice = buffer(&device, 8);
    let mut recorder = Recorder::new(&device, "token");
    let ticket = ring.copy(&mut recorder, &slice).expect("a free place");
    recorder.encoder().clear_buffer(&slice.buffer, 1, Some(4));
    recorder.submit();
    let error = block_on(ring.take(ticket)).expect_err("the clear is misaligned");
    assert!(matches!(error, Error::Validation { .. }), "{error}");
}

#[test]
fn timed_passes_give_one_time_each() {
    let device = noop();
    let (pipeline, group) = kernel(&device);
    for passes in [0, 1, 3] {
        let mut recorder = Recorder::with_timestamps(&device, 3).expect("three timed passes");
        for _ in 0..passes {
            recorder.pass("timed").dispatch(&pipeline, &group, [1, 1, 1]).expect("one group");
        }
        let times = block_on(recorder.submit().timestamps().read()).expect("read-back");
        assert_eq!(times.map(|times| times.len()), Some(passes), "one time a pass");
    }
    let mut recorder = Recorder::with_timestamps(&device, 1).expect("one timed pass");
    drop(recorder.pass("first"));
    drop(recorder.pass("second"));
    let error = block_on(recorder.submit().timestamps().read()).expect_err("room for one");
    assert!(error.to_string().contains("2 passes"), "{error}");
    assert!(Recorder::with_timestamps(&device, 5000).is_err(), "beyond the size of a query set");
}

#[test]
fn without_timestamps_nothing_is_timed_and_that_is_no_error() {
    let options = DeviceOptions {
        backend: Some(Backend::Noop),
        disable: CapsMask { timestamps: true, ..Default::default() },
        ..Default::default()
    };
    let device = block_on(Device::request(&options)).expect("the noop backend is always there");
    let mut recorder = Recorder::with_timestamps(&device, 4).expect("nothing to do");
    drop(recorder.pass("untimed"));
    assert_eq!(block_on(recorder.submit().timestamps().read()).expect("no error"), None, "no times");
    let recorder = Recorder::new(&noop(), "untimed");
    assert_eq!(block_on(recorder.submit().timestamps().read()).expect("no error"), None, "no times");
}
