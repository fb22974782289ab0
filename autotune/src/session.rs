//! From a session to a database.

use wgforge_codegen::{
    Database, Workload,
    db::{Detail, Entry, RunnerUp, Timing},
};
use wgforge_runtime::Device;

use crate::{
    Session, WGPU, device_id,
    evidence::{Measured, Settled},
};

impl Session {
    /// The winners as a database for `device`, the one that was tuned: each with its times in µs,
    /// its runner-up and the hash of its text. Workloads in `unchanged` keep the configuration they
    /// had before the session, with the times it was measured at, such as winners that did not
    /// show in the whole program; without one that was measured they are left out.
    pub fn database(&self, device: &Device, unchanged: &[Workload]) -> Database {
        let report = device.report();
        let mut database = Database::new(device.caps().clone(), Some(device_id(report)), Some(WGPU.into()));
        database.header.features.clone_from(&report.features);
        for one in &self.settled {
            // The winner of the search is then the next best.
            let (kept, next) = if unchanged.contains(&one.workload) {
                (one.before.as_ref(), Some(&one.winner))
            } else {
                (Some(&one.winner), one.runner_up.as_ref())
            };
            if let Some(entry) = kept.and_then(|measured| entry(one, measured, next)) {
                database.insert(entry);
            }
        }
        database
    }
}

/// `None` where the configuration was not written by this version.
fn entry(one: &Settled, measured: &Measured, next: Option<&Measured>) -> Option<Entry> {
    let variant = one.workload.with_config(measured.config.clone()).ok()?;
    let us = &measured.us;
    let runner_up = next
        .filter(|r| r.config != measured.config)
        .map(|r| RunnerUp { config: r.config.clone(), median_us: r.us.median });
    let detail = Detail {
        low_us: us.low,
        high_us: us.high,
        gb_s: one.bytes as f64 / us.median / 1e3,
        tflop_s: one.ops as f64 / us.median / 1e6,
        roofline: one.bound_us / us.median,
        runner_up,
    };
    let timing = Timing {
        median_us: us.median,
        min_us: us.min,
        samples: u32::try_from(us.count).unwrap_or(u32::MAX),
        detail: Some(detail),
    };
    Some(Entry { variant, wgsl_hash: measured.wgsl_hash.clone(), timing: Some(timing) })
}
