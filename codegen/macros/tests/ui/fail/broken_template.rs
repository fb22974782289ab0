wgforge_codegen_macros::kernels!("tests/tiny.toml", templates = "tests/ui/syntax");

fn main() {}
