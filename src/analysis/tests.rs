//! Whole ticks: plan, answer, absorb, judge, against a time line of counters held in memory.

mod asking;
mod beside;
mod counts;
mod own;
mod properties;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use insta::assert_snapshot;

use super::*;
use crate::domain::{CanaryId, Timestamp};
use crate::spec::{Analysis, Metric, MetricSource, OnFailure, OnInconclusive, Reporter};

/// A multiple of the period.
const START: i64 = 1_700_000_010;

fn at(seconds: i64) -> Timestamp {
    DateTime::from_timestamp(START + seconds, 0).unwrap()
}

fn success_rate(min: f64) -> Metric {
    metric("success-rate", MetricSource::SuccessRate { min })
}

fn latency(max_ms: u64) -> Metric {
    let max = Duration::from_millis(max_ms);
    metric(
        "latency",
        MetricSource::Latency {
            quantile: 0.99,
            max,
        },
    )
}

fn custom(name: &str, query: &str, max: f64) -> Metric {
    let query = query.to_owned();
    metric(
        name,
        MetricSource::Custom {
            query,
            min: None,
            max: Some(max),
        },
    )
}

fn metric(name: &str, source: MetricSource) -> Metric {
    Metric {
        name: name.to_owned(),
        source,
        min_requests: None,
    }
}

fn target(name: &str, metrics: Vec<Metric>) -> Target {
    Target {
        id: CanaryId::new("test", name),
        stable: vec![name.to_owned()],
        candidate: vec![format!("{name}-canary")],
        service: name.to_owned(),
        analysis: Analysis {
            every: Duration::from_secs(15),
            metrics,
            on_failure: OnFailure::Rollback,
            on_inconclusive: OnInconclusive::Hold,
            deadline: None,
            alpha: 0.01,
            compare: false,
            skip: false,
            reporter: Reporter::Destination,
            counting: crate::spec::Counting {
                warmup: Duration::ZERO,
                ..Default::default()
            },
            counters: None,
            rule: crate::spec::Rule::Serin,
        },
        window: Window {
            rollout: at(0),
            step: at(0),
            has_traffic: true,
            weight: None,
            comparable: true,
            strikes: 0,
        },
    }
}

/// Labels of one series, in the order in which they tell series apart.
fn labels(workload: &str, pod: &str, rest: &[(&str, &str)]) -> Labels {
    let common = [
        ("destination_workload_namespace", "test"),
        ("destination_workload", workload),
        ("pod", pod),
    ];
    common.iter().chain(rest).copied().collect()
}

fn code(workload: &str, pod: &str, code: &str) -> Labels {
    labels(
        workload,
        pod,
        &[("response_code", code), ("response_flags", "-")],
    )
}

/// A Prometheus that holds counters as steps over time.
#[derive(Debug, Clone, Default)]
struct Memory {
    series: BTreeMap<Labels, BTreeMap<Timestamp, f64>>,
}

impl Memory {
    fn set(&mut self, labels: Labels, second: i64, value: f64) -> &mut Self {
        self.series
            .entry(labels)
            .or_default()
            .insert(at(second), value);
        self
    }

    fn answer(&self, query: &Query) -> Answer {
        let wants_buckets = matches!(query.purpose, Purpose::Latency(_));
        let mut times = vec![query.at];
        if let Some((start, step)) = query.range {
            let step = TimeDelta::from_std(step).unwrap();
            times = std::iter::successors(Some(start), |t| Some(*t + step))
                .take_while(|t| *t <= query.at)
                .collect();
        }
        let series = self
            .series
            .iter()
            .filter(|(l, _)| l.get("le").is_some() == wants_buckets);
        let series = series.filter_map(|(labels, values)| {
            let value = |t: &Timestamp| values.range(..=*t).next_back().map(|(_, v)| (*t, *v));
            let samples: Vec<_> = times.iter().filter_map(value).collect();
            (!samples.is_empty()).then(|| Series {
                labels: labels.clone(),
                samples,
            })
        });
        Answer::Series(series.collect())
    }

