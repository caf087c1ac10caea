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
            .route("/-/ready", get(|| async { "The demo's metrics are ready.\n" }))
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
    let (start, end) = (time("start", asked.start.as_deref())?, time("end", asked.end.as_deref())?);
    let step = step(asked.step.as_deref())?;
    if end < start {
        return Err(Refusal("end timestamp must not be before start time".to_owned()));
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
    let bad = || Refusal(format!("invalid parameter \"{name}\": cannot parse \"{text}\" to a valid timestamp"));
    if let Ok(seconds) = text.parse::<f64>() {
        let millis = seconds.is_finite().then(|| (seconds * 1000.0).round() as i64);
        return millis.and_then(Timestamp::from_timestamp_millis).ok_or_else(bad);
    }
    text.parse().map_err(|_| bad())
}

/// A resolution: seconds, or a whole number with a unit of `s`, `m` or `h`.
fn step(text: Option<&str>) -> Result<TimeDelta, Refusal> {
    let text = text.unwrap_or_default();
    let units = [("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let unit = units.into_iter().find_map(|(unit, seconds)| {
        text.strip_suffix(unit).map(|number| (number, seconds))
    });
    let (number, seconds) = unit.unwrap_or((text, 1.0));
    let millis = number.parse::<f64>().ok().map(|count| (count * seconds * 1000.0) as i64);
    millis
        .filter(|millis| *millis > 0)
        .and_then(TimeDelta::try_milliseconds)
        .ok_or_else(|| Refusal(format!("invalid parameter \"step\": cannot parse \"{text}\" to a valid duration")))
}
