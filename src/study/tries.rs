//! Tries to do better than the judge: each a change of one thing, measured by the same benchmark. See `RESEARCH.md`.
//!
//! [`Variant`] is written apart from the judge. Without a change it gives the same evidence, which a test checks; so
//! what a try differs by is what was changed. Nothing here decides in production.

use serde::Serialize;

use super::random::ln_factorial;
use crate::analysis::comparison::{Pod, RATIOS, Tick};

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Try {
    /// Nothing: the judge, written anew.
    Same,
    /// The best tick of all is capped, whatever fails in it.
    TickCap,
    /// A tick may count for half of the needed evidence, instead of four fifths.
    Cap50,
    /// What stable's pods differ by weakens evidence by as much as its variance says, instead of half as much more.
    Temper100,
    /// The same weight on each ratio.
    EvenPrior,
    /// All three: the rule as it was published.
    AsPublished,
    /// A little less weight on an odds ratio of 5, a little more on the others: what the second round adopted.
    SecondPrior,
    /// Four ratios instead of eight: 2, 5, 20, 100.
    FewRatios,
    /// Sixteen ratios, closer together.
    ManyRatios,
    /// Half of the wealth bets on the ratio that the ticks before showed.
    PlugIn,
    /// Wealth beyond the threshold is worth nothing, so it is spent before: no overshoot. For the bare test.
    NoOvershoot,
    /// The best scrape of one pod is capped, not the best tick of all: two pods can convict in one tick.
    ScrapeCap,
    /// With fewer than three stable pods a tick counts against the candidate only when stable's neighbouring ticks
    /// show no jump. In place of the cap.
    Confirm,
    /// The same with any number of pods.
    ConfirmAll,
    /// A fifth of the level bets against stable's failing share of before the rollout, while stable keeps to it.
    History,
    /// Safe to promote is what does not have three times stable's odds, instead of twice.
    SafeThree,
    /// No tempering: what the plain mathematics would do.
    Untempered,
    /// No cap.
    Uncapped,
}

impl Try {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Same,
        Self::TickCap,
        Self::Cap50,
        Self::Temper100,
        Self::EvenPrior,
        Self::AsPublished,
        Self::SecondPrior,
        Self::FewRatios,
        Self::ManyRatios,
        Self::PlugIn,
        Self::NoOvershoot,
        Self::ScrapeCap,
        Self::Confirm,
        Self::ConfirmAll,
        Self::History,
        Self::SafeThree,
        Self::Untempered,
        Self::Uncapped,
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::TickCap => "tick-cap",
            Self::Cap50 => "cap-50",
            Self::Temper100 => "temper-100",
            Self::EvenPrior => "even-prior",
            Self::AsPublished => "as-published",
            Self::SecondPrior => "second-prior",
            Self::FewRatios => "few-ratios",
            Self::ManyRatios => "many-ratios",
            Self::PlugIn => "plug-in",
            Self::NoOvershoot => "no-overshoot",
            Self::ScrapeCap => "scrape-cap",
            Self::Confirm => "confirm",
            Self::ConfirmAll => "confirm-all",
            Self::History => "history",
            Self::SafeThree => "safe-three",
            Self::Untempered => "untempered",
            Self::Uncapped => "uncapped",
        }
    }

    /// The ratios that are bet on, and how the wealth is divided between them.
    fn ratios(self) -> Vec<(f64, f64)> {
        let even = |ratios: &[f64]| {
            let share = 1.0 / ratios.len() as f64;
            ratios.iter().map(|ratio| (*ratio, share)).collect()
        };
        let weighted = |weights: [f64; 8]| RATIOS.into_iter().zip(weights).collect();
        match self {
            Self::FewRatios => even(&[2.0, 5.0, 20.0, 100.0]),
            Self::ManyRatios => even(&[
                1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 14.0, 20.0, 32.0, 50.0, 70.0,
                100.0,
            ]),
            Self::EvenPrior | Self::AsPublished => even(&RATIOS),
            Self::SecondPrior => weighted([0.08, 0.17, 0.2, 0.2, 0.15, 0.08, 0.06, 0.06]),
            _ => weighted([0.06, 0.18, 0.18, 0.27, 0.16, 0.05, 0.05, 0.05]),
        }
    }
}

impl Try {
    /// The part of the needed evidence that one tick may count for.
    fn cap(self) -> f64 {
        match self {
            Self::Cap50 | Self::AsPublished => 0.5,
            Self::Uncapped => f64::INFINITY,
            _ => 0.8,
        }
    }

    /// How strongly what stable's pods differ by weakens evidence.
    fn temper(self) -> f64 {
        match self {
            Self::Temper100 | Self::AsPublished => 1.0,
            _ => 1.5,
        }
    }
}

