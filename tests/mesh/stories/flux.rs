//! Flux applies, Serin only commits: the real source-controller and kustomize-controller, drift correction on, no ignore rule.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::bed::{Bed, is_established};
use crate::chance::spread;
use crate::git_servers::http;
use crate::load::{Answer, Load, Visitor, expect_no_failure};
use crate::pods::Behaviour;
use crate::rig::{Client, free_port, programs};
use crate::site::{FOLDER, Manner, NEW, OLD, Site, moment};

/// How often Flux looks by itself.
const INTERVAL: &str = "1m";
/// How often it does where nobody tells it.
const SHORT: &str = "10s";
/// From a commit to requests that are routed by it.
const LIMIT: Duration = Duration::from_secs(30);

/// Named user, ladder, rollback; then a ladder of which Flux is not told.
pub(crate) async fn applies(bed: Arc<Bed>) {
    start_controllers(&bed).await;
    let mut site = Site::with(&bed, "flux", Manner::default(), &|_| Vec::new()).await;
    note_pushes(&site);
    let address = http(&site.git.path(""), &site.git.home()).await;
    let manner = |poke: &str| Manner {
        cluster: ", applier: external".to_owned(),
        repository: format!(", poll: 500ms, pushInterval: 100ms{poke}"),
        url: Some(format!("http://deploy:s3cr%2Ft%40p@{address}/remote.git")),
        ..Manner::default()
    };
    site.behave(&manner(
        ", poke: [{kind: GitRepository, namespace: flux-system, name: apps}]",
    ));
    let serin = site.serin();
    follow(&site.kube, &format!("http://{address}/remote.git"), INTERVAL).await;
    site.serves().await;
    let visitors = [
        vec![Visitor::anybody(); 19],
        vec![Visitor::new("dana", &[("x-user", b"dana")])],
    ];
    let load = Load::start(&site.target(), 200, visitors.concat());
    let someone = site.someone("dana");
    let users = "[{header: x-user, exact: [dana]}]";
    let wish = site.wish().candidate(NEW).users(users);
    let proposed = site.commit(&someone, "Propose 6.9.0, and let me try it", &wish);
    let named = |answer: &Answer| answer.is_canary();
    let first = load.first(proposed, LIMIT, "routed to the candidate", named).await;
    assert_eq!(&*first.who, "dana");
    site.promoted(NEW).await;
    expect_no_failure(&load.stop().await);
    println!("flux: told of each commit, commit to VirtualService: {}", spread(delays(&site)));

    let load = Load::start(&site.target(), 200, vec![Visitor::anybody()]);
    let failing = Behaviour {
        failing: 0.3,
        ..Behaviour::default()
    };
    bed.pods.behave(&site.namespace, "6.10.0", failing);
    site.commit(&someone, "Propose 6.10.0", &site.wish().candidate("6.10.0"));
    site.weighs(10).await;
    site.without_candidate().await;
    moment(1000).await;
    let answers = load.stop().await;
    let others = answers.iter().filter(|a| a.failed() && !a.is_canary());
    assert_eq!(others.count(), 0);
    let why = site.told("roll back 10% -> 0%");
    assert!(why.contains("Serin-Verdict: fail"), "{why}");
    only_what_git_held(&site);

    // Nobody tells Flux: each step waits for its next look.
    drop(serin);
    site.behave(&manner(""));
    let _serin = site.serin();
    interval(&site.kube, SHORT).await;
    let since = site.seen().len();
    let load = Load::start(&site.target(), 100, vec![Visitor::anybody()]);
    let ladder = "[{weight: 50, hold: 1s}, {weight: 100, hold: 1s}]";
    let wish = site.wish().candidate("6.11.0").ladder(ladder);
    site.commit(&someone, "Propose 6.11.0", &wish);
    site.weighs(50).await;
    site.weighs(100).await;
    expect_no_failure(&load.stop().await);
    let all = delays(&site);
    let untold = site.seen().len() - since;
    println!(
        "flux: not told, looking every {SHORT}: {}",
        spread(all[all.len() - untold.min(all.len())..].to_vec())
    );
    only_what_git_held(&site);
    let first_version = String::from_utf8(site.git.file(crate::site::APP)).unwrap();
    assert!(!first_version.contains(OLD), "{first_version}");
}

