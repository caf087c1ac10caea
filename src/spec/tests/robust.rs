//! Whatever stands in a file, reading it ends, and a refusal has a reason.

use proptest::prelude::*;

use super::super::Severity;
use super::{DEPLOYMENT, SERVICE, canary, path, read, told};
use crate::spec::report;

const WHOLE: &str = "
workload: {deployment: podinfo, replicas: 2, label: serin.dev/track}
candidate: {images: {podinfod: 'x:6.9.0'}, patch: {spec: {}}, allowOlder: true}
route:
  service: podinfo
  port: 9898
  hosts: [podinfo]
  gateways: [mesh]
  http: {timeout: 5s, match: [{uri: {prefix: /}}]}
  trafficPolicy: {loadBalancer: {simple: RANDOM}}
  sessionAffinity: {cookie: c, maxAge: 1h}
users: [{header: x-user, exact: [a]}, {cookie: u, exact: [b]}]
ladder: [{weight: 0, approval: {}}, {from: 10, by: 10, to: 50, hold: 1m}, {weight: 60, mirror: 1, match: [{port: 1}]}]
analysis:
  every: 15s
  metrics: [{name: success-rate, min: 99}, {name: latency, max: 500ms}, {name: q, query: 'x{{ window }}', max: 1}]
  compare: {alpha: 0.01}
  deadline: 1h
freeze: [{days: [sat], from: '16:00', to: '08:00', utcOffset: '+01:00'}]
rollbackWindow: 1h
folder: x
";

/// What somebody may type in the wrong place.
const TYPED: [&str; 20] = [
    "null",
    "~",
    "[]",
    "{}",
    "-1",
    "1e99",
    "99999999999999999999",
    "yes",
    "''",
    "'\n'",
    "..",
    "[{}]",
    "{a: [b]}",
    "&a",
    "*a",
    "- x",
    ":",
    "\u{1f600}",
    "100%",
    "!!str",
];

proptest! {
    #[test]
    fn a_spec_with_anything_typed_into_it_is_read(
        edits in prop::collection::vec((0usize..10_000, 0usize..12, 0usize..TYPED.len()), 0..4)
    ) {
        let mut text = canary(WHOLE);
        for (at, cut, typed) in edits {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let start = places[at % places.len()];
            let end = places.get(at % places.len() + cut).copied().unwrap_or(text.len());
            text.replace_range(start..end, TYPED[typed]);
        }
        let catalog = read(&[("c.yaml", &text), ("d.yaml", DEPLOYMENT), ("s.yaml", SERVICE)]);
        for rejected in catalog.canaries.values().filter_map(|result| result.as_ref().err()) {
            let has_reason = rejected.diagnostics.iter().any(|d| d.severity == Severity::Error);
            prop_assert!(has_reason, "{text}");
        }
        for canary in catalog.canaries.values().filter_map(|result| result.as_ref().ok()) {
            prop_assert!(!canary.ladder.is_empty(), "{text}");
            prop_assert!(canary.ladder.is_sorted_by_key(|rung| rung.weight), "{text}");
            prop_assert!(canary.users.iter().all(|user| !user.exact.is_empty()), "{text}");
            prop_assert!(canary.home.folder.parent().is_none(), "{text}");
        }
        let is_ours = text.contains("serin.dev/v1alpha1") && text.contains("kind: Canary");
        prop_assert!(!is_ours || !catalog.canaries.is_empty() || !catalog.diagnostics.is_empty(), "{text}");
        for diagnostic in &catalog.diagnostics {
            prop_assert!(!diagnostic.message.contains('\n'), "{diagnostic}");
            prop_assert!(diagnostic.line <= text.lines().count() + 1, "{diagnostic}");
        }
    }
}

#[test]
fn the_whole_spec_is_fine() {
    let catalog = read(&[
        ("c.yaml", &canary(WHOLE)),
        ("d.yaml", DEPLOYMENT),
        ("s.yaml", SERVICE),
    ]);
    assert_eq!(told(&catalog), "-> test/podinfo fine\n");
}

#[test]
fn a_report_is_about_the_paths_that_were_asked_for() {
    let broken = canary("ladder: []");
    let catalog = read(&[
        ("a/c.yaml", &broken),
        ("b/c.yaml", &broken.replace("podinfo", "other")),
    ]);
    let all = report(&catalog, &[]);
    assert_eq!((all.canaries, all.errors, all.warnings), (2, 6, 0));
    let some = report(&catalog, &[path("a")]);
    insta::assert_snapshot!(some.to_string(), @r#"
    a/c.yaml:5:3: `spec` lacks `route`
    a/c.yaml:5:3: `spec` needs `workload` (a Deployment that Serin derives the candidate from) or `versions` (two label sets that you deploy yourself)
    a/c.yaml:5:11: `spec.ladder` is empty, at least one entry is needed
    1 canary: 3 errors, 0 warnings
    "#);
}
