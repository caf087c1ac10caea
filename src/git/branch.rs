//! The branch: what the remote says, our bare copy of it, and what was seen before.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::authors;
use super::command::{Git, NoOutput, Output};
use super::copy::{
    Copy, MARKER, SEEN, TRACKED, blocking, clear, inspect, reference, set_reference,
};
use super::lineage::{self, Memo};
use super::locks;
use super::objects::{self, is_ancestor, local_io};
use super::porcelain::{self, Trouble};
use super::remote::NAME;
use super::settings::Settings;
use super::sign::Signer;
use super::snapshot::{self, Cache};
use super::verify::{Unverified, Verifier};
use super::write::{self, Written};
use crate::domain::{CanaryId, CommitId};
use crate::ports::{
    Draft, ForeignCommit, Head, History, Lineage, Published, Question, Repository, RepositoryError,
    Snapshot, Watch,
};

/// The first fetch brings the whole history, so it may take this many deadlines.
const FIRST_FETCH: u32 = 20;
/// Heads between two looks at whether the copy should be packed.
const HEADS_PER_TIDYING: u32 = 500;

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
        self.cache = Cache::default();
        self.memo = Memo::default();
        self.create().await
    }

    fn complaint(&self, output: &Output) -> String {
        self.settings
            .remote
            .scrub(&porcelain::complaint(&output.stderr))
    }

    fn failure(&self, output: &Output) -> RepositoryError {
        let words = format!("{}: {}", self.settings.remote, self.complaint(output));
        match porcelain::trouble(&output.stderr) {
            Trouble::Denied => RepositoryError::Denied(words),
            Trouble::Missing => RepositoryError::Missing(words),
            Trouble::Local => RepositoryError::Local(words),
            Trouble::Unreachable => RepositoryError::Unreachable(words),
        }
    }

    fn no_output(&self, error: &NoOutput) -> RepositoryError {
        match error {
            NoOutput::NotRun { .. } => RepositoryError::Local(error.to_string()),
            NoOutput::TimedOut { .. } => {
                RepositoryError::Unreachable(format!("{}: {error}", self.settings.remote))
            }
        }
    }

    /// Runs `git` against the remote.
    async fn request(
        &self,
        arguments: &[&str],
        limit: Duration,
    ) -> Result<Output, RepositoryError> {
        let output = self.git.run(arguments, limit).await;
        let output = output.map_err(|error| self.no_output(&error))?;
        if output.success {
            Ok(output)
        } else {
            Err(self.failure(&output))
        }
    }

    async fn advertised(&self, pattern: &str) -> Result<porcelain::Advertised, RepositoryError> {
        let arguments = ["ls-remote", "--quiet", "--symref", "--", NAME, pattern];
        let output = self.request(&arguments, self.settings.deadline).await?;
        Ok(porcelain::advertised(&output.stdout))
    }

    /// Where the branch is: one request, a second one only when there is no such branch.
    async fn look(&mut self) -> Result<Option<CommitId>, RepositoryError> {
        let head = match &self.settings.branch {
            Some(name) => {
                let full = format!("refs/heads/{name}");
                self.advertised(&full).await?.refs.get(&full).cloned()
            }
            None => {
                let answer = self.advertised("HEAD").await?;
                let head = answer.refs.get("HEAD").cloned();
                let target = answer.symbolic.get("HEAD");
                match target.and_then(|target| target.strip_prefix("refs/heads/")) {
                    Some(name) => {
                        check_name(name)?;
                        self.name = Some(name.to_owned());
                    }
                    None if head.is_some() => {
                        return Err(self.missing("its HEAD names no branch; say which one to use"));
                    }
                    None => {}
                }
                head
            }
        };
        if head.is_none() && !self.advertised("refs/heads/*").await?.refs.is_empty() {
            return Err(match &self.settings.branch {
                Some(name) => self.missing(&format!("there is no branch `{name}`")),
                None => self.missing("its HEAD names a branch that does not exist"),
            });
        }
        Ok(head.map(CommitId::new))
    }

    fn missing(&self, what: &str) -> RepositoryError {
        RepositoryError::Missing(format!("{}: {what}", self.settings.remote))
    }

    /// Brings the branch; the answer is where it is by then.
    async fn bring(&mut self) -> Result<CommitId, RepositoryError> {
        let Some(name) = &self.name else {
            return Err(self.missing("the branch is not known yet"));
        };
        let refspec = format!("+refs/heads/{name}:{TRACKED}");
        let arguments = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-recurse-submodules",
            "--",
            NAME,
            &refspec,
        ];
        let limit = match self.tracked {
            Some(_) => self.settings.deadline,
            None => self.settings.deadline * FIRST_FETCH,
        };
        let fetched = self.request(&arguments, limit).await;
        let folder = self.settings.local.clone();
        match fetched {
            Ok(_) => {
                let head = blocking(move || reference(&objects::open(&folder)?, TRACKED)).await?;
                let head = head.ok_or_else(|| self.missing("the fetched branch has no commit"))?;
                self.tracked = Some(head.clone());
                Ok(head)
            }
            Err(error) => {
                // The remote answered a moment ago: what failed may be our copy.
                if self.is_sound().await? {
                    Err(error)
                } else {
                    Err(RepositoryError::Local(error.to_string()))
                }
            }
        }
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

    /// Packs loose objects when `git` finds that there are many. Nothing depends on it, so failures are left to the next time.
    async fn tidy(&mut self) {
        self.heads += 1;
        if self.heads % HEADS_PER_TIDYING == 1 {
            let arguments = ["-c", "gc.auto=6700", "gc", "--auto", "--quiet"];
            let _ = self.git.run(&arguments, self.settings.deadline).await;
        }
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

    /// Writes the drafts as commits, signed where that is wanted.
    async fn write(&self, base: &CommitId, drafts: Vec<Draft>) -> Result<Written, RepositoryError> {
        let (folder, parent) = (self.settings.local.clone(), base.clone());
        let author = self.settings.author.clone();
        let committer = self.settings.committer.clone();
        let (git, limit) = (Arc::clone(&self.git), self.settings.deadline);
        let signer = self.signer.clone();
        let runtime = tokio::runtime::Handle::current();
        blocking(move || {
            let sign = signer.map(|signer| {
                move |commit| {
                    runtime.block_on(async { signer.lock().await.sign(&git, commit, limit).await })
                }
            });
            let sign = sign.as_ref().map(|sign| sign as write::Sign<'_>);
            write::commits(&folder, &parent, &drafts, &author, &committer, sign)
        })
        .await
    }

    /// Pushes, then tells by the remote head how that went.
    async fn push(
        &mut self,
        base: &CommitId,
        commits: Vec<CommitId>,
        last: &CommitId,
        is_packed: bool,
    ) -> Result<Published, RepositoryError> {
        let Some(name) = self.name.clone() else {
            return Err(self.missing("the branch is not known yet"));
        };
        // Our commit descends from the base, so this never rewrites anything. The lease adds that a branch which was rewound
        // or deleted since is left alone: a plain push would bring the removed commits back.
        let lease = format!("--force-with-lease=refs/heads/{name}:{base}");
        let refspec = format!("{last}:refs/heads/{name}");
        // Our own packs hold differences already, which are sent as they are; looking for better ones takes longer than all
        // the rest.
        let window: &[&str] = if is_packed {
            &["-c", "pack.window=0"]
        } else {
            &[]
        };
        let arguments = [
            "push",
            "--porcelain",
            "--no-verify",
            "--no-progress",
            "--no-follow-tags",
            "--no-signed",
            "--recurse-submodules=no",
            &lease,
            "--",
            NAME,
            &refspec,
        ];
        let arguments = [window, &arguments].concat();
        let pushed = self.git.run(&arguments, self.settings.deadline).await;
        let head = match self.look().await {
            Ok(head) => head,
            Err(RepositoryError::Missing(_)) => return Ok(Published::LostRace),
            Err(error) => return Err(error),
        };
        match head {
            Some(head) if head == *last => self.tracked = Some(head),
            Some(head) if head == *base => {
                return self.not_moved(pushed).await;
            }
            Some(_) => {
                let head = self.bring().await?;
                let (folder, ours) = (self.settings.local.clone(), last.clone());
                let ours_is_in = blocking(move || {
                    let repo = objects::open(&folder)?;
                    is_ancestor(
                        &repo,
                        objects::object_id(&ours)?,
                        objects::object_id(&head)?,
                    )
                })
                .await?;
                if !ours_is_in {
                    return Ok(Published::LostRace);
                }
            }
            None => return Ok(Published::LostRace),
        }
        self.accepted(last).await?;
        Ok(Published::Accepted(commits))
    }

    /// The branch is where it was: the server refused, or it was never asked.
    async fn not_moved(
        &mut self,
        pushed: Result<Output, NoOutput>,
    ) -> Result<Published, RepositoryError> {
        let output = match pushed {
            Ok(output) => output,
            // It may still arrive: nobody refused anything.
            Err(error) => return Err(self.no_output(&error)),
        };
        let answered = output.success
            || porcelain::pushed(&output.stdout)
                .iter()
                .any(|line| line.rejected)
            || !porcelain::server_words(&output.stderr).is_empty();
        if !answered {
            let failure = self.failure(&output);
            if !self.is_sound().await? {
                self.suspect();
                return Err(RepositoryError::Local(failure.to_string()));
            }
            if let RepositoryError::Local(_) = failure {
                return Err(failure);
            }
            // The remote was read a moment later: access is good for reading only, or writing is out of order. Either is
            // a refusal, in whatever words.
        }
        Ok(Published::Refused(self.refusal(&output)))
    }

    /// The branch holds our commit: it is the last head seen.
    async fn accepted(&mut self, last: &CommitId) -> Result<(), RepositoryError> {
        let (folder, id) = (self.settings.local.clone(), objects::object_id(last)?);
        let at_head = self.tracked.as_ref() == Some(last);
        blocking(move || {
            let repo = objects::open(&folder)?;
            if at_head {
                set_reference(&repo, TRACKED, id)?;
            }
            set_reference(&repo, SEEN, id)
        })
        .await?;
        self.seen = Some(last.clone());
        self.seen_is_stored = true;
        if let Some(verifier) = &mut self.verifier {
            verifier.accept(last).await?;
        }
        self.tidy().await;
        Ok(())
    }

    /// Why the branch did not move, in the server's words where there are any.
    fn refusal(&self, output: &Output) -> String {
        let mut words = porcelain::server_words(&output.stderr);
        let lines = porcelain::pushed(&output.stdout);
        let rejected = lines.iter().filter(|line| line.rejected);
        words.extend(rejected.map(|line| line.summary.clone()));
        if words.is_empty() {
            words.push(if output.success {
                "the push was reported as done, but the branch has not moved".to_owned()
            } else {
                porcelain::complaint(&output.stderr)
            });
        }
        self.settings.remote.scrub(&words.join("\n"))
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
        let (commit, below) = (at.clone(), self.settings.path.clone());
        self.reading(at, move |repo, cache, _| {
            snapshot::read(repo, &commit, below.as_ref(), cache)
        })
        .await
    }

    #[tracing::instrument(name = "git.lineage", level = "debug", skip_all)]
    async fn lineage(
        &mut self,
        at: &CommitId,
        watches: &[Watch],
    ) -> Result<BTreeMap<CanaryId, Lineage>, RepositoryError> {
        let (commit, watches) = (at.clone(), watches.to_vec());
        let us = self.settings.committer.email.clone();
        self.reading(at, move |repo, _, memo| {
            lineage::lineage(repo, &commit, &watches, &us, memo)
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
