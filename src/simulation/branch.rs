//! A branch in memory: the `Repository` port with real content, scripted faults, and people who commit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::domain::{BlobId, CanaryId, CommitId, Person, RepoPath, Timestamp};
use crate::ports::{
    Draft, File, ForeignCommit, Head, History, Lineage, OurCommit, Published, Repository,
    RepositoryError, Snapshot, Watch,
};

/// The files of a commit.
pub(super) type Tree = Arc<BTreeMap<RepoPath, File>>;

/// The points of a pass at which an engine can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CrashPoint {
    /// Before the remote is asked.
    BeforeFetch,
    /// After the head was read.
    AfterFetch,
    /// After the decision, before the push.
    BeforePush,
    /// After the remote accepted the push, before the engine knows.
    AfterPush,
}

/// A change that a person pushes.
#[derive(Debug, Clone)]
pub struct Change {
    /// Who.
    pub author: Person,
    /// The message.
    pub message: String,
    /// New content by path; `None` deletes.
    pub files: BTreeMap<RepoPath, Option<Vec<u8>>>,
    /// Without a signature.
    pub unsigned: bool,
}

/// The remote, shared by every engine and person.
#[derive(Debug, Default)]
pub struct Remote {
    commits: Vec<Commit>,
    /// Nobody can reach it.
    pub down: bool,
    /// Pushes are refused with these words.
    pub refuses: Option<String>,
    /// Changes of people that arrive between an engine's fetch and its push.
    pub races: VecDeque<(Change, Timestamp)>,
    /// Kill the engine at this point.
    pub crash: Option<CrashPoint>,
    /// Pushes that were accepted.
    pub pushes: usize,
    /// Heads need a signature.
    pub verifies: bool,
}

/// A commit of the simulated branch.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Its id.
    pub id: CommitId,
    /// Its author.
    pub author: Person,
    /// When.
    pub at: Timestamp,
    /// The whole message.
    pub message: String,
    /// The files after it.
    pub(super) tree: Tree,
    /// The paths that it touched.
    pub touched: Vec<RepoPath>,
    ours: bool,
    unsigned: bool,
}

impl Commit {
    /// First line of the message.
    pub fn subject(&self) -> &str {
        self.message.lines().next().unwrap_or_default()
    }
}

impl Remote {
    /// All commits, oldest first.
    pub fn commits(&self) -> &[Commit] {
        &self.commits
    }

    /// The files at the head.
    pub(super) fn tree(&self) -> Tree {
        self.commits
            .last()
            .map(|commit| Arc::clone(&commit.tree))
            .unwrap_or_default()
    }

    /// A person's commit.
    pub fn commit(&mut self, change: Change, at: Timestamp) {
        self.append(change.author, at, change.message, change.files, false);
        if let Some(commit) = self.commits.last_mut() {
            commit.unsigned = change.unsigned;
        }
    }

    /// The change that takes back the newest commit whose subject contains `text`.
    pub fn revert_of(&self, text: &str, author: Person) -> Option<Change> {
        let index = self
            .commits
            .iter()
            .rposition(|commit| commit.subject().contains(text))?;
        let commit = self.commits.get(index)?;
        let before = index
            .checked_sub(1)
            .and_then(|index| self.commits.get(index))
            .map(|c| Arc::clone(&c.tree));
        let before = before.unwrap_or_default();
        let files = commit
            .touched
            .iter()
            .map(|path| {
                (
                    path.clone(),
                    before.get(path).map(|file| file.content.to_vec()),
                )
            })
            .collect();
        let message = format!(
            "Revert \"{}\"\n\nThis reverts commit {}.\n",
            commit.subject(),
            commit.id
        );
        Some(Change {
            author,
            message,
            files,
            unsigned: false,
        })
    }

    /// Takes the branch back by `count` commits, as a forced push would.
    pub fn rewind(&mut self, count: usize) {
        let keep = self.commits.len().saturating_sub(count).max(1);
        self.commits.truncate(keep);
    }

