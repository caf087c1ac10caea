//! What Serin shows in the cluster. Never read back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a canary is, for people. A projection of Git: nothing is ever read from here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStatus {
    /// `Idle`, `Progressing`, `Draining`, `Failed` or `Rejected` (the spec has mistakes).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Per cent of requests that the candidate gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u8>,
    /// Step of the ladder, such as `2/4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The candidate in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// What serves, in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable: Option<String>,
    /// The last verdict: `pass`, `fail`, `inconclusive` or `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// What it waits for and why, one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The commit that this status was derived from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Conditions: `Ready`, `Progressing`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Generation of the object that this status belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
