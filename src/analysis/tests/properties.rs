//! Properties of counting and judging over random time lines.

use proptest::prelude::*;

use super::counts::counted;
use super::*;

/// A time line: per second and series, what it counts then; a series may restart from zero.
#[derive(Debug, Clone)]
struct Line {
    memory: Memory,
    length: i64,
}

fn line() -> impl Strategy<Value = Line> {
    let event = (0usize..8, 1i64..300, 0u64..40, prop::bool::weighted(0.1));
    prop::collection::vec(event, 0..60).prop_map(|events| {
        let mut memory = Memory::default();
        memory.set(code("app", "s0", "200"), -60, 1234.0);
        memory.set(code("app-canary", "c0", "200"), -60, 77.0);
        let mut values: BTreeMap<usize, f64> = [(0, 77.0), (4, 1234.0)].into();
        let mut events = events;
        events.sort_by_key(|(_, second, ..)| *second);
        for (series, second, more, restart) in events {
            let (workload, pod) = if series < 4 {
                ("app-canary", "c")
            } else {
                ("app", "s")
            };
            let status = if series % 2 == 0 { "200" } else { "503" };
            let pod = format!("{pod}{}", series % 4 / 2);
            let value = values.entry(series).or_default();
            if restart {
                *value = 0.0;
            }
            *value += more as f64;
            memory.set(code(workload, &pod, status), second, *value);
        }
        Line {
            memory,
            length: 300,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Without restarts of proxies and new pods of stable, any set of ticks counts the same.
    #[test]
    fn any_ticks_count_the_same(
        increments in prop::collection::vec((0usize..4, 1i64..300, 1u64..50), 0..60),
        mut ticks in prop::collection::btree_set(1i64..300, 0..20),
    ) {
        let mut memory = Memory::default();
        let pods = [("app", "200"), ("app", "503"), ("app-canary", "200"), ("app-canary", "503")];
        let mut values = [500.0, 20.0, 0.0, 0.0];
        memory.set(code("app", "p", "200"), -5, 500.0);
        memory.set(code("app", "p", "503"), -5, 20.0);
        let mut increments = increments;
        increments.sort_by_key(|(_, second, _)| *second);
        let mut expected = Sides::<Counts>::default();
        for (series, second, more) in increments {
            values[series] += more as f64;
            memory.set(code(pods[series].0, "p", pods[series].1), second, values[series]);
            let side = if series < 2 { &mut expected.stable } else { &mut expected.candidate };
            side.requests += more;
            side.failures += if series % 2 == 1 { more } else { 0 };
        }
        let target = target("app", vec![success_rate(99.0)]);
        ticks.insert(300);
        let ticks: Vec<i64> = ticks.into_iter().collect();
        prop_assert_eq!(counted(&memory, &target, &ticks), expected);
    }

    /// A fresh engine reads what the old one had read.
    #[test]
    fn a_restart_changes_no_count(line in line(), restart_at in 1i64..20) {
        let target = target("app", vec![success_rate(99.0)]);
        let ticks: Vec<i64> = (0..=line.length / 15).map(|n| n * 15).collect();
        let live = counted(&line.memory, &target, &ticks);
        let from = usize::try_from(restart_at).unwrap();
        prop_assert_eq!(counted(&line.memory, &target, &ticks[from..]), live);
    }

    /// Whatever is missing or broken, it is neither a pass nor a fail.
    #[test]
    fn missing_data_decides_nothing(
        kinds in prop::collection::vec(0u8..8, 1..12),
        step in 0i64..100,
    ) {
        let mut target = target("app", vec![success_rate(99.0), latency(500), custom("queue", "q", 1.0)]);
        target.window.step = at(step);
        let targets = std::slice::from_ref(&target);
        let mut ledger = Ledger::default();
        for (n, kind) in kinds.into_iter().enumerate() {
            let now = at(15 * i64::try_from(n).unwrap());
            let queries = plan(targets, &ledger, now);
            let answers: Vec<Answer> = queries.iter().map(|query| broken(kind, query)).collect();
            absorb(&mut ledger, targets, &queries, &answers);
            let judgement = judge(&target, &ledger, now);
            prop_assert!(matches!(judgement.verdict, Verdict::Inconclusive | Verdict::Error));
            for finding in judgement.findings {
                prop_assert!(matches!(finding.verdict, Verdict::Inconclusive | Verdict::Error));
            }
        }
    }
}

fn broken(kind: u8, query: &Query) -> Answer {
    let one = |value: f64, workload: &str| {
        Answer::Series(vec![Series {
            labels: code(workload, "a", "500"),
            samples: vec![(query.at, value)],
        }])
    };
    match kind {
        0 => Answer::Series(vec![]),
        1 => Answer::Failed(AskError::Deadline(Duration::from_secs(10))),
        2 => Answer::Failed(AskError::BadQuery("parse error".to_owned())),
        3 => Answer::Failed(AskError::Partial("a store is down".to_owned())),
        4 => one(f64::NAN, "app-canary"),
        5 => one(f64::INFINITY, "app-canary"),
        6 => Answer::Failed(AskError::Unusable("not JSON".to_owned())),
        _ => Answer::Series(vec![Series {
            labels: code("app-canary", "a", "500"),
            samples: vec![],
        }]),
    }
}
