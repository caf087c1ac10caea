//! How the candidate is judged.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::super::mistake::{Mistakes, listed, quoted, suggestion};
use super::super::{
    Analysis, Counting, Metric, MetricSource, OnFailure, OnInconclusive, Reporter, Rule, duration,
};
use super::{counters, part};
use crate::crd::{
    AnalysisSpec, FailureAction, InconclusiveAction, MetricSpec, ReporterSpec, RuleSpec,
};
use crate::yaml::node::Node;

/// Time between two looks at Prometheus when the spec does not say: the usual scrape interval.
const DEFAULT_EVERY: Duration = Duration::from_secs(15);
/// Time between two checks of Flagger's rule when the spec does not say: that of Flagger's tutorial.
const FLAGGERS_INTERVAL: Duration = Duration::from_secs(60);
/// Chance of rolling back a candidate that is no worse than stable when the spec does not say.
const DEFAULT_ALPHA: f64 = 0.01;
/// Lowest success rate in per cent when the spec names no metric.
const DEFAULT_SUCCESS_RATE: f64 = 99.0;
const DEFAULT_QUANTILE: f64 = 0.99;
/// Placeholders of a custom query.
const PLACEHOLDERS: [&str; 6] = [
    "namespace",
    "workload",
    "stable",
    "service",
    "canary",
    "window",
];
/// Upper bounds of Istio's latency histogram, in milliseconds, where a whole number of them (Envoy's defaults).
const BUCKETS: [u64; 18] = [
    1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000,
    1_800_000, 3_600_000,
];

/// Reads `analysis`.
pub(super) fn read(spec: &Node, mistakes: &mut Mistakes) -> Analysis {
    let node = spec.get("analysis");
    let metrics = node.and_then(|node| node.get("metrics"));
    let written = metrics.map_or(&[][..], Node::items);
    let analysis: AnalysisSpec = node.and_then(without_metrics).unwrap_or_default();
    let counters = counters::read(node, &analysis, mistakes);
    let is_istios = counters.is_none();
    let read: Vec<Metric> = written
        .iter()
        .filter_map(|item| metric(item, is_istios, mistakes))
        .collect();
    check_unique(written, mistakes);
    let rule = rule(node, &analysis, mistakes);
    if let Some(counters) = &counters {
        counters::check_latency(counters, written, mistakes);
    }
    let skip = analysis.skip.unwrap_or(false);
    if let Some(metrics) = metrics.filter(|list| list.items().is_empty() && !skip)
        && metrics.as_str().is_none()
    {
        mistakes.error(
            metrics,
            "there is nothing to judge by: give a metric, leave `metrics` out for the default, or set `skip: true`",
        );
    }
    let every = time(node, "every", mistakes);
    let deadline = time(node, "deadline", mistakes);
    let on_inconclusive = match analysis.on_inconclusive {
        None | Some(InconclusiveAction::Hold) => OnInconclusive::Hold,
        Some(InconclusiveAction::Rollback) => OnInconclusive::Rollback,
        Some(InconclusiveAction::Promote) => OnInconclusive::Promote,
    };
    if on_inconclusive != OnInconclusive::Hold
        && deadline.is_none()
        && let Some((key, _)) = node.and_then(|node| node.entry("onInconclusive"))
    {
        mistakes.error(
            key,
            "`onInconclusive` acts when `deadline` has passed: set `deadline` too, such as `1h`",
        );
    }
    let warmup = node
        .and_then(|node| node.get("warmup"))
        .and_then(|value| duration::read(value.as_str()?));
    let counting = counting(node, &analysis, warmup, mistakes);
    let compare = analysis.compare.unwrap_or_default();
    Analysis {
        rule,
        every: every.unwrap_or(match rule {
            Rule::Serin => DEFAULT_EVERY,
            Rule::Flagger { .. } => FLAGGERS_INTERVAL,
        }),
        metrics: if metrics.is_none() && !skip {
            vec![default_metric()]
        } else {
            read
        },
        on_failure: match analysis.on_failure {
            None | Some(FailureAction::Rollback) => OnFailure::Rollback,
            Some(FailureAction::Hold) => OnFailure::Hold,
        },
        on_inconclusive,
        deadline,
        alpha: compare.alpha.unwrap_or(DEFAULT_ALPHA),
        compare: rule == Rule::Serin && compare.enabled.unwrap_or(true),
        skip,
        reporter: match analysis.reporter {
            None | Some(ReporterSpec::Destination) => Reporter::Destination,
            Some(ReporterSpec::Source) => Reporter::Source,
            Some(ReporterSpec::Waypoint) => Reporter::Waypoint,
        },
        counting,
        counters,
    }
}

