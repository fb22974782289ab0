//! Wrong shaders are planted among right ones: each is refused with a reason, and the untouched
//! one passes.

mod common;

use pollster::block_on;
use wgforge_autotune::{Proof, Rejection, Shader, agrees, proofs};
use wgforge_codegen::{
    Rendered, Target, Variant, Workload,
    kernels::{attention, gather, gemv::Epilogue, ple_mix},
    shapes,
    types::{Act, Format, Scale},
};
use wgforge_runtime::Device;

struct Plant {
    device: Device,
    variant: Variant,
    rendered: Rendered,
    proofs: Vec<Proof>,
}

impl Plant {
    fn new(device: &Device, variant: Variant) -> Self {
        let rendered = variant.render(Target::Native).expect("renders");
        let proofs = proofs(&variant, 20, true);
        let plant = Self { device: device.clone(), variant, rendered, proofs };
        plant.put_to_proof(&plant.rendered.wgsl.clone()).expect("the untouched text is right");
        plant
    }

    fn put_to_proof(&self, wgsl: &str) -> Result<(), Rejection> {
        self.proofs.iter().try_for_each(|proof| {
            let shader = Shader {
                label: "planted",
                wgsl,
                bindings: &self.rendered.bindings,
                groups: self.variant.groups(proof.case.tokens),
            };
            block_on(agrees(&self.device, &shader, &self.variant, proof))
        })
    }

    /// Replaces every `from` and wants the result refused as wrong; returns the reason, which says
    /// which element of which output.
    fn refused(&self, from: &str, to: &str) -> String {
        self.refuses(&self.rendered.wgsl.replace(from, to), from)
    }

    /// Takes out the `n`-th `what`, from 0, likewise.
    fn refused_without(&self, what: &str, n: usize) -> String {
        let wgsl = &self.rendered.wgsl;
        let (at, _) = wgsl.match_indices(what).nth(n).expect("it is there");
        self.refuses(&[&wgsl[..at], &wgsl[at + what.len()..]].concat(), what)
    }

    fn refuses(&self, wrong: &str, edited: &str) -> String {
        assert_ne!(wrong, self.rendered.wgsl, "nothing to replace: {edited:?}");
        match self.put_to_proof(wrong) {
            Err(reason @ Rejection::Wrong { .. }) => {
                let reason = reason.to_string();
                let output = self.variant.written().iter().any(|name| reason.contains(&format!("`{name}`")));
                assert!(output && reason.contains("element"), "where is it wrong? {reason}");
                reason
            }
            other => panic!("with another {edited:?}: {other:?}"),
        }
    }
}

fn product(want: impl Fn(&wgforge_codegen::kernels::gemv::Shape) -> bool) -> Workload {
    let found =
        shapes::odd().into_iter().find(|w| matches!(w, Workload::Gemv(s) if s.norm.is_none() && want(s)));
    found.expect("such a product is among the odd shapes")
}

#[test]
fn a_missing_barrier_is_refused() {
    let Some(device) = common::device() else { return };
    let workload = product(|s| s.x == Act::I8 && s.columns == 150 && s.epilogue == Epilogue::Store);
    // Several threads finish what several others summed, from an input that all have fetched.
    let wanted = |v: &Variant| {
        matches!(v, Variant::Gemv { config: c, .. }
            if c.wg == 128 && c.lanes == 8 && c.sg == 1 && c.tiles == 1 && c.shared)
    };
    let variant = workload.candidates(device.caps()).into_iter().find(wanted).expect("a candidate");
    let plant = Plant::new(&device, variant);
    let barrier = "workgroupBarrier();";
    assert_eq!(plant.rendered.wgsl.matches(barrier).count(), 2, "after the input, and after the sums");
    plant.refused_without(barrier, 0);
    plant.refused_without(barrier, 1);
}

#[test]
fn a_tail_that_is_not_written_is_refused() {
    let Some(device) = common::device() else { return };
    let workload = product(|s| s.x != Act::I8 && s.out == Act::F32 && s.rows == 150);
    let plant = Plant::new(&device, workload.generic(device.caps()));
    // 150 results are 38 quads: the last one stays as it was.
    let reason = plant.refused("quad0 < 38u", "quad0 < 37u");
    assert!(reason.contains("was not written"), "{reason}");
}

#[test]
fn a_window_off_by_one_is_refused() {
    let Some(device) = common::device() else { return };
    let is =
        |w: &Workload| matches!(w, Workload::Attention(s) if s.window > 0 && !s.decode && s.out == Act::F32);
    let workload = shapes::odd().into_iter().find(is).expect("attention with a window");
    let Workload::Attention(shape) = workload else { unreachable!("it was looked for") };
    let window = shape.window;
    // Rows of several tokens in one workgroup, which start at the same key: the mask decides.
    let config = attention::Config { rows: 4, keys: 16, lanes: 1, splits: 1, sg: 1, f16: false };
    let plant = Plant::new(&device, Variant::Attention { shape, config });
    // One key too many, and one too few.
    let mask = format!("position + {window}u > seen");
    plant.refused(&mask, &format!("position + {}u > seen", window + 1));
    plant.refused(&mask, &format!("position + {}u > seen", window - 1));
}

