wgforge_codegen_macros::kernels!("tests/tiny.toml", "tests/ui/wrong.toml");

fn main() {}
