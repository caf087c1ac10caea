//! Replays of what really happened: counters of a service from a range query, through the judge, tick by tick.
//!
//! The replay counts as the engine does (differences per series, resets, late first errors), learns from the time
//! before the candidate's first request, and asks the same judge at each tick. Beside it runs Flagger's rule on the same
//! samples. A range query shows values at its own steps and not at the scrapes, so Flagger's extrapolation may
//! differ by a scrape from what its query gave at the time.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::chart::{Curve, LinePlot, Moment};
use super::flagger;
use super::interval::number;
use super::promql::{self, Point};
use super::scenario::Ms;
use crate::analysis::comparison::policy::{self, Policy, Reading};
use crate::analysis::comparison::{Comparison, Pod, Rule, Tick};
use crate::analysis::flagger::{Strikes, passes};

/// gRPC statuses that are the server's fault.
const GRPC_FAULTS: [&str; 6] = ["2", "4", "12", "13", "14", "15"];

/// One series of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Labels by name.
    pub labels: BTreeMap<String, String>,
    /// Milliseconds and values, in time order.
    pub samples: Vec<(Ms, f64)>,
}

/// Which label says what.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Label that tells stable from candidate.
    pub version: String,
    /// Its values on stable.
    pub stable: Vec<String>,
    /// Its values on the candidate.
    pub candidate: Vec<String>,
    /// Label with the response code.
    pub code: String,
}

/// What is replayed.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The answer to the range query.
    pub lines: Vec<Line>,
    /// How to read it.
    pub layout: Layout,
    /// The constants of the test.
    pub rule: Rule,
    /// Highest acceptable failing share.
    pub limit: f64,
    /// Time between two looks.
    pub every: Ms,
}

/// Why there is nothing to replay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// No series of this side.
    #[error(
        "no series has {label}={values}: name the workloads as the metrics do; there are {present}"
    )]
    Side {
        /// The label.
        label: String,
        /// The values that were looked for.
        values: String,
        /// The values that are there.
        present: String,
    },
    /// One value for stable and candidate.
    #[error("{0} is given for stable and for the candidate: name two workloads")]
    Same(String),
    /// Two series that nothing tells apart.
    #[error(
        "two series have the same labels: {0}; ask for them with all their labels, or with `sum by`"
    )]
    Duplicate(String),
    /// The candidate's counters never rise.
    #[error("the candidate has no request in this time")]
    Idle,
    /// A value that is no count.
    #[error("a counter has the value {0}, which is no count of requests")]
    Value(String),
}

/// One tick of the replay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Row {
    /// Seconds since the candidate's first request.
    pub seconds: i64,
    /// The candidate's requests and failures in it.
    pub candidate: Pod,
    /// Stable's.
    pub stable: Pod,
    /// The evidence after it: `ln E`.
    pub ln_evidence: f64,
}

/// When a rule would have acted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Act {
    /// Milliseconds since 1970.
    pub at: Ms,
    /// Seconds since the candidate's first request.
    pub seconds: i64,
    /// The candidate's failures until then.
    pub failures: u64,
    /// Why.
    pub sentence: String,
}

/// What would have happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replay {
    /// When the candidate got its first request, in milliseconds since 1970.
    pub began: Ms,
    /// Seconds until its last one.
    pub seconds: i64,
    /// The candidate's requests and failures.
    pub candidate: Pod,
    /// Stable's in the same time.
    pub stable: Pod,
    /// When Serin would have rolled back.
    pub serin: Option<Act>,
    /// What Serin thinks at the end.
    pub at_the_end: String,
    /// When Flagger with its default threshold of 1 would have.
    pub flagger_1: Option<Act>,
    /// When Flagger with threshold 5 would have.
    pub flagger_5: Option<Act>,
    /// Evidence that a rollback needs: `ln(1/alpha)`.
    pub needed: f64,
    /// Tick by tick.
    pub rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Stable,
    Candidate,
}

