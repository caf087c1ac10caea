//! Decisions as commits: what to write for each canary, checked before it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Settings;
use super::authors;
use super::memory::{ClockCheck, Memory};
use super::situation::{Situation, Sound, Standing, Tree, rendered};
use super::view::View;
use crate::analysis::{Judgement, Target};
use crate::domain::{CanaryId, CommitId, Contents, RepoPath, Timestamp};
use crate::manifests::{self, Committed, Last, Manifests};
use crate::ports::{Draft, Sighting};
use crate::progression::{
    self, Aspect, Cause, Decision, Intervention, Observation, Readiness, State, Transition,
    TransitionKind, WaitingOn,
};
use crate::record::message;
use crate::spec::{CandidateContent, Diagnostic, ValidatedCanary, Workload, promotion};

/// Transitions of one canary in one pass: initialize and start, finish and start. More would be a loop.
const MAX_CHAIN: usize = 4;

/// What is to happen with one canary.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) id: CanaryId,
    /// The spec; `None` for a broken one.
    pub(super) canary: Option<Arc<ValidatedCanary>>,
    /// The commits to make, in order, with what each does.
    pub(super) drafts: Vec<Draft>,
    pub(super) transitions: Vec<Transition>,
    /// The state after them.
    pub(super) state: Option<State>,
    /// The state at HEAD.
    pub(super) head_state: Option<State>,
    /// What would be committed if it could be pushed.
    pub(super) planned: Vec<Transition>,
    /// The generated files after them.
    pub(super) files: Arc<Contents>,
    /// The spec that these were rendered from: a promotion may change it.
    pub(super) rendered_from: Option<Arc<ValidatedCanary>>,
    /// Why it does not move (any further).
    pub(super) waiting: WaitingOn,
    pub(super) wake_at: Option<Timestamp>,
    pub(super) judgement: Option<Judgement>,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// What has to be looked up in the history before the drafts say whose doing they are.
    pub(super) sought: BTreeSet<Aspect>,
    /// The commits, once the remote accepted them.
    pub(super) commits: Vec<CommitId>,
}

/// What to judge for this canary, and since when; `None` when there is nothing to judge.
pub(super) fn target(
    situation: &Situation,
    sightings: Option<&BTreeMap<CanaryId, Sighting>>,
    memory: &Memory,
    now: Timestamp,
) -> Option<Target> {
    let sound = situation.sound()?;
    if sound.removed || sound.intervention.is_some() {
        return None;
    }
    let observed = observed(&situation.id, &sound.state, sightings, memory);
    let window = progression::window(&sound.canary, &sound.state, observed)
        .or_else(|| progression::outlook(&sound.canary, &sound.state, now))?;
    Some(Target::new(&sound.canary, window))
}

/// When the present step was observed: by the cluster, or without one when the push was accepted.
fn observed(
    id: &CanaryId,
    state: &State,
    sightings: Option<&BTreeMap<CanaryId, Sighting>>,
    memory: &Memory,
) -> Option<Timestamp> {
    let since = state.rollout()?.since;
    match sightings {
        Some(sightings) => sightings
            .get(id)?
            .in_sync_since
            .map(|shown| shown.max(since)),
        // A restart forgets no soak time: the commit says since when.
        None => Some(
            memory
                .observed
                .get(id)
                .filter(|(step, _)| *step == since)
                .map_or(since, |(_, at)| *at),
        ),
    }
}

/// Decides for every canary.
pub(super) fn decide(
    view: &View,
    sightings: Option<&BTreeMap<CanaryId, Sighting>>,
    memory: &Memory,
    settings: &Settings,
    now: Timestamp,
) -> Vec<Plan> {
    let room = Room {
        tree: &view.tree,
        settings,
        now,
    };
    let plan = |situation| Plan::of(situation, sightings, memory, &room);
    view.situations.iter().map(plan).collect()
}

