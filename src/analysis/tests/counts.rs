//! What readings add up to.

use insta::assert_snapshot;

use super::*;

/// Candidate and stable counts since rollout after reading `memory` at these seconds.
pub(super) fn counted(memory: &Memory, target: &Target, seconds: &[i64]) -> Sides<Counts> {
    let mut ledger = Ledger::default();
    for second in seconds {
        memory.tick(&mut ledger, target, *second);
    }
    ledger.entries[&target.id].requests().unwrap()
}

pub(super) fn counts(requests: u64, failures: u64) -> Counts {
    Counts {
        requests,
        failures,
        rejections: 0,
    }
}

#[test]
fn counters_are_read_as_counters() {
    let target = target("app", vec![success_rate(99.0)]);
    let mut memory = Memory::default();
    // A candidate that already ran before the rollout: its history does not count.
    memory.set(code("app-canary", "a", "200"), -100, 1000.0);
    memory.set(code("app-canary", "a", "200"), 5, 1010.0);
    // A new code on a known pod counts from zero.
    memory.set(code("app-canary", "a", "500"), 20, 4.0);
    // The proxy restarts and overtakes nothing: 1010 -> 3.
    memory.set(code("app-canary", "a", "200"), 35, 3.0);
    // A new pod counts from zero.
    memory.set(code("app-canary", "b", "200"), 35, 8.0);
    // Stable: known pod counts, a pod never seen before is only a baseline.
    memory.set(code("app", "x", "200"), -100, 70.0);
    memory.set(code("app", "x", "200"), 5, 75.0);
    memory.set(code("app", "x", "500"), 5, 2.0);
    memory.set(code("app", "y", "200"), 20, 100_000.0);
    memory.set(code("app", "y", "200"), 35, 100_001.0);
    let live = counted(&memory, &target, &[0, 15, 30, 45]);
    assert_eq!(live.candidate, counts(10 + 4 + 3 + 8, 4));
    assert_eq!(live.stable, counts(5 + 2 + 1, 2));
    // A restart of Serin reads the same from a range.
    assert_eq!(counted(&memory, &target, &[45]), live);
    // So does an engine that was away for ten minutes; the restart of the proxy in between included.
    memory.set(code("app-canary", "a", "200"), 400, 9.0);
    memory.set(code("app-canary", "a", "200"), 500, 2.0);
    let live: Vec<i64> = (0..=45).map(|n| n * 15).collect();
    let undisturbed = counted(&memory, &target, &live);
    assert_eq!(undisturbed.candidate, counts(10 + 4 + 3 + 8 + 6 + 2, 4));
    assert_eq!(counted(&memory, &target, &[0, 15, 30, 675]), undisturbed);
}

#[test]
fn a_server_that_was_blind_at_the_start_hands_out_no_history() {
    let target = target("app", vec![success_rate(99.0)]);
    let mut memory = Memory::default();
    memory.set(code("app", "x", "200"), 40, 90_000.0);
    memory.set(code("app-canary", "a", "500"), 40, 900.0);
    memory.set(code("app-canary", "a", "500"), 50, 901.0);
    let all = counted(&memory, &target, &[0, 15, 30, 45, 60]);
    assert_eq!((all.candidate, all.stable), (counts(1, 1), counts(0, 0)));
}

#[test]
fn absurd_counts_are_added_up_without_end() {
    let target = target("app", vec![success_rate(99.0)]);
    let mut memory = Memory::default();
    memory.set(code("app", "x", "200"), -100, 70.0);
    for pod in 0..2_100 {
        let labels = code("app-canary", &format!("p{pod}"), "500");
        memory.set(labels, 10, 9_007_199_254_740_992.0);
    }
    let all = counted(&memory, &target, &[0, 15]);
    assert_eq!(all.candidate, counts(u64::MAX, u64::MAX));
}

