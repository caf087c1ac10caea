//! Queries of a spec, tried out before a rollout depends on them: what to ask, and what is wrong with the answer.

use super::custom;
use super::plan::counted_by;
use super::promql;
use super::types::{Answer, AskError, Kind, Part, Purpose, Query, Series, Target};
use crate::domain::Timestamp;
use crate::spec::MetricSource;

/// Where a query is written in `spec.analysis`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// The `query` of the metric with this name.
    Metric(String),
    /// Below `counters`.
    Counters(&'static [&'static str]),
}

/// A query of a spec, as it would be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Where it is written.
    pub written: Written,
    /// As it is written.
    pub template: String,
    /// The question.
    pub query: Query,
    wants: Wants,
    /// What was filled in, by name of the placeholder.
    filled: Vec<(String, String)>,
}

/// What an answer has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    OneNumber,
    Counters {
        of_candidate: bool,
        has_bounds: bool,
    },
}

/// What is wrong with a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Whether it can never work; otherwise it does not work now.
    pub is_error: bool,
    /// One sentence.
    pub message: String,
    /// Byte of the template at which the server found the mistake.
    pub at: Option<usize>,
}

/// The queries that people wrote for a canary.
pub fn trials(target: &Target, now: Timestamp) -> Vec<Trial> {
    let mut found = Vec::new();
    let question = |promql: String| Query {
        promql,
        at: now,
        range: None,
        lookback: None,
        purpose: Purpose::Custom(Vec::new()),
    };
    for metric in &target.analysis.metrics {
        let MetricSource::Custom { query, .. } = &metric.source else {
            continue;
        };
        let every = target.analysis.every;
        let promql = custom::filled_over(query, target, &target.candidate, every);
        found.push(Trial {
            written: Written::Metric(metric.name.clone()),
            template: query.clone(),
            query: question(promql),
            wants: Wants::OneNumber,
            filled: filled(target, &target.candidate),
        });
    }
    let Some(counters) = &target.analysis.counters else {
        return found;
    };
    for kind in [Kind::Requests, Kind::Latency] {
        for (counted, text) in counted_by(target, kind) {
            let (place, template): (&'static [&'static str], _) = match counted.part {
                Part::Requests => (&["requests"], Some(&counters.requests)),
                Part::Failures => (&["failures"], Some(&counters.failures)),
                Part::Rejections => (&["rejections"], counters.rejections.as_ref()),
                Part::Buckets(_) => (
                    &["latency", "buckets"],
                    counters.latency.as_ref().map(|latency| &latency.buckets),
                ),
            };
            let workloads = if counted.of_candidate {
                &target.candidate
            } else {
                &target.stable
            };
            found.push(Trial {
                written: Written::Counters(place),
                template: template.cloned().unwrap_or_default(),
                query: question(text),
                wants: Wants::Counters {
                    of_candidate: counted.of_candidate,
                    has_bounds: matches!(counted.part, Part::Buckets(_)),
                },
                filled: filled(target, workloads),
            });
        }
    }
    found
}

const PLACEHOLDERS: [&str; 6] = [
    "namespace",
    "workload",
    "stable",
    "service",
    "canary",
    "window",
];

/// What stands for each placeholder.
fn filled(target: &Target, workloads: &[String]) -> Vec<(String, String)> {
    let value = |name: &&str| {
        let value = custom::value_of(name, target, workloads, target.analysis.every);
        Some(((*name).to_owned(), value?))
    };
    PLACEHOLDERS.iter().filter_map(value).collect()
}

