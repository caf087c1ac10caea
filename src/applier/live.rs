//! What is remembered of a live object: a few words, so that ten thousand of them fit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::atom::Atom;
use super::compare::{differences, extras, project};
use super::key::{Kind, ObjectKey};
use super::object::{Object, annotation, text};
use super::ready::Rollout;
use super::{ledger::CRD, order};
use crate::domain::{
    APPLIED_ANNOTATION, CANARY_ANNOTATION, CanaryId, OWNER_LABEL, Revision, SEQUENCE_ANNOTATION,
    Timestamp,
};

/// Prefix of the names under which Serin writes.
pub const MANAGER: &str = "serin";

/// A live object in short.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// Identity of this incarnation.
    pub uid: Box<str>,
    /// Version that a write can be bound to.
    pub resource_version: Box<str>,
    /// Which repository's applier wrote it last.
    pub owner: Option<Atom>,
    /// The canary that it says it belongs to.
    pub canary: Option<Arc<CanaryId>>,
    /// Its commit counter.
    pub sequence: Option<u64>,
    /// Identity of the manifest that was applied last.
    pub applied: Option<Arc<str>>,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Why deleting it takes long, in the cluster's words; finalizers by name.
    pub stuck_on: Option<Box<str>>,
    /// Whether an annotation forbids to prune it.
    pub keeps: bool,
    /// Whether an annotation allows to take it over.
    pub is_offered: bool,
    /// When the fields that Git names were written last.
    pub since: Option<Timestamp>,
    /// Who else wrote last: field manager and time.
    pub last_writer: Option<(Atom, Option<Timestamp>)>,
    /// How it compares.
    pub verdict: Verdict,
    /// Fields that others added to an object that Serin renders as a whole, by path.
    pub added: Box<[Vec<String>]>,
    /// What only some kinds have.
    pub nature: Nature,
}

/// How a live object compares with what Git says.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Git has no such object, or it was not compared yet.
    Unknown,
    /// It is what Git says.
    Same,
    /// It is not; what differs, for people.
    Differs(Box<[String]>),
}

/// Names of subsets by host.
type Subsets = BTreeMap<String, BTreeSet<String>>;

/// What only some kinds have.
#[derive(Debug, Clone, PartialEq)]
pub enum Nature {
    /// Nothing of interest.
    Plain,
    /// A Deployment.
    Deployment(Box<Rollout>),
    /// A DestinationRule: host and subsets.
    Rule(Box<(String, BTreeSet<String>)>),
    /// A VirtualService: subsets by host, and the hosts that it routes in the mesh.
    Routes(Box<(Subsets, BTreeSet<String>)>),
    /// A definition of a kind; whether it is established.
    Definition(bool),
    /// A Namespace and its labels.
    Namespace(Box<BTreeMap<String, String>>),
}

/// The projection of an object that the server took as what Git says: identity of its values.
pub type Accepted = Arc<str>;

/// What is known of how the server writes what Git says: it may write quantities or defaults in its own way.
#[derive(Debug, Clone, Copy)]
pub enum Known<'a> {
    /// Nothing yet.
    Nothing,
    /// The projection that it made of the same manifest before.
    Before(&'a Accepted),
    /// The object is its answer to the manifest: it has the last word.
    Now,
}

impl Live {
    /// Reads a live object and compares it.
    pub fn of(
        object: &Value,
        wanted: Option<&Object>,
        known: Known<'_>,
    ) -> (Self, Option<Accepted>) {
        let kind_and_version = (text(object, "/apiVersion"), text(object, "/kind"));
        let metadata = |pointer: &str| text(object, pointer).into();
        let (mut verdict, projection) = match wanted {
            None => (Verdict::Unknown, None),
            Some(wanted) => compared(object, wanted, known),
        };
        let added = wanted.map_or_else(Box::default, |wanted| added(object, wanted));
        if !added.is_empty() {
            let words = added
                .iter()
                .map(|path| format!("{}: not in Git", path.join(".")));
            verdict = match verdict {
                Verdict::Differs(found) => {
                    Verdict::Differs(found.into_iter().chain(words).collect())
                }
                Verdict::Unknown | Verdict::Same => Verdict::Differs(words.collect()),
            };
        }
        let live = Self {
            uid: metadata("/metadata/uid"),
            resource_version: metadata("/metadata/resourceVersion"),
            owner: object
                .pointer("/metadata/labels")
                .and_then(|labels| labels.get(OWNER_LABEL)?.as_str())
                .map(Atom::of),
            canary: canary(object, wanted),
            sequence: annotation(object, SEQUENCE_ANNOTATION).and_then(|n| n.parse().ok()),
            applied: annotation(object, APPLIED_ANNOTATION).map(|hash| identity(hash, wanted)),
            terminating: object.pointer("/metadata/deletionTimestamp").is_some(),
            stuck_on: stuck_on(object),
            is_offered: annotation(object, super::object::ADOPT_ANNOTATION) == Some("true"),
            keeps: annotation(object, super::object::PRUNE_ANNOTATION) == Some("disabled"),
            since: since(object),
            last_writer: last_writer(object),
            verdict,
            added,
            nature: Nature::of(object, kind_and_version),
        };
        (live, projection)
    }

