//! News that come late, engines that know another head, and objects that are somebody else's.

use super::*;

fn tree(sequence: u64) -> Vec<Value> {
    vec![
        namespace(),
        rule(sequence, &["stable"]),
        routes(sequence, &["stable"]),
    ]
}

/// The one action that is to be done.
fn only(actions: Vec<Action>) -> Action {
    let [action] = <[Action; 1]>::try_from(actions).unwrap();
    action
}

#[test]
fn an_answer_that_comes_after_the_news_of_a_deletion_revives_nothing() {
    let mut server = enforcing();
    server.follow("one", tree(1));
    let key = server.key("DestinationRule test/podinfo");
    server.edit(&key, |live| live["spec"]["host"] = json!("other"));
    let Action::Apply { object, .. } = only(server.ledger.next(at(0))) else {
        panic!("the rule is written");
    };
    let written = server.store(&key, object.to_apply("us", None));
    // The watch tells of the write and of the deletion behind it before the write is answered.
    server.ledger.saw(&written, at(0));
    server.delete(&key);
    server
        .ledger
        .done(&key, Outcome::Applied(Box::new(written)), at(0));
    assert_eq!(server.settle(), ["DestinationRule test/podinfo"]);
    assert!(server.objects.contains_key(&key));
}

#[test]
fn what_a_newer_head_made_of_a_plain_object_is_not_taken_back() {
    let mut server = enforcing();
    server.follow("one", vec![namespace(), config("a", "1")]);
    let key = server.key("ConfigMap test/a");
    let (_, newer) = object(config("a", "2"));
    server.edit(&key, |live| *live = newer.to_apply("us", None));
    assert!(server.settle().is_empty(), "Git is asked first");
    assert!(server.ledger.wants_fetch());
    // Git has it: it is compared by writing it.
    assert_eq!(
        server.follow("two", vec![namespace(), config("a", "2")]),
        ["ConfigMap test/a"]
    );
    // When Git does not know of it after it was asked, it is drift.
    server.edit(&key, |live| *live = newer.to_apply("us", None));
    server.edit(&key, |live| {
        live["metadata"]["annotations"][APPLIED] = json!("x")
    });
    assert!(server.settle().is_empty());
    server.ledger.confirm(at(1));
    assert_eq!(server.settle(), ["ConfigMap test/a"]);
}

const APPLIED: &str = crate::domain::APPLIED_ANNOTATION;

#[test]
fn what_a_newer_head_added_is_not_removed() {
    let mut server = enforcing();
    server.follow("one", tree(1));
    let (key, canary) = object(rendered("DestinationRule", 2, json!({"host": "podinfo"})));
    let kind = Kind::new("apps", "Deployment");
    let key = ObjectKey::new(kind, key.namespace.as_deref(), "podinfo-canary");
    let mut manifest = canary.to_apply("us", None);
    manifest["apiVersion"] = json!("apps/v1");
    manifest["kind"] = json!("Deployment");
    manifest["metadata"]["name"] = json!("podinfo-canary");
    manifest["metadata"]["namespace"] = json!("test");
    let live = server.store(&key, manifest);
    server.ledger.saw(&live, at(0));
    assert!(server.settle().is_empty(), "Git is asked first");
    assert!(server.ledger.wants_fetch());
    server.ledger.confirm(at(1));
    assert_eq!(server.settle(), ["delete Deployment test/podinfo-canary"]);
}

#[test]
fn what_another_repository_applies_is_left_to_it() {
    let siblings = BTreeMap::from([("them".to_owned(), "team-b".to_owned())]);
    let mut server = Server::new(Policy {
        siblings,
        ..Policy::default()
    });
    // No watch shows it: ours only see what is ours.
    let (key, theirs) = object(config("a", "theirs"));
    server.store(&key, theirs.to_apply("them", None));
    assert_eq!(
        server.follow("one", vec![namespace(), config("a", "ours")]),
        ["Namespace test"]
    );
    let told = server.ledger.notices();
    let names_them = |notice: &Notice| matches!(notice, Notice::Refused { words, .. } if words.contains("team-b"));
    assert!(!told.is_empty() && told.iter().all(names_them), "{told:?}");
    let mut offered = server.objects[&key].clone();
    offered["metadata"]["annotations"]["serin.dev/adopt"] = json!("true");
    server.store(&key, offered);
    server.now = at(60);
    server.ledger.confirm(at(60));
    assert_eq!(server.settle(), ["ConfigMap test/a"]);
}

