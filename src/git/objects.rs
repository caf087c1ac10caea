//! What we need of `gix`: opening, finding, comparing ancestry, and its errors in our words.
//!
//! `gix` is built without its thread-safe half, so a repository is opened for each piece of work and stays on that thread.

use std::path::Path;

use gix::ObjectId;
use gix::bstr::{BStr, ByteSlice};
use gix::objs::tree::EntryMode;
use gix::sec::Trust;

use crate::domain::{CommitId, Person, RepoPath, Timestamp};
use crate::ports::RepositoryError;

/// Decoded objects that are kept while a piece of work runs: root trees of neighbouring commits are read twice.
const CACHE_BYTES: usize = 16 << 20;

/// Mode and object of a tree entry.
pub(super) type Entry = (EntryMode, ObjectId);

/// A commit, as far as walks look at it.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) id: ObjectId,
    pub(super) tree: ObjectId,
    pub(super) parents: Vec<ObjectId>,
    pub(super) author: Person,
    pub(super) authored: Timestamp,
    pub(super) committer: Person,
    pub(super) committed: Timestamp,
    pub(super) message: String,
}

/// Opens a repository that is ours: only its own configuration counts, whoever owns the folder.
pub(super) fn open(folder: &Path) -> Result<gix::Repository, RepositoryError> {
    let options = gix::open::Options::isolated()
        .open_path_as_is(true)
        .with(Trust::Full);
    let mut repo: gix::Repository = options.open(folder).map_err(local)?.into();
    repo.object_cache_size(CACHE_BYTES);
    Ok(repo)
}

/// Opens the repository that holds this folder: bare, or with a work tree above it.
pub(super) fn discover(folder: &Path) -> Result<gix::Repository, RepositoryError> {
    let mut repo = gix::discover_opts(
        folder,
        gix::discover::upwards::Options::default(),
        gix::open::Options::isolated(),
    )
    .map_err(local)?;
    repo.object_cache_size(CACHE_BYTES);
    Ok(repo)
}

/// Our own copy cannot be used; all causes in one line.
pub(super) fn local(error: impl Into<gix::Error>) -> RepositoryError {
    let error: gix::Error = error.into();
    let mut causes: Vec<String> = Vec::new();
    for cause in error.iter_errors() {
        let text = cause.to_string();
        if !causes.contains(&text) {
            causes.push(text);
        }
    }
    RepositoryError::Local(causes.join(": "))
}

/// The same for errors of the standard library.
pub(super) fn local_io(folder: &Path, error: &std::io::Error) -> RepositoryError {
    RepositoryError::Local(format!("{}: {error}", folder.display()))
}

/// The id in `gix`' form.
pub(super) fn object_id(id: &CommitId) -> Result<ObjectId, RepositoryError> {
    ObjectId::from_hex(id.as_str().as_bytes())
        .map_err(|_| RepositoryError::Local(format!("`{id}` is not a commit id")))
}

/// The id in our form.
pub(super) fn commit_id(id: ObjectId) -> CommitId {
    CommitId::new(id.to_string())
}

/// Reads a commit. Times and names that cannot be read become the epoch and empty: old histories hold such commits.
pub(super) fn commit(repo: &gix::Repository, id: ObjectId) -> Result<Commit, RepositoryError> {
    let object = repo.find_commit(id).map_err(local)?;
    let decoded = object.decode().map_err(local)?;
    let (author, authored) = signature(decoded.author().ok());
    let (committer, committed) = signature(decoded.committer().ok());
    Ok(Commit {
        id,
        tree: decoded.tree(),
        parents: if is_cut(repo, id)? {
            Vec::new()
        } else {
            decoded.parents().collect()
        },
        author,
        authored,
        committer,
        committed,
        message: decoded.message.to_str_lossy().into_owned(),
    })
}

/// Whether the history of a shallow clone ends here.
pub(super) fn is_cut(repo: &gix::Repository, id: ObjectId) -> Result<bool, RepositoryError> {
    let cuts = repo.shallow_commits().map_err(local)?;
    Ok(cuts.is_some_and(|cuts| cuts.contains(&id)))
}

fn signature(signature: Option<gix::actor::SignatureRef<'_>>) -> (Person, Timestamp) {
    let text = |bytes: &BStr| bytes.to_str_lossy().into_owned();
    let person = Person {
        name: signature.map(|s| text(s.name)).unwrap_or_default(),
        email: signature.map(|s| text(s.email)).unwrap_or_default(),
    };
    let at = signature
        .and_then(|s| Timestamp::from_timestamp(s.seconds(), 0))
        .unwrap_or_default();
    (person, at)
}

/// Whether `old` is `new` or an ancestor of it. A commit that is not here is no ancestor of one whose history is.
pub(super) fn is_ancestor(
    repo: &gix::Repository,
    old: ObjectId,
    new: ObjectId,
) -> Result<bool, RepositoryError> {
    if old == new {
        return Ok(true);
    }
    if !repo.has_object(old) {
        return Ok(false);
    }
    let base = repo.merge_base(old, new).map_err(local)?;
    Ok(base.is_some_and(|base| base.detach() == old))
}

/// The folder at a path of a commit, or its whole tree; `None` when there is no such folder.
pub(super) fn tree_below(
    repo: &gix::Repository,
    at: &CommitId,
    below: Option<&RepoPath>,
) -> Result<Option<ObjectId>, RepositoryError> {
    let tree = commit(repo, object_id(at)?)?.tree;
    let Some(path) = below else {
        return Ok(Some(tree));
    };
    Ok(match look_up(repo, tree, path)? {
        At::Entry((mode, id)) if mode.is_tree() => Some(id),
        At::Entry(_) | At::Nothing | At::Blocked(_) => None,
    })
}

/// What is at a path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    /// Nothing.
    Nothing,
    /// Something that is no folder stands where a folder on the way would be.
    Blocked(String),
    /// An entry of any kind.
    Entry(Entry),
}

/// Looks a path up.
pub(super) fn look_up(
    repo: &gix::Repository,
    root: ObjectId,
    path: &RepoPath,
) -> Result<At, RepositoryError> {
    let mut tree = root;
    let mut rest = path.as_str();
    loop {
        let (name, below) = match rest.split_once('/') {
            Some((name, below)) => (name, Some(below)),
            None => (rest, None),
        };
        let object = repo.find_tree(tree).map_err(local)?;
        let found = object
            .find_entry(name)
            .map(|entry| (entry.mode(), entry.object_id()));
        match (found, below) {
            (None, _) => return Ok(At::Nothing),
            (Some(entry), None) => return Ok(At::Entry(entry)),
            (Some((mode, id)), Some(below)) if mode.is_tree() => {
                tree = id;
                rest = below;
            }
            (Some(_), Some(below)) => {
                let on_the_way = path.as_str().len() - below.len() - 1;
                return Ok(At::Blocked(path.as_str()[..on_the_way].to_owned()));
            }
        }
    }
}
