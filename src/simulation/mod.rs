//! The same reconcile with everything around it in memory and a clock that jumps: scenarios, demos, property tests.
//!
//! No rule of Serin's is written here a second time. `branch` is the remote, `mesh` is traffic, Prometheus and cluster,
//! `scenario` is the file format, `schedule` makes random scenarios, `audit` checks the history that came out.

mod audit;
mod branch;
mod mesh;
mod scenario;
mod schedule;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

pub use audit::audit;
pub use branch::{Branch, Change, Commit, CrashPoint, Remote};
pub use mesh::{Behaviour, Mesh, PrometheusMood, Service, World};
pub use scenario::{Scenario, ScenarioError};
pub use schedule::random;

use crate::clock::ManualClock;
use crate::domain::{CanaryId, Person, RepoPath, Timestamp};
use crate::reconcile::{Engine, Pass, Settings};
use crate::record::message::Style;
use scenario::{Act, Event};

/// The engine's identity in simulated commits.
pub fn identity() -> Person {
    Person {
        name: "Serin".to_owned(),
        email: "serin@serin.dev".to_owned(),
    }
}

/// A running simulation.
pub struct Simulation {
    remote: Arc<Mutex<Remote>>,
    world: Arc<Mutex<World>>,
    clock: Arc<ManualClock>,
    engine: Engine<Branch, Mesh, Mesh, Arc<ManualClock>>,
    settings: Settings,
    has_cluster: bool,
    /// True time; the engine's clock differs from it by `skew`.
    now: Timestamp,
    skew: chrono::Duration,
    start: Timestamp,
    wake_at: Timestamp,
    reported: usize,
    waiting: BTreeMap<CanaryId, &'static str>,
    trace: Vec<String>,
    violations: Vec<String>,
}

/// What a simulation left behind.
#[derive(Debug)]
pub struct Outcome {
    /// One aligned line per event.
    pub trace: Vec<String>,
    /// What the checkers found; empty when all is well.
    pub violations: Vec<String>,
    /// The remote.
    pub remote: Arc<Mutex<Remote>>,
}

/// Runs a scenario from its start to its end.
pub fn run(scenario: &Scenario) -> Outcome {
    let mut simulation = Simulation::new(scenario);
    simulation.run(scenario.events(), scenario.start + scenario.length());
    let mut violations = simulation.violations;
    let remote = simulation.remote;
    violations.extend(audit(
        remote
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .commits(),
    ));
    Outcome {
        trace: simulation.trace,
        violations,
        remote,
    }
}

