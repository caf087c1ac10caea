//! Counters by the queries of a spec, and Flagger's rule.

use insta::assert_snapshot;

use super::counts::counts;
use super::*;
use crate::spec::{Counters, LatencyCounters, Rule, Unit};

fn counters() -> Counters {
    Counters {
        requests: "sum by (pod) (response_total{deployment=~\"{{ workload }}\"})".to_owned(),
        failures: "sum by (pod) (response_total{deployment=~\"{{ workload }}\",classification=\"failure\"})"
            .to_owned(),
        rejections: None,
        latency: None,
    }
}

fn counted_by_queries(name: &str) -> Target {
    let mut target = target(name, vec![success_rate(99.0)]);
    target.analysis.counters = Some(counters());
    target
}

/// A series: index of its query, pod, values by second.
type Values<'a> = (usize, &'a str, &'a [(i64, f64)]);

/// Series of a batch: index of the query, pod, and values by second.
fn answered(query: &Query, values: &[Values<'_>]) -> Answer {
    let times: Vec<Timestamp> = match query.range {
        None => vec![query.at],
        Some((start, step)) => {
            let step = TimeDelta::from_std(step).unwrap();
            std::iter::successors(Some(start), |t| Some(*t + step))
                .take_while(|t| *t <= query.at)
                .collect()
        }
    };
    let series = values.iter().map(|(index, pod, steps)| {
        let samples = times.iter().filter_map(|t| {
            let known = steps.iter().rfind(|(second, _)| at(*second) <= *t);
            known.map(|(_, value)| (*t, *value))
        });
        Series {
            labels: [
                ("pod", (*pod).to_owned()),
                (CUSTOM_LABEL, index.to_string()),
            ]
            .into_iter()
            .collect(),
            samples: samples.collect(),
        }
    });
    let series = series.filter(|one| !one.samples.is_empty());
    Answer::Series(series.collect())
}

#[test]
fn requests_are_counted_by_the_queries_of_a_spec() {
    let target = counted_by_queries("app");
    let targets = std::slice::from_ref(&target);
    let mut ledger = Ledger::default();
    let values: &[Values<'_>] = &[
        (0, "s0", &[(-60, 5000.0), (5, 5100.0), (20, 5300.0)]),
        (1, "s0", &[(5, 2.0)]),
        (2, "c0", &[(5, 40.0), (20, 60.0)]),
        (2, "c1", &[(5, 7.0)]),
        (3, "c0", &[(20, 9.0)]),
    ];
    for second in [0, 15, 30] {
        let queries = plan(targets, &ledger, at(second));
        assert_eq!(queries.len(), 1);
        if second == 15 {
            assert_snapshot!(queries[0].promql.replace(" or ", "\nor "), @r#"
            label_replace((sum by (pod) (response_total{deployment=~"app"})
            ), "serin_query", "0", "", "")
            or label_replace((sum by (pod) (response_total{deployment=~"app",classification="failure"})
            ), "serin_query", "1", "", "")
            or label_replace((sum by (pod) (response_total{deployment=~"app-canary"})
            ), "serin_query", "2", "", "")
            or label_replace((sum by (pod) (response_total{deployment=~"app-canary",classification="failure"})
            ), "serin_query", "3", "", "")
            "#);
        }
        let answers = [answered(&queries[0], values)];
        absorb(&mut ledger, targets, &queries, &answers);
    }
    let live = ledger.entries[&target.id].requests().unwrap();
    assert_eq!(live.candidate, counts(67, 9));
    assert_eq!(live.stable, counts(300, 2));
    // A restart reads the same from a range.
    let mut rebuilt = Ledger::default();
    let queries = plan(targets, &rebuilt, at(30));
    absorb(
        &mut rebuilt,
        targets,
        &queries,
        &[answered(&queries[0], values)],
    );
    assert_eq!(rebuilt, ledger);
    let judgement = judge(&target, &ledger, at(30));
    assert_eq!(judgement.verdict, Verdict::Fail, "{}", judgement.sentence);
    assert!(judgement.findings[0].query.contains("app-canary"));
}

#[test]
fn a_wrong_query_hurts_only_its_own_canary() {
    let targets = [counted_by_queries("app"), counted_by_queries("other")];
    let mut ledger = Ledger::default();
    let good: &[Values<'_>] = &[(0, "s", &[(-60, 50.0)]), (2, "c", &[(5, 900.0)])];
    let bad = Answer::Failed(AskError::BadQuery("1:5: parse error".to_owned()));
    for second in [0, 15, 30] {
        let queries = plan(&targets, &ledger, at(second));
        let answers: Vec<Answer> = queries
            .iter()
            .map(|query| {
                let Purpose::Counters(Kind::Requests, members) = &query.purpose else {
                    unreachable!()
                };
                let is_bad = members.iter().any(|member| member.canary.name == "other");
                if is_bad {
                    bad.clone()
                } else {
                    answered(query, good)
                }
            })
            .collect();
        // The first look fails for both; then each is asked alone.
        assert_eq!(queries.len(), if second == 0 { 1 } else { 2 }, "{second}");
        absorb(&mut ledger, &targets, &queries, &answers);
    }
    let verdict = |n: usize| judge(&targets[n], &ledger, at(30)).verdict;
    assert_eq!((verdict(0), verdict(1)), (Verdict::Pass, Verdict::Error));
}

#[test]
fn answers_of_queries_that_count_nothing_are_errors() {
    let said = |values: &[Values<'_>]| {
        let target = counted_by_queries("app");
        let targets = std::slice::from_ref(&target);
        let mut ledger = Ledger::default();
        let queries = plan(targets, &ledger, at(15));
        absorb(
            &mut ledger,
            targets,
            &queries,
            &[answered(&queries[0], values)],
        );
        let judgement = judge(&target, &ledger, at(15));
        format!("{}: {}", judgement.verdict.as_str(), judgement.sentence)
    };
    let lines = [
        said(&[(0, "s", &[(0, 0.25)])]),
        said(&[(2, "c", &[(0, -5.0)])]),
        said(&[(2, "c", &[(0, 1.0)]), (2, "c", &[(0, 2.0)])]),
        said(&[(9, "c", &[(0, 1.0)])]),
    ];
    assert_snapshot!(lines.join("\n"), @r#"
    error: success-rate: Prometheus says 0.25 for a counter of ` s `, a whole number of requests was expected
    error: success-rate: Prometheus says -5 for a counter of ` c `, a whole number of requests was expected
    error: success-rate: Prometheus gave two values for one series of ` c `
    error: success-rate: Prometheus gave a series that was not asked for: {pod="c",serin_query="9"}; check what stands between it and Serin
    "#);
}

#[test]
fn latency_may_be_counted_in_seconds() {
    let mut target = target("app", vec![latency(500)]);
    target.analysis.counters = Some(Counters {
        latency: Some(LatencyCounters {
            buckets: "sum by (pod, le) (http_seconds_bucket{app=~\"{{ workload }}\"})".to_owned(),
            unit: Unit::Seconds,
        }),
        ..counters()
    });
    let targets = std::slice::from_ref(&target);
    let mut ledger = Ledger::default();
    for second in [0, 15, 30] {
        let queries = plan(targets, &ledger, at(second));
        let answers: Vec<Answer> = queries
            .iter()
            .map(|query| {
                let Purpose::Counters(Kind::Latency, _) = query.purpose else {
                    return Answer::Series(Vec::new());
                };
                let bucket = |le: &str, value: f64| Series {
                    labels: [("pod", "c"), ("le", le), (CUSTOM_LABEL, "1")]
                        .into_iter()
                        .collect(),
                    samples: vec![(query.at, value * f64::from(u8::from(second > 0)))],
                };
                Answer::Series(vec![
                    bucket("0.25", 900.0),
                    bucket("0.5", 990.0),
                    bucket("+Inf", 1000.0),
                ])
            })
            .collect();
        absorb(&mut ledger, targets, &queries, &answers);
    }
    assert_snapshot!(shown(&judge(&target, &ledger, at(30))), @r#"
    pass: latency 500ms (p99 <= 500ms)
      latency pass 500ms [p99 <= 500ms] 10/1000 in 30s
    "#);
}

fn checked(threshold: u32) -> Target {
    let mut target = target("app", vec![success_rate(99.0), latency(500)]);
    target.analysis.rule = Rule::Flagger { threshold };
    target.analysis.every = Duration::from_secs(60);
    target
}

/// Looks every 15 s; the answers of check n (from 1) are a success rate and a latency.
fn checks(
    target: &Target,
    seconds: i64,
    value: impl Fn(i64) -> (Option<f64>, Option<f64>),
) -> Vec<String> {
    let targets = std::slice::from_ref(target);
    let mut ledger = Ledger::default();
    let mut lines: Vec<String> = Vec::new();
    for second in (0..=seconds).step_by(15) {
        let queries = plan(targets, &ledger, at(second));
        let answers: Vec<Answer> = queries
            .iter()
            .map(|query| {
                let Purpose::Checks(_, metric) = &query.purpose else {
                    unreachable!()
                };
                let (start, step) = query.range.unwrap();
                let step = TimeDelta::from_std(step).unwrap();
                let times = std::iter::successors(Some(start), |t| Some(*t + step));
                let samples = times.take_while(|t| *t <= query.at).filter_map(|t| {
                    let (success, slow) = value((t - target.window.step).num_seconds() / 60);
                    let value = if metric == "latency" { slow } else { success };
                    Some((t, value?))
                });
                let labels = Labels::default();
                Answer::Series(vec![Series {
                    labels,
                    samples: samples.collect(),
                }])
            })
            .collect();
        absorb(&mut ledger, targets, &queries, &answers);
        let judgement = judge(target, &ledger, at(second));
        let line = format!("{}: {}", judgement.verdict.as_str(), judgement.sentence);
        if lines.last().is_none_or(|last| !last.ends_with(&line)) {
            lines.push(format!("{second} {line}"));
        }
    }
    lines
}

#[test]
fn failed_checks_add_up_and_the_next_tick_rolls_back() {
    let lines = checks(&checked(2), 240, |check| match check {
        1 => (Some(98.5), Some(120.0)),
        2 => (Some(100.0), Some(120.0)),
        _ => (Some(100.0), None),
    });
    assert_snapshot!(lines.join("\n"), @r#"
    0 inconclusive: the first check is due 60s after the step
    60 inconclusive: success-rate: 98.5% where >= 99% is wanted; latency: 120ms where p99 <= 500ms is wanted (1 of 2 checks failed)
    120 pass: success-rate: 100% where >= 99% is wanted; latency: 120ms where p99 <= 500ms is wanted (1 of 2 checks failed)
    180 inconclusive: success-rate: 100% where >= 99% is wanted; latency: the query gave no value, which fails the check (2 of 2 checks failed; the next tick rolls back)
    240 fail: success-rate: 100% where >= 99% is wanted; latency: the query gave no value, which fails the check (2 of 2 checks failed)
    "#);
    // Checks of the steps before count, and a NaN is no value.
    let mut late = checked(5);
    late.window.strikes = 4;
    let lines = checks(&late, 120, |_| (Some(f64::NAN), Some(1.0)));
    assert_snapshot!(lines.join("\n"), @r#"
    0 inconclusive: the first check is due 60s after the step
    60 inconclusive: success-rate: the query gave no value, which fails the check; latency: 1ms where p99 <= 500ms is wanted (5 of 5 checks failed; the next tick rolls back)
    120 fail: success-rate: the query gave no value, which fails the check; latency: 1ms where p99 <= 500ms is wanted (5 of 5 checks failed)
    "#);
    // Without anybody but named users nothing is checked.
    let mut named = checked(1);
    named.window.has_traffic = false;
    assert_eq!(checks(&named, 300, |_| unreachable!()).len(), 1);
}

#[test]
fn checks_that_were_missed_are_made_up_for() {
    let target = checked(1);
    let targets = std::slice::from_ref(&target);
    let mut ledger = Ledger::default();
    let queries = plan(targets, &ledger, at(130));
    assert_eq!(queries.len(), 2);
    assert_eq!(queries[0].range.unwrap().0, at(60));
    assert_eq!(queries[0].at, at(120));
    let down = Answer::Failed(AskError::Unreachable("refused".to_owned()));
    absorb(&mut ledger, targets, &queries, &[down.clone(), down]);
    assert_eq!(judge(&target, &ledger, at(130)).verdict, Verdict::Error);
    assert_snapshot!(queries[0].promql, @r#"sum(rate(istio_requests_total{reporter="destination",destination_workload_namespace="test",destination_workload="app-canary",response_code!~"5.*"}[60s])) / sum(rate(istio_requests_total{reporter="destination",destination_workload_namespace="test",destination_workload="app-canary"}[60s])) * 100"#);
    assert_snapshot!(queries[1].promql, @r#"histogram_quantile(0.99, sum by (le) (rate(istio_request_duration_milliseconds_bucket{reporter="destination",destination_workload_namespace="test",destination_workload="app-canary"}[60s])))"#);
    // The same question again, and one check more.
    let again = plan(targets, &ledger, at(185));
    assert_eq!((again[0].range.unwrap().0, again[0].at), (at(60), at(180)));
    assert!(is_due(&target, at(130), at(185)) && !is_due(&target, at(185), at(230)));
    assert_eq!(next_look(&target.analysis, at(0), at(185)), at(240));
}
