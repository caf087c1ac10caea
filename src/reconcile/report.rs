//! What a pass did and why it did no more: the value that log, status, trace and commands share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Settings;
use super::memory::Memory;
use super::plan::Plan;
use super::situation::Situation;
use super::view::View;
use crate::analysis::Judgement;
use crate::domain::{CanaryId, CommitId, Timestamp, Weight};
use crate::ports::{Draft, Sighting};
use crate::progression::{State, Transition, WaitingOn};
use crate::spec::{Diagnostic, ValidatedCanary};

/// A pass over a branch.
#[derive(Debug, Clone)]
pub struct Pass {
    /// When.
    pub at: Timestamp,
    /// The head after it; `None` for a branch without commits, or an unreachable one.
    pub head: Option<CommitId>,
    /// Every canary, by namespace and name.
    pub canaries: Vec<CanaryReport>,
    /// Canaries of the branch that others work on.
    pub elsewhere: Arc<BTreeSet<CanaryId>>,
    /// Mistakes in files of which nobody can tell whose they are; nothing in them counts as removed.
    pub mistakes: Vec<Diagnostic>,
    /// What stopped the pass as a whole.
    pub problem: Option<String>,
    /// When to look again at the latest.
    pub wake_at: Timestamp,
}

/// One canary after a pass.
#[derive(Debug, Clone)]
pub struct CanaryReport {
    /// The canary.
    pub id: CanaryId,
    /// Its state; `None` when spec or state cannot be read.
    pub state: Option<State>,
    /// Number of rungs.
    pub steps: u16,
    /// The weight that the cluster shows, when it shows what HEAD says.
    pub observed: Option<Weight>,
    /// What was committed, in order.
    pub moves: Vec<(CommitId, Transition)>,
    /// What would be committed next if it could be pushed: the server refuses, or nothing is to be pushed.
    pub planned: Vec<Transition>,
    /// Why it moves no further.
    pub waiting: WaitingOn,
    /// The last verdict.
    pub judgement: Option<Judgement>,
    /// Mistakes in spec or state.
    pub diagnostics: Vec<Diagnostic>,
    /// What the cluster refused.
    pub problem: Option<String>,
}

/// One canary at HEAD, and what the next pass would do about it.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// The canary.
    pub id: CanaryId,
    /// The spec; `None` when it has mistakes.
    pub canary: Option<ValidatedCanary>,
    /// Its state at HEAD; `None` when spec or state cannot be read.
    pub state: Option<State>,
    /// Whether the spec is gone, and only the generated files are left.
    pub removed: bool,
    /// The commits that the next pass would make.
    pub next: Vec<(Transition, Draft)>,
    /// What it waits for behind them.
    pub waiting: WaitingOn,
    /// The last verdict, when metrics were asked.
    pub judgement: Option<Judgement>,
    /// Mistakes in spec or state.
    pub diagnostics: Vec<Diagnostic>,
}

impl CanaryReport {
    /// The committed weight.
    pub fn weight(&self) -> Weight {
        self.state.as_ref().map_or(Weight::ZERO, State::weight)
    }
}

impl Pass {
    /// A pass over a branch without commits.
    pub(super) fn empty(now: Timestamp, poll: Duration) -> Self {
        let problem = Some("the branch has no commits yet".to_owned());
        Self {
            at: now,
            head: None,
            canaries: Vec::new(),
            elsewhere: Arc::default(),
            mistakes: Vec::new(),
            problem,
            wake_at: after(now, poll),
        }
    }

    /// Notes what the cluster showed before the pass: that is news only where the pass changed nothing.
    pub(super) fn observe(&mut self, sightings: &BTreeMap<CanaryId, Sighting>) {
        for report in self
            .canaries
            .iter_mut()
            .filter(|report| report.moves.is_empty())
        {
            let sighting = sightings.get(&report.id);
            let in_sync = sighting.is_some_and(|sighting| sighting.in_sync_since.is_some());
            report.observed = report.state.as_ref().filter(|_| in_sync).map(State::weight);
        }
    }

    /// The commits that it made, in the order of the canaries.
    pub fn moves(&self) -> impl Iterator<Item = (&CanaryId, &CommitId, &Transition)> {
        self.canaries.iter().flat_map(|report| {
            report
                .moves
                .iter()
                .map(|(commit, what)| (&report.id, commit, what))
        })
    }
}

