//! The wire: what is asked of the remote, and what its answers mean.

use std::time::Duration;

use super::{Branch, FIRST_FETCH, check_name};
use crate::domain::CommitId;
use crate::git::command::{NoOutput, Output};
use crate::git::copy::{TRACKED, blocking, reference};
use crate::git::objects;
use crate::git::partial::{self, Extent};
use crate::git::porcelain::{self, Trouble};
use crate::git::remote::NAME;
use crate::ports::RepositoryError;

/// What every fetch is told: nothing but what is asked for.
const FETCH: [&str; 6] = [
    "fetch",
    "--quiet",
    "--no-tags",
    "--no-write-fetch-head",
    "--no-auto-maintenance",
    "--no-recurse-submodules",
];

impl Branch {
    pub(super) fn complaint(&self, output: &Output) -> String {
        self.settings
            .remote
            .scrub(&porcelain::complaint(&output.stderr))
    }

    pub(super) fn failure(&self, output: &Output) -> RepositoryError {
        let complaint = self.complaint(output);
        let names_our_copy = complaint.contains(&*self.settings.local.to_string_lossy());
        let words = format!("{}: {complaint}", self.settings.remote);
        if names_our_copy {
            return RepositoryError::Local(words);
        }
        match porcelain::trouble(&output.stderr) {
            Trouble::Denied => RepositoryError::Denied(words),
            Trouble::Missing => RepositoryError::Missing(words),
            Trouble::Local => RepositoryError::Local(words),
            Trouble::Unreachable => RepositoryError::Unreachable(words),
        }
    }

    pub(super) fn no_output(&self, error: &NoOutput) -> RepositoryError {
        match error {
            NoOutput::NotRun { .. } => RepositoryError::Local(error.to_string()),
            NoOutput::TimedOut { .. } => {
                RepositoryError::Unreachable(format!("{}: {error}", self.settings.remote))
            }
        }
    }

    /// Runs `git` against the remote.
    pub(super) async fn request(
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
    pub(super) async fn look(&mut self) -> Result<Option<CommitId>, RepositoryError> {
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

    pub(super) fn missing(&self, what: &str) -> RepositoryError {
        RepositoryError::Missing(format!("{}: {what}", self.settings.remote))
    }

    /// Brings the branch; the answer is where it is by then.
    pub(super) async fn bring(&mut self) -> Result<CommitId, RepositoryError> {
        let Some(name) = &self.name else {
            return Err(self.missing("the branch is not known yet"));
        };
        let refspec = format!("+refs/heads/{name}:{TRACKED}");
        let filter = partial::filter();
        let is_first = self.tracked.is_none();
        // What a copy was begun with it keeps: a whole one that is fetched into with a filter would have holes that nobody
        // knows of.
        let is_filtered = match &self.extent {
            Extent::Partial { .. } => true,
            Extent::Whole => is_first && !self.needs_all,
        };
        let filter = is_filtered.then_some(filter.as_str());
        let arguments: Vec<&str> = FETCH
            .into_iter()
            .chain(filter)
            .chain(["--", NAME, &refspec])
            .collect();
        let limit = match is_first {
            false => self.settings.deadline,
            true => self.settings.deadline * FIRST_FETCH,
        };
        let fetched = self.request(&arguments, limit).await;
        let folder = self.settings.local.clone();
        match fetched {
            Ok(output) => {
                if is_first && is_filtered {
                    self.begun(&output).await?;
                }
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

    /// A first fetch asked for less than all: whether it got that depends on the server.
    async fn begun(&mut self, output: &Output) -> Result<(), RepositoryError> {
        if !porcelain::ignored_filter(&output.stderr) {
            self.extent = Extent::empty();
            return Ok(());
        }
        self.extent = Extent::Whole;
        let forget = ["config", "--remove-section", &format!("remote.{NAME}")];
        self.on_the_copy(&forget, Vec::new()).await?;
        let folder = self.settings.local.clone();
        blocking(move || partial::make_whole(&folder)).await
    }

    /// Brings what our copy lacks of the tree at a commit, but for files above the limit, which are remembered as such. What
    /// the copy has lost otherwise is back then, too.
    pub(super) async fn complete(
        &mut self,
        at: &CommitId,
        lacking: partial::Ids,
    ) -> Result<(), RepositoryError> {
        let (folder, commit) = (self.settings.local.clone(), at.clone());
        let below = self.settings.path.clone();
        let tree = blocking(move || {
            let repo = objects::open(&folder)?;
            objects::tree_below(&repo, &commit, below.as_ref())
        });
        let Some(tree) = tree.await? else {
            return Ok(());
        };
        let (filter, tree) = (partial::filter(), tree.to_string());
        let more = ["--refetch", &filter, "--", NAME, &tree];
        let arguments: Vec<&str> = FETCH.into_iter().chain(more).collect();
        let limit = self.settings.deadline * FIRST_FETCH;
        let output = self.git.run(&arguments, limit).await;
        let output = output.map_err(|error| self.no_output(&error))?;
        if !output.success {
            let failure = self.failure(&output);
            // Neither this server nor this `git` need know how: then the copy is made anew, with everything in it.
            self.needs_all |= !matches!(failure, RepositoryError::Local(_));
            self.suspect();
            return Err(failure);
        }
        let (folder, extent) = (self.settings.local.clone(), self.extent.clone());
        self.extent = blocking(move || extent.lacks(&folder, lacking)).await?;
        Ok(())
    }
}
