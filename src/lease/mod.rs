//! Who acts, when there are several replicas: rules about Leases, without a cluster or a clock.
//!
//! Every piece of work (a repository, or a share of its namespaces) has one Lease, and who holds it does the work. A Lease
//! is a courtesy, not a lock: it keeps two replicas from doing the same work twice. What keeps them from doing it
//! *wrongly* is Git: the head of the branch decides which commit counts, and an object with another sequence number than
//! HEAD's is never touched. So nothing here has to trust another machine's clock: a holder is taken for gone when its
//! record has not changed for as long as it asked for, by the watch of whoever looks.

mod balance;

use std::time::Duration;

use chrono::TimeDelta;

pub use balance::{Balance, balance};

use crate::domain::{Revision, Timestamp};

/// How long a holder that says nothing keeps its Lease.
pub const DURATION: Duration = Duration::from_secs(15);
/// How often a holder says something: three lost requests lose no Lease.
pub const RENEWAL: Duration = Duration::from_secs(4);
/// After this long without a successful renewal a holder stops acting: well before others may take over.
pub const GRACE: Duration = Duration::from_secs(10);

/// Whether Kubernetes takes this as the name of an object, or as the end of one.
pub fn is_object_name(name: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        let ends = bytes.first().zip(bytes.last());
        ends.is_some_and(|(first, last)| is_plain(*first) && is_plain(*last))
            && bytes.iter().all(|c| is_plain(*c) || *c == b'-')
    };
    name.len() <= 200 && name.split('.').all(is_part)
}

/// The end of the name of a Lease: that of the work where Kubernetes takes it, and otherwise what is left of it with a
/// word that no other work has.
pub fn object_name(work: &str) -> String {
    if is_object_name(work) {
        return work.to_owned();
    }
    let lower = work.to_ascii_lowercase();
    let kept = lower.chars().take(60);
    let kept: String = kept
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let own = Revision::of(&serde_json::Value::from(work));
    let name = format!("{}-{}", kept.trim_matches('-'), own.as_str());
    name.trim_start_matches('-').to_owned()
}

/// A Lease as the cluster holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Who holds it; `None`: nobody, or it was given back.
    pub holder: Option<String>,
    /// How long a silent holder keeps it.
    pub duration: Duration,
    /// How often it changed hands.
    pub transitions: u32,
    /// Changes with each write: the resource version.
    pub version: String,
}

/// A record together with when it was seen first in this form, by our own watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighted {
    /// The record.
    pub record: Record,
    /// When this version of it was seen first.
    pub since: Timestamp,
}

/// What to do about a Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Write ourselves into it: it is free, or its holder is silent.
    Take,
    /// It is ours: say so again.
    Renew,
    /// Somebody else's, until then at least.
    StandBy {
        /// When it may be taken, if its holder stays silent.
        until: Timestamp,
    },
}

impl Sighted {
    /// The sighting after another look: an unchanged record has been seen for longer.
    pub fn again(previous: Option<&Self>, record: Record, now: Timestamp) -> Self {
        let unchanged = previous.filter(|before| before.record == record);
        // A watch that was set back must not make a record older than it is.
        let since = unchanged.map_or(now, |before| before.since.min(now));
        Self { record, since }
    }
}

/// What `me` does about a Lease that was seen like this; `None`: there is none yet.
pub fn claim(seen: Option<&Sighted>, me: &str, now: Timestamp) -> Claim {
    let Some(Sighted { record, since }) = seen else {
        return Claim::Take;
    };
    match record.holder.as_deref() {
        None | Some("") => Claim::Take,
        Some(holder) if holder == me => Claim::Renew,
        Some(_) => {
            let until = after(*since, record.duration);
            if now >= until {
                Claim::Take
            } else {
                Claim::StandBy { until }
            }
        }
    }
}

/// The record that `me` writes when taking or renewing.
pub fn held_by(me: &str, before: Option<&Record>) -> Record {
    let same = before.is_some_and(|record| record.holder.as_deref() == Some(me));
    let transitions = before.map_or(0, |record| record.transitions);
    Record {
        holder: Some(me.to_owned()),
        duration: DURATION,
        transitions: if same {
            transitions
        } else {
            transitions.saturating_add(u32::from(before.is_some()))
        },
        version: before
            .map(|record| record.version.clone())
            .unwrap_or_default(),
    }
}

/// Whether a holder that renewed last at `renewed` may still act.
pub fn may_act(renewed: Option<Timestamp>, now: Timestamp) -> bool {
    // A watch that was set back says nothing about how long ago it was: stand by until the next renewal.
    renewed.is_some_and(|renewed| renewed <= now && now < acts_until(renewed))
}

/// Until when a holder that renewed then may act.
pub fn acts_until(renewed: Timestamp) -> Timestamp {
    after(renewed, GRACE)
}

fn after(at: Timestamp, wait: Duration) -> Timestamp {
    TimeDelta::from_std(wait)
        .ok()
        .and_then(|wait| at.checked_add_signed(wait))
        .unwrap_or(Timestamp::MAX_UTC)
}

/// One of several equal parts of a repository's namespaces. All that belongs together is in one namespace: a canary, its
/// routes, its workloads. So each engine keeps whole namespaces, and needs to know nothing of what the others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    index: u32,
    of: u32,
}

impl Share {
    /// Everything.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// All shares of a repository that is parted in so many; at least one.
    pub fn all(of: u32) -> impl Iterator<Item = Self> {
        let of = of.max(1);
        (0..of).map(move |index| Self { index, of })
    }

    /// Whether a namespace, and what is in it, belongs to this share.
    pub fn has(self, namespace: &str) -> bool {
        self.of <= 1 || part(namespace, self.of) == self.index
    }

    /// Whether what is in no namespace belongs to this share.
    pub fn is_first(self) -> bool {
        self.index == 0
    }

    /// `name` for the first or only share, `name.2` for the second, and so on.
    pub fn called(self, name: &str) -> String {
        match self.index {
            0 => name.to_owned(),
            index => format!("{name}.{}", index.saturating_add(1)),
        }
    }
}

impl Default for Share {
    fn default() -> Self {
        Self::WHOLE
    }
}

/// Two versions of Serin have to agree on it while one takes the place of the other.
fn part(namespace: &str, of: u32) -> u32 {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(namespace.as_bytes());
    let head = digest.iter().take(4);
    let number = head.fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    number % of.max(1)
}

#[cfg(test)]
mod tests;
