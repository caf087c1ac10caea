//! Answers become readings: whose series each is, which proxy and class it counts, at which moments.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;

use super::counting::{Delta, Fault, Marks, Names, Sample, Side, Stream, Tally};
use super::evidence::{Bound, Counts, Evidence, Ledger, Outcome, period, whole_second};
use super::types::{
    Answer, AskError, CUSTOM_LABEL, Counted, Kind, Part, Purpose, Query, Series, Target,
};
use crate::domain::{CanaryId, Timestamp};
use crate::spec::{Counting, Unit};

/// Adds answers to the ledger. `answers` belong to `queries` one by one; what was not answered changes nothing.
pub fn absorb(ledger: &mut Ledger, targets: &[Target], queries: &[Query], answers: &[Answer]) {
    let by_id: BTreeMap<&CanaryId, &Target> = targets.iter().map(|t| (&t.id, t)).collect();
    let find = |id: &CanaryId| by_id.get(id).copied();
    let alive = answers
        .iter()
        .any(|answer| matches!(answer, Answer::Series(_)));
    for (query, answer) in queries.iter().zip(answers) {
        let reading = Reading { query, answer };
        match &query.purpose {
            Purpose::Requests(ids) => {
                let asked: Vec<&Target> = ids.iter().filter_map(find).collect();
                let lines = reading.sorted(|series| sort(&asked, series, request_of));
                reading.count(ledger, &asked, lines, REQUESTS);
            }
            Purpose::Latency(ids) => {
                let asked: Vec<&Target> = ids.iter().filter_map(find).collect();
                let lines = reading.sorted(|series| sort(&asked, series, bucket_of));
                reading.count(ledger, &asked, lines, LATENCY);
            }
            Purpose::Counters(kind, members) => {
                reading.own_counters(ledger, find, *kind, members, alive);
            }
            Purpose::Custom(members) => {
                let looks = super::custom::read(members, query.at, answer, alive);
                for ((id, metric), look) in members.iter().zip(looks) {
                    if let Some(target) = find(id) {
                        let custom = &mut ledger.open(target).custom;
                        super::custom::note(custom, target, metric, look);
                    }
                }
            }
            Purpose::Checks(id, metric) => {
                if let Some(target) = find(id) {
                    let checks = ledger.open(target).checks_of(target);
                    checks.read(metric, query, answer);
                }
            }
            Purpose::Clock => {}
        }
    }
}

/// A query with its answer.
#[derive(Clone, Copy)]
struct Reading<'a> {
    query: &'a Query,
    answer: &'a Answer,
}

/// A series as a counter of one canary.
struct Line<'a, C> {
    side: Side,
    source: Names<'a>,
    rest: Names<'a>,
    class: C,
    samples: &'a [(Timestamp, f64)],
}

impl<'a, C: Copy> Line<'a, C> {
    fn at(&self, at: Timestamp) -> Option<Sample<'a, C>> {
        let found = self.samples.binary_search_by_key(&at, |(at, _)| *at);
        let (_, value) = self.samples.get(found.ok()?)?;
        Some(Sample {
            side: self.side,
            source: self.source,
            rest: self.rest,
            class: self.class,
            value: *value,
        })
    }
}

/// The lines of each canary that was asked about, in their order. The outer error is about the answer as a whole, an
/// inner one about one canary.
type Lines<'a, C> = Result<Vec<Result<Vec<Line<'a, C>>, Fault>>, Fault>;

/// Where readings of one kind go.
struct Reader<T: Tally> {
    stream: fn(&mut Evidence) -> &mut Stream<T>,
    compare: fn(&mut Evidence, Timestamp, &Target, &Delta<T>),
    /// Whether nothing counts while the candidate is cold.
    warms_up: bool,
}

const REQUESTS: Reader<Counts> = Reader {
    stream: |evidence| &mut evidence.requests,
    compare: Evidence::compare_requests,
    warms_up: false,
};

const LATENCY: Reader<super::evidence::Buckets> = Reader {
    stream: |evidence| &mut evidence.latency,
    compare: Evidence::compare_latency,
    warms_up: true,
};

