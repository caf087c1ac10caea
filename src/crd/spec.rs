//! What a user writes: workload or versions, the proposal, the ladder, and the switches to steer with.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::analysis::AnalysisSpec;
use super::route::{RouteSpec, UserSpec};
use super::schema;
use super::status::CanaryStatus;

/// A progressive rollout that is steered from Git.
///
/// Write it next to the manifests of the application. Serin reads it from the repository, commits the rendered
/// VirtualService and DestinationRule and every step of a rollout, and never takes anything from the cluster's copy.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "serin.dev",
    version = "v1alpha1",
    kind = "Canary",
    plural = "canaries",
    singular = "canary",
    shortname = "cny",
    namespaced,
    status = "CanaryStatus",
    derive = "PartialEq",
    doc = "A progressive rollout that is steered from Git: what people write in the repository decides, the status here only shows it.",
    printcolumn = r#"{"name": "Phase", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Weight", "type": "integer", "jsonPath": ".status.weight", "description": "Per cent of requests that the candidate gets by what is committed"}"#,
    printcolumn = r#"{"name": "Observed", "type": "integer", "jsonPath": ".status.observedWeight", "description": "The same by what the cluster shows", "priority": 1}"#,
    printcolumn = r#"{"name": "Step", "type": "string", "jsonPath": ".status.step"}"#,
    printcolumn = r#"{"name": "Candidate", "type": "string", "jsonPath": ".status.candidate"}"#,
    printcolumn = r#"{"name": "Verdict", "type": "string", "jsonPath": ".status.verdict"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name": "Waiting", "type": "string", "jsonPath": ".status.message", "description": "What it waits for, and why"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.workload) != has(self.versions)",
     "message": "give either `workload` (Serin writes the canary Deployment) or `versions` (you deploy both yourself)"},
    {"rule": "!has(self.candidate) || has(self.workload)",
     "message": "`candidate` goes with `workload`; with `versions` the proposal is `versions.candidate`"},
    {"rule": "!has(self.users) || !(has(self.route.tcp) || has(self.route.tls))",
     "message": "named users need an HTTP route: a TCP or TLS route cannot see headers or cookies"}
]))]
pub struct CanarySpec {
    /// The Deployment that the candidate is derived from; Serin writes `<name>-canary` beside it while a rollout runs.
    /// Give either this or `versions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadSpec>,
    /// Two label sets of Deployments that you keep in Git yourself; Serin only routes between them. Give either this or
    /// `workload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versions: Option<VersionsSpec>,
    /// The proposal. Absent, or equal to what stable's manifest says: there is nothing to roll out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<CandidateSpec>,
    /// The route to generate.
    pub route: RouteSpec,
    /// Users who always reach the candidate while there is one, on every step, weight 0 included. They are matched
    /// exactly and before everybody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub users: Option<Vec<UserSpec>>,
    /// The steps of a rollout: a list of steps, or a climb such as `{from: 10, by: 10, to: 50, hold: 1m}`, alone or as
    /// an element of the list. After the last step has passed the candidate is promoted.
    #[schemars(schema_with = "schema::ladder")]
    pub ladder: LadderSpec,
    /// How the candidate is judged. Without it: a success rate of at least 99 %, compared with stable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisSpec>,
    /// Holds everything but repair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Rolls back, and starts nothing while it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<bool>,
    /// A counter: raise it to let a rejected candidate start again from the first step.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000_000))]
    pub retry: Option<u64>,
    /// A counter: raise it to let a rollout that somebody's edit or a failure holds go on from where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000_000))]
    pub resume: Option<u64>,
    /// Times in which no weight rises and nothing is promoted. Rolling back is always allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub freeze: Option<Vec<FreezeSpec>>,
    /// Going back to the version before the last promotion within this time after it needs no ladder: `30m`, `2h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub rollback_window: Option<String>,
    /// Name of the folder of generated files, next to this file. `<canary name>.serin` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub folder: Option<String>,
}

