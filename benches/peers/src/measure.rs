//! The clock, the same for both sides.

use std::time::{Duration, Instant};

use anyhow::Result;

/// Work before anything counts: an idle GPU runs at a fraction of its clock.
const WARM: Duration = Duration::from_millis(500);
/// What a batch takes at least.
const BATCH: Duration = Duration::from_millis(5);
/// What a batch is made to take, so that fluctuations stay above the least.
const AIM: Duration = Duration::from_millis(7);
/// Batches that count.
const BATCHES: usize = 11;
/// Dispatches of a batch at most.
const MOST: u32 = 1 << 14;
/// Dispatches alone, of which the median counts.
const ALONE: usize = 15;

/// One side's product, bound and ready.
pub(crate) trait Runner {
    /// Runs `n` dispatches back to back and waits for the last. Returns the time until all were
    /// handed over, and until they were done.
    fn batch(&mut self, n: u32) -> Result<(Duration, Duration)>;

    /// µs of one dispatch by the GPU's own clock; `None` where there is none.
    fn alone(&mut self) -> Result<Option<f64>>;

    /// The result of the last dispatch, as words.
    fn result(&mut self) -> Result<Vec<u32>>;
}

/// µs of a dispatch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Times {
    /// Median of the batches.
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// The part of the median after which the host was done handing over.
    pub(crate) host: f64,
    /// One dispatch alone by the GPU's clock: without what starting it costs.
    pub(crate) alone: Option<f64>,
    /// Dispatches of a batch.
    pub(crate) batch: u32,
}

/// Warms up and times.
pub(crate) fn measure(runner: &mut dyn Runner) -> Result<Times> {
    let mut n = warm(runner, WARM)?;
    let mut samples = Vec::new();
    while samples.len() < BATCHES {
        let (host, total) = runner.batch(n)?;
        if total < BATCH && n < MOST {
            // The clock went up: longer batches, all of them.
            n = (n + n / 4 + 1).min(MOST);
            samples.clear();
            continue;
        }
        samples.push((us(total, n), us(host, n)));
    }
    samples.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut alone = Vec::new();
    for _ in 0..ALONE {
        // Between lone dispatches the GPU must not fall asleep.
        runner.batch(n.div_ceil(4))?;
        alone.extend(runner.alone()?);
    }
    alone.sort_by(f64::total_cmp);
    let (median, host) = samples[samples.len() / 2];
    Ok(Times {
        median,
        min: samples[0].0,
        max: samples[samples.len() - 1].0,
        host,
        alone: alone.get(alone.len() / 2).copied(),
        batch: n,
    })
}

/// The median of three batches after a short warm-up: to choose among configurations.
pub(crate) fn quick(runner: &mut dyn Runner) -> Result<f64> {
    let n = warm(runner, WARM / 5)?;
    let mut samples = (0..3).map(|_| Ok(us(runner.batch(n)?.1, n))).collect::<Result<Vec<_>>>()?;
    samples.sort_by(f64::total_cmp);
    Ok(samples[1])
}

/// Keeps the device busy for `least`. Returns how many dispatches make a batch.
fn warm(runner: &mut dyn Runner, least: Duration) -> Result<u32> {
    let start = Instant::now();
    let mut n = 1;
    loop {
        let (_, total) = runner.batch(n)?;
        let wanted = f64::from(n) * AIM.as_secs_f64() / total.as_secs_f64().max(1e-9);
        let next = (1..=13).map(|i| 1u32 << i).rfind(|p| f64::from(*p) <= wanted).unwrap_or(1);
        if start.elapsed() >= least && (total >= BATCH || n == MOST) {
            // To the dispatch, by the last and warmest batch.
            return Ok((next..=next * 2).find(|i| f64::from(*i) >= wanted).unwrap_or(MOST).min(MOST));
        }
        // Grows by degrees: the first batches hold compilation, or run at a low clock.
        n = if total < BATCH { (next * 2).clamp(n, n * 8).max(n + 1).min(MOST) } else { n };
    }
}

fn us(time: Duration, n: u32) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(n)
}
