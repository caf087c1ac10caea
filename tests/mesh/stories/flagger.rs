//! Flagger on the same rig, with the same application, load and bad release. Measures, and asserts nothing about Flagger.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bed::{Bed, is_established};
use crate::load::{Answer, Load, Target, Visitor};
use crate::pods::{Behaviour, PORT};
use crate::results::record;
use crate::rig::{Client, deployment, free_port, programs};
use crate::site::{NEW, OLD, SERVICE_PORT, Site, moment, namespace_yaml};

/// Requests a second.
const RATE: u32 = 200;
/// How long somebody waits for a deleted namespace.
const GIVEN_UP: Duration = Duration::from_secs(60);
/// Longest rollout.
const LONGEST: Duration = Duration::from_secs(240);

/// What was measured of one engine.
#[derive(Default)]
struct Column {
    name: String,
    /// Share of failures, how long the bad version got requests, and how many failed.
    bad: Vec<(f64, Duration, usize)>,
    /// Requests to the API server in a healthy rollout, how many of them wrote, and how many steps it had.
    requests: (usize, usize, usize),
    /// Failed requests in a healthy rollout.
    healthy: usize,
    /// From the namespace's end to the first answer.
    back: Option<Duration>,
    /// What Git says serves after the bad release.
    head: String,
}

/// All columns of the table.
pub(crate) async fn beside_serin(bed: Arc<Bed>) {
    let mut columns = Vec::new();
    for every in ["1s", "10s"] {
        columns.push(serin(&bed, every).await);
    }
    start_flagger(&bed).await;
    for threshold in [1, 5] {
        columns.push(flagger(&bed, threshold).await);
    }
    let row = |what: &str, cell: &dyn Fn(&Column) -> String| {
        let cells: Vec<String> = columns.iter().map(cell).collect();
        format!("| {what} | {} |\n", cells.join(" | "))
    };
    let mut table = row("", &|column| column.name.clone());
    writeln!(table, "|---{}|", "|---".repeat(columns.len())).unwrap();
    for index in 0..columns[0].bad.len() {
        let (share, _, _) = columns[0].bad[index];
        let what = format!(
            "{:.0} % of the bad version's requests fail: seconds that it got any",
            share * 100.0
        );
        table += &row(&what, &|column| {
            format!("{:.1}", column.bad[index].1.as_secs_f64())
        });
        let what = format!("{:.0} %: requests that failed", share * 100.0);
        table += &row(&what, &|column| column.bad[index].2.to_string());
    }
    table += &row(
        "version that Git's HEAD names after that (6.8.0 serves)",
        &|column| column.head.clone(),
    );
    table += &row(
        "requests to the API server per step of a healthy rollout",
        &|column| {
            let (all, writes, steps) = column.requests;
            let per_step = |count: usize| {
                let count = f64::from(u32::try_from(count).unwrap());
                count / f64::from(u32::try_from(steps).unwrap())
            };
            format!(
                "{:.1}, {:.1} of them writes ({steps} steps)",
                per_step(all),
                per_step(writes)
            )
        },
    );
    table += &row("requests that failed in the healthy rollout", &|column| {
        column.healthy.to_string()
    });
    table += &row(
        "deleted namespace: seconds from its end to the first answer",
        &|column| {
            column.back.map_or_else(
                || format!("not back in {} s", GIVEN_UP.as_secs()),
                |back| format!("{:.1}", back.as_secs_f64()),
            )
        },
    );
    record("flagger", &table);
}

async fn serin(bed: &Arc<Bed>, every: &str) -> Column {
    let mut column = Column {
        name: format!("Serin, `every: {every}`"),
        ..Column::default()
    };
    let mut site = Site::new(bed, "beside").await;
    let _serin = site.serin();
    site.serves().await;
    let someone = site.someone("dana");
    let mut wish = site.wish().ladder("{from: 10, by: 10, to: 50, hold: 10s}");
    wish.analysis = format!("every: {every}, metrics: [{{name: success-rate, min: 99}}]");
    for failing in [1.0, 0.2, 0.05] {
        let tag = format!("8.{:.0}.0", failing * 100.0);
        let behaviour = Behaviour {
            failing,
            ..Behaviour::default()
        };
        bed.pods.behave(&site.namespace, &tag, behaviour);
        let load = Load::start(&site.target(), RATE, vec![Visitor::anybody()]);
        site.commit(
            &someone,
            &format!("Propose {tag}"),
            &wish.clone().candidate(&tag),
        );
        site.weighs(10).await;
        site.without_candidate().await;
        column.bad.push(suffered(failing, &tag, &load.stop().await));
    }
    let manifest = String::from_utf8(site.git.file(crate::site::APP)).unwrap();
    column.head = if manifest.contains(OLD) {
        OLD
    } else {
        "another"
    }
    .to_owned();
    let before = counted(&bed.plane().requests_of("serin"));
    let load = Load::start(&site.target(), RATE, vec![Visitor::anybody()]);
    site.commit(&someone, "Propose 6.9.0", &wish.candidate(NEW));
    let began = Instant::now();
    // Five steps of ten seconds are longer than one wait.
    for per_cent in [10, 20, 30, 40, 50] {
        site.weighs(per_cent).await;
    }
    site.promoted(NEW).await;
    println!(
        "flagger: serin, {every}: promoted after {:.1?}",
        began.elapsed()
    );
    let after = counted(&bed.plane().requests_of("serin"));
    column.requests = (after.0 - before.0, after.1 - before.1, 5);
    column.healthy = load
        .stop()
        .await
        .iter()
        .filter(|answer| answer.failed())
        .count();
    column.back = deleted(&site.kube, &site.namespace, &site.target()).await;
    column
}

