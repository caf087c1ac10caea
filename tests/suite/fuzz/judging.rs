//! The judge on whatever a server may say: each line of an input is the body of the answers of one tick.

use std::time::Duration;

use serin::analysis::{Answer, Ledger, Target, Window, absorb, judge, plan};
use serin::domain::{CanaryId, Timestamp};
use serin::prometheus::parse;
use serin::spec::{
    Analysis, Counters, Counting, LatencyCounters, Metric, MetricSource, OnFailure, OnInconclusive,
    Reporter, Rule, Unit,
};

/// Ticks that are played of one input.
const TICKS: usize = 24;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_700_000_010 + seconds, 0).unwrap()
}

fn target(name: &str, rule: Rule, counters: Option<Counters>) -> Target {
    let metric = |name: &str, source| Metric {
        name: name.to_owned(),
        source,
        min_requests: None,
    };
    let latency = MetricSource::Latency {
        quantile: 0.99,
        max: Duration::from_millis(500),
    };
    let query = MetricSource::Custom {
        query: "queue".to_owned(),
        min: None,
        max: Some(5.0),
    };
    Target {
        id: CanaryId::new("test", name),
        stable: vec!["app".to_owned()],
        candidate: vec!["app-canary".to_owned()],
        service: "app".to_owned(),
        analysis: Analysis {
            rule,
            every: Duration::from_secs(15),
            metrics: vec![
                metric("success-rate", MetricSource::SuccessRate { min: 99.0 }),
                metric("latency", latency),
                metric("queue", query),
            ],
            on_failure: OnFailure::Rollback,
            on_inconclusive: OnInconclusive::Hold,
            deadline: None,
            alpha: 0.01,
            compare: rule == Rule::Serin,
            skip: false,
            reporter: Reporter::Destination,
            counting: Counting::default(),
            counters,
        },
        window: Window {
            rollout: at(0),
            step: at(0),
            has_traffic: true,
            weight: Some(10),
            comparable: true,
            strikes: 0,
        },
    }
}

/// No answer, and no row of answers, makes the judge panic, count backwards, or say a number that is none.
pub(super) fn judging(input: &[u8]) {
    let own = Counters {
        requests: "r{app=~\"{{ workload }}\"}".to_owned(),
        failures: "f{app=~\"{{ workload }}\"}".to_owned(),
        rejections: None,
        latency: Some(LatencyCounters {
            buckets: "b{app=~\"{{ workload }}\"}".to_owned(),
            unit: Unit::Seconds,
        }),
    };
    let targets = [
        target("app", Rule::Serin, None),
        target("own", Rule::Serin, Some(own)),
        target("checked", Rule::Flagger { threshold: 3 }, None),
    ];
    let mut ledger = Ledger::default();
    let mut counted = [0; 3];
    for (tick, body) in (0..).zip(input.split(|byte| *byte == b'\n').take(TICKS)) {
        let now = at(15 * tick);
        let queries = plan(&targets, &ledger, now);
        let answers: Vec<Answer> = queries
            .iter()
            .map(|query| match parse(body, query.range.is_some()) {
                Ok(series) => Answer::Series(series),
                Err(error) => Answer::Failed(error),
            })
            .collect();
        absorb(&mut ledger, &targets, &queries, &answers);
        for (target, before) in targets.iter().zip(&mut counted) {
            let judgement = judge(target, &ledger, now);
            assert!(
                !judgement.sentence.contains("NaN of"),
                "{}",
                judgement.sentence
            );
            if let Some(compared) = &judgement.compared {
                assert!(
                    compared.ln_evidence.is_finite() && compared.whole.0.is_finite(),
                    "{compared:?}"
                );
                assert!((0.0..=1.0).contains(&compared.p_value), "{compared:?}");
                assert!(
                    compared.phi >= 1.0 && (0.0..=1.0).contains(&compared.theta),
                    "{compared:?}"
                );
                assert!(compared.odds.is_none_or(f64::is_finite), "{compared:?}");
            }
            let requests = ledger
                .entries
                .get(&target.id)
                .and_then(|found| found.requests());
            let requests = requests.map_or(0, |sides| sides.candidate.requests);
            assert!(requests >= *before, "{requests} after {before}");
            *before = requests;
        }
    }
}
