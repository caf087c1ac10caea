//! An API server that refuses, keeps silent, breaks off, or goes away; credentials that change; clocks that differ.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::proxy::{Fault, Proxy};
use super::recorder::Recorder;
use super::rollout::{is_promoted, no_step_twice};
use super::world::{CANARY, LADDER, NEXT, World, by, canary, idle, moment, proposed};
use crate::rig::{control_plane, deployment, routes, weight};
use crate::support::serin::Start;

const RULE: &str = "networking.istio.io/v1";

/// Serin behind a proxy.
async fn behind(world: &World, more: &str) -> (Proxy, Start) {
    let proxy = Proxy::start(&world.kube).await;
    let name = format!("proxy-{}", world.namespace);
    let path = control_plane().kubeconfig_for(&name, "whoever", &proxy.url);
    let config = world.config(&format!("{}{more}", by(&path)), "");
    let start = world.another("proxied", &config);
    (proxy, start)
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_that_pass_delay_and_stop_nothing() {
    let world = World::new("refusing", idle, "").await;
    let ns = world.namespace.clone();
    let (proxy, mut start) = behind(&world, "").await;
    let rule = format!("namespaces/{ns}/destinationrules/");
    let served = format!("namespaces/{ns}/virtualservices/");
    let app = format!("namespaces/{ns}/deployments/");
    proxy.fail("PATCH", &rule, Fault::Answer(429, Some(2)), 1);
    proxy.fail("PATCH", &served, Fault::Answer(500, None), 2);
    proxy.fail("PATCH", &app, Fault::Answer(409, None), 3);
    proxy.fail("GET", "/apis/apps/v1", Fault::Answer(503, None), 3);
    proxy.fail("GET", "/api/v1/namespaces", Fault::Answer(504, None), 2);
    let begun = Instant::now();
    let serin = start.start();
    let key = routes(&ns, "podinfo");
    world.kube.until(key, "there", |vs| vs.is_some()).await;
    let log = serin.log();
    assert!(log.contains("the proxy answers 429"), "{log}");
    assert!(begun.elapsed() >= Duration::from_secs(2));
    // The wait that was asked for is kept: the rule was not tried again before.
    assert_eq!(proxy.count("PATCH", &rule), 2);
    assert_eq!(proxy.count("PATCH", &served), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_always_refuses_is_not_hammered() {
    let world = World::new("hammered", idle, "").await;
    let ns = world.namespace.clone();
    let (proxy, mut start) = behind(&world, "").await;
    let serin = start.start();
    let key = routes(&ns, "podinfo");
    let before = world.kube.until(key, "there", |vs| vs.is_some()).await;
    moment(1000).await;
    for (code, most) in [(409, 16), (500, 5)] {
        proxy.fail("PATCH", &ns, Fault::Answer(code, None), 10_000);
        let tried = proxy.count("PATCH", &ns);
        world
            .kube
            .edit(key, &json!({"spec": {"hosts": ["elsewhere"]}}))
            .await;
        moment(4000).await;
        let tries = proxy.count("PATCH", &ns) - tried;
        assert!((2..=most).contains(&tries), "{code}: {tries} tries in 4 s");
        proxy.heal();
        let is_back = |vs: Option<&Value>| vs.is_some_and(|vs| vs["spec"] == before["spec"]);
        world.kube.until(key, "what it was", is_back).await;
    }
    drop(serin);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_at_the_deadline() {
    let world = World::new("silent", idle, "").await;
    let ns = world.namespace.clone();
    let (proxy, mut start) = behind(&world, ", timeout: 1s").await;
    proxy.fail(
        "PATCH",
        &format!("{ns}/virtualservices/"),
        Fault::Silence,
        2,
    );
    proxy.fail("GET", "/apis/apps/v1", Fault::Silence, 1);
    let mut serin = start.start();
    world
        .kube
        .until(routes(&ns, "podinfo"), "there", |vs| vs.is_some())
        .await;
    serin.says("did not answer within 1 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_watches_miss_nothing() {
    let world = World::new("watches", proposed, "").await;
    let ns = world.namespace.clone();
    let (proxy, mut start) = behind(&world, "").await;
    proxy.fail("GET", "watch=", Fault::Cut(300), 60);
    proxy.fail("GET", "virtualservices?&watch=", Fault::Expired, 3);
    let _serin = start.start();
    let key = routes(&ns, "podinfo");
    let rule = (RULE, "DestinationRule", ns.as_str(), "podinfo");
    let has_rung = |vs: Option<&Value>| vs.is_some_and(|vs| weight(vs) == Some(0));
    world.kube.until(key, "there", has_rung).await;
    for round in 0..12 {
        if round == 6 {
            proxy.fail("GET", "virtualservices", Fault::Expired, 2);
        }
        let deleted = if round % 2 == 0 { key } else { rule };
        world.kube.delete(deleted).await;
        world
            .kube
            .until(deleted, "there again", |o| o.is_some())
            .await;
        moment(150).await;
    }
    world
        .kube
        .edit(key, &json!({"spec": {"hosts": ["elsewhere"]}}))
        .await;
    let is_back = |vs: Option<&Value>| vs.is_some_and(|vs| vs["spec"]["hosts"][0] == "podinfo");
    world.kube.until(key, "what it was", is_back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_in_the_middle_of_a_rollout() {
    let world = World::measured("away", idle, "").await;
    let ns = world.namespace.clone();
    let (proxy, mut start) = behind(&world, ", timeout: 2s").await;
    let serin = start.start();
    let key = routes(&ns, "podinfo");
    world.kube.until(key, "there", |vs| vs.is_some()).await;
    let served = Recorder::follow(&world.kube, key);
    let someone = world.someone("alex");
    let text = canary(&ns, NEXT, "[]", LADDER);
    world.commit(&someone, "podinfo 6.9.0", CANARY, &text);
    let at_10 = |vs: Option<&Value>| vs.is_some_and(|vs| weight(vs) == Some(10));
    world.kube.until(key, "at 10", at_10).await;
    proxy.go_down();
    moment(20_000).await;
    // What the cluster does not show is not built on: at most the step that was under way was committed.
    let subjects = world.subjects();
    let ahead = subjects
        .iter()
        .filter(|s| s.contains("-> 60%") || s.contains("-> 100%"));
    assert!(ahead.count() <= 1, "{subjects:?}");
    proxy.heal();
    let begun = Instant::now();
    world
        .kube
        .until(deployment(&ns, "podinfo"), "promoted", is_promoted)
        .await;
    eprintln!("promoted {:?} after an outage of 20 s", begun.elapsed());
    let canary = deployment(&ns, "podinfo-canary");
    world.kube.until(canary, "gone", |d| d.is_none()).await;
    served.never_went_back();
    no_step_twice(&world);
    drop(serin);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_rotated_are_used_without_a_restart() {
    let world = World::new("rotated", idle, "").await;
    let ns = world.namespace.clone();
    let account = format!("{ns}-accounts");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": account}});
    world.kube.put(&namespace).await;
    let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let first = world
        .kube
        .account((&account, "first"), None, all.clone())
        .await;
    let second = world.kube.account((&account, "second"), None, all).await;
    let path = control_plane().kubeconfig_of(&ns, &first);
    let config = world.config(&by(&path), "");
    let mut start = world.another("rotating", &config);
    let mut serin = start.start();
    let key = routes(&ns, "podinfo");
    let before = world.kube.until(key, "there", |vs| vs.is_some()).await;
    // The old account goes, as a revoked token does, a while before the new one is in place.
    world
        .kube
        .delete(("v1", "ServiceAccount", &account, "first"))
        .await;
    // The server itself needs a moment to know that the account is gone.
    for n in 0.. {
        let edit = json!({"spec": {"hosts": [format!("elsewhere-{n}")]}});
        world.kube.edit(key, &edit).await;
        moment(200).await;
        if serin.log().contains("Unauthorized") {
            break;
        }
        assert!(n < 200, "never refused:\n{}", serin.log());
    }
    control_plane().kubeconfig_of(&ns, &second);
    world
        .kube
        .edit(key, &json!({"spec": {"hosts": ["elsewhere"]}}))
        .await;
    let is_back = |vs: Option<&Value>| vs.is_some_and(|vs| vs["spec"] == before["spec"]);
    world.kube.until(key, "what it was", is_back).await;
    serin.says("the credentials for the cluster changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_clock_differs_shortens_no_step() {
    for (test, minutes) in [("behind", -2), ("ahead", 2)] {
        let mut world = World::measured(test, idle, "").await;
        let ns = world.namespace.clone();
        let serin = world.serin();
        let key = routes(&ns, "podinfo");
        world.kube.until(key, "there", |vs| vs.is_some()).await;
        let ladder = "[{weight: 10, hold: 8s}, {weight: 100, hold: 1s}]";
        let text = canary(&ns, NEXT, "[]", ladder);
        world.commit(&world.someone("alex"), "podinfo 6.9.0", CANARY, &text);
        let at_10 = |vs: Option<&Value>| vs.is_some_and(|vs| weight(vs) == Some(10));
        let shown = world.kube.until(key, "at 10", at_10).await;
        let begun = Instant::now();
        drop(serin);
        // What the cluster's clock wrote when the step was applied, two minutes off.
        let mut fields = shown["metadata"]["managedFields"].clone();
        for entry in fields.as_array_mut().unwrap() {
            let time = chrono::DateTime::parse_from_rfc3339(entry["time"].as_str().unwrap());
            let time = time.unwrap() + chrono::TimeDelta::minutes(minutes);
            entry["time"] = json!(time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
        }
        // The server takes other times only with another change.
        let other = json!({"other.example.com/touched": "yes"});
        let shifted = json!({"metadata": {"managedFields": fields, "annotations": other}});
        world.kube.edit(key, &shifted).await;
        let written = world.kube.get(key).await.unwrap();
        assert_ne!(
            written["metadata"]["managedFields"][0]["time"],
            shown["metadata"]["managedFields"][0]["time"]
        );
        let _serin = world.serin();
        let at_100 = |vs: Option<&Value>| vs.is_some_and(|vs| weight(vs) == Some(100));
        world.kube.until(key, "at 100", at_100).await;
        let took = begun.elapsed();
        eprintln!("clock {minutes} min off: a hold of 8 s took {took:?}");
        assert!(took >= Duration::from_secs(7), "{test}: {took:?}");
        assert!(took < Duration::from_secs(30), "{test}: {took:?}");
    }
}
