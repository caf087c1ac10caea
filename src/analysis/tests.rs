//! Whole ticks: plan, answer, absorb, judge, against a time line of counters held in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use insta::assert_snapshot;
use proptest::prelude::*;

use super::*;
use crate::domain::{CanaryId, Timestamp};
use crate::spec::{Analysis, Metric, MetricSource, OnFailure, OnInconclusive, Reporter};

const START: i64 = 1_700_000_000;

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
        },
        window: Window {
            rollout: at(0),
            step: at(0),
            has_traffic: true,
        },
    }
}

/// Labels of one series, in the order in which they tell series apart.
fn labels(workload: &str, pod: &str, rest: &[(&str, &str)]) -> BTreeMap<String, String> {
    let common = [
        ("destination_workload_namespace", "test"),
        ("destination_workload", workload),
        ("pod", pod),
    ];
    let all = common.iter().chain(rest);
    all.map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn code(workload: &str, pod: &str, code: &str) -> BTreeMap<String, String> {
    labels(
        workload,
        pod,
        &[("response_code", code), ("response_flags", "-")],
    )
}

/// A Prometheus that holds counters as steps over time.
#[derive(Debug, Clone, Default)]
struct Memory {
    series: BTreeMap<BTreeMap<String, String>, BTreeMap<Timestamp, f64>>,
}

impl Memory {
    fn set(&mut self, labels: BTreeMap<String, String>, second: i64, value: f64) -> &mut Self {
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
            .filter(|(l, _)| l.contains_key("le") == wants_buckets);
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
    inconclusive: success-rate: 120 of 299 requests that 99% needs, 0 failed
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
fn what_counts_as_a_failure() {
    let outcome = |code: &str, grpc: &str, flags: &str| {
        let mut memory = Memory::default();
        memory.set(self::code("app", "old", "200"), -60, 1.0);
        let rest = [
            ("response_code", code),
            ("grpc_response_status", grpc),
            ("response_flags", flags),
        ];
        memory.set(labels("app-canary", "new", &rest), 10, 7.0);
        let target = target("app", vec![success_rate(99.0)]);
        let mut ledger = Ledger::default();
        memory.tick(&mut ledger, &target, 15);
        let counts = ledger.entries[&target.id].requests().unwrap().candidate;
        (counts.requests, counts.failures)
    };
    for (code, grpc, flags, expected) in [
        ("200", "", "-", (7, 0)),
        ("404", "", "NR", (7, 0)),
        ("500", "", "-", (7, 7)),
        ("503", "", "UF", (7, 7)),
        ("599", "", "-", (7, 7)),
        ("0", "", "DC", (0, 0)),
        ("0", "", "UF", (7, 7)),
        ("0", "", "-", (7, 7)),
        ("0", "", "UR,DC", (0, 0)),
        ("200", "0", "-", (7, 0)),
        ("200", "5", "-", (7, 0)),
        ("200", "14", "-", (7, 7)),
        ("200", "2", "-", (7, 7)),
        ("200", "4", "-", (7, 7)),
        ("200", "12", "-", (7, 7)),
        ("200", "13", "-", (7, 7)),
        ("200", "15", "-", (7, 7)),
    ] {
        assert_eq!(
            outcome(code, grpc, flags),
            expected,
            "{code} {grpc} {flags}"
        );
    }
}

/// Candidate and stable counts since rollout after reading `memory` at these seconds.
fn counted(memory: &Memory, target: &Target, seconds: &[i64]) -> Sides<Counts> {
    let mut ledger = Ledger::default();
    for second in seconds {
        memory.tick(&mut ledger, target, *second);
    }
    ledger.entries[&target.id].requests().unwrap()
}

fn counts(requests: u64, failures: u64) -> Counts {
    Counts { requests, failures }
}

#[test]
fn counters_are_read_as_counters() {
    let target = target("app", vec![success_rate(99.0)]);
    let mut memory = Memory::default();
    // A candidate that already ran before the rollout: its history does not count.
    memory.set(code("app-canary", "a", "200"), -100, 1000.0);
    memory.set(code("app-canary", "a", "200"), 5, 1010.0);
    // A new code on a known pod counts from zero.
    memory.set(code("app-canary", "a", "500"), 20, 4.0);
    // The proxy restarts and overtakes nothing: 1010 -> 3.
    memory.set(code("app-canary", "a", "200"), 35, 3.0);
    // A new pod counts from zero.
    memory.set(code("app-canary", "b", "200"), 35, 8.0);
    // Stable: known pod counts, a pod never seen before is only a baseline.
    memory.set(code("app", "x", "200"), -100, 70.0);
    memory.set(code("app", "x", "200"), 5, 75.0);
    memory.set(code("app", "x", "500"), 5, 2.0);
    memory.set(code("app", "y", "200"), 20, 100_000.0);
    memory.set(code("app", "y", "200"), 35, 100_001.0);
    let live = counted(&memory, &target, &[0, 15, 30, 45]);
    assert_eq!(live.candidate, counts(10 + 4 + 3 + 8, 4));
    assert_eq!(live.stable, counts(5 + 2 + 1, 2));
    // A restart of Serin reads the same from a range.
    assert_eq!(counted(&memory, &target, &[45]), live);
    // So does an engine that was away for ten minutes; the restart of the proxy in between included.
    memory.set(code("app-canary", "a", "200"), 400, 9.0);
    memory.set(code("app-canary", "a", "200"), 500, 2.0);
    let live: Vec<i64> = (0..=45).map(|n| n * 15).collect();
    let undisturbed = counted(&memory, &target, &live);
    assert_eq!(undisturbed.candidate, counts(10 + 4 + 3 + 8 + 6 + 2, 4));
    assert_eq!(counted(&memory, &target, &[0, 15, 30, 675]), undisturbed);
}

#[test]
fn a_server_that_was_blind_at_the_start_hands_out_no_history() {
    let target = target("app", vec![success_rate(99.0)]);
    let mut memory = Memory::default();
    memory.set(code("app", "x", "200"), 40, 90_000.0);
    memory.set(code("app-canary", "a", "500"), 40, 900.0);
    memory.set(code("app-canary", "a", "500"), 50, 901.0);
    let all = counted(&memory, &target, &[0, 15, 30, 45, 60]);
    assert_eq!((all.candidate, all.stable), (counts(1, 1), counts(0, 0)));
}

#[test]
fn requests_from_before_the_step_do_not_count_for_it() {
    let mut target = target("app", vec![success_rate(99.0)]);
    let mut memory = Memory::default();
    memory.set(code("app", "x", "200"), -10, 1.0);
    memory.set(code("app-canary", "a", "200"), 10, 400.0);
    memory.set(code("app-canary", "a", "200"), 40, 500.0);
    memory.set(code("app-canary", "a", "200"), 80, 620.0);
    let mut ledger = Ledger::default();
    for second in [0, 15, 30] {
        memory.tick(&mut ledger, &target, second);
    }
    assert!(shown(&memory.tick(&mut ledger, &target, 45)).starts_with("pass"));
    target.window.step = at(44);
    // The reading at 45 is the first after the step began, though the step was reported later.
    assert_snapshot!(shown(&memory.tick(&mut ledger, &target, 60)), @"
    inconclusive: success-rate: no request has reached the candidate on this step: 0 of 299 requests that 99% needs
      success-rate inconclusive - [>= 99%] 0/0 in 15s
    ");
    assert_snapshot!(shown(&memory.tick(&mut ledger, &target, 90)), @"
    inconclusive: success-rate: 120 of 299 requests that 99% needs, 0 failed
      success-rate inconclusive 100% [>= 99%] 0/120 in 45s
    ");
    let rebuilt = {
        let mut ledger = Ledger::default();
        memory.tick(&mut ledger, &target, 90);
        ledger.entries[&target.id].requests_since(at(44)).unwrap()
    };
    assert_eq!(
        rebuilt,
        ledger.entries[&target.id].requests_since(at(44)).unwrap()
    );
    // A step that nothing was read in since: no pass, whatever came before.
    target.window.step = at(91);
    let verdict = judge(&target, &ledger, at(92));
    assert_eq!(verdict.verdict, Verdict::Inconclusive);
    assert_eq!(verdict.findings[0].samples, 0);
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
    inconclusive: latency: 12 of 299 requests that p99 needs, 1 slower than 500ms
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
        labels: BTreeMap::new(),
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
fn one_bad_query_hurts_only_its_own_canary() {
    let good = target("good", vec![custom("queue", "max(queue)", 100.0)]);
    let bad = target(
        "bad",
        vec![
            custom("queue", "sum(queue", 100.0),
            custom("typo", "smu(queue)", 1.0),
        ],
    );
    let targets = [good.clone(), bad.clone()];
    let mut ledger = Ledger::default();
    let mut shapes = Vec::new();
    let mut verdicts = Vec::new();
    for tick in 1..=4 {
        let queries = plan(&targets, &ledger, at(tick * 15));
        let answers: Vec<Answer> = queries
            .iter()
            .map(|query| {
                let Purpose::Custom(members) = &query.purpose else {
                    unreachable!()
                };
                if query.promql.contains("smu") || query.promql == "sum(queue" {
                    return Answer::Failed(AskError::BadQuery("parse error".to_owned()));
                }
                let one = |index: usize| Series {
                    labels: [(CUSTOM_LABEL.to_owned(), index.to_string())].into(),
                    samples: vec![(query.at, 5.0)],
                };
                Answer::Series((0..members.len()).map(one).collect())
            })
            .collect();
        shapes.push(
            queries
                .iter()
                .map(|q| q.promql.clone())
                .collect::<Vec<_>>()
                .join("; ")
                .replace('\n', ""),
        );
        absorb(&mut ledger, &targets, &queries, &answers);
        verdicts.push((
            judge(&good, &ledger, at(tick * 15)).verdict,
            judge(&bad, &ledger, at(tick * 15)).verdict,
        ));
    }
    assert_snapshot!(shapes.join("\n"), @r#"
    label_replace((smu(queue)), "serin_query", "0", "", "") or label_replace((max(queue)), "serin_query", "1", "", ""); sum(queue
    sum(queue; smu(queue); max(queue)
    sum(queue; smu(queue); max(queue)
    max(queue); sum(queue; smu(queue)
    "#);
    assert_eq!(
        verdicts,
        [
            (Verdict::Error, Verdict::Error),
            (Verdict::Pass, Verdict::Error),
            (Verdict::Pass, Verdict::Error),
            (Verdict::Pass, Verdict::Error),
        ]
    );
}

#[test]
fn placeholders_and_scalars() {
    let mut target = target(
        "app",
        vec![
            custom(
                "a",
                "q{ns=\"{{ namespace }}\",w=\"{{ workload }}\"}[{{window}}]",
                1.0,
            ),
            custom(
                "b",
                "scalar(q) # {{ stable }} {{ service }} {{ canary }} {{ other }}",
                1.0,
            ),
        ],
    );
    target.window.step = at(-1000);
    let targets = std::slice::from_ref(&target);
    let queries = plan(targets, &Ledger::default(), at(0));
    assert_snapshot!(queries[0].promql, @r#"
    label_replace((q{ns="test",w="app-canary"}[600s]
    ), "serin_query", "0", "", "") or label_replace(vector(scalar(q) # app app app {{ other }}
    ), "serin_query", "1", "", "")
    "#);
}

#[test]
fn unusable_counters_are_errors() {
    let (memory, target) = simple(299.0, 0.0);
    let targets = std::slice::from_ref(&target);
    let with = |change: &dyn Fn(&mut Vec<Series>)| {
        let mut ledger = Ledger::default();
        memory.tick(&mut ledger, &target, 0);
        let queries = plan(targets, &ledger, at(15));
        let Answer::Series(mut series) = memory.answer(&queries[0]) else {
            unreachable!()
        };
        change(&mut series);
        absorb(&mut ledger, targets, &queries, &[Answer::Series(series)]);
        let bad = judge(&target, &ledger, at(15));
        // The next good answer makes up for it.
        assert_eq!(memory.tick(&mut ledger, &target, 30).verdict, Verdict::Pass);
        (bad.verdict, bad.sentence)
    };
    for value in [f64::NAN, f64::INFINITY, -1.0, 0.5, 1e300] {
        let (verdict, sentence) = with(&|series| series[0].samples[0].1 = value);
        assert_eq!(verdict, Verdict::Error, "{value}: {sentence}");
        assert!(
            sentence.contains("a whole number of requests was expected"),
            "{sentence}"
        );
    }
    let errors = [
        with(&|series| series.push(series[0].clone())),
        with(&|series| {
            series.push(Series {
                labels: code("other", "a", "200"),
                samples: vec![(at(15), 1.0)],
            })
        }),
        with(&|series| {
            series[0].labels.remove("destination_workload");
        }),
        with(&|series| {
            series[0].labels.remove("response_code");
        }),
        with(&|series| series[0].samples[0].0 = at(16)),
    ];
    let lines: Vec<String> = errors
        .iter()
        .map(|(verdict, s)| format!("{}: {s}", verdict.as_str()))
        .collect();
    assert_snapshot!(lines.join("\n"), @r#"
    error: success-rate: Prometheus gave two values for one series of `app old `
    error: success-rate: Prometheus gave a series that was not asked for: {destination_workload="other",destination_workload_namespace="test",pod="a",response_code="200",response_flags="-"}; check what stands between it and Serin
    error: success-rate: Prometheus gave a series that was not asked for: {destination_workload_namespace="test",pod="old",response_code="200",response_flags="-"}; check what stands between it and Serin
    error: success-rate: Prometheus gave a series that was not asked for: {destination_workload="app",destination_workload_namespace="test",pod="old",response_flags="-"}; check what stands between it and Serin
    error: success-rate: Prometheus gave samples from after the time that was asked for: 2023-11-14T22:13:36+00:00
    "#);
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

#[test]
fn another_rollout_begins_with_nothing() {
    let (memory, mut target) = simple(0.0, 50.0);
    let mut ledger = Ledger::default();
    assert_eq!(memory.tick(&mut ledger, &target, 15).verdict, Verdict::Fail);
    target.window.rollout = at(20);
    target.window.step = at(20);
    assert_eq!(
        judge(&target, &ledger, at(20)).verdict,
        Verdict::Inconclusive
    );
    assert_eq!(
        memory.tick(&mut ledger, &target, 30).verdict,
        Verdict::Inconclusive
    );
    assert_eq!(
        ledger.entries[&target.id].requests().unwrap().candidate,
        counts(0, 0)
    );
    ledger.forget(&target.id);
    assert!(ledger.entries.is_empty());
}

#[test]
fn queries_as_they_are_asked() {
    let mut target = target("app", vec![success_rate(99.0), latency(500)]);
    let targets = std::slice::from_ref(&target);
    let queries = plan(targets, &Ledger::default(), at(40));
    let lines: Vec<&str> = queries.iter().map(|q| q.promql.as_str()).collect();
    assert_snapshot!(lines.join("\n"), @r#"
    sum by (pod, instance, destination_workload_namespace, destination_workload, response_code, grpc_response_status, response_flags) (istio_requests_total{reporter="destination",destination_workload_namespace="test",destination_workload=~"app|app-canary"})
    sum by (pod, instance, destination_workload_namespace, destination_workload, le) (istio_request_duration_milliseconds_bucket{reporter="destination",destination_workload_namespace="test",destination_workload=~"app|app-canary",response_code=~"[123]..",grpc_response_status!~"2|4|12|13|14|15",le=~"[0-9]{2,4}([.][0-9]+)?|[+]Inf"})
    "#);
    // From the start of the rollout to now in steps of at most 15 s.
    assert_eq!(
        queries[0].range,
        Some((at(0), Duration::from_millis(13_333)))
    );
    target.analysis.skip = true;
    assert_eq!(plan(&[target.clone()], &Ledger::default(), at(40)), []);

    let finding = judge(
        &self::target("app", vec![success_rate(99.0)]),
        &Ledger::default(),
        at(40),
    );
    assert_snapshot!(finding.findings[0].query, @r#"sum by (response_code, grpc_response_status, response_flags) (increase(istio_requests_total{reporter="destination",destination_workload_namespace="test",destination_workload="app-canary"}[40s] @ 1700000040))"#);
}

#[test]
fn the_number_of_queries_does_not_grow_with_canaries() {
    let many = |n: usize, second: i64, ledger: &Ledger| {
        let targets: Vec<Target> = (0..n)
            .map(|n| {
                target(
                    &format!("service-{n:04}"),
                    vec![success_rate(99.0), latency(500), custom("q", "up", 1.0)],
                )
            })
            .collect();
        plan(&targets, ledger, at(second))
    };
    let empty = Ledger::default();
    assert_eq!(many(1, 0, &empty).len(), 3);
    assert_eq!(many(100, 0, &empty).len(), 3);
    let thousand = many(1000, 0, &empty);
    assert!(thousand.len() <= 25, "{}", thousand.len());
    assert!(thousand.iter().all(|query| query.promql.len() <= 8 * 1024));
    // After ten days of rollout a rebuild still asks for a bounded number of points.
    for query in many(50, 864_000, &empty) {
        let Some((start, step)) = query.range else {
            continue;
        };
        let points =
            (query.at - start).num_milliseconds() / i64::try_from(step.as_millis()).unwrap() + 1;
        let canaries = match &query.purpose {
            Purpose::Requests(ids) | Purpose::Latency(ids) => ids.len(),
            Purpose::Custom(_) => unreachable!(),
        };
        assert!(
            points <= 2002 && canaries <= 10,
            "{points} points, {canaries} canaries"
        );
    }
}

/// A time line: per second and series, what it counts then; a series may restart from zero.
#[derive(Debug, Clone)]
struct Line {
    memory: Memory,
    length: i64,
}

fn line() -> impl Strategy<Value = Line> {
    let event = (0usize..8, 1i64..300, 0u64..40, prop::bool::weighted(0.1));
    prop::collection::vec(event, 0..60).prop_map(|events| {
        let mut memory = Memory::default();
        memory.set(code("app", "s0", "200"), -60, 1234.0);
        memory.set(code("app-canary", "c0", "200"), -60, 77.0);
        let mut values: BTreeMap<usize, f64> = [(0, 77.0), (4, 1234.0)].into();
        let mut events = events;
        events.sort_by_key(|(_, second, ..)| *second);
        for (series, second, more, restart) in events {
            let (workload, pod) = if series < 4 {
                ("app-canary", "c")
            } else {
                ("app", "s")
            };
            let status = if series % 2 == 0 { "200" } else { "503" };
            let pod = format!("{pod}{}", series % 4 / 2);
            let value = values.entry(series).or_default();
            if restart {
                *value = 0.0;
            }
            *value += more as f64;
            memory.set(code(workload, &pod, status), second, *value);
        }
        Line {
            memory,
            length: 300,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Without restarts of proxies and new pods of stable, any set of ticks counts the same.
    #[test]
    fn any_ticks_count_the_same(
        increments in prop::collection::vec((0usize..4, 1i64..300, 1u64..50), 0..60),
        mut ticks in prop::collection::btree_set(1i64..300, 0..20),
    ) {
        let mut memory = Memory::default();
        let pods = [("app", "200"), ("app", "503"), ("app-canary", "200"), ("app-canary", "503")];
        let mut values = [500.0, 20.0, 0.0, 0.0];
        memory.set(code("app", "p", "200"), -5, 500.0);
        memory.set(code("app", "p", "503"), -5, 20.0);
        let mut increments = increments;
        increments.sort_by_key(|(_, second, _)| *second);
        let mut expected = Sides::<Counts>::default();
        for (series, second, more) in increments {
            values[series] += more as f64;
            memory.set(code(pods[series].0, "p", pods[series].1), second, values[series]);
            let side = if series < 2 { &mut expected.stable } else { &mut expected.candidate };
            side.requests += more;
            side.failures += if series % 2 == 1 { more } else { 0 };
        }
        let target = target("app", vec![success_rate(99.0)]);
        ticks.insert(300);
        let ticks: Vec<i64> = ticks.into_iter().collect();
        prop_assert_eq!(counted(&memory, &target, &ticks), expected);
    }

    /// A fresh engine reads what the old one had read.
    #[test]
    fn a_restart_changes_no_count(line in line(), restart_at in 1i64..20) {
        let target = target("app", vec![success_rate(99.0)]);
        let ticks: Vec<i64> = (0..=line.length / 15).map(|n| n * 15).collect();
        let live = counted(&line.memory, &target, &ticks);
        let from = usize::try_from(restart_at).unwrap();
        prop_assert_eq!(counted(&line.memory, &target, &ticks[from..]), live);
    }

    /// Whatever is missing or broken, it is neither a pass nor a fail.
    #[test]
    fn missing_data_decides_nothing(
        kinds in prop::collection::vec(0u8..8, 1..12),
        step in 0i64..100,
    ) {
        let mut target = target("app", vec![success_rate(99.0), latency(500), custom("queue", "q", 1.0)]);
        target.window.step = at(step);
        let targets = std::slice::from_ref(&target);
        let mut ledger = Ledger::default();
        for (n, kind) in kinds.into_iter().enumerate() {
            let now = at(15 * i64::try_from(n).unwrap());
            let queries = plan(targets, &ledger, now);
            let answers: Vec<Answer> = queries.iter().map(|query| broken(kind, query)).collect();
            absorb(&mut ledger, targets, &queries, &answers);
            let judgement = judge(&target, &ledger, now);
            prop_assert!(matches!(judgement.verdict, Verdict::Inconclusive | Verdict::Error));
            for finding in judgement.findings {
                prop_assert!(matches!(finding.verdict, Verdict::Inconclusive | Verdict::Error));
            }
        }
    }
}

fn broken(kind: u8, query: &Query) -> Answer {
    let one = |value: f64, workload: &str| {
        Answer::Series(vec![Series {
            labels: code(workload, "a", "500"),
            samples: vec![(query.at, value)],
        }])
    };
    match kind {
        0 => Answer::Series(vec![]),
        1 => Answer::Failed(AskError::Deadline(Duration::from_secs(10))),
        2 => Answer::Failed(AskError::BadQuery("parse error".to_owned())),
        3 => Answer::Failed(AskError::Partial("a store is down".to_owned())),
        4 => one(f64::NAN, "app-canary"),
        5 => one(f64::INFINITY, "app-canary"),
        6 => Answer::Failed(AskError::Unusable("not JSON".to_owned())),
        _ => Answer::Series(vec![Series {
            labels: code("app-canary", "a", "500"),
            samples: vec![],
        }]),
    }
}
