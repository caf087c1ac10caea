//! Runs many random schedules on every core, and cuts down those that break a rule until nothing can be left out.

use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{KEPT_FILES, Outcome, random, run, run_sharing};
use crate::spec::ParseCache;

/// Schedules that break a rule are kept up to this number; more would tell nothing new.
const MOST_BROKEN: usize = 20;

/// One of this many schedules has every commit rendered again by the audit.
const RENDERED: u64 = 4;

/// What a search found.
#[derive(Debug, Default)]
pub struct Report {
    /// Schedules that were run.
    pub count: u64,
    /// How many of them broke a rule.
    pub found: usize,
    /// The first seeds that broke a rule, in order, each cut down.
    pub broken: Vec<Broken>,
}

/// A schedule that broke a rule.
#[derive(Debug)]
pub struct Broken {
    /// Its seed.
    pub seed: u64,
    /// What the checkers said of the whole schedule.
    pub violations: Vec<String>,
    /// The events that are enough to break a rule, as lines of a scenario.
    pub events: Vec<String>,
    /// The trace of the schedule with these events only.
    pub trace: Vec<String>,
}

/// Runs the schedules `first`, `first + 1`, … and tells `progress` how many are done.
pub fn search(first: u64, count: u64, progress: impl Fn(u64) + Sync) -> Report {
    let next = AtomicU64::new(0);
    let found = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let parsed = ParseCache::shared(KEPT_FILES);
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    progress(index);
                    let seed = first.saturating_add(index);
                    let violations = violations(seed, &parsed);
                    if !violations.is_empty() {
                        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                        found.push((seed, violations));
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort();
    let number = found.len();
    let cut = found.into_iter().take(MOST_BROKEN);
    let broken = cut.map(|(seed, violations)| cut_down(seed, violations));
    Report {
        count,
        found: number,
        broken: broken.collect(),
    }
}

fn violations(seed: u64, parsed: &ParseCache) -> Vec<String> {
    match random(seed) {
        Ok(scenario) => run_sharing(&scenario, parsed, seed.is_multiple_of(RENDERED)).violations,
        Err(error) => vec![error.to_string()],
    }
}

/// Leaves out one event after another for as long as some rule stays broken.
fn cut_down(seed: u64, violations: Vec<String>) -> Broken {
    let mut broken = Broken {
        seed,
        violations,
        events: Vec::new(),
        trace: Vec::new(),
    };
    let Ok(mut scenario) = random(seed) else {
        return broken;
    };
    let mut outcome = run(&scenario);
    let mut index = scenario.number_of_events();
    while index > 0 {
        index -= 1;
        if scenario.is_calm(index) {
            continue;
        }
        let shorter = scenario.without(index);
        let tried = run(&shorter);
        if same_kind(&tried, &outcome) {
            scenario = shorter;
            outcome = tried;
        }
    }
    broken.events = scenario.described();
    broken.trace = outcome.trace;
    broken
}

/// Whether some rule is broken in the words of before.
fn same_kind(tried: &Outcome, before: &Outcome) -> bool {
    let words = |text: &String| text.rsplit(": ").next().unwrap_or_default().to_owned();
    tried
        .violations
        .first()
        .zip(before.violations.first())
        .is_some_and(|(one, other)| words(one) == words(other))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} of {} schedules break a rule", self.found, self.count)?;
        for broken in &self.broken {
            write!(f, "{broken}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seed = self.seed;
        writeln!(
            f,
            "\nseed {seed} (alone: SERIN_SEED={seed}, or `serin simulate --random 1 --seed {seed}`)"
        )?;
        for violation in &self.violations {
            writeln!(f, "  violation: {violation}")?;
        }
        writeln!(f, "  these events are enough:")?;
        for event in &self.events {
            writeln!(f, "    {event}")?;
        }
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}
