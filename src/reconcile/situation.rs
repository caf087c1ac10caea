//! What HEAD says about one canary: spec, state, files, and what people did since our last commit.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::domain::{BlobId, CanaryId, CommitId, Contents, Person, RepoPath, Timestamp, files};
use crate::manifests::{self, Committed, Last, Manifests};
use crate::ports::{self, ForeignCommit, Lineage, Receivers};
use crate::progression::{Attribution, Intervention, Phase, State};
use crate::record::{people, state_file};
use crate::spec::{Diagnostic, ValidatedCanary};

/// The files of a tree with their content ids.
pub(super) type Tree = ports::Files;

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

impl Sound {
    /// Who is about to get traffic.
    pub(super) fn receivers(&self) -> Receivers {
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
    pub(super) fn committed(&self, head: &CommitId) -> Option<Manifests<Committed>> {
        let sound = self.sound()?;
        if sound.files.is_empty() {
            return None;
        }
        let wanted = Manifests::rendered(self.id.clone(), Arc::clone(&sound.files));
        Some(wanted.committed_at(head.clone()))
    }
}

/// All that HEAD says about one canary whose spec is sound.
pub(super) struct Draft<'a> {
    pub(super) canary: &'a Arc<ValidatedCanary>,
    pub(super) removed: bool,
    pub(super) lineage: &'a Lineage,
    pub(super) tree: &'a Tree,
}

impl Draft<'_> {
    pub(super) fn standing(
        self,
        before: Option<&Arc<Sound>>,
        rendering: Option<&Rendering>,
    ) -> Standing {
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
        let read = self.state(&files, ours.as_ref(), rendering, &by);
        let (state, intervention, stale) = match read {
            Ok(read) => read,
            Err(diagnostics) => return Standing::Broken(diagnostics),
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

    /// The state, what people did to it, and the files that have to be rendered again. Where every byte is what was rendered
    /// for a commit of this engine, the state is known, and with the same spec all of that.
    fn state(
        &self,
        files: &Contents,
        ours: Option<&Contents>,
        rendering: Option<&Rendering>,
        by: &Attribution,
    ) -> Result<(State, Option<Intervention>, Vec<RepoPath>), Vec<Diagnostic>> {
        if let Some(known) = rendering
            && ours == Some(files)
            && known.canary.home == self.canary.home
            && stale(&known.files, files).is_empty()
        {
            let stale = match is_same(&known.canary, self.canary) {
                true => Vec::new(),
                false => stale(
                    &rendered(self.canary, &known.state, Some(known.last())),
                    files,
                ),
            };
            return Ok((known.state.clone(), None, stale));
        }
        let (state, intervention) = read_state(self.canary, files, ours, by)?;
        let stale = stale(&rendered(self.canary, &state, None), files);
        Ok((state, intervention, stale))
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

impl Rendering {
    fn last(&self) -> Last<'_> {
        Last {
            canary: &self.canary,
            state: &self.state,
            files: &self.files,
        }
    }
}

/// Everything that Serin owns of a canary, from spec and state alone. What was rendered before saves work.
pub(super) fn rendered(
    canary: &ValidatedCanary,
    state: &State,
    last: Option<Last<'_>>,
) -> Contents {
    let rendered = manifests::render_after(canary, state, last);
    let mut files = Arc::unwrap_or_clone(rendered.files);
    if let Some(path) = canary.home.folder.join(files::ROLLOUT) {
        let known = last.filter(|last| {
            let is_as_long = last.canary.ladder.len() == canary.ladder.len();
            is_as_long && last.is_about(canary) && last.state == state
        });
        let known = known.and_then(|last| last.files.get(&path).cloned().flatten());
        let content = known.unwrap_or_else(|| {
            let steps = u16::try_from(canary.ladder.len()).unwrap_or(u16::MAX);
            state_file::write(&canary.id, state, steps, &canary.home.file).into()
        });
        files.insert(path, Some(content));
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
