//! Single calls to the API server: write, delete, ask. Each has a deadline, none is repeated here.

use std::future::Future;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::core::ApiResource;
use serde_json::Value;
use tokio::time::timeout;

use super::watch::Resources;
use crate::applier::live::MANAGER;
use crate::applier::ready::words_of_pods;
use crate::applier::{Action, Object, ObjectKey, Outcome};

/// Most pods that are asked why they are not ready: one reason is enough.
const MOST_PODS: u32 = 20;

/// Makes calls.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) client: kube::Client,
    pub(super) deadline: Duration,
    pub(super) resources: Resources,
    pub(super) owner: String,
}

impl Caller {
    /// Does what is to be done and says how it ended.
    #[tracing::instrument(name = "kubernetes.call", level = "debug", skip_all)]
    pub(super) async fn run(&self, action: Action) -> (ObjectKey, Outcome) {
        match action {
            Action::Apply { object, bound_to } => {
                let outcome = self.apply(&object, bound_to.as_deref()).await;
                (object.key.clone(), outcome)
            }
            Action::Delete { key, uid } => {
                let outcome = self.delete(&key, uid).await;
                (key, outcome)
            }
            Action::AskPods { key, selector } => {
                let outcome = self.ask_pods(&key, &selector).await;
                (key, outcome)
            }
        }
    }

    fn api(&self, key: &ObjectKey, api_version: Option<&str>) -> Option<Api<DynamicObject>> {
        let resources = self
            .resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (mut resource, is_namespaced) = resources.get(&key.kind)?.clone();
        drop(resources);
        if let Some(api_version) = api_version {
            let version = api_version
                .rsplit_once('/')
                .map_or(api_version, |(_, version)| version);
            resource.version = version.to_owned();
            resource.api_version = api_version.to_owned();
        }
        Some(match key.namespace.as_ref().filter(|_| is_namespaced) {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        })
    }

    async fn apply(&self, object: &Arc<Object>, bound_to: Option<&str>) -> Outcome {
        let key = &object.key;
        let Some(api) = self.api(key, Some(&object.api_version)) else {
            return unknown(key);
        };
        let manifest = object.to_apply(&self.owner, bound_to);
        let parameters = PatchParams::apply(MANAGER).force().validation_strict();
        let patch = Patch::Apply(&manifest);
        match self.within(api.patch(&key.name, &parameters, &patch)).await {
            Ok(written) => match serde_json::to_value(written) {
                Ok(value) => Outcome::Applied(Box::new(value)),
                Err(error) => failed(error.to_string(), false),
            },
            Err(Fault::Api(status)) if status.code == 409 => self.look_again(&api, key).await,
            Err(fault) => fault.outcome(),
        }
    }

    /// Somebody wrote it in the meantime: as it is now.
    async fn look_again(&self, api: &Api<DynamicObject>, key: &ObjectKey) -> Outcome {
        match self.within(api.get_opt(&key.name)).await {
            Ok(object) => {
                let value = object.and_then(|object| serde_json::to_value(object).ok());
                Outcome::Conflict(value.map(Box::new))
            }
            Err(fault) => fault.outcome(),
        }
    }

    async fn delete(&self, key: &ObjectKey, uid: String) -> Outcome {
        let Some(api) = self.api(key, None) else {
            return unknown(key);
        };
        let parameters = DeleteParams::background().preconditions(Preconditions {
            uid: Some(uid),
            resource_version: None,
        });
        match self.within(api.delete(&key.name, &parameters)).await {
            Ok(_) => Outcome::Deleted,
            Err(Fault::Api(status)) if status.code == 404 => Outcome::Deleted,
            Err(Fault::Api(status)) if status.code == 409 => self.look_again(&api, key).await,
            Err(fault) => fault.outcome(),
        }
    }

    async fn ask_pods(&self, key: &ObjectKey, selector: &[(String, String)]) -> Outcome {
        let Some(namespace) = key.namespace.as_deref().filter(|_| !selector.is_empty()) else {
            return Outcome::Pods(None);
        };
        let resource = ApiResource {
            group: String::new(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            plural: "pods".to_owned(),
        };
        let pods: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &resource);
        let labels: Vec<String> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let parameters = ListParams::default()
            .labels(&labels.join(","))
            .limit(MOST_PODS);
        let found = self.within(pods.list(&parameters)).await;
        let pods = found.map(|list| list.items).unwrap_or_default();
        let pods: Vec<Value> = pods
            .into_iter()
            .filter_map(|pod| serde_json::to_value(pod).ok())
            .collect();
        Outcome::Pods(words_of_pods(pods.iter()))
    }

    async fn within<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, Fault> {
        match timeout(self.deadline, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(kube::Error::Api(status))) => Err(Fault::Api(status)),
            Ok(Err(error)) => Err(Fault::Other(words(&error))),
            Err(_) => {
                let seconds = self.deadline.as_secs_f32();
                Err(Fault::Other(format!(
                    "the cluster did not answer within {seconds} s"
                )))
            }
        }
    }
}

enum Fault {
    Api(Box<kube::core::Status>),
    Other(String),
}

impl Fault {
    fn outcome(self) -> Outcome {
        match self {
            Self::Other(words) => failed(words, true),
            Self::Api(status) => {
                let causes = status.details.iter().flat_map(|details| &details.causes);
                let is_ending = causes
                    .map(|cause| cause.reason.as_str())
                    .any(|reason| reason == "NamespaceTerminating");
                // A field that the schema does not know is a mistake in the manifest, whatever the status says.
                let is_typo = status.message.contains("field not declared in schema");
                let is_passing = matches!(status.code, 404 | 409 | 429 | 500..=599);
                let passing = is_ending || (is_passing && !is_typo);
                failed(status.message, passing)
            }
        }
    }
}

fn failed(words: String, passing: bool) -> Outcome {
    Outcome::Failed { words, passing }
}

fn unknown(key: &ObjectKey) -> Outcome {
    failed(
        format!("the cluster knows no kind {} yet", key.kind.kind),
        true,
    )
}

/// The words of a client's error, with those of what caused it.
pub(super) fn words(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        source = cause.source();
    }
    words
}
