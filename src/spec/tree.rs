//! The objects of a repository by namespace and name, and what its kustomizations make of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::file::{DeploymentFact, Facts, KustomizationFact, ServiceFact};
use super::image::{self, Image, Rewrite};
use super::marker::Marker;
use super::mistake::{Place, nearest};
use crate::domain::{CanaryId, RepoPath};

/// Namespace of objects for which nothing else says one.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// Most ways in which kustomizations may lead to a file; beyond that something goes in circles.
const MOST_CONTEXTS: usize = 64;
/// Deepest chain of kustomizations.
const DEEPEST_CHAIN: usize = 16;

/// One way in which kustomizations take a file in, from the innermost to the outermost.
#[derive(Debug, Clone, Default)]
pub(super) struct Context<'a> {
    chain: Vec<(&'a RepoPath, &'a KustomizationFact)>,
}

impl<'a> Context<'a> {
    /// The namespace that the outermost of them sets.
    fn namespace(&self) -> Option<&'a str> {
        let mut outermost_first = self.chain.iter().rev();
        outermost_first.find_map(|(_, kustomization)| kustomization.namespace.as_deref())
    }

    /// The `images` on the way, from the innermost to the outermost.
    pub(super) fn images(
        &self,
    ) -> impl Iterator<Item = (&'a RepoPath, Option<Place>, &'a [Rewrite])> {
        self.chain
            .iter()
            .map(|(file, k)| (*file, k.images_place, k.images.as_slice()))
    }
}

/// An object with where it was found.
#[derive(Debug)]
pub(super) struct Placed<'a, T> {
    pub(super) fact: &'a T,
    pub(super) file: &'a RepoPath,
    pub(super) context: Context<'a>,
    /// Nothing in the repository says its namespace.
    anywhere: bool,
}

/// A Deployment as the cluster will see it.
#[derive(Debug)]
pub(super) struct FoundDeployment<'a> {
    pub(super) file: &'a RepoPath,
    /// `images` of kustomizations applied.
    pub(super) manifest: Arc<Value>,
    /// The kustomizations whose `images` changed it, with the place of the entry.
    pub(super) rewritten_in: Vec<(&'a RepoPath, Option<Place>)>,
    /// All kustomizations with `images` that take it in, from the innermost to the outermost.
    pub(super) kustomizations: Vec<&'a RepoPath>,
    /// Its manifest as written.
    pub(super) written: &'a Value,
}

type Index<'a, T> = BTreeMap<&'a str, BTreeMap<&'a str, Vec<Placed<'a, T>>>>;

/// The objects of a repository.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    kustomizations: BTreeMap<&'a str, (&'a RepoPath, &'a KustomizationFact)>,
    /// Folders of kustomizations by file or folder that they take in.
    parents: BTreeMap<String, Vec<&'a str>>,
    deployments: Index<'a, DeploymentFact>,
    services: Index<'a, ServiceFact>,
    broken: Vec<(&'a RepoPath, &'a str, &'a str)>,
    markers: BTreeMap<&'a CanaryId, Vec<(&'a RepoPath, &'a Marker)>>,
}

impl<'a> Tree<'a> {
    /// Indexes files; `ours` are the folders in which Serin writes, which hold no objects of the user's.
    pub(super) fn new(
        files: &'a BTreeMap<RepoPath, Arc<Facts>>,
        ours: &BTreeSet<RepoPath>,
    ) -> Self {
        let kustomizations: BTreeMap<_, _> = files
            .iter()
            .filter_map(|(path, facts)| Some((folder(path), (path, facts.kustomization.as_ref()?))))
            .collect();
        let mut parents: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (dir, (_, kustomization)) in &kustomizations {
            for member in kustomization.members.iter().filter_map(|m| resolve(dir, m)) {
                parents.entry(member).or_default().push(dir);
            }
        }
        let mut tree = Self {
            kustomizations,
            parents,
            deployments: BTreeMap::new(),
            services: BTreeMap::new(),
            broken: Vec::new(),
            markers: BTreeMap::new(),
        };
        for (path, facts) in files {
            if !is_ours(path, ours) {
                tree.add(path, facts);
            }
        }
        tree
    }

