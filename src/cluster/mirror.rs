//! What a watch shows of the `Canary` objects, in little space: there may be ten thousand.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use crate::applier::atom::Atom;
use crate::domain::{CanaryId, OWNER_LABEL};

/// What is remembered of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    /// Identity of this incarnation.
    pub(super) uid: Option<Box<str>>,
    /// Changes whenever the object does.
    pub(super) version: Option<Box<str>>,
    /// `metadata.generation`.
    pub(super) generation: Option<i64>,
    /// Which repository it was applied for, as its label says.
    pub(super) owner: Option<Atom>,
    /// Its status; as a text, which is a fifth of its tree.
    pub(super) status: Option<Box<str>>,
}

impl Kept {
    fn of(object: &DynamicObject) -> Self {
        let metadata = &object.metadata;
        let labels = metadata.labels.as_ref();
        let owner = labels.and_then(|labels| labels.get(OWNER_LABEL));
        Self {
            uid: metadata.uid.as_deref().map(Into::into),
            version: metadata.resource_version.as_deref().map(Into::into),
            generation: metadata.generation,
            owner: owner.map(|owner| Atom::of(owner)),
            status: object.data.get("status").map(|s| s.to_string().into()),
        }
    }
}

/// All objects, as the watch told of them.
#[derive(Debug)]
pub(super) struct Mirror {
    /// The flag says whether the present list told it again.
    objects: Mutex<BTreeMap<CanaryId, (Kept, bool)>>,
    is_whole: watch::Sender<bool>,
}

impl Default for Mirror {
    fn default() -> Self {
        Self {
            objects: Mutex::default(),
            is_whole: watch::Sender::new(false),
        }
    }
}

impl Mirror {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<CanaryId, (Kept, bool)>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an event in, and answers which canary it is about.
    pub(super) fn take(&self, event: &Event<DynamicObject>) -> Option<CanaryId> {
        match event {
            Event::Apply(object) | Event::InitApply(object) => {
                let id = id_of(object)?;
                self.objects().insert(id.clone(), (Kept::of(object), true));
                Some(id)
            }
            Event::Delete(object) => {
                let id = id_of(object)?;
                self.objects().remove(&id);
                Some(id)
            }
            Event::Init => {
                let mut objects = self.objects();
                objects
                    .values_mut()
                    .for_each(|(_, is_fresh)| *is_fresh = false);
                None
            }
            Event::InitDone => {
                self.objects().retain(|_, (_, is_fresh)| *is_fresh);
                self.is_whole.send_replace(true);
                None
            }
        }
    }

    /// Ready when everything was seen once.
    pub(super) async fn whole(&self) {
        // The sender is here, so that waiting cannot fail.
        self.is_whole
            .subscribe()
            .wait_for(|is_whole| *is_whole)
            .await
            .ok();
    }

    /// The object of a canary; `None` while the cluster shows none.
    pub(super) fn get<T>(&self, id: &CanaryId, look: impl FnOnce(&Kept) -> T) -> Option<T> {
        self.objects().get(id).map(|(kept, _)| look(kept))
    }

    /// All canaries that the cluster shows.
    pub(super) fn ids(&self) -> Vec<CanaryId> {
        self.objects().keys().cloned().collect()
    }
}

fn id_of(object: &DynamicObject) -> Option<CanaryId> {
    let metadata = &object.metadata;
    Some(CanaryId::new(
        metadata.namespace.clone()?,
        metadata.name.clone()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str, version: &str) -> DynamicObject {
        let object = json!({
            "metadata": {
                "namespace": "apps", "name": name, "uid": "1", "resourceVersion": version, "generation": 2,
                "labels": {OWNER_LABEL: "shop"},
            },
            "spec": {"service": "web"}, "status": {"phase": "Idle"},
        });
        serde_json::from_value(object).unwrap()
    }

    #[tokio::test]
    async fn it_shows_what_the_watch_told_last() {
        let mirror = Mirror::default();
        let id = CanaryId::new("apps", "web");
        let version = |mirror: &Mirror| mirror.get(&id, |kept| kept.version.clone()).flatten();
        mirror.take(&Event::Init);
        assert_eq!(
            mirror.take(&Event::InitApply(object("web", "7"))),
            Some(id.clone())
        );
        mirror.take(&Event::InitApply(object("gone", "7")));
        assert!(!*mirror.is_whole.borrow());
        mirror.take(&Event::InitDone);
        mirror.whole().await;
        mirror.take(&Event::Apply(object("web", "8")));
        assert_eq!(version(&mirror).as_deref(), Some("8"));
        let status = mirror.get(&id, |kept| kept.status.clone()).flatten();
        assert_eq!(status.as_deref(), Some(r#"{"phase":"Idle"}"#));
        // A new list tells all that is there; until its end what was known holds.
        mirror.take(&Event::Init);
        mirror.take(&Event::InitApply(object("web", "9")));
        assert_eq!(mirror.ids().len(), 2);
        mirror.take(&Event::InitDone);
        assert_eq!(mirror.ids(), std::slice::from_ref(&id));
        mirror.take(&Event::Delete(object("web", "9")));
        assert_eq!(version(&mirror), None);
    }
}
