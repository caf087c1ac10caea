//! Who changed what since our last commit on each canary: one walk for all of them.
//!
//! Follows history as `git log -- <path>` does, for each path on its own: where a path equals that of a parent, only this
//! parent is followed, so that the side of a merge which brought nothing is never looked at, whichever side it is. All paths
//! that go the same way share one visit of each commit; a visit costs what the commit changed. Answers at the last head are
//! kept: a path whose walk arrives there has the rest of its history already.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use gix::ObjectId;

use super::message;
use super::objects::{self, At, Commit, commit_id, is_ancestor, local, look_up};
use super::paths::{Trie, changed_files, tree_of};
use super::snapshot::Cache;
use crate::domain::{CanaryId, CommitId, RepoPath, Timestamp, files};
use crate::ports::{ForeignCommit, Lineage, OurCommit, RepositoryError, Watch};

/// Commits that are looked at for a path that may have no answer: an input nobody changed, a folder that is not there.
/// A folder that exists was made by a commit of ours, so the search for that has no limit.
const MAX_VAIN: usize = 10_000;
/// Commits of people on one folder that are reported, the newest first.
const MAX_FOREIGN: usize = 100;
/// Files of one commit that are named.
const MAX_PATHS: usize = 50;

/// The answers at one head.
#[derive(Debug, Default)]
pub(super) struct Memo {
    head: Option<ObjectId>,
    /// Raised with each walk: ranks of later walks are above those of earlier ones.
    walks: u64,
    answers: BTreeMap<CanaryId, Answer>,
}

#[derive(Debug, Clone)]
struct Answer {
    watch: Watch,
    ours: Option<Arc<OurCommit>>,
    folder: Vec<ForeignCommit>,
    /// By input, in the order of the watch.
    inputs: Vec<Option<Ranked>>,
}

/// A commit with its place in the order of all commits of a branch; higher is newer.
#[derive(Debug, Clone)]
struct Ranked {
    rank: u64,
    commit: ForeignCommit,
}

/// Answers for these watches at `head`, whose tree the cache may hold. `us` is the email address of our committer.
pub(super) fn lineage(
    (repo, cache): (&gix::Repository, &Cache),
    head: &CommitId,
    watches: &[Watch],
    us: &str,
    memo: &mut Memo,
) -> Result<BTreeMap<CanaryId, Lineage>, RepositoryError> {
    let head = objects::object_id(head)?;
    let mut walk = Walk::new(repo, watches, us, std::mem::take(memo));
    walk.run(head)?;
    walk.finish(head, memo, cache)?;
    Ok(memo
        .answers
        .iter()
        .map(|(canary, answer)| (canary.clone(), answer.lineage()))
        .collect())
}

impl Memo {
    /// What is known for a watch; nothing when it watches something else now.
    fn answer(&self, watch: &Watch) -> Option<&Answer> {
        self.answers
            .get(&watch.canary)
            .filter(|answer| answer.watch == *watch)
    }
}

impl Answer {
    fn lineage(&self) -> Lineage {
        let newest = self.inputs.iter().flatten().max_by_key(|input| input.rank);
        let input = newest.map(|newest| {
            let mut commit = newest.commit.clone();
            let same = self
                .inputs
                .iter()
                .flatten()
                .filter(|i| i.commit.id == commit.id);
            commit.paths = same.flat_map(|i| i.commit.paths.clone()).collect();
            commit
        });
        Lineage {
            ours: self.ours.clone(),
            folder: self.folder.clone(),
            input,
        }
    }
}

/// A path that is followed: the folder of a watch, or one of its inputs.
#[derive(Debug, Clone, Copy)]
struct Interest {
    watch: usize,
    /// `None`: the folder.
    input: Option<usize>,
}

/// Interests on their way to one commit.
#[derive(Debug, Default)]
struct Bundle {
    /// Folders that exist: looked for without limit.
    folders: BTreeSet<usize>,
    /// All others.
    vain: BTreeSet<usize>,
}

/// What was found for one watch in this walk.
#[derive(Debug, Default)]
struct Found {
    /// More than one only when the folder's history forks.
    ours: Vec<ObjectId>,
    folder: Vec<ForeignCommit>,
    inputs: Vec<Option<Ranked>>,
    /// Arrived at the last head: this part is known.
    known: Option<Answer>,
}

