//! The cluster is lost at 60 %: a new one with the same repository comes up at 60 %.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bed::{Bed, Ground};
use crate::chance::fits;
use crate::envoy::{Envoy, Role};
use crate::load::{Answer, Load, Target, Visitor};
use crate::rig::{deployment, free_port, routes, weight};
use crate::site::{CANARY, Manner, NEW, Site, image, moment, start_of};
use crate::stories::kinds::gateway_yaml;

/// Until the new cluster answers requests, after Serin was started on it.
const LIMIT: Duration = Duration::from_secs(60);

/// A fresh control plane, a fresh Serin, an old repository.
pub(crate) async fn at_sixty_per_cent(bed: Arc<Bed>) {
    let port = free_port();
    let host = "rebuilt.example.com";
    let more = |namespace: &str| {
        let gateway = gateway_yaml(namespace, "rebuilt", port);
        vec![("apps/podinfo/gateway.yaml".to_owned(), gateway)]
    };
    let mut site = Site::with(&bed, "rebuilt", Manner::default(), &more).await;
    let serin = site.serin();
    site.serves().await;
    let load = Load::start(&site.target(), 100, vec![Visitor::anybody()]);
    let someone = site.someone("dana");
    let wish = site
        .wish()
        .candidate(NEW)
        .route(&format!("hosts: [podinfo, {host}], gateways: [mesh, web]"))
        .ladder("[{weight: 10, hold: 1s}, {weight: 60, approval: {}}, {weight: 100, hold: 1s}]");
    site.commit(&someone, "Propose 6.9.0", &wish);
    site.weighs(60).await;
    moment(500).await;
    drop(serin);
    load.stop().await;

    // The old cluster may live on: nobody looks at it any more.
    let ground = Ground::another().await;
    ground.ready().await;
    let kube = ground.plane.client().await;
    bed.pods.follow(kube.0.clone());
    let web = Envoy::start(&ground.plane, "web", &Role::Gateway("rebuilt"), ground.xds);
    web.ready(&ground.plane).await;
    let head = site.git.head();
    let began = Instant::now();
    let mut start = start_of(&bed, &ground.plane, &site.git, "serin-again", &Manner::default());
    let _serin = start.start();
    let key = routes(&site.namespace, "podinfo");
    let first = kube.until_known(key, "there", |found| found.is_some()).await;
    assert_eq!(weight(&first), Some(60), "{first:#}");
    let load = Load::start(&Target::new(port, host), 200, vec![Visitor::anybody()]);
    let answered = load.first(began, LIMIT, "answered", |answer| !answer.failed()).await;
    println!("rebuilt: first answer {:.1?} after Serin was started", answered.sent - began);
    moment(500).await;
    let settled = Instant::now();
    moment(4000).await;
    let answers: Vec<Answer> = load.so_far().into_iter().filter(|a| a.sent > settled).collect();
    let hits = answers.iter().filter(|a| a.is_canary()).count();
    println!("rebuilt: at 60 %: {hits} of {} requests", answers.len());
    assert!(fits(hits, answers.len(), 60), "{hits} of {}", answers.len());
    assert!(answers.iter().all(|a| !a.failed()));
    assert_eq!(site.git.head(), head, "a new cluster is no reason for a commit");

    // It goes on from there.
    let state = "apps/podinfo/podinfo.serin/rollout.yaml";
    someone.insist("Go on", &|| {
        someone.replace(state, "approval: pending", "approval: granted");
        assert!(someone.clone.join(CANARY).exists());
    });
    let promoted = |found: Option<&serde_json::Value>| found.is_some_and(|found| image(found).ends_with(NEW));
    kube.until(deployment(&site.namespace, "podinfo"), "promoted", promoted).await;
    kube.until(deployment(&site.namespace, "podinfo-canary"), "gone", |found| found.is_none()).await;
    let answers = load.stop().await;
    let failed = answers.iter().filter(|a| a.failed() && a.sent > settled);
    assert_eq!(failed.count(), 0);
}
