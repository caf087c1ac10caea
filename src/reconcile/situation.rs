//! What HEAD says about each canary: spec, state, files, and what people did since our last commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::domain::{CanaryId, CommitId, Person, RepoPath, Timestamp, files};
use crate::manifests::{Committed, Manifests};
use crate::ports::{Files, ForeignCommit, Lineage, Snapshot, Tree, Watch};
use crate::progression::{Attribution, Intervention, Phase, State};
use crate::record::{people, state_file};
use crate::spec::{Catalog, Diagnostic, ParseCache, ValidatedCanary, Workload};

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
    Sound(Box<Sound>),
    /// Spec or state have mistakes: nothing moves until they are mended.
    Broken(Vec<Diagnostic>),
}

/// A canary that can be acted on.
#[derive(Debug, Clone)]
pub(super) struct Sound {
    pub(super) canary: ValidatedCanary,
    /// The spec is gone; `canary` is what it was.
    pub(super) removed: bool,
    pub(super) state: State,
    pub(super) intervention: Option<Intervention>,
    pub(super) author: Option<Attribution>,
    /// The generated files at HEAD.
    pub(super) files: BTreeMap<RepoPath, Vec<u8>>,
    /// All files at HEAD.
    pub(super) tree: Files,
}

impl Situation {
    pub(super) fn sound(&self) -> Option<&Sound> {
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
    pub(super) fn committed(&self, head: &CommitId) -> Option<Manifests<Committed>> {
        let sound = self.sound()?;
        if sound.files.is_empty() {
            return None;
        }
        let wanted = sound
            .files
            .iter()
            .map(|(path, content)| (path.clone(), Some(content.clone())))
            .collect();
        Some(Manifests::rendered(self.id.clone(), wanted).committed_at(head.clone()))
    }
}

/// Deployments that run a candidate which still has traffic and is no longer what is proposed: their new manifests
/// wait until traffic is off them.
pub(super) fn held_back(situations: &[Situation]) -> BTreeSet<(String, String)> {
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

/// A snapshot on its way to situations.
pub(super) struct Reading {
    tree: Files,
    commit: CommitId,
    skipped: Vec<(String, String)>,
    catalog: Catalog,
    recalled: BTreeMap<CanaryId, ValidatedCanary>,
}

impl Reading {
    pub(super) fn of(snapshot: Snapshot, cache: &mut ParseCache) -> Self {
        let commit = snapshot.commit.clone();
        let skipped = snapshot.skipped.clone();
        let (tree, catalog) = read(snapshot, cache);
        Self {
            tree,
            commit,
            skipped,
            catalog,
            recalled: BTreeMap::new(),
        }
    }

    /// All that the head holds, for the cluster.
    pub(super) fn tree(&self) -> Tree {
        Tree {
            commit: Some(self.commit.clone()),
            files: Arc::clone(&self.tree),
            skipped: self.skipped.clone(),
            held_back: BTreeSet::new(),
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
        watches
    }

    /// Canaries whose spec is gone, with the last commit of ours, which still has it.
    pub(super) fn removed(
        &self,
        lineages: &BTreeMap<CanaryId, Lineage>,
    ) -> Vec<(CanaryId, CommitId)> {
        self.catalog
            .orphans
            .iter()
            .filter_map(|orphan| {
                let ours = lineages.get(&orphan.id)?.ours.as_ref()?;
                Some((orphan.id.clone(), ours.id.clone()))
            })
            .collect()
    }

    /// Reads the spec of a removed canary from the tree that still had it.
    pub(super) fn recall(
        &mut self,
        id: &CanaryId,
        before: Snapshot,
        lineages: &BTreeMap<CanaryId, Lineage>,
        memory: &mut BTreeMap<CanaryId, (CommitId, ValidatedCanary)>,
    ) {
        let commit = before.commit.clone();
        let mut catalog = read(before, &mut ParseCache::default()).1;
        if let Some(Ok(mut canary)) = catalog.canaries.remove(id) {
            canary.proposal = None;
            memory.insert(id.clone(), (commit, canary));
        }
        // A commit of ours may itself come after the removal (the drain); then the spec is remembered from before.
        if let Some((_, canary)) = memory.get(id)
            && lineages.contains_key(id)
        {
            self.recalled.insert(id.clone(), canary.clone());
        }
    }

    /// One situation per canary, the removed ones included.
    pub(super) fn situations(self, lineages: &BTreeMap<CanaryId, Lineage>) -> Vec<Situation> {
        let nothing = Lineage::default();
        let mut situations = Vec::new();
        for (id, entry) in self.catalog.canaries {
            let lineage = lineages.get(&id).unwrap_or(&nothing);
            let standing = match entry {
                Ok(canary) => sound(canary, false, lineage, &self.tree),
                Err(rejected) => Standing::Broken(rejected.diagnostics),
            };
            situations.push(Situation { id, standing });
        }
        for (id, canary) in self.recalled {
            let lineage = lineages.get(&id).unwrap_or(&nothing);
            situations.push(Situation {
                id,
                standing: sound(canary, true, lineage, &self.tree),
            });
        }
        situations
    }
}

fn read(snapshot: Snapshot, cache: &mut ParseCache) -> (Files, Catalog) {
    let skipped = snapshot.skipped;
    let files = snapshot.files.into_iter();
    let tree: Files = Arc::new(
        files
            .map(|(path, file)| (path, (file.blob, file.content)))
            .collect(),
    );
    let catalog = Catalog::read_partial(&tree, &skipped, cache);
    (tree, catalog)
}

fn sound(canary: ValidatedCanary, removed: bool, lineage: &Lineage, tree: &Files) -> Standing {
    let files: BTreeMap<RepoPath, Vec<u8>> = files::ALL
        .iter()
        .filter_map(|name| canary.home.folder.join(name))
        .filter_map(|path| {
            tree.get(&path)
                .map(|(_, content)| (path.clone(), content.to_vec()))
        })
        .collect();
    let by = lineage
        .folder
        .first()
        .map(attribution)
        .unwrap_or_else(|| unknown(lineage));
    let ours = lineage
        .ours
        .as_ref()
        .map(|ours| &ours.files)
        .filter(|files| !files.is_empty());
    let (state, intervention) = match read_state(&canary, &files, ours, &by) {
        Ok(read) => read,
        Err(diagnostics) => return Standing::Broken(diagnostics),
    };
    let author = lineage.input.as_ref().map(attribution);
    Standing::Sound(Box::new(Sound {
        canary,
        removed,
        state,
        intervention,
        author,
        files,
        tree: Arc::clone(tree),
    }))
}

/// The state that HEAD says, and what people did to it.
fn read_state(
    canary: &ValidatedCanary,
    head: &BTreeMap<RepoPath, Vec<u8>>,
    ours: Option<&BTreeMap<RepoPath, Vec<u8>>>,
    by: &Attribution,
) -> Result<(State, Option<Intervention>), Vec<Diagnostic>> {
    let path = canary.home.folder.join(files::ROLLOUT);
    let read = |files: &BTreeMap<RepoPath, Vec<u8>>| {
        let path = path.as_ref()?;
        files
            .get(path)
            .map(|bytes| state_file::read(path, bytes, &canary.id))
    };
    let written = ours.and_then(|files| match read(files) {
        Some(Ok(file)) => Some(file.state),
        Some(Err(_)) | None => None,
    });
    match read(head) {
        Some(Ok(file)) => {
            let intervention = people::classify(canary, ours, head, &file, by);
            Ok((file.into_state(intervention.as_ref()), intervention))
        }
        Some(Err(state_file::Unreadable::Invalid(diagnostics))) => Err(diagnostics),
        // A copied folder says nothing about this canary.
        Some(Err(state_file::Unreadable::Foreign(_))) => {
            Ok((State::initial(canary.stable.clone()), None))
        }
        None => Ok(match written {
            None => (State::initial(canary.stable.clone()), None),
            // Somebody deleted the state: the rollout is over, and does not start again by itself.
            Some(written) => {
                let mut state = written.clone();
                state.phase = Phase::Idle;
                state.held = None;
                (
                    state,
                    Some(Intervention::StateEdited {
                        ours: Box::new(written),
                        by: by.clone(),
                    }),
                )
            }
        }),
    }
}

fn attribution(commit: &ForeignCommit) -> Attribution {
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
