//! One pass over a branch: the whole loop on one page.
//!
//! 1. `repository.fetch`, `snapshot`, `lineage` (I/O): where the branch is, what it holds, who changed what.
//! 2. `view` and `situation` (pure): spec and state of each canary, and what people did to our files.
//! 3. `cluster.follow`, `observe` (I/O): what the cluster is to show, and what it shows.
//! 4. `analysis::plan` (pure), `metrics.ask` (I/O), `analysis::absorb` and `judge` (pure): the verdicts.
//! 5. `plan::decide` (pure): the commits to make, checked by code that did not make them; `repository.authors` (I/O): whose
//!    doing they are.
//! 6. `repository.publish` (I/O): all of them in one push. A lost race starts the pass again on the new head.
//! 7. `cluster.apply` (I/O): only what the remote accepted.
//! 8. the report (pure).
//!
//! A pass is level-triggered: it ignores what woke it and derives everything from HEAD. Holding takes the same path as
//! moving. The memory between passes only saves work; a fresh engine decides the same.

mod authors;
mod batch;
mod memory;
mod plan;
mod report;
mod situation;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::DurationRound;

use memory::ClockCheck;
pub use memory::Memory;
pub use report::{CanaryReport, Outlook, Pass};

use crate::analysis::{self, Target};
use crate::clock::Clock;
use crate::domain::{CanaryId, CommitId, Timestamp};
use crate::lease::Share;
use crate::manifests::{Committed, Manifests};
use crate::ports::{
    Cluster, Head, History, Metrics, Published, Receivers, Repository, RepositoryError, Sighting,
    Tree, Wanted,
};
use crate::progression::WaitingOn;
use crate::record::message::Style;
use crate::spec::{Orphan, ParseCache};
use batch::Batch;
use plan::Plan;
use view::{Reading, View};

/// Lost races in one pass before it gives up until the next: sixteen writers need a few each.
const MAX_RACES: usize = 8;

/// What an operator configures of the loop.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Shortest time between two pushes; rollbacks do not wait for it.
    pub push_interval: Duration,
    /// Longest time between two looks at the branch.
    pub poll: Duration,
    /// How commit messages are written.
    pub style: Style,
}

/// The engine of one branch: ports, settings, and the memory between passes.
#[derive(Debug)]
pub struct Engine<R, M, C, K> {
    /// The branch.
    pub repository: R,
    /// The metrics server.
    pub metrics: M,
    /// The cluster, or its absence.
    pub cluster: C,
    /// The clock.
    pub clock: K,
    settings: Settings,
    share: Share,
    memory: Memory,
    only_plans: bool,
}

/// How one attempt at a pass ended.
enum Attempt {
    Done(Pass),
    LostRace,
}

impl<R: Repository, M: Metrics, C: Cluster, K: Clock> Engine<R, M, C, K> {
    /// An engine that remembers nothing yet.
    pub fn new(repository: R, metrics: M, cluster: C, clock: K, settings: Settings) -> Self {
        Self {
            repository,
            metrics,
            cluster,
            clock,
            settings,
            share: Share::WHOLE,
            memory: Memory::default(),
            only_plans: false,
        }
    }

    /// Remembers parsed files where others do, too.
    pub fn sharing(mut self, parsed: ParseCache) -> Self {
        self.memory.parsed = parsed;
        self
    }

    /// The memory of parsed files.
    pub fn parsed(&self) -> &ParseCache {
        &self.memory.parsed
    }

    /// The same engine for a share of the branch: others work on the rest.
    #[must_use]
    pub fn sharing_with_others(mut self, share: Share) -> Self {
        self.share = share;
        self
    }

    /// The same engine in plan mode: it says what it would commit, and never pushes.
    #[must_use]
    pub fn only_planning(mut self) -> Self {
        self.only_plans = true;
        self
    }

    /// The settings of the loop.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many races for the branch were lost since the start.
    pub fn races(&self) -> u64 {
        self.memory.races()
    }

    /// One pass. Never fails: what went wrong is in the report, canary by canary.
    pub async fn pass(&mut self) -> Pass {
        let now = self.now();
        for _ in 0..MAX_RACES {
            // On the heap: an attempt holds all that a pass awaits.
            match Box::pin(self.attempt(now)).await {
                Ok(Attempt::Done(pass)) => return pass,
                Ok(Attempt::LostRace) => self.memory.races += 1,
                Err(error) => return self.unreachable(&error, now).await,
            }
        }
        let words = format!("{MAX_RACES} pushes in a row lost the race for the branch");
        self.unreachable(&RepositoryError::Unreachable(words), now)
            .await
    }

