//! Objects by the namespace and the name under which the cluster will know them, and which of several is meant.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::mistake::nearest;
use super::kustomizations::Context;
use super::{DEFAULT_NAMESPACE, folder};
use crate::domain::RepoPath;

/// An object with where it was found.
#[derive(Debug)]
pub(in crate::spec) struct Placed<T> {
    pub(in crate::spec) fact: Arc<T>,
    pub(in crate::spec) file: RepoPath,
    pub(super) context: Context,
    /// Nothing in the repository says its namespace.
    anywhere: bool,
}

/// The objects of one kind.
#[derive(Debug)]
pub(super) struct Index<T> {
    kind: &'static str,
    /// By namespace and name, in the order of files.
    placed: BTreeMap<String, BTreeMap<String, Vec<Placed<T>>>>,
}

/// The first of those that several files hold in the very same bytes: it stands for all of them.
fn distinct<'i, T>(placed: &[&'i Placed<T>]) -> impl Iterator<Item = &'i Placed<T>> {
    placed.iter().enumerate().filter_map(|(at, &one)| {
        let mut before = placed.iter().take(at);
        let is_first = before.all(|other| !Arc::ptr_eq(&other.fact, &one.fact));
        is_first.then_some(one)
    })
}

impl<T> Index<T> {
    pub(super) fn of_kind(kind: &'static str) -> Self {
        Self {
            kind,
            placed: BTreeMap::new(),
        }
    }

    /// Puts an object of `file` behind those of files before it, and says in which namespaces it is then.
    pub(super) fn insert(
        &mut self,
        (name, own_namespace): (&str, Option<&str>),
        (fact, file): (&Arc<T>, &RepoPath),
        contexts: &[Context],
    ) -> Vec<String> {
        let mut namespaces: Vec<String> = Vec::new();
        for context in contexts {
            let written = own_namespace.or_else(|| context.namespace());
            let namespace = written.unwrap_or(DEFAULT_NAMESPACE);
            // Two ways into the same namespace are two overlays of one environment; the first stands for both.
            if namespaces.iter().any(|other| other == namespace) {
                continue;
            }
            namespaces.push(namespace.to_owned());
            let names = self.placed.entry(namespace.to_owned()).or_default();
            let placed = names.entry(name.to_owned()).or_default();
            let at = placed.partition_point(|other| other.file <= *file);
            let context = context.clone();
            let anywhere = written.is_none();
            let (fact, file) = (Arc::clone(fact), file.clone());
            placed.insert(
                at,
                Placed {
                    fact,
                    file,
                    context,
                    anywhere,
                },
            );
        }
        namespaces
    }

    /// Takes out what `file` holds under this name.
    pub(super) fn remove(&mut self, namespace: &str, name: &str, file: &RepoPath) {
        let Some(names) = self.placed.get_mut(namespace) else {
            return;
        };
        if let Some(placed) = names.get_mut(name) {
            placed.retain(|other| other.file != *file);
            if placed.is_empty() {
                names.remove(name);
            }
        }
        if names.is_empty() {
            self.placed.remove(namespace);
        }
    }

    /// All objects.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Placed<T>> {
        let lists = self.placed.values().flat_map(BTreeMap::values);
        lists.flatten()
    }

    /// The names that are known in a namespace.
    pub(super) fn names(&self, namespace: &str) -> impl Iterator<Item = &str> {
        let names = self.placed.get(namespace).into_iter();
        names.flat_map(BTreeMap::keys).map(String::as_str)
    }

    /// The first with this name in this namespace.
    pub(super) fn first(&self, namespace: &str, name: &str) -> Option<&Placed<T>> {
        self.at(namespace, name).first()
    }

    /// All that several files hold under this name in this namespace.
    pub(super) fn at(&self, namespace: &str, name: &str) -> &[Placed<T>] {
        let placed = self.placed.get(namespace).and_then(|names| names.get(name));
        placed.map_or(&[], Vec::as_slice)
    }

    /// The one that a canary in the file `home` means by a name.
    pub(super) fn find(
        &self,
        namespace: &str,
        name: &str,
        home: &RepoPath,
    ) -> Result<&Placed<T>, String> {
        let kind = self.kind;
        let exact = self.at(namespace, name);
        if !exact.is_empty() {
            return closest(exact, kind, name, home);
        }
        if let Some(placed) = self.beside(name, home) {
            return Ok(placed);
        }
        let elsewhere = self.placed.iter().find_map(|(other, names)| {
            let first = names.get(name)?.first()?;
            Some(format!(
                "; there is one in namespace `{other}` ({})",
                first.file
            ))
        });
        let hint = nearest(name, self.names(namespace))
            .map(|meant| format!(" (did you mean `{meant}`?)"))
            .or(elsewhere)
            .unwrap_or_default();
        Err(format!(
            "there is no {kind} `{name}` in namespace `{namespace}` in this repository{hint}"
        ))
    }

    /// Manifests often leave the namespace to whoever applies them. Those next to the canary are meant for it.
    pub(super) fn beside(&self, name: &str, home: &RepoPath) -> Option<&Placed<T>> {
        let mut placed = self.at(DEFAULT_NAMESPACE, name).iter();
        placed.find(|placed| placed.anywhere && folder(&placed.file) == folder(home))
    }
}

/// The one that shares most of its path with `home`. Only of those that are equally near one stands for others in the very
/// same bytes: the folders of two environments may be alike to the last byte, and each canary means its own.
fn closest<'i, T>(
    placed: &'i [Placed<T>],
    kind: &str,
    name: &str,
    home: &RepoPath,
) -> Result<&'i Placed<T>, String> {
    let shared = |placed: &Placed<T>| {
        let pair = folder(&placed.file).split('/').zip(folder(home).split('/'));
        pair.take_while(|(one, other)| one == other).count()
    };
    let best = placed.iter().map(shared).max().unwrap_or_default();
    let nearest = placed.iter().filter(|placed| shared(placed) == best);
    let mut nearest: Vec<&Placed<T>> = nearest.collect();
    nearest.sort_by_key(|placed| !is_above(placed, home));
    let mut nearest = distinct(&nearest);
    match (nearest.next(), nearest.next()) {
        (Some(only), None) => Ok(only),
        (Some(one), Some(other)) if is_above(one, home) && !is_above(other, home) => Ok(one),
        (Some(one), Some(other)) if one.file == other.file => Err(format!(
            "the {kind} `{name}` is written twice in {}: leave one of them",
            one.file
        )),
        (Some(one), Some(other)) => Err(format!(
            "the {kind} `{name}` is in {} and in {}: it cannot be told which one is meant",
            one.file, other.file
        )),
        (None, _) => Err(format!("there is no {kind} `{name}`")),
    }
}

/// Whether it is written in the canary's own folder, or in one above it.
fn is_above<T>(placed: &Placed<T>, home: &RepoPath) -> bool {
    match placed.file.parent() {
        Some(folder) => home.is_within(&folder),
        None => true,
    }
}
