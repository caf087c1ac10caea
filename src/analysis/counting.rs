//! Counting exactly: cumulative counters of many series in, requests since a moment out.
//!
//! A [`Stream`] keeps the last value of each series and adds up what each reading adds to it. Splitting a time line
//! into ticks in another way therefore changes no count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::TimeDelta;

use super::types::AskError;
use crate::domain::Timestamp;

/// Series kept per canary and stream. 1,000 pods with 20 response codes or buckets each; a key takes about 200 bytes.
const MAX_SERIES: usize = 20_000;
/// Readings whose totals are kept, so that a step that is reported a little late still finds its beginning.
const RECENT: usize = 8;
/// Restarts kept. With one every 5 min, 64 cover 5 hours; beyond that the older half is thinned.
const MAX_RESTARTS: usize = 64;

/// Which of the two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Candidate,
    Stable,
}

/// A value for each of the two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sides<T> {
    /// Of the candidate.
    pub candidate: T,
    /// Of stable.
    pub stable: T,
}

impl<T> Sides<T> {
    fn get_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Candidate => &mut self.candidate,
            Side::Stable => &mut self.stable,
        }
    }
}

/// What increments of counters are added up to.
pub(super) trait Tally: Clone + Default + PartialEq {
    /// What a series counts.
    type Class: Copy + Ord;

    /// Adds `count` events of a class.
    fn add(&mut self, class: Self::Class, count: u64);

    /// What was added since `earlier`, an older state of this tally.
    fn since(&self, earlier: &Self) -> Self;
}

/// Identity of one counter. `source` is the proxy that counts: its counters start and end together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeriesId {
    pub side: Side,
    pub source: String,
    pub rest: String,
}

/// One value of one counter.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample<C> {
    pub id: SeriesId,
    pub class: C,
    pub value: f64,
}

/// The times that a stream counts from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    pub rollout: Timestamp,
    pub step: Timestamp,
    /// Time between two readings.
    pub tick: TimeDelta,
    /// How long nothing counts after the candidate was seen first: cold caches.
    pub warmup: TimeDelta,
}

/// Why the last look at Prometheus gave nothing that can be counted. Never a pass, never a fail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There was no usable answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// A counter that is negative, infinite, not a number or not whole.
    #[error(
        "Prometheus says {value} for a counter of `{series}`, a whole number of requests was expected"
    )]
    NotACount {
        /// The series.
        series: String,
        /// What it said.
        value: String,
    },
    /// Two values for one series at one time.
    #[error("Prometheus gave two values for one series of `{0}`")]
    Duplicate(String),
    /// A series that was not asked for, or lacks a label that it was grouped by.
    #[error(
        "Prometheus gave a series that was not asked for: {0}; check what stands between it and Serin"
    )]
    Foreign(String),
    /// A latency bucket whose bound is no number.
    #[error(
        "Prometheus gave a latency bucket with the bound `{0}`, a number of milliseconds was expected"
    )]
    Bound(String),
    /// Samples from after the moment that was asked about.
    #[error("Prometheus gave samples from after the time that was asked for: {0}")]
    Future(String),
    /// More series than are kept.
    #[error(
        "Prometheus has more than {MAX_SERIES} series for this canary; drop labels that multiply them"
    )]
    TooManySeries,
}

/// What one reading added, proxy by proxy. Proxies whose series were there without anything new are among them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Delta<T> {
    /// Whether it counts; before the rollout began it only shows how stable behaves.
    pub counts: bool,
    /// By proxy.
    pub proxies: Sides<Vec<T>>,
    /// Whether a restart of the test is due after it.
    pub restart: bool,
}

/// A moment with the totals at it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mark<T> {
    pub at: Timestamp,
    pub total: Sides<T>,
}

/// A restart of the test: the `index`th interval after the start of the rollout began here.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Restart<T> {
    pub index: u32,
    pub at: Timestamp,
    pub candidate: T,
}

#[derive(Debug, Clone, PartialEq)]
struct Last<C> {
    raw: u64,
    class: C,
}

/// Counters of one kind of one canary.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stream<T: Tally> {
    series: BTreeMap<SeriesId, Last<T::Class>>,
    sources: BTreeSet<(Side, String)>,
    last: Option<Timestamp>,
    baseline: Option<Timestamp>,
    total: Sides<T>,
    step: Option<(Timestamp, Mark<T>)>,
    recent: VecDeque<Mark<T>>,
    restarts: Vec<Restart<T>>,
    /// First and last reading that showed the candidate.
    candidate_seen: Option<(Timestamp, Timestamp)>,
    fault: Option<Fault>,
    failed_rebuilds: u32,
}