/// Level, corrections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// `ln(1/alpha)`.
    pub needed: f64,
    /// Whether cap and tempering apply: not in the bare test.
    pub is_guarded: bool,
}

/// One copy of the test: a wealth for each ratio, and the best single gain of each.
#[derive(Debug, Clone)]
struct Start {
    number: u32,
    sums: Vec<f64>,
    best: Vec<f64>,
}

/// A tick whose gain waits for the next.
#[derive(Debug, Clone)]
struct Pending {
    gains: Vec<f64>,
    is_clean: bool,
}

/// The test with one thing changed.
#[derive(Debug, Clone)]
pub struct Variant {
    what: Try,
    frame: Frame,
    ratios: Vec<(f64, f64)>,
    starts: Vec<Start>,
    restarts: u32,
    dispersion: [f64; 3],
    /// The differences between two ticks, the largest first.
    bursts: Vec<[f64; 3]>,
    before: Option<Pod>,
    history: Pod,
    candidate: Pod,
    stable: Pod,
    pending: Option<Pending>,
    /// `ln` of the wealth that bets on the ratio seen so far.
    plugged: f64,
    /// `ln` of the factor that is gained by not overshooting.
    spent: f64,
    ln_tripled: f64,
}

impl Variant {
    /// A test that has seen nothing.
    pub fn new(what: Try, frame: Frame) -> Self {
        let ratios = what.ratios();
        let mut variant = Self {
            what,
            frame,
            ratios,
            starts: Vec::new(),
            restarts: 0,
            dispersion: [0.0; 3],
            bursts: Vec::new(),
            before: None,
            history: (0, 0),
            candidate: (0, 0),
            stable: (0, 0),
            pending: None,
            plugged: 0.0,
            spent: 0.0,
            ln_tripled: 0.0,
        };
        variant.start(0);
        variant
    }

    fn start(&mut self, number: u32) {
        self.starts.push(Start {
            number,
            sums: vec![0.0; self.ratios.len()],
            best: vec![0.0; self.ratios.len()],
        });
    }

    /// Begins a fresh copy beside the others.
    pub fn restart(&mut self) {
        self.restarts += 1;
        self.start(self.restarts);
    }

    /// Learns from a tick before the rollout.
    pub fn seed(&mut self, stable: &[Pod]) {
        let whole = total(stable);
        self.history = (self.history.0 + whole.0, self.history.1 + whole.1);
        self.observe(stable);
    }

    /// How much stable's pods differ: adds the tick, returns chi squared, degrees of freedom and the mean of a pod.
    fn observe(&mut self, stable: &[Pod]) -> Option<[f64; 3]> {
        let live = stable.iter().filter(|pod| pod.0 > 0).count();
        let whole = total(stable);
        let before = self.before.replace(whole);
        let found = if live >= 3 {
            chi_squared(stable, 1.0)
        } else {
            chi_squared(&[before?, whole], live.max(1) as f64)
        }?;
        let [chi, freedom, mean] = found;
        if live < 3 {
            let larger = self.bursts.partition_point(|burst| burst[0] >= chi);
            self.bursts.insert(larger, [chi, freedom, freedom * mean]);
        }
        let sums = &mut self.dispersion;
        *sums = [sums[0] + chi, sums[1] + freedom, sums[2] + freedom * mean];
        Some(found)
    }

    /// The divisor of a tick's gain.
    fn phi(&self, found: Option<[f64; 3]>, spread: f64) -> f64 {
        if !self.frame.is_guarded || self.what == Try::Untempered {
            return 1.0;
        }
        let [chi, freedom, weight] = self
            .bursts
            .iter()
            .take(2)
            .fold(self.dispersion, |all, one| {
                [all[0] - one[0], all[1] - one[1], all[2] - one[2]]
            });
        let mut strength = 0.0;
        if weight > 1e-9 * self.dispersion[2] {
            strength = (chi - freedom - 1.28 * (2.0 * freedom).sqrt()).max(0.0) / weight;
        }
        if let Some([chi, freedom, mean]) = found
            && chi > freedom + 4.0 * (2.0 * freedom).sqrt()
        {
            strength = strength.max((chi / freedom - 1.0) / mean);
        }
        1.0 + self.what.temper() * strength * spread
    }