/// In-memory ports are always ready; a future that is not would wait for ever.
fn drive<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return value;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Simulation {
    fn new(scenario: &Scenario) -> Self {
        let mut remote = Remote::default();
        remote.verifies = scenario.verify;
        let remote = Arc::new(Mutex::new(remote));
        let world = Arc::new(Mutex::new(scenario.world()));
        let clock = Arc::new(ManualClock::new(scenario.start));
        let settings = Settings {
            push_interval: Duration::from_secs(scenario.push_interval_seconds),
            poll: Duration::from_secs(30),
            style: Style::default(),
        };
        let engine = engine(&remote, &world, &clock, &settings, scenario.has_cluster());
        Self {
            remote,
            world,
            clock,
            engine,
            settings,
            has_cluster: scenario.has_cluster(),
            now: scenario.start,
            skew: chrono::Duration::zero(),
            start: scenario.start,
            wake_at: scenario.start,
            reported: 0,
            waiting: BTreeMap::new(),
            trace: Vec::new(),
            violations: Vec::new(),
        }
    }

    fn run(&mut self, events: Vec<Event>, end: Timestamp) {
        let mut events = events.into_iter().peekable();
        while self.now <= end {
            while let Some(event) = events.next_if(|event| self.start + event.after <= self.now) {
                self.act(event.act);
            }
            if self.wake_at <= self.now {
                self.pass();
            }
            let next_event = events.peek().map_or(end, |event| self.start + event.after);
            let next = self
                .wake_at
                .min(next_event)
                .max(self.now + chrono::Duration::seconds(1));
            self.flow(next);
        }
    }

    fn flow(&mut self, next: Timestamp) {
        let tree = lock(&self.remote).tree();
        let files = tree
            .iter()
            .map(|(path, file)| (path.clone(), file.content.to_vec()))
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "seconds of a simulation")]
        let seconds = (next - self.now).num_seconds() as f64;
        lock(&self.world).flow(&files, next, seconds);
        self.now = next;
        self.clock.set(next + self.skew);
    }

    fn pass(&mut self) {
        let pass = drive(self.engine.pass());
        self.report_commits();
        if pass
            .problem
            .as_ref()
            .is_some_and(|problem| problem.ends_with("killed"))
        {
            self.line("event", "the engine was killed and starts again");
            self.engine = engine(
                &self.remote,
                &self.world,
                &self.clock,
                &self.settings,
                self.has_cluster,
            );
            self.wake_at = self.now + chrono::Duration::seconds(1);
            return;
        }
        self.report_waiting(&pass);
        self.wake_at = (pass.wake_at - self.skew).max(self.now + chrono::Duration::seconds(1));
    }

    fn report_commits(&mut self) {
        let lines: Vec<(String, String)> = lock(&self.remote)
            .commits()
            .iter()
            .skip(self.reported)
            .map(|commit| {
                let who = commit
                    .author
                    .name
                    .split(' ')
                    .next()
                    .unwrap_or_default()
                    .to_lowercase();
                (who, commit.subject().to_owned())
            })
            .collect();
        self.reported += lines.len();
        for (who, subject) in lines {
            self.line(&who, &subject);
        }
    }

    fn report_waiting(&mut self, pass: &Pass) {
        for report in &pass.canaries {
            let reason = report.waiting.reason();
            if reason == "CheckerRefused" {
                self.violations
                    .push(format!("{}: {}", report.id, report.waiting));
            }
            if self.waiting.insert(report.id.clone(), reason) != Some(reason) {
                self.line("waits", &format!("{}: {}", report.id, report.waiting));
            }
        }
        if pass.canaries.is_empty()
            && let Some(problem) = &pass.problem
        {
            self.line("waits", problem);
        }
    }

    fn line(&mut self, actor: &str, what: &str) {
        let elapsed = (self.now - self.start).num_seconds();
        let (h, m, s) = (elapsed / 3_600, elapsed / 60 % 60, elapsed % 60);
        self.trace.push(
            format!("{h:02}:{m:02}:{s:02}  {actor:<8}  {what}")
                .trim_end()
                .to_owned(),
        );
    }

    fn act(&mut self, act: Act) {
        // Somebody's commit wakes the engine as a webhook would.
        self.wake_at = self.wake_at.min(self.now);
        match act {
            Act::Commit(change) => {
                let resolved = change.resolve(&lock(&self.remote).tree());
                if let Some(change) = resolved {
                    lock(&self.remote).commit(change, self.now);
                }
                self.report_commits();
            }
            Act::Revert { who, subject } => {
                let change = lock(&self.remote).revert_of(&subject, who);
                match change {
                    Some(change) => lock(&self.remote).commit(change, self.now),
                    None => self.line("event", &format!("nothing to revert: {subject}")),
                }
                self.report_commits();
            }
            Act::Race(change) => {
                let resolved = change.resolve(&lock(&self.remote).tree());
                lock(&self.remote)
                    .races
                    .extend(resolved.map(|change| (change, self.now)));
            }
            Act::Rewind(count) => {
                lock(&self.remote).rewind(count);
                self.reported = lock(&self.remote).commits().len();
                self.line(
                    "event",
                    &format!("somebody forces the branch back by {count}"),
                );
            }
            Act::Prometheus(mood) => {
                lock(&self.world).mood = mood;
                self.line("event", &format!("prometheus: {mood:?}").to_lowercase());
            }
            Act::Down(down) => {
                lock(&self.remote).down = down;
                self.line("event", if down { "remote: down" } else { "remote: up" });
            }
            Act::Refuse(words) => {
                let what = words.as_deref().unwrap_or("nothing any more").to_owned();
                lock(&self.remote).refuses = words;
                self.line("event", &format!("remote refuses: {what}"));
            }
            Act::Crash(point) => lock(&self.remote).crash = Some(point),
            Act::Skew(by) => {
                self.skew = by;
                self.clock.set(self.now + by);
                self.wake_at = self.now;
                self.line(
                    "event",
                    &format!("the engine's clock is off by {} s", by.num_seconds()),
                );
            }
            Act::DeleteNamespace => {
                lock(&self.world).objects.clear();
                self.line("event", "the namespace is deleted by hand");
            }
            Act::EditCluster { path, from, to } => self.edit_cluster(&path, &from, &to),
        }
    }

    fn edit_cluster(&mut self, path: &RepoPath, from: &str, to: &str) {
        for held in lock(&self.world).objects.values_mut() {
            if let Some(content) = held.files.get_mut(path) {
                *content = String::from_utf8_lossy(content)
                    .replace(from, to)
                    .into_bytes();
            }
        }
        self.line(
            "event",
            &format!("{} is edited by hand in the cluster", path.file_name()),
        );
    }
}

fn engine(
    remote: &Arc<Mutex<Remote>>,
    world: &Arc<Mutex<World>>,
    clock: &Arc<ManualClock>,
    settings: &Settings,
    has_cluster: bool,
) -> Engine<Branch, Mesh, Mesh, Arc<ManualClock>> {
    Engine::new(
        Branch::new(Arc::clone(remote), identity()),
        Mesh::new(Arc::clone(world), has_cluster),
        Mesh::new(Arc::clone(world), has_cluster),
        Arc::clone(clock),
        settings.clone(),
    )
}
