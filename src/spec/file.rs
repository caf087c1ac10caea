//! What one file holds that matters to canaries.

use std::sync::Arc;

use super::draft::Draft;
use super::image::{Image, Rewrite, containers};
use super::marker::{self, Marker};
use super::mistake::{Mistake, Place, nearest, quoted, suggestion};
use super::summary::labels_of;
use super::{Labels, Severity};
use crate::crd;
use crate::domain::{API_GROUP, CanaryId, Manifest, files};
use crate::yaml::memory;
use crate::yaml::node::Node;

/// What a file holds that matters to canaries.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Facts {
    /// What is wrong with the file as a whole.
    pub(super) mistakes: Vec<Mistake>,
    /// Whether some document of it could not be read.
    pub(super) is_broken: bool,
    pub(super) canaries: Vec<Draft>,
    pub(super) deployments: Vec<Arc<DeploymentFact>>,
    pub(super) services: Vec<Arc<ServiceFact>>,
    pub(super) kustomization: Option<Arc<KustomizationFact>>,
    /// The canary that a state file belongs to.
    pub(super) rollout: Option<CanaryId>,
    /// Where images of canaries are written.
    pub(super) markers: Vec<Marker>,
    /// Kind and name of objects whose document is broken.
    pub(super) broken_objects: Vec<(String, String)>,
}

/// A Deployment as written.
#[derive(Debug, PartialEq)]
pub(super) struct DeploymentFact {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    /// Labels of its pods.
    pub(super) labels: Box<[(String, String)]>,
    /// Names of its images.
    pub(super) images: Box<[String]>,
    pub(super) manifest: Manifest,
}

impl DeploymentFact {
    /// The value of a label of its pods.
    pub(super) fn label(&self, key: &str) -> Option<&String> {
        let found = self.labels.iter().find(|(own, _)| own == key);
        found.map(|(_, value)| value)
    }
}

/// A Service as written.
#[derive(Debug, PartialEq)]
pub(super) struct ServiceFact {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) selector: Labels,
    /// Number and name of each port.
    pub(super) ports: Vec<(u64, Option<String>)>,
}

/// What matters of a kustomization.
#[derive(Debug, PartialEq)]
pub(super) struct KustomizationFact {
    pub(super) namespace: Option<String>,
    /// Files and folders that it takes in, as written.
    pub(super) members: Vec<String>,
    pub(super) images: Vec<Rewrite>,
    /// Where `images` is written.
    pub(super) images_place: Option<Place>,
}

/// What the name of a file says about its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Any manifest.
    Manifest,
    /// A file that kustomize reads; the kind may be left out.
    Kustomization,
    /// A state file of ours.
    Rollout,
}

impl Role {
    pub(super) fn of(file_name: &str) -> Self {
        match file_name {
            "kustomization.yaml" | "kustomization.yml" => Self::Kustomization,
            files::ROLLOUT => Self::Rollout,
            _ => Self::Manifest,
        }
    }
}

/// Whether the bytes `word` occur in `content`.
pub(super) fn mentions(content: &[u8], word: &str) -> bool {
    // The search in texts is linear and fast.
    if let Ok(text) = std::str::from_utf8(content) {
        return text.contains(word);
    }
    let word = word.as_bytes();
    let Some((first, rest)) = word.split_first() else {
        return true;
    };
    let mut from = content;
    while let Some(at) = from.iter().position(|byte| byte == first) {
        from = &from[at + 1..];
        if from.starts_with(rest) {
            return true;
        }
    }
    false
}

/// `None` when it holds nothing of interest.
pub(super) fn read(content: &[u8], role: Role) -> Option<Facts> {
    // A look at the bytes is a hundred times cheaper than parsing, and most files of a repository are none of ours.
    let interesting = role != Role::Manifest
        || [API_GROUP, "Deployment", "Service", marker::WORD]
            .iter()
            .any(|word| mentions(content, word));
    if !interesting {
        return None;
    }
    let ours = mentions(content, API_GROUP);
    // What mentions us is read again soon: a state as such, a spec when its author is looked for, an object by the checker.
    let reading = match ours {
        true => memory::read(content),
        false => memory::peek(content),
    };
    let parsed = &reading.parsed;
    // Sources of Helm and other templates are no YAML until somebody renders them.
    if !parsed.errors.is_empty() && mentions(content, "{{") && !ours {
        return None;
    }
    let (markers, marker_mistakes) = if mentions(content, marker::WORD) {
        marker::find(content, parsed)
    } else {
        Default::default()
    };
    let mut facts = Facts {
        mistakes: parsed.errors.iter().map(Mistake::from).collect(),
        is_broken: !parsed.errors.is_empty(),
        markers,
        ..Facts::default()
    };
    facts.mistakes.extend(marker_mistakes);
    for document in &parsed.documents {
        facts.take(&document.root, role);
    }
    for document in &parsed.broken {
        facts.take_broken(&document.root);
    }
    (facts != Facts::default()).then_some(facts)
}

fn text<'a>(root: &'a Node, path: &[&str]) -> Option<&'a str> {
    root.at(path)?.as_str().filter(|text| !text.is_empty())
}

impl Facts {
    /// Whether a file beside a state file holds no more than what Serin itself writes there: workloads and services in
    /// its folders are nobody's, mistakes and canaries are told in any folder.
    pub(super) fn is_generated(&self) -> bool {
        self.mistakes.is_empty()
            && !self.is_broken
            && self.canaries.is_empty()
            && self.kustomization.is_none()
            && self.markers.is_empty()
            && self.broken_objects.is_empty()
    }

