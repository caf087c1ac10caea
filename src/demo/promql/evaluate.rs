//! The value of a query at one moment.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::{Expr, Matcher, Operator, Selector, Value};
use crate::demo::traffic::{Labels, Traffic};
use crate::domain::Timestamp;

/// How old a sample may be to stand for the present, as in Prometheus.
const LOOKBACK: TimeDelta = TimeDelta::minutes(5);

impl Selector {
    fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|(name, matcher)| {
            let value = labels.get(name).map_or("", String::as_str);
            match matcher {
                Matcher::Is(wanted) => value == wanted,
                Matcher::IsNot(unwanted) => value != unwanted,
                Matcher::Like(regex) => regex.is_match(value),
                Matcher::Unlike(regex) => !regex.is_match(value),
            }
        })
    }

    fn instant(&self, traffic: &Traffic, now: Timestamp) -> Vec<(Labels, f64)> {
        let at = self.at.unwrap_or(now);
        let matching = traffic.series().filter(|(labels, _)| self.matches(labels));
        matching
            .filter_map(|(labels, samples)| {
                let after = samples.partition_point(|(t, _)| *t <= at);
                let (t, value) = samples.get(after.checked_sub(1)?)?;
                (*t > at - LOOKBACK).then(|| (labels.clone(), *value))
            })
            .collect()
    }

    /// What each series grew by within the range, resets included, and nothing extrapolated.
    fn growth(&self, traffic: &Traffic, now: Timestamp) -> Vec<(Labels, f64)> {
        let at = self.at.unwrap_or(now);
        let from = at - self.range.unwrap_or_default();
        let matching = traffic.series().filter(|(labels, _)| self.matches(labels));
        matching
            .filter_map(|(labels, samples)| {
                let inside: Vec<f64> = samples
                    .iter()
                    .filter(|(t, _)| *t >= from && *t <= at)
                    .map(|(_, value)| *value)
                    .collect();
                if inside.len() < 2 {
                    return None;
                }
                let steps = inside.iter().zip(inside.iter().skip(1));
                let grown = steps.map(|(a, b)| if b >= a { b - a } else { *b }).sum();
                Some((without_name(labels), grown))
            })
            .collect()
    }
}

fn without_name(labels: &Labels) -> Labels {
    let mut labels = labels.clone();
    labels.remove("__name__");
    labels
}

/// Evaluates a query at one moment.
pub(in crate::demo) fn evaluate(
    expr: &Expr,
    traffic: &Traffic,
    now: Timestamp,
) -> Result<Value, String> {
    match expr {
        Expr::Number(number) => Ok(Value::Scalar(*number)),
        Expr::Text(_) => Err("a string has no value here".to_owned()),
        Expr::Selector(selector) if selector.range.is_some() => {
            Err("a range of samples is only of use inside `increase` or `rate`".to_owned())
        }
        Expr::Selector(selector) => Ok(Value::Vector(selector.instant(traffic, now))),
        Expr::Call(name, arguments) => call(name, arguments, traffic, now),
        Expr::Aggregate {
            how,
            without,
            labels,
            of,
        } => {
            let vector = vector(evaluate(of, traffic, now)?)?;
            Ok(Value::Vector(aggregate(how, *without, labels, vector)))
        }
        Expr::Binary(operator, left, right) => binary(
            *operator,
            evaluate(left, traffic, now)?,
            evaluate(right, traffic, now)?,
        ),
    }
}

fn vector(value: Value) -> Result<Vec<(Labels, f64)>, String> {
    match value {
        Value::Vector(vector) => Ok(vector),
        Value::Scalar(_) => Err("expected type instant vector, got scalar".to_owned()),
    }
}

fn call(
    name: &str,
    arguments: &[Expr],
    traffic: &Traffic,
    now: Timestamp,
) -> Result<Value, String> {
    match (name, arguments) {
        ("increase" | "rate", [Expr::Selector(selector)]) if selector.range.is_some() => {
            let seconds = selector.range.unwrap_or_default().num_milliseconds() as f64 / 1000.0;
            let per = if name == "rate" { seconds } else { 1.0 };
            let grown = selector.growth(traffic, now);
            Ok(Value::Vector(
                grown.into_iter().map(|(l, v)| (l, v / per)).collect(),
            ))
        }
        ("vector", [of]) => match evaluate(of, traffic, now)? {
            Value::Scalar(value) => Ok(Value::Vector(vec![(Labels::new(), value)])),
            Value::Vector(_) => Err("expected type scalar in call to function vector".to_owned()),
        },
        ("scalar", [of]) => {
            let vector = vector(evaluate(of, traffic, now)?)?;
            Ok(Value::Scalar(match vector.as_slice() {
                [(_, value)] => *value,
                _ => f64::NAN,
            }))
        }
        ("histogram_quantile", [quantile, of]) => {
            let Value::Scalar(quantile) = evaluate(quantile, traffic, now)? else {
                return Err("expected a number as the quantile".to_owned());
            };
            let buckets = vector(evaluate(of, traffic, now)?)?;
            Ok(Value::Vector(histogram_quantile(quantile, buckets)))
        }
        (
            "label_replace",
            [
                of,
                Expr::Text(to),
                Expr::Text(value),
                Expr::Text(from),
                Expr::Text(regex),
            ],
        ) if from.is_empty() && regex.is_empty() => {
            let mut vector = vector(evaluate(of, traffic, now)?)?;
            for (labels, _) in &mut vector {
                labels.insert(to.clone(), value.clone());
            }
            Ok(Value::Vector(vector))
        }
        _ => Err(format!(
            "the demo's Prometheus does not know `{name}` with these arguments"
        )),
    }
}

