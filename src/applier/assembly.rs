//! A tree to the objects that it asks for, with a memory: a head costs what changed since the one before. What comes out is
//! a function of the tree alone.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::sync::Arc;

use serde_json::Value;

use super::desired;
use super::desired::{Built, Desired, Files, Objects, Scopes, Source};
use super::key::{Kind, ObjectKey};
use super::object::{APPLY_ANNOTATION, Object, text};
use super::read::{ReadCache, is_kustomization, read};
use super::sources::{self, Kustomization, Sources};
use crate::domain::{Manifest, RepoPath};

/// See the module.
#[derive(Debug, Default)]
pub struct Assembly {
    /// The files that were sorted last, and what came of it.
    sorted: Option<(Files, Arc<Sources>)>,
    kustomizations: ReadCache,
    /// Scopes of all kinds, those that the tree defines included; with them, and for these namespaces, all below was made.
    scopes: Scopes,
    confined: BTreeSet<String>,
    parts: BTreeMap<Origin, Part>,
    objects: Arc<Objects>,
    /// Keys that more than one manifest has, and where those are.
    contested: BTreeMap<ObjectKey, BTreeSet<Origin>>,
    /// Where something is wrong.
    troubled: BTreeSet<Origin>,
    /// Where kinds are defined.
    defining: BTreeSet<Origin>,
    /// Manifests in all parts, whatever became of them.
    manifests: usize,
}

/// Where manifests come from. Of two that are about the same object, the one in the lower origin is applied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    /// A file.
    File(RepoPath),
    /// A folder that a program builds; empty for the top.
    Folder(Arc<str>),
}

impl Origin {
    /// As people are told of it.
    fn source(&self) -> Arc<str> {
        match self {
            Self::File(path) => path.shared(),
            Self::Folder(dir) if dir.is_empty() => ".".into(),
            Self::Folder(dir) => Arc::clone(dir),
        }
    }

    /// The origins with this name: a tree has only one of them.
    fn named(source: &Arc<str>) -> impl Iterator<Item = Self> {
        let file = RepoPath::new(&**source).map(Self::File);
        let dir = match &**source {
            "." => "".into(),
            _ => Arc::clone(source),
        };
        file.into_iter().chain([Self::Folder(dir)])
    }
}

/// What a part was made of.
#[derive(Debug, Clone)]
enum Seal {
    /// The content of a file, and whether it is applied as it is; if not, it is read only for its mistakes.
    File(Arc<[u8]>, bool),
    /// Manifests that a program printed, or why it did not.
    Built(Result<Arc<Vec<Manifest>>, String>),
}

impl PartialEq for Seal {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one, is_one_plain), Self::File(two, is_two_plain)) => {
                is_one_plain == is_two_plain && (Arc::ptr_eq(one, two) || one == two)
            }
            (Self::Built(Ok(one)), Self::Built(Ok(two))) => Arc::ptr_eq(one, two) || one == two,
            (Self::Built(Err(one)), Self::Built(Err(two))) => one == two,
            (Self::File(..) | Self::Built(_), _) => false,
        }
    }
}

/// The manifests of one origin.
#[derive(Debug)]
struct Part {
    seal: Seal,
    objects: Box<[Arc<Object>]>,
    /// Kinds that it defines, and whether their objects belong to namespaces.
    definitions: Box<[(Kind, bool)]>,
    /// What is wrong with the whole of it.
    mistakes: Box<[String]>,
    /// What is wrong with single objects.
    problems: Vec<String>,
    manifests: usize,
}

/// An origin as it was read, on its way to a part. Packed: of a large tree all are on their way at once.
struct Reading {
    seal: Seal,
    manifests: Vec<Manifest>,
    definitions: Vec<(Kind, bool)>,
    mistakes: Vec<String>,
}