impl<T: Tally> Default for Stream<T> {
    fn default() -> Self {
        Self {
            series: BTreeMap::new(),
            sources: BTreeSet::new(),
            last: None,
            baseline: None,
            total: Sides::default(),
            step: None,
            recent: VecDeque::new(),
            restarts: Vec::new(),
            candidate_seen: None,
            fault: None,
            failed_rebuilds: 0,
        }
    }
}

impl<T: Tally> Stream<T> {
    /// Counts one reading, and says what it added; `None` for one that is not newer than the last. Readings must come
    /// in time order.
    pub(super) fn take(
        &mut self,
        at: Timestamp,
        samples: Vec<Sample<T::Class>>,
        marks: Marks,
    ) -> Result<Option<Delta<T>>, Fault> {
        if self.last.is_some_and(|last| at <= last) {
            return Ok(None);
        }
        let samples = self.checked(samples)?;
        if samples.keys().any(|id| id.side == Side::Candidate) {
            let first = self.candidate_seen.map_or(at, |(first, _)| first);
            self.candidate_seen = Some((first, at));
        }
        let is_cold = self
            .candidate_seen
            .is_some_and(|(first, _)| at - first < marks.warmup);
        let counts = self.baseline.is_some() && !self.is_first_sight(&samples) && !is_cold;
        let mut proxies = Sides::<Vec<T>>::default();
        // Ids are sorted by side and proxy, so that one proxy's series follow each other.
        let mut present: Option<(Side, &str)> = None;
        for (id, now) in &samples {
            let delta = match self.series.get(id) {
                Some(before) if now.raw >= before.raw => now.raw - before.raw,
                // The counter began anew: proxy restart, or the proxy had dropped an idle series.
                Some(_) => now.raw,
                None if self.counts_from_zero(id) => now.raw,
                None => 0,
            };
            let list = proxies.get_mut(id.side);
            if present != Some((id.side, &id.source)) {
                present = Some((id.side, &id.source));
                list.push(T::default());
            }
            if let Some(proxy) = list.last_mut() {
                proxy.add(now.class, delta);
            }
            if counts {
                self.total.get_mut(id.side).add(now.class, delta);
            }
        }
        for (id, now) in samples {
            if !self.series.contains_key(&id) {
                self.sources.insert((id.side, id.source.clone()));
            }
            self.series.insert(id, now);
        }
        if self.baseline.is_none() && at >= marks.rollout {
            self.baseline = Some(at);
        }
        self.last = Some(at);
        let restart = self.mark(at, marks);
        Ok(Some(Delta {
            counts,
            proxies,
            restart,
        }))
    }

    /// Whether a series that was never seen before began at 0 after the rollout began.
    ///
    /// A candidate's did. A new series of a known proxy did as well: counters start at 0. A proxy of stable that is
    /// seen for the first time may be old, and unseen for any reason.
    fn counts_from_zero(&self, id: &SeriesId) -> bool {
        match id.side {
            Side::Candidate => true,
            Side::Stable => self.sources.contains(&(Side::Stable, id.source.clone())),
        }
    }

    /// Whether this reading is the first that shows anything, and shows stable as well: then Prometheus was blind
    /// before, and what the candidate's counters hold may be older than the rollout.
    fn is_first_sight(&self, samples: &BTreeMap<SeriesId, Last<T::Class>>) -> bool {
        self.series.is_empty() && samples.keys().any(|id| id.side == Side::Stable)
    }

    fn checked(
        &self,
        samples: Vec<Sample<T::Class>>,
    ) -> Result<BTreeMap<SeriesId, Last<T::Class>>, Fault> {
        let mut checked = BTreeMap::new();
        for Sample { id, class, value } in samples {
            let Some(raw) = whole(value) else {
                return Err(Fault::NotACount {
                    series: id.source,
                    value: value.to_string(),
                });
            };
            let source = id.source.clone();
            if checked.insert(id, Last { raw, class }).is_some() {
                return Err(Fault::Duplicate(source));
            }
        }
        let new = checked
            .keys()
            .filter(|id| !self.series.contains_key(id))
            .count();
        if self.series.len() + new > MAX_SERIES {
            return Err(Fault::TooManySeries);
        }
        Ok(checked)
    }

    /// Keeps the totals at this reading; true when a restart of the test is due.
    fn mark(&mut self, at: Timestamp, marks: Marks) -> bool {
        self.recent.push_back(Mark {
            at,
            total: self.total.clone(),
        });
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        if self
            .step
            .as_ref()
            .is_none_or(|(step, _)| *step != marks.step)
        {
            self.step = self
                .recent
                .iter()
                .find(|mark| mark.at >= marks.step)
                .map(|mark| (marks.step, mark.clone()));
        }
        let index = starts_until(at - marks.rollout, marks.tick);
        let is_due = index > self.restarts.last().map_or(0, |last| last.index);
        if is_due {
            self.restarts.push(Restart {
                index,
                at,
                candidate: self.total.candidate.clone(),
            });
        }
        if self.restarts.len() > MAX_RESTARTS {
            let mut n = 0;
            self.restarts.retain(|_| {
                n += 1;
                n > MAX_RESTARTS / 2 || n % 2 == 0
            });
        }
        is_due
    }

