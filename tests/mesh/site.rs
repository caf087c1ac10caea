//! What one story has for itself: a namespace, a repository with an application in it, and `serin run`.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use serde_json::Value;

use crate::bed::Bed;
use crate::git::rig::{Rig, Someone};
use crate::load::Target;
use crate::pods::{PORT, TCP_PORT};
use crate::rig::{Client, ControlPlane, deployment, routes, weight};
use crate::support::serin::{Serin, Start};

/// Port of every Service with HTTP, and so of the client's Envoy.
pub(crate) const SERVICE_PORT: u16 = 9898;
/// Where the application's manifests are.
pub(crate) const APP: &str = "apps/podinfo/app.yaml";
/// Where its Canary is.
pub(crate) const CANARY: &str = "apps/podinfo/canary.yaml";
/// Where its namespace is.
pub(crate) const NAMESPACE: &str = "apps/podinfo/namespace.yaml";
/// The folder that Serin writes.
pub(crate) const FOLDER: &str = "apps/podinfo/podinfo.serin";
/// What serves at first.
pub(crate) const OLD: &str = "6.8.0";
/// What is proposed.
pub(crate) const NEW: &str = "6.9.0";

/// How far every weight goes in the story that everybody knows. Long enough for an honest share at each.
pub(crate) const LADDER: &str = "[{weight: 0, hold: 1s}, {weight: 10, hold: 3s}, {weight: 60, hold: 2s}, {weight: 100, hold: 2s}]";

/// A Canary as somebody writes it; all but the namespace is YAML.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) candidate: String,
    pub(crate) users: String,
    pub(crate) ladder: String,
    /// Fields of `analysis`.
    pub(crate) analysis: String,
    /// Fields of `route` besides Service and port.
    pub(crate) route: String,
    /// Lines of `spec`.
    pub(crate) more: String,
}

impl Wish {
    /// Nothing is proposed.
    pub(crate) fn idle(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: "podinfo".to_owned(),
            candidate: "null".to_owned(),
            users: "[]".to_owned(),
            ladder: LADDER.to_owned(),
            analysis: "every: 1s, metrics: [{name: success-rate, min: 98}]".to_owned(),
            route: "hosts: [podinfo]".to_owned(),
            more: String::new(),
        }
    }

    /// A version is.
    pub(crate) fn candidate(mut self, version: &str) -> Self {
        self.candidate =
            format!("{{images: {{podinfod: 'ghcr.io/stefanprodan/podinfo:{version}'}}}}");
        self
    }

    /// For these users it is there at every weight.
    pub(crate) fn users(mut self, users: &str) -> Self {
        users.clone_into(&mut self.users);
        self
    }

    /// These are the steps.
    pub(crate) fn ladder(mut self, ladder: &str) -> Self {
        ladder.clone_into(&mut self.ladder);
        self
    }

    /// What more the route says.
    pub(crate) fn route(mut self, route: &str) -> Self {
        route.clone_into(&mut self.route);
        self
    }

    /// Nobody but named users gets it before somebody approves.
    pub(crate) fn gated(self) -> Self {
        self.ladder("[{weight: 0, approval: {}}, {weight: 30, hold: 1h}]")
    }

    /// The file.
    pub(crate) fn yaml(&self) -> String {
        let Self {
            namespace,
            name,
            candidate,
            users,
            ladder,
            analysis,
            route,
            more,
        } = self;
        format!(
            "\
apiVersion: serin.dev/v1alpha1
kind: Canary
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  workload: {{deployment: {name}, label: track}}
  candidate: {candidate}
  route: {{service: {name}, port: {SERVICE_PORT}, {route}}}
  users: {users}
  ladder: {ladder}
  analysis: {{{analysis}}}
{more}"
        )
    }
}

/// The namespace as somebody writes it.
pub(crate) fn namespace_yaml(namespace: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, labels: {{istio-injection: enabled}}}}\n"
    )
}

/// The application as somebody writes it.
pub(crate) fn app_yaml(namespace: &str, name: &str) -> String {
    format!(
        "\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}, track: stable}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: podinfod
        image: ghcr.io/stefanprodan/podinfo:{OLD} # moved by promotion, and by nothing else
        ports: [{{containerPort: {PORT}}}, {{containerPort: {TCP_PORT}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: {SERVICE_PORT}, targetPort: {PORT}}}]
"
    )
}

/// How `serin run` is told to behave.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    /// More of `cluster` in its configuration.
    pub(crate) cluster: String,
    /// More of the repository in its configuration.
    pub(crate) repository: String,
    /// Where the repository is reached, instead of its folder.
    pub(crate) url: Option<String>,
    /// More lines.
    pub(crate) more: String,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            cluster: String::new(),
            repository: ", poll: 500ms, pushInterval: 100ms".to_owned(),
            url: None,
            more: String::new(),
        }
    }
}

