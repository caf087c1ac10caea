//! How stable and candidate are told apart: the labels of the two subsets, where they are known.

use crate::domain::CANARY_TRACK;
use crate::progression::{Phase, Rollout, State};
use crate::spec::{Candidate, CandidateContent, Labels, ValidatedCanary, Workload};

/// The labels of the two subsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subsets {
    /// Labels of stable; `None` when nothing tells stable's pods from others. Then no subset may be used at all: one
    /// without labels selects the candidate's pods too.
    pub(super) stable: Option<Labels>,
    /// Labels of the candidate; `None` when there is no candidate to tell, or no stable to tell it from.
    pub(super) canary: Option<Labels>,
}

impl Subsets {
    /// The subsets that can be defined safely.
    pub(super) fn of(canary: &ValidatedCanary, state: &State) -> Self {
        let (stable, candidate) = match &canary.workload {
            Workload::Managed(managed) => {
                let label =
                    |value: &str| Labels::from([(managed.label_key.clone(), value.to_owned())]);
                let stable = managed.stable_value.as_deref();
                // Equal values would make one subset of two.
                let stable = stable.filter(|value| *value != CANARY_TRACK).map(label);
                (stable, Some(label(CANARY_TRACK)))
            }
            Workload::BringYourOwn(versions) => {
                let running = state.rollout().map(|rollout| &*rollout.candidate);
                let candidate = running
                    .and_then(labels)
                    .or_else(|| canary.proposal.as_ref().and_then(labels));
                (Some(versions.stable.clone()), candidate)
            }
        };
        let stable = stable.filter(|labels| !labels.is_empty());
        let canary = candidate.filter(|labels| stable.is_some() && !labels.is_empty());
        Self { stable, canary }
    }
}

fn labels(candidate: &Candidate) -> Option<Labels> {
    match &candidate.content {
        CandidateContent::Labels(labels) => Some(labels.clone()),
        CandidateContent::Template { .. } => None,
    }
}

/// The candidate that may be reached; `None` unless it climbs.
pub(super) fn climbing(state: &State) -> Option<&Rollout> {
    match &state.phase {
        Phase::Progressing(rollout) => Some(rollout),
        Phase::Idle | Phase::Draining(..) | Phase::Failed(_) => None,
    }
}
