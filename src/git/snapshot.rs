//! The YAML files of a tree, made from those of the tree that was read before: what both have in common is neither listed
//! nor read again, however large it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gix::ObjectId;
use gix::bstr::{BStr, BString, ByteSlice};
use gix::objs::tree::EntryKind;

use super::objects::{self, Entry, local};
use super::partial::Ids;
use super::paths::differences;
use crate::domain::{BlobId, CommitId, RepoPath};
use crate::ports::{Files, RepositoryError, Snapshot};

#[cfg(test)]
mod tests;

/// Files above this are not manifests that people write.
pub(super) const MAX_FILE: u64 = 5 << 20;
/// First line of what Git LFS commits in place of a file.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1";
/// Folders below folders: deeper than any path that a file system takes.
const MAX_DEPTH: usize = 256;

/// What was read before.
#[derive(Debug, Default)]
pub(super) struct Cache {
    last: Option<Listing>,
    contents: Contents,
}

impl Cache {
    /// A file of the last tree by its content's identity.
    pub(super) fn content(&self, id: ObjectId) -> Option<&Arc<[u8]>> {
        self.contents.known.get(&id)
    }
}

/// All that one tree holds.
#[derive(Debug)]
struct Listing {
    below: Option<RepoPath>,
    tree: ObjectId,
    files: Files,
    /// Why by path, which need not be text.
    skipped: BTreeMap<BString, String>,
}

/// The files of the last tree by content.
#[derive(Debug, Default)]
struct Contents {
    known: BTreeMap<ObjectId, Arc<[u8]>>,
    /// Those that a path of the tree before had and lost.
    lost: BTreeSet<ObjectId>,
    /// How many were read so far.
    read: u64,
    /// Files that a partial copy lacks because of their size; `None` for a whole one.
    without: Option<Arc<Ids>>,
    /// Those that it lacks for a reason yet to be found.
    lacking: Ids,
}

/// What came of reading a tree.
#[derive(Debug)]
pub(super) enum Reading {
    /// All that is to be had.
    Whole(Snapshot),
    /// Nothing: these files are in the tree, but not in the repository, and nobody knows why.
    Lacking(Ids),
}

/// Reads the tree of a commit below `below`. `without` are the files that a partial copy is known to lack; in a whole one, each
/// that is not there is an error.
pub(super) fn read(
    repo: &gix::Repository,
    at: &CommitId,
    below: Option<&RepoPath>,
    without: Option<&Arc<Ids>>,
    cache: &mut Cache,
) -> Result<Reading, RepositoryError> {
    let root = objects::tree_below(repo, at, below)?;
    let (Some(root), top) = (root, below.map_or("", RepoPath::as_str)) else {
        let why = "there is no such folder in this commit".to_owned();
        let skipped = below.map(|path| (path.to_string(), why));
        return Ok(Reading::Whole(Snapshot {
            commit: at.clone(),
            files: Files::default(),
            skipped: skipped.into_iter().collect(),
        }));
    };
    cache.contents.without = without.cloned();
    let last = cache.last.take();
    let last = last.filter(|last| last.below.as_ref() == below);
    let patched = last.and_then(|last| cache.contents.patch(repo, last, root, top).ok());
    let listing = match patched {
        Some(listing) => listing,
        // Nothing was read before, or what was is no longer there to compare with.
        None => cache.contents.list(repo, root, below)?,
    };
    let lacking = std::mem::take(&mut cache.contents.lacking);
    if !lacking.is_empty() {
        return Ok(Reading::Lacking(lacking));
    }
    let skipped = listing.skipped.iter();
    let snapshot = Snapshot {
        commit: at.clone(),
        files: Arc::clone(&listing.files),
        skipped: skipped
            .map(|(path, why)| (path.to_str_lossy().into_owned(), why.clone()))
            .collect(),
    };
    cache.last = Some(listing);
    Ok(Reading::Whole(snapshot))
}

impl Contents {
    /// Reads a whole tree. What is known is not read again.
    fn list(
        &mut self,
        repo: &gix::Repository,
        tree: ObjectId,
        below: Option<&RepoPath>,
    ) -> Result<Listing, RepositoryError> {
        let old = std::mem::take(&mut self.known);
        self.lost.clear();
        let mut files = BTreeMap::new();
        let mut patch = Patch {
            repo,
            contents: self,
            spare: old,
            files: &mut files,
            skipped: BTreeMap::new(),
        };
        patch.folder(None, tree, below.map_or("", RepoPath::as_str), 0)?;
        let skipped = patch.skipped;
        Ok(Listing {
            below: below.cloned(),
            tree,
            files: Arc::new(files),
            skipped,
        })
    }

