//! What a rollout can be expected to do before it is begun: how long a healthy one takes, which regression is caught
//! when and how surely. By simulation through the same judge, with confidence intervals.

use serde::Serialize;

use super::bench::in_parallel;
use super::chart::{Curve, LinePlot};
use super::interval::{self, Mean, Share, number};
use super::random::Random;
use super::rollout::{self, End, Record};
use super::scenario::Scenario;
use super::serin::{Ladder, Serin, Setup};
use super::traffic::World;

/// What is planned.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Ladder, limit, level.
    pub setup: Setup,
    /// Requests a second, both sides together.
    pub rps: f64,
    /// Share of stable's requests that fail.
    pub stable: f64,
    /// Shares of the candidate's requests that fail, one plan each; stable's own is added.
    pub candidates: Vec<f64>,
    /// Rollouts for each.
    pub rollouts: u64,
    /// Where all randomness comes from.
    pub seed: u64,
    /// Threads to use.
    pub threads: usize,
}

/// What is to be expected of a candidate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outlook {
    /// Share of its requests that fail.
    pub candidate: f64,
    /// Whether it is worse than stable.
    pub is_worse: bool,
    /// Rolled back.
    pub rolled_back: Share,
    /// Promoted.
    pub promoted: Share,
    /// Left to a person.
    pub inconclusive: Share,
    /// Seconds until the end, median and 90th percentile; of those rolled back when it is worse.
    pub median_seconds: f64,
    /// The slower tenth.
    pub p90_seconds: f64,
    /// Bad answers that it is to blame for.
    pub excess: Mean,
    /// Seconds after which so many were rolled back: the curve of the plot.
    pub caught_by: Vec<(f64, Share)>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Requests a second.
    pub rps: f64,
    /// Share of stable's requests that fail.
    pub stable: f64,
    /// Highest acceptable share, if there is one.
    pub limit: Option<f64>,
    /// Weights in per cent with their least time in seconds.
    pub ladder: Vec<(u8, u64)>,
    /// Rollouts simulated for each candidate.
    pub rollouts: u64,
    /// Where all randomness came from.
    pub seed: u64,
    /// A candidate as good as stable.
    pub healthy: Outlook,
    /// Worse ones, the best first.
    pub worse: Vec<Outlook>,
    /// The smallest of the given shares that is caught at least nine times in ten.
    pub detects: Option<f64>,
}

/// Regressions that are looked at when nobody names any: multiples of stable's share and of the limit, and disasters.
pub fn usual_candidates(stable: f64, limit: f64) -> Vec<f64> {
    let mut all = vec![
        2.0 * stable,
        5.0 * stable,
        1.5 * limit,
        2.0 * limit,
        5.0 * limit,
        0.2,
        1.0,
    ];
    all.retain(|share| *share > stable * 1.2 && *share <= 1.0);
    all.sort_by(f64::total_cmp);
    // Neighbours closer than a fifth say the same.
    all.dedup_by(|after, before| *after < *before * 1.2);
    all
}

/// Simulates.
pub fn plan(question: &Question) -> Plan {
    let limit = question.setup.policy.limit;
    let mut shares = question.candidates.clone();
    shares.retain(|share| *share > question.stable);
    shares.sort_by(f64::total_cmp);
    shares.dedup();
    let all: Vec<f64> = std::iter::once(question.stable).chain(shares).collect();
    let mut outlooks = in_parallel(question.threads, &all, |share| outlook(question, *share));
    let healthy = outlooks.remove(0);
    let detects = outlooks
        .iter()
        .find(|outlook| outlook.rolled_back.value() >= 0.9)
        .map(|outlook| outlook.candidate);
    Plan {
        rps: question.rps,
        stable: question.stable,
        limit,
        ladder: question
            .setup
            .ladder
            .steps
            .iter()
            .map(|(weight, hold)| (*weight, hold.as_secs()))
            .collect(),
        rollouts: question.rollouts,
        seed: question.seed,
        healthy,
        worse: outlooks,
        detects,
    }
}

fn outlook(question: &Question, candidate: f64) -> Outlook {
    let limit = question.setup.policy.limit.unwrap_or(1.0);
    let scenario = Scenario::of_shares("planned", question.stable, candidate, limit);
    let records: Vec<Record> = (0..question.rollouts)
        .map(|number| {
            let random = Random::new(question.seed, &[candidate.to_bits(), number]);
            let mut world = World::new(&scenario, question.rps, random);
            let mut judge = Serin::with(&world, question.setup.clone());
            rollout::drive(&mut world, &mut judge)
        })
        .collect();
    let is_worse = candidate > question.stable;
    let share = |end: End| {
        let count = records.iter().filter(|record| record.end == end).count();
        Share::new(count as u64, records.len() as u64)
    };
    let seconds = |wanted: &dyn Fn(&Record) -> bool| {
        let chosen = records.iter().filter(|record| wanted(record));
        let mut seconds: Vec<f64> = chosen.map(|record| record.at as f64 / 1000.0).collect();
        seconds.sort_by(f64::total_cmp);
        seconds
    };
    let caught = seconds(&|record| record.end == End::RolledBack);
    let ends = if is_worse && !caught.is_empty() {
        caught.clone()
    } else {
        seconds(&|_| true)
    };
    let excess: Vec<f64> = records.iter().map(|record| record.excess).collect();
    let last = seconds(&|_| true).last().copied().unwrap_or_default();
    Outlook {
        candidate,
        is_worse,
        rolled_back: share(End::RolledBack),
        promoted: share(End::Promoted),
        inconclusive: share(End::Inconclusive),
        median_seconds: interval::quantile(&ends, 0.5),
        p90_seconds: interval::quantile(&ends, 0.9),
        excess: Mean::of(&excess),
        caught_by: curve(&caught, last, records.len() as u64),
    }
}

