//! What to do next, and what stands in the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::Duration;
use serde_json::{Value, json};

use super::behind::{Incarnation, Lacks};
use super::blocks::{Block, Unready};
use super::{Failure, Ledger, Notice};
use crate::applier::atom::Atom;
use crate::applier::key::ObjectKey;
use crate::applier::live::Live;
use crate::applier::object::{Object, text};
use crate::applier::order::{Tier, is_watched_whole};
use crate::domain::Timestamp;
use crate::progression::Readiness;

/// How long a rule keeps a subset that routes named until now, in seconds: a proxy that still follows them would find nothing.
/// istiod tells proxies within 100 ms as shipped, and within 10 s at the very latest.
pub(super) const PROXIES_CATCH_UP: i64 = 5;
/// How long a deletion may take before what it waits for is named, in seconds.
pub(super) const STUCK_AFTER: i64 = 30;
/// First and longest wait after a refusal, in seconds.
const RETRY: (i64, i64) = (2, 60);
/// Longest wait that a server may ask for, in seconds.
const LONGEST_ASKED: i64 = 60;
/// Conflicts in a row that are no reason to wait: objects of busy controllers change all the time.
const MOST_CONFLICTS: u32 = 8;
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
        bound_to: Option<Box<str>>,
    },
    /// Ask for an object that no watch shows.
    Look {
        /// The object.
        object: Arc<Object>,
    },
    /// Take fields away that others added to an object, which an apply would leave.
    Strip {
        /// The object.
        object: Arc<Object>,
        /// The fields, by path.
        fields: Vec<Vec<String>>,
        /// The version that it was compared with.
        bound_to: Box<str>,
    },
    /// Delete an object.
    Delete {
        /// Which.
        key: ObjectKey,
        /// The incarnation that is meant.
        uid: Box<str>,
        /// Whether it stays until its pods are gone: something after it waits for that.
        with_pods: bool,
    },
    /// Ask the pods of a Deployment why they are not ready.
    AskPods {
        /// The Deployment.
        key: ObjectKey,
        /// Labels of its pods, as a selector.
        selector: Box<str>,
    },
    /// Ask whether the pods of a ready Deployment are endpoints of its Service.
    AskEndpoints {
        /// The Deployment.
        key: ObjectKey,
        /// As it was.
        incarnation: Incarnation,
        /// Labels of its pods, as a selector.
        selector: Box<str>,
        /// Pods that it has.
        replicas: u32,
        /// The Service that sends traffic to it.
        service: Arc<str>,
    },
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
    /// The server took the fields away; the object as it is now.
    Stripped(Box<Value>),
    /// What was asked for, if it is there.
    Looked(Option<Box<Value>>),
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
        /// Seconds that the server asks to wait.
        not_before: Option<u32>,
    },
    /// What the pods say.
    Pods(Option<Readiness>),
    /// What the endpoints lack of the pods of a Deployment that was this.
    Endpoints(Incarnation, Lacks),
}

