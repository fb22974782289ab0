//! What the build script embedded is what the renderer makes today, and a real model uses it.

use wgforge_codegen::{Caps, Target, Workload};
use wgforge_model::embedded;

#[test]
fn embedded_shaders_equal_freshly_rendered_ones() {
    let mut count = 0;
    for set in embedded::SETS {
        for info in set.kernels {
            let shape = serde_json::from_str(info.shape).expect("a shape");
            let workload = Workload::parse(info.kernel, shape).expect("a workload");
            let config = serde_json::from_str(info.config).expect("a configuration");
            let variant = workload.with_config(config).expect("a variant");
            let rendered = variant.render(Target::Native).expect("it renders");
            assert_eq!(rendered.wgsl, info.wgsl, "{} of {}", info.kernel, set.name);
            assert_eq!(rendered.workgroup, info.workgroup, "{} of {}", info.kernel, set.name);
            for tokens in [1, 2, 17, 512] {
                assert_eq!(
                    set.groups(info.kernel, info.shape, tokens),
                    Some(variant.groups(tokens)),
                    "workgroups of {} {} for {tokens} tokens",
                    info.kernel,
                    info.shape
                );
            }
            count += 1;
        }
    }
    assert!(count > 100, "only {count} kernels are embedded");
}

#[test]
fn the_closest_class_a_device_can_run_is_selected() {
    let names = |caps: &Caps| embedded::sets_for(caps, "", 0).first().map(|s| s.name);
    let baseline = Caps::webgpu_baseline();
    assert!(names(&baseline).is_some_and(|n| n.contains("plain")), "{:?}", names(&baseline));
    let wide = baseline.with_subgroups(32).with_f16(true);
    assert!(names(&wide).is_some_and(|n| n.contains("subgroup32_f16")), "{:?}", names(&wide));
    // A device that may choose 8 lanes cannot run kernels that shuffle over 32.
    let narrow = Caps { subgroup_min: 8, subgroup_max: 32, ..wide };
    assert!(names(&narrow).is_some_and(|n| n.contains("subgroup8")), "{:?}", names(&narrow));
}
