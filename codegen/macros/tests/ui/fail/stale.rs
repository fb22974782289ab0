wgforge_codegen_macros::kernels!("tests/tiny.toml", "tests/ui/stale.toml");

fn main() {}
