//! Checks draw what they say: ties lie halfway between two codes, and extremes reach the ends.

use wgforge_codegen::{
    Caps, Variant, Workload,
    check::{Case, Inputs, POISON},
    io::{code, load, quantize},
    shapes,
    types::Act,
};

fn caps() -> Caps {
    Caps::webgpu_baseline().with_subgroups(32).with_f16(true)
}

/// The output of a case by its reference, without the device.
fn output(variant: &Variant, case: &Case, name: &str) -> Vec<u32> {
    let at = variant.bindings().iter().position(|n| *n == name).expect("the binding");
    case.expected(variant).swap_remove(at)
}

/// Odd workloads whose output is int8 codes, each with its twin that stores floats.
fn with_codes() -> Vec<(Workload, Workload)> {
    let twin = |w: &Workload| {
        let mut shape: serde_json::Value = serde_json::from_str(&w.shape_json()).expect("JSON");
        // Where a product follows, codes never leave the workgroup.
        if shape["out"] != "i8" || !shape["then"].is_null() {
            return None;
        }
        shape["out"] = "f32".into();
        Some(Workload::parse(w.kernel(), shape).expect("the same shape with floats"))
    };
    shapes::odd().into_iter().filter_map(|w| twin(&w).map(|t| (w, t))).collect()
}

/// A configuration that does not split, so that the output is there.
fn whole(workload: &Workload) -> Variant {
    let all = workload.candidates(&caps());
    all.into_iter().find(|v| v.written().contains(&"out")).expect("an unsplit configuration")
}

#[test]
fn ties_show_the_direction_of_rounding() {
    let mut tested = std::collections::BTreeSet::new();
    for (workload, twin) in with_codes() {
        // A root is exact nowhere, so a normalised row has no ties to offer.
        let normed = match &workload {
            Workload::Norm(s) => s.norm,
            Workload::Gemv(s) => s.norm.is_some(),
            _ => false,
        };
        if normed {
            continue;
        }
        let (variant, floats) = (whole(&workload), whole(&twin));
        let (mut codes, mut ties) = (0, 0);
        // A shape of one row has one chance a case.
        for seed in 0..100 {
            if ties > 0 && seed >= 4 {
                break;
            }
            let case = Case::draw(&variant, Inputs::Ties, 5, 21, seed);
            let exact = Case::draw(&floats, Inputs::Ties, 5, 21, seed);
            let got = output(&variant, &case, "out");
            let values = output(&floats, &exact, "out");
            let grids = variant.bindings().iter().position(|n| *n == "grids").expect("codes have a grid");
            let product = matches!(workload, Workload::Gemv(_) | Workload::Gemm(_));
            let grid = f32::from_bits(case.buffers[grids][if product { 4 } else { 0 }]);
            for (i, word) in values.iter().enumerate().filter(|(_, w)| **w != POISON) {
                let value = f32::from_bits(*word);
                assert_eq!(code(&got, i), quantize(value, grid), "{workload:?}: both round one value");
                codes += 1;
                let up = (value / grid + 0.5).floor().clamp(-128.0, 127.0);
                ties += usize::from(up != f32::from(code(&got, i)));
            }
        }
        assert!(ties > 0, "rounding halves up gives the same {codes} codes: {}", workload.shape_json());
        tested.insert(workload.kernel());
    }
    let kernels: Vec<_> = tested.into_iter().collect();
    assert_eq!(
        kernels,
        ["attention", "attention_merge", "decode_attention", "gemm", "gemv", "norm"],
        "kernels with codes"
    );
}

#[test]
fn extremes_saturate_grids_and_stay_finite() {
    for workload in shapes::odd() {
        let variant = whole_or_generic(&workload);
        let case = Case::draw(&variant, Inputs::Extreme, 5, 21, 3);
        let expected = case.expected(&variant);
        for (name, words) in variant.bindings().into_iter().zip(&expected) {
            if !variant.written().contains(&name) {
                continue;
            }
            let (act, tolerance) = variant.output(name);
            if act == Act::I8 {
                let ends = (0..words.len() * 4).filter(|i| matches!(code(words, *i), -128 | 127)).count();
                assert!(ends > 0, "no code of {workload:?} is at an end");
            } else if tolerance != wgforge_codegen::check::Tolerance::Exact {
                let n = if act == Act::F16 { words.len() * 2 } else { words.len() };
                let live = |i: &usize| {
                    act == Act::F16 && words[i / 2] != POISON || act == Act::F32 && words[*i] != POISON
                };
                let wild = (0..n).filter(live).find(|i| !load(words, act, *i, 1.0).is_finite());
                assert_eq!(wild, None, "an element of {workload:?} is not finite");
            }
        }
    }
}

fn whole_or_generic(workload: &Workload) -> Variant {
    let candidates = workload.candidates(&caps());
    candidates.into_iter().find(|v| v.written().contains(&"out")).unwrap_or_else(|| workload.generic(&caps()))
}

#[test]
fn the_same_seed_draws_the_same_case() {
    for workload in shapes::odd().iter().step_by(9) {
        let variant = workload.generic(&caps());
        for inputs in Inputs::ALL {
            let draw = |seed| Case::draw(&variant, inputs, 3, 7, seed).buffers;
            assert_eq!(draw(1), draw(1), "{workload:?}");
        }
    }
}
