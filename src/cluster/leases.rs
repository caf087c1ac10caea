//! Leases in the cluster: reads and writes them; `crate::lease` says what to write.
//!
//! Every write is bound to the version that was read, so that of two replicas that take the same Lease one is refused.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff;
use kube::api::{Api, DeleteParams, ListParams, ObjectList, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::watch::Steady;
use crate::domain::Timestamp;
use crate::lease::{
    Balance, Claim, Record, Sighted, acts_until, balance, claim, held_by, may_act, object_name,
};

/// Label on every Lease of an installation; its value is the installation's name.
const GROUP_LABEL: &str = "serin.dev/replicas";
/// Before the name of a replica: its own Lease, which says that it is alive.
const MEMBER: &str = "member";

/// The Leases of one installation, as one replica sees them.
pub struct Leases {
    api: Api<Lease>,
    /// Name of the installation: what its Leases begin with.
    group: String,
    /// This replica.
    me: String,
    deadline: Duration,
    seen: BTreeMap<String, Sighted>,
    /// When each Lease that is ours was written last.
    renewed: BTreeMap<String, Timestamp>,
}

/// Why the Leases could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The server refused, in its words.
    #[error("the cluster refused a Lease: {0}")]
    Refused(String),
    /// No answer in time.
    #[error("the cluster did not answer about Leases in time")]
    Deadline,
}

