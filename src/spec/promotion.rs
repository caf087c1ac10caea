//! Promotion: the candidate written into people's own files, and nothing else in them changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{
    Candidate, CandidateContent, Diagnostic, Labels, ManagedWorkload, Severity, ValidatedCanary,
    Workload, patch,
};
use crate::domain::{BlobId, RepoPath};
use crate::yaml::edit;
use crate::yaml::node::{self, Document};

/// The files of a tree.
pub type Files = BTreeMap<RepoPath, (BlobId, Arc<[u8]>)>;

/// New content of the files that make `candidate` stable. All or nothing.
///
/// Managed: images are written where they are written today, in the Deployment's manifest or in the `images` entry of
/// a kustomization; a patch goes into the manifest. Bring your own: `versions.stable` gets the candidate's values.
pub fn promotion_edits(
    files: &Files,
    canary: &ValidatedCanary,
    candidate: &Candidate,
) -> Result<BTreeMap<RepoPath, Vec<u8>>, Diagnostic> {
    match (&canary.workload, &candidate.content) {
        (Workload::Managed(managed), content @ CandidateContent::Template { .. }) => {
            promote_template(files, canary, managed, content)
        }
        (Workload::BringYourOwn(_), CandidateContent::Labels(labels)) => {
            promote_labels(files, canary, labels)
        }
        (Workload::Managed(_) | Workload::BringYourOwn(_), _) => Err(problem(
            &canary.home.file,
            1,
            "the workload's kind changed while a candidate was rolled out".to_owned(),
        )),
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

fn content<'f>(files: &'f Files, file: &RepoPath) -> Result<&'f [u8], Diagnostic> {
    files
        .get(file)
        .map(|(_, content)| &**content)
        .ok_or_else(|| problem(file, 1, "the file is gone".to_owned()))
}

/// The one document of this kind, name and (if it says one) namespace.
fn document(bytes: &[u8], kind: &str, name: &str, namespace: &str) -> Option<Document> {
    node::parse(bytes).documents.into_iter().find(|document| {
        let text = |path: &[&str]| document.root.at(path).and_then(node::Node::as_str);
        text(&["kind"]) == Some(kind)
            && text(&["metadata", "name"]) == Some(name)
            && text(&["metadata", "namespace"]).is_none_or(|found| found == namespace)
    })
}

fn promote_labels(
    files: &Files,
    canary: &ValidatedCanary,
    labels: &Labels,
) -> Result<BTreeMap<RepoPath, Vec<u8>>, Diagnostic> {
    let file = &canary.home.file;
    let bytes = content(files, file)?;
    let found = document(bytes, "Canary", &canary.id.name, &canary.id.namespace)
        .ok_or_else(|| problem(file, 1, format!("the Canary {} is gone", canary.id)))?;
    let wanted = Value::Object(
        labels
            .iter()
            .map(|(key, value)| (key.clone(), Value::from(value.clone())))
            .collect(),
    );
    let edited = edit::rewrite(bytes, found.index, &["spec", "versions", "stable"], &wanted)
        .map_err(|error| by_hand(file, &error))?;
    Ok([(file.clone(), edited)].into())
}

fn by_hand(file: &RepoPath, error: &edit::EditError) -> Diagnostic {
    problem(
        file,
        error.line,
        format!(
            "the candidate cannot be written into this file: {}",
            error.problem
        ),
    )
}

