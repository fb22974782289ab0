//! Whether the winners of `wgforge autotune` make whole tokens faster.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use pollster::block_on;
use wgforge::autotune::{Confirmed, Group, Share, confirm as confirm_groups};
use wgforge::codegen::{Variant, Workload};
use wgforge::model::{Choice, Kernels, Request};

use crate::console;
use crate::numbers::random;
use crate::session::Session;

/// Rounds of each comparison at most.
const ROUNDS: usize = 9;

/// Seconds a sample should take, so that a scheduler's slice does not decide.
const SAMPLE_S: f64 = 0.3;

/// The part of the time that a measurement gets where others follow.
const FIRST: f64 = 0.6;

/// Tokens of a prompt where software computes.
const SHORT_PROMPT: u32 = 16;

/// What whole tokens said.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Tokens a second, by what was measured.
    pub(crate) confirmed: Vec<(String, Confirmed)>,
    /// Workloads of the groups that do not stay.
    pub(crate) dropped: Vec<Workload>,
    /// Workloads whose winners no whole token was measured with: their own times decided.
    pub(crate) unconfirmed: Vec<Workload>,
}

/// A kernel that would be computed otherwise than before.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) workload: Workload,
    pub(crate) variant: Variant,
}

/// What winners are compared with: the kernels present, which may be winners of an earlier run that
/// was stopped before it confirmed them, as they were `before`, and the plan that has apart what is
/// `joined`.
pub(crate) fn base(present: &Kernels, before: &[Variant], joined: &[Workload]) -> Kernels {
    present.with(before).without(joined)
}

/// The groups in which winners are taken or left: kernels of one family help or hurt alike.
fn family(workload: &Workload) -> &'static str {
    match workload {
        Workload::GemvPair(_) | Workload::MergeGemv(_) => "joined products",
        // It clears the sums that those add to.
        Workload::PleMix(s) if s.zeros.is_some() => "joined products",
        // A dispatch a token: by itself it gains less than can be told from nothing.
        Workload::PleMix(s) if s.gather.is_some() => "joined norms",
        // What they leave is added by products behind norms.
        Workload::Gemv(s) if s.norm.as_ref().is_some_and(|n| n.y.is_sum()) => "joined products",
        // Where a window may win, heads twice as wide may lose.
        Workload::DecodeAttention(s) if s.first.is_some() && s.window > 0 => "exchanged rows, windows",
        Workload::DecodeAttention(s) if s.first.is_some() => "exchanged rows",
        Workload::DecodeAttention(s) if s.then.is_some() => "joined products",
        Workload::Gemv(s) if s.norm.is_some() => "joined norms",
        Workload::Gemv(_) => "decode products",
        Workload::Gemm(_) => "prefill products",
        Workload::Attention(s) if !s.decode => "prefill attention",
        Workload::DecodeAttention(_) => "joined attention",
        Workload::Attention(_) | Workload::AttentionMerge(_) => "decode attention",
        Workload::Norm(_) => "norms",
        Workload::Topk(_) | Workload::Sample(_) => "sampling",
        _ => "the rest",
    }
}

/// What a group of joined kernels has no use without.
fn needs(workload: &Workload) -> &'static [&'static str] {
    match workload {
        Workload::MergeGemv(_) => &["joined norms", "joined attention"],
        Workload::DecodeAttention(s) if s.first.is_some() => {
            &["joined norms", "joined attention", "joined products"]
        }
        Workload::DecodeAttention(s) if s.then.is_some() => &["joined norms", "joined attention"],
        w if family(w) == "joined products" => &["joined norms"],
        _ => &[],
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// Greedy tokens.
    Decode,
    /// Drawn ones.
    Sampled,
    /// A prompt.
    Prefill,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Sampled => "sampled decode",
            Self::Prefill => "prefill",
        }
    }

    /// Where a family shows. Kernels that serve a token and a prompt were tuned for one token, and decode
    /// decides about them.
    fn of(family: &str) -> Self {
        match family {
            "prefill products" | "prefill attention" => Self::Prefill,
            "sampling" => Self::Sampled,
            _ => Self::Decode,
        }
    }

    fn choice(self) -> Choice {
        match self {
            Self::Sampled => Choice::Sample { temperature: 1.0, top_k: 64, top_p: 0.95, seed: 7 },
            _ => Choice::Greedy,
        }
    }
}