/// How long a version got requests, and how many failed.
fn suffered(failing: f64, version: &str, answers: &[Answer]) -> (f64, Duration, usize) {
    let its = answers.iter().filter(|answer| answer.version == version);
    let times: Vec<Instant> = its.map(|answer| answer.sent).collect();
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    let failed = answers.iter().filter(|answer| answer.failed()).count();
    println!(
        "flagger: {version}: {failed} failed in {:.1?}",
        *last - *first
    );
    (failing, *last - *first, failed)
}

/// Deletes a namespace and waits for it to come back.
async fn deleted(kube: &Client, namespace: &str, target: &Target) -> Option<Duration> {
    let key = ("v1", "Namespace", "", namespace);
    let before = kube.get(key).await.unwrap()["metadata"]["uid"].clone();
    kube.delete(key).await;
    let is_gone =
        |found: Option<&Value>| found.is_none_or(|found| found["metadata"]["uid"] != before);
    kube.until(key, "gone", is_gone).await;
    let gone = Instant::now();
    while gone.elapsed() < GIVEN_UP {
        let answer = target.ask(&Visitor::anybody()).await;
        if !answer.failed() {
            return Some(answer.sent.saturating_duration_since(gone));
        }
        moment(20).await;
    }
    None
}

// === Flagger ===

async fn start_flagger(bed: &Arc<Bed>) {
    let bin = tokio::task::spawn_blocking(|| programs(&["flagger", "mesh"]))
        .await
        .unwrap();
    let kube = bed.plane().client().await;
    let text = std::fs::read_to_string(bin.join("flagger-crds/crd.yaml")).unwrap();
    for text in text.split("\n---\n") {
        let definition: Value = serde_yaml::from_str(text).unwrap();
        kube.put(&definition).await;
        let name = definition["metadata"]["name"].as_str().unwrap();
        let key = (
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "",
            name,
        );
        kube.until(key, "established", is_established).await;
    }
    // It writes an older version of Istio's kinds than the tests' control plane has.
    let all = std::fs::read_to_string(bin.join("istio-crds/crd-all.gen.yaml")).unwrap();
    for name in ["virtualservices", "destinationrules"] {
        let name = format!("{name}.networking.istio.io");
        let is_it = |text: &&str| text.contains(&format!("\n  name: {name}\n"));
        let text = all.split("\n---\n").find(is_it).unwrap();
        let definition: Value = serde_yaml::from_str(text).unwrap();
        let key = (
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "",
            name.as_str(),
        );
        let versions = json!({"spec": {"versions": definition["spec"]["versions"]}});
        kube.edit(key, &versions).await;
    }
    let arguments = [
        format!(
            "-kubeconfig={}",
            bed.plane().kubeconfig("flagger").display()
        ),
        format!("-metrics-server={}", bed.prometheus),
        format!("-port={}", free_port()),
        "-mesh-provider=istio".to_owned(),
        "-log-level=info".to_owned(),
    ];
    bed.plane()
        .add("flagger", &bin.join("flagger"), &arguments, &[]);
}

/// One application under Flagger.
struct Flagged {
    bed: Arc<Bed>,
    kube: Client,
    namespace: String,
    target: Target,
}

