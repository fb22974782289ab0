//! Every kernel family on the device at hand against its reference, generic configuration and a
//! sample of the candidates, on random inputs: integer paths bit for bit, floats within bounds.

mod common;

use wgforge_codegen::{
    Caps, Target, Variant, Workload,
    check::Case,
    kernels::{attention, gemv::Shape},
    shapes,
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

/// The generic variant and at most `sample` candidates spread over the space.
fn variants(workload: &Workload, caps: &Caps, sample: usize) -> Vec<Variant> {
    let all = workload.candidates(caps);
    let step = all.len().div_ceil(sample).max(1);
    let mut picked: Vec<Variant> = all.into_iter().step_by(step).collect();
    picked.push(workload.generic(caps));
    picked
}

/// A split attention is checked through its merge: the reference computes the joined result.
fn is_split(variant: &Variant) -> bool {
    matches!(variant, Variant::Attention { config, .. } if config.splits > 1)
}

fn check(workloads: &[Workload], sample: usize) {
    let Some(device) = common::device() else { return };
    let mut failures = Vec::new();
    let mut count = 0;
    for (i, workload) in workloads.iter().enumerate() {
        for variant in variants(workload, device.caps(), sample) {
            // Slices of argmax are a matter of configuration; the two dispatches are checked together below.
            if is_split(&variant) || matches!(workload, Workload::Argmax(s) if !s.last) {
                continue;
            }
            let position = if i % 2 == 0 { 0 } else { 21 };
            let case = Case::draw(&variant, 5, position, i as u64 + 1);
            let expected = case.expected(&variant);
            let got = run(&device, &variant, &case);
            if let Err(e) = case.compare(&variant, &expected, &got) {
                failures.push(format!(
                    "{} {} {}: {e}",
                    variant.kernel(),
                    workload.shape_json(),
                    variant.config_json()
                ));
            }
            count += 1;
        }
    }
    println!("{count} variants on {}", device.report().name);
    assert!(count > 0, "nothing was checked");
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn odd_shapes_agree_with_the_reference() {
    check(&shapes::odd(), 2);
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
        .step_by(5)
        .collect();
    check(&few, 1);
}

/// Split attention joined by its merge equals unsplit attention's reference.
#[test]
fn split_attention_and_its_merge_agree_with_the_reference() {
    let Some(device) = common::device() else { return };
    for workload in shapes::odd() {
        let Workload::Attention(shape) = &workload else { continue };
        if !shape.decode {
            continue;
        }
        for position in [0, 5, 300] {
            let split: Vec<Variant> =
                workload.candidates(device.caps()).into_iter().filter(is_split).collect();
            let step = split.len().div_ceil(4).max(1);
            for variant in split.into_iter().step_by(step) {
                let Variant::Attention { config, .. } = &variant else { continue };
                let splits = config.splits;
                let whole = Variant::Attention {
                    shape: shape.clone(),
                    config: attention::Config { splits: 1, ..config.clone() },
                };
                let case = Case::draw(&whole, 1, position, 7);
                let expected = case.expected(&whole);
                // The same inputs, with room for the partial sums in place of the output.
                let merge = Workload::AttentionMerge(wgforge_codegen::kernels::attention_merge::Shape {
                    heads: shape.heads,
                    dim: shape.dim,
                    splits,
                    out: shape.out,
                })
                .generic(device.caps());
                let Variant::AttentionMerge { shape: m, .. } = &merge else { unreachable!() };
                let mut first = case.clone();
                first.buffers.truncate(4);
                first.buffers.push(vec![0; usize::try_from(m.partial_bytes(1) / 4).expect("small")]);
                let partials = run(&device, &variant, &first).pop().expect("partials");
                let mut second = Case { buffers: vec![partials], ..case.clone() };
                second.buffers.extend(case.buffers[4..].iter().cloned());
                let got = run(&device, &merge, &second);
                let out = whole.bindings().len() - 1;
                let mut all = case.buffers.clone();
                all[out] = got.last().expect("out").clone();
                if let Err(e) = case.compare(&whole, &expected, &all) {
                    panic!("{} at {position}: {e}", variant.config_json());
                }
            }
        }
    }
}

/// Two dispatches of argmax choose what the reference chooses, and the token is handed on.
#[test]
fn argmax_in_two_dispatches_chooses_the_first_of_the_largest() {
    use wgforge_codegen::kernels::argmax;
    let Some(device) = common::device() else { return };
    for n in [1u32, 5, 1003, 5000] {
        let workload = Workload::Argmax(argmax::Shape { n, last: false, ring: 0 });
        for first in variants(&workload, device.caps(), 4) {
            let Variant::Argmax { shape, config } = &first else { unreachable!() };
            let slices = shape.slices(config);
            let case = Case::draw(&first, 1, 0, u64::from(n));
            let logits: Vec<f32> = case.buffers[0].iter().map(|w| f32::from_bits(*w)).collect();
            let best =
                (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("some");
            let stage = run(&device, &first, &case);
            let last =
                Workload::Argmax(argmax::Shape { n: slices, last: true, ring: 64 }).generic(device.caps());
            let mut second = Case::draw(&last, 1, 9, 1);
            second.buffers[1] = stage[1].clone();
            second.buffers[2] = stage[2].clone();
            let got = run(&device, &last, &second);
            assert_eq!(got[3][0] as usize, best, "the chosen token of {n}");
            assert_eq!(got[4][9], got[3][0], "the ring holds it at the position");
            assert_eq!(got[0][..2], [9 + second.buffers[0][1], 1], "the position advanced");
        }
    }
}
