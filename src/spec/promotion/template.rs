//! A candidate of managed mode: its patch into the manifest, its images where they are set.

use serde_json::Value;

use super::super::{CandidateContent, Diagnostic, ManagedWorkload, ValidatedCanary, image, patch};
use super::images::{self, Source};
use super::{Work, document, problem};
use crate::yaml::node::{Document, Node};

/// Writes the candidate; afterwards the files must say exactly what it asks for.
pub(super) fn promote(
    work: &mut Work<'_>,
    canary: &ValidatedCanary,
    managed: &ManagedWorkload,
    candidate: &CandidateContent,
) -> Result<(), Diagnostic> {
    let file = &managed.file;
    let found = manifest(work, canary, managed)?;
    let written = found
        .root
        .at(&["spec", "template"])
        .map(Node::to_json)
        .unwrap_or_default();
    let effective = managed.manifest.read()["spec"]["template"].take();
    let goal = patch::apply_candidate(&effective, candidate);
    let mut target = patch::apply_candidate(&written, candidate);
    let mut elsewhere = Vec::new();
    for container in names(&target) {
        let raw = image_of(&written, &container);
        let source = images::source(work, canary, managed, &container, raw)?;
        if source == Source::Manifest {
            continue;
        }
        let wanted = image_of(&goal, &container).unwrap_or_default().to_owned();
        // What is set elsewhere replaces what stands in the manifest, so that is left alone.
        let kept = images::in_manifest(managed, &source, raw, &wanted);
        set_image(&mut target, &container, kept.as_deref());
        if image_of(&effective, &container) != Some(wanted.as_str()) {
            elsewhere.push((source, wanted));
        }
    }
    if target != written {
        work.rewrite(file, found.index, &["spec", "template"], &target)?;
    }
    for (source, wanted) in elsewhere {
        images::write(work, canary, managed, &source, &wanted)?;
    }
    let after = manifest(work, canary, managed)?.root.to_json();
    let after = images::effective(work, canary, managed, after)?;
    let after = &after["spec"]["template"];
    if *after != goal {
        return Err(problem(file, 1, difference(after, &goal)));
    }
    if work.edits.is_empty() {
        let message = "stable already is the candidate: there is nothing to write";
        return Err(problem(file, 1, message.to_owned()));
    }
    Ok(())
}

/// Why the files would not say what the candidate asks for.
fn difference(after: &Value, goal: &Value) -> String {
    let other = names(goal)
        .into_iter()
        .find(|name| image_of(after, name) != image_of(goal, name));
    match other {
        Some(name) => format!(
            "the image of the container `{name}` would become `{}` instead of `{}`: it is set together with another's, \
             or not all of its parts are; write it by hand, or mark where each part is written",
            image_of(after, &name).unwrap_or_default(),
            image_of(goal, &name).unwrap_or_default()
        ),
        None => "the candidate's patch would not take effect as it was judged: write it by hand"
            .to_owned(),
    }
}

fn manifest(
    work: &Work<'_>,
    canary: &ValidatedCanary,
    managed: &ManagedWorkload,
) -> Result<Document, Diagnostic> {
    let kind = ("apps", "Deployment");
    let bytes = work.content(&managed.file)?;
    document(bytes, kind, &managed.deployment, &canary.id.namespace).ok_or_else(|| {
        let message = format!("the Deployment {} is gone", managed.deployment);
        problem(&managed.file, 1, message)
    })
}

fn names(template: &Value) -> Vec<String> {
    image::containers(template)
        .filter_map(|container| container["name"].as_str().map(str::to_owned))
        .collect()
}

fn image_of<'t>(template: &'t Value, container: &str) -> Option<&'t str> {
    image::containers(template)
        .find(|one| one["name"] == container)?
        .get("image")?
        .as_str()
}

fn set_image(template: &mut Value, container: &str, image: Option<&str>) {
    for list in ["containers", "initContainers"] {
        let containers = template["spec"].get_mut(list).and_then(Value::as_array_mut);
        for one in containers.into_iter().flatten() {
            if one["name"] != container {
                continue;
            }
            match (one.as_object_mut(), image) {
                (Some(fields), Some(image)) => {
                    fields.insert("image".to_owned(), Value::from(image));
                }
                (Some(fields), None) => {
                    fields.remove("image");
                }
                (None, _) => {}
            }
        }
    }
}
