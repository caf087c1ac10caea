//! Events: what happened to a canary, said once, when it happened.

use crate::applier::ledger::Repaired;
use crate::domain::CanaryId;
use crate::ports::{Note, Severity};
use crate::progression::{Transition, TransitionKind, WaitingOn};
use crate::reconcile::CanaryReport;
use crate::record::message;

/// Longest note that the API server takes, in bytes.
const LONGEST: usize = 1_024;

/// What happened between two passes. A commit is a note, and so is each new reason to wait; what was true before is not
/// said again. The next rung of a ladder is none: that is the normal course, the status shows it, its commit says why, and
/// thousands that climb together would fill the cluster with what nobody has to act on.
pub fn notes(previous: Option<&CanaryReport>, report: &CanaryReport) -> Vec<Note> {
    let note = |severity, reason, action, text: String| Note {
        canary: report.id.clone(),
        severity,
        reason,
        action,
        text: short(text),
    };
    let mut notes: Vec<Note> = report
        .moves
        .iter()
        .filter(|(_, step)| step.kind != TransitionKind::Advance)
        .map(|(commit, step)| {
            let text = format!(
                "{}: {} ({})",
                message::what(step),
                step.sentence,
                commit.short()
            );
            note(severity(step), reason(step.kind), "Commit", text)
        })
        .collect();
    if let Some(problem) = &report.problem
        && previous.is_none_or(|previous| previous.problem.as_ref() != Some(problem))
    {
        notes.push(note(
            Severity::Warning,
            "ApplyFailed",
            "Apply",
            problem.clone(),
        ));
    }
    let waited = previous.map(|previous| previous.waiting.reason());
    if waited != Some(report.waiting.reason()) && is_news(&report.waiting) {
        notes.push(note(
            Severity::Warning,
            report.waiting.reason(),
            "Wait",
            report.waiting.to_string(),
        ));
    }
    notes
}

/// What is said about an object that was changed or deleted by hand and is what Git says again.
pub fn of_repair(repaired: &Repaired) -> Note {
    let drift = &repaired.drift;
    let object = &drift.object;
    let was = if drift.differences.is_empty() {
        "was deleted, and is there again".to_owned()
    } else {
        let by = drift.by.as_deref().unwrap_or("somebody");
        let differences = drift.differences.join("; ");
        format!("was changed by {by} ({differences}), and is what Git says again")
    };
    let namespace = object.namespace.as_deref().unwrap_or_default();
    let own = || CanaryId::new(namespace, &*object.name);
    Note {
        canary: drift.canary.clone().unwrap_or_else(own),
        severity: Severity::Warning,
        reason: "DriftRepaired",
        action: "Repair",
        text: short(format!("{object} {was}")),
    }
}

/// What is said when two repositories have a canary of the same name.
pub fn of_clash(canary: &CanaryId, other: &str, ours: &str) -> Note {
    Note {
        canary: canary.clone(),
        severity: Severity::Warning,
        reason: "NameClash",
        action: "Wait",
        text: short(format!(
            "the repositories {other} and {ours} both have a canary of this name; the one of {ours} is not applied:              give it another name"
        )),
    }
}

fn severity(step: &Transition) -> Severity {
    match step.kind {
        TransitionKind::RollBack | TransitionKind::Halt => Severity::Warning,
        _ => Severity::Normal,
    }
}

/// The word for a commit of this kind.
fn reason(kind: TransitionKind) -> &'static str {
    match kind {
        TransitionKind::Initialize => "Initialized",
        TransitionKind::Start => "Started",
        TransitionKind::Advance => "Advanced",
        TransitionKind::Approve => "Approved",
        TransitionKind::Adopt => "Adopted",
        TransitionKind::Halt => "Halted",
        TransitionKind::Resume => "Resumed",
        TransitionKind::Promote => "Promoted",
        TransitionKind::Return => "Returned",
        TransitionKind::RollBack => "RolledBack",
        TransitionKind::Withdraw => "Withdrawn",
        TransitionKind::Restart => "Restarted",
        TransitionKind::Finish => "Finished",
        TransitionKind::Stable => "StableChanged",
        TransitionKind::Render => "Rendered",
        TransitionKind::Remove => "Removed",
    }
}

/// Waiting that somebody should hear of. Soaking, evidence and the like are the normal course of a rollout.
fn is_news(waiting: &WaitingOn) -> bool {
    matches!(
        waiting,
        WaitingOn::Retry(_)
            | WaitingOn::DowngradeConsent { .. }
            | WaitingOn::TrackLabel { .. }
            | WaitingOn::Person(_)
            | WaitingOn::Stable(_)
            | WaitingOn::Candidate(_)
            | WaitingOn::Approval { .. }
            | WaitingOn::Metrics(_)
            | WaitingOn::PlanMode
            | WaitingOn::PushRefused(_)
            | WaitingOn::Remote(_)
            | WaitingOn::HistoryRewritten { .. }
            | WaitingOn::HeadUnverified { .. }
            | WaitingOn::Signatures(_)
            | WaitingOn::Spec(_)
            | WaitingOn::Invariant(_)
    )
}

/// Cut at a character, within the limit in bytes.
fn short(mut text: String) -> String {
    if text.len() > LONGEST {
        let mut end = LONGEST - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}
