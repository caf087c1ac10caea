//! Which of many watched paths differ between two trees, at the price of what differs.

use std::collections::{BTreeMap, BTreeSet};

use gix::ObjectId;
use gix::bstr::{BString, ByteSlice};
use gix::objs::TreeRefIter;
use gix::objs::tree::{EntryRef, name_order};

use super::objects::{Entry, local};
use crate::domain::RepoPath;
use crate::ports::RepositoryError;

/// Watched paths by their parts. A path is a number that the owner of the trie chose.
#[derive(Debug, Default)]
pub(super) struct Trie {
    watched: Vec<usize>,
    children: BTreeMap<BString, Self>,
}

/// The two sides of an entry that differs.
pub(super) type Sides = (Option<Entry>, Option<Entry>);

impl Trie {
    /// Watches a path under this number.
    pub(super) fn insert(&mut self, path: &RepoPath, number: usize) {
        let leaf = path.as_str().split('/').fold(self, |node, part| {
            node.children.entry(part.into()).or_default()
        });
        leaf.watched.push(number);
    }

    /// Adds the numbers of the paths that differ; `None` is the empty tree.
    pub(super) fn changed(
        &self,
        repo: &gix::Repository,
        old: Option<ObjectId>,
        new: Option<ObjectId>,
        into: &mut BTreeSet<usize>,
    ) -> Result<(), RepositoryError> {
        if old == new {
            return Ok(());
        }
        for (name, (old, new)) in differences(repo, old, new)? {
            if let Some(child) = self.children.get(&name) {
                into.extend(&child.watched);
                if !child.children.is_empty() {
                    child.changed(repo, tree_of(old), tree_of(new), into)?;
                }
            }
        }
        Ok(())
    }
}

/// Adds the paths of files that differ below a folder, `limit` at most.
pub(super) fn changed_files(
    repo: &gix::Repository,
    folder: &RepoPath,
    old: Option<ObjectId>,
    new: Option<ObjectId>,
    limit: usize,
    into: &mut Vec<RepoPath>,
) -> Result<(), RepositoryError> {
    for (name, (old, new)) in differences(repo, old, new)? {
        if into.len() >= limit {
            break;
        }
        let Some(path) = name.to_str().ok().and_then(|name| folder.join(name)) else {
            continue;
        };
        let is_file = |entry: &Option<Entry>| entry.is_some_and(|(mode, _)| !mode.is_tree());
        if is_file(&old) || is_file(&new) {
            into.push(path.clone());
        }
        let trees = (tree_of(old), tree_of(new));
        if trees.0 != trees.1 {
            changed_files(repo, &path, trees.0, trees.1, limit, into)?;
        }
    }
    Ok(())
}

/// The object of an entry that is a folder.
pub(super) fn tree_of(entry: Option<Entry>) -> Option<ObjectId> {
    entry.filter(|(mode, _)| mode.is_tree()).map(|(_, id)| id)
}

/// Entries that differ, by name. A file that became a folder is one entry with both sides.
pub(super) fn differences(
    repo: &gix::Repository,
    old: Option<ObjectId>,
    new: Option<ObjectId>,
) -> Result<BTreeMap<BString, Sides>, RepositoryError> {
    let tree = |id: Option<ObjectId>| id.map(|id| repo.find_tree(id)).transpose().map_err(local);
    let (old, new) = (tree(old)?, tree(new)?);
    let (old, new) = (entries(old.as_ref())?, entries(new.as_ref())?);
    let (mut left, mut right) = (old.iter().peekable(), new.iter().peekable());
    let mut found: BTreeMap<BString, Sides> = BTreeMap::new();
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return Ok(found),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => {
                name_order(a.filename, a.mode.is_tree(), b.filename, b.mode.is_tree())
            }
        };
        let a = if order.is_le() { left.next() } else { None };
        let b = if order.is_ge() { right.next() } else { None };
        if let (Some(a), Some(b)) = (a, b)
            && (a.mode, a.oid) == (b.mode, b.oid)
        {
            continue;
        }
        if let Some(entry) = a {
            found.entry(entry.filename.to_owned()).or_default().0 = Some(sides_of(entry));
        }
        if let Some(entry) = b {
            found.entry(entry.filename.to_owned()).or_default().1 = Some(sides_of(entry));
        }
    }
}

fn entries<'t>(tree: Option<&'t gix::Tree<'_>>) -> Result<Vec<EntryRef<'t>>, RepositoryError> {
    let Some(tree) = tree else {
        return Ok(Vec::new());
    };
    let entries = TreeRefIter::from_bytes(&tree.data, tree.id.kind());
    entries.entries().map_err(local)
}

fn sides_of(entry: &EntryRef<'_>) -> Entry {
    (entry.mode, entry.oid.to_owned())
}
