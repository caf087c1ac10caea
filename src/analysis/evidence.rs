//! What is known of each canary between ticks, and how answers become part of it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DurationRound, TimeDelta};

use super::counting::{Delta, Fault, Marks, Sample, SeriesId, Side, Sides, Stream, Tally};
use super::custom::Looks;
use super::types::{Answer, Purpose, Query, Series, Target};
use super::watch::Watch;
use crate::domain::{CanaryId, Timestamp};
use crate::spec::{Analysis, Counting, MetricSource};

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
        let found = self.entries.get(&target.id);
        found.filter(|evidence| evidence.is_about(target))
    }

    fn open(&mut self, target: &Target) -> &mut Evidence {
        let evidence = self.entries.entry(target.id.clone()).or_default();
        if !evidence.is_about(target) {
            *evidence = Evidence {
                subject: Some(Subject::of(target)),
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
    pub(super) failures: Option<Watch>,
    pub(super) rejections: Option<Watch>,
    pub(super) slow: BTreeMap<String, Slow>,
}

/// Slow answers by one latency metric.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slow {
    /// The bucket bound that judges: chosen when the candidate's histogram is seen first.
    pub(super) bound: Bound,
    pub(super) watch: Watch,
}

impl Evidence {
    fn is_about(&self, target: &Target) -> bool {
        self.subject
            .as_ref()
            .is_some_and(|subject| subject.is_of(target))
    }

    /// Compares what a reading added to the request counters.
    fn compare_requests(&mut self, at: Timestamp, target: &Target, delta: &Delta<Counts>) {
        let step = whole_second(target.window.step);
        let new = || Watch::new(&target.analysis);
        self.failures
            .get_or_insert_with(new)
            .add(at, step, delta, |c| Some((c.requests, c.failures)));
        if target.analysis.counting.client_errors {
            self.rejections
                .get_or_insert_with(new)
                .add(at, step, delta, |c| Some((c.requests, c.rejections)));
        }
    }

    /// Compares what a reading added to the latency buckets.
    fn compare_latency(&mut self, at: Timestamp, target: &Target, delta: &Delta<Buckets>) {
        let step = whole_second(target.window.step);
        for metric in &target.analysis.metrics {
            let MetricSource::Latency { max, .. } = &metric.source else {
                continue;
            };
            if !self.slow.contains_key(&metric.name) {
                // The seeds need a bound as well: stable's, until the candidate shows its own.
                let Some(bound) = common_bound(delta, Bound::of(*max)) else {
                    continue;
                };
                let watch = Watch::new(&target.analysis);
                self.slow.insert(metric.name.clone(), Slow { bound, watch });
            }
            if let Some(slow) = self.slow.get_mut(&metric.name) {
                let bound = slow.bound;
                slow.watch
                    .add(at, step, delta, |buckets| buckets.slower_than(bound));
            }
        }
    }

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
#[derive(Debug, Clone, PartialEq)]
struct Subject {
    rollout: Timestamp,
    stable: Vec<String>,
    candidate: Vec<String>,
    analysis: Analysis,
}

impl Subject {
    fn of(target: &Target) -> Self {
        Self {
            rollout: whole_second(target.window.rollout),
            stable: target.stable.clone(),
            candidate: target.candidate.clone(),
            analysis: target.analysis.clone(),
        }
    }

    fn is_of(&self, target: &Target) -> bool {
        let (own, other) = (&self.analysis, &target.analysis);
        self.rollout == whole_second(target.window.rollout)
            && self.stable == target.stable
            && self.candidate == target.candidate
            && own.reporter == other.reporter
            && own.every == other.every
            && own.alpha == other.alpha
            && own.counting == other.counting
            && latencies(own).eq(latencies(other))
    }
}

fn latencies(analysis: &Analysis) -> impl Iterator<Item = (&str, std::time::Duration)> {
    analysis
        .metrics
        .iter()
        .filter_map(|metric| match &metric.source {
            MetricSource::Latency { max, .. } => Some((metric.name.as_str(), *max)),
            MetricSource::SuccessRate { .. } | MetricSource::Custom { .. } => None,
        })
}

/// Requests, and how many of them failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All requests but those that the client gave up on.
    pub requests: u64,
    /// Those that failed by the server's fault.
    pub failures: u64,
    /// Those that were answered with the client's fault.
    pub rejections: u64,
}

/// What the proxy said of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Success,
    /// The server's fault.
    Failure,
    /// The client's fault, says the server.
    Rejection,
    /// The client went away before there was an answer: says nothing about the server.
    Neutral,
}

