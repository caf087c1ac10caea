//! The objects that a tree asks for, by key, and what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::key::{Kind, ObjectKey};
use super::object::{Object, text};
use super::order;
use crate::domain::{BlobId, CommitId, Manifest, RepoPath};
use crate::lease::Share;

/// Whether objects of a kind belong to namespaces, as far as a cluster was asked.
pub type Scopes = BTreeMap<Kind, bool>;

/// Objects by key.
pub type Objects = BTreeMap<ObjectKey, Arc<Object>>;

/// What is wrong with a part of the tree; the rest is applied all the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// File or folder.
    pub source: String,
    /// What is wrong, for people.
    pub words: String,
}

/// All that a tree asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// The commit.
    pub commit: Option<CommitId>,
    /// The objects. What did not change is the same value as in the tree before, which is how changes are found.
    pub objects: Arc<Objects>,
    /// What could not be read.
    pub problems: Vec<Problem>,
    /// Whether this is all of it. If not, nothing that is missing counts as removed.
    pub complete: bool,
    /// Deployments whose change waits, by namespace and name.
    pub held_back: BTreeSet<(String, String)>,
}

/// Manifests that came out of the program, or why none did, by folder.
pub type Built = BTreeMap<String, Result<Arc<Vec<Manifest>>, String>>;

/// Files by path, with the identity of their content.
pub type Files = Arc<BTreeMap<RepoPath, (BlobId, Arc<[u8]>)>>;

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

impl Desired {
    /// Leaves out what other engines keep.
    pub fn keep(&mut self, share: Share) {
        if share == Share::WHOLE {
            return;
        }
        let objects = self.objects.iter().filter(|(key, _)| key.is_of(share));
        let objects = objects.map(|(key, object)| (key.clone(), Arc::clone(object)));
        self.objects = Arc::new(objects.collect());
        if !share.is_first() {
            // One engine says for all what cannot be read.
            self.problems.clear();
        }
    }

    pub(super) fn problem(&mut self, source: &str, words: String) {
        self.problems.push(Problem {
            source: source.to_owned(),
            words,
        });
    }
}

/// The object that a manifest is about, or why it is none that may be applied.
pub(super) fn key_of(
    manifest: &Value,
    scopes: &Scopes,
    confined: &BTreeSet<String>,
) -> Result<ObjectKey, String> {
    let kind = Kind::of(text(manifest, "/apiVersion"), text(manifest, "/kind"));
    let name = text(manifest, "/metadata/name");
    if name.is_empty() {
        return Err(format!(
            "a {} without a name: objects are applied by name",
            kind.kind
        ));
    }
    let is_namespaced = match scopes.get(&kind) {
        Some(known) => *known,
        None => !order::is_cluster_scoped(&kind),
    };
    let namespace = match text(manifest, "/metadata/namespace") {
        "" => "default",
        namespace => namespace,
    };
    let key = ObjectKey::new(kind, is_namespaced.then_some(namespace), name);
    match outside(&key, confined) {
        Some(words) => Err(words),
        None => Ok(key),
    }
}

/// Why this object is none of a repository's that is confined to some namespaces.
fn outside(key: &ObjectKey, confined: &BTreeSet<String>) -> Option<String> {
    if confined.is_empty() {
        return None;
    }
    let namespace = match key.namespace.as_deref() {
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
    use crate::applier::assembly::Assembly;

    fn desired(files: &[(&str, &str)], confined: &[&str]) -> Desired {
        let files = files.iter().map(|(path, text)| {
            let content: Arc<[u8]> = text.as_bytes().into();
            let path = RepoPath::new(*path).unwrap();
            (path, (BlobId((*text).into()), content))
        });
        let files: Files = Arc::new(files.collect());
        let mut assembly = Assembly::default();
        let sources = assembly.sort(&files);
        let confined = confined.iter().map(|ns| (*ns).to_owned()).collect();
        let commit = CommitId::new("c0ffee");
        let source = Source {
            commit: &commit,
            files: &files,
            skipped: &[],
        };
        let built = Built::new();
        assembly.assemble(&source, (&sources, &built), (&Scopes::new(), &confined))
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
