//! What Serin shows in the cluster. Never read back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a canary is, for people. A projection of Git and of what the cluster shows: nothing is ever read from here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStatus {
    /// `Idle`, `Progressing`, `Draining`, `Failed` or `Invalid` (the spec or the state in Git has mistakes).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Per cent of requests that the candidate gets by what is committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u8>,
    /// Per cent of requests that the candidate gets by what the cluster shows; absent while that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_weight: Option<u8>,
    /// Step of the ladder, such as `2/4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// When the step was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// The candidate in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// What serves, in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable: Option<String>,
    /// The last verdict: `pass`, `fail`, `inconclusive` or `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// What each metric showed when it was asked last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["metric"]))]
    pub analysis: Vec<MetricStatus>,
    /// What it waits for and why, one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The commit that this status was derived from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Who opened the gate of the present step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// Conditions: `Ready`, `Reconciling` and `Stalled` as kstatus reads them, and `Promoted` (`Unknown` while a rollout
    /// runs, then whether it ended in a promotion).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Generation of the object that this status belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// What one metric showed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricStatus {
    /// Name of the metric.
    pub metric: String,
    /// `pass`, `fail`, `inconclusive` or `error`.
    pub verdict: String,
    /// The measured value with its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The limit with its unit.
    pub threshold: String,
    /// Requests that the value rests on.
    pub samples: u64,
}
