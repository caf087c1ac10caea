//! What stands in the way of a write.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::Duration;

use super::schedule::PROXIES_CATCH_UP;
use super::{Entry, Ledger, Mode};
use crate::applier::key::{Kind, ObjectKey};
use crate::applier::live::{Live, Nature};
use crate::applier::object::{Object, REPAIR_ANNOTATION};
use crate::applier::order::{Tier, full_host, mesh_hosts, subsets_had, subsets_named};
use crate::domain::Timestamp;

/// Longest time that a route waits for the workloads that it leads to when it is made, in seconds. A workload that does
/// not come up must not keep the others from being reached for ever.
pub(super) const READY_BEFORE_TRAFFIC: i64 = 30;

/// What stands in the way of a write.
pub(super) enum Block {
    /// Somebody may know a newer head: Git is asked first.
    Fetch,
    /// It is somebody else's: looked at again from time to time.
    Foreign(String),
    /// Anything else, for people.
    Words(String),
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetch => {
                f.write_str("its number is not that of the last known commit: Git is asked first")
            }
            Self::Foreign(words) | Self::Words(words) => f.write_str(words),
        }
    }
}

/// Deployments that are not ready, one for each namespace that was asked about: in a pass over what is due, hundreds of
/// routes ask about the same namespace.
#[derive(Default)]
pub(super) struct Unready<'a>(BTreeMap<&'a str, Option<&'a ObjectKey>>);

