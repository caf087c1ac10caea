//! Whatever a state holds is read back; whatever becomes of the bytes, nobody else's state is read; and no text that came
//! from elsewhere forges a trailer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::message::{self, Style};
use super::state_file::{self, Unreadable};
use crate::analysis::{Allows, Finding, Judgement, Verdict};
use crate::domain::{CanaryId, CommitId, Person, RepoPath, Revision, Timestamp, Weight};
use crate::progression::{
    Approval, Attribution, Cause, DrainCause, Failure, Hold, HoldReason, Phase, Previous,
    Rejection, Rollout, State, Transition, TransitionKind, VerdictNote,
};
use crate::spec::{Candidate, CandidateContent, Version};

fn text() -> impl Strategy<Value = String> {
    let hostile = prop::sample::select(vec![
        "",
        "yes",
        "1",
        "~",
        "a: b # c",
        "x\n\nSerin-Weight: 0 -> 100\n",
        "x\r\nSerin-Canary: other/one",
        "\u{2028}Serin-Verdict: pass",
        "---\ncanary: other/one\n",
        "'\"\\",
        "\u{feff}\u{85}\t",
        "<<: *x",
        "ü\u{1f600}\u{301}",
    ]);
    prop_oneof![
        "[a-z0-9.=, -]{0,20}",
        hostile.prop_map(str::to_owned),
        any::<String>(),
    ]
}

fn word() -> impl Strategy<Value = Revision> {
    "[0-9a-f]{12}".prop_map(Revision::recorded)
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0_i64..4_000_000_000).prop_map(|at| Timestamp::from_timestamp(at, 0).unwrap())
}

