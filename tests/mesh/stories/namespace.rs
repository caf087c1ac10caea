//! Somebody deletes the namespace under load: it comes back as Git says, and the outage is nobody's fault.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bed::Bed;
use crate::chance::fits;
use crate::load::{Answer, Load, Visitor};
use crate::rig::{deployment, routes};
use crate::site::{NEW, OLD, Site, moment};

/// Until everything is back and answers, once the old one is gone.
const LIMIT: Duration = Duration::from_secs(20);

/// Nothing is rolled out.
pub(crate) async fn deleted_idle(bed: Arc<Bed>) {
    let mut site = Site::new(&bed, "idle").await;
    let _serin = site.serin();
    site.serves().await;
    let load = Load::start(&site.target(), 50, vec![Visitor::anybody()]);
    moment(500).await;
    let head = site.git.head();
    let (gone, back) = delete(&site).await;
    let first = load
        .first(back, LIMIT, "answered again", |a| !a.failed())
        .await;
    moment(2000).await;
    let answers = load.stop().await;
    report("idle", gone, &first, &answers);
    let after: Vec<&Answer> = answers
        .iter()
        .filter(|a| a.sent > first.sent + Duration::from_secs(1))
        .collect();
    assert!(after.len() > 20);
    assert!(
        after.iter().all(|a| !a.failed() && a.version == OLD),
        "{after:#?}"
    );
    assert_eq!(
        site.git.head(),
        head,
        "nothing of that is a reason for a commit"
    );
}

/// 10 % is held when it happens.
pub(crate) async fn deleted_in_the_middle_of_a_step(bed: Arc<Bed>) {
    let mut site = Site::new(&bed, "middle").await;
    let _serin = site.serin();
    site.serves().await;
    let load = Load::start(&site.target(), 150, vec![Visitor::anybody()]);
    let someone = site.someone("dana");
    let ladder = "[{weight: 30, hold: 12s}, {weight: 100, hold: 2s}]";
    site.commit(
        &someone,
        "Propose 6.9.0",
        &site.wish().candidate(NEW).ladder(ladder),
    );
    site.weighs(30).await;
    moment(3000).await;
    let steps = site.steps();
    let (gone, back) = delete(&site).await;
    let first = load
        .first(back, LIMIT, "answered again", |a| !a.failed())
        .await;
    let same = site.weighs(30).await;
    assert_eq!(site.steps(), steps, "{same:#}");
    moment(1000).await;
    // The new version is as healthy as before: the outage is not held against it, nor do its seconds count for it.
    let settled = Instant::now();
    site.weighs(100).await;
    let stepped = Instant::now();
    println!(
        "namespace: the next step came {:.1?} after everything was back",
        stepped - back
    );
    site.promoted(NEW).await;
    let answers = load.stop().await;
    report("in the middle of a step", gone, &first, &answers);
    assert!(
        stepped - back > Duration::from_secs(8),
        "the outage counted as time at this weight"
    );
    let window: Vec<&Answer> = answers
        .iter()
        .filter(|a| a.sent > settled && a.sent + a.took + Duration::from_millis(200) < stepped)
        .collect();
    let hits = window.iter().filter(|a| a.is_canary()).count();
    println!(
        "namespace: back at 30 %: {hits} of {} requests",
        window.len()
    );
    assert!(fits(hits, window.len(), 30), "{hits} of {}", window.len());
    let failed = answers.iter().filter(|a| a.failed() && a.sent > settled);
    assert_eq!(failed.count(), 0);
    let steps = site.steps();
    let repeated = steps
        .iter()
        .filter(|step| step.contains("0% -> 30%"))
        .count();
    assert_eq!(repeated, 1, "{steps:?}");
}

/// Deletes the namespace; answers when it was gone and when its Deployment was available again.
async fn delete(site: &Site) -> (Instant, Instant) {
    let namespace = site.namespace.as_str();
    let key = ("v1", "Namespace", "", namespace);
    let uid = |found: Option<&Value>| found.map(|found| found["metadata"]["uid"].clone());
    let before = uid(site.kube.get(key).await.as_ref());
    site.kube.delete(key).await;
    let is_another = |found: Option<&Value>| found.is_none() || uid(found) != before;
    site.kube.until(key, "gone", is_another).await;
    let gone = Instant::now();
    let there = |found: Option<&Value>| found.is_some();
    site.kube
        .until(routes(namespace, "podinfo"), "there again", there)
        .await;
    let runs = |found: Option<&Value>| {
        found.is_some_and(|found| found["status"]["availableReplicas"] == 2)
    };
    site.kube
        .until(deployment(namespace, "podinfo"), "running again", runs)
        .await;
    let labelled = site.kube.get(key).await.unwrap();
    assert_eq!(labelled["metadata"]["labels"]["istio-injection"], "enabled");
    (gone, Instant::now())
}

fn report(what: &str, gone: Instant, first: &Answer, answers: &[Answer]) {
    let failed = answers.iter().filter(|a| a.failed()).count();
    println!(
        "namespace: {what}: first answer {:.0?} after the namespace was gone, {failed} of {} requests failed",
        first.sent.saturating_duration_since(gone),
        answers.len()
    );
}
