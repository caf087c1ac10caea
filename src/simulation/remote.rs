//! The remote of a simulated branch: real content, its whole history, scripted faults, and people who commit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::coverage::Coverage;
use crate::domain::{BlobId, CommitId, Contents, Person, RepoPath, Timestamp};
use crate::ports::{
    Fit, ForeignCommit, Head, History, Lineage, OurCommit, Question, RepositoryError, Touch, Watch,
};

/// The files of a commit.
pub(super) type Tree = Arc<BTreeMap<RepoPath, File>>;

/// One file of a tree.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// Identity of the content.
    pub(super) blob: BlobId,
    /// The content.
    pub(super) content: Arc<[u8]>,
}

/// How long a person waits for a push to race with, in seconds.
const PATIENCE: i64 = 120;

/// How the answer to a push is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lost {
    /// The remote accepted the push; the engine hears of a time-out.
    Accepted,
    /// The push never arrived; the engine hears of a time-out.
    Dropped,
}

/// A change that a person pushes.
#[derive(Debug, Clone)]
pub struct Change {
    /// Who.
    pub author: Person,
    /// The message.
    pub message: String,
    /// New content by path; `None` deletes.
    pub files: Contents,
    /// Without a signature.
    pub unsigned: bool,
}

/// The remote, shared by every engine and person.
#[derive(Debug, Default)]
pub struct Remote {
    commits: Vec<Commit>,
    /// Commits that were ever made.
    made: u64,
    /// Nobody can reach it.
    pub down: bool,
    /// Pushes are refused with these words.
    pub refuses: Option<String>,
    /// Changes of people that arrive between an engine's fetch and its push.
    pub races: VecDeque<(Change, Timestamp)>,
    /// What happens to the answer of the next push.
    pub lost: Option<Lost>,
    /// Pushes that were accepted.
    pub pushes: usize,
    /// True time, which no engine knows.
    pub now: Timestamp,
    /// Whether somebody took commits away.
    pub rewound: bool,
    /// What happened.
    pub seen: Coverage,
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
    /// When it arrived, in true time.
    pub arrived: Timestamp,
    /// The canary that its trailer names, if an engine made it.
    pub canary: Option<String>,
    pub(super) ours: bool,
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

