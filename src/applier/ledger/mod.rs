//! What Git wants, what the cluster shows, and what follows from both: a state machine without a clock and without I/O.
//!
//! It is told what was seen (`saw`, `gone`, `synced`), what is wanted (`follow`) and how writes ended (`done`), and is
//! asked what to do next (`next`, in `schedule`) and how things stand (`view`). Failure unit is one object; the newest
//! commit wins and ends every wait.

mod alarms;
mod behind;
mod blocks;
mod hosts;
mod notice;
mod pods;
mod policy;
mod schedule;
mod standing;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::atom::Atom;
use super::desired::{Desired, Objects};
use super::key::{Kind, ObjectKey};
use super::live::{Accepted, Known, Live, Nature, Verdict, key_of};
use super::object::Object;
use super::order::Tier;
use crate::domain::{CanaryId, CommitId, Timestamp};
use crate::progression::Readiness;

use alarms::Alarms;
use behind::Behind;
pub use behind::{Incarnation, Lacks};
use hosts::Hosts;
pub use notice::{Drifted, Notice, Repaired};
pub use policy::{Mode, Policy};
pub use schedule::{Action, Outcome};
pub use view::View;

/// Group of the definitions of kinds.
pub(super) const CRD: &str = "apiextensions.k8s.io";

/// All that is known of one object.
#[derive(Debug, Default)]
struct Entry {
    wanted: Option<Arc<Object>>,
    live: Option<Live>,
    /// What the server made of the wanted manifest when it took it.
    accepted: Option<Accepted>,
    /// A write that is on its way, by the hash that it writes; empty for a deletion.
    in_flight: Option<Arc<str>>,
    /// Since when it is what Git says.
    in_sync_since: Option<Timestamp>,
    /// It was seen to differ from Git in this process, so that its own time says nothing of before.
    was_out: bool,
    /// It was live in this process.
    was_live: bool,
    /// How many heads were known when it was last seen to change.
    seen_at: u64,
    drift: Option<Box<Drifted>>,
    failure: Option<Box<Failure>>,
    /// Why nothing is done about it now.
    blocked: Option<Box<str>>,
    /// Since when it is missing or being deleted.
    out_since: Option<Timestamp>,
    /// What its pods say, and when they were asked last.
    pods: Option<Box<(Readiness, Timestamp)>>,
    told_stuck: bool,
    /// Conflicts in a row.
    conflicts: u32,
    /// When it was last asked for, because no watch shows what others have in its place.
    looked_at: Option<Timestamp>,
    /// An incarnation that is known to be gone: late news of it are no news.
    buried: Option<Box<str>>,
    /// Labels of a Namespace, as they were last.
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
struct Failure {
    words: String,
    tries: u32,
    retry_at: Timestamp,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    policy: Policy,
    desired: Arc<Desired>,
    /// In boxes: a tree keeps room for as many again, and they are large.
    entries: BTreeMap<ObjectKey, Box<Entry>>,
    /// Kinds that objects had, with their versions.
    kinds: BTreeSet<(Kind, Atom)>,
    /// Kinds of which everything that is live was seen.
    synced: BTreeSet<Kind>,
    /// Kinds that cannot be watched, in the server's words.
    blind: BTreeMap<Kind, String>,
    /// Objects that may have to be written, by their place in the order.
    due: BTreeSet<(Tier, ObjectKey)>,
    /// Live objects of ours that Git no longer has.
    doomed: BTreeSet<(Tier, ObjectKey)>,
    by_canary: BTreeMap<Arc<CanaryId>, BTreeSet<ObjectKey>>,
    /// Definitions in the tree by the kind that they define.
    definitions: BTreeMap<Kind, ObjectKey>,
    /// What live rules and routes say of hosts.
    hosts: Hosts,
    /// When routes last stopped naming a subset of a host: proxies hear of it a little later.
    let_go: BTreeMap<Arc<str>, Timestamp>,
    /// Heads that were followed so far.
    heads: u64,
    /// Somebody may know a newer head than we do.
    wants_fetch: bool,
    notices: Vec<Notice>,
    /// Writes and deletions on their way.
    in_flight: usize,
    /// Looks at pods on their way.
    looking: usize,
    /// When time alone may change the answer.
    alarms: Alarms,
    /// Objects that failed since the last head; some were written since.
    failed: BTreeSet<ObjectKey>,
    /// Deployments that somebody waits for.
    watched: BTreeSet<ObjectKey>,
    /// Deployments that are about to get traffic.
    behind: Behind,
    /// Something changed that a pass over the branch may act on.
    is_stirred: bool,
    /// Namespaces that no file declares, and that objects need.
    implied: BTreeSet<String>,
    /// Namespaces of which it is to be seen whether they are there, because something in them may have to be written.
    unplaced: BTreeSet<Atom>,
}

impl Ledger {
    /// Nothing is known yet.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }

