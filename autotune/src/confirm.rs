//! Whether kernels that won alone also make the whole program faster. Knows no model: what runs
//! one is given as a closure.

use crate::stats::{interval, median};

/// Kernels that are taken or left together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What to call it: `decode products`, `attention`, …
    pub name: String,
    /// How many kernels changed.
    pub kernels: usize,
}

/// What one group contributes.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// Its name.
    pub name: String,
    /// How much slower the whole is without it: the median of paired ratios less 1.
    pub slower_without: f64,
    /// Interval of that.
    pub interval: (f64, f64),
    /// Whether it stays.
    pub kept: bool,
}

/// The outcome for the whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Confirmed {
    /// Median time with nothing tuned, in the unit of the measure.
    pub before: f64,
    /// Time with the groups that stay: `before` less the median gain of pairs measured together.
    pub after: f64,
    /// Each group's part.
    pub shares: Vec<Share>,
    /// Rounds measured.
    pub rounds: usize,
}

/// Rounds that make a median worth something.
const LEAST: usize = 3;

/// A gain below this is none, however sure: the next driver moves more.
pub const WORTH: f64 = 0.003;

/// Measures all groups together, none, and all but each, in interleaved rounds; groups without
/// which nothing gets slower (the interval of the paired ratios reaches down to none) do not stay, unless
/// none shows by itself and all together do: then those stay whose median is a gain.
/// `measure` gets which groups to use and returns a time, smaller being better. At most `rounds`
/// rounds, fewer (at least three) once `over` says so. Where a group harms, the others are measured
/// again without it: what it costs would hide what they gain. What is left over at the end is
/// measured against none again, and loses everything if it is not faster.
///
/// # Errors
/// What `measure` reports.
pub fn confirm<E>(
    groups: &[Group],
    rounds: usize,
    over: &mut dyn FnMut() -> bool,
    measure: &mut dyn FnMut(&[bool]) -> Result<f64, E>,
) -> Result<Confirmed, E> {
    let n = groups.len();
    let all = vec![true; n];
    let none = vec![false; n];
    let without = |i: usize| -> Vec<bool> { (0..n).map(|j| j != i).collect() };
    // The first run makes pipelines.
    measure(&none)?;
    measure(&all)?;
    // Of one group, leaving it out is having none.
    let lists = if n == 1 { 2 } else { 2 + n };
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); lists];
    let mut done = 0;
    while done < rounds.max(LEAST) && (done < LEAST || !over()) {
        // Each round begins elsewhere: whoever is always first would have the coldest clocks.
        for k in 0..lists {
            let which = (k + done) % lists;
            let time = match which {
                0 => measure(&all)?,
                1 => measure(&none)?,
                i => measure(&without(i - 2))?,
            };
            times[which].push(time);
        }
        done += 1;
    }
    let (with, bare) = (&times[0], &times[1]);
    let mut shares: Vec<Share> = groups
        .iter()
        .enumerate()
        .map(|(i, group)| {
            let lacking = if n == 1 { bare } else { &times[2 + i] };
            let r = ratios(lacking, with);
            let interval = interval(&r).unwrap_or_default();
            let slower_without = median(&r).unwrap_or(0.0);
            let kept = interval.0 > 0.0 && slower_without >= WORTH;
            Share { name: group.name.clone(), slower_without, interval, kept }
        })
        .collect();
    let harmless: Vec<usize> = (0..n).filter(|i| shares[*i].interval.1 >= 0.0).collect();
    if !harmless.is_empty() && harmless.len() < n && !over() {
        let left: Vec<Group> = harmless.iter().map(|i| groups[*i].clone()).collect();
        let again = confirm(&left, rounds, over, &mut |used| {
            let mut among_all = vec![false; n];
            harmless.iter().zip(used).for_each(|(i, used)| among_all[*i] = *used);
            measure(&among_all)
        })?;
        harmless.iter().zip(again.shares).for_each(|(i, share)| shares[*i] = share);
        return Ok(Confirmed { shares, rounds: done + again.rounds, ..again });
    }
    let mut before = bare.clone();
    let mut gain = ratios(bare, with);
    // Parts too small to be told from noise may show together.
    let together = interval(&gain).unwrap_or_default();
    if shares.iter().all(|s| !s.kept) && together.0 > 0.0 && median(&gain).is_some_and(|g| g >= WORTH) {
        shares.iter_mut().for_each(|s| s.kept = s.slower_without > 0.0);
    }
    let kept: Vec<bool> = shares.iter().map(|s| s.kept).collect();
    if !kept.contains(&true) {
        gain.clear();
    } else if kept != all {
        gain.clear();
        for _ in 0..done {
            let (rest, again) = (measure(&kept)?, measure(&none)?);
            gain.push(again / rest - 1.0);
            before.push(again);
        }
        // What helps beside the others may not help alone.
        if median(&gain).is_some_and(|g| g < 0.0) {
            shares.iter_mut().for_each(|s| s.kept = false);
            gain.clear();
        }
    }
    // Paired ratios, so that a drift of clocks cancels.
    let before = median(&before).unwrap_or(0.0);
    let after = before / (1.0 + median(&gain).unwrap_or(0.0));
    Ok(Confirmed { before, after, shares, rounds: done })
}

