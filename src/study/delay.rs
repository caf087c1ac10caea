//! How many requests the test needs to see a regression, next to the fewest that any test could need.
//!
//! A test that is wrong with a chance of at most `alpha` and does not know the base rate needs `ln(1/alpha) / I`
//! requests on average (Wald), where `I` is the information of one request about which side it belongs to.

use serde::Serialize;

use super::interval::{self, Mean, number};
use super::random::Random;
use super::tries::{Frame, Try, Variant};
use crate::analysis::comparison::{Comparison, Pod, Rule, Tick, policy};

/// Level of the tests.
const ALPHA: f64 = 0.01;
/// Requests that a run is given up after, in multiples of the bound. None has come near.
const PATIENCE: f64 = 60.0;
/// The load for the test with all safeguards, which looks every 15 s.
const RPS: f64 = 20.0;

/// A regression at a weight.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Jump {
    /// Stable's failing share.
    pub stable: f64,
    /// The candidate's.
    pub candidate: f64,
    /// The candidate's share of the requests.
    pub weight: f64,
}

/// The regressions of the published table.
pub fn jumps() -> Vec<Jump> {
    let mut all = Vec::new();
    for (stable, candidate) in [(0.001, 0.01), (0.01, 0.02), (0.01, 0.05)] {
        for weight in [0.05, 0.1, 0.5] {
            all.push(Jump {
                stable,
                candidate,
                weight,
            });
        }
    }
    all
}

/// What was needed for a regression.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Delay {
    /// The regression.
    pub jump: Jump,
    /// What was changed in the judge, if anything.
    pub what: Option<Try>,
    /// The fewest requests of both sides that any test needs on average.
    pub bound: f64,
    /// Requests of the test alone, looking after each percent of the bound.
    pub bare: Mean,
    /// The same, 90th percentile.
    pub bare_p90: f64,
    /// Requests with cap, restarts and tempering, looking every 15 s at 20 requests a second.
    pub guarded: Mean,
    /// Runs of which one or the other never ended.
    pub unfinished: u64,
}

impl Delay {
    /// How many times the bound the test alone needs.
    pub fn bare_ratio(&self) -> f64 {
        self.bare.value / self.bound
    }

    /// How many times the bound the whole rule needs.
    pub fn guarded_ratio(&self) -> f64 {
        self.guarded.value / self.bound
    }
}

/// `ln(1/alpha)` divided by the information of one request.
pub fn bound(jump: &Jump) -> f64 {
    let Jump {
        stable,
        candidate,
        weight,
    } = *jump;
    let middle = weight * candidate + (1.0 - weight) * stable;
    let divergence =
        |p: f64| p * (p / middle).ln() + (1.0 - p) * ((-p).ln_1p() - (-middle).ln_1p());
    let information = weight * divergence(candidate) + (1.0 - weight) * divergence(stable);
    -ALPHA.ln() / information
}

/// The judge's test, or one with something changed.
enum Probe {
    Judge(Box<Comparison>),
    Changed(Box<Variant>),
}

impl Probe {
    fn new(rule: Rule, what: Option<Try>) -> Self {
        match what {
            None => Self::Judge(Box::new(Comparison::new(rule))),
            Some(what) => {
                let frame = Frame {
                    needed: rule.needed(),
                    is_guarded: rule.is_capped,
                };
                Self::Changed(Box::new(Variant::new(what, frame)))
            }
        }
    }

    fn seed(&mut self, stable: &[Pod]) {
        match self {
            Self::Judge(test) => test.seed(stable),
            Self::Changed(test) => test.seed(stable),
        }
    }

    /// Adds a tick; the evidence after it.
    fn tick(&mut self, tick: Tick<'_>) -> f64 {
        match self {
            Self::Judge(test) => {
                test.tick(tick);
                if test.rule().is_capped {
                    test.ln_evidence()
                } else {
                    // The bare test has no restarts to share its level with.
                    test.ln_mixture()
                }
            }
            Self::Changed(test) => {
                test.tick(tick);
                test.ln_evidence()
            }
        }
    }
}

