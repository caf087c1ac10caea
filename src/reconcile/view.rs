//! A branch at one commit: every canary, what the cluster should show, and what nobody can tell whose it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::situation::{Draft, Rendering, Situation, Sound, Standing, Tree};
use crate::domain::{CanaryId, CommitId};
use crate::lease::Share;
use crate::manifests::{Committed, Manifests};
use crate::ports::{self, Lineage, Snapshot, Wanted, Watch};
use crate::spec::{Catalog, Diagnostic, Orphan, ParseCache, Severity, ValidatedCanary, Workload};

/// A branch at one commit. A function of that commit alone, so that it is read once for as long as HEAD stays there.
#[derive(Debug)]
pub(super) struct View {
    pub(super) head: CommitId,
    /// All files.
    pub(super) tree: Tree,
    /// Every canary, by namespace and name.
    pub(super) situations: Vec<Situation>,
    /// What the cluster should show of those that have files, in the same order.
    pub(super) wanted: Vec<Manifests<Committed>>,
    /// Paths that could not be had, and why.
    pub(super) skipped: Vec<(String, String)>,
    /// Deployments whose new manifests wait, by namespace and name.
    pub(super) held_back: BTreeSet<(String, String)>,
    /// Canaries that other engines work on.
    pub(super) elsewhere: Arc<BTreeSet<CanaryId>>,
    /// Mistakes in files of which nobody can tell whose they are.
    pub(super) mistakes: Vec<Diagnostic>,
}

impl View {
    /// All that the head holds, for the cluster.
    pub(super) fn tree(&self) -> ports::Tree {
        ports::Tree {
            commit: Some(self.head.clone()),
            files: Arc::clone(&self.tree),
            skipped: self.skipped.clone(),
            held_back: self.held_back.clone(),
        }
    }

    /// What to look for in the cluster.
    pub(super) fn looked_for(&self) -> Vec<Wanted<'_>> {
        self.wanted
            .iter()
            .map(|held| self.looks_for(held))
            .collect()
    }

    fn looks_for<'a>(&'a self, manifests: &'a Manifests<Committed>) -> Wanted<'a> {
        let sound = self.sound(&manifests.canary);
        Wanted {
            manifests,
            canary: sound.map(|sound| &*sound.canary),
            receivers: sound.map(|sound| sound.receivers()).unwrap_or_default(),
        }
    }

    /// What the cluster should show of this canary.
    pub(super) fn wanted(&self, id: &CanaryId) -> Option<&Manifests<Committed>> {
        let index = self.wanted.binary_search_by(|held| held.canary.cmp(id));
        index.ok().and_then(|index| self.wanted.get(index))
    }

    /// Whether a rollout of this canary is on its way.
    pub(super) fn is_progressing(&self, id: &CanaryId) -> bool {
        let index = self.situations.binary_search_by(|s| s.id.cmp(id)).ok();
        let situation = index.and_then(|index| self.situations.get(index));
        situation.is_some_and(Situation::is_progressing)
    }

    /// Whether there is such a canary.
    pub(super) fn knows(&self, id: &CanaryId) -> bool {
        self.situations
            .binary_search_by(|situation| situation.id.cmp(id))
            .is_ok()
    }

    fn sound(&self, id: &CanaryId) -> Option<&Arc<Sound>> {
        let index = self.situations.binary_search_by(|s| s.id.cmp(id)).ok()?;
        self.situations.get(index)?.sound()
    }
}

/// A snapshot on its way to situations.
pub(super) struct Reading {
    tree: Tree,
    skipped: Vec<(String, String)>,
    catalog: Arc<Catalog>,
    share: Share,
    recalled: BTreeMap<CanaryId, Arc<ValidatedCanary>>,
}

/// Deployments that run a candidate which still has traffic and is no longer what is proposed: their new manifests
/// wait until traffic is off them.
fn held_back(situations: &[Situation]) -> BTreeSet<(String, String)> {
    let mut held = BTreeSet::new();
    for sound in situations.iter().filter_map(Situation::sound) {
        let (Workload::BringYourOwn(two), Some(rollout)) =
            (&sound.canary.workload, sound.state.rollout())
        else {
            continue;
        };
        let proposed = sound.canary.proposal.as_ref();
        if proposed.is_some_and(|proposal| proposal.revision == rollout.candidate.revision) {
            continue;
        }
        let names = two.candidate_deployments.iter().cloned();
        held.extend(names.map(|name| (sound.canary.id.namespace.clone(), name)));
    }
    held
}

impl Reading {
    pub(super) fn of(snapshot: Snapshot, cache: &mut ParseCache, share: Share) -> Self {
        let skipped = snapshot.skipped.clone();
        let (tree, catalog) = read(snapshot, cache);
        Self {
            tree,
            skipped,
            catalog,
            share,
            recalled: BTreeMap::new(),
        }
    }

