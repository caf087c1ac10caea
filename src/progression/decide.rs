//! `decide`: the order in which the rules speak. The first rule that has an answer gives it.
//!
//! Order matters and is the same as in the design: people first, then what stable has become, then abort and pause,
//! then the phase. Repair comes last and only when nothing moves: files that differ from what spec and state render
//! to are rendered again.

use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;

use super::state::{
    Approval, Aspect, Attribution, Cause, Decision, DrainCause, Failure, Intervention, Observation,
    Phase, Previous, Rejection, Rollout, State, Transition, TransitionKind, VerdictNote, WaitingOn,
};
use super::{begin, climb, people};
use crate::analysis::Verdict;
use crate::domain::{Revision, Timestamp, Weight};
use crate::spec::{Candidate, ValidatedCanary, Version};

/// An answer: what to do, and the state after it.
pub(super) type Answer = (Decision, State);

/// A rule either answers, or passes the state on to the next rule.
pub(super) type Ruling = ControlFlow<Answer, State>;

/// Everything a rule may look at besides the state.
pub(super) struct Desk<'a> {
    pub(super) canary: &'a ValidatedCanary,
    pub(super) seen: &'a Observation,
    pub(super) now: Timestamp,
}

/// Decides the next move. Total: every input has an answer, and no input is an error.
pub fn decide(
    canary: &ValidatedCanary,
    state: State,
    seen: &Observation,
    now: Timestamp,
) -> (Decision, State) {
    let desk = Desk { canary, seen, now };
    let rules: [fn(&Desk<'_>, State) -> Ruling; 6] = [
        initialize,
        people::intervention,
        undo_edit,
        stable_changed,
        abort_or_pause,
        phase,
    ];
    let mut state = state;
    for rule in rules {
        match rule(&desk, state) {
            Break(answer) => return repair(&desk, answer),
            Continue(passed) => state = passed,
        }
    }
    let hold = Decision::Hold {
        on: WaitingOn::Proposal,
        wake_at: None,
    };
    repair(&desk, (hold, state))
}

/// Decides for a canary whose spec is gone: traffic to stable, then its folder goes. `canary` is the spec as it was.
pub fn decide_removal(
    canary: &ValidatedCanary,
    state: State,
    seen: &Observation,
    now: Timestamp,
) -> (Decision, State) {
    let desk = Desk { canary, seen, now };
    let mut state = state;
    if let Some(Intervention::StateEdited { ours, .. }) = &seen.intervention {
        // Whatever people made of the state, the counter on the objects never goes back.
        state.sequence = state.sequence.max(ours.sequence);
    }
    let cause = desk.author_or(Aspect::Existence, "the canary's spec was removed");
    match state.phase.clone() {
        Phase::Progressing(rollout) => {
            let sentence =
                "The canary's spec was removed: traffic returns to stable before its objects go."
                    .to_owned();
            desk.drain(
                state,
                rollout,
                DrainCause::Withdrawn,
                (TransitionKind::Withdraw, cause, sentence),
            )
        }
        // Somebody gave the draining candidate traffic again in `rollout.yaml`: it has to be off it before its objects go.
        Phase::Draining(rollout, cause_of_drain) if rollout.has_traffic() => {
            let sentence =
                "The canary's spec was removed: traffic returns to stable again before its objects go."
                    .to_owned();
            desk.drain(
                state,
                rollout,
                cause_of_drain,
                (TransitionKind::Withdraw, cause, sentence),
            )
        }
        Phase::Draining(..) if seen.observed.is_none() => {
            desk.wait(state, WaitingOn::Observation, None)
        }
        Phase::Draining(..) | Phase::Idle | Phase::Failed(_) => {
            let sentence =
                "The canary's spec was removed: the files that Serin made for it go.".to_owned();
            desk.commit(
                &state.clone(),
                state,
                TransitionKind::Remove,
                cause,
                sentence,
            )
        }
    }
}

fn initialize(desk: &Desk<'_>, state: State) -> Ruling {
    if state.sequence > 0 {
        return Continue(state);
    }
    let cause = desk.author_or(Aspect::Existence, "the canary is new");
    let sentence = format!(
        "First manifests of this canary: all traffic on stable, {}.",
        state.stable.summary
    );
    Break(desk.commit(
        &state.clone(),
        state,
        TransitionKind::Initialize,
        cause,
        sentence,
    ))
}

/// A rendered file was edited by hand: it is rendered again in a commit of its own, which says why, before any step
/// would write over it. Only what takes traffic off the candidate goes first.
fn undo_edit(desk: &Desk<'_>, state: State) -> Ruling {
    let edited = matches!(
        desk.seen.intervention,
        Some(Intervention::ManifestEdited { .. })
    );
    let failing = desk
        .seen
        .judgement
        .as_ref()
        .is_some_and(|judgement| judgement.verdict == Verdict::Fail);
    if !edited || desk.seen.stale.is_empty() || failing || desk.canary.controls.abort {
        return Continue(state);
    }
    // Waiting is enough: `repair` writes the commit.
    Break(desk.wait(state, WaitingOn::Observation, None))
}

/// Stable's manifest is not what it was at our last commit: promoted by us, or edited by a person.
fn stable_changed(desk: &Desk<'_>, mut state: State) -> Ruling {
    let stable = &desk.canary.stable;
    if stable.revision == state.stable.revision {
        return Continue(state);
    }
    match state.phase.clone() {
        Phase::Progressing(rollout) if rollout.candidate.yields == stable.revision => {
            Break(return_traffic(desk, state, rollout))
        }
        Phase::Progressing(rollout) => {
            if desk.canary.controls.paused {
                return Break(desk.wait(state, WaitingOn::Unpause, None));
            }
            let sentence = format!(
                "Stable's manifest was edited ({} -> {}): traffic returns to stable, then the ladder starts anew.",
                state.stable.summary, stable.summary
            );
            let cause = desk.author_or(Aspect::Stable, "stable's manifest was edited");
            Break(desk.drain(
                state,
                rollout,
                DrainCause::Superseded,
                (TransitionKind::Restart, cause, sentence),
            ))
        }
        Phase::Draining(..) => Continue(state),
        Phase::Idle | Phase::Failed(_) => {
            let before = state.clone();
            desk.note_stable(&mut state);
            let sentence = format!(
                "Stable's manifest was edited: {} -> {}.",
                before.stable.summary, state.stable.summary
            );
            let cause = desk.author_or(Aspect::Stable, "stable's manifest was edited");
            Break(desk.commit(&before, state, TransitionKind::Stable, cause, sentence))
        }
    }
}

/// Stable has become the candidate: traffic returns as soon as stable is ready, and not before.
fn return_traffic(desk: &Desk<'_>, mut state: State, rollout: Rollout) -> Answer {
    if desk.canary.controls.paused {
        return desk.wait(state, WaitingOn::Unpause, None);
    }
    if let super::Readiness::NotReady(why) | super::Readiness::Broken(why) = &desk.seen.stable {
        return desk.wait(state, WaitingOn::Stable(why.clone()), None);
    }
    state.held = None;
    desk.note_stable(&mut state);
    let sentence = format!(
        "Stable runs {} now: traffic returns to it.",
        rollout.candidate.summary
    );
    let cause = Cause::Rule("stable equals the candidate and is ready".to_owned());
    desk.drain(
        state,
        rollout,
        DrainCause::Promoted,
        (TransitionKind::Return, cause, sentence),
    )
}

fn abort_or_pause(desk: &Desk<'_>, state: State) -> Ruling {
    let controls = &desk.canary.controls;
    if controls.abort {
        match state.phase.clone() {
            Phase::Progressing(rollout) => {
                let cause = desk.author_or(Aspect::Abort, "abort: true");
                let reason = match &cause {
                    Cause::Person(by) => format!("aborted by {}", by.person.name),
                    Cause::Rule(rule) | Cause::Sought(_, rule) => rule.clone(),
                };
                return Break(desk.roll_back(state, rollout, cause, reason, None));
            }
            Phase::Idle | Phase::Failed(_) => {
                return Break(desk.wait(state, WaitingOn::AbortCleared, None));
            }
            Phase::Draining(..) => {}
        }
    }
    if controls.paused {
        return Break(desk.wait(state, WaitingOn::Unpause, None));
    }
    Continue(state)
}

fn phase(desk: &Desk<'_>, state: State) -> Ruling {
    Break(match state.phase.clone() {
        Phase::Progressing(rollout) => climb::progress(desk, state, rollout),
        Phase::Draining(rollout, cause) => finish_drain(desk, state, &rollout, cause),
        Phase::Idle | Phase::Failed(_) => begin::begin(desk, state),
    })
}

/// The cluster shows that nobody reaches the candidate any more: its objects go.
fn finish_drain(desk: &Desk<'_>, mut state: State, rollout: &Rollout, cause: DrainCause) -> Answer {
    if let Some(hold) = &state.held {
        if desk.canary.controls.resume <= state.resume {
            let hold = hold.clone();
            return desk.wait(state, WaitingOn::Person(hold), None);
        }
        state.resume = desk.canary.controls.resume;
        state.held = None;
    }
    if desk.seen.observed.is_none() {
        return desk.wait(state, WaitingOn::Observation, None);
    }
    let before = state.clone();
    desk.note_stable(&mut state);
    let gone = format!(
        "Nobody reaches {} any more, its objects go",
        rollout.candidate.summary
    );
    let (phase, sentence) = match cause {
        DrainCause::Promoted => (
            Phase::Idle,
            format!("{} is promoted. {gone}.", rollout.candidate.summary),
        ),
        DrainCause::Withdrawn => (Phase::Idle, format!("{gone}: the proposal was withdrawn.")),
        DrainCause::RolledBack(failure) => {
            let sentence = format!("{gone}: {}.", failure.reason);
            (Phase::Failed(failure), sentence)
        }
        DrainCause::Superseded => {
            state.phase = Phase::Idle;
            if let Some(answer) = begin::restart(desk, &before, state.clone()) {
                return answer;
            }
            (
                Phase::Idle,
                format!("{gone}: another candidate was proposed."),
            )
        }
    };
    state.phase = phase;
    let cause = Cause::Rule("traffic is back on stable".to_owned());
    desk.commit(&before, state, TransitionKind::Finish, cause, sentence)
}

/// When nothing moves, files that differ from what spec and state render to are rendered again.
fn repair(desk: &Desk<'_>, (decision, state): Answer) -> Answer {
    if matches!(decision, Decision::Commit(_)) || desk.seen.stale.is_empty() || state.sequence == 0
    {
        return (decision, state);
    }
    let files: Vec<&str> = desk
        .seen
        .stale
        .iter()
        .map(crate::domain::RepoPath::file_name)
        .collect();
    let files = files.join(", ");
    let (cause, sentence) = match &desk.seen.intervention {
        Some(intervention) => {
            let by = intervention.by();
            let sentence = format!(
                "{} edited what Serin generates ({files}); it is rendered from {} again. Change that file instead.",
                by.person.name, desk.canary.home.file
            );
            (Cause::Person(by.clone()), sentence)
        }
        None => (
            desk.author_or(Aspect::Rendering, "spec and manifests differ"),
            format!("{files} follow {} again.", desk.canary.home.file),
        ),
    };
    desk.commit(
        &state.clone(),
        state,
        TransitionKind::Render,
        cause,
        sentence,
    )
}

impl Desk<'_> {
    /// The person who made this part of the inputs what it is, or a rule when it was nobody.
    pub(super) fn author_or(&self, aspect: Aspect, rule: &str) -> Cause {
        match self.seen.authors.get(&aspect) {
            Some(Some(author)) => Cause::Person(author.clone()),
            Some(None) => Cause::Rule(rule.to_owned()),
            None => Cause::Sought(aspect, rule.to_owned()),
        }
    }

    /// An answer that writes nothing.
    #[expect(clippy::unused_self, reason = "every answer is made at the desk")]
    pub(super) fn wait(&self, state: State, on: WaitingOn, wake_at: Option<Timestamp>) -> Answer {
        (Decision::Hold { on, wake_at }, state)
    }

    /// An answer that is one commit from `before` to `after`.
    pub(super) fn commit(
        &self,
        before: &State,
        mut after: State,
        kind: TransitionKind,
        cause: Cause,
        sentence: String,
    ) -> Answer {
        // A promotion writes people's files only, so that reverting it never meets a later line of ours.
        if kind != TransitionKind::Promote {
            after.sequence += 1;
        }
        let candidate = after
            .rollout()
            .or_else(|| before.rollout())
            .map(|rollout| Arc::clone(&rollout.candidate));
        let transition = Transition {
            kind,
            from: before.weight(),
            to: after.weight(),
            step: after.rollout().map_or(0, |rollout| rollout.step),
            steps: self.steps(),
            candidate,
            cause,
            sentence,
            judgement: None,
        };
        (Decision::Commit(Box::new(transition)), after)
    }

    /// Number of rungs.
    pub(super) fn steps(&self) -> u16 {
        u16::try_from(self.canary.ladder.len()).unwrap_or(u16::MAX)
    }

    /// Takes all traffic off the candidate; it stays rendered until the cluster shows that.
    pub(super) fn drain(
        &self,
        state: State,
        mut rollout: Rollout,
        why: DrainCause,
        (kind, cause, sentence): (TransitionKind, Cause, String),
    ) -> Answer {
        let before = state.clone();
        let mut after = state;
        rollout.weight = Weight::ZERO;
        rollout.mirror = None;
        rollout.matches = Vec::new();
        rollout.approval = Approval::NotNeeded;
        rollout.since = self.now;
        after.held = None;
        after.phase = Phase::Draining(rollout, why);
        self.commit(&before, after, kind, cause, sentence)
    }

    /// Drains a candidate and rejects it.
    pub(super) fn roll_back(
        &self,
        mut state: State,
        rollout: Rollout,
        cause: Cause,
        reason: String,
        judgement: Option<crate::analysis::Judgement>,
    ) -> Answer {
        let failure = Failure {
            candidate: rollout.candidate.revision.clone(),
            summary: rollout.candidate.summary.clone(),
            at: self.now,
            reason: reason.clone(),
        };
        state.reject(rollout.candidate.revision.clone(), self.now, reason.clone());
        state.remember(judgement.as_ref());
        let sentence = format!(
            "{} goes back to stable: {reason}.",
            rollout.candidate.summary
        );
        let kind = TransitionKind::RollBack;
        let (decision, after) = self.drain(
            state,
            rollout,
            DrainCause::RolledBack(failure),
            (kind, cause, sentence),
        );
        (with_judgement(decision, judgement), after)
    }

    /// Records what stable is now; a return to the version before the last promotion rejects the version it left.
    pub(super) fn note_stable(&self, state: &mut State) {
        let stable = &self.canary.stable;
        if stable.revision == state.stable.revision {
            state.stable = stable.clone();
            return;
        }
        let went_back = state
            .previous
            .as_ref()
            .is_some_and(|previous| previous.version.revision == stable.revision);
        if went_back
            && let Some(proposal) = &self.canary.proposal
            && proposal.yields == state.stable.revision
        {
            let reason = format!(
                "stable was taken back from {} to {}",
                state.stable.summary, stable.summary
            );
            state.reject(proposal.revision.clone(), self.now, reason);
        }
        let left = std::mem::replace(&mut state.stable, stable.clone());
        state.previous = Some(Previous {
            version: left,
            until: self.now,
        });
    }
}