#[test]
fn requests_from_before_the_step_do_not_count_for_it() {
    let mut target = target("app", vec![success_rate(99.0)]);
    let mut memory = Memory::default();
    memory.set(code("app", "x", "200"), -10, 1.0);
    memory.set(code("app-canary", "a", "200"), 10, 400.0);
    memory.set(code("app-canary", "a", "200"), 40, 500.0);
    memory.set(code("app-canary", "a", "200"), 80, 620.0);
    let mut ledger = Ledger::default();
    for second in [0, 15, 30] {
        memory.tick(&mut ledger, &target, second);
    }
    assert!(shown(&memory.tick(&mut ledger, &target, 45)).starts_with("pass"));
    target.window.step = at(44);
    // The reading at 45 is the first after the step began, though the step was reported later.
    assert_snapshot!(shown(&memory.tick(&mut ledger, &target, 60)), @"
    inconclusive: success-rate: no request has reached the candidate on this step: 0 of 299 requests that 99% needs
      success-rate inconclusive - [>= 99%] 0/0 in 15s
    ");
    assert_snapshot!(shown(&memory.tick(&mut ledger, &target, 90)), @"
    inconclusive: success-rate: 120 of 299 requests that 99% needs, 0 failed; the rest takes about 2m at this rate
      success-rate inconclusive 100% [>= 99%] 0/120 in 45s
    ");
    let rebuilt = {
        let mut ledger = Ledger::default();
        memory.tick(&mut ledger, &target, 90);
        ledger.entries[&target.id].requests_since(at(44)).unwrap()
    };
    assert_eq!(
        rebuilt,
        ledger.entries[&target.id].requests_since(at(44)).unwrap()
    );
    // A step that nothing was read in since: no pass, whatever came before.
    target.window.step = at(91);
    let verdict = judge(&target, &ledger, at(92));
    assert_eq!(verdict.verdict, Verdict::Inconclusive);
    assert_eq!(verdict.findings[0].samples, 0);
}

#[test]
fn what_counts_as_a_failure() {
    let outcome = |code: &str, grpc: &str, flags: &str| {
        let mut memory = Memory::default();
        memory.set(self::code("app", "old", "200"), -60, 1.0);
        let rest = [
            ("response_code", code),
            ("grpc_response_status", grpc),
            ("response_flags", flags),
        ];
        memory.set(labels("app-canary", "new", &rest), 10, 7.0);
        let target = target("app", vec![success_rate(99.0)]);
        let mut ledger = Ledger::default();
        memory.tick(&mut ledger, &target, 15);
        let counts = ledger.entries[&target.id].requests().unwrap().candidate;
        (counts.requests, counts.failures)
    };
    for (code, grpc, flags, expected) in [
        ("200", "", "-", (7, 0)),
        ("404", "", "NR", (7, 0)),
        ("500", "", "-", (7, 7)),
        ("503", "", "UF", (7, 7)),
        ("599", "", "-", (7, 7)),
        ("0", "", "DC", (0, 0)),
        ("0", "", "UF", (7, 7)),
        ("0", "", "-", (7, 7)),
        ("0", "", "UR,DC", (0, 0)),
        ("200", "0", "-", (7, 0)),
        ("200", "5", "-", (7, 0)),
        ("200", "14", "-", (7, 7)),
        ("200", "2", "-", (7, 7)),
        ("200", "4", "-", (7, 7)),
        ("200", "12", "-", (7, 7)),
        ("200", "13", "-", (7, 7)),
        ("200", "15", "-", (7, 7)),
    ] {
        assert_eq!(
            outcome(code, grpc, flags),
            expected,
            "{code} {grpc} {flags}"
        );
    }
}

#[test]
fn unusable_counters_are_errors() {
    let (memory, target) = simple(299.0, 0.0);
    let targets = std::slice::from_ref(&target);
    let with = |change: &dyn Fn(&mut Vec<Series>)| {
        let mut ledger = Ledger::default();
        memory.tick(&mut ledger, &target, 0);
        let queries = plan(targets, &ledger, at(15));
        let Answer::Series(mut series) = memory.answer(&queries[0]) else {
            unreachable!()
        };
        change(&mut series);
        absorb(&mut ledger, targets, &queries, &[Answer::Series(series)]);
        let bad = judge(&target, &ledger, at(15));
        // The next good answer makes up for it.
        assert_eq!(memory.tick(&mut ledger, &target, 30).verdict, Verdict::Pass);
        (bad.verdict, bad.sentence)
    };
    for value in [f64::NAN, f64::INFINITY, -1.0, 0.5, 1e300] {
        let (verdict, sentence) = with(&|series| series[0].samples[0].1 = value);
        assert_eq!(verdict, Verdict::Error, "{value}: {sentence}");
        assert!(
            sentence.contains("a whole number of requests was expected"),
            "{sentence}"
        );
    }
    let errors = [
        with(&|series| series.push(series[0].clone())),
        with(&|series| {
            series.push(Series {
                labels: code("other", "a", "200"),
                samples: vec![(at(15), 1.0)],
            })
        }),
        with(&|series| {
            series[0].labels.remove("destination_workload");
        }),
        with(&|series| {
            series[0].labels.remove("response_code");
        }),
        with(&|series| series[0].samples[0].0 = at(16)),
    ];
    let lines: Vec<String> = errors
        .iter()
        .map(|(verdict, s)| format!("{}: {s}", verdict.as_str()))
        .collect();
    assert_snapshot!(lines.join("\n"), @r#"
    error: success-rate: Prometheus gave two values for one series of `app-canary new `
    error: success-rate: Prometheus gave a series that was not asked for: {destination_workload="other",destination_workload_namespace="test",pod="a",response_code="200",response_flags="-"}; check what stands between it and Serin
    error: success-rate: Prometheus gave a series that was not asked for: {destination_workload_namespace="test",pod="new",response_code="200",response_flags="-"}; check what stands between it and Serin
    error: success-rate: Prometheus gave a series that was not asked for: {destination_workload="app-canary",destination_workload_namespace="test",pod="new",response_flags="-"}; check what stands between it and Serin
    error: success-rate: Prometheus gave samples from after the time that was asked for: 2023-11-14T22:13:46+00:00
    "#);
}

#[test]
fn another_rollout_begins_with_nothing() {
    let (memory, mut target) = simple(0.0, 50.0);
    let mut ledger = Ledger::default();
    assert_eq!(memory.tick(&mut ledger, &target, 15).verdict, Verdict::Fail);
    target.window.rollout = at(20);
    target.window.step = at(20);
    assert_eq!(
        judge(&target, &ledger, at(20)).verdict,
        Verdict::Inconclusive
    );
    assert_eq!(
        memory.tick(&mut ledger, &target, 30).verdict,
        Verdict::Inconclusive
    );
    assert_eq!(
        ledger.entries[&target.id].requests().unwrap().candidate,
        counts(0, 0)
    );
    ledger.forget(&target.id);
    assert!(ledger.entries.is_empty());
}
