//! What the templates become, for people to read and for reviews to show. Rewritten by
//! `cargo run -p xtask -- snapshots`.

use std::{collections::BTreeMap, panic::AssertUnwindSafe};

use wgforge_codegen::{Caps, Target, Variant, Workload, shapes};

/// The first shape of E2B with these fields, paths into its JSON.
fn matching(kernel: &str, fields: &[(&str, &str)]) -> Workload {
    let wanted = |w: &Workload| {
        let shape: serde_json::Value = serde_json::from_str(&w.shape_json()).expect("JSON");
        w.kernel() == kernel
            && fields.iter().all(|(f, v)| {
                let field = shape.pointer(&format!("/{f}")).unwrap_or(&serde_json::Value::Null);
                field.to_string().trim_matches('"') == *v
            })
    };
    shapes::e2b()
        .into_iter()
        .chain(shapes::exchanging())
        .find(wanted)
        .unwrap_or_else(|| panic!("no {kernel} with {fields:?} in shapes"))
}

/// Name, fields to look for, lanes of a subgroup, whether WGSL's f16 is used, target.
type Case = (&'static str, &'static [(&'static str, &'static str)], u32, bool, Target);

const NATIVE: Target = Target::Native;
const WEB: Target = Target::Web;

const CASES: &[Case] = &[
    ("gemv__mobile_int4", &[("format", "i4"), ("x", "i8"), ("out", "f16")], 32, true, NATIVE),
    ("gemv__mobile_int4_web", &[("format", "i4"), ("x", "i8"), ("out", "f16")], 32, true, WEB),
    ("gemv__mobile_int2_plain", &[("format", "i2"), ("x", "i8"), ("out", "f32")], 1, false, NATIVE),
    ("gemv__geglu", &[("epilogue", "geglu"), ("x", "i8"), ("format", "i4")], 32, false, NATIVE),
    ("gemv__ple", &[("epilogue", "ple"), ("x", "i8")], 32, false, NATIVE),
    ("gemv__bf16_plain", &[("format", "bf16"), ("x", "f32")], 1, false, NATIVE),
    ("gemv__int4_groups", &[("format", "i4"), ("scale", "group"), ("x", "f16")], 32, true, NATIVE),
    ("gemv__head", &[("epilogue", "softcap"), ("format", "i2")], 32, true, NATIVE),
    ("gemv__head_tops", &[("epilogue", "softcap"), ("format", "i2"), ("tops", "512")], 32, true, NATIVE),
    ("gemm__mobile_int4", &[("format", "i4"), ("x", "i8"), ("out", "f16")], 32, true, NATIVE),
    ("gemm__geglu", &[("epilogue", "geglu"), ("x", "i8"), ("format", "i4")], 1, false, NATIVE),
    ("gemm__bf16_plain", &[("format", "bf16"), ("x", "f32")], 1, false, NATIVE),
    ("gemm__int4_groups_web", &[("format", "i4"), ("scale", "group"), ("x", "f16")], 1, true, WEB),
    ("gather__int2_rows", &[("format", "i2")], 1, false, NATIVE),
    ("gather__ple_table", &[("by_slot", "true")], 1, false, NATIVE),
    ("gather__bf16_web", &[("format", "bf16")], 1, false, WEB),
    ("gemv_pair__plain", &[], 1, false, NATIVE),
    ("gemv_pair__subgroup", &[], 32, true, NATIVE),
    ("gemv_pair__subgroup_web", &[], 32, true, WEB),
    ("gemv_pair__floats", &[("second/scale", "group"), ("second/format", "i4")], 32, true, NATIVE),
    ("gemv_pair__floats_plain_web", &[("second/scale", "group"), ("second/format", "i4")], 1, false, WEB),
    ("merge_gemv__plain", &[("second/scale", "null")], 1, false, NATIVE),
    ("merge_gemv__subgroup_web", &[("second/scale", "null")], 32, true, WEB),
    ("merge_gemv__floats", &[("second/scale", "group")], 32, true, NATIVE),
    ("gemv__adds_floats", &[("norm/y", "fixed")], 32, true, NATIVE),
    ("clear__native", &[], 1, false, NATIVE),
    ("clear__web", &[], 1, false, WEB),
    ("ple_mix__f32", &[("context", "f32"), ("gather", "null")], 1, false, NATIVE),
    ("ple_mix__f16", &[("context", "f16"), ("gather", "null")], 32, true, NATIVE),
    ("ple_mix__f16_web", &[("context", "f16"), ("gather", "null")], 32, true, WEB),
    ("ple_mix__table", &[("context", "f32")], 1, false, NATIVE),
    ("ple_mix__table_web", &[("context", "f16")], 32, true, WEB),
    (
        "norm__residual_to_codes",
        &[("residual", "true"), ("norm", "true"), ("out", "i8"), ("y", "f16")],
        32,
        true,
        NATIVE,
    ),
    (
        "norm__residual_to_codes_web",
        &[("residual", "true"), ("norm", "true"), ("out", "i8"), ("y", "f16")],
        32,
        true,
        WEB,
    ),
    ("norm__plain", &[("residual", "false"), ("norm", "true"), ("out", "f32")], 1, false, NATIVE),
    ("rope__local", &[("ring", "1024"), ("kv", "f32")], 1, false, NATIVE),
    ("rope__global_f16", &[("ring", "0"), ("kv", "f16")], 32, true, NATIVE),
    ("rope__global_f16_web", &[("ring", "0"), ("kv", "f16")], 32, true, WEB),
    ("attention__decode", &[("decode", "true"), ("kv", "f16"), ("ring", "1024")], 32, true, NATIVE),
    ("attention__decode_web", &[("decode", "true"), ("kv", "f16"), ("ring", "1024")], 32, true, WEB),
    ("attention__prefill_plain", &[("decode", "false"), ("kv", "f32"), ("ring", "0")], 1, false, NATIVE),
    ("attention_merge__codes", &[("out", "i8")], 1, false, NATIVE),
    ("attention_merge__f16_web", &[("out", "f16")], 32, true, WEB),
    (
        "decode_attention__own_cache",
        &[("append", "true"), ("kv", "f16"), ("qkv", "f16"), ("ring", "1024"), ("out", "i8")],
        32,
        true,
        NATIVE,
    ),
    (
        "decode_attention__own_cache_web",
        &[("append", "true"), ("kv", "f16"), ("qkv", "f16"), ("ring", "1024"), ("out", "i8")],
        32,
        true,
        WEB,
    ),
    (
        "decode_attention__shared_cache_plain",
        &[("append", "false"), ("kv", "f32"), ("ring", "0")],
        1,
        false,
        NATIVE,
    ),
    (
        "decode_attention__projects",
        &[
            ("append", "true"),
            ("kv", "f16"),
            ("qkv", "f16"),
            ("ring", "1024"),
            ("out", "i8"),
            ("then/rows", "1536"),
        ],
        32,
        true,
        NATIVE,
    ),
    (
        "decode_attention__projects_web",
        &[("append", "false"), ("kv", "f16"), ("qkv", "f16"), ("ring", "0"), ("then/scale", "group")],
        32,
        true,
        WEB,
    ),
    (
        "decode_attention__rows",
        &[("append", "true"), ("qkv", "f16"), ("ring", "1024"), ("first/norm/residual", "true")],
        32,
        true,
        NATIVE,
    ),
    (
        "decode_attention__rows_web",
        &[("append", "false"), ("qkv", "f16"), ("ring", "0"), ("first/rows", "4096")],
        32,
        true,
        WEB,
    ),
    ("argmax__first", &[("last", "false")], 32, false, NATIVE),
    ("argmax__last_web", &[("last", "true")], 32, false, WEB),
    ("argmax__last_plain", &[("last", "true")], 1, false, NATIVE),
    ("argmax__search_web", &[("last", "true"), ("slice", "512")], 32, false, WEB),
    ("topk__first", &[("first", "true")], 1, false, NATIVE),
    ("topk__subgroup_web", &[("first", "true")], 32, false, WEB),
    ("topk__next_web", &[("first", "false")], 1, false, WEB),
    ("sample__plain", &[], 1, false, NATIVE),
    ("sample__subgroup_web", &[], 32, false, WEB),
];

