//! The types of the analysis: queries and answers as values, evidence, verdicts.

use std::time::Duration;

use serde_json::{Map, Value};

use super::labels::Labels;
use crate::domain::{CanaryId, Timestamp};
use crate::spec::{Analysis, Unit, ValidatedCanary, Workload};

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

impl Target {
    /// A canary with the times that count for it.
    pub fn new(canary: &ValidatedCanary, window: Window) -> Self {
        let (stable, candidate) = match &canary.workload {
            Workload::Managed(managed) => (
                vec![managed.deployment.clone()],
                vec![crate::domain::canary_deployment(&managed.deployment)],
            ),
            Workload::BringYourOwn(two) => (
                two.stable_deployments.clone(),
                two.candidate_deployments.clone(),
            ),
        };
        Self {
            id: canary.id.clone(),
            stable,
            candidate,
            service: canary.route.service.clone(),
            analysis: canary.analysis.clone(),
            window,
        }
    }
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
    /// Share of the requests that the step gives to the candidate, per cent, where it is by chance who gets there.
    pub weight: Option<u8>,
    /// Whether it is by chance on every step of the ladder: only then can the versions be compared.
    pub comparable: bool,
    /// Failed checks of the steps before, by Flagger's rule.
    pub strikes: u32,
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
    /// Longest age of a sample that counts as present; `None`: as the server has it, mostly 5 min.
    pub lookback: Option<Duration>,
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
    /// Counters by the queries of specs; the answer's label [`CUSTOM_LABEL`] is an index into this list.
    Counters(Kind, Vec<Counted>),
    /// The checks of Flagger's rule that are due: one metric of one canary.
    Checks(CanaryId, String),
    /// Custom metrics by canary and metric name. With more than one, the answer's label [`CUSTOM_LABEL`] is an index
    /// into this list; a single one is asked as the user wrote it, and its answer carries whatever labels it has.
    Custom(Vec<(CanaryId, String)>),
    /// What time it is there: whoever answers says so, whatever the answer.
    Clock,
}

impl Purpose {
    /// Seconds that the server's clock may differ from ours for the answer to be of use. A candidate that is measured
    /// already is judged on, within two scrapes at the usual interval: a bad one is not to stay because a clock drifts.
    /// What begins to be measured is dated for good, and has to be dated better than scrapes are.
    pub fn clock_tolerance(&self) -> i64 {
        match self {
            Self::Clock => 5,
            _ => 30,
        }
    }
}

/// What counters are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Requests and how they ended.
    Requests,
    /// How long answers took.
    Latency,
}

/// One query of a spec's own counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Whose.
    pub canary: CanaryId,
    /// Whether it is about the candidate; about stable otherwise.
    pub of_candidate: bool,
    /// What it counts.
    pub part: Part,
}

/// What a query of a spec counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// All requests.
    Requests,
    /// Those of them that failed.
    Failures,
    /// Those of them that were answered with the client's fault.
    Rejections,
    /// Answers by how long they took, with bounds in this unit.
    Buckets(Unit),
}

/// One time series of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Labels by name.
    pub labels: Labels,
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
    /// The server's clock is this many seconds ahead of ours (behind, if negative).
    #[error("the clock of Prometheus is {} s {}: its samples would be taken for those of another time; synchronise the clocks", .0.abs(), if *.0 < 0 { "behind" } else { "ahead" })]
    Clock(i64),
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

/// What a rollout may do on its evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allows {
    /// Go on to the next step. A candidate that nothing speaks against may, before it is shown to be safe.
    pub step: bool,
    /// Be promoted.
    pub promotion: bool,
}

impl Allows {
    /// Everything.
    pub const ALL: Self = Self {
        step: true,
        promotion: true,
    };
}

/// The comparison of candidate and stable in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// What was counted: `failures`, `client errors`, or the name of a latency metric.
    pub stream: String,
    /// The candidate's requests since the rollout began.
    pub requests: u64,
    /// How many of them failed (were slow, blamed the client).
    pub failures: u64,
    /// Stable's requests in the same time.
    pub stable_requests: u64,
    /// How many of them failed.
    pub stable_failures: u64,
    /// The candidate's share of the requests of the last tick.
    pub theta: f64,
    /// `ln E` of this stream.
    pub ln_evidence: f64,
    /// `ln E` of all streams together, and how much a rollback needs.
    pub whole: (f64, f64),
    /// Chance of such evidence at any time if the candidate is no worse.
    pub p_value: f64,
    /// The candidate's odds of failure are at least this many times stable's.
    pub odds: Option<f64>,
    /// How much the evidence was weakened because stable's pods differ.
    pub phi: f64,
}

impl Compared {
    /// The numbers by name, rounded as people need them: enough to check the decision by hand.
    pub fn numbers(&self, asked: Timestamp) -> Vec<(&'static str, String)> {
        let odds = self.odds.map(|odds| format!("{odds:.3}"));
        vec![
            ("stream", self.stream.clone()),
            ("candidate", format!("{}/{}", self.failures, self.requests)),
            (
                "stable",
                format!("{}/{}", self.stable_failures, self.stable_requests),
            ),
            ("theta", format!("{:.4}", self.theta)),
            ("lnE", format!("{:.4}", self.ln_evidence)),
            ("whole", format!("{:.4}", self.whole.0)),
            ("needed", format!("{:.4}", self.whole.1)),
            ("p", format!("{:.3e}", self.p_value)),
            ("odds", odds.unwrap_or_else(|| "none".to_owned())),
            ("phi", format!("{:.3}", self.phi)),
            (
                "asked",
                asked.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            ),
        ]
    }
}

/// A verdict with all that it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The verdict over all metrics: the worst of Fail, Error, Inconclusive, Pass in this order.
    pub verdict: Verdict,
    /// What follows for the rollout.
    pub allows: Allows,
    /// The comparison, if candidate and stable were compared: the stream that says most.
    pub compared: Option<Compared>,
    /// One finding per metric, in the order of the spec.
    pub findings: Vec<Finding>,
    /// One sentence for people.
    pub sentence: String,
    /// When Prometheus was asked.
    pub at: Timestamp,
    /// Checks of this rollout that failed so far, where Flagger's rule judges.
    pub strikes: Option<u32>,
    /// What stable did before the rollout, where that was read.
    pub load: Option<Load>,
}

/// What stable did for some time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Requests.
    pub requests: u64,
    /// How many of them failed.
    pub failures: u64,
    /// For how long.
    pub seconds: f64,
}

impl Judgement {
    /// The comparison with stable in numbers, by name: numbers as numbers, the rest as text.
    pub fn numbers(&self) -> Map<String, Value> {
        let parts = self.compared.iter().flat_map(|c| c.numbers(self.at));
        let typed = parts.map(|(name, text)| {
            let value = match text.parse::<f64>() {
                // Whole numbers are written without a point, and so read back without one.
                Ok(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
                    (number as i64).into()
                }
                Ok(number) => number.into(),
                Err(_) => text.into(),
            };
            (name.to_owned(), value)
        });
        typed.collect()
    }

    /// What keeps the rollout where it is: the sentence of the verdict, or with a pass the sentences of its findings.
    pub fn missing(&self) -> String {
        if self.verdict != Verdict::Pass || self.findings.is_empty() {
            return self.sentence.clone();
        }
        let sentences = self
            .findings
            .iter()
            .map(|finding| format!("{}: {}", finding.metric, finding.sentence));
        sentences.collect::<Vec<_>>().join("; ")
    }
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