/// gRPC statuses that are neither success nor the server's fault: CANCELLED is the client's, the others blame it.
const GRPC_OK: [&str; 2] = ["", "0"];

impl Outcome {
    /// Reads Istio's labels by the rules of the spec; without them 5xx, a gRPC status that is the server's fault, or no
    /// response code at all.
    fn of(code: &str, grpc: &str, flags: &str, rules: &Counting) -> Self {
        let has = |wanted: &[String]| {
            flags
                .split(',')
                .any(|flag| wanted.iter().any(|one| one == flag))
        };
        // Only a request without an answer can be the client's going away; a flag beside an answer is about the
        // connection.
        if code == "0" && has(&rules.ignored_flags) {
            return Self::Neutral;
        }
        let is_code = |wanted: &String| match wanted.strip_suffix("xx") {
            Some(class) => code.len() == 3 && code.starts_with(class),
            None => wanted == code,
        };
        let is_fault = |wanted: &u8| grpc.parse() == Ok(*wanted);
        if code == "0"
            || rules.codes.iter().any(is_code)
            || rules.grpc.iter().any(is_fault)
            || has(&rules.flags)
        {
            return Self::Failure;
        }
        let is_rejected = (code.len() == 3 && code.starts_with('4')) || !GRPC_OK.contains(&grpc);
        if is_rejected {
            Self::Rejection
        } else {
            Self::Success
        }
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
            Outcome::Rejection => {
                self.requests += count;
                self.rejections += count;
            }
            Outcome::Neutral => {}
        }
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            failures: self.failures.saturating_sub(earlier.failures),
            rejections: self.rejections.saturating_sub(earlier.rejections),
        }
    }
}

/// Upper bound of a latency bucket in microseconds; `u64::MAX` for the bucket of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bound(pub u64);

impl Bound {
    pub(super) const ALL: Self = Self(u64::MAX);

