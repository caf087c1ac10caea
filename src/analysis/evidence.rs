//! What is known of each canary between ticks, and how answers become part of it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DurationRound, TimeDelta};

use super::counting::{Delta, Fault, Names, Side, Sides, Stream, Tally};
use super::custom::{Apart, Looks};
use super::flagger::Checks;
use super::types::{Counted, Load, Part, Target};
use super::watch::Watch;
use crate::domain::{CanaryId, Timestamp};
use crate::spec::{Analysis, Counting, MetricSource, Unit};

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

    pub(super) fn open(&mut self, target: &Target) -> &mut Evidence {
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
    /// Whether the counters of the spec are asked for apart from those of others.
    pub(super) apart: Apart,
    checks: Option<Checks>,
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

    /// The checks of Flagger's rule on the present step.
    pub(super) fn checks(&self, target: &Target) -> Option<&Checks> {
        self.checks
            .as_ref()
            .filter(|checks| checks.is_about(target))
    }

    /// The same, to add to.
    pub(super) fn checks_of(&mut self, target: &Target) -> &mut Checks {
        if self.checks(target).is_none() {
            self.checks = None;
        }
        self.checks.get_or_insert_with(|| Checks::begin(target))
    }

    /// Compares what a reading added to the request counters.
    pub(super) fn compare_requests(
        &mut self,
        at: Timestamp,
        target: &Target,
        delta: &Delta<Counts>,
    ) {
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
    pub(super) fn compare_latency(
        &mut self,
        at: Timestamp,
        target: &Target,
        delta: &Delta<Buckets>,
    ) {
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

    /// What stable did before the rollout.
    pub(super) fn load(&self) -> Option<Load> {
        let (from, to, counts) = self.requests.history()?;
        let seconds = (to - from).num_seconds() as f64;
        (seconds > 0.0).then_some(Load {
            requests: counts.requests,
            failures: counts.failures,
            seconds,
        })
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
            && own.counters == other.counters
            && own.rule == other.rule
            && (own.rule == crate::spec::Rule::Serin || own.metrics == other.metrics)
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
    /// Any of them, by a counter of all requests.
    Any,
    /// A failure, by a counter beside that of all requests.
    FailureOfAny,
    /// A rejection, by a counter beside that of all requests.
    RejectionOfAny,
}

impl Counted {
    pub(super) fn side(&self) -> Side {
        if self.of_candidate {
            Side::Candidate
        } else {
            Side::Stable
        }
    }

    /// What tells its series from those of the spec's other queries.
    pub(super) fn word(&self) -> &'static str {
        match self.part {
            Part::Requests => "requests",
            Part::Failures => "failures",
            Part::Rejections => "rejections",
            Part::Buckets(_) => "buckets",
        }
    }

    pub(super) fn outcome(&self) -> Option<Outcome> {
        match self.part {
            Part::Requests => Some(Outcome::Any),
            Part::Failures => Some(Outcome::FailureOfAny),
            Part::Rejections => Some(Outcome::RejectionOfAny),
            Part::Buckets(_) => None,
        }
    }
}

/// gRPC statuses that are neither success nor the server's fault: CANCELLED is the client's, the others blame it.
const GRPC_OK: [&str; 2] = ["", "0"];

impl Outcome {
    /// Reads Istio's labels by the rules of the spec; without them 5xx, a gRPC status that is the server's fault, or no
    /// response code at all.
    pub(super) fn of([code, grpc, flags]: Names<'_>, rules: &Counting) -> Self {
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
        let more = |sum: &mut u64| *sum = sum.saturating_add(count);
        match class {
            Outcome::Success | Outcome::Any => more(&mut self.requests),
            Outcome::Failure => {
                more(&mut self.requests);
                more(&mut self.failures);
            }
            Outcome::Rejection => {
                more(&mut self.requests);
                more(&mut self.rejections);
            }
            Outcome::FailureOfAny => more(&mut self.failures),
            Outcome::RejectionOfAny => more(&mut self.rejections),
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

    /// Reads an `le` label. Prometheus 3 writes `500.0` for what was `500`.
    pub(super) fn parse(le: &str, unit: Unit) -> Option<Self> {
        if le == "+Inf" {
            return Some(Self::ALL);
        }
        let micros = match unit {
            Unit::Milliseconds => 1e3,
            Unit::Seconds => 1e6,
        };
        let bound: f64 = le.parse().ok()?;
        (bound.is_finite() && bound >= 0.0).then_some(Self((bound * micros).round() as u64))
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
        let sum = self.0.entry(class).or_default();
        *sum = sum.saturating_add(count);
    }

    fn since(&self, earlier: &Self) -> Self {
        let since = self.0.iter().map(|(bound, count)| {
            let before = earlier.0.get(bound).copied().unwrap_or_default();
            (*bound, count.saturating_sub(before))
        });
        Self(since.collect())
    }
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
pub(super) fn next_reading(now: Timestamp, every: std::time::Duration) -> Timestamp {
    reading_due(now, every)
        .checked_add_signed(period(every))
        .unwrap_or(Timestamp::MAX_UTC)
}

/// Evaluation times are whole seconds, so marks are as well.
pub(super) fn whole_second(at: Timestamp) -> Timestamp {
    at.duration_trunc(TimeDelta::seconds(1)).unwrap_or(at)
}
