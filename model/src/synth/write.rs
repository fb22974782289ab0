//! A planned checkpoint, streamed to disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use super::Plan;
use crate::{Error, Result};

/// Bytes made by one thread at a time; a multiple of 8.
const BLOCK: usize = 4 << 20;

pub(super) fn write(
    plan: &Plan,
    seed: u64,
    out: &Path,
    threads: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
    let header = plan.header();
    let total = header.len() as u64 + plan.data_bytes();
    let weights = Unfinished::create(&out.join("model.safetensors"), total)?;
    weights.write(&header)?;
    let mut done = header.len() as u64;
    progress(done, total);

    // Every block's place is known and its bytes follow from the seed alone. Thread w makes the
    // blocks w, w + n, w + 2n, …; they are written in order, so at most three a thread wait.
    let mut blocks = Vec::new();
    for tensor in plan.tensors() {
        for start in (0..tensor.bytes).step_by(BLOCK) {
            let len = usize::try_from(tensor.bytes - start).map_or(BLOCK, |rest| rest.min(BLOCK));
            blocks.push((tensor, start, len));
        }
    }
    let blocks = &blocks;
    thread::scope(|scope| {
        let made: Vec<mpsc::Receiver<Vec<u8>>> = (0..threads)
            .map(|thread| {
                let (send, receive) = mpsc::sync_channel(2);
                scope.spawn(move || {
                    for (tensor, start, len) in blocks.iter().skip(thread).step_by(threads) {
                        let mut bytes = vec![0; *len];
                        tensor.fill(seed, *start, &mut bytes);
                        // Nobody listens any more: writing has failed.
                        if send.send(bytes).is_err() {
                            break;
                        }
                    }
                });
                receive
            })
            .collect();
        for number in 0..blocks.len() {
            let bytes = made[number % threads].recv().map_err(|e| weights.error(io::Error::other(e)))?;
            weights.write(&bytes)?;
            done += bytes.len() as u64;
            progress(done, total);
        }
        Ok::<(), Error>(())
    })?;

    let config = plan.config_json();
    let generation = plan.generation_json();
    for (name, text) in [("config.json", config), ("generation_config.json", &generation)] {
        let file = Unfinished::create(&out.join(name), text.len() as u64)?;
        file.write(text.as_bytes())?;
        file.finish()?;
    }
    weights.finish()
}

/// A file under a temporary name, which goes away unless it is finished.
struct Unfinished {
    file: File,
    temporary: PathBuf,
    name: PathBuf,
    needed: u64,
}

impl Unfinished {
    fn create(name: &Path, needed: u64) -> Result<Self> {
        let mut temporary = name.as_os_str().to_owned();
        temporary.push(format!(".{}.partial", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let file = File::create(&temporary).map_err(|e| Error::io(&temporary, e))?;
        Ok(Self { file, temporary, name: name.to_owned(), needed })
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        (&self.file).write_all(bytes).map_err(|e| self.error(e))
    }

    fn finish(self) -> Result<()> {
        fs::rename(&self.temporary, &self.name).map_err(|e| self.error(e))
    }

    fn error(&self, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Error::DiskFull { path: self.name.clone(), needed: self.needed }
            }
            _ => Error::io(&self.name, source),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After a rename there is nothing under this name any more.
        let _ = fs::remove_file(&self.temporary);
    }
}