    /// The Deployment's own account.
    pub fn deployment(&self) -> Option<&Rollout> {
        match &self.nature {
            Nature::Deployment(rollout) => Some(rollout),
            Nature::Plain
            | Nature::Rule(_)
            | Nature::Routes(_)
            | Nature::Definition(_)
            | Nature::Namespace(_) => None,
        }
    }

    /// Whether nobody but people look after it.
    pub fn is_strange(&self) -> bool {
        self.owner.is_none() && self.canary.is_none() && !self.is_offered
    }

    /// Whether a live object is what this was read from.
    pub fn is_of(&self, object: &Value) -> bool {
        *self.uid == *text(object, "/metadata/uid")
            && *self.resource_version == *text(object, "/metadata/resourceVersion")
    }

    /// Whether `other` is an older state of the same incarnation. The server promises that versions can be compared.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let number = |live: &Self| live.resource_version.parse::<u128>().ok();
        match (number(self), number(other)) {
            (Some(ours), Some(theirs)) => ours > theirs,
            (_, None) | (None, _) => false,
        }
    }
}

/// Compares, and answers with the projection too.
fn compared(object: &Value, wanted: &Object, known: Known<'_>) -> (Verdict, Option<Accepted>) {
    // Groups with a dot are defined by others; their lists belong to one owner as a whole. Built-in ones end in k8s.io.
    let group = &wanted.key.kind.group;
    let is_builtin = !group.contains('.')
        || (group.ends_with(".k8s.io") && group != "gateway.networking.k8s.io");
    let manifest = wanted.manifest();
    let projected = project(object, &manifest, is_builtin);
    let projection = identity(Revision::of(&projected).as_str(), Some(wanted));
    let is_accepted = match known {
        Known::Nothing => false,
        Known::Before(accepted) => *accepted == projection,
        Known::Now => true,
    };
    if is_accepted {
        return (Verdict::Same, Some(projection));
    }
    let found = differences(&wanted.key.kind, &manifest, &projected);
    let verdict = if found.is_empty() {
        Verdict::Same
    } else {
        Verdict::Differs(found.into())
    };
    (verdict, Some(projection))
}

/// Fields of a route or a rule of ours that Git does not have. Whoever adds `gateways` to it moves traffic as much as
/// somebody who edits a weight. Labels and annotations are anybody's.
fn added(object: &Value, wanted: &Object) -> Box<[Vec<String>]> {
    if wanted.canary.is_none() || wanted.key.kind.group != "networking.istio.io" {
        return Box::default();
    }
    match (wanted.manifest().get("spec"), object.get("spec")) {
        (Some(wanted), Some(live)) => extras(wanted, live, "spec").into(),
        _ => Box::default(),
    }
}

/// An identity, which nearly always is that of the manifest that Git has: then it takes no space.
fn identity(text: &str, wanted: Option<&Object>) -> Arc<str> {
    let known = wanted.map(|wanted| &wanted.hash);
    known
        .filter(|known| ***known == *text)
        .map_or_else(|| text.into(), Arc::clone)
}

/// The canary that an object says it belongs to, which nearly always is the one that Git says.
fn canary(object: &Value, wanted: Option<&Object>) -> Option<Arc<CanaryId>> {
    let id: CanaryId = annotation(object, CANARY_ANNOTATION)?.parse().ok()?;
    let known = wanted.and_then(|wanted| wanted.canary.as_ref());
    let known = known.filter(|known| ***known == id).map(Arc::clone);
    Some(known.unwrap_or_else(|| Arc::new(id)))
}