/// How many were caught by each time, at most forty points.
fn curve(caught: &[f64], last: f64, of: u64) -> Vec<(f64, Share)> {
    let step = (last / 40.0 / 15.0).ceil().max(1.0) * 15.0;
    let mut at = 0.0;
    let mut points = Vec::new();
    while at < last + step {
        let count = caught.iter().filter(|second| **second <= at).count();
        points.push((at, Share::new(count as u64, of)));
        at += step;
    }
    points
}

impl Plan {
    /// Rolled back by when, a curve for each candidate that is worse.
    pub fn plot(&self) -> LinePlot {
        let letters = ['1', '2', '3', '4', '5', '6', '7', '8', '9'];
        let longest = |outlook: &&Outlook| outlook.p90_seconds;
        let horizon = self.worse.iter().map(|o| longest(&o)).fold(60.0, f64::max) * 1.5;
        let curves = self.worse.iter().zip(letters).map(|(outlook, letter)| {
            let shown = || outlook.caught_by.iter().filter(|(at, _)| *at <= horizon);
            Curve {
                name: format!("{}% fail", number(outlook.candidate * 100.0)),
                points: shown()
                    .map(|(at, share)| (*at, share.value() * 100.0))
                    .collect(),
                band: shown()
                    .map(|(_, share)| (share.low * 100.0, share.high * 100.0))
                    .collect(),
                letter,
            }
        });
        LinePlot {
            title: format!(
                "Rolled back by then, of {} simulated rollouts at {} requests/s where {}% fail on stable",
                self.rollouts,
                number(self.rps),
                number(self.stable * 100.0)
            ),
            across: "seconds".to_owned(),
            up: "rolled back, %".to_owned(),
            curves: curves.collect(),
            level: None,
            moments: Vec::new(),
            range: (0.0, 100.0),
        }
    }
}

impl Ladder {
    /// Without the steps that send nobody to the candidate: nothing can be learned there.
    pub fn with_traffic(steps: impl IntoIterator<Item = (u8, std::time::Duration)>) -> Self {
        Self {
            steps: steps
                .into_iter()
                .filter(|(weight, _)| *weight > 0)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn question() -> Question {
        Question {
            setup: Setup::default(),
            rps: 50.0,
            stable: 0.001,
            candidates: vec![0.05, 0.01, 0.0005],
            rollouts: 60,
            seed: 1,
            threads: 2,
        }
    }

    #[test]
    fn healthy_rollouts_pass_and_worse_ones_are_caught() {
        let plan = plan(&question());
        assert!(plan.healthy.rolled_back.count <= 2, "{:?}", plan.healthy);
        assert_eq!(
            plan.worse.len(),
            2,
            "what is better than stable is no regression"
        );
        let [mild, strong] = &plan.worse[..] else {
            panic!()
        };
        assert_eq!(mild.candidate, 0.01);
        assert!(strong.rolled_back.value() > 0.95, "{strong:?}");
        assert!(strong.median_seconds <= mild.median_seconds);
        let last = strong.caught_by.last().unwrap().1;
        assert_eq!(last.count, strong.rolled_back.count);
        assert!(plan.detects.is_some());
    }

    #[test]
    fn longer_steps_take_longer() {
        let mut slow = question();
        slow.candidates.clear();
        slow.setup.ladder = Ladder::with_traffic([
            (0, Duration::from_secs(600)),
            (10, Duration::from_secs(300)),
            (50, Duration::from_secs(600)),
        ]);
        slow.rollouts = 10;
        let plan = plan(&slow);
        assert_eq!(plan.ladder, [(10, 300), (50, 600)]);
        assert!(plan.healthy.median_seconds >= 900.0, "{plan:?}");
        assert!(plan.worse.is_empty() && plan.detects.is_none());
        assert!(!plan.plot().lines(40, 8).is_empty());
    }

    #[test]
    fn the_usual_regressions() {
        let shown: Vec<String> = usual_candidates(0.001, 0.01)
            .iter()
            .map(|share| number(share * 100.0))
            .collect();
        assert_eq!(shown, ["0.2", "0.5", "1.5", "2", "5", "20", "100"]);
        assert!(usual_candidates(0.0, 0.01).iter().all(|share| *share > 0.0));
    }
}
