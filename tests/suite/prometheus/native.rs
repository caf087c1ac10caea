//! Native histograms, as Prometheus scrapes them: how a spec counts slow answers with them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use serin::analysis::{Judgement, Ledger, Verdict, judge};
use serin::prometheus::{Server, Settings};
use serin::spec::{Counters, LatencyCounters, MetricSource, Unit};
use tokio::net::TcpListener;

use super::queries::tick;
use super::real::{settled, target};
use crate::support::prometheus::{Prometheus, pause};

/// What a pod has answered.
#[derive(Debug, Clone, Copy, Default)]
struct Pod {
    deployment: &'static str,
    fast: u64,
    slow: u64,
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A field of a message: its number and its bytes.
fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    [
        &[field << 3 | 2],
        &varint(content.len() as u64)[..],
        content,
    ]
    .concat()
}

fn number(field: u8, value: u64) -> Vec<u8> {
    [&[field << 3], &varint(value)[..]].concat()
}

fn signed(field: u8, value: i64) -> Vec<u8> {
    number(field, ((value << 1) ^ (value >> 63)) as u64)
}

fn double(field: u8, value: f64) -> Vec<u8> {
    [&[field << 3 | 1][..], &value.to_le_bytes()].concat()
}

/// `io.prometheus.client.MetricFamily` with one metric, with its length before it.
fn family(name: &str, kind: u64, pod: &Pod, value: &[u8]) -> Vec<u8> {
    let label = |name: &str, value: &str| {
        bytes(
            1,
            &[bytes(1, name.as_bytes()), bytes(2, value.as_bytes())].concat(),
        )
    };
    let own = label("pod", &format!("{}-0", pod.deployment));
    let metric = [label("app", pod.deployment), own, value.to_vec()].concat();
    let all = [
        bytes(1, name.as_bytes()),
        number(3, kind),
        bytes(4, &metric),
    ]
    .concat();
    [varint(all.len() as u64), all].concat()
}

/// All metrics of a pod: a counter, and a histogram with the buckets (0.25, 0.5] and (0.5, 1].
fn exposition(pod: &Pod) -> Vec<u8> {
    let Pod { fast, slow, .. } = *pod;
    let counter = bytes(3, &double(1, (fast + slow) as f64));
    let (low, high) = (fast as i64, slow as i64);
    let spans = match fast + slow {
        0 => Vec::new(),
        _ => [
            bytes(12, &[signed(1, -1), number(2, 2)].concat()),
            signed(13, low),
            signed(13, high - low),
        ]
        .concat(),
    };
    let histogram = [
        number(1, fast + slow),
        double(2, fast as f64 * 0.3 + slow as f64 * 0.8),
        signed(5, 0),
        double(6, 1e-9),
        number(7, 0),
        spans,
    ];
    [
        family("served_total", 0, pod, &counter),
        family("took_seconds", 4, pod, &bytes(7, &histogram.concat())),
    ]
    .concat()
}

/// The query that the documentation gives.
fn buckets(histogram: &str) -> String {
    format!(
        "label_replace(round(histogram_fraction(-Inf, 0.5, {histogram}) * histogram_count({histogram})) >= 0\n  or 0 * histogram_count({histogram}), \"le\", \"0.5\", \"\", \"\")\nor label_replace(histogram_count({histogram}), \"le\", \"+Inf\", \"\", \"\")"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_answers_are_counted_in_native_histograms() {
    let pods = [
        ("app", 9_990, 10),
        ("app-canary", 0, 0),
        ("idle-canary", 0, 0),
    ];
    let pods = pods.map(|(deployment, fast, slow)| Pod {
        deployment,
        fast,
        slow,
    });
    let pods = Arc::new(Mutex::new(pods));
    let shown = Arc::clone(&pods);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let kind = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    let answer = move || {
        let pods = *shown.lock().unwrap();
        let body: Vec<u8> = pods.iter().flat_map(exposition).collect();
        std::future::ready(([(CONTENT_TYPE, kind)], body))
    };
    let router = axum::Router::new().route("/metrics", axum::routing::get(answer));
    let source = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let flags = ["--enable-feature=native-histograms"];
    let prometheus = Prometheus::scraping(&address, &flags).await;
    let server = Server::new(Settings::new(&prometheus.url)).unwrap();
    pause(Duration::from_secs(2)).await;

    let rollout = settled();
    let of = |app: &str, histogram: String| {
        let latency = MetricSource::Latency {
            quantile: 0.99,
            max: Duration::from_millis(500),
        };
        let mut target = target(app, rollout, vec![latency]);
        target.analysis.counters = Some(Counters {
            requests: "sum by (pod) (served_total{app=~\"{{ workload }}\"})".to_owned(),
            failures: "0 * sum by (pod) (served_total{app=~\"{{ workload }}\"})".to_owned(),
            rejections: None,
            latency: Some(LatencyCounters {
                buckets: histogram,
                unit: Unit::Seconds,
            }),
        });
        target
    };
    let native = "sum by (pod) (took_seconds{app=~\"{{ workload }}\"})";
    let mut idle = of("idle", buckets(native));
    idle.stable = vec!["app".to_owned()];
    let mut bare = of("app", native.to_owned());
    bare.id.name = "bare".to_owned();
    let targets = [of("app", buckets(native)), bare, idle];
    let mut ledger = Ledger::default();
    tick(&server, &targets, &mut ledger, rollout).await;
    for round in 1..=4_u64 {
        {
            let mut pods = pods.lock().unwrap();
            pods[0].fast += 500;
            pods[0].slow += 1;
            pods[1].fast = 93 * round;
            pods[1].slow = 7 * round;
        }
        pause(Duration::from_millis(2200)).await;
        tick(&server, &targets, &mut ledger, settled()).await;
    }
    pause(Duration::from_secs(3)).await;
    let now = settled();
    tick(&server, &targets, &mut ledger, now).await;
    let judged: Vec<Judgement> = targets.iter().map(|t| judge(t, &ledger, now)).collect();
    assert_eq!(judged[0].verdict, Verdict::Fail, "{:#?}", judged[0]);
    let found = &judged[0].findings[0];
    assert_eq!((found.samples, found.failures), (400, 28));
    assert!(
        judged[0].sentence.contains("28 of 400 against 4 of 2,004"),
        "{}",
        judged[0].sentence
    );
    // A query that gives histograms as they are is told what to write.
    assert_eq!(judged[1].verdict, Verdict::Error, "{:#?}", judged[1]);
    assert!(
        judged[1].sentence.contains("histogram_fraction"),
        "{}",
        judged[1].sentence
    );
    // A histogram without any answer has no fraction, and is no error.
    assert_eq!(judged[2].verdict, Verdict::Inconclusive, "{:#?}", judged[2]);
    source.abort();
}