/// How much longer each of `slow` took than its partner.
pub fn ratios(slow: &[f64], fast: &[f64]) -> Vec<f64> {
    slow.iter().zip(fast).map(|(s, f)| s / f - 1.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgforge_codegen::check::Rng;

    fn groups(names: &[&str]) -> Vec<Group> {
        names.iter().map(|name| Group { name: (*name).into(), kernels: 1 }).collect()
    }

    /// A program of 100 µs, to which each group adds its part when it is used; 1 % noise.
    fn program(parts: &[f64]) -> impl FnMut(&[bool]) -> Result<f64, String> {
        let (parts, mut rng) = (parts.to_vec(), Rng::new(4));
        move |used| {
            let gain: f64 = used.iter().zip(&parts).filter(|(u, _)| **u).map(|(_, p)| p).sum();
            Ok((100.0 + gain) * (1.0 + 0.005 * f64::from(rng.unit())))
        }
    }

    #[test]
    fn groups_that_help_stay_and_those_that_do_not_go() {
        let names = groups(&["products", "attention", "norms"]);
        let result = confirm(&names, 9, &mut || false, &mut program(&[-20.0, 6.0, 0.0])).expect("measures");
        let kept: Vec<bool> = result.shares.iter().map(|s| s.kept).collect();
        assert_eq!(kept, [true, false, false], "{result:?}");
        assert!((result.before - 100.0).abs() < 2.0 && (result.after - 80.0).abs() < 2.0, "{result:?}");
        assert!(result.shares[0].slower_without > 0.15, "{result:?}");
        assert_eq!(result.rounds, 18, "nobody stopped it, and again without attention");
    }

    #[test]
    fn what_harms_does_not_hide_what_helps() {
        let names = groups(&["products", "joined attention"]);
        // Beside what takes ten times as long, the gain is less than the noise.
        let mut rng = Rng::new(4);
        let mut measure = |used: &[bool]| {
            let time = if used[0] { 95.0 } else { 100.0 } + if used[1] { 1000.0 } else { 0.0 };
            Ok::<_, String>(time * (1.0 + 0.01 * f64::from(rng.unit())))
        };
        let result = confirm(&names, 9, &mut || false, &mut measure).expect("measures");
        let kept: Vec<bool> = result.shares.iter().map(|s| s.kept).collect();
        assert_eq!(kept, [true, false], "{result:?}");
    }

    #[test]
    fn small_parts_show_together_or_not_at_all() {
        // Beside 8 % of noise few parts of 1 % show by themselves; six of them do.
        let mut kept = [0, 0];
        for (part, kept) in [-1.0, 0.0].into_iter().zip(&mut kept) {
            for seed in 0..20 {
                let mut rng = Rng::new(seed);
                let mut measure = |used: &[bool]| {
                    let gain = part * used.iter().filter(|u| **u).count() as f64;
                    Ok::<_, String>((100.0 + gain) * (1.0 + 0.04 * f64::from(rng.unit())))
                };
                let names = groups(&["a", "b", "c", "d", "e", "f"]);
                let result = confirm(&names, 9, &mut || false, &mut measure).expect("measures");
                *kept += result.shares.iter().filter(|s| s.kept).count();
            }
        }
        assert!(kept[0] >= 40 && kept[1] * 4 <= kept[0], "{kept:?} of 120 stay, with and without a gain");
    }

    #[test]
    fn a_deadline_leaves_three_rounds() {
        let mut calls = 0;
        let result = confirm(&groups(&["a"]), 50, &mut || true, &mut |used| {
            calls += 1;
            Ok::<_, String>(if used[0] { 1.0 } else { 2.0 })
        })
        .expect("measures");
        assert_eq!((result.rounds, calls), (3, 8), "two to warm up, two a round");
        assert!(result.shares[0].kept && result.after == 1.0, "{result:?}");
    }

    #[test]
    fn failures_come_through() {
        let result = confirm(&groups(&["a"]), 3, &mut || false, &mut |_| Err::<f64, _>("lost"));
        assert_eq!(result, Err("lost"));
    }
}