    fn tick(&self, ledger: &mut Ledger, target: &Target, second: i64) -> Judgement {
        let targets = std::slice::from_ref(target);
        let queries = plan(targets, ledger, at(second));
        let answers: Vec<Answer> = queries.iter().map(|query| self.answer(query)).collect();
        absorb(ledger, targets, &queries, &answers);
        judge(target, ledger, at(second))
    }
}

/// One line per finding, and the whole.
fn shown(judgement: &Judgement) -> String {
    let mut lines = vec![format!(
        "{}: {}",
        judgement.verdict.as_str(),
        judgement.sentence
    )];
    lines.extend(judgement.findings.iter().map(|f| {
        format!(
            "  {} {} {} [{}] {}/{} in {}s",
            f.metric,
            f.verdict.as_str(),
            f.value.as_deref().unwrap_or("-"),
            f.threshold,
            f.failures,
            f.samples,
            f.window.as_secs()
        )
    }));
    lines.join("\n")
}

/// Stable with history; a candidate whose counters appear after the start with these totals at second 15.
fn simple(good: f64, bad: f64) -> (Memory, Target) {
    let mut memory = Memory::default();
    memory.set(code("app", "old", "200"), -60, 5000.0);
    memory.set(code("app", "old", "200"), 10, 5100.0);
    if good > 0.0 {
        memory.set(code("app-canary", "new", "200"), 10, good);
    }
    if bad > 0.0 {
        memory.set(code("app-canary", "new", "503"), 10, bad);
    }
    (memory, target("app", vec![success_rate(99.0)]))
}

fn judged(good: f64, bad: f64) -> String {
    let (memory, target) = simple(good, bad);
    let mut ledger = Ledger::default();
    memory.tick(&mut ledger, &target, 0);
    shown(&memory.tick(&mut ledger, &target, 15))
}

