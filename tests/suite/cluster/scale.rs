//! Many canaries on one engine: what it asks of the API server while nothing happens, and when all of them step at once.
//! Requests are counted by the server's audit log. Times and memory are printed, never asserted:
//! `SCALE_CANARIES=1000 cargo test --test suite -- --nocapture cluster::scale`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use futures_util::{StreamExt as _, TryStreamExt as _};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;

use crate::git::rig::Rig;
use crate::rig::{ControlPlane, control_plane, free_port, weight};
use crate::support::serin::{Serin, Start};

/// Canaries in one namespace.
const IN_A_NAMESPACE: usize = 50;
/// The user whose requests are counted.
const USER: &str = "serin";
/// Longest wait for one canary; for all of them it grows with their number.
const PATIENCE: Duration = Duration::from_secs(60);

fn number() -> usize {
    let asked = std::env::var("SCALE_CANARIES").ok();
    asked.map_or(12, |text| text.parse().unwrap())
}

fn file(namespace: &str, index: usize, candidate: &str) -> String {
    let deployment = |version: &str| {
        format!(
            "\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: app-{index}-{version}, namespace: {namespace}}}
spec:
  replicas: 0
  selector: {{matchLabels: {{app: app-{index}, version: {version}}}}}
  template:
    metadata: {{labels: {{app: app-{index}, version: {version}}}}}
    spec: {{containers: [{{name: app, image: 'registry.example.com/app:{version}'}}]}}
---
"
        )
    };
    format!(
        "\
{}{}apiVersion: v1
kind: Service
metadata: {{name: app-{index}, namespace: {namespace}}}
spec: {{clusterIP: None, selector: {{app: app-{index}}}, ports: [{{name: http, port: 8080}}]}}
---
apiVersion: serin.dev/v1alpha1
kind: Canary
metadata: {{name: app-{index}, namespace: {namespace}}}
spec:
  versions: {{stable: {{version: v1}}, candidate: {{version: {candidate}}}}}
  route: {{service: app-{index}, port: 8080, hosts: [app-{index}]}}
  ladder: [{{weight: 0, hold: 10s}}, {{weight: 10, hold: 1h}}]
  analysis: {{every: 10s, metrics: [{{name: success-rate, min: 95}}]}}
",
        deployment("v1"),
        deployment("v2")
    )
}

fn files(prefix: &str, number: usize, candidate: &str) -> Vec<(String, String)> {
    let namespace = |index: usize| format!("{prefix}-{}", index / IN_A_NAMESPACE);
    let canaries = (0..number).map(|index| {
        let name = namespace(index);
        (
            format!("{name}/app-{index}.yaml"),
            file(&name, index, candidate),
        )
    });
    let last = number.div_ceil(IN_A_NAMESPACE);
    let namespaces = (0..last).map(|index| {
        let name = format!("{prefix}-{index}");
        let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
        (format!("{name}/namespace.yaml"), text)
    });
    canaries.chain(namespaces).collect()
}

/// When each VirtualService of these namespaces, by name, had this weight first (`None`: was there), until as many have it.
async fn until_all(
    plane: &ControlPlane,
    prefix: &str,
    wanted: Option<i64>,
    number: usize,
) -> BTreeMap<String, SystemTime> {
    let gvk = GroupVersionKind::gvk("networking.istio.io", "v1", "VirtualService");
    let resource = ApiResource::from_gvk(&gvk);
    let api: Api<DynamicObject> = Api::all_with(plane.client().await.0, &resource);
    let mut stream = watcher(api, watcher::Config::default())
        .default_backoff()
        .touched_objects()
        .boxed();
    let mut seen: BTreeMap<String, SystemTime> = BTreeMap::new();
    let all = async {
        while let Ok(Some(object)) = stream.try_next().await {
            let namespace = object.metadata.namespace.clone().unwrap_or_default();
            let value: Value = serde_json::to_value(&object).unwrap();
            if namespace.starts_with(prefix) && (wanted.is_none() || weight(&value) == wanted) {
                let name = object.metadata.name.clone().unwrap_or_default();
                seen.entry(name).or_insert_with(SystemTime::now);
            }
            if seen.len() == number {
                return;
            }
        }
    };
    let longest = PATIENCE * 4 + Duration::from_millis(200) * u32::try_from(number).unwrap();
    let ended = tokio::time::timeout(longest, all).await;
    assert!(
        ended.is_ok(),
        "{} of {number} are at {wanted:?}",
        seen.len()
    );
    seen
}

