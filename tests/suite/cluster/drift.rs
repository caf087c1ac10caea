//! What people change in the cluster becomes what Git says again.

use serde_json::{Value, json};

use super::world::{APP, CANARY, NEXT, World, canary, idle, moment, proposed};
use crate::rig::{deployment, routes, sends, weight};

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_names_a_user_changes_the_routes_in_the_cluster() {
    let mut world = World::new("user", proposed, "").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    let is_routed = |found: Option<&Value>| found.is_some_and(|vs| sends(vs, "alexis"));
    let found = world
        .kube
        .until(routes(&ns, "podinfo"), "routed for alexis", is_routed)
        .await;
    assert_eq!(weight(&found), Some(0));
    // The candidate was ready before anybody was sent to it.
    let candidate = world
        .kube
        .get(deployment(&ns, "podinfo-canary"))
        .await
        .unwrap();
    assert!(
        candidate["status"]["availableReplicas"].as_i64() >= Some(1),
        "{candidate:#}"
    );

    let ladder = "[{weight: 0, approval: {}}, {weight: 30, hold: 1h}]";
    let users = "[{header: x-user, exact: [alexis, stefan]}]";
    let someone = world.someone("alex");
    world.commit(
        &someone,
        "stefan may look too",
        CANARY,
        &canary(&ns, NEXT, users, ladder),
    );
    let is_routed = |found: Option<&Value>| found.is_some_and(|vs| sends(vs, "stefan"));
    let found = world
        .kube
        .until(routes(&ns, "podinfo"), "routed for stefan", is_routed)
        .await;
    assert!(sends(&found, "alexis"));

    world.commit(
        &someone,
        "nobody looks any more",
        CANARY,
        &canary(&ns, NEXT, "[]", ladder),
    );
    let is_empty = |found: Option<&Value>| {
        found.is_some_and(|vs| {
            vs["spec"]["http"]
                .as_array()
                .is_some_and(|http| http.len() == 1)
        })
    };
    world
        .kube
        .until(routes(&ns, "podinfo"), "without a match", is_empty)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_weight_is_taken_back_and_a_deleted_route_comes_back() {
    let mut world = World::new("drift", idle, "").await;
    let ns = world.namespace.clone();
    let serin = world.serin();
    let key = routes(&ns, "podinfo");
    let before = world.kube.until(key, "there", |vs| vs.is_some()).await;
    let head = world.git.head();

    let mut edited = before["spec"]["http"].clone();
    edited[0]["route"][0]["weight"] = json!(70);
    edited[0]["route"].as_array_mut().unwrap().truncate(1);
    edited[0]["timeout"] = json!("1s");
    world
        .kube
        .edit(key, &json!({"spec": {"http": edited}}))
        .await;
    let is_back = |vs: Option<&Value>| vs.is_some_and(|vs| vs["spec"] == before["spec"]);
    world.kube.until(key, "what it was", is_back).await;

    world.kube.delete(key).await;
    world.kube.until(key, "there again", is_back).await;
    world
        .kube
        .delete(("networking.istio.io/v1", "DestinationRule", &ns, "podinfo"))
        .await;
    let rule = (
        "networking.istio.io/v1",
        "DestinationRule",
        ns.as_str(),
        "podinfo",
    );
    world
        .kube
        .until(rule, "there again", |rule| rule.is_some())
        .await;
    world.kube.delete(deployment(&ns, "podinfo")).await;
    let runs = |found: Option<&Value>| found.is_some_and(|d| d["status"]["availableReplicas"] == 2);
    world
        .kube
        .until(deployment(&ns, "podinfo"), "running again", runs)
        .await;

    // Nothing of that is a reason for a commit, and the log says who it was.
    assert_eq!(world.git.head(), head);
    let log = serin.log();
    assert!(log.contains("repaired what differed from Git"), "{log}");
    assert!(log.contains("kubectl-edit"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_own_survives() {
    let mut world = World::new("foreign", idle, "").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    let key = routes(&ns, "podinfo");
    let before = world.kube.until(key, "there", |vs| vs.is_some()).await;
    let foreign = json!({"metadata": {"annotations": {"other.example.com/seen": "yes"}}});
    world.kube.edit(key, &foreign).await;
    let scaled = json!({"spec": {"minReadySeconds": 1}});
    world
        .kube
        .until(deployment(&ns, "podinfo"), "there", |d| d.is_some())
        .await;
    world.kube.edit(deployment(&ns, "podinfo"), &scaled).await;
    // A change of Serin's own beside it.
    let mut spoiled = before["spec"]["http"].clone();
    spoiled[0]["timeout"] = json!("1s");
    world
        .kube
        .edit(key, &json!({"spec": {"http": spoiled}}))
        .await;
    let is_back = |vs: Option<&Value>| vs.is_some_and(|vs| vs["spec"] == before["spec"]);
    let after = world.kube.until(key, "what it was", is_back).await;
    assert_eq!(
        after["metadata"]["annotations"]["other.example.com/seen"],
        "yes"
    );
    let stable = world.kube.get(deployment(&ns, "podinfo")).await.unwrap();
    assert_eq!(stable["spec"]["minReadySeconds"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_others_add_to_routes_and_rules_are_taken_away() {
    let mut world = World::new("added", idle, "").await;
    let ns = world.namespace.clone();
    let mut serin = world.serin();
    let served = routes(&ns, "podinfo");
    let rule = (
        "networking.istio.io/v1",
        "DestinationRule",
        ns.as_str(),
        "podinfo",
    );
    let before = world.kube.until(served, "there", |vs| vs.is_some()).await;
    let ruled = world.kube.get(rule).await.unwrap();
    // By hand, together with what is anybody's.
    let seen = json!({"annotations": {"other.example.com/seen": "yes"}});
    let added = json!({"spec": {"gateways": ["elsewhere"]}, "metadata": seen});
    world.kube.edit(served, &added).await;
    let is_back =
        |spec: Value| move |found: Option<&Value>| found.is_some_and(|found| found["spec"] == spec);
    let again = is_back(before["spec"].clone());
    let after = world.kube.until(served, "what it was", again).await;
    assert_eq!(
        after["metadata"]["annotations"]["other.example.com/seen"],
        "yes"
    );
    serin.says("spec.gateways: not in Git");
    serin.says("kubectl-edit");
    // By another applier, which owns the field from then on.
    let lost = json!({"http": {"http1MaxPendingRequests": 1}});
    let theirs = json!({
        "apiVersion": rule.0, "kind": rule.1, "metadata": {"name": "podinfo", "namespace": ns},
        "spec": {"exportTo": ["."], "trafficPolicy": {"connectionPool": lost}},
    });
    world.kube.apply("another-tool", &theirs).await.unwrap();
    let again = is_back(ruled["spec"].clone());
    world.kube.until(rule, "what it was", again).await;
    serin.says("another-tool");
}

#[tokio::test(flavor = "multi_thread")]
async fn warn_only_reports() {
    let mut world = World::new("warn", idle, ", mode: warn").await;
    let ns = world.namespace.clone();
    let mut serin = world.serin();
    let key = routes(&ns, "podinfo");
    let before = world.kube.until(key, "there", |vs| vs.is_some()).await;
    moment(500).await;
    let mut edited = before["spec"]["http"].clone();
    edited[0]["timeout"] = json!("1s");
    world
        .kube
        .edit(key, &json!({"spec": {"http": edited}}))
        .await;
    serin.says("differs from Git and is not repaired");
    moment(2000).await;
    let after = world.kube.get(key).await.unwrap();
    assert_eq!(after["spec"]["http"][0]["timeout"], "1s");
    // A change in Git is applied all the same.
    let someone = world.someone("alex");
    let app = super::world::app(&ns).replace("replicas: 2", "replicas: 3");
    world.commit(&someone, "one more", APP, &app);
    let has_three = |found: Option<&Value>| found.is_some_and(|d| d["spec"]["replicas"] == 3);
    world
        .kube
        .until(deployment(&ns, "podinfo"), "larger", has_three)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_in_the_middle_of_a_rollout_change_nothing_for_long() {
    let mut world = World::new("edits", proposed, "").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    let key = routes(&ns, "podinfo");
    let is_routed = |found: Option<&Value>| found.is_some_and(|vs| sends(vs, "alexis"));
    let before = world.kube.until(key, "routed for alexis", is_routed).await;
    let head = world.git.head();
    let is_back = |vs: Option<&Value>| vs.is_some_and(|vs| vs["spec"] == before["spec"]);
    let last = before["spec"]["http"].as_array().unwrap().len() - 1;
    for percent in [100, 50] {
        let mut edited = before["spec"]["http"].clone();
        edited[last]["route"][0]["weight"] = json!(100 - percent);
        edited[last]["route"][1]["weight"] = json!(percent);
        world
            .kube
            .edit(key, &json!({"spec": {"http": edited}}))
            .await;
        world.kube.until(key, "what it was", is_back).await;
    }
    // The canary's Deployment scaled away, stable's deleted, the Canary itself deleted.
    let canary = deployment(&ns, "podinfo-canary");
    world
        .kube
        .edit(canary, &json!({"spec": {"replicas": 7}}))
        .await;
    let has_one = |found: Option<&Value>| found.is_some_and(|d| d["spec"]["replicas"] == 1);
    world.kube.until(canary, "of its size", has_one).await;
    world.kube.delete(deployment(&ns, "podinfo")).await;
    let runs = |found: Option<&Value>| {
        found.is_some_and(|d| {
            let containers = &d["spec"]["template"]["spec"]["containers"];
            d["status"]["availableReplicas"] == 2
                && containers[0]["image"]
                    .as_str()
                    .is_some_and(|i| i.ends_with(":6.8.0"))
        })
    };
    world
        .kube
        .until(deployment(&ns, "podinfo"), "what it was", runs)
        .await;
    let resource = ("serin.dev/v1alpha1", "Canary", ns.as_str(), "podinfo");
    world.kube.until(resource, "there", |c| c.is_some()).await;
    world.kube.delete(resource).await;
    world
        .kube
        .until(resource, "there again", |c| c.is_some())
        .await;
    world.kube.until(key, "what it was", is_back).await;
    moment(1500).await;
    assert_eq!(world.git.head(), head, "{:?}", world.subjects());
}