impl Reading {
    fn of(origin: &Origin, seal: Seal) -> Self {
        let (manifests, mistakes) = match &seal {
            Seal::File(content, is_plain) => {
                let is_kustomization =
                    matches!(origin, Origin::File(path) if is_kustomization(path));
                let file = read(content, is_kustomization);
                let mistakes = file.mistakes.iter();
                let mistakes = mistakes.map(|mistake| format!("not valid YAML: {mistake}"));
                let manifests = if *is_plain {
                    file.manifests
                } else {
                    Vec::new()
                };
                (manifests, mistakes.collect())
            }
            Seal::Built(Ok(manifests)) => {
                (manifests.iter().map(Manifest::read).collect(), Vec::new())
            }
            Seal::Built(Err(words)) => (Vec::new(), vec![words.clone()]),
        };
        Self {
            seal,
            definitions: manifests.iter().filter_map(definition).collect(),
            manifests: manifests.iter().map(Manifest::of).collect(),
            mistakes,
        }
    }
}

/// The kind that a manifest defines, and whether its objects belong to namespaces.
fn definition(manifest: &Value) -> Option<(Kind, bool)> {
    let is_definition = text(manifest, "/kind") == "CustomResourceDefinition";
    is_definition.then(|| {
        let (group, kind) = ("/spec/group", "/spec/names/kind");
        let kind = Kind::new(text(manifest, group), text(manifest, kind));
        (kind, text(manifest, "/spec/scope") != "Cluster")
    })
}

/// Origins that changed: what they hold now, or that they are gone.
type Changes = BTreeMap<Origin, Option<Reading>>;

impl Assembly {
    /// Which files to apply as they are, and which folders to build. Only files that come or go, and kustomizations, change
    /// the answer.
    pub fn sort(&mut self, files: &Files) -> Arc<Sources> {
        let known = self.sorted.take();
        let known = known.filter(|(before, _)| is_shaped_alike(before, files));
        let sources = match known {
            Some((_, sources)) => sources,
            None => Arc::new(self.sort_anew(files)),
        };
        self.sorted = Some((Arc::clone(files), Arc::clone(&sources)));
        sources
    }

    fn sort_anew(&mut self, files: &Files) -> Sources {
        let cache = &mut self.kustomizations;
        let read: Vec<_> = files
            .iter()
            .filter(|(path, _)| is_kustomization(path))
            .map(|(path, (blob, content))| (path, cache.kustomization(blob, content)))
            .collect();
        cache.sweep();
        let kustomizations: BTreeMap<String, &Kustomization> = read
            .iter()
            .map(|(path, kustomization)| (sources::folder(path).to_owned(), &**kustomization))
            .collect();
        sources::sort(files.keys(), &kustomizations)
    }

    /// Puts it all together. `confined` are the namespaces that this repository may write; empty: all.
    pub fn assemble(
        &mut self,
        tree: &Source<'_>,
        (sources, built): (&Sources, &Built),
        (scopes, confined): (&Scopes, &BTreeSet<String>),
    ) -> Desired {
        let mut changes = self.changes(tree.files, sources, built);
        let scopes = self.with_definitions(scopes, &changes);
        if scopes != self.scopes || *confined != self.confined {
            self.parts.clear();
            self.objects = Arc::default();
            self.contested.clear();
            self.troubled.clear();
            self.defining.clear();
            self.manifests = 0;
            self.scopes = scopes;
            self.confined.clone_from(confined);
            changes = self.changes(tree.files, sources, built);
        }
        self.take(changes);
        self.desired(tree)
    }