#[test]
fn a_split_that_ends_one_key_off_is_refused() {
    let Some(device) = common::device() else { return };
    let is = |w: &Workload| matches!(w, Workload::Attention(s) if s.decode && s.window == 0);
    let workload = shapes::odd().into_iter().find(is).expect("attention of one token");
    let wanted =
        |v: &Variant| matches!(v, Variant::Attention { config: c, .. } if c.splits == 4 && c.sg == 1);
    let variant = workload.candidates(device.caps()).into_iter().find(wanted).expect("a candidate");
    let plant = Plant::new(&device, variant);
    // The last key of each range left out, and the first of the next counted twice.
    let end = "min(begin + span, last + 1u)";
    plant.refused(end, "min(begin + span - 1u, last + 1u)");
    let reason = plant.refused(end, "min(begin + span + 1u, last + 1u)");
    assert!(reason.contains("`partials`"), "{reason}");
}

#[test]
fn a_digit_that_is_dropped_is_refused() {
    let Some(device) = common::device() else { return };
    let row = product(|s| s.x == Act::F32 && s.scale == Scale::Row);
    let group = product(|s| s.x == Act::F32 && s.format == Format::I4);
    for (workload, packed) in [(row, "pack4xI8(d1)"), (group, "pack4xI8(q0.d1)")] {
        // The lower one of two, and the middle one of three.
        for digits in [2, 3] {
            let wanted = |v: &Variant| matches!(v, Variant::Gemv { config: c, .. } if c.digits == digits);
            let variant = workload.candidates(device.caps()).into_iter().find(wanted).expect("a candidate");
            Plant::new(&device, variant).refused(packed, &format!("0u * {packed}"));
        }
    }
}

#[test]
fn rounding_halves_up_is_refused() {
    let Some(device) = common::device() else { return };
    let workload = product(|s| {
        s.x == Act::I8
            && s.grids
            && s.scale == Scale::Row
            && s.out == Act::F32
            && s.columns >= 97
            && s.epilogue == Epilogue::Store
    });
    let plant = Plant::new(&device, workload.generic(device.caps()));
    plant.refused("round(v / grid)", "floor(v / grid + vec4<f32>(0.5))");
    // Half away from zero keeps even the sign of zeros.
    let away = "sign(v) * floor(abs(v / grid) + vec4<f32>(0.5))";
    let reason = plant.refused("round(v / grid)", away);
    assert!(reason.contains("Ties inputs"), "random inputs would not show it: {reason}");
}

#[test]
fn what_does_not_compile_is_refused_with_the_compilers_words() {
    let Some(device) = common::device() else { return };
    let workload = product(|s| s.x == Act::I8);
    let plant = Plant::new(&device, workload.generic(device.caps()));
    let refused = plant.put_to_proof(&plant.rendered.wgsl.replacen("fn main(", "fn main(42", 1));
    assert!(matches!(&refused, Err(Rejection::Compile(text)) if text.contains("expected")), "{refused:?}");
}

/// Every kernel's generic configuration and some candidates pass, so that no proof asks too much.
/// Of each kernel one shape in five: a software device compiles each for a quarter of a second, and all of them meet
/// the reference elsewhere.
#[test]
fn right_kernels_pass_all_proofs() {
    let Some(device) = common::device() else { return };
    let mut failures = Vec::new();
    let mut all = shapes::thinned(shapes::odd(), 5);
    // With room for one token only, as decode has it.
    all.extend(shapes::odd().into_iter().filter_map(|w| match w {
        Workload::PleMix(s) if s.gather.is_none() => {
            Some(Workload::PleMix(ple_mix::Shape { capacity: 1, ..s }))
        }
        Workload::Gather(s) if s.by_slot => Some(Workload::Gather(gather::Shape { rows: 1, ..s })),
        _ => None,
    }));
    for workload in all {
        let mut some = vec![workload.generic(device.caps())];
        some.extend(workload.candidates(device.caps()).into_iter().step_by(37).take(2));
        for variant in some {
            let rendered = variant.render(Target::Native).expect("renders");
            for proof in proofs(&variant, 3, true) {
                let shader = Shader {
                    label: variant.kernel(),
                    wgsl: &rendered.wgsl,
                    bindings: &rendered.bindings,
                    groups: variant.groups(proof.case.tokens),
                };
                if let Err(e) = block_on(agrees(&device, &shader, &variant, &proof)) {
                    failures.push(format!(
                        "{} {} {}: {e}",
                        variant.kernel(),
                        workload.shape_json(),
                        variant.config_json()
                    ));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} refused:\n{}", failures.len(), failures.join("\n"));
}