/// Whether Ctrl-C asked for the end.
pub(crate) fn stopped() -> bool {
    console::interrupted().load(Ordering::SeqCst)
}

/// Compares with `base` and leaves the model with `present`. Measures decode, sampled decode and prefill,
/// each with the groups that have a part in it, until `deadline`.
/// Where there is no time to measure each group, all of them are one; where there is none for that
/// either, the kernels' own times have to do, with a notice. Ctrl-C ends it with what was measured
/// to its end.
pub(crate) fn confirm(
    session: &mut Session,
    present: &Kernels,
    base: &Kernels,
    changes: &[Change],
    deadline: Instant,
    quiet: bool,
) -> Result<Verdict> {
    let unconfirmed = changes.iter().map(|c| c.workload.clone()).collect();
    let mut verdict = Verdict { unconfirmed, ..Verdict::default() };
    // A decoded token.
    let mut token: Option<Duration> = None;
    let all = [What::Decode, What::Sampled, What::Prefill];
    for (nth, what) in all.into_iter().enumerate() {
        if stopped() {
            break;
        }
        let mut families: Vec<(String, Vec<&Change>)> = Vec::new();
        for change in changes.iter().filter(|c| What::of(family(&c.workload)) == what) {
            let name = family(&change.workload);
            match families.iter_mut().find(|(n, _)| n == name) {
                Some((_, list)) => list.push(change),
                None => families.push((name.to_owned(), vec![change])),
            }
        }
        if families.is_empty() {
            continue;
        }
        let bar = console::spinner(&format!("confirming in whole tokens: {}", what.name()), quiet);
        // How long a measurement takes decides how many there can be.
        let start = Instant::now();
        // Whatever one could use up, the next would lack.
        let shared = changes.iter().any(|c| all[nth + 1..].contains(&What::of(family(&c.workload))));
        let part = if shared { FIRST } else { 1.0 };
        let deadline = start + deadline.saturating_duration_since(start).mul_f64(part);
        if start >= deadline {
            bar.finish_and_clear();
            eprintln!(
                "notice: no time is left to measure {} of whole tokens; the kernels' own times decide",
                what.name()
            );
            continue;
        }
        let left = || deadline.saturating_duration_since(Instant::now());
        // What a comparison of so many groups takes, where a sample takes `each`.
        let needed =
            |groups: usize, each: Duration| each * u32::try_from(2 + 3 * (2 + groups)).unwrap_or(u32::MAX);
        let skipped = |needed: Duration| {
            bar.finish_and_clear();
            eprintln!(
                "notice: {} of whole tokens was not measured: it would take {:.0} s and {:.0} s are left; \
                 the kernels' own times decide (--budget gives more)",
                what.name(),
                needed.as_secs_f64(),
                left().as_secs_f64()
            );
        };
        // In software a prompt's tokens take about as long each as decoded ones, and even the first
        // sample of a large model may be more than there is time for.
        let prompt = what == What::Prefill && session.in_software();
        let guess = token.filter(|_| prompt).map_or(Duration::ZERO, |t| t * SHORT_PROMPT);
        if needed(0, guess) > left() {
            skipped(needed(0, guess));
            continue;
        }
        session.model.set_kernels(base.clone());
        // The first one makes the pipelines.
        let begun = Instant::now();
        short_sample(session, what)?;
        if needed(0, begun.elapsed() / 4) > left() {
            skipped(needed(0, begun.elapsed() / 4));
            continue;
        }
        let begun = Instant::now();
        let seconds = measure(session, what)?;
        let each = begun.elapsed();
        if what != What::Prefill {
            token = Duration::try_from_secs_f64(seconds).ok();
        }
        if families.len() > 1 && needed(families.len(), each) > left() {
            let all = families.drain(..).flat_map(|(_, list)| list).collect();
            families.push(("all changes together".into(), all));
        }
        if needed(0, each) > left() {
            skipped(needed(0, each));
            continue;
        }
        let groups: Vec<Group> =
            families.iter().map(|(name, list)| Group { name: name.clone(), kernels: list.len() }).collect();
        let mut over = || Instant::now() >= deadline || stopped();
        let measured = confirm_groups(&groups, ROUNDS, &mut over, &mut |used| {
            if stopped() {
                return Err(None);
            }
            bar.tick();
            let off: Vec<&str> = families
                .iter()
                .zip(used)
                .filter(|(_, used)| !**used)
                .map(|((name, _), _)| &name[..])
                .collect();
            let taken: Vec<Variant> = families
                .iter()
                .filter(|(name, _)| !off.contains(&&name[..]))
                .flat_map(|(_, list)| list.iter())
                .filter(|c| needs(&c.workload).iter().all(|n| !off.contains(n)))
                .map(|c| c.variant.clone())
                .collect();
            session.model.set_kernels(base.with(&taken));
            measure(session, what).map_err(Some)
        });
        bar.finish_and_clear();
        let mut measured = match measured {
            Ok(measured) => measured,
            Err(Some(error)) => return Err(error),
            Err(None) => break,
        };
        verdict.unconfirmed.retain(|w| What::of(family(w)) != what);
        verdict.dropped.extend(left_out(&families, &measured.shares));
        // From seconds a token to tokens a second.
        measured.before = 1.0 / measured.before.max(1e-12);
        measured.after = 1.0 / measured.after.max(1e-12);
        verdict.confirmed.push((format!("{}, tokens a second", what.name()), measured));
    }
    session.model.set_kernels(present.clone());
    Ok(verdict)
}