#[test]
fn rendered_shaders_are_as_reviewed() {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut failed = Vec::new();
    for (name, fields, subgroup, f16, target) in CASES {
        let kernel = name.split("__").next().unwrap_or_default();
        let workload = matching(kernel, fields);
        let caps = Caps::webgpu_baseline().with_subgroups(*subgroup).with_f16(*f16);
        // What no default does, but a tuner finds.
        let projects = |v: &Variant| v.promising() && v.bindings().contains(&"exchange");
        let variant = match name.contains("projects") {
            true => workload.candidates(&caps).into_iter().find(projects).expect("one that projects"),
            false => workload.generic(&caps),
        };
        let rendered = variant.render(*target).unwrap_or_else(|e| panic!("{name}: {e}"));
        settings.set_description(format!("{} {}", workload.shape_json(), variant.config_json()));
        // All are compared before the test fails, so that one run rewrites all of them.
        let compared = std::panic::catch_unwind(AssertUnwindSafe(|| {
            settings.bind(|| insta::assert_snapshot!(*name, rendered.wgsl));
        }));
        if compared.is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "snapshots differ: {}", failed.join(", "));
}

#[test]
fn every_family_has_two_snapshots_and_one_of_them_for_the_web() {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (name, .., target) in CASES {
        let count = counts.entry(name.split("__").next().unwrap_or_default()).or_default();
        count.0 += 1;
        count.1 += usize::from(*target == WEB);
    }
    for family in wgforge_codegen::FAMILIES {
        let (all, web) = counts.get(family).copied().unwrap_or_default();
        assert!(all >= 2 && web >= 1, "`{family}` has {all} snapshots, {web} for the web");
    }
}
