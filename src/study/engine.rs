//! The engine itself in the benchmark's worlds: what the rules here stand for has to decide as production does.

use std::time::Duration;

use chrono::{DateTime, TimeDelta};

use super::flagger;
use super::random::Random;
use super::rollout::{self, Record, name_of};
use super::rule::{Judge, Move, Rule};
use super::scenario::{self, Cell, Ms};
use super::traffic::{Side, World};
use crate::analysis::{
    self, Answer, Labels, Ledger, Purpose, Query, Series, Target, Verdict, Window, absorb, judge,
    plan,
};
use crate::domain::{CanaryId, Timestamp};
use crate::spec::{
    self, Analysis, Counting, Metric, MetricSource, OnFailure, OnInconclusive, Reporter,
};

const HOLD: Ms = 60_000;
const LAST_STEP: Ms = 1_200_000;

/// `plan`, `absorb` and `judge` with a world in place of Prometheus, and a ladder of 10 to 50 % in place of Git.
struct Engine {
    target: Target,
    ledger: Ledger,
    step: Option<(usize, Ms)>,
    every: Ms,
}

fn time(ms: Ms) -> Timestamp {
    DateTime::from_timestamp(1_700_000_040, 0).unwrap() + TimeDelta::milliseconds(ms)
}

fn moment(at: Timestamp) -> Ms {
    (at - time(0)).num_milliseconds()
}

impl Engine {
    fn new(rule: spec::Rule) -> Self {
        let every = match rule {
            spec::Rule::Serin => 15,
            spec::Rule::Flagger { .. } => 60,
        };
        Self {
            target: Target {
                id: CanaryId::new("test", "app"),
                stable: vec!["app".to_owned()],
                candidate: vec!["app-canary".to_owned()],
                service: "app".to_owned(),
                analysis: Analysis {
                    rule,
                    every: Duration::from_secs(every),
                    metrics: vec![Metric {
                        name: "success-rate".to_owned(),
                        source: MetricSource::SuccessRate { min: 99.0 },
                        min_requests: None,
                    }],
                    on_failure: OnFailure::Rollback,
                    on_inconclusive: OnInconclusive::Hold,
                    deadline: None,
                    alpha: 0.01,
                    compare: rule == spec::Rule::Serin,
                    skip: false,
                    reporter: Reporter::Destination,
                    counting: Counting::default(),
                    counters: None,
                },
                window: Window {
                    rollout: time(0),
                    step: time(0),
                    has_traffic: true,
                    weight: Some(10),
                    comparable: true,
                    strikes: 0,
                },
            },
            ledger: Ledger::default(),
            step: None,
            every: every as Ms * 1000,
        }
    }

    fn climb(&mut self, now: Ms) -> Move {
        let next = self.step.map_or(0, |(step, _)| step + 1);
        let Some(weight) = [10, 20, 30, 40, 50].get(next) else {
            return Move::Promote;
        };
        self.step = Some((next, now));
        self.target.window.step = time(now);
        self.target.window.weight = Some(*weight);
        Move::Route(f64::from(*weight) / 100.0)
    }
}

/// What Prometheus would say.
fn answer(world: &World, query: &Query) -> Answer {
    let mut times = vec![query.at];
    if let Some((start, step)) = query.range {
        let step = TimeDelta::from_std(step).unwrap();
        times = std::iter::successors(Some(start), |at| Some(*at + step))
            .take_while(|at| *at <= query.at)
            .collect();
    }
    if let Purpose::Checks(..) = query.purpose {
        let value = |at: &Timestamp| Some((*at, flagger::success_rate(world, moment(*at))?));
        let samples: Vec<_> = times.iter().filter_map(value).collect();
        let labels = Labels::default();
        let one = Series { labels, samples };
        return Answer::Series(if one.samples.is_empty() {
            vec![]
        } else {
            vec![one]
        });
    }
    let mut all = Vec::new();
    for (index, pod) in world.pods().iter().enumerate() {
        let workload = match pod.side {
            Side::Stable => "app",
            Side::Candidate => "app-canary",
        };
        for (code, failed) in [("200", false), ("503", true)] {
            let value = |at: &Timestamp| {
                let seen = pod.instant(moment(*at))?.seen;
                let count = if failed { seen.failed } else { seen.ok };
                // An error series appears with its first error.
                (!failed || count > 0).then_some((*at, count as f64))
            };
            let samples: Vec<_> = times.iter().filter_map(value).collect();
            let labels = [
                ("destination_workload_namespace", "test"),
                ("destination_workload", workload),
                ("pod", &format!("pod-{index}")),
                ("response_code", code),
            ];
            if !samples.is_empty() {
                let labels = labels.into_iter().collect();
                all.push(Series { labels, samples });
            }
        }
    }
    Answer::Series(all)
}