impl Ledger {
    /// What to do now. Each action has to be answered by [`Ledger::done`].
    pub fn next(&mut self, now: Timestamp) -> Vec<Action> {
        if self.heads == 0 {
            return Vec::new();
        }
        let mut actions = self.looks(now);
        actions.extend(self.looks_behind(now));
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
        let mut unready = Unready::default();
        for (tier, key) in &self.due {
            let place = key.namespace.as_deref();
            let entry = self.entries.get(key);
            if entry.is_some_and(|entry| entry.in_flight.is_some()) {
                busy.entry(place).or_insert(*tier);
                continue;
            }
            // It has to wait for others in any case, and to ask why else costs far more.
            let of_cluster = busy.get(&None).filter(|lowest| **lowest > Tier::Namespace);
            let mut lower = busy.get(&place).into_iter().chain(of_cluster);
            if lower.any(|lowest| lowest < tier) {
                continue;
            }
            match self.blocked(key, now, &mut unready) {
                Some(Block::Fetch) => {
                    wants_fetch = true;
                    blocked.push((key.clone(), Block::Fetch.to_string()));
                    continue;
                }
                Some(Block::Foreign(words)) => {
                    match self.has_to_look(key, now) {
                        true => chosen.push(key.clone()),
                        false => foreign.push((key.clone(), words)),
                    }
                    continue;
                }
                Some(other) => {
                    blocked.push((key.clone(), other.to_string()));
                    continue;
                }
                None => {}
            }
            busy.entry(place).or_insert(*tier);
            chosen.push(key.clone());
            if chosen.len() >= room {
                break;
            }
        }
        self.wants_fetch |= wants_fetch;
        for (key, words) in foreign {
            self.refuse(&key, words, BETWEEN_OFFERS, now);
        }
        for (key, words) in blocked {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.blocked = Some(words.into());
            }
        }
        room -= chosen.len();
        for key in chosen {
            actions.extend(self.begin(&key, now));
        }
        actions.extend(self.deletions(room, now));
        actions
    }

    /// Whether somebody else's object may be in the place of ours, where no watch shows it.
    fn has_to_look(&self, key: &ObjectKey, now: Timestamp) -> bool {
        let is_hidden = !self.policy.siblings.is_empty() && !is_watched_whole(&key.kind);
        let entry = self.entries.get(key);
        is_hidden
            && entry.is_some_and(|entry| {
                let is_ours =
                    |live: &Live| live.owner.as_deref() == Some(self.policy.owner.as_str());
                let is_recent = |at: &Timestamp| now - *at < Duration::seconds(BETWEEN_OFFERS);
                !entry.live.as_ref().is_some_and(is_ours)
                    && !entry.looked_at.as_ref().is_some_and(is_recent)
            })
    }

    fn begin(&mut self, key: &ObjectKey, now: Timestamp) -> Option<Action> {
        let has_to_look = self.has_to_look(key, now);
        let entry = self.entries.get_mut(key)?;
        let object = Arc::clone(entry.wanted.as_ref()?);
        entry.in_flight = Some(object.hash.clone());
        entry.blocked = None;
        self.in_flight += 1;
        if has_to_look {
            return Some(Action::Look { object });
        }
        let live = entry.live.as_ref();
        if let Some(live) = live.filter(|live| !live.added.is_empty()) {
            return Some(Action::Strip {
                fields: live.added.to_vec(),
                bound_to: live.resource_version.clone(),
                object,
            });
        }
        Some(Action::Apply {
            bound_to: live.map(|live| live.resource_version.clone()),
            object,
        })
    }

    /// Namespaces that are missing and that no file declares: they come back with the labels that they had.
    fn imply_namespaces(&mut self, now: Timestamp) {
        if !self.synced.contains(&ObjectKey::of_namespace("").kind) {
            return;
        }
        for name in std::mem::take(&mut self.unplaced) {
            let key = ObjectKey::of_namespace(&name);
            let known = self.entries.get(&key);
            let is_there =
                known.is_some_and(|known| known.live.is_some() || known.wanted.is_some());
            let mut due = self.due.iter();
            if is_there || !due.any(|(_, key)| key.namespace.as_ref() == Some(&name)) {
                continue;
            }
            let entry = self.entries.entry(key.clone()).or_default();
            let labels = entry.labels.clone();
            let manifest = json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name.as_str(), "labels": labels},
            });
            let object = Object::new(key.clone(), manifest, "(implied by what is in it)".into());
            entry.wanted = Some(Arc::new(object));
            self.implied.insert(name.to_string());
            self.refresh(&key, now);
        }
    }

    /// What Git no longer has goes in the reverse order, once everything that stays is what Git says.
    fn deletions(&mut self, mut room: usize, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.doomed.is_empty() {
            return actions;
        }
        let heads = self.heads;
        let mut wants_fetch = false;
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
        let mut last: BTreeMap<Option<Atom>, Removal> = BTreeMap::new();
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
            // Somebody who knows a newer head may have made it just now.
            if entry.seen_at == heads {
                wants_fetch = true;
                continue;
            }
            room -= 1;
            entry.in_flight = Some("".into());
            self.in_flight += 1;
            actions.push(Action::Delete {
                key: key.clone(),
                uid: live.uid.clone(),
                with_pods,
            });
        }
        self.wants_fetch |= wants_fetch;
        actions
    }

    /// An action ended.
    pub fn done(&mut self, key: &ObjectKey, outcome: Outcome, now: Timestamp) {
        if let Outcome::Endpoints(incarnation, lacks) = outcome {
            self.listed(key, &incarnation, lacks, now);
            return;
        }
        let calls = match outcome {
            Outcome::Pods(_) => &mut self.looking,
            _ => &mut self.in_flight,
        };
        *calls = calls.saturating_sub(1);
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        match outcome {
            Outcome::Endpoints(..) => {}
            Outcome::Pods(words) => {
                if let (Some(words), Some(pods)) = (words, &mut entry.pods) {
                    **pods = (words, now);
                    self.alarms.look_again(key, now);
                }
            }
            Outcome::Applied(object) => {
                let written = entry.in_flight.take();
                entry.failure = None;
                entry.conflicts = 0;
                let is_current = entry.wanted.as_ref().map(|w| &w.hash) == written.as_ref();
                // The server has the last word on how it writes what we asked for.
                self.see(key, &object, is_current, now);
            }
            Outcome::Looked(object) => {
                entry.in_flight = None;
                entry.failure = None;
                entry.looked_at = Some(now);
                match object {
                    Some(object) => self.saw(&object, now),
                    None if entry.live.is_some() => self.lose(key, now),
                    None => {}
                }
            }
            Outcome::Stripped(object) => {
                entry.in_flight = None;
                entry.failure = None;
                entry.conflicts = 0;
                self.saw(&object, now);
            }
            Outcome::Conflict(object) => self.conflict(key, object.as_deref(), now),
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
            Outcome::Failed {
                words,
                passing,
                not_before,
            } => self.failed(key, words, (passing, not_before), now),
        }
    }

    /// Somebody else wrote it first: it is compared anew. When that is all that ever happens, it waits like any failure.
    fn conflict(&mut self, key: &ObjectKey, object: Option<&Value>, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let version = |live: &Live| live.resource_version.clone();
        let before = entry.live.as_ref().map(version);
        entry.conflicts += 1;
        let is_stubborn = entry.conflicts > MOST_CONFLICTS;
        let found = object.map(|object| text(object, "/metadata/resourceVersion").into());
        if is_stubborn || (found.is_some() && found == before) {
            let words = "the cluster says again and again that somebody else changed it meanwhile";
            return self.failed(key, words.to_owned(), (true, None), now);
        }
        entry.in_flight = None;
        match object {
            Some(object) => self.saw(object, now),
            None => self.lose(key, now),
        }
    }

    fn failed(
        &mut self,
        key: &ObjectKey,
        words: String,
        (passing, not_before): (bool, Option<u32>),
        now: Timestamp,
    ) {
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
        let asked = not_before.map_or(0, |seconds| i64::from(seconds).min(LONGEST_ASKED));
        let wait = wait.max(asked);
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
        let retry_at = now + Duration::seconds(wait);
        entry.failure = Some(Box::new(Failure {
            words: words.clone(),
            tries: 1,
            retry_at,
        }));
        entry.blocked = Some(words.clone().into());
        self.alarms.retry(key, retry_at);
        self.failed.insert(key.clone());
        if is_new {
            let object = key.clone();
            self.notices.push(Notice::Refused { object, words });
        }
    }
}
