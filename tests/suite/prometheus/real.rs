//! A real Prometheus scrapes real counters: verdicts, restarts, resets, custom metrics, the end of the server.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DurationRound, TimeDelta};
use serin::analysis::{Judgement, Ledger, Target, Verdict, Window, absorb, judge, plan};
use serin::clock::{Clock, SystemClock};
use serin::domain::{CanaryId, Timestamp};
use serin::ports::Metrics;
use serin::prometheus::{Server, Settings};
use serin::spec::{Analysis, Metric, MetricSource, OnFailure, OnInconclusive, Reporter};

use crate::support::prometheus::{NAMESPACE, Prometheus, TrafficSource, instant, pause};

pub(super) fn target(app: &str, rollout: Timestamp, metrics: Vec<MetricSource>) -> Target {
    let metrics = metrics.into_iter().enumerate();
    Target {
        id: CanaryId::new(NAMESPACE, app),
        stable: vec![app.to_owned()],
        candidate: vec![format!("{app}-canary")],
        service: app.to_owned(),
        analysis: Analysis {
            every: Duration::from_secs(1),
            metrics: metrics
                .map(|(n, source)| Metric {
                    name: format!("metric-{n}"),
                    source,
                    min_requests: None,
                })
                .collect(),
            on_failure: OnFailure::Rollback,
            on_inconclusive: OnInconclusive::Hold,
            deadline: None,
            alpha: 0.01,
            compare: true,
            skip: false,
            reporter: Reporter::Destination,
            counting: serin::spec::Counting {
                warmup: Duration::ZERO,
                ..Default::default()
            },
            counters: None,
            rule: serin::spec::Rule::Serin,
        },
        window: Window {
            rollout,
            step: rollout,
            has_traffic: true,
            weight: None,
            comparable: true,
            strikes: 0,
        },
    }
}

fn custom(query: &str, max: f64) -> MetricSource {
    MetricSource::Custom {
        query: query.to_owned(),
        min: None,
        max: Some(max),
    }
}

/// The present, late enough that every sample up to it has been stored.
pub(super) fn settled() -> Timestamp {
    let now = SystemClock.now() - TimeDelta::seconds(1);
    now.duration_trunc(TimeDelta::seconds(1)).unwrap()
}

async fn tick(
    server: &Server,
    targets: &[Target],
    ledger: &mut Ledger,
    now: Timestamp,
) -> BTreeMap<String, Judgement> {
    let queries = plan(targets, ledger, now);
    let answers = server.ask(&queries).await;
    absorb(ledger, targets, &queries, &answers);
    let judged = targets
        .iter()
        .map(|t| (t.id.name.clone(), judge(t, ledger, now)));
    judged.collect()
}

