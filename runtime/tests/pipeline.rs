//! Pipelines and bindings, on wgpu's stub backend.

mod common;

use common::{binding, noop, triple, triple_bindings};
use pollster::block_on;
use wgforge_runtime::{
    Access, Device, DeviceOptions, Error, Kernel, KernelInfo, KernelSource, Pipeline, Recorder, Slice,
    TypedPipeline, wgpu,
};

fn made(device: &Device) -> Pipeline {
    block_on(device.pipeline(&triple(&triple_bindings()))).expect("a valid kernel")
}

fn buffer(device: &Device, bytes: u64) -> Slice {
    block_on(device.buffer("test", bytes)).expect("a small buffer")
}

#[test]
fn a_shader_that_does_not_parse_gives_its_report_with_a_caret() {
    let device = noop();
    let bindings = triple_bindings();
    let wgsl = common::TRIPLE.replace("* 3u", "* three");
    let source = KernelSource { label: "broken", wgsl: &wgsl, bindings: &bindings };
    let error = block_on(device.pipeline(&source)).expect_err("`three` is not defined");
    let Error::Shader { kernel, report } = &error else { panic!("wrong kind: {error}") };
    assert_eq!(kernel, "broken", "the kernel is named");
    assert!(report.contains("three") && report.contains("^^^^^"), "a caret under the word:\n{report}");
    assert!(device.check().is_ok(), "the error is reported once");
}

#[test]
fn bindings_that_contradict_the_shader_are_an_error_of_the_shader() {
    let device = noop();
    let bindings = [binding("source", Access::Read), binding("target_", Access::Read)];
    let error = block_on(device.pipeline(&triple(&bindings))).expect_err("target_ is written");
    assert!(matches!(error, Error::Shader { .. }), "{error}");
}

#[test]
fn too_many_storage_bindings_are_counted_against_the_device() {
    let options = DeviceOptions {
        backend: Some(wgforge_runtime::Backend::Noop),
        disable: wgforge_runtime::CapsMask::baseline(),
        ..Default::default()
    };
    let device = block_on(Device::request(&options)).expect("the noop backend is always there");
    let bindings: Vec<_> = (0..9).map(|index| binding(&format!("b{index}"), Access::Read)).collect();
    let error = block_on(device.pipeline(&triple(&bindings))).expect_err("8 are allowed");
    assert!(error.to_string().contains("9 storage buffers") && error.to_string().contains('8'), "{error}");
}

#[test]
fn equal_kernels_share_a_pipeline_but_keep_their_names() {
    let device = noop();
    let bindings = triple_bindings();
    let first = made(&device);
    let second = block_on(device.pipeline(&KernelSource { label: "again", ..triple(&bindings) }));
    let second = second.expect("the same kernel");
    assert_eq!((first.label(), second.label()), ("triple", "again"), "names");
    let group = first.bind(&device, &[buffer(&device, 64), buffer(&device, 64)]).expect("matching buffers");
    let mut recorder = Recorder::new(&device, "test");
    recorder.pass("test").dispatch(&second, &group, [1, 1, 1]).expect("one group");
    recorder.submit();
    device.check().expect("the group of one fits the other");
}

#[test]
fn a_wrong_number_of_buffers_is_refused() {
    let device = noop();
    let error = made(&device).bind(&device, &[buffer(&device, 64)]).expect_err("two are needed");
    assert!(matches!(error, Error::BindingCount { wanted: 2, given: 1, .. }), "{error}");
}

#[test]
fn a_slice_must_be_aligned_inside_its_buffer_and_made_for_the_purpose() {
    let device = noop();
    let (pipeline, target) = (made(&device), buffer(&device, 64));
    let whole = buffer(&device, 64);
    let report = |source: Slice| {
        let error = pipeline.bind(&device, &[source, target.clone()]).expect_err("a bad slice");
        assert!(matches!(error, Error::Validation { .. }), "{error}");
        error.to_string()
    };
    assert!(report(whole.part(4, 8).expect("in words")).contains("multiple of 32"), "alignment");
    assert!(report(Slice::new(whole.buffer.clone(), 32, 64)).contains("beyond"), "range");
    assert!(report(Slice::new(whole.buffer.clone(), 0, 0)).contains("positive"), "emptiness");
    let uniform = block_on(device.uniform("uniform", 64)).expect("a small buffer");
    assert!(report(uniform).contains("STORAGE"), "usage");
}

