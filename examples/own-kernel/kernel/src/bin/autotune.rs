//! Tunes the layer on this device and writes its database: `autotune FILE`. With `--generic` the
//! defaults for devices nobody has tuned instead; with `--report PAGE` all times as a page.

use std::{error::Error, time::Duration};

use kernel::workloads;
use pollster::block_on;
use wgforge_autotune::{Tuner, save};
use wgforge_codegen::{Caps, Database};
use wgforge_runtime::{Device, DeviceOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (file, page) = match arguments[..] {
        ["--generic", file] => {
            let database = Database::generic(&Caps::webgpu_baseline(), &workloads())?;
            return Ok(save(&database, file.as_ref())?);
        }
        [file] if !file.starts_with('-') => (file, None),
        [file, "--report", page] => (file, Some(page)),
        _ => return Err("usage: autotune FILE [--report PAGE], or autotune --generic FILE".into()),
    };
    let device = block_on(Device::request(&DeviceOptions::default()))?;
    let mut tuner = Tuner::new(&device).budget(Duration::from_secs(300));
    if let Some(page) = page {
        tuner = tuner.report(page);
    }
    let database = tuner.tune(&workloads())?;
    save(&database, file.as_ref())?;
    println!("wrote {file}");
    Ok(())
}
