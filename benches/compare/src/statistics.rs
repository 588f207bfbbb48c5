//! Medians of ratios, and how far they can be trusted.

use serde::Serialize;

/// A few numbers in one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// In the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Where the true median is with at least 95 % confidence, whatever the distribution; none of fewer than six numbers.
    pub interval: Option<[f64; 2]>,
}

/// Of at least one number.
pub fn summary(numbers: &[f64]) -> Option<Summary> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = match sorted.len() % 2 {
        0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    };
    let interval = tail(sorted.len()).map(|cut| [sorted[cut], sorted[sorted.len() - 1 - cut]]);
    Some(Summary { median, min, max, interval })
}

/// How many numbers may be cut off at both ends of `count` so that the rest spans the median with 95 % confidence. Each
/// number is below the median with probability ½, so those below it are binomially distributed.
fn tail(count: usize) -> Option<usize> {
    let half = 0.5_f64.powi(count as i32);
    let (mut below, mut term) = (0.0, half);
    let mut cut = None;
    for k in 0..count / 2 {
        below += term;
        if 2.0 * below > 0.05 {
            break;
        }
        cut = Some(k);
        term *= (count - k) as f64 / (k + 1) as f64;
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_the_sign_test() {
        // Textbook values: of 6 numbers all, of 11 the second to the tenth, of 20 the sixth to the fifteenth.
        assert_eq!((tail(5), tail(6), tail(11), tail(20)), (None, Some(0), Some(1), Some(5)));
        let numbers: Vec<f64> = (1..=11).rev().map(f64::from).collect();
        let it = summary(&numbers).unwrap();
        assert_eq!((it.min, it.median, it.max, it.interval), (1.0, 6.0, 11.0, Some([2.0, 10.0])));
    }

    #[test]
    fn a_few_numbers_have_a_median_and_no_interval() {
        assert_eq!(summary(&[]), None);
        let it = summary(&[4.0, 1.0]).unwrap();
        assert_eq!((it.min, it.median, it.max, it.interval), (1.0, 2.5, 4.0, None));
    }
}
