//! What `kubectl` shows of a canary: status, conditions, columns, events; and that showing costs nothing.

use serde_json::{Value, json};

use super::rollout::is_promoted;
use super::world::{CANARY, NEXT, World, canary, idle, moment, proposed};
use crate::rig::{Key, deployment, routes};

const GATED: &str = "[{weight: 0, approval: {}}, {weight: 30, hold: 2s}, {weight: 100, hold: 1s}]";

fn shown<'a>(namespace: &'a str, name: &'a str) -> Key<'a> {
    ("serin.dev/v1alpha1", "Canary", namespace, name)
}

fn condition<'a>(canary: &'a Value, kind: &str) -> &'a Value {
    let conditions = canary["status"]["conditions"].as_array();
    let found = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == kind);
    found.unwrap_or(&Value::Null)
}

fn is(canary: Option<&Value>, kind: &str, status: &str, reason: &str) -> bool {
    canary.is_some_and(|canary| {
        let found = condition(canary, kind);
        found["status"] == status && (reason.is_empty() || found["reason"] == reason)
    })
}

/// Reasons and texts of the events about objects of this kind, each with how often it was said.
async fn events(world: &World, kind: &str) -> Vec<(String, String, i64)> {
    let all = world
        .kube
        .list("events.k8s.io/v1", "Event", &world.namespace)
        .await;
    let about = all
        .iter()
        .filter(|event| event["regarding"]["kind"] == kind);
    let ours = about.filter(|event| event["reportingController"] == "serin.dev/serin");
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    ours.map(|event| {
        let count = event["series"]["count"].as_i64().unwrap_or(1);
        (text(event, "reason"), text(event, "note"), count)
    })
    .collect()
}

