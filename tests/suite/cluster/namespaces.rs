//! A deleted namespace is a state: everything comes back when it is gone, with the weight that Git says.

use serde_json::{Value, json};

use super::world::{APP, FOLDER, World, idle, moment, proposed};
use crate::rig::{Key, deployment, routes, sends, weight};

fn namespace(name: &str) -> Key<'_> {
    ("v1", "Namespace", "", name)
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// Waits until another namespace of this name is there than the one with this uid.
async fn reborn(world: &World, old: &str) -> Value {
    let is_new = |found: Option<&Value>| {
        found.is_some_and(|ns| uid(ns) != old && ns["metadata"]["deletionTimestamp"].is_null())
    };
    world
        .kube
        .until(namespace(&world.namespace), "made again", is_new)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_namespace_comes_back_with_everything_in_it() {
    let mut world = World::new("gone", idle, "").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    let runs = |found: Option<&Value>| found.is_some_and(|d| d["status"]["availableReplicas"] == 2);
    world
        .kube
        .until(deployment(&ns, "podinfo"), "running", runs)
        .await;
    let before = world
        .kube
        .until(routes(&ns, "podinfo"), "there", |vs| vs.is_some())
        .await;
    let head = world.git.head();
    let old = world.kube.get(namespace(&ns)).await.unwrap();

    world.kube.delete(namespace(&ns)).await;
    let new = reborn(&world, &uid(&old)).await;
    assert_eq!(new["metadata"]["labels"]["istio-injection"], "enabled");
    world
        .kube
        .until(deployment(&ns, "podinfo"), "running again", runs)
        .await;
    let after = world
        .kube
        .until(routes(&ns, "podinfo"), "there again", |vs| vs.is_some())
        .await;
    assert_eq!(after["spec"], before["spec"]);
    assert_eq!(world.git.head(), head, "no commit is needed for that");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_in_the_middle_of_a_step() {
    let mut world = World::new("midstep", proposed, "").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    let is_routed = |found: Option<&Value>| found.is_some_and(|vs| sends(vs, "alexis"));
    let key = routes(&ns, "podinfo");
    world.kube.until(key, "routed for alexis", is_routed).await;
    // A person puts 30 % onto the candidate: the step is adopted, held, and applied.
    let someone = world.someone("alex");
    someone.insist("try it with more", &|| {
        let path = format!("{FOLDER}/rollout.yaml");
        someone.replace(&path, "weight: 0", "weight: 30");
    });
    let has_weight = |found: Option<&Value>| found.is_some_and(|vs| weight(vs) == Some(30));
    world.kube.until(key, "at 30", has_weight).await;
    let head = world.git.head();
    let old = world.kube.get(namespace(&ns)).await.unwrap();

    world.kube.delete(namespace(&ns)).await;
    reborn(&world, &uid(&old)).await;
    world.kube.until(key, "at 30 again", has_weight).await;
    let runs = |found: Option<&Value>| {
        found.is_some_and(|d| d["status"]["availableReplicas"].as_i64() >= Some(1))
    };
    world
        .kube
        .until(deployment(&ns, "podinfo-canary"), "running again", runs)
        .await;
    moment(2500).await;
    assert_eq!(world.git.head(), head, "{:?}", world.subjects());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_while_serin_was_down() {
    let mut world = World::new("down", proposed, "").await;
    let ns = world.namespace.clone();
    let serin = world.serin();
    let is_routed = |found: Option<&Value>| found.is_some_and(|vs| sends(vs, "alexis"));
    let key = routes(&ns, "podinfo");
    world.kube.until(key, "routed for alexis", is_routed).await;
    let head = world.git.head();
    drop(serin);
    world.kube.delete(namespace(&ns)).await;
    world
        .kube
        .until(namespace(&ns), "gone", |found| found.is_none())
        .await;
    let _serin = world.serin();
    world
        .kube
        .until(key, "routed for alexis again", is_routed)
        .await;
    assert_eq!(world.git.head(), head, "{:?}", world.subjects());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_no_file_declares_keeps_its_labels() {
    let undeclared = |ns: &str| {
        let files = idle(ns).into_iter();
        files
            .filter(|(path, _)| path.as_str() != super::world::NAMESPACE)
            .collect()
    };
    let mut world = World::new("undeclared", undeclared, "").await;
    let ns = world.namespace.clone();
    let labelled = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns, "labels": {"team": "birds"}}});
    world.kube.put(&labelled).await;
    let _serin = world.serin();
    world
        .kube
        .until(deployment(&ns, "podinfo"), "there", |d| d.is_some())
        .await;
    let old = world.kube.get(namespace(&ns)).await.unwrap();
    world.kube.delete(namespace(&ns)).await;
    let new = reborn(&world, &uid(&old)).await;
    assert_eq!(new["metadata"]["labels"]["team"], "birds");
    world
        .kube
        .until(deployment(&ns, "podinfo"), "there again", |d| d.is_some())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_deletion_is_named() {
    let mut world = World::new("stuck", idle, "").await;
    let ns = world.namespace.clone();
    let mut serin = world.serin();
    let key = deployment(&ns, "podinfo");
    world.kube.until(key, "there", |d| d.is_some()).await;
    let kept = json!({"metadata": {"finalizers": ["example.com/keep-me"]}});
    world.kube.edit(key, &kept).await;
    world.kube.delete(namespace(&ns)).await;
    serin.says("its deletion does not end");
    serin.says("example.com/keep-me");
    world
        .kube
        .edit(key, &json!({"metadata": {"finalizers": null}}))
        .await;
    let is_back =
        |found: Option<&Value>| found.is_some_and(|d| d["metadata"]["deletionTimestamp"].is_null());
    world.kube.until(key, "there again", is_back).await;
    let _ = APP;
}