/// Whether any plan begins something that is measured from its own time on. Where the analysis is skipped nothing is.
pub(super) fn begins_measuring(plans: &[Plan]) -> bool {
    let begins = |transition: &Transition| {
        matches!(
            transition.kind,
            TransitionKind::Start | TransitionKind::Advance | TransitionKind::Resume
        )
    };
    plans
        .iter()
        .filter(|plan| plan.canary.as_ref().is_some_and(|c| !c.analysis.skip))
        .any(|plan| plan.transitions.iter().any(begins))
}

/// Whether traffic leaves a candidate that harms users: nothing may delay that.
pub(super) fn is_urgent(plans: &[Plan]) -> bool {
    plans.iter().any(Plan::is_urgent)
}

/// Decides again for every canary whose plan has sought something in the history.
pub(super) fn decide_again(
    plans: &mut [Plan],
    view: &View,
    sightings: Option<&BTreeMap<CanaryId, Sighting>>,
    memory: &Memory,
    (settings, now): (&Settings, Timestamp),
) {
    let room = Room {
        tree: &view.tree,
        settings,
        now,
    };
    for (situation, plan) in view.situations.iter().zip(plans) {
        if !plan.sought.is_empty() {
            *plan = Plan::of(situation, sightings, memory, &room);
        }
    }
}

/// What every plan of a pass shares.
struct Room<'a> {
    tree: &'a Tree,
    settings: &'a Settings,
    now: Timestamp,
}

fn observation(
    id: &CanaryId,
    sound: &Sound,
    sightings: Option<&BTreeMap<CanaryId, Sighting>>,
    memory: &Memory,
    now: Timestamp,
) -> Observation {
    let observed = observed(id, &sound.state, sightings, memory);
    let sighting = sightings.and_then(|sightings| sightings.get(id));
    let authors = memory.authors.get(id).cloned().unwrap_or_default();
    Observation {
        intervention: authors::reattributed(sound.intervention.as_ref(), &authors),
        authors,
        clock_off: match &memory.clock {
            Some(ClockCheck::Off(words)) => Some(words.clone()),
            Some(ClockCheck::NothingKnown | ClockCheck::NotAsked) | None => None,
        },
        observed,
        stable: sighting.map_or(Readiness::Unknown, |sighting| sighting.stable.clone()),
        candidate: sighting.map_or(Readiness::Unknown, |sighting| sighting.candidate.clone()),
        stable_replicas: sighting.and_then(|sighting| sighting.stable_replicas),
        // What stable did before a rollout that starts now was asked about this very moment.
        judgement: memory.verdict(id, observed.unwrap_or(now)).cloned(),
        stale: sound.stale.clone(),
    }
}

/// What has to change in `present` to get `wanted`.
fn differing(wanted: &Contents, present: &BTreeMap<&RepoPath, &[u8]>) -> Contents {
    wanted
        .iter()
        .filter(|(path, content)| present.get(*path).copied() != content.as_deref())
        .map(|(path, content)| (path.clone(), content.clone()))
        .collect()
}

impl Plan {
    fn broken(id: &CanaryId, diagnostics: Vec<Diagnostic>) -> Self {
        let message = diagnostics
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        Self {
            id: id.clone(),
            canary: None,
            drafts: Vec::new(),
            transitions: Vec::new(),
            state: None,
            head_state: None,
            planned: Vec::new(),
            files: Arc::default(),
            rendered_from: None,
            waiting: WaitingOn::Spec(message),
            wake_at: None,
            judgement: None,
            diagnostics,
            sought: BTreeSet::new(),
            commits: Vec::new(),
        }
    }

    fn of(
        situation: &Situation,
        sightings: Option<&BTreeMap<CanaryId, Sighting>>,
        memory: &Memory,
        room: &Room<'_>,
    ) -> Self {
        match &situation.standing {
            Standing::Broken(diagnostics) => Self::broken(&situation.id, diagnostics.clone()),
            Standing::Sound(sound) => {
                let seen = observation(&situation.id, sound, sightings, memory, room.now);
                Self::moving(&situation.id, sound, seen, room)
            }
        }
    }

