//! What tests do and look for in a cluster, as somebody with `kubectl` would.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

/// Longest time until Serin and the controllers have done what a test waits for.
const LONGEST_WAIT: Duration = Duration::from_secs(45);
/// Longest time that a reader waits for an API server to come back.
const AWAY: Duration = Duration::from_secs(20);

/// `apiVersion`, kind, namespace (empty: none) and name.
pub(crate) type Key<'a> = (&'a str, &'a str, &'a str, &'a str);

/// The VirtualService of this name.
pub(crate) fn routes<'a>(namespace: &'a str, name: &'a str) -> Key<'a> {
    ("networking.istio.io/v1", "VirtualService", namespace, name)
}

/// The Deployment of this name.
pub(crate) fn deployment<'a>(namespace: &'a str, name: &'a str) -> Key<'a> {
    ("apps/v1", "Deployment", namespace, name)
}

/// What is read from the API server, which may be on its way back.
async fn patiently<T, F>(read: impl Fn() -> F) -> kube::Result<T>
where
    F: Future<Output = kube::Result<T>>,
{
    let began = Instant::now();
    loop {
        match read().await {
            Err(kube::Error::Service(_) | kube::Error::HyperError(_)) if began.elapsed() < AWAY => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            answer => return answer,
        }
    }
}

/// Somebody with `kubectl`.
#[derive(Clone)]
pub(crate) struct Client(pub(crate) kube::Client);

