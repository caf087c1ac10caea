//! Judging beside stable: whole ticks against counters of several pods.

use insta::assert_snapshot;
use proptest::prelude::*;

use super::*;

/// Counters that grow tick by tick: pods of both versions, with their codes.
struct Mesh {
    memory: Memory,
    values: BTreeMap<Labels, f64>,
    target: Target,
    ledger: Ledger,
    second: i64,
}

impl Mesh {
    /// Stable with four pods and ten minutes of history at this many requests and failures a pod and tick.
    fn new(requests: u64, failures: u64) -> Self {
        let mut target = target("app", vec![success_rate(99.0)]);
        target.analysis.compare = true;
        let mut mesh = Self {
            memory: Memory::default(),
            values: BTreeMap::new(),
            target,
            ledger: Ledger::default(),
            second: -600,
        };
        while mesh.second < 0 {
            mesh.flow("app", 4, requests, failures);
            mesh.second += 15;
        }
        mesh.flow("app", 4, requests, failures);
        mesh
    }

    fn add(&mut self, labels: Labels, more: u64) {
        let value = self.values.entry(labels.clone()).or_default();
        *value += more as f64;
        if *value > 0.0 {
            self.memory.set(labels, self.second, *value);
        }
    }

    fn flow(&mut self, workload: &str, pods: u64, requests: u64, failures: u64) {
        for pod in 0..pods {
            let name = format!("{workload}-{pod}");
            self.add(code(workload, &name, "200"), requests - failures);
            self.add(code(workload, &name, "503"), failures);
        }
    }

    /// A tick with these requests and failures per pod: four of stable, two of the candidate.
    fn tick(&mut self, stable: (u64, u64), candidate: (u64, u64)) -> Judgement {
        self.second += 15;
        self.flow("app", 4, stable.0, stable.1);
        self.flow("app-canary", 2, candidate.0, candidate.1);
        self.memory
            .tick(&mut self.ledger, &self.target, self.second)
    }

    fn start(&mut self) {
        self.memory.tick(&mut self.ledger, &self.target, 0);
    }
}

#[test]
fn a_worse_candidate_is_told_from_a_shared_incident() {
    let mut mesh = Mesh::new(1000, 1);
    mesh.start();
    // Everybody fails one in ten for three minutes.
    for _ in 0..12 {
        let judgement = mesh.tick((1000, 100), (200, 20));
        assert_ne!(judgement.verdict, Verdict::Fail, "{}", judgement.sentence);
        assert_eq!(judgement.allows, Allows::default());
    }
    assert_snapshot!(mesh.tick((1000, 100), (200, 20)).sentence, @"success-rate: stable itself does not keep >= 99%, 2,800 of its last 28,000 failed: the candidate is not blamed, and waits");
    // It ends, and the candidate fails five times as often as stable.
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(mesh.tick((1000, 1), (200, 5)));
        if seen.last().is_some_and(|j| j.verdict == Verdict::Fail) {
            break;
        }
    }
    let last = seen.last().unwrap();
    assert_eq!(last.verdict, Verdict::Fail, "{}", last.sentence);
    assert_snapshot!(shown(last), @"
    fail: success-rate: candidate fails more often than stable (99% sure), 160 of 2,800 against 1,216 of 28,000 requests, 4m15s after the step
      success-rate fail 91.76% [>= 99%] 560/6800 in 255s
    ");
}

