//! Flagger's rule, for people who migrate: one check per interval, each over that interval alone, by Flagger's own
//! queries; failed checks add up over the rollout, and when there are enough of them, the next tick rolls back.
//!
//! A query without a value fails its check, as it does there. One thing differs: while Prometheus cannot be reached
//! nothing is decided; the check is made up for when it answers again, about the time that it was due.

use std::collections::BTreeMap;
use std::time::Duration;

use super::custom;
use super::evidence::{Evidence, period, whole_second};
use super::promql;
use super::text;
use super::types::{
    Allows, Answer, AskError, Finding, Judgement, Purpose, Query, Series, Target, Verdict,
};
use crate::domain::Timestamp;
use crate::spec::{Metric, MetricSource, Rule};

/// Checks of one step that are kept and made up for: at one a minute 16 hours.
const MOST_CHECKS: i32 = 1_000;

/// The counter of failed checks. It is never lowered, and acts a tick after it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strikes {
    threshold: u32,
    failed: u32,
}

impl Strikes {
    /// None so far; this many are enough.
    pub fn new(threshold: u32) -> Self {
        Self::after(threshold, 0)
    }

    /// The same after this many failed checks.
    pub fn after(threshold: u32, failed: u32) -> Self {
        Self { threshold, failed }
    }

    /// Whether this tick rolls back; asked before its check.
    pub fn is_out(&self) -> bool {
        self.failed >= self.threshold
    }

    /// Notes a check.
    pub fn note(&mut self, passed: bool) {
        if !passed {
            self.failed = self.failed.saturating_add(1);
        }
    }

    /// Checks that failed so far.
    pub fn failed(&self) -> u32 {
        self.failed
    }
}

/// Whether a value passes a check. No value does not.
pub fn passes(value: Option<f64>, min: Option<f64>, max: Option<f64>) -> bool {
    value.is_some_and(|value| custom::is_within(value, min, max))
}

/// What the checks of one step gave.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Checks {
    step: Timestamp,
    /// By metric and time; `None`: the query had no value.
    values: BTreeMap<String, BTreeMap<Timestamp, Option<f64>>>,
    /// Why the last question had no usable answer.
    fault: Option<AskError>,
}

impl Checks {
    pub(super) fn begin(target: &Target) -> Self {
        Self {
            step: whole_second(target.window.step),
            values: BTreeMap::new(),
            fault: None,
        }
    }

    pub(super) fn is_about(&self, target: &Target) -> bool {
        self.step == whole_second(target.window.step)
    }

    fn value(&self, metric: &str, at: Timestamp) -> Option<Option<f64>> {
        self.values.get(metric)?.get(&at).copied()
    }

    /// Takes the answer to a question about one metric.
    pub(super) fn read(&mut self, metric: &str, query: &Query, answer: &Answer) {
        let Some((start, step)) = query.range else {
            return;
        };
        let series: Option<&Series> = match answer {
            Answer::Failed(error) => {
                self.fault = Some(error.clone());
                return;
            }
            Answer::Series(series) => match series.as_slice() {
                [] => None,
                [one] => Some(one),
                many => {
                    self.fault = Some(AskError::Unusable(format!(
                        "the query of `{metric}` gave {} series where one is wanted; aggregate them, for example with `sum`",
                        many.len()
                    )));
                    return;
                }
            },
        };
        self.fault = None;
        let own = self.values.entry(metric.to_owned()).or_default();
        let step = period(step);
        let mut at = start;
        while at <= query.at {
            let samples = series.map_or(&[][..], |series| &series.samples);
            let found = samples
                .iter()
                .rfind(|(time, _)| *time <= at && *time > at - step);
            let value = found.map(|(_, value)| *value).filter(|v| !v.is_nan());
            own.insert(at, value);
            at += step;
        }
    }
}

/// How many checks of a step were due until `now`: the first is one interval after the step.
fn checks_due(target: &Target, now: Timestamp) -> i32 {
    let since = (now - whole_second(target.window.step))
        .num_seconds()
        .max(0);
    let due = since / period(target.analysis.every).num_seconds().max(1);
    i32::try_from(due).unwrap_or(i32::MAX)
}

/// The times of the checks that were due until `now`, oldest first.
fn times(target: &Target, now: Timestamp) -> impl Iterator<Item = Timestamp> {
    let due = checks_due(target, now);
    let first = (due.saturating_sub(MOST_CHECKS) + 1).max(1);
    let (step, every) = (
        whole_second(target.window.step),
        period(target.analysis.every),
    );
    (first..=due).map(move |number| step + every * number)
}

