//! Counting exactly: cumulative counters of many series in, requests since a moment out.
//!
//! A [`Stream`] keeps the last value of each series and adds up what each reading adds to it. Splitting a time line
//! into ticks in another way therefore changes no count.

use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};

use chrono::TimeDelta;

use super::comparison::policy;
use super::types::AskError;
use crate::domain::Timestamp;

/// Series kept per canary and stream. 1,000 pods with 20 response codes or buckets each; a counter takes about 120 bytes.
const MAX_SERIES: usize = 20_000;
/// Readings whose totals are kept, so that a step that is reported a little late still finds its beginning.
pub(super) const RECENT: usize = 8;
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

/// Labels that tell counters apart, in the order in which they are compared.
pub(super) type Names<'a> = [&'a str; 3];

/// One value of one counter. `source` is the proxy that counts: its counters start and end together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample<'a, C> {
    pub side: Side,
    pub source: Names<'a>,
    pub rest: Names<'a>,
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
    /// A series among the latency buckets that is no bucket.
    #[error(
        "Prometheus gave a latency series without the label `le`, buckets were expected; of a native histogram make them with histogram_fraction and histogram_count"
    )]
    NoBound,
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

impl<T> Default for Delta<T> {
    fn default() -> Self {
        Self {
            counts: false,
            proxies: Sides {
                candidate: Vec::new(),
                stable: Vec::new(),
            },
            restart: false,
        }
    }
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

/// The labels of a proxy or of one of its counters.
type OwnNames = [Box<str>; 3];

fn compare(own: &OwnNames, names: Names<'_>) -> Ordering {
    own.iter().map(AsRef::as_ref).cmp(names)
}

/// A counter of a proxy.
#[derive(Debug, Clone, PartialEq)]
struct Counter<C> {
    names: OwnNames,
    class: C,
    /// Its last value; `None` before the first reading that was good as a whole.
    last: Option<u64>,
    /// Its value in the reading that is being taken.
    next: Option<u64>,
}

/// A proxy with its counters, sorted by their labels.
#[derive(Debug, Clone, PartialEq)]
struct Proxy<C> {
    side: Side,
    names: OwnNames,
    counters: Vec<Counter<C>>,
}

impl<C: Copy> Proxy<C> {
    fn has_counted(&self) -> bool {
        self.counters.iter().any(|counter| counter.last.is_some())
    }

