//! Statuses and events of the `Canary` objects: what a pass found, shown where `kubectl` looks.
//!
//! Nothing is read back from here, and nothing waits for it: a status that cannot be written is tried again later
//! and later. Between passes a watch says which objects changed, so that a new one, or one that somebody edits, has its status
//! at once.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::timeout;
use tracing::warn;

use super::replicas::Settings;
use super::{StartError, Wiring};
use crate::applier::ledger::Repaired;
use crate::clock::{Clock, SystemClock};
use crate::cluster::{self, Canaries};
use crate::crd::CanaryStatus;
use crate::domain::{CanaryId, CommitId, Timestamp};
use crate::ports::Note;
use crate::reconcile::{CanaryReport, Pass};
use crate::status::{self, Subject};

/// Repairs that wait to be shown as events; more than these at once are only logged and counted.
const MOST_REPAIRS: usize = 256;
/// Calls that are made at the same time.
const HANDS: usize = 8;
/// Calls that wait for one hand. A status that finds no room is written after the next pass, an event is only logged.
const MOST_ERRANDS: usize = 2_048;
/// Longest time that calls let writes of objects go first.
const LONGEST_WAY: Duration = Duration::from_secs(1);
/// Longest time until a status that could not be written is tried again, in seconds.
const LONGEST_PAUSE: i64 = 60;
/// For how long a commit waits for what the cluster makes of it, in seconds: usually one status then says both.
const LONGEST_WAIT: i64 = 5;
/// Changes of objects that come this close together are looked at together, in milliseconds.
const TOGETHER: i64 = 100;

/// Shared by all loops of a process.
#[derive(Clone)]
pub(super) struct Show {
    shown: Arc<Mutex<Shown>>,
    repairs: mpsc::Sender<Repaired>,
    writers: Arc<Writers>,
}

/// Who writes objects, by repository. What they write moves traffic, and what is shown of it can wait a moment.
#[derive(Default)]
struct Writers(std::sync::Mutex<BTreeMap<String, watch::Receiver<bool>>>);

impl Writers {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, watch::Receiver<bool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_somebody_writing(&self) -> bool {
        // What somebody said who is gone by now does not count.
        let is_writing =
            |writer: &watch::Receiver<bool>| writer.has_changed().is_ok() && *writer.borrow();
        self.all().values().any(is_writing)
    }

    /// Ready when nobody writes, but in a while at the latest. Who waited for so long, `is_late`, is kept no more until the
    /// writing has paused: one that hardly ends must not keep all from being shown, one call after another.
    async fn give_way(&self, is_late: &mut bool) {
        if !self.is_somebody_writing() {
            *is_late = false;
            return;
        }
        if *is_late {
            return;
        }
        let writers: Vec<_> = self.all().values().cloned().collect();
        let done = async {
            for mut writer in writers {
                // Whoever is gone does not write.
                writer.wait_for(|is_writing| !is_writing).await.ok();
            }
        };
        *is_late = timeout(LONGEST_WAY, done).await.is_err();
    }
}

/// A call to be made, by the one hand that makes all those about a canary, so that they stay in order.
struct Errand {
    canary: CanaryId,
    what: What,
}

/// What an errand is about.
enum What {
    /// The status that is the newest when its turn comes.
    Status,
    /// An event.
    Event(cluster::Call),
}

/// Statuses that wait for their hands: a newer one takes the place of one that nobody saw yet.
#[derive(Clone, Default)]
struct Waiting(Arc<std::sync::Mutex<BTreeMap<CanaryId, cluster::Call>>>);

impl Waiting {
    fn all(&self) -> MutexGuard<'_, BTreeMap<CanaryId, cluster::Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Shown {
    canaries: Canaries,
    hands: Vec<mpsc::Sender<Errand>>,
    waiting: Waiting,
    is_settled: bool,
    /// What each canary's status was derived from last, by the repository that it comes from.
    known: BTreeMap<CanaryId, Box<Known>>,
    /// Repositories that have been read, and what others work on there; until all were, a canary may yet be found in one.
    read: BTreeMap<String, Read>,
    repositories: usize,
    /// Labels of what each repository applies.
    owners: BTreeMap<String, String>,
    /// Repositories over which a pass is under way.
    passing: BTreeSet<String>,
    /// Canaries whose manifest changed in such a pass: it says what comes of that.
    held: BTreeSet<CanaryId>,
    /// Clashes of names that were told, with the repository that has to give way.
    clashes: BTreeSet<(CanaryId, String)>,
}

