//! The whole rule of a tick: what the evidence means, and what follows from it on a step.

use std::time::Duration;

use super::safety::{self, Safe};
use super::{Comparison, Pod};

/// Failures of the candidate that a rollback needs, whatever the arithmetic says of the first one or two.
pub const MIN_FAILURES: u64 = 3;
/// Evidence from which on a candidate is not trusted with more: one in five.
pub const LEANING: f64 = 5.0;

/// Shares of the level: failures, slow answers, answers that blame the client.
pub const SHARES: (f64, f64, f64) = (0.6, 0.25, 0.15);

/// Ticks between two restarts of the test, so that a long healthy history, or a long incident that both versions share,
/// cannot hide what begins later: 5 min at the default of 15 s.
const RESTART_TICKS: i64 = 20;
/// The same during the first of these, when the weight rises quickly: one a minute.
const FIRST_TICKS: i64 = 4;

/// How many restarts of the test are due until this tick of a rollout.
pub fn restarts_until(tick: i64) -> u32 {
    let starts = if tick < RESTART_TICKS {
        tick / FIRST_TICKS
    } else {
        RESTART_TICKS / FIRST_TICKS + tick / RESTART_TICKS - 1
    };
    u32::try_from(starts).unwrap_or_default()
}

/// The constants of the rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Highest acceptable failing share, if there is one.
    pub limit: Option<f64>,
    /// Failing share of the candidate below which no difference matters.
    pub floor: f64,
    /// Requests of the candidate that a step needs, unless it has lasted `longest_step`.
    pub requests: u64,
    /// When a step may end without them.
    pub longest_step: Duration,
    /// When the last step ends without an answer.
    pub longest_last: Duration,
}

impl Policy {
    /// The usual rule for a failing share of at most `limit`.
    pub fn of_limit(limit: f64) -> Self {
        Self {
            limit: Some(limit),
            floor: 0.1 * limit,
            requests: 50,
            longest_step: Duration::from_secs(300),
            longest_last: Duration::from_secs(1200),
        }
    }
}

/// What the evidence says at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Worse than stable, and chance is excluded.
    Harmful,
    /// Looks worse than stable.
    Leaning,
    /// Safe to promote.
    Safe(Safe),
    /// Nothing yet.
    Open,
}

/// Evidence of a stream, as far as the guards let it count. They only ever lower it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guarded {
    /// For a rollback: a few failures at least, with a share that matters.
    pub harm: f64,
    /// For doubt: the share matters.
    pub doubt: f64,
}

/// Lets evidence count only for differences that are large enough to act on; `step` are the candidate's counts since
/// the present step began.
pub fn guarded(evidence: f64, candidate: Pod, step: Pod, floor: f64) -> Guarded {
    let reaches = |(n, x): Pod| x as f64 >= floor * n as f64 && x > 0;
    let matters = reaches(candidate) || reaches(step);
    let unless = |counts: bool| if counts { evidence } else { evidence.min(0.0) };
    Guarded {
        harm: unless(matters && candidate.1 >= MIN_FAILURES),
        doubt: unless(matters),
    }
}

/// Reads the evidence; `step` are the candidate's counts since the present step began.
pub fn reading(test: &Comparison, step: Pod, policy: &Policy) -> Reading {
    let evidence = guarded(test.ln_evidence(), test.candidate(), step, policy.floor);
    if evidence.harm >= test.rule().needed() {
        return Reading::Harmful;
    }
    if evidence.doubt >= LEANING.ln() {
        return Reading::Leaning;
    }
    match safety::safe(test, policy.limit) {
        Some(safe) => Reading::Safe(safe),
        None => Reading::Open,
    }
}

/// Where a rollout stands on its ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Time on this step.
    pub elapsed: Duration,
    /// Least time on it.
    pub hold: Duration,
    /// Whether promotion comes next.
    pub is_last: bool,
    /// The candidate's requests on it.
    pub requests: u64,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Traffic back to stable.
    RollBack,
    /// Not before the hold is over.
    Soak,
    /// The candidate looks worse: no more traffic for it.
    WaitLeaning,
    /// Too few requests on this step.
    WaitRequests,
    /// Nothing bad was seen, but nothing excludes it yet.
    WaitSafe,
    /// The last step has lasted too long without an answer.
    GiveUp,
    /// The next step.
    Advance,
    /// The candidate becomes stable.
    Promote,
}

/// The move that follows from a reading at a place.
pub fn next(reading: Reading, place: &Place, policy: &Policy) -> Move {
    if reading == Reading::Harmful {
        return Move::RollBack;
    }
    if place.elapsed < place.hold {
        return Move::Soak;
    }
    let late = place.is_last && place.elapsed >= policy.longest_last.max(place.hold);
    match reading {
        Reading::Harmful => Move::RollBack,
        Reading::Safe(_) if place.is_last => Move::Promote,
        Reading::Leaning | Reading::Open if late => Move::GiveUp,
        Reading::Leaning => Move::WaitLeaning,
        Reading::Open if place.is_last => Move::WaitSafe,
        Reading::Open | Reading::Safe(_) => {
            if place.requests >= policy.requests || place.elapsed >= policy.longest_step {
                Move::Advance
            } else {
                Move::WaitRequests
            }
        }
    }
}
