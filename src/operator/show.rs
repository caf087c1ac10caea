//! Statuses and events of the `Canary` objects: what a pass found, shown where `kubectl` looks.
//!
//! Nothing is read back from here, and nothing waits for it: a status that cannot be written is written after the next
//! pass.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::Mutex;
use tracing::{debug, warn};

use super::replicas::Settings;
use super::{StartError, Wiring};
use crate::cluster::{self, Canaries};
use crate::crd::CanaryStatus;
use crate::domain::{CanaryId, Timestamp};
use crate::reconcile::{CanaryReport, Pass};
use crate::status::{self, Subject};

/// Shared by all loops of a process.
#[derive(Clone)]
pub(super) struct Show(Arc<Mutex<Shown>>);

struct Shown {
    canaries: Canaries,
    /// What each canary's status was derived from last, by the repository that it comes from.
    known: BTreeMap<CanaryId, Known>,
    /// Repositories that have been read, and what others work on there; until all were, a canary may yet be found in one.
    read: BTreeMap<String, Read>,
    repositories: usize,
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
    version: Option<String>,
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
        let names: BTreeSet<&str> = wirings
            .iter()
            .map(|wiring| wiring.repository.as_str())
            .collect();
        let client = cluster::client_of(&settings.access, settings.deadline).await?;
        let me = replicas.map_or("serin", |replicas| replicas.identity.as_str());
        let (canaries, watching) = Canaries::watch(client, me, settings.deadline);
        tokio::spawn(watching);
        Ok(Some(Self(Arc::new(Mutex::new(Shown {
            canaries,
            known: BTreeMap::new(),
            read: BTreeMap::new(),
            repositories: names.len(),
        })))))
    }

    /// Somebody else works on this one now: what was known of it says nothing any more.
    pub(super) async fn forget(&self, name: &str) {
        let mut shown = self.0.lock().await;
        if shown.read.remove(name).is_some() {
            shown.known.retain(|_, known| known.repository != name);
        }
    }

    /// Shows what a pass over a repository found.
    pub(super) async fn pass(&self, wiring: &Wiring, pass: &Pass, now: Timestamp) {
        let repository = wiring.name.as_str();
        let mut shown = self.0.lock().await;
        for report in &pass.canaries {
            shown.report(repository, pass, report, now).await;
        }
        if pass.head.is_some() {
            let read = Read {
                repository: wiring.repository.clone(),
                elsewhere: Arc::clone(&pass.elsewhere),
            };
            shown.read.insert(repository.to_owned(), read);
            let present: BTreeSet<&CanaryId> =
                pass.canaries.iter().map(|report| &report.id).collect();
            shown
                .known
                .retain(|id, known| known.repository != repository || present.contains(id));
            shown.strangers(now).await;
        }
    }
}

impl Shown {
    async fn report(
        &mut self,
        repository: &str,
        pass: &Pass,
        report: &CanaryReport,
        now: Timestamp,
    ) {
        let before = self.known.get(&report.id);
        if let Some(other) = before.filter(|known| known.repository != repository) {
            // Whoever was first keeps it: the objects in the cluster are theirs.
            warn!(canary = %report.id, repository = %other.repository, "is in another repository as well: give one of them another name");
            return;
        }
        for note in status::notes(before.map(|known| &known.report), report) {
            if let Err(words) = self.canaries.note(&note).await {
                debug!(canary = %report.id, "failed to show an event: {words}");
            }
        }
        let version = self.canaries.version(&report.id);
        let is_known = before.is_some_and(|known| {
            known.version == version && status::is_same_report(&known.report, report)
        });
        // What was committed just now is shown together with what the cluster makes of it: the next pass is near.
        let waits = !report.moves.is_empty() && report.observed.is_none();
        if is_known || waits {
            if waits {
                self.know(repository, report, None);
            }
            return;
        }
        let shown = self.canaries.shown(&report.id);
        let previous = shown.as_ref().and_then(|shown| shown.status.as_ref());
        let subject = Subject {
            report,
            head: pass.head.as_ref(),
            observed_weight: report.observed.map(|weight| weight.percent()),
            generation: shown.as_ref().and_then(|shown| shown.generation),
            now,
        };
        let next = status::derive(previous, &subject);
        self.write(&report.id, &next, now).await;
        let version = self.canaries.version(&report.id);
        self.know(repository, report, version);
    }

    fn know(&mut self, repository: &str, report: &CanaryReport, version: Option<String>) {
        let known = Known {
            repository: repository.to_owned(),
            report: report.clone(),
            version,
        };
        self.known.insert(report.id.clone(), known);
    }

    async fn write(&mut self, id: &CanaryId, next: &CanaryStatus, now: Timestamp) {
        let in_substance = status::differs_in_substance;
        match self.canaries.write(id, next, in_substance, now).await {
            Ok(_) => {}
            Err(words) => warn!(canary = %id, "failed to write the status: {words}"),
        }
    }

    /// Objects that no repository has: somebody made them by hand, and nothing will ever come of them.
    async fn strangers(&mut self, now: Timestamp) {
        let read: BTreeSet<&str> = self
            .read
            .values()
            .map(|read| read.repository.as_str())
            .collect();
        if read.len() < self.repositories {
            return;
        }
        let strangers: Vec<CanaryId> = self
            .canaries
            .ids()
            .into_iter()
            .filter(|id| !self.known.contains_key(id))
            .filter(|id| !self.read.values().any(|read| read.elsewhere.contains(id)))
            .collect();
        for id in strangers {
            let Some(shown) = self.canaries.shown(&id) else {
                continue;
            };
            let next = status::not_in_git(shown.status.as_ref(), shown.generation, now);
            self.write(&id, &next, now).await;
        }
    }
}