#[test]
fn a_slice_beyond_the_binding_limit_is_too_large() {
    let options = DeviceOptions {
        backend: Some(wgforge_runtime::Backend::Noop),
        disable: wgforge_runtime::CapsMask::baseline(),
        ..Default::default()
    };
    let device = block_on(Device::request(&options)).expect("the noop backend is always there");
    let large = buffer(&device, (128 << 20) + 4);
    let error = made(&device).bind(&device, &[large, buffer(&device, 64)]).expect_err("128 MiB are allowed");
    assert!(matches!(error, Error::TooLarge { limit: 134_217_728, .. }), "{error}");
}

#[test]
fn one_buffer_cannot_be_read_and_written_by_one_dispatch() {
    let device = noop();
    let whole = buffer(&device, 512);
    let (low, high) = (whole.part(0, 256).expect("half"), whole.part(256, 256).expect("half"));
    let error = made(&device).bind(&device, &[low, high]).expect_err("one buffer, two uses");
    assert!(error.to_string().contains("source and target_"), "both bindings are named: {error}");
}

#[test]
fn written_slices_of_one_buffer_may_not_overlap() {
    let device = noop();
    let wgsl = common::TRIPLE.replace("<storage, read>", "<storage, read_write>");
    let bindings = [binding("source", Access::ReadWrite), binding("target_", Access::ReadWrite)];
    let source = KernelSource { label: "both", wgsl: &wgsl, bindings: &bindings };
    let pipeline = block_on(device.pipeline(&source)).expect("a valid kernel");
    let whole = buffer(&device, 512);
    let part = |offset, size| whole.part(offset, size).expect("a part");
    assert!(pipeline.bind(&device, &[part(0, 256), part(256, 256)]).is_ok(), "side by side");
    let error = pipeline.bind(&device, &[part(0, 260), part(256, 256)]).expect_err("four bytes in common");
    assert!(error.to_string().contains("overlap"), "{error}");
}

/// What generated code looks like, in short.
struct Triple;

struct TripleBindings<'a> {
    source: &'a Slice,
    target: &'a Slice,
}

impl Kernel for Triple {
    const INFO: KernelInfo = KernelInfo {
        name: "triple_64",
        kernel: "triple",
        wgsl: common::TRIPLE,
        wgsl_hash: "",
        workgroup: [64, 1, 1],
        bindings: &[("source", Access::Read), ("target_", Access::ReadWrite)],
        shape: "{}",
        config: "{}",
    };
    type Bindings<'a> = TripleBindings<'a>;
    fn slices(bindings: &Self::Bindings<'_>) -> Vec<Slice> {
        vec![bindings.source.clone(), bindings.target.clone()]
    }
}

#[test]
fn a_kernel_type_is_bound_by_names_and_dispatched() {
    let device = noop();
    let pipeline = block_on(TypedPipeline::<Triple>::new(&device)).expect("a valid kernel");
    let (source, target) = (buffer(&device, 256), buffer(&device, 256));
    let bound = pipeline.bind(&device, &TripleBindings { source: &source, target: &target });
    let bound = bound.expect("matching buffers");
    let mut recorder = Recorder::new(&device, "typed");
    recorder.dispatch_bound(&pipeline, &bound, [1, 1, 1]).expect("one group");
    assert_eq!(recorder.dispatches(), 1, "one dispatch");
    block_on(recorder.submit().wait()).expect("valid commands");
    assert_eq!(pipeline.info().workgroup, [64, 1, 1], "constants are at hand");
}

#[test]
fn errors_of_submitted_work_show_at_the_next_check() {
    let device = noop();
    let descriptor = wgpu::BufferDescriptor {
        label: None,
        size: 3,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    };
    drop(
        device
            .wgpu()
            .create_buffer(&wgpu::BufferDescriptor { usage: wgpu::BufferUsages::empty(), ..descriptor }),
    );
    assert!(matches!(device.check(), Err(Error::Validation { .. })), "a buffer for nothing is invalid");
    assert!(device.check().is_ok(), "reported once");
}
