//! The validated canary: what is left when every mistake is gone. Nothing downstream can fail on it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::domain::{CanaryId, Manifest, RepoPath, Revision, Timestamp, Weight};

/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// A `Canary` that parsed, and whose Service and workload were found in the repository.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidatedCanary {
    /// Namespace and name.
    pub id: CanaryId,
    /// Where it is written.
    pub home: Home,
    /// How stable and candidate are told apart, and who deploys them.
    pub workload: Workload,
    /// What the manifests in Git say serves.
    pub stable: Version,
    /// What is proposed next to it; `None` when nothing is, or when it equals stable.
    pub proposal: Option<Candidate>,
    /// The route to generate.
    pub route: Route,
    /// Users who always reach the candidate while there is one.
    pub users: Vec<UserRule>,
    /// The steps; never empty.
    pub ladder: Vec<Rung>,
    /// Identity of the ladder as the user wrote it.
    pub ladder_revision: Revision,
    /// How the candidate is judged.
    pub analysis: Analysis,
    /// What people set to steer.
    pub controls: Controls,
}

impl ValidatedCanary {
    /// What people write for this canary: its spec, the manifests of its workloads, and where its images are set.
    pub fn inputs(&self) -> Vec<RepoPath> {
        let mut inputs = vec![self.home.file.clone()];
        let others: Vec<&RepoPath> = match &self.workload {
            Workload::Managed(managed) => {
                let images = &managed.images;
                let set = images.kustomizations.iter().chain(&images.marked);
                std::iter::once(&managed.file).chain(set).collect()
            }
            Workload::BringYourOwn(two) => two.files.iter().collect(),
        };
        for file in others {
            if !inputs.contains(file) {
                inputs.push(file.clone());
            }
        }
        inputs
    }
}

/// Where a canary is written, and the folder that is Serin's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// File of the `Canary` document.
    pub file: RepoPath,
    /// Folder of the generated files: `<canary name>.serin` next to `file`, unless the spec says otherwise.
    pub folder: RepoPath,
}

/// How the two versions are deployed.
#[derive(Debug, Clone, PartialEq)]
pub enum Workload {
    /// Serin writes the candidate's Deployment, derived from the stable one in Git.
    Managed(ManagedWorkload),
    /// The user keeps both Deployments in Git; Serin only routes between two label sets.
    BringYourOwn(TwoVersions),
}

/// A Deployment in Git that a candidate is derived from.
#[derive(Debug, Clone, PartialEq)]
pub struct ManagedWorkload {
    /// Name of the stable Deployment.
    pub deployment: String,
    /// Its manifest as JSON, `images` of a kustomization applied.
    /// As written it is shared with what was read of the file.
    pub manifest: Manifest,
    /// Replicas that the manifest names; every decision asks.
    pub written_replicas: Option<u64>,
    /// File of the manifest.
    pub file: RepoPath,
    /// Where its images are written, if not in the manifest.
    pub images: ImageSources,
    /// Pod label key that tells stable from candidate.
    pub label_key: String,
    /// Its value on stable's pods; `None` when the pod template lacks the key, and the canary waits for it.
    pub stable_value: Option<String>,
    /// Replicas of the canary Deployment.
    pub replicas: CanaryReplicas,
}

/// Files other than the manifest that say which images take effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageSources {
    /// Kustomizations with `images` that take the manifest in, from the innermost to the outermost.
    pub kustomizations: Vec<RepoPath>,
    /// Files with marker comments for this canary.
    pub marked: Vec<RepoPath>,
    /// By kustomization and name of an image: another Deployment that its entry changes as well.
    pub shared: BTreeMap<(RepoPath, String), String>,
}

/// How many replicas the canary Deployment gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CanaryReplicas {
    /// Always this many.
    Fixed(u32),
    /// `ceil(stable × weight / 100)`, at least one.
    Proportional,
}

/// The two label sets of bring-your-own mode. They have the same keys and differ in at least one value, unless the
/// candidate has become stable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwoVersions {
    /// Labels of stable's pods.
    pub stable: Labels,
    /// Names of Deployments in Git whose pods carry the stable labels.
    pub stable_deployments: Vec<String>,
    /// Names of Deployments in Git whose pods carry the candidate labels.
    pub candidate_deployments: Vec<String>,
    /// Files of the manifests of both.
    pub files: Vec<RepoPath>,
}

/// A version that serves: what the manifests in Git say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Identity of the pod template (managed), or of labels and pod templates (bring your own).
    pub revision: Revision,
    /// A few words for people: `podinfod=6.8.0`, `version=v1`.
    pub summary: String,
}

/// A proposal, self-contained: what `rollout.yaml` keeps a copy of.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Identity of what the user proposed.
    pub revision: Revision,
    /// Revision that stable will have once this candidate is promoted onto today's manifests.
    pub yields: Revision,
    /// A few words for people: `podinfod=6.9.0`, `version=v2`.
    pub summary: String,
    /// What it consists of.
    pub content: CandidateContent,
    /// Whether it reads as older than stable, and the user did not say that this is wanted.
    pub older_than_stable: bool,
}