/// Resident memory in kilobytes and CPU time in hundredths of a second.
fn cost(serin: &Serin) -> (u64, u64) {
    let of = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", serin.id())).unwrap();
    let status = of("status");
    let rss = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
    let stat = of("stat");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| fields[index].parse::<u64>().unwrap();
    (rss.unwrap(), ticks(11) + ticks(12))
}

fn start(git: &Rig, plane: &ControlPlane, port: u16) -> Serin {
    let config = format!(
        "\
repositories: [{{url: '{}', branch: main, poll: 2s, pushInterval: 1s}}]
prometheus: {{url: 'http://127.0.0.1:9'}}
cluster: {{kubeconfig: '{}'}}
",
        git.remote().display(),
        plane.kubeconfig(USER).display(),
    );
    let path = git.path("serin.yaml");
    std::fs::write(&path, config).unwrap();
    let listen = format!("127.0.0.1:{port}");
    let mut start = Start::with_config(&git.path(""), "serin", &path).args(&["--listen", &listen]);
    start.start()
}

/// Statuses are written once, in a pass or two; the count after that.
async fn until_quiet(plane: &ControlPlane) -> BTreeMap<String, usize> {
    let begun = Instant::now();
    let mut before = plane.requests_of(USER);
    loop {
        tokio::time::sleep(Duration::from_secs(6)).await;
        let now = plane.requests_of(USER);
        if now == before {
            return now;
        }
        assert!(begun.elapsed() < PATIENCE * 5, "never quiet");
        before = now;
    }
}

/// What was asked between two counts.
fn since(
    before: &BTreeMap<String, usize>,
    after: &BTreeMap<String, usize>,
) -> BTreeMap<String, usize> {
    let known = |what: &String| before.get(what).copied().unwrap_or_default();
    let made = after
        .iter()
        .map(|(what, n)| (what.clone(), n - known(what)));
    made.filter(|(_, n)| *n > 0).collect()
}

/// Requests for each canary, by what they ask for.
fn each(made: &BTreeMap<String, usize>, number: usize) -> String {
    let words = made
        .iter()
        .map(|(what, n)| format!("{what} {:.2}", *n as f64 / number as f64));
    words.collect::<Vec<_>>().join(", ")
}