impl<'a> Reading<'a> {
    fn sorted<C>(&self, sort: impl FnOnce(&'a [Series]) -> Lines<'a, C>) -> Lines<'a, C> {
        match self.answer {
            Answer::Series(series) => sort(series),
            Answer::Failed(error) => Err(Fault::Ask(error.clone())),
        }
    }

    /// Counts the lines of each canary at each moment of the answer.
    fn count<T: Tally>(
        &self,
        ledger: &mut Ledger,
        asked: &[&Target],
        lines: Lines<'_, T::Class>,
        reader: Reader<T>,
    ) {
        let rebuilding = self.query.range.is_some();
        let whole = lines.and_then(|lines| Ok((lines, self.times()?)));
        let (lines, times) = match whole {
            Ok(whole) => whole,
            Err(fault) => {
                for target in asked {
                    (reader.stream)(ledger.open(target)).fail(fault.clone(), rebuilding);
                }
                return;
            }
        };
        let mut delta = Delta::default();
        for (target, lines) in asked.iter().zip(lines) {
            let evidence = ledger.open(target);
            let marks = marks(target, reader.warms_up);
            let from = super::plan::first_reading(target);
            let counted = lines.and_then(|lines| {
                // Canaries that share a range begin at the earliest; the same samples must mean the same, whoever shares.
                for at in times.iter().filter(|at| **at >= from) {
                    let samples = lines.iter().filter_map(|line| line.at(*at));
                    let is_new = (reader.stream)(evidence).take(*at, samples, marks, &mut delta)?;
                    if is_new && target.analysis.compare {
                        (reader.compare)(evidence, *at, target, &delta);
                    }
                }
                Ok(())
            });
            let stream = (reader.stream)(evidence);
            match counted {
                Ok(()) => stream.succeed(),
                Err(fault) => stream.fail(fault, rebuilding),
            }
        }
    }

    /// The moments at which the whole answer is a reading. Some servers align a range to multiples of its step, so the
    /// times are taken from the samples; a moment at which one canary has none is a reading without series for it.
    fn times(&self) -> Result<BTreeSet<Timestamp>, Fault> {
        let Answer::Series(answer) = self.answer else {
            return Ok(BTreeSet::new());
        };
        let query = self.query;
        let mut times = BTreeSet::new();
        let mut before: &[(Timestamp, f64)] = &[];
        for Series { samples, .. } in answer {
            let same = samples.len() == before.len();
            if same && samples.iter().zip(before).all(|(a, b)| a.0 == b.0) {
                continue;
            }
            times.extend(samples.iter().map(|(at, _)| *at));
            before = samples;
        }
        if let Some(late) = times.last().filter(|last| **last > query.at) {
            return Err(Fault::Future(late.to_rfc3339()));
        }
        match query.range {
            Some((start, _)) => times.insert(start),
            None if times.is_empty() => times.insert(query.at),
            None => false,
        };
        if query.range.is_some() && answer.is_empty() {
            times.insert(query.at);
        }
        Ok(times)
    }

    /// Counts what the queries of a spec gave.
    fn own_counters<'t>(
        &self,
        ledger: &mut Ledger,
        find: impl Fn(&CanaryId) -> Option<&'t Target>,
        kind: Kind,
        members: &[Counted],
        alive: bool,
    ) {
        let mut asked: Vec<&Target> = members.iter().filter_map(|m| find(&m.canary)).collect();
        asked.dedup_by(|a, b| a.id == b.id);
        let is_batch = asked.len() > 1;
        let suspect = match self.answer {
            Answer::Series(_) => false,
            Answer::Failed(error) => error.may_be_of_one(alive),
        };
        for target in &asked {
            let failed = matches!(self.answer, Answer::Failed(_));
            let apart = &mut ledger.open(target).apart;
            apart.note(is_batch, suspect, failed);
        }
        let texts: Vec<String> = match self.answer {
            Answer::Series(answer) => answer.iter().map(other_labels).collect(),
            Answer::Failed(_) => Vec::new(),
        };
        match kind {
            Kind::Requests => {
                let of = |member: &Counted, series: &Series| {
                    let outcome = member.outcome();
                    outcome.ok_or_else(|| Fault::Foreign(describe(series)))
                };
                let lines = self.sorted(|answer| own_lines(&asked, members, answer, &texts, of));
                self.count(ledger, &asked, lines, REQUESTS);
            }
            Kind::Latency => {
                let of = |member: &Counted, series: &Series| {
                    let le = series.labels.value("le");
                    let bound = match member.part {
                        Part::Buckets(unit) => Bound::parse(le, unit),
                        Part::Requests | Part::Failures | Part::Rejections => None,
                    };
                    bound.ok_or_else(|| unbound(le))
                };
                let lines = self.sorted(|answer| own_lines(&asked, members, answer, &texts, of));
                self.count(ledger, &asked, lines, LATENCY);
            }
        }
    }
}

