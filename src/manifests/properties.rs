//! Properties of everything that is rendered: the checker finds nothing, and it would find what it is there for.

use std::sync::Arc;

use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::fixtures::{Case, affinity, matrix, progressing, rich_http, rollout, state};
use super::{
    Last, differs_only_in_weights, render, render_after, routed_weight, unmatched_users, violations,
};
use crate::domain::{Manifest, Revision, Weight, files};
use crate::progression::{DrainCause, Phase, State};
use crate::spec::fixtures::{bring_your_own, managed, weight};
use crate::spec::{
    CanaryReplicas, CandidateContent, Protocol, UserRule, UserSource, ValidatedCanary, Workload,
};
use crate::yaml::emit;

fn object(name: &str, canary: &ValidatedCanary, state: &State) -> Value {
    let path = canary.home.folder.join(name).unwrap();
    let rendered = render(canary, state).files[&path].clone();
    serde_yaml::from_slice(&rendered.unwrap()).unwrap()
}

#[test]
fn every_shape_passes_the_checker() {
    for Case {
        name,
        canary,
        state,
    } in matrix()
    {
        let rendered = render(&canary, &state);
        let found = violations(&canary, &state, &rendered.files);
        assert_eq!(found, Vec::<String>::new(), "{name}");
        assert_eq!(rendered, render(&canary, &state), "{name}");
    }
}

/// What a person may change about a spec between two renderings.
fn changed_specs(canary: &ValidatedCanary) -> Vec<ValidatedCanary> {
    let changed = |change: &dyn Fn(&mut ValidatedCanary)| {
        let mut canary = canary.clone();
        change(&mut canary);
        canary
    };
    vec![
        changed(&|canary| canary.proposal = None),
        changed(&|canary| canary.users.truncate(canary.users.len() / 2)),
        changed(&|canary| canary.route.hosts.push("more.example.com".to_owned())),
        changed(&|canary| canary.route.export_to.push("shop".to_owned())),
        changed(&|canary| canary.route.traffic_policy = Some(json!({"tls": {"mode": "SIMPLE"}}))),
        changed(&|canary| canary.route.session_affinity = Some(affinity())),
        changed(&|canary| canary.ladder.truncate(1)),
        changed(&|canary| canary.home.file = canary.home.file.sibling("moved.yaml").unwrap()),
        changed(&|canary| canary.id.name.push_str("-more")),
        changed(&|canary| match &mut canary.workload {
            Workload::Managed(managed) => {
                let mut manifest = managed.manifest.read();
                manifest["spec"]["minReadySeconds"] = json!(7);
                managed.manifest = Manifest::of(&manifest);
            }
            Workload::BringYourOwn(two) => drop(two.stable.insert("v".to_owned(), "1".to_owned())),
        }),
        changed(&|canary| {
            if let Workload::Managed(managed) = &mut canary.workload {
                managed.replicas = CanaryReplicas::Proportional;
                managed.written_replicas = Some(40);
                managed.label_key = "role".to_owned();
            }
        }),
        changed(&|canary| canary.workload = bring_your_own().workload),
        changed(&|canary| canary.workload = managed().workload),
    ]
}

#[test]
fn what_is_known_of_another_spec_or_state_changes_nothing() {
    let cases = matrix();
    for (index, case) in cases.iter().enumerate() {
        let Case { name, canary, .. } = case;
        let near = cases.iter().skip(index.saturating_sub(5)).take(11);
        let mut states: Vec<State> = near.map(|case| case.state.clone()).collect();
        let mut heavier = case.state.clone();
        if let Phase::Progressing(rollout) | Phase::Draining(rollout, _) = &mut heavier.phase {
            rollout.weight = weight(70);
        }
        states.push(heavier);
        let known = render(canary, &case.state).files;
        let last = Last {
            canary,
            state: &case.state,
            files: &known,
        };
        for spec in [canary.clone()].into_iter().chain(changed_specs(canary)) {
            for state in &states {
                let after = render_after(&spec, state, Some(last));
                assert_eq!(after, render(&spec, state), "{name}: {spec:?} {state:?}");
            }
        }
    }
}

