//! What an engine remembers between passes. All of it can be lost at any time: it saves work, it is never state.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::authors::Authors;
use super::situation::Rendering;
use super::view::View;
use crate::analysis::{self, Answer, AskError, Judgement, Ledger, Target};
use crate::domain::{CanaryId, CommitId, Timestamp};
use crate::manifests::{Committed, Manifests};
use crate::spec::{ParseCache, ValidatedCanary};

/// The memory of an engine.
#[derive(Debug, Default)]
pub struct Memory {
    /// The branch as it was read last; HEAD may have moved since.
    pub(super) view: Option<Arc<View>>,
    /// Parsed files by content.
    pub(super) parsed: ParseCache,
    /// Specs of removed canaries, as they were, by the commit they were read from.
    pub(super) recalled: BTreeMap<CanaryId, (CommitId, Arc<ValidatedCanary>)>,
    /// Evidence.
    pub(super) ledger: Ledger,
    /// When a step was observed, by the time at which it was decided.
    pub(super) observed: BTreeMap<CanaryId, (Timestamp, Timestamp)>,
    /// The last verdict, with the step that it is about.
    pub(super) verdicts: BTreeMap<CanaryId, (Timestamp, Judgement)>,
    /// When something was pushed last.
    pub(super) last_push: Option<Timestamp>,
    /// Canaries whose push was refused, and when to try again.
    pub(super) refusals: BTreeMap<CanaryId, Refusal>,
    /// What was pushed since the view was read.
    pub(super) ahead: BTreeMap<CanaryId, Manifests<Committed>>,
    /// What those commits were rendered from.
    pub(super) renderings: BTreeMap<CanaryId, Rendering>,
    /// Whose commits the present state of a canary rests on, as far as the history was asked at this head.
    pub(super) authors: BTreeMap<CanaryId, Authors>,
    /// What this pass knows of our clock beside Prometheus' own; `None`: it was not asked yet.
    pub(super) clock: Option<ClockCheck>,
    /// Races lost so far.
    pub(super) races: u64,
}

/// Our clock beside Prometheus' own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClockCheck {
    /// They agree well enough for what was asked, or Prometheus does not say.
    NothingKnown,
    /// It is not to be asked.
    NotAsked,
    /// They differ; the sentence says how.
    Off(String),
}

impl ClockCheck {
    pub(super) fn of(answers: &[Answer]) -> Self {
        let off = answers.iter().find_map(|answer| match answer {
            Answer::Failed(error @ AskError::Clock(_)) => Some(error.to_string()),
            Answer::Failed(_) | Answer::Series(_) => None,
        });
        off.map_or(Self::NothingKnown, Self::Off)
    }
}

/// A refused push.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) words: String,
    pub(super) tries: u32,
    at: Timestamp,
    pub(super) next_try: Timestamp,
}

impl Refusal {
    /// Whether it is too early for the next try. A clock that was set back puts nothing off.
    pub(super) fn holds(&self, now: Timestamp) -> bool {
        self.at <= now && now < self.next_try
    }
}

/// Seconds between tries of a refused push. The first are quick: beside many writers a lock that is held for a moment reads
/// like a refusal, and a rollback must not wait for long because of it.
const WAITS: [i64; 7] = [1, 5, 30, 60, 120, 300, 600];

impl Memory {
    /// How many races for the branch were lost since the start.
    pub fn races(&self) -> u64 {
        self.races
    }

    /// Whether it is time to ask the metrics of this canary again.
    pub(super) fn is_due(&self, target: &Target, now: Timestamp) -> bool {
        match self.verdicts.get(&target.id) {
            Some((step, judgement)) if *step == target.window.step && judgement.at <= now => {
                analysis::is_due(target, judgement.at, now)
            }
            _ => true,
        }
    }

    pub(super) fn judged(&mut self, target: &Target, judgement: Judgement) {
        self.verdicts
            .insert(target.id.clone(), (target.window.step, judgement));
    }

    /// The last verdict about the step that was observed at `step`.
    pub(super) fn verdict(&self, id: &CanaryId, step: Timestamp) -> Option<&Judgement> {
        self.verdicts
            .get(id)
            .filter(|(about, _)| *about == step)
            .map(|(_, judgement)| judgement)
    }

    pub(super) fn refuse(&mut self, id: &CanaryId, words: &str, now: Timestamp) {
        let tries = self.refusals.get(id).map_or(0, |refusal| refusal.tries);
        let last = WAITS.len() - 1;
        let wait = WAITS[last.min(usize::try_from(tries).unwrap_or(last))];
        let next_try = now + chrono::Duration::seconds(wait);
        self.refusals.insert(
            id.clone(),
            Refusal {
                words: words.to_owned(),
                tries: tries + 1,
                at: now,
                next_try,
            },
        );
    }

    /// What the cluster should show as far as is known: of the branch as it was read, and what was pushed since.
    pub(super) fn wanted(&self) -> Vec<Manifests<Committed>> {
        let read = self.view.iter().flat_map(|view| &view.wanted);
        let mut wanted: BTreeMap<&CanaryId, &Manifests<Committed>> = read
            .map(|manifests| (&manifests.canary, manifests))
            .collect();
        wanted.extend(self.ahead.iter());
        wanted.into_values().cloned().collect()
    }

    /// The branch was read anew: forgets canaries that are gone, and evidence that no rollout needs.
    pub(super) fn read(&mut self, view: View) -> Arc<View> {
        self.observed.retain(|id, _| view.knows(id));
        self.verdicts.retain(|id, _| view.knows(id));
        self.refusals.retain(|id, _| view.knows(id));
        self.recalled.retain(|id, _| view.knows(id));
        self.ahead.clear();
        self.renderings.retain(|id, _| view.is_progressing(id));
        self.authors.clear();
        for situation in &view.situations {
            if !situation.is_progressing() {
                self.ledger.forget(&situation.id);
                self.verdicts.remove(&situation.id);
            }
        }
        let view = Arc::new(view);
        self.view = Some(Arc::clone(&view));
        view
    }
}
