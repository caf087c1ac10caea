//! Queries that people write, on a real Prometheus: counters of another mesh, Flagger's rule, `serin validate`.

use std::time::Duration;

use chrono::TimeDelta;
use serin::analysis::{Judgement, Ledger, Target, Verdict, absorb, judge, plan};
use serin::domain::{CanaryId, Timestamp};
use serin::ports::Metrics;
use serin::prometheus::{Server, Settings};
use serin::spec::{Counters, LatencyCounters, MetricSource, Rule, Unit};

use super::real::{settled, target};
use crate::support::prometheus::{NAMESPACE, Prometheus, TrafficSource, pause};
use crate::support::serin::{output, serin};

/// One reading of all targets.
pub(super) async fn tick(server: &Server, targets: &[Target], ledger: &mut Ledger, now: Timestamp) {
    let queries = plan(targets, ledger, now);
    let answers = server.ask(&queries).await;
    absorb(ledger, targets, &queries, &answers);
}

/// Counters as Linkerd has them, and a histogram in seconds.
struct Linkerd<'a> {
    source: &'a TrafficSource,
}

impl Linkerd<'_> {
    fn sent(&self, deployment: &str, pod: &str, (good, bad): (u64, u64), slow: u64) {
        let own = format!("deployment=\"{deployment}\",namespace=\"{NAMESPACE}\",pod=\"{pod}\"");
        let set = |name: &str, rest: &str, value: u64| {
            self.source
                .gauge(&format!("{name}{{{own},{rest}}}"), value as f64);
        };
        set(
            "response_total",
            "classification=\"success\",direction=\"inbound\"",
            good,
        );
        set(
            "response_total",
            "classification=\"failure\",direction=\"inbound\"",
            bad,
        );
        set("took_seconds_bucket", "le=\"0.5\"", good - slow);
        set("took_seconds_bucket", "le=\"1\"", good);
        set("took_seconds_bucket", "le=\"+Inf\"", good);
    }
}