/// What a candidate consists of.
#[derive(Debug, Clone, PartialEq)]
pub enum CandidateContent {
    /// Managed: images by container name, and a strategic-merge patch of the pod template.
    Template {
        /// Image by container name.
        images: BTreeMap<String, String>,
        /// Patch of `spec.template`, if any.
        patch: Option<Value>,
    },
    /// Bring your own: labels of the candidate's pods.
    Labels(Labels),
}

/// What the generated `VirtualService` and `DestinationRule` say beyond weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Kubernetes Service in front of both versions.
    pub service: String,
    /// Port of the Service, when it is to be named in destinations.
    pub port: Option<u16>,
    /// Hosts; empty with `delegate`.
    pub hosts: Vec<String>,
    /// Gateways; empty means the mesh.
    pub gateways: Vec<String>,
    /// Protocol and what the user wants on each generated route of it.
    pub protocol: Protocol,
    /// Istio `trafficPolicy` for the DestinationRule, passed through.
    pub traffic_policy: Option<Value>,
    /// A VirtualService without hosts and gateways, for a root VirtualService to delegate to.
    pub delegate: bool,
    /// Keep each client on the version that first answered it, while a rollout runs.
    pub session_affinity: Option<SessionAffinity>,
    /// Istio `exportTo`, passed through; empty means Istio's default.
    pub export_to: Vec<String>,
}

/// Protocol of the generated routes.
#[derive(Debug, Clone, PartialEq)]
pub enum Protocol {
    /// Istio `HTTPRoute` fields (without `route`, `redirect`, `delegate`, `mirrors`) on every generated route.
    Http(Map<String, Value>),
    /// Istio `TCPRoute` with these `match` entries.
    Tcp(Vec<Value>),
    /// Istio `TLSRoute` with these `match` entries (at least one, with `sniHosts`).
    Tls(Vec<Value>),
}

/// Sticky sessions by cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionAffinity {
    /// Name of the cookie.
    pub cookie: String,
    /// `Max-Age` of the cookie.
    pub max_age: Duration,
}

/// One rule of named users: any of `exact` in this header or cookie reaches the candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRule {
    /// Where the name is looked for.
    pub source: UserSource,
    /// The names, matched exactly; never empty.
    pub exact: Vec<String>,
}

/// Where a user's name is found in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserSource {
    /// The whole value of this header (lower case).
    Header(String),
    /// The value of this cookie.
    Cookie(String),
}

/// One step of the ladder.
#[derive(Debug, Clone, PartialEq)]
pub struct Rung {
    /// Share of requests that the candidate gets.
    pub weight: Weight,
    /// How long to stay at least, measured from when the cluster shows the step.
    pub hold: Duration,
    /// Whether somebody has to approve before the next step.
    pub approval: bool,
    /// Per cent of requests to copy to the candidate; its answers are thrown away.
    pub mirror: Option<Weight>,
    /// Istio `HTTPMatchRequest`s that reach the candidate whatever the weight (A/B); empty for none.
    pub matches: Vec<Value>,
}

impl Rung {
    /// Whether anybody but the named users can reach the candidate on this step.
    pub fn has_traffic(&self) -> bool {
        self.weight > Weight::ZERO
            || self.mirror.is_some_and(|share| share > Weight::ZERO)
            || !self.matches.is_empty()
    }
}

/// How a candidate is judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// By whose rule.
    pub rule: Rule,
    /// Time between two looks at Prometheus.
    pub every: Duration,
    /// What to measure; empty only with `skip`.
    pub metrics: Vec<Metric>,
    /// What a failing verdict does.
    pub on_failure: OnFailure,
    /// What happens when a step has not passed within `deadline`.
    pub on_inconclusive: OnInconclusive,
    /// Longest time on one step without a passing verdict.
    pub deadline: Option<Duration>,
    /// Level of the tests, chance of a false rollback per rollout; 0.01 by default.
    pub alpha: f64,
    /// Whether candidate and stable are compared as well.
    pub compare: bool,
    /// Promote on readiness and holds alone.
    pub skip: bool,
    /// Which proxy's telemetry counts.
    pub reporter: Reporter,
    /// How requests are counted and compared in detail.
    pub counting: Counting,
    /// Queries that count requests, for telemetry other than Istio's.
    pub counters: Option<Counters>,
}

/// The rule that a candidate is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Serin's own.
    Serin,
    /// Flagger's: this many failed checks roll back.
    Flagger {
        /// At least 1.
        threshold: u32,
    },
}

/// PromQL that yields cumulative counters, one series per proxy or process. `{{ workload }}` is filled in for each
/// version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// All requests.
    pub requests: String,
    /// Those of them that failed.
    pub failures: String,
    /// Those of them that were answered with the client's fault.
    pub rejections: Option<String>,
    /// Answers by how long they took: buckets with a label `le`.
    pub latency: Option<LatencyCounters>,
}

