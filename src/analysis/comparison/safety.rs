//! What promotion needs: not that nothing bad was seen, but that something bad would have been.

use super::Comparison;
use crate::analysis::threshold::ln_sum_exp;

/// Chance, at most, of calling a candidate safe that is at the limit, or has twice stable's odds.
pub const BETA: f64 = 0.05;

/// Failing shares that a healthy candidate may have, as parts of the limit.
const PARTS: [f64; 6] = [0.02, 0.05, 0.1, 0.2, 0.35, 0.5];

/// Why a candidate is safe to promote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safe {
    /// It fails less often than the limit allows.
    Absolute,
    /// It does not have twice the odds of failure that stable has.
    Relative,
}

/// `ln` of the evidence against "the failing share is `limit` or more"; `ln(1/BETA)`, 2.9957, is enough.
pub fn ln_within(requests: u64, failures: u64, limit: f64) -> f64 {
    if !(limit > 0.0 && limit < 1.0) {
        // Nothing is below a limit of none; everything is below a limit of all.
        return if limit >= 1.0 { f64::INFINITY } else { 0.0 };
    }
    let failures = failures.min(requests);
    let (x, good) = (failures as f64, (requests - failures) as f64);
    let at_limit = (-limit).ln_1p();
    let terms = PARTS.map(|part| x * part.ln() + good * ((-part * limit).ln_1p() - at_limit));
    ln_sum_exp(&terms) - (PARTS.len() as f64).ln()
}

/// Whether a candidate may be promoted; `limit` is the highest acceptable failing share, if there is one.
pub fn safe(test: &Comparison, limit: Option<f64>) -> Option<Safe> {
    let (requests, failures) = test.candidate();
    let needed = -BETA.ln();
    if limit.is_some_and(|limit| ln_within(requests, failures, limit) >= needed) {
        return Some(Safe::Absolute);
    }
    (test.ln_doubled() <= -needed).then_some(Safe::Relative)
}

/// Requests without a further failure until a candidate with these counts is safe by the absolute measure.
pub fn requests_missing(requests: u64, failures: u64, limit: f64) -> u64 {
    let needed = -BETA.ln();
    let is_enough = |more: u64| ln_within(requests.saturating_add(more), failures, limit) >= needed;
    let mut high = 1_u64;
    while !is_enough(high) {
        if high > 1 << 40 {
            return high;
        }
        high *= 2;
    }
    let mut low = if is_enough(0) { return 0 } else { high / 2 };
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if is_enough(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}
