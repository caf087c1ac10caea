//! Stable's live number of replicas, which an autoscaler may have asked for, is what the candidate gets its share of.

use serde_json::{Value, json};

use super::world::{APP, CANARY, NEXT, World, app, canary, idle};
use crate::rig::{deployment, routes, weight};

/// The application as people write it whose replicas are an autoscaler's business.
fn autoscaled(namespace: &str) -> Vec<(String, String)> {
    let mut files = idle(namespace);
    for (path, text) in &mut files {
        if path == APP {
            *text = app(namespace).replace("  replicas: 2\n", "");
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_gives_the_candidate_its_share() {
    let mut world = World::measured("autoscaled", autoscaled, "").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    let key = routes(&ns, "podinfo");
    world.kube.until(key, "there", |vs| vs.is_some()).await;
    let stable = deployment(&ns, "podinfo");
    let has = |replicas: i64| {
        move |found: Option<&Value>| {
            found.is_some_and(|d| d["status"]["availableReplicas"] == replicas)
        }
    };
    world.kube.until(stable, "running", has(1)).await;
    let scale = |replicas: i64| json!({"spec": {"replicas": replicas}});
    world.kube.edit(stable, &scale(4)).await;
    world.kube.until(stable, "scaled", has(4)).await;

    let someone = world.someone("alex");
    let ladder = "[{weight: 0, hold: 1s}, {weight: 50, hold: 1h}, {weight: 100, hold: 1h}]";
    let text = canary(&ns, NEXT, "[]", ladder);
    world.commit(&someone, "podinfo 6.9.0", CANARY, &text);
    // Pods for the next weight, which is all of it, are there before half of the requests are.
    let half = |found: Option<&Value>| found.is_some_and(|vs| weight(vs) == Some(50));
    world.kube.until(key, "at half", half).await;
    let candidate = deployment(&ns, "podinfo-canary");
    world
        .kube
        .until(candidate, "as large as stable", has(4))
        .await;

    world.kube.edit(stable, &scale(6)).await;
    world
        .kube
        .until(candidate, "grown with stable", has(6))
        .await;
    world.kube.edit(stable, &scale(2)).await;
    world.kube.until(stable, "smaller", has(2)).await;
    let log = world.git.server(&["log", "-1", "--format=%B", "main"]);
    assert!(
        log.contains("Stable has 6 replicas now: podinfod=6.9.0 gets 6 instead of 4"),
        "{log}"
    );
    let kept = world.kube.get(candidate).await.unwrap();
    assert_eq!(kept["spec"]["replicas"], 6, "{kept:#}");
}