async fn until_ready(port: u16) {
    // Whoever was first chose.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let begun = Instant::now();
    let url = format!("http://127.0.0.1:{port}/readyz");
    while !reqwest::get(&url)
        .await
        .is_ok_and(|answer| answer.status().is_success())
    {
        assert!(begun.elapsed() < Duration::from_secs(600), "never ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Watches where the branch of a remote is, to the millisecond: commits only tell seconds.
struct Heads {
    seen: Arc<Mutex<Vec<(String, SystemTime)>>>,
    ends: Arc<AtomicBool>,
}

impl Heads {
    fn watch(remote: &Path) -> Self {
        let branch = remote.join("refs/heads/main");
        let seen: Arc<Mutex<Vec<(String, SystemTime)>>> = Arc::default();
        let ends: Arc<AtomicBool> = Arc::default();
        let (into, told) = (Arc::clone(&seen), Arc::clone(&ends));
        std::thread::spawn(move || {
            let mut last = String::new();
            while !told.load(Ordering::Relaxed) {
                let head = std::fs::read_to_string(&branch).unwrap_or(last.clone());
                if head != last {
                    last.clone_from(&head);
                    let now = (head.trim().to_owned(), SystemTime::now());
                    into.lock().unwrap().push(now);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { seen, ends }
    }

    /// When the remote took the last commit with such a subject about each canary, by name.
    fn accepted(&self, git: &Rig, what: &str) -> BTreeMap<String, SystemTime> {
        self.ends.store(true, Ordering::Relaxed);
        let log = git.server(&["log", "--reverse", "--format=%H %s", "main"]);
        let pushes: BTreeMap<String, SystemTime> =
            self.seen.lock().unwrap().iter().cloned().collect();
        let (mut waiting, mut accepted) = (Vec::new(), BTreeMap::new());
        for line in log.lines() {
            let (commit, subject) = line.split_once(' ').unwrap();
            if let Some(id) = subject
                .strip_suffix(what)
                .and_then(|s| s.strip_prefix("canary("))
            {
                let name = id.trim_end_matches(')').rsplit('/').next();
                waiting.extend(name.map(str::to_owned));
            }
            if let Some(at) = pushes.get(commit) {
                accepted.extend(waiting.drain(..).map(|name| (name, *at)));
            }
        }
        accepted
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_canaries_on_one_engine() {
    let plane = tokio::task::spawn_blocking(control_plane).await.unwrap();
    let (number, prefix) = (number(), plane.client().await.namespace("scale"));
    let owned = files(&prefix, number, "v1");
    let of: Vec<(&str, &str)> = owned
        .iter()
        .map(|(p, t)| (p.as_str(), t.as_str()))
        .collect();
    let git = Rig::with(&of);
    let port = free_port();

    let begun = Instant::now();
    let serin = start(&git, plane, port);
    until_all(plane, &prefix, None, number).await;
    eprintln!(
        "{number} canaries: all objects made in {:?}",
        begun.elapsed()
    );
    let stopped = tokio::task::spawn_blocking(move || serin.stop()).await;
    assert!(stopped.unwrap().success());

    let begun = Instant::now();
    let serin = start(&git, plane, port);
    until_ready(port).await;
    eprintln!(
        "{number} canaries: ready {:?} after a start",
        begun.elapsed()
    );

    let requests = until_quiet(plane).await;
    let (_, before) = cost(&serin);
    let idle = Duration::from_secs(if number > 100 { 60 } else { 5 });
    tokio::time::sleep(idle).await;
    let (rss, after) = cost(&serin);
    let made: usize = since(&requests, &plane.requests_of(USER)).values().sum();
    eprintln!(
        "{number} idle canaries: {made} requests in {idle:?}, {} MB resident, {} ms of CPU a minute",
        rss / 1024,
        (after - before) * 600 / idle.as_secs(),
    );
    // Watches end and begin again now and then, whatever the number of canaries is.
    assert!(made <= 12, "{made} requests while nothing happened");

    let requests = plane.requests_of(USER);
    let heads = Heads::watch(&git.remote());
    let someone = git.someone("alex");
    someone.insist("v2 of everything", &|| {
        for (path, text) in files(&prefix, number, "v2") {
            someone.write(&path, &text);
        }
    });
    let times = until_all(plane, &prefix, Some(10), number).await;
    let accepted = heads.accepted(&git, ": 0% -> 10%");
    assert_eq!(accepted.len(), number, "one commit for each step");
    let delays = delays(&accepted, &times);
    let took = times.values().max().unwrap();
    let took = took.duration_since(*accepted.values().min().unwrap());
    let made = since(&requests, &until_quiet(plane).await);
    let all: usize = made.values().sum();
    eprintln!(
        "{number} canaries step at once: push accepted to applied p50 {:?}, p99 {:?}, longest {:?}; all within {:?}; for two steps {:.2} requests each: {}",
        at(&delays, 0.5),
        at(&delays, 0.99),
        at(&delays, 1.0),
        took.unwrap_or_default(),
        all as f64 / number as f64,
        each(&made, number),
    );
    let log = git.server(&["log", "--format=%s", "main"]);
    let steps = log
        .lines()
        .filter(|line| line.ends_with(": 0% -> 10%"))
        .count();
    assert_eq!(steps, number, "one commit for each step");
    one_by_one(&git, plane, &prefix, number).await;
    drop(serin);
}

/// One canary after another is taken back, while the others rest.
async fn one_by_one(git: &Rig, plane: &'static ControlPlane, prefix: &str, number: usize) {
    let tries = if number > 100 { 50 } else { 3 };
    let heads = Heads::watch(&git.remote());
    let of = prefix.to_owned();
    let applied = tokio::spawn(async move { until_all(plane, &of, Some(0), tries).await });
    let someone = git.someone("sasha");
    for (path, text) in files(prefix, number, "v1").into_iter().take(tries) {
        someone.insist("back to v1", &|| someone.write(&path, &text));
        // Longer than between two pushes: each step has its own.
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let times = applied.await.unwrap();
    let accepted = heads.accepted(git, ": withdraw 10% -> 0%");
    assert_eq!(accepted.len(), tries, "one commit for each step");
    let delays = delays(&accepted, &times);
    eprintln!(
        "{number} canaries, one steps at a time, {tries} tries: push accepted to applied p50 {:?}, p99 {:?}",
        at(&delays, 0.5),
        at(&delays, 0.99),
    );
}

/// From each push to the moment when the step was applied, sorted.
fn delays(
    accepted: &BTreeMap<String, SystemTime>,
    times: &BTreeMap<String, SystemTime>,
) -> Vec<Duration> {
    let mut delays: Vec<Duration> = accepted
        .iter()
        .map(|(name, at)| times[name].duration_since(*at).unwrap_or_default())
        .collect();
    delays.sort();
    delays
}

/// The delay that this share of all does not exceed.
fn at(delays: &[Duration], share: f64) -> Duration {
    delays[((delays.len() - 1) as f64 * share).round() as usize]
}
