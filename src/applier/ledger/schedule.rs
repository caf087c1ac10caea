//! What to do next, and what stands in the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use chrono::Duration;
use serde_json::{Value, json};

use super::{Entry, Failure, Ledger, Mode, Notice};
use crate::applier::live::Nature;
use crate::applier::object::{Object, ObjectKey, REPAIR_ANNOTATION};
use crate::applier::order::{Tier, full_host, subsets_had, subsets_named};
use crate::domain::Timestamp;
use crate::progression::Readiness;

/// Longest time that a route waits for the workloads that it leads to when it is made, in seconds. A workload that does
/// not come up must not keep the others from being reached for ever.
const READY_BEFORE_TRAFFIC: i64 = 30;
/// How long a rule keeps a subset that routes named until now, in seconds: a proxy that still follows them would find nothing.
/// istiod tells proxies within 100 ms as shipped, and within 10 s at the very latest.
const PROXIES_CATCH_UP: i64 = 5;
/// How long a deletion may take before what it waits for is named, in seconds.
const STUCK_AFTER: i64 = 30;
/// First and longest wait after a refusal, in seconds.
const RETRY: (i64, i64) = (2, 300);
/// Between two looks at pods that do not become ready, in seconds.
const BETWEEN_LOOKS: i64 = 5;
/// Until an object that somebody else made is looked at again, in seconds.
const BETWEEN_OFFERS: i64 = 10;
/// Deletions and writes on their way at once: enough to keep a server busy, few enough to leave room for others.
const MOST_IN_FLIGHT: usize = 32;

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write an object.
    Apply {
        /// The object.
        object: Arc<Object>,
        /// The version that it was compared with, when the write has to be bound to it.
        bound_to: Option<String>,
    },
    /// Delete an object.
    Delete {
        /// Which.
        key: ObjectKey,
        /// The incarnation that is meant.
        uid: String,
        /// Whether it stays until its pods are gone: something after it waits for that.
        with_pods: bool,
    },
    /// Ask the pods of a Deployment why they are not ready.
    AskPods {
        /// The Deployment.
        key: ObjectKey,
        /// Labels of its pods.
        selector: Vec<(String, String)>,
    },
}

/// What stands in the way of a write.
enum Block {
    /// Somebody may know a newer head: Git is asked first.
    Fetch,
    /// Somebody else made an object where one of ours would be.
    Foreign,
    /// Anything else, for people.
    Words(String),
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetch => {
                f.write_str("its number is not that of the last known commit: Git is asked first")
            }
            Self::Foreign => f.write_str(
                "it is there already and was not made by Serin: delete it, or offer it with the annotation \
                 serin.dev/adopt: \"true\"",
            ),
            Self::Words(words) => f.write_str(words),
        }
    }
}

/// When something is removed; higher ones come first. The reverse of the order in which things are made, but for the routes of a
/// canary: without them its Service leads to the candidate's pods as well, so those go before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Removal {
    Namespace,
    Definition,
    Configuration,
    Service,
    DestinationRule,
    RoutesOfCanary,
    Workload,
    VirtualService,
    Admission,
}

impl Removal {
    fn of(tier: Tier, is_of_canary: bool) -> Self {
        match tier {
            Tier::Namespace => Self::Namespace,
            Tier::Definition => Self::Definition,
            Tier::Configuration => Self::Configuration,
            Tier::Service => Self::Service,
            Tier::DestinationRule => Self::DestinationRule,
            Tier::Workload => Self::Workload,
            Tier::VirtualService if is_of_canary => Self::RoutesOfCanary,
            Tier::VirtualService => Self::VirtualService,
            Tier::Admission => Self::Admission,
        }
    }
}

/// How an action ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The server wrote it; the object as it is now.
    Applied(Box<Value>),
    /// The object changed since it was compared; as it is now, if it is there.
    Conflict(Option<Box<Value>>),
    /// The server deleted it, or there was nothing to delete.
    Deleted,
    /// The server accepted the deletion, and the object stays until something else is gone; as it is now.
    Deleting(Box<Value>),
    /// The server refused, in its words; `passing` when trying again soon may help.
    Failed {
        /// The words.
        words: String,
        /// Whether the fault lies in the connection or in a state that passes.
        passing: bool,
    },
    /// What the pods say.
    Pods(Option<Readiness>),
}

