//! With Flux or Argo CD: they are told of each commit, they may re-apply what is in Git as often as they like, and
//! nothing is measured before the cluster shows it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use serin::yaml::node;

use super::recorder::{Recorder, counter, held_by_git};
use super::rollout::{is_promoted, no_step_twice};
use super::world::{CANARY, LADDER, NEXT, World, by, canary, idle, moment};
use crate::git_servers::program;
use crate::rig::{Client, Key, control_plane, deployment, routes, weight};

/// Somebody who makes the cluster equal to the branch again and again, without knowing of Serin: as Argo CD does with
/// self-healing, and Flux with drift detection.
pub(crate) struct Agent {
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    /// Applies every second what the branch held `lag` ago.
    pub(crate) fn start(world: &World, manager: &'static str, lag: Duration) -> Self {
        let (kube, remote, home) = (world.kube.clone(), world.git.remote(), world.git.home());
        let task = tokio::spawn(async move {
            let mut made: BTreeSet<[String; 4]> = BTreeSet::new();
            loop {
                let (remote, home) = (remote.clone(), home.clone());
                let objects = tokio::task::spawn_blocking(move || tree(&remote, &home, lag));
                let objects = objects.await.unwrap();
                let mut present = BTreeSet::new();
                for object in &objects {
                    // What cannot be applied now can be a second later.
                    if kube.apply(manager, object).await.is_ok() {
                        present.insert(key(object));
                    }
                }
                if !objects.is_empty() {
                    for gone in made.difference(&present) {
                        remove(&kube, gone).await;
                    }
                    made = present;
                }
                moment(1000).await;
            }
        });
        Self { task }
    }
}

fn key(object: &Value) -> [String; 4] {
    [
        "/apiVersion",
        "/kind",
        "/metadata/namespace",
        "/metadata/name",
    ]
    .map(|pointer| {
        let text = object.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    })
}

async fn remove(kube: &Client, [version, kind, namespace, name]: &[String; 4]) {
    let key: Key<'_> = (version, kind, namespace, name);
    if kube.get(key).await.is_some() {
        kube.delete(key).await;
    }
}

/// Objects of the newest commit that is this old, namespaces first; without what is only for tools.
fn tree(remote: &Path, home: &Path, lag: Duration) -> Vec<Value> {
    let git = |arguments: &[&str]| {
        let output = program("git", home)
            .arg("--git-dir")
            .arg(remote)
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let log = git(&["log", "--format=%H %ct", "main"]);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let latest = (now.unwrap() - lag).as_secs();
    let commit = log.lines().find_map(|line| {
        let (commit, time) = line.split_once(' ')?;
        (time.parse::<u64>().unwrap() <= latest).then(|| commit.to_owned())
    });
    let Some(commit) = commit else {
        return Vec::new();
    };
    let mut objects = Vec::new();
    for path in git(&["ls-tree", "-r", "--name-only", &commit]).lines() {
        if !path.ends_with(".yaml") || path.ends_with("kustomization.yaml") {
            continue;
        }
        let text = git(&["show", &format!("{commit}:{path}")]);
        for document in node::parse(text.as_bytes()).documents {
            let object = document.root.to_json();
            let is_local =
                object["metadata"]["annotations"]["config.kubernetes.io/local-config"].is_string();
            if object["kind"].is_string() && !is_local {
                objects.push(object);
            }
        }
    }
    objects.sort_by_key(|object| object["kind"] != "Namespace");
    objects
}

/// Makes the definitions of both agents known.
pub(crate) async fn define(kube: &Client) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/agents");
    for (file, version, kind) in [
        (
            "gitrepositories",
            "source.toolkit.fluxcd.io/v1",
            "GitRepository",
        ),
        (
            "kustomizations",
            "kustomize.toolkit.fluxcd.io/v1",
            "Kustomization",
        ),
        ("applications", "argoproj.io/v1alpha1", "Application"),
    ] {
        let text = std::fs::read_to_string(folder.join(format!("{file}.yaml"))).unwrap();
        kube.put_once(&serde_yaml::from_str(&text).unwrap()).await;
        for _ in 0..400 {
            let api = kube.api((version, kind, "", ""));
            if api.list(&kube::api::ListParams::default()).await.is_ok() {
                break;
            }
            moment(50).await;
        }
    }
}