    fn append(
        &mut self,
        author: Person,
        at: Timestamp,
        message: String,
        files: BTreeMap<RepoPath, Option<Vec<u8>>>,
        ours: bool,
    ) -> CommitId {
        let mut tree: BTreeMap<RepoPath, File> = (*self.tree()).clone();
        let touched = files.keys().cloned().collect();
        for (path, content) in files {
            match content {
                Some(content) => tree.insert(path, file(content)),
                None => tree.remove(&path),
            };
        }
        let parent = self.commits.last().map_or("", |commit| commit.id.as_str());
        let blobs: Vec<&str> = tree.values().map(|file| file.blob.0.as_str()).collect();
        let id = json!([
            parent,
            author.email,
            at.timestamp(),
            message,
            blobs,
            self.commits.len()
        ]);
        let id = CommitId::new(hex(id.to_string().as_bytes()));
        self.commits.push(Commit {
            id: id.clone(),
            author,
            at,
            message,
            tree: Arc::new(tree),
            touched,
            ours,
            unsigned: false,
        });
        id
    }

    fn position(&self, id: &CommitId) -> Option<usize> {
        self.commits.iter().rposition(|commit| &commit.id == id)
    }

    /// The head when it has no signature and needs one.
    fn unverified(&self) -> Option<Head> {
        let head = self.commits.last()?;
        if !self.verifies || !head.unsigned {
            return None;
        }
        let good = self.commits.iter().rev().find(|commit| !commit.unsigned);
        Some(Head {
            commit: good.map(|commit| commit.id.clone()),
            history: History::Unverified {
                head: head.id.clone(),
                why: format!(
                    "commit {} by {} is not signed",
                    head.id.short(),
                    head.author.name
                ),
            },
        })
    }

    fn crashes_at(&mut self, point: CrashPoint) -> Result<(), RepositoryError> {
        if self.crash != Some(point) {
            return Ok(());
        }
        self.crash = None;
        Err(RepositoryError::Local("killed".to_owned()))
    }

