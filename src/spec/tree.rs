//! The objects of a repository by namespace and name, and what its kustomizations make of them. It follows the files as they
//! change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::file::{DeploymentFact, Facts, ServiceFact};
use super::image::{self, Rewrite};
use super::marker::Marker;
use super::mistake::Place;
use crate::domain::{CanaryId, RepoPath};
use kustomizations::{Context, Kustomizations};
use placed::{Index, Placed};
pub(super) use touched::Touched;

mod kustomizations;
mod placed;
mod touched;

/// Namespace of objects for which nothing else says one.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// A Deployment as the cluster will see it.
#[derive(Debug)]
pub(super) struct FoundDeployment<'a> {
    pub(super) file: &'a RepoPath,
    /// It as written.
    pub(super) fact: &'a DeploymentFact,
    /// All kustomizations with `images` that take it in, from the innermost to the outermost.
    pub(super) kustomizations: Vec<(&'a RepoPath, Option<Place>, &'a [Rewrite])>,
}

/// A kustomization whose `images` changed a manifest, with the place of the entry.
pub(super) type Rewriter<'a> = (&'a RepoPath, Option<Place>);

/// The manifest of a Deployment, with all that is written elsewhere.
#[derive(Debug)]
pub(super) struct Effective<'a> {
    /// `images` of kustomizations applied.
    pub(super) manifest: Value,
    pub(super) rewritten_in: Vec<Rewriter<'a>>,
}

impl<'a> FoundDeployment<'a> {
    /// Reads the manifest, and applies what kustomizations say.
    pub(super) fn read(&self) -> Effective<'a> {
        let mut manifest = self.fact.manifest.read();
        let mut rewritten_in = Vec::new();
        for (file, place, rewrites) in &self.kustomizations {
            if image::rewrite(&mut manifest, rewrites) {
                rewritten_in.push((*file, *place));
            }
        }
        Effective {
            manifest,
            rewritten_in,
        }
    }
}

/// The objects of a repository.
#[derive(Debug)]
pub(super) struct Tree {
    kustomizations: Kustomizations,
    deployments: Index<DeploymentFact>,
    services: Index<ServiceFact>,
    /// Kind and name of objects whose document is broken, by file.
    broken: BTreeMap<RepoPath, Vec<(String, String)>>,
    /// By canary, in the order of files.
    markers: BTreeMap<CanaryId, Vec<(RepoPath, Marker)>>,
    /// What each file holds of all this.
    holdings: BTreeMap<RepoPath, Holding>,
}

/// What a file of the user's holds.
#[derive(Debug)]
struct Holding {
    deployments: Vec<Arc<DeploymentFact>>,
    services: Vec<Arc<ServiceFact>>,
    markers: Vec<Marker>,
    broken: Vec<(String, String)>,
    /// Where its objects are.
    namespaces: Vec<String>,
}

impl Holding {
    /// `None` when there is nothing.
    fn of(facts: &Facts) -> Option<Self> {
        let is_empty = facts.deployments.is_empty()
            && facts.services.is_empty()
            && facts.markers.is_empty()
            && facts.broken_objects.is_empty();
        (!is_empty).then(|| Self {
            deployments: facts.deployments.clone(),
            services: facts.services.clone(),
            markers: facts.markers.clone(),
            broken: facts.broken_objects.clone(),
            namespaces: Vec::new(),
        })
    }
}

/// A file with what it holds now, if anything.
pub(super) type Change<'f> = (&'f RepoPath, Option<&'f Facts>);

impl Tree {
    /// Indexes files; `ours` are the folders in which Serin writes, which hold no objects of the user's.
    pub(super) fn new(files: &BTreeMap<RepoPath, Arc<Facts>>, ours: &BTreeSet<RepoPath>) -> Self {
        let mut tree = Self {
            kustomizations: Kustomizations::default(),
            deployments: Index::of_kind("Deployment"),
            services: Index::of_kind("Service"),
            broken: BTreeMap::new(),
            markers: BTreeMap::new(),
            holdings: BTreeMap::new(),
        };
        for (path, facts) in files {
            if let Some(kustomization) = &facts.kustomization {
                tree.kustomizations.set(path, Some(kustomization));
            }
        }
        for (path, facts) in files.iter().filter(|(path, _)| !is_ours(path, ours)) {
            if let Some(holding) = Holding::of(facts) {
                tree.put(path, holding, None);
            }
        }
        tree
    }