fn marks(target: &Target, warms_up: bool) -> Marks {
    let warmup = TimeDelta::from_std(target.analysis.counting.warmup).unwrap_or_default();
    Marks {
        rollout: whole_second(target.window.rollout),
        step: whole_second(target.window.step),
        tick: period(target.analysis.every),
        warmup: if warms_up { warmup } else { TimeDelta::zero() },
    }
}

/// Istio's labels, as the queries group by them. Prometheus leaves out empty ones; HTTP requests have no gRPC status.
#[derive(Default)]
struct Istio<'a> {
    namespace: &'a str,
    workload: &'a str,
    pod: &'a str,
    instance: &'a str,
    code: &'a str,
    grpc: &'a str,
    flags: &'a str,
    le: &'a str,
}

impl<'a> Istio<'a> {
    fn of(series: &'a Series) -> Self {
        let mut found = Self::default();
        for (name, value) in series.labels.iter() {
            let field = match name {
                "destination_workload_namespace" => &mut found.namespace,
                "destination_workload" => &mut found.workload,
                "pod" => &mut found.pod,
                "instance" => &mut found.instance,
                "response_code" => &mut found.code,
                "grpc_response_status" => &mut found.grpc,
                "response_flags" => &mut found.flags,
                "le" => &mut found.le,
                _ => continue,
            };
            *field = value;
        }
        found
    }
}

/// Reads the class of a series, and what tells it from others of the same proxy.
type Classify<C> = for<'a> fn(&Istio<'a>, &Series, &Counting) -> Result<(C, Names<'a>), Fault>;

fn request_of<'a>(
    labels: &Istio<'a>,
    series: &Series,
    rules: &Counting,
) -> Result<(Outcome, Names<'a>), Fault> {
    let names = [labels.code, labels.grpc, labels.flags];
    if labels.code.is_empty() {
        return Err(Fault::Foreign(describe(series)));
    }
    Ok((Outcome::of(names, rules), names))
}

/// What is wrong with a bucket that has no bound that could be read.
fn unbound(le: &str) -> Fault {
    match le {
        "" => Fault::NoBound,
        le => Fault::Bound(le.to_owned()),
    }
}

fn bucket_of<'a>(
    labels: &Istio<'a>,
    _: &Series,
    _: &Counting,
) -> Result<(Bound, Names<'a>), Fault> {
    let bound = Bound::parse(labels.le, Unit::Milliseconds);
    let bound = bound.ok_or_else(|| unbound(labels.le))?;
    Ok((bound, [plain(labels.le), "", ""]))
}

/// Prometheus 3 writes `500.0` for what was `500`: an upgrade of the server begins no new counter.
fn plain(le: &str) -> &str {
    le.strip_suffix(".0").unwrap_or(le)
}

fn describe(series: &Series) -> String {
    let labels: Vec<String> = series
        .labels
        .iter()
        .take(12)
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    format!("{{{}}}", labels.join(","))
}

/// Adds a series to the lines of a canary; the first fault is what is said of it.
fn put<'a, C>(lines: &mut Result<Vec<Line<'a, C>>, Fault>, line: Result<Line<'a, C>, Fault>) {
    let Ok(list) = lines else {
        return;
    };
    match line {
        Ok(line) if line.samples.is_sorted_by(|a, b| a.0 < b.0) => list.push(line),
        Ok(line) => *lines = Err(Fault::Duplicate(line.source.join(" "))),
        Err(fault) => *lines = Err(fault),
    }
}

/// Namespace and name.
type Workload<'a> = (&'a str, &'a str);

