//! What is known of each canary between ticks, and how answers become part of it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DurationRound, TimeDelta};

use super::counting::{Fault, Marks, Sample, SeriesId, Side, Sides, Stream, Tally};
use super::custom::Looks;
use super::types::{Answer, Purpose, Query, Series, Target};
use crate::domain::{CanaryId, Timestamp};
use crate::spec::Reporter;

/// Ticks between two restarts of the test, so that a long healthy history cannot hide a late regression: 5 min at the
/// default of 15 s.
const RESTART_TICKS: i32 = 20;

/// gRPC status codes that are the server's fault: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE,
/// DATA_LOSS.
pub(super) const GRPC_FAULTS: [&str; 6] = ["2", "4", "12", "13", "14", "15"];

/// Evidence of all canaries, in memory between ticks; rebuilt from Prometheus after a restart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ledger {
    /// Evidence by canary.
    pub entries: BTreeMap<CanaryId, Evidence>,
}

impl Ledger {
    /// Forgets one canary: its rollout ended.
    pub fn forget(&mut self, canary: &CanaryId) {
        self.entries.remove(canary);
    }

    /// The evidence for exactly this rollout of this canary.
    pub(super) fn of(&self, target: &Target) -> Option<&Evidence> {
        self.entries
            .get(&target.id)
            .filter(|evidence| evidence.subject == Some(Subject::of(target)))
    }

    fn open(&mut self, target: &Target) -> &mut Evidence {
        let subject = Some(Subject::of(target));
        let evidence = self.entries.entry(target.id.clone()).or_default();
        if evidence.subject != subject {
            *evidence = Evidence {
                subject,
                ..Evidence::default()
            };
        }
        evidence
    }
}

/// What was counted for one canary.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evidence {
    subject: Option<Subject>,
    pub(super) requests: Stream<Counts>,
    pub(super) latency: Stream<Buckets>,
    pub(super) custom: BTreeMap<String, Looks>,
}

impl Evidence {
    /// Requests and failures of candidate and stable since the rollout began; `None` before the first reading.
    pub fn requests(&self) -> Option<Sides<Counts>> {
        self.requests.since_rollout().map(|(_, counts)| *counts)
    }

    /// The same since the step that was observed at `step`; `None` before the first reading after that.
    pub fn requests_since(&self, step: Timestamp) -> Option<Sides<Counts>> {
        self.requests
            .since_step(whole_second(step))
            .map(|(_, counts)| counts)
    }

    /// Why the last look at the request counters or latency buckets gave nothing, if so.
    pub fn fault(&self) -> Option<&Fault> {
        self.requests.fault().or_else(|| self.latency.fault())
    }
}

/// What evidence is about; with another subject it begins anew.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Subject {
    rollout: Timestamp,
    stable: Vec<String>,
    candidate: Vec<String>,
    reporter: Reporter,
}

impl Subject {
    fn of(target: &Target) -> Self {
        Self {
            rollout: whole_second(target.window.rollout),
            stable: target.stable.clone(),
            candidate: target.candidate.clone(),
            reporter: target.analysis.reporter,
        }
    }
}

/// Requests, and how many of them failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All requests but those that the client gave up on.
    pub requests: u64,
    /// Those that failed by the server's fault.
    pub failures: u64,
}

/// What the proxy said of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Success,
    Failure,
    /// The client went away before there was an answer: says nothing about the server.
    Neutral,
}

impl Outcome {
    /// Reads Istio's labels: 5xx, a gRPC status that is the server's fault, or no response code at all.
    fn of(code: &str, grpc: &str, flags: &str) -> Self {
        let is_5xx = code.len() == 3 && code.starts_with('5');
        if code == "0" {
            let client_left = flags.split(',').any(|flag| flag == "DC");
            return if client_left {
                Self::Neutral
            } else {
                Self::Failure
            };
        }
        if is_5xx || GRPC_FAULTS.contains(&grpc) {
            return Self::Failure;
        }
        Self::Success
    }
}

impl Tally for Counts {
    type Class = Outcome;

    fn add(&mut self, class: Outcome, count: u64) {
        match class {
            Outcome::Success => self.requests += count,
            Outcome::Failure => {
                self.requests += count;
                self.failures += count;
            }
            Outcome::Neutral => {}
        }
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            failures: self.failures.saturating_sub(earlier.failures),
        }
    }
}

/// Upper bound of a latency bucket in microseconds; `u64::MAX` for the bucket of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bound(pub u64);

