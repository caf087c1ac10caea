//! Queries that count requests, for telemetry other than Istio's.

use super::super::mistake::Mistakes;
use super::super::{Counters, LatencyCounters, Unit};
use super::analysis::check_placeholders;
use crate::crd::{AnalysisSpec, CountersSpec, UnitSpec};
use crate::yaml::node::Node;

/// Placeholders of a query that counts.
const PLACEHOLDERS: [&str; 4] = ["namespace", "workload", "service", "canary"];

/// Reads `analysis.counters`.
pub(super) fn read(
    node: Option<&Node>,
    analysis: &AnalysisSpec,
    mistakes: &mut Mistakes,
) -> Option<Counters> {
    let written = node?.get("counters")?;
    let CountersSpec {
        requests,
        failures,
        rejections,
        latency,
    } = analysis.counters.clone()?;
    for key in ["reporter", "failures"] {
        if let Some((place, _)) = node.and_then(|node| node.entry(key)) {
            mistakes.error(
                place,
                format!("`{key}` is about Istio's counters, and `counters` take their place: say it in the queries"),
            );
        }
    }
    let places = [
        (written.get("requests"), Some(&requests)),
        (written.get("failures"), Some(&failures)),
        (written.get("rejections"), rejections.as_ref()),
        (
            written.get("latency").and_then(|node| node.get("buckets")),
            latency.as_ref().map(|latency| &latency.buckets),
        ),
    ];
    for (place, query) in places {
        if let (Some(place), Some(query)) = (place, query) {
            check(place, query, mistakes);
        }
    }
    Some(Counters {
        requests,
        failures,
        rejections,
        latency: latency.map(|latency| LatencyCounters {
            buckets: latency.buckets,
            unit: match latency.unit {
                None | Some(UnitSpec::S) => Unit::Seconds,
                Some(UnitSpec::Ms) => Unit::Milliseconds,
            },
        }),
    })
}

fn check(place: &Node, query: &str, mistakes: &mut Mistakes) {
    check_placeholders(place, query, &PLACEHOLDERS, mistakes);
    let names = |query: &str| query.split_whitespace().collect::<String>();
    if !names(query).contains("{{workload}}") {
        mistakes.error(
            place,
            "the query does not name `{{ workload }}`: it is asked for stable and for the candidate, and would count the same twice",
        );
    }
    for function in ["rate", "irate", "increase", "delta", "idelta", "deriv"] {
        let called = format!("{function}(");
        let is_called = names(query).match_indices(&called).any(|(at, _)| {
            !names(query)[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
        });
        if is_called {
            mistakes.error(
                place,
                format!("the query calls `{function}`: counters are read as they are, and Serin takes the differences itself"),
            );
        }
    }
}

/// A latency metric needs a histogram, and the spec's own counters take the place of Istio's.
pub(super) fn check_latency(counters: &Counters, metrics: &[Node], mistakes: &mut Mistakes) {
    if counters.latency.is_some() {
        return;
    }
    for metric in metrics
        .iter()
        .filter(|metric| metric.get("query").is_none())
    {
        let Some(name) = metric.get("name") else {
            continue;
        };
        let text = name.as_str().unwrap_or_default();
        if text == "latency" || text.starts_with("latency-") {
            mistakes.error(
                name,
                "a latency needs a histogram, and `counters` take the place of Istio's: give `counters.latency.buckets`",
            );
        }
    }
}