/// Definitions and controllers of Flux.
async fn start_controllers(bed: &Arc<Bed>) {
    let bin = tokio::task::spawn_blocking(|| programs(&["flux"])).await.unwrap();
    let kube = bed.plane().client().await;
    for folder in ["source-controller-crds", "kustomize-controller-crds"] {
        for file in std::fs::read_dir(bin.join(folder)).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let text = text.trim_start_matches("---\n");
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
    }
    kube.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "flux-system"}}))
        .await;
    let kubeconfig = bed.plane().admin().display().to_string();
    let folder = bed.plane().folder().join("flux");
    std::fs::create_dir_all(&folder).unwrap();
    let environment = [
        ("KUBECONFIG", kubeconfig.as_str()),
        ("RUNTIME_NAMESPACE", "flux-system"),
    ];
    let storage = free_port();
    let common = || {
        vec![
            format!("--metrics-addr=127.0.0.1:{}", free_port()),
            format!("--health-addr=127.0.0.1:{}", free_port()),
            "--events-addr=".to_owned(),
            "--log-level=info".to_owned(),
        ]
    };
    let mut arguments = common();
    arguments.extend([
        format!("--storage-path={}", folder.display()),
        format!("--storage-addr=127.0.0.1:{storage}"),
        format!("--storage-adv-addr=127.0.0.1:{storage}"),
    ]);
    let plane = bed.plane();
    let name = "source-controller";
    plane.add(name, &bin.join(name), &arguments, &environment);
    let name = "kustomize-controller";
    plane.add(name, &bin.join(name), &common(), &environment);
}

/// Lets Flux apply the whole repository.
async fn follow(kube: &Client, url: &str, interval: &str) {
    let metadata = json!({"name": "apps", "namespace": "flux-system"});
    kube.put(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": metadata,
        "stringData": {"username": "deploy", "password": "s3cr/t@p"},
    }))
    .await;
    kube.put(&json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": metadata,
        "spec": {"url": url, "ref": {"branch": "main"}, "interval": interval, "secretRef": {"name": "apps"}},
    }))
    .await;
    kube.put(&json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "metadata": metadata,
        "spec": {
            "sourceRef": {"kind": "GitRepository", "name": "apps"},
            "path": "./", "prune": true, "interval": interval,
        },
    }))
    .await;
}

/// From now on Flux looks that often.
async fn interval(kube: &Client, interval: &str) {
    let key = (
        "source.toolkit.fluxcd.io/v1",
        "GitRepository",
        "flux-system",
        "apps",
    );
    kube.edit(key, &json!({"spec": {"interval": interval}})).await;
}

/// A version of the routes: its number and what it says.
type Version = (Value, Value);

fn version(object: &Value) -> Version {
    let number = &object["metadata"]["annotations"]["serin.dev/sequence"];
    (number.clone(), object["spec"].clone())
}

/// Every version of the routes that Git ever had, oldest first, and in which commit.
fn held(site: &Site) -> Vec<(Version, String)> {
    let file = format!("{FOLDER}/virtualservice.yaml");
    let log = ["log", "--reverse", "--format=%H", "main", "--", &file];
    let commits = site.git.server(&log);
    let read = |commit: &str| {
        let text = site.git.server(&["show", &format!("{commit}:{file}")]);
        let object: Value = serde_yaml::from_str(&text).unwrap();
        (version(&object), commit.to_owned())
    };
    commits.lines().map(read).collect()
}

/// Fails when the cluster ever showed routes that Git did not hold, or showed them in another order.
fn only_what_git_held(site: &Site) {
    let held = held(site);
    let mut at = 0;
    let mut shown = 0;
    for seen in site.seen() {
        let Some(object) = seen.object else {
            panic!("the routes were deleted");
        };
        let ahead = held[at..]
            .iter()
            .position(|(known, _)| *known == version(&object));
        let Some(ahead) = ahead else {
            panic!("not what Git held next: {object:#}");
        };
        at += ahead;
        shown += 1;
    }
    println!(
        "flux: {shown} versions of the routes in the cluster, {} in Git, in the same order",
        held.len()
    );
    assert!(shown > 2);
}

/// Writes down when each push was accepted.
fn note_pushes(site: &Site) {
    let file = site.git.path("pushes");
    let script = format!(
        "while read -r _ new _; do echo \"$new $(date +%s.%N)\" >> '{}'; done",
        file.display()
    );
    site.git.hook("post-receive", &script);
}

/// From each accepted push of the routes until the cluster showed them.
fn delays(site: &Site) -> Vec<Duration> {
    let now = (Instant::now(), SystemTime::now());
    let pushes = std::fs::read_to_string(site.git.path("pushes")).unwrap();
    let seen = site.seen();
    let mut delays = Vec::new();
    for (known, commit) in held(site) {
        let pushed = pushes.lines().find_map(|line| {
            let seconds = line.strip_prefix(&commit)?.trim().parse().ok()?;
            Some(UNIX_EPOCH + Duration::from_secs_f64(seconds))
        });
        let shown = seen
            .iter()
            .find(|seen| seen.object.as_ref().is_some_and(|object| version(object) == known));
        if let (Some(pushed), Some(shown)) = (pushed, shown) {
            let shown = now.1 - (now.0 - shown.at);
            delays.push(shown.duration_since(pushed).unwrap_or_default());
        }
    }
    delays
}
