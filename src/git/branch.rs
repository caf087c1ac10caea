//! The branch: what the remote says, our bare copy of it, and what was seen before.

mod push;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::authors;
use super::command::Git;
use super::copy::{Copy, MARKER, SEEN, blocking, clear, inspect, set_reference};
use super::lineage::{self, Memo};
use super::locks;
use super::objects::{self, is_ancestor, local_io};
use super::partial::{self, Extent};
use super::porcelain;
use super::settings::Settings;
use super::sign::Signer;
use super::snapshot::{self, Cache, Reading};
use super::verify::{Unverified, Verifier};
use super::write::Written;
use crate::domain::{CanaryId, CommitId};
use crate::ports::{
    Draft, ForeignCommit, Head, History, Lineage, Published, Question, Repository, RepositoryError,
    Snapshot, Watch,
};

/// The first fetch brings the whole history, so it may take this many deadlines.
const FIRST_FETCH: u32 = 20;
/// Heads between two looks at whether the copy should be packed.
const HEADS_PER_TIDYING: u32 = 500;
/// The same for the packs that each fetch of a copy without large files leaves.
const HEADS_PER_JOINING: u32 = 50;

/// One branch of one repository.
pub struct Branch {
    settings: Settings,
    git: Arc<Git>,
    signer: Option<Arc<Mutex<Signer>>>,
    verifier: Option<Verifier>,
    /// Name of the branch, as far as known.
    name: Option<String>,
    /// The remote head whose objects we have.
    tracked: Option<CommitId>,
    seen: Option<CommitId>,
    /// Whether [`SEEN`] says the same.
    seen_is_stored: bool,
    extent: Extent,
    /// Set when a copy without large files could not be completed: the next one gets them, too.
    needs_all: bool,
    cache: Cache,
    memo: Memo,
    /// Set when our copy could not be read at a head; it is recreated once for that head.
    damaged: Option<CommitId>,
    recreated_for: Option<CommitId>,
    heads: u32,
}

// === impl Branch ===