impl Judge for Engine {
    fn next_look(&self, now: Ms) -> Ms {
        now + self.every
    }

    fn look(&mut self, world: &World) -> Move {
        let now = world.now();
        let Some((step, since)) = self.step else {
            let first = self.climb(now);
            let targets = std::slice::from_ref(&self.target);
            let queries = plan(targets, &self.ledger, time(now));
            let answers: Vec<Answer> = queries.iter().map(|query| answer(world, query)).collect();
            absorb(&mut self.ledger, targets, &queries, &answers);
            return first;
        };
        let targets = std::slice::from_ref(&self.target);
        let queries = plan(targets, &self.ledger, time(now));
        let answers: Vec<Answer> = queries.iter().map(|query| answer(world, query)).collect();
        absorb(&mut self.ledger, targets, &queries, &answers);
        let judgement = judge(&self.target, &self.ledger, time(now));
        let is_last = step == 4;
        let may = match judgement.verdict {
            Verdict::Fail => return Move::RollBack,
            Verdict::Error => panic!("{judgement:?}"),
            Verdict::Pass | Verdict::Inconclusive if is_last => judgement.allows.promotion,
            Verdict::Pass | Verdict::Inconclusive => judgement.allows.step,
        };
        if now - since < HOLD {
            return Move::Stay;
        }
        if may {
            self.target.window.strikes = judgement.strikes.unwrap_or_default();
            return self.climb(now);
        }
        let is_late = is_last && now - since >= LAST_STEP && judgement.strikes.is_none();
        if is_late { Move::GiveUp } else { Move::Stay }
    }
}

fn both(rule: Rule, engine: spec::Rule, cell: &Cell, number: u64) -> (Record, Record) {
    let random = Random::new(5, &[name_of(cell), number]);
    let mut world = World::new(&cell.scenario, cell.rps, random);
    let record = rollout::drive(&mut world, &mut Engine::new(engine));
    (rollout::run(rule, cell, 5, number), record)
}

/// The benchmark's judge and the engine in production: the same end at the same time, rollout by rollout.
#[test]
fn the_benchmark_judges_as_production_does() {
    // Production also waits while stable itself breaks the limit, which the benchmark leaves out.
    let cells = scenario::core().into_iter().filter(|cell| {
        let name = cell.scenario.name;
        cell.scenario.stable < 0.008 && !name.contains("incident") && cell.rps < 900.0
    });
    let mut ends = std::collections::BTreeMap::<String, u32>::new();
    for cell in cells {
        for number in 0..6 {
            let (ours, engine) = both(Rule::Serin, spec::Rule::Serin, &cell, number);
            let name = format!("{} at {}, {number}", cell.scenario.name, cell.rps);
            assert_eq!(engine, ours, "{name}");
            *ends.entry(format!("{:?}", engine.end)).or_default() += 1;
        }
    }
    assert!(
        ends.len() >= 2 && ends.values().all(|count| *count > 3),
        "{ends:?}"
    );
}

/// The port of Flagger's rule and the engine by `rule: flagger`.
#[test]
fn flaggers_rule_in_the_engine_is_the_benchmarks() {
    let mut ends = std::collections::BTreeMap::<String, u32>::new();
    for cell in scenario::core().into_iter().chain(scenario::idle()) {
        for (rule, threshold) in [(Rule::Flagger1, 1), (Rule::Flagger5, 5)] {
            for number in 0..4 {
                let engine = spec::Rule::Flagger { threshold };
                let (ours, engine) = both(rule, engine, &cell, number);
                let name = format!("{} at {}, {number}", cell.scenario.name, cell.rps);
                assert_eq!(engine, ours, "{threshold}: {name}");
                *ends.entry(format!("{:?}", engine.end)).or_default() += 1;
            }
        }
    }
    assert!(
        ends.len() == 2 && ends.values().all(|count| *count > 20),
        "{ends:?}"
    );
    assert_eq!(analysis::flagger::Strikes::new(1).failed(), 0);
}