#[test]
fn what_bursts_may_explain_gets_no_more_traffic() {
    // One pod of each; stable's fails one request in ten for a tick now and then.
    let mut mesh = Mesh::new(1000, 0);
    mesh.start();
    let mut tick = |stable: u64, candidate: u64| {
        mesh.second += 15;
        mesh.flow("app", 1, 1000, stable);
        mesh.flow("app-canary", 1, 1000, candidate);
        mesh.memory
            .tick(&mut mesh.ledger, &mesh.target, mesh.second)
    };
    for burst in [0, 100, 0, 0, 100, 0, 0, 100, 0, 0, 100, 0, 0, 0, 0, 0, 0] {
        tick(burst, 0);
    }
    let mut seen = Vec::new();
    for _ in 0..8 {
        let judgement = tick(0, 40);
        seen.push(format!(
            "{:?} {}: {}",
            judgement.verdict, judgement.allows.step, judgement.sentence
        ));
    }
    assert_snapshot!([&seen[1], &seen[2], &seen[7]].map(String::as_str).join("\n"), @"
    Pass true: success-rate 99.57% (>= 99%)
    Inconclusive false: success-rate: candidate does not keep >= 99%, 120 of its last 7,000 failed, and gets no more traffic; the odds against chance are 1 to 1, a rollback needs 100 to 1
    Inconclusive false: success-rate: candidate does not keep >= 99%, 280 of its last 7,000 failed, and gets no more traffic; the odds against chance are 2 to 1, a rollback needs 100 to 1
    ");
}

#[test]
fn what_a_step_and_what_promotion_need() {
    let mut mesh = Mesh::new(100, 0);
    mesh.start();
    let mut lines = Vec::new();
    for tick in 1..=16 {
        let judgement = mesh.tick((100, 0), (12, 0));
        if [1, 3, 14, 15].contains(&tick) {
            lines.push(format!(
                "{tick} {} {}: {}",
                judgement.allows.step,
                judgement.allows.promotion,
                judgement.missing()
            ));
        }
    }
    assert_snapshot!(lines.join("\n"), @"
    1 false false: success-rate: no sign of harm, 0 of 24 failed against 0 of 400; promotion needs 330 more requests without a failure, about 4m at this rate; 24 of 50 requests that a step needs
    3 true false: success-rate: no sign of harm, 0 of 72 failed against 0 of 1,200; promotion needs 282 more requests without a failure, about 3m at this rate
    14 true false: success-rate: no sign of harm, 0 of 336 failed against 0 of 5,600; promotion needs 18 more requests without a failure, about 60s at this rate
    15 true true: success-rate: 0 of 360 failed against 0 of 6,000, 1% or more excluded (95% sure)
    ");
}

#[test]
fn a_disaster_takes_two_ticks() {
    let mut mesh = Mesh::new(1000, 0);
    mesh.start();
    let first = mesh.tick((1000, 0), (100, 20));
    assert_eq!(first.verdict, Verdict::Inconclusive);
    assert_eq!(first.allows, Allows::default());
    assert_snapshot!(first.sentence, @"success-rate: candidate looks worse than stable, 40 of 200 failed against 0 of 4,000: the odds against chance are 20 to 1, a rollback needs 100 to 1");
    let second = mesh.tick((1000, 0), (100, 20));
    assert_eq!(second.verdict, Verdict::Fail);
    assert_snapshot!(second.sentence, @"success-rate: candidate fails 62.5 times as often as stable at least (99% sure), 80 of 400 against 0 of 8,000 requests, 30s after the step");
    let numbers = second.compared.unwrap();
    assert_eq!(
        (
            numbers.requests,
            numbers.failures,
            numbers.stable_requests,
            numbers.stable_failures
        ),
        (400, 80, 8000, 0)
    );
    assert!(numbers.odds.is_some_and(|odds| odds > 10.0), "{numbers:?}");
}

#[test]
fn requests_that_do_not_follow_the_weight_hold_the_rollout() {
    let mut mesh = Mesh::new(1000, 0);
    mesh.target.window.weight = Some(50);
    mesh.start();
    let mut last = mesh.tick((1000, 0), (20, 0));
    for _ in 0..6 {
        last = mesh.tick((1000, 0), (20, 0));
    }
    assert_eq!(
        (last.verdict, last.allows),
        (Verdict::Inconclusive, Allows::default())
    );
    assert_snapshot!(last.sentence, @"success-rate: the candidate gets 0.99% of the requests where this step says 50%: see whether the VirtualService is applied");
    mesh.target.window.weight = Some(1);
    mesh.tick((1000, 0), (20, 0));
    assert_eq!(mesh.tick((1000, 0), (20, 0)).verdict, Verdict::Pass);
}

#[test]
fn clients_that_are_refused_more_often_are_a_weak_sign() {
    let mut mesh = Mesh::new(1000, 0);
    mesh.start();
    let mut last = None;
    for _ in 0..4 {
        mesh.second += 15;
        mesh.flow("app", 4, 1000, 0);
        for pod in ["app-canary-0", "app-canary-1"] {
            mesh.add(code("app-canary", pod, "200"), 180);
            mesh.add(code("app-canary", pod, "401"), 20);
        }
        let second = mesh.second;
        last = Some(mesh.memory.tick(&mut mesh.ledger, &mesh.target, second));
    }
    let last = last.unwrap();
    assert_eq!(last.verdict, Verdict::Fail);
    assert_snapshot!(shown(&last), @"
    fail: client-errors: candidate blames the client 65.1 times as often as stable at least (99% sure), 160 of 1,600 against 0 of 16,000 requests, 60s after the step
      success-rate inconclusive 100% [>= 99%] 0/1600 in 60s
      client-errors fail - [as stable] 160/1600 in 60s
    ");
    mesh.target.analysis.counting.client_errors = false;
    let second = mesh.second + 15;
    mesh.second = second;
    mesh.flow("app", 4, 1000, 0);
    assert_eq!(
        mesh.memory
            .tick(&mut mesh.ledger, &mesh.target, second)
            .verdict,
        Verdict::Pass
    );
}

#[test]
fn counts_of_a_candidate_that_went_silent_are_stale() {
    let mut mesh = Mesh::new(1000, 1);
    mesh.start();
    for _ in 0..10 {
        mesh.tick((1000, 1), (200, 0));
    }
    assert_eq!(mesh.tick((1000, 1), (200, 0)).verdict, Verdict::Pass);
    // The pods are gone: Prometheus shows nothing of them any more.
    mesh.memory
        .series
        .retain(|labels, _| labels.value("destination_workload") == "app");
    let mut last = None;
    for _ in 0..4 {
        mesh.second += 15;
        mesh.flow("app", 4, 1000, 1);
        let second = mesh.second;
        last = Some(mesh.memory.tick(&mut mesh.ledger, &mesh.target, second));
    }
    let last = last.unwrap();
    assert_eq!(
        (last.verdict, last.allows),
        (Verdict::Inconclusive, Allows::default())
    );
    assert_snapshot!(last.sentence, @"success-rate: no pod of the candidate has reported since 22:16:15 UTC: the counts are stale");
}

#[test]
fn without_stable_traffic_the_limit_judges() {
    let mut mesh = Mesh::new(1000, 1);
    mesh.start();
    let mut first = None;
    for tick in 1..20 {
        let judgement = mesh.tick((0, 0), (1000, if tick > 4 { 60 } else { 1 }));
        if judgement.verdict == Verdict::Fail {
            first = Some(tick);
            break;
        }
    }
    assert_eq!(first, Some(6));
}

/// One tick of random counts: requests and failures of four pods of stable and two of the candidate.
type Row = ([(u64, u64); 4], [(u64, u64); 2]);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let pod = || (0u64..400, 0u64..400).prop_map(|(n, x)| (n, x.min(n) / 8));
    let row = ([pod(), pod(), pod(), pod()], [pod(), pod()]);
    prop::collection::vec(row, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// After a restart the evidence is rebuilt bit for bit from the same samples, alone or beside other canaries.
    #[test]
    fn a_restart_changes_no_bit_of_the_evidence(rows in rows(), restart in 0usize..60) {
        let mut mesh = Mesh::new(300, 1);
        mesh.start();
        let mut rebuilt = None;
        for (index, (stable, candidate)) in rows.iter().enumerate() {
            mesh.second += 15;
            for (pod, (n, x)) in stable.iter().enumerate() {
                mesh.add(code("app", &format!("app-{pod}"), "200"), n - x);
                mesh.add(code("app", &format!("app-{pod}"), "503"), *x);
            }
            for (pod, (n, x)) in candidate.iter().enumerate() {
                mesh.add(code("app-canary", &format!("app-canary-{pod}"), "200"), n - x);
                mesh.add(code("app-canary", &format!("app-canary-{pod}"), "404"), *x);
            }
            let second = mesh.second;
            let live = mesh.memory.tick(&mut mesh.ledger, &mesh.target, second);
            if index >= restart.min(rows.len() - 1) {
                let ledger = rebuilt.get_or_insert_with(Ledger::default);
                let again = mesh.memory.tick(ledger, &mesh.target, second);
                prop_assert_eq!(&again, &live);
                prop_assert_eq!(&*ledger, &mesh.ledger);
            }
        }
        // Beside a canary that has been on its way for longer, in one range query.
        let mut older = target("older", vec![success_rate(99.0)]);
        older.window.rollout = at(-5000);
        older.window.step = at(-5000);
        older.analysis.compare = true;
        let both = [mesh.target.clone(), older];
        let mut shared = Ledger::default();
        let queries = plan(&both, &shared, at(mesh.second));
        prop_assert_eq!(queries.len(), 1);
        let answers: Vec<Answer> = queries.iter().map(|query| mesh.memory.answer(query)).collect();
        absorb(&mut shared, &both, &queries, &answers);
        prop_assert_eq!(&shared.entries[&mesh.target.id], &mesh.ledger.entries[&mesh.target.id]);
    }
}
