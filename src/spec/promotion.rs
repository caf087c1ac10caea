//! Promotion: the candidate written into people's own files, and nothing else in them changed.

mod images;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Candidate, CandidateContent, Diagnostic, Labels, Severity, ValidatedCanary, Workload};
use crate::domain::{BlobId, RepoPath};
use crate::yaml::node::Document;
use crate::yaml::{edit, memory};

/// The files of a tree.
pub type Files = BTreeMap<RepoPath, (BlobId, Arc<[u8]>)>;

/// New content of the files that make `candidate` stable. All or nothing.
///
/// Managed: images are written where they are written today: in the Deployment's manifest, in the `images` entry of the
/// kustomization that sets them, or where a marker comment stands; a patch goes into the manifest. Bring your own:
/// `versions.stable` gets the candidate's values.
pub fn promotion_edits(
    files: &Files,
    canary: &ValidatedCanary,
    candidate: &Candidate,
) -> Result<BTreeMap<RepoPath, Vec<u8>>, Diagnostic> {
    let mut work = Work {
        files,
        edits: BTreeMap::new(),
    };
    match (&canary.workload, &candidate.content) {
        (Workload::Managed(managed), content @ CandidateContent::Template { .. }) => {
            template::promote(&mut work, canary, managed, content)?;
        }
        (Workload::BringYourOwn(_), CandidateContent::Labels(labels)) => {
            promote_labels(&mut work, canary, labels)?;
        }
        (Workload::Managed(_) | Workload::BringYourOwn(_), _) => {
            return Err(problem(
                &canary.home.file,
                1,
                "the workload's kind changed while a candidate was rolled out".to_owned(),
            ));
        }
    }
    Ok(work.edits)
}

/// Files with what was written into them so far.
struct Work<'f> {
    files: &'f Files,
    edits: BTreeMap<RepoPath, Vec<u8>>,
}

impl Work<'_> {
    fn content(&self, file: &RepoPath) -> Result<&[u8], Diagnostic> {
        let edited = self.edits.get(file).map(Vec::as_slice);
        edited
            .or_else(|| self.files.get(file).map(|(_, content)| &**content))
            .ok_or_else(|| problem(file, 1, "the file is gone".to_owned()))
    }

    /// Turns the value at a path of a document into `wanted`.
    fn rewrite(
        &mut self,
        file: &RepoPath,
        index: usize,
        path: &[&str],
        wanted: &Value,
    ) -> Result<(), Diagnostic> {
        let edited = edit::rewrite(self.content(file)?, index, path, wanted);
        self.keep(file, edited)
    }

    fn keep(
        &mut self,
        file: &RepoPath,
        edited: Result<Vec<u8>, edit::EditError>,
    ) -> Result<(), Diagnostic> {
        let edited = edited.map_err(|error| {
            let sentence = format!(
                "the candidate cannot be written into this file: {}",
                error.problem
            );
            problem(file, error.line, sentence)
        })?;
        self.edits.insert(file.clone(), edited);
        Ok(())
    }
}

fn problem(file: &RepoPath, line: usize, message: String) -> Diagnostic {
    Diagnostic {
        file: file.clone(),
        line,
        column: 1,
        severity: Severity::Error,
        message,
    }
}

/// The one document of this group, kind and name: the one of the namespace, else one that says none.
fn document(
    bytes: &[u8],
    (group, kind): (&str, &str),
    name: &str,
    namespace: &str,
) -> Option<Document> {
    let text = |document: &Document, path: &[&str]| {
        let node = document.root.at(path)?;
        node.as_str().map(str::to_owned)
    };
    // The next look at the file finds it read, and so does whoever reads the promotion's own commit.
    let reading = memory::read(bytes);
    let mut found: Vec<&Document> = reading.parsed.documents.iter().collect();
    found.retain(|document| {
        let api = text(document, &["apiVersion"]).unwrap_or_default();
        api.split_once('/').is_some_and(|(found, _)| found == group)
            && text(document, &["kind"]).as_deref() == Some(kind)
            && text(document, &["metadata", "name"]).as_deref() == Some(name)
            && text(document, &["metadata", "namespace"])
                .is_none_or(|found| found.is_empty() || found == namespace)
    });
    let is_exact = |document: &&Document| {
        text(document, &["metadata", "namespace"]).as_deref() == Some(namespace)
    };
    let exact = found.iter().copied().find(is_exact);
    exact.or(found.first().copied()).cloned()
}

fn promote_labels(
    work: &mut Work<'_>,
    canary: &ValidatedCanary,
    labels: &Labels,
) -> Result<(), Diagnostic> {
    let file = &canary.home.file;
    let id = &canary.id;
    let kind = (crate::domain::API_GROUP, crate::crd::KIND);
    let found = document(work.content(file)?, kind, &id.name, &id.namespace)
        .ok_or_else(|| problem(file, 1, format!("the Canary {id} is gone")))?;
    let wanted = Value::Object(
        labels
            .iter()
            .map(|(key, value)| (key.clone(), Value::from(value.clone())))
            .collect(),
    );
    work.rewrite(file, found.index, &["spec", "versions", "stable"], &wanted)
}