/// Whether a check became due between two looks.
pub(super) fn is_due(target: &Target, before: Timestamp, now: Timestamp) -> bool {
    checks_due(target, before) < checks_due(target, now)
}

/// The first check that is due after `now`.
pub(super) fn next_check(every: Duration, step: Timestamp, now: Timestamp) -> Timestamp {
    let (every, step) = (period(every), whole_second(step));
    let due = (now - step).num_seconds().max(0) / every.num_seconds().max(1);
    let next = i32::try_from(due + 1).unwrap_or(i32::MAX);
    every
        .checked_mul(next)
        .and_then(|wait| step.checked_add_signed(wait))
        .unwrap_or(Timestamp::MAX_UTC)
}

/// Asks for the checks that are due and were not answered: one question per metric, as Flagger does.
pub(super) fn questions(
    target: &Target,
    evidence: Option<&Evidence>,
    now: Timestamp,
) -> Vec<Query> {
    if !target.window.has_traffic {
        return Vec::new();
    }
    let checks = evidence.and_then(|evidence| evidence.checks(target));
    let metrics = target.analysis.metrics.iter().filter_map(|metric| {
        let known = |at: &Timestamp| checks.is_some_and(|c| c.value(&metric.name, *at).is_some());
        let from = times(target, now).find(|at| !known(at))?;
        let to = times(target, now).last()?;
        Some(Query {
            promql: promql_of(metric, target),
            at: to,
            range: Some((from, target.analysis.every)),
            lookback: None,
            purpose: Purpose::Checks(target.id.clone(), metric.name.clone()),
        })
    });
    metrics.collect()
}

/// The query of a metric, over one interval.
pub(super) fn promql_of(metric: &Metric, target: &Target) -> String {
    let window = promql::seconds(target.analysis.every);
    let own = format!(
        "reporter=\"{}\",{},{}",
        target.analysis.reporter.as_str(),
        promql::any_of(
            "destination_workload_namespace",
            [target.id.namespace.as_str()]
        ),
        promql::any_of(
            "destination_workload",
            target.candidate.iter().map(String::as_str)
        ),
    );
    match &metric.source {
        MetricSource::SuccessRate { .. } => {
            let all = format!("sum(rate(istio_requests_total{{{own}}}[{window}]))");
            let good = format!(
                "sum(rate(istio_requests_total{{{own},response_code!~\"5.*\"}}[{window}]))"
            );
            format!("{good} / {all} * 100")
        }
        MetricSource::Latency { quantile, .. } => format!(
            "histogram_quantile({quantile}, sum by (le) (rate(istio_request_duration_milliseconds_bucket{{{own}}}[{window}])))"
        ),
        MetricSource::Custom { query, .. } => {
            custom::filled_over(query, target, &target.candidate, target.analysis.every)
        }
    }
}

/// Lowest and highest value that passes, in the unit of the query.
fn limits(metric: &Metric) -> (Option<f64>, Option<f64>) {
    match &metric.source {
        MetricSource::SuccessRate { min } => (Some(*min), None),
        MetricSource::Latency { max, .. } => (None, Some(max.as_secs_f64() * 1000.0)),
        MetricSource::Custom { min, max, .. } => (*min, *max),
    }
}

/// Where the checks of a step stand.
struct Standing<'a> {
    target: &'a Target,
    checks: Option<&'a Checks>,
    strikes: Strikes,
    /// The last check that was made, and whether it passed.
    last: Option<(Timestamp, bool)>,
    /// Whether a tick found the counter full.
    is_out: bool,
    /// Whether a check is due that was not answered.
    is_behind: bool,
}

impl<'a> Standing<'a> {
    fn of(target: &'a Target, evidence: &'a Evidence, threshold: u32, now: Timestamp) -> Self {
        let mut standing = Self {
            target,
            checks: evidence.checks(target),
            strikes: Strikes::after(threshold, target.window.strikes),
            last: None,
            is_out: false,
            is_behind: false,
        };
        if !target.window.has_traffic {
            return standing;
        }
        for at in times(target, now) {
            if standing.strikes.is_out() {
                standing.is_out = true;
                break;
            }
            let Some(passed) = standing.passed(at) else {
                standing.is_behind = true;
                break;
            };
            standing.strikes.note(passed);
            standing.last = Some((at, passed));
        }
        standing
    }

