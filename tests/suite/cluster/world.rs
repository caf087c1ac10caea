//! A repository, a control plane, where it is needed a Prometheus, and `serin run` between them.

use std::sync::Arc;
use std::time::Duration;

use crate::git::rig::{Rig, Someone};
use crate::rig::{Client, control_plane};
use crate::support::mesh::{Mesh, Routed};
use crate::support::prometheus::{Prometheus, TrafficSource};
use crate::support::serin::{Serin, Start};

/// Where the manifests of the application are.
pub(crate) const APP: &str = "apps/podinfo/app.yaml";
/// Where its Canary is.
pub(crate) const CANARY: &str = "apps/podinfo/canary.yaml";
/// Where its namespace is.
pub(crate) const NAMESPACE: &str = "apps/podinfo/namespace.yaml";

/// The folder that Serin writes.
pub(crate) const FOLDER: &str = "apps/podinfo/podinfo.serin";

/// A namespace, the application and a Canary without a candidate.
pub(crate) fn idle(namespace: &str) -> Vec<(String, String)> {
    vec![
        (NAMESPACE.to_owned(), namespace_file(namespace)),
        (APP.to_owned(), app(namespace)),
        (CANARY.to_owned(), canary(namespace, "null", "[]", LADDER)),
    ]
}

/// The same with a candidate that nobody but named users reaches until somebody approves.
pub(crate) fn proposed(namespace: &str) -> Vec<(String, String)> {
    let mut files = idle(namespace);
    let ladder = "[{weight: 0, approval: {}}, {weight: 30, hold: 1h}]";
    files[2].1 = canary(
        namespace,
        NEXT,
        "[{header: x-user, exact: [alexis]}]",
        ladder,
    );
    files
}

/// Steps of a second.
pub(crate) const LADDER: &str = "[{weight: 0, hold: 1s}, {weight: 10, hold: 1s}, {weight: 60, hold: 1s}, {weight: 100, hold: 1s}]";

/// The namespace with a label that everything in it depends on.
pub(crate) fn namespace_file(namespace: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, labels: {{istio-injection: enabled}}}}\n"
    )
}

