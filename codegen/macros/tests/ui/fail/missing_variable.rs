wgforge_codegen_macros::kernels!("tests/tiny.toml", templates = "tests/ui/variable");

fn main() {}