impl Leases {
    /// The Leases that begin with `group` in a namespace, for the replica `me`.
    pub fn new(
        client: kube::Client,
        namespace: &str,
        group: &str,
        me: &str,
        deadline: Duration,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            group: group.to_owned(),
            me: me.to_owned(),
            deadline,
            seen: BTreeMap::new(),
            renewed: BTreeMap::new(),
        }
    }

    /// Looks at all Leases, renews those that are ours, takes what is free up to our share of `work`, and gives back
    /// what is above it. Call it every [`crate::lease::RENEWAL`].
    ///
    /// # Errors
    /// The Leases cannot be read. What was renewed before counts until its time is over.
    pub async fn tick(&mut self, work: &[String], now: Timestamp) -> Result<(), LeaseError> {
        // From here on work goes by what its Lease is called.
        let work: Vec<String> = work.iter().map(|name| object_name(name)).collect();
        let list = ListParams::default().labels(&format!("{GROUP_LABEL}={}", self.group));
        let all: ObjectList<Lease> = self.within(self.api.list(&list)).await?;
        let mut present: BTreeMap<String, Record> = all
            .items
            .into_iter()
            .filter_map(|lease| {
                let name = lease.metadata.name.clone()?;
                let work = name.strip_prefix(&format!("{}-", self.group))?.to_owned();
                Some((work, record(&lease)))
            })
            .collect();
        let mut seen = BTreeMap::new();
        for (name, record) in std::mem::take(&mut present) {
            let sighted = Sighted::again(self.seen.get(&name), record, now);
            seen.insert(name, sighted);
        }
        self.seen = seen;
        let mine = self.member();
        self.write(&mine, now).await?;
        self.keep_and_share(&work, now).await
    }

    async fn keep_and_share(&mut self, work: &[String], now: Timestamp) -> Result<(), LeaseError> {
        let holds =
            |this: &Self, name: &String| claim(this.seen.get(name), &this.me, now) == Claim::Renew;
        let held: Vec<String> = work
            .iter()
            .filter(|name| holds(self, name))
            .cloned()
            .collect();
        let (keep, give_back) = match balance(held.len(), work.len(), self.members(now)) {
            Balance::GiveBack(count) => held.split_at(held.len() - count),
            Balance::Enough | Balance::MayTake(_) => held.split_at(held.len()),
        };
        for name in keep {
            self.write(name, now).await?;
        }
        for name in give_back {
            self.release(name).await?;
        }
        if let Balance::MayTake(count) = balance(held.len(), work.len(), self.members(now)) {
            let free = |name: &&String| claim(self.seen.get(*name), &self.me, now) == Claim::Take;
            let free: Vec<String> = work.iter().filter(free).take(count).cloned().collect();
            for name in free {
                self.write(&name, now).await?;
            }
        }
        Ok(())
    }

    /// Told whenever somebody gives a Lease back, so that nobody waits for the next tick to take it; the future watches.
    pub fn freed(
        &self,
    ) -> (
        Arc<Notify>,
        impl Future<Output = ()> + Send + 'static + use<>,
    ) {
        let told = Arc::new(Notify::new());
        let tell = Arc::clone(&told);
        let selector = format!("{GROUP_LABEL}={}", self.group);
        let config = watcher::Config::default().labels(&selector);
        let stream = watcher::watcher(self.api.clone(), config);
        let watching = async move {
            let mut stream = pin!(stream.backoff(Steady::default()));
            while let Some(event) = stream.next().await {
                let is_free = match event {
                    Ok(watcher::Event::Apply(lease)) => record(&lease).holder.is_none(),
                    Ok(watcher::Event::Delete(_)) => true,
                    Ok(_) | Err(_) => false,
                };
                if is_free {
                    tell.notify_one();
                }
            }
        };
        (told, watching)
    }

    /// Replicas that are alive, this one included.
    fn members(&self, now: Timestamp) -> usize {
        let is_alive = |(name, seen): &(&String, &Sighted)| {
            let of_a_member = name.starts_with(&format!("{MEMBER}-"));
            of_a_member && matches!(claim(Some(seen), "", now), Claim::StandBy { .. })
        };
        let mine = format!("{MEMBER}-{}", self.me);
        let others = self.seen.iter().filter(|(name, _)| **name != mine);
        1 + others.filter(is_alive).count()
    }

    /// Whether this replica may act on a piece of work now, and when it last said that it does.
    pub fn may_act(&self, work: &str, now: Timestamp) -> bool {
        may_act(self.renewed.get(&object_name(work)).copied(), now)
    }

    /// Until when what is held can be relied on; `None` while nothing is held.
    pub fn relied_on_until(&self) -> Option<Timestamp> {
        self.renewed
            .values()
            .min()
            .map(|renewed| acts_until(*renewed))
    }

    /// Gives everything back, for a stop that lets others take over at once.
    pub async fn release_all(&mut self) {
        let mine: Vec<String> = self.renewed.keys().cloned().collect();
        for name in mine {
            if let Err(error) = self.release(&name).await {
                tracing::warn!(lease = %name, %error, "a Lease was not given back; others take it when its time is over");
            }
        }
        let name = self.full_name(&self.member());
        let gone = DeleteParams::default();
        if let Err(error) = self.within(self.api.delete(&name, &gone)).await {
            tracing::debug!(%error, "the Lease of this replica stays until somebody cleans up");
        }
    }

    /// What the Lease is called that says that this replica is there.
    fn member(&self) -> String {
        object_name(&format!("{MEMBER}-{}", self.me))
    }

    fn full_name(&self, work: &str) -> String {
        format!("{}-{work}", self.group)
    }

    /// Takes or renews a Lease. Losing a race for it is no error: somebody else has it.
    async fn write(&mut self, work: &str, now: Timestamp) -> Result<(), LeaseError> {
        let before = self.seen.get(work).map(|seen| seen.record.clone());
        let record = held_by(&self.me, before.as_ref());
        let result = self.put(work, &record, now).await;
        self.wrote(work, result, now)
    }

    async fn release(&mut self, work: &str) -> Result<(), LeaseError> {
        self.renewed.remove(work);
        let Some(seen) = self.seen.get(work) else {
            return Ok(());
        };
        let record = Record {
            holder: None,
            ..seen.record.clone()
        };
        // The time that it is free from is now, whatever the record says.
        let result = self.put(work, &record, Timestamp::UNIX_EPOCH).await;
        self.wrote(work, result, Timestamp::UNIX_EPOCH)?;
        self.renewed.remove(work);
        Ok(())
    }

    async fn put(&self, work: &str, record: &Record, now: Timestamp) -> Result<Lease, LeaseWrite> {
        let lease = self.lease(work, record, now);
        let parameters = PostParams::default();
        let name = self.full_name(work);
        let call = async {
            if record.version.is_empty() {
                self.api.create(&parameters, &lease).await
            } else {
                self.api.replace(&name, &parameters, &lease).await
            }
        };
        match timeout(self.deadline, call).await {
            Ok(Ok(written)) => Ok(written),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                Err(LeaseWrite::Lost)
            }
            Ok(Err(error)) => Err(LeaseWrite::Failed(LeaseError::Refused(super::call::words(
                &error,
            )))),
            Err(_) => Err(LeaseWrite::Failed(LeaseError::Deadline)),
        }
    }

    fn wrote(
        &mut self,
        work: &str,
        result: Result<Lease, LeaseWrite>,
        now: Timestamp,
    ) -> Result<(), LeaseError> {
        match result {
            Ok(lease) => {
                let sighted = Sighted {
                    record: record(&lease),
                    since: now,
                };
                self.seen.insert(work.to_owned(), sighted);
                self.renewed.insert(work.to_owned(), now);
                Ok(())
            }
            Err(LeaseWrite::Lost) => {
                self.renewed.remove(work);
                Ok(())
            }
            Err(LeaseWrite::Failed(error)) => Err(error),
        }
    }

    fn lease(&self, work: &str, record: &Record, now: Timestamp) -> Lease {
        let time = jiff::Timestamp::from_millisecond(now.timestamp_millis());
        let time = time.ok().map(MicroTime);
        let version = Some(record.version.clone()).filter(|version| !version.is_empty());
        let labels = BTreeMap::from([
            (GROUP_LABEL.to_owned(), self.group.clone()),
            (
                "app.kubernetes.io/managed-by".to_owned(),
                "serin".to_owned(),
            ),
        ]);
        Lease {
            metadata: ObjectMeta {
                name: Some(self.full_name(work)),
                resource_version: version,
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: record.holder.clone(),
                lease_duration_seconds: i32::try_from(record.duration.as_secs()).ok(),
                lease_transitions: i32::try_from(record.transitions).ok(),
                renew_time: time,
                ..LeaseSpec::default()
            }),
        }
    }

    async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, LeaseError> {
        match timeout(self.deadline, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(LeaseError::Refused(super::call::words(&error))),
            Err(_) => Err(LeaseError::Deadline),
        }
    }
}

/// Why a Lease was not written.
enum LeaseWrite {
    /// Somebody else was faster.
    Lost,
    Failed(LeaseError),
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    Record {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        transitions: spec
            .lease_transitions
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or_default(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}
