//! Weights are what requests get, and no request fails because of a step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bed::Bed;
use crate::chance::fits;
use crate::load::{Answer, Load, Visitor, expect_no_failure};
use crate::site::{NEW, OLD, Site, moment};

/// From a weight in the cluster until Envoy surely has it.
const ON_THE_WAY: Duration = Duration::from_millis(500);

/// 0, 10, 60, 100, promoted, cleaned up: the whole way under load.
pub(crate) async fn to_promotion(bed: Arc<Bed>) {
    let mut site = Site::new(&bed, "ladder").await;
    let _serin = site.serin();
    site.serves().await;
    let mut visitors = vec![Visitor::anybody(); 19];
    visitors.push(Visitor::new("alexis", &[("x-user", b"alexis")]));
    let load = Load::start(&site.target(), 200, visitors);
    moment(1500).await;
    let someone = site.someone("alex");
    let users = "[{header: x-user, exact: [alexis]}]";
    let wish = site.wish().candidate(NEW).users(users);
    let began = site.commit(&someone, "Propose 6.9.0, and let me try it", &wish);
    site.promoted(NEW).await;
    moment(1000).await;
    let answers = load.stop().await;

    expect_no_failure(&answers);
    let everybody: Vec<&Answer> = answers.iter().filter(|a| &*a.who == "anybody").collect();
    for (per_cent, next) in [(0, 10), (10, 60), (60, 100), (100, 0)] {
        shares(&site, &everybody, began, per_cent, next);
    }
    // Alexis never goes back, whichever Deployment she meets.
    let hers = answers.iter().filter(|answer| &*answer.who == "alexis");
    let versions: Vec<&str> = hers.map(|answer| answer.version.as_str()).collect();
    let changes = versions.windows(2).filter(|two| two[0] != two[1]).count();
    assert_eq!(changes, 1, "{versions:?}");
    assert_eq!(everybody[0].version, OLD);
    let last = everybody[everybody.len() - 1];
    assert_eq!(
        (last.version.as_str(), last.workload.as_str()),
        (NEW, "podinfo")
    );
    assert_eq!(
        site.steps(),
        [
            "initialize",
            "start podinfod=6.9.0",
            // Its pods are ready: now the named user may come.
            "0% -> 0%",
            "0% -> 10%",
            "10% -> 60%",
            "60% -> 100%",
            "promote podinfod=6.9.0",
            "return 100% -> 0%",
            "finish podinfod=6.9.0",
        ]
    );
    assert_eq!(bed.client.rejections().await, 0);
}

/// What everybody got between a weight and the next, as the cluster showed them.
fn shares(site: &Site, answers: &[&Answer], began: Instant, per_cent: i64, next: i64) {
    let from = if per_cent == 0 {
        began
    } else {
        let shown = site.when(per_cent, began);
        shown.unwrap_or_else(|| panic!("never at {per_cent} %")) + ON_THE_WAY
    };
    let until = site.when(next, from).unwrap();
    let window: Vec<&&Answer> = answers
        .iter()
        .filter(|answer| answer.sent >= from && answer.sent + answer.took < until)
        .collect();
    let hits = window.iter().filter(|answer| answer.is_canary()).count();
    println!(
        "ladder: at {per_cent} %: {hits} of {} requests",
        window.len()
    );
    assert!(
        window.len() > 50 || per_cent == 0,
        "only {} requests at {per_cent} %",
        window.len()
    );
    assert!(
        fits(hits, window.len(), per_cent),
        "at {per_cent} % the candidate got {hits} of {}",
        window.len()
    );
}
