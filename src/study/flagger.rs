//! Flagger's rule, written from its documentation and its measured behaviour.
//!
//! The tutorial: weights 10 to 50 by 10, one look each 60 s, the built-in `request-success-rate` (at least 99 %) and,
//! where a scenario has slow answers, `request-duration` (p99 at most 500 ms), both over 1 min. A bad look, and an
//! answer without a value, raise a counter that is never lowered; when it has reached the threshold, the *next* tick
//! rolls back before it looks.

use super::promql::{self, Point};
use super::rule::{Judge, Move};
use super::scenario::Ms;
use super::traffic::{Counters, Pod, Side, World};
use crate::analysis::flagger::{Strikes, passes};

/// Time between two looks, and the window of the queries.
pub const INTERVAL: Ms = 60_000;
/// Weights go up by this, in per cent.
const STEP: u32 = 10;
/// The last weight that is analysed.
const MAX_WEIGHT: u32 = 50;
/// Lowest success rate, in per cent.
pub const MIN_SUCCESS: f64 = 99.0;
/// Highest share of slow answers: the built-in metric asks for the 99th percentile.
const MAX_SLOW: f64 = 0.01;

/// Flagger in one rollout.
#[derive(Debug)]
pub struct Flagger {
    strikes: Strikes,
    weight: u32,
}

impl Flagger {
    /// With this many bad looks allowed before it rolls back.
    pub fn new(threshold: u32) -> Self {
        Self {
            strikes: Strikes::new(threshold),
            weight: 0,
        }
    }

    fn raise(&mut self) -> Move {
        self.weight += STEP;
        Move::Route(f64::from(self.weight) / 100.0)
    }
}

impl Judge for Flagger {
    fn next_look(&self, now: Ms) -> Ms {
        now + INTERVAL
    }

    fn look(&mut self, world: &World) -> Move {
        if self.strikes.is_out() {
            return Move::RollBack;
        }
        // Without traffic there is nothing to check: the first tick only routes.
        if self.weight == 0 {
            return self.raise();
        }
        let now = world.now();
        let reachable = world.is_reachable(now);
        let mut success = reachable.then(|| success_rate(world, now)).flatten();
        if world.scenario().slow.is_some() && slow_share(world, now).is_none_or(|s| s > MAX_SLOW) {
            success = None;
        }
        let passed = passes(success, Some(MIN_SUCCESS), None);
        self.strikes.note(passed);
        if !passed {
            return Move::Stay;
        }
        if self.weight >= MAX_WEIGHT {
            return Move::Promote;
        }
        self.raise()
    }
}

/// `sum(rate(not 5xx)) / sum(rate(all)) * 100` over one minute of the candidate's pods; `None` when that has no value.
pub(super) fn success_rate(world: &World, now: Ms) -> Option<f64> {
    let candidates = || {
        world
            .pods()
            .iter()
            .filter(|pod| pod.side == Side::Candidate)
    };
    let ok = sum_of_rates(candidates(), now, |seen| seen.ok);
    let failed = sum_of_rates(candidates(), now, |seen| seen.failed);
    share(ok, failed).map(|share| share * 100.0)
}

/// `good / (good + bad)` as PromQL divides two sums: no value where the first has none, or the second is zero.
pub fn share(good: Option<f64>, bad: Option<f64>) -> Option<f64> {
    let good = good?;
    let all = good + bad.unwrap_or_default();
    (all > 0.0).then(|| good / all)
}

/// Whether p99 is above the limit is whether more than 1 % of the requests are outside of its bucket.
fn slow_share(world: &World, now: Ms) -> Option<f64> {
    let candidates = || {
        world
            .pods()
            .iter()
            .filter(|pod| pod.side == Side::Candidate)
    };
    let fast = sum_of_rates(candidates(), now, |seen| seen.ok - seen.slow)?;
    let all = sum_of_rates(candidates(), now, |seen| seen.ok)?;
    (all > 0.0).then(|| 1.0 - fast / all)
}

/// `sum(rate(series[1m]))`; `None` when no series has two samples.
fn sum_of_rates<'a>(
    pods: impl Iterator<Item = &'a Pod>,
    now: Ms,
    series: fn(&Counters) -> u64,
) -> Option<f64> {
    let rates = pods.filter_map(|pod| {
        let points: Vec<Point> = pod.window(now, INTERVAL, series);
        promql::rate(&points, now, INTERVAL)
    });
    rates.reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(threshold: u32, looks: &[Option<f64>]) -> (usize, bool) {
        let mut strikes = Strikes::new(threshold);
        for (index, look) in looks.iter().enumerate() {
            if strikes.is_out() {
                return (index, true);
            }
            strikes.note(passes(*look, Some(MIN_SUCCESS), None));
        }
        (looks.len(), strikes.is_out())
    }

    #[test]
    fn it_rolls_back_at_the_tick_after_the_last_strike() {
        let bad = Some(98.9);
        assert_eq!(outcome(1, &[bad, Some(100.0)]), (1, true));
        assert_eq!(outcome(1, &[Some(99.0), bad, bad]), (2, true));
        // Five bad looks at 60 to 300 s, rolled back at 360 s; good ones in between lower nothing.
        let good = Some(100.0);
        assert_eq!(
            outcome(5, &[bad, good, bad, bad, good, bad, bad, good]),
            (7, true)
        );
        assert_eq!(outcome(5, &[bad; 4]), (4, false));
    }

    #[test]
    fn no_value_is_a_strike() {
        assert_eq!(outcome(1, &[None, None]), (1, true));
        assert_eq!(share(None, Some(1.0)), None);
        assert_eq!(share(Some(0.0), None), None);
        assert_eq!(share(Some(3.0), Some(1.0)), Some(0.75));
    }
}