    fn add(&mut self, path: &'a RepoPath, facts: &'a Facts) {
        for marker in &facts.markers {
            let of_canary = self.markers.entry(&marker.canary).or_default();
            of_canary.push((path, marker));
        }
        let broken = facts.broken_objects.iter();
        self.broken
            .extend(broken.map(|(kind, name)| (path, kind.as_str(), name.as_str())));
        if facts.deployments.is_empty() && facts.services.is_empty() {
            return;
        }
        let contexts = self.contexts(path);
        for fact in &facts.deployments {
            insert(
                &mut self.deployments,
                (&fact.name, fact.namespace.as_deref()),
                fact,
                path,
                &contexts,
            );
        }
        for fact in &facts.services {
            insert(
                &mut self.services,
                (&fact.name, fact.namespace.as_deref()),
                fact,
                path,
                &contexts,
            );
        }
    }

    /// All ways in which kustomizations take `file` in; one empty way when none does.
    fn contexts(&self, file: &RepoPath) -> Vec<Context<'a>> {
        let mut complete = Vec::new();
        let mut open = vec![(file.as_str(), Context::default())];
        while let Some((member, context)) = open.pop() {
            let parents = self.parents.get(member).map_or(&[][..], Vec::as_slice);
            let fresh: Vec<_> = parents
                .iter()
                .filter_map(|dir| Some((*dir, *self.kustomizations.get(dir)?)))
                .filter(|(_, (path, _))| context.chain.iter().all(|(seen, _)| seen != path))
                .collect();
            let ends_here = fresh.is_empty() || context.chain.len() >= DEEPEST_CHAIN;
            if ends_here || complete.len() + open.len() >= MOST_CONTEXTS {
                complete.push(context);
                continue;
            }
            for (dir, kustomization) in fresh {
                let mut chain = context.chain.clone();
                chain.push(kustomization);
                open.push((dir, Context { chain }));
            }
        }
        complete
    }

    /// The marker comments for a canary, by file and line.
    pub(super) fn markers(&self, id: &CanaryId) -> &[(&'a RepoPath, &'a Marker)] {
        self.markers.get(id).map_or(&[], Vec::as_slice)
    }

    /// The marker comments of all canaries.
    pub(super) fn all_markers(&self) -> impl Iterator<Item = (&'a RepoPath, &'a Marker)> {
        self.markers.values().flatten().copied()
    }

    /// Another Deployment that the kustomization at `file` takes in, with an image of this name as written.
    pub(super) fn shares(&self, file: &RepoPath, image: &str, not: &Value) -> Option<&'a str> {
        let all = self
            .deployments
            .values()
            .flat_map(BTreeMap::values)
            .flatten();
        all.filter(|placed| !std::ptr::eq(&raw const *placed.fact.manifest, not))
            .filter(|placed| placed.context.images().any(|(other, ..)| other == file))
            .find(|placed| {
                let template = placed.fact.manifest.pointer("/spec/template");
                let images = template.into_iter().flat_map(image::containers);
                let mut names =
                    images.filter_map(|c| Some(Image::parse(c["image"].as_str()?).name));
                names.any(|name| name == image)
            })
            .map(|placed| placed.fact.name.as_str())
    }

    /// The namespaces that kustomizations give to objects of `file` that name none.
    pub(super) fn namespaces(&self, file: &RepoPath) -> BTreeSet<&'a str> {
        let contexts = self.contexts(file);
        contexts.iter().filter_map(Context::namespace).collect()
    }

    /// The same with the kustomization that says so.
    pub(super) fn namespace_sources(&self, file: &RepoPath) -> BTreeMap<&'a str, &'a RepoPath> {
        let contexts = self.contexts(file);
        let sources = contexts.iter().filter_map(|context| {
            let mut outermost_first = context.chain.iter().rev();
            outermost_first.find_map(|(path, k)| Some((k.namespace.as_deref()?, *path)))
        });
        sources.collect()
    }

    /// The kustomization in the folder of `file`.
    pub(super) fn kustomization_beside(&self, file: &RepoPath) -> Option<&'a RepoPath> {
        self.kustomizations.get(folder(file)).map(|(path, _)| *path)
    }

    /// Whether the kustomization at `file` takes the folder in, directly or through others.
    pub(super) fn takes_in(&self, file: &RepoPath, member: &RepoPath) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![member.as_str()];
        while let Some(member) = open.pop() {
            for dir in self.parents.get(member).into_iter().flatten() {
                if *dir == folder(file) {
                    return true;
                }
                if seen.insert(*dir) {
                    open.push(dir);
                }
            }
        }
        false
    }

    /// The Deployment `name` of the namespace, as near as possible to `home`.
    pub(super) fn deployment(
        &self,
        namespace: &str,
        name: &str,
        home: &RepoPath,
    ) -> Result<FoundDeployment<'a>, String> {
        let placed = find(&self.deployments, "Deployment", namespace, name, home)
            .map_err(|problem| self.add_hint("Deployment", name, problem))?;
        Ok(found(placed))
    }

    /// Where the user keeps a Deployment of this name; `None` when there is none.
    pub(super) fn deployment_file(
        &self,
        namespace: &str,
        name: &str,
        home: &RepoPath,
    ) -> Option<&'a RepoPath> {
        let placed = at(&self.deployments, namespace, name).first();
        placed
            .or_else(|| beside(&self.deployments, name, home))
            .map(|placed| placed.file)
    }

    /// The Service `name` of the namespace, as near as possible to `home`.
    pub(super) fn service(
        &self,
        namespace: &str,
        name: &str,
        home: &RepoPath,
    ) -> Result<&Placed<'a, ServiceFact>, String> {
        find(&self.services, "Service", namespace, name, home)
            .map_err(|problem| self.add_hint("Service", name, problem))
    }

    fn add_hint(&self, kind: &str, name: &str, problem: String) -> String {
        let broken = self.broken.iter();
        let broken = broken
            .filter(|(_, k, n)| *k == kind && *n == name)
            .map(|(file, ..)| file);
        broken.take(1).fold(problem, |problem, file| {
            format!("{problem}; there is one in {file}, which is not valid YAML")
        })
    }

    /// All Deployments of the namespace by name, each as near as possible to `home`.
    pub(super) fn deployments(
        &self,
        namespace: &str,
        home: &RepoPath,
    ) -> BTreeMap<&'a str, FoundDeployment<'a>> {
        let exact = self.deployments.get(namespace);
        let unplaced = self.deployments.get(DEFAULT_NAMESPACE);
        let names: BTreeSet<&str> = exact
            .into_iter()
            .chain(unplaced)
            .flat_map(BTreeMap::keys)
            .copied()
            .collect();
        names
            .into_iter()
            .filter_map(|name| {
                let placed = find(&self.deployments, "Deployment", namespace, name, home).ok()?;
                Some((name, found(placed)))
            })
            .collect()
    }
}

