//! Whose doing something is: the part of people's files that a decision rests on, so that the commit which changed it can
//! be told from one that only touched the file.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::domain::{CanaryId, RepoPath, files};
use crate::manifests;
use crate::progression::{Aspect, Intervention, State};
use crate::spec::{ValidatedCanary, Workload};
use crate::yaml::memory::{self, Reading};

/// Files by path.
pub type Contents = BTreeMap<RepoPath, Arc<[u8]>>;

/// Switches: nothing that is rendered depends on them.
const SWITCHES: [&str; 8] = [
    "candidate",
    "ladder",
    "analysis",
    "paused",
    "abort",
    "retry",
    "resume",
    "freeze",
];

/// What files say about an aspect of a canary; `None` where one of them cannot be read. Comments, order and style of
/// writing make no difference.
pub fn written(canary: &ValidatedCanary, aspect: Aspect, files: &Contents) -> Option<Value> {
    let spec = spec(canary, files)?;
    let field = |name: &str| Some(spec[name].clone());
    match aspect {
        Aspect::Existence => Some(Value::Bool(!spec.is_null())),
        Aspect::Proposal => match &canary.workload {
            Workload::Managed(_) => field("candidate"),
            Workload::BringYourOwn(two) => {
                let labels = &spec["versions"]["candidate"];
                Some(json!([
                    labels,
                    templates(files, &two.candidate_deployments)?
                ]))
            }
        },
        Aspect::Stable => match &canary.workload {
            Workload::Managed(managed) => {
                let template = templates(files, std::slice::from_ref(&managed.deployment))?;
                Some(json!([template, images(canary, files)?]))
            }
            Workload::BringYourOwn(two) => {
                let labels = &spec["versions"]["stable"];
                Some(json!([labels, templates(files, &two.stable_deployments)?]))
            }
        },
        Aspect::Abort => field("abort"),
        Aspect::Retry => field("retry"),
        Aspect::Resume => field("resume"),
        Aspect::Ladder => field("ladder"),
        Aspect::Rendering => {
            let mut rendered = spec.clone();
            if let Some(fields) = rendered.as_object_mut() {
                fields.retain(|name, _| !SWITCHES.contains(&name.as_str()));
            }
            let deployments = match &canary.workload {
                Workload::Managed(managed) => {
                    whole(files, std::slice::from_ref(&managed.deployment))?
                }
                Workload::BringYourOwn(_) => Value::Null,
            };
            Some(json!([rendered, deployments, images(canary, files)?]))
        }
        Aspect::Edit => None,
    }
}

/// What the files of ours say about that which an intervention changed.
pub fn edited(
    canary: &ValidatedCanary,
    intervention: &Intervention,
    state: &State,
    files: &Contents,
) -> Option<Value> {
    let generated = |name: &str| {
        let path = canary.home.folder.join(name)?;
        match files.get(&path) {
            Some(content) => sound(content)?.values().first().cloned(),
            None => Some(Value::Null),
        }
    };
    match intervention {
        Intervention::Approved { .. } => Some(generated(files::ROLLOUT)?["approval"].clone()),
        Intervention::Resumed { .. } => Some(generated(files::ROLLOUT)?["held"].clone()),
        Intervention::StateEdited { ours, .. } => {
            let file = generated(files::ROLLOUT)?;
            let moved = position(ours) != position(state);
            Some(if moved {
                json!([file["phase"], file["step"], file["weight"]])
            } else {
                file
            })
        }
        Intervention::WeightEdited { .. } => {
            let routes = generated(files::VIRTUAL_SERVICE)?;
            let weight = manifests::routed_weight(&routes, canary);
            Some(json!(weight.map(crate::domain::Weight::percent)))
        }
        Intervention::ManifestEdited { files: edited, .. } => {
            let text = |path| {
                let content: Option<&Arc<[u8]>> = files.get(path);
                content.map(|content| String::from_utf8_lossy(content).into_owned())
            };
            Some(edited.iter().map(|path| json!(text(path))).collect())
        }
    }
}

fn position(state: &State) -> (u8, u16, &'static str) {
    let step = state.rollout().map_or(0, |rollout| rollout.step);
    (state.weight().percent(), step, state.phase_name())
}

/// The spec as written; null where there is none.
fn spec(canary: &ValidatedCanary, files: &Contents) -> Option<Value> {
    let Some(content) = files.get(&canary.home.file) else {
        return Some(Value::Null);
    };
    let reading = sound(content)?;
    let mut documents = reading.values().iter();
    let own = documents.find(|document| is_canary(document, &canary.id));
    Some(own.map_or(Value::Null, |document| match &document["spec"] {
        Value::Null => json!({}),
        spec => spec.clone(),
    }))
}

/// A kustomization may give the namespace, so that the document need not say it.
fn is_canary(document: &Value, id: &CanaryId) -> bool {
    let metadata = &document["metadata"];
    document["kind"] == "Canary"
        && metadata["name"] == id.name.as_str()
        && (metadata["namespace"].is_null() || metadata["namespace"] == id.namespace.as_str())
}

/// Pod templates of these Deployments, by name.
fn templates(files: &Contents, names: &[String]) -> Option<Value> {
    deployments(files, names, |found| &found["spec"]["template"])
}

/// The manifests of these Deployments, by name.
fn whole(files: &Contents, names: &[String]) -> Option<Value> {
    deployments(files, names, |found| found)
}

fn deployments(
    files: &Contents,
    names: &[String],
    part: impl Fn(&Value) -> &Value,
) -> Option<Value> {
    let mut found = Map::new();
    for content in files.values() {
        for document in sound(content)?.values() {
            let name = document["metadata"]["name"].as_str().unwrap_or_default();
            if document["kind"] == "Deployment" && names.iter().any(|wanted| wanted == name) {
                found.insert(name.to_owned(), part(document).clone());
            }
        }
    }
    Some(Value::Object(found))
}

/// The files in which images are set besides the manifest.
fn images(canary: &ValidatedCanary, files: &Contents) -> Option<Value> {
    let Workload::Managed(managed) = &canary.workload else {
        return Some(Value::Null);
    };
    let sources = managed.images.kustomizations.iter();
    let others = sources.chain(&managed.images.marked);
    others
        .filter(|path| **path != managed.file && **path != canary.home.file)
        .map(|path| match files.get(path) {
            Some(content) => Some(sound(content)?.values().to_vec().into()),
            None => Some(Value::Null),
        })
        .collect()
}

/// A file without a mistake.
fn sound(content: &[u8]) -> Option<Arc<Reading>> {
    let reading = memory::read(content);
    reading.parsed.errors.is_empty().then_some(reading)
}
