//! The same reconcile with everything around it in memory and a clock that jumps: scenarios, demos, property tests.
//!
//! No rule of Serin's is written here a second time. `remote` has the history, `branch` is an engine's view of it, `mesh` the
//! traffic, `metrics` Prometheus, `cluster` the cluster, `lifeline` kills engines, `scenario` is the file format, `acts` does
//! what it says, `schedule` makes random scenarios, `audit` checks the history that came out, `search` runs many.

mod acts;
mod audit;
mod branch;
mod cluster;
mod coverage;
mod lifeline;
mod mesh;
mod metrics;
mod remote;
mod scenario;
mod schedule;
mod search;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future as _;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

pub use audit::{Truth, audit};
pub use branch::Branch;
pub use cluster::{ClusterMood, Held};
pub use coverage::{Coverage, EVERYTHING};
pub use lifeline::{CrashPoint, Life, Lifeline};
pub use mesh::{Behaviour, Mesh, Service, Workloads, World};
pub use metrics::PrometheusMood;
pub use remote::{Change, Commit, Lost, Remote};
pub use scenario::{Scenario, ScenarioError};
pub use schedule::{random, text};
pub use search::{Broken, Report, search};

use crate::clock::ManualClock;
use crate::domain::{CanaryId, CommitId, Person, Timestamp};
use crate::reconcile::{Engine, Pass, Settings};
use crate::record::message::Style;
use crate::spec::ParseCache;
use scenario::Event;

/// Parsed files that are remembered at once: a few kilobytes each.
const KEPT_FILES: usize = 4_000;

/// No scenario has anything like this many commits, unless an engine goes in circles.
const MOST_COMMITS: usize = 400;

/// The engine's identity in simulated commits.
pub fn identity() -> Person {
    Person {
        name: "Serin".to_owned(),
        email: "serin@serin.dev".to_owned(),
    }
}

/// An engine in memory.
type Seat = Engine<Branch, Mesh, Mesh, Arc<ManualClock>>;

/// One engine with its clock and what it was last heard of.
struct Runner {
    /// `None` while it has a pass.
    engine: Option<Seat>,
    life: Life,
    clock: Arc<ManualClock>,
    /// Its clock differs from true time by this much.
    skew: chrono::Duration,
    wake_at: Timestamp,
    waiting: BTreeMap<CanaryId, &'static str>,
}

/// A running simulation.
pub struct Simulation {
    remote: Arc<Mutex<Remote>>,
    world: Arc<Mutex<World>>,
    runners: Vec<Runner>,
    parsed: ParseCache,
    settings: Settings,
    has_cluster: bool,
    /// True time.
    now: Timestamp,
    start: Timestamp,
    reported: usize,
    /// The head at which something expected was missing.
    unmet_at: Option<CommitId>,
    clocks_were_fair: bool,
    trace: Vec<String>,
    violations: Vec<String>,
    seen: Coverage,
}

/// What a simulation left behind.
#[derive(Debug)]
pub struct Outcome {
    /// One aligned line per event.
    pub trace: Vec<String>,
    /// What the checkers found; empty when all is well.
    pub violations: Vec<String>,
    /// What happened, and how often.
    pub coverage: Coverage,
    /// The remote.
    pub remote: Arc<Mutex<Remote>>,
}

/// Runs a scenario from its start to its end.
pub fn run(scenario: &Scenario) -> Outcome {
    run_sharing(scenario, &memory(), true)
}

/// A memory of parsed files for many runs.
pub fn memory() -> ParseCache {
    ParseCache::shared(KEPT_FILES)
}

/// Of so many runs, the audit of one renders every commit again.
const RENDERED: u64 = 4;

/// Runs a scenario as one of many, the one with this number. Most of their files are the same: the memory of parsed files
/// outlives the run. To render every commit again, as the audit of a single run does, is left to the audit of every fourth.
pub fn run_among(scenario: &Scenario, number: u64, parsed: &ParseCache) -> Outcome {
    run_sharing(scenario, parsed, number.is_multiple_of(RENDERED))
}

fn run_sharing(scenario: &Scenario, parsed: &ParseCache, renders: bool) -> Outcome {
    let mut simulation = Simulation::new(scenario, parsed);
    let events = scenario.events();
    let last = events.last().map_or(chrono::Duration::zero(), |e| e.after);
    simulation.run(events, scenario.start + last, scenario);
    simulation.finish(scenario, renders)
}

