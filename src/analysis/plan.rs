//! What to ask: raw counters of many canaries in one query, custom metrics batched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::counting::{Stream, Tally};
use super::custom;
use super::evidence::{Ledger, period, reading_due, whole_second};
use super::flagger;
use super::promql::{self, Shape};
use super::types::{CUSTOM_LABEL, Counted, Kind, Part, Purpose, Query, Target};
use crate::domain::{CanaryId, Timestamp};
use crate::spec::{MetricSource, Reporter};

/// Longest PromQL of a batch, in bytes: some 100 canaries. Far below the limits of servers and proxies for a POST.
const MAX_BYTES: usize = 8 * 1024;
/// Most points of a range query; Prometheus refuses more than 11,000. At 15 s, 2,000 points are 8 hours.
const MAX_POINTS: u64 = 2_000;
/// Canaries times points of one range query. With 40 series a canary and 20 bytes a sample that is 16 MB.
const MAX_CELLS: u64 = 20_000;
/// Readings before the rollout that show how stable's pods differ among themselves.
const HISTORY_TICKS: i32 = 40;
/// Readings may be missing for this many ticks before the gap is read again with a range query, which sees the
/// restarts of proxies that a single reading would not.
const MAX_GAP_TICKS: i32 = 3;
/// A rebuild that keeps failing is asked ever coarser, at most 2^6 times.
const MAX_COARSENING: u32 = 6;

const REQUESTS: &str = "istio_requests_total";
const BUCKETS: &str = "istio_request_duration_milliseconds_bucket";

/// Longest age of a sample that Prometheus may answer with: by default it takes the counters of a pod that is gone for
/// fresh ones for five minutes. Two scrapes a minute apart fit in.
const LOOKBACK: Duration = Duration::from_secs(120);

/// Asks for everything that the targets need at `now`. The number of queries does not grow with the canaries but by
/// batches of 8 KiB.
///
/// All canaries are read at the same moments, multiples of their `every`. One that the ledger knows is read at one
/// instant. One that it does not know, or not lately, is read over a range: from some time before the start of its
/// rollout, or from the last reading. One that was read already is not asked for again.
pub fn plan(targets: &[Target], ledger: &Ledger, now: Timestamp) -> Vec<Query> {
    let now = whole_second(now);
    let mut targets: Vec<&Target> = targets.iter().filter(|t| !t.analysis.skip).collect();
    targets.sort_by(|a, b| a.id.cmp(&b.id));
    targets.dedup_by(|a, b| a.id == b.id);
    let mut queries = Vec::new();
    let (checked, targets): (Vec<&Target>, Vec<&Target>) = targets
        .into_iter()
        .partition(|target| flagger::threshold(target).is_some());
    let (own, istio): (Vec<&Target>, Vec<&Target>) = targets
        .iter()
        .copied()
        .partition(|target| target.analysis.counters.is_some());
    for kind in [Kind::Requests, Kind::Latency] {
        for (key, group) in grouped(&istio, |target| due(target, ledger, kind, now)) {
            queries.extend(counters(&key, &group, now, kind));
        }
        for (key, group) in grouped(&own, |target| due(target, ledger, kind, now)) {
            queries.extend(own_counters(&key, &group, ledger, now, kind));
        }
    }
    queries.extend(custom_metrics(&targets, ledger, now));
    for target in checked {
        queries.extend(flagger::questions(target, ledger.of(target), now));
    }
    queries
}

/// What time it is where samples are dated.
pub fn clock_query(now: Timestamp) -> Query {
    Query {
        promql: "vector(1)".to_owned(),
        at: whole_second(now),
        range: None,
        lookback: None,
        purpose: Purpose::Clock,
    }
}

/// How the counters of a kind have to be read, if at all.
fn due(target: &Target, ledger: &Ledger, kind: Kind, now: Timestamp) -> Option<Since> {
    let evidence = ledger.of(target);
    match kind {
        Kind::Requests if needs_requests(target) => {
            since(target, evidence.map(|e| &e.requests), now)
        }
        Kind::Latency if !latency_limits(target).is_empty() => {
            since(target, evidence.map(|e| &e.latency), now)
        }
        Kind::Requests | Kind::Latency => None,
    }
}