impl fmt::Debug for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Branch")
            .field("settings", &self.settings)
            .field("name", &self.name)
            .field("tracked", &self.tracked)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl Branch {
    /// Opens our copy, or makes an empty one. Asks the remote nothing yet.
    pub async fn open(settings: Settings) -> Result<Self, RepositoryError> {
        if let Some(name) = &settings.branch {
            check_name(name)?;
        }
        let here = std::path::absolute(".").map_err(|e| local_io(Path::new("."), &e))?;
        let settings = settings.absolute_from(&here);
        let local = settings.local.clone();
        let git = Arc::new(Git::new(
            local.clone(),
            &settings.remote,
            &settings.environment,
        ));
        let signer = settings.sign.clone().map(|sign| Signer::new(sign, &local));
        let verifier = settings
            .verify
            .clone()
            .map(|verify| Verifier::new(verify, Arc::clone(&git), &local, settings.deadline));
        let mut branch = Self {
            git,
            signer: signer.map(|signer| Arc::new(Mutex::new(signer))),
            verifier,
            name: settings.branch.clone(),
            tracked: None,
            seen: None,
            seen_is_stored: false,
            extent: Extent::Whole,
            needs_all: false,
            cache: Cache::default(),
            memo: Memo::default(),
            damaged: None,
            recreated_for: None,
            heads: 0,
            settings,
        };
        branch.prepare().await?;
        Ok(branch)
    }

    async fn prepare(&mut self) -> Result<(), RepositoryError> {
        let (folder, identity) = (self.settings.local.clone(), self.settings.identity());
        match blocking(move || inspect(&folder, &identity)).await? {
            Copy::Fresh => self.create().await,
            Copy::Damaged { seen } => {
                self.seen = seen;
                self.recreate().await
            }
            Copy::Sound {
                tracked,
                seen,
                verified,
            } => {
                if let Some(verifier) = &mut self.verifier {
                    verifier.remembered(verified);
                }
                self.tracked = tracked;
                self.seen = seen;
                self.seen_is_stored = false;
                let folder = self.settings.local.clone();
                self.extent = blocking(move || Ok(Extent::of(&folder))).await?;
                Ok(())
            }
        }
    }

    async fn create(&mut self) -> Result<(), RepositoryError> {
        let (folder, mut marker) = (self.settings.local.clone(), self.settings.identity());
        if let Some(seen) = &self.seen {
            // The commit itself may be gone for good, so no reference can hold it.
            marker.push_str(&format!("{seen}\n"));
        }
        blocking(move || {
            std::fs::create_dir_all(&folder)
                .and_then(|()| std::fs::write(folder.join(MARKER), marker))
                .map_err(|error| local_io(&folder, &error))
        })
        .await?;
        let arguments = [
            "init",
            "--quiet",
            "--bare",
            "--template=",
            "--object-format=sha1",
        ];
        self.on_the_copy(&arguments, Vec::new()).await
    }

    /// Runs `git` where only our copy is concerned.
    async fn on_the_copy(&self, arguments: &[&str], input: Vec<u8>) -> Result<(), RepositoryError> {
        let limit = self.settings.deadline;
        match self.git.run_with(arguments, input, limit).await {
            Ok(output) if output.success => Ok(()),
            Ok(output) => Err(RepositoryError::Local(self.complaint(&output))),
            Err(error) => Err(RepositoryError::Local(error.to_string())),
        }
    }

    /// Empties our copy. What was seen stays in mind, so that a rewritten history is noticed all the same.
    async fn recreate(&mut self) -> Result<(), RepositoryError> {
        let folder = self.settings.local.clone();
        blocking(move || clear(&folder).map_err(|error| local_io(&folder, &error))).await?;
        self.tracked = None;
        self.seen_is_stored = false;
        self.extent = Extent::Whole;
        self.cache = Cache::default();
        self.memo = Memo::default();
        self.create().await
    }

    /// Compares a head with the one seen before, and remembers it unless history was rewritten.
    async fn compare(&mut self, head: &CommitId) -> Result<History, RepositoryError> {
        if self.seen_is_stored && self.seen.as_ref() == Some(head) {
            return Ok(History::Forward);
        }
        let folder = self.settings.local.clone();
        let (seen, new) = (self.seen.clone(), head.clone());
        let accept = self.settings.accept_rewritten_history;
        let forward = blocking(move || {
            let repo = objects::open(&folder)?;
            let new = objects::object_id(&new)?;
            let forward = match &seen {
                Some(seen) => accept || is_ancestor(&repo, objects::object_id(seen)?, new)?,
                None => true,
            };
            if forward {
                set_reference(&repo, SEEN, new)?;
            }
            Ok(forward)
        })
        .await?;
        match (&self.seen, forward) {
            (Some(seen), false) => Ok(History::Rewritten { from: seen.clone() }),
            (_, _) => {
                self.seen = Some(head.clone());
                self.seen_is_stored = true;
                Ok(History::Forward)
            }
        }
    }

    /// Where the branch is, brought here and compared with what was seen.
    async fn head(&mut self) -> Result<Head, RepositoryError> {
        let Some(mut head) = self.look().await? else {
            let history = match &self.seen {
                Some(from) if !self.settings.accept_rewritten_history => {
                    History::Rewritten { from: from.clone() }
                }
                _ => History::Forward,
            };
            return Ok(Head {
                commit: None,
                history,
            });
        };
        if self.tracked.as_ref() != Some(&head) {
            head = self.bring().await?;
            self.tidy().await;
        }
        // A bad head is never one that was seen: who takes it back rewrites nothing.
        if let Some(verifier) = &mut self.verifier
            && let Some(Unverified { why, last_good }) = verifier.head(&head).await?
        {
            let history = History::Unverified { head, why };
            return Ok(Head {
                commit: last_good,
                history,
            });
        }
        let history = self.compare(&head).await?;
        Ok(Head {
            commit: Some(head),
            history,
        })
    }

    /// Our copy may be damaged: it is recreated at the next fetch, once for each head.
    fn suspect(&mut self) {
        if self.tracked.is_some() && self.recreated_for != self.tracked {
            self.damaged.clone_from(&self.tracked);
        }
    }

    /// Whether our copy is as it should be.
    async fn is_sound(&self) -> Result<bool, RepositoryError> {
        let (folder, identity) = (self.settings.local.clone(), self.settings.identity());
        let copy = blocking(move || inspect(&folder, &identity)).await?;
        Ok(matches!(copy, Copy::Sound { .. }))
    }

    /// Packs what has become many. Nothing depends on it, so failures are left to the next time.
    async fn tidy(&mut self) {
        self.heads += 1;
        let is_partial = matches!(self.extent, Extent::Partial { .. });
        if self.heads % HEADS_PER_TIDYING == 1 {
            // `git` would write all packs of a partial copy anew, however large, because of many small ones.
            let packs = format!("gc.autoPackLimit={}", if is_partial { 0 } else { 50 });
            let arguments = [
                "-c",
                "gc.auto=6700",
                "-c",
                &packs,
                "gc",
                "--auto",
                "--quiet",
            ];
            let _ = self.git.run(&arguments, self.settings.deadline).await;
        }
        if is_partial && self.heads % HEADS_PER_JOINING == 1 {
            let _ = self.join_packs().await;
        }
    }

    async fn join_packs(&self) -> Result<(), RepositoryError> {
        let folder = self.settings.local.clone();
        let Some(mut small) = blocking(move || partial::small_packs(&folder)).await? else {
            return Ok(());
        };
        let base = partial::joined(&self.settings.local);
        let base = base.to_string_lossy();
        let arguments = ["pack-objects", "--quiet", &base];
        let ids = std::mem::take(&mut small.ids);
        let packed = self.git.run_with(&arguments, ids, self.settings.deadline);
        let packed = packed.await.map_err(|error| self.no_output(&error))?;
        if !packed.success {
            return Err(RepositoryError::Local(self.complaint(&packed)));
        }
        let hash = String::from_utf8_lossy(&packed.stdout).trim().to_owned();
        let folder = self.settings.local.clone();
        blocking(move || small.replace(&folder, &hash)).await
    }

    async fn read(&mut self, at: &CommitId) -> Result<Reading, RepositoryError> {
        let (commit, below) = (at.clone(), self.settings.path.clone());
        let extent = self.extent.clone();
        self.reading(at, move |repo, cache, _| {
            let without = match &extent {
                Extent::Partial { without } => Some(without),
                Extent::Whole => None,
            };
            snapshot::read(repo, &commit, below.as_ref(), without, cache)
        })
        .await
    }

    /// Runs reading work on our copy with the caches; a copy that cannot be read is recreated at the next fetch.
    async fn reading<T: Send + 'static>(
        &mut self,
        at: &CommitId,
        work: impl FnOnce(&gix::Repository, &mut Cache, &mut Memo) -> Result<T, RepositoryError>
        + Send
        + 'static,
    ) -> Result<T, RepositoryError> {
        let folder = self.settings.local.clone();
        let mut cache = std::mem::take(&mut self.cache);
        let mut memo = std::mem::take(&mut self.memo);
        let result = blocking(move || {
            let answer = work(&objects::open(&folder)?, &mut cache, &mut memo)?;
            Ok((answer, cache, memo))
        })
        .await;
        match result {
            Ok((answer, cache, memo)) => {
                self.cache = cache;
                self.memo = memo;
                Ok(answer)
            }
            Err(error) => {
                if self.tracked.as_ref() == Some(at) {
                    self.suspect();
                }
                Err(error)
            }
        }
    }
}