/// A repository, or a share of one, that was read.
struct Read {
    repository: String,
    /// Its canaries that others work on.
    elsewhere: Arc<BTreeSet<CanaryId>>,
}

/// What a status was derived from; while it stays the same there is nothing to do.
struct Known {
    repository: String,
    report: CanaryReport,
    head: Option<CommitId>,
    version: Option<String>,
    /// When it was committed, while a pass is yet to show it together with what the cluster makes of it.
    waits: Option<Timestamp>,
    /// How often writing it failed in a row, and when it is tried again.
    failed: Option<(u32, Timestamp)>,
}

impl Show {
    /// Starts to watch the objects of the cluster that the wirings name; `None` without one.
    pub(super) async fn start(
        wirings: &[Wiring],
        replicas: Option<&Settings>,
    ) -> Result<Option<Self>, StartError> {
        let Some(settings) = wirings.iter().find_map(|wiring| wiring.cluster.as_ref()) else {
            return Ok(None);
        };
        // With Serin's own account, whatever repositories are applied as.
        let client = cluster::client_of(&settings.access, settings.deadline).await?;
        let me = replicas.map_or("serin", |replicas| replicas.identity.as_str());
        let (canaries, watching) = Canaries::watch(client, me, settings.deadline);
        tokio::spawn(watching);
        let news = canaries.news();
        let names: BTreeSet<&str> = wirings
            .iter()
            .map(|wiring| wiring.repository.as_str())
            .collect();
        let owners = wirings.iter().filter_map(|wiring| {
            let cluster = wiring.cluster.as_ref()?;
            Some((wiring.name.clone(), cluster.policy.owner.clone()))
        });
        let (hands, errands): (Vec<_>, Vec<_>) =
            (0..HANDS).map(|_| mpsc::channel(MOST_ERRANDS)).unzip();
        let waiting = Waiting::default();
        let shown = Arc::new(Mutex::new(Shown {
            canaries,
            hands,
            waiting: waiting.clone(),
            is_settled: false,
            known: BTreeMap::new(),
            read: BTreeMap::new(),
            repositories: names.len(),
            owners: owners.collect(),
            passing: BTreeSet::new(),
            held: BTreeSet::new(),
            clashes: BTreeSet::new(),
        }));
        let writers = Arc::new(Writers::default());
        for errands in errands {
            let (shown, waiting) = (Arc::clone(&shown), waiting.clone());
            tokio::spawn(run(errands, shown, waiting, Arc::clone(&writers)));
        }
        let refreshed = Arc::clone(&shown);
        tokio::spawn(async move {
            loop {
                news.come().await;
                let together = SystemClock.now() + TimeDelta::milliseconds(TOGETHER);
                SystemClock.sleep_until(together).await;
                let now = SystemClock.now();
                refreshed.lock().await.refresh(&news.take(), now);
            }
        });
        let (repairs, mut mended) = mpsc::channel(MOST_REPAIRS);
        let told = Arc::clone(&shown);
        tokio::spawn(async move {
            while let Some(repaired) = mended.recv().await {
                let now = SystemClock.now();
                told.lock().await.repaired(&repaired, now);
            }
        });
        Ok(Some(Self {
            shown,
            repairs,
            writers,
        }))
    }

    /// From now on calls let those of this writer go first.
    pub(super) fn gives_way(&self, name: &str, writing: watch::Receiver<bool>) {
        self.writers.all().insert(name.to_owned(), writing);
    }

    /// Whoever repairs says so here.
    pub(super) fn repairs(&self) -> mpsc::Sender<Repaired> {
        self.repairs.clone()
    }

    /// Somebody else works on this one now: what was known of it says nothing any more.
    pub(super) async fn forget(&self, name: &str) {
        let mut shown = self.shown.lock().await;
        shown.passing.remove(name);
        if shown.read.remove(name).is_some() {
            shown.known.retain(|_, known| known.repository != name);
        }
    }