/// Puts the evidence into a commit.
pub(super) fn with_judgement(
    decision: Decision,
    judgement: Option<crate::analysis::Judgement>,
) -> Decision {
    match decision {
        Decision::Commit(mut transition) => {
            transition.judgement = judgement;
            Decision::Commit(transition)
        }
        hold @ Decision::Hold { .. } => hold,
    }
}

impl State {
    /// Rejections kept: more than anybody retries, few enough to read.
    pub const MAX_REJECTED: usize = 10;

    /// The state before the first commit of a canary.
    pub fn initial(stable: Version) -> Self {
        Self {
            sequence: 0,
            stable,
            phase: Phase::Idle,
            held: None,
            rejected: Vec::new(),
            previous: None,
            retry: 0,
            resume: 0,
            last_verdict: None,
        }
    }

    /// The rollout of the present phase, running or draining.
    pub fn rollout(&self) -> Option<&Rollout> {
        match &self.phase {
            Phase::Progressing(rollout) | Phase::Draining(rollout, _) => Some(rollout),
            Phase::Idle | Phase::Failed(_) => None,
        }
    }

    /// The committed weight of the candidate; 0 without one.
    pub fn weight(&self) -> Weight {
        self.rollout()
            .map_or(Weight::ZERO, |rollout| rollout.weight)
    }