    fn take(&mut self, root: &Node, role: Role) {
        let kind = text(root, &["kind"]).unwrap_or_default();
        let api_version = text(root, &["apiVersion"]).unwrap_or_default();
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let meant_as_ours = || {
            api_version.is_empty()
                || nearest(group, [API_GROUP]).is_some()
                || api_version == API_GROUP
        };
        match (group, kind) {
            (API_GROUP, crd::KIND) => self.take_canary(root, true),
            (_, crd::KIND) if meant_as_ours() => self.take_canary(root, true),
            (API_GROUP, "Rollout") if role == Role::Rollout => {
                self.rollout = text(root, &["canary"]).and_then(|id| id.parse().ok());
            }
            (API_GROUP, "Rollout") => {}
            (API_GROUP, _) => self.take_unknown(root, kind),
            ("apps", "Deployment") => self.deployments.extend(deployment(root).map(Arc::new)),
            ("", "Service") if api_version == "v1" => {
                self.services.extend(service(root).map(Arc::new))
            }
            _ if role == Role::Kustomization
                && matches!(kind, "" | "Kustomization" | "Component") =>
            {
                self.kustomization = Some(Arc::new(kustomization(root)));
            }
            _ => {}
        }
    }

    /// A document of our group that is no canary was probably meant to be one: whoever it names is not gone.
    fn take_unknown(&mut self, root: &Node, kind: &str) {
        let mistake = unknown_kind(root, kind);
        match Draft::read(root, false) {
            Ok(mut draft) => {
                draft.mistakes.push(mistake);
                self.canaries.push(draft);
            }
            Err(_) => self.mistakes.push(mistake),
        }
    }

    fn take_canary(&mut self, root: &Node, whole: bool) {
        match Draft::read(root, whole) {
            Ok(draft) => self.canaries.push(draft),
            Err(_) if !whole => {}
            Err(mistake) => self.mistakes.push(mistake),
        }
    }

    /// Remembers whose document it was that could not be read.
    fn take_broken(&mut self, root: &Node) {
        let api_version = text(root, &["apiVersion"]).unwrap_or_default();
        let kind = text(root, &["kind"]).unwrap_or_default();
        if api_version.starts_with(API_GROUP) && kind == crd::KIND {
            self.take_canary(root, false);
        }
        if let Some(name) = text(root, &["metadata", "name"]) {
            self.broken_objects.push((kind.to_owned(), name.to_owned()));
        }
    }
}

fn unknown_kind(root: &Node, kind: &str) -> Mistake {
    let place = root.get("kind").unwrap_or(root);
    Mistake {
        place: place.into(),
        severity: Severity::Error,
        message: format!(
            "`kind` is {}, expected `{}`{}",
            quoted(kind),
            crd::KIND,
            suggestion(kind, [crd::KIND])
        ),
    }
}

fn deployment(root: &Node) -> Option<DeploymentFact> {
    let manifest = root.to_json();
    let template = &manifest["spec"]["template"];
    let images = containers(template)
        .filter_map(|container| Some(Image::parse(container["image"].as_str()?).name.to_owned()));
    Some(DeploymentFact {
        name: text(root, &["metadata", "name"])?.to_owned(),
        namespace: text(root, &["metadata", "namespace"]).map(str::to_owned),
        labels: labels_of(template).into_iter().collect(),
        images: images.collect(),
        manifest: Manifest::of(&manifest),
    })
}

fn service(root: &Node) -> Option<ServiceFact> {
    let selector = root
        .at(&["spec", "selector"])
        .map_or(&[][..], Node::entries);
    let ports = root.at(&["spec", "ports"]).map_or(&[][..], Node::items);
    Some(ServiceFact {
        name: text(root, &["metadata", "name"])?.to_owned(),
        namespace: text(root, &["metadata", "namespace"]).map(str::to_owned),
        selector: selector
            .iter()
            .filter_map(|(key, value)| Some((key.as_str()?.to_owned(), value.as_str()?.to_owned())))
            .collect(),
        ports: ports
            .iter()
            .filter_map(|port| {
                let number = port.get("port")?.to_json().as_u64()?;
                Some((number, text(port, &["name"]).map(str::to_owned)))
            })
            .collect(),
    })
}

/// An entry of `images`; `None` when it names none.
pub(super) fn rewrite(entry: &Node) -> Option<Rewrite> {
    let word = |key| text(entry, &[key]).map(str::to_owned);
    Some(Rewrite {
        name: word("name")?,
        new_name: word("newName"),
        new_tag: word("newTag"),
        digest: word("digest"),
    })
}

fn kustomization(root: &Node) -> KustomizationFact {
    KustomizationFact {
        namespace: text(root, &["namespace"]).map(str::to_owned),
        members: ["resources", "bases", "components"]
            .iter()
            .filter_map(|key| root.get(key))
            .flat_map(Node::items)
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect(),
        images: root
            .get("images")
            .map_or(&[][..], Node::items)
            .iter()
            .filter_map(rewrite)
            .collect(),
        images_place: root.entry("images").map(|(key, _)| key.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_bytes() {
        assert!(mentions(b"xxDeployment", "Deployment"));
        assert!(mentions(b"DDeployment", "Deployment"));
        assert!(!mentions(b"Deploymen", "Deployment"));
        assert!(mentions(b"", ""));
    }
}