struct Walk<'a> {
    repo: &'a gix::Repository,
    watches: &'a [Watch],
    us: &'a str,
    memo: Memo,
    trie: Trie,
    interests: Vec<Interest>,
    /// Folder interest by canary.
    by_canary: BTreeMap<&'a CanaryId, usize>,
    found: Vec<Found>,
    waiting: BTreeMap<ObjectId, Bundle>,
    order: BinaryHeap<(Timestamp, ObjectId)>,
    /// Interests whose history forked, and where they have been since.
    forked: BTreeSet<usize>,
    visited: BTreeSet<(usize, ObjectId)>,
    commits: usize,
}

impl<'a> Walk<'a> {
    fn new(repo: &'a gix::Repository, watches: &'a [Watch], us: &'a str, memo: Memo) -> Self {
        let mut trie = Trie::default();
        let mut interests = Vec::new();
        let mut by_canary = BTreeMap::new();
        let mut found = Vec::new();
        for (number, watch) in watches.iter().enumerate() {
            by_canary.insert(&watch.canary, interests.len());
            let paths = std::iter::once((None, &watch.folder)).chain(
                watch
                    .inputs
                    .iter()
                    .enumerate()
                    .map(|(i, path)| (Some(i), path)),
            );
            for (input, path) in paths {
                trie.insert(path, interests.len());
                interests.push(Interest {
                    watch: number,
                    input,
                });
            }
            found.push(Found {
                inputs: vec![None; watch.inputs.len()],
                ..Found::default()
            });
        }
        Self {
            repo,
            watches,
            us,
            memo,
            trie,
            interests,
            by_canary,
            found,
            waiting: BTreeMap::new(),
            order: BinaryHeap::new(),
            forked: BTreeSet::new(),
            visited: BTreeSet::new(),
            commits: 0,
        }
    }

    fn run(&mut self, head: ObjectId) -> Result<(), RepositoryError> {
        let mut all = Bundle::default();
        let mut unknown = Trie::default();
        for (number, interest) in self.interests.iter().enumerate() {
            let watch = &self.watches[interest.watch];
            let known = self.memo.answer(watch);
            if interest.input.is_none() && known.is_some_and(|known| known.ours.is_some()) {
                all.folders.insert(number);
                continue;
            }
            all.vain.insert(number);
            if interest.input.is_none() && known.is_none() {
                unknown.insert(&watch.folder, number);
            }
        }
        let tree = objects::commit(self.repo, head)?.tree;
        let mut present = BTreeSet::new();
        unknown.changed(self.repo, None, Some(tree), &mut present)?;
        all.vain.retain(|number| !present.contains(number));
        all.folders.append(&mut present);
        self.send(all, head)?;
        while let Some((_, id)) = self.order.pop() {
            let Some(bundle) = self.waiting.remove(&id) else {
                continue;
            };
            self.visit(id, bundle)?;
        }
        Ok(())
    }

    /// Lets interests wait at a commit.
    fn send(&mut self, mut bundle: Bundle, to: ObjectId) -> Result<(), RepositoryError> {
        for interest in &self.forked {
            for set in [&mut bundle.folders, &mut bundle.vain] {
                if set.contains(interest) && !self.visited.insert((*interest, to)) {
                    set.remove(interest);
                }
            }
        }
        if self.commits >= MAX_VAIN {
            bundle.vain.clear();
        }
        if bundle.folders.is_empty() && bundle.vain.is_empty() {
            return Ok(());
        }
        if let Some(waiting) = self.waiting.get_mut(&to) {
            waiting.folders.append(&mut bundle.folders);
            waiting.vain.append(&mut bundle.vain);
            return Ok(());
        }
        let committed = self.repo.find_commit(to).map_err(local)?.time();
        let at = committed
            .ok()
            .and_then(|time| Timestamp::from_timestamp(time.seconds, 0));
        self.order.push((at.unwrap_or_default(), to));
        self.waiting.insert(to, bundle);
        Ok(())
    }

    fn visit(&mut self, id: ObjectId, mut bundle: Bundle) -> Result<(), RepositoryError> {
        if self.memo.head == Some(id) {
            self.remember(&mut bundle);
        }
        if bundle.folders.is_empty() && bundle.vain.is_empty() {
            return Ok(());
        }
        self.commits += 1;
        let commit = objects::commit(self.repo, id)?;
        let canaries = self.canaries(&commit);
        for canary in &canaries {
            if let Some(interest) = self.by_canary.get(canary)
                && (bundle.folders.remove(interest) || bundle.vain.remove(interest))
            {
                self.found[self.interests[*interest].watch].ours.push(id);
            }
        }
        let changed = self.follow(&commit, &mut bundle)?;
        for interest in changed {
            let folder_was = bundle.folders.remove(&interest);
            if !folder_was && !bundle.vain.remove(&interest) {
                continue;
            }
            let done = canaries.is_empty() && self.touch(interest, &commit)?;
            if !done {
                self.follow_all(interest, folder_was, &commit)?;
            }
        }
        Ok(())
    }

