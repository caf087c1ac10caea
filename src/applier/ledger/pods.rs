//! Looks at the pods of Deployments that do not become ready: they know why.

use chrono::Duration;

use super::Ledger;
use super::schedule::Action;
use crate::domain::Timestamp;

/// Between two looks at pods that do not become ready, in seconds.
pub(super) const BETWEEN_LOOKS: i64 = 5;
/// Looks at pods on their way at once. While objects are written it is one: when thousands of Deployments are made, their pods
/// need a while, and asking all of them would keep the server from what makes them ready.
pub(super) const MOST_LOOKS: usize = 8;

impl Ledger {
    /// Deployments that somebody waits for, and that do not become ready: their pods know why.
    pub(super) fn looks(&mut self, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        let most = if self.in_flight > 0 { 1 } else { MOST_LOOKS };
        while self.looking < most {
            let Some(key) = self.alarms.next_look(now) else {
                break;
            };
            let entry = self.entries.get_mut(&key);
            let Some(entry) = entry.filter(|_| self.watched.contains(&key)) else {
                continue;
            };
            let Some(rollout) = entry.live.as_ref().and_then(|live| live.deployment()) else {
                continue;
            };
            if rollout.readiness.is_ready() || !rollout.has_pods {
                continue;
            }
            let asked = entry.pods.as_ref().map(|pods| pods.1);
            let recently = asked.filter(|at| now - *at < Duration::seconds(BETWEEN_LOOKS));
            self.alarms.look_again(&key, recently.unwrap_or(now));
            if recently.is_none() {
                let selector = rollout.selector.clone();
                entry.pods = Some(Box::new((rollout.readiness.clone(), now)));
                self.looking += 1;
                self.alarms.looked(now);
                actions.push(Action::AskPods { key, selector });
            }
        }
        actions
    }
}
