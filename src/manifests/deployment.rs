//! The candidate's `Deployment` in managed mode, derived from the stable one in Git.

use serde_json::{Map, Value, json};

use super::render::{Entries, Last, MANAGED_BY, metadata, object_of};
use super::subsets::Subsets;
use crate::domain::{CANARY_TRACK, canary_deployment};
use crate::progression::{Phase, Rollout, State, replicas};
use crate::spec::patch::with_candidate;
use crate::spec::{ManagedWorkload, ValidatedCanary, Workload};
use crate::yaml::parts::Part;

/// Labels and annotations that say who applies, owns or prunes the stable object, or what was last applied to it. A
/// name that ends in `/` stands for all that start with it.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
    "meta.helm.sh/",
    "helm.sh/",
    "helm.toolkit.fluxcd.io/",
    "kustomize.toolkit.fluxcd.io/",
    "argocd.argoproj.io/",
    "config.kubernetes.io/",
    "internal.config.kubernetes.io/",
    "config.k8s.io/",
    "serin.dev/",
    MANAGED_BY.0,
];

/// Whether spec and state render to the object that there was, or to none as before, as far as the subsets are the same.
pub(super) fn is_same(last: &Last<'_>, canary: &ValidatedCanary, state: &State) -> bool {
    let Workload::Managed(managed) = &canary.workload else {
        return matches!(last.canary.workload, Workload::BringYourOwn(_));
    };
    let Workload::Managed(before) = &last.canary.workload else {
        return false;
    };
    match (last.state.rollout(), state.rollout()) {
        (None, None) => true,
        (Some(first), Some(second)) => {
            (std::ptr::eq(before, managed) || before == managed)
                && first.candidate.content == second.candidate.content
                && pods(last.canary, before, last.state, first)
                    == pods(canary, managed, state, second)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// How many pods the candidate has.
fn pods(
    canary: &ValidatedCanary,
    managed: &ManagedWorkload,
    state: &State,
    rollout: &Rollout,
) -> u64 {
    let is_draining = matches!(state.phase, Phase::Draining(..));
    replicas(managed, &canary.ladder, rollout, is_draining)
}

/// The object, while a rollout runs or drains and the two versions can be told apart.
pub(super) fn render<'a>(
    canary: &'a ValidatedCanary,
    state: &State,
    subsets: &Subsets,
) -> Option<Part<'a>> {
    let (Workload::Managed(managed), Some(_), Some(rollout)) =
        (&canary.workload, &subsets.stable, state.rollout())
    else {
        return None;
    };
    let mut manifest = entries(Some(managed.manifest.read()));
    let mut spec = entries(manifest.remove("spec"));
    // A paused Deployment would never start the candidate's pods.
    spec.remove("paused");
    spec.insert(
        "replicas".to_owned(),
        json!(pods(canary, managed, state, rollout)),
    );
    let stable = (spec.remove("selector"), spec.remove("template"));
    let (selector, template) = (
        selector(stable.0, &managed.label_key),
        template(stable.1, managed, rollout),
    );
    spec.insert("selector".to_owned(), selector);
    spec.insert("template".to_owned(), template);
    let mut known = entries(manifest.remove("metadata"));
    let mut labels = copied(known.remove("labels"));
    labels.push((managed.label_key.as_str().into(), CANARY_TRACK.into()));
    let annotations = copied(known.remove("annotations"));
    let name = canary_deployment(&managed.deployment);
    let mut text = |key: &str, default: &str| match manifest.remove(key) {
        Some(Value::String(text)) => text,
        _ => default.to_owned(),
    };
    Some(object_of(
        text("apiVersion", "apps/v1"),
        text("kind", "Deployment"),
        metadata(canary, name, labels, annotations),
        Value::Object(spec).into(),
    ))
}

fn entries(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(entries)) => entries,
        Some(_) | None => Map::new(),
    }
}

fn copied(found: Option<Value>) -> Entries<'static> {
    let owned_elsewhere = |key: &str| {
        NOT_COPIED
            .iter()
            .any(|name| key == *name || (name.ends_with('/') && key.starts_with(name)))
    };
    let entries = entries(found).into_iter();
    entries
        .filter(|(key, _)| !owned_elsewhere(key))
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

/// Stable's selector with the candidate's track: it selects the candidate's pods only.
fn selector(stable: Option<Value>, label_key: &str) -> Value {
    let mut selector = entries(stable);
    let mut labels = entries(selector.remove("matchLabels"));
    labels.insert(label_key.to_owned(), json!(CANARY_TRACK));
    selector.insert("matchLabels".to_owned(), Value::Object(labels));
    let about_others =
        |expression: &&Value| expression.get("key").and_then(Value::as_str) != Some(label_key);
    if let Some(Value::Array(expressions)) = selector.remove("matchExpressions") {
        let kept: Vec<Value> = expressions.iter().filter(about_others).cloned().collect();
        if !kept.is_empty() {
            selector.insert("matchExpressions".to_owned(), Value::Array(kept));
        }
    }
    Value::Object(selector)
}

/// The candidate's pods. They carry no sequence number: each step would restart them.
fn template(stable: Option<Value>, managed: &ManagedWorkload, rollout: &Rollout) -> Value {
    let stable = stable.unwrap_or_else(|| json!({}));
    let mut template = entries(Some(with_candidate(stable, &rollout.candidate.content)));
    let mut metadata = entries(template.remove("metadata"));
    metadata.remove("creationTimestamp");
    let mut labels = entries(metadata.remove("labels"));
    labels.insert(managed.label_key.clone(), json!(CANARY_TRACK));
    metadata.insert("labels".to_owned(), Value::Object(labels));
    template.insert("metadata".to_owned(), Value::Object(metadata));
    Value::Object(template)
}