/// One series with what it counts.
struct Counter<'a> {
    side: Side,
    pod: &'a str,
    /// `None` for requests that say nothing about the server.
    failed: Option<bool>,
    is_5xx: bool,
    samples: &'a [(Ms, f64)],
    /// The value counted last; kept when the series is missing for a while.
    last: Option<f64>,
}

/// Replays.
pub fn replay(question: &Question) -> Result<Replay, Unusable> {
    let mut counters = counters(question)?;
    let times = || {
        let all = counters.iter().flat_map(|counter| counter.samples);
        all.map(|(at, _)| *at)
    };
    let (first, last) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
    let mut ticks: Vec<(Ms, Sums)> = Vec::new();
    let mut at = first;
    while at <= last {
        let sums = count(&mut counters, at, question.every, at == first)?;
        ticks.push((at, sums));
        at += question.every;
    }
    let has_requests = |(_, sums): &(Ms, Sums)| sums.total(Side::Candidate).0 > 0;
    let begin = ticks.iter().position(has_requests).ok_or(Unusable::Idle)?;
    let end = ticks.iter().rposition(has_requests).unwrap_or(begin);
    let (before, rest) = ticks.split_at(begin);
    let during = rest.get(..=end - begin).unwrap_or(rest);
    // The tick before the first one with requests is when they can have begun.
    let began = before
        .last()
        .or(during.first())
        .map_or(first, |(at, _)| *at);
    let mut test = Comparison::new(question.rule);
    for (_, sums) in before {
        test.seed(&sums.pods(Side::Stable));
    }
    let mut replay = Replay {
        began,
        seconds: 0,
        candidate: (0, 0),
        stable: (0, 0),
        serin: None,
        at_the_end: String::new(),
        flagger_1: None,
        flagger_5: None,
        needed: question.rule.needed(),
        rows: Vec::new(),
    };
    judge(&mut replay, &mut test, during, question);
    let flagger = |threshold| flag(&counters, &replay, threshold);
    (replay.flagger_1, replay.flagger_5) = (flagger(1), flagger(5));
    Ok(replay)
}

/// Counts of one tick, pod by pod.
#[derive(Debug, Default)]
struct Sums {
    pods: [BTreeMap<String, Pod>; 2],
}

impl Sums {
    fn pods(&self, side: Side) -> Vec<Pod> {
        self.pods
            .get(side as usize)
            .map(|pods| pods.values().copied().collect())
            .unwrap_or_default()
    }

    fn total(&self, side: Side) -> Pod {
        self.pods(side)
            .into_iter()
            .fold((0_u64, 0_u64), |sum, pod| {
                (sum.0.saturating_add(pod.0), sum.1.saturating_add(pod.1))
            })
    }

    fn add(&mut self, counter: &Counter<'_>, count: u64) {
        let Some(failed) = counter.failed else { return };
        if let Some(pods) = self.pods.get_mut(counter.side as usize) {
            let pod = pods.entry(counter.pod.to_owned()).or_default();
            pod.0 = pod.0.saturating_add(count);
            pod.1 = pod.1.saturating_add(if failed { count } else { 0 });
        }
    }
}

/// The series of both sides, classified.
fn counters(question: &Question) -> Result<Vec<Counter<'_>>, Unusable> {
    let layout = &question.layout;
    let version = |line: &Line| {
        line.labels
            .get(&layout.version)
            .cloned()
            .unwrap_or_default()
    };
    let mut both = layout.stable.iter();
    if let Some(same) = both.find(|value| layout.candidate.contains(*value)) {
        return Err(Unusable::Same(same.clone()));
    }
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for line in &question.lines {
        let version = version(line);
        let side = if layout.candidate.contains(&version) {
            Side::Candidate
        } else if layout.stable.contains(&version) {
            Side::Stable
        } else {
            continue;
        };
        if !seen.insert(&line.labels) {
            let labels = line.labels.iter();
            let labels: Vec<String> = labels
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            return Err(Unusable::Duplicate(labels.join(" ")));
        }
        let label = |name: &str| line.labels.get(name).map_or("", String::as_str);
        let code = label(&layout.code);
        found.push(Counter {
            side,
            pod: [label("pod"), label("instance")]
                .into_iter()
                .find(|name| !name.is_empty())
                .unwrap_or(""),
            failed: failed(code, label("grpc_response_status"), label("response_flags")),
            is_5xx: code.starts_with('5'),
            samples: &line.samples,
            last: None,
        });
    }
    let mut present: Vec<String> = question.lines.iter().map(version).collect();
    present.sort();
    present.dedup();
    for (side, values) in [
        (Side::Stable, &layout.stable),
        (Side::Candidate, &layout.candidate),
    ] {
        if !found.iter().any(|counter| counter.side == side) {
            return Err(Unusable::Side {
                label: layout.version.clone(),
                values: values.join("|"),
                present: if present.is_empty() {
                    "none at all".to_owned()
                } else {
                    present.join(", ")
                },
            });
        }
    }
    Ok(found)
}

