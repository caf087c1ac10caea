//! Argo Rollouts' rules, written from its documentation: the example that users copy, and one tuned like Flagger.
//!
//! The example: 20, 40, 60, 80 % with pauses of 10 min, background analysis from the second step on, one measurement
//! at its start and each 5 min, `irate` over 5 min, at least 95 %, more than 3 failed measurements abort. A measurement
//! that yields NaN has failed; one without a result is an error, and more than 4 errors in a row abort.

use super::promql;
use super::rule::{Judge, Move};
use super::scenario::Ms;
use super::traffic::{Counters, Side, World};

/// Errors in a row that an analysis survives.
const CONSECUTIVE_ERRORS: u32 = 4;

/// What a measurement gave.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Measured {
    Value(f64),
    NotANumber,
    Nothing,
}

/// The constants of a rule.
#[derive(Debug, Clone, Copy)]
struct Plan {
    weights: &'static [f64],
    pause: Ms,
    /// When the first measurement is made.
    first: Ms,
    interval: Ms,
    window: Ms,
    is_instant: bool,
    min: f64,
    failures: u32,
    whole_service: bool,
}

/// Argo Rollouts in one rollout.
#[derive(Debug)]
pub struct Argo {
    plan: Plan,
    step: usize,
    next_pause: Ms,
    next_measurement: Ms,
    failed: u32,
    errors: u32,
}

impl Argo {
    /// The documentation's example, on the whole service or on the candidate alone.
    pub fn docs(whole_service: bool) -> Self {
        Self::new(Plan {
            weights: &[0.2, 0.4, 0.6, 0.8],
            pause: 600_000,
            first: 600_000,
            interval: 300_000,
            window: 300_000,
            is_instant: true,
            min: 0.95,
            failures: 3,
            whole_service,
        })
    }

    /// Flagger's weights and times, on the candidate alone, aborting at the first failure.
    pub fn tuned() -> Self {
        Self::new(Plan {
            weights: &[0.1, 0.2, 0.3, 0.4, 0.5],
            pause: 60_000,
            first: 60_000,
            interval: 60_000,
            window: 60_000,
            is_instant: false,
            min: 0.99,
            failures: 0,
            whole_service: false,
        })
    }

    fn new(plan: Plan) -> Self {
        Self {
            plan,
            step: 0,
            next_pause: 0,
            next_measurement: plan.first,
            failed: 0,
            errors: 0,
        }
    }

    fn measure(&self, world: &World) -> Measured {
        if !world.is_reachable(world.now()) {
            return Measured::Nothing;
        }
        let good = self.sum(world, |seen| seen.ok);
        let bad = self.sum(world, |seen| seen.failed);
        let all = match (good, bad) {
            (None, None) => None,
            (good, bad) => Some(good.unwrap_or_default() + bad.unwrap_or_default()),
        };
        match (good, all) {
            (Some(_), Some(0.0)) => Measured::NotANumber,
            (Some(good), Some(all)) => Measured::Value(good / all),
            _ => Measured::Nothing,
        }
    }

    fn sum(&self, world: &World, series: fn(&Counters) -> u64) -> Option<f64> {
        let now = world.now();
        world
            .pods()
            .iter()
            .filter(|pod| self.plan.whole_service || pod.side == Side::Candidate)
            .filter_map(|pod| {
                let points = pod.window(now, self.plan.window, series);
                if self.plan.is_instant {
                    promql::irate(&points)
                } else {
                    promql::rate(&points, now, self.plan.window)
                }
            })
            .reduce(|a, b| a + b)
    }

    /// Whether the analysis aborts the rollout.
    fn note(&mut self, measured: Measured) -> bool {
        match measured {
            Measured::Nothing => self.errors += 1,
            Measured::Value(rate) if rate >= self.plan.min => self.errors = 0,
            Measured::Value(_) | Measured::NotANumber => {
                self.errors = 0;
                self.failed += 1;
            }
        }
        self.failed > self.plan.failures || self.errors > CONSECUTIVE_ERRORS
    }
}

impl Judge for Argo {
    fn next_look(&self, _now: Ms) -> Ms {
        self.next_pause.min(self.next_measurement)
    }

    fn look(&mut self, world: &World) -> Move {
        let now = world.now();
        if now >= self.next_measurement {
            self.next_measurement += self.plan.interval;
            let measured = self.measure(world);
            if self.note(measured) {
                return Move::RollBack;
            }
        }
        if now < self.next_pause {
            return Move::Stay;
        }
        let Some(weight) = self.plan.weights.get(self.step) else {
            return Move::Promote;
        };
        self.step += 1;
        self.next_pause = now + self.plan.pause;
        Move::Route(*weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aborts(mut argo: Argo, measured: &[Measured]) -> Option<usize> {
        measured.iter().position(|one| argo.note(*one))
    }

    #[test]
    fn failures_and_errors_are_counted_apart() {
        let bad = Measured::Value(0.94);
        let good = Measured::Value(0.95);
        assert_eq!(aborts(Argo::docs(true), &[bad; 6]), Some(3));
        assert_eq!(
            aborts(Argo::docs(true), &[bad, good, bad, bad, good, bad]),
            Some(5)
        );
        assert_eq!(
            aborts(Argo::docs(true), &[Measured::NotANumber; 6]),
            Some(3)
        );
        assert_eq!(aborts(Argo::docs(true), &[Measured::Nothing; 6]), Some(4));
        let interrupted = [
            Measured::Nothing,
            Measured::Nothing,
            good,
            Measured::Nothing,
        ];
        assert_eq!(aborts(Argo::docs(true), &interrupted), None);
        assert_eq!(aborts(Argo::tuned(), &[Measured::Value(0.989)]), Some(0));
    }
}