/// By whose rule. What Flagger does not have is refused rather than ignored.
fn rule(node: Option<&Node>, analysis: &AnalysisSpec, mistakes: &mut Mistakes) -> Rule {
    let mut refuse = |keys: &[&str], why: &str| {
        for key in keys {
            if let Some((key, _)) = node.and_then(|node| node.entry(key)) {
                let name = key.as_str().unwrap_or_default();
                mistakes.error(key, format!("`{name}` does not go with {why}"));
            }
        }
    };
    match analysis.rule {
        None | Some(RuleSpec::Serin) => {
            let why = "Serin's own rule, which counts requests rather than checks; it goes with `rule: flagger`";
            refuse(&["threshold"], why);
            Rule::Serin
        }
        Some(RuleSpec::Flagger) => {
            let keys = ["compare", "counters", "failures", "stepRequests", "warmup"];
            refuse(&keys, "`rule: flagger`, which knows nothing like it");
            Rule::Flagger {
                threshold: analysis.threshold.unwrap_or(1).max(1),
            }
        }
    }
}

/// What fails, and which differences matter.
fn counting(
    node: Option<&Node>,
    analysis: &AnalysisSpec,
    warmup: Option<Duration>,
    mistakes: &mut Mistakes,
) -> Counting {
    let usual = Counting::default();
    let failures = analysis.failures.clone().unwrap_or_default();
    let compare = analysis.compare.clone().unwrap_or_default();
    let written = node
        .and_then(|node| node.get("failures"))
        .and_then(|node| node.get("codes"));
    for code in written.map_or(&[][..], Node::items) {
        let text = code.as_str().unwrap_or_default();
        let is_class = matches!(text, "1xx" | "2xx" | "3xx" | "4xx" | "5xx");
        let is_code = text == "0" || (text.len() == 3 && text.bytes().all(|c| c.is_ascii_digit()));
        if !is_class && !is_code {
            mistakes.error(
                code,
                format!(
                    "{} is no response code, expected three digits or a class such as `5xx`",
                    quoted(text)
                ),
            );
        }
    }
    Counting {
        codes: failures.codes.unwrap_or(usual.codes),
        grpc: failures.grpc.unwrap_or(usual.grpc),
        flags: failures.flags.unwrap_or(usual.flags),
        ignored_flags: failures.ignored_flags.unwrap_or(usual.ignored_flags),
        tolerance: compare.tolerance.unwrap_or(usual.tolerance),
        floor: compare.floor.or(usual.floor),
        client_errors: compare.client_errors.unwrap_or(usual.client_errors),
        routing: compare.routing.unwrap_or(usual.routing),
        step_requests: analysis.step_requests.unwrap_or(usual.step_requests),
        warmup: warmup.unwrap_or(usual.warmup),
    }
}

/// The rest of the analysis, so that a mistake in a metric hides none elsewhere.
fn without_metrics(node: &Node) -> Option<AnalysisSpec> {
    let mut value = node.to_json();
    value.as_object_mut()?.remove("metrics");
    serde_json::from_value(value).ok()
}

fn default_metric() -> Metric {
    Metric {
        name: "success-rate".into(),
        source: MetricSource::SuccessRate {
            min: DEFAULT_SUCCESS_RATE,
        },
        min_requests: None,
    }
}

