//! The next time at which something is to be looked at, against a walk over all objects.

use chrono::Duration;
use proptest::prelude::*;

use super::super::blocks::READY_BEFORE_TRAFFIC;
use super::super::pods::{BETWEEN_LOOKS, MOST_LOOKS};
use super::super::schedule::STUCK_AFTER;
use super::*;

/// What may happen between two looks.
#[derive(Debug, Clone)]
enum Event {
    /// Seconds go by.
    Later(i64),
    /// The object with this number is gone.
    Gone(usize),
    /// Deleting it begins, and the cluster says or does not say on what it waits.
    Leaving(usize, bool),
    /// Everything is written, but the object with this number is refused.
    Written(Option<usize>),
    /// A head with these values.
    Head(u8),
    /// Somebody waits for the Deployment, and the words of its pods come or do not come.
    Wanted(bool),
    /// So many pods of the Deployment are ready.
    Pods(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_i64..45).prop_map(Event::Later),
        (0_usize..4).prop_map(Event::Gone),
        (0_usize..4, any::<bool>()).prop_map(|(object, says)| Event::Leaving(object, says)),
        proptest::option::of(0_usize..4).prop_map(Event::Written),
        any::<u8>().prop_map(Event::Head),
        any::<bool>().prop_map(Event::Wanted),
        (0_u8..2).prop_map(Event::Pods),
    ]
}

/// The first of all times that any object waits for.
fn by_walk(ledger: &Ledger, now: Timestamp) -> Option<Timestamp> {
    let entries = ledger.entries.values();
    let times = entries.flat_map(|entry| {
        let retry = entry.failure.as_ref().map(|failure| failure.retry_at);
        let since = entry.out_since.into_iter();
        let waits = since.flat_map(|since| {
            [READY_BEFORE_TRAFFIC, STUCK_AFTER].map(|wait| since + Duration::seconds(wait))
        });
        retry.into_iter().chain(waits)
    });
    let watched = ledger.watched.iter();
    let asked = watched.filter_map(|key| Some(ledger.entries.get(key)?.pods.as_ref()?.1));
    let looks = asked.map(|asked| asked + Duration::seconds(BETWEEN_LOOKS));
    times.chain(looks).filter(|at| *at > now).min()
}

fn app() -> Value {
    manifest(
        "apps/v1",
        "Deployment",
        "app",
        json!({"spec": {"replicas": 1}}),
    )
}

impl Server {
    fn live(&self, number: usize) -> Option<ObjectKey> {
        let name = format!("ConfigMap test/{number}");
        let mut keys = self.objects.keys();
        keys.find(|key| key.to_string() == name).cloned()
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Later(seconds) => self.now += Duration::seconds(*seconds),
            Event::Gone(number) => {
                if let Some(key) = self.live(*number) {
                    self.delete(&key);
                }
            }
            Event::Leaving(number, says) => {
                if let Some(key) = self.live(*number) {
                    self.edit(&key, |live| {
                        live["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                        if *says {
                            live["metadata"]["finalizers"] = json!(["example.org/hold"]);
                        }
                    });
                }
            }
            Event::Written(refused) => {
                for _ in 0..8 {
                    for action in self.ledger.next(self.now) {
                        self.write(action, *refused);
                    }
                }
            }
            Event::Head(values) => {
                let configs = (0..4).map(|bit| {
                    let value = (values >> bit & 1).to_string();
                    config(&bit.to_string(), &value)
                });
                let tree = [namespace(), app()].into_iter().chain(configs).collect();
                self.version += 1;
                let commit = format!("head-{}", self.version);
                self.ledger.follow(desired(&commit, tree), self.now);
            }
            Event::Wanted(speak) => {
                self.ledger.workload("test", "app", None);
                for action in self.ledger.next(self.now) {
                    match action {
                        Action::AskPods { key, .. } => {
                            let words = speak.then(|| Readiness::NotReady("no node".to_owned()));
                            self.ledger.done(&key, Outcome::Pods(words), self.now);
                        }
                        other => self.act(other),
                    }
                }
            }
            Event::Pods(ready) => {
                let mut keys = self.objects.keys();
                let key = keys.find(|key| *key.name == *"app").cloned();
                if let Some(key) = key {
                    let status =
                        json!({"replicas": 1, "updatedReplicas": 1, "availableReplicas": ready});
                    self.edit(&key, |live| live["status"] = status.clone());
                }
            }
        }
    }

    fn write(&mut self, action: Action, refused: Option<usize>) {
        let refused = refused.map(|number| number.to_string());
        match action {
            Action::Apply { object, .. } if refused.as_deref() == Some(&*object.key.name) => {
                let failed = Outcome::Failed {
                    words: "quota".to_owned(),
                    passing: false,
                    not_before: None,
                };
                self.ledger.done(&object.key, failed, self.now);
            }
            other => self.act(other),
        }
    }

    /// How many deletions were told to be stuck since the last call.
    fn told_stuck(&mut self) -> usize {
        self.ledger.wake_at(self.now);
        let told = self.ledger.notices().into_iter();
        told.filter(|notice| matches!(notice, Notice::Stuck { .. }))
            .count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn alarms_say_what_a_walk_over_all_objects_says(
        events in proptest::collection::vec(event(), 1..40),
    ) {
        let mut server = enforcing();
        server.happen(&Event::Head(0));
        for event in &events {
            server.happen(event);
            // As the keeper does: what can be done now is begun first.
            let actions = server.ledger.next(server.now);
            let said = server.ledger.wake_at(server.now);
            prop_assert_eq!(said, by_walk(&server.ledger, server.now), "after {:?}", event);
            actions.into_iter().for_each(|action| server.act(action));
        }
    }

    #[test]
    fn what_a_deletion_waits_for_is_told_once_whenever_it_becomes_known(
        is_early in any::<bool>(),
        wait in 30_i64..90,
    ) {
        let mut server = enforcing();
        server.happen(&Event::Head(0));
        server.happen(&Event::Written(None));
        server.happen(&Event::Leaving(1, is_early));
        prop_assert_eq!(server.told_stuck(), 0);
        server.happen(&Event::Later(wait));
        prop_assert_eq!(server.told_stuck(), usize::from(is_early));
        server.happen(&Event::Leaving(1, true));
        prop_assert_eq!(server.told_stuck(), usize::from(!is_early));
        server.happen(&Event::Leaving(1, true));
        prop_assert_eq!(server.told_stuck(), 0);
    }
}