pub(super) fn outlook(situations: &[Situation], plans: Vec<Plan>) -> Vec<Outlook> {
    situations
        .iter()
        .zip(plans)
        .map(|(situation, plan)| {
            let sound = situation.sound();
            Outlook {
                id: plan.id,
                canary: plan.canary.map(|canary| (*canary).clone()),
                state: sound.map(|sound| sound.state.clone()),
                removed: sound.is_some_and(|sound| sound.removed),
                next: plan.transitions.into_iter().zip(plan.drafts).collect(),
                waiting: plan.waiting,
                judgement: plan.judgement,
                diagnostics: plan.diagnostics,
            }
        })
        .collect()
}

pub(super) fn pass(
    head: &CommitId,
    plans: Vec<Plan>,
    mut problems: BTreeMap<CanaryId, String>,
    memory: &Memory,
    settings: &Settings,
    now: Timestamp,
) -> Pass {
    let moved = plans.iter().any(|plan| !plan.commits.is_empty());
    let newest = plans
        .iter()
        .rev()
        .find_map(|plan| plan.commits.last())
        .unwrap_or(head)
        .clone();
    let mut wake_at = after(now, settings.poll);
    for plan in &plans {
        wake_at = plan.wake_at.map_or(wake_at, |at| wake_at.min(at));
    }
    if moved {
        // The next transition may follow at once, as far as the interval between pushes allows.
        let next = memory
            .last_push
            .map_or(now, |last| after(last, settings.push_interval));
        wake_at = wake_at.min(next);
    }
    let canaries = plans
        .into_iter()
        .map(|plan| CanaryReport {
            problem: problems.remove(&plan.id),
            id: plan.id,
            state: plan.state,
            steps: plan.canary.map_or(0, |canary| {
                u16::try_from(canary.ladder.len()).unwrap_or(u16::MAX)
            }),
            observed: None,
            moves: plan.commits.into_iter().zip(plan.transitions).collect(),
            planned: plan.planned,
            waiting: plan.waiting,
            judgement: plan.judgement,
            diagnostics: plan.diagnostics,
        })
        .collect();
    Pass {
        at: now,
        head: Some(newest),
        canaries,
        elsewhere: Arc::default(),
        mistakes: Vec::new(),
        problem: None,
        wake_at: wake_at.max(now),
    }
}

/// Nothing moves on the whole branch, for one reason.
pub(super) fn blocked(
    view: &View,
    on: &WaitingOn,
    mut problems: BTreeMap<CanaryId, String>,
    now: Timestamp,
    poll: Duration,
) -> Pass {
    let canaries = view
        .situations
        .iter()
        .map(|situation| CanaryReport {
            id: situation.id.clone(),
            state: situation.sound().map(|sound| sound.state.clone()),
            steps: situation.sound().map_or(0, |sound| {
                u16::try_from(sound.canary.ladder.len()).unwrap_or(u16::MAX)
            }),
            observed: None,
            moves: Vec::new(),
            planned: Vec::new(),
            waiting: on.clone(),
            judgement: None,
            diagnostics: Vec::new(),
            problem: problems.remove(&situation.id),
        })
        .collect();
    Pass {
        at: now,
        head: Some(view.head.clone()),
        canaries,
        elsewhere: Arc::clone(&view.elsewhere),
        mistakes: Vec::new(),
        problem: Some(on.to_string()),
        wake_at: after(now, poll),
    }
}

/// There is no commit to go by.
pub(super) fn headless(on: &WaitingOn, memory: &Memory, now: Timestamp, poll: Duration) -> Pass {
    let known = memory.view.iter().flat_map(|view| &view.situations);
    let canaries = known
        .map(|situation| CanaryReport {
            id: situation.id.clone(),
            state: None,
            steps: 0,
            observed: None,
            moves: Vec::new(),
            planned: Vec::new(),
            waiting: on.clone(),
            judgement: None,
            diagnostics: Vec::new(),
            problem: None,
        })
        .collect();
    Pass {
        at: now,
        head: None,
        canaries,
        elsewhere: Arc::default(),
        mistakes: Vec::new(),
        problem: Some(on.to_string()),
        wake_at: after(now, poll),
    }
}

pub(super) fn after(at: Timestamp, wait: Duration) -> Timestamp {
    chrono::Duration::from_std(wait)
        .ok()
        .and_then(|wait| at.checked_add_signed(wait))
        .unwrap_or(Timestamp::MAX_UTC)
}
