//! A clone on this machine, seen through the same loop that runs a branch: read only, no metrics, no cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::failure::{Failure, chain};
use super::flags::LocalFlags;
use super::values::CanaryName;
use super::wiring::runtime;
use crate::analysis::{Answer, AskError, Query};
use crate::clock::SystemClock;
use crate::cluster::NoCluster;
use crate::domain::{CanaryId, CommitId, RepoPath, files};
use crate::git::{Local, LogEntry, Remote};
use crate::ports::{
    Draft, ForeignCommit, Head, History, Lineage, Metrics, Published, Question, Repository,
    RepositoryError, Snapshot, Watch,
};
use crate::reconcile::{self, Engine, Outlook};
use crate::record::message::Style;

/// Commits that are looked at to find out who commits for Serin.
const RECENT: usize = 50;

/// A clone at one commit. It is opened anew for each question: an open repository cannot move between threads.
pub(super) struct Clone {
    folder: PathBuf,
    head: CommitId,
    path: Option<RepoPath>,
    /// Email address of whoever commits for Serin, once that is known.
    committer: String,
}

impl Clone {
    /// Opens the repository that the flags name.
    pub(super) fn open(flags: &LocalFlags) -> Result<Self, Failure> {
        let local = Local::open(&flags.repo, Some(&flags.revision))
            .map_err(|error| not_opened(&flags.repo, &error))?;
        Ok(Self {
            folder: flags.repo.clone(),
            head: local.head(),
            path: flags.path.clone(),
            committer: String::new(),
        })
    }

    /// The commit that is looked at.
    pub(super) fn head(&self) -> &CommitId {
        &self.head
    }

    fn reader(&self) -> Self {
        Self {
            folder: self.folder.clone(),
            head: self.head.clone(),
            path: self.path.clone(),
            committer: self.committer.clone(),
        }
    }

    fn at(&self, commit: &CommitId) -> Result<Local, RepositoryError> {
        Local::open(&self.folder, Some(commit.as_str()))
    }

    /// The commits about a canary, newest first.
    pub(super) fn log(&self, watch: &Watch, limit: usize) -> Result<Vec<LogEntry>, Failure> {
        let local = self.at(&self.head).map_err(failed)?;
        local.log(watch, limit).map_err(failed)
    }

    /// Where every canary is, and what comes next, as far as Git can say.
    pub(super) fn outlook(&self) -> Result<Vec<Outlook>, Failure> {
        let settings = reconcile::Settings {
            push_interval: std::time::Duration::ZERO,
            poll: std::time::Duration::ZERO,
            style: Style::default(),
        };
        let mut engine = Engine::new(self.reader(), Unasked, NoCluster, SystemClock, settings);
        runtime()?.block_on(engine.outlook(false)).map_err(failed)
    }
}

/// Why a folder is no clone to look at. A URL in its place may hold a password.
fn not_opened(repo: &Path, error: &RepositoryError) -> Failure {
    let text = repo.to_string_lossy();
    if text.contains("://") {
        let shown = match text.parse::<Remote>() {
            Ok(remote) => remote.to_string(),
            Err(_) => "a URL".to_owned(),
        };
        return Failure::usage(format!(
            "{shown} is no folder: this command reads a clone on this machine, bare or not; `git clone` it and name that"
        ));
    }
    if !repo.exists() {
        return Failure::usage(format!("there is no {text}: name the folder of a clone"));
    }
    Failure::usage(match error {
        RepositoryError::Local(words) => format!("{text} is in no Git repository: {words}"),
        RepositoryError::Missing(words) => words.clone(),
        RepositoryError::Unreachable(_)
        | RepositoryError::Denied(_)
        | RepositoryError::Signature(_) => chain(error),
    })
}

fn failed(error: RepositoryError) -> Failure {
    Failure::failed(chain(&error))
}

/// The canaries that were asked about; all of them when none was named.
pub(super) fn chosen(outlook: Vec<Outlook>, names: &[CanaryName]) -> Result<Vec<Outlook>, Failure> {
    for name in names {
        if !outlook.iter().any(|canary| name.matches(&canary.id)) {
            return Err(unknown(name, &outlook));
        }
    }
    let wanted = |id: &CanaryId| names.is_empty() || names.iter().any(|name| name.matches(id));
    Ok(outlook
        .into_iter()
        .filter(|canary| wanted(&canary.id))
        .collect())
}