impl Ledger {
    /// Why nothing can be done about an object now; `None`: it can.
    pub(super) fn blocked<'a>(
        &'a self,
        key: &'a ObjectKey,
        now: Timestamp,
        unready: &mut Unready<'a>,
    ) -> Option<Block> {
        let entry = self.entries.get(key)?;
        let object = entry.wanted.as_ref()?;
        if let Some(failure) = entry
            .failure
            .as_ref()
            .filter(|failure| failure.retry_at > now)
        {
            return Some(Block::Words(failure.words.clone()));
        }
        if entry.live.as_ref().is_some_and(|live| live.terminating) {
            let words = "it is being deleted, and made again when it is gone";
            return Some(Block::Words(words.to_owned()));
        }
        if let Some(words) = self.foreign(key, entry, object) {
            return Some(Block::Foreign(words));
        }
        let words = self
            .left_alone(entry, object)
            .or_else(|| self.namespace_blocks(key))
            .or_else(|| self.definition_blocks(key));
        if let Some(words) = words {
            return Some(Block::Words(words));
        }
        if entry.seen_at == self.heads && self.is_of_another_head(entry, object) {
            return Some(Block::Fetch);
        }
        let words = match object.tier {
            Tier::DestinationRule => self.rule_blocks(key, object, now),
            Tier::VirtualService => self
                .workloads_block(key, entry, now, unready)
                .or_else(|| self.subsets_block(key, object)),
            Tier::Namespace
            | Tier::Definition
            | Tier::Configuration
            | Tier::Service
            | Tier::Workload
            | Tier::Admission => None,
        };
        words.map(Block::Words)
    }

    /// Whether an engine that knows another head wrote the live object: by its number, or where it has none by the
    /// manifest that was applied last.
    fn is_of_another_head(&self, entry: &Entry, object: &Object) -> bool {
        let Some(live) = &entry.live else {
            return false;
        };
        if object.sequence.is_some() {
            return live.sequence.is_some() && live.sequence != object.sequence;
        }
        let is_ours = live.owner.as_deref() == Some(self.policy.owner.as_str());
        is_ours && live.applied.is_some() && live.applied.as_ref() != Some(&object.hash)
    }

    /// Why a live object is not ours to write.
    fn foreign(&self, key: &ObjectKey, entry: &Entry, object: &Object) -> Option<String> {
        let offer = "offer it with the annotation serin.dev/adopt: \"true\"";
        if let Some(live) = entry.live.as_ref().filter(|live| !live.is_offered) {
            let sibling = live
                .owner
                .as_ref()
                .and_then(|owner| self.policy.siblings.get(owner.as_str()));
            if let Some(name) = sibling {
                return Some(format!(
                    "it belongs to the repository {name}: give one of the two another name, or {offer}"
                ));
            }
            if live.owner.is_none() && live.canary.is_none() && object.canary.is_some() {
                return Some(format!(
                    "it is there already and was not made by Serin: delete it, or {offer}"
                ));
            }
        }
        let other = entry.live.is_none().then(|| self.rival(key))??;
        Some(format!(
            "{other} routes the same host and was not made by Serin: delete it, or {offer}"
        ))
    }

    /// Another VirtualService for a host of this one, that neither Git nor we know of: the mesh obeys only one of them.
    pub(super) fn rival(&self, key: &ObjectKey) -> Option<ObjectKey> {
        let object = self.entries.get(key)?.wanted.as_ref()?;
        // Reading the manifest takes a while, and most clusters have no routes of people.
        let is_possible = self.hosts.has_strange() && object.canary.is_some();
        if !is_possible || object.tier != Tier::VirtualService {
            return None;
        }
        let namespace = key.namespace.as_deref().unwrap_or_default();
        let is_rival = |other: &&ObjectKey| {
            let entry = self.entries.get(*other);
            let live = entry.and_then(|entry| entry.live.as_ref());
            let is_known = entry.is_some_and(|entry| entry.wanted.is_some());
            *other != key && !is_known && live.is_some_and(Live::is_strange)
        };
        mesh_hosts(&object.manifest()).into_iter().find_map(|host| {
            let host = full_host(&host, namespace);
            self.hosts.routing(&host).find(is_rival).cloned()
        })
    }

    /// Drift that is not to be mended, and changes that have to wait.
    fn left_alone(&self, entry: &Entry, object: &Object) -> Option<String> {
        let may_repair =
            self.policy.mode == Mode::Enforce && !object.is_disabled(REPAIR_ANNOTATION);
        let was_applied = entry
            .live
            .as_ref()
            .is_some_and(|live| live.applied.as_ref() == Some(&object.hash));
        let is_edit = was_applied && entry.drift.is_some();
        let was_deleted = entry.live.is_none() && entry.drift.is_some();
        if !may_repair && (is_edit || was_deleted) {
            return Some(
                "it was changed in the cluster and is not repaired, as configured".to_owned(),
            );
        }
        let is_held = object.key.kind.is("apps", "Deployment")
            && entry.live.is_some()
            && !self.desired.held_back.is_empty()
            && self.desired.held_back.contains(&(
                object
                    .key
                    .namespace
                    .as_deref()
                    .unwrap_or_default()
                    .to_owned(),
                object.key.name.to_string(),
            ));
        is_held.then(|| {
            "its candidate still has traffic: the change waits until it has none".to_owned()
        })
    }

    fn namespace_blocks(&self, key: &ObjectKey) -> Option<String> {
        let name = key.namespace.as_deref()?;
        let namespace = ObjectKey::of_namespace(name);
        if self.blind.contains_key(&namespace.kind) {
            return None;
        }
        match self
            .entries
            .get(&namespace)
            .and_then(|entry| entry.live.as_ref())
        {
            Some(live) if live.terminating => Some(format!(
                "namespace {name} is being deleted, and made again when it is gone"
            )),
            Some(_) => None,
            None if self.synced.contains(&namespace.kind) => {
                Some(format!("namespace {name} is missing"))
            }
            None => Some("namespaces were not seen yet".to_owned()),
        }
    }

    fn definition_blocks(&self, key: &ObjectKey) -> Option<String> {
        let definition = self.definitions.get(&key.kind)?;
        let live = self.entries.get(definition)?.live.as_ref();
        match live.map(|live| &live.nature) {
            Some(Nature::Definition(true)) => None,
            _ => Some(format!("{definition} is not established yet")),
        }
    }

    /// Whether proxies may still follow routes that named a subset of this live rule.
    pub(super) fn is_still_followed(&self, rule: &ObjectKey, now: Timestamp) -> bool {
        let namespace = rule.namespace.as_deref().unwrap_or_default();
        let live = self.entries.get(rule).and_then(|entry| entry.live.as_ref());
        match live.map(|live| &live.nature) {
            Some(Nature::Rule(rule)) => {
                let let_go = self.let_go.get(full_host(&rule.0, namespace).as_str());
                let_go.is_some_and(|at| now - *at < Duration::seconds(PROXIES_CATCH_UP))
            }
            _ => false,
        }
    }

    /// A rule keeps its subsets for as long as routes name them, and a moment longer.
    fn rule_blocks(&self, key: &ObjectKey, object: &Object, now: Timestamp) -> Option<String> {
        let namespace = key.namespace.as_deref().unwrap_or_default();
        let (host, had) = subsets_had(&object.manifest());
        let live = self.entries.get(key).and_then(|entry| entry.live.as_ref());
        if let Some(Nature::Rule(rule)) = live.map(|live| &live.nature)
            && let Some(dropped) = rule.1.iter().find(|subset| !had.contains(*subset))
            && self.is_still_followed(key, now)
        {
            return Some(format!(
                "proxies may still follow routes to the subset {dropped}"
            ));
        }
        let host = full_host(&host, namespace);
        self.hosts.named(&host).find_map(|(route, named)| {
            let missing = named.iter().find(|subset| !had.contains(*subset))?;
            // A route that stays what it is will never let go; only those that are about to change are waited for.
            let changes = self.due.contains(&(Tier::VirtualService, route.clone()));
            changes.then(|| format!("{route} still names the subset {missing}"))
        })
    }

    /// A route never names a subset that the cluster lacks.
    fn subsets_block(&self, key: &ObjectKey, object: &Object) -> Option<String> {
        let namespace = key.namespace.as_deref().unwrap_or_default();
        for (host, named) in subsets_named(&object.manifest()) {
            let host_in_full = full_host(&host, namespace);
            let had: BTreeSet<&String> = self.hosts.had(&host_in_full).collect();
            if let Some(missing) = named.iter().find(|subset| !had.contains(subset)) {
                return Some(format!(
                    "no DestinationRule in the cluster has the subset {missing} of {host} yet"
                ));
            }
        }
        None
    }

    /// Where there is no route yet, workloads are ready before traffic is led to them.
    fn workloads_block<'a>(
        &'a self,
        key: &'a ObjectKey,
        entry: &Entry,
        now: Timestamp,
        unready: &mut Unready<'a>,
    ) -> Option<String> {
        let missing_since = entry.out_since.filter(|_| entry.live.is_none())?;
        if now - missing_since >= Duration::seconds(READY_BEFORE_TRAFFIC) {
            return None;
        }
        let namespace = key.namespace.as_deref()?;
        let known = unready.0.entry(namespace);
        let deployment = known.or_insert_with(|| self.unready_deployment(namespace));
        Some(format!("{} is not ready yet", (*deployment)?))
    }

    fn unready_deployment<'a>(&'a self, namespace: &'a str) -> Option<&'a ObjectKey> {
        let is_ready = |entry: &Entry| {
            let rollout = entry.live.as_ref().and_then(|live| live.deployment());
            rollout.is_some_and(|rollout| rollout.readiness.is_ready())
        };
        let mut deployments = self.wanted_deployments(namespace);
        deployments.find_map(|(key, entry)| (!is_ready(entry)).then_some(key))
    }

    fn wanted_deployments<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Entry)> {
        let first = ObjectKey::namespaced(Kind::new("apps", "Deployment"), namespace, "");
        self.entries
            .range(first..)
            .take_while(move |(key, _)| {
                key.kind.is("apps", "Deployment") && key.namespace.as_deref() == Some(namespace)
            })
            .filter(|(_, entry)| entry.wanted.is_some())
            .map(|(key, entry)| (key, &**entry))
    }
}