    /// Takes in what changed, with the same folders of ours as ever.
    pub(super) fn update(&mut self, changes: &[Change<'_>], ours: &BTreeSet<RepoPath>) -> Touched {
        let differing = changes.iter().filter(|(path, facts)| {
            let kustomization = facts.and_then(|facts| facts.kustomization.as_ref());
            self.kustomizations.differs(path, kustomization)
        });
        let folders = differing.map(|(path, _)| folder(path).to_owned()).collect();
        let before = self.kustomizations.below(&folders);
        for (path, facts) in changes {
            let kustomization = facts.and_then(|facts| facts.kustomization.as_ref());
            if self.kustomizations.differs(path, kustomization) {
                self.kustomizations.set(path, kustomization);
            }
        }
        let mut paths = self.kustomizations.below(&folders);
        paths.extend(before);
        // They may be in other namespaces now, or with other images.
        let moved: Vec<RepoPath> = paths
            .iter()
            .filter_map(|path| RepoPath::new(&**path))
            .collect();
        paths.extend(changes.iter().map(|(path, _)| path.as_str().to_owned()));
        let mut touched = Touched::paths(paths);
        for (path, facts) in changes {
            self.take(path, &mut touched);
            let users = facts.filter(|_| !is_ours(path, ours));
            if let Some(holding) = users.and_then(Holding::of) {
                self.put(path, holding, Some(&mut touched));
            }
        }
        for path in moved {
            if let Some(holding) = self.take(&path, &mut touched) {
                self.put(&path, holding, Some(&mut touched));
            }
        }
        touched
    }

    /// Takes out what a file held.
    fn take(&mut self, path: &RepoPath, touched: &mut Touched) -> Option<Holding> {
        let holding = self.holdings.remove(path)?;
        self.show(&holding, touched);
        for namespace in &holding.namespaces {
            for fact in &holding.deployments {
                self.deployments.remove(namespace, &fact.name, path);
            }
            for fact in &holding.services {
                self.services.remove(namespace, &fact.name, path);
            }
        }
        for marker in &holding.markers {
            if let Some(markers) = self.markers.get_mut(&marker.canary) {
                markers.retain(|(file, _)| file != path);
                if markers.is_empty() {
                    self.markers.remove(&marker.canary);
                }
            }
        }
        self.broken.remove(path);
        Some(holding)
    }

    /// Puts in what a file holds.
    fn put(&mut self, path: &RepoPath, mut holding: Holding, touched: Option<&mut Touched>) {
        if !holding.deployments.is_empty() || !holding.services.is_empty() {
            let contexts = self.kustomizations.contexts(path);
            let mut namespaces = BTreeSet::new();
            for fact in &holding.deployments {
                let name = (fact.name.as_str(), fact.namespace.as_deref());
                namespaces.extend(self.deployments.insert(name, (fact, path), &contexts));
            }
            for fact in &holding.services {
                let name = (fact.name.as_str(), fact.namespace.as_deref());
                namespaces.extend(self.services.insert(name, (fact, path), &contexts));
            }
            holding.namespaces = namespaces.into_iter().collect();
        }
        for marker in &holding.markers {
            let markers = self.markers.entry(marker.canary.clone()).or_default();
            let at = markers.partition_point(|(file, _)| file <= path);
            markers.insert(at, (path.clone(), marker.clone()));
        }
        if !holding.broken.is_empty() {
            self.broken.insert(path.clone(), holding.broken.clone());
        }
        if let Some(touched) = touched {
            self.show(&holding, touched);
        }
        self.holdings.insert(path.clone(), holding);
    }

    /// Says all that looks for what this file holds may find.
    fn show(&self, holding: &Holding, touched: &mut Touched) {
        for namespace in &holding.namespaces {
            for fact in &holding.deployments {
                touched.deployments(namespace, self.deployments.at(namespace, &fact.name));
            }
            for fact in &holding.services {
                touched.services(self.services.at(namespace, &fact.name));
            }
        }
        for marker in &holding.markers {
            touched.marker(&marker.canary);
        }
    }

    /// The marker comments for a canary, by file and line.
    pub(super) fn markers(&self, id: &CanaryId) -> &[(RepoPath, Marker)] {
        self.markers.get(id).map_or(&[], Vec::as_slice)
    }

    /// The marker comments of all canaries.
    pub(super) fn all_markers(&self) -> impl Iterator<Item = &(RepoPath, Marker)> {
        self.markers.values().flatten()
    }

    /// Another Deployment that the kustomization at `file` takes in, with an image of this name as written.
    pub(super) fn shares(
        &self,
        file: &RepoPath,
        image: &str,
        not: &DeploymentFact,
    ) -> Option<&str> {
        let mut all = self.deployments.iter();
        let found = all.find(|placed| {
            !std::ptr::eq(&raw const *placed.fact, not)
                && placed.fact.images.iter().any(|name| name == image)
                && placed.context.files().any(|other| other == file)
        });
        found.map(|placed| placed.fact.name.as_str())
    }

    /// The namespaces that kustomizations give to objects of `file` that name none, each with one that says so.
    pub(super) fn namespaces(&self, file: &RepoPath) -> BTreeMap<String, RepoPath> {
        let contexts = self.kustomizations.contexts(file);
        let sources = contexts.iter().filter_map(Context::namespace_source);
        sources
            .map(|(namespace, source)| (namespace.to_owned(), source.clone()))
            .collect()
    }

    /// The kustomization in the folder of `file`.
    pub(super) fn kustomization_beside(&self, file: &RepoPath) -> Option<&RepoPath> {
        let beside = self.kustomizations.in_folder(folder(file))?;
        Some(&beside.file)
    }

    /// Whether the kustomization at `file` takes the folder in, directly or through others.
    pub(super) fn takes_in(&self, file: &RepoPath, member: &RepoPath) -> bool {
        self.kustomizations.takes_in(file, member)
    }

    /// The Deployment `name` of the namespace, as near as possible to `home`.
    pub(super) fn deployment(
        &self,
        namespace: &str,
        name: &str,
        home: &RepoPath,
    ) -> Result<FoundDeployment<'_>, String> {
        let placed = self
            .deployments
            .find(namespace, name, home)
            .map_err(|problem| self.add_hint("Deployment", name, problem))?;
        Ok(found(placed))
    }

