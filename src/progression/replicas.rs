//! How many pods a candidate needs, and when stable's growth asks for more of them.

use super::decide::{Answer, Desk};
use super::state::{Cause, Phase, Rollout, State, TransitionKind};
use crate::domain::Weight;
use crate::spec::{CanaryReplicas, ManagedWorkload, Rung, Workload};

/// Replicas for the present step and the next one: pods have to be ready before the weight goes up. While traffic
/// drains they stay what they were.
pub fn replicas(
    managed: &ManagedWorkload,
    ladder: &[Rung],
    rollout: &Rollout,
    is_draining: bool,
) -> u64 {
    if let CanaryReplicas::Fixed(replicas) = managed.replicas {
        return replicas.into();
    }
    let step = usize::from(rollout.step);
    let left = step.checked_sub(1).filter(|_| is_draining);
    let rungs = [left, Some(step)];
    let share = rungs
        .into_iter()
        .flatten()
        .filter_map(|index| ladder.get(index))
        .flat_map(|rung| [Some(rung.weight), rung.mirror])
        .chain([Some(rollout.weight), rollout.mirror])
        .flatten()
        .max()
        .unwrap_or(Weight::ZERO);
    stable(managed, rollout)
        .saturating_mul(share.percent().into())
        .div_ceil(100)
        .max(1)
}

/// Stable's replicas: what its manifest says, or more when the cluster showed more.
fn stable(managed: &ManagedWorkload, rollout: &Rollout) -> u64 {
    // The API server's default for a Deployment that names no replicas is 1.
    let written = managed.written_replicas.unwrap_or(1);
    written.max(rollout.stable_replicas.unwrap_or_default().into())
}

/// Notes how many replicas stable has. The number only grows during a rollout: an autoscaler takes pods from stable as
/// the traffic leaves it, and those are the ones that the candidate needs.
pub(super) fn note(desk: &Desk<'_>, rollout: &mut Rollout) {
    let Workload::Managed(managed) = &desk.canary.workload else {
        return;
    };
    if managed.replicas != CanaryReplicas::Proportional {
        return;
    }
    let Some(live) = desk.seen.stable_replicas else {
        return;
    };
    // What the manifest says needs no note.
    if u64::from(live) > stable(managed, rollout) {
        rollout.stable_replicas = Some(live);
    }
}

/// Stable has grown so far that the candidate lacks pods for its weight, or for the next one.
pub(super) fn grow(desk: &Desk<'_>, state: &State, rollout: &Rollout) -> Option<Answer> {
    let Workload::Managed(managed) = &desk.canary.workload else {
        return None;
    };
    let of = |rollout: &Rollout| replicas(managed, &desk.canary.ladder, rollout, false);
    let mut grown = rollout.clone();
    note(desk, &mut grown);
    let (before, after) = (of(rollout), of(&grown));
    if after <= before {
        return None;
    }
    let sentence = format!(
        "Stable has {} replicas now: {} gets {after} instead of {before}, as many as its weight and the next one need.",
        stable(managed, &grown),
        grown.candidate.summary
    );
    let mut next = state.clone();
    next.phase = Phase::Progressing(grown);
    let cause = Cause::Rule("replicas in proportion to stable's".to_owned());
    Some(desk.commit(state, next, TransitionKind::Render, cause, sentence))
}
