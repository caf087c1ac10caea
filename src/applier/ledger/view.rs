//! How things stand, for whoever asks.

use super::{Ledger, Notice};
use crate::applier::key::{Kind, ObjectKey};
use crate::applier::live::{Nature, Verdict};
use crate::domain::{CanaryId, Timestamp};
use crate::progression::Readiness;

/// How the objects of one canary stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Since when all of them are what Git says.
    pub in_sync_since: Option<Timestamp>,
    /// What differs, for people.
    pub drift: Option<String>,
    /// The object that the cluster refuses, with its words.
    pub refused: Option<(ObjectKey, String)>,
    /// Nothing will change by waiting a moment: all is in sync, refused, or waits for the cluster.
    pub is_settled: bool,
}

impl Ledger {
    /// How the objects of a canary stand.
    pub fn view(&self, canary: &CanaryId) -> View {
        let keys = self.by_canary.get(canary).filter(|keys| !keys.is_empty());
        let Some(keys) = keys else {
            let words = "no file that is applied holds the objects of this canary";
            return View {
                in_sync_since: None,
                drift: Some(words.to_owned()),
                refused: None,
                is_settled: true,
            };
        };
        let mut view = View {
            in_sync_since: None,
            drift: None,
            refused: None,
            is_settled: true,
        };
        let mut newest = None;
        for key in keys {
            let Some(entry) = self.entries.get(key) else {
                continue;
            };
            let parked = self.is_parked(key);
            if let Some(other) = self.rival(key) {
                let words = format!("{other} routes the same host and was not made by Serin");
                view.drift.get_or_insert(words);
            }
            if let Some(since) = entry.in_sync_since.filter(|_| !parked) {
                newest = newest.max(Some(since));
                continue;
            }
            let words = self.blind.get(&key.kind).cloned();
            let words = words.or_else(|| entry.failure.as_ref().map(|f| f.words.clone()));
            let is_refused = words.is_some();
            if let Some(words) = words {
                view.refused.get_or_insert((key.clone(), words));
            }
            view.is_settled &= is_refused || parked || self.policy.external;
            view.drift
                .get_or_insert_with(|| self.difference(key, parked));
        }
        if view.drift.is_none() {
            view.in_sync_since = newest;
        }
        view
    }

    /// Whether everything was seen that canaries are made of, or is known not to be visible.
    pub fn has_looked(&self) -> bool {
        let kinds = [
            ("", "Namespace"),
            ("apps", "Deployment"),
            ("networking.istio.io", "DestinationRule"),
            ("networking.istio.io", "VirtualService"),
        ];
        kinds.iter().all(|(group, kind)| {
            let kind = Kind::new(group, kind);
            self.synced.contains(&kind) || self.blind.contains_key(&kind)
        })
    }

    fn is_parked(&self, key: &ObjectKey) -> bool {
        let namespace = key.namespace.as_deref().map(ObjectKey::of_namespace);
        let live = namespace.and_then(|key| self.entries.get(&key)?.live.as_ref());
        live.is_some_and(|live| live.terminating)
    }

    fn difference(&self, key: &ObjectKey, is_parked: bool) -> String {
        if is_parked {
            let namespace = key.namespace.as_deref().unwrap_or_default();
            return format!("namespace {namespace} is being deleted");
        }
        let entry = self.entries.get(key);
        if let Some(words) = entry.and_then(|entry| entry.blocked.as_ref()) {
            return format!("{key}: {words}");
        }
        match entry.and_then(|entry| entry.live.as_ref()) {
            None if self.synced.contains(&key.kind) => format!("{key} is missing"),
            None => format!("{key} was not seen yet"),
            Some(live) => match &live.verdict {
                Verdict::Differs(found) => format!("{key}: {}", found.join("; ")),
                Verdict::Unknown | Verdict::Same => format!("{key} is being written"),
            },
        }
    }

    /// What a Deployment says of itself, and the replicas that it is asked to have. While somebody asks for one that
    /// is not ready, its pods are asked as well. `service`: it is about to get traffic from there.
    pub fn workload(
        &mut self,
        namespace: &str,
        name: &str,
        service: Option<&str>,
    ) -> (Readiness, Option<u32>) {
        let key = ObjectKey::namespaced(Kind::new("apps", "Deployment"), namespace, name);
        let (readiness, replicas) = self.readiness(&key);
        if !readiness.is_ready() {
            if self.watched.insert(key.clone()) {
                self.alarms.look(&key);
            }
            return (readiness, replicas);
        }
        self.watched.remove(&key);
        let readiness = service.map_or(readiness, |service| self.behind(&key, service));
        (readiness, replicas)
    }

    fn readiness(&self, key: &ObjectKey) -> (Readiness, Option<u32>) {
        let not = |words: String| Readiness::NotReady(words);
        if self.is_parked(key) {
            return (not(self.difference(key, true)), None);
        }
        let entry = self.entries.get(key);
        if let Some(words) = self.blind.get(&key.kind) {
            return (not(format!("Deployments cannot be seen: {words}")), None);
        }
        let failure = entry.and_then(|entry| entry.failure.as_ref());
        let Some((entry, live)) = entry.and_then(|entry| Some((entry, entry.live.as_ref()?)))
        else {
            let words = match failure {
                Some(failure) => format!("{key} is refused: {}", failure.words),
                None if self.synced.contains(&key.kind) => format!("{key} does not exist yet"),
                None => format!("{key} was not seen yet"),
            };
            return (not(words), None);
        };
        let Nature::Deployment(rollout) = &live.nature else {
            return (not(format!("{key} is no Deployment")), None);
        };
        let replicas = Some(rollout.replicas);
        if let Some(failure) = failure {
            return (
                not(format!("{key} is refused: {}", failure.words)),
                replicas,
            );
        }
        if entry.wanted.is_some() && entry.in_sync_since.is_none() {
            // What somebody scaled by hand is neither Git's word nor an autoscaler's.
            return (not(self.difference(key, false)), None);
        }
        let readiness = match &entry.pods {
            Some(pods) if !rollout.readiness.is_ready() => pods.0.clone(),
            _ => rollout.readiness.clone(),
        };
        (readiness, replicas)
    }

    /// Everything that is wanted and is not what Git says, with what stands in the way.
    pub fn open(&self) -> Vec<(ObjectKey, String)> {
        let due = self.due.iter();
        due.map(|(_, key)| (key.clone(), self.difference(key, self.is_parked(key))))
            .collect()
    }

    /// Whether writes or deletions are on their way.
    pub fn is_writing(&self) -> bool {
        self.in_flight > 0
    }

    /// Whether something changed that a pass over the branch may act on; asked once.
    pub fn stirred(&mut self) -> bool {
        std::mem::take(&mut self.is_stirred)
    }

    /// Takes note of something from outside.
    pub fn note(&mut self, notice: Notice) {
        self.notices.push(notice);
    }
}