    /// What differs from the last tree, read.
    fn changes(&self, files: &Files, sources: &Sources, built: &Built) -> Changes {
        let mut changes = Changes::new();
        let mut known = self.parts.iter().peekable();
        let mut see = |origin: Origin, seal: Seal| {
            let is_lower = |known: &(&Origin, &Part)| *known.0 != origin && *known.0 < origin;
            while let Some((gone, _)) = known.next_if(is_lower) {
                changes.insert(gone.clone(), None);
            }
            let same = known.next_if(|known| *known.0 == origin);
            if same.is_none_or(|(_, part)| part.seal != seal) {
                let reading = Reading::of(&origin, seal);
                changes.insert(origin, Some(reading));
            }
        };
        let inputs: BTreeSet<&RepoPath> = sources.builds.values().flatten().collect();
        let mut plain = sources.plain.iter().peekable();
        for (path, (_, content)) in &**files {
            let is_plain = reaches(&mut plain, path);
            if is_plain || inputs.contains(path) {
                let seal = Seal::File(Arc::clone(content), is_plain);
                see(Origin::File(path.clone()), seal);
            }
        }
        for (dir, result) in built {
            let seal = Seal::Built(result.clone());
            see(Origin::Folder(dir.as_str().into()), seal);
        }
        changes.extend(known.map(|(gone, _)| (gone.clone(), None)));
        changes
    }

    /// The scopes that the cluster told of, and those of definitions in the tree itself.
    fn with_definitions(&self, known: &Scopes, changes: &Changes) -> Scopes {
        let mut scopes = known.clone();
        let mut defined: BTreeMap<&Origin, Vec<(Kind, bool)>> = BTreeMap::new();
        for origin in &self.defining {
            let part = self.parts.get(origin);
            let part = part.filter(|_| !changes.contains_key(origin));
            defined.insert(
                origin,
                part.map_or_else(Vec::new, |part| part.definitions.to_vec()),
            );
        }
        for (origin, reading) in changes {
            let definitions = reading.as_ref().map(|reading| reading.definitions.clone());
            defined.insert(origin, definitions.unwrap_or_default());
        }
        scopes.extend(defined.into_values().flatten());
        scopes
    }

    /// Puts changed parts in the place of the old ones, and looks at the objects of both.
    fn take(&mut self, changes: Changes) {
        let mut claims: BTreeMap<ObjectKey, Vec<(Origin, Arc<Object>)>> = BTreeMap::new();
        let mut changed = BTreeSet::new();
        for (origin, reading) in changes {
            if let Some(old) = self.parts.remove(&origin) {
                self.manifests -= old.manifests;
                for object in &old.objects {
                    claims.entry(object.key.clone()).or_default();
                }
            }
            self.troubled.remove(&origin);
            self.defining.remove(&origin);
            if let Some(reading) = reading {
                let part = self.part(&origin, reading);
                self.manifests += part.manifests;
                if !part.mistakes.is_empty() || !part.problems.is_empty() {
                    self.troubled.insert(origin.clone());
                }
                if !part.definitions.is_empty() {
                    self.defining.insert(origin.clone());
                }
                for object in &part.objects {
                    let claims = claims.entry(object.key.clone()).or_default();
                    claims.push((origin.clone(), Arc::clone(object)));
                }
                self.parts.insert(origin.clone(), part);
            }
            changed.insert(origin);
        }
        for (key, claims) in claims {
            self.settle(key, claims, &changed);
        }
    }

    fn part(&self, origin: &Origin, reading: Reading) -> Part {
        let source = origin.source();
        let mut part = Part {
            definitions: reading.definitions.into(),
            mistakes: reading.mistakes.into(),
            problems: Vec::new(),
            manifests: reading.manifests.len(),
            seal: reading.seal,
            objects: Box::default(),
        };
        let mut objects = Vec::with_capacity(reading.manifests.len());
        for packed in reading.manifests {
            let manifest = packed.read();
            match desired::key_of(&manifest, &self.scopes, &self.confined) {
                Ok(key) => {
                    // One value for all that are about the same object.
                    let known = self.objects.get_key_value(&key);
                    let key = known.map_or(key, |(known, _)| known.clone());
                    let object = Object::new(key, manifest, Arc::clone(&source)).packed_as(&packed);
                    if !object.is_disabled(APPLY_ANNOTATION) {
                        objects.push(Arc::new(object));
                    }
                }
                Err(words) => part.problems.push(words),
            }
        }
        part.objects = objects.into();
        part
    }