    /// What the history has to be searched for.
    pub(super) fn watches(&self) -> Vec<Watch> {
        let mut watches: Vec<Watch> = self
            .catalog
            .canaries
            .values()
            .filter_map(|entry| entry.as_ref().ok())
            .map(|canary| Watch {
                canary: canary.id.clone(),
                folder: canary.home.folder.clone(),
                inputs: canary.inputs(),
            })
            .collect();
        watches.extend(self.catalog.orphans.iter().map(|orphan| Watch {
            canary: orphan.id.clone(),
            folder: orphan.folder.clone(),
            inputs: Vec::new(),
        }));
        watches.retain(|watch| self.share.has(&watch.canary.namespace));
        watches
    }

    /// Canaries whose spec is gone, with the last commit of ours, which still has it.
    pub(super) fn removed(
        &self,
        lineages: &BTreeMap<CanaryId, Lineage>,
    ) -> Vec<(Orphan, CommitId)> {
        self.catalog
            .orphans
            .iter()
            .filter_map(|orphan| {
                let ours = lineages.get(&orphan.id)?.ours.as_ref()?;
                Some((orphan.clone(), ours.id.clone()))
            })
            .collect()
    }

    /// Takes a removed canary in as it was when its spec was still there.
    pub(super) fn recall(
        &mut self,
        orphan: &Orphan,
        lineages: &BTreeMap<CanaryId, Lineage>,
        memory: &BTreeMap<CanaryId, (CommitId, Arc<ValidatedCanary>)>,
    ) {
        let id = &orphan.id;
        // A commit of ours may itself come after the removal (the drain); then the spec is remembered from before.
        // A copy of its folder elsewhere is nothing that Serin made, and stays.
        if let Some((_, canary)) = memory.get(id)
            && canary.home.folder == orphan.folder
            && lineages.contains_key(id)
        {
            self.recalled.insert(id.clone(), Arc::clone(canary));
        }
    }

    /// The branch at `head`, the removed canaries included. What did not change since `before` is taken from there;
    /// what was rendered for the commits of this engine is not rendered again.
    pub(super) fn view(
        self,
        head: &CommitId,
        lineages: &BTreeMap<CanaryId, Lineage>,
        before: Option<&View>,
        renderings: &BTreeMap<CanaryId, Rendering>,
    ) -> View {
        let nothing = Lineage::default();
        let written = self.catalog.canaries.iter();
        let entries = written
            .map(|(id, entry)| (id, entry.as_ref(), false))
            .chain(
                self.recalled
                    .iter()
                    .map(|(id, canary)| (id, Ok(canary), true)),
            );
        let (share, is_ours) = (self.share, |id: &CanaryId| self.share.has(&id.namespace));
        let mut situations: Vec<Situation> = entries
            .filter(|(id, ..)| is_ours(id))
            .map(|(id, entry, removed)| {
                let standing = match entry {
                    Ok(canary) => Draft {
                        canary,
                        removed,
                        lineage: lineages.get(id).unwrap_or(&nothing),
                        tree: &self.tree,
                    }
                    .standing(before.and_then(|view| view.sound(id)), renderings.get(id)),
                    Err(rejected) => Standing::Broken(rejected.diagnostics.clone()),
                };
                Situation {
                    id: id.clone(),
                    standing,
                }
            })
            .collect();
        situations.sort_by(|one, other| one.id.cmp(&other.id));
        let known = self.catalog.canaries.keys();
        let elsewhere = known.filter(|id| !is_ours(id)).cloned().collect();
        let wanted = situations.iter().filter_map(|s| s.committed(head));
        View {
            head: head.clone(),
            wanted: wanted.collect(),
            held_back: held_back(&situations),
            // One engine says them for all.
            mistakes: if share.is_first() {
                mistakes(&self.catalog)
            } else {
                Vec::new()
            },
            elsewhere: Arc::new(elsewhere),
            skipped: self.skipped,
            tree: self.tree,
            situations,
        }
    }
}

/// The spec of a removed canary from a tree that still had it; `parsed` is the memory of the present one.
pub(super) fn last_spec(
    orphan: &Orphan,
    before: &Snapshot,
    parsed: &ParseCache,
) -> Option<ValidatedCanary> {
    let catalog = Catalog::read_remembering(&before.files, &before.skipped, &mut parsed.beside());
    let found = catalog.canaries.get(&orphan.id)?;
    let mut canary = ValidatedCanary::clone(found.as_ref().ok()?);
    canary.proposal = None;
    // Its switches went with it: a pause that nobody can end any more must not keep traffic on the candidate.
    canary.controls.paused = false;
    canary.controls.abort = false;
    Some(canary)
}

/// Errors that belong to no canary: a spec so broken that it does not even say its name is among them.
fn mistakes(catalog: &Catalog) -> Vec<Diagnostic> {
    let rejected = catalog
        .canaries
        .values()
        .filter_map(|entry| entry.as_ref().err());
    let told: BTreeSet<&Diagnostic> = rejected.flat_map(|entry| &entry.diagnostics).collect();
    let errors = catalog.diagnostics.iter();
    errors
        .filter(|found| found.severity == Severity::Error && !told.contains(found))
        .cloned()
        .collect()
}

fn read(snapshot: Snapshot, cache: &mut ParseCache) -> (Tree, Arc<Catalog>) {
    let catalog = Catalog::read_remembering(&snapshot.files, &snapshot.skipped, cache);
    (snapshot.files, catalog)
}