    /// Turns what was read of another tree into what `tree` holds.
    fn patch(
        &mut self,
        repo: &gix::Repository,
        mut listing: Listing,
        tree: ObjectId,
        top: &str,
    ) -> Result<Listing, RepositoryError> {
        if listing.tree == tree {
            return Ok(listing);
        }
        self.forget();
        let mut patch = Patch {
            repo,
            contents: self,
            spare: BTreeMap::new(),
            files: Arc::make_mut(&mut listing.files),
            skipped: std::mem::take(&mut listing.skipped),
        };
        patch.folder(Some(listing.tree), tree, top, 0)?;
        listing.skipped = patch.skipped;
        listing.tree = tree;
        Ok(listing)
    }

    /// Forgets what no path has any more. Whoever still looks at the tree before keeps it for one tree longer, so that what
    /// is taken back at once is not read again either.
    fn forget(&mut self) {
        let known = &mut self.known;
        self.lost.retain(|id| {
            let is_free = known
                .get(id)
                .is_none_or(|content| Arc::strong_count(content) == 1);
            if is_free {
                known.remove(id);
            }
            !is_free
        });
    }
}

/// What an entry is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Folder(ObjectId),
    File(ObjectId),
    Skipped(&'static str),
}

impl Item {
    /// `None` for what is none of ours.
    fn of(name: &BStr, (mode, id): Entry) -> Option<Self> {
        let is_yaml = name.ends_with(b".yaml") || name.ends_with(b".yml");
        let kind = mode.kind();
        match kind {
            EntryKind::Tree | EntryKind::Commit => {}
            EntryKind::Blob | EntryKind::BlobExecutable | EntryKind::Link if is_yaml => {}
            EntryKind::Blob | EntryKind::BlobExecutable | EntryKind::Link => return None,
        }
        let Ok(text) = name.to_str() else {
            return Some(Self::Skipped("the name is not UTF-8"));
        };
        if RepoPath::new(text).is_none() {
            return Some(Self::Skipped("the name cannot be a path"));
        }
        Some(match kind {
            EntryKind::Tree => Self::Folder(id),
            EntryKind::Blob | EntryKind::BlobExecutable => Self::File(id),
            EntryKind::Link => Self::Skipped("symbolic link"),
            EntryKind::Commit => Self::Skipped("submodule"),
        })
    }
}

/// A listing on its way from one tree to another.
struct Patch<'a> {
    repo: &'a gix::Repository,
    contents: &'a mut Contents,
    /// Contents that are taken over when a path has them.
    spare: BTreeMap<ObjectId, Arc<[u8]>>,
    files: &'a mut BTreeMap<RepoPath, (BlobId, Arc<[u8]>)>,
    skipped: BTreeMap<BString, String>,
}

