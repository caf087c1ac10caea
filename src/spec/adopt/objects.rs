//! The user's own objects that matter when a Deployment is adopted.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::file::mentions;
use super::super::promotion::Files;
use super::super::tree::{Tree, folder, is_ours};
use super::super::{Labels, catalog};
use super::{AllFacts, CannotAdopt};
use crate::domain::RepoPath;
use crate::yaml::node::{self, Document};

/// Kinds that are looked at, with the group of their `apiVersion`.
const KINDS: [(&str, &str); 12] = [
    ("apps", "Deployment"),
    ("apps", "StatefulSet"),
    ("apps", "DaemonSet"),
    ("argoproj.io", "Rollout"),
    ("flagger.app", "Canary"),
    ("", "Service"),
    ("policy", "PodDisruptionBudget"),
    ("autoscaling", "HorizontalPodAutoscaler"),
    ("keda.sh", "ScaledObject"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("networking.istio.io", "VirtualService"),
    ("networking.istio.io", "DestinationRule"),
];

/// An object with where it is written.
#[derive(Debug)]
pub(super) struct Object<'f> {
    pub(super) file: &'f RepoPath,
    /// Position of its document in the file.
    pub(super) index: usize,
    /// Line of its first byte, from 1.
    pub(super) line: usize,
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) own_namespace: Option<String>,
    /// Where kustomizations bring it, when it names none itself.
    given: BTreeSet<String>,
    pub(super) value: Value,
}

/// All of them, in the order of files.
pub(super) struct Objects<'f>(Vec<Object<'f>>);

impl<'f> Objects<'f> {
    pub(super) fn read(files: &'f Files, facts: &AllFacts, tree: &Tree) -> Self {
        let ours = catalog::generated_folders(facts);
        let charts = files
            .keys()
            .filter(|path| path.file_name() == "Chart.yaml")
            .map(|path| folder(path).to_owned())
            .collect();
        let mut objects = Vec::new();
        for (file, (_, content)) in files {
            let interesting = KINDS.iter().any(|(_, kind)| mentions(content, kind));
            if !interesting || is_ours(file, &ours) || catalog::is_template(file, &charts) {
                continue;
            }
            let given = tree.namespaces(file).into_keys().collect();
            for document in node::parse(content).documents {
                objects.extend(Object::read(file, &document, &given));
            }
        }
        Self(objects)
    }

    /// All objects, in the order of files.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Object<'f>> {
        self.0.iter()
    }

    /// Those that end up where the Deployment does.
    pub(super) fn near(&self, deployment: &Object<'_>, namespace: &str) -> Vec<&Object<'f>> {
        let all = self.0.iter();
        all.filter(|object| object.is_near(deployment, namespace))
            .collect()
    }

    pub(super) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Object<'f>> {
        self.0.iter().filter(move |object| object.kind == kind)
    }
}

impl<'f> Object<'f> {
    fn read(file: &'f RepoPath, document: &Document, given: &BTreeSet<String>) -> Option<Self> {
        let value = document.root.to_json();
        let api_version = value["apiVersion"].as_str()?;
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let kind = value["kind"].as_str()?;
        let (_, kind) = KINDS
            .into_iter()
            .find(|(known, name)| *known == group && *name == kind)?;
        let own_namespace = Some(text_at(&value, "/metadata/namespace"));
        let own_namespace = own_namespace.filter(|namespace| !namespace.is_empty());
        Some(Self {
            file,
            index: document.index,
            line: document.root.span.line,
            kind,
            name: Some(text_at(&value, "/metadata/name")).filter(|name| !name.is_empty())?,
            given: match own_namespace {
                Some(_) => BTreeSet::new(),
                None => given.clone(),
            },
            own_namespace,
            value,
        })
    }

    /// Whether nothing in the repository says its namespace.
    pub(super) fn is_anywhere(&self) -> bool {
        self.own_namespace.is_none() && self.given.is_empty()
    }

    /// The namespaces that it is brought into, as far as the repository says.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.own_namespace
            .iter()
            .chain(&self.given)
            .map(String::as_str)
    }

    fn is_in(&self, namespace: &str) -> bool {
        self.own_namespace.as_deref() == Some(namespace) || self.given.contains(namespace)
    }

    pub(super) fn may_be_in(&self, namespace: &str) -> bool {
        self.is_in(namespace) || self.is_anywhere()
    }

    /// Whether it ends up where the Deployment does: in the same namespace, or, where nothing says one, beside it.
    pub(super) fn is_near(&self, deployment: &Object<'_>, namespace: &str) -> bool {
        let both_anywhere = self.is_anywhere() && deployment.is_anywhere();
        let beside = self.is_anywhere() && folder(self.file) == folder(deployment.file);
        self.is_in(namespace) || both_anywhere || beside
    }

    /// `namespace/name in file`, as far as known.
    pub(super) fn placed(&self) -> String {
        let namespaces: Vec<&str> = self.namespaces().collect();
        let prefix = match namespaces.as_slice() {
            [] => String::new(),
            all => format!("{}/", all.join("|")),
        };
        format!("{prefix}{} in {}", self.name, self.file)
    }

    /// What a Service selects.
    pub(super) fn selector(&self) -> Labels {
        labels(&self.value["spec"]["selector"])
    }

    /// Whether a Service selects pods with these labels.
    pub(super) fn selects(&self, pods: &Labels) -> bool {
        let selector = self.selector();
        !selector.is_empty() && is_subset(&selector, pods)
    }

    /// Ports of a Service: number, name, protocol that it says it speaks.
    pub(super) fn ports(&self) -> Vec<(u64, String, String)> {
        let ports = self.value["spec"]["ports"].as_array();
        ports
            .into_iter()
            .flatten()
            .filter_map(|port| {
                Some((
                    port["port"].as_u64()?,
                    text_at(port, "/name"),
                    text_at(port, "/appProtocol"),
                ))
            })
            .collect()
    }

    /// The first port of a Service that Istio takes for HTTP.
    pub(super) fn http_port(&self) -> Result<u64, CannotAdopt> {
        let ports = self.ports();
        let http = ports.iter().find(|(_, name, protocol)| {
            let said = if protocol.is_empty() { name } else { protocol };
            let said = said.rsplit('/').next().unwrap_or_default();
            let prefix = said.split('-').next().unwrap_or_default();
            // Istio looks at the bytes where nothing it knows is said.
            !["tcp", "tls", "https", "udp", "mongo", "mysql", "redis"].contains(&prefix)
        });
        if let Some((port, ..)) = http {
            return Ok(*port);
        }
        let shown: Vec<String> = ports
            .iter()
            .map(|(number, name, _)| format!("{number} ({name})"))
            .collect();
        Err(CannotAdopt::Unfit(match shown.as_slice() {
            [] => format!("the Service `{}` in {} has no ports", self.name, self.file),
            _ => format!(
                "Istio takes no port of the Service `{}` in {} for HTTP: {}; name one `http-…` or `grpc-…`, or write the \
                 canary by hand with `route.tcp` or `route.tls` and metrics of your own",
                self.name,
                self.file,
                shown.join(", ")
            ),
        }))
    }
}

/// The text at a JSON pointer; empty when there is none.
pub(super) fn text_at(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default().to_owned()
}

/// A map of labels.
pub(super) fn labels(value: &Value) -> Labels {
    let entries = value.as_object().into_iter().flatten();
    entries
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// Whether pods with `labels` are selected.
pub(super) fn is_subset(selector: &Labels, labels: &Labels) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}