    /// Where every canary is and what the next pass would commit: no push, no apply. Without `asking` no metrics are
    /// asked either, for a look from Git alone.
    pub async fn outlook(&mut self, asking: bool) -> Result<Vec<Outlook>, RepositoryError> {
        let now = self.now();
        let (Some(head), blocked) = self.head().await? else {
            return Ok(Vec::new());
        };
        let view = self.view(&head).await?;
        let sightings = self.cluster.observe(&view.looked_for(), now).await;
        let sightings = sightings.as_ref();
        self.memory.clock = (!asking).then_some(ClockCheck::NotAsked);
        if asking {
            self.judge(&view, sightings, now).await;
        }
        let mut plans = self.decide(&view, sightings, now).await?;
        if let Some(on @ WaitingOn::HeadUnverified { .. }) = blocked {
            plans.iter_mut().for_each(|plan| plan.stand_still(&on));
        }
        Ok(report::outlook(&view.situations, plans))
    }

    async fn attempt(&mut self, now: Timestamp) -> Result<Attempt, RepositoryError> {
        self.memory.clock = None;
        let (head, blocked) = self.head().await?;
        let Some(head) = head else {
            return Ok(Attempt::Done(match blocked {
                Some(on) => self.nothing_in_force(&on, now).await,
                None => Pass::empty(now, self.settings.poll),
            }));
        };
        let view = self.view(&head).await?;
        if let Some(on) = blocked {
            return Ok(Attempt::Done(self.stand_still(&view, &on, now).await));
        }
        self.cluster.follow(view.tree(), now).await;
        let sightings = self.cluster.observe(&view.looked_for(), now).await;
        let sightings = sightings.as_ref();
        self.judge(&view, sightings, now).await;
        let mut plans = self.decide(&view, sightings, now).await?;
        match self.publish(&head, &mut plans, now).await? {
            Push::LostRace => return Ok(Attempt::LostRace),
            Push::Accepted(newest) if sightings.is_some() => {
                self.follow_ours(&newest, &view, now).await;
            }
            Push::Accepted(_) | Push::Nothing | Push::Refused => {}
        }
        let problems = self.apply(&plans, sightings, &view, now).await;
        let mut pass = report::pass(&head, plans, problems, &self.memory, &self.settings, now);
        if let Some(sightings) = sightings {
            pass.observe(sightings);
        }
        pass.mistakes.clone_from(&view.mistakes);
        pass.elsewhere.clone_from(&view.elsewhere);
        Ok(Attempt::Done(pass))
    }

