//! People change their minds in the middle of a rollout: requests go where the newest commit says, and none fails on the way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bed::Bed;
use crate::load::{Answer, Load, Visitor, expect_no_failure};
use crate::rig::routes;
use crate::site::{CANARY, NEW, OLD, Site, moment};

/// From a weight in the cluster until Envoy surely has it.
const ON_THE_WAY: Duration = Duration::from_millis(500);
/// Half of the requests, until somebody decides.
const HALF: &str = "[{weight: 50, approval: {}}, {weight: 100, hold: 1s}]";

/// The Canary is removed at 50 %: all goes back to stable, then what was generated goes.
pub(crate) async fn canary_removed(bed: Arc<Bed>) {
    let mut site = Site::new(&bed, "removed").await;
    let _serin = site.serin();
    site.serves().await;
    let load = Load::start(&site.target(), 200, vec![Visitor::anybody()]);
    let someone = site.someone("dana");
    let wish = site.wish().candidate(NEW).ladder(HALF);
    site.commit(&someone, "Propose 6.9.0", &wish);
    site.weighs(50).await;
    moment(2000).await;
    let removed = Instant::now();
    someone.insist("We do without canaries", &|| someone.remove(CANARY));
    site.without_candidate().await;
    let gone = |found: Option<&serde_json::Value>| found.is_none();
    let key = routes(&site.namespace, "podinfo");
    site.kube.until(key, "gone", gone).await;
    let rule = (
        "networking.istio.io/v1",
        "DestinationRule",
        site.namespace.as_str(),
        "podinfo",
    );
    site.kube.until(rule, "gone", gone).await;
    moment(2000).await;
    let answers = load.stop().await;
    expect_no_failure(&answers);
    // Without routes the Service leads to every pod that it selects: by then there are none of the candidate's.
    let back = site.when(0, removed).unwrap() + ON_THE_WAY;
    let after: Vec<&Answer> = answers.iter().filter(|a| a.sent > back).collect();
    assert!(after.len() > 100, "{}", after.len());
    let still = after.iter().filter(|answer| answer.version != OLD).count();
    assert_eq!(
        still,
        0,
        "of {} requests after the weight was 0",
        after.len()
    );
}

/// A newer version is proposed at 50 %: nobody gets it before it has a weight of its own.
pub(crate) async fn newer_candidate(bed: Arc<Bed>) {
    let mut site = Site::new(&bed, "newer").await;
    let _serin = site.serin();
    site.serves().await;
    let load = Load::start(&site.target(), 200, vec![Visitor::anybody()]);
    let someone = site.someone("dana");
    let wish = site.wish().candidate(NEW).ladder(HALF);
    site.commit(&someone, "Propose 6.9.0", &wish);
    site.weighs(50).await;
    moment(1500).await;
    let proposed = site.commit(
        &someone,
        "Propose 6.10.0 instead",
        &wish.candidate("6.10.0"),
    );
    site.weighs(0).await;
    site.weighs(50).await;
    moment(1500).await;
    let answers = load.stop().await;
    expect_no_failure(&answers);
    let back = site.when(0, proposed).unwrap();
    let again = site.when(50, back).unwrap();
    let early = answers
        .iter()
        .filter(|a| a.version == "6.10.0" && a.sent + a.took < again);
    assert_eq!(early.count(), 0, "6.10.0 got requests that were 6.9.0's");
    let between = answers
        .iter()
        .filter(|a| a.sent > back + ON_THE_WAY && a.sent + a.took < again);
    assert!(between.clone().all(|answer| answer.version == OLD));
    let late = answers.iter().filter(|a| a.sent > again + ON_THE_WAY);
    assert!(late.clone().all(|answer| answer.version != NEW));
    assert!(late.clone().any(|answer| answer.version == "6.10.0"));
}