    /// Adds what happened between two readings.
    pub fn tick(&mut self, tick: Tick<'_>) {
        let (candidate, stable) = (total(tick.candidate), total(tick.stable));
        let jumped = self.before.is_some_and(|before| {
            chi_squared(&[before, stable], 1.0)
                .is_some_and(|[chi, ..]| chi > 1.0 + 4.0 * 2_f64.sqrt())
        });
        self.settle(!jumped);
        let found = self.observe(tick.stable);
        let failures = candidate.1 + stable.1;
        let (known, known_stable) = (self.candidate, self.stable);
        self.candidate = (known.0 + candidate.0, known.1 + candidate.1);
        self.stable = (known_stable.0 + stable.0, known_stable.1 + stable.1);
        if candidate.0 == 0 || stable.0 == 0 || failures == 0 {
            return;
        }
        let theta = candidate.0 as f64 / (candidate.0 + stable.0) as f64;
        let pods = 1.0 / live(tick.candidate) + 1.0 / live(tick.stable);
        let phi = self.phi(found, failures as f64 * theta * (1.0 - theta) * pods);
        let gain = |rho: f64| gain(candidate.1, failures, theta, rho) / phi;
        self.ln_tripled += gain(3.0);
        if self.what == Try::PlugIn {
            let odds = |pod: Pod| (pod.1 as f64 + 0.5) / (pod.0 as f64 + 50.0);
            self.plugged += gain((odds(known) / odds(known_stable)).clamp(1.2, 100.0));
        }
        if self.what == Try::NoOvershoot {
            self.spend(candidate, stable);
        }
        let gains: Vec<f64> = self.ratios.iter().map(|(rho, _)| gain(*rho)).collect();
        let confirms = match self.what {
            Try::Confirm => live(tick.stable) < 3.0,
            Try::ConfirmAll => true,
            _ => false,
        };
        if confirms && self.frame.is_guarded {
            self.pending = Some(Pending {
                gains,
                is_clean: !jumped,
            });
            return;
        }
        let largest = self.largest(&tick, candidate, failures, phi, &gains);
        self.add(&gains, &largest);
    }

    fn add(&mut self, gains: &[f64], largest: &[f64]) {
        for start in &mut self.starts {
            let sums = start.sums.iter_mut().zip(&mut start.best);
            for ((sum, best), (gain, largest)) in sums.zip(gains.iter().zip(largest)) {
                *sum += gain;
                *best = best.max(*largest);
            }
        }
    }

