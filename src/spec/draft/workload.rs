//! Workload, versions and proposal.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::mistake::{Mistakes, Place, listed, quoted};
use super::super::names::{DNS_NAME, is_dns_name, is_label_key, is_label_value};
use super::super::{CanaryReplicas, Labels, image};
use super::{ProposalPart, WorkloadPart, part};
use crate::crd::{CandidateSpec, ReplicasSpec, WorkloadSpec};
use crate::domain::{Revision, TRACK_LABEL};
use crate::yaml::node::Node;

/// Reads `workload`, `versions` and `candidate`.
pub(super) fn read(spec: &Node, mistakes: &mut Mistakes) -> Option<WorkloadPart> {
    let present = |key: &str| spec.entry(key).filter(|(_, value)| !value.is_absent());
    match (present("workload"), present("versions")) {
        (None, None) => {
            mistakes.error(
                spec,
                "`spec` needs `workload` (a Deployment that Serin derives the candidate from) or `versions` (two label \
                 sets that you deploy yourself)",
            );
            None
        }
        (Some(_), Some((key, _))) => {
            mistakes.error(
                key,
                "`workload` and `versions` exclude each other: give one of them",
            );
            None
        }
        (Some((_, workload)), None) => managed(workload, spec, mistakes),
        (None, Some((_, versions))) => {
            if let Some((key, _)) = present("candidate") {
                mistakes.error(
                    key,
                    "`candidate` goes with `workload`; with `versions` the proposal is `versions.candidate`",
                );
            }
            two_versions(versions, mistakes)
        }
    }
}

fn managed(node: &Node, spec: &Node, mistakes: &mut Mistakes) -> Option<WorkloadPart> {
    let proposal = spec
        .get("candidate")
        .and_then(|node| proposal(node, mistakes));
    let workload: WorkloadSpec = part(Some(node))?;
    let place = node.get("deployment")?.into();
    if !is_dns_name(&workload.deployment) {
        mistakes.error(
            place,
            format!(
                "`spec.workload.deployment` is {}, expected {DNS_NAME}",
                quoted(&workload.deployment)
            ),
        );
    }
    let label_key = workload.label.unwrap_or_else(|| TRACK_LABEL.to_owned());
    if let Some(label) = node.get("label")
        && !is_label_key(&label_key)
    {
        mistakes.error(
            label,
            format!(
                "`spec.workload.label` is {}, expected the key of a label",
                quoted(&label_key)
            ),
        );
    }
    Some(WorkloadPart::Managed {
        deployment: workload.deployment,
        place,
        label_key,
        replicas: match workload.replicas {
            Some(ReplicasSpec::Fixed(number)) => CanaryReplicas::Fixed(number),
            Some(ReplicasSpec::Rule(_)) | None => CanaryReplicas::Proportional,
        },
        proposal,
    })
}

fn proposal(node: &Node, mistakes: &mut Mistakes) -> Option<ProposalPart> {
    let mut image_places = BTreeMap::new();
    for (key, value) in node.get("images").map_or(&[][..], Node::entries) {
        let container = key.as_str().unwrap_or_default();
        image_places.insert(container.to_owned(), Place::from(key));
        let Value::String(text) = value.to_json() else {
            continue;
        };
        if let Some(problem) = image::problem(&text) {
            mistakes.error(
                value,
                format!(
                    "the image of `{container}` is {}, but {problem}; write `<name>:<tag>` or `<name>@sha256:<digest>`",
                    quoted(&text)
                ),
            );
        }
    }
    let candidate: CandidateSpec = part(Some(node))?;
    let patch = candidate
        .patch
        .filter(|patch| patch.as_object().is_some_and(|patch| !patch.is_empty()));
    if candidate.images.is_empty() && patch.is_none() {
        return None;
    }
    // The user's own fields and nothing else: `allowOlder` is about the candidate, not part of it.
    let written: Map<String, Value> = ["images", "patch"]
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), node.get(key)?.to_json())))
        .collect();
    Some(ProposalPart {
        revision: Revision::of(&Value::Object(written)),
        images: candidate.images,
        image_places,
        patch,
        allow_older: candidate.allow_older.unwrap_or(false),
    })
}

fn two_versions(node: &Node, mistakes: &mut Mistakes) -> Option<WorkloadPart> {
    let mut side = |name: &str| -> Option<(Labels, Place)> {
        let labels_node = node.get(name)?;
        for (key, value) in labels_node.entries() {
            let key_text = key.as_str().unwrap_or_default();
            if !is_label_key(key_text) {
                mistakes.error(
                    key,
                    format!("{} is not the key of a label", quoted(key_text)),
                );
            }
            if let Value::String(text) = value.to_json()
                && !is_label_value(&text)
            {
                mistakes.error(
                    value,
                    format!(
                        "the label `{key_text}` is {}, which is not the value of a label",
                        quoted(&text)
                    ),
                );
            }
        }
        Some((part(Some(labels_node))?, labels_node.into()))
    };
    let stable = side("stable");
    let candidate = side("candidate");
    let ((stable, stable_place), (candidate, candidate_place)) = (stable?, candidate?);
    let only_in = |one: &Labels, other: &Labels| -> Vec<String> {
        one.keys()
            .filter(|key| !other.contains_key(*key))
            .cloned()
            .collect()
    };
    for (missing, place, lacking, having) in [
        (
            only_in(&stable, &candidate),
            candidate_place,
            "candidate",
            "stable",
        ),
        (
            only_in(&candidate, &stable),
            stable_place,
            "stable",
            "candidate",
        ),
    ] {
        if !missing.is_empty() {
            mistakes.error(
                place,
                format!(
                    "`spec.versions.{lacking}` lacks {}, which `{having}` has: both need the same keys, or one subset \
                     would contain the other",
                    listed(missing.iter().map(String::as_str))
                ),
            );
        }
    }
    Some(WorkloadPart::Versions {
        stable,
        stable_place,
        candidate,
        candidate_place,
    })
}
