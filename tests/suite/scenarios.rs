//! Every file in `scenarios/` runs and gives its golden trace; random schedules give no violation.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serin::clock::ManualClock;
use serin::domain::{Contents, RepoPath, Timestamp};
use serin::reconcile::{Engine, Settings};
use serin::record::message::Style;
use serin::simulation::{self, Branch, Change, Life, Mesh, Remote, Scenario, World};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// Compares with the golden trace beside the scenario; `UPDATE_TRACES=1` rewrites it.
#[test]
fn every_scenario_gives_its_trace() {
    let update = std::env::var_os("UPDATE_TRACES").is_some();
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        count += 1;
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let scenario = Scenario::read(&std::fs::read_to_string(&path).unwrap());
        let outcome = simulation::run(&scenario.unwrap_or_else(|error| panic!("{name}: {error}")));
        assert_eq!(outcome.violations, Vec::<String>::new(), "{name}");
        let trace = outcome.trace.join("\n") + "\n";
        let golden = path.with_extension("trace");
        if update {
            std::fs::write(&golden, &trace).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != trace {
            wrong.push(format!("--- {name}\n{trace}"));
        }
    }
    assert!(count > 20, "only {count} scenarios were found");
    assert!(
        wrong.is_empty(),
        "traces differ; if that is meant: UPDATE_TRACES=1 cargo test --test suite scenarios, then read the diff\n{}",
        wrong.join("\n")
    );
}

/// The same scenario gives the same trace.
#[test]
fn simulations_are_deterministic() {
    let text = std::fs::read_to_string(folder().join("story.yaml")).unwrap();
    let once = simulation::run(&Scenario::read(&text).unwrap()).trace;
    let twice = simulation::run(&Scenario::read(&text).unwrap()).trace;
    assert_eq!(once, twice);
}

/// A minute on two cores in an unoptimised build; `.ci/run` asks for 20,000.
const SCHEDULES: u64 = 3_000;

/// Random people and faults: no checker finds anything, and each kind of either really occurs. `SERIN_SCHEDULES` sets how
/// many, `SERIN_SEED` runs one.
///
/// Schedules share nothing, so that every core takes its part of them.
#[test]
fn random_schedules_break_no_rule() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let (first, count) = match number("SERIN_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("SERIN_SCHEDULES").unwrap_or(SCHEDULES)),
    };
    let report = simulation::search(first, count, |_| {});
    assert!(report.is_well(), "{report}");
}

#[test]
fn a_bad_scenario_is_refused_with_its_event() {
    let error = Scenario::read("lasts: 1m\nevents:\n- {at: 1m}\n").unwrap_err();
    assert!(
        error.to_string().starts_with("event 1: nothing happens"),
        "{error}"
    );
    assert!(Scenario::read("lasts: soon\n").is_err());
    assert!(Scenario::read("lasts: 1m\nlast: 1m\n").is_err());
}

/// When one file of many changes, no other is looked into again; when none does, none is.
#[tokio::test]
async fn only_a_changed_file_is_parsed_again() {
    let mut remote = Remote::default();
    let write =
        |path: String, text: String| (RepoPath::new(path).unwrap(), Some(text.into_bytes().into()));
    let person = simulation::identity;
    let change = |files| Change {
        author: person(),
        message: "Edit\n".to_owned(),
        files,
        unsigned: false,
    };
    let start = "2026-01-05T09:00:00Z".parse().unwrap();
    let app = include_str!("../../src/simulation/base/app.yaml");
    let canary = include_str!("../../src/simulation/base/canary.yaml");
    let mut files = Contents::new();
    for index in 0..20 {
        let named = |text: &str| text.replace("name: podinfo", &format!("name: app{index}"));
        let named = |text: &str| {
            let text =
                named(text).replace("deployment: podinfo", &format!("deployment: app{index}"));
            let text = text.replace("service: podinfo", &format!("service: app{index}"));
            text.replace("hosts: [podinfo]", &format!("hosts: [app{index}]"))
                .replace(&format!("name: app{index}d"), "name: podinfod")
        };
        files.extend([
            write(format!("apps/{index}/app.yaml"), named(app)),
            write(format!("apps/{index}/canary.yaml"), named(canary)),
        ]);
    }
    remote.commit(change(files), start);
    let remote = Arc::new(Mutex::new(remote));
    let world = Arc::new(Mutex::new(World::default()));
    let mesh = || Mesh::new(Arc::clone(&world), Life::default(), false);
    let mut engine = Engine::new(
        Branch::new(Arc::clone(&remote), Life::default(), person()),
        mesh(),
        mesh(),
        Arc::new(ManualClock::new(start)),
        Settings {
            push_interval: Duration::ZERO,
            poll: Duration::from_secs(30),
            style: Style::default(),
        },
    );
    let pass = engine.pass().await;
    assert_eq!(pass.moves().count(), 20, "{pass:?}");
    engine.pass().await;
    let known = engine.parsed().parsed();
    engine.pass().await;
    assert_eq!(engine.parsed().parsed(), known, "nothing changed");
    let path = RepoPath::new("apps/7/app.yaml").unwrap();
    let text = app.replace("replicas: 4", "replicas: 5");
    let text = text.replace("name: podinfo\n", "name: app7\n");
    let edit = Contents::from([(path, Some(text.into_bytes().into()))]);
    remote.lock().unwrap().commit(change(edit), start);
    engine.pass().await;
    assert_eq!(engine.parsed().parsed(), known + 1, "one file changed");
}

/// An interval between pushes that is shorter than a second holds nobody up until the next.
#[tokio::test]
async fn a_short_push_interval_is_kept_to_the_millisecond() {
    let start: Timestamp = "2026-01-05T09:00:00.200Z".parse().unwrap();
    let path = |text: &str| RepoPath::new(text).unwrap();
    let canary = include_str!("../../src/simulation/base/canary.yaml");
    let change = |file: &str, text: &str| Change {
        author: simulation::identity(),
        message: "Edit\n".to_owned(),
        files: Contents::from([(path(file), Some(text.as_bytes().into()))]),
        unsigned: false,
    };
    let mut remote = Remote::default();
    let app = include_str!("../../src/simulation/base/app.yaml");
    remote.commit(change("app.yaml", app), start);
    remote.commit(change("canary.yaml", canary), start);
    let remote = Arc::new(Mutex::new(remote));
    let clock = Arc::new(ManualClock::new(start));
    let world = Arc::new(Mutex::new(World::default()));
    let mesh = || Mesh::new(Arc::clone(&world), Life::default(), false);
    let mut engine = Engine::new(
        Branch::new(Arc::clone(&remote), Life::default(), simulation::identity()),
        mesh(),
        mesh(),
        Arc::clone(&clock),
        Settings {
            push_interval: Duration::from_millis(300),
            poll: Duration::from_secs(30),
            style: Style::default(),
        },
    );
    assert_eq!(engine.pass().await.moves().count(), 1, "initialized");
    let longer = canary.replace("timeout: 5s", "timeout: 6s");
    remote
        .lock()
        .unwrap()
        .commit(change("canary.yaml", &longer), start);
    clock.set(start + chrono::Duration::milliseconds(299));
    let pass = engine.pass().await;
    assert_eq!(pass.canaries[0].waiting.reason(), "PushInterval");
    assert_eq!(pass.wake_at, start + chrono::Duration::milliseconds(300));
    clock.set(pass.wake_at);
    assert_eq!(engine.pass().await.moves().count(), 1, "rendered");
}