    fn moving(id: &CanaryId, sound: &Sound, seen: Observation, room: &Room<'_>) -> Self {
        let unsure = seen.intervention.is_some()
            && sound.rivals > 1
            && !seen.authors.contains_key(&Aspect::Edit);
        let mut plan = Self {
            id: id.clone(),
            canary: Some(Arc::clone(&sound.canary)),
            drafts: Vec::new(),
            transitions: Vec::new(),
            state: None,
            head_state: Some(sound.state.clone()),
            planned: Vec::new(),
            files: Arc::default(),
            rendered_from: None,
            waiting: WaitingOn::Observation,
            wake_at: None,
            // Before the start it is no verdict about a candidate.
            judgement: seen.observed.and(seen.judgement.clone()),
            diagnostics: Vec::new(),
            sought: unsure.then_some(Aspect::Edit).into_iter().collect(),
            commits: Vec::new(),
        };
        let mut before = authors::reapproved(sound.state.clone(), sound, &seen.authors);
        let mut seen = seen;
        for _ in 0..MAX_CHAIN {
            let decide = if sound.removed {
                progression::decide_removal
            } else {
                progression::decide
            };
            let (decision, after) = decide(&sound.canary, before.clone(), &seen, room.now);
            let transition = match decision {
                Decision::Hold { on, wake_at } => {
                    plan.waiting = on;
                    plan.wake_at = wake_at;
                    break;
                }
                Decision::Commit(transition) => *transition,
            };
            match plan.step(sound, &before, after, transition, &seen, room) {
                Ok(next) => before = next,
                Err(on) => {
                    plan.waiting = on;
                    break;
                }
            }
            if plan
                .transitions
                .last()
                .is_some_and(|last| ends_chain(last.kind))
            {
                break;
            }
            seen = Observation {
                intervention: None,
                observed: None,
                judgement: None,
                stale: Vec::new(),
                ..seen
            };
        }
        plan.state = Some(before);
        if plan.transitions.is_empty() {
            plan.sought.clear();
        }
        plan
    }

    /// Adds one commit, if the checkers agree.
    fn step(
        &mut self,
        sound: &Sound,
        before: &State,
        after: State,
        transition: Transition,
        seen: &Observation,
        room: &Room<'_>,
    ) -> Result<State, WaitingOn> {
        if let Cause::Sought(aspect, _) = &transition.cause {
            self.sought.insert(*aspect);
        }
        // It is decided again when that is known; nothing is worth being rendered before.
        if !self.sought.is_empty() {
            self.transitions.push(transition);
            return Ok(after);
        }
        let mut present: BTreeMap<&RepoPath, &[u8]> = sound
            .files
            .iter()
            .filter_map(|(path, content)| Some((path, content.as_deref()?)))
            .collect();
        for (path, content) in &*self.files {
            match content {
                Some(content) => present.insert(path, content),
                None => present.remove(path),
            };
        }
        let spec = match transition.kind {
            TransitionKind::Remove => None,
            _ => Some(promoted(&sound.canary, &transition)),
        };
        let wanted = match &spec {
            None => present.keys().map(|path| ((*path).clone(), None)).collect(),
            Some(spec) => rendered(spec, &after, self.last_rendered(sound, before)),
        };
        let mut changes = differing(&wanted, &present);
        if transition.kind == TransitionKind::Promote {
            changes.extend(promotion_changes(sound, &transition, room.tree)?);
        }
        check(
            sound,
            before,
            &after,
            &transition,
            seen,
            (spec.as_deref().map(|spec| (spec, &wanted)), room.now),
        )?;
        self.drafts.push(Draft {
            canary: self.id.clone(),
            message: message::write(&self.id, &transition, &room.settings.style),
            changes,
            at: room.now,
        });
        self.transitions.push(transition);
        self.files = wanted.into();
        self.rendered_from = spec;
        Ok(after)
    }

