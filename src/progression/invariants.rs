//! Checks decisions with code that did not make them.
//!
//! Runs before every commit and on every simulated tick. It knows what must never happen, not how to decide.

use super::freeze;
use super::state::{Approval, Cause, Observation, Phase, State, Transition, TransitionKind};
use crate::analysis::Verdict;
use crate::domain::{Timestamp, Weight};
use crate::spec::{OnInconclusive, ValidatedCanary};

/// What is wrong with the step from `before` to `after`; empty when all is well.
pub fn violations(
    canary: &ValidatedCanary,
    before: &State,
    after: &State,
    transition: &Transition,
    seen: &Observation,
    now: Timestamp,
) -> Vec<String> {
    let case = Case {
        canary,
        before,
        after,
        transition,
        seen,
        now,
    };
    let checks: [fn(&Case<'_>) -> Option<String>; 8] = [
        sequence,
        announced,
        rise,
        climbing,
        empty_means_zero,
        copy,
        start,
        steering,
    ];
    checks.iter().filter_map(|check| check(&case)).collect()
}

struct Case<'a> {
    canary: &'a ValidatedCanary,
    before: &'a State,
    after: &'a State,
    transition: &'a Transition,
    seen: &'a Observation,
    now: Timestamp,
}

fn sequence(case: &Case<'_>) -> Option<String> {
    let (before, after) = (case.before.sequence, case.after.sequence);
    match case.transition.kind {
        TransitionKind::Promote if before != after || case.before != case.after => {
            Some("a promotion changed the state file".to_owned())
        }
        TransitionKind::Promote => None,
        _ if after <= before => Some(format!("the sequence went from {before} to {after}")),
        _ => None,
    }
}

/// The commit must say what the states say.
fn announced(case: &Case<'_>) -> Option<String> {
    (case.transition.to != case.after.weight()).then(|| {
        format!(
            "the commit says {}, the state says {}",
            case.transition.to,
            case.after.weight()
        )
    })
}

/// A weight rises by a person's hand, or by a rule on evidence.
fn rise(case: &Case<'_>) -> Option<String> {
    if case.after.weight() <= case.before.weight() {
        return None;
    }
    if case.transition.kind == TransitionKind::Adopt {
        return match case.transition.cause {
            Cause::Person(_) | Cause::Sought(..) => None,
            Cause::Rule(_) => Some("a weight was adopted from nobody".to_owned()),
        };
    }
    if case.transition.kind != TransitionKind::Advance {
        return Some(format!("{:?} raised the weight", case.transition.kind));
    }
    if freeze::ends(&case.canary.controls.freeze, case.now).is_some() {
        return Some("the weight rose inside a freeze".to_owned());
    }
    if case.before.held.is_some() {
        return Some("the weight rose while the rollout was held".to_owned());
    }
    let had_traffic = case
        .before
        .rollout()
        .is_some_and(super::Rollout::has_traffic);
    let verdict = case
        .transition
        .judgement
        .as_ref()
        .map(|judgement| judgement.verdict);
    let analysis = &case.canary.analysis;
    let lenient = analysis.on_inconclusive == OnInconclusive::Promote
        && verdict == Some(Verdict::Inconclusive);
    let harmless = verdict == Some(Verdict::Inconclusive)
        && case
            .transition
            .judgement
            .as_ref()
            .is_some_and(|judgement| judgement.allows.step);
    if had_traffic && verdict != Some(Verdict::Pass) && !lenient && !harmless {
        return Some(format!("the weight rose on the verdict {verdict:?}"));
    }
    None
}

/// An advance is exactly one rung, after the present one was observed, held and approved.
fn climbing(case: &Case<'_>) -> Option<String> {
    if case.transition.kind != TransitionKind::Advance {
        return None;
    }
    let (Phase::Progressing(old), Phase::Progressing(new)) =
        (&case.before.phase, &case.after.phase)
    else {
        return Some("an advance outside of a rollout".to_owned());
    };
    if new.step != old.step + 1 {
        return Some(format!("an advance from step {} to {}", old.step, new.step));
    }
    let rung = case.canary.ladder.get(usize::from(old.step));
    if rung.map(|rung| rung.weight) != Some(new.weight) {
        return Some(format!("step {} has the weight {}", new.step, new.weight));
    }
    if old.approval == Approval::Pending {
        return Some("an advance past a closed gate".to_owned());
    }
    if !case.seen.candidate.is_ready() && new.weight > Weight::ZERO {
        return Some("traffic for a candidate that is not ready".to_owned());
    }
    match case.seen.observed {
        None => Some("an advance before the step was observed".to_owned()),
        Some(observed) => {
            let index = usize::from(old.step).checked_sub(1);
            let hold = index
                .and_then(|index| case.canary.ladder.get(index))
                .map(|rung| rung.hold);
            let soaked = (case.now - observed).to_std().unwrap_or_default();
            (soaked < hold.unwrap_or_default())
                .then(|| format!("an advance after {}s of soaking", soaked.as_secs()))
        }
    }
}

/// Without a running rollout nobody reaches the candidate.
fn empty_means_zero(case: &Case<'_>) -> Option<String> {
    match &case.after.phase {
        Phase::Draining(rollout, _) if rollout.has_traffic() => {
            Some("a draining candidate has traffic".to_owned())
        }
        Phase::Draining(..) | Phase::Idle | Phase::Failed(_) | Phase::Progressing(_) => None,
    }
}

/// What serves never changes under a weight: another candidate needs a start at weight 0.
fn copy(case: &Case<'_>) -> Option<String> {
    let (Some(old), Some(new)) = (case.before.rollout(), case.after.rollout()) else {
        return None;
    };
    let swapped = old.candidate != new.candidate;
    let by_person = case.transition.kind == TransitionKind::Adopt;
    (swapped && !by_person && (new.weight > Weight::ZERO || old.weight > Weight::ZERO))
        .then(|| "the candidate was swapped while it had traffic".to_owned())
}

/// A start is for the present proposal, which is not rejected.
fn start(case: &Case<'_>) -> Option<String> {
    if case.transition.kind != TransitionKind::Start {
        return None;
    }
    let Some(proposal) = &case.canary.proposal else {
        return Some("a start without a proposal".to_owned());
    };
    if case.before.rejection(&proposal.revision).is_some()
        && case.canary.controls.retry <= case.before.retry
    {
        return Some("a rejected candidate was started".to_owned());
    }
    (case.after.weight() > Weight::ZERO).then(|| "a start with traffic".to_owned())
}

/// Pause and abort are obeyed.
fn steering(case: &Case<'_>) -> Option<String> {
    let controls = &case.canary.controls;
    let moved = case.after.weight() != case.before.weight();
    if controls.paused && moved && !controls.abort && case.transition.kind != TransitionKind::Adopt
    {
        return Some("the weight moved while paused".to_owned());
    }
    (controls.abort && case.transition.kind == TransitionKind::Start)
        .then(|| "a start while aborted".to_owned())
}