    /// The commit that is wanted.
    pub fn commit(&self) -> Option<&CommitId> {
        self.desired.commit.as_ref()
    }

    /// What happened since the last call.
    pub fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Whether somebody may know a newer head; asked once.
    pub fn wants_fetch(&mut self) -> bool {
        std::mem::take(&mut self.wants_fetch)
    }

    /// Kinds that have to be watched, by version: all that were ever wanted.
    pub fn kinds(&self) -> &BTreeSet<(Kind, Atom)> {
        &self.kinds
    }

    /// The head was fetched, and is still what it was.
    pub fn confirm(&mut self, now: Timestamp) {
        self.heads += 1;
        let waiting: Vec<ObjectKey> = self.due.iter().map(|(_, key)| key.clone()).collect();
        for key in waiting {
            self.refresh(&key, now);
        }
    }

    /// A head was fetched or pushed: this is what it wants.
    pub fn follow(&mut self, desired: Arc<Desired>, now: Timestamp) {
        let is_new = self.desired.commit != desired.commit;
        // The same tree, read anew, says nothing about what others may have pushed since.
        self.heads += u64::from(is_new || self.heads == 0);
        for problem in &desired.problems {
            if !self.desired.problems.contains(problem) {
                self.notices.push(Notice::Unreadable {
                    source: problem.source.clone(),
                    words: problem.words.clone(),
                });
            }
        }
        let old = std::mem::replace(&mut self.desired, desired);
        let desired = Arc::clone(&self.desired);
        let mut changed: BTreeSet<ObjectKey> =
            self.due.iter().map(|(_, key)| key.clone()).collect();
        for (key, before, object) in differences(&old.objects, &desired.objects) {
            if before.map(|before| &before.hash) != object.map(|object| &object.hash) {
                changed.insert(key.clone());
            }
            self.want(key, object.map(Arc::clone));
        }
        self.forget_implied();
        if is_new {
            // Whatever failed waits for its time to try again.
            for key in std::mem::take(&mut self.failed) {
                let entry = self.entries.get_mut(&key);
                if entry.is_some_and(|entry| entry.failure.take().is_some()) {
                    changed.insert(key);
                }
            }
        }
        if old.complete != desired.complete {
            changed.extend(self.entries.keys().cloned());
        }
        changed.extend(self.doomed.iter().map(|(_, key)| key.clone()));
        for key in changed {
            self.refresh(&key, now);
        }
    }

    /// Namespaces that no file declares are wanted for as long as something is in them.
    fn forget_implied(&mut self) {
        if self.implied.is_empty() {
            return;
        }
        let used: BTreeSet<Option<&str>> = self
            .desired
            .objects
            .keys()
            .map(|key| key.namespace.as_deref())
            .collect();
        let unused = self
            .implied
            .iter()
            .filter(|name| !used.contains(&Some(name)));
        let unused: Vec<String> = unused.cloned().collect();
        for name in unused {
            self.implied.remove(&name);
            self.want(&ObjectKey::of_namespace(&name), None);
        }
    }

