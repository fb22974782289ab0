//! Keeps a GPU busy between measurements.
//!
//! A tuner compiles and checks most of the time, and a GPU that idles lowers its clocks within
//! milliseconds and raises them again only under load that lasts: an NVIDIA H200 timed the same
//! kernel at 156 µs when busy and at 896 µs between compilations.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
#[cfg(not(target_arch = "wasm32"))]
use std::time::Duration;

use wgforge_runtime::{Device, Result};

/// What a piece of filling work takes at full clocks: short, because whoever uses the device
/// meanwhile waits for it.
#[cfg(not(target_arch = "wasm32"))]
const PIECE: Duration = Duration::from_micros(400);

#[derive(Debug, Default)]
struct State {
    /// Measurements under way.
    paused: usize,
    /// A piece of work is on the device.
    running: bool,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that fills gaps. On software adapters there is none: they have no clocks to raise,
/// and the work would take the time of those that compile.
#[derive(Debug)]
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Starts the thread.
#[cfg(not(target_arch = "wasm32"))]
async fn fill(device: &Device, shared: &Arc<Shared>) -> Result<Option<JoinHandle<()>>> {
    let mut rate = crate::roofline::Rate::busy(device).await?;
    rate.sized(device, PIECE).await?;
    let (device, mine) = (device.clone(), Arc::clone(shared));
    Ok(Some(std::thread::spawn(move || {
        loop {
            let mut state = mine.lock();
            while state.paused > 0 && !state.closed {
                state = mine.wait(state);
            }
            if state.closed {
                return;
            }
            state.running = true;
            drop(state);
            let running = Running(&mine);
            // A device that fails says so to those who measure.
            if pollster::block_on(rate.run(&device)).is_err() {
                return;
            }
            drop(running);
        }
    })))
}

/// A browser's devices belong to one thread; it raises its clocks by the batches themselves.
#[cfg(target_arch = "wasm32")]
async fn fill(_device: &Device, _shared: &Arc<Shared>) -> Result<Option<JoinHandle<()>>> {
    Ok(None)
}

impl Keeper {
    /// Begins to fill gaps.
    pub(crate) async fn new(device: &Device) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let software = device.report().device_type == "cpu";
        let thread = if software { None } else { fill(device, &shared).await? };
        Ok(Self { shared, thread })
    }

    /// Leaves the device alone as long as the result lives.
    pub(crate) fn pause(&self) -> Pause<'_> {
        let mut state = self.shared.lock();
        state.paused += 1;
        while state.running {
            state = self.shared.wait(state);
        }
        Pause(&self.shared)
    }
}

/// A piece of work under way. However it ends, a panic of the driver included, nobody waits for it
/// any longer.
#[cfg(not(target_arch = "wasm32"))]
struct Running<'a>(&'a Shared);

#[cfg(not(target_arch = "wasm32"))]
impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().running = false;
        self.0.changed.notify_all();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It only submits work; if that panicked, the device will tell.
            let _ = thread.join();
        }
    }
}

/// The device belongs to a measurement.
#[derive(Debug)]
pub(crate) struct Pause<'a>(&'a Shared);

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.lock().paused -= 1;
        self.0.changed.notify_all();
    }
}
