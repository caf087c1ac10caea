//! The history of one canary, for people.

use std::collections::{BTreeSet, BinaryHeap};

use gix::ObjectId;

use super::message;
use super::objects::{self, Commit};
use super::paths::Trie;
use crate::domain::Timestamp;
use crate::ports::{RepositoryError, Watch};

/// Commits about one canary, for people: every commit that names it whoever made it, and every commit that changed one of its
/// paths against all of its parents. Newest first.
pub(super) fn about(
    repo: &gix::Repository,
    head: ObjectId,
    watch: &Watch,
    limit: usize,
) -> Result<Vec<Commit>, RepositoryError> {
    let mut trie = Trie::default();
    for path in std::iter::once(&watch.folder).chain(&watch.inputs) {
        trie.insert(path, 0);
    }
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([head]);
    let mut order = BinaryHeap::from([(Timestamp::default(), head)]);
    while let Some((_, id)) = order.pop() {
        if found.len() >= limit {
            break;
        }
        let commit = objects::commit(repo, id)?;
        let mut touches = true;
        for parent in commit
            .parents
            .iter()
            .map(Some)
            .chain(commit.parents.is_empty().then_some(None))
        {
            let parent = parent
                .map(|parent| objects::commit(repo, *parent))
                .transpose()?;
            let mut changed = BTreeSet::new();
            let old = parent.as_ref().map(|parent| parent.tree);
            trie.changed(repo, old, Some(commit.tree), &mut changed)?;
            touches &= !changed.is_empty();
            if let Some(parent) = parent
                && seen.insert(parent.id)
            {
                order.push((parent.committed, parent.id));
            }
        }
        if touches || message::canaries(&commit.message).contains(&watch.canary) {
            found.push(commit);
        }
    }
    Ok(found)
}
