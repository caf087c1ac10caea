//! Where objects stand: in sync, due, doomed, or left alone.

use super::{CRD, Drifted, Ledger, Mode, Notice, Repaired};
use crate::applier::atom::Atom;
use crate::applier::key::{Kind, ObjectKey};
use crate::applier::live::{Live, Verdict};
use crate::applier::object::Object;
use crate::applier::order;
use crate::domain::Timestamp;

impl Ledger {
    pub(super) fn refresh_namespace(&mut self, namespace: &str, now: Timestamp) {
        let inside: Vec<ObjectKey> = self
            .entries
            .keys()
            .filter(|key| key.namespace.as_deref() == Some(namespace))
            .cloned()
            .collect();
        for key in inside {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.failure = None;
            }
            self.refresh(&key, now);
        }
    }

    pub(super) fn refresh_kind(&mut self, kind: &Kind, now: Timestamp) {
        let keys: Vec<ObjectKey> = self
            .entries
            .keys()
            .filter(|key| &key.kind == kind)
            .cloned()
            .collect();
        for key in keys {
            self.refresh(&key, now);
        }
    }

    /// Works out anew where an object stands.
    pub(super) fn refresh(&mut self, key: &ObjectKey, now: Timestamp) {
        let is_synced = self.synced.contains(&key.kind);
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let Some(wanted) = entry.wanted.clone() else {
            self.refresh_unwanted(key);
            return;
        };
        self.doomed.remove(&(wanted.tier, key.clone()));
        let is_applied =
            |live: &Live| self.policy.external || live.applied.as_ref() == Some(&wanted.hash);
        let in_sync = match &entry.live {
            Some(live) => !live.terminating && live.verdict == Verdict::Same && is_applied(live),
            None => false,
        };
        if in_sync {
            let since = entry.live.as_ref().and_then(|live| live.since);
            let since = since.filter(|_| !entry.was_out).unwrap_or(now).min(now);
            if entry.in_sync_since.is_none() {
                entry.in_sync_since = Some(since);
                self.is_stirred |= wanted.canary.is_some();
            }
            entry.failure = None;
            entry.blocked = None;
            if let Some(drift) = entry.drift.take() {
                let uid = entry.live.as_ref().map(|live| live.uid.clone());
                let uid = uid.unwrap_or_default().into();
                let repaired = Repaired {
                    drift: *drift,
                    uid,
                    at: now,
                };
                self.notices.push(Notice::Repaired(repaired));
            }
            self.due.remove(&(wanted.tier, key.clone()));
            return;
        }
        if entry.live.is_none() && !is_synced {
            return;
        }
        let was_in_sync = entry.in_sync_since.take().is_some();
        self.is_stirred |= was_in_sync && wanted.canary.is_some();
        entry.was_out = true;
        let drifted = match &entry.live {
            None => was_in_sync,
            Some(live) => {
                let is_edit = !self.policy.external && is_applied(live);
                matches!(&live.verdict, Verdict::Differs(_)) && (was_in_sync || is_edit)
            }
        };
        if drifted && entry.drift.is_none() {
            let drift = drift_of(key, &wanted, entry.live.as_ref(), now);
            if self.policy.mode == Mode::Warn || self.policy.external {
                self.notices.push(Notice::Drifted(drift.clone()));
            }
            entry.drift = Some(Box::new(drift));
        }
        if entry.live.as_ref().is_none_or(|live| live.terminating) {
            let since = *entry.out_since.get_or_insert(now);
            self.alarms.missing(key, since);
        }
        self.unplaced.extend(key.namespace.clone());
        self.due.insert((wanted.tier, key.clone()));
    }

    fn refresh_unwanted(&mut self, key: &ObjectKey) {
        let tier = order::tier(&key.kind);
        self.due.remove(&(tier, key.clone()));
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.in_sync_since = None;
        if key.is_namespace() {
            self.unplaced.insert(Atom::of(&key.name));
        }
        let may_go = entry.live.as_ref().is_some_and(|live| {
            let is_ours = live.owner.as_deref() == Some(self.policy.owner.as_str()) && !live.keeps;
            let is_rendered = live.canary.is_some() && is_rendered(&key.kind);
            let is_wide = key.is_namespace() || key.kind.is(CRD, "CustomResourceDefinition");
            let allowed = self.policy.prune && (!is_wide || self.policy.prune_namespaces);
            is_ours && (is_rendered || allowed) && key.is_of(self.policy.share)
        });
        let place = (tier, key.clone());
        if may_go && self.desired.complete && !self.policy.external {
            self.doomed.insert(place);
        } else {
            self.doomed.remove(&place);
        }
        // Namespaces and Deployments are looked at even when Git has none; all others are forgotten.
        let is_kept = entry.live.is_some() || (key.is_namespace() && entry.was_live);
        if !is_kept {
            self.entries.remove(key);
        }
    }
}

/// Kinds that Serin renders for a canary.
fn is_rendered(kind: &Kind) -> bool {
    kind.is("networking.istio.io", "VirtualService")
        || kind.is("networking.istio.io", "DestinationRule")
        || kind.is("apps", "Deployment")
}

fn drift_of(key: &ObjectKey, wanted: &Object, live: Option<&Live>, now: Timestamp) -> Drifted {
    let differences = match live.map(|live| &live.verdict) {
        Some(Verdict::Differs(found)) => found.to_vec(),
        Some(Verdict::Unknown | Verdict::Same) | None => Vec::new(),
    };
    Drifted {
        object: key.clone(),
        canary: wanted.canary.as_deref().cloned(),
        api_version: wanted.api_version.to_string(),
        differences,
        by: live
            .and_then(|live| live.last_writer.as_ref())
            .map(|(manager, _)| manager.to_string()),
        seen: now,
    }
}
