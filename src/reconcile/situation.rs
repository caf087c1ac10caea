//! What HEAD says about each canary: spec, state, files, and what people did since our last commit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::domain::{BlobId, CanaryId, CommitId, Contents, Person, RepoPath, Timestamp, files};
use crate::lease::Share;
use crate::manifests::{self, Committed, Manifests};
use crate::ports::{self, ForeignCommit, Lineage, Receivers, Snapshot, Wanted, Watch};
use crate::progression::{Attribution, Intervention, Phase, State};
use crate::record::{people, state_file};
use crate::spec::{Catalog, Diagnostic, Orphan, ParseCache, Severity, ValidatedCanary, Workload};

/// The files of a tree with their content ids.
pub(super) type Tree = ports::Files;

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

/// One canary at HEAD.
#[derive(Debug, Clone)]
pub(super) struct Situation {
    pub(super) id: CanaryId,
    pub(super) standing: Standing,
}

/// Whether a canary can be acted on.
#[derive(Debug, Clone)]
pub(super) enum Standing {
    /// Spec and state are sound.
    Sound(Arc<Sound>),
    /// Spec or state have mistakes: nothing moves until they are mended.
    Broken(Vec<Diagnostic>),
}

/// A canary that can be acted on.
#[derive(Debug)]
pub(super) struct Sound {
    pub(super) canary: Arc<ValidatedCanary>,
    /// The spec is gone; `canary` is what it was.
    pub(super) removed: bool,
    pub(super) state: State,
    pub(super) intervention: Option<Intervention>,
    /// How many commits of people on the folder there are since ours: with several, the newest need not be the one.
    pub(super) rivals: usize,
    /// The generated files at HEAD; those that are not there have no entry.
    pub(super) files: Arc<Contents>,
    /// Those of them that differ from what spec and state render to.
    pub(super) stale: Vec<RepoPath>,
    pub(super) origin: Origin,
}

/// Everything besides the spec that a [`Sound`] is made of: equal origins and equal specs give equal situations.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The contents of the folder's files, in the order of [`files::ALL`].
    blobs: [Option<BlobId>; files::ALL.len()],
    pub(super) ours: Option<CommitId>,
    /// The newest commit of somebody else on the folder.
    pub(super) folder: Option<CommitId>,
    /// The newest commit of somebody else on an input.
    pub(super) input: Option<CommitId>,
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
}

impl Sound {
    /// Who is about to get traffic.
    fn receivers(&self) -> Receivers {
        let Phase::Progressing(rollout) = &self.state.phase else {
            return Receivers::default();
        };
        Receivers {
            candidate: true,
            stable: rollout.candidate.yields == self.canary.stable.revision,
        }
    }
}

impl Situation {
    pub(super) fn sound(&self) -> Option<&Arc<Sound>> {
        match &self.standing {
            Standing::Sound(sound) => Some(sound),
            Standing::Broken(_) => None,
        }
    }

    pub(super) fn is_progressing(&self) -> bool {
        self.sound()
            .is_some_and(|sound| matches!(sound.state.phase, Phase::Progressing(_)))
    }

