//! The types of the analysis: queries and answers as values, evidence, verdicts.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::{CanaryId, Timestamp};
use crate::spec::Analysis;

/// Label that tells the members of a batch of custom metrics apart.
pub const CUSTOM_LABEL: &str = "serin_query";

/// What is to be judged, and since when.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The canary.
    pub id: CanaryId,
    /// `destination_workload` values of stable, in the canary's namespace.
    pub stable: Vec<String>,
    /// `destination_workload` values of the candidate, in the canary's namespace.
    pub candidate: Vec<String>,
    /// The Kubernetes Service.
    pub service: String,
    /// Metrics and limits.
    pub analysis: Analysis,
    /// The times that count.
    pub window: Window,
}

/// The times that count for a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Start of the rollout; requests before it never count.
    pub rollout: Timestamp,
    /// When the present step was observed; a passing verdict rests on requests since then only.
    pub step: Timestamp,
    /// Whether the present step sends anybody but named users to the candidate.
    pub has_traffic: bool,
}

/// One request to Prometheus, as a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The PromQL text.
    pub promql: String,
    /// Evaluation time; end of the range for a range query.
    pub at: Timestamp,
    /// Start and resolution of a range query; `None` asks for one instant.
    pub range: Option<(Timestamp, Duration)>,
    /// What the answer is for.
    pub purpose: Purpose,
}

/// What an answer is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Raw request counters of these canaries.
    Requests(Vec<CanaryId>),
    /// Raw latency buckets of these canaries.
    Latency(Vec<CanaryId>),
    /// Custom metrics by canary and metric name. With more than one, the answer's label [`CUSTOM_LABEL`] is an index
    /// into this list; a single one is asked as the user wrote it, and its answer carries whatever labels it has.
    Custom(Vec<(CanaryId, String)>),
}

/// One time series of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Labels by name.
    pub labels: BTreeMap<String, String>,
    /// Samples in time order.
    pub samples: Vec<(Timestamp, f64)>,
}

/// What came back for one query.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The series, complete and without warnings. Empty is an answer.
    Series(Vec<Series>),
    /// No usable answer.
    Failed(AskError),
}

/// Why there is no usable answer. Never a pass, never a fail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Nothing listens, the name does not resolve, TLS failed.
    #[error("Prometheus cannot be reached: {0}")]
    Unreachable(String),
    /// No answer within the deadline.
    #[error("Prometheus did not answer within {} s", .0.as_secs())]
    Deadline(Duration),
    /// An HTTP status that is not success, or Prometheus' own error type.
    #[error("Prometheus refused the query: {0}")]
    Refused(String),
    /// Prometheus rejected the PromQL itself.
    #[error("Prometheus rejected the PromQL: {0}")]
    BadQuery(String),
    /// An answer with warnings: possibly partial.
    #[error("Prometheus gave a partial answer: {0}")]
    Partial(String),
    /// An answer of the wrong shape.
    #[error("Prometheus gave an unusable answer: {0}")]
    Unusable(String),
}

/// The outcome of a look at the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Every metric is within its limit on enough requests.
    Pass,
    /// At least one metric is beyond its limit, and chance is excluded.
    Fail,
    /// Not enough to say.
    Inconclusive,
    /// Prometheus could not be asked, or answered nothing usable.
    Error,
}

impl Verdict {
    /// The word used in trailers, state and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
            Self::Error => "error",
        }
    }
}

/// A verdict with all that it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The verdict over all metrics: the worst of Fail, Error, Inconclusive, Pass in this order.
    pub verdict: Verdict,
    /// One finding per metric, in the order of the spec.
    pub findings: Vec<Finding>,
    /// One sentence for people.
    pub sentence: String,
    /// When Prometheus was asked.
    pub at: Timestamp,
}

/// What one metric showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Name of the metric.
    pub metric: String,
    /// The verdict of this metric alone.
    pub verdict: Verdict,
    /// The measured value with its unit, `99.53%`, `231ms`; `None` when there is none.
    pub value: Option<String>,
    /// The limit with its unit: `>= 99%`, `p99 <= 500ms`.
    pub threshold: String,
    /// Requests that the value rests on; 0 for custom metrics without a count.
    pub samples: u64,
    /// How many of them failed or were too slow.
    pub failures: u64,
    /// Length of time that the value covers.
    pub window: Duration,
    /// The PromQL.
    pub query: String,
    /// One sentence for people; says what is missing when inconclusive.
    pub sentence: String,
}