    fn is_present(&self) -> bool {
        self.counters.iter().any(|counter| counter.next.is_some())
    }
}

/// Counters of one kind of one canary.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stream<T: Tally> {
    /// Sorted by side and labels, so that equal samples give equal evidence, whenever each proxy was seen first.
    proxies: Vec<Proxy<T::Class>>,
    /// Counters of all of them.
    size: usize,
    last: Option<Timestamp>,
    baseline: Option<Timestamp>,
    total: Sides<T>,
    /// What stable counted before the baseline: between which readings, and how much.
    history: Option<(Timestamp, Timestamp, T)>,
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
            proxies: Vec::new(),
            size: 0,
            last: None,
            baseline: None,
            total: Sides::default(),
            history: None,
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
    /// Counts one reading into `delta`; false for one that is not newer than the last. Readings must come in time order.
    /// A reading that cannot be used changes nothing.
    pub(super) fn take<'a>(
        &mut self,
        at: Timestamp,
        samples: impl Iterator<Item = Sample<'a, T::Class>>,
        marks: Marks,
        delta: &mut Delta<T>,
    ) -> Result<bool, Fault> {
        if self.last.is_some_and(|last| at <= last) {
            return Ok(false);
        }
        let has_counted = self.proxies.iter().any(Proxy::has_counted);
        let mut present = Sides::<bool>::default();
        let mut near = 0;
        for sample in samples {
            if let Err(fault) = self.note(&sample, &mut near) {
                self.forget_reading();
                return Err(fault);
            }
            *present.get_mut(sample.side) = true;
        }
        if present.candidate {
            let first = self.candidate_seen.map_or(at, |(first, _)| first);
            self.candidate_seen = Some((first, at));
        }
        let is_cold = self
            .candidate_seen
            .is_some_and(|(first, _)| at - first < marks.warmup);
        // The first reading that shows anything, and shows stable as well: Prometheus was blind before, and what the
        // candidate's counters hold may be older than the rollout.
        let is_first_sight = !has_counted && present.stable;
        delta.counts = self.baseline.is_some() && !is_first_sight && !is_cold;
        delta.proxies.candidate.clear();
        delta.proxies.stable.clear();
        let (_, until, history) = self.history.get_or_insert_with(|| (at, at, T::default()));
        if self.baseline.is_none() {
            *until = at;
        }
        for proxy in self.proxies.iter_mut().filter(|proxy| proxy.is_present()) {
            let total = match proxy.side {
                side if delta.counts => Some(self.total.get_mut(side)),
                Side::Stable if self.baseline.is_none() => Some(&mut *history),
                Side::Stable | Side::Candidate => None,
            };
            let added = gained::<T>(proxy, total);
            delta.proxies.get_mut(proxy.side).push(added);
        }
        if self.baseline.is_none() && at >= marks.rollout {
            self.baseline = Some(at);
        }
        self.last = Some(at);
        delta.restart = self.mark(at, marks);
        Ok(true)
    }

    /// Notes a value of the reading that is being taken. `near` is where the proxy of the value before was found: the
    /// series of a proxy mostly follow each other.
    fn note(&mut self, sample: &Sample<'_, T::Class>, near: &mut usize) -> Result<(), Fault> {
        let source = || sample.source.join(" ");
        let Some(value) = whole(sample.value) else {
            return Err(Fault::NotACount {
                series: source(),
                value: sample.value.to_string(),
            });
        };
        let order = |proxy: &Proxy<T::Class>| {
            let side = proxy.side.cmp(&sample.side);
            side.then_with(|| compare(&proxy.names, sample.source))
        };
        if self.proxies.get(*near).map(order) != Some(Ordering::Equal) {
            *near = match self.proxies.binary_search_by(order) {
                Ok(place) => place,
                Err(place) => {
                    let proxy = Proxy {
                        side: sample.side,
                        names: sample.source.map(Box::from),
                        counters: Vec::new(),
                    };
                    self.proxies.insert(place, proxy);
                    place
                }
            };
        }
        let Some(proxy) = self.proxies.get_mut(*near) else {
            return Ok(());
        };
        let counters = &mut proxy.counters;
        let place = counters.binary_search_by(|counter| compare(&counter.names, sample.rest));
        let place = match place {
            Ok(place) => place,
            Err(_) if self.size >= MAX_SERIES => return Err(Fault::TooManySeries),
            Err(place) => {
                let counter = Counter {
                    names: sample.rest.map(Box::from),
                    class: sample.class,
                    last: None,
                    next: None,
                };
                counters.insert(place, counter);
                self.size += 1;
                place
            }
        };
        match counters.get_mut(place).map(|counter| &mut counter.next) {
            Some(next @ None) => *next = Some(value),
            Some(Some(_)) => return Err(Fault::Duplicate(source())),
            None => {}
        }
        Ok(())
    }

    /// Leaves everything as it was before the reading that was being taken.
    fn forget_reading(&mut self) {
        for proxy in &mut self.proxies {
            proxy.counters.retain(|counter| counter.last.is_some());
            proxy.counters.iter_mut().for_each(|c| c.next = None);
        }
        self.proxies.retain(|proxy| !proxy.counters.is_empty());
        self.size = self.proxies.iter().map(|proxy| proxy.counters.len()).sum();
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

    /// What stable counted before the rollout, and between which readings.
    pub(super) fn history(&self) -> Option<(Timestamp, Timestamp, &T)> {
        let (from, to, counts) = self.history.as_ref()?;
        Some((*from, *to, counts))
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
        self.proxies.iter().any(|proxy| proxy.side == side)
    }

    /// The classes that every proxy of the candidate has a series of.
    pub(super) fn common_classes(&self) -> BTreeSet<T::Class> {
        let candidates = self.proxies.iter().filter(|p| p.side == Side::Candidate);
        candidates
            .map(|proxy| proxy.counters.iter().map(|c| c.class).collect())
            .reduce(|a: BTreeSet<T::Class>, b| a.intersection(&b).copied().collect())
            .unwrap_or_default()
    }
}

/// Settles a reading of a proxy: what it gained, also added to `total` if it counts.
fn gained<T: Tally>(proxy: &mut Proxy<T::Class>, mut total: Option<&mut T>) -> T {
    // A series that was never seen before began at 0 if it is the candidate's, or another of a known proxy. A proxy of
    // stable that is seen for the first time may be old, and unseen for any reason.
    let begins_at_zero = proxy.side == Side::Candidate || proxy.has_counted();
    let mut added = T::default();
    for counter in &mut proxy.counters {
        let Some(now) = counter.next.take() else {
            continue;
        };
        let delta = match counter.last.replace(now) {
            Some(before) if now >= before => now - before,
            // The counter began anew: proxy restart, or the proxy had dropped an idle series.
            Some(_) => now,
            None if begins_at_zero => now,
            None => 0,
        };
        added.add(counter.class, delta);
        if let Some(total) = &mut total {
            total.add(counter.class, delta);
        }
    }
    added
}

/// How many restarts are due until this time after the start of the rollout. It depends on nothing but that time, so
/// that a rebuild restarts at the same readings.
fn starts_until(time: TimeDelta, tick: TimeDelta) -> u32 {
    policy::restarts_until(time.num_milliseconds() / tick.num_milliseconds().max(1))
}

/// A count, if `value` is one. Floats hold every whole number up to 2^53.
fn whole(value: f64) -> Option<u64> {
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    let is_count = value.is_finite() && (0.0..=LARGEST).contains(&value) && value.fract() == 0.0;
    is_count.then_some(value as u64)
}
