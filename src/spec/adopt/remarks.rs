//! What else in the repository will meet the candidate's pods or the generated routes.

use serde_json::Value;

use super::super::Labels;
use super::super::tree::Tree;
use super::objects::{Object, is_subset, labels, text_at};
use crate::domain::{CANARY_TRACK, CanaryId, RepoPath, canary_deployment, files};

/// A sentence about an object.
pub(super) struct Remark<'o, 'f> {
    pub(super) about: &'o Object<'f>,
    /// Whether something will go otherwise than meant, so that it is worth a warning later, too.
    pub(super) is_wrong: bool,
    pub(super) words: String,
}

/// What is told of: one canary's pods and its Service.
pub(super) struct Subject<'s, 'f> {
    pub(super) deployment: &'s Object<'f>,
    pub(super) id: &'s CanaryId,
    /// Labels of stable's pods.
    pub(super) stable: &'s Labels,
    /// The label that tells the candidate's pods from stable's.
    pub(super) key: &'s str,
    /// The Service in front of both.
    pub(super) service: &'s str,
}

/// Sentences about objects near the Deployment.
pub(super) fn of<'o, 'f>(
    near: &[&'o Object<'f>],
    subject: &Subject<'_, '_>,
) -> Vec<Remark<'o, 'f>> {
    let mut candidate = subject.stable.clone();
    candidate.insert(subject.key.to_owned(), CANARY_TRACK.to_owned());
    let kind = |kind: &'static str| near.iter().copied().filter(move |near| near.kind == kind);
    let mut remarks = Vec::new();
    let mut warn = |about, words| {
        remarks.push(Remark {
            about,
            is_wrong: true,
            words,
        });
    };
    let key = subject.key;
    for other in kind("Service").filter(|other| other.name != subject.service) {
        if other.selects(&candidate) {
            let words = format!(
                "the Service {} selects the candidate's pods too: its requests are shared by pods, not by the weight, \
                 unless it is one of `route.hosts` or its selector says `{key}: stable`",
                at(other)
            );
            warn(other, words);
        }
    }
    for budget in kind("PodDisruptionBudget") {
        if catches(&budget.value["spec"]["selector"], &candidate) {
            let words = format!(
                "the PodDisruptionBudget {} counts the candidate's pods too: add `{key}: stable` to its selector \
                 if it is to guard stable alone",
                at(budget)
            );
            warn(budget, words);
        }
    }
    for other in kind("Canary") {
        if let Some(words) = flagger(other, &subject.deployment.name) {
            warn(other, words);
        }
    }
    for policy in kind("NetworkPolicy") {
        if let Some(words) = network(policy, subject, &candidate) {
            warn(policy, words);
        }
    }
    for kind in ["VirtualService", "DestinationRule"] {
        for other in near.iter().copied().filter(|near| near.kind == kind) {
            if hosts(&other.value).any(|host| is(host, subject)) {
                let words = format!(
                    "the {kind} {} is about the host {} already, and Istio merges no two: move what it says into `route`, and \
                     remove it in the same commit",
                    at(other),
                    subject.service
                );
                warn(other, words);
            }
        }
    }
    for scaler in kind("HorizontalPodAutoscaler").chain(kind("ScaledObject")) {
        remarks.extend(scales(scaler, subject.deployment));
    }
    remarks
}

/// What scales stable.
fn scales<'o, 'f>(scaler: &'o Object<'f>, deployment: &Object<'_>) -> Vec<Remark<'o, 'f>> {
    if text_at(&scaler.value, "/spec/scaleTargetRef/name") != deployment.name {
        return Vec::new();
    }
    let remark = |is_wrong, words| Remark {
        about: scaler,
        is_wrong,
        words,
    };
    let share = format!(
        "the {} {} scales stable only: the candidate gets the share of stable's replicas that its weight needs",
        scaler.kind,
        at(scaler)
    );
    let mut remarks = vec![remark(false, share)];
    if !deployment.value["spec"]["replicas"].is_null() {
        let both = format!(
            "the manifest of {} says how many `replicas` it has, and so does the {}: remove the field from the \
             manifest, else whoever applies Git takes back what the autoscaler does",
            deployment.name, scaler.kind
        );
        remarks.push(remark(true, both));
    }
    remarks
}

/// Flagger steers the same Deployment: what its rule is called here.
fn flagger(other: &Object<'_>, deployment: &str) -> Option<String> {
    let is_flaggers = text_at(&other.value, "/apiVersion").starts_with("flagger.app/");
    if !is_flaggers || text_at(&other.value, "/spec/targetRef/name") != deployment {
        return None;
    }
    let analysis = &other.value["spec"]["analysis"];
    let interval = analysis["interval"].as_str().unwrap_or("1m");
    let threshold = analysis["threshold"]
        .as_u64()
        .filter(|n| *n > 0)
        .unwrap_or(1);
    Some(format!(
        "Flagger's Canary {} steers this Deployment too: remove it first; to judge by its rule, write `rule: flagger`, \
         `threshold: {threshold}` and `every: {interval}` into `analysis`",
        at(other)
    ))
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

fn network(policy: &Object<'_>, subject: &Subject<'_, '_>, candidate: &Labels) -> Option<String> {
    let selector = &policy.value["spec"]["podSelector"];
    let mut labelled = subject.stable.clone();
    labelled
        .entry(subject.key.to_owned())
        .or_insert_with(|| "stable".to_owned());
    match (catches(selector, &labelled), catches(selector, candidate)) {
        (true, false) => Some(format!(
            "the NetworkPolicy {} applies to stable's pods and not to the candidate's: leave `{}` out of its \
             selector",
            at(policy),
            subject.key
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
fn is(host: &str, subject: &Subject<'_, '_>) -> bool {
    let CanaryId { namespace, .. } = subject.id;
    let name = subject.service;
    [
        name.to_owned(),
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.cluster.local"),
    ]
    .contains(&host.to_owned())
}

/// How the generated folder gets into a kustomization beside the canary.
pub(super) fn of_kustomization(tree: &Tree, name: &str, file: &RepoPath) -> Option<String> {
    let kustomization = tree.kustomization_beside(file)?;
    Some(format!(
        "{kustomization} lists what is applied: after Serin's first commit add `{}` to its `resources`, else the routes and \
         `{}` stay in Git",
        files::folder_name(name),
        canary_deployment(name)
    ))
}
