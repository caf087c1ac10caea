//! The state of a canary and the vocabulary of decisions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::analysis::{Judgement, Verdict};
use crate::domain::{CommitId, Person, RepoPath, Revision, Timestamp, Weight};
use crate::spec::{Candidate, Version};

/// Where a canary stands. `rollout.yaml` is its written form; it is a function of HEAD alone.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Raised by each commit of ours that changes a rendered file; 0 before the first.
    pub sequence: u64,
    /// What served as stable when this was written.
    pub stable: Version,
    /// The phase with its data.
    pub phase: Phase,
    /// Set when nothing moves until a person says so.
    pub held: Option<Hold>,
    /// Candidates that are not started again, newest first, at most [`State::MAX_REJECTED`].
    pub rejected: Vec<Rejection>,
    /// Stable before the last promotion.
    pub previous: Option<Previous>,
    /// Value of the spec's `retry` that was last acted on.
    pub retry: u64,
    /// Value of the spec's `resume` that was last acted on.
    pub resume: u64,
    /// The last verdict that led to a commit.
    pub last_verdict: Option<Arc<VerdictNote>>,
}

/// The phases of a canary.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Stable serves everybody. In: first commit, end of a drain. Out: a proposal starts.
    Idle,
    /// A candidate climbs the ladder. In: start, adoption. Out: drain (for every cause).
    Progressing(Rollout),
    /// All traffic is on stable again, the candidate is still rendered until the cluster shows that.
    /// Out: `Idle`, `Failed` or, when superseded, a new start.
    Draining(Rollout, DrainCause),
    /// The last candidate was rolled back and rejected. Out: a new proposal, or none, or `retry`.
    Failed(Failure),
}

/// A candidate on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// The copy that is being rolled out; what serves is rendered from it, never from a newer proposal.
    pub candidate: Arc<Candidate>,
    /// Rung of the ladder, from 1; 0 while the candidate is being prepared at weight 0.
    pub step: u16,
    /// Committed weight of the candidate.
    pub weight: Weight,
    /// Committed mirror share.
    pub mirror: Option<Weight>,
    /// Committed A/B matches.
    pub matches: Vec<Value>,
    /// When the rollout started.
    pub started: Timestamp,
    /// When this step was decided.
    pub since: Timestamp,
    /// Identity of the ladder it climbs; differs from the spec's after an edit.
    pub ladder: Revision,
    /// The gate of this step.
    pub approval: Approval,
    /// Most replicas that stable was seen with since the start, where the cluster asks for more than Git: an autoscaler's.
    pub stable_replicas: Option<u32>,
}

/// The gate of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Approval {
    /// The step has no gate.
    NotNeeded,
    /// Somebody has to approve.
    Pending,
    /// Somebody did.
    Granted(Attribution),
}

/// Why traffic was taken back to stable.
#[derive(Debug, Clone, PartialEq)]
pub enum DrainCause {
    /// The candidate has become stable.
    Promoted,
    /// It was rolled back; the failure says why.
    RolledBack(Failure),
    /// The proposal was withdrawn.
    Withdrawn,
    /// Another candidate was proposed, or stable's manifest was edited: the ladder starts anew.
    Superseded,
}

/// A rollback, for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The rejected candidate.
    pub candidate: Revision,
    /// A few words for people.
    pub summary: String,
    /// When.
    pub at: Timestamp,
    /// Why, one sentence.
    pub reason: String,
}

/// A candidate that is not started again until it changes or `retry` is raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The candidate.
    pub revision: Revision,
    /// When.
    pub at: Timestamp,
    /// Why, one sentence.
    pub reason: String,
}

/// Stable before the last promotion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// That version.
    pub version: Version,
    /// When it was replaced.
    pub until: Timestamp,
}

/// Why nothing moves until a person says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The reason.
    pub reason: HoldReason,
    /// One sentence: who did what, or what was seen.
    pub detail: String,
    /// Since when.
    pub at: Timestamp,
}

/// The kinds of holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldReason {
    /// A person changed weight, step or state, and that was adopted.
    Adopted,
    /// The analysis failed and the spec says `onFailure: hold`.
    AnalysisFailed,
}

/// A verdict in one line, kept in the state for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictNote {
    /// The verdict.
    pub verdict: Verdict,
    /// One sentence.
    pub sentence: String,
    /// When.
    pub at: Timestamp,
    /// The comparison with stable in numbers, by name; empty where there was none.
    pub numbers: Map<String, Value>,
    /// Checks of this rollout that failed so far, by Flagger's rule; 0 by Serin's.
    pub strikes: u32,
}

