//! Drafts as commits in the object database: only trees along changed paths are written, nothing depends on the clock.

use std::path::Path;

use gix::ObjectId;
use gix::actor::Signature;
use gix::objs::tree::EntryKind;
use gix::objs::{Write, WriteTo};

use super::message;
use super::objects::{self, At, local};
use super::pack::{self, Objects};
use crate::domain::{CommitId, Person, RepoPath, Timestamp};
use crate::ports::{Draft, RepositoryError};

/// Up to here objects are files of their own; above, one pack. The same limit as `git`'s for what it fetches.
const MAX_LOOSE: usize = 100;

/// How writing ended.
#[derive(Debug)]
pub(super) enum Written {
    /// One commit per draft; a draft that changes nothing has its parent's.
    Commits {
        /// In the order of the drafts.
        ids: Vec<CommitId>,
        /// A pack that the object database has yet to take in before the commits exist.
        pack: Option<Vec<u8>>,
    },
    /// The tree holds something else where a file is to be written; nothing was.
    Blocked(String),
}

/// Makes the signature of a commit that has none.
pub(super) type Sign<'a> = &'a dyn Fn(Vec<u8>) -> Result<String, RepositoryError>;

/// Writes the drafts on top of `base`, each on the one before. A signature is part of what the next commit names as its
/// parent, so signing is one after the other, however many there are.
pub(super) fn commits(
    folder: &Path,
    base: &CommitId,
    drafts: &[Draft],
    author: &Person,
    committer: &Person,
    sign: Option<Sign<'_>>,
) -> Result<Written, RepositoryError> {
    let mut repo = objects::open(folder)?.with_object_memory();
    let mut parent = objects::object_id(base)?;
    let mut tree = objects::commit(&repo, parent)?.tree;
    // Not the editor of `repo`: it refuses to write a folder in which somebody else has an entry with an odd name.
    let root = root_of(&repo, tree)?;
    let mut editor = gix::objs::tree::Editor::new(root, &repo.objects, repo.object_hash());
    let mut ids = Vec::with_capacity(drafts.len());
    let mut steps = Vec::new();
    for draft in drafts {
        for (path, content) in &draft.changes {
            let kind = match kind_at(&repo, tree, path)? {
                Ok(kind) => kind,
                Err(why) => return Ok(Written::Blocked(format!("{}: {why}", draft.canary))),
            };
            match (content, kind) {
                (Some(bytes), kind) => {
                    let blob = repo.write_blob(bytes).map_err(local)?;
                    let kind = kind.unwrap_or(EntryKind::Blob);
                    editor
                        .upsert(path.as_str().split('/'), kind, blob.detach())
                        .map_err(unwritable)?;
                }
                (None, Some(_)) => {
                    editor
                        .remove(path.as_str().split('/'))
                        .map_err(unwritable)?;
                }
                (None, None) => {}
            }
        }
        let edited = editor
            .write(|tree| repo.write_object(tree).map(gix::Id::detach))
            .map_err(local)?;
        if edited != tree {
            steps.push((tree, edited));
            tree = edited;
            let mut commit = gix::objs::Commit {
                tree,
                parents: [parent].into_iter().collect(),
                author: signature(author, draft.at),
                committer: signature(committer, draft.at),
                encoding: None,
                message: message::clean(&draft.message).into(),
                extra_headers: Vec::new(),
            };
            if let Some(sign) = sign {
                let mut unsigned = Vec::new();
                commit
                    .write_to(&mut unsigned)
                    .map_err(|error| RepositoryError::Local(error.to_string()))?;
                let signature = sign(unsigned)?;
                commit
                    .extra_headers
                    .push(("gpgsig".into(), signature.into()));
            }
            parent = repo.write_object(&commit).map_err(local)?.detach();
        }
        ids.push(objects::commit_id(parent));
    }
    drop(editor);
    let new: Objects = match repo.objects.take_object_memory() {
        Some(mut memory) => memory.drain().collect(),
        None => Objects::new(),
    };
    if new.len() > MAX_LOOSE {
        let pack = Some(pack::pack(&new, &steps)?);
        return Ok(Written::Commits { ids, pack });
    }
    for (kind, content) in new.values() {
        repo.objects.write_buf(*kind, content).map_err(local)?;
    }
    Ok(Written::Commits { ids, pack: None })
}

fn root_of(repo: &gix::Repository, tree: ObjectId) -> Result<gix::objs::Tree, RepositoryError> {
    let root = repo.find_tree(tree).map_err(local)?;
    Ok(root.decode().map_err(unwritable)?.into())
}

fn unwritable(error: impl std::fmt::Display) -> RepositoryError {
    RepositoryError::Local(error.to_string())
}

/// The kind of the file at a path; `None` when there is none; `Err` in words when a file cannot be there.
fn kind_at(
    repo: &gix::Repository,
    tree: ObjectId,
    path: &RepoPath,
) -> Result<Result<Option<EntryKind>, String>, RepositoryError> {
    Ok(match objects::look_up(repo, tree, path)? {
        At::Nothing => Ok(None),
        At::Blocked(at) => Err(format!(
            "`{at}` is not a folder, so `{path}` cannot be written"
        )),
        At::Entry((mode, _)) => match mode.kind() {
            kind @ (EntryKind::Blob | EntryKind::BlobExecutable) => Ok(Some(kind)),
            EntryKind::Tree => Err(format!("`{path}` is a folder, not a file")),
            EntryKind::Link => Err(format!("`{path}` is a symbolic link, not a file")),
            EntryKind::Commit => Err(format!("`{path}` is a submodule, not a file")),
        },
    })
}

fn signature(person: &Person, at: Timestamp) -> Signature {
    Signature {
        name: name(&person.name).into(),
        email: name(&person.email).into(),
        time: gix::date::Time::new(at.timestamp().max(0), 0),
    }
}

/// Without the characters that delimit the parts of a signature.
fn name(text: &str) -> String {
    let kept: String = text
        .chars()
        .filter(|c| !c.is_control() && !matches!(c, '<' | '>'))
        .collect();
    kept.trim().to_owned()
}