/// The text of a file. Nearly all of them are texts: what is wrong in the others is not looked for byte by byte in each.
fn text_of(content: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(content) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(content),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The person whom a commit of ours names as its cause.
fn caused_by(message: &str) -> Option<&str> {
    let mut lines = message.lines();
    let cause = lines.find_map(|line| line.strip_prefix("Serin-Cause: person: "))?;
    cause.split(" <").next()
}

impl Simulation {
    fn new(scenario: &Scenario, parsed: &ParseCache) -> Self {
        let mut remote = Remote::default();
        remote.verifies = scenario.verify;
        let mut simulation = Self {
            parsed: parsed.handle(),
            remote: Arc::new(Mutex::new(remote)),
            world: Arc::new(Mutex::new(scenario.world())),
            runners: Vec::new(),
            settings: Settings {
                push_interval: Duration::from_secs(scenario.push_interval_seconds),
                poll: Duration::from_secs(30),
                style: Style::default(),
            },
            has_cluster: scenario.has_cluster(),
            now: scenario.start,
            start: scenario.start,
            reported: 0,
            unmet_at: None,
            clocks_were_fair: true,
            trace: Vec::new(),
            violations: Vec::new(),
            seen: Coverage::default(),
        };
        if scenario.engines > 1 {
            simulation.seen.note("engine: two at once");
        }
        for _ in 0..scenario.engines {
            let clock = Arc::new(ManualClock::new(scenario.start));
            let life = Life::default();
            let engine = simulation.engine(&clock, &life);
            simulation.runners.push(Runner {
                engine: Some(engine),
                life,
                clock,
                skew: chrono::Duration::zero(),
                wake_at: scenario.start,
                waiting: BTreeMap::new(),
            });
        }
        simulation
    }

    fn engine(&self, clock: &Arc<ManualClock>, life: &Life) -> Seat {
        let mesh = || Mesh::new(Arc::clone(&self.world), Arc::clone(life), self.has_cluster);
        let branch = Branch::new(Arc::clone(&self.remote), Arc::clone(life), identity());
        let settings = self.settings.clone();
        Engine::new(branch, mesh(), mesh(), Arc::clone(clock), settings)
            .sharing(self.parsed.handle())
    }

    fn run(&mut self, events: Vec<Event>, last: Timestamp, scenario: &Scenario) {
        let end = self.start + scenario.length();
        let mut events = events.into_iter().peekable();
        while self.now <= end {
            while let Some(event) = events.next_if(|event| self.start + event.after <= self.now) {
                self.act(event.act);
            }
            for index in 0..self.runners.len() {
                if self
                    .runners
                    .get(index)
                    .is_some_and(|r| r.wake_at <= self.now)
                {
                    self.pass(index);
                }
            }
            if lock(&self.remote).commits().len() > MOST_COMMITS {
                let words = format!("more than {MOST_COMMITS} commits: an engine goes in circles");
                self.violations.push(words);
                return;
            }
            if self.now > last && self.is_met(scenario) {
                return;
            }
            let wake_at = self.runners.iter().map(|runner| runner.wake_at).min();
            let next_event = events.peek().map_or(end, |event| self.start + event.after);
            let next = wake_at
                .unwrap_or(end)
                .min(next_event)
                .max(self.now + chrono::Duration::seconds(1));
            self.flow(next);
        }
    }

    /// Whether everything that the scenario expects is there; looked at once for each head.
    fn is_met(&mut self, scenario: &Scenario) -> bool {
        let remote = lock(&self.remote);
        let head = remote.commits().last().map(|commit| commit.id.clone());
        if self.unmet_at == head {
            return false;
        }
        let unmet = scenario.unmet(&remote.tree());
        self.unmet_at = head;
        unmet.is_some_and(|unmet| unmet.is_empty())
    }

    fn flow(&mut self, next: Timestamp) {
        let tree = lock(&self.remote).tree();
        #[expect(clippy::cast_precision_loss, reason = "seconds of a simulation")]
        let seconds = (next - self.now).num_seconds() as f64;
        lock(&self.world).flow(&tree, next, seconds);
        lock(&self.remote).pass_time(next);
        self.now = next;
        for runner in &self.runners {
            runner.clock.set(next + runner.skew);
        }
    }

    /// One pass of one engine. Where it is overtaken, the others have one between its decision and its push.
    fn pass(&mut self, index: usize) {
        let Some(mut engine) = self.runners.get_mut(index).and_then(|r| r.engine.take()) else {
            return;
        };
        let pass = {
            let mut future = pin!(engine.pass());
            loop {
                match future
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                {
                    Poll::Ready(pass) => break pass,
                    Poll::Pending => {
                        for other in (0..self.runners.len()).filter(|other| *other != index) {
                            self.pass(other);
                        }
                    }
                }
            }
        };
        self.report_commits();
        self.check_cluster();
        let Some(runner) = self.runners.get(index) else {
            return;
        };
        let soon = self.now + chrono::Duration::seconds(1);
        let (dead, killed) = {
            let mut life = lock(&runner.life);
            (std::mem::take(&mut life.dead), life.killed.take())
        };
        if let Some(point) = killed {
            self.seen.killed(point);
        }
        let (clock, life) = (Arc::clone(&runner.clock), Arc::clone(&runner.life));
        let wake_at = (pass.wake_at - runner.skew).max(soon);
        if dead {
            self.line("event", "the engine was killed and starts again");
            engine = self.engine(&clock, &life);
        } else {
            self.report_waiting(index, &pass);
        }
        if let Some(runner) = self.runners.get_mut(index) {
            runner.engine = Some(engine);
            runner.wake_at = if dead { soon } else { wake_at };
        }
    }

    /// What is in the cluster must be what some commit says.
    fn check_cluster(&mut self) {
        let (remote, world) = (lock(&self.remote), lock(&self.world));
        if remote.rewound {
            return;
        }
        let mut found = Vec::new();
        for (id, held) in world.objects.iter().filter(|(_, held)| !held.checked) {
            let commit = remote.commits().iter().rev().find(|c| c.id == held.commit);
            let same = commit.is_some_and(|commit| {
                let mut files = held.files.iter();
                files.all(|(path, content)| {
                    commit.tree.get(path).map(|file| &file.content) == Some(content)
                })
            });
            if !same {
                found.push(format!("{id}: the cluster has what no commit says"));
            }
        }
        drop((remote, world));
        for held in lock(&self.world).objects.values_mut() {
            held.checked = true;
        }
        self.violations.extend(found);
    }

    fn finish(mut self, scenario: &Scenario, renders: bool) -> Outcome {
        let (remote, world) = (lock(&self.remote), lock(&self.world));
        let truth = Truth {
            world: &world,
            clocks_were_fair: self.clocks_were_fair,
            renders,
        };
        let mut found = audit(remote.commits(), &truth, self.parsed.handle());
        found.extend(scenario.unmet(&remote.tree()).unwrap_or_default());
        self.seen.history(remote.commits());
        self.seen.add(&remote.seen);
        self.seen.add(&world.seen);
        drop((remote, world));
        self.violations.extend(found);
        self.violations.dedup();
        Outcome {
            trace: self.trace,
            violations: self.violations,
            coverage: self.seen,
            remote: self.remote,
        }
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
                let subject = commit.subject();
                match caused_by(&commit.message) {
                    Some(person) => (who, format!("{subject} ({person})")),
                    None => (who, subject.to_owned()),
                }
            })
            .collect();
        self.reported += lines.len();
        for (who, subject) in lines {
            self.line(&who, &subject);
        }
    }

    fn report_waiting(&mut self, index: usize, pass: &Pass) {
        let actor = match index {
            0 => "waits".to_owned(),
            _ => format!("waits-{}", index + 1),
        };
        for report in &pass.canaries {
            let reason = report.waiting.reason();
            self.seen.waited(reason);
            if reason == "CheckerRefused" {
                self.violations
                    .push(format!("{}: {}", report.id, report.waiting));
            }
            let heard = self.runners.get_mut(index).map(|r| &mut r.waiting);
            if heard.and_then(|heard| heard.insert(report.id.clone(), reason)) != Some(reason) {
                self.line(&actor, &format!("{}: {}", report.id, report.waiting));
            }
        }
        if pass.canaries.is_empty()
            && let Some(problem) = &pass.problem
        {
            self.line(&actor, problem);
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
}
