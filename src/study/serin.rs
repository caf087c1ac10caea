//! Serin's own rule: the judge of `analysis`, driven tick by tick with what a real engine would have counted.
//!
//! Nothing of the judgement is repeated here. This file counts (through [`Register`]), keeps the ladder, and asks
//! `analysis::comparison` at every tick what follows.

use std::time::Duration;

use super::count::{Counted, Reading, Register};
use super::rule::{Judge, Move};
use super::scenario::{LIMIT, Ms};
use super::traffic::{HISTORY, SCRAPE, World};
use super::tries::{Frame, Try, Variant};
use crate::analysis::comparison::policy::{self, Place, Policy};
use crate::analysis::comparison::{self, Comparison, Tick, safety};

/// Readings before a rollout that show how stable's pods differ.
const HISTORY_TICKS: Ms = 40;
/// What the candidate's latency is not judged by: its first minute, when caches are cold.
const COLD: Ms = 60_000;

/// The steps of a rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Ladder {
    /// Weights in per cent, and the least time on each.
    pub steps: Vec<(u8, Duration)>,
}

impl Default for Ladder {
    /// Flagger's tutorial: 10 to 50 by 10, a minute each.
    fn default() -> Self {
        Self {
            steps: [10, 20, 30, 40, 50]
                .map(|weight| (weight, Duration::from_secs(60)))
                .to_vec(),
        }
    }
}

/// All that a rollout is judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// The constants of the test.
    pub rule: comparison::Rule,
    /// Limit, floor, and how long to wait.
    pub policy: Policy,
    /// The steps.
    pub ladder: Ladder,
    /// Time between two looks.
    pub every: Duration,
}

impl Default for Setup {
    /// The benchmark's: 99 %, Flagger's ladder, a look at each scrape.
    fn default() -> Self {
        Self {
            rule: comparison::Rule::default(),
            policy: Policy::of_limit(LIMIT),
            ladder: Ladder::default(),
            every: Duration::from_millis(SCRAPE as u64),
        }
    }
}

/// Serin in one rollout.
#[derive(Debug)]
pub struct Serin {
    register: Register,
    failures: Comparison,
    slow: Option<Comparison>,
    /// In place of the evidence of `failures`, when something is tried.
    variant: Option<Variant>,
    policy: Policy,
    ladder: Ladder,
    every: Ms,
    /// Index of the step, once there is one.
    step: Option<usize>,
    since: Ms,
    of_step: Counted,
    of_step_slow: Counted,
    /// Restarts of the test so far.
    restarts: u32,
}

impl Serin {
    /// With the benchmark's ladder, limit and tick.
    pub fn begin(world: &World) -> Self {
        Self::with(world, Setup::default())
    }

    /// The benchmark's, with one thing changed.
    pub fn trying(world: &World, what: Try) -> Self {
        let frame = Frame {
            needed: comparison::Rule::default().needed(),
            is_guarded: true,
        };
        let variant = Some(Variant::new(what, frame));
        Self::begun(world, Setup::default(), variant)
    }

    /// With another setup.
    pub fn with(world: &World, setup: Setup) -> Self {
        Self::begun(world, setup, None)
    }

    fn begun(world: &World, setup: Setup, variant: Option<Variant>) -> Self {
        let Setup {
            rule,
            policy,
            ladder,
            every,
        } = setup;
        // Looking more often than there are scrapes would see each of them twice.
        let every = Ms::try_from(every.as_millis())
            .unwrap_or(SCRAPE)
            .max(SCRAPE);
        let mut serin = Self {
            register: Register::default(),
            failures: Comparison::new(rule),
            slow: world.scenario().slow.map(|_| Comparison::new(rule)),
            variant,
            policy,
            ladder,
            every,
            step: None,
            since: 0,
            of_step: (0, 0),
            of_step_slow: (0, 0),
            restarts: 0,
        };
        // As many readings as in production, the first of them for its values alone.
        let first = -(HISTORY - SCRAPE).min(HISTORY_TICKS * serin.every);
        let mut at = first;
        while at <= 0 {
            if let Some(reading) = serin.register.read(world, at)
                && at > first
            {
                serin.failures.seed(&reading.stable);
                if let Some(variant) = &mut serin.variant {
                    variant.seed(&reading.stable);
                }
                if let Some(slow) = &mut serin.slow {
                    slow.seed(&reading.stable_slow);
                }
            }
            at += serin.every;
        }
        serin
    }