/// The first reading that matters for a target: what stable did before the rollout shows how its pods differ.
pub(super) fn first_reading(target: &Target) -> Timestamp {
    let every = target.analysis.every;
    reading_due(whole_second(target.window.rollout), every) - period(every) * HISTORY_TICKS
}

/// Whether a target needs the request counters: for its success rate, for the comparison, for a minimum of requests.
fn needs_requests(target: &Target) -> bool {
    target.analysis.compare
        || target.analysis.metrics.iter().any(|metric| {
            matches!(metric.source, MetricSource::SuccessRate { .. })
                || (matches!(metric.source, MetricSource::Custom { .. })
                    && metric.min_requests.is_some())
        })
}

/// The highest acceptable latencies of a target.
fn latency_limits(target: &Target) -> Vec<Duration> {
    let metrics = target.analysis.metrics.iter();
    metrics
        .filter_map(|metric| match &metric.source {
            MetricSource::Latency { max, .. } => Some(*max),
            MetricSource::SuccessRate { .. } | MetricSource::Custom { .. } => None,
        })
        .collect()
}

/// How a target has to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    Instant,
    Range { from: Timestamp, coarser: u32 },
}

fn since<T: Tally>(target: &Target, stream: Option<&Stream<T>>, now: Timestamp) -> Option<Since> {
    let every = target.analysis.every;
    let due = reading_due(now, every);
    let coarser = stream
        .map_or(0, Stream::failed_rebuilds)
        .min(MAX_COARSENING);
    let Some(last) = stream.and_then(Stream::last) else {
        return Some(Since::Range {
            from: first_reading(target).min(due),
            coarser,
        });
    };
    if last >= due {
        return None;
    }
    if due - last <= period(every) * MAX_GAP_TICKS {
        return Some(Since::Instant);
    }
    Some(Since::Range {
        from: last,
        coarser,
    })
}

/// What the targets of one query have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    reporter: &'static str,
    every: Duration,
    is_range: bool,
    coarser: u32,
    /// What fails by the rules of the spec has no place among the latencies.
    failing_grpc: Vec<u8>,
}

/// Targets that can share a query, with the earliest moment that any of them has to be read from.
type Group<'a> = (Option<Timestamp>, Vec<&'a Target>);

fn grouped<'a>(
    targets: &[&'a Target],
    how: impl Fn(&Target) -> Option<Since>,
) -> BTreeMap<Key, Group<'a>> {
    let mut groups: BTreeMap<Key, Group<'_>> = BTreeMap::new();
    for target in targets {
        let Some(since) = how(target) else {
            continue;
        };
        let (from, coarser) = match since {
            Since::Instant => (None, 0),
            Since::Range { from, coarser } => (Some(from), coarser),
        };
        let key = Key {
            reporter: target.analysis.reporter.as_str(),
            every: target.analysis.every,
            is_range: from.is_some(),
            coarser,
            failing_grpc: target.analysis.counting.grpc.clone(),
        };
        let group = groups.entry(key).or_insert((from, Vec::new()));
        group.0 = group.0.min(from);
        group.1.push(target);
    }
    groups
}

/// What the queries of a group have in common: when they are about, and how many canaries one may ask about.
struct Frame {
    due: Timestamp,
    range: Option<(Timestamp, Duration)>,
    lookback: Duration,
    most: u64,
}

impl Frame {
    fn of(key: &Key, from: Option<Timestamp>, now: Timestamp) -> Self {
        let due = reading_due(now, key.every);
        let range = from.map(|from| grid(from, due, key.every, key.coarser));
        Self {
            due,
            range: range.map(|(start, step, _)| (start, step)),
            lookback: LOOKBACK.max(key.every * 2),
            most: range.map_or(u64::MAX, |(_, _, points)| {
                (MAX_CELLS / points.max(1)).max(1)
            }),
        }
    }

    fn query(&self, promql: String, purpose: Purpose) -> Query {
        Query {
            promql,
            at: self.due,
            range: self.range,
            lookback: Some(self.lookback),
            purpose,
        }
    }
}

