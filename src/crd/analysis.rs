//! How a candidate is judged, as users write it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schema;

/// How a candidate is judged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisSpec {
    /// By whose rule a candidate is judged; `serin` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleSpec>,
    /// Failed checks that roll back, with `rule: flagger`; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub threshold: Option<u32>,
    /// Time between two looks at Prometheus; `15s` by default (`1m` with `rule: flagger`), at least `1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub every: Option<String>,
    /// What to measure; a success rate of at least 99 % by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 50))]
    pub metrics: Option<Vec<MetricSpec>>,
    /// Compares candidate and stable, in a way that stays valid however often one looks. On by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compare: Option<CompareSpec>,
    /// What a failing verdict does; `rollback` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<FailureAction>,
    /// What happens when a step has not passed within `deadline`; `hold` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_inconclusive: Option<InconclusiveAction>,
    /// Longest time on one step without a passing verdict. Needed when `onInconclusive` is not `hold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub deadline: Option<String>,
    /// Asks no metrics at all: promotes on readiness and hold times alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip: Option<bool>,
    /// Whose telemetry counts; `destination` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reporter: Option<ReporterSpec>,
    /// Queries that count requests, for telemetry other than Istio's: Linkerd's, an application's own, recording rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counters: Option<CountersSpec>,
    /// What counts as a failure: 5xx, gRPC's server faults and requests without an answer by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<FailuresSpec>,
    /// Requests of the candidate that a step needs before the next, unless it has lasted five minutes; 50 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub step_requests: Option<u64>,
    /// How long the candidate's latency does not count after its first answer; `60s` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub warmup: Option<String>,
}

/// The rule that a candidate is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuleSpec {
    /// Candidate against stable and against limits, valid however often one looks.
    Serin,
    /// Flagger's, while you migrate: a check every `every`, by Flagger's queries over that time alone. A check fails when
    /// a metric is beyond its limit or has no value; after `threshold` failed checks the next tick rolls back. Nothing
    /// is compared with stable.
    Flagger,
}

/// Queries that count requests.
///
/// Each yields cumulative counters (no `rate`, no `increase`), best one series per pod, with the label `pod` or
/// `instance`. `{{ workload }}` is filled in with the workloads of stable and of the candidate in turn; `{{ namespace }}`,
/// `{{ service }}` and `{{ canary }}` are known as well.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CountersSpec {
    /// All requests: `sum by (pod) (response_total{direction="inbound", namespace="{{ namespace }}", deployment=~"{{ workload }}"})`.
    #[schemars(length(min = 1, max = 10_000))]
    pub requests: String,
    /// Those of them that failed.
    #[schemars(length(min = 1, max = 10_000))]
    pub failures: String,
    /// Those of them that were answered with the client's fault (4xx); compared as well, with little weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10_000))]
    pub rejections: Option<String>,
    /// How long answers took; needed by a `latency` metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyCountersSpec>,
}

/// A histogram of latencies.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LatencyCountersSpec {
    /// PromQL that yields cumulative buckets with the label `le`, `+Inf` among them; best without failures, which may be
    /// fast: `sum by (pod, le) (http_request_duration_seconds_bucket{pod=~"({{ workload }})-.*", code!~"5.."})`. Of native
    /// histograms a query makes the two buckets that a limit needs, here 0.5 s (`h` is
    /// `sum by (pod) (http_request_duration_seconds{...})`): `label_replace(round(histogram_fraction(-Inf, 0.5, h) *
    /// histogram_count(h)) >= 0 or 0 * histogram_count(h), "le", "0.5", "", "") or label_replace(histogram_count(h), "le",
    /// "+Inf", "", "")`. That is exact where the limit is a bound of theirs, as powers of two are.
    #[schemars(length(min = 1, max = 10_000))]
    pub buckets: String,
    /// Unit of the bounds; `s` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitSpec>,
}

/// Unit of the bounds of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnitSpec {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
}

/// What counts as a failure. What is given takes the place of the default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailuresSpec {
    /// Response codes: `503`, or a class such as `5xx`; `[5xx]` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 50))]
    pub codes: Option<Vec<String>>,
    /// gRPC statuses; `[2, 4, 12, 13, 14, 15]` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub grpc: Option<Vec<u8>>,
    /// Envoy response flags that are failures whatever the code, such as `UF`; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 50))]
    pub flags: Option<Vec<String>>,
    /// Envoy response flags of requests without an answer that do not count at all; `[DC]` by default: the client
    /// went away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 50))]
    pub ignored_flags: Option<Vec<String>>,
}

/// The comparison of candidate and stable.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompareSpec {
    /// Set to false to judge by thresholds alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Chance that a candidate which is no worse than stable is rolled back all the same, per rollout; 0.01 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.000_001, max = 0.5))]
    pub alpha: Option<f64>,
    /// Ratio of the odds of failure up to which a candidate counts as no worse than stable; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub tolerance: Option<f64>,
    /// Failing share of the candidate, in per cent, below which no difference matters; a tenth of what the success
    /// rate allows by default (0.1 for 99 %).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub floor: Option<f64>,
    /// Whether answers that blame the client (4xx) are compared as well, with little weight; on by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_errors: Option<bool>,
    /// Whether a rollout waits while requests do not arrive as the weight says; on by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing: Option<bool>,
}

/// One metric with its limits.
///
/// Built in are `success-rate` (with `min`, in per cent) and `latency` (with `quantile` and `max`); `latency-<word>`
/// and `success-rate-<word>` are further ones of the same sort. Any other name needs a `query`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.query) || !has(self.quantile)", "message": "`quantile` goes with the built-in `latency`"},
    {"rule": "has(self.query) || self.name == 'success-rate' || self.name == 'latency' || self.name.startsWith('success-rate-') || self.name.startsWith('latency-')",
     "message": "a metric that is not built in (`success-rate`, `latency`) needs a `query`"}
]))]
pub struct MetricSpec {
    /// Name, unique within the canary.
    #[schemars(length(min = 1, max = 100))]
    pub name: String,
    /// Lowest acceptable value; for `success-rate` in per cent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Highest acceptable value: for `latency` a duration such as `500ms`, for a query a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::limit")]
    pub max: Option<Value>,
    /// Quantile of `latency`, between 0 and 1; 0.99 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantile: Option<f64>,
    /// PromQL that yields one number. `{{ namespace }}`, `{{ workload }}`, `{{ stable }}`, `{{ service }}`,
    /// `{{ canary }}` and `{{ window }}` are filled in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10_000))]
    pub query: Option<String>,
    /// Requests that a passing verdict needs at least; by default as many as the limit asks for (299 for 99 %).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_requests: Option<u64>,
}

/// What a failing verdict does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    /// Traffic back to stable; the candidate is rejected until it changes or `retry` is raised.
    Rollback,
    /// Stay at the weight and wait for a person.
    Hold,
}

/// What a step that stays inconclusive past its deadline does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InconclusiveAction {
    /// Keep waiting.
    Hold,
    /// Traffic back to stable; the candidate is rejected.
    Rollback,
    /// Go on as if it had passed.
    Promote,
}

/// Whose telemetry counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReporterSpec {
    /// The candidate's own sidecar.
    Destination,
    /// The caller's sidecar or gateway.
    Source,
    /// An ambient waypoint.
    Waypoint,
}