    /// The bound at a limit.
    pub(super) fn of(limit: std::time::Duration) -> Self {
        Self(u64::try_from(limit.as_micros()).unwrap_or(u64::MAX - 1))
    }

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

impl Buckets {
    /// Answers, and how many of them took longer than `bound`; `None` without those two buckets.
    pub(super) fn slower_than(&self, bound: Bound) -> Option<(u64, u64)> {
        let all = *self.0.get(&Bound::ALL)?;
        let fast = *self.0.get(&bound)?;
        Some((all, all.saturating_sub(fast)))
    }
}

/// The largest bound up to `limit` that every proxy of a reading has.
fn common_bound(delta: &Delta<Buckets>, limit: Bound) -> Option<Bound> {
    let all = delta.proxies.candidate.iter().chain(&delta.proxies.stable);
    let sets = all.map(|buckets| buckets.0.keys().copied().collect::<BTreeSet<Bound>>());
    let common = sets.reduce(|a, b| a.intersection(&b).copied().collect())?;
    common.range(..=limit).next_back().copied()
}

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
                let how = Reader {
                    classify: request_of,
                    stream: |e| &mut e.requests,
                    compare: Evidence::compare_requests,
                };
                count(ledger, asked.collect(), query, answer, how);
            }
            Purpose::Latency(ids) => {
                let asked = ids.iter().filter_map(|id| by_id.get(id).copied());
                let how = Reader {
                    classify: bucket_of,
                    stream: |e| &mut e.latency,
                    compare: Evidence::compare_latency,
                };
                count(ledger, asked.collect(), query, answer, how);
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
type Classify<C> = fn(&Series, &Counting) -> Result<(C, String), Fault>;

/// How answers of one purpose become evidence.
struct Reader<T: Tally> {
    classify: Classify<T::Class>,
    stream: fn(&mut Evidence) -> &mut Stream<T>,
    compare: fn(&mut Evidence, Timestamp, &Target, &Delta<T>),
}

fn request_of(series: &Series, rules: &Counting) -> Result<(Outcome, String), Fault> {
    // Prometheus leaves out empty labels; HTTP requests have no gRPC status.
    let [code, grpc, flags] = ["response_code", "grpc_response_status", "response_flags"]
        .map(|name| series.labels.get(name).map_or("", String::as_str));
    if code.is_empty() {
        return Err(Fault::Foreign(describe(series)));
    }
    Ok((
        Outcome::of(code, grpc, flags, rules),
        format!("{code}|{grpc}|{flags}"),
    ))
}

fn bucket_of(series: &Series, _: &Counting) -> Result<(Bound, String), Fault> {
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
    reader: Reader<T>,
) {
    let rebuilding = query.range.is_some();
    let sorted = match answer {
        Answer::Series(series) => sort(&asked, query, series, reader.classify),
        Answer::Failed(error) => Err(Fault::Ask(error.clone())),
    };
    let mut sorted = match sorted {
        Ok(sorted) => sorted,
        Err(fault) => {
            for target in asked {
                (reader.stream)(ledger.open(target)).fail(fault.clone(), rebuilding);
            }
            return;
        }
    };
    for target in asked {
        let evidence = ledger.open(target);
        let warmup = TimeDelta::from_std(target.analysis.counting.warmup).unwrap_or_default();
        let marks = Marks {
            rollout: whole_second(target.window.rollout),
            step: whole_second(target.window.step),
            tick: period(target.analysis.every),
            warmup: match query.purpose {
                Purpose::Latency(_) => warmup,
                Purpose::Requests(_) | Purpose::Custom(_) => TimeDelta::zero(),
            },
        };
        let readings = sorted
            .remove(&target.id)
            .unwrap_or_else(|| Ok(BTreeMap::new()));
        let counted = readings.and_then(|list| {
            let from = super::plan::first_reading(target);
            // Canaries that share a range begin at the earliest; the same samples must mean the same, whoever shares.
            let own = list.into_iter().filter(|(at, _)| *at >= from);
            own.into_iter().try_for_each(|(at, samples)| {
                let delta = (reader.stream)(evidence).take(at, samples, marks)?;
                if let Some(delta) = delta.filter(|_| target.analysis.compare) {
                    (reader.compare)(evidence, at, target, &delta);
                }
                Ok(())
            })
        });
        let stream = (reader.stream)(evidence);
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
    let mut owners: BTreeMap<(&str, &str), Vec<(&Target, Side)>> = BTreeMap::new();
    for target in asked {
        let sides = [
            (&target.stable, Side::Stable),
            (&target.candidate, Side::Candidate),
        ];
        for (workloads, side) in sides {
            for workload in workloads {
                let key = (target.id.namespace.as_str(), workload.as_str());
                owners.entry(key).or_default().push((target, side));
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
        for (target, side) in owners {
            let Some(entry) = sorted.get_mut(&target.id) else {
                continue;
            };
            let class = classify(series, &target.analysis.counting);
            let added = match (class, entry.as_mut()) {
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

/// Time between two readings: whole seconds, at least one.
pub(super) fn period(every: std::time::Duration) -> TimeDelta {
    let seconds = every.as_secs() + u64::from(every.subsec_nanos() > 0);
    TimeDelta::seconds(i64::try_from(seconds.clamp(1, 86_400)).unwrap_or(86_400))
}

/// The last reading that is due at `now`: all canaries are read at the same moments, multiples of their period.
pub fn reading_due(now: Timestamp, every: std::time::Duration) -> Timestamp {
    now.duration_trunc(period(every)).unwrap_or(now)
}

/// The first reading that is due after `now`.
pub fn next_reading(now: Timestamp, every: std::time::Duration) -> Timestamp {
    reading_due(now, every)
        .checked_add_signed(period(every))
        .unwrap_or(Timestamp::MAX_UTC)
}

/// Evaluation times are whole seconds, so marks are as well.
pub(super) fn whole_second(at: Timestamp) -> Timestamp {
    at.duration_trunc(TimeDelta::seconds(1)).unwrap_or(at)
}