/// Measures a regression in so many runs.
pub fn measure(jump: &Jump, what: Option<Try>, runs: u64, seed: u64) -> Delay {
    let bound = bound(jump);
    let patience = bound * PATIENCE;
    let of = |rule: Rule, a_tick: f64, pods: (u64, u64), stream: u64| -> Vec<Option<f64>> {
        let weight = (jump.weight * 1e3) as u64;
        let candidate = (jump.candidate * 1e5) as u64;
        (0..runs)
            .map(|run| {
                let mut random = Random::new(seed, &[stream, weight, candidate, run]);
                let setting = Setting { a_tick, pods, what };
                requests_needed(jump, rule, &setting, &mut random, patience)
            })
            .collect()
    };
    let plain = Rule {
        alpha: ALPHA,
        is_tempered: false,
        is_capped: false,
        ..Rule::default()
    };
    let bare = of(plain, (bound / 100.0).max(10.0), (1, 1), 1);
    let rule = Rule {
        alpha: ALPHA,
        ..Rule::default()
    };
    let guarded = of(rule, RPS * 15.0, (4, 2), 2);
    let unfinished = bare.iter().chain(&guarded).filter(|run| run.is_none());
    let finished = |runs: &[Option<f64>]| -> Vec<f64> {
        runs.iter().map(|run| run.unwrap_or(patience)).collect()
    };
    let mut sorted = finished(&bare);
    sorted.sort_by(f64::total_cmp);
    Delay {
        jump: *jump,
        what,
        bound,
        bare: Mean::of(&sorted),
        bare_p90: interval::quantile(&sorted, 0.9),
        guarded: Mean::of(&finished(&guarded)),
        unfinished: unfinished.count() as u64,
    }
}

/// How a run is made.
struct Setting {
    /// Requests of both sides between two looks.
    a_tick: f64,
    /// Pods of stable and of the candidate.
    pods: (u64, u64),
    what: Option<Try>,
}

/// Requests of both sides until the evidence is enough.
fn requests_needed(
    jump: &Jump,
    rule: Rule,
    setting: &Setting,
    random: &mut Random,
    most: f64,
) -> Option<f64> {
    let Setting { a_tick, pods, what } = *setting;
    let mut test = Probe::new(rule, what);
    let mut draw = |mean: f64, share: f64, pods: u64| -> Vec<Pod> {
        (0..pods)
            .map(|_| {
                let n = random.poisson(mean / pods as f64);
                (n, random.binomial(n, share))
            })
            .collect()
    };
    if rule.is_tempered {
        for _ in 0..40 {
            test.seed(&draw(a_tick, jump.stable, pods.0));
        }
    }
    // The guard of three failures belongs to the whole rule, not to the bare test.
    let least = if rule.is_capped {
        policy::MIN_FAILURES
    } else {
        0
    };
    let (mut sent, mut failures) = (0.0, 0);
    while sent < most {
        let stable = draw(a_tick * (1.0 - jump.weight), jump.stable, pods.0);
        let candidate = draw(a_tick * jump.weight, jump.candidate, pods.1);
        let all = stable.iter().chain(&candidate);
        sent += all.map(|(n, _)| *n as f64).sum::<f64>();
        failures += candidate.iter().map(|(_, x)| x).sum::<u64>();
        let evidence = test.tick(Tick {
            stable: &stable,
            candidate: &candidate,
        });
        if evidence >= rule.needed() && failures >= least {
            return Some(sent);
        }
    }
    None
}

/// `0.1 -> 1% at 10%`.
pub fn name(jump: &Jump) -> String {
    format!(
        "{} -> {}% at {}%",
        number(jump.stable * 100.0),
        number(jump.candidate * 100.0),
        number(jump.weight * 100.0)
    )
}

#[cfg(test)]
mod tests {
    use super::super::random::ln_factorial;
    use super::*;

    #[test]
    fn the_bound_is_the_published_one() {
        let published = [7495, 4238, 2145, 25129, 13448, 5341, 2457, 1350, 615];
        for (jump, expected) in jumps().iter().zip(published) {
            let found = bound(jump);
            let off = (found / f64::from(expected) - 1.0).abs();
            assert!(off < 2e-3, "{}: {found}", name(jump));
        }
    }

    #[test]
    fn no_test_beats_the_bound_and_ours_is_near() {
        let jump = Jump {
            stable: 0.01,
            candidate: 0.05,
            weight: 0.5,
        };
        let delay = measure(&jump, None, 150, 1);
        assert_eq!(delay.unfinished, 0);
        assert!((1.0..1.7).contains(&delay.bare_ratio()), "{delay:?}");
        assert!(delay.guarded_ratio() > delay.bare_ratio());
        assert!(delay.guarded_ratio() < 3.0, "{delay:?}");
    }

