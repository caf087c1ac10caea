//! The folder of our bare copy: whether it is ours and sound, its references, and emptying it.

use std::path::Path;

use gix::refs::transaction::PreviousValue;

use super::objects::{self, commit_id, local, local_io};
use crate::domain::CommitId;
use crate::ports::RepositoryError;

/// Where the remote's branch was when we last asked.
pub(super) const TRACKED: &str = "refs/serin/remote";
/// The last head that was accepted: what a rewritten history is noticed by, and what keeps the old one from being lost.
pub(super) const SEEN: &str = "refs/serin/seen";
/// File that makes a folder ours, and says of which branch it is a copy.
pub(super) const MARKER: &str = "serin-copy";
/// The last head whose signature was found good. Only ours to move, so that a restart knows it without asking the branch.
pub(super) const VERIFIED: &str = "refs/serin/verified";

/// State of the folder of our copy.
pub(super) enum Copy {
    /// Nothing there yet.
    Fresh,
    /// Ours, and readable.
    Sound {
        tracked: Option<CommitId>,
        seen: Option<CommitId>,
        verified: Option<CommitId>,
    },
    /// Ours, and not usable: not readable, or the copy of another branch.
    Damaged { seen: Option<CommitId> },
}

pub(super) fn inspect(folder: &Path, identity: &str) -> Result<Copy, RepositoryError> {
    let is_empty = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(local_io(folder, &error)),
    };
    if is_empty {
        return Ok(Copy::Fresh);
    }
    let Ok(marker) = std::fs::read_to_string(folder.join(MARKER)) else {
        return Err(RepositoryError::Local(format!(
            "{} holds something else; name an empty folder for the copy",
            folder.display()
        )));
    };
    let Some(noted) = marker.strip_prefix(identity) else {
        // The copy of something else: its head is nothing to compare with.
        return Ok(Copy::Damaged { seen: None });
    };
    let refs = objects::open(folder).and_then(|repo| {
        if !is_for_git(folder) {
            return Err(RepositoryError::Local("git cannot open it".to_owned()));
        }
        let refs = [TRACKED, SEEN, VERIFIED].map(|name| reference(&repo, name));
        let [tracked, seen, verified] = refs;
        let refs = [tracked?, seen?, verified?];
        for id in refs.iter().flatten() {
            let commit = objects::commit(&repo, objects::object_id(id)?)?;
            repo.find_tree(commit.tree).map_err(local)?;
        }
        Ok(refs)
    });
    let noted = || hex(noted);
    Ok(match refs {
        Ok([tracked, seen, verified]) => Copy::Sound {
            tracked,
            seen: seen.or_else(noted),
            verified,
        },
        Err(_) => Copy::Damaged {
            seen: seen_on_disk(folder).or_else(noted),
        },
    })
}

/// What the `git` program looks at before it takes a folder for a repository.
fn is_for_git(folder: &Path) -> bool {
    let head = std::fs::read_to_string(folder.join("HEAD")).unwrap_or_default();
    head.starts_with("ref: refs/")
        && folder.join("refs").is_dir()
        && folder.join("objects").is_dir()
}

/// The last head seen, from the files of a repository that may be too damaged to open.
fn seen_on_disk(folder: &Path) -> Option<CommitId> {
    let loose = std::fs::read_to_string(folder.join(SEEN)).unwrap_or_default();
    let packed = || {
        let packed = std::fs::read_to_string(folder.join("packed-refs")).ok()?;
        packed
            .lines()
            .find_map(|line| hex(line.strip_suffix(SEEN)?))
    };
    hex(&loose).or_else(packed)
}

fn hex(text: &str) -> Option<CommitId> {
    let text = text.trim();
    let id = gix::ObjectId::from_hex(text.as_bytes()).ok()?;
    Some(commit_id(id))
}

/// Removes all but the marker, which is what allows removing the rest.
pub(super) fn clear(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() == MARKER {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

pub(super) fn reference(
    repo: &gix::Repository,
    name: &str,
) -> Result<Option<CommitId>, RepositoryError> {
    let reference = repo.try_find_reference(name).map_err(local)?;
    Ok(reference
        .and_then(|r| r.try_id())
        .map(|id| commit_id(id.detach())))
}

pub(super) fn set_reference(
    repo: &gix::Repository,
    name: &str,
    id: gix::ObjectId,
) -> Result<(), RepositoryError> {
    repo.reference(name, id, PreviousValue::Any, "serin")
        .map(|_| ())
        .map_err(local)
}

/// Runs work that blocks on a thread where it may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RepositoryError> + Send + 'static,
) -> Result<T, RepositoryError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(RepositoryError::Local(format!("failed to finish: {error}"))))
}
