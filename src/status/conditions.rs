//! Conditions: what machines read. `Ready`, `Reconciling` and `Stalled` follow kstatus, so that `kubectl wait`, Flux and
//! `kustomize` understand them without knowing canaries; `Promoted` says how the last rollout ended.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff;

use super::{Subject, time};
use crate::crd::CanaryStatus;
use crate::domain::Timestamp;
use crate::progression::{Phase, State, WaitingOn};

/// Longest message that the API server takes.
const LONGEST: usize = 32_768;

/// What is said of an object that no repository has.
pub(super) const NOT_IN_GIT: &str =
    "no repository has this Canary, so nothing will come of it: commit it, or delete it here";

/// How a canary is, in the words that all conditions are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    /// Nothing is going on: stable serves everybody, as Git says.
    Settled,
    /// A rollout is on its way, or waits for something that is expected to come.
    Moving,
    /// Somebody has to do something.
    Stuck,
    /// It cannot be told at the moment.
    Unknown,
}

/// The four conditions. Their transition times change only with their statuses.
pub(super) fn derive(previous: Option<&CanaryStatus>, subject: &Subject<'_>) -> Vec<Condition> {
    let health = health(subject);
    let reason = reason(subject);
    let (ready, reconciling, stalled) = match health {
        Health::Settled => ("True", "False", "False"),
        Health::Moving => ("False", "True", "False"),
        Health::Stuck => ("False", "False", "True"),
        Health::Unknown => ("Unknown", "False", "False"),
    };
    let promoted = promoted(previous, subject);
    let message = message(subject);
    let conditions = [
        ("Promoted", promoted.0, promoted.1),
        ("Ready", ready, reason),
        ("Reconciling", reconciling, reason),
        ("Stalled", stalled, reason),
    ];
    let conditions = conditions.into_iter();
    let written = conditions.map(|condition| {
        written(
            previous,
            condition,
            &message,
            (subject.generation, subject.now),
        )
    });
    written.collect()
}

/// The conditions of an object that no repository has.
pub(super) fn not_in_git(
    previous: Option<&CanaryStatus>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let conditions = [
        ("Ready", "False"),
        ("Reconciling", "False"),
        ("Stalled", "True"),
    ];
    let conditions = conditions.into_iter().map(|(kind, status)| {
        let condition = (kind, status, "NotInGit");
        written(previous, condition, NOT_IN_GIT, (generation, now))
    });
    conditions.collect()
}

/// A condition that keeps its transition time while its status stays.
fn written(
    previous: Option<&CanaryStatus>,
    (kind, status, reason): (&str, &str, &str),
    message: &str,
    (generation, now): (Option<i64>, Timestamp),
) -> Condition {
    let before = previous.and_then(|previous| {
        let mut all = previous.conditions.iter();
        all.find(|condition| condition.type_ == kind && condition.status == status)
    });
    let since = before.map(|condition| condition.last_transition_time.clone());
    let epoch = Time(jiff::Timestamp::UNIX_EPOCH);
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since.or_else(|| time(now)).unwrap_or(epoch),
        observed_generation: generation,
    }
}

fn message(subject: &Subject<'_>) -> String {
    let report = subject.report;
    let mut text = report.problem.clone().unwrap_or(report.waiting.to_string());
    if let Some((cut, _)) = text.char_indices().nth(LONGEST / 4) {
        text.truncate(cut);
    }
    text
}

/// A stable CamelCase word.
fn reason(subject: &Subject<'_>) -> &'static str {
    if subject.report.problem.is_some() {
        "ApplyFailed"
    } else {
        subject.report.waiting.reason()
    }
}

fn health(subject: &Subject<'_>) -> Health {
    let report = subject.report;
    if report.problem.is_some() {
        return Health::Stuck;
    }
    match &report.waiting {
        WaitingOn::Remote(_) => return Health::Unknown,
        WaitingOn::Spec(_)
        | WaitingOn::Invariant(_)
        | WaitingOn::PlanMode
        | WaitingOn::PushRefused(_)
        | WaitingOn::HistoryRewritten { .. }
        | WaitingOn::HeadUnverified { .. }
        | WaitingOn::Signatures(_)
        | WaitingOn::TrackLabel { .. }
        | WaitingOn::Retry(_) => return Health::Stuck,
        _ => {}
    }
    match report.state.as_ref().map(|state| &state.phase) {
        None | Some(Phase::Failed(_)) => Health::Stuck,
        Some(Phase::Progressing(_) | Phase::Draining(..)) => Health::Moving,
        // A candidate that is not started yet is work to do, one that nobody asked for is not.
        Some(Phase::Idle) => match &report.waiting {
            WaitingOn::Proposal => Health::Settled,
            _ => Health::Moving,
        },
    }
}

/// Status and reason of `Promoted`: known once a rollout has ended, kept until the next one begins.
fn promoted(
    previous: Option<&CanaryStatus>,
    subject: &Subject<'_>,
) -> (&'static str, &'static str) {
    let state: Option<&State> = subject.report.state.as_ref();
    let kept = || {
        let mut conditions = previous?.conditions.iter();
        let before = conditions.find(|condition| condition.type_ == "Promoted")?;
        match (before.status.as_str(), before.reason.as_str()) {
            ("True", _) => Some(("True", "Promoted")),
            ("False", "RolledBack") => Some(("False", "RolledBack")),
            _ => None,
        }
    };
    match state.map(|state| &state.phase) {
        Some(Phase::Progressing(_) | Phase::Draining(..)) => ("Unknown", "RolloutRunning"),
        Some(Phase::Failed(_)) => ("False", "RolledBack"),
        // Stable before the last promotion is kept in Git, so this survives a new cluster.
        Some(Phase::Idle) if state.is_some_and(|state| state.previous.is_some()) => {
            ("True", "Promoted")
        }
        Some(Phase::Idle) => ("Unknown", "NothingRolledOut"),
        None => kept().unwrap_or(("Unknown", "NothingRolledOut")),
    }
}