    fn want(&mut self, key: &ObjectKey, wanted: Option<Arc<Object>>) {
        if let Some(entry) = self.entries.get_mut(key) {
            match (&mut entry.wanted, &wanted) {
                // Nearly all of a tree: the same manifest, perhaps in another file.
                (Some(old), Some(new)) if old.hash == new.hash => {
                    old.clone_from(new);
                    return;
                }
                (None, None) => return,
                (_, _) => {}
            }
        }
        let entry = self.entries.entry(key.clone()).or_default();
        entry.accepted = None;
        entry.in_sync_since = None;
        entry.drift = None;
        entry.failure = None;
        entry.was_out |= entry.wanted.is_some();
        if let Some(live) = &mut entry.live {
            live.verdict = Verdict::Unknown;
        }
        let canary = |object: &Arc<Object>| object.canary.clone();
        if let Some(id) = entry.wanted.as_ref().and_then(canary)
            && let Some(keys) = self.by_canary.get_mut(&id)
        {
            keys.remove(key);
        }
        if let Some(object) = &wanted {
            let kind = (key.kind.clone(), object.api_version.clone());
            self.kinds.insert(kind);
            if let Some(id) = &object.canary {
                self.by_canary
                    .entry(id.clone())
                    .or_default()
                    .insert(key.clone());
            }
            if key.kind.is(CRD, "CustomResourceDefinition") {
                let manifest = object.manifest();
                let text = |pointer| super::object::text(&manifest, pointer);
                let kind = Kind::new(text("/spec/group"), text("/spec/names/kind"));
                self.definitions.insert(kind, key.clone());
            }
        } else {
            self.definitions.retain(|_, definition| definition != key);
        }
        entry.wanted = wanted;
    }

    /// A live object was seen.
    pub fn saw(&mut self, object: &Value, now: Timestamp) {
        let key = key_of(object);
        // The watch shows again what the answer to our own call showed.
        let live = self.entries.get(&key).and_then(|entry| entry.live.as_ref());
        if live.is_some_and(|live| live.verdict != Verdict::Unknown && live.is_of(object)) {
            return;
        }
        self.see(&key, object, false, now);
    }

    /// Takes a live object in; `is_answer`: it is what the server made of the wanted manifest just now.
    fn see(&mut self, key: &ObjectKey, object: &Value, is_answer: bool, now: Timestamp) {
        let entry = self.entries.entry(key.clone()).or_default();
        let known = match &entry.accepted {
            _ if is_answer => Known::Now,
            Some(accepted) => Known::Before(accepted),
            None => Known::Nothing,
        };
        let (live, projection) = Live::of(object, entry.wanted.as_deref(), known);
        if is_answer {
            entry.accepted.clone_from(&projection);
        }
        // Answers to our own calls and watches overtake one another.
        if entry.buried.as_ref() == Some(&live.uid) {
            return;
        }
        if let Some(old) = &entry.live
            && old.uid == live.uid
            && old.is_newer_than(&live)
        {
            return;
        }
        if live.verdict == Verdict::Same {
            entry.accepted = projection;
        }
        self.take(key, live, now);
    }

    /// Replaces what is known of a live object.
    fn take(&mut self, key: &ObjectKey, live: Live, now: Timestamp) {
        let heads = self.heads;
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let was = entry.live.as_ref();
        let is_same = |was: &Live| {
            was.sequence == live.sequence && was.applied == live.applied && was.uid == live.uid
        };
        if !was.is_some_and(is_same) {
            entry.seen_at = heads;
        }
        if live.terminating {
            let since = *entry.out_since.get_or_insert(now);
            self.alarms.missing(key, since);
        } else {
            entry.out_since = None;
            entry.told_stuck = false;
        }
        if let Nature::Namespace(labels) = &live.nature {
            entry.labels.clone_from(labels);
        }
        if live
            .deployment()
            .is_some_and(|d| d.readiness == Readiness::Ready)
        {
            entry.pods = None;
        }
        let freed =
            key.is_namespace() && was.is_some_and(|was| was.terminating) && !live.terminating;
        let established = matches!(live.nature, Nature::Definition(true))
            && !was.is_some_and(|was| matches!(was.nature, Nature::Definition(true)));
        let is_new_namespace = key.is_namespace() && was.is_none();
        if live.deployment().is_some() && self.watched.contains(key) {
            self.alarms.look(key);
        }
        entry.was_live = true;
        entry.live = Some(live);
        self.note_hosts(key, now);
        self.refresh(key, now);
        if freed || is_new_namespace {
            self.refresh_namespace(&key.name, now);
        }
        if established {
            let definitions = self.definitions.iter();
            let kind = definitions
                .filter(|(_, d)| *d == key)
                .map(|(kind, _)| kind.clone())
                .next();
            self.forgive(kind.as_ref());
        }
    }

