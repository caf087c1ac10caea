//! Whose commit made something what it is: the history from new to old, along what a question is about.
//!
//! Follows history as `git log -- <path>` does: where all paths equal those of a parent, only this parent is followed. So a
//! merge is nobody's change unless it differs from every side, and what was merged is the change of whoever wrote it.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use gix::ObjectId;

use super::message;
use super::objects::{self, At, Commit, commit_id, is_cut, local, look_up};
use crate::domain::{CommitId, RepoPath, Timestamp};
use crate::ports::{Fit, ForeignCommit, Question, RepositoryError, Touch};

/// Commits that are looked at for all questions of a call: some tenths of a second.
const MAX_COMMITS: usize = 2_000;
/// Commits that touched its paths which are looked into for one question; their files are parsed.
const MAX_TOUCHES: usize = 64;

/// The files at the paths of a question.
type Contents = BTreeMap<RepoPath, Arc<[u8]>>;

/// What stands at the paths of a question.
type Blobs = Vec<Option<ObjectId>>;

/// Answers in the order of the questions. `us` is the email address of our committer.
pub(super) fn authors(
    repo: &gix::Repository,
    head: &CommitId,
    questions: &[Question],
    us: &str,
) -> Result<Vec<Option<ForeignCommit>>, RepositoryError> {
    let mut left = MAX_COMMITS;
    let mut answers = Vec::with_capacity(questions.len());
    for question in questions {
        let search = Search {
            repo,
            question,
            until: question
                .until
                .as_ref()
                .map(objects::object_id)
                .transpose()?,
        };
        let from = objects::object_id(question.from.as_ref().unwrap_or(head))?;
        let found = search.run(from, &mut left)?;
        let is_ours = |commit: &Commit| {
            commit.committer.email == us && !message::canaries(&commit.message).is_empty()
        };
        answers.push(
            found
                .filter(|commit| !is_ours(commit))
                .map(|commit| ForeignCommit {
                    id: commit_id(commit.id),
                    subject: message::subject(&commit.message),
                    author: commit.author,
                    at: commit.authored,
                    paths: question.paths.clone(),
                }),
        );
    }
    Ok(answers)
}

struct Search<'a> {
    repo: &'a gix::Repository,
    question: &'a Question,
    until: Option<ObjectId>,
}

impl Search<'_> {
    fn run(&self, from: ObjectId, left: &mut usize) -> Result<Option<Commit>, RepositoryError> {
        let mut seen = BTreeSet::from([from]);
        let mut order = BinaryHeap::from([(Timestamp::default(), from)]);
        let mut perhaps = None;
        let mut touches = 0;
        while let Some((_, id)) = order.pop() {
            if *left == 0 || touches == MAX_TOUCHES {
                break;
            }
            if self.until == Some(id) {
                continue;
            }
            *left -= 1;
            let commit = objects::commit(self.repo, id)?;
            // What the commits before a shallow clone's end held is not here to be compared with.
            if is_cut(self.repo, id)? {
                continue;
            }
            let after = self.blobs(commit.tree)?;
            let mut before = Vec::with_capacity(commit.parents.len());
            let mut next = Vec::with_capacity(commit.parents.len());
            for parent in &commit.parents {
                let parent = objects::commit(self.repo, *parent)?;
                let blobs = self.blobs(parent.tree)?;
                let same = blobs == after;
                next.push((parent.committed, parent.id));
                before.push(blobs);
                if same {
                    next.drain(..next.len() - 1);
                    before.clear();
                    break;
                }
            }
            for (at, parent) in next {
                if seen.insert(parent) {
                    order.push((at, parent));
                }
            }
            if before.is_empty() && !commit.parents.is_empty() {
                continue;
            }
            touches += 1;
            let Some(touch) = self.touch(&after, &before)? else {
                break;
            };
            match (self.question.fits)(&touch) {
                Fit::Yes => return Ok(Some(commit)),
                Fit::Perhaps => {
                    perhaps.get_or_insert(commit);
                }
                Fit::No => {}
            }
        }
        Ok(perhaps)
    }

    fn blobs(&self, tree: ObjectId) -> Result<Blobs, RepositoryError> {
        let blob = |path: &RepoPath| {
            Ok(match look_up(self.repo, tree, path)? {
                At::Entry((mode, id)) if mode.is_blob() => Some(id),
                At::Entry(_) | At::Nothing | At::Blocked(_) => None,
            })
        };
        self.question.paths.iter().map(blob).collect()
    }

    /// The contents; `None` where some are not in this clone.
    fn touch(&self, after: &Blobs, before: &[Blobs]) -> Result<Option<Touch>, RepositoryError> {
        let Some(after) = self.files(after)? else {
            return Ok(None);
        };
        let mut sides = Vec::with_capacity(before.len().max(1));
        for side in before {
            let Some(files) = self.files(side)? else {
                return Ok(None);
            };
            sides.push(files);
        }
        if sides.is_empty() {
            sides.push(BTreeMap::new());
        }
        Ok(Some(Touch {
            after,
            before: sides,
        }))
    }

    fn files(&self, blobs: &Blobs) -> Result<Option<Contents>, RepositoryError> {
        let mut files = BTreeMap::new();
        for (path, blob) in self.question.paths.iter().zip(blobs) {
            let Some(id) = blob else { continue };
            let Some(object) = self.repo.try_find_object(*id).map_err(local)? else {
                return Ok(None);
            };
            files.insert(path.clone(), object.detach().data.into());
        }
        Ok(Some(files))
    }
}