fn insert<'a, T>(
    index: &mut Index<'a, T>,
    (name, own_namespace): (&'a str, Option<&'a str>),
    fact: &'a T,
    file: &'a RepoPath,
    contexts: &[Context<'a>],
) {
    for context in contexts {
        let written = own_namespace.or_else(|| context.namespace());
        let namespace = written.unwrap_or(DEFAULT_NAMESPACE);
        let placed = index.entry(namespace).or_default().entry(name).or_default();
        // Two ways into the same namespace are two overlays of one environment; the first stands for both.
        if placed.iter().any(|other| std::ptr::eq(other.fact, fact)) {
            continue;
        }
        placed.push(Placed {
            fact,
            file,
            context: context.clone(),
            anywhere: written.is_none(),
        });
    }
}

fn find<'i, 'a, T>(
    index: &'i Index<'a, T>,
    kind: &str,
    namespace: &str,
    name: &str,
    home: &RepoPath,
) -> Result<&'i Placed<'a, T>, String> {
    let exact = at(index, namespace, name);
    if !exact.is_empty() {
        return closest(exact, kind, name, home);
    }
    if let Some(placed) = beside(index, name, home) {
        return Ok(placed);
    }
    let known = index
        .get(namespace)
        .into_iter()
        .flat_map(BTreeMap::keys)
        .copied();
    let elsewhere = index.iter().find_map(|(other, names)| {
        let first = names.get(name)?.first()?;
        Some(format!(
            "; there is one in namespace `{other}` ({})",
            first.file
        ))
    });
    let hint = nearest(name, known)
        .map(|meant| format!(" (did you mean `{meant}`?)"))
        .or(elsewhere)
        .unwrap_or_default();
    Err(format!(
        "there is no {kind} `{name}` in namespace `{namespace}` in this repository{hint}"
    ))
}

/// Manifests often leave the namespace to whoever applies them. Those next to the canary are meant for it.
fn beside<'i, 'a, T>(
    index: &'i Index<'a, T>,
    name: &str,
    home: &RepoPath,
) -> Option<&'i Placed<'a, T>> {
    at(index, DEFAULT_NAMESPACE, name)
        .iter()
        .find(|placed| placed.anywhere && folder(placed.file) == folder(home))
}

