//! The commits of a pass in one push: which now, in which order, and what becomes of the plans.

use std::sync::Arc;

use super::Settings;
use super::memory::Memory;
use super::plan::Plan;
use super::situation::Rendering;
use crate::domain::{CanaryId, CommitId, Timestamp};
use crate::manifests::Manifests;
use crate::ports::Draft;
use crate::progression::{State, WaitingOn};

/// Commits that go out in one push.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) drafts: Vec<Draft>,
    /// The canaries, with how many of the drafts are theirs, in the same order.
    pub(super) canaries: Vec<(CanaryId, usize)>,
}

/// What to push now: rollbacks first; without one, nothing before the interval has passed.
pub(super) fn batch(
    plans: &mut [Plan],
    memory: &Memory,
    settings: &Settings,
    now: Timestamp,
) -> Option<Batch> {
    for plan in plans.iter_mut().filter(|plan| !plan.drafts.is_empty()) {
        if let Some(refusal) = memory
            .refusals
            .get(&plan.id)
            .filter(|refusal| refusal.holds(now))
        {
            plan.put_off(
                WaitingOn::PushRefused(refusal.words.clone()),
                refusal.next_try,
            );
        }
    }
    let urgent = plans
        .iter()
        .any(|plan| !plan.drafts.is_empty() && plan.is_urgent());
    let due = memory.last_push.and_then(|last| {
        let interval = chrono::Duration::from_std(settings.push_interval).ok()?;
        // A clock that was set back must not put off pushes for ever.
        Some(last + interval).filter(|due| *due > now && last <= now)
    });
    if let Some(until) = due.filter(|_| !urgent) {
        for plan in plans.iter_mut().filter(|plan| !plan.drafts.is_empty()) {
            plan.put_off(WaitingOn::PushInterval { until }, until);
        }
    }
    let mut order: Vec<&Plan> = plans
        .iter()
        .filter(|plan| !plan.drafts.is_empty())
        .collect();
    order.sort_by_key(|plan| !plan.is_urgent());
    let canaries: Vec<(CanaryId, usize)> = order
        .iter()
        .map(|plan| (plan.id.clone(), plan.drafts.len()))
        .collect();
    let drafts: Vec<Draft> = order
        .into_iter()
        .flat_map(|plan| plan.drafts.clone())
        .collect();
    (!drafts.is_empty()).then_some(Batch { drafts, canaries })
}

/// Plan mode: nothing is pushed, what would be is said.
pub(super) fn only_plan(plans: &mut [Plan], until: Timestamp) {
    for plan in plans.iter_mut().filter(|plan| !plan.drafts.is_empty()) {
        plan.put_off(WaitingOn::PlanMode, until);
    }
}

/// The plan of this canary: plans are in the order of the view, by namespace and name.
fn find<'a>(plans: &'a mut [Plan], id: &CanaryId) -> Option<&'a mut Plan> {
    let index = plans.binary_search_by(|plan| plan.id.cmp(id)).ok()?;
    plans.get_mut(index)
}

impl Batch {
    /// The same drafts, canary by canary.
    pub(super) fn singly(&self) -> Vec<Self> {
        let mut rest = self.drafts.iter().cloned();
        self.canaries
            .iter()
            .map(|(id, count)| Self {
                drafts: rest.by_ref().take(*count).collect(),
                canaries: vec![(id.clone(), *count)],
            })
            .collect()
    }

    pub(super) fn accepted(
        &self,
        plans: &mut [Plan],
        commits: &[CommitId],
        memory: &mut Memory,
        now: Timestamp,
    ) {
        let mut rest = commits.iter().cloned();
        for (id, count) in &self.canaries {
            let theirs: Vec<CommitId> = rest.by_ref().take(*count).collect();
            memory.refusals.remove(id);
            let Some(plan) = find(plans, id) else {
                continue;
            };
            plan.commits = theirs;
            if let Some(rollout) = plan.state.as_ref().and_then(State::rollout) {
                let known = memory
                    .observed
                    .get(id)
                    .is_some_and(|(since, _)| *since == rollout.since);
                if !known {
                    memory.observed.insert(id.clone(), (rollout.since, now));
                }
            }
            if let Some(commit) = plan.commits.last() {
                let manifests = Manifests::rendered(id.clone(), Arc::clone(&plan.files))
                    .committed_at(commit.clone());
                memory.ahead.insert(id.clone(), manifests);
            }
            match (&plan.rendered_from, &plan.state) {
                (Some(canary), Some(state)) => {
                    let rendering = Rendering {
                        canary: Arc::clone(canary),
                        state: state.clone(),
                        files: Arc::clone(&plan.files),
                    };
                    memory.renderings.insert(id.clone(), rendering);
                }
                (None, _) | (_, None) => drop(memory.renderings.remove(id)),
            }
        }
    }

    pub(super) fn refused(
        &self,
        plans: &mut [Plan],
        words: &str,
        memory: &mut Memory,
        now: Timestamp,
    ) {
        for (id, _) in &self.canaries {
            memory.refuse(id, words, now);
            let next_try = memory
                .refusals
                .get(id)
                .map_or(now, |refusal| refusal.next_try);
            if let Some(plan) = find(plans, id) {
                plan.put_off(WaitingOn::PushRefused(words.to_owned()), next_try);
            }
        }
    }
}