    /// What HEAD wants the cluster to show of this canary.
    fn committed(&self, head: &CommitId) -> Option<Manifests<Committed>> {
        let sound = self.sound()?;
        if sound.files.is_empty() {
            return None;
        }
        let wanted = Manifests::rendered(self.id.clone(), Arc::clone(&sound.files));
        Some(wanted.committed_at(head.clone()))
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

impl View {
    fn sound(&self, id: &CanaryId) -> Option<&Arc<Sound>> {
        let index = self.situations.binary_search_by(|s| s.id.cmp(id)).ok()?;
        self.situations.get(index)?.sound()
    }
}

fn read(snapshot: Snapshot, cache: &mut ParseCache) -> (Tree, Arc<Catalog>) {
    let catalog = Catalog::read_remembering(&snapshot.files, &snapshot.skipped, cache);
    (snapshot.files, catalog)
}

/// All that HEAD says about one canary whose spec is sound.
struct Draft<'a> {
    canary: &'a Arc<ValidatedCanary>,
    removed: bool,
    lineage: &'a Lineage,
    tree: &'a Tree,
}

impl Draft<'_> {
    fn standing(self, before: Option<&Arc<Sound>>, rendering: Option<&Rendering>) -> Standing {
        let mut origin = Origin {
            blobs: [const { None }; files::ALL.len()],
            ours: self.lineage.ours.as_ref().map(|ours| ours.id.clone()),
            folder: self.lineage.folder.first().map(|commit| commit.id.clone()),
            input: self.lineage.input.as_ref().map(|commit| commit.id.clone()),
        };
        let mut files = Contents::new();
        let inside = format!("{}/", self.canary.home.folder);
        let behind = (Bound::Included(inside.as_str()), Bound::Unbounded);
        for (path, (blob, content)) in self.tree.range::<str, _>(behind) {
            let Some(name) = path.as_str().strip_prefix(&inside) else {
                break;
            };
            let known = files::ALL.iter().zip(&mut origin.blobs);
            if let Some((_, held)) = { known }.find(|(file, _)| **file == name) {
                *held = Some(blob.clone());
                files.insert(path.clone(), Some(Arc::clone(content)));
            }
        }
        match before {
            Some(known)
                if known.origin == origin
                    && known.removed == self.removed
                    && is_same(&known.canary, self.canary) =>
            {
                Standing::Sound(Arc::clone(known))
            }
            _ => self.read(files, origin, rendering),
        }
    }

    fn read(self, files: Contents, origin: Origin, rendering: Option<&Rendering>) -> Standing {
        let lineage = self.lineage;
        let by = lineage
            .folder
            .first()
            .map(attribution)
            .unwrap_or_else(|| unknown(lineage));
        // Only files of ours count: what people keep beside them in the folder is theirs.
        let names = &files::ALL;
        let ours = lineage.ours.as_ref().map(|ours| {
            let own = |(path, _): &(&RepoPath, _)| names.contains(&path.file_name());
            let copies = ours.files.iter().filter(own);
            copies
                .map(|(path, file)| (path.clone(), Some(Arc::clone(file))))
                .collect()
        });
        let ours = ours.filter(|files: &Contents| !files.is_empty());
        let rendering = rendering.filter(|known| is_same(&known.canary, self.canary));
        let untouched = rendering.filter(|known| {
            ours.as_ref() == Some(&files) && stale(&known.files, &files).is_empty()
        });
        let (state, intervention, stale) = if let Some(written) = untouched {
            (written.state.clone(), None, Vec::new())
        } else {
            match read_state(self.canary, &files, ours.as_ref(), &by) {
                Ok((state, intervention)) => {
                    let wanted = match rendering.filter(|known| known.state == state) {
                        Some(known) => Arc::clone(&known.files),
                        None => rendered(self.canary, &state, None).into(),
                    };
                    (state, intervention, stale(&wanted, &files))
                }
                Err(diagnostics) => return Standing::Broken(diagnostics),
            }
        };
        // An edit that gave exactly what is rendered from now on changes nothing, and must not stop the judging.
        let intervention = intervention.filter(|what| {
            !stale.is_empty() || !matches!(what, Intervention::ManifestEdited { .. })
        });
        Standing::Sound(Arc::new(Sound {
            canary: Arc::clone(self.canary),
            removed: self.removed,
            state,
            intervention,
            rivals: lineage.folder.len(),
            files: files.into(),
            stale,
            origin,
        }))
    }
}