fn counters(key: &Key, (from, targets): &Group<'_>, now: Timestamp, kind: Kind) -> Vec<Query> {
    let frame = Frame::of(key, *from, now);
    // Escaping at most quadruples what needs it, and Kubernetes names hardly need it.
    let size = |target: &&Target| {
        let workloads = target.stable.iter().chain(&target.candidate);
        let own: usize = workloads.map(|w| w.len() + 3).sum();
        own + target.id.namespace.len() + 3
    };
    let chunks = chunks(targets.to_vec(), frame.most, size, |_| false);
    let queries = chunks.into_iter().map(|chunk| {
        let ids: Vec<CanaryId> = chunk.iter().map(|t| t.id.clone()).collect();
        let purpose = match kind {
            Kind::Requests => Purpose::Requests(ids),
            Kind::Latency => Purpose::Latency(ids),
        };
        frame.query(selector_of(&chunk, key, kind), purpose)
    });
    queries.collect()
}

/// The queries of the specs of some canaries, those of one canary always together.
fn own_counters(
    key: &Key,
    (from, targets): &Group<'_>,
    ledger: &Ledger,
    now: Timestamp,
    kind: Kind,
) -> Vec<Query> {
    let frame = Frame::of(key, *from, now);
    let all: Vec<(&Target, Vec<(Counted, String)>)> = targets
        .iter()
        .map(|target| (*target, counted_by(target, kind)))
        .filter(|(_, parts)| !parts.is_empty())
        .collect();
    let size = |(_, parts): &(&Target, Vec<(Counted, String)>)| {
        parts.iter().map(|(_, text)| text.len() + 64).sum()
    };
    let is_alone = |(target, parts): &(&Target, Vec<(Counted, String)>)| {
        let failed_before = ledger.of(target).is_some_and(|e| e.apart.is_alone());
        failed_before
            || parts
                .iter()
                .any(|(_, text)| promql::shape(text) == Shape::Open)
    };
    let chunks = chunks(all, frame.most, size, is_alone);
    let queries = chunks.into_iter().map(|chunk| {
        let (members, texts): (Vec<Counted>, Vec<String>) =
            chunk.into_iter().flat_map(|(_, parts)| parts).unzip();
        frame.query(joined(&texts), Purpose::Counters(kind, members))
    });
    queries.collect()
}

/// The queries that count a canary by its spec, for stable and candidate.
pub(super) fn counted_by(target: &Target, kind: Kind) -> Vec<(Counted, String)> {
    let Some(counters) = &target.analysis.counters else {
        return Vec::new();
    };
    let parts: Vec<(Part, &String)> = match kind {
        Kind::Requests => [
            (Part::Requests, Some(&counters.requests)),
            (Part::Failures, Some(&counters.failures)),
            (Part::Rejections, counters.rejections.as_ref()),
        ]
        .into_iter()
        .filter_map(|(part, query)| Some((part, query?)))
        .collect(),
        Kind::Latency => counters
            .latency
            .iter()
            .map(|latency| (Part::Buckets(latency.unit), &latency.buckets))
            .collect(),
    };
    let sides = [(false, &target.stable), (true, &target.candidate)];
    let all = sides.into_iter().flat_map(|(of_candidate, workloads)| {
        parts.iter().map(move |(part, query)| {
            let counted = Counted {
                canary: target.id.clone(),
                of_candidate,
                part: *part,
            };
            let text = custom::filled_over(query, target, workloads, target.analysis.every);
            (counted, text)
        })
    });
    all.collect()
}

/// Start, step and number of points of a range that ends at `due`. The points are those of the common grid, or every
/// n-th of them when there would be too many.
fn grid(
    from: Timestamp,
    due: Timestamp,
    every: Duration,
    coarser: u32,
) -> (Timestamp, Duration, u64) {
    let period = period(every).num_seconds().max(1);
    let most = i64::try_from(MAX_POINTS >> coarser).unwrap_or(1).max(2);
    let ticks = ((due - from).num_seconds().max(0) + period - 1) / period;
    let merged = ((ticks + most - 1) / most).max(1);
    let steps = (ticks + merged - 1) / merged;
    let seconds = period * merged;
    let start = due - chrono::TimeDelta::seconds(seconds * steps);
    let positive = |n: i64| u64::try_from(n).unwrap_or_default();
    let step = Duration::from_secs(positive(seconds));
    (start, step, positive(steps) + 1)
}

