//! The state machine against a server of a few lines.

use super::*;
use serde_json::json;

mod alarms;
mod behind;
mod races;

/// A server that takes everything, and counts.
struct Server {
    ledger: Ledger,
    now: Timestamp,
    objects: BTreeMap<ObjectKey, Value>,
    version: u64,
    written: Vec<String>,
}

fn at(second: i64) -> Timestamp {
    chrono::DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap()
}

fn manifest(api_version: &str, kind: &str, name: &str, more: Value) -> Value {
    let mut manifest = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}});
    for (key, value) in more.as_object().unwrap() {
        manifest[key] = value.clone();
    }
    manifest
}

fn object(manifest: Value) -> (ObjectKey, Arc<Object>) {
    let kind = Kind::of(
        manifest["apiVersion"].as_str().unwrap(),
        manifest["kind"].as_str().unwrap(),
    );
    let name = manifest["metadata"]["name"].as_str().unwrap();
    let namespace = (!super::super::order::is_cluster_scoped(&kind)).then_some("test");
    let key = ObjectKey::new(kind, namespace, name);
    let object = Object::new(key.clone(), manifest, "a.yaml".into());
    (key, Arc::new(object))
}

fn desired(commit: &str, manifests: Vec<Value>) -> Arc<Desired> {
    Arc::new(Desired {
        commit: Some(CommitId::new(commit)),
        objects: Arc::new(manifests.into_iter().map(object).collect()),
        complete: true,
        ..Desired::default()
    })
}

fn namespace() -> Value {
    manifest("v1", "Namespace", "test", json!({}))
}

fn config(name: &str, value: &str) -> Value {
    manifest("v1", "ConfigMap", name, json!({"data": {"a": value}}))
}

fn rendered(kind: &str, sequence: u64, spec: Value) -> Value {
    let annotations =
        json!({"serin.dev/sequence": sequence.to_string(), "serin.dev/canary": "test/podinfo"});
    let more = json!({"metadata": {"name": "podinfo", "annotations": annotations}, "spec": spec});
    manifest("networking.istio.io/v1", kind, "podinfo", more)
}

fn rule(sequence: u64, subsets: &[&str]) -> Value {
    let subsets: Vec<Value> = subsets.iter().map(|name| json!({"name": name})).collect();
    rendered(
        "DestinationRule",
        sequence,
        json!({"host": "podinfo", "subsets": subsets}),
    )
}

fn routes(sequence: u64, subsets: &[&str]) -> Value {
    let to =
        |subset: &&str| json!({"destination": {"host": "podinfo", "subset": subset}, "weight": 1});
    let to: Vec<Value> = subsets.iter().map(to).collect();
    rendered("VirtualService", sequence, json!({"http": [{"route": to}]}))
}

impl Server {
    fn new(policy: Policy) -> Self {
        let policy = Policy {
            owner: "us".to_owned(),
            ..policy
        };
        let mut ledger = Ledger::new(policy);
        for (group, kind) in [
            ("", "Namespace"),
            ("", "ConfigMap"),
            ("apps", "Deployment"),
            ("networking.istio.io", "DestinationRule"),
            ("networking.istio.io", "VirtualService"),
        ] {
            ledger.synced(&Kind::new(group, kind), at(0));
        }
        Self {
            ledger,
            now: at(0),
            objects: BTreeMap::new(),
            version: 0,
            written: Vec::new(),
        }
    }

    fn follow(&mut self, commit: &str, manifests: Vec<Value>) -> Vec<String> {
        self.ledger.follow(desired(commit, manifests), self.now);
        self.settle()
    }