    fn climb(&mut self, now: Ms) -> Move {
        let next = self.step.map_or(0, |step| step + 1);
        let Some((weight, _)) = self.ladder.steps.get(next).copied() else {
            return Move::Promote;
        };
        self.step = Some(next);
        self.since = now;
        self.of_step = (0, 0);
        self.of_step_slow = (0, 0);
        Move::Route(f64::from(weight) / 100.0)
    }

    fn restart(&mut self) {
        self.failures.restart();
        if let Some(variant) = &mut self.variant {
            variant.restart();
        }
        if let Some(slow) = &mut self.slow {
            slow.restart();
        }
    }

    fn take(&mut self, reading: &Reading, now: Ms) {
        let add = |sum: &mut Counted, pods: &[Counted]| {
            for (n, x) in pods {
                sum.0 += n;
                sum.1 += x;
            }
        };
        let tick = Tick {
            stable: &reading.stable,
            candidate: &reading.candidate,
        };
        self.failures.tick(tick);
        if let Some(variant) = &mut self.variant {
            variant.tick(tick);
        }
        add(&mut self.of_step, &reading.candidate);
        if let Some(slow) = self.slow.as_mut().filter(|_| now > COLD) {
            slow.tick(Tick {
                stable: &reading.stable_slow,
                candidate: &reading.candidate_slow,
            });
            add(&mut self.of_step_slow, &reading.candidate_slow);
        }
        let due = policy::restarts_until(now / self.every);
        if due > self.restarts {
            self.restarts = due;
            self.restart();
        }
    }

    /// The evidence of all streams together, and what it means.
    fn reading(&self) -> policy::Reading {
        let own = self.variant.as_ref().map(Variant::ln_evidence);
        let own = own.unwrap_or_else(|| self.failures.ln_evidence());
        // No client is ever blamed here; in production that stream has its share all the same.
        let (failures, slowness, rejections) = policy::SHARES;
        let floor = self.policy.floor;
        let own = policy::guarded(own, self.failures.candidate(), self.of_step, floor);
        let mut harm = vec![(failures, own.harm), (rejections, 0.0)];
        let mut doubt = vec![(failures, own.doubt), (rejections, 0.0)];
        if let Some(slow) = &self.slow {
            let candidate = slow.candidate();
            let own = policy::guarded(slow.ln_evidence(), candidate, self.of_step_slow, floor);
            harm.push((slowness, own.harm));
            doubt.push((slowness, own.doubt));
        }
        if comparison::combined(&harm) >= self.failures.rule().needed() {
            return policy::Reading::Harmful;
        }
        let strongest = doubt
            .iter()
            .map(|(_, doubt)| *doubt)
            .fold(f64::MIN, f64::max);
        if strongest.max(comparison::combined(&doubt)) >= policy::LEANING.ln() {
            return policy::Reading::Leaning;
        }
        let limit = self.policy.limit;
        let slow_is_safe = |slow: &Comparison| safety::safe(slow, limit).is_some();
        let by_trying = self.variant.as_ref().is_some_and(|variant| {
            variant.what() == Try::SafeThree && variant.ln_tripled() <= safety::BETA.ln()
        });
        let safe = safety::safe(&self.failures, limit)
            .or(by_trying.then_some(safety::Safe::Relative))
            .filter(|_| self.slow.as_ref().is_none_or(slow_is_safe));
        safe.map_or(policy::Reading::Open, policy::Reading::Safe)
    }
}

impl Judge for Serin {
    fn next_look(&self, now: Ms) -> Ms {
        now + self.every
    }

    fn look(&mut self, world: &World) -> Move {
        let now = world.now();
        let Some(step) = self.step else {
            return self.climb(now);
        };
        if !world.is_reachable(now) {
            return Move::Stay;
        }
        let Some(reading) = self.register.read(world, now) else {
            return Move::Stay;
        };
        self.take(&reading, now);
        let hold = self.ladder.steps.get(step).map(|(_, hold)| *hold);
        let place = Place {
            elapsed: Duration::from_millis(u64::try_from(now - self.since).unwrap_or_default()),
            hold: hold.unwrap_or_default(),
            is_last: step + 1 == self.ladder.steps.len(),
            requests: self.of_step.0,
        };
        match policy::next(self.reading(), &place, &self.policy) {
            policy::Move::RollBack => Move::RollBack,
            policy::Move::Promote => Move::Promote,
            policy::Move::GiveUp => Move::GiveUp,
            policy::Move::Advance => self.climb(now),
            policy::Move::Soak
            | policy::Move::WaitLeaning
            | policy::Move::WaitRequests
            | policy::Move::WaitSafe => Move::Stay,
        }
    }
}
