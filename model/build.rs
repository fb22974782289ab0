//! Renders, validates and embeds the kernels of the committed databases.

use wgforge_codegen::build::{Builder, Errors};

fn main() -> Result<(), Errors> {
    let databases = [
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
    ];
    // Plans find their kernels by shape and name none.
    databases.iter().fold(Builder::new().rows_only(), |b, path| b.database(path)).compile()
}
