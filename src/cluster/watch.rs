//! Watches one kind of objects and tells the keeper what it sees.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind, TypeMeta};
use kube::discovery::{self, Scope};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::applier::atom::Atom;
use crate::applier::live::key_of;
use crate::applier::{Kind, ObjectKey};

/// Between two tries to find a kind that the cluster does not know: its definition may come without us.
const BETWEEN_TRIES: Duration = Duration::from_secs(10);

/// Objects in one answer to a list. All kinds are listed at the same time after a start, and what that takes at once stays with
/// the process: 4 MiB for each kind.
pub(super) const PAGE: u32 = 200;

/// First and longest wait before an interrupted watch is taken up again. It doubles, and a watch that works starts anew:
/// after an outage of hours everything is seen again within this long.
const WAITS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Waits between the tries of an interrupted watch.
#[derive(Debug, Default)]
pub(super) struct Steady {
    last: Option<Duration>,
}

impl Iterator for Steady {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let (first, longest) = WAITS;
        let next = self.last.map_or(first, |last| (last * 2).min(longest));
        self.last = Some(next);
        Some(next)
    }
}

impl Backoff for Steady {
    fn reset(&mut self) {
        self.last = None;
    }
}

/// What a watch tells.
#[derive(Debug)]
pub(super) enum Seen {
    /// An object as it is.
    Object(Box<Value>),
    /// An object is gone; which incarnation of it.
    Gone(ObjectKey, Box<str>),
    /// All objects of the kind were told.
    Synced(Kind),
    /// The kind cannot be seen, in the server's words.
    Blind(Kind, String),
    /// Whether the kind belongs to namespaces.
    Scope(Kind, bool),
}

/// How kinds are called in URLs, as far as the cluster was asked.
pub(super) type Resources = Arc<Mutex<BTreeMap<Kind, (ApiResource, bool)>>>;

/// What a watch needs.
#[derive(Clone)]
pub(super) struct Watcher {
    pub(super) client: kube::Client,
    pub(super) deadline: Duration,
    pub(super) resources: Resources,
    pub(super) events: mpsc::Sender<Seen>,
    /// Told when a definition is established.
    pub(super) definitions: Arc<Notify>,
    /// Namespaces to look at; empty: all.
    pub(super) namespaces: BTreeSet<String>,
}

impl Watcher {
    /// Runs until nobody listens. `selector` is a label selector; without one all objects are seen.
    pub(super) async fn run(self, kind: Kind, api_version: String, selector: Option<String>) {
        let Some((resource, is_namespaced)) = self.resolve(&kind, &api_version).await else {
            return;
        };
        let config = watcher::Config::default().page_size(PAGE);
        let config = match &selector {
            Some(selector) => config.labels(selector),
            None => config,
        };
        let client = || self.client.clone();
        let confined = !self.namespaces.is_empty();
        let apis: Vec<(Api<DynamicObject>, watcher::Config)> =
            if !confined || (!is_namespaced && !kind.is("", "Namespace")) {
                vec![(Api::all_with(client(), &resource), config)]
            } else if is_namespaced {
                let namespaces = self.namespaces.iter();
                namespaces
                    .map(|namespace| {
                        (
                            Api::namespaced_with(client(), namespace, &resource),
                            config.clone(),
                        )
                    })
                    .collect()
            } else {
                let names = self.namespaces.iter();
                names
                    .map(|name| {
                        let config = config.clone().fields(&format!("metadata.name={name}"));
                        (Api::all_with(client(), &resource), config)
                    })
                    .collect()
            };
        let waiting = Arc::new(Mutex::new(apis.len()));
        let mut tasks = tokio::task::JoinSet::new();
        for (api, config) in apis {
            let stream = One {
                kind: kind.clone(),
                types: TypeMeta {
                    api_version: resource.api_version.clone(),
                    kind: resource.kind.clone(),
                },
                events: self.events.clone(),
                waiting: Arc::clone(&waiting),
                known: BTreeMap::new(),
                is_synced: false,
            };
            tasks.spawn(stream.follow(api, config));
        }
        while tasks.join_next().await.is_some() {}
    }

    fn remember(&self, kind: &Kind, found: &(ApiResource, bool)) {
        let mut known = self
            .resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.insert(kind.clone(), found.clone());
    }