    /// The clock in whole seconds: what is written to Git reads back as the same instant.
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        now.duration_trunc(chrono::Duration::seconds(1))
            .unwrap_or(now)
    }

    /// The commit in force, and why nothing may be built on it.
    async fn head(&mut self) -> Result<(Option<CommitId>, Option<WaitingOn>), RepositoryError> {
        let Head { commit, history } = self.repository.fetch().await?;
        let blocked = match (history, &commit) {
            (History::Forward, _) | (History::Rewritten { .. }, None) => None,
            (History::Rewritten { from }, Some(to)) => Some(WaitingOn::HistoryRewritten {
                from,
                to: to.clone(),
            }),
            (History::Unverified { head, why }, last_good) => Some(WaitingOn::HeadUnverified {
                head,
                last_good: last_good.clone(),
                why,
            }),
        };
        Ok((commit, blocked))
    }

    /// Nothing moves on the whole branch. What a bad head must not change is still kept in the cluster: the commit in force
    /// was verified, whoever pushed what on top of it.
    async fn stand_still(&mut self, view: &View, on: &WaitingOn, now: Timestamp) -> Pass {
        let mut problems = BTreeMap::new();
        if let WaitingOn::HeadUnverified { .. } = on {
            let sightings = self.cluster.observe(&view.looked_for(), now).await;
            let sightings = sightings.as_ref();
            let mut plans = plan::decide(view, sightings, &self.memory, &self.settings, now);
            plans.iter_mut().for_each(|plan| plan.stand_still(on));
            problems = self.apply(&plans, sightings, view, now).await;
        }
        report::blocked(view, on, problems, now, self.settings.poll)
    }

    /// The branch at `head`, read once for as long as it stays there.
    async fn view(&mut self, head: &CommitId) -> Result<Arc<View>, RepositoryError> {
        if let Some(view) = self.memory.view.as_ref().filter(|view| view.head == *head) {
            return Ok(Arc::clone(view));
        }
        let snapshot = self.repository.snapshot(head).await?;
        let mut reading = Reading::of(snapshot, &mut self.memory.parsed, self.share);
        let lineages = self.repository.lineage(head, &reading.watches()).await?;
        for (orphan, commit) in reading.removed(&lineages) {
            self.recall(&orphan, commit).await?;
            reading.recall(&orphan, &lineages, &self.memory.recalled);
        }
        let before = self.memory.view.as_deref();
        let view = reading.view(head, &lineages, before, &self.memory.renderings);
        Ok(self.memory.read(view))
    }

    /// Keeps what the spec of a removed canary said in this commit of ours, if it was still there.
    async fn recall(&mut self, orphan: &Orphan, commit: CommitId) -> Result<(), RepositoryError> {
        let known = self.memory.recalled.get(&orphan.id);
        if known.is_none_or(|(from, _)| *from != commit) {
            let before = self.repository.snapshot(&commit).await?;
            if let Some(canary) = view::last_spec(orphan, &before, &self.memory.parsed) {
                let recalled = &mut self.memory.recalled;
                recalled.insert(orphan.id.clone(), (commit, Arc::new(canary)));
            }
        }
        Ok(())
    }

    /// Asks the metrics that are due, all canaries together, and keeps the verdicts.
    async fn judge(
        &mut self,
        view: &View,
        sightings: Option<&BTreeMap<CanaryId, Sighting>>,
        now: Timestamp,
    ) {
        let targets: Vec<Target> = view
            .situations
            .iter()
            .filter_map(|situation| plan::target(situation, sightings, &self.memory, now))
            .filter(|target| self.memory.is_due(target, now))
            .collect();
        if targets.is_empty() {
            return;
        }
        let queries = analysis::plan(&targets, &self.memory.ledger, now);
        let answers = self.metrics.ask(&queries).await;
        if !queries.is_empty() {
            self.memory.clock = Some(ClockCheck::of(&answers));
        }
        analysis::absorb(&mut self.memory.ledger, &targets, &queries, &answers);
        for target in &targets {
            let judgement = analysis::judge(target, &self.memory.ledger, now);
            self.memory.judged(target, judgement);
        }
    }

    /// The plans of every canary. The history is asked whose doing it is for those that are about to move, and for no other.
    async fn decide(
        &mut self,
        view: &View,
        sightings: Option<&BTreeMap<CanaryId, Sighting>>,
        now: Timestamp,
    ) -> Result<Vec<Plan>, RepositoryError> {
        let mut plans = plan::decide(view, sightings, &self.memory, &self.settings, now);
        let is_open = matches!(self.memory.clock, None | Some(ClockCheck::NothingKnown));
        if is_open && plan::begins_measuring(&plans) && !plan::is_urgent(&plans) {
            let answers = self.metrics.ask(&[analysis::clock_query(now)]).await;
            let check = ClockCheck::of(&answers);
            if let ClockCheck::Off(_) = check {
                self.memory.clock = Some(check);
                plans = plan::decide(view, sightings, &self.memory, &self.settings, now);
            }
        }
        let (mut asked, mut questions) = (Vec::new(), Vec::new());
        for (what, question) in authors::sought(view, &plans) {
            match question {
                Some(question) => {
                    asked.push(what);
                    questions.push(question);
                }
                None => authors::keep(&mut self.memory.authors, vec![what], vec![None]),
            }
        }
        if !questions.is_empty() {
            let answers = self.repository.authors(&view.head, questions).await?;
            authors::keep(&mut self.memory.authors, asked, answers);
        }
        let room = (&self.settings, now);
        plan::decide_again(&mut plans, view, sightings, &self.memory, room);
        Ok(plans)
    }

    /// After a push of ours HEAD is known without a fetch: promotions change people's files, too.
    async fn follow_ours(&mut self, newest: &CommitId, view: &View, now: Timestamp) {
        // What cannot be read now is read by the next pass.
        if let Ok(snapshot) = self.repository.snapshot(newest).await {
            let tree = Tree {
                commit: Some(newest.clone()),
                files: snapshot.files,
                skipped: snapshot.skipped,
                held_back: view.held_back.clone(),
            };
            self.cluster.follow(tree, now).await;
        }
    }

    async fn publish(
        &mut self,
        head: &CommitId,
        plans: &mut [Plan],
        now: Timestamp,
    ) -> Result<Push, RepositoryError> {
        if self.only_plans {
            batch::only_plan(plans, report::after(now, self.settings.poll));
            return Ok(Push::Nothing);
        }
        // Not in whole seconds: an interval may be shorter than one, and a person's commit must not wait for the next.
        let at = self.clock.now();
        let Some(batch) = batch::batch(plans, &self.memory, &self.settings, at) else {
            return Ok(Push::Nothing);
        };
        let outcome = self.repository.publish(head, batch.drafts.clone()).await?;
        self.memory.last_push = Some(at);
        match outcome {
            Published::LostRace => Ok(Push::LostRace),
            Published::Accepted(commits) => {
                let pushed = self.now();
                batch.accepted(plans, &commits, &mut self.memory, pushed);
                let newest = commits.last().unwrap_or(head).clone();
                Ok(Push::Accepted(newest))
            }
            Published::Refused(words) => {
                if batch.canaries.len() > 1 {
                    return self.publish_singly(head.clone(), plans, &batch, now).await;
                }
                batch.refused(plans, &words, &mut self.memory, now);
                Ok(Push::Refused)
            }
        }
    }

    /// A refused push of several canaries: each alone, so that one that a policy refuses stops nobody else.
    async fn publish_singly(
        &mut self,
        mut base: CommitId,
        plans: &mut [Plan],
        batch: &Batch,
        now: Timestamp,
    ) -> Result<Push, RepositoryError> {
        for single in batch.singly() {
            match self
                .repository
                .publish(&base, single.drafts.clone())
                .await?
            {
                Published::LostRace => return Ok(Push::LostRace),
                Published::Accepted(commits) => {
                    base = commits.last().cloned().unwrap_or(base);
                    let pushed = self.now();
                    single.accepted(plans, &commits, &mut self.memory, pushed);
                }
                Published::Refused(words) => single.refused(plans, &words, &mut self.memory, now),
            }
        }
        Ok(Push::Accepted(base))
    }

    /// Makes the cluster equal to what the remote accepted, canary by canary; one that fails stops no other.
    async fn apply(
        &mut self,
        plans: &[Plan],
        sightings: Option<&BTreeMap<CanaryId, Sighting>>,
        view: &View,
        now: Timestamp,
    ) -> BTreeMap<CanaryId, String> {
        let mut problems = BTreeMap::new();
        let Some(sightings) = sightings else {
            return problems;
        };
        let due = plans.iter().filter_map(|plan| {
            let drifted = sightings
                .get(&plan.id)
                .is_none_or(|sighting| sighting.drift.is_some());
            plan.to_apply(view, drifted)
        });
        for (id, result) in self.cluster.apply(due.collect(), now).await {
            if let Err(error) = result {
                problems.insert(id, error.to_string());
            }
        }
        problems
    }

    /// The remote cannot be used: nothing moves, the cluster is still kept equal to the last head that was seen.
    async fn unreachable(&mut self, error: &RepositoryError, now: Timestamp) -> Pass {
        let on = match error {
            RepositoryError::Signature(_) => WaitingOn::Signatures(error.to_string()),
            RepositoryError::Unreachable(_)
            | RepositoryError::Denied(_)
            | RepositoryError::Missing(_)
            | RepositoryError::Local(_) => WaitingOn::Remote(error.to_string()),
        };
        self.nothing_in_force(&on, now).await
    }

    /// No commit can be read: the cluster is kept equal to what was committed before.
    async fn nothing_in_force(&mut self, on: &WaitingOn, now: Timestamp) -> Pass {
        let known = self.memory.wanted();
        let looked_for: Vec<Wanted<'_>> = known
            .iter()
            .map(|manifests| Wanted {
                manifests,
                canary: None,
                receivers: Receivers::default(),
            })
            .collect();
        if let Some(sightings) = self.cluster.observe(&looked_for, now).await {
            let drifted = |manifests: &Manifests<Committed>| {
                sightings
                    .get(&manifests.canary)
                    .is_none_or(|sighting| sighting.drift.is_some())
            };
            let drifted = known.into_iter().filter(drifted).collect();
            // What could not be repaired now is seen again by the next pass.
            self.cluster.apply(drifted, now).await;
        }
        report::headless(on, &self.memory, now, self.settings.poll)
    }
}

/// How the push of a pass ended.
enum Push {
    Nothing,
    /// The branch is at this commit now.
    Accepted(CommitId),
    Refused,
    LostRace,
}