    /// Notes that the last look gave nothing to count.
    pub(super) fn fail(&mut self, fault: Fault, rebuilding: bool) {
        if rebuilding {
            self.failed_rebuilds = self.failed_rebuilds.saturating_add(1);
        }
        self.fault = Some(fault);
    }

    /// Notes that the last look was counted.
    pub(super) fn succeed(&mut self) {
        self.fault = None;
        self.failed_rebuilds = 0;
    }

    /// What went wrong at the last look, if anything.
    pub(super) fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Range queries that failed in a row.
    pub(super) fn failed_rebuilds(&self) -> u32 {
        self.failed_rebuilds
    }

    /// Time of the last reading.
    pub(super) fn last(&self) -> Option<Timestamp> {
        self.last
    }

    /// Counts since the start of the rollout, and the reading that they begin at.
    pub(super) fn since_rollout(&self) -> Option<(Timestamp, &Sides<T>)> {
        self.baseline.map(|at| (at, &self.total))
    }

    /// Counts since the first reading at or after `step`, which must be the step of the last reading's marks.
    pub(super) fn since_step(&self, step: Timestamp) -> Option<(Timestamp, Sides<T>)> {
        let (of, mark) = self.step.as_ref()?;
        (*of == step).then(|| {
            let counts = Sides {
                candidate: self.total.candidate.since(&mark.total.candidate),
                stable: self.total.stable.since(&mark.total.stable),
            };
            (mark.at, counts)
        })
    }

    /// The same over the last readings that are kept, at most since the step.
    pub(super) fn recently(&self) -> Option<(Timestamp, Sides<T>)> {
        let oldest = self.recent.front()?;
        let from = match &self.step {
            Some((_, mark)) if mark.at > oldest.at => mark,
            _ => oldest,
        };
        let counts = Sides {
            candidate: self.total.candidate.since(&from.total.candidate),
            stable: self.total.stable.since(&from.total.stable),
        };
        Some((from.at, counts))
    }

    /// The last reading that showed the candidate.
    pub(super) fn candidate_seen(&self) -> Option<Timestamp> {
        self.candidate_seen.map(|(_, last)| last)
    }

    /// The restarts with the candidate's counts since each.
    pub(super) fn since_restarts(&self) -> impl Iterator<Item = (u32, Timestamp, T)> {
        self.restarts.iter().map(|restart| {
            let counts = self.total.candidate.since(&restart.candidate);
            (restart.index, restart.at, counts)
        })
    }

    /// Whether any series of this side was ever seen.
    pub(super) fn has_seen(&self, side: Side) -> bool {
        self.sources.iter().any(|(of, _)| *of == side)
    }

    /// The classes that every proxy of the candidate has a series of.
    pub(super) fn common_classes(&self) -> BTreeSet<T::Class> {
        let mut by_source: BTreeMap<&str, BTreeSet<T::Class>> = BTreeMap::new();
        for (id, last) in &self.series {
            if id.side == Side::Candidate {
                by_source.entry(&id.source).or_default().insert(last.class);
            }
        }
        by_source
            .into_values()
            .reduce(|a, b| a.intersection(&b).copied().collect())
            .unwrap_or_default()
    }
}

/// Ticks between two restarts of the test, so that a long healthy history, or a long incident that both versions share,
/// cannot hide what begins later: 5 min at the default of 15 s.
const RESTART_TICKS: i64 = 20;
/// The same during the first of these, when the weight rises quickly: one a minute.
const FIRST_TICKS: i64 = 4;

/// How many restarts are due until this time after the start of the rollout. It depends on nothing but that time, so
/// that a rebuild restarts at the same readings.
fn starts_until(time: TimeDelta, tick: TimeDelta) -> u32 {
    let ticks = time.num_milliseconds() / tick.num_milliseconds().max(1);
    let starts = if ticks < RESTART_TICKS {
        ticks / FIRST_TICKS
    } else {
        RESTART_TICKS / FIRST_TICKS + ticks / RESTART_TICKS - 1
    };
    u32::try_from(starts).unwrap_or_default()
}

/// A count, if `value` is one. Floats hold every whole number up to 2^53.
fn whole(value: f64) -> Option<u64> {
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    let is_count = value.is_finite() && (0.0..=LARGEST).contains(&value) && value.fract() == 0.0;
    is_count.then_some(value as u64)
}
