//! What the engine costs: an idle pass over ten thousand canaries, one changed file, memory, what the applier makes of them,
//! whole simulated rollouts.
//!
//! `cargo bench --bench engine [-- idle|applying|rollouts|schedules]`. Every figure stands beside a baseline that was measured in the same run.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a benchmark prints what it measured with the machine's own clock"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use mimalloc::MiMalloc;
use serde_json::{Value, json};
use serin::applier::desired::{Built, Source};
use serin::applier::{Action, Assembly, Desired, Ledger, Object, Policy, Scopes};
use serin::clock::ManualClock;
use serin::domain::{BlobId, CanaryId, CommitId, RepoPath, Timestamp};
use serin::ports::{
    Draft, Files, ForeignCommit, Head, History, Lineage, Published, Question, Repository,
    RepositoryError, Snapshot, Watch,
};
use serin::reconcile::{Engine, Settings};
use serin::record::message::Style;
use serin::simulation::{self, Mesh, Scenario, World};
use serin::spec::{Catalog, ParseCache};

/// As the program has it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Canaries of the large repository; each has two files of its own and four or five of Serin's.
const CANARIES: usize = 10_000;
/// Passes that are averaged.
const PASSES: u32 = 20;
/// Rollouts that are averaged.
const ROLLOUTS: usize = 300;

/// Words that choose parts of the benchmark; without one, all are measured.
const PARTS: [&str; 4] = ["idle", "applying", "rollouts", "schedules"];

/// Makes the program measure its memory and nothing else.
const MEMORY: &str = "--memory-of";
/// The same for the applier.
const APPLIER: &str = "--memory-of-applier";

const APP: &str = include_str!("../src/simulation/base/app.yaml");
const CANARY: &str = include_str!("../src/simulation/base/canary.yaml");

/// A branch that stands still unless it is told to move.
struct Still {
    commit: CommitId,
    files: Files,
}

impl Repository for Still {
    async fn fetch(&mut self) -> Result<Head, RepositoryError> {
        Ok(Head {
            commit: Some(self.commit.clone()),
            history: History::Forward,
        })
    }

    async fn snapshot(&mut self, at: &CommitId) -> Result<Snapshot, RepositoryError> {
        Ok(Snapshot {
            commit: at.clone(),
            files: Arc::clone(&self.files),
            skipped: Vec::new(),
        })
    }

    async fn lineage(
        &mut self,
        _at: &CommitId,
        _watches: &[Watch],
    ) -> Result<BTreeMap<CanaryId, Lineage>, RepositoryError> {
        Ok(BTreeMap::new())
    }

    async fn authors(
        &mut self,
        _at: &CommitId,
        questions: Vec<Question>,
    ) -> Result<Vec<Option<ForeignCommit>>, RepositoryError> {
        Ok(vec![None; questions.len()])
    }

    async fn publish(
        &mut self,
        _base: &CommitId,
        _drafts: Vec<Draft>,
    ) -> Result<Published, RepositoryError> {
        Ok(Published::Refused("this branch stands still".to_owned()))
    }
}

impl Still {
    fn put(&mut self, path: RepoPath, content: impl Into<Arc<[u8]>>) {
        let content = content.into();
        // Content and place name a blob well enough here; Git would hash.
        let blob = BlobId(format!("{path}@{}", self.files.len() + content.len()).into());
        Arc::make_mut(&mut self.files).insert(path, (blob, content));
    }
}

fn drive<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}

type Seat = Engine<Still, Mesh, Mesh, Arc<ManualClock>>;

fn engine(branch: Still) -> Seat {
    let world = Arc::new(Mutex::new(World::default()));
    let mesh = || Mesh::new(Arc::clone(&world), simulation::Life::default(), false);
    let start: Timestamp = "2026-01-05T09:00:00Z".parse().unwrap();
    let settings = Settings {
        push_interval: Duration::ZERO,
        poll: Duration::from_secs(30),
        style: Style::default(),
    };
    let clock = Arc::new(ManualClock::new(start));
    Engine::new(branch, mesh(), mesh(), clock, settings)
}

/// A branch with all canaries idle, and everything that Serin writes for them in place.
fn large() -> Still {
    let mut branch = Still {
        commit: CommitId::new("1"),
        files: Files::default(),
    };
    for index in 0..CANARIES {
        let name = format!("app-{index:05}");
        for (file, text) in [("app.yaml", APP), ("canary.yaml", CANARY)] {
            let path = RepoPath::new(format!("apps/{name}/{file}")).unwrap();
            let text = text.replace("ghcr.io/stefanprodan/podinfo", "IMAGE");
            let text = text
                .replace("podinfod", "CONTAINER")
                .replace("podinfo", &name);
            branch.put(path, text.replace("CONTAINER", "podinfod").into_bytes());
        }
    }
    let mut engine = engine(branch);
    let outlook = drive(engine.outlook(false)).unwrap();
    let mut branch = engine.repository;
    for (_, draft) in outlook.into_iter().flat_map(|canary| canary.next) {
        for (path, content) in draft.changes {
            branch.put(path, content.unwrap());
        }
    }
    branch.commit = CommitId::new("2");
    branch
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4_096
}