#[test]
fn verdicts_of_a_success_rate() {
    assert_snapshot!(judged(299.0, 0.0), @"
    pass: success-rate 100% (>= 99%)
      success-rate pass 100% [>= 99%] 0/299 in 15s
    ");
    assert_snapshot!(judged(120.0, 0.0), @"
    inconclusive: success-rate: 120 of 299 requests that 99% needs, 0 failed; the rest takes about 60s at this rate
      success-rate inconclusive 100% [>= 99%] 0/120 in 15s
    ");
    assert_snapshot!(judged(0.0, 0.0), @"
    inconclusive: success-rate: Prometheus knows no request to workload app-canary in namespace test from reporter destination: 0 of 299 requests that 99% needs
      success-rate inconclusive - [>= 99%] 0/0 in 15s
    ");
    assert_snapshot!(judged(295.0, 5.0), @"
    inconclusive: success-rate: 98.33% of 300 requests on this step succeeded, at least 99% is wanted, but that may still be chance
      success-rate inconclusive 98.33% [>= 99%] 5/300 in 15s
    ");
    assert_snapshot!(judged(288.0, 12.0), @"
    fail: success-rate: 12 of 300 requests failed in 15s, which leaves 96% where at least 99% is wanted
      success-rate fail 96% [>= 99%] 12/300 in 15s
    ");
}

#[test]
fn a_candidate_that_only_fails_is_at_zero_not_without_traffic() {
    assert_snapshot!(judged(0.0, 50.0), @"
    fail: success-rate: 50 of 50 requests failed in 15s, which leaves 0% where at least 99% is wanted
      success-rate fail 0% [>= 99%] 50/50 in 15s
    ");
    assert!(
        judged(0.0, 3.0).starts_with("fail"),
        "three of three exclude chance"
    );
    assert!(
        judged(0.0, 2.0).starts_with("inconclusive"),
        "two failures are never enough"
    );
}

#[test]
fn a_late_regression_is_not_hidden_by_a_healthy_hour() {
    let target = target("app", vec![success_rate(99.0)]);
    let mut memory = Memory::default();
    memory.set(code("app", "x", "200"), -10, 1.0);
    for minute in 1..=60 {
        memory.set(
            code("app-canary", "a", "200"),
            minute * 60,
            minute as f64 * 600.0,
        );
    }
    // From then on 5% fail, at 10 requests a second.
    for n in 1..=8 {
        memory.set(
            code("app-canary", "a", "200"),
            3600 + n * 15,
            36_000.0 + n as f64 * 142.0,
        );
        memory.set(
            code("app-canary", "a", "500"),
            3600 + n * 15,
            n as f64 * 8.0,
        );
    }
    let mut ledger = Ledger::default();
    let first = (0..=248)
        .map(|tick| tick * 15)
        .find(|second| memory.tick(&mut ledger, &target, *second).verdict == Verdict::Fail);
    assert_eq!(first, Some(3600 + 30));
}

#[test]
fn latency_is_the_share_of_slow_answers() {
    let buckets = |memory: &mut Memory, second: i64, counts: &[(&str, f64)]| {
        for (le, count) in counts {
            memory.set(labels("app-canary", "a", &[("le", le)]), second, *count);
        }
    };
    let judged = |max_ms: u64, counts: &[(&str, f64)]| {
        let target = target("app", vec![latency(max_ms)]);
        let mut memory = Memory::default();
        memory.set(labels("app", "x", &[("le", "+Inf")]), -10, 1.0);
        buckets(&mut memory, 5, counts);
        let mut ledger = Ledger::default();
        memory.tick(&mut ledger, &target, 0);
        shown(&memory.tick(&mut ledger, &target, 15))
    };
    let fast = [
        ("250", 960.0),
        ("500", 998.0),
        ("1000", 1000.0),
        ("+Inf", 1000.0),
    ];
    assert_snapshot!(judged(500, &fast), @"
    pass: latency 447ms (p99 <= 500ms)
      latency pass 447ms [p99 <= 500ms] 2/1000 in 15s
    ");
    // Prometheus 3 writes bounds in another way.
    let fast = [
        ("250.0", 960.0),
        ("500.0", 998.0),
        ("1000.0", 1000.0),
        ("+Inf", 1000.0),
    ];
    assert!(judged(500, &fast).starts_with("pass"));
    // No bound at 400 ms: the next lower one judges.
    assert_snapshot!(judged(400, &fast), @"
    fail: latency: 40 of 1000 answers in 15s were slower than 250ms (the histogram has no bound at 400ms), at most 1% may be
      latency fail 447ms [p99 <= 400ms] 40/1000 in 15s
    ");
    // All 15 may have taken 501 ms, but more than 1% did.
    assert_snapshot!(judged(500, &[("500", 985.0), ("1000", 1000.0), ("+Inf", 1000.0)]), @"
    inconclusive: latency: 15 of 1000 answers on this step were slower than 500ms, at most 1% may be, but that may still be chance
      latency inconclusive 667ms [p99 <= 500ms] 15/1000 in 15s
    ");
    assert_snapshot!(judged(500, &[("500", 11.0), ("1000", 12.0), ("+Inf", 12.0)]), @"
    inconclusive: latency: 12 of 299 requests that p99 needs, 1 slower than 500ms; the rest takes about 6m at this rate
      latency inconclusive 940ms [p99 <= 500ms] 1/12 in 15s
    ");
    assert_snapshot!(judged(500, &[("1000", 500.0), ("+Inf", 500.0)]), @"
    error: latency: the latency histogram has no bucket bound at or shortly below 500ms; give the pods one with the annotation `sidecar.istio.io/statsHistogramBuckets`
      latency error <= 1000ms [p99 <= 500ms] 0/500 in 15s
    ");
    assert!(judged(500, &[]).starts_with("inconclusive: latency: Prometheus knows no request"));
}

/// Feeds looks at a custom metric one by one; `None` is no series.
fn looks(values: &[Answer]) -> Vec<Verdict> {
    let target = target("app", vec![custom("queue", "queue{}", 100.0)]);
    let mut ledger = Ledger::default();
    let mut tick = 0;
    let mut verdicts = Vec::new();
    for answer in values {
        tick += 15;
        let targets = std::slice::from_ref(&target);
        let queries = plan(targets, &ledger, at(tick));
        absorb(&mut ledger, targets, &queries, std::slice::from_ref(answer));
        verdicts.push(judge(&target, &ledger, at(tick)).verdict);
    }
    verdicts
}

fn number(value: f64) -> Answer {
    Answer::Series(vec![Series {
        labels: Labels::default(),
        samples: vec![(at(0), value)],
    }])
}

#[test]
fn custom_metrics_fail_on_the_third_bad_look_in_a_row() {
    use Verdict::{Error, Fail, Inconclusive, Pass};
    assert_eq!(looks(&[number(100.0), number(101.0)]), [Pass, Inconclusive]);
    assert_eq!(
        looks(&[number(101.0), number(101.0), number(5.0), number(101.0)]),
        [Inconclusive, Inconclusive, Pass, Inconclusive]
    );
    let nothing = Answer::Series(vec![]);
    let down = Answer::Failed(AskError::Unreachable("connection refused".to_owned()));
    assert_eq!(
        looks(&[number(101.0), number(101.0), nothing, down, number(102.0)]),
        [Inconclusive, Inconclusive, Inconclusive, Error, Fail]
    );
    for empty in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(looks(&vec![number(empty); 5]), [Inconclusive; 5]);
    }
    let Answer::Series(one) = number(5.0) else {
        unreachable!()
    };
    let two = Answer::Series([one.clone(), one].concat());
    assert_eq!(looks(&[two]), [Error]);
}

#[test]
fn a_failure_outlives_the_server_that_showed_it() {
    let (memory, target) = simple(0.0, 50.0);
    let targets = std::slice::from_ref(&target);
    let mut ledger = Ledger::default();
    memory.tick(&mut ledger, &target, 15);
    let queries = plan(targets, &ledger, at(30));
    let down = Answer::Failed(AskError::Unreachable("connection refused".to_owned()));
    absorb(&mut ledger, targets, &queries, std::slice::from_ref(&down));
    assert_eq!(judge(&target, &ledger, at(30)).verdict, Verdict::Fail);

    let (memory, target) = simple(299.0, 0.0);
    let targets = std::slice::from_ref(&target);
    let mut ledger = Ledger::default();
    assert_eq!(memory.tick(&mut ledger, &target, 15).verdict, Verdict::Pass);
    // An old reading is no pass, asked or not.
    assert_eq!(
        judge(&target, &ledger, at(100)).verdict,
        Verdict::Inconclusive
    );
    let queries = plan(targets, &ledger, at(30));
    absorb(&mut ledger, targets, &queries, &[down]);
    assert_snapshot!(shown(&judge(&target, &ledger, at(30))), @"
    error: success-rate: Prometheus cannot be reached: connection refused
      success-rate error 100% [>= 99%] 0/299 in 30s
    ");
}

#[test]
fn named_users_alone_make_no_pass() {
    let (memory, mut target) = simple(299.0, 0.0);
    target.window.has_traffic = false;
    let mut ledger = Ledger::default();
    assert_snapshot!(shown(&memory.tick(&mut ledger, &target, 15)), @"
    inconclusive: nobody but named users is sent to the candidate on this step, so only a failure counts
      success-rate pass 100% [>= 99%] 0/299 in 15s
    ");
    let (memory, mut target) = simple(0.0, 50.0);
    target.window.has_traffic = false;
    assert_eq!(
        memory.tick(&mut Ledger::default(), &target, 15).verdict,
        Verdict::Fail
    );
    target.analysis.skip = true;
    assert_eq!(
        memory.tick(&mut Ledger::default(), &target, 15).verdict,
        Verdict::Pass
    );
}