impl Repository for Branch {
    #[tracing::instrument(name = "git.fetch", level = "debug", skip_all)]
    async fn fetch(&mut self) -> Result<Head, RepositoryError> {
        if let Some(head) = self.damaged.take() {
            self.recreate().await?;
            self.recreated_for = Some(head);
        }
        let folder = self.settings.local.clone();
        blocking(move || {
            locks::remove_stale(&folder);
            Ok(())
        })
        .await?;
        let fetched = self.head().await;
        // A full disk is no damage: there is nothing to gain by fetching all of it again.
        if let Err(RepositoryError::Local(words)) = &fetched
            && !porcelain::is_full(words)
        {
            self.suspect();
        }
        fetched
    }

    #[tracing::instrument(name = "git.snapshot", level = "debug", skip_all)]
    async fn snapshot(&mut self, at: &CommitId) -> Result<Snapshot, RepositoryError> {
        let lacking = match self.read(at).await? {
            Reading::Whole(snapshot) => return Ok(snapshot),
            Reading::Lacking(ids) => ids,
        };
        self.complete(at, lacking).await?;
        match self.read(at).await? {
            Reading::Whole(snapshot) => Ok(snapshot),
            Reading::Lacking(ids) => {
                self.suspect();
                Err(RepositoryError::Local(format!(
                    "{} files that were fetched are not there",
                    ids.len()
                )))
            }
        }
    }