/// Objects of both agents for a branch, as their documentation has them.
pub(crate) fn set_up(namespace: &str) -> [Value; 3] {
    let metadata = json!({"name": "apps", "namespace": namespace});
    [
        json!({
            "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": metadata,
            "spec": {"interval": "1m", "url": "https://git.example.com/team/apps.git", "ref": {"branch": "main"}},
        }),
        json!({
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "metadata": metadata,
            "spec": {"interval": "10m", "path": "./", "prune": true, "sourceRef": {"kind": "GitRepository", "name": "apps"}},
        }),
        json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": metadata,
            "spec": {
                "project": "default",
                "source": {"repoURL": "https://git.example.com/team/apps.git", "path": ".", "targetRevision": "main"},
                "destination": {"server": "https://kubernetes.default.svc", "namespace": namespace},
                "syncPolicy": {"automated": {"prune": true, "selfHeal": true}},
            },
        }),
    ]
}

/// `poke` of a repository for these.
pub(crate) fn pokes(namespace: &str) -> String {
    let poke = |kind| format!("{{kind: {kind}, namespace: {namespace}, name: apps}}");
    let all = ["GitRepository", "Kustomization", "Application"].map(poke);
    format!(", poke: [{}]", all.join(", "))
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_told_of_each_commit() {
    let world = World::new("poked", idle, "").await;
    let ns = world.namespace.clone();
    define(&world.kube).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns}});
    world.kube.put(&namespace).await;
    for object in set_up(&ns) {
        world.kube.put(&object).await;
    }
    let cluster = format!("{}, applier: external", by(&control_plane().admin()));
    let config = world.config(&cluster, &pokes(&ns));
    let _serin = world.another("poking", &config).start();
    let annotation = |object: Option<&Value>, name: &str| {
        let found = object.and_then(|o| o["metadata"]["annotations"][name].as_str());
        found.unwrap_or_default().to_owned()
    };
    let flux = "reconcile.fluxcd.io/requestedAt";
    let keys = [
        (
            "source.toolkit.fluxcd.io/v1",
            "GitRepository",
            ns.as_str(),
            "apps",
        ),
        (
            "kustomize.toolkit.fluxcd.io/v1",
            "Kustomization",
            ns.as_str(),
            "apps",
        ),
    ];
    // Serin's own first commit, then one of a person that leads to another of Serin's.
    for round in 0..2 {
        if round == 1 {
            let text = canary(&ns, NEXT, "[]", LADDER);
            world.commit(&world.someone("alex"), "podinfo 6.9.0", CANARY, &text);
        }
        for _ in 0..200 {
            let ours = world.subjects()[0].starts_with("canary(");
            if ours {
                break;
            }
            moment(50).await;
        }
        let head = world.git.head();
        for key in keys {
            let names_it = |o: Option<&Value>| annotation(o, flux).contains(head.short());
            world.kube.until(key, "told of the commit", names_it).await;
        }
        let argo = ("argoproj.io/v1alpha1", "Application", ns.as_str(), "apps");
        let refresh = "argocd.argoproj.io/refresh";
        let is_told = |o: Option<&Value>| annotation(o, refresh) == "normal";
        world.kube.until(argo, "told of the commit", is_told).await;
        // Argo CD takes the annotation away when it has looked.
        let taken = json!({"metadata": {"annotations": {refresh: null}}});
        world.kube.edit(argo, &taken).await;
    }
    // Nothing but the annotation was touched: the schema kept everything that is Serin's out of the spec.
    let source = world.kube.get(keys[0]).await.unwrap();
    assert_eq!(source["spec"], set_up(&ns)[0]["spec"]);
}

