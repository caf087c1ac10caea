//! What a rollout can find out: the smallest failing share of a candidate that the test convicts nine times in ten.
//!
//! The judge's own arithmetic on the counts that are to be expected, with the candidate's failures at their lower tenth.
//! Ticks, caps and tempering are left out, so real rollouts are a little slower; `serin plan` simulates them.

use super::mixture::{self, Entry};
use super::policy::{MIN_FAILURES, SHARES};
use super::{RATIOS, Rule};

/// Standard deviations below the mean that nine in ten stay above.
const NINE_IN_TEN: f64 = 1.2816;

/// One step of a ladder: the candidate's share of the requests, 0 to 1, and its seconds.
pub type Step = (f64, f64);

/// The smallest failing share that is found at so many requests a second, where `stable` fails this share of its own.
/// `None`: not even a candidate that fails always.
pub fn detectable(per_second: f64, stable: f64, steps: &[Step], rule: &Rule) -> Option<f64> {
    let is_found = |share: f64| evidence(per_second, stable, share, steps, rule) >= rule.needed();
    if !is_found(1.0) {
        return None;
    }
    let (mut low, mut high) = (stable.clamp(0.0, 1.0), 1.0);
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if is_found(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

/// `ln E` at the end of the steps in the worst of ten rollouts.
fn evidence(per_second: f64, stable: f64, share: f64, steps: &[Step], rule: &Rule) -> f64 {
    let failures: f64 = steps
        .iter()
        .map(|(weight, seconds)| per_second * seconds * weight * share)
        .sum();
    let spread = (failures * (1.0 - share)).max(0.0).sqrt();
    let least = failures - NINE_IN_TEN * spread;
    if least < MIN_FAILURES as f64 {
        return 0.0;
    }
    let mut sums = [0.0; 8];
    for (weight, seconds) in steps {
        let requests = per_second * seconds;
        let failed = requests * weight * share * least / failures;
        let entry = Entry {
            failed,
            all: failed + requests * (1.0 - weight) * stable,
            theta: *weight,
        };
        for (sum, rho) in sums.iter_mut().zip(RATIOS) {
            *sum += entry.gain(rho, rule.tolerance);
        }
    }
    // The first start has half of the level, and failures have their share of what is shared with client errors.
    let own = SHARES.0 / (SHARES.0 + SHARES.2);
    mixture::mean(&sums, rule) + (0.5 * own).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest shares that were found nine times in ten in simulations of 5 x 60 s at 10 to 50 %.
    #[test]
    fn it_agrees_with_simulations() {
        let steps = [0.1, 0.2, 0.3, 0.4, 0.5].map(|weight| (weight, 60.0));
        for (stable, expected) in [
            (0.0001, [12.4, 5.6, 2.3, 1.2, 0.62, 0.29, 0.16]),
            (0.001, [12.5, 6.2, 2.9, 1.6, 1.0, 0.58, 0.39]),
            (0.005, [15.2, 8.4, 4.5, 2.9, 2.0, 1.35, 1.05]),
        ] {
            for (rate, percent) in [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]
                .into_iter()
                .zip(expected)
            {
                let found = detectable(rate, stable, &steps, &Rule::default()).unwrap() * 100.0;
                let ratio = found / percent;
                assert!(
                    (0.65..1.35).contains(&ratio),
                    "{stable} {rate}: {found} {percent}"
                );
            }
        }
        assert_eq!(detectable(0.02, 0.001, &steps, &Rule::default()), None);
        assert_eq!(detectable(0.0, 0.001, &steps, &Rule::default()), None);
        assert_eq!(detectable(50.0, 0.001, &[], &Rule::default()), None);
    }
}
