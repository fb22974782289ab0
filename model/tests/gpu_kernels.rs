//! Every kernel family on the device at hand against its reference, generic configuration and a
//! sample of the candidates, on random, extreme and tied inputs: integer paths bit for bit, floats within bounds.

mod common;

use wgforge_codegen::{
    Access, Binding, Caps, Target, Variant, Workload,
    check::{Case, Inputs},
    kernels::{
        decode_attention,
        gemv::{Epilogue, Shape},
        norm,
        slab::Second,
    },
    shapes,
    types::{Act, Format, Scale},
};
use wgforge_runtime::{Device, KernelSource, Recorder};

/// Runs a variant on the device and returns its buffers.
fn run(device: &Device, variant: &Variant, case: &Case) -> Vec<Vec<u32>> {
    pollster::block_on(async {
        let rendered = variant.render(Target::Native).expect("it rendered in the candidates' test");
        let label = format!("{} {}", variant.workload().shape_json(), variant.config_json());
        let source = KernelSource { label: &label, wgsl: &rendered.wgsl, bindings: &rendered.bindings };
        let pipeline = device.pipeline(&source).await.expect("pipeline");
        let mut slices = Vec::new();
        for (name, words) in variant.bindings().iter().zip(&case.buffers) {
            // Kernels read whole quads.
            let slice =
                device.buffer(name, (words.len() as u64 * 4).next_multiple_of(16)).await.expect("buffer");
            device.write(
                &slice,
                0,
                words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>().as_slice(),
            );
            slices.push(slice);
        }
        let group = pipeline.bind(device, &slices).expect("bind group");
        let mut recorder = Recorder::new(device, "check");
        recorder.pass("check").dispatch(&pipeline, &group, variant.groups(case.tokens)).expect("dispatch");
        recorder.submit();
        let mut out = Vec::new();
        for (slice, words) in slices.iter().zip(&case.buffers) {
            let bytes = device.read(slice).await.expect("read back");
            let mut got: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
            got.truncate(words.len());
            out.push(got);
        }
        device.check().expect("no error on the device");
        out
    })
}

/// Whether the device puts values that lie halfway between two steps of a grid on the even one.
/// llvmpipe with vectors of 512 bits does not: there such values end up farther from zero.
/// Mesa caches this shader whatever the width, so another width wants another `MESA_SHADER_CACHE_DIR`.
fn halves_are_exact(device: &Device) -> bool {
    let wgsl = "@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
        @group(0) @binding(1) var<storage, read> grids: array<f32>;
        @group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
        @compute @workgroup_size(64)
        fn main(@builtin(local_invocation_index) i: u32) {
          let grid = grids[i % 8u];
          out[i] = clamp(round(x[i] / grid), vec4<f32>(-128.0), vec4<f32>(127.0));
        }";
    let bindings = [("x", Access::Read), ("grids", Access::Read), ("out", Access::ReadWrite)]
        .map(|(name, access)| Binding { name: name.into(), access });
    let grids: Vec<f32> = (0..8).map(|i| 2f32.powi(3 * i - 6)).collect();
    let halves: Vec<f32> = (0..256).map(|i| i as f32 - 127.5).collect();
    let x: Vec<f32> = halves.iter().enumerate().map(|(i, half)| half * grids[i / 4 % 8]).collect();
    let got = pollster::block_on(async {
        let source = KernelSource { label: "halves", wgsl, bindings: &bindings };
        let pipeline = device.pipeline(&source).await.expect("pipeline");
        let mut slices = Vec::new();
        for values in [&x, &grids, &x] {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let slice = device.buffer("halves", bytes.len() as u64).await.expect("buffer");
            device.write(&slice, 0, &bytes);
            slices.push(slice);
        }
        let group = pipeline.bind(device, &slices).expect("bind group");
        let mut recorder = Recorder::new(device, "halves");
        recorder.pass("halves").dispatch(&pipeline, &group, [1, 1, 1]).expect("dispatch");
        recorder.submit();
        device.read(&slices[2]).await.expect("read back")
    });
    let got = got.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
    halves.iter().zip(got).all(|(half, got)| half.round_ties_even().clamp(-128.0, 127.0) == got)
}

/// The generic variant and at most `sample` candidates spread over the space.
fn variants(workload: &Workload, caps: &Caps, sample: usize) -> Vec<Variant> {
    let all = workload.candidates(caps);
    let step = all.len().div_ceil(sample).max(1);
    let mut picked: Vec<Variant> = all.into_iter().step_by(step).collect();
    picked.push(workload.generic(caps));
    picked
}

/// `WGFORGE_ONE_IN`: how many shapes of a kernel stand behind each that is checked, 1 where it is not set. A software
/// device takes seconds to compile the largest kernels.
fn one_in() -> usize {
    std::env::var("WGFORGE_ONE_IN").map_or(1, |n| n.parse().expect("WGFORGE_ONE_IN is a count"))
}