impl Bound {
    pub(super) const ALL: Self = Self(u64::MAX);

    /// Reads an `le` label in milliseconds. Prometheus 3 writes `500.0` for what was `500`.
    fn parse(le: &str) -> Option<Self> {
        if le == "+Inf" {
            return Some(Self::ALL);
        }
        let ms: f64 = le.parse().ok()?;
        (ms.is_finite() && ms >= 0.0).then_some(Self((ms * 1000.0).round() as u64))
    }
}

/// Requests by latency: for each bound, how many took at most that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Buckets(pub BTreeMap<Bound, u64>);

impl Tally for Buckets {
    type Class = Bound;

    fn add(&mut self, class: Bound, count: u64) {
        *self.0.entry(class).or_default() += count;
    }

    fn since(&self, earlier: &Self) -> Self {
        let since = self.0.iter().map(|(bound, count)| {
            let before = earlier.0.get(bound).copied().unwrap_or_default();
            (*bound, count.saturating_sub(before))
        });
        Self(since.collect())
    }
}

/// Adds answers to the ledger. `answers` belong to `queries` one by one; what was not answered changes nothing.
pub fn absorb(ledger: &mut Ledger, targets: &[Target], queries: &[Query], answers: &[Answer]) {
    let by_id: BTreeMap<&CanaryId, &Target> = targets.iter().map(|t| (&t.id, t)).collect();
    let alive = answers
        .iter()
        .any(|answer| matches!(answer, Answer::Series(_)));
    for (query, answer) in queries.iter().zip(answers) {
        match &query.purpose {
            Purpose::Requests(ids) => {
                let asked = ids.iter().filter_map(|id| by_id.get(id).copied());
                count(ledger, asked.collect(), query, answer, request_of, |e| {
                    &mut e.requests
                });
            }
            Purpose::Latency(ids) => {
                let asked = ids.iter().filter_map(|id| by_id.get(id).copied());
                count(ledger, asked.collect(), query, answer, bucket_of, |e| {
                    &mut e.latency
                });
            }
            Purpose::Custom(members) => {
                let looks = super::custom::read(members, query.at, answer, alive);
                for ((id, metric), look) in members.iter().zip(looks) {
                    if let Some(target) = by_id.get(id) {
                        let custom = &mut ledger.open(target).custom;
                        super::custom::note(custom, target, metric, look);
                    }
                }
            }
        }
    }
}

/// Reads the class of a series, and what tells it from others of the same proxy.
type Classify<C> = fn(&Series) -> Result<(C, String), Fault>;

fn request_of(series: &Series) -> Result<(Outcome, String), Fault> {
    // Prometheus leaves out empty labels; HTTP requests have no gRPC status.
    let [code, grpc, flags] = ["response_code", "grpc_response_status", "response_flags"]
        .map(|name| series.labels.get(name).map_or("", String::as_str));
    if code.is_empty() {
        return Err(Fault::Foreign(describe(series)));
    }
    Ok((
        Outcome::of(code, grpc, flags),
        format!("{code}|{grpc}|{flags}"),
    ))
}

fn bucket_of(series: &Series) -> Result<(Bound, String), Fault> {
    let le = series.labels.get("le").map_or("", String::as_str);
    let bound = Bound::parse(le).ok_or_else(|| Fault::Bound(le.to_owned()))?;
    Ok((bound, bound.0.to_string()))
}

fn describe(series: &Series) -> String {
    let labels: Vec<String> = series
        .labels
        .iter()
        .take(12)
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    format!("{{{}}}", labels.join(","))
}

/// Readings of one canary by time.
type Readings<C> = BTreeMap<Timestamp, Vec<Sample<C>>>;

fn count<T: Tally>(
    ledger: &mut Ledger,
    asked: Vec<&Target>,
    query: &Query,
    answer: &Answer,
    classify: Classify<T::Class>,
    stream: fn(&mut Evidence) -> &mut Stream<T>,
) {
    let rebuilding = query.range.is_some();
    let sorted = match answer {
        Answer::Series(series) => sort(&asked, query, series, classify),
        Answer::Failed(error) => Err(Fault::Ask(error.clone())),
    };
    let mut sorted = match sorted {
        Ok(sorted) => sorted,
        Err(fault) => {
            for target in asked {
                stream(ledger.open(target)).fail(fault.clone(), rebuilding);
            }
            return;
        }
    };
    for target in asked {
        let stream = stream(ledger.open(target));
        let marks = Marks {
            rollout: whole_second(target.window.rollout),
            step: whole_second(target.window.step),
            restart: TimeDelta::from_std(target.analysis.every).unwrap_or(TimeDelta::minutes(1))
                * RESTART_TICKS,
        };
        let readings = sorted
            .remove(&target.id)
            .unwrap_or_else(|| Ok(BTreeMap::new()));
        let counted = readings.and_then(|list| {
            list.into_iter()
                .try_for_each(|(at, samples)| stream.take(at, samples, marks))
        });
        match counted {
            Ok(()) => stream.succeed(),
            Err(fault) => stream.fail(fault, rebuilding),
        }
    }
}