#[test]
fn the_weight_that_is_rendered_is_read_back() {
    for Case {
        name,
        canary,
        state,
    } in matrix()
    {
        let service = object(files::VIRTUAL_SERVICE, &canary, &state);
        let expected = match &canary.workload {
            Workload::Managed(workload) if workload.stable_value.is_none() => None,
            Workload::BringYourOwn(_) if canary.proposal.is_none() && state.rollout().is_none() => {
                Some(Weight::ZERO)
            }
            Workload::Managed(_) | Workload::BringYourOwn(_) => Some(state.weight()),
        };
        assert_eq!(routed_weight(&service, &canary), expected, "{name}");
        assert_eq!(differs_only_in_weights(&service, &service), None, "{name}");
    }
}

/// Damages one file of a running rollout, and tells what the checker says about it.
fn damaged(file: &str, damage: impl Fn(&mut Value)) -> String {
    let mut canary = managed();
    canary.route.session_affinity = Some(affinity());
    canary.route.protocol = Protocol::Http(Map::from_iter([("timeout".to_owned(), json!("5s"))]));
    let state = progressing(&canary, 2, 10);
    let mut rendered = render(&canary, &state);
    let mut value = object(file, &canary, &state);
    let before = value.clone();
    damage(&mut value);
    assert_ne!(value, before, "the damage does nothing");
    let path = canary.home.folder.join(file).unwrap();
    let content = emit::to_bytes("", &value).into();
    Arc::make_mut(&mut rendered.files).insert(path, Some(content));
    violations(&canary, &state, &rendered.files).join("; ")
}

#[test]
fn the_checker_sees_damage() {
    let set = |file: &'static str| {
        move |pointer: &'static str, value: Value| {
            damaged(file, |object| {
                *object.pointer_mut(pointer).unwrap() = value.clone()
            })
        }
    };
    let service = set(files::VIRTUAL_SERVICE);
    let rule = set(files::DESTINATION_RULE);
    let pods = set(files::DEPLOYMENT);
    let found = [
        service("/spec/http/3/route/1/weight", json!(20)),
        service("/spec/http/3/route/1/destination/subset", json!("other")),
        service("/spec/http/3/route/1/destination/host", json!("other")),
        damaged(files::VIRTUAL_SERVICE, |object| {
            object["spec"]["http"][3]["match"] = json!([{"port": 80}]);
        }),
        service("/spec/http/0/match/0", json!({})),
        service("/spec/http/0/match", json!([])),
        service(
            "/spec/http/0/match/0/headers/x-user",
            json!({"prefix": "alexis"}),
        ),
        service(
            "/spec/http/0/match/0/headers/x-user/exact",
            json!("mallory"),
        ),
        service("/spec/http/0/timeout", json!("6s")),
        service("/spec/http/1/name", json!("other")),
        service("/metadata/annotations/serin.dev~1sequence", json!("8")),
        service("/metadata/namespace", json!("other")),
        service("/spec/http", json!([])),
        damaged(files::VIRTUAL_SERVICE, |object| {
            let routes = object["spec"]["http"].as_array_mut().unwrap();
            routes.swap(0, 1);
        }),
        damaged(files::VIRTUAL_SERVICE, |object| {
            object["spec"]["http"][3]["retries"] = json!({"attempts": 9});
        }),
        damaged(files::VIRTUAL_SERVICE, |object| {
            object["spec"]["http"][3]["mirror"] = json!({"host": "podinfo", "subset": "canary"});
        }),
        rule("/spec/subsets/0/labels", json!({})),
        rule(
            "/spec/subsets/0/labels",
            json!({"serin.dev/track": "canary"}),
        ),
        rule("/spec/subsets/1/name", json!("other")),
        damaged(files::DESTINATION_RULE, |object| {
            object["metadata"]["annotations"]["serin.dev/sequence"] = json!("7");
        }),
        rule("/spec/host", json!("other")),
        pods(
            "/spec/selector/matchLabels/serin.dev~1track",
            json!("stable"),
        ),
        pods("/metadata/name", json!("podinfo")),
        pods("/spec/replicas", json!(null)),
        damaged(files::DEPLOYMENT, |object| {
            object["spec"]["template"]["metadata"]["annotations"] =
                json!({"serin.dev/sequence": "7"});
        }),
        damaged(files::KUSTOMIZATION, |object| {
            object["resources"] = json!(["rollout.yaml"]);
        }),
    ];
    assert!(found.iter().all(|found| !found.is_empty()), "{found:#?}");
    assert_snapshot!(found.join("\n"), @r#"
    the weights of route serin-weights sum to 110; route serin-weights gives the candidate 20 %, not 10 %
    route serin-weights names the subset other, which does not exist; route serin-weights gives the candidate 0 %, not 10 %
    route serin-weights leads to another service
    the weighted route has other matches than the spec
    route serin-users matches everybody; a match of the users' route is for nobody in the spec: {}; the user alexis has no match
    route serin-users matches everybody; the user alexis has no match; the user stefan has no match
    a match of the users' route is for nobody in the spec: {"headers":{"x-user":{"prefix":"alexis"}}}; the user alexis has no match
    a match of the users' route is for nobody in the spec: {"headers":{"x-user":{"exact":"mallory"}}}; the user alexis has no match
    route serin-users differs from the base route in timeout
    route other gives the candidate 100 %, not 0 %
    the VirtualService does not say of which commit it is
    VirtualService is in another namespace
    the VirtualService has no route; the user alexis has no match; the user stefan has no match
    the route of named users is not the first one
    route serin-weights differs from the base route in retries
    route serin-weights mirrors to the candidate outside of a mirror step; route serin-weights differs from the base route in mirror
    subset stable selects every pod
    stable and canary select the same pods
    route serin-users names the subset canary, which does not exist; route serin-sticky-canary names the subset canary, which does not exist; route serin-weights names the subset canary, which does not exist; route serin-weights gives the candidate 10 %, not 0 %; clients are kept on a version while the candidate has no weight; the candidate's pods are not those of its subset
    DestinationRule has a number that each step would write
    the DestinationRule is for another host
    the candidate's pods are not those of its subset
    the candidate's Deployment has stable's name
    the candidate's Deployment names no replicas
    every step would restart the candidate's pods
    kustomization.yaml lists {"rollout.yaml"}, there are {"deployment.yaml", "destinationrule.yaml", "virtualservice.yaml"}
    "#);
}

