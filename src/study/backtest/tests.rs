//! What a replay of recorded counters says.

use super::*;

/// Counters of `pods` at 15 s, each gaining `ok` and `bad` a step from `from` to `to` (steps).
fn service(name: &str, pods: u64, steps: std::ops::Range<i64>, ok: f64, bad: f64) -> Vec<Line> {
    let mut lines = Vec::new();
    for pod in 0..pods {
        for (code, gain) in [("200", ok), ("503", bad)] {
            let samples: Vec<(Ms, f64)> = steps
                .clone()
                .map(|step| (step * 15_000, gain * (step - steps.start + 1) as f64))
                .filter(|(_, value)| *value > 0.0)
                .collect();
            let label = |name: &str, value: String| (name.to_owned(), value);
            lines.push(Line {
                labels: BTreeMap::from([
                    label("destination_workload", name.to_owned()),
                    label("pod", format!("{name}-{pod}")),
                    label("response_code", code.to_owned()),
                ]),
                samples,
            });
        }
    }
    lines.retain(|line| !line.samples.is_empty());
    lines
}

fn question(lines: Vec<Line>) -> Question {
    Question {
        lines,
        layout: Layout {
            version: "destination_workload".to_owned(),
            stable: vec!["app".to_owned()],
            candidate: vec!["app-canary".to_owned()],
            code: "response_code".to_owned(),
        },
        rule: Rule::default(),
        limit: 0.01,
        every: 15_000,
    }
}

#[test]
fn a_bad_candidate_is_caught_by_both_and_sooner_by_serin() {
    let mut lines = service("app", 4, 0..80, 750.0, 1.0);
    lines.extend(service("app-canary", 2, 40..80, 140.0, 10.0));
    let replay = replay(&question(lines)).unwrap();
    assert_eq!(replay.began, 39 * 15_000);
    assert_eq!(replay.rows.len(), 40);
    assert_eq!(replay.candidate, (2 * 150 * 40, 2 * 10 * 40));
    assert_eq!(replay.stable, (4 * 751 * 40, 4 * 40));
    let serin = replay.serin.clone().unwrap();
    assert_eq!((serin.seconds, serin.failures), (30, 40));
    insta::assert_snapshot!(serin.sentence, @"the candidate fails 13.6 times as often as stable at least (99% sure): 40 of 600 against 8 of 6008 requests, 30 s after its first one");
    assert_eq!(replay.flagger_1.unwrap().seconds, 120);
    assert_eq!(replay.flagger_5.unwrap().seconds, 360);
}

#[test]
fn an_incident_of_both_is_no_fault_of_the_candidate() {
    let mut lines = service("app", 4, 0..80, 700.0, 50.0);
    lines.extend(service("app-canary", 2, 40..80, 140.0, 10.0));
    let replay = replay(&question(lines)).unwrap();
    assert_eq!(replay.serin, None);
    assert!(replay.flagger_1.is_some());
    assert_eq!(replay.at_the_end, "safe to promote");
    assert!(!replay.plot().lines(50, 8).is_empty());
}

#[test]
fn what_cannot_be_told_apart_is_refused() {
    let words = |lines: &[Line], stable: &str| {
        let mut question = question(lines.to_vec());
        question.layout.stable = vec![stable.to_owned()];
        replay(&question).unwrap_err().to_string()
    };
    let mut lines = service("app", 1, 0..9, 9.0, 0.0);
    lines.extend(service("app-canary", 1, 4..9, 9.0, 0.0));
    insta::assert_snapshot!(words(&lines, "app-canary"), @"app-canary is given for stable and for the candidate: name two workloads");
    lines.push(lines[0].clone());
    insta::assert_snapshot!(words(&lines, "app"), @"two series have the same labels: destination_workload=app pod=app-0 response_code=200; ask for them with all their labels, or with `sum by`");
}

#[test]
fn resets_and_gaps_lose_nothing_and_invent_nothing() {
    let mut lines = service("app", 3, 0..60, 300.0, 0.0);
    let mut canary = service("app-canary", 1, 20..60, 30.0, 0.0);
    for line in &mut canary {
        // The proxy begins anew at step 40, and steps 30 and 31 were not scraped.
        line.samples
            .retain(|(at, _)| !(30..32).contains(&(at / 15_000)));
        for (at, value) in &mut line.samples {
            if *at >= 40 * 15_000 {
                *value -= 20.0 * 30.0;
            }
        }
    }
    lines.extend(canary);
    let replay = replay(&question(lines)).unwrap();
    assert_eq!(replay.candidate, (40 * 30, 0));
    assert_eq!(replay.serin, None);
}

#[test]
fn what_cannot_be_replayed_says_why() {
    let lines = service("app", 1, 0..9, 5.0, 0.0);
    insta::assert_snapshot!(replay(&question(lines.clone())).unwrap_err(), @"no series has destination_workload=app-canary: name the workloads as the metrics do; there are app");
    let mut still = lines.clone();
    still.extend(service("app-canary", 1, 0..9, 5.0, 0.0));
    for line in &mut still {
        line.samples.iter_mut().for_each(|(_, value)| *value = 7.0);
    }
    assert_eq!(replay(&question(still.clone())), Err(Unusable::Idle));
    still[0].samples[3].1 = f64::NAN;
    assert!(matches!(replay(&question(still)), Err(Unusable::Value(_))));
    assert!(replay(&question(Vec::new())).is_err());
}

#[test]
fn requests_without_an_answer() {
    assert_eq!(failed("0", "", "DC"), None);
    assert_eq!(failed("0", "", "UF,URX"), Some(true));
    assert_eq!(failed("200", "14", "-"), Some(true));
    assert_eq!(failed("404", "", "-"), Some(false));
}
