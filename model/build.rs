//! Renders, validates and embeds the kernels of the committed databases.

fn main() -> Result<(), wgforge_codegen::build::Errors> {
    wgforge_codegen::build::compile(&[
        "../autotune/tuned/nvidia-h100.toml",
        "../autotune/tuned/nvidia-h200.toml",
        "../autotune/tuned/llvmpipe.toml",
        "../autotune/tuned/swiftshader.toml",
        "../autotune/tuned/generic-plain.toml",
        "../autotune/tuned/generic-plain-f16.toml",
        "../autotune/tuned/generic-subgroup4.toml",
        "../autotune/tuned/generic-subgroup8-f16.toml",
        "../autotune/tuned/generic-subgroup16-f16.toml",
        "../autotune/tuned/generic-subgroup32.toml",
        "../autotune/tuned/generic-subgroup32-f16.toml",
        "../autotune/tuned/generic-subgroup64.toml",
        "../autotune/tuned/generic-subgroup64-f16.toml",
    ])
}
