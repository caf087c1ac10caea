//! The objects that a tree asks for, by key, and what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::object::{APPLY_ANNOTATION, Kind, Object, ObjectKey, text};
use super::order;
use super::read::ReadCache;
use super::sources::{self, Kustomization, Sources};
use crate::domain::{BlobId, CommitId, RepoPath};
use crate::lease::Share;

/// Whether objects of a kind belong to namespaces, as far as a cluster was asked.
pub type Scopes = BTreeMap<Kind, bool>;

/// What is wrong with a part of the tree; the rest is applied all the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// File or folder.
    pub source: String,
    /// What is wrong, for people.
    pub words: String,
}

/// All that a tree asks for.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// The commit.
    pub commit: Option<CommitId>,
    /// The objects.
    pub objects: BTreeMap<ObjectKey, Arc<Object>>,
    /// What could not be read.
    pub problems: Vec<Problem>,
    /// Whether this is all of it. If not, nothing that is missing counts as removed.
    pub complete: bool,
    /// Deployments whose change waits, by namespace and name.
    pub held_back: BTreeSet<(String, String)>,
}

/// Manifests that came out of the program, or why none did, by folder.
pub type Built = BTreeMap<String, Result<Arc<Vec<Arc<Value>>>, String>>;

/// Files by path, with the identity of their content.
pub type Files = BTreeMap<RepoPath, (BlobId, Arc<[u8]>)>;

/// A tree on its way to objects.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The commit.
    pub commit: &'a CommitId,
    /// Its YAML files.
    pub files: &'a Files,
    /// Paths that exist and could not be had, and why.
    pub skipped: &'a [(String, String)],
}

/// Which files to apply as they are, and which folders to build.
pub fn sort(files: &Files, cache: &mut ReadCache) -> Sources {
    let read: Vec<_> = files
        .iter()
        .filter(|(path, _)| super::read::is_kustomization(path))
        .map(|(path, (blob, content))| (path, cache.file(path, blob, content)))
        .collect();
    let kustomizations: BTreeMap<String, &Kustomization> = read
        .iter()
        .filter_map(|(path, file)| {
            Some((
                sources::folder(path).to_owned(),
                file.kustomization.as_ref()?,
            ))
        })
        .collect();
    sources::sort(files.keys(), &kustomizations)
}

/// Puts it all together. `confined_to` are the namespaces that this repository may write; empty: all.
pub fn assemble(
    tree: &Source<'_>,
    (sources, built): (&Sources, &Built),
    cache: &mut ReadCache,
    (scopes, confined_to): (&Scopes, &BTreeSet<String>),
) -> Desired {
    let mut desired = Desired {
        commit: Some(tree.commit.clone()),
        ..Desired::default()
    };
    let mut found: Vec<(String, Arc<Value>)> = Vec::new();
    for (path, (blob, content)) in tree.files {
        let is_plain = sources.plain.contains(path);
        let is_input = is_plain || sources.builds.values().any(|inputs| inputs.contains(path));
        if !is_input {
            continue;
        }
        let file = cache.file(path, blob, content);
        for mistake in &file.mistakes {
            desired.problem(path.as_str(), format!("not valid YAML: {mistake}"));
        }
        if is_plain {
            let manifests = file.manifests.iter();
            found.extend(manifests.map(|m| (path.to_string(), Arc::clone(m))));
        }
    }
    for (dir, result) in built {
        match result {
            Ok(manifests) => {
                let source = if dir.is_empty() { "." } else { dir };
                found.extend(manifests.iter().map(|m| (source.to_owned(), Arc::clone(m))));
            }
            Err(words) => desired.problem(dir, words.clone()),
        }
    }
    for (path, why) in tree.skipped {
        desired.problem(path, format!("left out: {why}"));
    }
    cache.sweep();
    // What was read so far is a part of the tree; what follows is about single objects.
    desired.complete = desired.problems.is_empty() && !found.is_empty();
    let scopes = with_definitions(scopes, &found);
    for (source, manifest) in &found {
        desired.take(source, manifest, &scopes, confined_to);
    }
    desired
}

/// The scopes that the cluster told of, and those of definitions in the tree itself.
fn with_definitions(known: &Scopes, found: &[(String, Arc<Value>)]) -> Scopes {
    let mut scopes = known.clone();
    for (_, manifest) in found {
        if text(manifest, "/kind") == "CustomResourceDefinition" {
            let kind = Kind::new(
                text(manifest, "/spec/group"),
                text(manifest, "/spec/names/kind"),
            );
            scopes.insert(kind, text(manifest, "/spec/scope") != "Cluster");
        }
    }
    scopes
}

impl Desired {
    /// Leaves out what other engines keep.
    pub fn keep(&mut self, share: Share) {
        self.objects.retain(|key, _| key.is_of(share));
        if !share.is_first() {
            // One engine says for all what cannot be read.
            self.problems.clear();
        }
    }

    fn problem(&mut self, source: &str, words: String) {
        self.problems.push(Problem {
            source: source.to_owned(),
            words,
        });
    }

