//! Statuses and events of reports in every phase.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::*;
use crate::analysis::{Finding, Verdict};
use crate::domain::Person;
use crate::manifests::fixtures::{idle, rollout, state};
use crate::progression::{
    Attribution, Cause, DrainCause, Failure, Phase, Rejection, Transition, TransitionKind,
};
use crate::spec::fixtures::managed;

fn at(second: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

fn report(state: Option<State>, waiting: WaitingOn) -> CanaryReport {
    CanaryReport {
        id: managed().id,
        state,
        steps: 4,
        observed: None,
        moves: Vec::new(),
        planned: Vec::new(),
        waiting,
        judgement: None,
        diagnostics: Vec::new(),
        problem: None,
    }
}

fn progressing() -> CanaryReport {
    let canary = managed();
    let rollout = rollout(&canary, 2, 10);
    report(
        Some(state(&canary, Phase::Progressing(rollout))),
        WaitingOn::HoldTime { until: at(60) },
    )
}

fn status(previous: Option<&CanaryStatus>, report: &CanaryReport, second: i64) -> CanaryStatus {
    let head = CommitId::new("00c0ffee00".repeat(4));
    derive(
        previous,
        &Subject {
            report,
            head: Some(&head),
            observed_weight: Some(10),
            generation: Some(3),
            now: at(second),
        },
    )
}

/// `Ready Reconciling Stalled Promoted`, as the signs `+`, `-` and `?`, and the reason of `Ready`.
fn signs(status: &CanaryStatus) -> String {
    let find = |kind: &str| -> &Condition {
        let mut all = status.conditions.iter();
        all.find(|condition| condition.type_ == kind).unwrap()
    };
    let sign = |kind: &str| match find(kind).status.as_str() {
        "True" => '+',
        "False" => '-',
        _ => '?',
    };
    let signs: String = ["Ready", "Reconciling", "Stalled", "Promoted"]
        .map(sign)
        .iter()
        .collect();
    format!("{signs} {}", find("Ready").reason)
}

#[test]
fn a_rollout_on_its_way_shows_all_there_is() {
    let mut report = progressing();
    let by = Attribution {
        person: Person {
            name: "Dana".to_owned(),
            email: "dana@example.com".to_owned(),
        },
        commit: CommitId::new("abc"),
        subject: "Go".to_owned(),
        at: at(0),
    };
    if let Some(State {
        phase: Phase::Progressing(rollout),
        ..
    }) = &mut report.state
    {
        rollout.approval = Approval::Granted(by);
    }
    report.judgement = Some(Judgement {
        verdict: Verdict::Pass,
        allows: crate::analysis::Allows::ALL,
        compared: None,
        strikes: None,
        load: None,
        findings: vec![Finding {
            metric: "success-rate".to_owned(),
            verdict: Verdict::Pass,
            value: Some("99.92%".to_owned()),
            threshold: ">= 99%".to_owned(),
            samples: 1240,
            failures: 1,
            window: std::time::Duration::from_secs(60),
            query: "up".to_owned(),
            sentence: "fine".to_owned(),
        }],
        sentence: "fine".to_owned(),
        at: at(0),
    });
    let mut status = status(None, &report, 0);
    status.conditions.clear();
    insta::assert_snapshot!(serde_json::to_string_pretty(&status).unwrap(), @r#"
    {
      "phase": "Progressing",
      "weight": 10,
      "observedWeight": 10,
      "step": "2/4",
      "since": "1970-01-01T00:00:00Z",
      "candidate": "podinfod=6.9.0",
      "stable": "podinfod=6.8.0",
      "verdict": "pass",
      "analysis": [
        {
          "metric": "success-rate",
          "verdict": "pass",
          "value": "99.92%",
          "threshold": ">= 99%",
          "samples": 1240
        }
      ],
      "message": "soaking until 08:01:00 UTC",
      "commit": "00c0ffee0000c0ffee0000c0ffee0000c0ffee00",
      "approvedBy": "Dana <dana@example.com>",
      "observedGeneration": 3
    }
    "#);
}

#[test]
fn conditions_are_what_kstatus_reads() {
    let canary = managed();
    let failure = Failure {
        candidate: canary.stable.revision.clone(),
        summary: "podinfod=6.9.0".to_owned(),
        at: at(0),
        reason: "too many errors".to_owned(),
    };
    let rejection = Rejection {
        revision: canary.stable.revision.clone(),
        at: at(0),
        reason: "too many errors".to_owned(),
    };
    let draining = Phase::Draining(rollout(&canary, 2, 0), DrainCause::Withdrawn);
    let cases = [
        (
            report(Some(idle(&canary)), WaitingOn::Proposal),
            "+--? NoProposal",
        ),
        (
            report(Some(idle(&canary)), WaitingOn::Unpause),
            "-+-? Paused",
        ),
        (progressing(), "-+-? Soaking"),
        (
            report(Some(state(&canary, draining)), WaitingOn::Observation),
            "-+-? NotObserved",
        ),
        (
            report(
                Some(state(&canary, Phase::Failed(failure))),
                WaitingOn::Retry(rejection),
            ),
            "--+- CandidateRejected",
        ),
        (
            report(None, WaitingOn::Spec("no".to_owned())),
            "--+? SpecInvalid",
        ),
        (
            report(None, WaitingOn::Remote("gone".to_owned())),
            "?--? RemoteUnavailable",
        ),
    ];
    for (report, expected) in cases {
        assert_eq!(signs(&status(None, &report, 0)), expected);
    }
    let mut refused = progressing();
    refused.problem = Some("failed to apply Service test/podinfo: quota".to_owned());
    assert_eq!(signs(&status(None, &refused, 0)), "--+? ApplyFailed");
}

#[test]
fn equal_reports_give_equal_statuses() {
    let first = status(None, &progressing(), 0);
    assert_eq!(status(Some(&first), &progressing(), 900), first);
}

#[test]
fn transition_times_are_those_of_transitions() {
    let canary = managed();
    let idle = status(None, &report(Some(idle(&canary)), WaitingOn::Proposal), 0);
    let moving = status(Some(&idle), &progressing(), 50);
    let since = |status: &CanaryStatus, kind: &str| {
        let mut all = status.conditions.iter();
        let found = all.find(|condition| condition.type_ == kind).unwrap();
        found.last_transition_time.0.as_second() - at(0).timestamp()
    };
    assert_eq!(since(&moving, "Ready"), 50);
    assert_eq!(since(&moving, "Stalled"), 0);
}

#[test]
fn an_unreachable_remote_leaves_what_was_known() {
    let known = status(None, &progressing(), 0);
    let away = report(None, WaitingOn::Remote("no route to host".to_owned()));
    let next = derive(
        Some(&known),
        &Subject {
            report: &away,
            head: None,
            observed_weight: Some(10),
            generation: Some(3),
            now: at(60),
        },
    );
    assert_eq!((next.weight, next.step.as_deref()), (Some(10), Some("2/4")));
    assert_eq!(next.commit, known.commit);
    assert_eq!(next.message.as_deref(), Some("no route to host"));
    assert_eq!(signs(&next), "?--? RemoteUnavailable");
}

#[test]
fn another_canarys_commit_is_no_change() {
    let first = status(None, &progressing(), 0);
    let head = CommitId::new("f".repeat(40));
    let next = derive(
        Some(&first),
        &Subject {
            report: &progressing(),
            head: Some(&head),
            observed_weight: Some(10),
            generation: Some(3),
            now: at(60),
        },
    );
    assert_eq!(next, first);
}

#[test]
fn numbers_alone_can_wait() {
    let mut first = status(None, &progressing(), 0);
    first.message = Some("64 more requests".to_owned());
    let mut next = first.clone();
    next.message = Some("3 more requests".to_owned());
    assert!(!differs_in_substance(&first, &next));
    next.observed_weight = Some(60);
    assert!(differs_in_substance(&first, &next));
}

#[test]
fn what_a_workload_says_cannot_wait() {
    let not_ready = |words: &str| {
        let mut report = progressing();
        report.waiting = WaitingOn::Candidate(words.to_owned());
        status(None, &report, 0)
    };
    let (one, two) = (
        not_ready("0 of 2 pods are ready"),
        not_ready("1 of 2 pods are ready"),
    );
    assert!(!differs_in_substance(&one, &two));
    assert!(differs_in_substance(&one, &not_ready("ImagePullBackOff")));
}

#[test]
fn events_are_said_once() {
    let moved = |kind, to| {
        let mut moved = progressing();
        let step = Transition {
            kind,
            from: crate::spec::fixtures::weight(10),
            to: crate::spec::fixtures::weight(to),
            step: 2,
            steps: 4,
            candidate: None,
            cause: Cause::Rule("the analysis failed".to_owned()),
            sentence: "podinfod=6.9.0 is taken off.".to_owned(),
            judgement: None,
        };
        moved.moves = vec![(CommitId::new("00c0ffee00".repeat(4)), step)];
        moved
    };
    let advanced = moved(TransitionKind::Advance, 30);
    assert_eq!(notes(None, &advanced), [], "the status and Git show it");
    let rolled_back = moved(TransitionKind::RollBack, 0);
    let said = notes(None, &rolled_back);
    let lines: Vec<String> = said
        .iter()
        .map(|note| format!("{:?} {} {}", note.severity, note.reason, note.text))
        .collect();
    assert_eq!(
        lines,
        ["Warning RolledBack roll back 10% -> 0%: podinfod=6.9.0 is taken off. (00c0ffee00)"]
    );
    assert_eq!(notes(Some(&rolled_back), &progressing()), []);

    let refused = report(
        advanced.state,
        WaitingOn::PushRefused("protected".to_owned()),
    );
    let said = notes(Some(&progressing()), &refused);
    assert_eq!(
        said.iter().map(|note| note.reason).collect::<Vec<_>>(),
        ["PushRefused"]
    );
    assert_eq!(notes(Some(&refused), &refused), []);
}

#[test]
fn a_note_fits_the_api() {
    let long = report(None, WaitingOn::Spec("ä".repeat(2_000)));
    let said = notes(None, &long);
    assert!(said.iter().all(|note| note.text.len() <= 1_024), "{said:?}");
}