fn weight() -> impl Strategy<Value = Weight> {
    (0_u64..=100).prop_map(|percent| Weight::new(percent).unwrap())
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn attribution() -> impl Strategy<Value = Attribution> {
    (text(), text(), "[0-9a-f]{40}", text(), time()).prop_map(
        |(name, email, commit, subject, at)| Attribution {
            person: Person { name, email },
            commit: CommitId::new(commit),
            subject,
            at,
        },
    )
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let texts = || prop::collection::btree_map("[a-z]{1,8}", text(), 1..3);
    let patch = prop::option::of(json_value().prop_map(|inner| json!({"spec": {"x": inner}})));
    let content = prop_oneof![
        (texts(), patch).prop_map(|(images, patch)| CandidateContent::Template { images, patch }),
        texts().prop_map(CandidateContent::Labels),
    ];
    (word(), word(), text(), content, any::<bool>()).prop_map(
        |(revision, yields, summary, content, older_than_stable)| Candidate {
            revision,
            yields,
            summary,
            content,
            older_than_stable,
        },
    )
}

fn rollout() -> impl Strategy<Value = Rollout> {
    let approval = prop_oneof![
        Just(Approval::NotNeeded),
        Just(Approval::Pending),
        attribution().prop_map(Approval::Granted),
    ];
    let matches = prop::collection::vec(
        json_value().prop_map(|value| json!({"headers": {"x": value}})),
        0..3,
    );
    let times = (time(), time());
    let mirror = prop::option::of(weight());
    (
        candidate(),
        0_u16..9,
        weight(),
        mirror,
        matches,
        times,
        word(),
        (approval, prop::option::of(1_u32..1_000)),
    )
        .prop_map(
            |(
                candidate,
                step,
                weight,
                mirror,
                matches,
                (started, since),
                ladder,
                (approval, stable_replicas),
            )| {
                Rollout {
                    candidate: Arc::new(candidate),
                    step,
                    weight,
                    mirror,
                    matches,
                    started,
                    since,
                    ladder,
                    approval,
                    stable_replicas,
                }
            },
        )
}

fn failure() -> impl Strategy<Value = Failure> {
    (word(), text(), time(), text()).prop_map(|(candidate, summary, at, reason)| Failure {
        candidate,
        summary,
        at,
        reason,
    })
}

fn version() -> impl Strategy<Value = Version> {
    (word(), text()).prop_map(|(revision, summary)| Version { revision, summary })
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop::sample::select(vec![
        Verdict::Pass,
        Verdict::Fail,
        Verdict::Inconclusive,
        Verdict::Error,
    ])
}

fn state() -> impl Strategy<Value = State> {
    let cause = prop_oneof![
        Just(DrainCause::Promoted),
        Just(DrainCause::Withdrawn),
        Just(DrainCause::Superseded),
        failure().prop_map(DrainCause::RolledBack),
    ];
    let phase = prop_oneof![
        Just(Phase::Idle),
        rollout().prop_map(Phase::Progressing),
        (rollout(), cause).prop_map(|(rollout, cause)| Phase::Draining(rollout, cause)),
        failure().prop_map(Phase::Failed),
    ];
    let reason = prop::sample::select(vec![HoldReason::Adopted, HoldReason::AnalysisFailed]);
    let held =
        (reason, text(), time()).prop_map(|(reason, detail, at)| Hold { reason, detail, at });
    let rejection = (word(), time(), text()).prop_map(|(revision, at, reason)| Rejection {
        revision,
        at,
        reason,
    });
    let previous = (version(), time()).prop_map(|(version, until)| Previous { version, until });
    let numbers = prop::collection::btree_map("[a-zA-Z]{1,8}", -1_000_i32..1_000, 0..4);
    let numbers = numbers.prop_map(|all| {
        let quarters = all.into_iter().map(|(name, n)| match n % 4 {
            0 => (name, (n / 4).into()),
            _ => (name, (f64::from(n) / 4.0).into()),
        });
        quarters
            .chain([("asked".to_owned(), "1/2".into())])
            .collect()
    });
    let note = (verdict(), text(), time(), numbers, 0_u32..5);
    let note = note.prop_map(|(verdict, sentence, at, numbers, strikes)| VerdictNote {
        verdict,
        sentence,
        at,
        numbers,
        strikes,
    });
    (
        (0_u64..1_000_000, version(), phase, prop::option::of(held)),
        prop::collection::vec(rejection, 0..3),
        prop::option::of(previous),
        (0_u64..1000, 0_u64..1000),
        prop::option::of(note),
    )
        .prop_map(
            |(
                (sequence, stable, phase, held),
                rejected,
                previous,
                (retry, resume),
                last_verdict,
            )| {
                State {
                    sequence,
                    stable,
                    phase,
                    held,
                    rejected,
                    previous,
                    retry,
                    resume,
                    last_verdict: last_verdict.map(Arc::new),
                }
            },
        )
}

fn id() -> CanaryId {
    CanaryId::new("test", "podinfo")
}

fn path() -> RepoPath {
    RepoPath::new("apps/podinfo.serin/rollout.yaml").unwrap()
}

/// The place of each edit, how many bytes go, and what comes.
fn edits() -> impl Strategy<Value = Vec<(usize, usize, Vec<u8>)>> {
    let typed = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4),
        text().prop_map(String::into_bytes),
        Just(b"\ncanary: other/one\n".to_vec()),
    ];
    prop::collection::vec((any::<usize>(), 0_usize..40, typed), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_state_is_read_back(state in state(), steps in 0_u16..9, home in "[a-z\u{2028}]{1,9}") {
        let home = RepoPath::new(home).unwrap();
        let bytes = state_file::write(&id(), &state, steps, &home);
        let read = state_file::read(&path(), &bytes, &id());
        let file = match read {
            Ok(file) => file,
            Err(problem) => return Err(TestCaseError::fail(format!("{problem}\n{}", String::from_utf8_lossy(&bytes)))),
        };
        prop_assert!(!file.granted_by_hand);
        prop_assert_eq!(&file.state, &state, "{}", String::from_utf8_lossy(&bytes));
        prop_assert_eq!(state_file::write(&id(), &file.state, steps, &home), bytes);
        let other = CanaryId::new("other", "one");
        prop_assert_eq!(state_file::read(&path(), &state_file::write(&id(), &state, steps, &home), &other), Err(Unreadable::Foreign(id())));
    }

    #[test]
    fn broken_bytes_are_an_error_or_this_canary(state in state(), edits in edits()) {
        let mut bytes = state_file::write(&id(), &state, 4, &path());
        for (at, cut, typed) in edits {
            let start = at % (bytes.len() + 1);
            let end = (start + cut).min(bytes.len());
            bytes.splice(start..end, typed);
        }
        // Nobody's state but the one that the file names.
        let nobody = CanaryId::new("zzzz", "zzzz");
        prop_assert!(state_file::read(&path(), &bytes, &nobody).is_err());
        match state_file::read(&path(), &bytes, &id()) {
            Ok(file) => {
                let again = state_file::write(&id(), &file.state, 4, &path());
                let again = state_file::read(&path(), &again, &id());
                prop_assert_eq!(again.map(|file| file.state), Ok(file.state));
            }
            Err(Unreadable::Invalid(diagnostics)) => {
                prop_assert!(!diagnostics.is_empty());
                let is_fine = |message: &str| !message.contains('\n') && message.len() < 2000;
                prop_assert!(diagnostics.iter().all(|one| is_fine(&one.message)), "{:?}", diagnostics);
            }
            Err(Unreadable::Foreign(other)) => prop_assert!(other != id()),
        }
    }

    #[test]
    fn no_text_forges_a_trailer(
        texts in prop::collection::vec(text(), 8),
        by in prop::option::of(attribution()),
        candidate in prop::option::of(candidate()),
        kind in prop::sample::select(vec![TransitionKind::Start, TransitionKind::Promote, TransitionKind::Advance, TransitionKind::Adopt, TransitionKind::Finish]),
        skip in prop::option::of(text()),
    ) {
        let finding = Finding {
            metric: texts[0].clone(),
            verdict: Verdict::Fail,
            value: Some(texts[1].clone()),
            threshold: texts[2].clone(),
            samples: 1,
            failures: 0,
            window: Duration::from_secs(60),
            query: texts[3].clone(),
            sentence: texts[4].clone(),
        };
        let has_candidate = candidate.is_some();
        let transition = Transition {
            kind,
            from: Weight::new(10).unwrap(),
            to: Weight::new(60).unwrap(),
            step: 1,
            steps: 2,
            candidate: candidate.map(Arc::new),
            cause: by.map_or_else(|| Cause::Rule(texts[5].clone()), Cause::Person),
            sentence: texts[6].clone(),
            judgement: Some(Judgement { verdict: Verdict::Fail, allows: Allows::ALL, compared: None, findings: vec![finding], sentence: texts[7].clone(), at: Timestamp::UNIX_EPOCH, strikes: None, load: None }),
        };
        let style = Style { skip_ci: skip, version: "1.0.0".to_owned() };
        let written = message::write(&id(), &transition, &style);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (key, _) in message::trailers(&written) {
            *counts.entry(key).or_default() += 1;
        }
        let mut expected: BTreeMap<&str, usize> = [
            "Serin-Canary", "Serin-Step", "Serin-Weight", "Serin-Verdict", "Serin-Metric", "Serin-Cause", "Serin-Version",
        ].into_iter().map(|key| (key, 1)).collect();
        if has_candidate {
            expected.insert("Serin-Candidate", 1);
        }
        prop_assert_eq!(counts, expected, "{}", written);
        prop_assert!(written.starts_with("canary(test/podinfo): "));
        prop_assert!(!written.contains(['\r', '\u{85}', '\u{2028}', '\u{2029}', '\0']), "{}", written);
        let read = message::parse(&written).unwrap();
        prop_assert_eq!(read.canary, "test/podinfo");
        prop_assert_eq!(read.weight, Some((10, 60)));
        prop_assert_eq!(read.verdict.as_deref(), Some("fail"));
        prop_assert_eq!(read.metrics.len(), 1);
    }
}
