//! The arithmetic of the mixture: gains of one tick, starts with their caps, the weighted whole, the lower bound.

use super::{Prior, Rule};
use crate::analysis::threshold::ln_sum_exp;

/// Odds ratios that the test is prepared for.
pub const RATIOS: [f64; 8] = [1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0];
/// Prior weights of the ratios: the same for each.
pub const EVEN: [f64; 8] = [0.125; 8];
/// The same with more for 2 to 10, which most regressions have (`study/RESEARCH.md`).
pub const LEAN: [f64; 8] = [0.06, 0.18, 0.18, 0.27, 0.16, 0.05, 0.05, 0.05];

/// Starts kept. Beyond that the older half of the restarts is thinned; a start that is dropped counts as 0, which only
/// lowers the evidence. One every 5 min makes 2 hours at full density.
const MAX_STARTS: usize = 24;

/// Ticks with failures that are kept for the lower bound: an hour at 15 s. Then neighbours are merged.
const MAX_LOG: usize = 256;

/// A tick with failures, already tempered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Entry {
    /// The candidate's failures.
    pub(super) failed: f64,
    /// All failures.
    pub(super) all: f64,
    /// The candidate's share of the requests.
    pub(super) theta: f64,
}

impl Entry {
    /// `ln e(rho)` against an odds ratio of `tolerance`.
    pub(super) fn gain(&self, rho: f64, tolerance: f64) -> f64 {
        let spread = |rho: f64| (self.theta * (rho - 1.0)).ln_1p();
        self.failed * (rho / tolerance).ln() - self.all * (spread(rho) - spread(tolerance))
    }
}

/// One copy of the test.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Start {
    number: u32,
    pub(super) sums: [f64; 8],
    best: [f64; 8],
}

impl Start {
    pub(super) fn numbered(number: u32) -> Self {
        Self {
            number,
            sums: [0.0; 8],
            best: [0.0; 8],
        }
    }

    /// Adds a tick; `largest` is the part of its gains that the cap is about.
    pub(super) fn add(&mut self, gains: &[f64; 8], largest: &[f64; 8]) {
        let sums = self.sums.iter_mut().zip(&mut self.best);
        for ((sum, best), (gain, largest)) in sums.zip(gains.iter().zip(largest)) {
            *sum += gain;
            *best = best.max(*largest);
        }
    }

    fn capped(&self, cap: f64) -> [f64; 8] {
        let mut capped = self.sums;
        for (sum, best) in capped.iter_mut().zip(&self.best) {
            *sum -= (best - cap).max(0.0);
        }
        capped
    }
}

/// Keeps the number of starts within its bound: the first and the newer half stay, of the others every second.
pub(super) fn thin(starts: &mut Vec<Start>) {
    if starts.len() <= MAX_STARTS {
        return;
    }
    let mut index = 0;
    starts.retain(|_| {
        index += 1;
        index == 1 || index > MAX_STARTS / 2 || index % 2 == 1
    });
}

/// `ln` of the mean over the ratios above the tolerance. A ratio that is tolerated is no alternative, and would break
/// the guarantee.
pub(super) fn mean(sums: &[f64; 8], rule: &Rule) -> f64 {
    let is_used = |rho: f64| rho > rule.tolerance;
    let used = || {
        let all = RATIOS.iter().zip(&rule.weights).zip(sums);
        all.filter(|((rho, _), _)| is_used(**rho))
    };
    let top = used()
        .map(|(_, sum)| *sum)
        .fold(f64::NEG_INFINITY, f64::max);
    if top.is_infinite() {
        return 0.0;
    }
    let (mut whole, mut mean) = (0.0, 0.0);
    for ((_, weight), sum) in used() {
        whole += weight;
        mean += weight * (sum - top).exp();
    }
    top + (mean / whole).ln()
}

/// `ln E` over all starts; what has not started yet counts as 1.
pub(super) fn weigh(starts: &[Start], restarts: u32, rule: &Rule) -> f64 {
    let cap = rule.cap();
    let share = |number: u32| match (number, rule.prior) {
        (0, _) => 0.5,
        (s, Prior::Open) => 0.5 / (f64::from(s) * (f64::from(s) + 1.0)),
        (s, Prior::Even(all)) if s <= all => 0.5 / f64::from(all),
        (_, Prior::Even(_)) => 0.0,
    };
    let to_come = match rule.prior {
        Prior::Open => 0.5 / (f64::from(restarts) + 1.0),
        Prior::Even(0) => 0.5,
        Prior::Even(all) => 0.5 * f64::from(all.saturating_sub(restarts)) / f64::from(all),
    };
    let mut terms = [f64::NEG_INFINITY; MAX_STARTS + 1];
    if let Some(first) = terms.first_mut() {
        *first = to_come.ln();
    }
    for (term, start) in terms.iter_mut().skip(1).zip(starts) {
        *term = share(start.number).ln() + mean(&start.capped(cap), rule);
    }
    ln_sum_exp(&terms)
}

/// Adds a tick to the log. A full log merges neighbours, which changes later bounds by less than they are written with.
pub(super) fn note(log: &mut Vec<Entry>, entry: Entry) {
    if log.len() >= MAX_LOG {
        let merged = log.chunks(2).filter_map(|pair| {
            let all: f64 = pair.iter().map(|entry| entry.all).sum();
            let theta = pair
                .iter()
                .map(|entry| entry.theta * entry.all)
                .sum::<f64>()
                / all;
            let failed = pair.iter().map(|entry| entry.failed).sum();
            (all > 0.0).then_some(Entry { failed, all, theta })
        });
        *log = merged.collect();
    }
    log.push(entry);
}

/// The largest odds ratio that is excluded with all that are smaller: the test of each, with the alternatives above it,
/// has reached what a rollback needs.
pub(super) fn lower_bound(log: &[Entry], sums: &[f64; 8], rule: &Rule) -> Option<f64> {
    let (tolerance, needed) = (rule.tolerance, rule.needed());
    let is_excluded = |odds: f64| {
        let all = RATIOS.iter().zip(&rule.weights).zip(sums);
        let above = all.filter(|((rho, _), _)| **rho > odds);
        let terms: Vec<f64> = above.map(|((_, weight), sum)| weight.ln() + sum).collect();
        let gained: f64 = log.iter().map(|entry| entry.gain(odds, tolerance)).sum();
        ln_sum_exp(&terms) - gained >= needed
    };
    // What the log adds to the tolerated odds themselves is nothing; that question is asked at every look.
    let above = RATIOS.iter().zip(sums).filter(|(rho, _)| **rho > tolerance);
    let most = above.map(|(_, sum)| *sum).fold(f64::NEG_INFINITY, f64::max);
    if most < needed || !is_excluded(tolerance) {
        return None;
    }
    let (mut low, mut high) = (tolerance, tolerance);
    while is_excluded(high) {
        low = high;
        high *= 1.05;
    }
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if is_excluded(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(low)
}

/// `ln Σ v E` of several streams of one rollout, as `(v, ln E)`; the shares are normalised. One level for all.
pub fn combined(streams: &[(f64, f64)]) -> f64 {
    let whole: f64 = streams.iter().map(|(share, _)| share).sum();
    if whole <= 0.0 {
        return 0.0;
    }
    let terms: Vec<f64> = streams
        .iter()
        .map(|(share, evidence)| (share / whole).ln() + evidence)
        .collect();
    ln_sum_exp(&terms)
}
