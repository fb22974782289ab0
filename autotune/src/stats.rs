//! What a handful of noisy times says: the median, its spread, and an interval for it.

use wgforge_codegen::check::Rng;

/// Resamples of the bootstrap: enough for two digits of a 95 % interval.
const RESAMPLES: usize = 200;

/// What samples say together. In the unit of the samples; here always microseconds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// The middle sample.
    pub median: f64,
    /// Median absolute deviation from the median.
    pub mad: f64,
    /// The smallest sample.
    pub min: f64,
    /// Lower end of the 95 % bootstrap interval of the median.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Samples.
    pub count: usize,
}

/// The median of a list; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    Some(f64::midpoint(sorted[last / 2], sorted[sorted.len() / 2]))
}

/// Median absolute deviation from the median.
pub fn mad(values: &[f64]) -> Option<f64> {
    let middle = median(values)?;
    median(&values.iter().map(|v| (v - middle).abs()).collect::<Vec<_>>())
}

/// The 95 % interval of the median by the percentile bootstrap. Of fewer than four samples there
/// is nothing to draw from: the interval is then all of them. Equal samples give equal intervals.
pub fn interval(values: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (first, last) = (*sorted.first()?, *sorted.last()?);
    if sorted.len() < 4 {
        return Some((first, last));
    }
    let n = u32::try_from(sorted.len()).unwrap_or(u32::MAX);
    let mut rng = Rng::new(0x57a7);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            let drawn: Vec<f64> = (0..n).map(|_| sorted[rng.below(n) as usize]).collect();
            median(&drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    Some((medians[RESAMPLES / 40], medians[RESAMPLES - 1 - RESAMPLES / 40]))
}

/// All of it; `None` of nothing.
pub fn summary(values: &[f64]) -> Option<Summary> {
    let (low, high) = interval(values)?;
    Some(Summary {
        median: median(values)?,
        mad: mad(values)?,
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        low,
        high,
        count: values.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(mad(&[1.0, 2.0, 3.0, 100.0, 2.0]), Some(1.0), "one outlier does not count");
    }

    #[test]
    fn the_interval_holds_the_median_and_narrows_with_samples() {
        let draw = |n: u64| -> Vec<f64> {
            let mut rng = Rng::new(9);
            (0..n).map(|_| 10.0 + f64::from(rng.unit())).collect()
        };
        let (few, many) = (draw(6), draw(200));
        for values in [&few, &many] {
            let s = summary(values).expect("samples");
            assert!(s.low <= s.median && s.median <= s.high && s.min <= s.low, "{s:?}");
        }
        let width = |v: &[f64]| interval(v).map(|(a, b)| b - a).expect("samples");
        assert!(width(&many) < width(&few) / 2.0, "{} and {}", width(&few), width(&many));
        assert_eq!(interval(&few), interval(&few), "the same samples, the same interval");
        assert_eq!(interval(&[2.0, 1.0, 3.0]), Some((1.0, 3.0)), "three samples are their own interval");
    }

    #[test]
    fn a_single_outlier_does_not_move_the_interval_far() {
        let mut values = vec![5.0; 19];
        values.push(500.0);
        let s = summary(&values).expect("samples");
        assert_eq!((s.median, s.low, s.high), (5.0, 5.0, 5.0), "{s:?}");
    }
}
