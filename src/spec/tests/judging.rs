//! How a candidate is judged: Flagger's rule, counters by queries.

use std::time::Duration;

use super::{SPEC, check, read_spec, sound};
use crate::spec::{Rule, Unit};

fn spec(analysis: &str) -> String {
    let mut text = format!("{}\nanalysis:\n", SPEC.trim_end());
    for line in analysis.trim_matches('\n').lines() {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[test]
fn flaggers_rule_has_flaggers_defaults() {
    let catalog = read_spec(&spec("rule: flagger"));
    let analysis = &sound(&catalog).analysis;
    assert_eq!(analysis.rule, Rule::Flagger { threshold: 1 });
    assert_eq!(analysis.every, Duration::from_secs(60));
    assert!(!analysis.compare && analysis.metrics.len() == 1);
    let catalog = read_spec(&spec("{rule: flagger, threshold: 5, every: 30s}"));
    let analysis = &sound(&catalog).analysis;
    assert_eq!(analysis.rule, Rule::Flagger { threshold: 5 });
    assert_eq!(analysis.every, Duration::from_secs(30));
}

#[test]
fn what_a_rule_does_not_know_is_refused() {
    insta::assert_snapshot!(check(&spec("
rule: flagger
threshold: 0
compare: {alpha: 0.05}
stepRequests: 10
")), @r#"
app/canary.yaml:10:16: `spec.analysis.threshold` is 0, expected 1 to 1000
app/canary.yaml:11:5: `compare` does not go with `rule: flagger`, which knows nothing like it
app/canary.yaml:12:5: `stepRequests` does not go with `rule: flagger`, which knows nothing like it
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(check(&spec("threshold: 5")), @r#"
app/canary.yaml:9:5: `threshold` does not go with Serin's own rule, which counts requests rather than checks; it goes with `rule: flagger`
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(check(&spec("rule: flager")), @r#"
app/canary.yaml:9:11: `spec.analysis.rule` is `flager`, expected one of `serin`, `flagger` (did you mean `flagger`?)
-> test/podinfo rejected
"#);
}

#[test]
fn counters_by_queries() {
    let catalog = read_spec(&spec(
        "
counters:
  requests: 'sum by (pod) (http_requests_total{pod=~\"({{ workload }})-.*\"})'
  failures: 'sum by (pod) (http_requests_total{pod=~\"({{ workload }})-.*\",code=~\"5..\"})'
  latency: {buckets: 'sum by (pod, le) (took_bucket{app=~\"{{workload}}\"})', unit: ms}
metrics:
- {name: latency, max: 300ms}
",
    ));
    let analysis = &sound(&catalog).analysis;
    let counters = analysis.counters.as_ref().unwrap();
    assert!(counters.failures.contains("5.."));
    assert_eq!(counters.latency.as_ref().unwrap().unit, Unit::Milliseconds);
    assert!(analysis.compare);
}

#[test]
fn queries_that_count_nothing_are_refused() {
    insta::assert_snapshot!(check(&spec("
reporter: source
failures: {codes: ['503']}
counters:
  requests: 'sum(rate(x{app=~\"{{ workload }}\"}[1m]))'
  failures: 'sum(x_rate) + {{ window }}'
  rejections: ' '
metrics:
- {name: latency, max: 300ms}
")), @"
app/canary.yaml:9:5: `reporter` is about Istio's counters, and `counters` take their place: say it in the queries
app/canary.yaml:10:5: `failures` is about Istio's counters, and `counters` take their place: say it in the queries
app/canary.yaml:12:17: the query calls `rate`: counters are read as they are, and Serin takes the differences itself
app/canary.yaml:13:17: the query does not name `{{ workload }}`: it is asked for stable and for the candidate, and would count the same twice
app/canary.yaml:13:17: unknown placeholder `{{ window }}` in the query; known are `namespace`, `workload`, `service`, `canary`
app/canary.yaml:14:19: the query does not name `{{ workload }}`: it is asked for stable and for the candidate, and would count the same twice
app/canary.yaml:14:19: the query is empty
app/canary.yaml:16:14: a latency needs a histogram, and `counters` take the place of Istio's: give `counters.latency.buckets`
-> test/podinfo rejected
");
    insta::assert_snapshot!(check(&spec("
counters: {requests: 'x{{ workload }}'}
")), @r#"
app/canary.yaml:9:15: `spec.analysis.counters` lacks `failures`
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(check(&spec("
rule: flagger
counters: {requests: 'x{{ workload }}', failures: 'y{{ workload }}'}
")), @r#"
app/canary.yaml:10:5: `counters` does not go with `rule: flagger`, which knows nothing like it
-> test/podinfo rejected
"#);
}