/// A histogram of latencies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyCounters {
    /// PromQL that yields its buckets.
    pub buckets: String,
    /// Unit of its bounds.
    pub unit: Unit,
}

/// Unit of the bounds of a latency histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// As Istio's and Linkerd's.
    Milliseconds,
    /// As most others'.
    Seconds,
}

/// What counts as a failure, and which differences between the versions matter.
#[derive(Debug, Clone, PartialEq)]
pub struct Counting {
    /// Response codes that are failures, `503` or a class such as `5xx`.
    pub codes: Vec<String>,
    /// gRPC statuses that are failures.
    pub grpc: Vec<u8>,
    /// Envoy response flags that are failures, whatever the code.
    pub flags: Vec<String>,
    /// Envoy response flags of requests that do not count at all.
    pub ignored_flags: Vec<String>,
    /// Odds ratio up to which a candidate counts as no worse than stable; at least 1.
    pub tolerance: f64,
    /// Failing share of the candidate, in per cent, below which no difference matters; `None`: a tenth of the limit.
    pub floor: Option<f64>,
    /// Whether answers that blame the client (4xx) are compared as well.
    pub client_errors: bool,
    /// Whether a rollout waits while requests do not arrive as the weight says.
    pub routing: bool,
    /// Requests of the candidate that a step needs before the next, unless it has lasted five minutes.
    pub step_requests: u64,
    /// How long the candidate's latency does not count after its first answer.
    pub warmup: Duration,
}

impl Default for Counting {
    fn default() -> Self {
        Self {
            codes: vec!["5xx".to_owned()],
            grpc: vec![2, 4, 12, 13, 14, 15],
            flags: Vec::new(),
            ignored_flags: vec!["DC".to_owned()],
            tolerance: 1.0,
            floor: None,
            client_errors: true,
            routing: true,
            step_requests: 50,
            warmup: Duration::from_secs(60),
        }
    }
}

/// The `reporter` label of Istio's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reporter {
    /// The candidate's own sidecar.
    Destination,
    /// The caller's sidecar or gateway.
    Source,
    /// An ambient waypoint.
    Waypoint,
}

impl Reporter {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Destination => "destination",
            Self::Source => "source",
            Self::Waypoint => "waypoint",
        }
    }
}

/// One metric with its limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Unique within the canary.
    pub name: String,
    /// What is measured.
    pub source: MetricSource,
    /// Requests that a passing verdict needs at least; `None`: from the limit, see `analysis`.
    pub min_requests: Option<u64>,
}

/// What a metric measures.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricSource {
    /// Share of requests that did not fail, from `istio_requests_total`; `min` in per cent.
    SuccessRate {
        /// Lowest acceptable share in per cent.
        min: f64,
    },
    /// Latency from `istio_request_duration_milliseconds`.
    Latency {
        /// Quantile, between 0 and 1.
        quantile: f64,
        /// Highest acceptable value of that quantile.
        max: Duration,
    },
    /// Any PromQL that yields one number. Placeholders `{{ namespace }}`, `{{ workload }}`, `{{ stable }}`,
    /// `{{ service }}`, `{{ canary }}` and `{{ window }}` are filled in.
    Custom {
        /// The text as the user wrote it.
        query: String,
        /// Lowest acceptable value.
        min: Option<f64>,
        /// Highest acceptable value.
        max: Option<f64>,
    },
}

/// What a failing verdict does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Traffic back to stable, candidate rejected.
    Rollback,
    /// Stay at the weight and wait for a person.
    Hold,
}

/// What a step that stays inconclusive past its deadline does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInconclusive {
    /// Keep waiting.
    Hold,
    /// Traffic back to stable, candidate rejected.
    Rollback,
    /// Go on as if it had passed.
    Promote,
}

/// What people set in the spec to steer a rollout.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Controls {
    /// Hold everything but repair.
    pub paused: bool,
    /// Roll back and start nothing while set.
    pub abort: bool,
    /// Counter: raised, a rejected candidate may start again from the first step.
    pub retry: u64,
    /// Counter: raised, a rollout that a person's edit or a failure holds goes on from where it is.
    pub resume: u64,
    /// Times in which no weight rises.
    pub freeze: Vec<Freeze>,
    /// Going back to the previous version within this time needs no ladder.
    pub rollback_window: Option<Duration>,
}

/// A time in which no weight rises and nothing is promoted; rollback is always allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freeze {
    /// Once.
    Between {
        /// First instant of the freeze.
        from: Timestamp,
        /// First instant after it.
        to: Timestamp,
    },
    /// Every week.
    Weekly {
        /// Days on which it begins, 0 is Monday.
        days: Vec<u8>,
        /// Minutes after midnight at which it begins.
        from: u16,
        /// Minutes after midnight at which it ends; not after `from`: on the next day.
        to: u16,
        /// Offset of the clock that these are read on, in minutes east of UTC.
        offset: i16,
    },
}