    /// Chance of fewer than `needed` of the events of which there are `mean` on average.
    fn fewer(needed: u64, mean: f64) -> f64 {
        let ln = |k: u64| k as f64 * mean.ln() - mean - ln_factorial(k as f64);
        (0..needed).map(|k| ln(k).exp()).sum()
    }

    const STABLE: f64 = 0.001;
    const FAILING: f64 = 0.2;

    /// How long the scrapes of two pods reach together within two ticks, each to any time in the last 15 of 30 s: seconds
    /// with their chances, a triangle.
    fn covered() -> impl Iterator<Item = (f64, f64)> {
        let parts = 200;
        (0..parts).map(move |part| {
            let seconds = 30.0 + 30.0 * (f64::from(part) + 0.5) / f64::from(parts);
            let density = (seconds - 30.0_f64).min(60.0 - seconds) / 225.0;
            (seconds, density * 30.0 / f64::from(parts))
        })
    }

    /// Everything that a candidate with one request a second and pod can show in two ticks: `ln` of its likelihood ratio,
    /// its chance if the candidate is as good as stable, its chance if it fails.
    fn outcomes() -> Vec<(f64, f64, f64)> {
        let mut all = Vec::new();
        for n in 0..120 {
            let chance: f64 = covered()
                .map(|(mean, weight)| weight * (fewer(n + 1, mean) - fewer(n, mean)))
                .sum();
            for x in 0..=n {
                let (failed, good) = (x as f64, (n - x) as f64);
                let ways = ln_factorial(n as f64) - ln_factorial(failed) - ln_factorial(good);
                let of = |p: f64| chance * (ways + failed * p.ln() + good * (-p).ln_1p()).exp();
                let ratio = failed * (FAILING / STABLE).ln()
                    + good * ((-FAILING).ln_1p() - (-STABLE).ln_1p());
                all.push((ratio, of(STABLE), of(FAILING)));
            }
        }
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        all
    }

    /// The best test of one look at this level (Neyman and Pearson): the most telling outcomes first.
    fn at_one_look(level: f64) -> f64 {
        let (mut spent, mut caught) = (0.0, 0.0);
        for (_, healthy, bad) in outcomes() {
            let part = ((level - spent) / healthy).clamp(0.0, 1.0);
            spent += part * healthy;
            caught += part * bad;
        }
        caught
    }

    /// The best test that may look at any time: the likelihood ratio reaches `1/alpha`.
    fn at_any_look() -> f64 {
        let enough = outcomes()
            .into_iter()
            .filter(|(ratio, ..)| *ratio >= -ALPHA.ln());
        enough.map(|(_, _, bad)| bad).sum()
    }

    /// The same without knowing stable's share, only by how much the odds differ.
    fn beside_stable() -> f64 {
        let odds: f64 = (FAILING / (1.0 - FAILING)) / (STABLE / (1.0 - STABLE));
        let mut caught = 0.0;
        for (requests, weight) in covered() {
            // All of stable's half minute is seen. Its failures make each of the candidate's count for less.
            let of_stable = 30.0 * 18.0;
            let theta = requests / (requests + of_stable);
            let loss = (theta * (odds - 1.0)).ln_1p();
            for failures in 0..10 {
                let mean = of_stable * STABLE;
                let chance = fewer(failures + 1, mean) - fewer(failures, mean);
                let enough = (failures as f64 * loss - ALPHA.ln()) / (odds.ln() - loss);
                let enough = (enough.ceil() as u64).max(policy::MIN_FAILURES);
                caught += weight * chance * (1.0 - fewer(enough, FAILING * requests));
            }
        }
        caught
    }

    /// How far any test can get within two ticks at 20 requests a second and 10 % (`RESEARCH.md`).
    #[test]
    fn what_two_ticks_hold_at_20_requests_a_second() {
        // Failures have 0.6 of the level, the start of the rollout half of that.
        let all = [
            at_one_look(ALPHA),
            at_one_look(0.3 * ALPHA),
            at_any_look(),
            beside_stable(),
        ];
        let words = all.map(|share| format!("{:.2}%", share * 100.0));
        insta::assert_snapshot!(words.join(", "), @"99.94%, 99.88%, 99.19%, 98.32%");
    }
}