fn aggregate(
    how: &str,
    without: bool,
    by: &[String],
    vector: Vec<(Labels, f64)>,
) -> Vec<(Labels, f64)> {
    let mut groups: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
    for (labels, value) in vector {
        let kept = labels
            .into_iter()
            .filter(|(name, _)| name != "__name__" && by.contains(name) != without);
        groups.entry(kept.collect()).or_default().push(value);
    }
    let value = |values: &[f64]| match how {
        "min" => values.iter().copied().fold(f64::INFINITY, f64::min),
        "max" => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        "count" => values.len() as f64,
        "avg" => values.iter().sum::<f64>() / values.len() as f64,
        _ => values.iter().sum(),
    };
    groups
        .into_iter()
        .map(|(labels, values)| (labels, value(&values)))
        .collect()
}

fn binary(operator: Operator, left: Value, right: Value) -> Result<Value, String> {
    let apply = |a: f64, b: f64| match operator {
        Operator::Plus => a + b,
        Operator::Minus => a - b,
        Operator::Times => a * b,
        Operator::Over | Operator::Or => a / b,
    };
    match (operator, left, right) {
        (Operator::Or, Value::Vector(mut left), Value::Vector(right)) => {
            let new: Vec<_> = right
                .into_iter()
                .filter(|(labels, _)| {
                    left.iter()
                        .all(|(known, _)| without_name(known) != without_name(labels))
                })
                .collect();
            left.extend(new);
            Ok(Value::Vector(left))
        }
        (Operator::Or, ..) => {
            Err("set operator \"or\" not allowed in binary scalar expression".to_owned())
        }
        (_, Value::Scalar(a), Value::Scalar(b)) => Ok(Value::Scalar(apply(a, b))),
        (_, Value::Vector(a), Value::Scalar(b)) => Ok(Value::Vector(
            a.into_iter()
                .map(|(l, v)| (without_name(&l), apply(v, b)))
                .collect(),
        )),
        (_, Value::Scalar(a), Value::Vector(b)) => Ok(Value::Vector(
            b.into_iter()
                .map(|(l, v)| (without_name(&l), apply(a, v)))
                .collect(),
        )),
        (_, Value::Vector(a), Value::Vector(b)) => {
            let right: BTreeMap<Labels, f64> =
                b.into_iter().map(|(l, v)| (without_name(&l), v)).collect();
            let matched = a.into_iter().filter_map(|(labels, value)| {
                let labels = without_name(&labels);
                let other = right.get(&labels)?;
                Some((labels, apply(value, *other)))
            });
            Ok(Value::Vector(matched.collect()))
        }
    }
}

fn histogram_quantile(quantile: f64, buckets: Vec<(Labels, f64)>) -> Vec<(Labels, f64)> {
    let mut groups: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for (mut labels, count) in buckets {
        labels.remove("__name__");
        let bound = labels.remove("le").and_then(|le| le.parse::<f64>().ok());
        if let Some(bound) = bound {
            groups.entry(labels).or_default().push((bound, count));
        }
    }
    groups
        .into_iter()
        .map(|(labels, mut buckets)| {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            (labels, interpolated(quantile, &buckets))
        })
        .collect()
}

fn interpolated(quantile: f64, buckets: &[(f64, f64)]) -> f64 {
    let all = buckets.last().map_or(0.0, |(_, count)| *count);
    if all <= 0.0 {
        return f64::NAN;
    }
    let rank = quantile * all;
    let mut below = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank {
            if bound.is_infinite() {
                return below.0;
            }
            let share = (rank - below.1) / (count - below.1).max(f64::MIN_POSITIVE);
            return below.0 + (bound - below.0) * share;
        }
        below = (*bound, *count);
    }
    below.0
}
