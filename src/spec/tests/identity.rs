//! What a canary is read as: versions, candidates, defaults.

use std::time::Duration;

use serde_json::json;

use super::super::{
    CanaryReplicas, CandidateContent, Freeze, Metric, MetricSource, OnFailure, OnInconclusive,
    Protocol, Reporter, UserSource, Workload,
};
use super::{DEPLOYMENT, SERVICE, SPEC, canary, proposal, read, read_spec, sound, told};
use crate::domain::{Revision, Weight};

fn proposing(candidate: &str) -> super::Catalog {
    read_spec(&format!("{SPEC}\ncandidate: {candidate}\n"))
}

#[test]
fn defaults_are_what_the_documentation_says() {
    let catalog = read_spec(SPEC);
    let canary = sound(&catalog);
    assert_eq!(canary.route.hosts, ["podinfo"]);
    assert_eq!(canary.route.gateways, [""; 0]);
    assert_eq!(
        canary.route.protocol,
        Protocol::Http(serde_json::Map::new())
    );
    let analysis = &canary.analysis;
    assert_eq!(analysis.every, Duration::from_secs(15));
    assert_eq!(
        analysis.metrics,
        [Metric {
            name: "success-rate".into(),
            source: MetricSource::SuccessRate { min: 99.0 },
            min_requests: None
        }]
    );
    assert_eq!(analysis.on_failure, OnFailure::Rollback);
    assert_eq!(analysis.on_inconclusive, OnInconclusive::Hold);
    assert_eq!(analysis.reporter, Reporter::Destination);
    assert!(analysis.compare && !analysis.skip);
    assert!((analysis.alpha - 0.01).abs() < f64::EPSILON);
    assert_eq!(analysis.deadline, None);
    assert_eq!(canary.proposal, None);
    let Workload::Managed(managed) = &canary.workload else {
        panic!("managed");
    };
    assert_eq!(managed.replicas, CanaryReplicas::Proportional);
    assert_eq!(managed.stable_value.as_deref(), Some("stable"));
}

#[test]
fn the_example_of_the_documentation_is_read_as_it_says() {
    let catalog = read_spec(
        "
workload: {deployment: podinfo, replicas: 2}
candidate:
  images: {podinfod: ghcr.io/stefanprodan/podinfo:6.9.0}
route:
  service: podinfo
  port: 9898
  hosts: [podinfo, podinfo.example.com]
  gateways: [mesh, podinfo-gateway]
  http: {timeout: 5s, retries: {attempts: 2}}
  trafficPolicy: {}
users:
- {header: X-User, exact: [alexis, stefan]}
- {cookie: user, exact: [alexis]}
ladder:
- {weight: 0, approval: {}}
- {from: 10, by: 20, to: 45, hold: 1m30s}
- {weight: 100, hold: 2m}
analysis:
  every: 15s
  metrics:
  - {name: success-rate, min: 99}
  - {name: latency, quantile: 0.9, max: 500ms}
  - {name: queue, query: 'sum(x{ns=\"{{ namespace }}\", w=\"{{workload}}\"})', max: 100, minRequests: 50}
  compare: {alpha: 0.05}
  onFailure: hold
  onInconclusive: promote
  deadline: 1h
rollbackWindow: 30m
freeze:
- {from: 2026-12-24T18:00:00+01:00, to: '2026-12-27T08:00:00Z'}
- {days: [sun, sat], from: 16:00, to: 08:00, utcOffset: '+01:00'}
",
    );
    assert_eq!(told(&catalog), "-> test/podinfo fine\n");
    let canary = sound(&catalog);
    let weights: Vec<_> = canary
        .ladder
        .iter()
        .map(|rung| (rung.weight.percent(), rung.hold.as_secs(), rung.approval))
        .collect();
    assert_eq!(
        weights,
        [
            (0, 0, true),
            (10, 90, false),
            (30, 90, false),
            (45, 90, false),
            (100, 120, false)
        ]
    );
    assert_eq!(canary.users[0].source, UserSource::Header("x-user".into()));
    assert_eq!(canary.users[1].source, UserSource::Cookie("user".into()));
    assert_eq!(canary.analysis.metrics.len(), 3);
    assert_eq!(
        canary.analysis.metrics[1].source,
        MetricSource::Latency {
            quantile: 0.9,
            max: Duration::from_millis(500)
        }
    );
    assert_eq!(
        canary.controls.rollback_window,
        Some(Duration::from_secs(1800))
    );
    assert_eq!(
        canary.controls.freeze,
        [
            Freeze::Between {
                from: "2026-12-24T17:00:00Z".parse().unwrap(),
                to: "2026-12-27T08:00:00Z".parse().unwrap()
            },
            Freeze::Weekly {
                days: vec![5, 6],
                from: 960,
                to: 480,
                offset: 60
            }
        ]
    );
    let proposal = proposal(&catalog);
    assert_eq!(proposal.summary, "podinfod=6.9.0");
    assert_eq!(canary.stable.summary, "podinfod=6.8.0");
    assert!(!proposal.older_than_stable);
    assert_ne!(proposal.yields, canary.stable.revision);
}

