//! What the leading engine was measured to get wrong, on the same kind of control plane.
//!
//! Each row of its two tables is a test. What is edited or deleted by hand (table 4):
//!
//! | Row | Test |
//! |---|---|
//! | idle: weights 0 -> 30; another field edited; VirtualService deleted | `drift::an_edited_weight_is_taken_back_and_a_deleted_route_comes_back` |
//! | … then a new image | `a_weight_set_by_hand_is_no_head_start` |
//! | idle: primary deleted (5 replicas); Canary deleted | `at_rest_nothing_that_is_deleted_stays_away` |
//! | idle: namespace deleted | `namespaces::a_deleted_namespace_comes_back_with_everything_in_it` |
//! | at 10 %: weight set to 50 or 100; at 30 %: weight set to 0, another field edited | `drift::edits_in_the_middle_of_a_rollout_change_nothing_for_long` |
//! | at 20 %, v2 failing: primary deleted | `stable_deleted_while_the_candidate_fails_comes_back_as_stable` |
//! | at 20 %, v2 failing: namespace deleted, Git re-applied | `a_namespace_deleted_while_the_candidate_fails_comes_back_with_stable` |
//!
//! What a restart remembers (table 5):
//!
//! | Row | Test |
//! |---|---|
//! | killed before any write of any phase | `rollout::killed_again_and_again_it_goes_on_with_one_commit_per_step` |
//! | SIGTERM at 20 %, and any moment | `a_stop_in_any_moment_loses_nothing` |
//! | killed at 30 %, failing, down 30 s | `a_restart_rolls_a_failing_candidate_back_at_once` |
//! | killed at 40 %, failing, not restarted | `leases::a_killed_leader_is_followed_and_the_failing_candidate_taken_back` |
//! | interval 60 s, killed after every step | `time_at_a_weight_outlives_every_kill` |

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::recorder::Recorder;
use super::rollout::{is_promoted, no_step_twice};
use super::world::{CANARY, NEXT, World, canary, idle, moment};
use crate::rig::{Client, deployment, routes, weight};

const BROKEN: &str = "{images: {podinfod: 'ghcr.io/stefanprodan/podinfo:6.9.0-broken'}}";
const STABLE: &str = "ghcr.io/stefanprodan/podinfo:6.8.0";

async fn at_weight(kube: &Client, ns: &str, percent: i64) -> Value {
    let has_weight = |found: Option<&Value>| found.is_some_and(|vs| weight(vs) == Some(percent));
    let what = format!("at {percent}");
    kube.until(routes(ns, "podinfo"), &what, has_weight).await
}

fn runs(found: Option<&Value>) -> bool {
    found.is_some_and(|d| d["status"]["availableReplicas"] == 2)
}

async fn rested(test: &str) -> World {
    World::measured(test, idle, "").await
}

async fn settled(world: &World) {
    let ns = &world.namespace;
    world
        .kube
        .until(routes(ns, "podinfo"), "there", |vs| vs.is_some())
        .await;
    world
        .kube
        .until(deployment(ns, "podinfo"), "running", runs)
        .await;
}

fn propose(world: &World, candidate: &str, ladder: &str) {
    let text = canary(&world.namespace, candidate, "[]", ladder);
    world.commit(&world.someone("alex"), "another podinfo", CANARY, &text);
}

/// Table 4: "at 20 %, v2 failing: primary deleted" ended with everybody on the bad version.
#[tokio::test(flavor = "multi_thread")]
async fn stable_deleted_while_the_candidate_fails_comes_back_as_stable() {
    let mut world = rested("primary-deleted").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    settled(&world).await;
    let stable = Recorder::follow(&world.kube, deployment(&ns, "podinfo"));
    let served = Recorder::follow(&world.kube, routes(&ns, "podinfo"));
    propose(
        &world,
        BROKEN,
        "[{weight: 20, hold: 60s}, {weight: 100, hold: 60s}]",
    );
    at_weight(&world.kube, &ns, 20).await;
    world.kube.delete(deployment(&ns, "podinfo")).await;
    at_weight(&world.kube, &ns, 0).await;
    world
        .kube
        .until(deployment(&ns, "podinfo"), "running again", runs)
        .await;
    let key = deployment(&ns, "podinfo-canary");
    world.kube.until(key, "gone", |d| d.is_none()).await;
    stable.ran_in_order(&[STABLE]);
    served.never_went_back();
    let weights: Vec<i64> = served
        .versions()
        .iter()
        .filter_map(|seen| weight(seen.object.as_ref()?))
        .collect();
    assert!(weights.iter().all(|percent| *percent <= 20), "{weights:?}");
    no_step_twice(&world);
}

