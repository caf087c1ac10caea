//! Writing and pushing. How a push went is told by where the branch is afterwards.

use std::sync::Arc;

use super::Branch;
use crate::domain::CommitId;
use crate::git::command::{NoOutput, Output};
use crate::git::copy::{SEEN, TRACKED, blocking, set_reference};
use crate::git::objects::{self, is_ancestor};
use crate::git::porcelain;
use crate::git::remote::NAME;
use crate::git::write::{self, Written};
use crate::ports::{Draft, Published, RepositoryError};

impl Branch {
    /// Writes the drafts as commits, signed where that is wanted.
    pub(super) async fn write(
        &self,
        base: &CommitId,
        drafts: Vec<Draft>,
    ) -> Result<Written, RepositoryError> {
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
    pub(super) async fn push(
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
            if let RepositoryError::Local(words) = &failure {
                if !porcelain::is_full(words) {
                    self.suspect();
                }
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