fn counters() -> Counters {
    let total = |rest: &str| {
        format!(
            "sum by (pod) (response_total{{direction=\"inbound\",namespace=\"{{{{ namespace }}}}\",deployment=~\"{{{{ workload }}}}\"{rest}}}) # of a version"
        )
    };
    Counters {
        requests: total(""),
        failures: total(",classification=\"failure\""),
        rejections: None,
        latency: Some(LatencyCounters {
            buckets: "sum by (pod, le) (took_seconds_bucket{deployment=~\"{{ workload }}\"})"
                .to_owned(),
            unit: Unit::Seconds,
        }),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_of_another_mesh_are_compared_exactly() {
    let source = TrafficSource::start().await;
    let mesh = Linkerd { source: &source };
    mesh.sent("app", "app-0", (5000, 5), 10);
    mesh.sent("app", "app-1", (5000, 5), 10);
    let prometheus = Prometheus::start(&source).await;
    let server = Server::new(Settings::new(&prometheus.url)).unwrap();
    pause(Duration::from_secs(2)).await;
    let latency = MetricSource::Latency {
        quantile: 0.9,
        max: Duration::from_millis(500),
    };
    let rollout = settled();
    let mut targets = [
        target(
            "app",
            rollout,
            vec![MetricSource::SuccessRate { min: 99.0 }, latency],
        ),
        target(
            "wrong",
            rollout,
            vec![MetricSource::SuccessRate { min: 99.0 }],
        ),
    ];
    targets[0].analysis.counters = Some(counters());
    targets[1].analysis.counters = Some(Counters {
        failures: "sum by (pod (response_total{deployment=~\"{{ workload }}\"})".to_owned(),
        latency: None,
        ..counters()
    });
    let mut ledger = Ledger::default();
    tick(&server, &targets, &mut ledger, rollout).await;
    for round in 1..=5_u64 {
        mesh.sent("app", "app-0", (5000 + 300 * round, 5), 10);
        mesh.sent("app", "app-1", (5000 + 300 * round, 5), 10);
        mesh.sent(
            "app-canary",
            "app-canary-0",
            (90 * round, 10 * round),
            round,
        );
        pause(Duration::from_millis(2200)).await;
        tick(&server, &targets, &mut ledger, settled()).await;
    }
    // What was sent last has been scraped by then, also beside a compiler.
    pause(Duration::from_secs(3)).await;
    let now = settled();
    tick(&server, &targets, &mut ledger, now).await;
    let counts = |ledger: &Ledger| {
        let sides = ledger.entries[&CanaryId::new(NAMESPACE, "app")]
            .requests()
            .unwrap();
        [sides.candidate, sides.stable].map(|counts| (counts.requests, counts.failures))
    };
    assert_eq!(counts(&ledger), [(500, 50), (3000, 0)]);
    let judged: Vec<Judgement> = targets.iter().map(|t| judge(t, &ledger, now)).collect();
    assert_eq!(judged[0].verdict, Verdict::Fail, "{:#?}", judged[0]);
    assert!(
        judged[0]
            .sentence
            .contains("50 of 500 against 0 of 3,000 requests"),
        "{}",
        judged[0].sentence
    );
    // 5 of 450 answers took longer than half a second.
    assert_eq!(
        (
            judged[0].findings[1].samples,
            judged[0].findings[1].failures
        ),
        (450, 5)
    );
    assert_eq!(judged[1].verdict, Verdict::Error, "{:#?}", judged[1]);
    assert!(
        judged[1].sentence.contains("parse error"),
        "{}",
        judged[1].sentence
    );
    let mut rebuilt = Ledger::default();
    tick(&server, &targets[..1], &mut rebuilt, now).await;
    assert_eq!(counts(&rebuilt), counts(&ledger));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flaggers_checks_are_made_by_its_own_queries() {
    let source = TrafficSource::start().await;
    source.set("good-canary", 200.0, 0.002, 100.0);
    source.set("bad-canary", 200.0, 0.3, 100.0);
    let prometheus = Prometheus::start(&source).await;
    let server = Server::new(Settings::new(&prometheus.url)).unwrap();
    pause(Duration::from_secs(3)).await;
    let latency = MetricSource::Latency {
        quantile: 0.99,
        max: Duration::from_millis(500),
    };
    let step = settled();
    let targets = ["good", "bad", "silent"].map(|app| {
        let metrics = vec![MetricSource::SuccessRate { min: 99.0 }, latency.clone()];
        let mut target = target(app, step, metrics);
        target.analysis.rule = Rule::Flagger { threshold: 2 };
        target.analysis.compare = false;
        target.analysis.every = Duration::from_secs(3);
        target
    });
    let mut ledger = Ledger::default();
    // Two checks fail, the tick after them rolls back; until then nothing does.
    pause(Duration::from_secs(6)).await;
    let second = step + TimeDelta::seconds(7);
    tick(&server, &targets, &mut ledger, second).await;
    let verdicts = |ledger: &Ledger, now| targets.each_ref().map(|t| judge(t, ledger, now).verdict);
    let all = targets.each_ref().map(|t| judge(t, &ledger, second));
    assert_eq!(
        verdicts(&ledger, second),
        [Verdict::Pass, Verdict::Inconclusive, Verdict::Inconclusive],
        "{all:#?}"
    );
    pause(Duration::from_secs(3)).await;
    let third = step + TimeDelta::seconds(9);
    tick(&server, &targets, &mut ledger, third).await;
    assert_eq!(
        verdicts(&ledger, third),
        [Verdict::Pass, Verdict::Fail, Verdict::Fail]
    );
    // A fresh engine makes up for the same checks.
    let mut rebuilt = Ledger::default();
    tick(&server, &targets, &mut rebuilt, third).await;
    assert_eq!(rebuilt, ledger);
    let judgement = judge(&targets[1], &ledger, third);
    assert_eq!(judgement.strikes, Some(2));
    assert!(
        judgement.sentence.contains("2 of 2 checks failed"),
        "{}",
        judgement.sentence
    );
}

const CANARY: &str = r#"apiVersion: serin.dev/v1alpha1
kind: Canary
metadata: {name: podinfo, namespace: test}
spec:
  workload: {deployment: podinfo}
  route: {service: podinfo, port: 9898, hosts: [podinfo]}
  ladder:
  - {weight: 25, hold: 1m}
  analysis:
    metrics:
    - {name: fine, query: 'max(queue_length{app=~"{{ workload }}.*"}) or vector(1)', max: 5}
    - {name: unclosed, query: 'max(queue_length{app="{{ workload }}"} + 1', max: 5}
    - {name: many, query: queue_length, max: 5}
    - {name: range, query: 'queue_length[5m]', max: 5}
    - {name: text, query: '"many"', max: 5}
    - {name: none, query: no_such_metric, max: 5}
    - name: block
      query: |
        sum(queue_length)
          / smu(queue_length)
      max: 5
    counters:
      requests: 'sum by (pod) (queue_length{app=~"{{ workload }}"}) / 2'
      failures: 'queue_length{app=~"{{ workload }}",}}'
      latency: {buckets: 'queue_length{app=~"{{ workload }}"}'}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validate_tries_queries_out() {
    let source = TrafficSource::start().await;
    for (app, value) in [("podinfo", 7.0), ("other", 4.0)] {
        source.gauge(&format!("queue_length{{app=\"{app}\",pod=\"a\"}}"), value);
    }
    let prometheus = Prometheus::start(&source).await;
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
    write(
        "app.yaml",
        include_str!("../../../src/simulation/base/app.yaml"),
    );
    write("canary.yaml", CANARY);
    let validate = |arguments: &[&str]| {
        let mut command = serin(home.path());
        command
            .current_dir(home.path())
            .args(["validate", "."])
            .args(arguments);
        let output = output(&mut command);
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text)
    };
    let (code, offline) = validate(&[]);
    assert_eq!((code, offline.as_str()), (Some(0), ""));
    let (code, found) = validate(&["--prometheus", &prometheus.url]);
    assert_eq!(code, Some(1));
    insta::assert_snapshot!(found, @r#"
    canary.yaml:12:74: Prometheus rejects the query: parse error: unclosed left parenthesis
    canary.yaml:13:27: the query gives 2 series where one number is wanted; aggregate them, for example with `sum`
    canary.yaml:14:29: the query gives an unusable answer: it has a range of values where one was asked for
    canary.yaml:15:28: the query gives an unusable answer: it has a string where numbers were asked for
    canary.yaml:16:27: warning: the query gives no series now: without a value there is no verdict
    canary.yaml:20:13: Prometheus rejects the query: parse error: unknown function with name "smu"
    canary.yaml:23:18: the query gives 3.5, a counter is a whole number that only rises: no `rate`, no gauge, no recording rule of one
    canary.yaml:24:54: Prometheus rejects the query: parse error: unexpected character: '}'
    canary.yaml:25:27: the query gives a series without the label `le` (it has __name__, app, instance, job, pod): buckets are told apart by it
    "#);
    // A server that is not there is no mistake in a file.
    let (code, found) = validate(&["--prometheus", "http://127.0.0.1:1"]);
    assert_eq!((code, found.as_str()), (Some(1), ""));
}
