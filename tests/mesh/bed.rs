//! What all stories stand on: control plane, istiod, the client's Envoy, Prometheus, and the pods' backends.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chance;
use crate::envoy::{Envoy, Role};
use crate::pods::Pods;
use crate::rig::{ControlPlane, free_port, programs};

/// Longest time until a program is ready, beside a compiler.
const PATIENCE: Duration = Duration::from_secs(90);
/// Kinds of Istio, besides those that every control plane of the tests has.
const KINDS: [&str; 1] = ["gateways.networking.istio.io"];
/// How long istiod waits for more changes before it tells proxies of the first; 100 ms as shipped.
pub(crate) const DEBOUNCE: &str = "10ms";

/// A control plane with istiod.
pub(crate) struct Ground {
    pub(crate) plane: ControlPlane,
    bin: PathBuf,
    /// Where proxies ask istiod.
    pub(crate) xds: u16,
    ready: u16,
}

impl Ground {
    /// Starts both. Blocks.
    pub(crate) fn prepare() -> Self {
        chance::check();
        let bin = programs(&["plane", "mesh"]);
        let plane = ControlPlane::start();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(furnish(&plane, &bin));
        let ground = Self {
            plane,
            bin,
            xds: free_port(),
            ready: free_port(),
        };
        ground.start_istiod(DEBOUNCE);
        ground
    }

    /// The same from within a runtime: a cluster beside the one that is there.
    pub(crate) async fn another() -> Self {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || sender.send(Self::prepare()));
        receiver.await.unwrap()
    }

    /// Waits until istiod answers.
    pub(crate) async fn ready(&self) {
        until_ready(&self.plane, "istiod", self.ready).await;
    }

    /// Starts istiod, or starts it again with another patience.
    pub(crate) fn start_istiod(&self, debounce: &str) {
        start_istiod(&self.plane, &self.bin, self.xds, self.ready, debounce);
    }
}

/// See the module.
pub(crate) struct Bed {
    pub(crate) ground: Ground,
    /// The Envoy of a client in the mesh.
    pub(crate) client: Envoy,
    /// The backends of all pods.
    pub(crate) pods: Pods,
    /// Base URL of Prometheus.
    pub(crate) prometheus: String,
    prometheus_port: u16,
}

impl Bed {
    /// The rest of it.
    pub(crate) async fn new(ground: Ground) -> Self {
        let kube = ground.plane.client().await;
        let pods = Pods::serve().await;
        pods.follow(kube.0.clone());
        ground.ready().await;
        let client = Envoy::start(&ground.plane, "client", &Role::Sidecar, ground.xds);
        let port = free_port();
        start_prometheus(&ground.plane, port, pods.metrics_port());
        client.ready(&ground.plane).await;
        until_ready(&ground.plane, "prometheus", port).await;
        Self {
            client,
            pods,
            prometheus: format!("http://127.0.0.1:{port}"),
            prometheus_port: port,
            ground,
        }
    }

    /// The control plane.
    pub(crate) fn plane(&self) -> &ControlPlane {
        &self.ground.plane
    }

    /// Waits until a restarted Prometheus answers.
    pub(crate) async fn prometheus_ready(&self) {
        until_ready(self.plane(), "prometheus", self.prometheus_port).await;
    }

    /// The one number that Prometheus answers now; none when there is no such series.
    pub(crate) async fn ask(&self, promql: &str) -> Option<f64> {
        let series = self.series(promql).await;
        assert!(series.len() < 2, "{promql}: {series:?}");
        series.first().map(|(_, value)| *value)
    }

    /// All series that Prometheus answers now, with their labels.
    pub(crate) async fn series(&self, promql: &str) -> Vec<(Value, f64)> {
        let mut url = reqwest::Url::parse(&self.prometheus).unwrap();
        url.set_path("/api/v1/query");
        url.query_pairs_mut().append_pair("query", promql);
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        let found = answer["data"]["result"].as_array();
        let found = found.unwrap_or_else(|| panic!("{promql}: {text}"));
        found
            .iter()
            .map(|one| {
                let value = one["value"][1].as_str().unwrap().parse().unwrap();
                (one["metric"].clone(), value)
            })
            .collect()
    }
}

/// Kinds and namespaces that istiod and Envoy need.
async fn furnish(plane: &ControlPlane, bin: &Path) {
    let client = plane.client().await;
    let all = std::fs::read_to_string(bin.join("istio-crds/crd-all.gen.yaml")).unwrap();
    for name in KINDS {
        let is_it = |text: &&str| text.contains(&format!("\n  name: {name}\n"));
        let text = all.split("\n---\n").find(is_it).unwrap();
        client
            .put(&serde_yaml::from_str::<Value>(text).unwrap())
            .await;
        let key = (
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "",
            name,
        );
        client.until(key, "established", is_established).await;
    }
    for name in ["istio-system", "load"] {
        client
            .put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
            .await;
    }
}

/// Whether the server serves a kind.
pub(crate) fn is_established(definition: Option<&Value>) -> bool {
    let conditions = definition.and_then(|found| found["status"]["conditions"].as_array());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

fn start_istiod(plane: &ControlPlane, bin: &Path, xds: u16, ready: u16, debounce: &str) {
    let mesh = plane.folder().join("mesh.yaml");
    // Vanilla Envoy has none of Istio's own filters, and there are no certificates.
    let settings =
        "enableAutoMtls: false\ndefaultProviders: {}\naccessLogFile: ''\ndefaultConfig: {}\n";
    std::fs::write(&mesh, settings).unwrap();
    let arguments = [
        "discovery".to_owned(),
        format!("--kubeconfig={}", plane.admin().display()),
        format!("--meshConfig={}", mesh.display()),
        format!("--httpAddr=127.0.0.1:{ready}"),
        "--httpsAddr=".to_owned(),
        format!("--grpcAddr=127.0.0.1:{xds}"),
        "--secureGRPCAddr=".to_owned(),
        format!("--monitoringAddr=127.0.0.1:{}", free_port()),
        "--ctrlz_port=0".to_owned(),
    ];
    let environment = [
        ("POD_NAMESPACE", "istio-system"),
        ("PILOT_ENABLE_METADATA_EXCHANGE", "false"),
        ("PILOT_ENABLE_ALPN_FILTER", "false"),
        ("VALIDATION_WEBHOOK_CONFIG_NAME", ""),
        ("INJECTION_WEBHOOK_CONFIG_NAME", ""),
        ("ENABLE_CA_SERVER", "false"),
        ("PILOT_CERT_PROVIDER", "none"),
        ("PILOT_DEBOUNCE_AFTER", debounce),
    ];
    plane.add(
        "istiod",
        &bin.join("pilot-discovery"),
        &arguments,
        &environment,
    );
}

fn start_prometheus(plane: &ControlPlane, port: u16, scraped: u16) {
    let config = plane.folder().join("prometheus.yaml");
    let text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: pods\n  honor_labels: true\n  static_configs: [{{targets: ['127.0.0.1:{scraped}']}}]\n"
    );
    std::fs::write(&config, text).unwrap();
    let data = plane.folder().join("prometheus");
    let arguments = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", data.display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--log.level=error".to_owned(),
    ];
    plane.add("prometheus", Path::new("prometheus"), &arguments, &[]);
}

async fn until_ready(plane: &ControlPlane, name: &str, port: u16) {
    let path = if name == "prometheus" {
        "-/ready"
    } else {
        "ready"
    };
    let began = Instant::now();
    loop {
        let answer = reqwest::get(format!("http://127.0.0.1:{port}/{path}")).await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{name} is not ready:\n{}",
            plane.log(name)
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