impl Patch<'_> {
    fn folder(
        &mut self,
        old: Option<ObjectId>,
        new: ObjectId,
        path: &str,
        depth: usize,
    ) -> Result<(), RepositoryError> {
        if depth > MAX_DEPTH {
            let why = "folders are nested too deeply".to_owned();
            self.skipped.insert(path.into(), why);
            return Ok(());
        }
        for (name, (old, new)) in differences(self.repo, old, Some(new))? {
            let old = old.and_then(|entry| Item::of(name.as_bstr(), entry));
            let new = new.and_then(|entry| Item::of(name.as_bstr(), entry));
            if old == new {
                continue;
            }
            let mut below = BString::from(path);
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend_from_slice(&name);
            match (old, new) {
                (Some(Item::Folder(_)), Some(Item::Folder(_))) | (None, _) => {}
                (Some(Item::Folder(_)), _) => self.remove_folder(&below),
                (Some(Item::File(_) | Item::Skipped(_)), _) => self.remove_file(&below),
            }
            match (new, below.to_str()) {
                (Some(Item::Folder(id)), Ok(below)) => {
                    let old = match old {
                        Some(Item::Folder(old)) => Some(old),
                        Some(Item::File(_) | Item::Skipped(_)) | None => None,
                    };
                    self.folder(old, id, below, depth + 1)?;
                }
                (Some(Item::File(id)), Ok(below)) => self.file(id, below)?,
                (Some(Item::Skipped(why)), _) => drop(self.skipped.insert(below, why.to_owned())),
                (_, Err(_)) | (None, _) => {}
            }
        }
        Ok(())
    }

    fn remove_file(&mut self, path: &BString) {
        self.skipped.remove(path);
        if let Some(path) = path.to_str().ok().and_then(RepoPath::new)
            && let Some((blob, _)) = self.files.remove(&path)
        {
            self.lose(&blob);
        }
    }

    fn remove_folder(&mut self, path: &BString) {
        // All that is below a path lies between it with `/` and it with the character after `/`.
        let [from, to] =
            [b'/', b'/' + 1].map(|end| BString::from([path.as_slice(), &[end]].concat()));
        let skipped = self.skipped.range(from..to.clone());
        let skipped: Vec<BString> = skipped.map(|(path, _)| path.clone()).collect();
        for path in skipped.iter().chain([path]) {
            self.skipped.remove(path);
        }
        let Some(folder) = path.to_str().ok().and_then(RepoPath::new) else {
            return;
        };
        let files = self.files.range(folder.clone()..).map(|(path, _)| path);
        let files = files.take_while(|path| path.as_str().as_bytes() < to.as_slice());
        let files: Vec<RepoPath> = files
            .filter(|path| path.is_within(&folder))
            .cloned()
            .collect();
        for path in files {
            if let Some((blob, _)) = self.files.remove(&path) {
                self.lose(&blob);
            }
        }
    }

    fn lose(&mut self, blob: &BlobId) {
        self.contents
            .lost
            .extend(ObjectId::from_hex(blob.0.as_bytes()));
    }

    fn file(&mut self, id: ObjectId, path: &str) -> Result<(), RepositoryError> {
        match (self.content(id)?, RepoPath::new(path)) {
            (Ok(content), Some(path)) => {
                let blob = BlobId(id.to_string().into());
                self.files.insert(path, (blob, content));
            }
            (Err(why), _) => drop(self.skipped.insert(path.into(), why)),
            (Ok(_), None) => {
                let why = "the name cannot be a path".to_owned();
                self.skipped.insert(path.into(), why);
            }
        }
        Ok(())
    }

    /// The bytes of a file, or why it is left out.
    fn content(&mut self, id: ObjectId) -> Result<Result<Arc<[u8]>, String>, RepositoryError> {
        if let Some(known) = self.contents.known.get(&id) {
            return Ok(Ok(Arc::clone(known)));
        }
        let content = match self.spare.remove(&id) {
            Some(spare) => spare,
            None => match self.read(id)? {
                Ok(read) => read,
                Err(why) => return Ok(Err(why)),
            },
        };
        self.contents.known.insert(id, Arc::clone(&content));
        Ok(Ok(content))
    }

    fn read(&mut self, id: ObjectId) -> Result<Result<Arc<[u8]>, String>, RepositoryError> {
        self.contents.read += 1;
        let header = self.repo.try_find_header(id).map_err(local)?;
        let Some(size) = header.map(|header| header.size()) else {
            return self.not_here(id);
        };
        if size > MAX_FILE {
            return Ok(Err(format!("{size} bytes, more than {MAX_FILE}")));
        }
        let mut blob = self.repo.find_blob(id).map_err(local)?;
        let bytes = blob.take_data();
        Ok(if bytes.starts_with(LFS_POINTER) {
            Err("Git LFS pointer".to_owned())
        } else {
            Ok(bytes.into())
        })
    }

    fn not_here(&mut self, id: ObjectId) -> Result<Result<Arc<[u8]>, String>, RepositoryError> {
        match &self.contents.without {
            Some(without) if without.contains(&id) => {
                Ok(Err(format!("more than {MAX_FILE} bytes")))
            }
            Some(_) => {
                self.contents.lacking.insert(id);
                Ok(Err("not here".to_owned()))
            }
            None => Err(RepositoryError::Local(format!(
                "the content {id} is not in this repository; if it was cloned with a filter, `git fetch --refetch --no-filter` \
                 brings all"
            ))),
        }
    }
}
