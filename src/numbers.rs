//! Sums and draws that several subcommands need.

/// The square root of the mean square, in f64.
pub(crate) fn rms(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0u64), |(sum, n), v| (sum + v * v, n + 1));
    if n == 0 { 0.0 } else { (sum / n as f64).sqrt() }
}

/// `rms(a - b)`.
pub(crate) fn rms_difference(a: &[f32], b: &[f32]) -> f64 {
    rms(a.iter().zip(b).map(|(x, y)| f64::from(*x) - f64::from(*y)))
}

/// `rms(a - b) / rms(b)`.
pub(crate) fn rms_ratio(a: &[f32], b: &[f32]) -> f64 {
    let difference = rms_difference(a, b);
    // Equal rows of zeros differ by nothing.
    if difference == 0.0 { 0.0 } else { difference / rms(b.iter().map(|v| f64::from(*v))) }
}

/// How far logits lie from others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogitDistance {
    /// Mean Kullback-Leibler divergence of the first from the second, nats.
    pub(crate) kl_mean: f64,
    /// Largest absolute difference.
    pub(crate) max_abs: f64,
    /// Root of the mean square difference.
    pub(crate) rms: f64,
    /// Share of rows with the same most likely token.
    pub(crate) top1: f64,
}

/// Compares `got` with `wanted`, rows of `vocab` logits.
pub(crate) fn logit_distance(got: &[f32], wanted: &[f32], vocab: usize) -> LogitDistance {
    let rows = wanted.len() / vocab.max(1);
    let (mut kl, mut same) = (0.0, 0usize);
    for (q, p) in got.chunks(vocab).zip(wanted.chunks(vocab)) {
        let (norm_p, norm_q) = (log_sum_exp(p), log_sum_exp(q));
        kl += p
            .iter()
            .zip(q)
            .map(|(p, q)| (f64::from(*p) - norm_p, f64::from(*q) - norm_q))
            .map(|(p, q)| p.exp() * (p - q))
            .sum::<f64>();
        same += usize::from(top(p) == top(q));
    }
    let worst = got.iter().zip(wanted).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    LogitDistance {
        kl_mean: kl / rows.max(1) as f64,
        // NaN must not vanish in a maximum.
        max_abs: worst.fold(0.0, |m: f64, v| if v.is_nan() || v > m { v } else { m }),
        rms: rms_difference(got, wanted),
        top1: same as f64 / rows.max(1) as f64,
    }
}

fn log_sum_exp(row: &[f32]) -> f64 {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|v| (f64::from(*v) - f64::from(most)).exp()).sum();
    f64::from(most) + sum.ln()
}

fn top(row: &[f32]) -> Option<usize> {
    (0..row.len()).reduce(|best, i| if row[i] > row[best] { i } else { best })
}

/// Smallest, middle and largest of some measurements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |i: usize| values.get(i).copied().unwrap_or(0.0);
        let last = values.len().saturating_sub(1);
        Self { min: at(0), median: f64::midpoint(at(last / 2), at(values.len() / 2)), max: at(last) }
    }
}

/// Splitmix64: the n-th number for a seed.
pub(crate) fn random(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_are_at_no_distance() {
        let d = logit_distance(&[1.0, 2.0, 3.0, 0.0], &[1.0, 2.0, 3.0, 0.0], 2);
        assert!(d.kl_mean.abs() < 1e-12 && d.max_abs == 0.0 && d.rms == 0.0, "{d:?}");
        assert_eq!(d.top1, 1.0, "the same tokens");
    }

    #[test]
    fn divergence_of_two_coins_is_the_textbooks() {
        // p = (3/4, 1/4) against q = (1/2, 1/2).
        let d = logit_distance(&[0.0, 0.0], &[3.0f32.ln(), 0.0], 2);
        let wanted = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        assert!((d.kl_mean - wanted).abs() < 1e-6, "{} is not {wanted}", d.kl_mean);
    }

    #[test]
    fn a_nan_is_the_largest_difference() {
        assert!(logit_distance(&[f32::NAN, 0.0], &[0.0, 0.0], 2).max_abs.is_nan(), "NaN stays");
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let s = Spread::of(vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!((s.min, s.median, s.max), (1.0, 2.5, 4.0), "spread");
    }
}