/// Who did something, and in which commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribution {
    /// Author of the commit.
    pub person: Person,
    /// The commit.
    pub commit: CommitId,
    /// First line of its message.
    pub subject: String,
    /// Its author time.
    pub at: Timestamp,
}

/// All that `decide` is told of the world.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// What people did to Serin's own files since its last commit on this canary.
    pub intervention: Option<Intervention>,
    /// Whose commit made each of these what it is, as far as the history was asked; nobody's, if it does not say.
    pub authors: BTreeMap<Aspect, Option<Attribution>>,
    /// Since when the cluster (without one: the branch) shows what HEAD says; `None`: not yet.
    pub observed: Option<Timestamp>,
    /// Whether stable's workload runs what Git says.
    pub stable: Readiness,
    /// Whether the candidate's workload runs what Git says.
    pub candidate: Readiness,
    /// Replicas that stable's workload is asked to have in the cluster.
    pub stable_replicas: Option<u32>,
    /// The verdict, when the metrics were asked.
    pub judgement: Option<Judgement>,
    /// What is wrong with our clock, when Prometheus' own says so: nothing that would be measured from now on begins.
    pub clock_off: Option<String>,
    /// Files of ours that differ from what spec and state render to; empty when all is in order.
    pub stale: Vec<RepoPath>,
}

/// Whether a workload is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// There is no cluster to ask; treated as ready.
    Unknown,
    /// All replicas run the wanted template.
    Ready,
    /// Not yet; the sentence says what is missing.
    NotReady(String),
    /// It will not become ready; the sentence has the cluster's own words.
    Broken(String),
}

impl Readiness {
    /// Whether traffic may go there.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Unknown | Self::Ready)
    }
}

/// What people did to Serin's own files since its last commit on this canary, classified.
#[derive(Debug, Clone, PartialEq)]
pub enum Intervention {
    /// `rollout.yaml` was changed or reverted: `decide` gets the new state, this is what Serin had written.
    StateEdited {
        /// What Serin had written last.
        ours: Box<State>,
        /// Who did it.
        by: Attribution,
    },
    /// The gate of the present step was opened in `rollout.yaml`.
    Approved {
        /// Who did it.
        by: Attribution,
    },
    /// The `held` block was removed from `rollout.yaml`.
    Resumed {
        /// Who did it.
        by: Attribution,
    },
    /// The weights in the rendered VirtualService were changed.
    WeightEdited {
        /// The candidate's new weight.
        weight: Weight,
        /// Who did it.
        by: Attribution,
    },
    /// Rendered files were changed in any other way, or deleted.
    ManifestEdited {
        /// Which.
        files: Vec<RepoPath>,
        /// Who did it.
        by: Attribution,
    },
}

impl Intervention {
    /// Who did it.
    pub fn by(&self) -> &Attribution {
        match self {
            Self::StateEdited { by, .. }
            | Self::Approved { by }
            | Self::Resumed { by }
            | Self::WeightEdited { by, .. }
            | Self::ManifestEdited { by, .. } => by,
        }
    }

    /// The same, to be changed.
    pub fn by_mut(&mut self) -> &mut Attribution {
        match self {
            Self::StateEdited { by, .. }
            | Self::Approved { by }
            | Self::Resumed { by }
            | Self::WeightEdited { by, .. }
            | Self::ManifestEdited { by, .. } => by,
        }
    }
}

/// The answer of `decide`.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The state changed, or user files have to: one commit.
    Commit(Box<Transition>),
    /// Nothing to write; why, and when to look again at the latest.
    Hold {
        /// What it waits for.
        on: WaitingOn,
        /// When time alone may change the answer; `None`: only an event can.
        wake_at: Option<Timestamp>,
    },
}

/// One commit to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// What kind of step.
    pub kind: TransitionKind,
    /// Weight before.
    pub from: Weight,
    /// Weight after.
    pub to: Weight,
    /// Rung after, from 1; 0 when preparing or without a rollout.
    pub step: u16,
    /// Number of rungs.
    pub steps: u16,
    /// The candidate concerned.
    pub candidate: Option<Arc<Candidate>>,
    /// A rule, or a person and the commit.
    pub cause: Cause,
    /// One or two sentences for people: what happens and why.
    pub sentence: String,
    /// The verdict that it rests on, if any.
    pub judgement: Option<Judgement>,
}