/// Whether two specs are equal; one that was not read again is the very same.
fn is_same(one: &Arc<ValidatedCanary>, other: &Arc<ValidatedCanary>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

/// What spec and state render to, kept for the commit that will be read back.
#[derive(Debug)]
pub(super) struct Rendering {
    pub(super) canary: Arc<ValidatedCanary>,
    pub(super) state: State,
    pub(super) files: Arc<Contents>,
}

/// Everything that Serin owns of a canary, from spec and state alone.
/// What the same spec rendered to in another state saves work.
pub(super) fn rendered(
    canary: &ValidatedCanary,
    state: &State,
    last: Option<(&State, &Contents)>,
) -> Contents {
    let rendered = manifests::render_after(canary, state, last);
    let mut files = Arc::unwrap_or_clone(rendered.files);
    if let Some(path) = canary.home.folder.join(files::ROLLOUT) {
        let steps = u16::try_from(canary.ladder.len()).unwrap_or(u16::MAX);
        let content = state_file::write(&canary.id, state, steps, &canary.home.file);
        files.insert(path, Some(content.into()));
    }
    files
}

/// The paths at which `present` is not what is wanted.
fn stale(wanted: &Contents, present: &Contents) -> Vec<RepoPath> {
    wanted
        .iter()
        .filter(|(path, content)| present.get(*path).unwrap_or(&None) != *content)
        .map(|(path, _)| path.clone())
        .collect()
}

/// The state that HEAD says, and what people did to it.
fn read_state(
    canary: &ValidatedCanary,
    head: &Contents,
    ours: Option<&Contents>,
    by: &Attribution,
) -> Result<(State, Option<Intervention>), Vec<Diagnostic>> {
    let path = canary.home.folder.join(files::ROLLOUT);
    let read = |bytes: Option<&[u8]>| Some(state_file::read(path.as_ref()?, bytes?, &canary.id));
    let bytes = |files: &'_ Contents| files.get(path.as_ref()?).cloned().flatten();
    match read(bytes(head).as_deref()) {
        Some(Ok(file)) => {
            let untouched = !file.granted_by_hand && ours == Some(head);
            let intervention = if untouched {
                None
            } else {
                let (ours, head) = (ours.map(copied), copied(head));
                people::classify(canary, ours.as_ref(), &head, &file, by)
            };
            Ok((file.into_state(intervention.as_ref()), intervention))
        }
        Some(Err(state_file::Unreadable::Invalid(diagnostics))) => Err(diagnostics),
        // A copied folder says nothing about this canary.
        Some(Err(state_file::Unreadable::Foreign(_))) => {
            Ok((State::initial(canary.stable.clone()), None))
        }
        None => {
            Ok(match read(ours.and_then(bytes).as_deref()) {
                None | Some(Err(_)) => (State::initial(canary.stable.clone()), None),
                // Somebody deleted the state: the rollout is over, and does not start again by itself.
                Some(Ok(written)) => {
                    let mut state = written.state.clone();
                    state.phase = Phase::Idle;
                    state.held = None;
                    let ours = Box::new(written.state);
                    let by = by.clone();
                    (state, Some(Intervention::StateEdited { ours, by }))
                }
            })
        }
    }
}

/// For whoever looks at what people changed, which is rare.
fn copied(files: &Contents) -> BTreeMap<RepoPath, Vec<u8>> {
    let files = files.iter();
    files
        .filter_map(|(path, file)| Some((path.clone(), file.as_ref()?.to_vec())))
        .collect()
}

pub(super) fn attribution(commit: &ForeignCommit) -> Attribution {
    Attribution {
        person: commit.author.clone(),
        commit: commit.id.clone(),
        subject: commit.subject.clone(),
        at: commit.at,
    }
}

/// When the history does not say who: an edit whose commit was not found.
fn unknown(lineage: &Lineage) -> Attribution {
    let at = lineage
        .ours
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |ours| ours.at);
    Attribution {
        person: Person {
            name: "somebody".to_owned(),
            email: "unknown".to_owned(),
        },
        commit: CommitId::new("unknown"),
        subject: String::new(),
        at,
    }
}
