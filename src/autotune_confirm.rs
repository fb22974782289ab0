//! Whether the winners of `wgforge autotune` make whole tokens faster.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::Result;
use pollster::block_on;
use wgforge::autotune::{Confirmed, Group, confirm as confirm_groups};
use wgforge::codegen::{Variant, Workload};
use wgforge::model::{Choice, Kernels, Request};

use crate::console;
use crate::numbers::random;
use crate::session::{Place, Session};

/// Rounds of each comparison at most.
const ROUNDS: usize = 9;

/// Seconds a sample should take, so that a scheduler's slice does not decide.
const SAMPLE_S: f64 = 0.3;

/// What whole tokens said.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Tokens a second, by what was measured.
    pub(crate) confirmed: Vec<(String, Confirmed)>,
    /// Workloads of the groups that do not stay.
    pub(crate) dropped: Vec<Workload>,
}

/// A kernel that would be computed otherwise than now.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) workload: Workload,
    pub(crate) variant: Variant,
}

/// The groups in which winners are taken or left: kernels of one family help or hurt alike.
fn family(workload: &Workload) -> &'static str {
    match workload {
        Workload::Gemv(_) => "decode products",
        Workload::Gemm(_) => "prefill products",
        Workload::Attention(s) if !s.decode => "prefill attention",
        Workload::Attention(_) | Workload::AttentionMerge(_) => "decode attention",
        Workload::Norm(_) => "norms",
        _ => "the rest",
    }
}

/// Whether a group has a part in prefill, and in decode.
fn stages(name: &str) -> (bool, bool) {
    match name {
        "prefill products" | "prefill attention" => (true, false),
        "decode products" | "decode attention" => (false, true),
        // Tuned for one token; many are run as well, but decode decides.
        _ => (false, true),
    }
}

/// Measures decode and prefill, each with the groups that have a part in it.
pub(crate) fn confirm(
    session: &mut Session,
    present: &Kernels,
    changes: &[Change],
    deadline: Instant,
    quiet: bool,
) -> Result<Verdict> {
    let mut all: Vec<&'static str> = Vec::new();
    for change in changes {
        let name = family(&change.workload);
        if !all.contains(&name) {
            all.push(name);
        }
    }
    let cpu = matches!(&session.place, Place::Gpu(d) if d.report().device_type == "cpu");
    let mut verdict = Verdict::default();
    for (what, prefill) in [("decode", false), ("prefill", true)] {
        let names: Vec<&str> = all
            .iter()
            .copied()
            .filter(|name| if prefill { stages(name).0 } else { stages(name).1 })
            .collect();
        if names.is_empty() || console::interrupted().load(std::sync::atomic::Ordering::SeqCst) {
            continue;
        }
        let bar = console::spinner(&format!("confirming in whole tokens: {what}"), quiet);
        let groups: Vec<Group> = names
            .iter()
            .map(|name| Group {
                name: (*name).into(),
                kernels: changes.iter().filter(|c| family(&c.workload) == *name).count(),
            })
            .collect();
        let mut used_before: Option<Vec<bool>> = None;
        let measured = confirm_groups(&groups, ROUNDS, &mut || Instant::now() >= deadline, &mut |used| {
            bar.tick();
            if used_before.as_deref() != Some(used) {
                let taken: Vec<Variant> = changes
                    .iter()
                    .filter(|c| {
                        let name = family(&c.workload);
                        names.iter().zip(used).any(|(n, used)| *used && *n == name)
                    })
                    .map(|c| c.variant.clone())
                    .collect();
                session.model.set_kernels(present.with(&taken));
                used_before = Some(used.to_vec());
                // Pipelines and bind groups are made by a first run.
                seconds_a_token(session, prefill, true, cpu)?;
            }
            seconds_a_token(session, prefill, false, cpu)
        });
        bar.finish_and_clear();
        let mut measured = measured?;
        for (share, name) in measured.shares.iter().zip(&names) {
            if !share.kept {
                let gone = changes.iter().filter(|c| family(&c.workload) == *name);
                verdict.dropped.extend(gone.map(|c| c.workload.clone()));
            }
        }
        // From seconds a token to tokens a second.
        measured.before = 1.0 / measured.before.max(1e-12);
        measured.after = 1.0 / measured.after.max(1e-12);
        verdict.confirmed.push((format!("{what}, tokens a second"), measured));
    }
    session.model.set_kernels(present.clone());
    Ok(verdict)
}

/// Seconds a token of a prompt or of decoding. `short`: once, to have everything made; otherwise
/// again and again until the sample is long enough.
fn seconds_a_token(session: &mut Session, prefill: bool, short: bool, cpu: bool) -> Result<f64> {
    let config = session.model.config();
    let vocab = config.vocab_size.min(config.vocab_size_per_layer_input) as u64;
    let room = u32::try_from(config.max_position).unwrap_or(u32::MAX);
    let (prompt, tokens) = match (prefill, cpu) {
        (true, false) => (512, 1),
        (true, true) => (32, 1),
        // Behind some context, so that attention has its part.
        (false, false) => (256, if short { 2 } else { 65 }),
        (false, true) => (16, if short { 2 } else { 5 }),
    };
    let prompt = prompt.min(room / 2);
    let id = |i| u32::try_from(random(7, i) % vocab).unwrap_or(0);
    let prompt: Vec<u32> = (0..u64::from(prompt)).map(id).collect();
    let count = prompt.len() as f64;
    let request = Request { prompt, max_new: tokens, choice: Choice::Greedy, stop: Vec::new() };
    let (mut seconds, mut steps) = (0.0, 0.0);
    loop {
        session.model.reset();
        let stats = block_on(session.model.generate(&request, &mut |_| ControlFlow::Continue(())))?;
        if prefill {
            seconds += stats.first_token_s;
            steps += count;
        } else {
            seconds += stats.decode_s;
            steps += f64::from(stats.tokens.saturating_sub(1).max(1));
        }
        if short || seconds >= SAMPLE_S {
            return Ok(seconds / steps);
        }
    }
}