/// A VirtualService as a watch showed it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    /// None when it was deleted.
    pub(crate) object: Option<Value>,
}

impl Seen {
    /// Its weight.
    pub(crate) fn weight(&self) -> Option<i64> {
        self.object.as_ref().and_then(weight)
    }
}

/// See the module.
pub(crate) struct Site {
    pub(crate) bed: Arc<Bed>,
    pub(crate) namespace: String,
    pub(crate) kube: Client,
    pub(crate) git: Rig,
    seen: Arc<Mutex<Vec<Seen>>>,
    start: Start,
}

impl Site {
    /// A repository with an application that nobody proposes anything for.
    pub(crate) async fn new(bed: &Arc<Bed>, name: &str) -> Self {
        Self::with(bed, name, Manner::default(), &|_| Vec::new()).await
    }

    /// The same with another manner and more files, which may be others of the same path.
    pub(crate) async fn with(
        bed: &Arc<Bed>,
        name: &str,
        manner: Manner,
        more: &(dyn Fn(&str) -> Vec<(String, String)> + Sync),
    ) -> Self {
        let kube = bed.plane().client().await;
        let namespace = kube.namespace(name);
        let mut files = vec![
            (NAMESPACE.to_owned(), namespace_yaml(&namespace)),
            (APP.to_owned(), app_yaml(&namespace, "podinfo")),
            (CANARY.to_owned(), Wish::idle(&namespace).yaml()),
        ];
        for (path, text) in more(&namespace) {
            files.retain(|(known, _)| *known != path);
            files.push((path, text));
        }
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect();
        let git = Rig::with(&files);
        let start = start_of(bed, bed.plane(), &git, "serin", &manner);
        let seen = watch_routes(kube.0.clone(), &namespace, "podinfo");
        Self {
            bed: Arc::clone(bed),
            namespace,
            kube,
            git,
            seen,
            start,
        }
    }

    /// Starts Serin, or starts it again.
    pub(crate) fn serin(&mut self) -> Serin {
        self.start.start()
    }

    /// From now on Serin behaves so when it is started.
    pub(crate) fn behave(&mut self, manner: &Manner) {
        self.start = start_of(&self.bed, self.bed.plane(), &self.git, "serin", manner);
    }

    /// Where requests for the application go.
    pub(crate) fn target(&self) -> Target {
        Target::new(SERVICE_PORT, &format!("podinfo.{}", self.namespace))
    }

    /// What somebody wishes for here.
    pub(crate) fn wish(&self) -> Wish {
        Wish::idle(&self.namespace)
    }

    /// Somebody with a clone.
    pub(crate) fn someone(&self, name: &str) -> Someone {
        self.git.someone(name)
    }

    /// Commits a Canary, and says when the push was accepted.
    pub(crate) fn commit(&self, someone: &Someone, message: &str, wish: &Wish) -> Instant {
        someone.insist(message, &|| someone.write(CANARY, wish.yaml()));
        Instant::now()
    }

    /// Waits until stable serves and the routes are there and known to Envoy.
    pub(crate) async fn serves(&self) {
        let runs = |found: Option<&Value>| {
            found.is_some_and(|found| found["status"]["availableReplicas"] == 2)
        };
        self.kube
            .until(deployment(&self.namespace, "podinfo"), "running", runs)
            .await;
        let there = |found: Option<&Value>| found.is_some();
        self.kube
            .until(routes(&self.namespace, "podinfo"), "there", there)
            .await;
        let target = self.target();
        let began = Instant::now();
        let mut well = 0;
        while well < 5 {
            let answer = target.ask(&crate::load::Visitor::anybody()).await;
            well = if answer.failed() { 0 } else { well + 1 };
            assert!(began.elapsed() < Duration::from_secs(30), "{answer:?}");
            moment(20).await;
        }
    }

    /// Waits until a candidate is proposed and so many of its pods run.
    pub(crate) async fn has_candidate(&self, pods: i64) {
        let key = deployment(&self.namespace, "podinfo-canary");
        let runs = |found: Option<&Value>| {
            found.is_some_and(|found| found["status"]["availableReplicas"].as_i64() >= Some(pods))
        };
        self.kube.until(key, "running", runs).await;
    }