/// Workloads of the groups that do not stay, and of what needs one of those.
fn left_out(families: &[(String, Vec<&Change>)], shares: &[Share]) -> Vec<Workload> {
    let off: Vec<&str> = shares.iter().filter(|s| !s.kept).map(|s| &s.name[..]).collect();
    let gone =
        |name: &str, c: &Change| off.contains(&name) || needs(&c.workload).iter().any(|n| off.contains(n));
    let all = families.iter().flat_map(|(name, list)| list.iter().map(move |c| (name, *c)));
    all.filter(|(name, c)| gone(name, c)).map(|(_, c)| c.workload.clone()).collect()
}

/// Seconds a greedy token takes with the kernels just set; the sample takes `sample_s` at least.
pub(crate) fn token_seconds(session: &mut Session, sample_s: f64) -> Result<f64> {
    short_sample(session, What::Decode)?;
    let cpu = session.in_software();
    seconds_a_token(session, What::Decode, sample_s, cpu)
}

/// A sample with the kernels just set, whose pipelines and bind groups a first run makes.
fn measure(session: &mut Session, what: What) -> Result<f64> {
    short_sample(session, what)?;
    let cpu = session.in_software();
    seconds_a_token(session, what, SAMPLE_S, cpu)
}

/// Makes whatever the kernels just set need.
fn short_sample(session: &mut Session, what: What) -> Result<f64> {
    let cpu = session.in_software();
    seconds_a_token(session, what, 0.0, cpu)
}

