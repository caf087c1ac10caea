//! A canary in sentences: where it is, and what comes next under which conditions.

use super::show;
use crate::domain::Timestamp;
use crate::progression::{Approval, DrainCause, Phase, Rollout};
use crate::reconcile::Outlook;
use crate::record::message;
use crate::spec::{Rung, ValidatedCanary, duration};

/// How a sentence about a commit begins that only waits for the engine to come by.
const DUE: &str = "At Serin's next pass: ";

/// Whether a sentence of [`next`] is about such a commit.
pub(super) fn is_due(sentence: &str) -> bool {
    sentence.starts_with(DUE)
}

/// Where a canary is.
pub(super) fn position(canary: &Outlook, now: Timestamp) -> Vec<String> {
    let Some(state) = &canary.state else {
        return Vec::new();
    };
    let steps = canary.canary.as_ref().map_or(0, |spec| spec.ladder.len());
    let stable = &state.stable.summary;
    let mut sentences = match &state.phase {
        Phase::Idle => vec![format!("Stable, {stable}, serves everybody.")],
        Phase::Progressing(rollout) => {
            vec![
                format!("Stable is {stable}."),
                climbing(rollout, steps, now),
            ]
        }
        Phase::Draining(rollout, cause) => vec![
            format!("Stable is {stable}."),
            format!(
                "Traffic was taken back from {} at {}: {}.",
                rollout.candidate.summary,
                show::time(rollout.since),
                drained_for(cause)
            ),
        ],
        Phase::Failed(failure) => vec![
            format!("Stable, {stable}, serves everybody."),
            format!(
                "{} was rolled back at {}: {}.",
                failure.summary,
                show::time(failure.at),
                bare(&failure.reason)
            ),
        ],
    };
    if canary.removed {
        sentences.push("Its spec has been removed from the repository.".to_owned());
    }
    if let Some(hold) = &state.held {
        let since = show::time(hold.at);
        sentences.push(format!("Held since {since}: {}.", bare(&hold.detail)));
    }
    sentences
}

/// What comes next.
pub(super) fn next(canary: &Outlook) -> Vec<String> {
    if !canary.next.is_empty() {
        let steps = canary.next.iter();
        return steps
            .map(|(step, _)| format!("{DUE}{}. {}", message::what(step), step.sentence))
            .collect();
    }
    let (Some(spec), Some(state)) = (&canary.canary, &canary.state) else {
        return Vec::new();
    };
    let Phase::Progressing(rollout) = &state.phase else {
        return Vec::new();
    };
    let here = usize::from(rollout.step);
    let present = here.checked_sub(1).and_then(|index| spec.ladder.get(index));
    let mut sentences: Vec<String> = present
        .map(|rung| leaving(rung, spec, rollout))
        .into_iter()
        .collect();
    sentences.push(match spec.ladder.get(here) {
        Some(rung) => format!(
            "Then step {} of {}: {}.",
            here + 1,
            spec.ladder.len(),
            entering(rung)
        ),
        None => format!(
            "Then {} is promoted: it becomes stable.",
            rollout.candidate.summary
        ),
    });
    sentences
}

fn climbing(rollout: &Rollout, steps: usize, now: Timestamp) -> String {
    let share = match rollout.step {
        0 => "is being prepared and gets no requests yet".to_owned(),
        step => format!(
            "gets {} of the requests, step {step} of {steps}",
            rollout.weight
        ),
    };
    format!(
        "The candidate {} {share}, since {} ({} ago).",
        rollout.candidate.summary,
        show::time(rollout.since),
        show::age(rollout.since, now)
    )
}

fn drained_for(cause: &DrainCause) -> String {
    match cause {
        DrainCause::Promoted => "it has become stable".to_owned(),
        DrainCause::RolledBack(failure) => format!("it failed, {}", bare(&failure.reason)),
        DrainCause::Withdrawn => "it is no longer proposed".to_owned(),
        DrainCause::Superseded => "something else is proposed".to_owned(),
    }
}

/// What a step asks for before the next one.
fn leaving(rung: &Rung, spec: &ValidatedCanary, rollout: &Rollout) -> String {
    let mut needs = Vec::new();
    if !rung.hold.is_zero() {
        needs.push(format!("{} of time", duration::written(rung.hold)));
    }
    if rung.approval {
        needs.push(match &rollout.approval {
            Approval::Granted(by) => format!("an approval, given by {}", by.person.name),
            Approval::Pending | Approval::NotNeeded => "an approval".to_owned(),
        });
    }
    if rung.has_traffic() && !spec.analysis.skip {
        let metrics = spec.analysis.metrics.iter();
        let names: Vec<&str> = metrics.map(|metric| metric.name.as_str()).collect();
        needs.push(format!("a passing verdict on {}", names.join(", ")));
    }
    if needs.is_empty() {
        return "The present step asks for nothing more.".to_owned();
    }
    format!("The present step asks for {}.", needs.join(", and "))
}

fn entering(rung: &Rung) -> String {
    let mut text = format!("{} of the requests", rung.weight);
    if let Some(share) = rung.mirror {
        text.push_str(&format!(", a copy of {share}"));
    }
    if !rung.matches.is_empty() {
        text.push_str(", and those that match its conditions");
    }
    text
}

/// A sentence to be put into another one.
fn bare(sentence: &str) -> &str {
    sentence.trim_end_matches('.')
}
