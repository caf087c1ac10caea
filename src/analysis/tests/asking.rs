//! What is asked, and how badly written queries are kept apart.

use insta::assert_snapshot;

use super::*;

#[test]
fn one_bad_query_hurts_only_its_own_canary() {
    let good = target("good", vec![custom("queue", "max(queue)", 100.0)]);
    let bad = target(
        "bad",
        vec![
            custom("queue", "sum(queue", 100.0),
            custom("typo", "smu(queue)", 1.0),
        ],
    );
    let targets = [good.clone(), bad.clone()];
    let mut ledger = Ledger::default();
    let mut shapes = Vec::new();
    let mut verdicts = Vec::new();
    for tick in 1..=4 {
        let queries = plan(&targets, &ledger, at(tick * 15));
        let answers: Vec<Answer> = queries
            .iter()
            .map(|query| {
                let Purpose::Custom(members) = &query.purpose else {
                    unreachable!()
                };
                if query.promql.contains("smu") || query.promql == "sum(queue" {
                    return Answer::Failed(AskError::BadQuery("parse error".to_owned()));
                }
                let one = |index: usize| Series {
                    labels: [(CUSTOM_LABEL, index.to_string())].into_iter().collect(),
                    samples: vec![(query.at, 5.0)],
                };
                Answer::Series((0..members.len()).map(one).collect())
            })
            .collect();
        shapes.push(
            queries
                .iter()
                .map(|q| q.promql.clone())
                .collect::<Vec<_>>()
                .join("; ")
                .replace('\n', ""),
        );
        absorb(&mut ledger, &targets, &queries, &answers);
        verdicts.push((
            judge(&good, &ledger, at(tick * 15)).verdict,
            judge(&bad, &ledger, at(tick * 15)).verdict,
        ));
    }
    assert_snapshot!(shapes.join("\n"), @r#"
    label_replace((smu(queue)), "serin_query", "0", "", "") or label_replace((max(queue)), "serin_query", "1", "", ""); sum(queue
    sum(queue; smu(queue); max(queue)
    sum(queue; smu(queue); max(queue)
    max(queue); sum(queue; smu(queue)
    "#);
    assert_eq!(
        verdicts,
        [
            (Verdict::Error, Verdict::Error),
            (Verdict::Pass, Verdict::Error),
            (Verdict::Pass, Verdict::Error),
            (Verdict::Pass, Verdict::Error),
        ]
    );
}

#[test]
fn placeholders_and_scalars() {
    let mut target = target(
        "app",
        vec![
            custom(
                "a",
                "q{ns=\"{{ namespace }}\",w=\"{{ workload }}\"}[{{window}}]",
                1.0,
            ),
            custom(
                "b",
                "scalar(q) # {{ stable }} {{ service }} {{ canary }} {{ other }}",
                1.0,
            ),
        ],
    );
    target.window.step = at(-1000);
    let targets = std::slice::from_ref(&target);
    let queries = plan(targets, &Ledger::default(), at(0));
    assert_snapshot!(queries[0].promql, @r#"
    label_replace((q{ns="test",w="app-canary"}[600s]
    ), "serin_query", "0", "", "") or label_replace(vector(scalar(q) # app app app {{ other }}
    ), "serin_query", "1", "", "")
    "#);
}

#[test]
fn queries_as_they_are_asked() {
    let mut target = target("app", vec![success_rate(99.0), latency(500)]);
    let targets = std::slice::from_ref(&target);
    let queries = plan(targets, &Ledger::default(), at(40));
    let lines: Vec<&str> = queries.iter().map(|q| q.promql.as_str()).collect();
    assert_snapshot!(lines.join("\n"), @r#"
    sum by (pod, instance, destination_workload_namespace, destination_workload, response_code, grpc_response_status, response_flags) (istio_requests_total{reporter="destination",destination_workload_namespace="test",destination_workload=~"app|app-canary"})
    sum by (pod, instance, destination_workload_namespace, destination_workload, le) (istio_request_duration_milliseconds_bucket{reporter="destination",destination_workload_namespace="test",destination_workload=~"app|app-canary",response_code=~"[123]..",grpc_response_status!~"2|4|12|13|14|15",le=~"[0-9]{2,4}([.][0-9]+)?|[+]Inf"})
    "#);
    // From forty ticks before the rollout to the last reading that is due, on the common grid.
    assert_eq!(
        (queries[0].range, queries[0].at),
        (Some((at(-600), Duration::from_secs(15))), at(30))
    );
    target.analysis.skip = true;
    assert_eq!(plan(&[target.clone()], &Ledger::default(), at(40)), []);

    let finding = judge(
        &self::target("app", vec![success_rate(99.0)]),
        &Ledger::default(),
        at(40),
    );
    assert_snapshot!(finding.findings[0].query, @r#"sum by (response_code, grpc_response_status, response_flags) (increase(istio_requests_total{reporter="destination",destination_workload_namespace="test",destination_workload="app-canary"}[40s] @ 1700000050))"#);
}

#[test]
fn the_number_of_queries_does_not_grow_with_canaries() {
    let many = |n: usize, second: i64, ledger: &Ledger| {
        let targets: Vec<Target> = (0..n)
            .map(|n| {
                target(
                    &format!("service-{n:04}"),
                    vec![success_rate(99.0), latency(500), custom("q", "up", 1.0)],
                )
            })
            .collect();
        plan(&targets, ledger, at(second))
    };
    let empty = Ledger::default();
    assert_eq!(many(1, 0, &empty).len(), 3);
    assert_eq!(many(100, 0, &empty).len(), 3);
    let thousand = many(1000, 0, &empty);
    assert!(thousand.len() <= 25, "{}", thousand.len());
    assert!(thousand.iter().all(|query| query.promql.len() <= 8 * 1024));
    // After ten days of rollout a rebuild still asks for a bounded number of points.
    for query in many(50, 864_000, &empty) {
        let Some((start, step)) = query.range else {
            continue;
        };
        let points =
            (query.at - start).num_milliseconds() / i64::try_from(step.as_millis()).unwrap() + 1;
        let canaries = match &query.purpose {
            Purpose::Requests(ids) | Purpose::Latency(ids) => ids.len(),
            Purpose::Custom(_) | Purpose::Counters(..) | Purpose::Checks(..) | Purpose::Clock => {
                unreachable!()
            }
        };
        assert!(
            points <= 2002 && canaries <= 10,
            "{points} points, {canaries} canaries"
        );
    }
}
