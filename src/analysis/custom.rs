//! Metrics that users write themselves: one number per look, no counts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::promql;
use super::types::{Answer, AskError, CUSTOM_LABEL, Series, Target};
use crate::domain::{CanaryId, Timestamp};
use crate::spec::MetricSource;

/// Looks beyond the limit in a row that make a fail. A single number carries no count that chance could be excluded
/// with; three looks at the default of 15 s outlast one scrape gone wrong.
pub const BAD_LOOKS: u32 = 3;

/// Longest time that `{{ window }}` covers, so that a query over a long step neither grows without bound nor
/// averages a late regression away.
pub(super) const LONGEST_WINDOW_SECONDS: u64 = 600;

/// Most strikes that count: 2^6 = 64 looks alone.
const MAX_STRIKES: u32 = 6;

/// What one look at a custom metric showed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Look {
    /// A number.
    Value(f64),
    /// No series, no sample, or a number that says nothing (NaN, infinite: mostly a division by zero).
    Nothing(&'static str),
    /// An answer that is not one number.
    NotOneNumber(usize),
    /// No usable answer.
    Failed(AskError),
}

/// A look with what a batch can say of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    at: Timestamp,
    look: Look,
    /// Whether the look was taken together with others.
    batched: bool,
    /// Whether the batch failed for a reason that may lie in one of its members.
    suspect: bool,
}

/// Whether somebody's query is asked apart from those of others, because a batch with it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Apart {
    strikes: u32,
    looks: u32,
}

impl Apart {
    /// Notes a look. Whoever fails alone stays alone; the others go back after 2, 4, 8, … looks, so that a batch which
    /// fails only as a whole costs less and less.
    pub(super) fn note(&mut self, batched: bool, suspect: bool, failed: bool) {
        if batched && suspect {
            self.strikes = (self.strikes + 1).min(MAX_STRIKES);
            self.looks = 1 << self.strikes;
        } else if !batched && !failed {
            self.looks = self.looks.saturating_sub(1);
        }
    }

    pub(super) fn is_alone(self) -> bool {
        self.looks > 0
    }
}

/// The looks at one custom metric of one canary.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Looks {
    asked: Option<MetricSource>,
    last: Option<(Timestamp, Look)>,
    bad: u32,
    apart: Apart,
}

impl Looks {
    /// The last look.
    pub(super) fn last(&self) -> Option<(Timestamp, &Look)> {
        self.last.as_ref().map(|(at, look)| (*at, look))
    }

    /// Looks beyond the limit in a row.
    pub(super) fn bad(&self) -> u32 {
        self.bad
    }

    /// Whether the metric is asked on its own, because a batch with it failed.
    pub(super) fn is_alone(&self) -> bool {
        self.apart.is_alone()
    }
}

/// Whether a value is within limits that may be open on either side.
pub(super) fn is_within(value: f64, min: Option<f64>, max: Option<f64>) -> bool {
    min.is_none_or(|min| value >= min) && max.is_none_or(|max| value <= max)
}

/// Fills in what a canary's query may refer to. Several workloads are joined for use in a regular expression.
pub(super) fn filled(template: &str, target: &Target, now: Timestamp) -> String {
    let since = (now - target.window.step).to_std().unwrap_or_default();
    filled_over(
        template,
        target,
        &target.candidate,
        since.max(target.analysis.every),
    )
}

/// The same over a window of this length, with these workloads.
pub(super) fn filled_over(
    template: &str,
    target: &Target,
    workloads: &[String],
    window: Duration,
) -> String {
    promql::fill(template, |name| value_of(name, target, workloads, window))
}

/// What stands for a placeholder.
pub(super) fn value_of(
    name: &str,
    target: &Target,
    workloads: &[String],
    window: Duration,
) -> Option<String> {
    let text = match name {
        "namespace" => target.id.namespace.clone(),
        "workload" => workloads.join("|"),
        "stable" => target.stable.join("|"),
        "service" => target.service.clone(),
        "canary" => target.id.name.clone(),
        "window" => format!("{}s", window.as_secs().clamp(1, LONGEST_WINDOW_SECONDS)),
        _ => return None,
    };
    Some(text)
}

/// Reads the answer to a batch: one look per member. `alive`: Prometheus answered something else in this tick.
pub(super) fn read(
    members: &[(CanaryId, String)],
    at: Timestamp,
    answer: &Answer,
    alive: bool,
) -> Vec<Seen> {
    let batched = members.len() > 1;
    let seen = |look: Look, suspect: bool| Seen {
        at,
        look,
        batched,
        suspect,
    };
    let series = match answer {
        Answer::Series(series) => series,
        Answer::Failed(error) => {
            let suspect = error.may_be_of_one(alive);
            return members
                .iter()
                .map(|_| seen(Look::Failed(error.clone()), suspect))
                .collect();
        }
    };
    if !batched {
        let all: Vec<&Series> = series.iter().collect();
        return vec![seen(one_number(&all), false)];
    }
    let mut by_index: BTreeMap<usize, Vec<&Series>> = BTreeMap::new();
    for one in series {
        let index = one
            .labels
            .get(CUSTOM_LABEL)
            .and_then(|text| text.parse().ok());
        let Some(index) = index.filter(|index| *index < members.len()) else {
            let stray =
                AskError::Unusable("a series of a custom metric lacks its number".to_owned());
            return members
                .iter()
                .map(|_| seen(Look::Failed(stray.clone()), true))
                .collect();
        };
        by_index.entry(index).or_default().push(one);
    }
    (0..members.len())
        .map(|index| {
            let own = by_index.remove(&index).unwrap_or_default();
            seen(one_number(&own), false)
        })
        .collect()
}

fn one_number(series: &[&Series]) -> Look {
    let [one] = series else {
        return match series.len() {
            0 => Look::Nothing("no series"),
            many => Look::NotOneNumber(many),
        };
    };
    match one.samples.last() {
        None => Look::Nothing("no sample"),
        Some((_, value)) if value.is_nan() => Look::Nothing("NaN"),
        Some((_, value)) if value.is_infinite() => Look::Nothing("an infinite value"),
        Some((_, value)) => Look::Value(*value),
    }
}

/// Adds a look to the looks of a metric; a metric that the spec no longer has is dropped.
pub(super) fn note(
    custom: &mut BTreeMap<String, Looks>,
    target: &Target,
    metric: &str,
    seen: Seen,
) {
    let metrics = &target.analysis.metrics;
    custom.retain(|name, _| metrics.iter().any(|m| m.name == *name));
    let Some(metric) = metrics.iter().find(|m| m.name == metric) else {
        return;
    };
    let MetricSource::Custom { min, max, .. } = &metric.source else {
        return;
    };
    let looks = custom.entry(metric.name.clone()).or_default();
    if looks.asked.as_ref() != Some(&metric.source) {
        *looks = Looks {
            asked: Some(metric.source.clone()),
            ..Looks::default()
        };
    }
    if looks.last.as_ref().is_some_and(|(at, _)| seen.at < *at) {
        return;
    }
    let again = looks.last.as_ref().is_some_and(|(at, _)| *at == seen.at);
    match &seen.look {
        Look::Value(value) if is_within(*value, *min, *max) => looks.bad = 0,
        Look::Value(_) if !again => looks.bad = looks.bad.saturating_add(1),
        // A look without a number is no evidence in either direction.
        Look::Value(_) | Look::Nothing(_) | Look::NotOneNumber(_) | Look::Failed(_) => {}
    }
    let failed = matches!(seen.look, Look::Failed(_));
    looks.apart.note(seen.batched, seen.suspect, failed);
    looks.last = Some((seen.at, seen.look));
}
