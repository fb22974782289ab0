//! Renders, validates and embeds the winners of the committed databases.

use wgforge_codegen::build::{Builder, Errors};

fn main() -> Result<(), Errors> {
    Builder::new()
        .kernel::<kernel::MatmulBiasRelu>()
        // Defaults for any device, then what was measured, a file a device.
        .database("tuned/generic.toml")
        .database("tuned/llvmpipe.toml")
        .compile()
}
