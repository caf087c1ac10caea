//! A canary as far as its own document says: everything that can be checked without looking at other files.
//!
//! Drafts are remembered by file content, so they know no path.

mod analysis;
mod controls;
mod counters;
mod ladder;
mod route;
mod users;
mod workload;

use serde::de::DeserializeOwned;

use super::mistake::{Mistake, Mistakes, Place, quoted, suggestion};
use super::names::{DNS_NAME, is_dns_label, is_dns_name, is_folder};
use super::{Analysis, CanaryReplicas, Controls, Labels, Protocol, Route, Rung, UserRule, schema};
use crate::crd;
use crate::domain::Revision;
use crate::yaml::node::Node;

/// A canary as written, with the places that later checks point at.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Draft {
    /// `metadata.name`.
    pub(super) name: String,
    /// `metadata.namespace`, if written.
    pub(super) namespace: Option<String>,
    /// Where the name is written.
    pub(super) place: Place,
    /// All that is wrong with the document alone.
    pub(super) mistakes: Vec<Mistake>,
    /// `spec.folder`, if written and valid.
    pub(super) folder: Option<String>,
    /// What it says; `None` when there are errors.
    pub(super) parts: Option<Box<Parts>>,
}

/// What a document without errors says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parts {
    pub(super) workload: WorkloadPart,
    pub(super) route: Route,
    pub(super) route_places: RoutePlaces,
    pub(super) users: Vec<UserRule>,
    pub(super) ladder: Vec<Rung>,
    pub(super) ladder_revision: Revision,
    pub(super) analysis: Analysis,
    pub(super) controls: Controls,
}

/// Workload and proposal.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum WorkloadPart {
    Managed {
        deployment: String,
        place: Place,
        label_key: String,
        replicas: CanaryReplicas,
        proposal: Option<ProposalPart>,
    },
    Versions {
        stable: Labels,
        stable_place: Place,
        candidate: Labels,
        candidate_place: Place,
    },
}

/// `spec.candidate`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ProposalPart {
    /// Identity of images and patch as written.
    pub(super) revision: Revision,
    pub(super) images: std::collections::BTreeMap<String, String>,
    /// Where each image's container is named.
    pub(super) image_places: std::collections::BTreeMap<String, Place>,
    pub(super) patch: Option<serde_json::Value>,
    pub(super) allow_older: bool,
}

/// Where the parts of a route are written that other files have to agree with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RoutePlaces {
    pub(super) service: Place,
    pub(super) port: Option<Place>,
    pub(super) hosts: Place,
}

impl Draft {
    /// Reads a document whose kind is `Canary` of our group. `whole` is false for a document that was cut off by a
    /// mistake in the YAML: then only its name is read. `None`: it has no name to report on.
    pub(super) fn read(root: &Node, whole: bool) -> Result<Self, Mistake> {
        let mut mistakes = Mistakes::default();
        let Some(name_node) = root.at(&["metadata", "name"]) else {
            return Err(unnamed(root.get("metadata").unwrap_or(root)));
        };
        let Some(name) = name_node.as_str().filter(|name| !name.is_empty()) else {
            return Err(unnamed(name_node));
        };
        if !is_dns_name(name) {
            mistakes.error(
                name_node,
                format!("`metadata.name` is {}, expected {DNS_NAME}", quoted(name)),
            );
        }
        let namespace = root.at(&["metadata", "namespace"]);
        let namespace = namespace.filter(|node| !node.to_json().is_null());
        if let Some(node) = namespace {
            let text = node.as_str().unwrap_or_default();
            if !is_dns_label(text) {
                mistakes.error(
                    node,
                    format!(
                        "`metadata.namespace` is {}, expected lower-case letters, digits and `-`",
                        quoted(text)
                    ),
                );
            }
        }
        let mut draft = Self {
            name: name.to_owned(),
            namespace: namespace.and_then(Node::as_str).map(str::to_owned),
            place: name_node.into(),
            mistakes: Vec::new(),
            folder: None,
            parts: None,
        };
        if whole {
            draft.fill(root, &mut mistakes);
        }
        draft.mistakes = mistakes.into_sorted();
        Ok(draft)
    }

    fn fill(&mut self, root: &Node, mistakes: &mut Mistakes) {
        check_frame(root, mistakes);
        let Some(spec) = root.get("spec").filter(|spec| !spec.to_json().is_null()) else {
            mistakes.error(root, "the canary has no `spec`");
            return;
        };
        schema::check_spec(spec, mistakes);
        self.folder = folder(spec, mistakes);
        let route = route::read(spec, mistakes);
        let is_http = route
            .as_ref()
            .is_none_or(|(route, _)| matches!(route.protocol, Protocol::Http(_)));
        let workload = workload::read(spec, mistakes);
        let users = users::read(spec, is_http, mistakes);
        let ladder = ladder::read(spec, is_http, mistakes);
        let analysis = analysis::read(spec, mistakes);
        let controls = controls::read(spec, mistakes);
        if mistakes.has_errors() {
            return;
        }
        let (Some(workload), Some((route, route_places))) = (workload, route) else {
            return;
        };
        self.parts = Some(Box::new(Parts {
            workload,
            route,
            route_places,
            users,
            ladder,
            ladder_revision: Revision::of(
                &spec.get("ladder").map(Node::to_json).unwrap_or_default(),
            ),
            analysis,
            controls,
        }));
    }
}

fn unnamed(node: &Node) -> Mistake {
    Mistake {
        place: node.into(),
        severity: super::Severity::Error,
        message: "a canary needs a `metadata.name`".into(),
    }
}

/// Everything around `spec`.
fn check_frame(root: &Node, mistakes: &mut Mistakes) {
    const FRAME: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
    const METADATA: [&str; 14] = [
        "name",
        "namespace",
        "labels",
        "annotations",
        "finalizers",
        "generateName",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "uid",
    ];
    match root.get("apiVersion") {
        None => mistakes.error(
            root,
            format!(
                "the canary has no `apiVersion`: write `apiVersion: {}`",
                crd::API_VERSION
            ),
        ),
        Some(version) if version.as_str() != Some(crd::API_VERSION) => mistakes.error(
            version,
            format!(
                "`apiVersion` is {}, expected `{}`",
                quoted(version.as_str().unwrap_or_default()),
                crd::API_VERSION
            ),
        ),
        Some(_) => {}
    }
    let metadata = root.get("metadata").map_or(&[][..], Node::entries);
    for (entries, known, path) in [
        (root.entries(), &FRAME[..], "the document"),
        (metadata, &METADATA[..], "`metadata`"),
    ] {
        for (key, _) in entries {
            let name = key.as_str().unwrap_or_default();
            if !known.contains(&name) {
                mistakes.error(
                    key,
                    format!(
                        "unknown field {} in {path}{}",
                        quoted(name),
                        suggestion(name, known.iter().copied())
                    ),
                );
            }
        }
    }
}

fn folder(spec: &Node, mistakes: &mut Mistakes) -> Option<String> {
    let node = spec.get("folder")?;
    let name = node.as_str().filter(|name| !name.is_empty())?;
    if is_folder(name) {
        return Some(name.to_owned());
    }
    mistakes.error(
        node,
        format!(
            "`spec.folder` is {}, expected the name of one folder next to this file",
            quoted(name)
        ),
    );
    None
}

/// A part of the spec as its wire type; `None` when it is absent, or wrong in a way that the schema reported.
fn part<T: DeserializeOwned>(node: Option<&Node>) -> Option<T> {
    let value = node?.to_json();
    if value.is_null() {
        return None;
    }
    serde_json::from_value(value).ok()
}