    /// A pass over a repository begins; [`Show::pass`] ends it.
    pub(super) async fn begins(&self, name: &str) {
        self.shown.lock().await.passing.insert(name.to_owned());
    }

    /// Shows what a pass over a repository found.
    pub(super) async fn pass(&self, wiring: &Wiring, pass: &Pass, now: Timestamp) {
        let repository = wiring.name.as_str();
        let mut shown = self.shown.lock().await;
        if !shown.is_settled {
            // What was shown before a restart is not said again.
            shown.canaries.settle().await;
            shown.is_settled = true;
        }
        for report in &pass.canaries {
            shown.report(repository, pass.head.as_ref(), report, now);
        }
        if pass.head.is_some() {
            let present: BTreeSet<&CanaryId> =
                pass.canaries.iter().map(|report| &report.id).collect();
            let is_gone = |id: &CanaryId, known: &mut Box<Known>| {
                known.repository == repository && !present.contains(id)
            };
            let gone = shown.known.extract_if(.., is_gone);
            let gone: Vec<CanaryId> = gone.map(|(id, _)| id).collect();
            // What moved to another share of the same repository is not gone.
            for id in gone.iter().filter(|id| !pass.elsewhere.contains(*id)) {
                shown.stranger(id, now);
            }
            let read = Read {
                repository: wiring.repository.clone(),
                elsewhere: Arc::clone(&pass.elsewhere),
            };
            if shown.read.insert(repository.to_owned(), read).is_none() {
                let all = shown.canaries.ids();
                shown.strangers(&all, now);
            }
        }
        shown.passing.remove(repository);
        let held = std::mem::take(&mut shown.held);
        shown.refresh(&held, now);
    }
}

impl Shown {
    fn report(
        &mut self,
        repository: &str,
        head: Option<&CommitId>,
        report: &CanaryReport,
        now: Timestamp,
    ) {
        if let Some(other) = self.holder(repository, &report.id) {
            return self.clash(&report.id, &other, repository, now);
        }
        let before = self.known.get(&report.id);
        let is_first = before.is_none();
        let committed = before.and_then(|known| known.waits);
        let notes = status::notes(before.map(|known| &known.report), report);
        let waits = waits(committed, report, &notes, now);
        for note in notes {
            if !(is_first && self.said(&note)) {
                self.note(&note, now);
            }
        }
        let version = self.canaries.version(&report.id);
        let failed = self.known.get(&report.id).and_then(|known| known.failed);
        let is_known = self.known.get(&report.id).is_some_and(|known| {
            let waits = failed.is_some_and(|(_, retry_at)| now < retry_at);
            let is_shown = known.version == version && failed.is_none();
            status::is_same_report(&known.report, report) && (is_shown || waits)
        });
        if is_known {
            return;
        }
        let known = Known {
            repository: repository.to_owned(),
            report: report.clone(),
            head: head.cloned(),
            version: None,
            waits,
            failed,
        };
        self.known.insert(report.id.clone(), Box::new(known));
        if waits.is_none() {
            self.show(&report.id, now);
        }
    }

    /// The repository that a canary of this name belongs to, when it is not this one.
    fn holder(&self, repository: &str, id: &CanaryId) -> Option<String> {
        let ours = self.owners.get(repository);
        match self.canaries.owner(id) {
            Some(owner) if Some(&owner) == ours => None,
            Some(owner) => {
                let mut others = self.owners.iter();
                let other = others.find(|(_, other)| **other == owner);
                other.map(|(name, _)| name.clone())
            }
            None => {
                let known = self.known.get(id).map(|known| known.repository.clone());
                known.filter(|known| known != repository)
            }
        }
    }

    /// Says once that a canary's name is taken.
    fn clash(&mut self, id: &CanaryId, other: &str, repository: &str, now: Timestamp) {
        let known = self.known.get(id);
        if known.is_some_and(|known| known.repository == repository) {
            self.known.remove(id);
        }
        if self.clashes.insert((id.clone(), repository.to_owned())) {
            warn!(canary = %id, repository = %other, "is in another repository as well: give one of them another name");
            let note = status::of_clash(id, other, repository);
            self.note(&note, now);
        }
    }