/// Bytes that a fresh process keeps per canary for `what`, the files themselves not counted.
fn memory(branch: &Still, what: &str) -> f64 {
    let files: Vec<(&str, &str)> = branch
        .files
        .iter()
        .map(|(path, (_, content))| (path.as_str(), std::str::from_utf8(content).unwrap()))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("files.json");
    std::fs::write(&path, serde_json::to_vec(&files).unwrap()).unwrap();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .arg(what)
        .arg(&path)
        .output()
        .unwrap();
    String::from_utf8(child.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

/// The other side of [`memory`].
fn measure_memory(what: &str, path: &str) {
    let mut branch = Still {
        commit: CommitId::new("2"),
        files: Files::default(),
    };
    let text = std::fs::read(path).unwrap();
    let files: Vec<(String, String)> = serde_json::from_slice(&text).unwrap();
    drop(text);
    for (path, content) in files {
        branch.put(RepoPath::new(path).unwrap(), content.into_bytes());
    }
    let before = resident();
    let report = |now: u64| {
        let kept = now.saturating_sub(before);
        println!("{}", kept as f64 / CANARIES as f64);
    };
    if what == APPLIER {
        let (_assembly, ledger) = applied(&branch);
        report(resident());
        assert!(ledger.open().is_empty());
        return;
    }
    let mut engine = engine(branch);
    drop(drive(engine.pass()));
    report(resident());
}

/// What a tree asks for, as the keeper of a cluster works it out.
fn desired(assembly: &mut Assembly, branch: &Still) -> Desired {
    let source = Source {
        commit: &branch.commit,
        files: &branch.files,
        skipped: &[],
    };
    let sources = assembly.sort(&branch.files);
    let known = (&Scopes::new(), &BTreeSet::new());
    assembly.assemble(&source, (&sources, &Built::new()), known)
}

/// An object as a server shows it.
fn live(object: &Object, version: usize) -> Value {
    let mut live = object.to_apply("bench", None);
    let fields = json!({"f:metadata": {"f:annotations": {"f:serin.dev/sequence": {}, "f:serin.dev/canary": {}}}});
    live["metadata"]["uid"] = json!(format!("6f1ed002-ab5e-4c5a-9e5c-{version:012}"));
    live["metadata"]["resourceVersion"] = json!(version.to_string());
    live["metadata"]["managedFields"] = json!([
        {"manager": "serin", "operation": "Apply", "time": "2026-01-05T10:00:00Z", "fieldsV1": fields},
        {"manager": "kube-controller-manager", "operation": "Update", "time": "2026-01-05T10:00:01Z", "subresource": "status"},
    ]);
    if object.key.kind.is("apps", "Deployment") {
        let replicas = live["spec"]["replicas"].clone();
        live["status"] = json!({"replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas});
    }
    live
}

/// A ledger that saw everything that a tree asks for.
fn applied(branch: &Still) -> (Assembly, Ledger) {
    let now: Timestamp = "2026-01-05T10:00:00Z".parse().unwrap();
    let mut assembly = Assembly::default();
    let desired = Arc::new(desired(&mut assembly, branch));
    let mut ledger = Ledger::new(Policy {
        owner: "bench".to_owned(),
        ..Policy::default()
    });
    ledger.follow(Arc::clone(&desired), now);
    for (kind, _) in ledger.kinds().clone() {
        ledger.synced(&kind, now);
    }
    for (version, object) in desired.objects.values().enumerate() {
        ledger.saw(&live(object, version), now);
    }
    (assembly, ledger)
}

fn applying() {
    let mut branch = large();
    let now: Timestamp = "2026-01-05T10:00:00Z".parse().unwrap();
    let (baseline, whole) = timed(|| desired(&mut Assembly::default(), &branch));
    let objects = whole.objects.len();
    println!("{objects} objects of {CANARIES} canaries, applied");
    println!("  baseline, all of them read              {baseline:>12.1?}");
    drop(whole);
    let kept = memory(&branch, APPLIER);
    println!("  memory                                  {kept:>10.0} bytes per canary");

    let (mut assembly, mut ledger) = applied(&branch);
    assert_eq!(ledger.next(now).len(), 0, "nothing is to do");
    let path = RepoPath::new("apps/app-00042/app.yaml").unwrap();
    let text = String::from_utf8(branch.files[&path].1.to_vec()).unwrap();
    branch.put(
        path,
        text.replace("replicas: 4", "replicas: 40").into_bytes(),
    );
    branch.commit = CommitId::new("3");
    let (one, actions) = timed(|| {
        let desired = desired(&mut assembly, &branch);
        ledger.follow(Arc::new(desired), now);
        ledger.next(now)
    });
    assert!(
        matches!(&actions[..], [Action::Apply { .. }]),
        "{actions:?}"
    );
    println!(
        "  from a head with one changed file to its write {one:>5.1?}  1/{:.0} of the baseline",
        baseline.as_secs_f64() / one.as_secs_f64()
    );
}

fn timed<T>(what: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let value = what();
    (start.elapsed(), value)
}

fn idle() {
    let branch = large();
    let count = branch.files.len();
    let (baseline, catalog) = timed(|| Catalog::read(&branch.files, &mut ParseCache::default()));
    println!("{count} files, {} canaries", catalog.canaries.len());
    println!("  baseline, all parsed and validated      {baseline:>12.1?}");
    drop(catalog);

    let kept = memory(&branch, MEMORY);
    let mut engine = engine(branch);
    let (first, pass) = timed(|| drive(engine.pass()));
    assert!(pass.problem.is_none(), "{:?}", pass.problem);
    let moved = pass
        .canaries
        .iter()
        .filter(|canary| !canary.moves.is_empty());
    assert_eq!(moved.count(), 0, "nothing is to do");
    println!("  first pass                              {first:>12.1?}");
    println!("  memory                                  {kept:>10.0} bytes per canary");
    drop(pass);

    let (passes, ()) = timed(|| (0..PASSES).for_each(|_| drop(drive(engine.pass()))));
    let idle = passes / PASSES;
    println!(
        "  idle pass, HEAD where it was            {idle:>12.1?}  1/{:.0} of the baseline",
        baseline.as_secs_f64() / idle.as_secs_f64()
    );

    let path = RepoPath::new("apps/app-00042/app.yaml").unwrap();
    let text = String::from_utf8(engine.repository.files[&path].1.to_vec()).unwrap();
    engine.repository.put(
        path,
        text.replace("replicas: 4", "replicas: 40").into_bytes(),
    );
    engine.repository.commit = CommitId::new("3");
    let parsed = engine.parsed().parsed();
    let (one, _) = timed(|| drive(engine.pass()));
    println!(
        "  pass with one changed file              {one:>12.1?}  1/{:.0} of the baseline, {} file parsed",
        baseline.as_secs_f64() / one.as_secs_f64(),
        engine.parsed().parsed() - parsed
    );
}

fn rollouts() {
    let scenario = |index: usize| {
        format!(
            "lasts: 8m\nevents:\n- {{at: 30s, who: alexis, says: Propose, replace: [{{file: apps/podinfo/canary.yaml, \
             from: \"podinfo:6.8.0\", to: \"podinfo:6.9.{index}\"}}]}}\n\
             expect:\n- {{file: apps/podinfo/podinfo.serin/rollout.yaml, contains: \"phase: Idle\"}}\n\
             - {{file: apps/podinfo/app.yaml, contains: \"podinfo:6.9.{index}\"}}\n"
        )
    };
    let texts: Vec<String> = (0..ROLLOUTS).map(scenario).collect();
    let (baseline, scenarios) = timed(|| {
        let read = |text: &String| Scenario::read(text).unwrap();
        texts.iter().map(read).collect::<Vec<_>>()
    });
    let (taken, ()) = timed(|| {
        for scenario in &scenarios {
            let outcome = simulation::run(scenario);
            assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
        }
    });
    let parsed = simulation::memory();
    let (among_many, ()) = timed(|| {
        for (number, scenario) in (0..).zip(&scenarios) {
            let outcome = simulation::run_among(scenario, number, &parsed);
            assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
        }
    });
    println!("whole rollouts, a second and core");
    for (what, taken) in [
        (
            "every one from a cold start, every commit rendered again",
            taken,
        ),
        ("as `simulate --random` runs many", among_many),
    ] {
        println!(
            "  {:.0} {what}; one costs {:.0} times the reading of its scenario file",
            ROLLOUTS as f64 / taken.as_secs_f64(),
            taken.as_secs_f64() / baseline.as_secs_f64()
        );
    }
}

fn schedules() {
    let (taken, report) = timed(|| simulation::search(1_000_000, 1_000, |_| {}));
    assert!(report.broken.is_empty(), "{report}");
    println!(
        "random schedules of every fault, all cores\n  {:.0} a second",
        1_000.0 / taken.as_secs_f64()
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, path] = arguments.as_slice()
        && (word == MEMORY || word == APPLIER)
    {
        measure_memory(word, path);
        return;
    }
    let is_wanted = |part: &str| {
        let mut named = arguments
            .iter()
            .filter(|word| PARTS.contains(&word.as_str()));
        arguments.iter().any(|word| word == part) || named.next().is_none()
    };
    if is_wanted("idle") {
        idle();
    }
    if is_wanted("applying") {
        applying();
    }
    if is_wanted("rollouts") {
        rollouts();
    }
    if is_wanted("schedules") {
        schedules();
    }
}
