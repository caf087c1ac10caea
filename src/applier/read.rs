//! Files to manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::object::{annotation, text};
use super::sources::Kustomization;
use crate::domain::{BlobId, RepoPath};
use crate::yaml::node;

/// Objects with this annotation are for tools on people's machines, as kustomize has it.
const LOCAL_CONFIG: &str = "config.kubernetes.io/local-config";

/// What one file holds.
#[derive(Debug, Default, PartialEq)]
pub struct FileObjects {
    /// Manifests in their order; `List`s are taken apart.
    pub manifests: Vec<Value>,
    /// What is wrong, each as `line:column: message`.
    pub mistakes: Vec<String>,
    /// The kustomization in it.
    pub kustomization: Option<Kustomization>,
}

/// Kustomizations by content, between two readings of a tree.
#[derive(Debug, Default)]
pub struct ReadCache {
    files: BTreeMap<BlobId, Arc<Kustomization>>,
    used: BTreeSet<BlobId>,
}

impl ReadCache {
    /// The kustomization of this content.
    pub fn kustomization(&mut self, blob: &BlobId, content: &[u8]) -> Arc<Kustomization> {
        if self.used.insert(blob.clone()) {
            let read = || read(content, true).kustomization.unwrap_or_default();
            let files = self.files.entry(blob.clone());
            files.or_insert_with(|| Arc::new(read()));
        }
        self.files.get(blob).map(Arc::clone).unwrap_or_default()
    }

    /// Forgets what was not asked for since the last call.
    pub fn sweep(&mut self) {
        let used = std::mem::take(&mut self.used);
        self.files.retain(|blob, _| used.contains(blob));
    }
}

/// Whether kustomize reads its instructions from this file.
pub fn is_kustomization(path: &RepoPath) -> bool {
    matches!(
        path.file_name(),
        "kustomization.yaml" | "kustomization.yml" | "Kustomization"
    )
}

/// What a file of this content holds.
pub fn read(content: &[u8], is_kustomization: bool) -> FileObjects {
    let parsed = node::parse(content);
    let mut found = FileObjects::default();
    if is_kustomization {
        let root = parsed
            .documents
            .first()
            .map(|document| document.root.to_json());
        found.kustomization = Some(Kustomization::of(root.unwrap_or(Value::Null)));
    } else {
        for document in &parsed.documents {
            take(document.root.to_json(), &mut found.manifests);
        }
    }
    let mistakes = parsed.errors.iter();
    found.mistakes = mistakes
        .map(|error| format!("{}:{}: {}", error.line, error.column, error.message))
        .collect();
    found
}

/// Takes a document that is an object for a cluster; others (values of charts, configuration of tools) are left.
fn take(document: Value, into: &mut Vec<Value>) {
    let (api_version, kind) = (text(&document, "/apiVersion"), text(&document, "/kind"));
    if api_version.is_empty() || kind.is_empty() {
        return;
    }
    if kind.ends_with("List")
        && document
            .get("metadata")
            .is_none_or(|m| m.get("name").is_none())
    {
        if let Value::Object(mut fields) = document
            && let Some(Value::Array(items)) = fields.remove("items")
        {
            items.into_iter().for_each(|item| take(item, into));
        }
        return;
    }
    let is_local = annotation(&document, LOCAL_CONFIG).is_some_and(|value| value != "false");
    let is_for_kustomize = api_version.starts_with("kustomize.config.k8s.io/");
    if !is_local && !is_for_kustomize {
        into.push(document);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(content: &str) -> Vec<String> {
        let read = read(content.as_bytes(), false);
        let kinds = read.manifests.iter();
        kinds.map(|m| text(m, "/kind").to_owned()).collect()
    }

    #[test]
    fn only_objects_for_a_cluster_are_taken() {
        let text = concat!(
            "replicaCount: 2\n---\n",
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\n",
            "apiVersion: serin.dev/v1alpha1\nkind: Rollout\nmetadata: {name: a, annotations: {config.kubernetes.io/local-config: 'true'}}\n---\n",
            "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Secret, metadata: {name: b}}, {apiVersion: v1, kind: ConfigMap, metadata: {name: c}}]\n",
        );
        assert_eq!(kinds(text), ["Service", "Secret", "ConfigMap"]);
    }

    #[test]
    fn a_broken_document_is_named_and_stops_no_other() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\nkind: [\n";
        let read = read(text.as_bytes(), false);
        assert_eq!(read.manifests.len(), 1);
        assert_eq!(read.mistakes.len(), 1);
        assert!(
            read.mistakes[0].starts_with("6:") || read.mistakes[0].starts_with("5:"),
            "{:?}",
            read.mistakes
        );
    }
}
