//! Which kustomizations take in which files, as far as the repository says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::file::KustomizationFact;
use super::super::image::Rewrite;
use super::super::mistake::Place;
use super::folder;
use crate::domain::{RepoPath, member_path};

/// Most ways in which kustomizations may lead to a file; beyond that something goes in circles.
const MOST_CONTEXTS: usize = 64;
/// Deepest chain of kustomizations.
const DEEPEST_CHAIN: usize = 16;

/// A kustomization with the file that it is in.
#[derive(Debug)]
pub(super) struct Kustomization {
    pub(super) file: RepoPath,
    fact: Arc<KustomizationFact>,
}

/// One way in which kustomizations take a file in, from the innermost to the outermost.
#[derive(Debug, Clone, Default)]
pub(super) struct Context {
    chain: Vec<Arc<Kustomization>>,
}

impl Context {
    /// The namespace that the outermost of them sets.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace_source().map(|(namespace, _)| namespace)
    }

    /// The same with the kustomization that says so.
    pub(super) fn namespace_source(&self) -> Option<(&str, &RepoPath)> {
        let mut outermost_first = self.chain.iter().rev();
        outermost_first.find_map(|k| Some((k.fact.namespace.as_deref()?, &k.file)))
    }

    /// The `images` on the way, from the innermost to the outermost.
    pub(super) fn images(&self) -> impl Iterator<Item = (&RepoPath, Option<Place>, &[Rewrite])> {
        let chain = self.chain.iter();
        chain.map(|k| (&k.file, k.fact.images_place, k.fact.images.as_slice()))
    }

    /// The kustomizations on the way.
    pub(super) fn files(&self) -> impl Iterator<Item = &RepoPath> {
        self.chain.iter().map(|k| &k.file)
    }
}

/// All kustomizations of a repository.
#[derive(Debug, Default)]
pub(super) struct Kustomizations {
    /// By folder. Of several in one folder the last counts.
    folders: BTreeMap<String, BTreeMap<RepoPath, Arc<Kustomization>>>,
    /// Folders of kustomizations by file or folder that they take in: in order, and as often as they name it.
    parents: BTreeMap<String, Vec<Arc<str>>>,
}

impl Kustomizations {
    /// The one that counts in a folder.
    pub(super) fn in_folder(&self, folder: &str) -> Option<&Arc<Kustomization>> {
        let (_, last) = self.folders.get(folder)?.last_key_value()?;
        Some(last)
    }

    /// Whether `file` holds another kustomization, or none.
    pub(super) fn differs(&self, file: &RepoPath, fact: Option<&Arc<KustomizationFact>>) -> bool {
        let in_folder = self.folders.get(folder(file));
        let known = in_folder.and_then(|files| files.get(file));
        known.map(|known| &known.fact) != fact
    }

    /// What `file` holds from now on.
    pub(super) fn set(&mut self, file: &RepoPath, fact: Option<&Arc<KustomizationFact>>) {
        let dir = folder(file);
        self.unlink(dir);
        match fact {
            Some(fact) => {
                let (file, fact) = (file.clone(), Arc::clone(fact));
                let files = self.folders.entry(dir.to_owned()).or_default();
                files.insert(file.clone(), Arc::new(Kustomization { file, fact }));
            }
            None => {
                if let Some(files) = self.folders.get_mut(dir) {
                    files.remove(file);
                    if files.is_empty() {
                        self.folders.remove(dir);
                    }
                }
            }
        }
        self.link(dir);
    }

    fn unlink(&mut self, dir: &str) {
        for member in self.members(dir) {
            if let Some(parents) = self.parents.get_mut(&member) {
                parents.retain(|parent| **parent != *dir);
                if parents.is_empty() {
                    self.parents.remove(&member);
                }
            }
        }
    }

    fn link(&mut self, dir: &str) {
        let shared: Arc<str> = dir.into();
        for member in self.members(dir) {
            let parents = self.parents.entry(member).or_default();
            let at = parents.partition_point(|parent| **parent <= *dir);
            parents.insert(at, Arc::clone(&shared));
        }
    }

    /// What the kustomization of a folder takes in.
    fn members(&self, dir: &str) -> Vec<String> {
        let members = self.in_folder(dir).map(|k| k.fact.members.as_slice());
        let members = members.unwrap_or_default().iter();
        members
            .filter_map(|member| member_path(dir, member))
            .collect()
    }

    /// All files and folders that the kustomizations of these folders take in, directly or through others.
    pub(super) fn below(&self, dirs: &BTreeSet<String>) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open: Vec<String> = dirs.iter().flat_map(|dir| self.members(dir)).collect();
        while let Some(member) = open.pop() {
            if !found.contains(&member) {
                open.extend(self.members(&member));
                found.insert(member);
            }
        }
        found
    }

    /// All ways in which kustomizations take `file` in; one empty way when none does.
    pub(super) fn contexts(&self, file: &RepoPath) -> Vec<Context> {
        let mut complete = Vec::new();
        let mut open = vec![(file.as_str(), Context::default())];
        while let Some((member, context)) = open.pop() {
            let fresh: Vec<_> = self
                .parents(member)
                .iter()
                .filter_map(|dir| Some((&**dir, self.in_folder(dir)?)))
                .filter(|(_, k)| context.files().all(|seen| *seen != k.file))
                .collect();
            let ends_here = fresh.is_empty() || context.chain.len() >= DEEPEST_CHAIN;
            if ends_here || complete.len() + open.len() >= MOST_CONTEXTS {
                complete.push(context);
                continue;
            }
            for (dir, kustomization) in fresh {
                let mut chain = context.chain.clone();
                chain.push(Arc::clone(kustomization));
                open.push((dir, Context { chain }));
            }
        }
        complete
    }

    /// Whether the kustomization at `file` takes the folder in, directly or through others.
    pub(super) fn takes_in(&self, file: &RepoPath, member: &RepoPath) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![member.as_str()];
        while let Some(member) = open.pop() {
            for dir in self.parents(member) {
                if **dir == *folder(file) {
                    return true;
                }
                if seen.insert(&**dir) {
                    open.push(dir);
                }
            }
        }
        false
    }

    fn parents(&self, member: &str) -> &[Arc<str>] {
        self.parents.get(member).map_or(&[], Vec::as_slice)
    }
}