    fn reachable(&self) -> Result<(), RepositoryError> {
        if self.down {
            Err(RepositoryError::Unreachable(
                "connection refused".to_owned(),
            ))
        } else {
            Ok(())
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .take(20)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn file(content: Vec<u8>) -> File {
    File {
        blob: BlobId(hex(&content)),
        content: content.into(),
    }
}

/// One engine's view of the remote.
#[derive(Debug, Clone)]
pub struct Branch {
    remote: Arc<Mutex<Remote>>,
    identity: Person,
    seen: Option<CommitId>,
}

impl Branch {
    /// A view that has seen nothing yet; commits are made as `identity`.
    pub fn new(remote: Arc<Mutex<Remote>>, identity: Person) -> Self {
        Self {
            remote,
            identity,
            seen: None,
        }
    }

    fn remote(&self) -> MutexGuard<'_, Remote> {
        self.remote.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Repository for Branch {
    async fn fetch(&mut self) -> Result<Head, RepositoryError> {
        let mut remote = self.remote();
        remote.crashes_at(CrashPoint::BeforeFetch)?;
        remote.reachable()?;
        if let Some(unverified) = remote.unverified() {
            remote.crashes_at(CrashPoint::AfterFetch)?;
            return Ok(unverified);
        }
        let commit = remote.commits.last().map(|commit| commit.id.clone());
        let rewritten = self
            .seen
            .clone()
            .filter(|seen| remote.position(seen).is_none());
        remote.crashes_at(CrashPoint::AfterFetch)?;
        drop(remote);
        Ok(match rewritten {
            Some(from) => Head {
                commit,
                history: History::Rewritten { from },
            },
            None => {
                self.seen = commit.clone();
                Head {
                    commit,
                    history: History::Forward,
                }
            }
        })
    }

    async fn snapshot(&mut self, at: &CommitId) -> Result<Snapshot, RepositoryError> {
        let remote = self.remote();
        let missing = || RepositoryError::Local(format!("no commit {at}"));
        let commit = remote
            .position(at)
            .and_then(|index| remote.commits.get(index))
            .ok_or_else(missing)?;
        let files = commit
            .tree
            .iter()
            .filter(|(path, _)| path.as_str().ends_with(".yaml") || path.as_str().ends_with(".yml"))
            .map(|(path, file)| (path.clone(), file.clone()))
            .collect();
        Ok(Snapshot {
            commit: at.clone(),
            files,
            skipped: Vec::new(),
        })
    }

    async fn lineage(
        &mut self,
        at: &CommitId,
        watches: &[Watch],
    ) -> Result<BTreeMap<CanaryId, Lineage>, RepositoryError> {
        let remote = self.remote();
        let end = remote.position(at).map_or(0, |index| index + 1);
        let history = remote.commits.get(..end).unwrap_or_default();
        Ok(watches
            .iter()
            .map(|watch| (watch.canary.clone(), lineage(history, watch)))
            .collect())
    }

    async fn publish(
        &mut self,
        base: &CommitId,
        drafts: Vec<Draft>,
    ) -> Result<Published, RepositoryError> {
        let identity = self.identity.clone();
        let mut remote = self.remote();
        remote.crashes_at(CrashPoint::BeforePush)?;
        remote.reachable()?;
        if let Some((change, at)) = remote.races.pop_front() {
            remote.commit(change, at);
        }
        if remote.commits.last().map(|commit| &commit.id) != Some(base) {
            return Ok(Published::LostRace);
        }
        if let Some(words) = remote.refuses.clone() {
            return Ok(Published::Refused(words));
        }
        let commits = drafts
            .into_iter()
            .map(|draft| {
                remote.append(
                    identity.clone(),
                    draft.at,
                    draft.message,
                    draft.changes,
                    true,
                )
            })
            .collect();
        remote.pushes += 1;
        remote.crashes_at(CrashPoint::AfterPush)?;
        Ok(Published::Accepted(commits))
    }
}

fn lineage(history: &[Commit], watch: &Watch) -> Lineage {
    let trailer = format!("Serin-Canary: {}", watch.canary);
    let ours = history
        .iter()
        .rposition(|commit| commit.ours && commit.message.lines().any(|line| line == trailer));
    let foreign = |commit: &Commit, paths: Vec<RepoPath>| ForeignCommit {
        id: commit.id.clone(),
        author: commit.author.clone(),
        at: commit.at,
        subject: commit.subject().to_owned(),
        paths,
    };
    let since = ours.map_or(0, |index| index + 1);
    let folder = history
        .iter()
        .skip(since)
        .rev()
        .filter(|commit| !commit.ours)
        .filter_map(|commit| {
            let paths: Vec<RepoPath> = commit
                .touched
                .iter()
                .filter(|path| path.is_within(&watch.folder))
                .cloned()
                .collect();
            (!paths.is_empty()).then(|| foreign(commit, paths))
        })
        .collect();
    let input = history
        .iter()
        .rev()
        .filter(|commit| !commit.ours)
        .find_map(|commit| {
            let paths: Vec<RepoPath> = commit
                .touched
                .iter()
                .filter(|path| watch.inputs.contains(path))
                .cloned()
                .collect();
            (!paths.is_empty()).then(|| foreign(commit, paths))
        });
    let ours = ours
        .and_then(|index| history.get(index))
        .map(|commit| OurCommit {
            id: commit.id.clone(),
            at: commit.at,
            files: commit
                .tree
                .iter()
                .filter(|(path, _)| path.is_within(&watch.folder))
                .map(|(path, file)| (path.clone(), file.content.to_vec()))
                .collect(),
        });
    Lineage {
        ours,
        folder,
        input,
    }
}
