//! Two replicas share the namespaces of one repository.

use std::collections::BTreeMap;

use serde_json::Value;
use serin::lease::Share;

use super::world::idle;
use crate::git::rig::Rig;
use crate::rig::{Client, control_plane, routes};
use crate::support::serin::{Serin, Start};

/// One namespace for each of two shares.
fn namespaces(kube: &Client) -> Vec<String> {
    let mut found = BTreeMap::new();
    while found.len() < 2 {
        let name = kube.namespace("shards");
        let share = Share::all(2).position(|share| share.has(&name)).unwrap();
        found.entry(share).or_insert(name);
    }
    found.into_values().collect()
}

fn start(git: &Rig, group: &str, identity: &str) -> Serin {
    let config = format!(
        "\
repositories: [{{url: '{}', branch: main, poll: 1s, pushInterval: 1s, shards: 2, name: apps}}]
prometheus: {{url: 'http://127.0.0.1:9'}}
leases: {{namespace: default, name: {group}}}
cluster: {{kubeconfig: '{}'}}
",
        git.remote().display(),
        control_plane().admin().display(),
    );
    let path = git.path(&format!("{identity}.yaml"));
    std::fs::write(&path, config).unwrap();
    let mut start =
        Start::with_config(&git.path(""), identity, &path).args(&["--identity", identity]);
    start.start()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_share_the_namespaces_of_a_repository() {
    let plane = tokio::task::spawn_blocking(control_plane).await.unwrap();
    let kube = plane.client().await;
    let both = namespaces(&kube);
    let mut files: Vec<(String, String)> = Vec::new();
    for namespace in &both {
        let own = idle(namespace).into_iter();
        files.extend(own.map(|(path, text)| (path.replace("apps/podinfo", namespace), text)));
    }
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    let git = Rig::with(&files);
    let group = both[0].clone();
    let mut one = start(&git, &group, "one");
    let mut two = start(&git, &group, "two");
    for namespace in &both {
        let there = |found: Option<&Value>| found.is_some();
        kube.until(routes(namespace, "podinfo"), "there", there)
            .await;
    }
    // Each of them has one share: what it holds a Lease for is told.
    one.says("works on other repositories from now on");
    two.says("works on other repositories from now on");
    let held = |name: &'static str| {
        let key = ("coordination.k8s.io/v1", "Lease", "default", name);
        let kube = &kube;
        async move {
            let lease = kube.get(key).await;
            lease.and_then(|l| Some(l["spec"]["holderIdentity"].as_str()?.to_owned()))
        }
    };
    let leases: [&'static str; 2] = [
        Box::leak(format!("{group}-apps").into_boxed_str()),
        Box::leak(format!("{group}-apps.2").into_boxed_str()),
    ];
    let begun = std::time::Instant::now();
    loop {
        let holders = [held(leases[0]).await, held(leases[1]).await];
        if holders[0].is_some() && holders[1].is_some() && holders[0] != holders[1] {
            break;
        }
        assert!(begun.elapsed().as_secs() < 60, "{holders:?}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let log = git.server(&["log", "--format=%s", "main"]);
    for namespace in &both {
        let subject = format!("canary({namespace}/podinfo): initialize");
        let count = log.lines().filter(|line| **line == subject).count();
        assert_eq!(count, 1, "{log}");
    }
    // One goes: the other keeps both namespaces.
    assert!(one.stop().success());
    for namespace in &both {
        let key = routes(namespace, "podinfo");
        let before = kube.get(key).await.unwrap();
        kube.delete(key).await;
        let again = |found: Option<&Value>| {
            found.is_some_and(|vs| vs["metadata"]["uid"] != before["metadata"]["uid"])
        };
        kube.until(key, "back", again).await;
    }
    assert!(two.stop().success());
}