/// Every version that a watch saw was one that Git held, in Git's order.
fn followed_git(world: &World, served: &Recorder) {
    let held = held_by_git(world);
    let mut at = 0;
    for seen in served.versions() {
        let Some(object) = seen.object else { continue };
        let is_it = |(held, _): &&(Value, SystemTime)| {
            held["spec"] == object["spec"] && counter(held) == counter(&object)
        };
        let ahead = held[at..].iter().position(|held| is_it(&held));
        at += ahead.unwrap_or_else(|| panic!("never in Git, or not in this order: {object:#}"));
    }
    assert_eq!(at, held.len() - 1, "the last one is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_applies_every_second_and_nothing_flaps() {
    let world = World::measured("external", idle, "").await;
    let ns = world.namespace.clone();
    let cluster = format!("{}, applier: external", by(&control_plane().admin()));
    let _serin = world
        .another("external", &world.config(&cluster, ""))
        .start();
    // It is two seconds late, as agents that poll are.
    let _agent = Agent::start(&world, "kustomize-controller", Duration::from_secs(2));
    let key = routes(&ns, "podinfo");
    world.kube.until(key, "there", |vs| vs.is_some()).await;
    let served = Recorder::follow(&world.kube, key);
    let text = canary(&ns, NEXT, "[{header: x-user, exact: [alexis]}]", LADDER);
    world.commit(&world.someone("alex"), "podinfo 6.9.0", CANARY, &text);
    for percent in [10, 60, 100] {
        let has_weight = |vs: Option<&Value>| vs.is_some_and(|vs| weight(vs) == Some(percent));
        world
            .kube
            .until(key, "at the next weight", has_weight)
            .await;
    }
    world
        .kube
        .until(deployment(&ns, "podinfo"), "promoted", is_promoted)
        .await;
    let candidate = deployment(&ns, "podinfo-canary");
    world.kube.until(candidate, "gone", |d| d.is_none()).await;
    let at_rest = |vs: Option<&Value>| vs.is_some_and(|vs| weight(vs) == Some(0));
    world.kube.until(key, "at rest", at_rest).await;
    // Two more rounds of the agent, in which nothing may move any more.
    moment(4500).await;
    followed_git(&world, &served);
    no_step_twice(&world);
    measured_after_it_was_shown(&world, &served);
    // Serin wrote nothing but statuses and events.
    let routes = world.kube.get(key).await.unwrap();
    let managers = routes["metadata"]["managedFields"].as_array().unwrap();
    assert!(
        managers
            .iter()
            .all(|m| m["manager"] == "kustomize-controller"),
        "{managers:#?}"
    );
}

/// A step of a second was decided a second after the cluster showed the one before it, and no earlier.
fn measured_after_it_was_shown(world: &World, served: &Recorder) {
    let held = held_by_git(world);
    let versions = served.versions();
    let mut checked = 0;
    for pair in held.windows(2) {
        let [(before, _), (after, decided)] = pair else {
            unreachable!()
        };
        let rises = weight(after) > weight(before) && weight(before) > Some(0);
        if !rises {
            continue;
        }
        let shown = versions.iter().find(|seen| {
            seen.object
                .as_ref()
                .is_some_and(|object| counter(object) == counter(before))
        });
        let shown = shown
            .unwrap_or_else(|| panic!("never shown: {before:#}"))
            .at;
        // The commit's time has whole seconds, rounded down.
        let earliest = shown - Duration::from_millis(100);
        assert!(
            *decided + Duration::from_secs(1) >= earliest + Duration::from_secs(1),
            "{decided:?} {shown:?}"
        );
        checked += 1;
    }
    assert!(checked >= 2, "{checked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_beside_the_built_in_applier_changes_no_decision() {
    let mut world = World::measured("beside", idle, "").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    let key = routes(&ns, "podinfo");
    world.kube.until(key, "there", |vs| vs.is_some()).await;
    let _agent = Agent::start(&world, "argocd-controller", Duration::ZERO);
    let text = canary(&ns, NEXT, "[]", LADDER);
    world.commit(&world.someone("alex"), "podinfo 6.9.0", CANARY, &text);
    world
        .kube
        .until(deployment(&ns, "podinfo"), "promoted", is_promoted)
        .await;
    let candidate = deployment(&ns, "podinfo-canary");
    world.kube.until(candidate, "gone", |d| d.is_none()).await;
    // An agent that has not heard of the newest commit takes the one before it for the truth, for a moment. It ends as
    // Git has it, and no commit came of it.
    let newest = held_by_git(&world).pop().unwrap().0;
    let is_newest = |vs: Option<&Value>| vs.is_some_and(|vs| vs["spec"] == newest["spec"]);
    world.kube.until(key, "what Git says", is_newest).await;
    no_step_twice(&world);
    let subjects = world.subjects();
    let strange = subjects
        .iter()
        .find(|s| s.contains("adopt") || s.contains("render"));
    assert!(strange.is_none(), "{subjects:?}");
}
