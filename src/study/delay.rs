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
}