#[test]
fn the_checker_sees_missing_and_left_over_files() {
    let canary = managed();
    let running = progressing(&canary, 2, 10);
    let idle = super::fixtures::idle(&canary);
    let found = violations(&canary, &idle, &render(&canary, &running).files);
    assert!(
        found.contains(&"the candidate's Deployment is there without a rollout".to_owned()),
        "{found:?}"
    );
    let found = violations(&canary, &running, &render(&canary, &idle).files);
    assert!(
        found.contains(&"the candidate's Deployment is missing".to_owned()),
        "{found:?}"
    );
    let mut files = Arc::unwrap_or_clone(render(&canary, &running).files);
    files.retain(|path, _| path.file_name() != files::VIRTUAL_SERVICE);
    assert!(!violations(&canary, &running, &files).is_empty());
}

#[test]
fn users_who_cannot_be_matched_are_named() {
    let mut canary = managed();
    canary.route.protocol = Protocol::Http(rich_http().as_object().cloned().unwrap());
    canary.users.push(UserRule {
        source: UserSource::Cookie("user".to_owned()),
        exact: vec!["a;b".to_owned()],
    });
    assert_eq!(unmatched_users(&canary), ["cookie user: a;b"]);
    canary.route.protocol = Protocol::Http(Map::from_iter([(
        "match".to_owned(),
        json!([{"headers": {"x-user": {"exact": "alexis"}, "cookie": {"regex": ".*"}}}]),
    )]));
    assert_eq!(
        unmatched_users(&canary),
        [
            "header x-user: stefan",
            "cookie user: alexis",
            "cookie user: a;b"
        ]
    );
}