/// Table 4: "at 20 %, v2 failing: namespace deleted, Git re-applied" ended with v2 at 100 % without one query.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_deleted_while_the_candidate_fails_comes_back_with_stable() {
    let mut world = rested("namespace-failing").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    settled(&world).await;
    let stable = Recorder::follow(&world.kube, deployment(&ns, "podinfo"));
    propose(
        &world,
        BROKEN,
        "[{weight: 20, hold: 60s}, {weight: 100, hold: 60s}]",
    );
    at_weight(&world.kube, &ns, 20).await;
    let namespace = ("v1", "Namespace", "", ns.as_str());
    let old = world.kube.get(namespace).await.unwrap()["metadata"]["uid"].clone();
    world.kube.delete(namespace).await;
    let is_new = |found: Option<&Value>| found.is_some_and(|n| n["metadata"]["uid"] != old);
    world.kube.until(namespace, "made again", is_new).await;
    settled(&world).await;
    let back = at_weight(&world.kube, &ns, 0).await;
    assert_eq!(weight(&back), Some(0));
    stable.ran_in_order(&[STABLE]);
    let bodies = world.git.server(&["log", "--format=%s", "main"]);
    assert!(bodies.contains("roll back 20% -> 0%"), "{bodies}");
    assert!(!bodies.contains("promote"), "{bodies}");
    no_step_twice(&world);
}

/// Table 4: "idle: Canary deleted" left nothing that serves; "primary deleted (5 replicas)" came back with 1.
#[tokio::test(flavor = "multi_thread")]
async fn at_rest_nothing_that_is_deleted_stays_away() {
    let five = |ns: &str| {
        let mut files = idle(ns);
        files[1].1 = files[1].1.replace("replicas: 2", "replicas: 5");
        files
    };
    let mut world = World::new("idle-deleted", five, "").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    let has_five = |d: Option<&Value>| d.is_some_and(|d| d["status"]["availableReplicas"] == 5);
    let key = deployment(&ns, "podinfo");
    world.kube.until(key, "running", has_five).await;
    let served = routes(&ns, "podinfo");
    let before = world.kube.until(served, "there", |vs| vs.is_some()).await;
    let canary = ("serin.dev/v1alpha1", "Canary", ns.as_str(), "podinfo");
    world.kube.until(canary, "there", |c| c.is_some()).await;
    world.kube.delete(canary).await;
    world
        .kube
        .until(canary, "there again", |c| c.is_some())
        .await;
    let after = world.kube.get(served).await.unwrap();
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert!(has_five(world.kube.get(key).await.as_ref()));
    world.kube.delete(key).await;
    world.kube.until(key, "running again", has_five).await;
    let service = ("v1", "Service", ns.as_str(), "podinfo");
    world.kube.delete(service).await;
    world
        .kube
        .until(service, "there again", |s| s.is_some())
        .await;
}

/// A deletion on the heels of each repair: answers to writes and news of deletions overtake one another.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_the_moment_it_is_back_comes_back_each_time() {
    let mut world = World::new("heels", idle, "").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    let served = routes(&ns, "podinfo");
    let rule = (
        "networking.istio.io/v1",
        "DestinationRule",
        ns.as_str(),
        "podinfo",
    );
    world.kube.until(served, "there", |vs| vs.is_some()).await;
    for key in [rule, served, rule, served] {
        for _ in 0..25 {
            world.kube.delete(key).await;
            world.kube.until(key, "there again", |o| o.is_some()).await;
        }
    }
}

