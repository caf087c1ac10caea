//! Events of Kubernetes: one per text. The same text about the same object counts up the one that is there.
//!
//! A client library's recorder tells events apart by reason alone, so that the second step of a rollout would count as
//! the first one again, with its text.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::domain::Timestamp;
use crate::ports::{Note, Severity};

/// For how long an event is the same one as before, in seconds: as kubectl and client-go have it.
const SAME_FOR: i64 = 360;
/// Most events that are remembered; of older ones a new one is made.
const MOST: usize = 4_096;

/// Publishes events.
pub(super) struct Events {
    client: kube::Client,
    me: String,
    deadline: Duration,
    said: Mutex<BTreeMap<Key, Said>>,
}

/// Object (kind, namespace, name and uid), reason and text.
type Key = ([String; 4], &'static str, String);

struct Said {
    /// Name of the event.
    name: String,
    count: i32,
    at: Timestamp,
}

impl Events {
    /// `me` is this replica, as events name it.
    pub(super) fn new(client: kube::Client, me: &str, deadline: Duration) -> Self {
        Self {
            client,
            // As long as the API takes it.
            me: me.chars().take(128).collect(),
            deadline,
            said: Mutex::default(),
        }
    }

    /// Shows a note on an object; the error is for people.
    pub(super) async fn publish(
        &self,
        note: &Note,
        about: &ObjectReference,
        now: Timestamp,
    ) -> Result<(), String> {
        let namespace = about.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let object = [
            text(&about.kind),
            namespace.to_owned(),
            text(&about.name),
            text(&about.uid),
        ];
        let key = (object, note.reason, note.text.clone());
        let mut said = self.said.lock().await;
        said.retain(|_, said| now - said.at < chrono::TimeDelta::seconds(SAME_FOR));
        if let Some(before) = said.get_mut(&key) {
            let count = before.count + 1;
            let series = json!({"series": {"count": count, "lastObservedTime": micro(now)}});
            let parameters = PatchParams::default();
            let patch = Patch::Merge(&series);
            let call = api.patch(&before.name, &parameters, &patch);
            match self.within(call).await {
                Ok(_) => {
                    before.count = count;
                    before.at = now;
                    return Ok(());
                }
                // It is no longer kept: a new one takes its place.
                Err(Fault::Gone) => {}
                Err(Fault::Words(words)) => return Err(words),
            }
        }
        let event = self.event(note, about, namespace, now);
        let parameters = PostParams::default();
        let created = self.within(api.create(&parameters, &event)).await;
        let created = created.map_err(|fault| match fault {
            Fault::Gone => format!("there is no namespace {namespace}"),
            Fault::Words(words) => words,
        })?;
        if said.len() < MOST {
            let name = created.metadata.name.unwrap_or_default();
            let first = Said {
                name,
                count: 1,
                at: now,
            };
            said.insert(key, first);
        }
        Ok(())
    }

    fn event(
        &self,
        note: &Note,
        about: &ObjectReference,
        namespace: &str,
        now: Timestamp,
    ) -> Event {
        let name = about.name.as_deref().unwrap_or("serin");
        Event {
            metadata: ObjectMeta {
                namespace: Some(namespace.to_owned()),
                generate_name: Some(format!("{name}-")),
                ..ObjectMeta::default()
            },
            event_time: micro(now),
            reporting_controller: Some("serin.dev/serin".to_owned()),
            reporting_instance: Some(self.me.clone()),
            action: Some(note.action.to_owned()),
            reason: Some(note.reason.to_owned()),
            regarding: Some(about.clone()),
            note: Some(note.text.clone()),
            type_: Some(match note.severity {
                Severity::Normal => "Normal".to_owned(),
                Severity::Warning => "Warning".to_owned(),
            }),
            ..Event::default()
        }
    }

    async fn within<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, Fault> {
        match timeout(self.deadline, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Fault::Gone),
            Ok(Err(error)) => Err(Fault::Words(super::call::words(&error))),
            Err(_) => Err(Fault::Words(
                "the cluster did not answer in time".to_owned(),
            )),
        }
    }
}

enum Fault {
    Gone,
    Words(String),
}

fn micro(at: Timestamp) -> Option<MicroTime> {
    let time = jiff::Timestamp::from_microsecond(at.timestamp_micros());
    time.ok().map(MicroTime)
}