    /// Which manifest of an object is applied. `claims` are those of parts that changed.
    fn settle(
        &mut self,
        key: ObjectKey,
        mut claims: Vec<(Origin, Arc<Object>)>,
        changed: &BTreeSet<Origin>,
    ) {
        match self.contested.remove(&key) {
            Some(origins) => {
                for origin in origins.difference(changed) {
                    claims.extend(self.claims(origin, &key));
                }
            }
            None => {
                if let Some(present) = self.objects.get(&key)
                    && !Origin::named(&present.source).any(|origin| changed.contains(&origin))
                {
                    let mut origins = Origin::named(&present.source);
                    let origin = origins.find(|origin| self.parts.contains_key(origin));
                    claims.extend(origin.map(|origin| (origin, Arc::clone(present))));
                }
            }
        }
        // In a part they are in order already.
        claims.sort_by(|(one, _), (other, _)| one.cmp(other));
        let objects = Arc::make_mut(&mut self.objects);
        match claims.first() {
            Some((_, object)) => {
                objects.insert(object.key.clone(), Arc::clone(object));
            }
            None => {
                objects.remove(&key);
            }
        }
        if claims.len() > 1 {
            let origins = claims.into_iter().map(|(origin, _)| origin);
            self.contested.insert(key, origins.collect());
        }
    }

    /// What an origin says of an object; more than one manifest when it is there twice.
    fn claims(&self, origin: &Origin, key: &ObjectKey) -> Vec<(Origin, Arc<Object>)> {
        let part = self.parts.get(origin);
        let objects = part.into_iter().flat_map(|part| &part.objects);
        objects
            .filter(|object| object.key == *key)
            .map(|object| (origin.clone(), Arc::clone(object)))
            .collect()
    }

    fn desired(&self, tree: &Source<'_>) -> Desired {
        let mut desired = Desired {
            commit: Some(tree.commit.clone()),
            objects: Arc::clone(&self.objects),
            ..Desired::default()
        };
        let troubled = || {
            let parts = self.troubled.iter();
            parts.filter_map(|origin| Some((origin.source(), self.parts.get(origin)?)))
        };
        for (source, part) in troubled() {
            let mistakes = part.mistakes.iter();
            mistakes.for_each(|words| desired.problem(&source, words.clone()));
        }
        for (path, why) in tree.skipped {
            desired.problem(path, format!("left out: {why}"));
        }
        // What was read so far is a part of the tree; what follows is about single objects.
        desired.complete = desired.problems.is_empty() && self.manifests > 0;
        for (source, part) in troubled() {
            let problems = part.problems.iter();
            problems.for_each(|words| desired.problem(&source, words.clone()));
        }
        for (key, origins) in &self.contested {
            let claims = origins.iter().flat_map(|origin| self.claims(origin, key));
            let mut sources = claims.map(|(origin, _)| origin.source());
            let first = sources.next().unwrap_or_default();
            for source in sources {
                let words = format!("{key} is also in {first}, which is the one that is applied");
                desired.problem(&source, words);
            }
        }
        desired
    }
}

/// Whether an ordered set has this path; asked in order.
fn reaches<'a>(set: &mut Peekable<impl Iterator<Item = &'a RepoPath>>, path: &RepoPath) -> bool {
    while set.next_if(|next| *next != path && *next < path).is_some() {}
    set.next_if(|next| *next == path).is_some()
}

/// Whether two trees have the same files, and the same kustomizations in them.
fn is_shaped_alike(one: &Files, other: &Files) -> bool {
    if Arc::ptr_eq(one, other) {
        return true;
    }
    one.len() == other.len()
        && one
            .iter()
            .zip(&**other)
            .all(|((path, (_, content)), (other, (_, now)))| {
                let is_same = || Arc::ptr_eq(content, now) || content == now;
                path == other && (!is_kustomization(path) || is_same())
            })
}

#[cfg(test)]
mod tests;
