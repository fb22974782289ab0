//! Every candidate of every kernel renders, parses, validates and translates.

use wgforge_codegen::{Access, Caps, Rendered, Target, Workload, shapes};

/// The classes of device the candidates are drawn for.
fn classes() -> Vec<Caps> {
    let roomy = Caps {
        max_invocations: 1024,
        max_workgroup_bytes: 48 << 10,
        max_binding_bytes: 2 << 30,
        ..Caps::default()
    };
    vec![
        Caps::webgpu_baseline(),
        Caps::webgpu_baseline().with_subgroups(4),
        roomy.with_subgroups(32).with_f16(true),
    ]
}

/// The bindings a shader writes, by reflection.
fn written(rendered: &Rendered) -> Vec<&str> {
    let bindings = rendered.bindings.iter().filter(|b| b.access == Access::ReadWrite);
    bindings.map(|b| b.name.as_str()).collect()
}

fn check(workloads: &[Workload]) {
    let mut failures = Vec::new();
    let mut count = 0;
    for caps in classes() {
        for workload in workloads {
            let generic = workload.generic(&caps);
            if let Some(reason) = generic.why_not(&caps) {
                failures.push(format!("generic {generic:?}: {reason}"));
            }
            let mut candidates = workload.candidates(&caps);
            assert!(!candidates.is_empty(), "no candidate for {workload:?} on {}", caps.class());
            // Large spaces are drawn from evenly; the tuner renders each one it tries anyway.
            let stride = candidates.len().div_ceil(8);
            candidates = candidates.into_iter().step_by(stride).collect();
            candidates.push(generic);
            for candidate in candidates {
                count += 1;
                match candidate.render(Target::Native) {
                    Ok(r) if written(&r) != candidate.written() => failures.push(format!(
                        "{candidate:?} writes {:?}, its file says {:?}",
                        written(&r),
                        candidate.written()
                    )),
                    Ok(r) if r.workgroup_bytes <= caps.max_workgroup_bytes => {}
                    Ok(r) => failures
                        .push(format!("{candidate:?} takes {} bytes of workgroup memory", r.workgroup_bytes)),
                    Err(e) => failures.push(e.to_string()),
                }
                if failures.len() > 3 {
                    panic!("{}", failures.join("\n\n"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(count > 1000, "only {count} candidates were rendered");
}

#[test]
fn every_candidate_for_e2b_shapes_is_a_valid_shader() {
    check(&shapes::e2b());
}

#[test]
fn every_candidate_for_odd_shapes_is_a_valid_shader() {
    check(&shapes::odd());
}

/// Those that only devices with many bindings and wide subgroups have.
#[test]
fn every_third_candidate_that_exchanges_rows_is_a_valid_shader() {
    let caps = Caps { max_storage_bindings: 16, ..Caps::webgpu_baseline() }.with_subgroups(32).with_f16(true);
    for workload in shapes::exchanging() {
        let all = workload.candidates(&caps);
        assert!(!all.is_empty(), "{} has no candidate", workload.shape_json());
        assert!(all.iter().all(|v| v.waits()) && workload.generic(&caps).why_not(&caps).is_none());
        for candidate in all.into_iter().step_by(3).chain([workload.generic(&caps)]) {
            let rendered = candidate.render(Target::Native).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(written(&rendered), candidate.written(), "{candidate:?}");
            assert!(rendered.workgroup_bytes <= caps.max_workgroup_bytes, "{candidate:?}");
        }
    }
    let narrow = Caps { max_storage_bindings: 16, ..Caps::webgpu_baseline() }.with_subgroups(16);
    assert!(shapes::exchanging().iter().all(|w| w.candidates(&narrow).is_empty()), "they would wait in vain");
}