    /// Does what is to be done, one thing after the other, and answers with it.
    fn settle(&mut self) -> Vec<String> {
        self.written.clear();
        for _ in 0..100 {
            let actions = self.ledger.next(self.now);
            if actions.is_empty() {
                break;
            }
            for action in actions {
                self.act(action);
            }
        }
        self.written.clone()
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Apply { object, bound_to } => {
                let live = self.objects.get(&object.key);
                let version = live.and_then(|live| live["metadata"]["resourceVersion"].as_str());
                if bound_to.is_some() && bound_to.as_deref() != version {
                    let live = live.cloned().map(Box::new);
                    self.written.push(format!("conflict on {}", object.key));
                    return self
                        .ledger
                        .done(&object.key, Outcome::Conflict(live), self.now);
                }
                self.written.push(object.key.to_string());
                let manifest = object.to_apply("us", None);
                let written = self.store(&object.key, manifest);
                self.ledger
                    .done(&object.key, Outcome::Applied(Box::new(written)), self.now);
            }
            Action::Look { object } => {
                let live = self.objects.get(&object.key).cloned().map(Box::new);
                self.ledger
                    .done(&object.key, Outcome::Looked(live), self.now);
            }
            Action::Strip {
                object,
                fields,
                bound_to,
            } => {
                let mut live = self.objects[&object.key].clone();
                assert_eq!(live["metadata"]["resourceVersion"], *bound_to);
                for path in &fields {
                    let (last, above) = path.split_last().unwrap();
                    let place = live.pointer_mut(&format!("/{}", above.join("/"))).unwrap();
                    place.as_object_mut().unwrap().remove(last);
                    let path = path.join(".");
                    self.written.push(format!("strip {path} of {}", object.key));
                }
                let live = self.store(&object.key, live);
                self.ledger
                    .done(&object.key, Outcome::Stripped(Box::new(live)), self.now);
            }
            Action::Delete { key, with_pods, .. } => {
                let how = if with_pods { " with its pods" } else { "" };
                self.written.push(format!("delete {key}{how}"));
                if with_pods {
                    let mut live = self.objects[&key].clone();
                    live["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                    let live = self.store(&key, live);
                    let outcome = Outcome::Deleting(Box::new(live));
                    return self.ledger.done(&key, outcome, self.now);
                }
                self.objects.remove(&key);
                self.ledger.done(&key, Outcome::Deleted, self.now);
            }
            Action::AskEndpoints {
                key, incarnation, ..
            } => {
                let outcome = Outcome::Endpoints(incarnation, None);
                self.ledger.done(&key, outcome, self.now);
            }
            Action::AskPods { key, .. } => self.ledger.done(&key, Outcome::Pods(None), self.now),
        }
    }