fn at<'i, 'a, T>(index: &'i Index<'a, T>, namespace: &str, name: &str) -> &'i [Placed<'a, T>] {
    let placed = index.get(namespace).and_then(|names| names.get(name));
    placed.map_or(&[], Vec::as_slice)
}

/// The one that shares most of its path with `home`.
fn closest<'i, 'a, T>(
    placed: &'i [Placed<'a, T>],
    kind: &str,
    name: &str,
    home: &RepoPath,
) -> Result<&'i Placed<'a, T>, String> {
    let shared = |placed: &Placed<'_, T>| {
        let pair = folder(placed.file).split('/').zip(folder(home).split('/'));
        pair.take_while(|(one, other)| one == other).count()
    };
    let best = placed.iter().map(shared).max().unwrap_or_default();
    let mut nearest = placed.iter().filter(|placed| shared(placed) == best);
    match (nearest.next(), nearest.next()) {
        (Some(only), None) => Ok(only),
        (Some(one), Some(other)) => match nearest_of_two(one, other, home) {
            Some(placed) => Ok(placed),
            None if one.file == other.file => Err(format!(
                "the {kind} `{name}` is written twice in {}: leave one of them",
                one.file
            )),
            None => Err(format!(
                "the {kind} `{name}` is in {} and in {}: it cannot be told which one is meant",
                one.file, other.file
            )),
        },
        (None, _) => Err(format!("there is no {kind} `{name}`")),
    }
}

/// Of two files equally near, the one in the canary's own folder or in one above it.
fn nearest_of_two<'i, 'a, T>(
    one: &'i Placed<'a, T>,
    other: &'i Placed<'a, T>,
    home: &RepoPath,
) -> Option<&'i Placed<'a, T>> {
    let above = |placed: &Placed<'_, T>| match placed.file.parent() {
        Some(folder) => home.is_within(&folder),
        None => true,
    };
    match (above(one), above(other)) {
        (true, false) => Some(one),
        (false, true) => Some(other),
        (true, true) | (false, false) => None,
    }
}

fn found<'a>(placed: &Placed<'a, DeploymentFact>) -> FoundDeployment<'a> {
    let mut manifest = Arc::clone(&placed.fact.manifest);
    let mut rewritten_in = Vec::new();
    let mut kustomizations = Vec::new();
    for (file, place, rewrites) in placed.context.images() {
        if rewrites.is_empty() {
            continue;
        }
        kustomizations.push(file);
        if image::rewrite(Arc::make_mut(&mut manifest), rewrites) {
            rewritten_in.push((file, place));
        }
    }
    FoundDeployment {
        file: placed.file,
        manifest,
        rewritten_in,
        kustomizations,
        written: &placed.fact.manifest,
    }
}

/// Whether Serin writes this file: it lies in a folder of ours, or in one that is named as such.
pub(super) fn is_ours(path: &RepoPath, ours: &BTreeSet<RepoPath>) -> bool {
    let in_named = folder(path).split('/').any(|part| part.ends_with(".serin"));
    let mut above = std::iter::successors(path.parent(), RepoPath::parent);
    in_named || above.any(|folder| ours.contains(&folder))
}

/// The folder of a file; empty at the top.
pub(super) fn folder(path: &RepoPath) -> &str {
    path.as_str()
        .rsplit_once('/')
        .map_or("", |(folder, _)| folder)
}

/// A path that a kustomization in `dir` names; `None` when it is a URL or leaves the repository.
fn resolve(dir: &str, member: &str) -> Option<String> {
    if member.contains("://") || member.contains('?') || member.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in member.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_relative_to_their_kustomization() {
        for (dir, member, expected) in [
            ("apps/x", "deployment.yaml", Some("apps/x/deployment.yaml")),
            ("apps/x", "./a.yaml", Some("apps/x/a.yaml")),
            ("apps/x", "../base/", Some("apps/base")),
            ("", "base", Some("base")),
            ("apps", "..", Some("")),
            ("apps", "../..", None),
            ("apps", "https://example.com/x.yaml", None),
            ("apps", "github.com/x/y?ref=v1", None),
        ] {
            assert_eq!(resolve(dir, member).as_deref(), expected, "{dir} {member}");
        }
    }
}
