//! Errors that no call can return: the device's loss, and what wgpu reports out of the blue.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// What the callbacks of a device have recorded so far.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Why the device is lost; stays set.
    lost: Option<String>,
    /// The first error since the last `take`; those after it are mostly its consequences.
    first: Option<Error>,
    /// How many came after the first.
    more: u32,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the loss of the device; the first reason given is kept.
    pub(crate) fn lose(&self, reason: String) {
        self.lock().lost.get_or_insert(reason);
    }

    /// Records an error for the next `take`.
    pub(crate) fn add(&self, error: Error) {
        let mut state = self.lock();
        if state.first.is_some() {
            state.more += 1;
        } else {
            state.first = Some(error);
        }
    }

    /// Whether the device is lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.lock().lost.is_some()
    }

    /// The device's loss, else the first error since the last call.
    pub(crate) fn take(&self) -> Result<()> {
        let mut state = self.lock();
        if let Some(reason) = &state.lost {
            return Err(Error::DeviceLost(reason.clone()));
        }
        let more = std::mem::take(&mut state.more);
        match state.first.take() {
            None => Ok(()),
            Some(Error::Validation { what, report }) if more > 0 => Err(Error::Validation {
                what,
                report: format!("{report}\n(and {more} more errors after it)"),
            }),
            Some(error) => Err(error),
        }
    }
}

/// Runs `work` and gives its result together with the future of the first error it caused, if any.
///
/// Scopes belong to a thread and a stack, so they are opened and closed here without an await in
/// between; only their answers are awaited.
pub(crate) fn scoped<T>(
    device: &wgpu::Device,
    work: impl FnOnce() -> T,
) -> (T, impl Future<Output = Option<wgpu::Error>>) {
    let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let value = work();
    let internal = internal.pop();
    let validation = validation.pop();
    let memory = memory.pop();
    (value, async move {
        let (memory, validation, internal) = (memory.await, validation.await, internal.await);
        memory.or(validation).or(internal)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_reported_once_and_counts_those_after_it() {
        let faults = Faults::default();
        faults.add(Error::validation("first", "rule"));
        faults.add(Error::validation("second", "rule"));
        let report = faults.take().expect_err("an error was recorded").to_string();
        assert!(report.starts_with("first: rule") && report.contains("1 more"), "got {report}");
        assert!(faults.take().is_ok(), "an error is reported once");
    }

    #[test]
    fn a_lost_device_stays_lost_for_the_first_reason() {
        let faults = Faults::default();
        faults.lose("reset".into());
        faults.lose("later".into());
        for _ in 0..2 {
            assert!(
                matches!(faults.take(), Err(Error::DeviceLost(reason)) if reason == "reset"),
                "loss is final"
            );
        }
    }
}