/// The one canary with this name.
pub(super) fn the_one(outlook: Vec<Outlook>, name: &CanaryName) -> Result<Outlook, Failure> {
    let mut found = chosen(outlook, std::slice::from_ref(name))?;
    match found.len() {
        1 => Ok(found.remove(0)),
        _ => {
            let ids: Vec<String> = found.iter().map(|canary| canary.id.to_string()).collect();
            Err(Failure::usage(format!(
                "several canaries are called {name}: {}",
                ids.join(", ")
            )))
        }
    }
}

fn unknown(name: &CanaryName, outlook: &[Outlook]) -> Failure {
    let ids: Vec<String> = outlook.iter().map(|canary| canary.id.to_string()).collect();
    Failure::usage(match ids.len() {
        0 => format!("there is no canary {name}, and no other in this repository"),
        1..=20 => format!("there is no canary {name}; there are {}", ids.join(", ")),
        many => format!(
            "there is no canary {name} among the {many} of this repository; `serin status` lists them"
        ),
    })
}

/// Where to look for the commits of a canary; for one whose spec has mistakes, around the file that has them.
pub(super) fn watch(canary: &Outlook) -> Result<Watch, Failure> {
    let (folder, inputs) = match &canary.canary {
        Some(spec) => (Some(spec.home.folder.clone()), spec.inputs()),
        None => {
            let file = canary.diagnostics.first().map(|found| &found.file);
            let name = files::folder_name(&canary.id.name);
            let folder = file.and_then(|file| file.sibling(&name));
            (folder, file.into_iter().cloned().collect())
        }
    };
    let unnamed = || Failure::failed(format!("nothing says where {} is written", canary.id));
    Ok(Watch {
        canary: canary.id.clone(),
        folder: folder.ok_or_else(unnamed)?,
        inputs,
    })
}

impl Repository for Clone {
    async fn fetch(&mut self) -> Result<Head, RepositoryError> {
        Ok(Head {
            commit: Some(self.head.clone()),
            history: History::Forward,
        })
    }

    async fn snapshot(&mut self, at: &CommitId) -> Result<Snapshot, RepositoryError> {
        self.at(at)?.snapshot(self.path.as_ref())
    }

    async fn lineage(
        &mut self,
        at: &CommitId,
        watches: &[Watch],
    ) -> Result<BTreeMap<CanaryId, Lineage>, RepositoryError> {
        let local = self.at(at)?;
        // Nobody configured here who commits for Serin; the newest commit that names a canary knows.
        for watch in watches {
            let log = local.log(watch, RECENT)?;
            let ours = log.iter().find(|commit| !commit.canaries.is_empty());
            if let Some(ours) = ours {
                self.committer.clone_from(&ours.committer.email);
                return local.lineage(watches, &self.committer);
            }
        }
        Ok(BTreeMap::new())
    }

    async fn authors(
        &mut self,
        at: &CommitId,
        questions: Vec<Question>,
    ) -> Result<Vec<Option<ForeignCommit>>, RepositoryError> {
        self.at(at)?.authors(&questions, &self.committer)
    }

    async fn publish(
        &mut self,
        _base: &CommitId,
        _drafts: Vec<Draft>,
    ) -> Result<Published, RepositoryError> {
        Ok(Published::Refused("this clone is only read".to_owned()))
    }
}

/// No metrics server. A look from Git alone asks nothing.
struct Unasked;

impl Metrics for Unasked {
    async fn ask(&self, queries: &[Query]) -> Vec<Answer> {
        let answer = || Answer::Failed(AskError::Unreachable("not asked".to_owned()));
        queries.iter().map(|_| answer()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_clone_is_told_apart_and_shows_no_password() {
        let folder = tempfile::tempdir().unwrap();
        let open = |repo: &Path| {
            let error = Local::open(repo, None).err().unwrap();
            not_opened(repo, &error).to_string()
        };
        let url = open(Path::new("https://u:s3cret@git.example.com/x.git"));
        assert_eq!(
            url,
            "https://git.example.com/x.git is no folder: this command reads a clone on this machine, bare or not; \
             `git clone` it and name that"
        );
        assert!(!open(Path::new("ssh://u:s3cret@x/y")).contains("s3cret"));
        assert!(open(Path::new("no/where")).starts_with("there is no no/where: name the folder"));
        let empty = open(folder.path());
        assert!(empty.contains(" is in no Git repository: "), "{empty}");
    }
}
