//! Somebody edits the weight in the cluster: what counts is what requests notice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bed::Bed;
use crate::load::{Answer, Load, Visitor, expect_no_failure};
use crate::rig::routes;
use crate::site::{NEW, Site, moment};

/// Until no request follows the edit any more.
const LIMIT: Duration = Duration::from_secs(2);

/// `kubectl edit` from 0 to 100 % while only named users are to get the candidate.
pub(crate) async fn an_edited_weight(bed: Arc<Bed>) {
    let mut site = Site::new(&bed, "hands").await;
    let serin = site.serin();
    site.serves().await;
    let someone = site.someone("dana");
    let users = "[{header: x-user, exact: [dana]}]";
    let wish = site.wish().candidate(NEW).users(users).gated();
    let pushed = site.commit(&someone, "Propose 6.9.0 to myself", &wish);
    let visitors = vec![
        Visitor::anybody(),
        Visitor::anybody(),
        Visitor::new("dana", &[("x-user", b"dana")]),
    ];
    let load = Load::start(&site.target(), 300, visitors);
    load.first(
        pushed,
        Duration::from_secs(30),
        "routed to the candidate",
        Answer::is_canary,
    )
    .await;
    moment(1000).await;
    let head = site.git.head();
    let key = routes(&site.namespace, "podinfo");
    let mut edits = Vec::new();
    for _ in 0..5 {
        let mut found = site.kube.get(key).await.unwrap();
        let http = found["spec"]["http"].as_array_mut().unwrap();
        let last = http.last_mut().unwrap();
        for destination in last["route"].as_array_mut().unwrap() {
            let is_canary = destination["destination"]["subset"] == "canary";
            destination["weight"] = json!(if is_canary { 100 } else { 0 });
        }
        let edited = json!({"spec": {"http": http}});
        edits.push(Instant::now());
        site.kube.edit(key, &edited).await;
        moment(2500).await;
    }
    let answers = load.stop().await;
    expect_no_failure(&answers);
    let everybody: Vec<&Answer> = answers.iter().filter(|a| &*a.who == "anybody").collect();
    for edit in &edits {
        let until = *edit + LIMIT + Duration::from_millis(500);
        let astray = everybody
            .iter()
            .filter(|a| a.sent >= *edit && a.sent < until && a.is_canary());
        let astray: Vec<Duration> = astray.map(|a| a.sent - *edit).collect();
        println!(
            "hands_off: {} requests followed the edit, the last {:.0?} after it",
            astray.len(),
            astray.last().copied().unwrap_or_default()
        );
        assert!(astray.iter().all(|after| *after < LIMIT), "{astray:?}");
    }
    // The edits were made, and undone.
    let seen = site.seen();
    let undone = seen
        .windows(2)
        .filter(|two| two[0].weight() == Some(100) && two[1].weight() == Some(0))
        .count();
    assert_eq!(undone, edits.len(), "{seen:#?}");
    assert_eq!(
        site.git.head(),
        head,
        "an edit in the cluster is no reason for a commit"
    );
    let log = serin.log();
    assert!(log.contains("kubectl-edit"), "{log}");
}