#[test]
fn fields_that_others_add_to_a_route_are_taken_away() {
    let mut server = enforcing();
    server.follow("one", tree(1));
    let key = server.key("VirtualService test/podinfo");
    server.edit(&key, |live| {
        live["spec"]["gateways"] = json!(["other"]);
        live["metadata"]["labels"]["foreign"] = json!("stays");
        live["metadata"]["managedFields"] =
            json!([{"manager": "kubectl-edit", "time": "2026-01-01T00:00:00Z"}]);
    });
    assert_eq!(
        server.settle(),
        ["strip spec.gateways of VirtualService test/podinfo"]
    );
    let told = server.ledger.notices();
    let [Notice::Repaired(repaired)] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(repaired.drift.differences, ["spec.gateways: not in Git"]);
    assert_eq!(repaired.drift.by.as_deref(), Some("kubectl-edit"));
    assert_eq!(
        server.objects[&key]["metadata"]["labels"]["foreign"],
        "stays"
    );
    // A weight that was edited as well is mended by a write of its own.
    server.edit(&key, |live| {
        live["spec"]["gateways"] = json!(["other"]);
        live["spec"]["http"] = json!([]);
    });
    assert_eq!(
        server.settle(),
        [
            "strip spec.gateways of VirtualService test/podinfo",
            "VirtualService test/podinfo"
        ]
    );
}

#[test]
fn another_route_for_the_same_host_stands_in_the_way() {
    let mut server = enforcing();
    let routed = |gateways: Value| {
        let spec =
            json!({"hosts": ["podinfo.test.svc.cluster.local"], "gateways": gateways, "http": []});
        let mut other = manifest(
            "networking.istio.io/v1",
            "VirtualService",
            "by-hand",
            json!({"spec": spec}),
        );
        other["metadata"]["namespace"] = json!("test");
        other
    };
    let (key, _) = object(routed(json!([])));
    let live = server.store(&key, routed(json!(["mesh"])));
    server.ledger.saw(&live, at(0));
    let mut ours = routes(1, &["stable"]);
    ours["spec"]["hosts"] = json!(["podinfo"]);
    let tree = vec![namespace(), rule(1, &["stable"]), ours];
    assert_eq!(
        server.follow("one", tree),
        ["Namespace test", "DestinationRule test/podinfo"]
    );
    let view = server.ledger.view(&CanaryId::new("test", "podinfo"));
    let (_, words) = view.refused.unwrap();
    assert!(words.contains("VirtualService test/by-hand"), "{words}");
    // At a gateway several may share a host.
    server.edit(&key, |live| live["spec"]["gateways"] = json!(["ingress"]));
    server.now = at(60);
    assert_eq!(server.settle(), ["VirtualService test/podinfo"]);
    // One that comes later routes against ours: nothing is measured until it is gone.
    server.edit(&key, |live| live["spec"]["gateways"] = json!(["mesh"]));
    let view = server.ledger.view(&CanaryId::new("test", "podinfo"));
    assert!(view.in_sync_since.is_none() && view.drift.is_some());
}

#[test]
fn a_server_that_only_answers_conflict_is_not_hammered() {
    let mut server = enforcing();
    server.follow("one", vec![namespace(), config("a", "1")]);
    let key = server.key("ConfigMap test/a");
    server.edit(&key, |live| live["data"]["a"] = json!("2"));
    let live = server.objects[&key].clone();
    let mut tries = 0;
    for second in 0..60 {
        while let [Action::Apply { .. }] = &server.ledger.next(at(second))[..] {
            tries += 1;
            let conflict = Outcome::Conflict(Some(Box::new(live.clone())));
            server.ledger.done(&key, conflict, at(second));
        }
    }
    assert!((5..=12).contains(&tries), "{tries}");
}

#[test]
fn a_server_says_when_to_come_again() {
    let mut server = enforcing();
    server.follow("one", vec![namespace(), config("a", "1")]);
    let key = server.key("ConfigMap test/a");
    server.edit(&key, |live| live["data"]["a"] = json!("2"));
    assert_eq!(server.ledger.next(at(0)).len(), 1);
    let busy = Outcome::Failed {
        words: "too many requests".to_owned(),
        passing: true,
        not_before: Some(7),
    };
    server.ledger.done(&key, busy, at(0));
    assert_eq!(server.ledger.wake_at(at(0)), Some(at(7)));
    assert!(server.ledger.next(at(6)).is_empty());
    assert_eq!(server.ledger.next(at(7)).len(), 1);
}
