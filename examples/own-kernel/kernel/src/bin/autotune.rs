//! Tunes the kernels on this device and merges what wins into its database: `autotune NAME.toml`. What
//! every candidate did is kept in `NAME.evidence.jsonl`, from where a killed session goes on.
//! `--report PAGE` shows all times as a page, `--budget SECONDS` is the time there is instead of 300.
//! With `--generic` it writes the defaults for devices nobody has tuned instead.

use std::{error::Error, path::Path, time::Duration};

use kernel::{families, workloads};
use pollster::block_on;
use wgforge_autotune::{Lock, Tuner, save, save_merged_with};
use wgforge_codegen::{Caps, Database};
use wgforge_runtime::{Device, DeviceOptions};

const USAGE: &str = "usage: autotune FILE [--budget SECONDS] [--report PAGE], or autotune --generic FILE";

fn main() -> Result<(), Box<dyn Error>> {
    let (mut file, mut generic, mut seconds, mut page) = (None, false, 300.0, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--generic" => generic = true,
            "--budget" => seconds = arguments.next().ok_or(USAGE)?.parse()?,
            "--report" => page = Some(arguments.next().ok_or(USAGE)?),
            _ if argument.starts_with('-') || file.is_some() => return Err(USAGE.into()),
            _ => file = Some(argument),
        }
    }
    let file = file.ok_or(USAGE)?;
    let path = Path::new(&file);
    if generic {
        let database = Database::generic(&Caps::webgpu_baseline(), &workloads())?;
        return Ok(save(&database, path)?);
    }
    let (families, _lock) = (families()?, Lock::acquire(path)?);
    let device = block_on(Device::request(&DeviceOptions::default()))?;
    let mut tuner = Tuner::new(&device)
        .families(families.clone())
        .evidence(path.with_extension("evidence.jsonl"))
        .budget(Duration::try_from_secs_f64(seconds)?);
    if let Some(page) = page {
        tuner = tuner.report(page);
    }
    let database = tuner.tune(&workloads())?;
    for note in save_merged_with(&families, &database, path)? {
        eprintln!("{note}");
    }
    println!("wrote {file}");
    Ok(())
}
