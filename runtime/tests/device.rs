//! Opening devices and what they report, on wgpu's stub backend.

mod common;

use pollster::block_on;
use wgforge_runtime::{Backend, Caps, CapsMask, Device, DeviceOptions, Error, adapters};

#[test]
fn the_stub_backend_gives_a_device_with_plausible_caps() {
    let device = common::noop();
    let caps = device.caps();
    assert!(caps.subgroups && caps.f16 && caps.timestamps, "the stub has every feature");
    assert_eq!((caps.subgroup_min, caps.subgroup_max), (32, 32), "subgroup sizes");
    assert_eq!(device.report().backend, "noop", "the report names the backend");
    assert!(device.check().is_ok(), "nothing went wrong yet");
}

#[test]
fn a_masked_device_has_the_baseline_and_no_more() {
    let options =
        DeviceOptions { backend: Some(Backend::Noop), disable: CapsMask::baseline(), ..Default::default() };
    let device = block_on(Device::request(&options)).expect("the noop backend is always there");
    assert_eq!(*device.caps(), Caps { storage_align: 256, ..Caps::webgpu_baseline() }, "all is masked");
}

#[test]
fn each_part_of_the_mask_hides_only_itself() {
    let masked = |disable| {
        let options = DeviceOptions { backend: Some(Backend::Noop), disable, ..Default::default() };
        block_on(Device::request(&options)).expect("the noop backend is always there").caps().clone()
    };
    let all = masked(CapsMask::default());
    let no_f16 = masked(CapsMask { f16: true, ..Default::default() });
    assert_eq!(no_f16, all.clone().with_f16(false), "f16");
    let no_subgroups = masked(CapsMask { subgroups: true, ..Default::default() });
    assert_eq!(no_subgroups, all.clone().with_subgroups(1), "subgroups");
    let no_timestamps = masked(CapsMask { timestamps: true, ..Default::default() });
    assert_eq!(no_timestamps, Caps { timestamps: false, ..all }, "timestamps");
}

#[test]
fn an_adapter_that_is_not_there_is_named_with_those_that_are() {
    let options =
        DeviceOptions { backend: Some(Backend::Noop), name: Some("Voodoo 2".into()), ..Default::default() };
    let error = block_on(Device::request(&options)).expect_err("no such adapter");
    let Error::NoAdapter { wanted, found } = &error else { panic!("wrong kind: {error}") };
    assert!(wanted.contains("Voodoo 2"), "{wanted}");
    assert_eq!(found.len(), 1, "the stub was found and passed over: {found:?}");
    assert!(error.to_string().contains("mesa-vulkan-drivers"), "says how to get one: {error}");
}

#[test]
fn a_part_of_the_adapters_name_selects_it() {
    let options =
        DeviceOptions { backend: Some(Backend::Noop), name: Some("NOOP".into()), ..Default::default() };
    assert!(block_on(Device::request(&options)).is_ok(), "the stub is called `noop wgpu backend`");
}

#[test]
fn adapters_of_one_backend_are_listed_alone() {
    let reports = block_on(adapters(Some(Backend::Noop)));
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].to_string().contains("noop"), "{}", reports[0]);
    assert!(reports[0].features.is_sorted(), "features are sorted");
}

#[test]
fn a_destroyed_device_is_reported_as_lost_by_every_later_call() {
    let device = common::noop();
    let slice = block_on(device.buffer("before", 16)).expect("a small buffer");
    device.wgpu().destroy();
    assert!(matches!(device.check(), Err(Error::DeviceLost(_))), "the loss is noticed");
    assert!(matches!(device.check(), Err(Error::DeviceLost(_))), "and final");
    let buffer = block_on(device.buffer("after", 16));
    assert!(matches!(buffer, Err(Error::DeviceLost(_))), "no buffer: {buffer:?}");
    let read = block_on(device.read(&slice));
    assert!(matches!(read, Err(Error::DeviceLost(_))), "nothing to read: {read:?}");
    let bindings = common::triple_bindings();
    let pipeline = block_on(device.pipeline(&common::triple(&bindings)));
    assert!(matches!(pipeline, Err(Error::DeviceLost(_))), "no pipeline: {pipeline:?}");
}

#[test]
fn devices_can_be_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Device>();
    shared::<wgforge_runtime::Pipeline>();
    shared::<wgforge_runtime::BindGroup>();
    shared::<wgforge_runtime::ReadBackRing>();
    fn movable<T: Send>(value: T) -> T {
        value
    }
    let device = common::noop();
    drop(movable(device.buffer("futures too", 4)));
}