/// Sorts the series of an answer by canary and time. The outer error is about the answer as a whole, an inner one
/// about one canary.
fn sort<C: Copy>(
    asked: &[&Target],
    query: &Query,
    answer: &[Series],
    classify: Classify<C>,
) -> Result<BTreeMap<CanaryId, Result<Readings<C>, Fault>>, Fault> {
    let mut owners: BTreeMap<(&str, &str), Vec<(&CanaryId, Side)>> = BTreeMap::new();
    for target in asked {
        let sides = [
            (&target.stable, Side::Stable),
            (&target.candidate, Side::Candidate),
        ];
        for (workloads, side) in sides {
            for workload in workloads {
                let key = (target.id.namespace.as_str(), workload.as_str());
                owners.entry(key).or_default().push((&target.id, side));
            }
        }
    }
    let namespaces: BTreeSet<&str> = owners.keys().map(|(ns, _)| *ns).collect();
    let workloads: BTreeSet<&str> = owners.keys().map(|(_, workload)| *workload).collect();

    let times = reading_times(query, answer)?;
    let mut sorted: BTreeMap<CanaryId, Result<Readings<C>, Fault>> = asked
        .iter()
        .map(|target| {
            let empty = times.iter().map(|at| (*at, Vec::new())).collect();
            (target.id.clone(), Ok(empty))
        })
        .collect();
    for series in answer {
        let label = |name: &str| series.labels.get(name).map_or("", String::as_str);
        let (namespace, workload) = (
            label("destination_workload_namespace"),
            label("destination_workload"),
        );
        let Some(owners) = owners.get(&(namespace, workload)) else {
            // Namespaces and workloads are matched apart, so that every pair of them may come.
            if namespaces.contains(namespace) && workloads.contains(workload) {
                continue;
            }
            return Err(Fault::Foreign(describe(series)));
        };
        for (id, side) in owners {
            let Some(entry) = sorted.get_mut(*id) else {
                continue;
            };
            let added = match (classify(series), entry.as_mut()) {
                (Ok(class), Ok(readings)) => {
                    add(readings, series, *side, class);
                    continue;
                }
                (Err(fault), _) => fault,
                (Ok(_), Err(_)) => continue,
            };
            *entry = Err(added);
        }
    }
    Ok(sorted)
}

fn add<C: Copy>(readings: &mut Readings<C>, series: &Series, side: Side, class: (C, String)) {
    let label = |name: &str| series.labels.get(name).map_or("", String::as_str);
    let source = format!(
        "{} {} {}",
        label("destination_workload"),
        label("pod"),
        label("instance")
    );
    for (at, value) in &series.samples {
        let id = SeriesId {
            side,
            source: source.clone(),
            rest: class.1.clone(),
        };
        readings.entry(*at).or_default().push(Sample {
            id,
            class: class.0,
            value: *value,
        });
    }
}

/// The moments at which the whole answer is a reading. Some servers align a range to multiples of its step, so the
/// times are taken from the samples; a moment at which one canary has none is a reading without series for it.
fn reading_times(query: &Query, answer: &[Series]) -> Result<BTreeSet<Timestamp>, Fault> {
    let mut times: BTreeSet<Timestamp> = answer
        .iter()
        .flat_map(|series| series.samples.iter().map(|(at, _)| *at))
        .collect();
    if let Some(late) = times.last().filter(|last| **last > query.at) {
        return Err(Fault::Future(late.to_rfc3339()));
    }
    match query.range {
        Some((start, _)) => times.insert(start),
        None if times.is_empty() => times.insert(query.at),
        None => false,
    };
    if query.range.is_some() && answer.is_empty() {
        times.insert(query.at);
    }
    Ok(times)
}

/// Evaluation times are whole seconds, so marks are as well.
pub(super) fn whole_second(at: Timestamp) -> Timestamp {
    at.duration_trunc(TimeDelta::seconds(1)).unwrap_or(at)
}
