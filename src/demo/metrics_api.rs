//! The simulated mesh's telemetry behind Prometheus' HTTP API, for Serin and for a person with `curl`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use chrono::TimeDelta;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;

use super::promql::{self, Expr, Value};
use super::traffic::{Labels, Traffic};
use crate::domain::Timestamp;

/// Most points of a range query, as in Prometheus.
const MAX_POINTS: i64 = 11_000;

/// Telemetry that the demo advances and the server reads.
pub type Shared = Arc<Mutex<Traffic>>;

/// The HTTP server.
#[derive(Debug)]
pub struct MetricsApi;

impl MetricsApi {
    /// Answers requests until the future is dropped. A query without a `time` is evaluated at the latest sample.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(traffic: Shared, listener: TcpListener) -> std::io::Result<()> {
        let router = Router::new()
            .route("/api/v1/query", get(instant).post(instant))
            .route("/api/v1/query_range", get(range).post(range))
            .route(
                "/-/ready",
                get(|| async { "The demo's metrics are ready.\n" }),
            )
            .with_state(traffic);
        axum::serve(listener, router).await
    }
}

/// The query of a GET, or the form of a POST.
#[derive(Debug, Deserialize)]
struct Parameters {
    query: Option<String>,
    time: Option<String>,
    start: Option<String>,
    end: Option<String>,
    step: Option<String>,
}

/// A refusal in the API's own form.
struct Refusal(String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"status": "error", "errorType": "bad_data", "error": self.0});
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    }
}

type Answer = Result<Json<serde_json::Value>, Refusal>;

impl Parameters {
    fn expression(&self) -> Result<Expr, Refusal> {
        let text = self.query.as_deref().unwrap_or_default();
        promql::parse(text)
            .map_err(|error| Refusal(format!("invalid parameter \"query\": parse error: {error}")))
    }
}

async fn instant(State(traffic): State<Shared>, Form(asked): Form<Parameters>) -> Answer {
    let expr = asked.expression()?;
    let traffic = traffic.lock().unwrap_or_else(PoisonError::into_inner);
    let at = match asked.time.as_deref() {
        Some(text) => time("time", Some(text))?,
        None => latest(&traffic),
    };
    let (kind, result) = match promql::evaluate(&expr, &traffic, at).map_err(Refusal)? {
        Value::Scalar(value) => ("scalar", sample(at, value)),
        Value::Vector(vector) => (
            "vector",
            vector
                .into_iter()
                .map(|(labels, value)| json!({"metric": labels, "value": sample(at, value)}))
                .collect(),
        ),
    };
    Ok(success(kind, &result))
}

async fn range(State(traffic): State<Shared>, Form(asked): Form<Parameters>) -> Answer {
    let expr = asked.expression()?;
    let (start, end) = (
        time("start", asked.start.as_deref())?,
        time("end", asked.end.as_deref())?,
    );
    let step = step(asked.step.as_deref())?;
    if end < start {
        return Err(Refusal(
            "end timestamp must not be before start time".to_owned(),
        ));
    }
    if (end - start).num_milliseconds() / step.num_milliseconds() > MAX_POINTS {
        let words = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";
        return Err(Refusal(words.to_owned()));
    }
    let traffic = traffic.lock().unwrap_or_else(PoisonError::into_inner);
    let mut series: BTreeMap<Labels, Vec<serde_json::Value>> = BTreeMap::new();
    let mut at = start;
    while at <= end {
        let vector = match promql::evaluate(&expr, &traffic, at).map_err(Refusal)? {
            Value::Scalar(value) => vec![(Labels::new(), value)],
            Value::Vector(vector) => vector,
        };
        for (labels, value) in vector {
            series.entry(labels).or_default().push(sample(at, value));
        }
        at += step;
    }
    let result = series
        .into_iter()
        .map(|(labels, values)| json!({"metric": labels, "values": values}))
        .collect();
    Ok(success("matrix", &result))
}

fn success(kind: &str, result: &serde_json::Value) -> Json<serde_json::Value> {
    Json(json!({"status": "success", "data": {"resultType": kind, "result": result}}))
}

fn sample(at: Timestamp, value: f64) -> serde_json::Value {
    let text = if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    };
    json!([at.timestamp_millis() as f64 / 1000.0, text])
}

fn latest(traffic: &Traffic) -> Timestamp {
    let times = traffic.series().filter_map(|(_, samples)| samples.back());
    times.map(|(at, _)| *at).max().unwrap_or_default()
}

/// A time as Prometheus takes it: seconds since 1970, or RFC 3339.
fn time(name: &str, text: Option<&str>) -> Result<Timestamp, Refusal> {
    let text = text.unwrap_or_default();
    let bad = || {
        Refusal(format!(
            "invalid parameter \"{name}\": cannot parse \"{text}\" to a valid timestamp"
        ))
    };
    if let Ok(seconds) = text.parse::<f64>() {
        let millis = seconds
            .is_finite()
            .then(|| (seconds * 1000.0).round() as i64);
        return millis
            .and_then(Timestamp::from_timestamp_millis)
            .ok_or_else(bad);
    }
    text.parse().map_err(|_| bad())
}