/// Checks the generic variant of each workload with all kinds of inputs, and a sample of its
/// candidates with one kind each.
fn check(workloads: &[Workload], sample: usize, positions: &[u32]) {
    let Some(device) = common::device() else { return };
    let ties = halves_are_exact(&device);
    if !ties {
        println!("no ties: halves are not exact on {}", device.report().name);
    }
    let mut failures = Vec::new();
    let mut count = 0;
    for (i, workload) in shapes::thinned(workloads.to_vec(), one_in()).iter().enumerate() {
        let variants = variants(workload, device.caps(), sample);
        let last = variants.len() - 1;
        for (v, variant) in variants.iter().enumerate() {
            let kinds = if v == last { &Inputs::ALL[..] } else { &[Inputs::ALL[(i + v) % 3]] };
            for inputs in kinds.iter().filter(|kind| ties || **kind != Inputs::Ties) {
                let position = positions[i % positions.len()];
                let case = Case::draw(variant, *inputs, 5, position, i as u64 + 1);
                let got = run(&device, variant, &case);
                if let Err(e) = case.compare(variant, &case.expected(variant), &got) {
                    let (shape, config) = (workload.shape_json(), variant.config_json());
                    failures.push(format!("{} {shape} {config} {inputs:?}: {e}", variant.kernel()));
                }
                count += 1;
            }
        }
    }
    println!("{count} cases on {}", device.report().name);
    assert!(count > 0, "nothing was checked");
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn odd_shapes_agree_with_the_reference() {
    check(&shapes::odd(), 2, &[0, 21]);
}

/// A few of the real shapes, which have many workgroups and long rows.
#[test]
fn e2b_shapes_agree_with_the_reference() {
    let few: Vec<Workload> = shapes::e2b()
        .into_iter()
        .filter(|w| match w {
            Workload::Gemv(Shape { rows, .. }) => *rows <= 2560,
            Workload::Gemm(Shape { rows, columns, .. }) => *rows <= 2560 && *columns <= 1536,
            Workload::Gather(s) => s.rows <= 512,
            Workload::Norm(_)
            | Workload::Rope(_)
            | Workload::Argmax(_)
            | Workload::Topk(_)
            | Workload::Sample(_) => true,
            _ => false,
        })
        .step_by(9)
        .collect();
    check(&few, 1, &[0, 21]);
}

/// Two products in one dispatch, at the real sizes.
#[test]
fn joined_products_agree_with_the_reference() {
    let all = shapes::e2b();
    let merges = all.iter().filter(|w| matches!(w, Workload::MergeGemv(_)));
    let pairs = all.iter().filter(|w| matches!(w, Workload::GemvPair(_))).step_by(5);
    let workloads: Vec<Workload> = merges.chain(pairs).cloned().collect();
    check(&workloads, 1, &[0]);
}

/// One token with its keys split or not, where some splits are empty and where all have keys.
#[test]
fn decode_attention_agrees_with_the_reference_at_all_depths() {
    let decode: Vec<Workload> =
        shapes::odd().into_iter().filter(|w| matches!(w, Workload::Attention(s) if s.decode)).collect();
    for position in [0, 5, 300] {
        check(&decode, 6, &[position]);
    }
}

/// The same with rotation and append in the same dispatch, around windows and rings too, and at
/// sizes of heads between those of the other shapes.
#[test]
fn joined_decode_attention_agrees_with_the_reference_at_all_depths() {
    let shapes_of = |all: Vec<Workload>| -> Vec<decode_attention::Shape> {
        let shape = |w| if let Workload::DecodeAttention(s) = w { Some(s) } else { None };
        all.into_iter().filter_map(shape).collect()
    };
    let mut joined: Vec<_> = shapes_of(shapes::e2b()).into_iter().step_by(5).collect();
    for (i, shape) in shapes_of(shapes::odd()).into_iter().enumerate() {
        // Every other one with a short window, whose ring is written again after a few tokens.
        let (window, ring) = if shape.window > 0 { (33, 40) } else { (0, 0) };
        joined.push(if i % 2 == 0 {
            shape
        } else {
            decode_attention::Shape { dim: 64, rotary: 16, window, ring, ..shape }
        });
    }
    let workloads: Vec<Workload> = joined.into_iter().map(Workload::DecodeAttention).collect();
    // As many as no period of the shapes: each kind meets each position.
    check(&workloads, 1, &[0, 5, 32, 40, 300, 33, 1030]);
}

/// Attention that makes q, k and v itself: of the model, and small ones of other formats, whose workgroups for rows
/// alone are no whole number a head.
fn exchanging_rows() -> Vec<Workload> {
    let mut all: Vec<Workload> = shapes::exchanging().into_iter().step_by(7).collect();
    for (format, append) in [(Format::I4, true), (Format::I8, false), (Format::I2, true)] {
        let (heads, kv_heads, dim, columns) = (6, 2, 64, 500);
        let norm = norm::Shape {
            width: columns,
            residual: append,
            y: Act::I32,
            scaled: false,
            norm: true,
            out: Some(Act::I8),
            eps: 1e-6,
            banks: if append { 2 } else { 1 },
        };
        let rows = (heads + if append { 2 * kv_heads } else { 0 }) * dim;
        let first = Shape {
            rows,
            total: rows,
            first: 0,
            columns,
            format,
            scale: Scale::Row,
            x: Act::I8,
            out: Act::F32,
            grids: format == Format::I2,
            epilogue: Epilogue::Store,
            split_a: 0,
            split_b: 0,
            softcap: 0.0,
            norm: Some(norm),
            tops: 0,
        };
        all.push(Workload::DecodeAttention(decode_attention::Shape {
            heads,
            kv_heads,
            dim,
            rotary: 16,
            window: 33,
            ring: 40,
            append,
            qkv: Act::F32,
            kv: Act::F32,
            out: Act::I8,
            eps: 1e-6,
            then: Some(Second { rows: 158, format, scale: Scale::Row, banks: 1 }),
            first: Some(first),
            deep: false,
        }));
    }
    all
}

/// Key ranges whose workgroups exchange what they have and multiply the output projection. Four tokens in turn
/// on the same notes, which nobody clears: whatever a workgroup finds there is of the token before, of this one, or
/// not there yet, and where workgroups do not run side by side it computes it itself.
#[test]
fn projecting_decode_attention_agrees_token_after_token() {
    let Some(device) = common::device() else { return };
    let ties = halves_are_exact(&device);
    let projecting = |w: &Workload| {
        let all = common::projecting(w, device.caps());
        let step = all.len().div_ceil(3).max(1);
        all.into_iter().skip(step / 2).step_by(step).collect::<Vec<_>>()
    };
    // Codes and floats, one cache and the other; then several KV heads, a ring that is written again, other formats,
    // rows that end within a four.
    let attention = |w: &Workload| matches!(w, Workload::DecodeAttention(s) if s.then.is_some());
    let mut workloads: Vec<Workload> = shapes::e2b().into_iter().filter(attention).step_by(12).collect();
    for (i, format) in [Format::I4, Format::I8, Format::I2].into_iter().enumerate() {
        for scale in [Scale::Row, Scale::Group] {
            let floats = scale == Scale::Group;
            workloads.push(Workload::DecodeAttention(decode_attention::Shape {
                heads: 6,
                kv_heads: 2,
                dim: 64,
                rotary: 16,
                window: 33,
                ring: 40,
                append: i != 1,
                qkv: Act::F32,
                kv: Act::F32,
                out: if floats { Act::F32 } else { Act::I8 },
                eps: 1e-6,
                then: Some(Second { rows: 158, format, scale, banks: 1 }),
                first: None,
                deep: false,
            }));
        }
    }
    workloads.extend(exchanging_rows());
    if device.caps().max_storage_bindings < 15 {
        println!("skipped: {} has fewer than fifteen storage bindings", device.report().name);
        return;
    }
    let mut count = 0;
    for w in &workloads {
        assert!(!projecting(w).is_empty(), "nothing projects: {}", w.shape_json());
    }
    let shared_out = |v: &Variant| match v {
        Variant::DecodeAttention { shape, config } => {
            shape.first.is_some() && shape.kv_heads > 1 && shape.append && config.splits > 1
        }
        _ => false,
    };
    assert!(
        workloads.iter().flat_map(projecting).any(|v| shared_out(&v)),
        "several owners of several KV heads"
    );
    for variant in workloads.iter().flat_map(projecting).step_by(one_in()) {
        let at = variant.bindings().iter().position(|n| *n == "exchange").expect("it was picked for that");
        let mut notes: Option<Vec<u32>> = None;
        let kinds = Inputs::ALL.into_iter().filter(|kind| ties || *kind != Inputs::Ties).cycle();
        for (inputs, position) in kinds.zip([0, 300, 5, 40]) {
            let mut case = Case::draw(&variant, inputs, 1, position, u64::from(position));
            if let Some(notes) = notes.take() {
                case.buffers[at] = notes;
            }
            let mut got = run(&device, &variant, &case);
            if let Err(e) = case.compare(&variant, &case.expected(&variant), &got) {
                let (shape, config) = (variant.workload().shape_json(), variant.config_json());
                panic!("{shape} {config} {inputs:?} at {position}: {e}");
            }
            assert_ne!(got[at], case.buffers[at], "nobody took a ticket");
            notes = Some(got.swap_remove(at));
            count += 1;
        }
    }
    println!("{count} cases on {}", device.report().name);
}
