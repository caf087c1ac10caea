//! A human always wins: what people did to Serin's own files becomes the present state, and holds.

use std::ops::ControlFlow::{Break, Continue};
use std::sync::Arc;

use super::climb;
use super::decide::{Answer, Desk, Ruling};
use super::state::{
    Approval, Attribution, Cause, Hold, HoldReason, Intervention, Phase, Rollout, State,
    TransitionKind,
};
use crate::domain::Weight;
use crate::spec::Workload;

/// The rule about people's edits of `rollout.yaml` and of rendered manifests.
pub(super) fn intervention(desk: &Desk<'_>, state: State) -> Ruling {
    match &desk.seen.intervention {
        None | Some(Intervention::ManifestEdited { .. }) => Continue(state),
        Some(Intervention::StateEdited { ours, by }) => Break(adopt_state(desk, state, ours, by)),
        Some(Intervention::Approved { by }) => approve(desk, state, by),
        Some(Intervention::Resumed { by }) => resume(desk, state, by),
        Some(Intervention::WeightEdited { weight, by }) => adopt_weight(desk, state, *weight, by),
    }
}

fn approve(desk: &Desk<'_>, mut state: State, by: &Attribution) -> Ruling {
    let before = state.clone();
    let Phase::Progressing(rollout) = &mut state.phase else {
        return Continue(state);
    };
    // A gate that is closed is opened, even when the ladder has lost it since: the word was asked for, and is recorded.
    let gated = climb::gate_of(&desk.canary.ladder, rollout.step) != Approval::NotNeeded;
    if !gated && rollout.approval != Approval::Pending {
        return Continue(state);
    }
    rollout.approval = Approval::Granted(by.clone());
    let sentence = format!(
        "{} approves step {} of {}.",
        by.person.name,
        rollout.step,
        desk.steps()
    );
    Break(desk.commit(
        &before,
        state,
        TransitionKind::Approve,
        Cause::Person(by.clone()),
        sentence,
    ))
}

fn resume(desk: &Desk<'_>, state: State, by: &Attribution) -> Ruling {
    let hold = Hold {
        reason: HoldReason::AnalysisFailed,
        detail: String::new(),
        at: desk.now,
    };
    match state.phase.clone() {
        Phase::Progressing(rollout) => Break(climb::resume(
            desk,
            state,
            rollout,
            &hold,
            Cause::Person(by.clone()),
        )),
        Phase::Draining(..) | Phase::Idle | Phase::Failed(_) => Continue(state),
    }
}

/// Weights edited in the rendered VirtualService: this is how people act in an emergency.
fn adopt_weight(desk: &Desk<'_>, state: State, weight: Weight, by: &Attribution) -> Ruling {
    let before = state.clone();
    let rollout = match &state.phase {
        Phase::Progressing(rollout) | Phase::Draining(rollout, _) => rollout.clone(),
        Phase::Idle | Phase::Failed(_) => match (&desk.canary.workload, &desk.canary.proposal) {
            // Both versions run whatever Serin does, so the weight can be honoured.
            (Workload::BringYourOwn(_), Some(proposal)) if weight > Weight::ZERO => Rollout::new(
                proposal.clone(),
                desk.canary.ladder_revision.clone(),
                desk.now,
            ),
            // There is no candidate to send requests to: the edit is undone, with a reason (see `repair`).
            _ => return Continue(state),
        },
    };
    Break(adopt_at(desk, &before, state, rollout, weight, by))
}

fn adopt_at(
    desk: &Desk<'_>,
    before: &State,
    mut after: State,
    mut rollout: Rollout,
    weight: Weight,
    by: &Attribution,
) -> Answer {
    rollout.weight = weight;
    rollout.step = climb::anchor(&desk.canary.ladder, weight);
    rollout.approval = climb::gate_of(&desk.canary.ladder, rollout.step);
    rollout.ladder = desk.canary.ladder_revision.clone();
    rollout.since = desk.now;
    after
        .rejected
        .retain(|rejection| rejection.revision != rollout.candidate.revision);
    after.phase = Phase::Progressing(rollout);
    after.held = Some(adopted(desk, weight, by));
    let sentence = format!(
        "{} set the weight to {weight} ({} before); it stays there until somebody resumes the rollout.",
        by.person.name,
        before.weight()
    );
    desk.commit(
        before,
        after,
        TransitionKind::Adopt,
        Cause::Person(by.clone()),
        sentence,
    )
}