/// Table 4: "idle: weights 0 -> 30 … then a new image" started at 30 %.
#[tokio::test(flavor = "multi_thread")]
async fn a_weight_set_by_hand_is_no_head_start() {
    let mut world = rested("head-start").await;
    let ns = world.namespace.clone();
    let mut serin = world.serin();
    settled(&world).await;
    let served = Recorder::follow(&world.kube, routes(&ns, "podinfo"));
    let before = world.kube.get(routes(&ns, "podinfo")).await.unwrap();
    let mut edited = before["spec"]["http"].clone();
    let last = edited.as_array().unwrap().len() - 1;
    let to = |subset: &str, weight: i64| json!({"destination": {"host": "podinfo", "subset": subset}, "weight": weight});
    edited[last]["route"] = json!([to("stable", 70), to("canary", 30)]);
    world
        .kube
        .edit(routes(&ns, "podinfo"), &json!({"spec": {"http": edited}}))
        .await;
    propose(
        &world,
        NEXT,
        "[{weight: 10, hold: 1s}, {weight: 100, hold: 1s}]",
    );
    world
        .kube
        .until(deployment(&ns, "podinfo"), "promoted", is_promoted)
        .await;
    let candidate = deployment(&ns, "podinfo-canary");
    world.kube.until(candidate, "gone", |d| d.is_none()).await;
    serin.says("kubectl-edit");
    let mut weights: Vec<i64> = served
        .versions()
        .iter()
        .filter_map(|seen| weight(seen.object.as_ref()?))
        .collect();
    // The edit itself.
    weights.retain(|percent| *percent != 30);
    weights.dedup();
    assert_eq!(weights, [0, 10, 100, 0], "{weights:?}");
}

/// Table 5: "killed at 30 %, failing, down 30 s" was back at 0 % 20.5 s after the restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_rolls_a_failing_candidate_back_at_once() {
    let mut world = rested("down-failing").await;
    let ns = world.namespace.clone();
    let serin = world.serin();
    settled(&world).await;
    propose(&world, BROKEN, "[{weight: 30, hold: 60s}]");
    at_weight(&world.kube, &ns, 30).await;
    drop(serin);
    moment(6000).await;
    assert_eq!(
        weight(&world.kube.get(routes(&ns, "podinfo")).await.unwrap()),
        Some(30)
    );
    let begun = Instant::now();
    let _serin = world.serin();
    at_weight(&world.kube, &ns, 0).await;
    let took = begun.elapsed();
    eprintln!("killed at 30 %, failing, down for 6 s: at 0 % {took:?} after the restart");
    assert!(took < Duration::from_secs(10), "{took:?}");
    no_step_twice(&world);
}

/// Table 5: "interval 60 s, killed after every step" went through a ladder of 240 s in 43 s.
#[tokio::test(flavor = "multi_thread")]
async fn time_at_a_weight_outlives_every_kill() {
    let mut world = rested("soak").await;
    let ns = world.namespace.clone();
    let mut serin = world.serin();
    settled(&world).await;
    propose(
        &world,
        NEXT,
        "[{weight: 10, hold: 5s}, {weight: 60, hold: 5s}, {weight: 100, hold: 5s}]",
    );
    let mut reached = Vec::new();
    for percent in [10, 60, 100] {
        at_weight(&world.kube, &ns, percent).await;
        reached.push(Instant::now());
        drop(serin);
        serin = world.serin();
    }
    world
        .kube
        .until(deployment(&ns, "podinfo"), "promoted", is_promoted)
        .await;
    let gaps: Vec<Duration> = reached.windows(2).map(|pair| pair[1] - pair[0]).collect();
    eprintln!("killed after every step, hold 5 s: gaps {gaps:?}");
    // A commit's time has whole seconds.
    let short = Duration::from_secs(4);
    assert!(
        gaps.iter()
            .all(|gap| *gap >= short && *gap < Duration::from_secs(12)),
        "{gaps:?}"
    );
    no_step_twice(&world);
    drop(serin);
}

/// Table 5: "SIGTERM at 20 %" and a kill in the middle of a step: the step goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_any_moment_loses_nothing() {
    let mut world = rested("stops").await;
    let ns = world.namespace.clone();
    let mut serin = world.serin();
    settled(&world).await;
    let served = Recorder::follow(&world.kube, routes(&ns, "podinfo"));
    propose(
        &world,
        NEXT,
        "[{weight: 0, hold: 1s}, {weight: 10, hold: 1s}, {weight: 60, hold: 1s}, {weight: 100, hold: 1s}]",
    );
    for round in 0_u64.. {
        if is_promoted(world.kube.get(deployment(&ns, "podinfo")).await.as_ref()) {
            break;
        }
        // Moments that have nothing to do with what it does.
        moment(1500 + 970 * (round % 5)).await;
        if round % 2 == 0 {
            drop(serin);
        } else {
            let stopped = tokio::task::spawn_blocking(|| serin.stop()).await.unwrap();
            assert!(stopped.success(), "{stopped}");
        }
        serin = world.serin();
        assert!(round < 60, "{:?}", world.subjects());
    }
    let key = deployment(&ns, "podinfo-canary");
    world.kube.until(key, "gone", |d| d.is_none()).await;
    served.never_went_back();
    no_step_twice(&world);
    drop(serin);
}