/// A duration of at least a second.
fn time(node: Option<&Node>, key: &str, mistakes: &mut Mistakes) -> Option<Duration> {
    let value = node?.get(key)?;
    let time = duration::read(value.as_str()?)?;
    if time < Duration::from_secs(1) {
        mistakes.error(
            value,
            format!(
                "`spec.analysis.{key}` is {}, expected at least `1s`",
                duration::written(time)
            ),
        );
    }
    Some(time)
}

fn check_unique(metrics: &[Node], mistakes: &mut Mistakes) {
    let mut seen = BTreeMap::new();
    for name in metrics.iter().filter_map(|metric| metric.get("name")) {
        let text = name.as_str().unwrap_or_default();
        if let Some(line) = seen.insert(text, name.span.line) {
            mistakes.error(
                name,
                format!(
                    "a metric called {} is there already, on line {line}",
                    quoted(text)
                ),
            );
        }
    }
}

fn metric(item: &Node, is_istios: bool, mistakes: &mut Mistakes) -> Option<Metric> {
    if let Some((name, node)) = item
        .get("name")
        .and_then(|node| Some((node.as_str()?, node)))
        && !name.is_empty()
        && !name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    {
        mistakes.error(
            node,
            format!(
                "the metric's name is {}, expected letters, digits, `-`, `_` and `.`",
                quoted(name)
            ),
        );
    }
    let metric: MetricSpec = part(Some(item))?;
    let is = |word: &str| {
        metric.name == word
            || metric
                .name
                .strip_prefix(word)
                .is_some_and(|rest| rest.starts_with('-'))
    };
    let source = if let Some(query) = &metric.query {
        custom(item, &metric, query, mistakes)
    } else if is("success-rate") {
        success_rate(item, &metric, mistakes)
    } else if is("latency") {
        latency(item, &metric, is_istios, mistakes)
    } else {
        let place = item.get("name").unwrap_or(item);
        mistakes.error(
            place,
            format!(
                "the metric {} is not built in{}; built in are `success-rate` and `latency`, others need a `query`",
                quoted(&metric.name),
                suggestion(&metric.name, ["success-rate", "latency"])
            ),
        );
        None
    };
    Some(Metric {
        name: metric.name,
        source: source?,
        min_requests: metric.min_requests,
    })
}

/// Fields that make no sense for this sort of metric.
fn refuse(item: &Node, keys: &[&str], what: &str, mistakes: &mut Mistakes) {
    for (key, _) in keys.iter().filter_map(|key| item.entry(key)) {
        let name = key.as_str().unwrap_or_default();
        mistakes.error(key, format!("`{name}` does not go with {what}"));
    }
}

fn success_rate(item: &Node, metric: &MetricSpec, mistakes: &mut Mistakes) -> Option<MetricSource> {
    refuse(
        item,
        &["max", "quantile"],
        "`success-rate`, which has a `min` in per cent",
        mistakes,
    );
    let Some(min) = metric.min else {
        mistakes.error(
            item,
            "`success-rate` needs a `min` in per cent, such as `min: 99`",
        );
        return None;
    };
    let place = item.get("min").unwrap_or(item);
    if min >= 100.0 {
        mistakes.error(
            place,
            format!(
                "`min` is {min}, expected less than 100: no number of requests can show that none ever fails; 99.9 \
                 is strict"
            ),
        );
    } else if min <= 0.0 {
        mistakes.error(
            place,
            format!("`min` is {min}, expected per cent above 0 and below 100, such as 99"),
        );
    } else if min <= 1.0 {
        mistakes.warning(
            place,
            format!(
                "`min` is {min} per cent; if you mean {}, write that",
                min * 100.0
            ),
        );
    }
    Some(MetricSource::SuccessRate { min })
}