fn promote_template(
    files: &Files,
    canary: &ValidatedCanary,
    managed: &ManagedWorkload,
    candidate: &CandidateContent,
) -> Result<BTreeMap<RepoPath, Vec<u8>>, Diagnostic> {
    let file = &managed.file;
    let bytes = content(files, file)?;
    let found = document(
        bytes,
        "Deployment",
        &managed.deployment,
        &canary.id.namespace,
    )
    .ok_or_else(|| {
        problem(
            file,
            1,
            format!("the Deployment {} is gone", managed.deployment),
        )
    })?;
    let written = found
        .root
        .at(&["spec", "template"])
        .map(node::Node::to_json)
        .unwrap_or_default();
    let effective = managed.manifest["spec"]["template"].clone();
    let goal = patch::apply_candidate(&effective, candidate);
    let mut edits = BTreeMap::new();
    let mut target = patch::apply_candidate(&written, candidate);
    for (place, raw, shown, wanted) in containers(&written, &effective, &goal) {
        if raw == shown {
            continue;
        }
        // A kustomization sets this image: in the manifest it would be replaced anyway, so it is left alone there.
        if let Some(image) = target.pointer_mut(&place) {
            *image = Value::from(raw.clone());
        }
        if shown != wanted {
            let (path, edited) = promote_kustomized(files, &edits, file, &raw, &wanted)?;
            edits.insert(path, edited);
        }
    }
    if target != written {
        let edited = edit::rewrite(bytes, found.index, &["spec", "template"], &target)
            .map_err(|error| by_hand(file, &error))?;
        edits.insert(file.clone(), edited);
    }
    if edits.is_empty() {
        return Err(problem(
            file,
            1,
            "stable already is the candidate: there is nothing to write".to_owned(),
        ));
    }
    Ok(edits)
}

/// Of each container: where its image stands below the template, as written, as it takes effect, as the candidate
/// wants it.
fn containers(
    written: &Value,
    effective: &Value,
    goal: &Value,
) -> Vec<(String, String, String, String)> {
    let mut found = Vec::new();
    for list in ["initContainers", "containers"] {
        let count = written["spec"][list].as_array().map_or(0, Vec::len);
        for index in 0..count {
            let place = format!("/spec/{list}/{index}/image");
            let image = |template: &Value| {
                template
                    .pointer(&place)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            found.push((place.clone(), image(written), image(effective), image(goal)));
        }
    }
    found
}

/// Writes an image into the `images` entry of the one kustomization that sets it.
fn promote_kustomized(
    files: &Files,
    edits: &BTreeMap<RepoPath, Vec<u8>>,
    manifest: &RepoPath,
    raw: &str,
    wanted: &str,
) -> Result<(RepoPath, Vec<u8>), Diagnostic> {
    let name = split(raw).0;
    let mut places = Vec::new();
    for (path, (_, bytes)) in files {
        if !matches!(
            path.file_name(),
            "kustomization.yaml" | "kustomization.yml" | "Kustomization"
        ) {
            continue;
        }
        let bytes: &[u8] = edits.get(path).map_or(bytes, Vec::as_slice);
        for document in node::parse(bytes).documents {
            let images = document
                .root
                .get("images")
                .map(node::Node::to_json)
                .unwrap_or_default();
            let entry = images
                .as_array()
                .and_then(|list| list.iter().position(|image| image["name"] == name));
            if let Some(entry) = entry {
                places.push((path.clone(), bytes.to_vec(), document.index, images, entry));
            }
        }
    }
    let Ok([(path, bytes, index, mut images, entry)]) = <[_; 1]>::try_from(places) else {
        let message = format!(
            "the image {name} is set by none or several kustomizations: promote it by hand"
        );
        return Err(problem(manifest, 1, message));
    };
    let (new_name, tag, digest) = split(wanted);
    let image = &mut images[entry];
    if new_name != name || !image["newName"].is_null() {
        image["newName"] = Value::from(new_name);
    }
    for (field, value) in [("newTag", tag), ("digest", digest)] {
        match value {
            Some(value) => image[field] = Value::from(value),
            None => {
                image
                    .as_object_mut()
                    .and_then(|fields| fields.remove(field));
            }
        }
    }
    let edited = edit::rewrite(&bytes, index, &["images"], &images)
        .map_err(|error| by_hand(&path, &error))?;
    Ok((path, edited))
}

/// Name, tag and digest of an image reference.
fn split(image: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = image
        .split_once('@')
        .map_or((image, None), |(rest, digest)| (rest, Some(digest)));
    match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag), digest),
        _ => (rest, None, digest),
    }
}