/// The kinds of commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransitionKind {
    /// First manifests of a canary, all traffic on stable.
    Initialize,
    /// A candidate is prepared, or enters a first step of weight 0.
    Start,
    /// The next rung.
    Advance,
    /// A gate was opened.
    Approve,
    /// A person's weight, step or state becomes the present one, and holds.
    Adopt,
    /// The analysis failed and the rollout holds.
    Halt,
    /// A held rollout goes on.
    Resume,
    /// The candidate is written into stable's manifest or the spec.
    Promote,
    /// Traffic returns to the promoted stable.
    Return,
    /// Traffic to stable because the candidate failed or was aborted.
    RollBack,
    /// Traffic to stable because the proposal was withdrawn.
    Withdraw,
    /// Traffic to stable because another candidate was proposed or stable was edited.
    Restart,
    /// The candidate's objects go; end of a rollout.
    Finish,
    /// Stable's manifest was edited by a person.
    Stable,
    /// Rendered files follow spec and state again.
    Render,
    /// The canary's spec was removed; its folder goes.
    Remove,
}

impl TransitionKind {
    /// Whether it may jump the queue of pushes: traffic leaves a candidate that harms users.
    pub fn is_urgent(self) -> bool {
        matches!(self, Self::RollBack)
    }
}

/// What caused a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A rule of the spec, in its words: `hold of 2m passed, verdict pass`.
    Rule(String),
    /// A person's commit.
    Person(Attribution),
    /// The commit of whoever made this part of the inputs what it is, which the history was not asked for yet; without
    /// one a rule, in its words.
    Sought(Aspect, String),
}

/// A part of what people write. The commit that touched the file last need not be the one that changed this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// That there is a canary, or none.
    Existence,
    /// What is proposed.
    Proposal,
    /// What stable runs.
    Stable,
    /// `abort`.
    Abort,
    /// `retry`.
    Retry,
    /// `resume`.
    Resume,
    /// The ladder.
    Ladder,
    /// All that is rendered from spec and manifests.
    Rendering,
    /// What somebody did to Serin's own files.
    Edit,
}

/// Why a canary does not move: a typed answer that log, condition, event, metric and trace share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitingOn {
    /// There is no candidate.
    Proposal,
    /// The candidate was rejected earlier.
    Retry(Rejection),
    /// The candidate reads as older than stable.
    DowngradeConsent {
        /// Candidate, a few words.
        candidate: String,
        /// Stable, a few words.
        stable: String,
    },
    /// The pod template lacks the label that tells stable from candidate.
    TrackLabel {
        /// The label key.
        key: String,
        /// Name of the Deployment.
        deployment: String,
    },
    /// `paused: true`.
    Unpause,
    /// `abort: true`.
    AbortCleared,
    /// A person, after an adoption or with `onFailure: hold`.
    Person(Hold),
    /// The cluster to show what HEAD says.
    Observation,
    /// Stable's workload to become ready.
    Stable(String),
    /// The candidate's workload to become ready.
    Candidate(String),
    /// The hold of the step.
    HoldTime {
        /// Until when.
        until: Timestamp,
    },
    /// Somebody to approve the step.
    Approval {
        /// The rung.
        step: u16,
    },
    /// More evidence.
    Evidence {
        /// What is missing, one sentence.
        sentence: String,
        /// How long the step may last in all, if limited.
        deadline: Option<Duration>,
    },
    /// Prometheus.
    Metrics(String),
    /// The end of a freeze.
    Freeze {
        /// Until when.
        until: Timestamp,
    },
    /// The minimum interval between pushes.
    PushInterval {
        /// Until when.
        until: Timestamp,
    },
    /// Nothing is pushed, on request: what would be is only said.
    PlanMode,
    /// The server accepts the push.
    PushRefused(String),
    /// The remote can be reached.
    Remote(String),
    /// A person: the branch no longer descends from what was seen.
    HistoryRewritten {
        /// Head before.
        from: CommitId,
        /// Head now.
        to: CommitId,
    },
    /// A person: the head of the branch is not signed as it has to be.
    HeadUnverified {
        /// The head.
        head: CommitId,
        /// What is in force instead, if anything.
        last_good: Option<CommitId>,
        /// Which commit is not, and why.
        why: String,
    },
    /// A person: Serin's keys or the list of allowed ones.
    Signatures(String),
    /// Somebody mends the spec; the first message.
    Spec(String),
    /// A mistake of Serin's own: its checker refused what it was about to commit.
    Invariant(String),
}
