//! How fast verdicts are: parsing an answer, counting it, judging 10,000 canaries. Ratios are of the same run.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures and prints"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta};
use serin::analysis::{Answer, Ledger, Purpose, Target, Window, absorb, judge, plan};
use serin::domain::{CanaryId, Timestamp};
use serin::prometheus;
use serin::spec::{Analysis, Counting, Metric, MetricSource, OnFailure, OnInconclusive, Reporter};

/// Canaries, and series of each: two versions with five pods and two response codes.
const CANARIES: usize = 10_000;
const SERIES: usize = 20;
const TICKS: i64 = 12;

fn at(second: i64) -> Timestamp {
    DateTime::from_timestamp(1_700_000_010 + second, 0).unwrap()
}

fn target(n: usize) -> Target {
    Target {
        id: CanaryId::new(format!("team-{}", n % 50), format!("service-{n:05}")),
        stable: vec![format!("service-{n:05}")],
        candidate: vec![format!("service-{n:05}-canary")],
        service: format!("service-{n:05}"),
        analysis: Analysis {
            every: Duration::from_secs(15),
            metrics: vec![Metric {
                name: "success-rate".to_owned(),
                source: MetricSource::SuccessRate { min: 99.0 },
                min_requests: None,
            }],
            on_failure: OnFailure::Rollback,
            on_inconclusive: OnInconclusive::Hold,
            deadline: None,
            alpha: 0.01,
            compare: true,
            skip: false,
            reporter: Reporter::Destination,
            counting: Counting::default(),
            counters: None,
            rule: serin::spec::Rule::Serin,
        },
        window: Window {
            rollout: at(0),
            step: at(0),
            has_traffic: true,
            weight: Some(50),
            comparable: true,
            strikes: 0,
        },
    }
}

/// What Prometheus answers for these canaries at a tick: one in eight of stable's and the candidate's pods failed.
fn body(ids: &[usize], tick: i64) -> String {
    let mut text = String::from(r#"{"status":"success","data":{"resultType":"vector","result":["#);
    let seconds = at(tick * 15).timestamp();
    let mut comma = "";
    for n in ids {
        for series in 0..SERIES {
            let workload = if series < 10 { "" } else { "-canary" };
            let (pod, failed) = (series % 10 / 2, series % 2 == 1);
            let value = match (failed, (n + pod) % 8) {
                (false, _) => tick * 1000,
                (true, 0) => tick,
                (true, _) => 1,
            };
            let code = if failed { 503 } else { 200 };
            write!(
                text,
                r#"{comma}{{"metric":{{"destination_workload":"service-{n:05}{workload}","destination_workload_namespace":"team-{}","pod":"service-{n:05}{workload}-5d9f7c6b8-{pod}","response_code":"{code}","response_flags":"-"}},"value":[{seconds},"{value}"]}}"#,
                n % 50
            )
            .unwrap();
            comma = ",";
        }
    }
    text.push_str("]}}");
    text
}

/// Time on a core, where the system tells it: others on the machine do not count.
struct Stopwatch {
    began: Instant,
    on_core: Option<Duration>,
}

impl Stopwatch {
    fn start() -> Self {
        Self {
            on_core: on_core(),
            began: Instant::now(),
        }
    }

    fn read(&self) -> Duration {
        let whole = self.began.elapsed();
        let own = on_core().zip(self.on_core).map(|(now, then)| now - then);
        own.unwrap_or(whole)
    }
}

/// What this thread has had of a core so far, by Linux.
fn on_core() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = text.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

/// The best of several runs: noise only ever adds.
fn best<T>(runs: usize, mut work: impl FnMut() -> T) -> (Duration, T) {
    let mut least: Option<(Duration, T)> = None;
    for _ in 0..runs {
        let watch = Stopwatch::start();
        let out = black_box(work());
        let took = watch.read();
        if least.as_ref().is_none_or(|(before, _)| took < *before) {
            least = Some((took, out));
        }
    }
    least.unwrap()
}

fn line(what: &str, took: Duration, note: &str) {
    println!("{what:<44} {:>9.1} ms  {note}", took.as_secs_f64() * 1000.0);
}

fn main() {
    // `cargo test --benches` runs this too: a hundredth is enough to see that it works.
    let canaries = if std::env::args().any(|arg| arg == "--bench") {
        CANARIES
    } else {
        CANARIES / 100
    };
    let all: Vec<usize> = (0..canaries).collect();
    let text = body(&all, 1);
    println!(
        "{canaries} canaries, {} series, {:.1} MB",
        canaries * SERIES,
        text.len() as f64 / 1e6
    );

    let (tree, _) = best(3, || {
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    });
    line("serde_json into a tree", tree, "the JSON parser alone");
    let (skip, _) = best(3, || {
        serde_json::from_str::<serde::de::IgnoredAny>(&text).unwrap()
    });
    line("serde_json into nothing", skip, "scanning alone");
    let (parsed, _) = best(3, || prometheus::parse(text.as_bytes(), false).unwrap());
    let ratio = parsed.as_secs_f64() / tree.as_secs_f64();
    line(
        "into series",
        parsed,
        &format!("{ratio:.2} x the parser (goal 3), goal 1000 ms"),
    );

    let targets: Vec<Target> = all.iter().map(|n| target(*n)).collect();
    let mut ledger = Ledger::default();
    let mut counting = Duration::MAX;
    let mut planning = Duration::MAX;
    for tick in 0..TICKS {
        let watch = Stopwatch::start();
        let queries = plan(&targets, &ledger, at(tick * 15));
        planning = planning.min(watch.read());
        let answers: Vec<Answer> = queries
            .iter()
            .map(|query| {
                let Purpose::Requests(ids) = &query.purpose else {
                    return Answer::Series(Vec::new());
                };
                let numbers: Vec<usize> = ids
                    .iter()
                    .map(|id| id.name.trim_start_matches("service-").parse().unwrap())
                    .collect();
                let mut series = prometheus::parse(body(&numbers, tick).as_bytes(), false).unwrap();
                if query.range.is_some() {
                    for one in &mut series {
                        one.samples =
                            vec![(query.at - TimeDelta::seconds(15), 0.0), one.samples[0]];
                    }
                }
                Answer::Series(series)
            })
            .collect();
        let watch = Stopwatch::start();
        absorb(&mut ledger, &targets, &queries, &answers);
        if tick > 0 {
            counting = counting.min(watch.read());
        }
    }
    line("plan", planning, "queries of a tick as text");
    line(
        "absorb",
        counting,
        "counting and the sequential tests of a tick",
    );
    let now = at((TICKS - 1) * 15);
    let (judging, verdicts) = best(5, || {
        let judged = targets.iter().map(|target| judge(target, &ledger, now));
        judged.collect::<Vec<_>>()
    });
    let passed = verdicts
        .iter()
        .filter(|j| j.verdict == serin::analysis::Verdict::Pass)
        .count();
    line(
        "judge",
        judging,
        &format!("goal 50 ms for 10,000; {passed} pass"),
    );
    let whole = (planning + counting + judging).as_secs_f64() / tree.as_secs_f64();
    println!("plan, absorb and judge together take {whole:.2} x the JSON parser");
}
