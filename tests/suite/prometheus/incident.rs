//! The whole loop beside a real Prometheus: a bad candidate goes back, a healthy one is promoted through an incident that
//! harms both versions, and the commits say exactly what was sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serin::clock::{Clock, SystemClock};
use serin::domain::{Contents, Person, RepoPath};
use serin::prometheus::{Server, Settings};
use serin::reconcile::{self, Engine};
use serin::record::message::{self, Style};
use serin::simulation::{Branch, Change, Life, Mesh, Remote, World};

use crate::support::prometheus::{Prometheus, TrafficSource, pause};

const CANARY: &str = "\
apiVersion: serin.dev/v1alpha1
kind: Canary
metadata: {name: podinfo, namespace: test}
spec:
  workload: {deployment: podinfo}
  candidate:
    images: {podinfod: 'ghcr.io/stefanprodan/podinfo:VERSION'}
  route: {service: podinfo, port: 9898, hosts: [podinfo]}
  ladder:
  - {weight: 25, hold: 1s}
  - {weight: 50, hold: 1s}
  analysis: {every: 1s}
";

/// Requests and failures sent to one version.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Sent {
    requests: u64,
    failures: u64,
}

struct Stage {
    remote: Arc<Mutex<Remote>>,
    engine: Engine<Branch, Server, Mesh, SystemClock>,
    source: TrafficSource,
    /// What is proposed; each version has pods of its own.
    version: String,
    candidate: Sent,
    stable: Sent,
}

impl Stage {
    fn propose(&self, version: &str, says: &str) {
        let path = |text: &str| RepoPath::new(text).unwrap();
        let files: Contents = [
            (
                path("apps/podinfo/app.yaml"),
                include_str!("../../../src/simulation/base/app.yaml").to_owned(),
            ),
            (
                path("apps/podinfo/canary.yaml"),
                CANARY.replace("VERSION", version),
            ),
        ]
        .map(|(path, text)| (path, Some(text.into_bytes().into())))
        .into();
        let change = Change {
            author: Person {
                name: "alexis".to_owned(),
                email: "alexis@example.com".to_owned(),
            },
            message: says.to_owned(),
            files,
            unsigned: false,
        };
        let mut remote = self.remote.lock().unwrap();
        remote.commit(change, SystemClock.now());
    }

    /// Sends to each of three pods of stable and two of the candidate, lets it be scraped, and looks.
    async fn round(&mut self, stable: (u64, u64), candidate: (u64, u64)) -> String {
        self.source.send("podinfo", 3, stable.0, stable.1);
        let pods = format!("podinfo-canary-{}", self.version);
        self.source.send_to("podinfo-canary", &pods, 2, candidate);
        self.stable.requests += 3 * stable.0;
        self.stable.failures += 3 * stable.1;
        self.candidate.requests += 2 * candidate.0;
        self.candidate.failures += 2 * candidate.1;
        pause(Duration::from_millis(2300)).await;
        self.look().await
    }

    /// One pass; the subjects of all commits so far.
    async fn look(&mut self) -> String {
        self.engine.pass().await;
        let remote = self.remote.lock().unwrap();
        let subjects = remote
            .commits()
            .iter()
            .map(|commit| commit.subject().to_owned());
        subjects.collect::<Vec<_>>().join("\n")
    }

    /// The last commit whose subject has this text, read back.
    fn commit(&self, subject: &str) -> message::Recorded {
        let remote = self.remote.lock().unwrap();
        let mut commits = remote.commits().iter().rev();
        let found = commits.find(|commit| commit.subject().contains(subject));
        message::parse(&found.unwrap().message).unwrap()
    }

    fn agrees(&self, recorded: &message::Recorded) {
        let fields = message::evidence_fields(recorded.evidence.as_ref().unwrap());
        let counts = |sent: Sent| format!("{}/{}", sent.failures, sent.requests);
        assert_eq!(fields["candidate"], counts(self.candidate), "{recorded:?}");
        assert_eq!(fields["stable"], counts(self.stable), "{recorded:?}");
    }

    /// From the proposal until the candidate has its first traffic.
    async fn begin(&mut self, version: &str) {
        version.clone_into(&mut self.version);
        self.propose(version, &format!("Propose {version}"));
        self.look().await;
        // The first reading is the baseline; what is sent later counts.
        pause(Duration::from_millis(1100)).await;
        let subjects = self.look().await;
        assert!(subjects.ends_with("0% -> 25%"), "{subjects}");
        pause(Duration::from_millis(2300)).await;
        self.look().await;
        (self.candidate, self.stable) = (Sent::default(), Sent::default());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incident_for_all_blames_nobody_and_counts_are_exact() {
    let source = TrafficSource::start().await;
    source.send("podinfo", 3, 1000, 1);
    let prometheus = Prometheus::start(&source).await;
    let remote = Arc::new(Mutex::new(Remote::default()));
    let engine = Engine::new(
        Branch::new(
            Arc::clone(&remote),
            Life::default(),
            Person {
                name: "Serin".to_owned(),
                email: "serin@example.com".to_owned(),
            },
        ),
        Server::new(Settings::new(&prometheus.url)).unwrap(),
        Mesh::new(
            Arc::new(Mutex::new(World::default())),
            Life::default(),
            false,
        ),
        SystemClock,
        reconcile::Settings {
            push_interval: Duration::ZERO,
            poll: Duration::from_secs(1),
            style: Style::default(),
        },
    );
    let mut stage = Stage {
        remote,
        engine,
        source,
        version: String::new(),
        candidate: Sent::default(),
        stable: Sent::default(),
    };
    stage.propose("6.8.0", "Add podinfo");
    stage.look().await;

    // One request in twenty fails, where stable fails one in a thousand.
    stage.begin("6.9.0").await;
    let mut subjects = String::new();
    for _ in 0..5 {
        subjects = stage.round((300, 0), (150, 8)).await;
        if subjects.contains("roll back") {
            break;
        }
    }
    assert!(subjects.contains("roll back"), "{subjects}");
    let back = stage.commit("roll back");
    assert_eq!(back.verdict.as_deref(), Some("fail"));
    assert!(
        back.sentence
            .contains("times as often as stable at least (99% sure)"),
        "{back:?}"
    );
    stage.agrees(&back);
    let after = stage.look().await;
    assert!(after.ends_with("finish podinfod=6.9.0"), "{after}");

    // A healthy one. In the middle everything fails one in ten, and nothing moves in either direction.
    stage.begin("6.10.0").await;
    stage.round((300, 0), (150, 0)).await;
    let before = stage.look().await;
    for _ in 0..3 {
        assert_eq!(stage.round((300, 30), (150, 15)).await, before);
    }
    let mut subjects = before;
    for _ in 0..25 {
        subjects = stage.round((300, 0), (150, 0)).await;
        if subjects.contains("promote podinfod=6.10.0") {
            break;
        }
    }
    assert!(subjects.contains("promote podinfod=6.10.0"), "{subjects}");
    assert_eq!(subjects.matches("roll back").count(), 1, "{subjects}");
    let promoted = stage.commit("promote");
    assert_eq!(promoted.verdict.as_deref(), Some("pass"));
    stage.agrees(&promoted);
}