#[test]
fn a_host_that_lost_a_subset_is_looked_at_again_when_proxies_know() {
    let mut server = enforcing();
    let tree = |sequence, subsets: &[&str]| {
        let rules = rule(sequence, &["stable", "canary"]);
        vec![namespace(), rules, routes(sequence, subsets)]
    };
    server.follow("one", tree(1, &["stable", "canary"]));
    server.now = at(60);
    server.follow("two", tree(2, &["stable"]));
    assert_eq!(server.ledger.wake_at(at(60)), Some(at(65)));
    assert_eq!(server.ledger.wake_at(at(64)), Some(at(65)));
    assert_eq!(server.ledger.wake_at(at(65)), None);
}

#[test]
fn pods_are_asked_at_once_and_again_while_somebody_waits() {
    let mut server = enforcing();
    server.follow("one", vec![namespace(), app()]);
    let asks = |server: &mut Server| {
        let actions = server.ledger.next(server.now).into_iter();
        actions
            .filter(|action| matches!(action, Action::AskPods { .. }))
            .count()
    };
    server.happen(&Event::Pods(0));
    assert_eq!(asks(&mut server), 0, "nobody waits for it");
    server.ledger.workload("test", "app", None);
    assert_eq!(asks(&mut server), 1);
    server.happen(&Event::Pods(0));
    assert_eq!(asks(&mut server), 0, "asked a moment ago");
    assert_eq!(server.ledger.wake_at(at(0)), Some(at(5)));
    server.now = at(5);
    assert_eq!(asks(&mut server), 1);
    server.happen(&Event::Pods(1));
    server.now = at(20);
    assert_eq!(
        (asks(&mut server), server.ledger.wake_at(at(20))),
        (0, None),
        "it is ready"
    );
    server.happen(&Event::Pods(0));
    assert_eq!(asks(&mut server), 1, "it is not any more");
    server.happen(&Event::Pods(1));
    server.ledger.workload("test", "app", None);
    server.happen(&Event::Pods(0));
    assert_eq!(asks(&mut server), 0, "nobody waits any more");
}

#[test]
fn a_thousand_deployments_that_start_are_no_thousand_calls() {
    let mut server = enforcing();
    let app = |number: usize| {
        let more = json!({"spec": {"replicas": 1}});
        manifest("apps/v1", "Deployment", &format!("app-{number}"), more)
    };
    let tree = std::iter::once(namespace()).chain((0..1_000).map(app));
    server.follow("one", tree.collect());
    let looks = |server: &mut Server| {
        let actions = server.ledger.next(server.now);
        let is_look = |action: &Action| matches!(action, Action::AskPods { .. });
        assert!(actions.iter().all(is_look), "{actions:?}");
        actions
    };
    let keys: Vec<ObjectKey> = server.objects.keys().cloned().collect();
    for key in keys.iter().filter(|key| !key.is_namespace()) {
        server.ledger.workload("test", &key.name, None);
    }
    assert_eq!(
        looks(&mut server),
        [],
        "none has pods that could say anything"
    );
    for key in keys.iter().filter(|key| !key.is_namespace()) {
        server.edit(key, |live| live["status"]["replicas"] = json!(1));
    }
    let mut asked = BTreeSet::new();
    server.now = at(1);
    for action in looks(&mut server) {
        assert!(asked.insert(format!("{action:?}")));
        server.act(action);
    }
    assert_eq!(asked.len(), MOST_LOOKS);
    while asked.len() < 1_000 {
        // Nothing to wait for: the answers make room.
        server.now = server.ledger.wake_at(server.now).unwrap_or(server.now);
        for action in looks(&mut server) {
            let words = format!("{action:?}");
            assert!(asked.insert(words), "again before others were asked once");
            server.act(action);
        }
    }
    let took = server.now - at(1);
    assert_eq!(took.num_milliseconds(), 49_550, "20 a second");
}