impl Client {
    pub(crate) fn api(&self, (api_version, kind, namespace, _): Key<'_>) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        if namespace.is_empty() {
            Api::all_with(self.0.clone(), &resource)
        } else {
            Api::namespaced_with(self.0.clone(), namespace, &resource)
        }
    }

    /// An object as it is now.
    pub(crate) async fn get(&self, key: Key<'_>) -> Option<Value> {
        let api = self.api(key);
        let found = patiently(|| api.get_opt(key.3)).await;
        let found = found.unwrap_or_else(|error| panic!("{key:?}: {error}"));
        found.map(|object| serde_json::to_value(object).unwrap())
    }

    /// All objects of a kind in a namespace.
    pub(crate) async fn list(&self, api_version: &str, kind: &str, namespace: &str) -> Vec<Value> {
        let api = self.api((api_version, kind, namespace, ""));
        let parameters = ListParams::default();
        let found = patiently(|| api.list(&parameters)).await.unwrap();
        let objects = found.items.into_iter();
        objects
            .map(|object| serde_json::to_value(object).unwrap())
            .collect()
    }

    /// A token of a service account, for an hour.
    pub(crate) async fn token(&self, namespace: &str, account: &str) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let asked = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}});
        let request = axum::http::Request::post(path)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&asked).unwrap())
            .unwrap();
        let answer: Value = self.0.request(request).await.unwrap();
        answer["status"]["token"].as_str().unwrap().to_owned()
    }

    /// A service account that may do what these rules say, in one namespace or (without) everywhere; its token.
    pub(crate) async fn account(
        &self,
        (namespace, account): (&str, &str),
        within: Option<&str>,
        rules: Value,
    ) -> String {
        const RBAC: &str = "rbac.authorization.k8s.io";
        let name = format!("{namespace}-{account}");
        let (kind, binding) = match within {
            Some(_) => ("Role", "RoleBinding"),
            None => ("ClusterRole", "ClusterRoleBinding"),
        };
        let metadata = json!({"name": name, "namespace": within});
        let role = json!({"apiVersion": format!("{RBAC}/v1"), "kind": kind, "metadata": metadata, "rules": rules});
        let bound = json!({
            "apiVersion": format!("{RBAC}/v1"), "kind": binding, "metadata": metadata,
            "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
        });
        let own = ("v1", "ServiceAccount", namespace, account);
        if self.get(own).await.is_none() {
            self.put(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": namespace}}))
                .await;
        }
        self.put(&role).await;
        self.put(&bound).await;
        self.token(namespace, account).await
    }

    /// Makes an object that other tests may have made, too.
    pub(crate) async fn put_once(&self, object: &Value) {
        let made = self.try_put(object).await;
        made.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The same, where it may fail.
    pub(crate) async fn try_put(&self, object: &Value) -> kube::Result<()> {
        let parsed: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let api_version = object["apiVersion"].as_str().unwrap();
        let kind = object["kind"].as_str().unwrap();
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let api = self.api((api_version, kind, namespace, ""));
        match api.create(&PostParams::default(), &parsed).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A definition of a kind that takes any spec, and that the server serves.
    pub(crate) async fn define(&self, group: &str, version: &str, kind: &str, plural: &str) {
        let name = format!("{plural}.{group}");
        let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        self.put_once(&json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": name},
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
                "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": open}}],
            },
        }))
        .await;
        let api_version = format!("{group}/{version}");
        let begun = Instant::now();
        let api = self.api((&api_version, kind, "", ""));
        while let Err(error) = api.list(&ListParams::default()).await {
            assert!(begun.elapsed() < LONGEST_WAIT, "{kind}: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Writes an object as an agent does, under its own name.
    pub(crate) async fn apply(&self, manager: &str, object: &Value) -> Result<Value, kube::Error> {
        let text = |pointer: &str| {
            let found = object.pointer(pointer).and_then(Value::as_str);
            found.unwrap_or_default()
        };
        let key = (
            text("/apiVersion"),
            text("/kind"),
            text("/metadata/namespace"),
            text("/metadata/name"),
        );
        let parameters = PatchParams::apply(manager).force();
        let patch = Patch::Apply(object);
        let written = self.api(key).patch(key.3, &parameters, &patch).await?;
        Ok(serde_json::to_value(written).unwrap())
    }

    /// Makes an object.
    pub(crate) async fn put(&self, object: &Value) {
        let text = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let key = (
            text("/apiVersion"),
            text("/kind"),
            text("/metadata/namespace"),
            text("/metadata/name"),
        );
        let parsed: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let made = self.api(key).create(&PostParams::default(), &parsed).await;
        made.unwrap_or_else(|error| panic!("{key:?}: {error}"));
    }

    /// Edits an object as `kubectl edit` does.
    pub(crate) async fn edit(&self, key: Key<'_>, patch: &Value) {
        let parameters = PatchParams {
            field_manager: Some("kubectl-edit".to_owned()),
            ..PatchParams::default()
        };
        let edited = self
            .api(key)
            .patch(key.3, &parameters, &Patch::Merge(patch))
            .await;
        edited.unwrap_or_else(|error| panic!("{key:?}: {error}"));
    }

    /// Deletes an object.
    pub(crate) async fn delete(&self, key: Key<'_>) {
        let deleted = self
            .api(key)
            .delete(key.3, &DeleteParams::background())
            .await;
        deleted.unwrap_or_else(|error| panic!("{key:?}: {error}"));
    }

    /// The same for a kind that the server may only just have learnt: until it serves it there is none.
    pub(crate) async fn until_known(
        &self,
        key: Key<'_>,
        what: &str,
        is_so: impl Fn(Option<&Value>) -> bool,
    ) -> Value {
        let begun = Instant::now();
        loop {
            let found = self.api(key).get_opt(key.3).await.unwrap_or_default();
            let found = found.map(|object| serde_json::to_value(object).unwrap());
            if is_so(found.as_ref()) {
                return found.unwrap_or(Value::Null);
            }
            if begun.elapsed() > LONGEST_WAIT {
                panic!("{key:?} is never {what}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until an object is as it should be, and answers with it.
    pub(crate) async fn until(
        &self,
        key: Key<'_>,
        what: &str,
        is_so: impl Fn(Option<&Value>) -> bool,
    ) -> Value {
        let begun = Instant::now();
        loop {
            let found = self.get(key).await;
            if is_so(found.as_ref()) {
                return found.unwrap_or(Value::Null);
            }
            if begun.elapsed() > LONGEST_WAIT {
                panic!("{key:?} is never {what}: {found:#?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A namespace's name that no other test has.
    pub(crate) fn namespace(&self, test: &str) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        format!("{test}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Per cent of requests that the canary gets by the last route of a VirtualService.
pub(crate) fn weight(routes: &Value) -> Option<i64> {
    let last = routes["spec"]["http"].as_array()?.last()?.clone();
    let destinations = last["route"].as_array()?;
    let canary = destinations
        .iter()
        .find(|destination| destination["destination"]["subset"] == "canary")?;
    Some(canary["weight"].as_i64().unwrap_or(0))
}

/// Whether some route of a VirtualService sends this user to the canary.
pub(crate) fn sends(routes: &Value, user: &str) -> bool {
    let http = routes["spec"]["http"].as_array();
    http.into_iter().flatten().any(|route| {
        let matches = route["match"].as_array();
        let names_user = matches
            .into_iter()
            .flatten()
            .any(|condition| condition["headers"]["x-user"]["exact"] == user);
        names_user && route["route"][0]["destination"]["subset"] == "canary"
    })
}
