//! `wgforge autotune`: not there yet, and says so.

use anyhow::{Result, bail};

use crate::cli::AutotuneArgs;
use crate::console::usage;

/// Runs the subcommand.
pub(crate) fn execute(args: &AutotuneArgs) -> Result<()> {
    let known = wgforge::codegen::FAMILIES;
    if let Some(name) = args.kernel.iter().find(|name| !known.contains(&name.as_str())) {
        return usage(format!("unknown kernel `{name}`; known are {}", known.join(", ")));
    }
    bail!("the search does not exist yet in this version; kernels come from the generic database")
}