    /// Whether the object shows already what a note says, from before a restart.
    fn said(&self, note: &Note) -> bool {
        let shown = self.canaries.shown(&note.canary);
        let status = shown.and_then(|shown| shown.status);
        let mut conditions = status.into_iter().flat_map(|status| status.conditions);
        note.action != "Commit" && conditions.any(|condition| condition.reason == note.reason)
    }

    fn note(&self, note: &Note, now: Timestamp) {
        if let Some(call) = self.canaries.noting(note, now) {
            self.tell(&note.canary, call);
        }
    }

    /// Hands an event over; what finds no room is only logged.
    fn tell(&self, canary: &CanaryId, call: cluster::Call) {
        if !self.send(canary, What::Event(call)) {
            warn!(%canary, "too many events at once: one is not shown");
        }
    }

    /// Hands a status over. The answer is whether there was room.
    fn put(&self, canary: &CanaryId, call: cluster::Call) -> bool {
        let is_waiting = self.waiting.all().insert(canary.clone(), call).is_some();
        let is_sent = is_waiting || self.send(canary, What::Status);
        if !is_sent {
            self.waiting.all().remove(canary);
        }
        is_sent
    }

    /// Hands an errand over; nothing waits for it. The answer is whether there was room.
    fn send(&self, canary: &CanaryId, what: What) -> bool {
        let errand = Errand {
            canary: canary.clone(),
            what,
        };
        let mut hasher = std::hash::DefaultHasher::new();
        canary.hash(&mut hasher);
        let index = usize::try_from(hasher.finish()).unwrap_or_default() % HANDS;
        let sent = self.hands.get(index).map(|hand| hand.try_send(errand));
        matches!(sent, Some(Ok(())))
    }

    fn repaired(&self, repaired: &Repaired, now: Timestamp) {
        let note = status::of_repair(repaired);
        let drift = &repaired.drift;
        if drift.canary.is_some() {
            return self.note(&note, now);
        }
        let object = (
            drift.api_version.as_str(),
            &drift.object,
            repaired.uid.as_str(),
        );
        let call = self.canaries.noting_on(object, &note, now);
        self.tell(&note.canary, call);
    }

    /// Objects changed: those that are known get the status that belongs to them, and others that of strangers.
    fn refresh(&mut self, changed: &BTreeSet<CanaryId>, now: Timestamp) {
        let mut others = Vec::new();
        for id in changed {
            match self.known.get(id) {
                Some(known)
                    if known.waits.is_some() || known.version == self.canaries.version(id) => {}
                Some(known) if self.passing.contains(&known.repository) && self.is_edited(id) => {
                    self.held.insert(id.clone());
                }
                Some(_) => self.show(id, now),
                None => others.push(id.clone()),
            }
        }
        self.strangers(&others, now);
    }

    /// Whether the manifest of an object changed since its status was written.
    fn is_edited(&self, id: &CanaryId) -> bool {
        self.canaries.shown(id).is_some_and(|shown| {
            let status = shown.status.as_ref();
            status.is_some_and(|status| status.observed_generation != shown.generation)
        })
    }

    /// Writes the status of a known canary, where it differs.
    fn show(&mut self, id: &CanaryId, now: Timestamp) {
        let Some(known) = self.known.get(id) else {
            return;
        };
        let shown = self.canaries.shown(id);
        let previous = shown.as_ref().and_then(|shown| shown.status.as_ref());
        let subject = Subject {
            report: &known.report,
            head: known.head.as_ref(),
            observed_weight: known.report.observed.map(|weight| weight.percent()),
            generation: shown.as_ref().and_then(|shown| shown.generation),
            now,
        };
        let next = status::derive(previous, &subject);
        let is_sent = self.write(id, &next, now);
        let version = self.canaries.version(id).filter(|_| is_sent);
        if let Some(known) = self.known.get_mut(id) {
            known.version = version;
        }
    }

    /// Writes a status where it differs; the answer is whether that is on its way or done.
    fn write(&mut self, id: &CanaryId, next: &CanaryStatus, now: Timestamp) -> bool {
        let in_substance = status::differs_in_substance;
        match self.canaries.writing(id, next, in_substance, now) {
            Some(call) => self.put(id, call),
            None => true,
        }
    }