    fn store(&mut self, key: &ObjectKey, mut manifest: Value) -> Value {
        self.version += 1;
        let uid = match self.objects.get(key) {
            Some(live) => live["metadata"]["uid"].clone(),
            None => json!(format!("uid-{}", self.version)),
        };
        manifest["metadata"]["uid"] = uid;
        manifest["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(key.clone(), manifest.clone());
        manifest
    }

    /// Somebody changes an object behind our back, and the watch tells.
    fn edit(&mut self, key: &ObjectKey, edit: impl Fn(&mut Value)) {
        let mut live = self.objects[key].clone();
        edit(&mut live);
        let live = self.store(key, live);
        self.ledger.saw(&live, self.now);
    }

    fn delete(&mut self, key: &ObjectKey) {
        let live = self.objects.remove(key).unwrap();
        self.ledger
            .gone(key, live["metadata"]["uid"].as_str().unwrap(), self.now);
    }

    fn key(&self, text: &str) -> ObjectKey {
        let found = self.objects.keys().find(|key| key.to_string() == text);
        found
            .unwrap_or_else(|| panic!("{text} is not there"))
            .clone()
    }
}

fn enforcing() -> Server {
    Server::new(Policy::default())
}

#[test]
fn everything_is_written_once_and_in_its_order() {
    let mut server = enforcing();
    let tree = || {
        vec![
            routes(1, &["stable"]),
            rule(1, &["stable"]),
            config("a", "1"),
            namespace(),
        ]
    };
    assert_eq!(
        server.follow("one", tree()),
        [
            "Namespace test",
            "ConfigMap test/a",
            "DestinationRule test/podinfo",
            "VirtualService test/podinfo"
        ]
    );
    assert!(
        server.follow("two", tree()).is_empty(),
        "equal objects cost no write"
    );
}

#[test]
fn an_edit_is_mended_and_told() {
    let mut server = enforcing();
    server.follow("one", vec![namespace(), config("a", "1")]);
    let key = server.key("ConfigMap test/a");
    server.edit(&key, |live| {
        live["data"]["a"] = json!("2");
        live["metadata"]["managedFields"] =
            json!([{"manager": "kubectl-edit", "time": "2026-01-01T00:00:00Z"}]);
    });
    assert_eq!(server.settle(), ["ConfigMap test/a"]);
    let told = server.ledger.notices();
    let [Notice::Repaired(repaired)] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(repaired.drift.by.as_deref(), Some("kubectl-edit"));
    assert_eq!(repaired.drift.differences, [r#"data.a: "2", "1" in Git"#]);
}

#[test]
fn without_its_routes_a_service_leads_to_the_candidate_so_its_pods_go_first() {
    let mut server = enforcing();
    let mut candidate = manifest("apps/v1", "Deployment", "podinfo-canary", json!({}));
    candidate["metadata"]["annotations"] =
        rendered("", 1, json!({}))["metadata"]["annotations"].clone();
    let both = ["stable", "canary"];
    let mut all = vec![namespace(), rule(1, &both), routes(1, &both)];
    let without = all.clone();
    // Routes that are made wait for Deployments that are not ready; these are there before.
    server.follow("zero", all.clone());
    all.push(candidate);
    server.follow("one", all.clone());
    assert_eq!(
        server.follow("two", vec![namespace()]),
        ["delete Deployment test/podinfo-canary with its pods"]
    );
    server.delete(&server.key("Deployment test/podinfo-canary"));
    assert_eq!(server.settle(), ["delete VirtualService test/podinfo"]);
    // Proxies may still follow the routes.
    assert_eq!(server.ledger.wake_at(at(0)), Some(at(5)));
    server.now = at(5);
    assert_eq!(server.settle(), ["delete DestinationRule test/podinfo"]);
    // Where the routes stay they lead past the candidate, and nothing waits for its pods.
    server.follow("zero", without.clone());
    server.follow("three", all);
    assert_eq!(
        server.follow("four", without),
        ["delete Deployment test/podinfo-canary"]
    );
}

#[test]
fn warn_reports_and_off_is_silent() {
    for (mode, told) in [(Mode::Warn, 1), (Mode::Off, 0)] {
        let mut server = Server::new(Policy {
            mode,
            ..Policy::default()
        });
        server.follow("one", vec![namespace(), config("a", "1")]);
        let key = server.key("ConfigMap test/a");
        server.edit(&key, |live| live["data"]["a"] = json!("2"));
        assert!(server.settle().is_empty());
        assert_eq!(server.ledger.notices().len(), told);
        // What Git changes is applied all the same.
        assert_eq!(
            server.follow("two", vec![namespace(), config("a", "3")]),
            ["ConfigMap test/a"]
        );
    }
}

#[test]
fn a_namespace_that_is_being_deleted_parks_what_is_in_it() {
    let mut server = enforcing();
    server.follow("one", vec![namespace(), config("a", "1")]);
    let ns = server.key("Namespace test");
    server.edit(&ns, |live| {
        live["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")
    });
    let config = server.key("ConfigMap test/a");
    server.delete(&config);
    assert!(
        server.settle().is_empty(),
        "nothing is written into a namespace that goes"
    );
    server.delete(&ns);
    assert_eq!(server.settle(), ["Namespace test", "ConfigMap test/a"]);
}

#[test]
fn another_number_means_asking_git_first() {
    let mut server = enforcing();
    let tree = |sequence| {
        vec![
            namespace(),
            rule(sequence, &["stable"]),
            routes(sequence, &["stable"]),
        ]
    };
    server.follow("one", tree(1));
    let key = server.key("VirtualService test/podinfo");
    // Somebody who knows a newer head applied it.
    server.edit(&key, |live| {
        live["metadata"]["annotations"]["serin.dev/sequence"] = json!("2")
    });
    assert!(server.settle().is_empty());
    assert!(server.ledger.wants_fetch());
    // Git has it, too: nothing is to be done about the routes.
    assert_eq!(
        server.follow("two", tree(2)),
        [
            "DestinationRule test/podinfo",
            "VirtualService test/podinfo"
        ]
    );
    // An edit that leaves the number is mended at once.
    server.edit(&key, |live| live["spec"]["http"] = json!([]));
    assert_eq!(server.settle(), ["VirtualService test/podinfo"]);
    // A number that Git does not know, even after it was asked, is drift.
    server.edit(&key, |live| {
        live["metadata"]["annotations"]["serin.dev/sequence"] = json!("1")
    });
    assert!(server.settle().is_empty());
    server.ledger.confirm(at(1));
    assert_eq!(server.settle(), ["VirtualService test/podinfo"]);
}

#[test]
fn a_write_is_bound_to_what_was_compared() {
    let mut server = enforcing();
    let tree = |sequence| {
        vec![
            namespace(),
            rule(sequence, &["stable"]),
            routes(sequence, &["stable"]),
        ]
    };
    server.follow("one", tree(1));
    let key = server.key("VirtualService test/podinfo");
    // A change that the watch did not tell yet.
    let mut live = server.objects[&key].clone();
    live["metadata"]["annotations"]["other"] = json!("x");
    server.store(&key, live);
    assert_eq!(
        server.follow("two", tree(2)),
        [
            "DestinationRule test/podinfo",
            "conflict on VirtualService test/podinfo",
            "VirtualService test/podinfo"
        ]
    );
}

#[test]
fn no_route_names_a_subset_that_the_cluster_lacks() {
    let mut server = enforcing();
    let written = server.follow("one", vec![namespace(), routes(1, &["stable", "canary"])]);
    assert_eq!(written, ["Namespace test"]);
    let both = ["stable", "canary"];
    let written = server.follow("two", vec![namespace(), routes(1, &both), rule(1, &both)]);
    assert_eq!(
        written,
        [
            "DestinationRule test/podinfo",
            "VirtualService test/podinfo"
        ]
    );
    // On the way back the route lets go first.
    let written = server.follow(
        "three",
        vec![namespace(), routes(2, &["stable"]), rule(2, &["stable"])],
    );
    assert_eq!(written, ["VirtualService test/podinfo"]);
    // Proxies hear of that a little later.
    server.now = at(5);
    assert_eq!(server.settle(), ["DestinationRule test/podinfo"]);
}

#[test]
fn a_refusal_is_told_once_and_the_newest_commit_ends_the_wait() {
    let mut server = enforcing();
    server
        .ledger
        .follow(desired("one", vec![namespace(), config("a", "bad")]), at(0));
    let namespace_first = server.ledger.next(at(0));
    namespace_first
        .into_iter()
        .for_each(|action| server.act(action));
    let [Action::Apply { object, .. }] = &server.ledger.next(at(0))[..] else {
        panic!("one object is to be written");
    };
    let refused = || Outcome::Failed {
        words: "no".to_owned(),
        passing: false,
        not_before: None,
    };
    server.ledger.done(&object.key, refused(), at(0));
    assert!(server.ledger.next(at(1)).is_empty());
    assert_eq!(server.ledger.wake_at(at(1)), Some(at(2)));
    assert_eq!(server.ledger.next(at(2)).len(), 1);
    server.ledger.done(&object.key, refused(), at(2));
    assert_eq!(server.ledger.notices().len(), 1);
    server.now = at(3);
    assert_eq!(
        server.follow("two", vec![namespace(), config("a", "good")]),
        ["ConfigMap test/a"]
    );
}

#[test]
fn what_somebody_else_made_is_not_overwritten() {
    let mut server = enforcing();
    let (key, _) = object(routes(1, &[]));
    let foreign = manifest(
        "networking.istio.io/v1",
        "VirtualService",
        "podinfo",
        json!({"spec": {}}),
    );
    let mut foreign = foreign;
    foreign["metadata"]["namespace"] = json!("test");
    let live = server.store(&key, foreign);
    server.ledger.saw(&live, at(0));
    let tree = || vec![namespace(), rule(1, &["stable"]), routes(1, &["stable"])];
    assert_eq!(
        server.follow("one", tree()),
        ["Namespace test", "DestinationRule test/podinfo"]
    );
    let view = server.ledger.view(&CanaryId::new("test", "podinfo"));
    assert!(
        view.refused
            .is_some_and(|(_, words)| words.contains("serin.dev/adopt"))
    );
    server.edit(&key, |live| {
        live["metadata"]["annotations"] = json!({"serin.dev/adopt": "true"})
    });
    server.now = at(60);
    assert_eq!(server.settle(), ["VirtualService test/podinfo"]);
}

#[test]
fn only_what_may_go_goes_and_in_reverse() {
    let mut server = enforcing();
    let all = || {
        vec![
            namespace(),
            config("a", "1"),
            rule(1, &["stable"]),
            routes(1, &["stable"]),
        ]
    };
    server.follow("one", all());
    // Objects that Serin rendered go when Git has them no more, others only when pruning is allowed.
    assert_eq!(
        server.follow("two", vec![namespace()]),
        ["delete VirtualService test/podinfo"]
    );
    server.now = at(5);
    assert_eq!(server.settle(), ["delete DestinationRule test/podinfo"]);
    let mut pruning = Server::new(Policy {
        prune: true,
        ..Policy::default()
    });
    pruning.follow("one", all());
    // A tree that is not complete removes nothing.
    let mut part = (*desired("two", vec![namespace()])).clone();
    part.complete = false;
    pruning.ledger.follow(Arc::new(part), at(0));
    assert!(pruning.settle().is_empty());
    // The rule is back in Git: it is compared by writing it.
    let gone = pruning.follow("three", vec![rule(1, &["stable"])]);
    assert_eq!(
        gone,
        [
            "DestinationRule test/podinfo",
            "delete VirtualService test/podinfo",
            "delete ConfigMap test/a"
        ]
    );
    assert!(pruning.objects.contains_key(&pruning.key("Namespace test")));
}

#[test]
fn after_an_outage_of_ten_minutes_a_write_comes_within_ten_seconds() {
    let mut server = enforcing();
    server.follow("one", vec![namespace(), config("a", "old")]);
    let two = desired("two", vec![namespace(), config("a", "new")]);
    server.ledger.follow(two, at(0));
    let failed = || Outcome::Failed {
        words: "connection refused".to_owned(),
        passing: true,
        not_before: None,
    };
    let mut tries = Vec::new();
    for second in 0..600 {
        if let [Action::Apply { object, .. }] = &server.ledger.next(at(second))[..] {
            tries.push(second);
            server.ledger.done(&object.key, failed(), at(second));
        }
    }
    let waits = tries.windows(2).map(|two| two[1] - two[0]);
    assert!(waits.clone().max() <= Some(10), "{tries:?}");
    assert!(waits.take(3).eq([1, 2, 4]), "{tries:?}");
    assert!(tries.last() >= Some(&590), "{tries:?}");
}