impl Nature {
    fn of(object: &Value, (api_version, kind): (&str, &str)) -> Self {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        match (group, kind) {
            ("apps", "Deployment") => Self::Deployment(Box::new(Rollout::of(object))),
            ("networking.istio.io", "DestinationRule") => {
                Self::Rule(Box::new(order::subsets_had(object)))
            }
            ("networking.istio.io", "VirtualService") => {
                let (named, hosts) = (order::subsets_named(object), order::mesh_hosts(object));
                Self::Routes(Box::new((named, hosts)))
            }
            (CRD, "CustomResourceDefinition") => {
                let conditions = object
                    .pointer("/status/conditions")
                    .and_then(Value::as_array);
                let established = conditions.into_iter().flatten().any(|condition| {
                    condition["type"] == "Established" && condition["status"] == "True"
                });
                Self::Definition(established)
            }
            ("", "Namespace") => {
                let labels = object
                    .pointer("/metadata/labels")
                    .and_then(Value::as_object);
                let labels = labels
                    .into_iter()
                    .flatten()
                    .filter(|(key, _)| key.as_str() != OWNER_LABEL)
                    .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
                Self::Namespace(Box::new(labels.collect()))
            }
            _ => Self::Plain,
        }
    }
}

/// What keeps an object that is being deleted.
fn stuck_on(object: &Value) -> Option<Box<str>> {
    object.pointer("/metadata/deletionTimestamp")?;
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let said = conditions
        .into_iter()
        .flatten()
        .filter(|condition| condition["status"] == "True")
        .map(|condition| text(condition, "/message"))
        .filter(|message| message.contains("finalizer") || message.contains("remaining"));
    let mut words: Vec<String> = said.map(str::to_owned).collect();
    let finalizers = object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array);
    let names: Vec<&str> = finalizers
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !names.is_empty() {
        words.push(format!("its finalizers are {}", names.join(", ")));
    }
    (!words.is_empty()).then(|| words.join("; ").into())
}

fn managers(object: &Value) -> impl Iterator<Item = (&Value, Option<Timestamp>)> {
    let entries = object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    entries
        .into_iter()
        .flatten()
        .filter(|entry| entry.get("subresource").is_none_or(|s| s == ""))
        .map(|entry| {
            let time = chrono::DateTime::parse_from_rfc3339(text(entry, "/time")).ok();
            (entry, time.map(|time| time.with_timezone(&chrono::Utc)))
        })
}

/// When the commit counter was written, on objects without one the name of the canary, or whatever Serin wrote last: whoever
/// applies sets it with each change.
fn since(object: &Value) -> Option<Timestamp> {
    let of_annotation = |name: &str| {
        let field = format!("f:{name}");
        managers(object)
            .filter(|(entry, _)| {
                let annotations = entry.pointer("/fieldsV1/f:metadata/f:annotations");
                annotations.is_some_and(|fields| fields.get(&field).is_some())
            })
            .filter_map(|(_, time)| time)
            .max()
    };
    let ours = || {
        managers(object)
            .filter(|(entry, _)| text(entry, "/manager").starts_with(MANAGER))
            .filter_map(|(_, time)| time)
            .max()
    };
    of_annotation(SEQUENCE_ANNOTATION)
        .or_else(|| of_annotation(CANARY_ANNOTATION))
        .or_else(ours)
}

/// Who but Serin wrote last.
fn last_writer(object: &Value) -> Option<(Atom, Option<Timestamp>)> {
    managers(object)
        .map(|(entry, time)| (text(entry, "/manager"), time))
        .filter(|(manager, _)| !manager.starts_with(MANAGER))
        .max_by_key(|(_, time)| *time)
        .map(|(manager, time)| (Atom::of(manager), time))
}

/// The key of a live object.
pub fn key_of(object: &Value) -> ObjectKey {
    let kind = Kind::of(text(object, "/apiVersion"), text(object, "/kind"));
    let namespace = text(object, "/metadata/namespace");
    let namespace = (!namespace.is_empty()).then_some(namespace);
    ObjectKey::new(kind, namespace, text(object, "/metadata/name"))
}
