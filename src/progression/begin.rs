//! Off the ground: whether a proposal starts, what speaks against it, and what is left of one that is gone.

use super::climb::{enter, with_candidate};
use super::decide::{Answer, Desk};
use super::state::{Aspect, Cause, Phase, Rollout, State, TransitionKind, WaitingOn};
use super::{freeze, reach, replicas};
use crate::analysis::next_look;
use crate::domain::Timestamp;
use crate::spec::{Candidate, ValidatedCanary, Workload};

/// Nothing runs: is there something to start?
pub(super) fn begin(desk: &Desk<'_>, state: State) -> Answer {
    let Some(proposal) = &desk.canary.proposal else {
        return settle(desk, state);
    };
    if let Some(on) = refusal(desk.canary, &state, proposal, desk.now) {
        let wake_at = if let WaitingOn::Freeze { until } = &on {
            Some(*until)
        } else {
            None
        };
        return desk.wait(state, on, wake_at);
    }
    if returns_to_previous(desk.canary, &state, proposal, desk.now) {
        let sentence = format!(
            "{} is the version that served before, within the rollback window: it becomes stable without a ladder.",
            proposal.summary
        );
        let before = state.clone();
        let (decision, after) = desk.commit(
            &before,
            state,
            TransitionKind::Promote,
            desk.author_or(Aspect::Proposal, "rollbackWindow"),
            sentence,
        );
        return (with_candidate(decision, proposal), after);
    }
    if let Some(answer) = clock(desk, &state) {
        return answer;
    }
    let before = state.clone();
    start(desk, &before, state, proposal)
}

/// Nothing begins while our clock is known to be wrong: requests are counted from the times that are written down, and
/// those of the version before would be taken for the new one's as soon as the clock is set right.
pub(super) fn clock(desk: &Desk<'_>, state: &State) -> Option<Answer> {
    let words = desk.seen.clock_off.clone()?;
    let look = next_look(&desk.canary.analysis, desk.now, desk.now);
    Some(desk.wait(state.clone(), WaitingOn::Metrics(words), Some(look)))
}

/// After a drain that made room for another candidate: the start, if nothing speaks against it.
pub(super) fn restart(desk: &Desk<'_>, before: &State, state: State) -> Option<Answer> {
    let proposal = desk.canary.proposal.as_ref()?;
    if desk.canary.controls.abort || desk.seen.clock_off.is_some() {
        return None;
    }
    match refusal(desk.canary, &state, proposal, desk.now) {
        Some(_) => None,
        None => Some(start(desk, before, state, proposal)),
    }
}

/// No proposal: a failure that nobody proposes any more is over.
fn settle(desk: &Desk<'_>, mut state: State) -> Answer {
    let Phase::Failed(failure) = &state.phase else {
        return desk.wait(state, WaitingOn::Proposal, None);
    };
    let sentence = format!("{} failed and is no longer proposed.", failure.summary);
    let before = state.clone();
    state.phase = Phase::Idle;
    desk.commit(
        &before,
        state,
        TransitionKind::Withdraw,
        desk.author_or(Aspect::Proposal, "nothing is proposed"),
        sentence,
    )
}

/// Whether a proposal starts to climb now, so that it is worth asking what stable does before.
pub fn is_starting(canary: &ValidatedCanary, state: &State, now: Timestamp) -> bool {
    let is_idle = matches!(state.phase, Phase::Idle | Phase::Failed(_));
    let controls = &canary.controls;
    let is_free = !controls.paused && !controls.abort && !canary.analysis.skip;
    let starts = |proposal: &Candidate| {
        refusal(canary, state, proposal, now).is_none()
            && !returns_to_previous(canary, state, proposal, now)
    };
    is_idle && is_free && canary.proposal.as_ref().is_some_and(starts)
}

/// What speaks against starting this proposal.
fn refusal(
    canary: &ValidatedCanary,
    state: &State,
    proposal: &Candidate,
    now: Timestamp,
) -> Option<WaitingOn> {
    let retried = canary.controls.retry > state.retry;
    if let Some(rejection) = state.rejection(&proposal.revision)
        && !retried
    {
        return Some(WaitingOn::Retry(rejection.clone()));
    }
    if proposal.older_than_stable && !returns_to_previous(canary, state, proposal, now) {
        return Some(WaitingOn::DowngradeConsent {
            candidate: proposal.summary.clone(),
            stable: canary.stable.summary.clone(),
        });
    }
    if let Workload::Managed(managed) = &canary.workload
        && managed.stable_value.is_none()
    {
        return Some(WaitingOn::TrackLabel {
            key: managed.label_key.clone(),
            deployment: managed.deployment.clone(),
        });
    }
    freeze::ends(&canary.controls.freeze, now).map(|until| WaitingOn::Freeze { until })
}

/// Whether the proposal is the version before the last promotion, proposed within the rollback window.
fn returns_to_previous(
    canary: &ValidatedCanary,
    state: &State,
    proposal: &Candidate,
    now: Timestamp,
) -> bool {
    match (&state.previous, canary.controls.rollback_window) {
        (Some(previous), Some(window)) => {
            previous.version.revision == proposal.yields
                && (now - previous.until)
                    .to_std()
                    .is_ok_and(|age| age <= window)
        }
        _ => false,
    }
}

fn start(desk: &Desk<'_>, before: &State, mut after: State, proposal: &Candidate) -> Answer {
    let mut rollout = Rollout::new(
        proposal.clone(),
        desk.canary.ladder_revision.clone(),
        desk.now,
    );
    replicas::note(desk, &mut rollout);
    // Named users are traffic, too: where a cluster says that nothing answers yet, step 0 prepares the candidate first.
    if let Some(first) = desk.canary.ladder.first()
        && !first.has_traffic()
        && desk.seen.candidate.is_ready()
    {
        enter(&mut rollout, 1, first, desk.now);
    }
    let users = match (desk.canary.users.is_empty(), rollout.is_reachable()) {
        (true, _) => "",
        (false, true) => "; the named users reach it from now on",
        (false, false) => "; the named users reach it when it is ready",
    };
    let cause = match after.rejection(&proposal.revision) {
        Some(_) => desk.author_or(Aspect::Retry, "retry was raised"),
        None => desk.author_or(Aspect::Proposal, "a candidate is proposed"),
    };
    after
        .rejected
        .retain(|rejection| rejection.revision != proposal.revision);
    after.retry = desk.canary.controls.retry;
    after.resume = desk.canary.controls.resume;
    after.held = None;
    after.last_verdict = None;
    after.stable = desk.canary.stable.clone();
    after.phase = Phase::Progressing(rollout);
    let replaces = match before.rollout() {
        Some(old) if old.candidate.revision != proposal.revision => {
            format!(" It takes the place of {}.", old.candidate.summary)
        }
        _ => String::new(),
    };
    let load = desk.seen.judgement.as_ref().and_then(|seen| seen.load);
    let reach = match (load, &cause) {
        // It is decided once more as soon as the history has said who it was.
        (None, _) | (_, Cause::Sought(..)) => String::new(),
        (Some(load), _) => reach::sentence(desk.canary, load),
    };
    let sentence = format!(
        "{} is proposed next to {}{users}.{replaces}{reach}",
        proposal.summary, desk.canary.stable.summary
    );
    desk.commit(before, after, TransitionKind::Start, cause, sentence)
}
