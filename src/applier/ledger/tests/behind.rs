//! Endpoints are asked for by need: once for what is ready and about to get traffic, and again while they lack something.

use serde_json::json;

use super::{Server, at, enforcing, manifest, namespace};
use crate::applier::ledger::{Action, Incarnation, Outcome};
use crate::progression::Readiness;

fn server() -> Server {
    let mut server = enforcing();
    let app = manifest(
        "apps/v1",
        "Deployment",
        "app",
        json!({"spec": {"replicas": 1}}),
    );
    server.follow("one", vec![namespace(), app]);
    server
}

/// The Deployment has this generation, and one pod that is ready.
fn runs(server: &mut Server, generation: u64) {
    let key = server.objects.keys().find(|key| *key.name == *"app");
    let key = key.cloned().unwrap();
    server.edit(&key, |live| {
        live["metadata"]["generation"] = json!(generation);
        live["status"] = json!({
            "observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1,
        });
    });
}

/// What is asked now.
fn asked(server: &mut Server) -> Vec<Incarnation> {
    let actions = server.ledger.next(server.now).into_iter();
    let asked = actions.map(|action| match action {
        Action::AskEndpoints {
            incarnation,
            service,
            ..
        } => {
            assert_eq!(&*service, "web");
            incarnation
        }
        other => panic!("{other:?}"),
    });
    asked.collect()
}

fn answer(server: &mut Server, incarnation: Incarnation, lacks: Option<&str>) {
    let key = server.objects.keys().find(|key| *key.name == *"app");
    let key = key.cloned().unwrap();
    let outcome = Outcome::Endpoints(incarnation, lacks.map(Into::into));
    server.ledger.done(&key, outcome, server.now);
}

fn readiness(server: &mut Server) -> (Readiness, bool) {
    let (readiness, _) = server.ledger.workload("test", "app", Some("web"));
    server.ledger.end_of_round();
    (readiness, server.ledger.asks_for_endpoints())
}

#[test]
fn what_is_about_to_get_traffic_is_ready_when_the_mesh_finds_it() {
    let mut server = server();
    runs(&mut server, 1);
    assert_eq!(
        server.ledger.workload("test", "app", None).0,
        Readiness::Ready
    );
    assert_eq!(
        asked(&mut server),
        [],
        "nobody is about to send traffic there"
    );

    let waiting =
        "the pods of Deployment test/app are looked for among the endpoints of Service web";
    let waiting = Readiness::NotReady(waiting.to_owned());
    assert_eq!(readiness(&mut server), (waiting.clone(), true));
    let first = asked(&mut server);
    assert_eq!(first.len(), 1);
    assert_eq!(readiness(&mut server), (waiting.clone(), true));
    assert_eq!(asked(&mut server), [], "an answer is on its way");

    server.ledger.stirred();
    answer(&mut server, first[0].clone(), Some("none of them"));
    assert!(server.ledger.stirred(), "somebody waits for this");
    let lacking = Readiness::NotReady("none of them".to_owned());
    assert_eq!(readiness(&mut server), (lacking, false));
    assert_eq!(server.ledger.wake_at(server.now), Some(at(1)));
    server.now = at(1);
    let second = asked(&mut server);
    answer(&mut server, second[0].clone(), None);
    assert!(server.ledger.stirred());
    assert_eq!(readiness(&mut server), (Readiness::Ready, false));
    server.now = at(60);
    assert_eq!(asked(&mut server), [], "that is settled");

    runs(&mut server, 2);
    assert_eq!(readiness(&mut server), (waiting, true), "other pods");
    answer(&mut server, second[0].clone(), None);
    assert!(
        !readiness(&mut server).0.is_ready(),
        "a late answer about those before"
    );
    let third = asked(&mut server);
    answer(&mut server, third[0].clone(), None);
    assert_eq!(readiness(&mut server), (Readiness::Ready, false));
}

#[test]
fn nobody_is_asked_for_a_rollout_that_ended() {
    let mut server = server();
    runs(&mut server, 1);
    readiness(&mut server);
    let first = asked(&mut server);
    answer(&mut server, first[0].clone(), Some("none of them"));
    server.ledger.end_of_round();
    server.now = at(10);
    assert_eq!(asked(&mut server), []);
    assert_eq!(server.ledger.wake_at(server.now), None);
}