async fn flagger(bed: &Arc<Bed>, threshold: u32) -> Column {
    let mut column = Column {
        name: format!("Flagger, `threshold: {threshold}`"),
        ..Column::default()
    };
    for failing in [1.0, 0.2, 0.05] {
        let app = Flagged::new(bed, threshold).await;
        let behaviour = Behaviour {
            failing,
            ..Behaviour::default()
        };
        bed.pods.behave(&app.namespace, NEW, behaviour);
        let load = Load::start(&app.target, RATE, vec![Visitor::anybody()]);
        moment(2000).await;
        app.release().await;
        app.phase("Failed").await;
        moment(2000).await;
        column.bad.push(suffered(failing, NEW, &load.stop().await));
        app.ends().await;
        // The manifest is where the release was made.
        column.head = NEW.to_owned();
    }
    let app = Flagged::new(bed, threshold).await;
    let load = Load::start(&app.target, RATE, vec![Visitor::anybody()]);
    moment(2000).await;
    let before = counted(&bed.plane().requests_of("flagger"));
    let began = Instant::now();
    app.release().await;
    app.phase("Succeeded").await;
    println!(
        "flagger: threshold {threshold}: succeeded after {:.1?}",
        began.elapsed()
    );
    let after = counted(&bed.plane().requests_of("flagger"));
    column.requests = (after.0 - before.0, after.1 - before.1, 5);
    column.healthy = load
        .stop()
        .await
        .iter()
        .filter(|answer| answer.failed())
        .count();
    column.back = deleted(&app.kube, &app.namespace, &app.target).await;
    column
}

impl Flagged {
    /// Deploys it as Flagger's documentation says, and waits until it serves.
    async fn new(bed: &Arc<Bed>, threshold: u32) -> Self {
        let kube = bed.plane().client().await;
        let namespace = kube.namespace("flagged");
        let app = Self {
            bed: Arc::clone(bed),
            target: Target::new(SERVICE_PORT, &format!("podinfo.{namespace}")),
            kube,
            namespace,
        };
        let namespace = app.namespace.as_str();
        let labels = json!({"app": "podinfo"});
        let metadata = json!({"name": "podinfo", "namespace": namespace});
        app.kube
            .put(&serde_yaml::from_str(&namespace_yaml(namespace)).unwrap())
            .await;
        app.kube
            .put(&json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
                "spec": {
                    "replicas": 2,
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {
                            "terminationGracePeriodSeconds": 1,
                            "containers": [{
                                "name": "podinfod",
                                "image": format!("ghcr.io/stefanprodan/podinfo:{OLD}"),
                                "ports": [{"containerPort": PORT}],
                            }],
                        },
                    },
                },
            }))
            .await;
        app.kube
            .put(&json!({
                "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": metadata,
                "spec": {
                    "provider": "istio",
                    "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
                    "service": {"port": SERVICE_PORT, "targetPort": PORT, "portName": "http"},
                    "analysis": {
                        "interval": "10s", "threshold": threshold, "maxWeight": 50, "stepWeight": 10,
                        "metrics": [{"name": "request-success-rate", "interval": "10s", "thresholdRange": {"min": 99}}],
                    },
                },
            }))
            .await;
        app.phase("Initialized").await;
        let began = Instant::now();
        while app.target.ask(&Visitor::anybody()).await.failed() {
            assert!(began.elapsed() < GIVEN_UP, "{}", bed.plane().log("flagger"));
            moment(50).await;
        }
        app
    }

    /// Removes it: a failed canary asks the API server for ever.
    async fn ends(&self) {
        let key = (
            "flagger.app/v1beta1",
            "Canary",
            self.namespace.as_str(),
            "podinfo",
        );
        self.kube.delete(key).await;
        self.kube.until(key, "gone", |found| found.is_none()).await;
        self.kube
            .delete(("v1", "Namespace", "", &self.namespace))
            .await;
    }

    /// What applying the manifest with the next image does.
    async fn release(&self) {
        let image = format!("ghcr.io/stefanprodan/podinfo:{NEW}");
        let containers =
            json!([{"name": "podinfod", "image": image, "ports": [{"containerPort": PORT}]}]);
        let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        self.kube
            .edit(deployment(&self.namespace, "podinfo"), &patch)
            .await;
    }

    /// Waits until its Canary is in a phase.
    async fn phase(&self, phase: &str) {
        let key = (
            "flagger.app/v1beta1",
            "Canary",
            self.namespace.as_str(),
            "podinfo",
        );
        let began = Instant::now();
        loop {
            let found = self.kube.get(key).await.unwrap();
            if found["status"]["phase"] == phase {
                return;
            }
            assert!(
                began.elapsed() < LONGEST,
                "never {phase}: {:#}\n{}",
                found["status"],
                self.bed.plane().log("flagger")
            );
            moment(50).await;
        }
    }
}

/// All requests, and those that write.
fn counted(requests: &std::collections::BTreeMap<String, usize>) -> (usize, usize) {
    let reads = |what: &str| {
        let verb = what.split(' ').next().unwrap_or_default();
        matches!(verb, "get" | "list" | "watch")
    };
    let writes = requests.iter().filter(|(what, _)| !reads(what));
    (requests.values().sum(), writes.map(|(_, n)| n).sum())
}