/// Splits targets so that each query stays below its bounds; some stay alone.
fn chunks<T>(
    all: Vec<T>,
    most: u64,
    size: impl Fn(&T) -> usize,
    is_alone: impl Fn(&T) -> bool,
) -> Vec<Vec<T>> {
    let mut chunks: Vec<Vec<T>> = Vec::new();
    let mut alone: Vec<Vec<T>> = Vec::new();
    let mut bytes = 0;
    for one in all {
        if is_alone(&one) {
            alone.push(vec![one]);
            continue;
        }
        let own = size(&one);
        match chunks.last_mut() {
            Some(chunk) if bytes + own <= MAX_BYTES - 512 && (chunk.len() as u64) < most => {
                bytes += own;
                chunk.push(one);
            }
            _ => {
                bytes = own;
                chunks.push(vec![one]);
            }
        }
    }
    chunks.extend(alone);
    chunks
}

fn selector_of(targets: &[&Target], key: &Key, kind: Kind) -> String {
    let namespaces: BTreeSet<&str> = targets.iter().map(|t| t.id.namespace.as_str()).collect();
    let workloads: BTreeSet<&str> = targets
        .iter()
        .flat_map(|t| t.stable.iter().chain(&t.candidate))
        .map(String::as_str)
        .collect();
    let common = format!(
        "reporter=\"{}\",{},{}",
        key.reporter,
        promql::any_of("destination_workload_namespace", namespaces),
        promql::any_of("destination_workload", workloads),
    );
    let by = "pod, instance, destination_workload_namespace, destination_workload";
    match kind {
        Kind::Requests => format!(
            "sum by ({by}, response_code, grpc_response_status, response_flags) ({REQUESTS}{{{common}}})"
        ),
        Kind::Latency => {
            let limits = targets.iter().flat_map(|t| latency_limits(t));
            format!(
                "sum by ({by}, le) ({BUCKETS}{{{common},{},{}}})",
                answered(&key.failing_grpc),
                bounds(limits)
            )
        }
    }
}

/// Matches answers that did not fail: fast failures would hide slowness, and are judged by the success rate.
fn answered(failing_grpc: &[u8]) -> String {
    let statuses: Vec<String> = failing_grpc.iter().map(u8::to_string).collect();
    if statuses.is_empty() {
        return "response_code=~\"[123]..\"".to_owned();
    }
    format!(
        "response_code=~\"[123]..\",grpc_response_status!~\"{}\"",
        statuses.join("|")
    )
}

/// Matches the buckets within a decade of the limits: the bound that judges, and enough neighbours for an estimate of
/// the quantile, wherever the user has put the bounds.
fn bounds(limits: impl Iterator<Item = Duration>) -> String {
    let digits: BTreeSet<u32> = limits
        .map(|limit| limit.as_millis().checked_ilog10().unwrap_or_default() + 1)
        .collect();
    let least = digits.first().map_or(1, |d| d.saturating_sub(1)).max(1);
    let most = digits.last().map_or(1, |d| d + 1);
    format!("le=~\"[0-9]{{{least},{most}}}([.][0-9]+)?|[+]Inf\"")
}

/// A query that a person can paste, showing the request counts that a finding rests on.
pub(super) fn requests_for_people(target: &Target, from: Timestamp, to: Timestamp) -> String {
    if target.analysis.counters.is_some() {
        return of_candidate(target, Kind::Requests);
    }
    // Every judgement has one, thousands in a tick: it is written into one buffer.
    let mut text = String::with_capacity(320);
    text.push_str("sum by (response_code, grpc_response_status, response_flags) (increase(");
    text.push_str(REQUESTS);
    text.push('{');
    push_own(&mut text, target);
    text.push('}');
    push_window(&mut text, from, to);
    text.push_str("))");
    text
}