    /// Takes what is known at the last head out of the bundle.
    fn remember(&mut self, bundle: &mut Bundle) {
        for set in [&mut bundle.folders, &mut bundle.vain] {
            set.retain(|i| {
                let Interest { watch, input } = self.interests[*i];
                let Some(answer) = self.memo.answer(&self.watches[watch]) else {
                    return true;
                };
                match input {
                    None => self.found[watch].known = Some(answer.clone()),
                    Some(input) => {
                        self.found[watch].inputs[input].clone_from(&answer.inputs[input])
                    }
                }
                false
            });
        }
    }

    /// The canaries that a commit of ours names; none when it is somebody else's.
    fn canaries(&self, commit: &Commit) -> Vec<CanaryId> {
        if commit.committer.email == self.us {
            message::canaries(&commit.message)
        } else {
            Vec::new()
        }
    }

    /// Sends each interest that equals a parent's to the first such parent. Returns those that differ from all parents,
    /// which stay in the bundle.
    fn follow(
        &mut self,
        commit: &Commit,
        bundle: &mut Bundle,
    ) -> Result<BTreeSet<usize>, RepositoryError> {
        let Some(first) = commit.parents.first() else {
            let mut changed = BTreeSet::new();
            self.trie
                .changed(self.repo, None, Some(commit.tree), &mut changed)?;
            return Ok(changed);
        };
        let mut different = self.changed(*first, commit)?;
        let mut staying = Bundle::default();
        for interest in &different {
            for (from, to) in [
                (&mut bundle.folders, &mut staying.folders),
                (&mut bundle.vain, &mut staying.vain),
            ] {
                if from.remove(interest) {
                    to.insert(*interest);
                }
            }
        }
        // What is left is the bulk: it moves on as a whole.
        self.send(std::mem::replace(bundle, staying), *first)?;
        for parent in commit.parents.iter().skip(1) {
            let changed = self.changed(*parent, commit)?;
            let mut same = Bundle::default();
            for interest in different.difference(&changed) {
                for (from, to) in [
                    (&mut bundle.folders, &mut same.folders),
                    (&mut bundle.vain, &mut same.vain),
                ] {
                    if from.remove(interest) {
                        to.insert(*interest);
                    }
                }
            }
            different.retain(|interest| changed.contains(interest));
            self.send(same, *parent)?;
        }
        Ok(different)
    }

    fn changed(
        &self,
        parent: ObjectId,
        commit: &Commit,
    ) -> Result<BTreeSet<usize>, RepositoryError> {
        let mut changed = BTreeSet::new();
        let parent = self.tree(parent)?;
        self.trie
            .changed(self.repo, Some(parent), Some(commit.tree), &mut changed)?;
        Ok(changed)
    }

    fn tree(&self, commit: ObjectId) -> Result<ObjectId, RepositoryError> {
        let commit = self.repo.find_commit(commit).map_err(local)?;
        Ok(commit.tree_id().map_err(local)?.detach())
    }

    /// Notes that somebody else's commit changed this path. True when nothing more is wanted of the path.
    fn touch(&mut self, interest: usize, commit: &Commit) -> Result<bool, RepositoryError> {
        let Interest { watch, input } = self.interests[interest];
        let paths = match input {
            Some(input) => vec![self.watches[watch].inputs[input].clone()],
            None if self.found[watch].folder.len() < MAX_FOREIGN => {
                self.touched_files(&self.watches[watch].folder, commit)?
            }
            None => return Ok(false),
        };
        let foreign = ForeignCommit {
            id: commit_id(commit.id),
            author: commit.author.clone(),
            at: commit.authored,
            subject: message::subject(&commit.message),
            paths,
        };
        let found = &mut self.found[watch];
        match input {
            None => {
                found.folder.push(foreign);
                Ok(false)
            }
            Some(input) => {
                let older = u64::try_from(self.commits).unwrap_or(u64::from(u32::MAX));
                let rank = ((self.memo.walks + 1) << 32) - older;
                let best = &mut found.inputs[input];
                if best.as_ref().is_none_or(|best| best.rank < rank) {
                    *best = Some(Ranked {
                        rank,
                        commit: foreign,
                    });
                }
                Ok(true)
            }
        }
    }

