//! When time alone may change an answer: asked after every write, so that it must not cost a walk over what is missing.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use chrono::Duration;

use super::blocks::READY_BEFORE_TRAFFIC;
use super::pods::BETWEEN_LOOKS;
use super::schedule::{PROXIES_CATCH_UP, STUCK_AFTER};
use super::{Entry, Ledger, Notice};
use crate::applier::key::ObjectKey;
use crate::domain::Timestamp;

/// Between two looks at pods on average, and how many may come in a row: when thousands of Deployments are not ready, asking all
/// their pods would keep the server from what makes them so.
const BETWEEN_CALLS: Duration = Duration::milliseconds(50);
const LOOKS_IN_A_ROW: i32 = 8;

/// Times at which to look again, soonest first. Some are no longer meant when they come.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    of_objects: BTreeSet<(Timestamp, ObjectKey)>,
    /// When pods of Deployments are asked again that somebody waits for.
    of_pods: BTreeSet<(Timestamp, ObjectKey)>,
    /// Deployments of which something is news since pods were asked last.
    news: BTreeSet<ObjectKey>,
    /// When pods may be asked next.
    paced: Timestamp,
    /// When hosts lost subsets, of which proxies hear a little later; in the order of time.
    of_hosts: VecDeque<(Timestamp, Arc<str>)>,
}

impl Alarms {
    /// Looks at an object again when trying it anew makes sense.
    pub(super) fn retry(&mut self, key: &ObjectKey, at: Timestamp) {
        self.of_objects.insert((at, key.clone()));
    }

    /// Looks at an object again that is missing or being deleted.
    pub(super) fn missing(&mut self, key: &ObjectKey, since: Timestamp) {
        for at in waits_end(since) {
            self.of_objects.insert((at, key.clone()));
        }
    }

    /// Looks at the pods of a Deployment at once.
    pub(super) fn look(&mut self, key: &ObjectKey) {
        self.news.insert(key.clone());
    }

    /// Pods are asked now.
    pub(super) fn looked(&mut self, now: Timestamp) {
        let earliest = now - BETWEEN_CALLS * LOOKS_IN_A_ROW;
        self.paced = self.paced.clamp(earliest, now) + BETWEEN_CALLS;
    }

    /// Looks at the pods of a Deployment again that were asked at this time.
    pub(super) fn look_again(&mut self, key: &ObjectKey, asked: Timestamp) {
        let at = asked + Duration::seconds(BETWEEN_LOOKS);
        self.of_pods.insert((at, key.clone()));
    }

    /// A Deployment whose pods may have to be asked now.
    pub(super) fn next_look(&mut self, now: Timestamp) -> Option<ObjectKey> {
        // Further away than ever set: the clock was set back.
        if self.paced > now && self.paced <= now + BETWEEN_CALLS {
            return None;
        }
        let news = self.news.pop_first();
        news.or_else(|| {
            self.of_pods.first().filter(|(at, _)| *at <= now)?;
            self.of_pods.pop_first().map(|(_, key)| key)
        })
    }
}

/// When the waits end that begin with an object being missing or deleted.
fn waits_end(since: Timestamp) -> [Timestamp; 2] {
    [READY_BEFORE_TRAFFIC, STUCK_AFTER].map(|wait| since + Duration::seconds(wait))
}

impl Entry {
    /// Whether something is still to be seen at this time.
    fn is_awaited(&self, at: Timestamp) -> bool {
        let is_retried = self.failure.as_ref().is_some_and(|f| f.retry_at == at);
        is_retried || self.out_since.is_some_and(|s| waits_end(s).contains(&at))
    }
}

impl Ledger {
    /// Names what deletions wait for, and says when to look again at the latest.
    pub fn wake_at(&mut self, now: Timestamp) -> Option<Timestamp> {
        let objects = self.next_of_objects(now);
        let hosts = self.next_of_hosts(now);
        let looks = self.next_of_pods();
        let behind = self.behind.wake_at();
        let times = [objects, hosts, looks, behind].into_iter().flatten();
        times.filter(|at| *at > now).min()
    }

    fn next_of_pods(&mut self) -> Option<Timestamp> {
        if !self.alarms.news.is_empty() {
            return Some(self.alarms.paced);
        }
        while let Some((at, key)) = self.alarms.of_pods.first() {
            let entry = self.entries.get(key).filter(|_| self.watched.contains(key));
            let asked = entry.and_then(|entry| Some(entry.pods.as_ref()?.1));
            if asked.is_some_and(|asked| asked + Duration::seconds(BETWEEN_LOOKS) == *at) {
                return Some((*at).max(self.alarms.paced));
            }
            self.alarms.of_pods.pop_first();
        }
        None
    }

    fn next_of_objects(&mut self, now: Timestamp) -> Option<Timestamp> {
        while let Some((at, key)) = self.alarms.of_objects.first() {
            let entry = self.entries.get(key);
            let is_meant = entry.is_some_and(|entry| entry.is_awaited(*at));
            if is_meant && *at > now {
                return Some(*at);
            }
            let (_, key) = self.alarms.of_objects.pop_first()?;
            if is_meant {
                self.tell_stuck(key, now);
            }
        }
        None
    }

    fn tell_stuck(&mut self, object: ObjectKey, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(&object) else {
            return;
        };
        let stuck = |since| now >= since + Duration::seconds(STUCK_AFTER);
        let live = entry.live.as_ref().filter(|live| live.terminating);
        let words = live.and_then(|live| live.stuck_on.as_ref());
        if let Some(words) = words
            && entry.out_since.is_some_and(stuck)
            && !entry.told_stuck
        {
            let words = words.to_string();
            entry.told_stuck = true;
            self.notices.push(Notice::Stuck { object, words });
        }
    }

    /// A host lost subsets that routes named.
    pub(super) fn let_go_of(&mut self, host: Arc<str>, now: Timestamp) {
        self.alarms.of_hosts.push_back((now, Arc::clone(&host)));
        self.let_go.insert(host, now);
    }

    fn next_of_hosts(&mut self, now: Timestamp) -> Option<Timestamp> {
        while let Some((since, host)) = self.alarms.of_hosts.front() {
            let until = *since + Duration::seconds(PROXIES_CATCH_UP);
            let is_meant = self.let_go.get(host) == Some(since);
            if is_meant && until > now {
                return Some(until);
            }
            if is_meant {
                self.let_go.remove(host);
            }
            self.alarms.of_hosts.pop_front();
        }
        None
    }
}