/// A query that a person can paste, showing the quantile that a finding rests on.
pub(super) fn latency_for_people(
    target: &Target,
    quantile: f64,
    from: Timestamp,
    to: Timestamp,
) -> String {
    if target.analysis.counters.is_some() {
        return of_candidate(target, Kind::Latency);
    }
    let (mut own, mut over) = (String::new(), String::new());
    push_own(&mut own, target);
    push_window(&mut over, from, to);
    let answered = answered(&target.analysis.counting.grpc);
    format!(
        "histogram_quantile({quantile}, sum by (le) (increase({BUCKETS}{{{own},{answered}}}{over})))"
    )
}

/// The spec's own counters of the candidate, as they are asked.
fn of_candidate(target: &Target, kind: Kind) -> String {
    let parts = counted_by(target, kind).into_iter();
    let texts = parts.filter(|(counted, _)| counted.of_candidate);
    texts.map(|(_, text)| text).collect::<Vec<_>>().join(" or ")
}

fn push_own(text: &mut String, target: &Target) {
    let reporter: Reporter = target.analysis.reporter;
    text.push_str("reporter=\"");
    text.push_str(reporter.as_str());
    text.push_str("\",");
    let namespace = [target.id.namespace.as_str()];
    promql::push_any_of(text, "destination_workload_namespace", namespace);
    text.push(',');
    let names = target.candidate.iter().map(String::as_str);
    promql::push_any_of(text, "destination_workload", names);
}

/// A window that ends at a fixed moment, so that the query shows the same when it is asked later.
fn push_window(text: &mut String, from: Timestamp, to: Timestamp) {
    let length = (to - from).to_std().unwrap_or_default();
    text.push('[');
    text.push_str(&promql::seconds(length));
    text.push_str("] @ ");
    text.push_str(&to.timestamp().to_string());
}

/// One member of a batch: whose it is, its text.
struct Member {
    name: (CanaryId, String),
    text: String,
}

fn custom_metrics(targets: &[&Target], ledger: &Ledger, now: Timestamp) -> Vec<Query> {
    let mut batches: Vec<Vec<Member>> = Vec::new();
    let mut alone = Vec::new();
    let mut bytes = 0;
    for target in targets {
        for metric in &target.analysis.metrics {
            let MetricSource::Custom { query, .. } = &metric.source else {
                continue;
            };
            let text = custom::filled(query, target, now);
            let shape = promql::shape(&text);
            let failed_before = ledger
                .of(target)
                .and_then(|evidence| evidence.custom.get(&metric.name))
                .is_some_and(custom::Looks::is_alone);
            let member = Member {
                name: (target.id.clone(), metric.name.clone()),
                text,
            };
            if shape == Shape::Open || failed_before {
                alone.push(vec![member]);
                continue;
            }
            let own = member.text.len() + 64;
            match batches.last_mut() {
                Some(batch) if bytes + own <= MAX_BYTES => {
                    bytes += own;
                    batch.push(member);
                }
                _ => {
                    bytes = own;
                    batches.push(vec![member]);
                }
            }
        }
    }
    batches
        .into_iter()
        .chain(alone)
        .map(|batch| Query {
            promql: batched(&batch),
            at: now,
            range: None,
            lookback: None,
            purpose: Purpose::Custom(batch.into_iter().map(|member| member.name).collect()),
        })
        .collect()
}

/// One member as it was written, several told apart by a label.
fn batched(members: &[Member]) -> String {
    if let [only] = members {
        return only.text.clone();
    }
    let texts: Vec<&str> = members.iter().map(|member| member.text.as_str()).collect();
    joined(&texts)
}

/// Several queries as one, told apart by a label. The line break ends a trailing comment.
fn joined(texts: &[impl AsRef<str>]) -> String {
    let parts = texts.iter().enumerate().map(|(index, text)| {
        let text = text.as_ref();
        let text = match promql::shape(text) {
            Shape::Scalar => format!("vector({text}\n)"),
            Shape::Open | Shape::Vector => format!("({text}\n)"),
        };
        format!("label_replace({text}, \"{CUSTOM_LABEL}\", \"{index}\", \"\", \"\")")
    });
    parts.collect::<Vec<_>>().join(" or ")
}
