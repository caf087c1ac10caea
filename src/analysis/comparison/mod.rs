//! The comparison of candidate and stable: a sequential test that stays valid however often one looks.
//!
//! Pure arithmetic on counts, without names, labels or clocks, so that the judge, `backtest` and the benchmark drive
//! the very same code:
//!
//! ```
//! use serin::analysis::comparison::{Comparison, Rule, Tick};
//!
//! let mut test = Comparison::new(Rule::default());
//! test.seed(&[(2375, 2), (2375, 1), (2375, 5), (2375, 1)]); // stable's pods before the rollout, tick by tick
//! test.tick(Tick { stable: &[(4750, 4), (4750, 5)], candidate: &[(250, 2), (250, 2)] });
//! test.restart(); // every 20 ticks, or at each weight
//! assert!(test.ln_evidence() < test.rule().needed());
//! ```
//!
//! A tick is what happened between two readings, as `(requests, failures)` of each pod. Given the number of failures
//! in a tick, each of them fell to the candidate with the chance `theta`, its share of the requests that were really
//! sent, if both versions are equally good. If the odds of failure are `rho` times stable's, the chance is
//! `rho theta / (1 + theta (rho - 1))`. The likelihood ratio of the two, multiplied over all ticks and averaged over
//! eight values of `rho`, is the evidence `E`; with a candidate that is no worse its mean is at most 1 at any time, so
//! it ever reaches `1/alpha` with a chance of at most `alpha`. A weight enters only by the requests that it brought, and
//! a failure rate that both versions share, however wild, not at all.
//!
//! Around that stand, each in its file: tempering by dispersion, which weakens evidence when stable's own pods
//! differ more than chance allows; a cap, so that no single scrape decides; restarts, so that an hour of health hides
//! no late regression; [`policy`] with its guards and the whole rule of a tick; [`safety`], what promotion needs;
//! [`routing`], whether the requests follow the weight.

mod dispersion;
mod mixture;
pub mod policy;
pub mod reach;
pub mod routing;
pub mod safety;

#[cfg(test)]
mod tests;

use dispersion::Dispersion;
use mixture::{Entry, Start};

pub use mixture::{EVEN, LEAN, RATIOS, combined};

/// Requests, and how many of them failed.
pub type Pod = (u64, u64);

/// What happened between two readings, pod by pod. The order of pods means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick<'a> {
    /// Stable's pods.
    pub stable: &'a [Pod],
    /// The candidate's pods.
    pub candidate: &'a [Pod],
}

/// How the starts of the test share its level. The start of the rollout always has one half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prior {
    /// The `s`-th restart has `1/(2s(s+1))`: for a rollout of unknown length.
    Open,
    /// Each of this many restarts has the same; later ones have none.
    Even(u32),
}

/// The constants of a test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Chance of ever calling a candidate harmful that is no worse than stable.
    pub alpha: f64,
    /// Odds ratio up to which a candidate counts as no worse; 1 or more.
    pub tolerance: f64,
    /// How restarts share the level.
    pub prior: Prior,
    /// How the odds ratios share it: prior weights of [`RATIOS`], together 1.
    pub weights: [f64; 8],
    /// Whether evidence is weakened by how much stable's pods differ among themselves.
    pub is_tempered: bool,
    /// How strongly: 1 is as much as the variance says.
    pub temper: f64,
    /// Whether the best single tick counts for at most a part of the needed evidence.
    pub is_capped: bool,
    /// That part; below 1, so that no single tick decides.
    pub cap: f64,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            alpha: 0.01,
            tolerance: 1.0,
            prior: Prior::Open,
            weights: LEAN,
            is_tempered: true,
            temper: 1.5,
            is_capped: true,
            cap: 0.8,
        }
    }
}

impl Rule {
    /// The test without any correction: one start, no cap, no tempering.
    pub fn plain(alpha: f64) -> Self {
        Self {
            alpha,
            weights: EVEN,
            is_tempered: false,
            is_capped: false,
            ..Self::default()
        }
    }

    /// `ln(1/alpha)`: the evidence that a rollback needs.
    pub fn needed(&self) -> f64 {
        let alpha = if self.alpha.is_finite() {
            self.alpha
        } else {
            0.01
        };
        -alpha.clamp(1e-12, 0.5).ln()
    }

    fn cap(&self) -> f64 {
        if self.is_capped {
            self.cap * self.needed()
        } else {
            f64::INFINITY
        }
    }
}

/// The evidence of one stream of events of one rollout. Equal ticks in equal order give bit-equal evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    rule: Rule,
    dispersion: Dispersion,
    /// The test from the start of the rollout on, then one per restart that is still kept.
    starts: Vec<Start>,
    restarts: u32,
    /// `ln M(2 rho0)` against "no worse at all", for the lower boundary.
    doubled: f64,
    log: Vec<Entry>,
    candidate: Pod,
    stable: Pod,
    ln_evidence: f64,
    highest: f64,
    phi: f64,
    theta: f64,
}

impl Comparison {
    /// A test that has seen nothing.
    pub fn new(rule: Rule) -> Self {
        Self {
            rule,
            dispersion: Dispersion::default(),
            starts: vec![Start::numbered(0)],
            restarts: 0,
            doubled: 0.0,
            log: Vec::new(),
            candidate: (0, 0),
            stable: (0, 0),
            ln_evidence: 0.0,
            highest: 0.0,
            phi: 1.0,
            theta: 0.0,
        }
    }

    /// The constants.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Learns from a tick before the rollout how much stable's pods differ among themselves.
    pub fn seed(&mut self, stable: &[Pod]) {
        if self.rule.is_tempered {
            self.dispersion.observe(stable);
        }
    }