/// Whether a request counts as failed, as the engine has it by default; `None` when the client gave up on it.
fn failed(code: &str, grpc: &str, flags: &str) -> Option<bool> {
    if code == "0" {
        let client_left = flags.split(',').any(|flag| flag == "DC");
        return (!client_left).then_some(true);
    }
    Some((code.len() == 3 && code.starts_with('5')) || GRPC_FAULTS.contains(&grpc))
}

/// Adds what each counter gained until `at`. The first reading is a baseline only.
fn count(
    counters: &mut [Counter<'_>],
    at: Ms,
    every: Ms,
    is_baseline: bool,
) -> Result<Sums, Unusable> {
    let mut sums = Sums::default();
    for counter in counters {
        let known = counter.samples.partition_point(|(time, _)| *time <= at);
        let newest = known
            .checked_sub(1)
            .and_then(|index| counter.samples.get(index));
        let Some((_, value)) = newest.filter(|(time, _)| at - time < 2 * every) else {
            continue;
        };
        if !(value.is_finite() && (0.0..9e15).contains(value)) {
            return Err(Unusable::Value(value.to_string()));
        }
        let before = counter.last.replace(*value);
        let gained = match before {
            Some(before) if *value >= before => value - before,
            // A proxy that began anew, or a series that did while we watched.
            Some(_) => *value,
            None if is_baseline => 0.0,
            None => *value,
        };
        sums.add(counter, gained.round() as u64);
    }
    Ok(sums)
}

/// Serin's judge, tick by tick.
fn judge(replay: &mut Replay, test: &mut Comparison, ticks: &[(Ms, Sums)], question: &Question) {
    let policy = Policy::of_limit(question.limit);
    let mut recent: Vec<Pod> = Vec::new();
    let mut reading = Reading::Open;
    let mut restarts = 0;
    for (tick, (at, sums)) in (0..).zip(ticks) {
        let due = policy::restarts_until(tick);
        if due > restarts {
            restarts = due;
            test.restart();
            recent.clear();
        }
        test.tick(Tick {
            stable: &sums.pods(Side::Stable),
            candidate: &sums.pods(Side::Candidate),
        });
        let of_tick = sums.total(Side::Candidate);
        recent.push(of_tick);
        let step = recent
            .iter()
            .fold((0, 0), |sum, pod| (sum.0 + pod.0, sum.1 + pod.1));
        reading = policy::reading(test, step, &policy);
        let seconds = (at - replay.began) / 1000;
        if reading == Reading::Harmful && replay.serin.is_none() {
            replay.serin = Some(Act {
                at: *at,
                seconds,
                failures: test.candidate().1,
                sentence: sentence(test, seconds),
            });
        }
        replay.rows.push(Row {
            seconds,
            candidate: of_tick,
            stable: sums.total(Side::Stable),
            ln_evidence: test.ln_evidence(),
        });
        replay.seconds = seconds;
    }
    replay.candidate = test.candidate();
    replay.stable = test.stable();
    replay.at_the_end = match reading {
        Reading::Harmful => "worse than stable, and chance is excluded",
        Reading::Leaning => "looks worse than stable, but that may still be chance",
        Reading::Safe(_) => "safe to promote",
        Reading::Open => "nothing bad was seen, but nothing excludes it yet",
    }
    .to_owned();
}

/// The verdict in a sentence.
fn sentence(test: &Comparison, seconds: i64) -> String {
    let ((n, x), (others, failed)) = (test.candidate(), test.stable());
    let sure = number(100.0 * (1.0 - (-test.rule().needed()).exp()));
    let times = test.lower_bound().map_or_else(
        || "the candidate fails more often than stable".to_owned(),
        |odds| {
            format!(
                "the candidate fails {} times as often as stable at least ({sure}% sure)",
                number(odds)
            )
        },
    );
    format!(
        "{times}: {x} of {n} against {failed} of {others} requests, {seconds} s after its first one"
    )
}

/// Flagger's rule on the candidate's own series, from its first request on.
fn flag(counters: &[Counter<'_>], replay: &Replay, threshold: u32) -> Option<Act> {
    let mut strikes = Strikes::new(threshold);
    let end = replay.began + replay.seconds * 1000;
    let mut at = replay.began + flagger::INTERVAL;
    let mut rate = None;
    // A strike in the last minute acts in the tick after it, whatever is left of the candidate then.
    while at <= end + flagger::INTERVAL {
        let seconds = (at - replay.began) / 1000;
        if strikes.is_out() {
            let until = |row: &&Row| row.seconds <= seconds;
            let failures = replay
                .rows
                .iter()
                .filter(until)
                .map(|row| row.candidate.1)
                .sum();
            let shown: Option<f64> = rate;
            return Some(Act {
                at,
                seconds,
                failures,
                sentence: match shown {
                    Some(rate) => format!(
                        "a success rate of {}% over a minute is below 99%",
                        number(rate)
                    ),
                    None => "a query without a value counts as a failed check".to_owned(),
                },
            });
        }
        if at <= end {
            let sum = |is_5xx: bool| sum_of_rates(counters, at, is_5xx);
            let found = flagger::share(sum(false), sum(true)).map(|share| share * 100.0);
            let passed = passes(found, Some(flagger::MIN_SUCCESS), None);
            strikes.note(passed);
            if !passed {
                rate = found;
            }
        }
        at += flagger::INTERVAL;
    }
    None
}

fn sum_of_rates(counters: &[Counter<'_>], at: Ms, is_5xx: bool) -> Option<f64> {
    counters
        .iter()
        .filter(|counter| counter.side == Side::Candidate && counter.is_5xx == is_5xx)
        .filter_map(|counter| {
            let points: Vec<Point> = counter
                .samples
                .iter()
                .filter(|(time, _)| *time > at - flagger::INTERVAL && *time <= at)
                .map(|(time, value)| Point {
                    at: *time,
                    value: *value,
                })
                .collect();
            promql::rate(&points, at, flagger::INTERVAL)
        })
        .reduce(|a, b| a + b)
}

impl Replay {
    /// The evidence over time, and when each rule would have acted.
    pub fn plot(&self) -> LinePlot {
        let top = self
            .rows
            .iter()
            .map(|row| row.ln_evidence)
            .fold(self.needed, f64::max)
            .min(4.0 * self.needed);
        let acts = [
            ("Serin", &self.serin),
            ("Flagger, threshold 1", &self.flagger_1),
            ("Flagger, threshold 5", &self.flagger_5),
        ];
        let moments = acts.into_iter().filter_map(|(name, act)| {
            Some(Moment {
                at: act.as_ref()?.seconds as f64,
                text: name.to_owned(),
            })
        });
        LinePlot {
            title: "Evidence that the candidate is worse than stable".to_owned(),
            across: "seconds since the candidate's first request".to_owned(),
            up: "ln E".to_owned(),
            curves: vec![Curve {
                name: "evidence".to_owned(),
                points: self
                    .rows
                    .iter()
                    .map(|row| (row.seconds as f64, row.ln_evidence))
                    .collect(),
                band: Vec::new(),
                letter: '●',
            }],
            level: Some((self.needed, "roll back".to_owned())),
            moments: moments.collect(),
            range: (-2.0, top * 1.1),
        }
    }
}

#[cfg(test)]
mod tests;
