//! How long things take, in requests. Printed, never asserted:
//! `cargo test --test mesh -- numbers`. With `UPDATE_RESULTS=1` they are written into `RESULTS.md`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bed::{Bed, DEBOUNCE};
use crate::chance::spread;
use crate::load::{Answer, Load, Visitor};
use crate::pods::Behaviour;
use crate::results::record;
use crate::rig::{free_port, sends};
use crate::site::{Manner, Site, moment};

/// Commits that each give another user the candidate.
const COMMITS: usize = 40;
/// Rollouts for each share of failures.
const ROLLOUTS: usize = 3;
/// Shared with the forge.
const SECRET: &str = "of the tests";

/// A person's commit is pushed, the forge's webhook is sent: until the first request is routed by it, and how much of
/// that is from the changed VirtualService on, which is istiod's and Envoy's.
pub(crate) async fn commit_to_request(bed: Arc<Bed>) {
    let mut table = "| | tries | p50 | p99 |\n|---|---|---|---|\n".to_owned();
    for (debounce, what) in [("100ms", "as shipped"), (DEBOUNCE, "as in these tests")] {
        bed.plane().kill("istiod");
        bed.ground.start_istiod(debounce);
        bed.ground.ready().await;
        let (all, istio) = commits(&bed).await;
        let patience = format!("`PILOT_DEBOUNCE_AFTER={debounce}`, {what}");
        for (what, times) in [
            ("push accepted to first request that is routed so", all),
            ("of that Istio's: VirtualService changed to first request", istio),
        ] {
            writeln!(table, "| {patience}: {what} | {} |", spread(times)).unwrap();
        }
    }
    record("commit", &table);
}

async fn commits(bed: &Arc<Bed>) -> (Vec<Duration>, Vec<Duration>) {
    let mut site = Site::new(bed, "commits").await;
    let port = free_port();
    let secret = site.git.path("secret");
    std::fs::write(&secret, SECRET).unwrap();
    site.behave(&Manner {
        repository: format!(
            ", poll: 30s, pushInterval: 100ms, name: apps, webhook: {{secretFile: '{}'}}",
            secret.display()
        ),
        more: format!("listen: 127.0.0.1:{port}\n"),
        ..Manner::default()
    });
    let _serin = site.serin();
    site.serves().await;
    let someone = site.someone("alex");
    let wish = site.wish().candidate("6.9.0").gated();
    site.commit(&someone, "Propose 6.9.0 to nobody", &wish);
    wake(port).await;
    site.has_candidate(1).await;
    // Until the step that lets users in.
    moment(2000).await;
    let target = site.target();
    let (mut all, mut istio) = (Vec::new(), Vec::new());
    for index in 0..COMMITS {
        let name = format!("user-{index}");
        let users = format!("[{{header: x-user, exact: [{name}]}}]");
        let pushed = site.commit(&someone, &format!("Let {name} try it"), &wish.clone().users(&users));
        wake(port).await;
        let visitor = Visitor::new(&name, &[("x-user", name.as_bytes())]);
        let routed = loop {
            let answer = target.ask(&visitor).await;
            if answer.is_canary() {
                break answer.sent;
            }
            assert!(pushed.elapsed() < Duration::from_secs(30), "{name} is never routed");
        };
        // The watch tells a moment later than the server stores: a millisecond or two of Istio's share are missing.
        moment(50).await;
        let seen = site.seen();
        let shown = seen
            .iter()
            .find(|seen| seen.object.as_ref().is_some_and(|object| sends(object, &name)))
            .unwrap();
        all.push(routed - pushed);
        istio.push(routed.saturating_duration_since(shown.at));
        // The next one is not helped by this one's wake.
        moment(300).await;
    }
    (all, istio)
}

/// What a forge does after a push.
async fn wake(port: u16) {
    let client = reqwest::Client::new();
    let sent = client
        .post(format!("http://127.0.0.1:{port}/hook/apps"))
        .header("x-gitlab-token", SECRET)
        .send()
        .await
        .unwrap();
    assert!(sent.status().is_success(), "{sent:?}");
}

/// A candidate with a tenth of 200 requests a second begins to fail: until no request reaches it any more.
pub(crate) async fn failure_to_zero(bed: Arc<Bed>) {
    let mut site = Site::new(&bed, "failure").await;
    let _serin = site.serin();
    site.serves().await;
    let someone = site.someone("dana");
    let mut version = 0;
    let mut table = "| Failures | rollouts | p50 | p99 | failed requests of each |\n|---|---|---|---|---|\n".to_owned();
    for failing in [1.0, 0.2, 0.05] {
        let (mut times, mut failures) = (Vec::new(), Vec::new());
        for _ in 0..ROLLOUTS {
            version += 1;
            let tag = format!("7.0.{version}");
            let ladder = "[{weight: 10, hold: 10m}, {weight: 100, hold: 1m}]";
            let wish = site.wish().candidate(&tag).ladder(ladder);
            let load = Load::start(&site.target(), 200, vec![Visitor::anybody()]);
            site.commit(&someone, &format!("Propose {tag}"), &wish);
            site.weighs(10).await;
            moment(8000).await;
            let failing = Behaviour {
                failing,
                ..Behaviour::default()
            };
            bed.pods.behave(&site.namespace, &tag, failing);
            let began = Instant::now();
            site.without_candidate().await;
            let answers = load.stop().await;
            let last = answers.iter().filter(|a| a.is_canary()).map(|a| a.sent).max();
            times.push(last.unwrap().saturating_duration_since(began));
            failures.push(answers.iter().filter(|a: &&Answer| a.failed()).count());
        }
        writeln!(
            table,
            "| {:.0} % | {} | {} |",
            failing * 100.0,
            spread(times),
            failures.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
        )
        .unwrap();
    }
    record("failure", &table);
}
