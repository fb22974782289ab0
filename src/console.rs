//! Standard output, progress bars and Ctrl-C.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A mistake of whoever typed the command; ends the program with exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error that ends the program with exit code 2.
pub(crate) fn usage<T>(message: impl Into<String>) -> Result<T> {
    Err(Usage(message.into()).into())
}

/// Writes to standard output at once. `print!` would panic where the reader has gone.
pub(crate) fn write(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes a line to standard output.
pub(crate) fn line(text: impl fmt::Display) -> Result<()> {
    write(&format!("{text}\n"))
}

/// Writes JSON to standard output, readable by people too.
pub(crate) fn json(value: &serde_json::Value) -> Result<()> {
    line(format_args!("{value:#}"))
}

/// A progress bar in bytes on standard error; silent where `quiet`, or where nobody watches.
pub(crate) fn bytes_bar(what: &str, total: u64, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

/// A bar that counts steps; its message says which, its prefix how it goes.
pub(crate) fn steps_bar(what: &str, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(1), target);
    if let Ok(style) = ProgressStyle::with_template("{pos}/{len} {bar:20} {elapsed} {prefix}{wide_msg}") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

/// Something that turns while nobody knows how long it takes.
pub(crate) fn spinner(what: &str, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(None, target);
    bar.set_message(what.to_owned());
    bar
}

/// Whether Ctrl-C asks for a stop between tokens (true), or ends the program at once.
static GRACEFUL: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Takes over Ctrl-C: the first one during a [`Graceful`] stretch only sets a flag.
pub(crate) fn on_interrupt() -> Result<()> {
    ctrlc::set_handler(|| {
        let second = INTERRUPTED.swap(true, Ordering::SeqCst);
        if second || !GRACEFUL.load(Ordering::SeqCst) {
            // What a shell reports for a program that SIGINT ended.
            std::process::exit(130);
        }
    })
    .context("taking over Ctrl-C")
}

/// The flag that Ctrl-C sets, for work that looks at it by itself.
pub(crate) fn interrupted() -> &'static AtomicBool {
    &INTERRUPTED
}

/// While this lives, Ctrl-C sets the flag that [`Graceful::interrupted`] reads.
#[derive(Debug)]
pub(crate) struct Graceful(());

impl Graceful {
    pub(crate) fn begin() -> Self {
        GRACEFUL.store(true, Ordering::SeqCst);
        Self(())
    }

    pub(crate) fn interrupted(&self) -> bool {
        INTERRUPTED.load(Ordering::SeqCst)
    }
}

impl Drop for Graceful {
    fn drop(&mut self) {
        GRACEFUL.store(false, Ordering::SeqCst);
    }
}
