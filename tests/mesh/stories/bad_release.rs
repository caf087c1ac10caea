//! A version that fails a little is taken back by itself, and Git tells why.

use std::sync::Arc;
use std::time::Instant;

use crate::bed::Bed;
use crate::load::{Load, Visitor};
use crate::pods::Behaviour;
use crate::site::{NEW, OLD, Site, moment};

/// One request in twenty fails from the moment that a tenth of them reach the candidate.
pub(crate) async fn at_ten_per_cent(bed: Arc<Bed>) {
    let mut site = Site::new(&bed, "bad").await;
    let _serin = site.serin();
    site.serves().await;
    let load = Load::start(&site.target(), 200, vec![Visitor::anybody()]);
    let failing = Behaviour {
        failing: 0.05,
        ..Behaviour::default()
    };
    bed.pods.behave(&site.namespace, NEW, failing);
    let someone = site.someone("dana");
    // Long enough at 10 % to see that nobody waits for the hold to pass.
    let ladder = "[{weight: 10, hold: 10m}, {weight: 100, hold: 1m}]";
    let wish = site.wish().candidate(NEW).ladder(ladder);
    site.commit(&someone, "Propose 6.9.0", &wish);
    site.weighs(10).await;
    let began = Instant::now();
    site.weighs(0).await;
    let took = began.elapsed();
    site.without_candidate().await;
    let head = site.git.head();
    moment(3000).await;
    let answers = load.stop().await;

    let failed = answers.iter().filter(|answer| answer.failed()).count();
    let asked = answers.iter().filter(|answer| answer.is_canary()).count();
    println!(
        "bad_release: 5 % failures at 10 %: weight 0 after {took:.1?}, {failed} failed requests of {asked} that got it, of {} in all",
        answers.len()
    );
    assert!(failed > 0);
    // Only the candidate fails: a step that routes to nowhere would show here.
    let others = answers.iter().filter(|a| a.failed() && !a.is_canary());
    assert_eq!(others.count(), 0);
    assert!(
        answers
            .iter()
            .rev()
            .take(200)
            .all(|a| a.version == OLD && !a.failed())
    );
    let why = site.told("roll back 10% -> 0%");
    assert!(why.contains("Serin-Verdict: fail"), "{why}");
    assert!(why.contains("Serin-Metric: success-rate"), "{why}");
    println!("bad_release: Git says:\n{why}");
    // It is not tried again, and nothing has to be taken back.
    assert_eq!(site.git.head(), head);
    let manifest = String::from_utf8(site.git.file(crate::site::APP)).unwrap();
    assert!(
        manifest.contains(OLD) && !manifest.contains(NEW),
        "{manifest}"
    );
}