/// Sorts the series of an answer with Istio's labels by canary.
fn sort<'a, C: Copy>(
    asked: &[&Target],
    answer: &'a [Series],
    classify: Classify<C>,
) -> Lines<'a, C> {
    let mut owners: BTreeMap<Workload<'_>, Vec<(usize, Side)>> = BTreeMap::new();
    for (index, target) in asked.iter().enumerate() {
        let sides = [
            (&target.stable, Side::Stable),
            (&target.candidate, Side::Candidate),
        ];
        for (workloads, side) in sides {
            for workload in workloads {
                let key = (target.id.namespace.as_str(), workload.as_str());
                owners.entry(key).or_default().push((index, side));
            }
        }
    }
    let namespaces: BTreeSet<&str> = owners.keys().map(|(ns, _)| *ns).collect();
    let workloads: BTreeSet<&str> = owners.keys().map(|(_, workload)| *workload).collect();

    let mut sorted: Vec<Result<Vec<Line<'a, C>>, Fault>> =
        asked.iter().map(|_| Ok(Vec::new())).collect();
    // Series of one workload mostly follow each other.
    let mut near: Option<(Workload<'_>, &Vec<(usize, Side)>)> = None;
    for series in answer {
        let labels = Istio::of(series);
        let key = (labels.namespace, labels.workload);
        let found = near.filter(|(known, _)| *known == key);
        let Some((_, owners)) = found.or_else(|| owners.get(&key).map(|owners| (key, owners)))
        else {
            // Namespaces and workloads are matched apart, so that every pair of them may come.
            if namespaces.contains(key.0) && workloads.contains(key.1) {
                continue;
            }
            return Err(Fault::Foreign(describe(series)));
        };
        near = Some((key, owners));
        for (index, side) in owners {
            let (Some(lines), Some(target)) = (sorted.get_mut(*index), asked.get(*index)) else {
                continue;
            };
            let class = classify(&labels, series, &target.analysis.counting);
            let line = class.map(|(class, rest)| Line {
                side: *side,
                source: [labels.workload, labels.pod, labels.instance],
                rest,
                class,
                samples: &series.samples,
            });
            put(lines, line);
        }
    }
    Ok(sorted)
}

/// Labels of a series of somebody's own query that tell it from others of the same proxy.
fn other_labels(series: &Series) -> String {
    let others = series.labels.iter();
    let others = others.filter(|(name, _)| !["pod", "instance", "le", CUSTOM_LABEL].contains(name));
    others
        .map(|(name, value)| format!("{name}={value:?},"))
        .collect()
}

/// Sorts the series of the queries of specs by canary; `texts` are their other labels.
fn own_lines<'a, C: Copy>(
    asked: &[&Target],
    members: &'a [Counted],
    answer: &'a [Series],
    texts: &'a [String],
    classify: impl Fn(&Counted, &Series) -> Result<C, Fault>,
) -> Lines<'a, C> {
    let mut sorted: Vec<Result<Vec<Line<'a, C>>, Fault>> =
        asked.iter().map(|_| Ok(Vec::new())).collect();
    for (series, text) in answer.iter().zip(texts) {
        let number = series.labels.get(CUSTOM_LABEL);
        let member = number
            .and_then(|text| text.parse::<usize>().ok())
            .and_then(|index| members.get(index));
        let Some(member) = member else {
            return Err(Fault::Foreign(describe(series)));
        };
        let place = asked.iter().position(|target| target.id == member.canary);
        let Some(lines) = place.and_then(|place| sorted.get_mut(place)) else {
            continue;
        };
        let [pod, instance, le] = series.labels.values(["pod", "instance", "le"]);
        let line = classify(member, series).map(|class| Line {
            side: member.side(),
            source: ["", pod, instance],
            rest: [member.word(), plain(le), text],
            class,
            samples: &series.samples,
        });
        put(lines, line);
    }
    Ok(sorted)
}

impl AskError {
    /// Whether the failure of a batch may lie in one of its members. `alive`: the server answered something else.
    pub(super) fn may_be_of_one(&self, alive: bool) -> bool {
        match self {
            Self::BadQuery(_) => true,
            Self::Deadline(_) | Self::Partial(_) | Self::Unusable(_) | Self::Refused(_) => alive,
            Self::Unreachable(_) | Self::Clock(_) => false,
        }
    }
}