    fn touched_files(
        &self,
        folder: &RepoPath,
        commit: &Commit,
    ) -> Result<Vec<RepoPath>, RepositoryError> {
        let old = match commit.parents.first() {
            Some(parent) => self.folder_at(self.tree(*parent)?, folder)?,
            None => None,
        };
        let new = self.folder_at(commit.tree, folder)?;
        let mut paths = Vec::new();
        changed_files(self.repo, folder, old, new, MAX_PATHS, &mut paths)?;
        Ok(paths)
    }

    fn folder_at(
        &self,
        tree: ObjectId,
        folder: &RepoPath,
    ) -> Result<Option<ObjectId>, RepositoryError> {
        Ok(match look_up(self.repo, tree, folder)? {
            At::Entry(entry) => tree_of(Some(entry)),
            At::Nothing | At::Blocked(_) => None,
        })
    }

    /// Sends an interest to all parents of a commit that changed its path.
    fn follow_all(
        &mut self,
        interest: usize,
        is_folder: bool,
        commit: &Commit,
    ) -> Result<(), RepositoryError> {
        if commit.parents.len() > 1 {
            self.forked.insert(interest);
        }
        for parent in &commit.parents {
            let exists = is_folder && {
                let folder = &self.watches[self.interests[interest].watch].folder;
                self.folder_at(self.tree(*parent)?, folder)?.is_some()
            };
            let mut bundle = Bundle::default();
            let set = if exists {
                &mut bundle.folders
            } else {
                &mut bundle.vain
            };
            set.insert(interest);
            self.send(bundle, *parent)?;
        }
        Ok(())
    }

    /// Puts what was found now before what was known.
    fn finish(self, head: ObjectId, memo: &mut Memo, cache: &Cache) -> Result<(), RepositoryError> {
        let mut answers = BTreeMap::new();
        for (watch, found) in self.watches.iter().zip(self.found) {
            let (known_ours, known_folder) = match found.known {
                Some(known) => (known.ours, known.folder),
                None => (None, Vec::new()),
            };
            let folder_interest = self.by_canary.get(&watch.canary);
            let forked = folder_interest.is_some_and(|i| self.forked.contains(i));
            let mut candidates = found.ours;
            if let Some(known) = &known_ours {
                candidates.push(objects::object_id(&known.id)?);
            }
            let newest = newest(self.repo, &candidates)?;
            let mut folder = found.folder;
            folder.extend(known_folder);
            if let (true, Some(ours)) = (forked, newest) {
                let mut kept = Vec::with_capacity(folder.len());
                for commit in folder {
                    if !is_ancestor(self.repo, objects::object_id(&commit.id)?, ours)? {
                        kept.push(commit);
                    }
                }
                folder = kept;
            }
            folder.truncate(MAX_FOREIGN);
            let ours = match (newest, known_ours) {
                (Some(newest), Some(known)) if known.id == commit_id(newest) => Some(known),
                (Some(newest), _) => {
                    let commit = our_commit((self.repo, cache), newest, watch)?;
                    Some(Arc::new(commit))
                }
                (None, _) => None,
            };
            answers.insert(
                watch.canary.clone(),
                Answer {
                    watch: watch.clone(),
                    ours,
                    folder,
                    inputs: found.inputs,
                },
            );
        }
        *memo = Memo {
            head: Some(head),
            walks: self.memo.walks + 1,
            answers,
        };
        Ok(())
    }
}

/// The one that descends from the others; the first found where that says nothing.
fn newest(
    repo: &gix::Repository,
    candidates: &[ObjectId],
) -> Result<Option<ObjectId>, RepositoryError> {
    let mut best: Option<ObjectId> = None;
    for candidate in candidates {
        match best {
            Some(known) if known == *candidate || !is_ancestor(repo, known, *candidate)? => {}
            _ => best = Some(*candidate),
        }
    }
    Ok(best)
}

fn our_commit(
    (repo, cache): (&gix::Repository, &Cache),
    id: ObjectId,
    watch: &Watch,
) -> Result<OurCommit, RepositoryError> {
    let commit = objects::commit(repo, id)?;
    let mut left = BTreeMap::new();
    for path in files::ALL.iter().filter_map(|name| watch.folder.join(name)) {
        if let At::Entry((mode, blob)) = look_up(repo, commit.tree, &path)?
            && mode.is_blob()
        {
            let content = match cache.content(blob) {
                Some(content) => Arc::clone(content),
                None => repo.find_blob(blob).map_err(local)?.data.as_slice().into(),
            };
            left.insert(path, content);
        }
    }
    Ok(OurCommit {
        id: commit_id(id),
        at: commit.committed,
        files: left,
    })
}