    fn take(
        &mut self,
        source: &str,
        manifest: &Value,
        scopes: &Scopes,
        confined: &BTreeSet<String>,
    ) {
        let kind = Kind::of(text(manifest, "/apiVersion"), text(manifest, "/kind"));
        let name = text(manifest, "/metadata/name");
        if name.is_empty() {
            let words = format!(
                "a {} without a name: objects are applied by name",
                kind.kind
            );
            return self.problem(source, words);
        }
        let is_namespaced = match scopes.get(&kind) {
            Some(known) => *known,
            None => !order::is_cluster_scoped(&kind),
        };
        let written = text(manifest, "/metadata/namespace");
        let namespace = match written {
            "" => "default",
            written => written,
        };
        let key = ObjectKey {
            kind,
            namespace: is_namespaced.then(|| namespace.to_owned()),
            name: name.to_owned(),
        };
        if let Some(words) = outside(&key, confined) {
            return self.problem(source, words);
        }
        let object = Object::new(key.clone(), manifest.clone(), source);
        if object.is_disabled(APPLY_ANNOTATION) {
            return;
        }
        if let Some(first) = self.objects.get(&key) {
            let words = format!(
                "{key} is also in {}, which is the one that is applied",
                first.source
            );
            return self.problem(source, words);
        }
        self.objects.insert(key, Arc::new(object));
    }
}

/// Why this object is none of a repository's that is confined to some namespaces.
fn outside(key: &ObjectKey, confined: &BTreeSet<String>) -> Option<String> {
    if confined.is_empty() {
        return None;
    }
    let namespace = match &key.namespace {
        Some(namespace) => namespace,
        None if key.is_namespace() => &key.name,
        None => {
            return Some(format!(
                "{key} belongs to the whole cluster, and this repository is confined to namespaces"
            ));
        }
    };
    (!confined.contains(namespace))
        .then(|| format!("{key} is outside of the namespaces that this repository is confined to"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(files: &[(&str, &str)], confined: &[&str]) -> Desired {
        let files: BTreeMap<RepoPath, (BlobId, Arc<[u8]>)> = files
            .iter()
            .map(|(path, text)| {
                let content: Arc<[u8]> = text.as_bytes().into();
                (
                    RepoPath::new(*path).unwrap(),
                    (BlobId((*text).to_owned()), content),
                )
            })
            .collect();
        let mut cache = ReadCache::default();
        let sources = sort(&files, &mut cache);
        let confined = confined.iter().map(|ns| (*ns).to_owned()).collect();
        let commit = CommitId::new("c0ffee");
        assemble(
            &Source {
                commit: &commit,
                files: &files,
                skipped: &[],
            },
            (&sources, &Built::new()),
            &mut cache,
            (&Scopes::new(), &confined),
        )
    }

    fn keys(desired: &Desired) -> Vec<String> {
        desired.objects.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn namespaces_default_and_whole_cluster_objects_have_none() {
        let text = concat!(
            "{apiVersion: v1, kind: Service, metadata: {name: a}}\n---\n",
            "{apiVersion: v1, kind: Namespace, metadata: {name: test}}\n---\n",
            "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: xs.example.com}, spec: {group: example.com, scope: Cluster, names: {kind: X}}}\n---\n",
            "{apiVersion: example.com/v1, kind: X, metadata: {name: one}}\n",
        );
        let desired = desired(&[("a.yaml", text)], &[]);
        assert_eq!(
            keys(&desired),
            [
                "Namespace test",
                "Service default/a",
                "CustomResourceDefinition xs.example.com",
                "X one"
            ]
        );
        assert!(desired.complete);
    }

    #[test]
    fn a_confined_repository_reaches_nothing_else() {
        let text = concat!(
            "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: other}}\n---\n",
            "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: mine}}\n---\n",
            "{apiVersion: v1, kind: Namespace, metadata: {name: mine}}\n---\n",
            "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: all}}\n",
        );
        let desired = desired(&[("a.yaml", text)], &["mine"]);
        assert_eq!(keys(&desired), ["Namespace mine", "Service mine/a"]);
        assert_eq!(desired.problems.len(), 2, "{:?}", desired.problems);
    }

    #[test]
    fn a_tree_with_a_broken_file_is_not_complete() {
        let good = (
            "a.yaml",
            "{apiVersion: v1, kind: Service, metadata: {name: a}}",
        );
        assert!(desired(&[good], &[]).complete);
        let found = desired(&[good, ("b.yaml", "kind: [")], &[]);
        assert!(!found.complete);
        assert_eq!(keys(&found), ["Service default/a"]);
        assert!(found.problems[0].source == "b.yaml", "{:?}", found.problems);
        assert!(!desired(&[], &[]).complete, "an empty tree removes nothing");
    }

    #[test]
    fn the_first_of_two_is_applied_and_opt_outs_are_left_alone() {
        let text = "{apiVersion: v1, kind: Service, metadata: {name: a}}";
        let off = "{apiVersion: v1, kind: Service, metadata: {name: b, annotations: {serin.dev/apply: disabled}}}";
        let found = desired(&[("a.yaml", text), ("b.yaml", text), ("c.yaml", off)], &[]);
        assert_eq!(keys(&found), ["Service default/a"]);
        assert_eq!(
            found.problems[0].words,
            "Service default/a is also in a.yaml, which is the one that is applied"
        );
    }
}