    /// What was rendered for the last commit, or stands at HEAD.
    fn last_rendered<'a>(&'a self, sound: &'a Sound, before: &'a State) -> Option<Last<'a>> {
        if !self.drafts.is_empty() {
            Some(Last {
                canary: self.rendered_from.as_deref()?,
                state: before,
                files: &self.files,
            })
        } else if sound.stale.is_empty() {
            Some(Last {
                canary: &sound.canary,
                state: &sound.state,
                files: &sound.files,
            })
        } else {
            None
        }
    }

    /// What the cluster should be made to show now, if anything is to be done.
    pub(super) fn to_apply(&self, view: &View, drifted: bool) -> Option<Manifests<Committed>> {
        match self.commits.last() {
            Some(commit) => Some(
                Manifests::rendered(self.id.clone(), Arc::clone(&self.files))
                    .committed_at(commit.clone()),
            ),
            None if drifted => view.wanted(&self.id).cloned(),
            None => None,
        }
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.transitions
            .iter()
            .any(|transition| transition.kind.is_urgent())
    }
}

/// After these the tree has to be read again.
fn ends_chain(kind: TransitionKind) -> bool {
    matches!(kind, TransitionKind::Promote | TransitionKind::Remove)
}

/// The canary as the promotion's own commit leaves it: in bring-your-own mode stable's labels are in the spec.
fn promoted(canary: &Arc<ValidatedCanary>, transition: &Transition) -> Arc<ValidatedCanary> {
    if transition.kind == TransitionKind::Promote
        && let Some(candidate) = &transition.candidate
        && let CandidateContent::Labels(labels) = &candidate.content
    {
        let mut canary = ValidatedCanary::clone(canary);
        if let Workload::BringYourOwn(two) = &mut canary.workload {
            two.stable = labels.clone();
        }
        return Arc::new(canary);
    }
    Arc::clone(canary)
}

fn promotion_changes(
    sound: &Sound,
    transition: &Transition,
    tree: &Tree,
) -> Result<Contents, WaitingOn> {
    let Some(candidate) = &transition.candidate else {
        return Err(WaitingOn::Invariant(
            "a promotion without a candidate".to_owned(),
        ));
    };
    let edits = promotion::promotion_edits(tree, &sound.canary, candidate)
        .map_err(|diagnostic| WaitingOn::Spec(diagnostic.to_string()))?;
    Ok(edits
        .into_iter()
        .map(|(path, content)| (path, Some(content.into())))
        .collect())
}

/// The independent checkers. A violation is a mistake of ours: nothing is written, and it is said.
fn check(
    sound: &Sound,
    before: &State,
    after: &State,
    transition: &Transition,
    seen: &Observation,
    (wanted, now): (Option<(&ValidatedCanary, &Contents)>, Timestamp),
) -> Result<(), WaitingOn> {
    let ours = match &seen.intervention {
        Some(Intervention::StateEdited { ours, .. }) => ours.as_ref(),
        _ => before,
    };
    let mut found = progression::violations(&sound.canary, ours, after, transition, seen, now);
    if let Some((canary, files)) = wanted {
        found.extend(manifests::violations(canary, after, files));
    }
    match found.first() {
        None => Ok(()),
        Some(first) => Err(WaitingOn::Invariant(first.clone())),
    }
}

impl Plan {
    /// Nothing is written until this is over.
    pub(super) fn stand_still(&mut self, on: &WaitingOn) {
        self.drafts.clear();
        self.transitions.clear();
        self.state.clone_from(&self.head_state);
        self.waiting = on.clone();
    }

    /// Nothing is written now.
    pub(super) fn put_off(&mut self, on: WaitingOn, until: Timestamp) {
        self.drafts.clear();
        self.planned = std::mem::take(&mut self.transitions);
        self.state.clone_from(&self.head_state);
        self.waiting = on;
        self.wake_at = Some(until);
    }
}