#[test]
fn mirrors_and_matches_are_steps() {
    let catalog = read_spec(
        "
workload: {deployment: podinfo}
route: {service: podinfo}
ladder: [{weight: 0, mirror: 20}, {weight: 0, match: [{headers: {x-beta: {exact: '1'}}}]}, {weight: 5, mirror: 0}]
",
    );
    let ladder = &sound(&catalog).ladder;
    assert_eq!(ladder[0].mirror, Weight::new(20));
    assert_eq!(
        ladder[1].matches,
        [json!({"headers": {"x-beta": {"exact": "1"}}})]
    );
    assert_eq!(ladder[2].mirror, None);
}

#[test]
fn a_candidate_is_what_the_user_wrote() {
    let catalog = proposing("{images: {podinfod: 'ghcr.io/stefanprodan/podinfo:6.9.0'}}");
    let written = json!({"images": {"podinfod": "ghcr.io/stefanprodan/podinfo:6.9.0"}});
    assert_eq!(proposal(&catalog).revision, Revision::of(&written));
    let consenting =
        proposing("{allowOlder: true, images: {podinfod: 'ghcr.io/stefanprodan/podinfo:6.9.0'}}");
    assert_eq!(proposal(&consenting).revision, Revision::of(&written));
    let patched = proposing("{patch: {spec: {terminationGracePeriodSeconds: 5}}}");
    assert_eq!(proposal(&patched).summary, "patch");
    assert!(matches!(
        &proposal(&patched).content,
        CandidateContent::Template { images, patch: Some(_) } if images.is_empty()
    ));
}

#[test]
fn nothing_to_roll_out_is_no_proposal() {
    for candidate in [
        "{}",
        "",
        "{images: {}}",
        "{patch: {}}",
        "{images: {podinfod: 'ghcr.io/stefanprodan/podinfo:6.8.0'}}",
    ] {
        let catalog = proposing(candidate);
        assert_eq!(sound(&catalog).proposal, None, "{candidate}");
    }
}

#[test]
fn promoting_makes_stable_what_the_candidate_yields() {
    let before = proposing("{images: {podinfod: 'ghcr.io/stefanprodan/podinfo:6.9.0'}}");
    let after = read(&[
        ("app/canary.yaml", &canary(SPEC)),
        ("app/deployment.yaml", &DEPLOYMENT.replace("6.8.0", "6.9.0")),
        ("app/service.yaml", SERVICE),
    ]);
    assert_eq!(proposal(&before).yields, sound(&after).stable.revision);
}

#[test]
fn older_candidates_are_marked_unless_wanted() {
    let older = |candidate: &str| proposal(&proposing(candidate)).older_than_stable;
    assert!(older(
        "{images: {podinfod: 'ghcr.io/stefanprodan/podinfo:6.7.0'}}"
    ));
    assert!(older(
        "{images: {podinfod: 'ghcr.io/stefanprodan/podinfo:v6.8.0-rc.1'}}"
    ));
    assert!(!older(
        "{allowOlder: true, images: {podinfod: 'ghcr.io/stefanprodan/podinfo:6.7.0'}}"
    ));
    assert!(!older(
        "{images: {podinfod: 'ghcr.io/stefanprodan/podinfo:6.10.0'}}"
    ));
    assert!(!older(
        "{images: {podinfod: 'ghcr.io/stefanprodan/podinfo:nightly'}}"
    ));
}

