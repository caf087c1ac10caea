//! The YAML files of a tree. What was read for the last tree is not read again for the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use gix::ObjectId;
use gix::bstr::ByteSlice;
use gix::objs::tree::EntryKind;

use super::objects::{self, At, local};
use crate::domain::{BlobId, CommitId, RepoPath};
use crate::ports::{File, RepositoryError, Snapshot};

/// Files above this are not manifests that people write.
const MAX_FILE: u64 = 5 << 20;
/// First line of what Git LFS commits in place of a file.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1";
/// Folders below folders: deeper than any path that a file system takes.
const MAX_DEPTH: usize = 256;

/// What the present tree is made of. Whatever the next tree does not hold is dropped.
#[derive(Debug, Default)]
pub(super) struct Cache {
    folders: BTreeMap<ObjectId, Arc<Folder>>,
    files: BTreeMap<ObjectId, Content>,
}

/// Relevant entries of one tree object.
#[derive(Debug, Default)]
struct Folder {
    entries: Vec<(String, Item)>,
}

#[derive(Debug, Clone)]
enum Item {
    Folder(ObjectId),
    File(ObjectId),
    Skipped(&'static str),
}

#[derive(Debug, Clone)]
enum Content {
    Bytes(Arc<[u8]>),
    Skipped(String),
}

/// Reads the tree of a commit below `below`.
pub(super) fn read(
    repo: &gix::Repository,
    at: &CommitId,
    below: Option<&RepoPath>,
    cache: &mut Cache,
) -> Result<Snapshot, RepositoryError> {
    let tree = objects::commit(repo, objects::object_id(at)?)?.tree;
    let mut walk = Walk {
        repo,
        old: std::mem::take(cache),
        new: Cache::default(),
        snapshot: Snapshot {
            commit: at.clone(),
            files: BTreeMap::new(),
            skipped: Vec::new(),
        },
    };
    match below {
        None => walk.folder(tree, "", 0)?,
        Some(path) => match objects::look_up(repo, tree, path)? {
            At::Entry((mode, id)) if mode.is_tree() => walk.folder(id, path.as_str(), 0)?,
            At::Nothing | At::Blocked(_) | At::Entry(_) => walk.skip(
                path.as_str().to_owned(),
                "there is no such folder in this commit",
            ),
        },
    }
    *cache = walk.new;
    Ok(walk.snapshot)
}

struct Walk<'a> {
    repo: &'a gix::Repository,
    old: Cache,
    new: Cache,
    snapshot: Snapshot,
}

impl Walk<'_> {
    fn skip(&mut self, path: String, why: impl Into<String>) {
        self.snapshot.skipped.push((path, why.into()));
    }

    fn folder(&mut self, id: ObjectId, path: &str, depth: usize) -> Result<(), RepositoryError> {
        if depth > MAX_DEPTH {
            self.skip(path.to_owned(), "folders are nested too deeply");
            return Ok(());
        }
        let folder = match self
            .new
            .folders
            .get(&id)
            .or_else(|| self.old.folders.get(&id))
        {
            Some(known) => Arc::clone(known),
            None => Arc::new(self.decode(id)?),
        };
        self.new.folders.insert(id, Arc::clone(&folder));
        for (name, item) in &folder.entries {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}/{name}")
            };
            match item {
                Item::Folder(id) => self.folder(*id, &path, depth + 1)?,
                Item::File(id) => self.file(*id, path)?,
                Item::Skipped(why) => self.skip(path, *why),
            }
        }
        Ok(())
    }

    fn decode(&self, id: ObjectId) -> Result<Folder, RepositoryError> {
        let tree = self.repo.find_tree(id).map_err(local)?;
        let mut folder = Folder::default();
        for entry in tree.iter() {
            let entry = entry.map_err(local)?;
            let name = entry.filename();
            let is_yaml = name.ends_with(b".yaml") || name.ends_with(b".yml");
            let kind = entry.kind();
            let wanted = match kind {
                EntryKind::Tree | EntryKind::Commit => true,
                EntryKind::Blob | EntryKind::BlobExecutable | EntryKind::Link => is_yaml,
            };
            if !wanted {
                continue;
            }
            let text = name.to_str_lossy().into_owned();
            let item = match kind {
                _ if name.to_str().is_err() => Item::Skipped("the name is not UTF-8"),
                _ if RepoPath::new(text.as_str()).is_none() => {
                    Item::Skipped("the name cannot be a path")
                }
                EntryKind::Tree => Item::Folder(entry.object_id()),
                EntryKind::Blob | EntryKind::BlobExecutable => Item::File(entry.object_id()),
                EntryKind::Link => Item::Skipped("symbolic link"),
                EntryKind::Commit => Item::Skipped("submodule"),
            };
            folder.entries.push((text, item));
        }
        Ok(folder)
    }

    fn file(&mut self, id: ObjectId, path: String) -> Result<(), RepositoryError> {
        let content = match self.new.files.get(&id).or_else(|| self.old.files.get(&id)) {
            Some(known) => known.clone(),
            None => self.content(id)?,
        };
        self.new.files.insert(id, content.clone());
        match (content, RepoPath::new(path.as_str())) {
            (Content::Bytes(content), Some(path)) => {
                let blob = BlobId(id.to_string());
                self.snapshot.files.insert(path, File { blob, content });
            }
            (Content::Skipped(why), _) => self.skip(path, why),
            (Content::Bytes(_), None) => self.skip(path, "the name cannot be a path"),
        }
        Ok(())
    }

    fn content(&self, id: ObjectId) -> Result<Content, RepositoryError> {
        let size = self.repo.find_header(id).map_err(local)?.size();
        if size > MAX_FILE {
            return Ok(Content::Skipped(format!(
                "{size} bytes, more than {MAX_FILE}"
            )));
        }
        let mut blob = self.repo.find_blob(id).map_err(local)?;
        let bytes = blob.take_data();
        Ok(if bytes.starts_with(LFS_POINTER) {
            Content::Skipped("Git LFS pointer".to_owned())
        } else {
            Content::Bytes(bytes.into())
        })
    }
}