/// Seconds a token of a prompt or of decoding, again and again until the sample took `sample_s`; 0: a few
/// tokens once, to have everything made.
fn seconds_a_token(session: &mut Session, what: What, sample_s: f64, cpu: bool) -> Result<f64> {
    let short = sample_s == 0.0;
    let config = session.model.config();
    let vocab = config.vocab_size.min(config.vocab_size_per_layer_input) as u64;
    let room = u32::try_from(config.max_position).unwrap_or(u32::MAX);
    let (prompt, tokens) = match (what == What::Prefill, cpu) {
        (true, false) => (512, 1),
        (true, true) => (SHORT_PROMPT, 1),
        // Behind some context, so that attention has its part.
        (false, false) => (256, if short { 2 } else { 65 }),
        // A prompt of one token takes the way of decoding; prefill would take the most of the time.
        (false, true) => (1, if short { 1 } else { 4 }),
    };
    let prompt = prompt.min(room / 2);
    let id = |i| u32::try_from(random(7, i) % vocab).unwrap_or(0);
    let prompt: Vec<u32> = (0..u64::from(prompt)).map(id).collect();
    let count = prompt.len() as f64;
    let request = Request { prompt, max_new: tokens, choice: what.choice(), stop: Vec::new() };
    let (mut seconds, mut steps) = (0.0, 0.0);
    loop {
        session.model.reset();
        let stats = block_on(session.model.generate(&request, &mut |_| ControlFlow::Continue(())))?;
        if what == What::Prefill {
            seconds += stats.first_token_s;
            steps += count;
        } else {
            seconds += stats.decode_s;
            steps += f64::from(stats.tokens.saturating_sub(1).max(1));
        }
        if seconds >= sample_s {
            return Ok(seconds / steps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgforge::codegen::{Caps, shapes};

    /// A workload, its default, and a candidate that is another one.
    fn changed(caps: &Caps, wanted: fn(&Workload) -> bool) -> (Workload, Variant, Variant) {
        let workload = shapes::odd().into_iter().find(wanted).expect("one of the odd shapes");
        let before = workload.generic(caps);
        let all = workload.candidates(caps);
        let variant = all.into_iter().find(|v| *v != before).expect("another candidate");
        (workload, before, variant)
    }

    #[test]
    fn groups_that_harm_take_nothing_else_along() {
        let caps = Caps::webgpu_baseline();
        let change = |wanted: fn(&Workload) -> bool| {
            let (workload, _, variant) = changed(&caps, wanted);
            Change { workload, variant }
        };
        let all = [
            change(|w| matches!(w, Workload::DecodeAttention(s) if s.then.is_none())),
            change(|w| matches!(w, Workload::Gemv(s) if s.norm.as_ref().is_some_and(|n| n.y.is_sum()))),
            change(|w| matches!(w, Workload::Norm(_))),
            change(|w| matches!(w, Workload::Gemv(s) if s.norm.is_none())),
        ];
        let families: Vec<(String, Vec<&Change>)> =
            all.iter().map(|c| (family(&c.workload).to_owned(), vec![c])).collect();
        let groups: Vec<Group> =
            families.iter().map(|(name, _)| Group { name: name.clone(), kernels: 1 }).collect();
        // Joined attention helps a little, joined products too, norms harm, products help.
        let parts = [-1.5, -3.0, 12.0, -30.0];
        let measured = confirm_groups(&groups, 9, &mut || false, &mut |used| {
            Ok::<_, ()>(100.0 + used.iter().zip(parts).filter(|(u, _)| **u).map(|(_, p)| p).sum::<f64>())
        });
        let left = left_out(&families, &measured.expect("measures").shares);
        // Joined products need joined norms; these are no group here, so nothing was lost.
        assert_eq!(left, [all[2].workload.clone()]);
    }

    #[test]
    fn winners_saved_by_a_stopped_run_are_compared_with_what_was_before_them() {
        let caps = Caps::webgpu_baseline();
        let (norm, before, winner) = changed(&caps, |w| w.kernel() == "norm");
        let (joined, default, other) = changed(&caps, Workload::is_joined);
        let present = Kernels::generic(&caps).with(&[winner.clone(), other.clone()]);
        assert_eq!(present.choose(joined.clone()).expect("runs"), other);
        let base = base(&present, std::slice::from_ref(&before), std::slice::from_ref(&joined));
        assert_eq!(base.choose(norm).expect("runs"), before);
        assert_eq!(base.choose(joined).expect("runs"), default, "nothing is tuned for what is joined");
    }
}