fn version(object: &Value) -> &Value {
    &object["metadata"]["resourceVersion"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_seen_from_start_to_end_and_rest_costs_nothing() {
    let mut world = World::measured("shown", idle, "").await;
    let ns = world.namespace.clone();
    let mut serin = world.serin();
    let key = shown(&ns, "podinfo");
    world
        .kube
        .until(key, "at rest", |c| is(c, "Ready", "True", "NoProposal"))
        .await;
    world
        .kubectl(&[
            "-n",
            &ns,
            "wait",
            "--for=condition=Ready",
            "canary/podinfo",
            "--timeout=20s",
        ])
        .await;

    let someone = world.someone("alex");
    world.commit(
        &someone,
        "podinfo 6.9.0",
        CANARY,
        &canary(&ns, NEXT, "[]", GATED),
    );
    world
        .kubectl(&[
            "-n",
            &ns,
            "wait",
            "--for=condition=Reconciling",
            "canary/podinfo",
            "--timeout=30s",
        ])
        .await;
    let waits = |c: Option<&Value>| is(c, "Reconciling", "True", "ApprovalPending");
    let gated = world.kube.until(key, "waiting for approval", waits).await;
    let status = &gated["status"];
    assert_eq!(status["phase"], "Progressing");
    assert_eq!(
        (&status["weight"], &status["observedWeight"]),
        (&json!(0), &json!(0)),
        "{status:#}"
    );
    assert_eq!(status["step"], "1/3");
    assert_eq!(status["commit"], world.git.head().to_string());
    assert!(is(Some(&gated), "Ready", "False", "") && is(Some(&gated), "Promoted", "Unknown", ""));
    let table = world.kubectl(&["-n", &ns, "get", "canaries"]).await;
    eprintln!("{table}");
    let (head, row) = table.trim().split_once('\n').unwrap();
    for column in ["NAME", "PHASE", "WEIGHT", "STEP"] {
        assert!(head.contains(column), "{table}");
    }
    assert!(
        row.contains("podinfo") && row.contains("Progressing") && row.contains("1/3"),
        "{table}"
    );

    // Passes go on each second, and nothing is written.
    let said = events(&world, "Canary").await;
    moment(4000).await;
    let later = world.kube.get(key).await.unwrap();
    assert_eq!(version(&later), version(&gated), "{later:#}");
    assert_eq!(events(&world, "Canary").await, said);
    // Nor by a restart.
    drop(serin);
    serin = world.serin();
    serin.says("needs an approval");
    moment(3000).await;
    let later = world.kube.get(key).await.unwrap();
    assert_eq!(version(&later), version(&gated), "{later:#}");
    assert_eq!(events(&world, "Canary").await, said);

    someone.insist("go", &|| {
        someone.replace(
            "apps/podinfo/podinfo.serin/rollout.yaml",
            "approval: pending",
            "approval: granted",
        );
    });
    let is_observed = |c: Option<&Value>| c.is_some_and(|c| c["status"]["observedWeight"] == 30);
    let at_30 = world.kube.until(key, "observed at 30", is_observed).await;
    assert_eq!(at_30["status"]["weight"], 30);
    world
        .kubectl(&[
            "-n",
            &ns,
            "wait",
            "--for=condition=Promoted",
            "canary/podinfo",
            "--timeout=45s",
        ])
        .await;
    let runs = world
        .kube
        .until(deployment(&ns, "podinfo"), "promoted", is_promoted)
        .await;
    assert!(runs.is_object());
    let done = world
        .kube
        .until(key, "at rest again", |c| is(c, "Ready", "True", ""))
        .await;
    assert_eq!(
        done["status"]["observedGeneration"],
        done["metadata"]["generation"]
    );
    assert_eq!(
        done["status"]["conditions"][0]["observedGeneration"],
        done["metadata"]["generation"]
    );

    // What happened has its own event with its own words, and none is said twice; the rungs of the ladder are in the status.
    let said = events(&world, "Canary").await;
    let reasons: Vec<&str> = said.iter().map(|(reason, _, _)| reason.as_str()).collect();
    for reason in ["Initialized", "Started", "Approved", "Promoted", "Finished"] {
        assert!(reasons.contains(&reason), "{reason}: {said:#?}");
    }
    assert!(!reasons.contains(&"Advanced"), "{said:#?}");
    assert!(said.iter().all(|(_, _, count)| *count == 1), "{said:#?}");
    assert_eq!(
        world
            .kube
            .get(routes(&ns, "podinfo"))
            .await
            .map(|vs| vs["kind"].clone()),
        Some(json!("VirtualService"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_the_object_is_taken_back_and_said() {
    let mut world = World::new("canary-edit", proposed, "").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    let key = shown(&ns, "podinfo");
    let settled = |c: Option<&Value>| {
        c.is_some_and(|c| c["status"]["observedGeneration"] == c["metadata"]["generation"])
    };
    let before = world.kube.until(key, "shown", settled).await;
    world
        .kube
        .edit(key, &json!({"spec": {"paused": true, "users": []}}))
        .await;
    let is_back = |c: Option<&Value>| {
        settled(c)
            && c.is_some_and(|c| {
                c["spec"]["users"] == before["spec"]["users"]
                    && c["metadata"]["generation"] != before["metadata"]["generation"]
            })
    };
    world.kube.until(key, "what Git says", is_back).await;
    // A plain object's repair is shown on the object itself.
    let service = ("v1", "Service", ns.as_str(), "podinfo");
    world.kube.until(service, "there", |s| s.is_some()).await;
    world
        .kube
        .edit(service, &json!({"spec": {"selector": {"app": "other"}}}))
        .await;
    for _ in 0..100 {
        let said = events(&world, "Service").await;
        if let [(reason, note, 1)] = &said[..] {
            assert_eq!(reason, "DriftRepaired");
            assert!(
                note.contains("kubectl-edit") && note.contains("spec.selector.app"),
                "{note}"
            );
            return;
        }
        moment(100).await;
    }
    panic!("{:?}", events(&world, "Service").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_git_does_not_have_says_so() {
    let mut world = World::new("stranger", idle, "").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    let ready = |c: Option<&Value>| is(c, "Ready", "True", "");
    world
        .kube
        .until(shown(&ns, "podinfo"), "ready", ready)
        .await;
    let mut stranger: Value = serde_yaml::from_str(&canary(&ns, NEXT, "[]", GATED)).unwrap();
    stranger["metadata"]["name"] = json!("by-hand");
    world.kube.put(&stranger).await;
    let says_so = |c: Option<&Value>| is(c, "Stalled", "True", "NotInGit");
    let found = world
        .kube
        .until(
            shown(&ns, "by-hand"),
            "told that Git does not have it",
            says_so,
        )
        .await;
    assert_eq!(found["status"]["phase"], "Invalid");
    // Once Git has it, it is like any other.
    let text = canary(&ns, "null", "[]", GATED).replace("name: podinfo,", "name: by-hand,");
    let someone = world.someone("alex");
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: by-hand, namespace: NS}\nspec: {selector: {app: by-hand}, ports: [{port: 9898}]}\n";
    let app = super::world::app(&ns)
        .split("---")
        .next()
        .unwrap()
        .replace("podinfo", "by-hand");
    let text = text
        .replace("deployment: podinfo", "deployment: by-hand")
        .replace("service: podinfo", "service: by-hand")
        .replace("hosts: [podinfo]", "hosts: [by-hand]");
    someone.insist("another one", &|| {
        someone.write("apps/by-hand/canary.yaml", &text);
        someone.write("apps/by-hand/service.yaml", service.replace("NS", &ns));
        someone.write("apps/by-hand/app.yaml", &app);
    });
    world
        .kube
        .until(shown(&ns, "by-hand"), "ready", ready)
        .await;
}

/// A VirtualService of somebody else's.
fn by_hand(namespace: &str, name: &str, host: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"hosts": [host], "http": [{"route": [{"destination": {"host": host}}]}]},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_that_somebody_else_made_are_left_until_they_are_offered() {
    for (test, name, host) in [
        ("same-name", "podinfo", "podinfo"),
        ("same-host", "by-hand", "podinfo"),
    ] {
        let mut world = World::new(test, idle, "").await;
        let ns = world.namespace.clone();
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns}});
        world.kube.put(&namespace).await;
        world.kube.put(&by_hand(&ns, name, host)).await;
        let mut serin = world.serin();
        serin.says("was not made by Serin");
        let stalled = |c: Option<&Value>| is(c, "Stalled", "True", "ApplyFailed");
        let found = world
            .kube
            .until(shown(&ns, "podinfo"), "stalled", stalled)
            .await;
        let words = found["status"]["message"].as_str().unwrap();
        assert!(words.contains("serin.dev/adopt"), "{words}");
        let theirs = world.kube.get(routes(&ns, name)).await.unwrap();
        assert_eq!(theirs["spec"], by_hand(&ns, name, host)["spec"]);
        let offer = json!({"metadata": {"annotations": {"serin.dev/adopt": "true"}}});
        world.kube.edit(routes(&ns, name), &offer).await;
        let is_ours = |vs: Option<&Value>| {
            vs.is_some_and(|vs| vs["metadata"]["annotations"]["serin.dev/sequence"].is_string())
        };
        world
            .kube
            .until(routes(&ns, "podinfo"), "taken over", is_ours)
            .await;
        let ready = |c: Option<&Value>| is(c, "Ready", "True", "");
        world
            .kube
            .until(shown(&ns, "podinfo"), "ready", ready)
            .await;
    }
}
