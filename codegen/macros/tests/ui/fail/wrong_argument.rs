wgforge_codegen_macros::kernels!("tests/tiny.toml", template = "tests/ui/pass");

fn main() {}
