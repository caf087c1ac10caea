//! Whether every loop is alive, and whether it has been round once.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;

use crate::domain::Timestamp;

/// One loop's heart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Heart {
    /// When it beat last; `None` before the first pass ended.
    last: Option<Timestamp>,
    /// When it was started.
    since: Timestamp,
    /// Longest time between two beats of a loop that is alive.
    longest: Duration,
    /// Whether a pass has ended with the remote reached.
    went_round: bool,
}

/// The hearts of all loops, by name.
#[derive(Debug, Default)]
pub struct Health {
    hearts: Mutex<BTreeMap<String, Heart>>,
}

/// How a pass ended, as far as health goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The loop is alive and has seen its branch.
    WentRound,
    /// The loop is alive, its remote is not: nothing that a restart would mend.
    Alive,
}

impl Health {
    /// Nothing is watched yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches a loop that beats at least every `longest`, deadlines of its calls included.
    pub fn watch(&self, name: &str, longest: Duration, now: Timestamp) {
        let heart = Heart {
            last: None,
            since: now,
            longest,
            went_round: false,
        };
        self.hearts().insert(name.to_owned(), heart);
    }

    /// A pass of the loop ended.
    pub fn beat(&self, name: &str, beat: Beat, now: Timestamp) {
        if let Some(heart) = self.hearts().get_mut(name) {
            heart.last = Some(now);
            heart.went_round |= beat == Beat::WentRound;
        }
    }

    /// A loop that hangs is dead, and a restart is what helps. A remote that is away kills nobody.
    ///
    /// # Errors
    /// One sentence per loop that hangs.
    pub fn liveness(&self, now: Timestamp) -> Result<(), Vec<String>> {
        let hangs = |(name, heart): (&String, &Heart)| {
            let silent = now - heart.last.unwrap_or(heart.since);
            let limit = TimeDelta::from_std(heart.longest).unwrap_or(TimeDelta::MAX);
            let seconds = silent.num_seconds();
            (silent > limit).then(|| format!("{name}: no pass has ended for {seconds} s"))
        };
        none_of(self.hearts().iter().filter_map(hangs).collect())
    }

    /// Ready once every loop has seen its branch, and while it is alive.
    ///
    /// # Errors
    /// One sentence per loop that is not ready.
    pub fn readiness(&self, now: Timestamp) -> Result<(), Vec<String>> {
        self.liveness(now)?;
        let waits = |(name, heart): (&String, &Heart)| {
            (!heart.went_round).then(|| format!("{name}: the branch has not been read yet"))
        };
        none_of(self.hearts().iter().filter_map(waits).collect())
    }

    fn hearts(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Heart>> {
        self.hearts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn none_of(reasons: Vec<String>) -> Result<(), Vec<String>> {
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(reasons)
    }
}