fn adopted(desk: &Desk<'_>, weight: Weight, by: &Attribution) -> Hold {
    Hold {
        reason: HoldReason::Adopted,
        detail: format!("{} set {weight} in {}", by.person.name, by.commit.short()),
        at: desk.now,
    }
}

/// `rollout.yaml` was edited or reverted: what it says is the state now, and nothing moves on by itself.
fn adopt_state(desk: &Desk<'_>, head: State, ours: &State, by: &Attribution) -> Answer {
    let mut after = head;
    after.sequence = after.sequence.max(ours.sequence);
    // Whoever gives traffic back to a candidate that drains wants it to go on.
    if let Phase::Draining(rollout, _) = &after.phase
        && rollout.has_traffic()
    {
        let rollout = rollout.clone();
        after
            .rejected
            .retain(|rejection| rejection.revision != rollout.candidate.revision);
        after.phase = Phase::Progressing(rollout);
    }
    if let Phase::Progressing(rollout) = &mut after.phase {
        reconcile_step(desk, rollout, ours);
    }
    let what = match (&after.phase, &ours.phase) {
        (Phase::Idle | Phase::Failed(_), Phase::Progressing(left) | Phase::Draining(left, _)) => {
            let reason = format!("{} took it back in {}", by.person.name, by.commit.short());
            let left = Arc::clone(&left.candidate);
            after.reject(left.revision.clone(), desk.now, reason);
            // A candidate that was taken back is not started again until it changes or is retried.
            if let Some(proposal) = desk
                .canary
                .proposal
                .as_ref()
                .filter(|p| p.revision != left.revision)
            {
                return adopt_idle(
                    desk,
                    ours,
                    after,
                    by,
                    &format!("{} instead of {}", proposal.summary, left.summary),
                );
            }
            return adopt_idle(desk, ours, after, by, &left.summary);
        }
        (Phase::Idle | Phase::Failed(_), _) => {
            let what = desk.canary.stable.summary.clone();
            if let Some(proposal) = desk.canary.proposal.clone() {
                let reason = format!(
                    "{} took the state back in {}",
                    by.person.name,
                    by.commit.short()
                );
                after.reject(proposal.revision, desk.now, reason);
            }
            return adopt_idle(desk, ours, after, by, &what);
        }
        (phase, _) => phase_words(phase),
    };
    after.held = Some(adopted(desk, after.weight(), by));
    let sentence = format!(
        "{} set the state to {what} at {} ({} before); it stays there until somebody resumes the rollout.",
        by.person.name,
        after.weight(),
        ours.weight()
    );
    desk.commit(
        ours,
        after,
        TransitionKind::Adopt,
        Cause::Person(by.clone()),
        sentence,
    )
}

fn adopt_idle(desk: &Desk<'_>, ours: &State, after: State, by: &Attribution, what: &str) -> Answer {
    let sentence = format!(
        "{} took the rollout back ({what}); it does not start again by itself.",
        by.person.name
    );
    desk.commit(
        ours,
        after,
        TransitionKind::Adopt,
        Cause::Person(by.clone()),
        sentence,
    )
}

fn phase_words(phase: &Phase) -> &'static str {
    match phase {
        Phase::Progressing(_) => "a running rollout",
        Phase::Draining(..) => "a draining rollout",
        Phase::Idle => "no rollout",
        Phase::Failed(_) => "a failed rollout",
    }
}

/// Step and weight of an edited state: whichever the person changed counts, the other follows.
fn reconcile_step(desk: &Desk<'_>, rollout: &mut Rollout, ours: &State) {
    let ladder = &desk.canary.ladder;
    let (old_step, old_weight) = ours
        .rollout()
        .map_or((0, Weight::ZERO), |old| (old.step, old.weight));
    rollout.step = rollout.step.min(desk.steps());
    let index = usize::from(rollout.step).checked_sub(1);
    if rollout.weight == old_weight && rollout.step != old_step {
        match index.and_then(|index| ladder.get(index)) {
            Some(rung) => climb::enter(rollout, rollout.step, rung, desk.now),
            None => rollout.weight = Weight::ZERO,
        }
    } else if rollout.weight != old_weight && rollout.step == old_step {
        rollout.step = climb::anchor(ladder, rollout.weight);
        rollout.approval = climb::gate_of(ladder, rollout.step);
    }
    rollout.ladder = desk.canary.ladder_revision.clone();
    rollout.since = desk.now;
}