    /// Where the user keeps a Deployment of this name; `None` when there is none.
    pub(super) fn deployment_file(
        &self,
        namespace: &str,
        name: &str,
        home: &RepoPath,
    ) -> Option<&RepoPath> {
        let placed = self.deployments.first(namespace, name);
        placed
            .or_else(|| self.deployments.beside(name, home))
            .map(|placed| &placed.file)
    }

    /// The Service `name` of the namespace, as near as possible to `home`.
    pub(super) fn service(
        &self,
        namespace: &str,
        name: &str,
        home: &RepoPath,
    ) -> Result<&Placed<ServiceFact>, String> {
        self.services
            .find(namespace, name, home)
            .map_err(|problem| self.add_hint("Service", name, problem))
    }

    fn add_hint(&self, kind: &str, name: &str, problem: String) -> String {
        let is_it = |(k, n): &(String, String)| k == kind && n == name;
        let broken = self.broken.iter();
        let broken = broken
            .filter(|(_, objects)| objects.iter().any(is_it))
            .map(|(file, _)| file);
        broken.take(1).fold(problem, |problem, file| {
            format!("{problem}; there is one in {file}, which is not valid YAML")
        })
    }

    /// All Deployments of the namespace by name, each as near as possible to `home`.
    pub(super) fn deployments(
        &self,
        namespace: &str,
        home: &RepoPath,
    ) -> BTreeMap<&str, FoundDeployment<'_>> {
        let exact = self.deployments.names(namespace);
        let names: BTreeSet<&str> = exact
            .chain(self.deployments.names(DEFAULT_NAMESPACE))
            .collect();
        names
            .into_iter()
            .filter_map(|name| {
                let placed = self.deployments.find(namespace, name, home).ok()?;
                Some((name, found(placed)))
            })
            .collect()
    }
}

fn found(placed: &Placed<DeploymentFact>) -> FoundDeployment<'_> {
    let kustomizations = placed.context.images();
    FoundDeployment {
        file: &placed.file,
        fact: &placed.fact,
        kustomizations: kustomizations
            .filter(|(_, _, rewrites)| !rewrites.is_empty())
            .collect(),
    }
}

/// Whether Serin writes this file: it lies in a folder of ours, or in one that is named as such.
pub(super) fn is_ours(path: &RepoPath, ours: &BTreeSet<RepoPath>) -> bool {
    let in_chosen = || {
        let mut above = std::iter::successors(path.parent(), RepoPath::parent);
        above.any(|folder| ours.contains(&folder))
    };
    is_named(folder(path)) || (!ours.is_empty() && in_chosen())
}

/// Whether a folder, or one above it, has the name of one of ours.
pub(super) fn is_named(folder: &str) -> bool {
    folder.split('/').any(|part| part.ends_with(".serin"))
}

/// The folder of a file; empty at the top.
pub(super) fn folder(path: &RepoPath) -> &str {
    path.as_str()
        .rsplit_once('/')
        .map_or("", |(folder, _)| folder)
}
