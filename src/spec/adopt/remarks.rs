//! What else in the repository will meet the candidate's pods or the generated routes.

use serde_json::Value;

use super::super::Labels;
use super::super::tree::Tree;
use super::objects::{Object, Objects, is_subset, labels, text_at};
use crate::domain::{CANARY_TRACK, CanaryId, RepoPath, TRACK_LABEL, canary_deployment, files};

/// Sentences about objects near the Deployment.
pub(super) fn of(
    objects: &Objects<'_>,
    deployment: &Object<'_>,
    id: &CanaryId,
    stable: &Labels,
    service: &Object<'_>,
) -> Vec<String> {
    let mut candidate = stable.clone();
    candidate.insert(TRACK_LABEL.to_owned(), CANARY_TRACK.to_owned());
    let near = |kind: &'static str| {
        let all = objects.of_kind(kind);
        all.filter(|object| object.is_near(deployment, &id.namespace))
    };
    let mut remarks = Vec::new();
    for other in near("Service").filter(|other| other.name != service.name) {
        if other.selects(&candidate) {
            remarks.push(format!(
                "the Service {} selects the candidate's pods too: its requests are shared by pods, not by the weight, \
                 unless it is one of `route.hosts` or its selector says `{TRACK_LABEL}: stable`",
                at(other)
            ));
        }
    }
    for budget in near("PodDisruptionBudget") {
        if catches(&budget.value["spec"]["selector"], &candidate) {
            remarks.push(format!(
                "the PodDisruptionBudget {} counts the candidate's pods too: add `{TRACK_LABEL}: stable` to its selector \
                 if it is to guard stable alone",
                at(budget)
            ));
        }
    }
    for scaler in near("HorizontalPodAutoscaler").chain(near("ScaledObject")) {
        if text_at(&scaler.value, "/spec/scaleTargetRef/name") == deployment.name {
            remarks.push(format!(
                "the {} {} scales stable only: the candidate gets the share of stable's replicas that its weight needs",
                scaler.kind,
                at(scaler)
            ));
            if !deployment.value["spec"]["replicas"].is_null() {
                remarks.push(format!(
                    "the manifest of {} says how many `replicas` it has, and so does the {}: remove the field from the \
                     manifest, else whoever applies Git takes back what the autoscaler does",
                    deployment.name, scaler.kind
                ));
            }
        }
    }
    remarks.extend(near("NetworkPolicy").filter_map(|policy| network(policy, stable, &candidate)));
    for kind in ["VirtualService", "DestinationRule"] {
        let others =
            near(kind).filter(|other| hosts(&other.value).any(|host| is(host, service, id)));
        remarks.extend(others.map(|other| {
            format!(
                "the {kind} {} is about the host {} already, and Istio merges no two: move what it says into `route`, and \
                 remove it in the same commit",
                at(other),
                service.name
            )
        }));
    }
    remarks
}

fn at(object: &Object<'_>) -> String {
    format!("`{}` ({})", object.name, object.file)
}

/// Whether a label selector takes in pods with these labels, as far as `matchLabels` say.
fn catches(selector: &Value, pods: &Labels) -> bool {
    let has_more = selector["matchExpressions"]
        .as_array()
        .is_some_and(|all| !all.is_empty());
    selector.is_object() && !has_more && is_subset(&labels(&selector["matchLabels"]), pods)
}

fn network(policy: &Object<'_>, stable: &Labels, candidate: &Labels) -> Option<String> {
    let selector = &policy.value["spec"]["podSelector"];
    let mut labelled = stable.clone();
    labelled
        .entry(TRACK_LABEL.to_owned())
        .or_insert_with(|| "stable".to_owned());
    match (catches(selector, &labelled), catches(selector, candidate)) {
        (true, false) => Some(format!(
            "the NetworkPolicy {} applies to stable's pods and not to the candidate's: leave `{TRACK_LABEL}` out of its \
             selector",
            at(policy)
        )),
        _ => None,
    }
}

fn hosts(value: &Value) -> impl Iterator<Item = &str> {
    let many = value["spec"]["hosts"].as_array().into_iter().flatten();
    many.chain(std::iter::once(&value["spec"]["host"]))
        .filter_map(Value::as_str)
}

/// Whether a host of Istio's means this Service.
fn is(host: &str, service: &Object<'_>, id: &CanaryId) -> bool {
    let CanaryId { namespace, .. } = id;
    let name = &service.name;
    [
        name.clone(),
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.cluster.local"),
    ]
    .contains(&host.to_owned())
}

/// How the generated folder gets into a kustomization beside the canary.
pub(super) fn of_kustomization(tree: &Tree<'_>, name: &str, file: &RepoPath) -> Option<String> {
    let kustomization = tree.kustomization_beside(file)?;
    Some(format!(
        "{kustomization} lists what is applied: after Serin's first commit add `{}` to its `resources`, else the routes and \
         `{}` stay in Git",
        files::folder_name(name),
        canary_deployment(name)
    ))
}