/// The application as a user writes it.
pub(crate) fn app(namespace: &str) -> String {
    format!(
        "\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: podinfo, namespace: {namespace}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: podinfo}}}}
  template:
    metadata: {{labels: {{app: podinfo, track: stable}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: podinfod
        image: ghcr.io/stefanprodan/podinfo:6.8.0
        ports: [{{containerPort: 9898}}]
        resources: {{requests: {{cpu: '0.1', memory: 1024Mi}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: podinfo, namespace: {namespace}}}
spec:
  selector: {{app: podinfo}}
  ports: [{{name: http, port: 9898}}]
"
    )
}

/// The Canary as a user writes it; `candidate` and `users` are YAML.
pub(crate) fn canary(namespace: &str, candidate: &str, users: &str, ladder: &str) -> String {
    format!(
        "\
apiVersion: serin.dev/v1alpha1
kind: Canary
metadata: {{name: podinfo, namespace: {namespace}}}
spec:
  workload: {{deployment: podinfo, label: track}}
  candidate: {candidate}
  route: {{service: podinfo, port: 9898, hosts: [podinfo]}}
  users: {users}
  ladder: {ladder}
  analysis: {{every: 1s, metrics: [{{name: success-rate, min: 95}}]}}
"
    )
}

/// A next version.
pub(crate) const NEXT: &str = "{images: {podinfod: 'ghcr.io/stefanprodan/podinfo:6.9.0'}}";

/// See the module.
pub(crate) struct World {
    pub(crate) namespace: String,
    pub(crate) kube: Client,
    pub(crate) git: Rig,
    /// Where the engine asks how a candidate does.
    pub(crate) prometheus: String,
    start: Start,
    _measured: Option<(Prometheus, Mesh)>,
}

/// Files of a branch, by namespace.
type Files = fn(&str) -> Vec<(String, String)>;

impl World {
    /// A world whose branch holds these files. `conduct` is more of `cluster` in the configuration. Nothing is
    /// measured, so that no candidate ever passes a step with traffic.
    pub(crate) async fn new(test: &str, files: Files, conduct: &str) -> Self {
        let plane = tokio::task::spawn_blocking(control_plane).await.unwrap();
        let kube = plane.client().await;
        let namespace = kube.namespace(test);
        let files = files(&namespace);
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(p, t)| (p.as_str(), t.as_str()))
            .collect();
        let git = Rig::with(&files);
        let prometheus = "http://127.0.0.1:9".to_owned();
        let start = start(&git, &prometheus, conduct);
        Self {
            namespace,
            kube,
            git,
            prometheus,
            start,
            _measured: None,
        }
    }

    /// The same, with a Prometheus and requests that are routed as the branch says. A candidate whose image has
    /// `-broken` in its name fails.
    pub(crate) async fn measured(test: &str, files: Files, conduct: &str) -> Self {
        let mut world = Self::new(test, files, conduct).await;
        let traffic = Arc::new(TrafficSource::start_in(&world.namespace).await);
        let prometheus = Prometheus::start(&traffic).await;
        world.prometheus.clone_from(&prometheus.url);
        world.start = start(&world.git, &prometheus.url, conduct);
        let routed = Routed {
            remote: world.git.remote(),
            home: world.git.home(),
            folder: FOLDER.to_owned(),
            workload: "podinfo".to_owned(),
            failing: ("-broken".to_owned(), 0.5),
        };
        world._measured = Some((prometheus, Mesh::follow(routed, traffic)));
        world
    }

    /// Starts Serin, or starts it again.
    pub(crate) fn serin(&mut self) -> Serin {
        self.start.start()
    }

    /// A configuration for this branch. `cluster` are the fields of `cluster`, `more` is of the repository.
    pub(crate) fn config(&self, cluster: &str, more: &str) -> String {
        config(&self.git, &self.prometheus, cluster, more)
    }

    /// Another `serin run` of this name, with its own copy, log and configuration.
    pub(crate) fn another(&self, name: &str, config: &str) -> Start {
        let path = self.git.path(&format!("{name}.yaml"));
        std::fs::write(&path, config).unwrap();
        Start::with_config(&self.git.path(""), name, &path)
    }

    /// `kubectl`, as somebody who may do everything; what it prints.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> String {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let home = self.git.home();
        let output = tokio::task::spawn_blocking(move || {
            let program = format!("{}/kubectl", crate::rig::kubectl_folder());
            std::process::Command::new(program)
                .arg("--kubeconfig")
                .arg(control_plane().admin())
                .args(&arguments)
                .env("HOME", home)
                .output()
                .unwrap()
        })
        .await
        .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Somebody with a clone.
    pub(crate) fn someone(&self, name: &str) -> Someone {
        self.git.someone(name)
    }

    /// Commits new content of a file.
    pub(crate) fn commit(&self, someone: &Someone, message: &str, path: &str, content: &str) {
        someone.insist(message, &|| someone.write(path, content));
    }

    /// Subjects of the branch, newest first.
    pub(crate) fn subjects(&self) -> Vec<String> {
        let log = self.git.server(&["log", "--format=%s", "main"]);
        log.lines().map(str::to_owned).collect()
    }
}

fn config(git: &Rig, prometheus: &str, cluster: &str, more: &str) -> String {
    format!(
        "\
repositories: [{{url: '{}', branch: main, poll: 1s, pushInterval: 1s{more}}}]
prometheus: {{url: '{prometheus}'}}
cluster: {{{cluster}}}
",
        git.remote().display(),
    )
}

fn start(git: &Rig, prometheus: &str, conduct: &str) -> Start {
    let kubeconfig = control_plane().admin();
    let cluster = format!("kubeconfig: '{}'{conduct}", kubeconfig.display());
    let path = git.path("serin.yaml");
    std::fs::write(&path, config(git, prometheus, &cluster, "")).unwrap();
    Start::with_config(&git.path(""), "serin", &path)
}

/// The fields of `cluster` for a kubeconfig file.
pub(crate) fn by(kubeconfig: &std::path::Path) -> String {
    format!("kubeconfig: '{}'", kubeconfig.display())
}

/// Waits a moment.
pub(crate) async fn moment(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