    /// Objects that no repository has: somebody made them by hand, and nothing will ever come of them. Those that another
    /// Serin of the same cluster applies or shows are its own.
    fn strangers(&mut self, ids: &[CanaryId], now: Timestamp) {
        let read: BTreeSet<&str> = self
            .read
            .values()
            .map(|read| read.repository.as_str())
            .collect();
        if read.len() < self.repositories {
            return;
        }
        for id in ids {
            let is_elsewhere = self.read.values().any(|read| read.elsewhere.contains(id));
            let is_owned = self.canaries.owner(id).is_some();
            if self.known.contains_key(id) || is_elsewhere || is_owned {
                continue;
            }
            let shown = self.canaries.shown(id);
            let status = shown.and_then(|shown| shown.status);
            if status.as_ref().is_none_or(status::is_not_in_git) {
                self.stranger(id, now);
            }
        }
    }

    fn stranger(&mut self, id: &CanaryId, now: Timestamp) {
        if let Some(shown) = self.canaries.shown(id) {
            let next = status::not_in_git(shown.status.as_ref(), shown.generation, now);
            self.write(id, &next, now);
        }
    }
}

/// Since when a report waits for what the cluster makes of a commit: not for long, and not when there is something to say.
fn waits(
    committed: Option<Timestamp>,
    report: &CanaryReport,
    notes: &[Note],
    now: Timestamp,
) -> Option<Timestamp> {
    let since = match report.moves.is_empty() {
        true => committed?,
        false => return report.observed.is_none().then_some(now),
    };
    let is_short = now - since < TimeDelta::seconds(LONGEST_WAIT);
    (report.observed.is_none() && notes.is_empty() && is_short).then_some(since)
}

/// Makes the calls of one hand, one after the other.
async fn run(
    mut errands: mpsc::Receiver<Errand>,
    shown: Arc<Mutex<Shown>>,
    waiting: Waiting,
    writers: Arc<Writers>,
) {
    let mut is_late = false;
    while let Some(Errand { canary, what }) = errands.recv().await {
        writers.give_way(&mut is_late).await;
        let canary = &canary;
        let is_status = matches!(what, What::Status);
        let call = match what {
            What::Status => waiting.all().remove(canary),
            What::Event(call) => Some(call),
        };
        let Some(call) = call else { continue };
        let Err(words) = call.await else {
            if is_status && let Some(known) = shown.lock().await.known.get_mut(canary) {
                known.failed = None;
            }
            continue;
        };
        if is_status {
            warn!(%canary, "failed to write the status: {words}");
            if let Some(known) = shown.lock().await.known.get_mut(canary) {
                let tries = known.failed.map_or(1, |(tries, _)| tries.saturating_add(1));
                let pause = LONGEST_PAUSE.min(1 << tries.min(16));
                let retry_at = SystemClock.now() + TimeDelta::seconds(pause);
                known.failed = Some((tries, retry_at));
            }
        } else {
            warn!(%canary, "failed to show an event: {words}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Whether a call is made at once.
    fn goes(writers: &Writers, is_late: &mut bool) -> bool {
        let way = pin!(writers.give_way(is_late));
        way.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[tokio::test]
    async fn what_is_shown_lets_writes_go_first_and_not_for_ever() {
        let (writing, receiver) = watch::channel(false);
        let writers = Writers::default();
        writers.all().insert("apps".to_owned(), receiver);
        let mut is_late = false;
        assert!(goes(&writers, &mut is_late));
        writing.send_replace(true);
        assert!(
            !goes(&writers, &mut is_late),
            "shown while objects were written"
        );
        is_late = true;
        assert!(
            goes(&writers, &mut is_late) && is_late,
            "kept a second time"
        );
        writing.send_replace(false);
        assert!(goes(&writers, &mut is_late) && !is_late);
        writing.send_replace(true);
        assert!(!goes(&writers, &mut is_late));
        drop(writing);
        assert!(goes(&writers, &mut is_late), "kept by somebody who is gone");
    }
}
