//! Whole rollouts on a real control plane, with nothing but commits.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::world::{CANARY, LADDER, NEXT, World, canary, idle, moment};
use crate::rig::{deployment, routes, weight};

/// Subjects of Serin's commits, oldest first, how often each.
fn steps(world: &World) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for subject in world.subjects() {
        if subject.starts_with("canary(") {
            *count.entry(subject).or_insert(0) += 1;
        }
    }
    count
}

/// Fails when a step was committed more than once.
pub(crate) fn no_step_twice(world: &World) {
    let repeated: Vec<(String, usize)> = steps(world).into_iter().filter(|(_, n)| *n > 1).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
}

pub(crate) fn image(deployment: &Value) -> &str {
    deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        .as_str()
        .unwrap_or_default()
}

pub(crate) fn is_promoted(found: Option<&Value>) -> bool {
    found.is_some_and(|d| image(d).ends_with(":6.9.0") && d["status"]["availableReplicas"] == 2)
}

#[tokio::test(flavor = "multi_thread")]
async fn from_proposal_to_promotion() {
    let mut world = World::measured("rollout", idle, "").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    let key = routes(&ns, "podinfo");
    world.kube.until(key, "there", |vs| vs.is_some()).await;
    let someone = world.someone("alex");
    world.commit(
        &someone,
        "podinfo 6.9.0",
        CANARY,
        &canary(&ns, NEXT, "[{header: x-user, exact: [alexis]}]", LADDER),
    );
    // The candidate is ready before it gets anything, and every weight is seen in the cluster.
    for percent in [10, 60, 100] {
        let has_weight =
            |found: Option<&Value>| found.is_some_and(|vs| weight(vs) == Some(percent));
        world
            .kube
            .until(key, "at the next weight", has_weight)
            .await;
        let candidate = world
            .kube
            .get(deployment(&ns, "podinfo-canary"))
            .await
            .unwrap();
        let wanted = (2 * percent + 99) / 100;
        assert!(
            candidate["status"]["availableReplicas"].as_i64() >= Some(wanted),
            "{percent}: {candidate:#}"
        );
    }
    world
        .kube
        .until(deployment(&ns, "podinfo"), "promoted", is_promoted)
        .await;
    world
        .kube
        .until(deployment(&ns, "podinfo-canary"), "gone", |d| d.is_none())
        .await;
    let after = world.kube.get(key).await.unwrap();
    assert_eq!(weight(&after), Some(0));
    no_step_twice(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_it_goes_on_with_one_commit_per_step() {
    let mut world = World::measured("killed", idle, "").await;
    let ns = world.namespace.clone();
    let mut serin = world.serin();
    world
        .kube
        .until(routes(&ns, "podinfo"), "there", |vs| vs.is_some())
        .await;
    let someone = world.someone("alex");
    world.commit(
        &someone,
        "podinfo 6.9.0",
        CANARY,
        &canary(&ns, NEXT, "[]", LADDER),
    );
    let mut commits = world.subjects().len();
    let mut waited = 0;
    while !is_promoted(world.kube.get(deployment(&ns, "podinfo")).await.as_ref()) {
        // Right after each commit is where most is under way.
        if world.subjects().len() > commits {
            commits = world.subjects().len();
            drop(serin);
            serin = world.serin();
            waited = 0;
        }
        moment(20).await;
        waited += 1;
        assert!(waited < 2500, "{:?}\n{}", world.subjects(), serin.log());
    }
    world
        .kube
        .until(deployment(&ns, "podinfo-canary"), "gone", |d| d.is_none())
        .await;
    no_step_twice(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_cannot_start_gets_nothing_and_says_why() {
    let mut world = World::new("unable", idle, "").await;
    let ns = world.namespace.clone();
    let mut serin = world.serin();
    let key = routes(&ns, "podinfo");
    world.kube.until(key, "there", |vs| vs.is_some()).await;
    let someone = world.someone("alex");
    let broken = "{images: {podinfod: 'ghcr.io/stefanprodan/podinfo:6.9.0'}, patch: {metadata: {annotations: {test/waiting: ImagePullBackOff}}}}";
    let users = "[{header: x-user, exact: [alexis]}]";
    let text = canary(&ns, broken, users, LADDER).replace("every: 1s", "every: 1s, deadline: 8s");
    world.commit(&someone, "podinfo 6.9.0", CANARY, &text);
    world
        .kube
        .until(deployment(&ns, "podinfo-canary"), "there", |d| d.is_some())
        .await;
    serin.says("waiting for the candidate to become ready");
    let stays = world.kube.get(key).await.unwrap();
    assert_eq!(
        stays["spec"]["http"].as_array().unwrap().len(),
        1,
        "{stays:#}"
    );
    world
        .kube
        .until(deployment(&ns, "podinfo-canary"), "gone again", |d| {
            d.is_none()
        })
        .await;
    let bodies = world.git.server(&["log", "--format=%B", "main"]);
    assert!(
        bodies.contains("ImagePullBackOff: as the test wants it"),
        "{bodies}"
    );
    let stable = world.kube.get(deployment(&ns, "podinfo")).await.unwrap();
    assert!(image(&stable).ends_with(":6.8.0"), "{stable:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_leaves_no_room_is_said_in_its_words() {
    let mut world = World::new("quota", idle, "").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    let runs = |found: Option<&Value>| found.is_some_and(|d| d["status"]["availableReplicas"] == 2);
    world
        .kube
        .until(deployment(&ns, "podinfo"), "running", runs)
        .await;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": ns},
        "spec": {"hard": {"pods": "2"}},
    });
    world.kube.put(&quota).await;
    let counted = |found: Option<&Value>| found.is_some_and(|q| q["status"]["used"]["pods"] == "2");
    world
        .kube
        .until(("v1", "ResourceQuota", &ns, "few"), "counted", counted)
        .await;
    let someone = world.someone("alex");
    let text = canary(&ns, NEXT, "[]", LADDER).replace("every: 1s", "every: 1s, deadline: 6s");
    world.commit(&someone, "podinfo 6.9.0", CANARY, &text);
    world
        .kube
        .until(deployment(&ns, "podinfo-canary"), "there", |d| d.is_some())
        .await;
    world
        .kube
        .until(deployment(&ns, "podinfo-canary"), "gone again", |d| {
            d.is_none()
        })
        .await;
    let bodies = world.git.server(&["log", "--format=%B", "main"]);
    assert!(bodies.contains("exceeded quota: few"), "{bodies}");
}