#[test]
fn replicas_come_before_the_weight() {
    let replicas = |canary: &ValidatedCanary, state: &State| {
        object(files::DEPLOYMENT, canary, state)["spec"]["replicas"].clone()
    };
    let mut canary = managed();
    // Of 5 replicas, for the next rung: 0 and 10 % need one, 60 % three, 100 % five.
    let climb: Vec<Value> = [(0, 0), (1, 0), (2, 10), (3, 60), (4, 100)]
        .map(|(step, percent)| replicas(&canary, &progressing(&canary, step, percent)))
        .to_vec();
    assert_eq!(climb, [json!(1), json!(1), json!(3), json!(5), json!(5)]);
    // A person's weight beyond the ladder, and a mirror share.
    assert_eq!(replicas(&canary, &progressing(&canary, 1, 75)), json!(4));
    canary.ladder[1].mirror = Some(weight(50));
    assert_eq!(replicas(&canary, &progressing(&canary, 1, 0)), json!(3));
    if let Workload::Managed(workload) = &mut canary.workload {
        let mut manifest = workload.manifest.read();
        manifest["spec"].as_object_mut().unwrap().remove("replicas");
        workload.manifest = Manifest::of(&manifest);
        workload.written_replicas = None;
    }
    assert_eq!(replicas(&canary, &progressing(&canary, 4, 100)), json!(1));
    if let Workload::Managed(workload) = &mut canary.workload {
        workload.replicas = CanaryReplicas::Fixed(2);
    }
    assert_eq!(replicas(&canary, &progressing(&canary, 4, 100)), json!(2));
}

#[test]
fn pods_change_only_with_the_candidate() {
    let canary = managed();
    let template = |step, percent| {
        object(
            files::DEPLOYMENT,
            &canary,
            &progressing(&canary, step, percent),
        )["spec"]["template"]
            .clone()
    };
    assert_eq!(template(1, 0), template(3, 60));
}

#[test]
fn what_serves_is_the_copy_and_not_the_proposal() {
    let mut canary = managed();
    let running = progressing(&canary, 2, 10);
    let before = render(&canary, &running);
    canary.proposal = Some(crate::spec::fixtures::candidate(
        "podinfod=7.0.0",
        CandidateContent::Template {
            images: [("podinfod".to_owned(), "podinfo:7.0.0".to_owned())].into(),
            patch: None,
        },
    ));
    assert_eq!(render(&canary, &running), before);
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z.*+|;=\\\\^$ \"']{0,6}",
        any::<String>(),
        "[a-zü名]{200}",
    ]
}

fn any_users() -> impl Strategy<Value = Vec<UserRule>> {
    let source = prop_oneof![
        "[a-z-]{1,8}".prop_map(UserSource::Header),
        prop_oneof!["[a-z]{1,8}", any_name()].prop_map(UserSource::Cookie),
    ];
    let rule = (source, proptest::collection::vec(any_name(), 1..4))
        .prop_map(|(source, exact)| UserRule { source, exact });
    proptest::collection::vec(rule, 0..3)
}

fn any_matches() -> impl Strategy<Value = Vec<Value>> {
    let entry = prop_oneof![
        Just(json!({})),
        Just(json!({"name": "empty"})),
        Just(json!({"uri": {"prefix": "/api"}})),
        Just(json!({"uri": {"regex": "/a.*"}, "ignoreUriCase": true})),
        Just(json!({"headers": {"x-user": {"exact": "a"}, "cookie": {"regex": ".*"}}})),
        Just(json!({"withoutHeaders": {"x-user": {}}, "port": 80})),
    ];
    proptest::collection::vec(entry, 0..3)
}