    #[tracing::instrument(name = "git.lineage", level = "debug", skip_all)]
    async fn lineage(
        &mut self,
        at: &CommitId,
        watches: &[Watch],
    ) -> Result<BTreeMap<CanaryId, Lineage>, RepositoryError> {
        let (commit, watches) = (at.clone(), watches.to_vec());
        let us = self.settings.committer.email.clone();
        self.reading(at, move |repo, cache, memo| {
            lineage::lineage((repo, cache), &commit, &watches, &us, memo)
        })
        .await
    }

    #[tracing::instrument(name = "git.authors", level = "debug", skip_all)]
    async fn authors(
        &mut self,
        at: &CommitId,
        questions: Vec<Question>,
    ) -> Result<Vec<Option<ForeignCommit>>, RepositoryError> {
        let commit = at.clone();
        let us = self.settings.committer.email.clone();
        self.reading(at, move |repo, _, _| {
            authors::authors(repo, &commit, &questions, &us)
        })
        .await
    }

    /// A draft that changes nothing makes no commit: it has the id of the commit before it.
    #[tracing::instrument(name = "git.publish", level = "debug", skip_all, fields(drafts = drafts.len()))]
    async fn publish(
        &mut self,
        base: &CommitId,
        drafts: Vec<Draft>,
    ) -> Result<Published, RepositoryError> {
        if self
            .verifier
            .as_ref()
            .is_some_and(|verifier| !verifier.is_good(base))
        {
            let words = format!(
                "{} was not verified, so nothing is built on it",
                base.short()
            );
            return Err(RepositoryError::Signature(words));
        }
        let mut is_packed = false;
        let commits = match self.write(base, drafts).await? {
            Written::Commits { ids, pack } => {
                if let Some(pack) = pack {
                    is_packed = true;
                    self.on_the_copy(&["index-pack", "--stdin"], pack).await?;
                }
                ids
            }
            Written::Blocked(why) => return Ok(Published::Refused(why)),
        };
        match commits.last().cloned() {
            Some(last) if last != *base => {
                if let Some(verifier) = &mut self.verifier {
                    verifier.own(&last).await?;
                }
                self.push(base, commits, &last, is_packed).await
            }
            _ => Ok(Published::Accepted(commits)),
        }
    }
}

/// A name that `git` takes and that no argument is mistaken for.
fn check_name(name: &str) -> Result<(), RepositoryError> {
    let full = format!("refs/heads/{name}");
    if name.starts_with('-') || gix::validate::reference::name(full.as_str().into()).is_err() {
        return Err(RepositoryError::Missing(format!(
            "`{name}` is not the name of a branch"
        )));
    }
    Ok(())
}
