//! Deployments that are about to get traffic: they are asked once, when they have become ready, whether the mesh finds their
//! pods, and again while it does not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::Duration;

use super::Ledger;
use super::schedule::Action;
use crate::applier::key::ObjectKey;
use crate::domain::Timestamp;
use crate::progression::Readiness;

/// Most Deployments whose endpoints are asked for at the same time.
const MOST_ASKED: usize = 8;
/// Between two looks at the endpoints of one Deployment: they come within milliseconds where nothing is broken.
const BETWEEN_LOOKS: Duration = Duration::seconds(1);

/// A Deployment as it was when its endpoints were asked for: its UID and its generation.
pub type Incarnation = (Box<str>, u64);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Behind {
    known: BTreeMap<ObjectKey, Known>,
    /// When to ask, soonest first. Some are no longer meant when they come.
    due: BTreeSet<(Timestamp, ObjectKey)>,
    asked: usize,
    round: u64,
}

#[derive(Debug)]
struct Known {
    service: Arc<str>,
    incarnation: Incarnation,
    /// `None`: not asked yet.
    lacks: Option<Lacks>,
    /// When it is asked next, unless that is settled or an answer is on its way.
    next: Option<Timestamp>,
    /// The last round in which somebody waited for it.
    round: u64,
}

/// What endpoints lack, in words; `None`: nothing.
pub type Lacks = Option<Box<str>>;

impl Behind {
    /// What is known of a ready Deployment that is to get traffic from this Service.
    fn readiness(&mut self, key: &ObjectKey, incarnation: Incarnation, service: &str) -> Readiness {
        let is_this =
            |known: &&mut Known| known.incarnation == incarnation && *known.service == *service;
        let known = self.known.get_mut(key).filter(is_this);
        let known = known.map(|known| {
            known.round = self.round;
            &known.lacks
        });
        match known {
            Some(Some(None)) => return Readiness::Ready,
            Some(Some(Some(words))) => return Readiness::NotReady(words.to_string()),
            Some(None) => {}
            None => {
                let known = Known {
                    service: service.into(),
                    incarnation,
                    lacks: None,
                    next: Some(Timestamp::default()),
                    round: self.round,
                };
                self.known.insert(key.clone(), known);
                self.due.insert((Timestamp::default(), key.clone()));
            }
        }
        Readiness::NotReady(format!(
            "the pods of {key} are looked for among the endpoints of Service {service}"
        ))
    }

    fn next_due(&mut self, now: Timestamp) -> Option<ObjectKey> {
        loop {
            // Further away than ever set: the clock was set back.
            let is_due = |at: Timestamp| at <= now || at > now + BETWEEN_LOOKS;
            let first = self.due.first();
            first.filter(|(at, _)| is_due(*at) && self.asked < MOST_ASKED)?;
            let (at, key) = self.due.pop_first()?;
            let known = self.known.get_mut(&key);
            if let Some(known) = known.filter(|known| known.next == Some(at)) {
                known.next = None;
                return Some(key);
            }
        }
    }

    /// When to ask next, if there is room to.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        let first = self.due.first().filter(|_| self.asked < MOST_ASKED);
        first.map(|(at, _)| *at)
    }
}

impl Ledger {
    /// Whether the mesh finds the pods of a Deployment that says it is ready. `service`: what is to send it traffic.
    pub(super) fn behind(&mut self, key: &ObjectKey, service: &str) -> Readiness {
        let live = self.entries.get(key).and_then(|entry| entry.live.as_ref());
        let Some((live, rollout)) = live.and_then(|live| Some((live, live.deployment()?))) else {
            return Readiness::Ready;
        };
        let incarnation = (live.uid.clone(), rollout.generation);
        self.behind.readiness(key, incarnation, service)
    }

    /// Asks for the endpoints that somebody waits for.
    pub(super) fn looks_behind(&mut self, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(key) = self.behind.next_due(now) {
            let live = self.entries.get(&key).and_then(|entry| entry.live.as_ref());
            let Some(rollout) = live.and_then(|live| live.deployment()) else {
                self.behind.known.remove(&key);
                continue;
            };
            if let Some(known) = self.behind.known.get(&key) {
                self.behind.asked += 1;
                actions.push(Action::AskEndpoints {
                    selector: rollout.selector.clone(),
                    replicas: rollout.replicas,
                    service: Arc::clone(&known.service),
                    incarnation: known.incarnation.clone(),
                    key,
                });
            }
        }
        actions
    }

    /// What endpoints lack of the pods of a Deployment that was this.
    pub(super) fn listed(
        &mut self,
        key: &ObjectKey,
        incarnation: &Incarnation,
        lacks: Lacks,
        now: Timestamp,
    ) {
        self.behind.asked = self.behind.asked.saturating_sub(1);
        let known = self.behind.known.get_mut(key);
        let Some(known) = known.filter(|known| known.incarnation == *incarnation) else {
            return;
        };
        if lacks.is_some() {
            let at = now + BETWEEN_LOOKS;
            known.next = Some(at);
            self.behind.due.insert((at, key.clone()));
        }
        self.is_stirred |= known.lacks.as_ref() != Some(&lacks);
        known.lacks = Some(lacks);
    }

    /// Everybody who waits for a Deployment has said so: nobody is asked about the others any more.
    pub fn end_of_round(&mut self) {
        let round = self.behind.round;
        self.behind.round += 1;
        self.behind.known.retain(|_, known| known.round == round);
    }

    /// Whether somebody waits for a first answer about endpoints.
    pub fn asks_for_endpoints(&self) -> bool {
        let mut known = self.behind.known.values();
        known.any(|known| known.lacks.is_none())
    }
}