#[test]
fn formatting_and_comments_change_no_revision() {
    let plain = proposing("{images: {podinfod: 'ghcr.io/stefanprodan/podinfo:6.9.0'}}");
    let text = canary(&format!(
        "{SPEC}\ncandidate: # next\n  images:\n    \"podinfod\":   ghcr.io/stefanprodan/podinfo:6.9.0 # x\n"
    ))
    .replace('\n', "\r\n");
    let other = read(&[
        ("x.yaml", &format!("\u{feff}{text}")),
        ("y.yaml", &format!("# moved\n{DEPLOYMENT}")),
        ("z.yaml", SERVICE),
    ]);
    assert_eq!(proposal(&plain).revision, proposal(&other).revision);
    assert_eq!(sound(&plain).stable, sound(&other).stable);
    assert_eq!(sound(&plain).ladder_revision, sound(&other).ladder_revision);
}

const VERSIONS: &str = "
versions: {stable: {version: v1}, candidate: {version: v2}}
route: {service: reviews}
ladder: [{weight: 50}]
";

fn reviews(version: &str, image: &str) -> String {
    DEPLOYMENT
        .replace("name: podinfo,", &format!("name: reviews-{version},"))
        .replace(
            "{app: podinfo, serin.dev/track: stable}",
            &format!("{{app: reviews, version: {version}}}"),
        )
        .replace("ghcr.io/stefanprodan/podinfo:6.8.0", image)
}

fn bookinfo(spec: &str, second_image: &str) -> super::Catalog {
    let ratings = reviews("v1", "ratings:1").replace("reviews", "ratings");
    read(&[
        (
            "canary.yaml",
            &canary(spec).replace("name: podinfo,", "name: reviews,"),
        ),
        ("reviews-v1.yaml", &reviews("v1", "reviews:1")),
        ("reviews-v2.yaml", &reviews("v2", second_image)),
        ("ratings-v1.yaml", &ratings),
        ("service.yaml", &SERVICE.replace("podinfo", "reviews")),
    ])
}

#[test]
fn versions_are_the_deployments_behind_the_service_with_these_labels() {
    let catalog = bookinfo(VERSIONS, "reviews:2");
    let canary = sound(&catalog);
    let Workload::BringYourOwn(versions) = &canary.workload else {
        panic!("bring your own");
    };
    assert_eq!(versions.stable_deployments, ["reviews-v1"]);
    assert_eq!(versions.candidate_deployments, ["reviews-v2"]);
    assert_eq!(canary.stable.summary, "version=v1");
    let candidate = proposal(&catalog);
    assert_eq!(candidate.summary, "version=v2");
    assert_eq!(candidate.revision, candidate.yields);
    // Another image behind the same labels is another candidate.
    let changed = bookinfo(VERSIONS, "reviews:3");
    assert_ne!(proposal(&changed).revision, candidate.revision);
    // Promotion writes the candidate's labels as stable's.
    let promoted = bookinfo(&VERSIONS.replace("v1", "v2"), "reviews:2");
    assert_eq!(sound(&promoted).proposal, None);
    assert_eq!(sound(&promoted).stable.revision, candidate.yields);
}

#[test]
fn versions_need_deployments_and_a_service_that_takes_both() {
    insta::assert_snapshot!(told(&bookinfo(&VERSIONS.replace("v2", "v3"), "reviews:2")), @r#"
canary.yaml:5:48: no Deployment in namespace `test` in this repository has pods labelled `version=v3` behind the Service `reviews`; it selects `reviews-v1` (version=v1), `reviews-v2` (version=v2)
-> test/reviews rejected
"#);
    let catalog = read(&[
        ("canary.yaml", &canary(VERSIONS)),
        ("v1.yaml", &reviews("v1", "reviews:1")),
        ("v2.yaml", &reviews("v2", "reviews:2")),
        (
            "service.yaml",
            &SERVICE
                .replace("podinfo", "reviews")
                .replace("{app: reviews}", "{app: reviews, version: v1}"),
        ),
    ]);
    insta::assert_snapshot!(told(&catalog), @r#"
canary.yaml:5:22: the selector of the Service `reviews` contains `version`, by which the two versions differ: it would leave one of them out
-> test/podinfo rejected
"#);
}