    /// What the tick before gained, now that stable's next tick is known: never more than it was.
    fn settle(&mut self, is_clean: bool) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        let gains: Vec<f64> = if pending.is_clean && is_clean {
            pending.gains
        } else {
            pending.gains.iter().map(|gain| gain.min(0.0)).collect()
        };
        let none = vec![0.0; gains.len()];
        self.add(&gains, &none);
    }

    /// The largest part of a tick's gains that is capped: all of it, or that of one pod's scrape.
    fn largest(
        &self,
        tick: &Tick<'_>,
        candidate: Pod,
        failures: u64,
        phi: f64,
        gains: &[f64],
    ) -> Vec<f64> {
        let by_scrape = match self.what {
            Try::ScrapeCap => true,
            Try::TickCap => false,
            _ => 2 * candidate.1 >= candidate.0,
        };
        if !by_scrape {
            return gains.to_vec();
        }
        let all = candidate.0 + total(tick.stable).0;
        let without = |pod: &Pod, rho: f64| {
            let (n, x) = (candidate.0 - pod.0, candidate.1 - pod.1);
            let theta = n as f64 / (all - pod.0).max(1) as f64;
            gain(x, failures - pod.1, theta, rho) / phi
        };
        self.ratios
            .iter()
            .zip(gains)
            .map(|((rho, _), gain)| {
                let parts = tick.candidate.iter().map(|pod| gain - without(pod, *rho));
                parts.fold(0.0, f64::max)
            })
            .collect()
    }

    /// The factor by which the wealth may grow because what exceeds the threshold is cut off: the mean over all
    /// divisions of this tick's failures that were possible stays what it was.
    fn spend(&mut self, candidate: Pod, stable: Pod) {
        let failures = candidate.1 + stable.1;
        if failures > 200 {
            return;
        }
        let wealth = self.wealth();
        let theta = candidate.0 as f64 / (candidate.0 + stable.0) as f64;
        let outcomes: Vec<(f64, f64)> = (0..=failures.min(candidate.0))
            .filter(|x| failures - x <= stable.0)
            .map(|x| {
                let chance = ln_choose(candidate.0, x) + ln_choose(stable.0, failures - x)
                    - ln_choose(candidate.0 + stable.0, failures);
                let terms = self
                    .ratios
                    .iter()
                    .zip(self.starts.iter().flat_map(|s| &s.sums));
                let after: Vec<f64> = terms
                    .map(|((rho, share), sum)| share.ln() + sum + gain(x, failures, theta, *rho))
                    .collect();
                (chance.exp(), sum_of_exp(&after) + self.spent)
            })
            .collect();
        let mean = |extra: f64| -> f64 {
            outcomes
                .iter()
                .map(|(chance, after)| chance * (after + extra).min(self.frame.needed).exp())
                .sum()
        };
        let (mut low, mut high) = (0.0, 2.0);
        for _ in 0..25 {
            let middle = 0.5 * (low + high);
            if mean(middle) <= wealth.exp() {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.spent += low;
    }

    /// `ln` of the wealth of the first start, without cap.
    fn wealth(&self) -> f64 {
        let terms = self
            .ratios
            .iter()
            .zip(self.starts.iter().flat_map(|s| &s.sums));
        let terms: Vec<f64> = terms.map(|((_, share), sum)| share.ln() + sum).collect();
        sum_of_exp(&terms) + self.spent
    }

    /// `ln E`.
    pub fn ln_evidence(&self) -> f64 {
        if !self.frame.is_guarded {
            let wealth = self.wealth();
            return match self.what {
                Try::PlugIn => sum_of_exp(&[wealth, self.plugged]) - 2_f64.ln(),
                _ => wealth,
            };
        }
        let cap = self.what.cap() * self.frame.needed;
        let mut terms = vec![(0.5 / (f64::from(self.restarts) + 1.0)).ln()];
        for start in &self.starts {
            let number = f64::from(start.number);
            let share = if start.number == 0 {
                0.5
            } else {
                0.5 / (number * (number + 1.0))
            };
            let capped = start.sums.iter().zip(&start.best);
            let parts: Vec<f64> = self
                .ratios
                .iter()
                .zip(capped)
                .map(|((_, weight), (sum, best))| weight.ln() + sum - (best - cap).max(0.0))
                .collect();
            terms.push(share.ln() + sum_of_exp(&parts));
        }
        let whole = sum_of_exp(&terms);
        match self.what {
            Try::PlugIn => sum_of_exp(&[whole, self.plugged.min(self.frame.needed)]) - 2_f64.ln(),
            Try::History => {
                sum_of_exp(&[0.8_f64.ln() + whole, 0.2_f64.ln() + self.against_history()])
            }
            _ => whole,
        }
    }

    /// Evidence that the candidate fails more often than stable did before the rollout; none once stable does too.
    fn against_history(&self) -> f64 {
        let (n, x) = (self.history.0 as f64, self.history.1 as f64);
        if n < 100.0 {
            return 0.0;
        }
        // Three standard deviations above what was seen, and half as much again for the drift of a day.
        let base = (1.5 * (x + 3.0 * x.sqrt() + 3.0) / n).min(0.5);
        let now = self.stable.1 as f64 / (self.stable.0 as f64).max(1.0);
        if now > base {
            return 0.0;
        }
        crate::analysis::ln_evidence(self.candidate.0, self.candidate.1, base)
    }

    /// `ln M(3)`: whether three times stable's odds are excluded.
    pub fn ln_tripled(&self) -> f64 {
        self.ln_tripled
    }

    /// What is changed.
    pub fn what(&self) -> Try {
        self.what
    }
}

fn gain(failed: u64, all: u64, theta: f64, rho: f64) -> f64 {
    failed as f64 * rho.ln() - all as f64 * (theta * (rho - 1.0)).ln_1p()
}

fn chi_squared(cells: &[Pod], pods_a_cell: f64) -> Option<[f64; 3]> {
    let (n, x) = total(cells);
    if x == 0 || x == n {
        return None;
    }
    let share = x as f64 / n as f64;
    let used: Vec<&Pod> = cells.iter().filter(|cell| cell.0 > 0).collect();
    if used.len() < 2 {
        return None;
    }
    let chi = used
        .iter()
        .map(|(n, x)| {
            let expected = *n as f64 * share;
            (*x as f64 - expected).powi(2) / (expected * (1.0 - share))
        })
        .sum();
    let cells = used.len() as f64;
    Some([chi, cells - 1.0, x as f64 / cells / pods_a_cell])
}

fn total(pods: &[Pod]) -> Pod {
    pods.iter()
        .fold((0, 0), |sum, pod| (sum.0 + pod.0, sum.1 + pod.1))
}

fn live(pods: &[Pod]) -> f64 {
    pods.iter().filter(|pod| pod.0 > 0).count().max(1) as f64
}

fn ln_choose(n: u64, k: u64) -> f64 {
    let [n, k] = [n, k].map(|count| count as f64);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

fn sum_of_exp(terms: &[f64]) -> f64 {
    let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top.is_infinite() {
        return top;
    }
    top + terms
        .iter()
        .map(|term| (term - top).exp())
        .sum::<f64>()
        .ln()
}

#[cfg(test)]
mod tests;
