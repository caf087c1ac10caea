//! Several processes on one branch: who acts, who takes over, and that nobody takes anything back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::recorder::Recorder;
use super::rollout::{is_promoted, no_step_twice};
use super::world::{CANARY, LADDER, NEXT, World, by, canary, idle, moment};
use crate::rig::{control_plane, deployment, routes, weight};
use crate::support::serin::{Serin, Start};

/// A ladder with time for something to happen on each step.
const SLOW: &str = "[{weight: 10, hold: 2s}, {weight: 60, hold: 2s}, {weight: 100, hold: 2s}]";
const BROKEN: &str = "{images: {podinfod: 'ghcr.io/stefanprodan/podinfo:6.9.0-broken'}}";

/// A world with a namespace for Leases.
async fn shared(test: &str) -> World {
    let world = World::measured(test, idle, "").await;
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": leases(&world)}});
    world.kube.put(&namespace).await;
    world
}

fn leases(world: &World) -> String {
    format!("{}-leases", world.namespace)
}

/// One of several replicas.
fn replica(world: &World, name: &str) -> Start {
    let mut config = world.config(&by(&control_plane().admin()), "");
    config.push_str(&format!(
        "leases: {{namespace: {}, name: serin}}\n",
        leases(world)
    ));
    world.another(name, &config).args(&["--identity", name])
}

/// Waits until a replica holds the Lease of the branch.
async fn leads(world: &World, name: &str) {
    let namespace = leases(world);
    let key = (
        "coordination.k8s.io/v1",
        "Lease",
        namespace.as_str(),
        "serin-remote",
    );
    let holds = |lease: Option<&Value>| lease.is_some_and(|l| l["spec"]["holderIdentity"] == name);
    world
        .kube
        .until(key, &format!("held by {name}"), holds)
        .await;
}

/// Starts both, the first one leading.
async fn two(world: &World) -> (Serin, Serin) {
    let first = replica(world, "first").start();
    leads(world, "first").await;
    let second = replica(world, "second").start();
    let key = routes(&world.namespace, "podinfo");
    world.kube.until(key, "there", |vs| vs.is_some()).await;
    (first, second)
}

async fn at_weight(world: &World, percent: i64) {
    let has_weight = |found: Option<&Value>| found.is_some_and(|vs| weight(vs) == Some(percent));
    let key = routes(&world.namespace, "podinfo");
    world
        .kube
        .until(key, &format!("at {percent}"), has_weight)
        .await;
}

async fn promoted(world: &World) {
    let ns = &world.namespace;
    let key = deployment(ns, "podinfo");
    world.kube.until(key, "promoted", is_promoted).await;
    let key = deployment(ns, "podinfo-canary");
    world.kube.until(key, "gone", |d| d.is_none()).await;
    no_step_twice(world);
}

fn propose(world: &World, candidate: &str, ladder: &str) {
    let text = canary(&world.namespace, candidate, "[]", ladder);
    world.commit(&world.someone("alex"), "another podinfo", CANARY, &text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_hands_over_at_once() {
    let world = shared("handover").await;
    let (first, second) = two(&world).await;
    propose(&world, NEXT, SLOW);
    at_weight(&world, 10).await;
    let begun = Instant::now();
    let ended = tokio::task::spawn_blocking(|| first.stop()).await.unwrap();
    assert!(ended.success(), "{ended}");
    let stopped = begun.elapsed();
    leads(&world, "second").await;
    let handed_over = begun.elapsed();
    eprintln!("stopped after {stopped:?}, handed over after {handed_over:?}");
    assert!(
        handed_over < stopped + Duration::from_secs(2),
        "{handed_over:?}"
    );
    promoted(&world).await;
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_followed_and_the_failing_candidate_taken_back() {
    let world = shared("killed-leader").await;
    let (first, second) = two(&world).await;
    let stable = Recorder::follow(&world.kube, deployment(&world.namespace, "podinfo"));
    propose(&world, BROKEN, "[{weight: 40, hold: 60s}]");
    at_weight(&world, 40).await;
    drop(first);
    let begun = Instant::now();
    at_weight(&world, 0).await;
    eprintln!(
        "killed at 40 % with a failing candidate: back at 0 % after {:?}",
        begun.elapsed()
    );
    leads(&world, "second").await;
    stable.ran_in_order(&["ghcr.io/stefanprodan/podinfo:6.8.0"]);
    no_step_twice(&world);
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_wakes_up_without_its_lease_takes_nothing_back() {
    let world = shared("frozen").await;
    let (first, second) = two(&world).await;
    let ns = world.namespace.clone();
    let served = Recorder::follow(&world.kube, routes(&ns, "podinfo"));
    let stable = Recorder::follow(&world.kube, deployment(&ns, "podinfo"));
    propose(&world, NEXT, LADDER);
    at_weight(&world, 10).await;
    first.freeze();
    leads(&world, "second").await;
    promoted(&world).await;
    // It wakes up in the middle of what it did, sure of a weight that is long past, and of an image that is.
    first.thaw();
    moment(5000).await;
    served.never_went_back();
    stable.ran_in_order(&[
        "ghcr.io/stefanprodan/podinfo:6.8.0",
        "ghcr.io/stefanprodan/podinfo:6.9.0",
    ]);
    no_step_twice(&world);
    leads(&world, "second").await;
    drop((first, second));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_both_believe_to_lead_commit_no_step_twice() {
    let world = World::measured("both", idle, "").await;
    let ns = world.namespace.clone();
    let config = world.config(&by(&control_plane().admin()), "");
    let _first = world.another("first", &config).start();
    let _second = world.another("second", &config).start();
    world
        .kube
        .until(routes(&ns, "podinfo"), "there", |vs| vs.is_some())
        .await;
    let served = Recorder::follow(&world.kube, routes(&ns, "podinfo"));
    let stable = Recorder::follow(&world.kube, deployment(&ns, "podinfo"));
    propose(&world, NEXT, LADDER);
    promoted(&world).await;
    served.never_went_back();
    stable.ran_in_order(&[
        "ghcr.io/stefanprodan/podinfo:6.8.0",
        "ghcr.io/stefanprodan/podinfo:6.9.0",
    ]);
}