/// A resolution: seconds, or a whole number with a unit of `s`, `m` or `h`.
fn step(text: Option<&str>) -> Result<TimeDelta, Refusal> {
    let text = text.unwrap_or_default();
    let units = [("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let unit = units
        .into_iter()
        .find_map(|(unit, seconds)| text.strip_suffix(unit).map(|number| (number, seconds)));
    let (number, seconds) = unit.unwrap_or((text, 1.0));
    let millis = number
        .parse::<f64>()
        .ok()
        .map(|count| (count * seconds * 1000.0) as i64);
    millis
        .filter(|millis| *millis > 0)
        .and_then(TimeDelta::try_milliseconds)
        .ok_or_else(|| {
            Refusal(format!(
                "invalid parameter \"step\": cannot parse \"{text}\" to a valid duration"
            ))
        })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use insta::assert_snapshot;

    use super::*;
    use crate::analysis::{self, Ledger, Target, Verdict, Window};
    use crate::demo::traffic::Flow;
    use crate::domain::CanaryId;
    use crate::ports::Metrics;
    use crate::prometheus::{Server, Settings};
    use crate::spec::{Analysis, Metric, MetricSource, OnFailure, OnInconclusive, Reporter};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_700_000_000 + second, 0).unwrap()
    }

    fn flow(workload: &str, error_share: f64, latency_ms: f64) -> Flow {
        Flow {
            namespace: "test".to_owned(),
            workload: workload.to_owned(),
            service: "app".to_owned(),
            version: "v1".to_owned(),
            pods: vec![format!("{workload}-0")],
            per_second: 20.0,
            error_share,
            latency_ms,
        }
    }

    async fn serve(traffic: Traffic) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(MetricsApi::serve(Arc::new(Mutex::new(traffic)), listener));
        url
    }

    fn target(metrics: Vec<MetricSource>) -> Target {
        let metrics = metrics.into_iter().enumerate();
        Target {
            id: CanaryId::new("test", "app"),
            stable: vec!["app".to_owned()],
            candidate: vec!["app-canary".to_owned()],
            service: "app".to_owned(),
            analysis: Analysis {
                every: Duration::from_secs(15),
                metrics: metrics
                    .map(|(n, source)| Metric {
                        name: format!("m{n}"),
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
                counting: crate::spec::Counting::default(),
                counters: None,
                rule: crate::spec::Rule::Serin,
            },
            window: Window {
                rollout: at(60),
                step: at(60),
                has_traffic: true,
                weight: None,
                comparable: true,
                strikes: 0,
            },
        }
    }

    /// What Serin makes of two minutes of a candidate with this behaviour, over HTTP and in two ticks.
    async fn judged(error_share: f64, latency_ms: f64) -> analysis::Judgement {
        let mut traffic = Traffic::new();
        for second in 0..=180 {
            let mut flows = vec![flow("app", 0.0, 80.0)];
            if second > 70 {
                flows.push(flow("app-canary", error_share, latency_ms));
            }
            traffic.advance(at(second), &flows);
        }
        let server = Server::new(Settings::new(serve(traffic).await)).unwrap();
        let custom = |query: &str| MetricSource::Custom {
            query: query.to_owned(),
            min: None,
            max: Some(100.0),
        };
        let targets = [target(vec![
            MetricSource::SuccessRate { min: 99.0 },
            MetricSource::Latency {
                quantile: 0.99,
                max: Duration::from_millis(250),
            },
            custom(
                "sum(rate(istio_requests_total{destination_workload=\"{{ workload }}\"}[{{ window }}])) # a comment",
            ),
            custom("100 - scalar(sum(istio_requests_total)) * 0"),
        ])];
        let mut ledger = Ledger::default();
        for second in [165, 180] {
            let queries = analysis::plan(&targets, &ledger, at(second));
            let answers = server.ask(&queries).await;
            analysis::absorb(&mut ledger, &targets, &queries, &answers);
        }
        let judgement = analysis::judge(&targets[0], &ledger, at(180));
        for finding in &judgement.findings {
            let query = analysis::Query {
                promql: finding.query.clone(),
                at: at(180),
                range: None,
                lookback: None,
                purpose: analysis::Purpose::Custom(Vec::new()),
            };
            let answers = server.ask(&[query]).await;
            assert!(
                matches!(answers.as_slice(), [analysis::Answer::Series(found)] if !found.is_empty()),
                "{}: {answers:?}",
                finding.query
            );
        }
        judgement
    }

    #[tokio::test]
    async fn serin_judges_by_it() {
        let good = judged(0.0, 200.0).await;
        assert_snapshot!(good.sentence, @"m0 100% (>= 99%); m1 100% (p99 <= 250ms); m2 18.1667 (<= 100); m3 100 (<= 100)");
        assert_eq!(good.verdict, Verdict::Pass);
        let bad = judged(0.05, 200.0).await;
        assert_snapshot!(bad.sentence, @"m0: candidate fails 12.1 times as often as stable at least (99% sure), 105 of 2,100 against 0 of 2,100 requests, 2m after the step");
        assert_eq!(bad.verdict, Verdict::Fail);
        let slow = judged(0.0, 400.0).await;
        assert_snapshot!(slow.sentence, @"m1: candidate is slow 48.2 times as often as stable at least (99% sure), 720 of 900 against 0 of 900 answers, 2m after the step");
        assert_eq!(slow.verdict, Verdict::Fail);
    }

    #[tokio::test]
    async fn it_answers_as_prometheus_does() {
        let mut traffic = Traffic::new();
        for second in 0..=60 {
            traffic.advance(at(second), &[flow("a", 0.0, 80.0), flow("b", 0.5, 80.0)]);
        }
        let url = serve(traffic).await;
        let client = reqwest_client();
        let get = async |path: &str| {
            let response = client.get(format!("{url}{path}")).send().await.unwrap();
            format!(
                "{} {}",
                response.status().as_u16(),
                response.text().await.unwrap()
            )
        };
        let mut lines = Vec::new();
        for path in [
            "/api/v1/query?query=sum(istio_requests_total)",
            "/api/v1/query?query=sum%20by%20(response_code)%20(istio_requests_total%7Bdestination_workload!~%22a%7Cc%22%7D)&time=1700000030",
            "/api/v1/query?query=sum(increase(istio_requests_total%7Bpod%3D%22a-0%22%7D%5B10s%5D%20@%201700000020))%20%2F%202",
            "/api/v1/query?query=scalar(vector(3))&time=2023-11-14T22:13:20Z",
            "/api/v1/query?query=1%20%2F%200",
            "/api/v1/query_range?query=count(istio_requests_total)&start=1699999990&end=1700000010&step=10s",
            "/api/v1/query?query=sum(up",
            "/api/v1/query?query=up%5B5m%5D",
            "/api/v1/query?query=topk(1,%20up)",
            "/api/v1/query",
            "/api/v1/query_range?query=up&start=0&end=1&step=0",
            "/api/v1/query_range?query=up&start=0&end=100000&step=1",
            "/api/v1/query?query=up&time=yesterday",
            "/-/ready",
        ] {
            lines.push(get(path).await);
        }
        assert_snapshot!(lines.join("\n"), @r#"
        200 {"data":{"result":[{"metric":{},"value":[1700000060.0,"2400"]}],"resultType":"vector"},"status":"success"}
        200 {"data":{"result":[{"metric":{"response_code":"200"},"value":[1700000030.0,"300"]},{"metric":{"response_code":"503"},"value":[1700000030.0,"300"]}],"resultType":"vector"},"status":"success"}
        200 {"data":{"result":[{"metric":{},"value":[1700000060.0,"100"]}],"resultType":"vector"},"status":"success"}
        200 {"data":{"result":[1700000000.0,"3"],"resultType":"scalar"},"status":"success"}
        200 {"data":{"result":[1700000060.0,"+Inf"],"resultType":"scalar"},"status":"success"}
        200 {"data":{"result":[{"metric":{},"values":[[1700000010.0,"3"]]}],"resultType":"matrix"},"status":"success"}
        400 {"error":"invalid parameter \"query\": parse error: expected `)`, found ``","errorType":"bad_data","status":"error"}
        400 {"error":"a range of samples is only of use inside `increase` or `rate`","errorType":"bad_data","status":"error"}
        400 {"error":"the demo's Prometheus does not know `topk` with these arguments","errorType":"bad_data","status":"error"}
        400 {"error":"invalid parameter \"query\": parse error: expected an expression, found ``","errorType":"bad_data","status":"error"}
        400 {"error":"invalid parameter \"step\": cannot parse \"0\" to a valid duration","errorType":"bad_data","status":"error"}
        400 {"error":"exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)","errorType":"bad_data","status":"error"}
        400 {"error":"invalid parameter \"time\": cannot parse \"yesterday\" to a valid timestamp","errorType":"bad_data","status":"error"}
        200 The demo's metrics are ready.
        "#);
    }

    fn reqwest_client() -> reqwest::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder()
            .tls_certs_only([])
            .build()
            .unwrap()
    }

    #[test]
    fn no_text_makes_the_parser_panic_or_loop() {
        let pieces = [
            "sum", "(", ")", "{", "}", "a", "=", "\"x\"", "[", "5m", "]", "@", "1", "or", "-", "'",
            "é", "by", ",", "\\", " ", "#",
        ];
        let mut seed = 1u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(pieces[(seed >> 33) as usize % pieces.len()]);
            }
            let _ =
                promql::parse(&text).map(|expr| promql::evaluate(&expr, &Traffic::new(), at(0)));
        }
        assert!(promql::parse(&"(".repeat(100_000)).is_err());
        assert!(promql::parse(&"-".repeat(100_000)).is_err());
    }
}
