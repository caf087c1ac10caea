//! The `Canary` objects in the cluster: what they show is written here, nothing is read from them but whether they exist.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::events::Events;
use super::mirror::Mirror;
use super::watch::{PAGE, Steady};
use crate::applier::ObjectKey;
use crate::crd::{self, CanaryStatus};
use crate::domain::{CanaryId, Timestamp};
use crate::ports::Note;

/// Field manager of the status.
const MANAGER: &str = "serin/status";
/// How often numbers that go on changing are written at most.
const NUMBERS: chrono::TimeDelta = chrono::TimeDelta::seconds(60);

/// Longest time that a start waits for what is there already.
const SETTLING: Duration = Duration::from_secs(3);

/// A call that is yet to be made; the error has the server's words.
pub type Call = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// All `Canary` objects, by a watch.
pub struct Canaries {
    client: kube::Client,
    resource: ApiResource,
    mirror: Arc<Mirror>,
    events: Arc<Events>,
    deadline: Duration,
    /// When a status was written last.
    written: BTreeMap<CanaryId, Timestamp>,
    news: Arc<News>,
}

/// Which canaries changed in the cluster since somebody asked.
#[derive(Debug, Default)]
pub struct News {
    changed: Mutex<BTreeSet<CanaryId>>,
    told: Notify,
}

impl News {
    /// Ready when something changed.
    pub async fn come(&self) {
        self.told.notified().await;
    }

    /// What changed since the last call.
    pub fn take(&self) -> BTreeSet<CanaryId> {
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, id: CanaryId) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.insert(id);
        drop(changed);
        self.told.notify_one();
    }
}

/// One object as the watch shows it.
#[derive(Debug, Clone)]
pub struct Shown {
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// Its status, as far as it can be read.
    pub status: Option<CanaryStatus>,
}

impl Canaries {
    /// Starts to watch; needs a runtime. `me` is this replica, as events name it.
    pub fn watch(
        client: kube::Client,
        me: &str,
        deadline: Duration,
    ) -> (Self, impl Future<Output = ()> + Send + 'static + use<>) {
        let (group, version) = crd::API_VERSION
            .split_once('/')
            .unwrap_or((crate::domain::API_GROUP, "v1alpha1"));
        let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, crd::KIND));
        resource.plural = "canaries".to_owned();
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let stream = watcher::watcher(api, watcher::Config::default().page_size(PAGE));
        let (news, mirror) = (Arc::new(News::default()), Arc::new(Mirror::default()));
        let (heard, seen) = (Arc::clone(&news), Arc::clone(&mirror));
        let following = async move {
            // The definition may come with the first commit that is applied: until then there is nothing to see.
            let mut stream = pin!(stream.backoff(Steady::default()));
            while let Some(event) = stream.next().await {
                match event {
                    Ok(event) => seen.take(&event).into_iter().for_each(|id| heard.note(id)),
                    Err(error) => {
                        tracing::debug!(%error, "the watch of canaries was interrupted");
                    }
                }
            }
        };
        let canaries = Self {
            events: Arc::new(Events::new(client.clone(), me, deadline)),
            client,
            resource,
            mirror,
            deadline,
            written: BTreeMap::new(),
            news,
        };
        (canaries, following)
    }

    /// What changes from here on.
    pub fn news(&self) -> Arc<News> {
        Arc::clone(&self.news)
    }

    /// Waits until everything was seen once, but not for long: the definition may not be there yet.
    pub async fn settle(&self) {
        timeout(self.deadline.min(SETTLING), self.mirror.whole())
            .await
            .ok();
    }

    /// Which repository the object of a canary was applied for, as its label says.
    pub fn owner(&self, id: &CanaryId) -> Option<String> {
        let owner = self.mirror.get(id, |kept| kept.owner.clone())?;
        owner.map(|owner| owner.as_str().to_owned())
    }

    /// The object of a canary; `None` while the cluster shows none.
    pub fn shown(&self, id: &CanaryId) -> Option<Shown> {
        self.mirror.get(id, |kept| Shown {
            generation: kept.generation,
            status: kept
                .status
                .as_ref()
                .and_then(|status| serde_json::from_str(status).ok()),
        })
    }

    /// Changes whenever the object of a canary does; `None` while the cluster shows none.
    pub fn version(&self, id: &CanaryId) -> Option<String> {
        let version = self.mirror.get(id, |kept| kept.version.clone())?;
        version.map(Into::into)
    }

    /// All canaries that the cluster shows.
    pub fn ids(&self) -> Vec<CanaryId> {
        self.mirror.ids()
    }

    /// The call that writes a status where it differs from what the cluster shows. What differs, but not in substance, is
    /// written once a minute at most.
    pub fn writing(
        &mut self,
        id: &CanaryId,
        status: &CanaryStatus,
        differs_in_substance: fn(&CanaryStatus, &CanaryStatus) -> bool,
        now: Timestamp,
    ) -> Option<Call> {
        let shown = self.shown(id)?;
        if let Some(before) = &shown.status {
            let is_recent = self
                .written
                .get(id)
                .is_some_and(|at| *at <= now && now - *at < NUMBERS);
            if before == status || (is_recent && !differs_in_substance(before, status)) {
                return None;
            }
        }
        self.written.insert(id.clone(), now);
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &id.namespace, &self.resource);
        let (name, deadline) = (id.name.clone(), self.deadline);
        let (resource, status) = (self.resource.clone(), status.clone());
        Some(Box::pin(async move {
            // Made when its turn comes: thousands may wait, and as a tree it is large.
            let patch = json!({
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "metadata": {"name": name},
                "status": status,
            });
            let parameters = PatchParams::apply(MANAGER).force();
            let patch = Patch::Apply(&patch);
            let call = api.patch_status(&name, &parameters, &patch);
            match timeout(deadline, call).await {
                Ok(Ok(_)) => Ok(()),
                // It went away since the watch showed it: there is nothing to write to.
                Ok(Err(kube::Error::Api(refusal))) if refusal.code == 404 => Ok(()),
                Ok(Err(error)) => Err(super::call::words(&error)),
                Err(_) => Err("the cluster did not answer in time".to_owned()),
            }
        }))
    }

    /// The call that shows an event on the object of a canary; without one there is nowhere to show it.
    pub fn noting(&self, note: &Note, now: Timestamp) -> Option<Call> {
        let (uid, version) = self.mirror.get(&note.canary, |kept| {
            (kept.uid.clone(), kept.version.clone())
        })?;
        let reference = ObjectReference {
            api_version: Some(self.resource.api_version.clone()),
            kind: Some(self.resource.kind.clone()),
            name: Some(note.canary.name.clone()),
            namespace: Some(note.canary.namespace.clone()),
            uid: uid.map(Into::into),
            resource_version: version.map(Into::into),
            field_path: None,
        };
        Some(self.publishing(note, reference, now))
    }

    /// The call that shows an event on any object that Serin applied.
    pub fn noting_on(
        &self,
        (api_version, key, uid): (&str, &ObjectKey, &str),
        note: &Note,
        now: Timestamp,
    ) -> Call {
        let reference = ObjectReference {
            api_version: Some(api_version.to_owned()),
            kind: Some(key.kind.kind.to_string()),
            name: Some(key.name.to_string()),
            namespace: key.namespace.as_ref().map(ToString::to_string),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        self.publishing(note, reference, now)
    }

    fn publishing(&self, note: &Note, about: ObjectReference, now: Timestamp) -> Call {
        let (events, note) = (Arc::clone(&self.events), note.clone());
        Box::pin(async move { events.publish(&note, &about, now).await })
    }
}
