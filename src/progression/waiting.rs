//! "Not moving", in words: one sentence for people and one stable reason for machines.

use std::fmt;

use super::state::{HoldReason, WaitingOn};

impl WaitingOn {
    /// A stable CamelCase word: condition reason, event reason, metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Proposal => "NoProposal",
            Self::Retry(_) => "CandidateRejected",
            Self::DowngradeConsent { .. } => "OlderThanStable",
            Self::TrackLabel { .. } => "LabelMissing",
            Self::Unpause => "Paused",
            Self::AbortCleared => "Aborted",
            Self::Person(_) => "HeldForPerson",
            Self::Observation => "NotObserved",
            Self::Stable(_) => "StableNotReady",
            Self::Candidate(_) => "CandidateNotReady",
            Self::HoldTime { .. } => "Soaking",
            Self::Approval { .. } => "ApprovalPending",
            Self::Evidence { .. } => "EvidenceMissing",
            Self::Metrics(_) => "MetricsUnavailable",
            Self::Freeze { .. } => "Frozen",
            Self::PushInterval { .. } => "PushInterval",
            Self::PlanMode => "PlanMode",
            Self::PushRefused(_) => "PushRefused",
            Self::Remote(_) => "RemoteUnavailable",
            Self::HistoryRewritten { .. } => "HistoryRewritten",
            Self::HeadUnverified { .. } => "HeadUnverified",
            Self::Signatures(_) => "SignaturesUnusable",
            Self::Spec(_) => "SpecInvalid",
            Self::Invariant(_) => "CheckerRefused",
        }
    }
}

impl fmt::Display for WaitingOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const TIME: &str = "%H:%M:%S UTC";
        match self {
            Self::Proposal => write!(f, "nothing to roll out: no candidate differs from stable"),
            Self::Retry(rejection) => {
                write!(
                    f,
                    "the candidate was rejected ({}): change it, or raise `retry`",
                    rejection.reason
                )
            }
            Self::DowngradeConsent { candidate, stable } => {
                write!(
                    f,
                    "{candidate} reads as older than {stable}: set `candidate.allowOlder: true` if that is meant"
                )
            }
            Self::TrackLabel { key, deployment } => write!(
                f,
                "the pod template of Deployment {deployment} needs the label {key} to tell stable from the candidate: \
                 `serin adopt {deployment}` shows the commit"
            ),
            Self::Unpause => write!(f, "paused: set `paused: false` to go on"),
            Self::AbortCleared => write!(f, "aborted: set `abort: false` to start again"),
            Self::Person(hold) => match hold.reason {
                HoldReason::Adopted => {
                    write!(
                        f,
                        "held ({}): raise `resume`, or remove `held` from rollout.yaml, to go on",
                        hold.detail
                    )
                }
                HoldReason::AnalysisFailed => {
                    write!(
                        f,
                        "the analysis failed ({}): raise `resume` to go on, or set `abort: true`",
                        hold.detail
                    )
                }
            },
            Self::Observation => write!(f, "waiting until the cluster shows the committed step"),
            Self::Stable(why) => write!(f, "waiting for stable to become ready: {why}"),
            Self::Candidate(why) => write!(f, "waiting for the candidate to become ready: {why}"),
            Self::HoldTime { until } => write!(f, "soaking until {}", until.format(TIME)),
            Self::Approval { step } => {
                write!(
                    f,
                    "step {step} needs an approval: set `approval: granted` in rollout.yaml"
                )
            }
            Self::Evidence { sentence, .. } => write!(f, "waiting for evidence: {sentence}"),
            Self::Metrics(words) => write!(f, "no verdict without metrics: {words}"),
            Self::Freeze { until } => {
                write!(f, "frozen until {}", until.format("%Y-%m-%d %H:%M UTC"))
            }
            Self::PushInterval { until } => {
                write!(f, "the next push is due at {}", until.format(TIME))
            }
            Self::PlanMode => write!(f, "plan mode: nothing is pushed"),
            Self::PushRefused(words) => write!(f, "the remote refused the push: {words}"),
            Self::Remote(words) => f.write_str(words),
            Self::HistoryRewritten { from, to } => write!(
                f,
                "the branch was rewritten: {} no longer descends from {}; nothing moves until it does, or until the \
                 rewrite is accepted",
                to.short(),
                from.short()
            ),
            Self::HeadUnverified {
                head,
                last_good,
                why,
            } => {
                write!(f, "the head {} is not verified: {why}; ", head.short())?;
                match last_good {
                    Some(good) => write!(f, "{} stays in force until it is", good.short()),
                    None => write!(f, "no commit of the branch is, so nothing is in force"),
                }
            }
            Self::Signatures(words) => f.write_str(words),
            Self::Spec(message) => write!(f, "the spec has a mistake: {message}"),
            Self::Invariant(message) => {
                write!(
                    f,
                    "Serin's own checker refused the next commit ({message}): please report this"
                )
            }
        }
    }
}
