//! Reading any repository on this machine, bare or with a work tree, with nothing else reachable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gix::ObjectId;

use super::authors;
use super::chronicle;
use super::lineage::{self, Memo};
use super::message;
use super::objects::{self, commit_id};
use super::snapshot::{self, Cache, Reading};
use crate::domain::{CanaryId, CommitId, Person, RepoPath, Timestamp};
use crate::ports::{ForeignCommit, Lineage, Question, RepositoryError, Snapshot, Watch};

/// A repository on this machine, at one commit. Never writes.
pub struct Local {
    repo: gix::Repository,
    head: ObjectId,
}

/// A commit, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its id.
    pub id: CommitId,
    /// Who wrote it.
    pub author: Person,
    /// When it was written.
    pub authored: Timestamp,
    /// Who put it on the branch.
    pub committer: Person,
    /// When it was put there.
    pub committed: Timestamp,
    /// First line of its message.
    pub subject: String,
    /// The message between subject and trailers.
    pub body: String,
    /// The trailers, in order.
    pub trailers: Vec<(String, String)>,
    /// The canaries that its trailers name.
    pub canaries: Vec<CanaryId>,
    /// Its parents.
    pub parents: Vec<CommitId>,
}

impl Local {
    /// Opens the repository that holds `folder`, at a revision as `git rev-parse` takes it; `None` is `HEAD`.
    pub fn open(folder: &Path, revision: Option<&str>) -> Result<Self, RepositoryError> {
        let repo = objects::discover(folder)?;
        let name = revision.unwrap_or("HEAD");
        let missing = || {
            RepositoryError::Missing(format!("`{name}` names no commit in {}", folder.display()))
        };
        let head = repo
            .rev_parse_single(name)
            .ok()
            .and_then(|id| id.object().ok()?.peel_to_commit().ok())
            .map(|commit| commit.id)
            .ok_or_else(missing)?;
        Ok(Self { repo, head })
    }

    /// The commit.
    pub fn head(&self) -> CommitId {
        commit_id(self.head)
    }

    /// The YAML files of the commit, below a folder.
    pub fn snapshot(&self, below: Option<&RepoPath>) -> Result<Snapshot, RepositoryError> {
        let mut cache = Cache::default();
        match snapshot::read(&self.repo, &self.head(), below, None, &mut cache)? {
            Reading::Whole(snapshot) => Ok(snapshot),
            Reading::Lacking(_) => Err(RepositoryError::Local("it is not whole".to_owned())),
        }
    }

    /// Who changed what since the last commit of the committer with this email address on each canary.
    pub fn lineage(
        &self,
        watches: &[Watch],
        committer_email: &str,
    ) -> Result<BTreeMap<CanaryId, Lineage>, RepositoryError> {
        lineage::lineage(
            (&self.repo, &Cache::default()),
            &self.head(),
            watches,
            committer_email,
            &mut Memo::default(),
        )
    }

    /// Whose commits answer these questions, in their order.
    pub fn authors(
        &self,
        questions: &[Question],
        committer_email: &str,
    ) -> Result<Vec<Option<ForeignCommit>>, RepositoryError> {
        authors::authors(&self.repo, &self.head(), questions, committer_email)
    }

    /// The commits about one canary, newest first: those that name it, whoever made them, and those that changed its
    /// folder or inputs.
    pub fn log(&self, watch: &Watch, limit: usize) -> Result<Vec<LogEntry>, RepositoryError> {
        let commits = chronicle::about(&self.repo, self.head, watch, limit)?;
        Ok(commits.into_iter().map(LogEntry::from_commit).collect())
    }

    /// The folder of the work tree, or of the bare repository.
    pub fn folder(&self) -> Result<PathBuf, RepositoryError> {
        let folder = self.repo.workdir().unwrap_or_else(|| self.repo.git_dir());
        folder
            .canonicalize()
            .map_err(|error| objects::local_io(folder, &error))
    }

    /// A commit of this repository.
    pub fn commit(&self, id: &CommitId) -> Result<LogEntry, RepositoryError> {
        let commit = objects::commit(&self.repo, objects::object_id(id)?)?;
        Ok(LogEntry::from_commit(commit))
    }
}

impl LogEntry {
    fn from_commit(commit: objects::Commit) -> Self {
        let (body, trailers) = message::body_and_trailers(&commit.message);
        Self {
            id: commit_id(commit.id),
            subject: message::subject(&commit.message),
            canaries: message::canaries(&commit.message),
            body,
            trailers,
            author: commit.author,
            authored: commit.authored,
            committer: commit.committer,
            committed: commit.committed,
            parents: commit.parents.into_iter().map(commit_id).collect(),
        }
    }
}
