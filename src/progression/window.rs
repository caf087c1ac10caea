//! What to judge, and since when.

use super::state::{Phase, State};
use crate::analysis::Window;
use crate::domain::Timestamp;
use crate::spec::ValidatedCanary;

/// The times that count for the present step; `None` when there is nothing to judge.
///
/// Nothing is asked while a rollout is paused, held or done: no verdict could move it.
pub fn window(
    canary: &ValidatedCanary,
    state: &State,
    observed: Option<Timestamp>,
) -> Option<Window> {
    let Phase::Progressing(rollout) = &state.phase else {
        return None;
    };
    let step = observed?;
    let promoted = canary.stable.revision == rollout.candidate.yields;
    if canary.controls.paused || state.held.is_some() || promoted {
        return None;
    }
    let by_chance = rollout.matches.is_empty()
        && rollout.mirror.is_none()
        && canary.route.session_affinity.is_none();
    // Who decided the first step may have had a slow clock: what counts begins when it was observed, whoever dated that.
    let first = rollout.since == rollout.started;
    Some(Window {
        rollout: if first {
            step
        } else {
            rollout.started.min(step)
        },
        step,
        has_traffic: rollout.has_traffic(),
        weight: by_chance.then(|| rollout.weight.percent()),
        comparable: canary.ladder.iter().all(|rung| rung.matches.is_empty()),
    })
}
