//! How long repairs take. The figures are printed, never asserted:
//! `DRIFT_TRIES=100 cargo test --test suite -- --nocapture cluster::numbers`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::world::{World, idle, moment};
use crate::rig::{deployment, routes};

/// How often each thing is tried.
fn tries() -> usize {
    let asked = std::env::var("DRIFT_TRIES").ok();
    asked.map_or(5, |text| text.parse().unwrap())
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    eprintln!(
        "{what}: {} tries, p50 {:?}, p99 {:?}",
        times.len(),
        at(0.5),
        at(0.99)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn repairs() {
    let mut world = World::new("numbers", idle, "").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    let key = routes(&ns, "podinfo");
    let before = world.kube.until(key, "there", |vs| vs.is_some()).await;
    let is_back = |vs: Option<&Value>| vs.is_some_and(|vs| vs["spec"] == before["spec"]);
    let (mut edits, mut deletions) = (Vec::new(), Vec::new());
    for _ in 0..tries() {
        moment(100).await;
        let mut edited = before["spec"]["http"].clone();
        edited[0]["timeout"] = json!("1s");
        world
            .kube
            .edit(key, &json!({"spec": {"http": edited}}))
            .await;
        let begun = Instant::now();
        world.kube.until(key, "what it was", is_back).await;
        edits.push(begun.elapsed());
        moment(100).await;
        world.kube.delete(key).await;
        let begun = Instant::now();
        world.kube.until(key, "what it was", is_back).await;
        deletions.push(begun.elapsed());
    }
    print("an edited VirtualService is what Git says again", edits);
    print("a deleted VirtualService is there again", deletions);

    let namespace = ("v1", "Namespace", "", ns.as_str());
    let mut restored = Vec::new();
    for _ in 0..tries().div_ceil(10) {
        let old = world.kube.get(namespace).await.unwrap()["metadata"]["uid"].clone();
        world.kube.delete(namespace).await;
        let is_gone =
            |found: Option<&Value>| found.is_none_or(|found| found["metadata"]["uid"] != old);
        world.kube.until(namespace, "gone", is_gone).await;
        let begun = Instant::now();
        world
            .kube
            .until(deployment(&ns, "podinfo"), "there again", |d| d.is_some())
            .await;
        world.kube.until(key, "there again", is_back).await;
        restored.push(begun.elapsed());
        let runs =
            |found: Option<&Value>| found.is_some_and(|d| d["status"]["availableReplicas"] == 2);
        world
            .kube
            .until(deployment(&ns, "podinfo"), "running", runs)
            .await;
    }
    print(
        "everything is back after a namespace is really gone",
        restored,
    );
}