fn latency(
    item: &Node,
    metric: &MetricSpec,
    is_istios: bool,
    mistakes: &mut Mistakes,
) -> Option<MetricSource> {
    refuse(
        item,
        &["min"],
        "`latency`, which has a `max` such as `500ms`",
        mistakes,
    );
    let quantile = metric.quantile.unwrap_or(DEFAULT_QUANTILE);
    if quantile <= 0.0 || quantile >= 1.0 {
        mistakes.error(
            item.get("quantile").unwrap_or(item),
            format!("`quantile` is {quantile}, expected a number between 0 and 1, such as 0.99"),
        );
    }
    let max = match &metric.max {
        Some(Value::String(text)) => duration::read(text)?,
        Some(Value::Number(number)) => {
            let place = item.get("max").unwrap_or(item);
            mistakes.error(
                place,
                format!("`max` of a latency needs a unit: `{number}ms` or `{number}s`"),
            );
            return None;
        }
        Some(_) => return None,
        None => {
            mistakes.error(item, "`latency` needs a `max`, such as `max: 500ms`");
            return None;
        }
    };
    if is_istios {
        check_bucket(max, item.get("max").unwrap_or(item), mistakes);
    }
    Some(MetricSource::Latency { quantile, max })
}

/// Latency is counted in buckets, so a limit between two of them can only be judged by the lower one.
fn check_bucket(max: Duration, place: &Node, mistakes: &mut Mistakes) {
    let millis = u64::try_from(max.as_millis()).unwrap_or(u64::MAX);
    let written = |millis: u64| duration::written(Duration::from_millis(millis));
    let below = BUCKETS.iter().rev().find(|bucket| **bucket <= millis);
    let above = BUCKETS.iter().find(|bucket| **bucket > millis);
    match (below, above) {
        (Some(exact), _) if *exact == millis => {}
        (Some(below), above) => mistakes.warning(
            place,
            format!(
                "Istio counts latency in buckets and has none at {}: it is judged as {}{}; other buckets can be set \
                 with the pod annotation `sidecar.istio.io/statsHistogramBuckets`",
                written(millis),
                written(*below),
                above.map_or_else(String::new, |above| format!(", the next one is {}", written(*above)))
            ),
        ),
        (None, _) => mistakes.error(place, "`max` of a latency is at least `1ms`"),
    }
}

fn custom(
    item: &Node,
    metric: &MetricSpec,
    query: &str,
    mistakes: &mut Mistakes,
) -> Option<MetricSource> {
    refuse(item, &["quantile"], "a `query`", mistakes);
    let place = item.get("query").unwrap_or(item);
    check_placeholders(place, query, &PLACEHOLDERS, mistakes);
    let max = match &metric.max {
        None => None,
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(_)) => {
            let place = item.get("max").unwrap_or(item);
            mistakes.error(
                place,
                "`max` of a query is a number, in the unit that the query yields",
            );
            return None;
        }
        Some(_) => return None,
    };
    match (metric.min, max) {
        (None, None) => mistakes.error(item, "a metric needs a limit: `min`, `max`, or both"),
        (Some(min), Some(max)) if min > max => mistakes.error(
            item.get("min").unwrap_or(item),
            format!("`min` is {min} and `max` is {max}: no value is within both"),
        ),
        _ => {}
    }
    Some(MetricSource::Custom {
        query: query.to_owned(),
        min: metric.min,
        max,
    })
}

pub(super) fn check_placeholders(
    place: &Node,
    query: &str,
    known: &[&str],
    mistakes: &mut Mistakes,
) {
    if query.trim().is_empty() {
        mistakes.error(place, "the query is empty");
    }
    let mut rest = query;
    while let Some((_, after)) = rest.split_once("{{") {
        let Some((name, tail)) = after.split_once("}}") else {
            mistakes.error(place, "`{{` without `}}` in the query");
            return;
        };
        let name = name.trim();
        if !known.contains(&name) {
            mistakes.error(
                place,
                format!(
                    "unknown placeholder {} in the query{}; known are {}",
                    quoted(&format!("{{{{ {name} }}}}")),
                    suggestion(name, known.iter().copied()),
                    listed(known.iter().copied())
                ),
            );
        }
        rest = tail;
    }
}