    /// Failures of objects of this kind no longer count: its definition is there.
    fn forgive(&mut self, kind: Option<&Kind>) {
        for (key, entry) in &mut self.entries {
            if Some(&key.kind) == kind {
                entry.failure = None;
            }
        }
    }

    /// Takes note of what a rule or a route says of its hosts now.
    fn note_hosts(&mut self, key: &ObjectKey, now: Timestamp) {
        let entry = self.entries.get_mut(key);
        let live = entry.and_then(|entry| entry.live.as_mut());
        let let_go = self.hosts.note(key, live.as_deref());
        if let Some(live) = live
            && matches!(live.nature, Nature::Routes(..))
        {
            // It was noted by host, and nobody asks for it here.
            live.nature = Nature::Plain;
        }
        for host in let_go {
            self.let_go_of(host, now);
        }
    }

    /// A live object is gone. An event about an incarnation that was replaced since says nothing.
    pub fn gone(&mut self, key: &ObjectKey, uid: &str, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.buried = Some(uid.into());
        if entry.live.as_ref().is_none_or(|live| *live.uid != *uid) {
            return;
        }
        self.lose(key, now);
        if key.is_namespace() {
            // Everything in it went before it; the events about that may still be on their way.
            let inside: Vec<ObjectKey> = self
                .entries
                .iter()
                .filter(|(other, entry)| {
                    other.namespace.as_deref() == Some(&*key.name) && entry.live.is_some()
                })
                .map(|(other, _)| other.clone())
                .collect();
            for other in inside {
                self.lose(&other, now);
            }
            self.refresh_namespace(&key.name, now);
        }
    }

    fn lose(&mut self, key: &ObjectKey, now: Timestamp) {
        if let Some(entry) = self.entries.get_mut(key) {
            if entry.wanted.is_none() && entry.in_flight.as_deref() == Some("") {
                self.notices.push(Notice::Pruned(key.clone()));
            }
            entry.live = None;
            entry.failure = None;
            let since = *entry.out_since.get_or_insert(now);
            self.alarms.missing(key, since);
        }
        self.note_hosts(key, now);
        self.refresh(key, now);
    }

    /// Everything that is live of this kind was seen.
    pub fn synced(&mut self, kind: &Kind, now: Timestamp) {
        self.blind.remove(kind);
        self.synced.insert(kind.clone());
        self.refresh_kind(kind, now);
    }

    /// A kind cannot be watched, in the server's words.
    pub fn blind(&mut self, kind: &Kind, words: String, now: Timestamp) {
        let is_new = self.blind.insert(kind.clone(), words.clone()).as_ref() != Some(&words);
        let mut concerned = self
            .entries
            .iter()
            .filter(|(key, entry)| &key.kind == kind && entry.wanted.is_some());
        // When its definition is on the way as well, that is no news.
        let is_coming = self.definitions.contains_key(kind);
        if is_new
            && !is_coming
            && let Some((object, _)) = concerned.next()
        {
            let object = object.clone();
            self.notices.push(Notice::Refused { object, words });
        }
        self.refresh_kind(kind, now);
    }
}

/// An object, as it was and as it is to be.
type Difference<'a> = (
    &'a ObjectKey,
    Option<&'a Arc<Object>>,
    Option<&'a Arc<Object>>,
);

/// What two trees say of the objects of which they do not say the same. What both have in common is one value in memory, so
/// that ten thousand canaries are walked through in a moment.
fn differences<'a>(old: &'a Objects, new: &'a Objects) -> Vec<Difference<'a>> {
    let mut found = Vec::new();
    if std::ptr::eq(old, new) {
        return found;
    }
    let mut old = old.iter().peekable();
    for (key, object) in new {
        let is_lower = |other: &(&ObjectKey, &Arc<Object>)| other.0 != key && other.0 < key;
        while let Some((gone, before)) = old.next_if(is_lower) {
            found.push((gone, Some(before), None));
        }
        match old.next_if(|(other, _)| *other == key) {
            Some((_, before)) if Arc::ptr_eq(before, object) => {}
            Some((_, before)) => found.push((key, Some(before), Some(object))),
            None => found.push((key, None, Some(object))),
        }
    }
    found.extend(old.map(|(gone, before)| (gone, Some(before), None)));
    found
}

#[cfg(test)]
mod tests;