prop_compose! {
    fn any_canary()(
        own in any::<bool>(),
        labelled in any::<bool>(),
        proposed in any::<bool>(),
        sticky in any::<bool>(),
        protocol in 0..3_u8,
        mirrors in any::<bool>(),
        users in any_users(),
        matches in any_matches(),
    ) -> ValidatedCanary {
        let mut canary = if own { bring_your_own() } else { managed() };
        if let (Workload::Managed(workload), false) = (&mut canary.workload, labelled) {
            workload.stable_value = None;
        }
        if !proposed {
            canary.proposal = None;
        }
        canary.route.session_affinity = sticky.then(affinity);
        let mut fields = Map::from_iter([("timeout".to_owned(), json!("5s"))]);
        fields.insert("match".to_owned(), Value::Array(matches));
        fields.insert("name".to_owned(), json!("mine"));
        if mirrors {
            fields.insert("mirrors".to_owned(), json!([{"destination": {"host": "recorder"}}]));
        }
        canary.route.protocol = match protocol {
            0 => Protocol::Tcp(Vec::new()),
            1 => Protocol::Tls(vec![json!({"sniHosts": ["a.example.com"]})]),
            _ => Protocol::Http(fields),
        };
        canary.users = users;
        canary
    }
}

prop_compose! {
    fn any_case()(canary in any_canary())(
        phase in 0..4_u8,
        step in 0..9_u16,
        percent in 0..=100_u64,
        share in proptest::option::of(0..=100_u64),
        matches in any_matches(),
        revision in any_name(),
        canary in Just(canary),
    ) -> (ValidatedCanary, State) {
        let mut rollout = rollout(&canary, step, percent);
        rollout.mirror = share.map(weight);
        rollout.matches = matches;
        Arc::make_mut(&mut rollout.candidate).revision = Revision::recorded(revision);
        let phase = match phase {
            0 => Phase::Idle,
            1 => Phase::Draining(rollout, DrainCause::Superseded),
            _ => Phase::Progressing(rollout),
        };
        let state = state(&canary, phase);
        (canary, state)
    }
}

proptest! {
    #[test]
    fn the_checker_finds_nothing((canary, state) in any_case()) {
        let rendered = render(&canary, &state);
        prop_assert_eq!(violations(&canary, &state, &rendered.files), Vec::<String>::new());
    }

    /// Every match of the users' route is one name of one rule and nothing more: exact, or a whole cookie.
    #[test]
    fn users_are_matched_exactly((canary, state) in any_case()) {
        let service = object(files::VIRTUAL_SERVICE, &canary, &state);
        let routes = service["spec"]["http"].as_array().cloned().unwrap_or_default();
        let users = routes.iter().find(|route| route["name"] == "serin-users");
        for entry in users.iter().flat_map(|route| route["match"].as_array().unwrap()) {
            let named = canary.users.iter().any(|rule| rule.exact.iter().any(|name| match &rule.source {
                UserSource::Header(header) => entry["headers"][header] == json!({"exact": name}),
                UserSource::Cookie(cookie) => entry["headers"]["cookie"]["regex"].as_str().is_some_and(|regex| {
                    let regex = regex::Regex::new(&format!("^(?:{regex})$")).unwrap();
                    regex.is_match(&format!("{cookie}={name}"))
                        && !regex.is_match(&format!("{cookie}={name}x"))
                        && !regex.is_match(&format!("x{cookie}={name}"))
                }),
            }));
            prop_assert!(named, "{}", entry);
        }
    }

    #[test]
    fn any_weight_that_a_person_writes_is_read((canary, state) in any_case(), percent in 0..=100_u64) {
        let ours = object(files::VIRTUAL_SERVICE, &canary, &state);
        let mut edited = ours.clone();
        let protocol = ["http", "tcp", "tls"].into_iter().find(|key| ours["spec"].get(key).is_some()).unwrap();
        let base = edited["spec"][protocol].as_array_mut().unwrap().last_mut().unwrap();
        let targets = base["route"].as_array_mut().unwrap();
        if targets.len() == 2 {
            targets[0]["weight"] = json!(100 - percent);
            targets[1]["weight"] = json!(percent);
            prop_assert_eq!(routed_weight(&edited, &canary), Weight::new(percent));
            let changed = routed_weight(&ours, &canary) != Weight::new(percent);
            let expected = Weight::new(percent).filter(|_| changed);
            prop_assert_eq!(differs_only_in_weights(&edited, &ours), expected);
        }
    }
}
