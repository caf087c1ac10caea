//! What people see of a canary in the cluster: the status of its object, and events when something changed.
//!
//! Both are projections of a pass's report and of what the cluster shows. Nothing is read back from them, and nothing
//! here writes them: equal inputs give equal statuses, so that an adapter can tell that there is nothing to write.

mod conditions;
mod events;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff;

pub use events::{notes, of_clash, of_repair};

use crate::analysis::Judgement;
use crate::crd::{CanaryStatus, MetricStatus};
use crate::domain::{CommitId, Timestamp};
use crate::progression::{Approval, State, WaitingOn};
use crate::reconcile::CanaryReport;

/// What a status is derived from.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The canary after a pass.
    pub report: &'a CanaryReport,
    /// The head after the pass; `None` when the remote could not be asked.
    pub head: Option<&'a CommitId>,
    /// Weight of the candidate that the cluster shows; `None` while that is not known.
    pub observed_weight: Option<u8>,
    /// `metadata.generation` of the object in the cluster.
    pub generation: Option<i64>,
    /// The present instant.
    pub now: Timestamp,
}

/// The status that shows `subject`, as a successor of the one in the cluster.
///
/// What cannot be known while the remote is away keeps its last value; transition times change only with the status of
/// their condition.
pub fn derive(previous: Option<&CanaryStatus>, subject: &Subject<'_>) -> CanaryStatus {
    let report = subject.report;
    let mut status = match (&report.waiting, previous) {
        (WaitingOn::Remote(_), Some(previous)) if report.state.is_none() => previous.clone(),
        _ => shown(report),
    };
    // Until the cluster shows the new weight, the last one that it showed is what is known.
    let last = previous.and_then(|previous| previous.observed_weight);
    status.observed_weight = subject.observed_weight.or(last);
    status.message = Some(report.problem.clone().unwrap_or(report.waiting.to_string()));
    if let Some(head) = subject.head {
        // A commit that changed nothing here is none that this status was derived from.
        let unchanged = previous.filter(|previous| same_but_for_commit(previous, &status));
        status.commit = match unchanged.and_then(|previous| previous.commit.clone()) {
            Some(commit) if report.moves.is_empty() => Some(commit),
            _ => Some(head.to_string()),
        };
    }
    status.observed_generation = subject.generation;
    status.conditions = conditions::derive(previous, subject);
    status
}

/// Whether a status says that no repository has the object.
pub fn is_not_in_git(status: &CanaryStatus) -> bool {
    status.message.as_deref() == Some(conditions::NOT_IN_GIT) || status.conditions.is_empty()
}

/// What a workload or the cluster says, without the numbers in it: somebody may have to act on the words. Of other
/// sentences the reason says enough.
fn words(reason: &str, text: &str) -> String {
    match reason {
        "CandidateNotReady" | "StableNotReady" | "ApplyFailed" => {
            text.chars().filter(|c| !c.is_ascii_digit()).collect()
        }
        _ => String::new(),
    }
}

/// Whether the difference between two statuses is worth a request now, or can wait for the next change: numbers of an
/// analysis that goes on change with every look.
pub fn differs_in_substance(previous: &CanaryStatus, next: &CanaryStatus) -> bool {
    let substance = |status: &CanaryStatus| {
        let mut status = status.clone();
        status.message = None;
        for metric in &mut status.analysis {
            metric.value = None;
            metric.samples = 0;
        }
        for condition in &mut status.conditions {
            condition.message = words(&condition.reason, &condition.message);
        }
        status
    };
    substance(previous) != substance(next)
}

/// The status of an object that no repository has.
pub fn not_in_git(
    previous: Option<&CanaryStatus>,
    generation: Option<i64>,
    now: Timestamp,
) -> CanaryStatus {
    CanaryStatus {
        phase: Some("Invalid".to_owned()),
        message: Some(conditions::NOT_IN_GIT.to_owned()),
        conditions: conditions::not_in_git(previous, generation, now),
        observed_generation: generation,
        ..CanaryStatus::default()
    }
}

/// Whether a status that was derived from one report would be derived from the other as well.
pub fn is_same_report(one: &CanaryReport, other: &CanaryReport) -> bool {
    one.moves.is_empty()
        && other.moves.is_empty()
        && one.state == other.state
        && one.waiting == other.waiting
        && one.judgement == other.judgement
        && one.problem == other.problem
        && one.observed == other.observed
        && one.steps == other.steps
}

/// What the report says by itself.
fn shown(report: &CanaryReport) -> CanaryStatus {
    let state = report.state.as_ref();
    let rollout = state.and_then(State::rollout);
    let approval = rollout.map(|rollout| &rollout.approval);
    let judgement = report.judgement.as_ref();
    let verdict = judgement.map(|judgement| judgement.verdict);
    let noted = state.and_then(|state| state.last_verdict.as_ref());
    CanaryStatus {
        phase: Some(state.map_or("Invalid", State::phase_name).to_owned()),
        weight: state.map(|state| state.weight().percent()),
        observed_weight: None,
        step: rollout.map(|rollout| format!("{}/{}", rollout.step, report.steps)),
        since: rollout.and_then(|rollout| time(rollout.since)),
        candidate: rollout.map(|rollout| rollout.candidate.summary.clone()),
        stable: state.map(|state| state.stable.summary.clone()),
        verdict: verdict
            .or(noted.map(|note| note.verdict))
            .map(|verdict| verdict.as_str().to_owned()),
        analysis: judgement.map(metrics).unwrap_or_default(),
        message: None,
        commit: None,
        approved_by: match approval {
            Some(Approval::Granted(by)) => Some(by.person.to_string()),
            Some(Approval::NotNeeded | Approval::Pending) | None => None,
        },
        conditions: Vec::new(),
        observed_generation: None,
    }
}

fn metrics(judgement: &Judgement) -> Vec<MetricStatus> {
    let findings = judgement.findings.iter();
    findings
        .map(|finding| MetricStatus {
            metric: finding.metric.clone(),
            verdict: finding.verdict.as_str().to_owned(),
            value: finding.value.clone(),
            threshold: finding.threshold.clone(),
            samples: finding.samples,
        })
        .collect()
}

fn same_but_for_commit(previous: &CanaryStatus, next: &CanaryStatus) -> bool {
    let bare = |status: &CanaryStatus| CanaryStatus {
        commit: None,
        message: None,
        observed_weight: None,
        observed_generation: None,
        analysis: Vec::new(),
        conditions: Vec::new(),
        ..status.clone()
    };
    bare(previous) == bare(next)
}

/// An instant as Kubernetes writes it; `None` for one that it cannot write.
fn time(at: Timestamp) -> Option<Time> {
    jiff::Timestamp::from_second(at.timestamp()).ok().map(Time)
}

#[cfg(test)]
mod tests;
