//! JavaScript glue for a compiled module: `wgforge-bindgen IN.wasm FOLDER`.
//!
//! A program over wasm-bindgen's library builds in a third of the time of its command line, and its
//! version is pinned by this crate's lock file.

use std::{env, process::ExitCode};

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().collect();
    let [_, input, folder] = &args[..] else {
        eprintln!("usage: wgforge-bindgen IN.wasm FOLDER");
        return ExitCode::from(2);
    };
    let mut bindgen = Bindgen::new();
    bindgen
        .input_path(input)
        // The package has types of its own, for what it exports; the glue is its private matter.
        .typescript(false)
        .omit_default_module_path(false)
        .remove_name_section(true)
        .remove_producers_section(true);
    match bindgen.web(true).and_then(|bindgen| bindgen.generate(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{input}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
