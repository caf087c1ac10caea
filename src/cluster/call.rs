//! Single calls to the API server: write, delete, ask. Each has a deadline, none is repeated here.

use std::future::Future;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::core::{ApiResource, TypeMeta};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::watch::Resources;
use crate::applier::live::MANAGER;
use crate::applier::ready::words_of_pods;
use crate::applier::slices::{OF_SERVICE, lacking};
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
            Action::Strip {
                object,
                fields,
                bound_to,
            } => {
                let outcome = self.strip(&object, &fields, &bound_to).await;
                (object.key.clone(), outcome)
            }
            Action::Look { object } => {
                let key = object.key.clone();
                let outcome = match self.api(&key, Some(&object.api_version)) {
                    None => unknown(&key),
                    Some(api) => match self.look(&api, &key).await {
                        Ok(found) => Outcome::Looked(found.map(Box::new)),
                        Err(fault) => fault.outcome(),
                    },
                };
                (key, outcome)
            }
            Action::Delete {
                key,
                uid,
                with_pods,
            } => {
                let outcome = self.delete(&key, uid, with_pods).await;
                (key, outcome)
            }
            Action::AskPods { key, selector } => {
                let outcome = self.ask_pods(&key, &selector).await;
                (key, outcome)
            }
            Action::AskEndpoints {
                key,
                incarnation,
                selector,
                replicas,
                service,
            } => {
                let lacks = self.ask_endpoints(&key, &selector, replicas, &service);
                let lacks = lacks.await.map(String::into_boxed_str);
                (key, Outcome::Endpoints(incarnation, lacks))
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

    /// Takes away fields that others added: an apply leaves alone what it does not name.
    async fn strip(&self, object: &Object, fields: &[Vec<String>], bound_to: &str) -> Outcome {
        let key = &object.key;
        let Some(api) = self.api(key, Some(&object.api_version)) else {
            return unknown(key);
        };
        let patch = without(fields, bound_to);
        let parameters = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(&patch);
        match self.within(api.patch(&key.name, &parameters, &patch)).await {
            Ok(written) => match serde_json::to_value(written) {
                Ok(value) => Outcome::Stripped(Box::new(value)),
                Err(error) => failed(error.to_string(), false),
            },
            Err(Fault::Api(status)) if status.code == 409 => self.look_again(&api, key).await,
            Err(fault) => fault.outcome(),
        }
    }

    /// Somebody wrote it in the meantime: as it is now.
    async fn look_again(&self, api: &Api<DynamicObject>, key: &ObjectKey) -> Outcome {
        match self.look(api, key).await {
            Ok(found) => Outcome::Conflict(found.map(Box::new)),
            Err(fault) => fault.outcome(),
        }
    }

    /// An object as it is now, asked for as a list of one: a right that watching needs as well.
    async fn look(
        &self,
        api: &Api<DynamicObject>,
        key: &ObjectKey,
    ) -> Result<Option<Value>, Fault> {
        let one = ListParams::default().fields(&format!("metadata.name={}", key.name));
        let list = self.within(api.list(&one)).await?;
        let api_version = list.types.api_version;
        let object = list.items.into_iter().next();
        Ok(object.and_then(|mut object| {
            object.types = Some(TypeMeta {
                api_version,
                kind: key.kind.kind.to_string(),
            });
            serde_json::to_value(object).ok()
        }))
    }

    async fn delete(&self, key: &ObjectKey, uid: Box<str>, with_pods: bool) -> Outcome {
        let Some(api) = self.api(key, None) else {
            return unknown(key);
        };
        let how = if with_pods {
            DeleteParams::foreground()
        } else {
            DeleteParams::background()
        };
        let parameters = how.preconditions(Preconditions {
            uid: Some(uid.into()),
            resource_version: None,
        });
        match self.within(api.delete(&key.name, &parameters)).await {
            Ok(deleted) => match deleted.left().map(serde_json::to_value) {
                Some(Ok(object)) if object["metadata"]["deletionTimestamp"].is_string() => {
                    Outcome::Deleting(Box::new(object))
                }
                _ => Outcome::Deleted,
            },
            Err(Fault::Api(status)) if status.code == 404 => Outcome::Deleted,
            Err(Fault::Api(status)) if status.code == 409 => self.look_again(&api, key).await,
            Err(fault) => fault.outcome(),
        }
    }

    async fn ask_pods(&self, key: &ObjectKey, selector: &str) -> Outcome {
        let Some(namespace) = key.namespace.as_deref().filter(|_| !selector.is_empty()) else {
            return Outcome::Pods(None);
        };
        let pods = self.kind(namespace, "v1", "Pod", "pods");
        let parameters = ListParams::default().labels(selector).limit(MOST_PODS);
        let found = self.within(pods.list(&parameters)).await;
        let pods = found.map(|list| list.items).unwrap_or_default();
        Outcome::Pods(words_of_pods(values(pods).iter()))
    }

    /// What the endpoints of a Service lack of a Deployment's pods, or why that cannot be known.
    async fn ask_endpoints(
        &self,
        key: &ObjectKey,
        selector: &str,
        replicas: u32,
        service: &str,
    ) -> Option<String> {
        let namespace = key.namespace.as_deref().unwrap_or_default();
        let pods = self.kind(namespace, "v1", "Pod", "pods");
        let of_deployment = ListParams::default().labels(selector);
        let slices = self.kind(
            namespace,
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "endpointslices",
        );
        let of_service = ListParams::default().labels(&format!("{OF_SERVICE}={service}"));
        let slices = match self.within(slices.list(&of_service)).await {
            Ok(found) => values(found.items),
            Err(fault) => return Some(fault.of("EndpointSlices", namespace)),
        };
        let pods = match self.within(pods.list_metadata(&of_deployment)).await {
            Ok(found) => values(found.items),
            Err(fault) => return Some(fault.of("Pods", namespace)),
        };
        lacking(&key.name, replicas, service, &pods, &slices)
    }

    fn kind(
        &self,
        namespace: &str,
        api_version: &str,
        kind: &str,
        plural: &str,
    ) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        Api::namespaced_with(self.client.clone(), namespace, &resource)
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
    /// In words, of a list that could not be had.
    fn of(self, plural: &str, namespace: &str) -> String {
        let words = match self {
            Self::Api(status) => status.message,
            Self::Other(words) => words,
        };
        format!("{plural} in namespace {namespace} cannot be listed: {words}")
    }

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
                // Credentials that were just rotated are refused for a moment.
                let is_passing = matches!(status.code, 401 | 404 | 409 | 429 | 500..=599);
                let passing = is_ending || (is_passing && !is_typo);
                let asked = status
                    .details
                    .as_ref()
                    .map(|details| details.retry_after_seconds);
                Outcome::Failed {
                    words: status.message,
                    passing,
                    not_before: asked.filter(|seconds| *seconds > 0),
                }
            }
        }
    }
}

fn values<T: serde::Serialize>(items: Vec<T>) -> Vec<Value> {
    let values = items.into_iter().map(serde_json::to_value);
    values.filter_map(Result::ok).collect()
}

fn failed(words: String, passing: bool) -> Outcome {
    Outcome::Failed {
        words,
        passing,
        not_before: None,
    }
}

/// A merge patch that takes fields away.
fn without(fields: &[Vec<String>], bound_to: &str) -> Value {
    let mut patch = json!({"metadata": {"resourceVersion": bound_to}});
    for path in fields {
        let mut place = &mut patch;
        for name in path {
            if !place[name.as_str()].is_object() {
                place[name.as_str()] = json!({});
            }
            place = &mut place[name.as_str()];
        }
        *place = Value::Null;
    }
    patch
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_away_one_by_one() {
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        let fields = [path("spec.gateways"), path("spec.trafficPolicy.tls")];
        assert_eq!(
            without(&fields, "7"),
            json!({"metadata": {"resourceVersion": "7"}, "spec": {"gateways": null, "trafficPolicy": {"tls": null}}})
        );
    }
}