impl Ledger {
    /// What to do now. Each action has to be answered by [`Ledger::done`].
    pub fn next(&mut self, now: Timestamp) -> Vec<Action> {
        if self.heads == 0 {
            return Vec::new();
        }
        let mut actions = self.looks(now);
        if self.policy.external {
            return actions;
        }
        let mut room = MOST_IN_FLIGHT.saturating_sub(self.in_flight);
        if room == 0 {
            return actions;
        }
        self.imply_namespaces(now);
        // Lowest tier that something is being done about, by namespace (none: the whole cluster).
        let mut busy: BTreeMap<Option<&str>, Tier> = BTreeMap::new();
        let mut chosen = Vec::new();
        let mut blocked = Vec::new();
        let mut foreign = Vec::new();
        let mut wants_fetch = false;
        for (tier, key) in &self.due {
            let place = key.namespace.as_deref();
            let entry = self.entries.get(key);
            if entry.is_some_and(|entry| entry.in_flight.is_some()) {
                busy.entry(place).or_insert(*tier);
                continue;
            }
            match self.blocked(key, now) {
                Some(Block::Fetch) => {
                    wants_fetch = true;
                    blocked.push((key.clone(), Block::Fetch.to_string()));
                    continue;
                }
                Some(Block::Foreign) => {
                    foreign.push(key.clone());
                    continue;
                }
                Some(other) => {
                    blocked.push((key.clone(), other.to_string()));
                    continue;
                }
                None => {}
            }
            let lowest = *busy.entry(place).or_insert(*tier);
            let of_cluster = busy.get(&None).filter(|lowest| **lowest > Tier::Namespace);
            if lowest < *tier || of_cluster.is_some_and(|lowest| lowest < tier) {
                continue;
            }
            chosen.push(key.clone());
            if chosen.len() >= room {
                break;
            }
        }
        self.wants_fetch |= wants_fetch;
        for key in foreign {
            self.refuse(&key, Block::Foreign.to_string(), BETWEEN_OFFERS, now);
        }
        for (key, words) in blocked {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.blocked = Some(words);
            }
        }
        room -= chosen.len();
        for key in chosen {
            actions.extend(self.begin(&key));
        }
        actions.extend(self.deletions(room, now));
        actions
    }

    fn begin(&mut self, key: &ObjectKey) -> Option<Action> {
        let entry = self.entries.get_mut(key)?;
        let object = Arc::clone(entry.wanted.as_ref()?);
        entry.in_flight = Some(object.hash.clone());
        entry.blocked = None;
        self.in_flight += 1;
        let version = entry
            .live
            .as_ref()
            .map(|live| live.resource_version.clone());
        Some(Action::Apply {
            bound_to: version.filter(|_| object.sequence.is_some()),
            object,
        })
    }

    /// Why nothing can be done about an object now; `None`: it can.
    fn blocked(&self, key: &ObjectKey, now: Timestamp) -> Option<Block> {
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
        let is_foreign = entry
            .live
            .as_ref()
            .is_some_and(|live| live.owner.is_none() && live.canary.is_none() && !live.is_offered);
        if is_foreign && object.canary.is_some() {
            return Some(Block::Foreign);
        }
        let words = self
            .left_alone(entry, object)
            .or_else(|| self.namespace_blocks(key))
            .or_else(|| self.definition_blocks(key));
        if let Some(words) = words {
            return Some(Block::Words(words));
        }
        let counter = entry.live.as_ref().and_then(|live| live.sequence);
        let differs = counter.is_some() && object.sequence.is_some() && counter != object.sequence;
        if differs && entry.seen_at == self.heads {
            return Some(Block::Fetch);
        }
        let words = match object.tier {
            Tier::DestinationRule => self.rule_blocks(key, object, now),
            Tier::VirtualService => self
                .subsets_block(key, object)
                .or_else(|| self.workloads_block(key, entry, now)),
            Tier::Namespace
            | Tier::Definition
            | Tier::Configuration
            | Tier::Service
            | Tier::Workload
            | Tier::Admission => None,
        };
        words.map(Block::Words)
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
        let namespace = object.key.namespace.clone().unwrap_or_default();
        let is_held = object.key.kind.is("apps", "Deployment")
            && entry.live.is_some()
            && self
                .desired
                .held_back
                .contains(&(namespace, object.key.name.clone()));
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
    fn is_still_followed(&self, rule: &ObjectKey, now: Timestamp) -> bool {
        let namespace = rule.namespace.as_deref().unwrap_or_default();
        let live = self.entries.get(rule).and_then(|entry| entry.live.as_ref());
        match live.map(|live| &live.nature) {
            Some(Nature::Rule(host, _)) => {
                let let_go = self.let_go.get(&full_host(host, namespace));
                let_go.is_some_and(|at| now - *at < Duration::seconds(PROXIES_CATCH_UP))
            }
            _ => false,
        }
    }

    /// A rule keeps its subsets for as long as routes name them, and a moment longer.
    fn rule_blocks(&self, key: &ObjectKey, object: &Object, now: Timestamp) -> Option<String> {
        let namespace = key.namespace.clone().unwrap_or_default();
        let (host, had) = subsets_had(&object.manifest);
        let live = self.entries.get(key).and_then(|entry| entry.live.as_ref());
        if let Some(Nature::Rule(_, now_has)) = live.map(|live| &live.nature)
            && let Some(dropped) = now_has.iter().find(|subset| !had.contains(*subset))
            && self.is_still_followed(key, now)
        {
            return Some(format!(
                "proxies may still follow routes to the subset {dropped}"
            ));
        }
        let routes = self.routes.get(&full_host(&host, &namespace))?;
        routes.iter().find_map(|(route, named)| {
            let missing = named.iter().find(|subset| !had.contains(*subset))?;
            // A route that stays what it is will never let go; only those that are about to change are waited for.
            let changes = self.due.contains(&(Tier::VirtualService, route.clone()));
            changes.then(|| format!("{route} still names the subset {missing}"))
        })
    }

    /// A route never names a subset that the cluster lacks.
    fn subsets_block(&self, key: &ObjectKey, object: &Object) -> Option<String> {
        let namespace = key.namespace.clone().unwrap_or_default();
        for (host, named) in subsets_named(&object.manifest) {
            let rules = self.rules.get(&full_host(&host, &namespace));
            let had: BTreeSet<&String> = rules
                .into_iter()
                .flat_map(BTreeMap::values)
                .flatten()
                .collect();
            if let Some(missing) = named.iter().find(|subset| !had.contains(subset)) {
                return Some(format!(
                    "no DestinationRule in the cluster has the subset {missing} of {host} yet"
                ));
            }
        }
        None
    }

    /// Where there is no route yet, workloads are ready before traffic is led to them.
    fn workloads_block(&self, key: &ObjectKey, entry: &Entry, now: Timestamp) -> Option<String> {
        let missing_since = entry.out_since.filter(|_| entry.live.is_none())?;
        if now - missing_since >= Duration::seconds(READY_BEFORE_TRAFFIC) {
            return None;
        }
        self.wanted_deployments(key.namespace.as_deref()?)
            .find_map(|(deployment, entry)| {
                let readiness = entry.live.as_ref().and_then(|live| live.deployment());
                match readiness.map(|rollout| &rollout.readiness) {
                    Some(readiness) if readiness.is_ready() => None,
                    _ => Some(format!("{deployment} is not ready yet")),
                }
            })
    }

    fn wanted_deployments<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Entry)> {
        let first = ObjectKey::namespaced(super::Kind::new("apps", "Deployment"), namespace, "");
        self.entries
            .range(first..)
            .take_while(move |(key, _)| {
                key.kind.is("apps", "Deployment") && key.namespace.as_deref() == Some(namespace)
            })
            .filter(|(_, entry)| entry.wanted.is_some())
    }

    /// Namespaces that are missing and that no file declares: they come back with the labels that they had.
    fn imply_namespaces(&mut self, now: Timestamp) {
        let kind = ObjectKey::of_namespace("").kind;
        if !self.synced.contains(&kind) {
            return;
        }
        let used: BTreeSet<&str> = self
            .due
            .iter()
            .filter_map(|(_, key)| key.namespace.as_deref())
            .collect();
        let used: Vec<String> = used.into_iter().map(str::to_owned).collect();
        for name in used {
            let key = ObjectKey::of_namespace(&name);
            let entry = self.entries.entry(key.clone()).or_default();
            if entry.live.is_some() || entry.wanted.is_some() {
                continue;
            }
            let labels = entry.labels.clone();
            let manifest = json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": &name, "labels": labels},
            });
            let object = Object::new(key.clone(), manifest, "(implied by what is in it)");
            entry.wanted = Some(Arc::new(object));
            self.implied.insert(name);
            self.refresh(&key, now);
        }
    }

    /// What Git no longer has goes in the reverse order, once everything that stays is what Git says.
    fn deletions(&mut self, mut room: usize, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.doomed.is_empty() {
            return actions;
        }
        let of_canary = |key: &ObjectKey| {
            let live = self.entries.get(key)?.live.as_ref()?;
            live.canary.clone()
        };
        let mut leaving = BTreeSet::new();
        let mut places = Vec::new();
        for (tier, key) in &self.doomed {
            let canary = of_canary(key);
            if *tier == Tier::VirtualService {
                leaving.extend(canary.clone());
            }
            places.push((Removal::of(*tier, canary.is_some()), key.clone(), canary));
        }
        places.sort_unstable_by(|one, other| (other.0, &other.1).cmp(&(one.0, &one.1)));
        let mut last: BTreeMap<Option<String>, Removal> = BTreeMap::new();
        for (place, key, canary) in places {
            let highest = *last.entry(key.namespace.clone()).or_insert(place);
            let with_pods = place == Removal::Workload
                && canary.as_ref().is_some_and(|id| leaving.contains(id));
            let rest_is_there = match canary {
                Some(id) => self.by_canary.get(&id).into_iter().flatten().all(|kept| {
                    self.entries
                        .get(kept)
                        .is_some_and(|e| e.in_sync_since.is_some())
                }),
                None => !self
                    .due
                    .iter()
                    .any(|(_, other)| other.namespace == key.namespace),
            };
            let is_wide = key.namespace.is_none() && last.len() > 1;
            let is_followed =
                place == Removal::DestinationRule && self.is_still_followed(&key, now);
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            let Some(live) = &entry.live else { continue };
            let waits = live.terminating || entry.in_flight.is_some() || entry.failure.is_some();
            if waits || highest > place || is_wide || is_followed || !rest_is_there || room == 0 {
                continue;
            }
            room -= 1;
            entry.in_flight = Some(String::new());
            self.in_flight += 1;
            actions.push(Action::Delete {
                key: key.clone(),
                uid: live.uid.clone(),
                with_pods,
            });
        }
        actions
    }

    /// Deployments that somebody waits for, and that do not become ready: their pods know why.
    fn looks(&mut self, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        for key in &self.watched {
            let Some(entry) = self.entries.get_mut(key) else {
                continue;
            };
            let Some(rollout) = entry.live.as_ref().and_then(|live| live.deployment()) else {
                continue;
            };
            let asked = entry.pods.as_ref().map(|(_, at)| *at);
            let is_due = asked.is_none_or(|at| now - at >= Duration::seconds(BETWEEN_LOOKS));
            if is_due && !rollout.readiness.is_ready() {
                let selector = rollout.selector.clone();
                entry.pods = Some((rollout.readiness.clone(), now));
                let key = key.clone();
                actions.push(Action::AskPods { key, selector });
            }
        }
        actions
    }

    /// An action ended.
    pub fn done(&mut self, key: &ObjectKey, outcome: Outcome, now: Timestamp) {
        if !matches!(outcome, Outcome::Pods(_)) {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        match outcome {
            Outcome::Pods(words) => {
                if let (Some(words), Some(pods)) = (words, &mut entry.pods) {
                    *pods = (words, now);
                }
            }
            Outcome::Applied(object) => {
                let written = entry.in_flight.take();
                entry.failure = None;
                let is_current = entry.wanted.as_ref().map(|w| &w.hash) == written.as_ref();
                if is_current {
                    // The server has the last word on how it writes what we asked for.
                    entry.accepted = entry.wanted.as_deref().and_then(|wanted| {
                        crate::applier::live::Live::of(&object, Some(wanted), None).1
                    });
                }
                self.saw(&object, now);
            }
            Outcome::Conflict(object) => {
                entry.in_flight = None;
                match object {
                    Some(object) => self.saw(&object, now),
                    None => self.lose(key, now),
                }
            }
            Outcome::Deleted => {
                entry.in_flight = None;
                entry.failure = None;
                if entry.wanted.is_none() {
                    self.notices.push(Notice::Pruned(key.clone()));
                    self.lose(key, now);
                }
            }
            Outcome::Deleting(object) => {
                entry.in_flight = None;
                entry.failure = None;
                if entry.wanted.is_none() {
                    self.notices.push(Notice::Pruned(key.clone()));
                }
                self.saw(&object, now);
            }
            Outcome::Failed { words, passing } => self.failed(key, words, passing, now),
        }
    }

    fn failed(&mut self, key: &ObjectKey, words: String, passing: bool, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let written = entry.in_flight.take();
        let is_current = entry
            .wanted
            .as_ref()
            .is_none_or(|w| Some(&w.hash) == written.as_ref());
        if !is_current {
            return self.refresh(key, now);
        }
        let tries = entry.failure.as_ref().map_or(0, |failure| failure.tries);
        let (first, longest) = if passing { (1, 10) } else { RETRY };
        let wait = (first << tries.min(8)).min(longest);
        let tries = tries + 1;
        self.refuse(key, words, wait, now);
        if let Some(failure) = self
            .entries
            .get_mut(key)
            .and_then(|entry| entry.failure.as_mut())
        {
            failure.tries = tries;
        }
    }

    /// Remembers why an object cannot be written, and tells it when it is news.
    fn refuse(&mut self, key: &ObjectKey, words: String, wait: i64, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let known = entry.failure.as_ref();
        let is_new = known.is_none_or(|failure| failure.words != words);
        entry.failure = Some(Failure {
            words: words.clone(),
            tries: 1,
            retry_at: now + Duration::seconds(wait),
        });
        entry.blocked = Some(words.clone());
        self.timed.insert(key.clone());
        if is_new {
            let object = key.clone();
            self.notices.push(Notice::Refused { object, words });
        }
    }

    /// Names what deletions wait for, and says when to look again at the latest.
    pub fn wake_at(&mut self, now: Timestamp) -> Option<Timestamp> {
        let mut wake: Option<Timestamp> = None;
        let mut at = |time: Timestamp| {
            if time > now {
                wake = Some(wake.map_or(time, |wake: Timestamp| wake.min(time)));
            }
        };
        for key in &self.watched {
            let asked = self.entries.get(key).and_then(|entry| entry.pods.as_ref());
            if let Some((_, asked)) = asked {
                at(*asked + Duration::seconds(BETWEEN_LOOKS));
            }
        }
        let mut idle = Vec::new();
        for key in &self.timed {
            let Some(entry) = self.entries.get_mut(key) else {
                idle.push(key.clone());
                continue;
            };
            if entry.failure.is_none() && entry.out_since.is_none() {
                idle.push(key.clone());
            }
            if let Some(failure) = &entry.failure {
                at(failure.retry_at);
            }
            let Some(since) = entry.out_since else {
                continue;
            };
            at(since + Duration::seconds(READY_BEFORE_TRAFFIC));
            let stuck = since + Duration::seconds(STUCK_AFTER);
            at(stuck);
            if let Some(live) = entry.live.as_ref().filter(|live| live.terminating)
                && now >= stuck
                && !entry.told_stuck
                && let Some(words) = &live.stuck_on
            {
                entry.told_stuck = true;
                self.notices.push(Notice::Stuck {
                    object: key.clone(),
                    words: words.clone(),
                });
            }
        }
        for key in idle {
            self.timed.remove(&key);
        }
        self.let_go.retain(|_, since| {
            let until = *since + Duration::seconds(PROXIES_CATCH_UP);
            if until > now {
                wake = Some(wake.map_or(until, |wake| wake.min(until)));
            }
            until > now
        });
        wake
    }
}
