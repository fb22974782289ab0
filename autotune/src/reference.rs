//! Inputs and expected outputs of workloads, made by worker threads ahead of the device.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use wgforge_codegen::{
    Variant,
    check::{Case, Inputs},
};

use crate::{
    call::Call,
    prove::{Proof, plain, proofs},
};

/// What all candidates of a workload share.
#[derive(Debug)]
pub(crate) struct Material {
    pub(crate) proofs: Vec<Proof>,
    /// Inputs of a timed call.
    pub(crate) timed: Case,
}

impl Material {
    pub(crate) fn make(job: &Job) -> Self {
        let timed =
            Case::draw(&plain(&job.variant), Inputs::Random, job.call.tokens, job.call.position, job.seed);
        Self { proofs: proofs(&job.variant, job.seed, job.few_tokens), timed }
    }
}

/// One workload to make material for.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) variant: Variant,
    pub(crate) call: Call,
    pub(crate) seed: u64,
    pub(crate) few_tokens: bool,
}

#[derive(Debug, Default)]
struct State {
    /// The first job nobody has begun.
    next: usize,
    /// Jobs below this one are not needed any more.
    done: usize,
    ready: HashMap<usize, Arc<Material>>,
    closed: bool,
}

/// Materials in the order of the jobs, a few ahead of whoever takes them.
#[derive(Debug)]
pub(crate) struct Shelf {
    jobs: Vec<Job>,
    ahead: usize,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shelf {
    /// `ahead`: how many finished materials may wait; each may hold hundreds of megabytes.
    pub(crate) fn new(jobs: Vec<Job>, ahead: usize) -> Self {
        Self { jobs, ahead, state: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The material of job `i`; makes it here if no worker has begun. Jobs are taken in order.
    pub(crate) fn take(&self, i: usize) -> Arc<Material> {
        let mut state = self.lock();
        state.done = i;
        state.ready.retain(|j, _| *j >= i);
        self.changed.notify_all();
        loop {
            if let Some(found) = state.ready.remove(&i) {
                return found;
            }
            if state.next <= i {
                state.next = i + 1;
                drop(state);
                return Arc::new(Material::make(&self.jobs[i]));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A worker: makes materials until the shelf is closed or nothing is left.
    pub(crate) fn work(&self) {
        loop {
            let i = {
                let mut state = self.lock();
                loop {
                    if state.closed || state.next >= self.jobs.len() {
                        return;
                    }
                    state.next = state.next.max(state.done);
                    if state.next < state.done + self.ahead {
                        break;
                    }
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                state.next += 1;
                state.next - 1
            };
            let material = Arc::new(Material::make(&self.jobs[i]));
            self.lock().ready.insert(i, material);
            self.changed.notify_all();
        }
    }

    /// Lets the workers go home.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}