const SUCCESS: MetricSource = MetricSource::SuccessRate { min: 99.0 };
const LATENCY: MetricSource = MetricSource::Latency {
    quantile: 0.99,
    max: Duration::from_millis(500),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canaries_are_judged_by_a_real_server() {
    let source = TrafficSource::start().await;
    let apps = ["good", "failing", "slow", "restarting", "idle"];
    for app in apps {
        source.set(app, 50.0, 0.001, 100.0);
    }
    source.gauge("queue_length", 7.0);
    let mut prometheus = Prometheus::start(&source).await;
    let server = Server::new(Settings::new(&prometheus.url)).unwrap();
    pause(Duration::from_secs(3)).await;

    let rollout = settled();
    source.set("good-canary", 200.0, 0.002, 240.0);
    source.set("failing-canary", 20.0, 1.0, 100.0);
    source.set("slow-canary", 200.0, 0.0, 2000.0);
    source.set("restarting-canary", 200.0, 0.0, 100.0);
    let mut targets: Vec<Target> = apps
        .iter()
        .map(|app| target(app, rollout, vec![SUCCESS, LATENCY]))
        .collect();
    targets.push(target(
        "custom",
        rollout,
        vec![
            custom("queue_length", 10.0),
            custom("scalar(queue_length) * 2", 20.0),
        ],
    ));
    targets.push(target(
        "full",
        rollout,
        vec![custom("max(queue_length) # too long", 5.0)],
    ));
    targets.push(target(
        "broken",
        rollout,
        vec![
            custom("max(queue_length", 5.0),
            custom("smu(queue_length)", 5.0),
        ],
    ));
    targets.push(target(
        "nothing",
        rollout,
        vec![
            custom("queue_length / 0 * 0", 5.0),
            custom("no_such_metric", 5.0),
        ],
    ));

    let mut ledger = Ledger::default();
    let mut judged = BTreeMap::new();
    let mut last = rollout;
    for second in 0..8 {
        // Every restart loses what was not scraped; nothing of it may look like a burst.
        if second == 4 {
            source.restart("restarting-canary");
        }
        pause(Duration::from_secs(1)).await;
        last = settled();
        judged = tick(&server, &targets, &mut ledger, last).await;
    }
    let verdict = |app: &str| judged[app].verdict;
    let all = format!("{judged:#?}");
    assert_eq!(verdict("good"), Verdict::Pass, "{all}");
    assert_eq!(verdict("failing"), Verdict::Fail, "{all}");
    assert_eq!(
        judged["failing"].findings[0].value.as_deref(),
        Some("0%"),
        "{all}"
    );
    assert_eq!(verdict("slow"), Verdict::Fail, "{all}");
    assert_eq!(judged["slow"].findings[0].verdict, Verdict::Pass, "{all}");
    assert_eq!(judged["slow"].findings[1].verdict, Verdict::Fail, "{all}");
    assert_eq!(verdict("restarting"), Verdict::Pass, "{all}");
    assert_eq!(verdict("idle"), Verdict::Inconclusive, "{all}");
    assert_eq!(verdict("custom"), Verdict::Pass, "{all}");
    assert_eq!(verdict("full"), Verdict::Fail, "{all}");
    assert_eq!(verdict("broken"), Verdict::Error, "{all}");
    assert!(judged["broken"].sentence.contains("parse error"), "{all}");
    assert_eq!(verdict("nothing"), Verdict::Inconclusive, "{all}");

    // Counts are those of the server, exactly: 200 a second since the rollout began, but for what a restart lost.
    let counts = |ledger: &Ledger, app: &str| {
        ledger.entries[&CanaryId::new(NAMESPACE, app)]
            .requests()
            .unwrap()
    };
    let promql = format!(
        "sum(istio_requests_total{{destination_workload=\"good-canary\"}} @ {})",
        last.timestamp()
    );
    let answers = server.ask(&[instant(&promql, last)]).await;
    let [serin::analysis::Answer::Series(total)] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert_eq!(
        counts(&ledger, "good").candidate.requests as f64,
        total[0].samples[0].1
    );
    let restarting = counts(&ledger, "restarting").candidate;
    assert!(
        (600..=1800).contains(&restarting.requests),
        "{restarting:?}"
    );

    // A fresh engine reads the same from the server's past.
    let mut rebuilt = Ledger::default();
    let again = tick(&server, &targets, &mut rebuilt, last).await;
    for app in apps {
        assert_eq!(counts(&rebuilt, app), counts(&ledger, app), "{app}");
        assert_eq!(again[app].verdict, judged[app].verdict, "{app}");
    }

    // The query of a finding shows a person the same, by a server that extrapolates.
    let query = &judged["failing"].findings[0].query;
    let answers = server.ask(&[instant(query, SystemClock.now())]).await;
    let [serin::analysis::Answer::Series(shown)] = answers.as_slice() else {
        panic!("{query}: {answers:?}");
    };
    assert_eq!(shown[0].labels.value("response_code"), "503", "{shown:?}");
    let query = &judged["slow"].findings[1].query;
    let answers = server.ask(&[instant(query, SystemClock.now())]).await;
    let [serin::analysis::Answer::Series(shown)] = answers.as_slice() else {
        panic!("{query}: {answers:?}");
    };
    assert!(shown[0].samples[0].1 > 1000.0, "{shown:?}");

    // A new step counts its own requests only.
    for target in &mut targets {
        target.window.step = last + TimeDelta::milliseconds(1500);
    }
    pause(Duration::from_secs(1)).await;
    let judged = tick(&server, &targets, &mut ledger, settled()).await;
    assert!(!judged["good"].allows.step, "{judged:#?}");

    prometheus.kill();
    pause(Duration::from_secs(1)).await;
    let judged = tick(&server, &targets, &mut ledger, settled()).await;
    assert_eq!(judged["good"].verdict, Verdict::Error, "{judged:#?}");
    assert!(
        judged["good"]
            .sentence
            .contains("Prometheus cannot be reached"),
        "{judged:#?}"
    );
    assert_eq!(judged["custom"].verdict, Verdict::Error);
    // What was seen before stands.
    assert_eq!(judged["failing"].verdict, Verdict::Fail);
}