    /// The phase in one word, as in `rollout.yaml`.
    pub fn phase_name(&self) -> &'static str {
        match self.phase {
            Phase::Idle => "Idle",
            Phase::Progressing(_) => "Progressing",
            Phase::Draining(..) => "Draining",
            Phase::Failed(_) => "Failed",
        }
    }

    /// The rejection of this candidate, if there is one.
    pub fn rejection(&self, candidate: &Revision) -> Option<&Rejection> {
        self.rejected
            .iter()
            .find(|rejection| &rejection.revision == candidate)
    }

    /// Rejects a candidate; the newest reason counts.
    pub(super) fn reject(&mut self, revision: Revision, at: Timestamp, reason: String) {
        self.rejected
            .retain(|rejection| rejection.revision != revision);
        self.rejected.insert(
            0,
            Rejection {
                revision,
                at,
                reason,
            },
        );
        self.rejected.truncate(Self::MAX_REJECTED);
    }

    /// Keeps the verdict that a commit rests on.
    pub(super) fn remember(&mut self, judgement: Option<&crate::analysis::Judgement>) {
        if let Some(judgement) = judgement {
            self.last_verdict = Some(Arc::new(VerdictNote {
                verdict: judgement.verdict,
                sentence: judgement.sentence.clone(),
                at: judgement.at,
                numbers: judgement.numbers(),
                strikes: judgement.strikes.unwrap_or_default(),
            }));
        }
    }
}

impl Rollout {
    /// A rollout of `candidate` at its beginning.
    pub fn new(candidate: impl Into<Arc<Candidate>>, ladder: Revision, now: Timestamp) -> Self {
        Self {
            candidate: candidate.into(),
            step: 0,
            weight: Weight::ZERO,
            mirror: None,
            matches: Vec::new(),
            started: now,
            since: now,
            ladder,
            approval: Approval::NotNeeded,
            stable_replicas: None,
        }
    }

    /// Whether anybody can: not while the candidate is being prepared.
    pub fn is_reachable(&self) -> bool {
        self.step > 0 || self.has_traffic()
    }

    /// Whether anybody but named users can reach the candidate.
    pub fn has_traffic(&self) -> bool {
        self.weight > Weight::ZERO
            || self.mirror.is_some_and(|share| share > Weight::ZERO)
            || !self.matches.is_empty()
    }
}

impl Attribution {
    /// `Name in 1a2b3c4d5e: subject`, for sentences.
    pub fn brief(&self) -> String {
        format!("{} in {}", self.person.name, self.commit.short())
    }
}
