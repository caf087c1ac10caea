//! A branch in memory: the `Repository` port of one engine onto a simulated remote.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use super::lifeline::{CrashPoint, Life};
use super::remote::{Lost, Remote, author, lineage};
use crate::domain::{CanaryId, CommitId, Person};
use crate::ports::{
    Draft, ForeignCommit, Head, History, Lineage, Published, Question, Repository, RepositoryError,
    Snapshot, Watch,
};

/// One engine's view of the remote.
#[derive(Debug, Clone)]
pub struct Branch {
    remote: Arc<Mutex<Remote>>,
    life: Life,
    identity: Person,
    seen: Option<CommitId>,
}

impl Branch {
    /// A view that has seen nothing yet; commits are made as `identity`.
    pub fn new(remote: Arc<Mutex<Remote>>, life: Life, identity: Person) -> Self {
        Self {
            remote,
            life,
            identity,
            seen: None,
        }
    }

    fn remote(&self) -> MutexGuard<'_, Remote> {
        self.remote.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn passes(&self, point: CrashPoint) -> Result<(), RepositoryError> {
        let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        if life.passes(point) {
            Ok(())
        } else {
            Err(RepositoryError::Local("killed".to_owned()))
        }
    }

    /// Lets the other engines go first, if that is wanted.
    async fn is_overtaken(&self) {
        let mut waits = {
            let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut life.overtaken)
        };
        poll_fn(|_| {
            if std::mem::take(&mut waits) {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }
}

impl Repository for Branch {
    async fn fetch(&mut self) -> Result<Head, RepositoryError> {
        self.passes(CrashPoint::BeforeFetch)?;
        let mut remote = self.remote();
        remote.reachable()?;
        if let Some(unverified) = remote.unverified() {
            drop(remote);
            self.passes(CrashPoint::AfterFetch)?;
            return Ok(unverified);
        }
        let commit = remote.commits().last().map(|commit| commit.id.clone());
        let rewritten = self
            .seen
            .clone()
            .filter(|seen| remote.position(seen).is_none());
        drop(remote);
        self.passes(CrashPoint::AfterFetch)?;
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
            .and_then(|index| remote.commits().get(index))
            .ok_or_else(missing)?;
        let files = commit
            .tree
            .iter()
            .filter(|(path, _)| path.as_str().ends_with(".yaml") || path.as_str().ends_with(".yml"))
            .map(|(path, file)| (path.clone(), (file.blob.clone(), Arc::clone(&file.content))))
            .collect();
        Ok(Snapshot {
            commit: at.clone(),
            files: Arc::new(files),
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
        let history = remote.commits().get(..end).unwrap_or_default();
        Ok(watches
            .iter()
            .map(|watch| (watch.canary.clone(), lineage(history, watch)))
            .collect())
    }

    async fn authors(
        &mut self,
        at: &CommitId,
        questions: Vec<Question>,
    ) -> Result<Vec<Option<ForeignCommit>>, RepositoryError> {
        let remote = self.remote();
        let answer = |question: &Question| {
            let from = question.from.as_ref().unwrap_or(at);
            let end = remote.position(from).map_or(0, |index| index + 1);
            author(remote.commits().get(..end).unwrap_or_default(), question)
        };
        Ok(questions.iter().map(answer).collect())
    }

    async fn publish(
        &mut self,
        base: &CommitId,
        drafts: Vec<Draft>,
    ) -> Result<Published, RepositoryError> {
        self.is_overtaken().await;
        let identity = self.identity.clone();
        self.passes(CrashPoint::BeforePush)?;
        let mut remote = self.remote();
        remote.reachable()?;
        if let Some((change, at)) = remote.races.pop_front() {
            remote.commit(change, at);
        }
        let timed_out =
            || RepositoryError::Unreachable("git push was stopped after 30 s".to_owned());
        let lost = remote.lost.take();
        if lost == Some(Lost::Dropped) {
            remote.seen.note("remote: a push was lost");
            return Err(timed_out());
        }
        if remote.commits().last().map(|commit| &commit.id) != Some(base) {
            remote.seen.note("remote: a push lost the race");
            return Ok(Published::LostRace);
        }
        if let Some(words) = remote.refuses.clone() {
            remote.seen.note("remote: a push was refused");
            return Ok(Published::Refused(words));
        }
        let commits = drafts
            .into_iter()
            .map(|draft| {
                let Draft {
                    at,
                    message,
                    changes,
                    ..
                } = draft;
                remote.append(identity.clone(), at, message, changes, true)
            })
            .collect();
        remote.pushes += 1;
        if lost == Some(Lost::Accepted) {
            remote
                .seen
                .note("remote: the answer to an accepted push was lost");
        }
        drop(remote);
        self.passes(CrashPoint::AfterPush)?;
        if lost == Some(Lost::Accepted) {
            return Err(timed_out());
        }
        Ok(Published::Accepted(commits))
    }
}