    /// Asks the cluster how the kind is called there, until it knows.
    async fn resolve(&self, kind: &Kind, api_version: &str) -> Option<(ApiResource, bool)> {
        let version = api_version
            .rsplit_once('/')
            .map_or(api_version, |(_, version)| version);
        let wanted = GroupVersionKind::gvk(&kind.group, version, &kind.kind);
        loop {
            let established = self.definitions.notified();
            let asked = discovery::pinned_kind(&self.client, &wanted);
            let words = match timeout(self.deadline, asked).await {
                Ok(Ok((resource, capabilities))) => {
                    let is_namespaced = capabilities.scope == Scope::Namespaced;
                    let found = (resource, is_namespaced);
                    self.remember(kind, &found);
                    let told = self.events.send(Seen::Scope(kind.clone(), is_namespaced));
                    return told.await.ok().map(|()| found);
                }
                Ok(Err(kube::Error::Discovery(_))) => no_match(kind, api_version),
                Ok(Err(error)) => match &error {
                    kube::Error::Api(status) if status.code == 404 => no_match(kind, api_version),
                    _ => super::call::words(&error),
                },
                Err(_) => "the cluster did not answer in time".to_owned(),
            };
            self.events
                .send(Seen::Blind(kind.clone(), words))
                .await
                .ok()?;
            timeout(BETWEEN_TRIES, established).await.ok();
        }
    }
}

fn no_match(kind: &Kind, api_version: &str) -> String {
    format!(
        "the cluster knows no kind {} in {api_version}: its definition (CRD) is missing",
        kind.kind
    )
}

/// Namespace and name.
type Place = (Option<Atom>, Box<str>);

/// One stream of a watch.
struct One {
    kind: Kind,
    types: TypeMeta,
    events: mpsc::Sender<Seen>,
    /// Streams of the same kind that did not tell everything yet.
    waiting: Arc<Mutex<usize>>,
    /// What was told, by namespace and name, with its incarnation; the flag says whether the present round told it again.
    known: BTreeMap<Place, (Box<str>, bool)>,
    is_synced: bool,
}

impl One {
    async fn follow(mut self, api: Api<DynamicObject>, config: watcher::Config) {
        let stream = watcher::watcher(api, config).backoff(Steady::default());
        let mut stream = pin!(stream);
        while let Some(event) = stream.next().await {
            let told = match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => self.object(object).await,
                Ok(Event::Delete(object)) => self.gone(object).await,
                Ok(Event::Init) => {
                    self.known
                        .values_mut()
                        .for_each(|(_, is_fresh)| *is_fresh = false);
                    Some(())
                }
                Ok(Event::InitDone) => self.synced().await,
                Err(error) => self.failed(&error).await,
            };
            if told.is_none() {
                return;
            }
        }
    }

    fn value(&self, mut object: DynamicObject) -> Option<Value> {
        object.types = Some(self.types.clone());
        serde_json::to_value(object).ok()
    }

    async fn object(&mut self, object: DynamicObject) -> Option<()> {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let Some(value) = self.value(object) else {
            return Some(());
        };
        let key = key_of(&value);
        let place = (key.namespace.clone(), key.name.clone());
        self.known.insert(place, (uid.into(), true));
        self.events.send(Seen::Object(Box::new(value))).await.ok()
    }

    async fn gone(&mut self, object: DynamicObject) -> Option<()> {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let Some(value) = self.value(object) else {
            return Some(());
        };
        let key = key_of(&value);
        let place = (key.namespace.clone(), key.name.clone());
        self.known.remove(&place);
        self.events.send(Seen::Gone(key, uid.into())).await.ok()
    }

    /// Everything was told: what was known and was not told again is gone.
    async fn synced(&mut self) -> Option<()> {
        let lost = self.known.extract_if(.., |_, (_, is_fresh)| !*is_fresh);
        let lost: Vec<_> = lost.collect();
        for ((namespace, name), (uid, _)) in lost {
            let key = ObjectKey::new(self.kind.clone(), namespace.as_deref(), &name);
            self.events.send(Seen::Gone(key, uid)).await.ok()?;
        }
        if !self.is_synced {
            self.is_synced = true;
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            *waiting = waiting.saturating_sub(1);
        }
        let is_last = *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) == 0;
        if is_last {
            self.events
                .send(Seen::Synced(self.kind.clone()))
                .await
                .ok()?;
        }
        Some(())
    }

    /// A watch that worked before comes back by itself; until then what it told holds.
    async fn failed(&mut self, error: &watcher::Error) -> Option<()> {
        if self.is_synced {
            tracing::debug!(kind = %self.kind.kind, %error, "a watch was interrupted");
            return Some(());
        }
        let words = match error {
            watcher::Error::InitialListFailed(source)
            | watcher::Error::WatchStartFailed(source)
            | watcher::Error::WatchFailed(source) => super::call::words(source),
            watcher::Error::WatchError(status) => status.message.clone(),
            watcher::Error::NoResourceVersion => error.to_string(),
        };
        self.events
            .send(Seen::Blind(self.kind.clone(), words))
            .await
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_an_outage_of_hours_a_watch_is_back_within_seconds() {
        let mut waits = Steady::default();
        let hour: Vec<Duration> = waits.by_ref().take(720).collect();
        assert_eq!(hour[0], Duration::from_millis(250));
        assert_eq!(hour[719], Duration::from_secs(5));
        assert!(hour.iter().all(|wait| *wait <= Duration::from_secs(5)));
        waits.reset();
        assert_eq!(waits.next(), Some(Duration::from_millis(250)));
    }
}