    /// Waits until the routes have a weight in the cluster.
    pub(crate) async fn weighs(&self, per_cent: i64) -> Value {
        let is_so = |found: Option<&Value>| found.is_some_and(|vs| weight(vs) == Some(per_cent));
        let key = routes(&self.namespace, "podinfo");
        self.kube
            .until(key, &format!("at {per_cent} %"), is_so)
            .await
    }

    /// Waits until the candidate is stable and its own Deployment is gone.
    pub(crate) async fn promoted(&self, version: &str) {
        let is_promoted =
            |found: Option<&Value>| found.is_some_and(|found| image(found).ends_with(version));
        let key = deployment(&self.namespace, "podinfo");
        self.kube.until(key, "promoted", is_promoted).await;
        self.without_candidate().await;
    }

    /// Waits until the candidate's Deployment is gone.
    pub(crate) async fn without_candidate(&self) {
        let key = deployment(&self.namespace, "podinfo-canary");
        self.kube.until(key, "gone", |found| found.is_none()).await;
    }

    /// All that the watch showed of the routes, oldest first.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let seen = self.seen.lock();
        seen.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the watch first showed a weight after a moment.
    pub(crate) fn when(&self, per_cent: i64, after: Instant) -> Option<Instant> {
        let seen = self.seen();
        let found = seen
            .iter()
            .find(|seen| seen.at >= after && seen.weight() == Some(per_cent));
        found.map(|seen| seen.at)
    }

    /// Subjects of the branch, oldest first.
    pub(crate) fn subjects(&self) -> Vec<String> {
        let log = self
            .git
            .server(&["log", "--reverse", "--format=%s", "main"]);
        log.lines().map(str::to_owned).collect()
    }

    /// What Serin committed: the part of the subject behind the canary's name, oldest first.
    pub(crate) fn steps(&self) -> Vec<String> {
        let prefix = format!("canary({}/podinfo): ", self.namespace);
        let subjects = self.subjects();
        let ours = subjects.iter().filter_map(|s| s.strip_prefix(&prefix));
        ours.map(str::to_owned).collect()
    }

    /// The newest commit with this in its subject, whole.
    pub(crate) fn told(&self, words: &str) -> String {
        let search = format!("--grep={words}");
        self.git.server(&[
            "log",
            "-1",
            "--format=%B",
            "--fixed-strings",
            &search,
            "main",
        ])
    }
}

/// `serin run` for a repository, on a control plane.
pub(crate) fn start_of(
    bed: &Bed,
    plane: &ControlPlane,
    git: &Rig,
    name: &str,
    manner: &Manner,
) -> Start {
    let folder = git.remote();
    let url = manner.url.clone();
    let url = url.unwrap_or_else(|| folder.display().to_string());
    let text = format!(
        "\
repositories: [{{url: '{url}', branch: main{}}}]
prometheus: {{url: '{}'}}
cluster: {{kubeconfig: '{}'{}}}
{}",
        manner.repository,
        bed.prometheus,
        plane.kubeconfig("serin").display(),
        manner.cluster,
        manner.more,
    );
    let path = git.path(&format!("{name}.yaml"));
    std::fs::write(&path, text).unwrap();
    let start = Start::with_config(&git.path(""), name, &path);
    start.env("PATH", search_path())
}

/// Where `kubectl` and Git are.
fn search_path() -> String {
    let own = crate::rig::kubectl_folder();
    let own = Path::new(&own).display().to_string();
    format!("{own}:/usr/local/bin:/usr/bin:/bin")
}

/// Follows a VirtualService from now on.
fn watch_routes(client: kube::Client, namespace: &str, name: &str) -> Arc<Mutex<Vec<Seen>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&seen);
    let kind = GroupVersionKind::gvk("networking.istio.io", "v1", "VirtualService");
    let api: Api<DynamicObject> =
        Api::namespaced_with(client, namespace, &ApiResource::from_gvk(&kind));
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    tokio::spawn(async move {
        let events = watcher::watcher(api, only).default_backoff();
        let mut events = std::pin::pin!(events);
        loop {
            let object = match events.try_next().await {
                Ok(Some(Event::Apply(object) | Event::InitApply(object))) => Some(object),
                Ok(Some(Event::Delete(_))) => None,
                Ok(Some(Event::Init | Event::InitDone)) | Err(_) => continue,
                Ok(None) => return,
            };
            let one = Seen {
                at: Instant::now(),
                object: object.map(|object| serde_json::to_value(object).unwrap()),
            };
            let written = written.lock();
            written.unwrap_or_else(PoisonError::into_inner).push(one);
        }
    });
    seen
}

/// The first container's image.
pub(crate) fn image(deployment: &Value) -> &str {
    deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        .as_str()
        .unwrap_or_default()
}

/// Waits a moment.
pub(crate) async fn moment(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