impl Trial {
    /// What is wrong, by the server's answer. An error is about the server itself: nothing was found out.
    ///
    /// # Errors
    /// The server gave no answer that says anything about the query.
    pub fn complaint(&self, answer: &Answer) -> Result<Option<Complaint>, AskError> {
        let error = |message: String| {
            Some(Complaint {
                is_error: true,
                message,
                at: None,
            })
        };
        let warning = |message: String| {
            Some(Complaint {
                is_error: false,
                message,
                at: None,
            })
        };
        let series = match answer {
            Answer::Series(series) => series,
            Answer::Failed(AskError::BadQuery(words)) => {
                let (words, at) = self.placed(words);
                return Ok(Some(Complaint {
                    is_error: true,
                    message: format!("Prometheus rejects the query: {words}"),
                    at,
                }));
            }
            Answer::Failed(AskError::Unusable(words)) => {
                return Ok(error(format!(
                    "the query gives an unusable answer: {words}"
                )));
            }
            Answer::Failed(AskError::Partial(words)) => {
                return Ok(warning(format!(
                    "the query gives a partial answer: {words}"
                )));
            }
            Answer::Failed(other) => return Err(other.clone()),
        };
        Ok(match self.wants {
            Wants::OneNumber => match series.as_slice() {
                [] => warning(
                    "the query gives no series now: without a value there is no verdict".to_owned(),
                ),
                [one] => match one.samples.last() {
                    Some((_, value)) if value.is_finite() => None,
                    Some((_, value)) => {
                        warning(format!("the query gives {value} now, a number is wanted"))
                    }
                    None => warning("the query gives no sample now".to_owned()),
                },
                many => error(format!(
                    "the query gives {} series where one number is wanted; aggregate them, for example with `sum`",
                    many.len()
                )),
            },
            Wants::Counters {
                of_candidate,
                has_bounds,
            } => self
                .counters_complaint(series, of_candidate, has_bounds)
                .and_then(|(is_error, message)| {
                    if is_error {
                        error(message)
                    } else {
                        warning(message)
                    }
                }),
        })
    }

    fn counters_complaint(
        &self,
        series: &[Series],
        of_candidate: bool,
        has_bounds: bool,
    ) -> Option<(bool, String)> {
        let values = || {
            series
                .iter()
                .flat_map(|one| &one.samples)
                .map(|(_, value)| *value)
        };
        if let Some(value) = values().find(|v| !(v.is_finite() && *v >= 0.0 && v.fract() == 0.0)) {
            return Some((
                true,
                format!(
                    "the query gives {value}, a counter is a whole number that only rises: no `rate`, no gauge, no recording rule of one"
                ),
            ));
        }
        if has_bounds && let Some(one) = series.iter().find(|one| one.labels.get("le").is_none()) {
            let names: Vec<&str> = one.labels.iter().map(|(name, _)| name).collect();
            let has = if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            };
            return Some((
                true,
                format!(
                    "the query gives a series without the label `le` (it has {has}): buckets are told apart by it"
                ),
            ));
        }
        // There is no candidate yet, mostly. Failures may have been none.
        let is_expected = !of_candidate && self.written != Written::Counters(&["failures"]);
        let is_expected = is_expected && self.written != Written::Counters(&["rejections"]);
        (series.is_empty() && is_expected)
            .then(|| (false, "the query gives no series for stable now".to_owned()))
    }

    /// The server's words without the place that it names, and that place in the template.
    fn placed(&self, words: &str) -> (String, Option<usize>) {
        let bare = words
            .strip_prefix("invalid parameter \"query\": ")
            .unwrap_or(words);
        let mut parts = bare.splitn(3, ':');
        let numbers = [parts.next(), parts.next()].map(|part| part?.trim().parse::<usize>().ok());
        let ([Some(line), Some(column)], Some(rest)) = (numbers, parts.next()) else {
            return (bare.to_owned(), None);
        };
        let promql = &self.query.promql;
        let begins: usize = promql
            .split_inclusive('\n')
            .take(line.saturating_sub(1))
            .map(str::len)
            .sum();
        let offset = (begins + column.saturating_sub(1)).min(promql.len());
        let value = |name: &str| {
            let found = self.filled.iter().find(|(known, _)| known == name);
            found.map(|(_, text)| text.clone())
        };
        let at = promql::origin(&self.template, value, offset);
        (rest.trim().to_owned(), Some(at))
    }
}