    /// Time goes on. Who waited long enough for somebody's push to race with commits without one.
    pub(super) fn pass_time(&mut self, now: Timestamp) {
        self.now = now;
        let patience = chrono::Duration::seconds(PATIENCE);
        while self
            .races
            .front()
            .is_some_and(|(_, at)| *at + patience <= now)
        {
            if let Some((change, at)) = self.races.pop_front() {
                self.commit(change, at);
            }
        }
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
                    before.get(path).map(|file| Arc::clone(&file.content)),
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

    /// The change that gives a folder the content of the engines' last commit; `None` when it has that.
    pub fn restoration_of(&self, folder: &RepoPath, author: Person) -> Option<Change> {
        let touches = |commit: &&Commit| commit.touched.iter().any(|path| path.is_within(folder));
        let ours = self
            .commits
            .iter()
            .rev()
            .filter(|commit| commit.ours)
            .find(touches)?;
        let now = self.tree();
        let within = |path: &&RepoPath| path.is_within(folder);
        let paths = now.keys().chain(ours.tree.keys()).filter(within);
        let content = |tree: &Tree, path| {
            tree.get::<RepoPath>(path)
                .map(|file: &File| Arc::clone(&file.content))
        };
        let files: Contents = paths
            .filter(|path| content(&now, path) != content(&ours.tree, path))
            .map(|path| (path.clone(), content(&ours.tree, path)))
            .collect();
        (!files.is_empty()).then(|| Change {
            author,
            message: format!("Restore {folder}\n"),
            files,
            unsigned: false,
        })
    }

    /// Takes the branch back by `count` commits, as a forced push would.
    pub fn rewind(&mut self, count: usize) {
        let keep = self.commits.len().saturating_sub(count).max(1);
        self.commits.truncate(keep);
        self.rewound = true;
    }

    pub(super) fn append(
        &mut self,
        author: Person,
        at: Timestamp,
        message: String,
        files: Contents,
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
        // A number in place of a digest: other words in a message, or one byte more in a file, change no later id, and so
        // no trace. A branch that was forced back never gets an id twice.
        self.made += 1;
        let id = CommitId::new(format!("{:010}{:030}", self.made, 0));
        let trailer = |line: &str| line.strip_prefix("Serin-Canary: ").map(str::to_owned);
        let canary = message.lines().find_map(trailer).filter(|_| ours);
        self.commits.push(Commit {
            id: id.clone(),
            author,
            at,
            arrived: self.now,
            canary,
            message,
            tree: Arc::new(tree),
            touched,
            ours,
            unsigned: false,
        });
        id
    }

    pub(super) fn position(&self, id: &CommitId) -> Option<usize> {
        self.commits.iter().rposition(|commit| &commit.id == id)
    }

    /// The head when it has no signature and needs one.
    pub(super) fn unverified(&self) -> Option<Head> {
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

    pub(super) fn reachable(&mut self) -> Result<(), RepositoryError> {
        if self.down {
            self.seen.note("remote: away");
            Err(RepositoryError::Unreachable(
                "connection refused".to_owned(),
            ))
        } else {
            Ok(())
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let halves = digest
        .iter()
        .take(20)
        .flat_map(|byte| [byte >> 4, byte & 15]);
    let digit = |half: u8| char::from_digit(u32::from(half), 16);
    halves.filter_map(digit).collect()
}

fn file(content: Arc<[u8]>) -> File {
    File {
        blob: BlobId(hex(&content).into()),
        content,
    }
}

fn foreign(commit: &Commit, paths: Vec<RepoPath>) -> ForeignCommit {
    ForeignCommit {
        id: commit.id.clone(),
        author: commit.author.clone(),
        at: commit.at,
        subject: commit.subject().to_owned(),
        paths,
    }
}

/// The commit that answers a question about this history.
pub(super) fn author(history: &[Commit], question: &Question) -> Option<ForeignCommit> {
    let contents = |tree: &Tree| -> BTreeMap<RepoPath, Arc<[u8]>> {
        let paths = question.paths.iter();
        let held = |path| Some((RepoPath::clone(path), Arc::clone(&tree.get(path)?.content)));
        paths.filter_map(held).collect()
    };
    let mut perhaps = None;
    for (index, commit) in history.iter().enumerate().rev() {
        if question.until.as_ref() == Some(&commit.id) {
            break;
        }
        if !commit
            .touched
            .iter()
            .any(|path| question.paths.contains(path))
        {
            continue;
        }
        let before = index.checked_sub(1).and_then(|index| history.get(index));
        let touch = Touch {
            after: contents(&commit.tree),
            before: vec![before.map_or_else(BTreeMap::new, |before| contents(&before.tree))],
        };
        match (question.fits)(&touch) {
            Fit::Yes => {
                perhaps = Some(commit);
                break;
            }
            Fit::Perhaps => perhaps = perhaps.or(Some(commit)),
            Fit::No => {}
        }
    }
    let found = perhaps.filter(|commit| !commit.ours)?;
    Some(foreign(found, question.paths.clone()))
}

/// What a history says about one canary.
pub(super) fn lineage(history: &[Commit], watch: &Watch) -> Lineage {
    let id = watch.canary.to_string();
    let ours = history
        .iter()
        .rposition(|commit| commit.canary.as_ref() == Some(&id));
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
    let ours = ours.and_then(|index| history.get(index)).map(|commit| {
        Arc::new(OurCommit {
            id: commit.id.clone(),
            at: commit.at,
            files: commit
                .tree
                .iter()
                .filter(|(path, _)| path.is_within(&watch.folder))
                .map(|(path, file)| (path.clone(), Arc::clone(&file.content)))
                .collect(),
        })
    });
    Lineage {
        ours,
        folder,
        input,
    }
}