/// A Deployment in the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSpec {
    /// Name of the Deployment. Its manifest is found in the repository, in this canary's namespace.
    #[schemars(length(min = 1, max = 246))]
    pub deployment: String,
    /// Key of the pod label that tells stable from candidate; `serin.dev/track` by default. Stable's pod template must
    /// carry it with any value but `canary`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub label: Option<String>,
    /// Replicas of the canary Deployment: a number, or `proportional` (the default): stable's replicas times the weight,
    /// rounded up, at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::replicas")]
    pub replicas: Option<ReplicasSpec>,
}

/// A number of replicas, or a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ReplicasSpec {
    /// Always this many.
    Fixed(u32),
    /// The word `proportional`.
    Rule(String),
}

/// Two label sets: the same keys, at least one value that differs while there is something to roll out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.stable.all(k, k in self.candidate) && self.candidate.all(k, k in self.stable)",
     "message": "`stable` and `candidate` must have the same label keys"}
]))]
pub struct VersionsSpec {
    /// Labels of the pods that serve, such as `{version: v1}`. Promotion writes the candidate's labels here.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 10))]
    pub stable: BTreeMap<String, String>,
    /// Labels of the pods that are proposed, such as `{version: v2}`. Equal to `stable`: nothing to roll out.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 10))]
    pub candidate: BTreeMap<String, String>,
}

/// A proposal next to what serves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CandidateSpec {
    /// Image by container name. Promotion writes it where stable's image is written: in the manifest, in the kustomization's
    /// `images`, or behind a marker comment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub images: BTreeMap<String, String>,
    /// Strategic-merge patch of the pod template (`spec.template` of the Deployment).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::open_object")]
    pub patch: Option<Value>,
    /// Set to roll out images whose tags read as older than stable's. Without it such a candidate waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_older: Option<bool>,
}

/// The ladder as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LadderSpec {
    /// One climb.
    Climb(Climb),
    /// A list.
    List(Vec<LadderItem>),
}

/// An element of the ladder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LadderItem {
    /// One step.
    Rung(RungSpec),
    /// Several steps.
    Climb(Climb),
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RungSpec {
    /// Per cent of requests that the candidate gets. Weights rise along the ladder; two neighbours may have the same
    /// weight only if they differ in `approval`, `mirror` or `match`.
    #[schemars(range(min = 0, max = 100))]
    pub weight: u64,
    /// How long to stay at least, measured from when the cluster shows the step: `90s`, `2m`, `1h30m`. 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub hold: Option<String>,
    /// `{}`: somebody has to approve before the next step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Per cent of requests to copy to the candidate, whose answers are thrown away. HTTP routes only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub mirror: Option<u64>,
    /// Istio `HTTPMatchRequest`s: requests that match one of them reach the candidate whatever the weight (A/B).
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::open_objects")]
    pub matches: Option<Vec<Value>>,
}

/// A manual gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Approval {}

/// Equal steps: `from`, `from + by`, … up to `to`, which is always the last of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Climb {
    /// Weight of the first step, in per cent.
    #[schemars(range(min = 0, max = 100))]
    pub from: u64,
    /// How much each step adds.
    #[schemars(range(min = 1, max = 100))]
    pub by: u64,
    /// Weight of the last step.
    #[schemars(range(min = 0, max = 100))]
    pub to: u64,
    /// How long to stay on each of them at least: `90s`, `2m`. 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub hold: Option<String>,
}

/// A freeze: once (`from` and `to` as RFC 3339 times), or every week (`days`, with `from` and `to` as times of day).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.days) || !has(self.utcOffset)",
     "message": "`utcOffset` goes with `days`; a time such as 2026-12-24T18:00:00+01:00 carries its own offset"}
]))]
pub struct FreezeSpec {
    /// Begin: `2026-12-24T18:00:00Z`; with `days` a time of day, `16:00`.
    #[schemars(length(max = 64))]
    pub from: String,
    /// End: `2026-12-27T08:00:00Z`; with `days` a time of day, `08:00`, on the next day unless it is after `from`.
    #[schemars(length(max = 64))]
    pub to: String,
    /// Days on which a weekly freeze begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 7))]
    pub days: Option<Vec<Day>>,
    /// Offset of the clock that `from` and `to` are read on, such as `+01:00`; UTC by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6))]
    pub utc_offset: Option<String>,
}

/// A day of the week.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}
