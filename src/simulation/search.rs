//! Runs many random schedules on every core, and cuts down those that break a rule until nothing can be left out.

use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Coverage, Outcome, memory, random, run, run_among};
use crate::spec::ParseCache;

/// Schedules that break a rule are kept up to this number; more would tell nothing new.
const MOST_BROKEN: usize = 20;

/// Runs that are spent on cutting down, for all of them together: an engine that goes in circles makes each a long one.
const MOST_TRIES: usize = 100;

/// Among this many schedules everything has to happen that can.
const ENOUGH: u64 = 2_000;

/// What a search found.
#[derive(Debug, Default)]
pub struct Report {
    /// Schedules that were run.
    pub count: u64,
    /// How many of them broke a rule.
    pub found: usize,
    /// The first seeds that broke a rule, in order, each cut down.
    pub broken: Vec<Broken>,
    /// What happened in all of them, and how often.
    pub coverage: Coverage,
}

impl Report {
    /// Whether no rule was broken, and among enough schedules nothing was left out.
    pub fn is_well(&self) -> bool {
        let thorough = self.count < ENOUGH || self.coverage.missing().is_empty();
        self.found == 0 && thorough
    }
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
    let coverage = Mutex::new(Coverage::default());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let parsed = memory();
                let mut seen = Coverage::default();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        let mut all = coverage.lock().unwrap_or_else(PoisonError::into_inner);
                        all.add(&seen);
                        return;
                    }
                    progress(index);
                    let seed = first.saturating_add(index);
                    let violations = violations(seed, &parsed, &mut seen);
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
    let mut tries = MOST_TRIES;
    let broken = cut.map(|(seed, violations)| cut_down(seed, violations, &mut tries));
    Report {
        count,
        found: number,
        broken: broken.collect(),
        coverage: coverage
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner),
    }
}

fn violations(seed: u64, parsed: &ParseCache, seen: &mut Coverage) -> Vec<String> {
    match random(seed) {
        Ok(scenario) => {
            let outcome = run_among(&scenario, seed, parsed);
            seen.add(&outcome.coverage);
            outcome.violations
        }
        Err(error) => vec![error.to_string()],
    }
}

/// Leaves out one event after another for as long as some rule stays broken.
fn cut_down(seed: u64, violations: Vec<String>, tries: &mut usize) -> Broken {
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
        let Some(left) = tries.checked_sub(1) else {
            break;
        };
        *tries = left;
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
        write!(f, "{}", self.coverage)?;
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