    /// Begins a fresh copy of the test beside the others.
    pub fn restart(&mut self) {
        self.restarts = self.restarts.saturating_add(1);
        self.starts.push(Start::numbered(self.restarts));
        mixture::thin(&mut self.starts);
        self.weigh();
    }

    /// Adds what happened between two readings.
    pub fn tick(&mut self, tick: Tick<'_>) {
        let (candidate, stable) = (total(tick.candidate), total(tick.stable));
        self.candidate = sum(self.candidate, candidate);
        self.stable = sum(self.stable, stable);
        let local = self
            .rule
            .is_tempered
            .then(|| self.dispersion.observe(tick.stable));
        if candidate.0 == 0 || stable.0 == 0 {
            return;
        }
        let (requests, failures) = sum(candidate, stable);
        self.theta = candidate.0 as f64 / requests as f64;
        if failures == 0 {
            return;
        }
        let spread = failures as f64 * self.theta * (1.0 - self.theta);
        let pods = 1.0 / count(tick.candidate) + 1.0 / count(tick.stable);
        let strength = local.map_or(0.0, |local| self.dispersion.strength(local.as_ref()));
        self.phi = 1.0 + self.rule.temper * strength * spread * pods;
        let entry = Entry {
            failed: candidate.1 as f64 / self.phi,
            all: failures as f64 / self.phi,
            theta: self.theta,
        };
        let added = RATIOS.map(|rho| entry.gain(rho, self.rule.tolerance));
        let largest = self.largest(tick, &added);
        for start in &mut self.starts {
            start.add(&added, &largest);
        }
        self.doubled += entry.gain(2.0 * self.rule.tolerance, 1.0);
        mixture::note(&mut self.log, entry);
        self.weigh();
    }

    /// What the cap is about: the whole tick; where at least half of the candidate's requests failed, the most that one
    /// pod adds to it. One scrape never decides; in a disaster those of two pods may, a tick sooner (`study/RESEARCH.md`).
    fn largest(&self, tick: Tick<'_>, added: &[f64; 8]) -> [f64; 8] {
        let (candidate, stable) = (total(tick.candidate), total(tick.stable));
        if candidate.1 < candidate.0.div_ceil(2) {
            return *added;
        }
        let mut largest = [0.0_f64; 8];
        for (n, x) in tick.candidate {
            let (others, failed) = (candidate.0 - n, candidate.1 - x.min(n));
            let rest = Entry {
                failed: failed as f64 / self.phi,
                all: failed.saturating_add(stable.1) as f64 / self.phi,
                theta: others as f64 / others.saturating_add(stable.0).max(1) as f64,
            };
            for ((most, gain), rho) in largest.iter_mut().zip(added).zip(RATIOS) {
                *most = most.max(gain - rest.gain(rho, self.rule.tolerance));
            }
        }
        largest
    }

    fn weigh(&mut self) {
        self.ln_evidence = mixture::weigh(&self.starts, self.restarts, &self.rule);
        self.highest = self.highest.max(self.ln_evidence);
    }

    /// `ln E`, with all corrections: a rollback needs [`Rule::needed`].
    pub fn ln_evidence(&self) -> f64 {
        self.ln_evidence
    }

    /// The chance of evidence as strong as the strongest so far, at any time, if the candidate is no worse.
    pub fn p_value(&self) -> f64 {
        (-self.highest).exp().min(1.0)
    }

    /// `ln M(rho)` for each of [`RATIOS`] since the start of the rollout, tempered but not capped.
    pub fn ln_ratios(&self) -> [f64; 8] {
        self.starts.first().map_or([0.0; 8], |start| start.sums)
    }

    /// The mixture over [`RATIOS`] since the start of the rollout alone: no restarts, no cap.
    pub fn ln_mixture(&self) -> f64 {
        mixture::mean(&self.ln_ratios(), &self.rule)
    }

    /// `ln` of the likelihood of twice the tolerated odds against equal odds: [`safety::BETA`] or less is reassuring.
    pub fn ln_doubled(&self) -> f64 {
        self.doubled
    }

    /// The largest odds ratio that is excluded, at any time, with a chance of error of at most `alpha`; `None` while
    /// even equal odds are not. "The candidate's odds of failure are at least this many times stable's."
    pub fn lower_bound(&self) -> Option<f64> {
        mixture::lower_bound(&self.log, &self.ln_ratios(), &self.rule)
    }

    /// Divisor of the evidence of the last tick that had any: 1 when stable's pods differ as chance has it.
    pub fn phi(&self) -> f64 {
        self.phi
    }

    /// The candidate's share of the requests of the last tick in which both had some.
    pub fn theta(&self) -> f64 {
        self.theta
    }

    /// The candidate's requests and failures since the start of the rollout.
    pub fn candidate(&self) -> Pod {
        self.candidate
    }

    /// Stable's requests and failures since the start of the rollout.
    pub fn stable(&self) -> Pod {
        self.stable
    }
}

fn total(pods: &[Pod]) -> Pod {
    let sound = pods.iter().map(|pod| (pod.0, pod.1.min(pod.0)));
    sound.fold((0, 0), sum)
}

/// Counts of two pods together. What a server says may be absurd, and is added up all the same.
fn sum(a: Pod, b: Pod) -> Pod {
    (a.0.saturating_add(b.0), a.1.saturating_add(b.1))
}

/// Pods that had requests, at least one.
fn count(pods: &[Pod]) -> f64 {
    pods.iter().filter(|pod| pod.0 > 0).count().max(1) as f64
}