    /// Whether a check passed; `None` while a metric of it was not answered.
    fn passed(&self, at: Timestamp) -> Option<bool> {
        let checks = self.checks?;
        let mut all = true;
        for metric in &self.target.analysis.metrics {
            let (min, max) = limits(metric);
            all &= passes(checks.value(&metric.name, at)?, min, max);
        }
        Some(all)
    }

    fn verdict(&self) -> Verdict {
        match self.last {
            _ if self.is_out => Verdict::Fail,
            _ if self.is_behind && self.checks.is_some_and(|c| c.fault.is_some()) => Verdict::Error,
            Some((_, true)) if !self.is_behind => Verdict::Pass,
            _ => Verdict::Inconclusive,
        }
    }

    fn finding(&self, metric: &Metric) -> Finding {
        let (min, max) = limits(metric);
        let value = self
            .last
            .and_then(|(at, _)| self.checks?.value(&metric.name, at));
        let passed = value.map(|value| passes(value, min, max));
        let shown = |value: f64| match metric.source {
            MetricSource::SuccessRate { .. } => text::percent(value),
            MetricSource::Latency { .. } => format!("{}ms", text::number(value)),
            MetricSource::Custom { .. } => text::number(value),
        };
        let threshold = match (&metric.source, min, max) {
            (MetricSource::SuccessRate { min }, ..) => format!(">= {}", text::percent(*min)),
            (MetricSource::Latency { quantile, max }, ..) => {
                format!("{} <= {}ms", text::quantile(*quantile), max.as_millis())
            }
            (MetricSource::Custom { .. }, min, max) => text::limits(min, max),
        };
        let sentence = match value {
            None => "not checked yet on this step".to_owned(),
            Some(None) => "the query gave no value, which fails the check".to_owned(),
            Some(Some(value)) => format!("{} where {threshold} is wanted", shown(value)),
        };
        Finding {
            metric: metric.name.clone(),
            verdict: match passed {
                _ if self.is_out && passed == Some(false) => Verdict::Fail,
                Some(true) => Verdict::Pass,
                Some(false) | None => Verdict::Inconclusive,
            },
            value: value.flatten().map(shown),
            threshold,
            samples: 0,
            failures: 0,
            window: self.target.analysis.every,
            query: promql_of(metric, self.target),
            sentence,
        }
    }

    fn sentence(&self, verdict: Verdict, findings: &[Finding]) -> String {
        let all: Vec<String> = findings
            .iter()
            .map(|finding| format!("{}: {}", finding.metric, finding.sentence))
            .collect();
        let last = all.join("; ");
        let count = format!(
            "{} of {} checks failed",
            self.strikes.failed(),
            self.strikes.threshold
        );
        match (verdict, self.last) {
            (Verdict::Error, _) => {
                let fault = self.checks.and_then(|checks| checks.fault.as_ref());
                fault.map(ToString::to_string).unwrap_or_default()
            }
            _ if !self.target.window.has_traffic => {
                "nobody but named users is sent to the candidate on this step, so nothing is checked"
                    .to_owned()
            }
            (Verdict::Fail, None) => format!("{count} before this step"),
            (_, None) => format!(
                "the first check is due {} after the step",
                text::length(self.target.analysis.every)
            ),
            (Verdict::Inconclusive, Some((_, false))) if self.strikes.is_out() => {
                format!("{last} ({count}; the next tick rolls back)")
            }
            _ => format!("{last} ({count})"),
        }
    }
}

/// The verdict by Flagger's rule.
pub(super) fn judge(
    target: &Target,
    evidence: &Evidence,
    threshold: u32,
    now: Timestamp,
) -> Judgement {
    let standing = Standing::of(target, evidence, threshold, now);
    let metrics = &target.analysis.metrics;
    let findings: Vec<Finding> = metrics.iter().map(|m| standing.finding(m)).collect();
    let verdict = standing.verdict();
    Judgement {
        verdict,
        allows: match verdict {
            Verdict::Pass => Allows::ALL,
            Verdict::Fail | Verdict::Inconclusive | Verdict::Error => Allows::default(),
        },
        compared: None,
        sentence: standing.sentence(verdict, &findings),
        findings,
        at: now,
        strikes: Some(standing.strikes.failed()),
        load: None,
    }
}

/// The threshold, if a target is judged by Flagger's rule.
pub(super) fn threshold(target: &Target) -> Option<u32> {
    match target.analysis.rule {
        Rule::Flagger { threshold } => Some(threshold),
        Rule::Serin => None,
    }
}
