//! Templates see what they name. Tera takes a variable that is not there for false, so a misspelt
//! name in a condition would silently choose the other branch.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;
use wgforge_codegen::{Caps, TEMPLATES, Target, Workload, render, shapes};

/// What [`wgforge_codegen::Variant::context`] and the renderer provide.
const ROOTS: [&str; 6] = ["web", "s", "c", "d", "b", "use"];

fn classes() -> [Caps; 3] {
    [
        Caps::webgpu_baseline(),
        Caps::webgpu_baseline().with_subgroups(4),
        Caps::webgpu_baseline().with_subgroups(32).with_f16(true),
    ]
}

#[test]
fn templates_use_only_what_the_renderer_provides() {
    for (name, _) in TEMPLATES {
        let used = render::engine().get_template_variables(name).expect("the template is loaded");
        let unknown: Vec<_> = used.iter().filter(|v| !ROOTS.contains(v)).collect();
        assert!(unknown.is_empty(), "templates/{name}.wgsl uses {unknown:?}, which nobody provides");
    }
}

/// `x.name` for each root `x` in Tera tags of the text; WGSL's own members do not count.
fn paths(template: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for tag in tags(template) {
        let bytes = tag.as_bytes();
        for (dot, _) in tag.match_indices('.') {
            let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
            let start = (0..dot).rev().take_while(|i| word(bytes[*i])).last().unwrap_or(dot);
            let end = (dot + 1..bytes.len()).find(|i| !word(bytes[*i])).unwrap_or(bytes.len());
            let (root, field) = (&tag[start..dot], &tag[dot + 1..end]);
            let nested = start > 0 && bytes[start - 1] == b'.';
            if !nested && ROOTS.contains(&root) && field.starts_with(|c: char| c.is_ascii_alphabetic()) {
                found.insert((root.to_owned(), field.to_owned()));
            }
        }
    }
    found
}

/// The insides of `{{ }}` and `{% %}`.
fn tags(template: &str) -> Vec<&str> {
    let mut tags = Vec::new();
    for (open, close) in [("{{", "}}"), ("{%", "%}")] {
        let mut rest = template;
        while let Some(from) = rest.find(open) {
            rest = &rest[from + open.len()..];
            let to = rest.find(close).unwrap_or(rest.len());
            tags.push(&rest[..to]);
            rest = &rest[to..];
        }
    }
    tags
}

#[test]
fn every_path_in_a_template_exists_in_its_context() {
    // A binding is there only in shapes that have it, so one context with it is enough; a field of
    // a shape, a configuration or the derived numbers must be in every context.
    let mut contexts: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for workload in shapes::e2b().iter().chain(&shapes::odd()).chain(&shapes::exchanging()) {
        for caps in classes() {
            let candidates = workload.candidates(&caps);
            let stride = candidates.len().div_ceil(8).max(1);
            let variants = candidates.into_iter().step_by(stride).chain([workload.generic(&caps)]);
            contexts.entry(workload.kernel()).or_default().extend(variants.map(|v| v.context()));
        }
    }
    let mut missing = Vec::new();
    for (name, text) in TEMPLATES {
        let contexts = contexts.get(name).map_or(&[][..], Vec::as_slice);
        assert!(!contexts.is_empty(), "no workload of `{name}` in shapes");
        for (root, field) in paths(text).into_iter().filter(|(root, _)| root != "web") {
            let has = |c: &Value| c[&root].as_object().is_some_and(|o| o.contains_key(&field));
            let optional = root == "b"
                || (root.as_str(), field.as_str()) == ("s", "first") && *name == "decode_attention";
            let found = if optional { contexts.iter().any(has) } else { contexts.iter().all(has) };
            if !found {
                missing.push(format!("templates/{name}.wgsl: {root}.{field}"));
            }
        }
    }
    assert!(missing.is_empty(), "not in the context:\n{}", missing.join("\n"));
}

#[test]
fn every_derived_number_and_configuration_field_is_used() {
    let mut unused = Vec::new();
    for (name, text) in TEMPLATES {
        let used = paths(text);
        let all = shapes::e2b();
        let workload = all.iter().find(|w| w.kernel() == *name).expect("every family is in shapes");
        let context = workload.generic(&Caps::webgpu_baseline()).context();
        for field in context["d"].as_object().expect("an object").keys() {
            if !used.contains(&("d".to_owned(), field.clone())) {
                unused.push(format!("templates/{name}.wgsl never uses d.{field}"));
            }
        }
    }
    assert!(unused.is_empty(), "{}", unused.join("\n"));
}

/// Draws a workload whose sizes are scaled to something no tile fits.
fn workload() -> impl Strategy<Value = Workload> {
    let all: Vec<Workload> = shapes::e2b().into_iter().chain(shapes::odd()).collect();
    (any::<prop::sample::Index>(), prop::collection::vec(1u64..700, 3)).prop_map(move |(which, sizes)| {
        let workload = &all[which.index(all.len())];
        let mut shape: Value = serde_json::from_str(&workload.shape_json()).expect("JSON");
        for (field, size) in ["columns", "width", "n"].into_iter().zip(sizes) {
            if shape[field].is_u64() {
                shape[field] = size.into();
            }
        }
        Workload::parse(workload.kernel(), shape).expect("only sizes changed")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_renders_with_any_candidate(
        workload in workload(), class in 0usize..3, pick in any::<prop::sample::Index>(),
    ) {
        let caps = &classes()[class];
        let candidates = workload.candidates(caps);
        // A drawn size may be one the family cannot do at all; its candidates then are none.
        if !candidates.is_empty() {
            let variant = &candidates[pick.index(candidates.len())];
            let rendered = variant.render(Target::Native).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert!(rendered.workgroup_bytes <= caps.max_workgroup_bytes);
            prop_assert!(rendered.workgroup.iter().product::<u32>() <= caps.max_invocations);
        }
    }
}
