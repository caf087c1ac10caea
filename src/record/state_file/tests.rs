//! What is written is read back; what people break is said at once.

use super::*;
use crate::domain::{RepoPath, Revision, Timestamp, Weight};
use crate::progression::{Hold, HoldReason, Rejection, Rollout};
use crate::spec::{Candidate, CandidateContent, Version};

fn path() -> RepoPath {
    RepoPath::new("apps/podinfo.serin/rollout.yaml").unwrap()
}

fn id() -> CanaryId {
    CanaryId::new("test", "podinfo")
}

fn at(seconds: i64) -> Timestamp {
    chrono::DateTime::from_timestamp(1_767_603_600 + seconds, 0).unwrap()
}

fn progressing() -> State {
    let candidate = Candidate {
        revision: Revision::recorded("aaaaaaaaaaaa"),
        yields: Revision::recorded("bbbbbbbbbbbb"),
        summary: "podinfod=6.9.0".to_owned(),
        content: CandidateContent::Template {
            images: [("podinfod".to_owned(), "podinfo:6.9.0".to_owned())].into(),
            patch: Some(serde_json::json!({"spec": {"priorityClassName": "yes"}})),
        },
        older_than_stable: false,
    };
    let rollout = Rollout {
        candidate: candidate.into(),
        step: 2,
        weight: Weight::new(10).unwrap(),
        mirror: None,
        matches: Vec::new(),
        started: at(0),
        since: at(60),
        ladder: Revision::recorded("cccccccccccc"),
        approval: Approval::Pending,
        stable_replicas: Some(7),
    };
    let stable = Version {
        revision: Revision::recorded("dddddddddddd"),
        summary: "podinfod=6.8.0".to_owned(),
    };
    State {
        sequence: 3,
        phase: Phase::Progressing(rollout),
        held: Some(Hold {
            reason: HoldReason::Adopted,
            detail: "alexis: \"set\" 10%\n# no comment".to_owned(),
            at: at(61),
        }),
        rejected: vec![Rejection {
            revision: Revision::recorded("eeeeeeeeeeee"),
            at: at(1),
            reason: "it failed".to_owned(),
        }],
        retry: 1,
        resume: 2,
        ..State::initial(stable)
    }
}

fn text(state: &State) -> String {
    String::from_utf8(write(&id(), state, 4, &path())).unwrap()
}

fn mistakes(text: &str) -> Vec<String> {
    match read(&path(), text.as_bytes(), &id()) {
        Err(Unreadable::Invalid(problems)) => problems.iter().map(ToString::to_string).collect(),
        other => vec![format!("{other:?}")],
    }
}

#[test]
fn what_is_written_is_read_back() {
    let state = progressing();
    let file = read(&path(), text(&state).as_bytes(), &id()).unwrap();
    assert_eq!(file.state, state);
    assert!(!file.granted_by_hand);
    assert_eq!(text(&file.state), text(&state));
}

#[test]
fn a_gate_opened_by_hand_is_noticed() {
    let edited = text(&progressing()).replace("approval: pending", "approval: granted");
    let file = read(&path(), edited.as_bytes(), &id()).unwrap();
    assert!(file.granted_by_hand);
    assert_eq!(file.state, progressing());
}

#[test]
fn nonsense_is_refused_with_its_place() {
    let edited = text(&progressing())
        .replace("weight: 10", "weight: 140")
        .replace("phase: Progressing", "phase: Rolling")
        .replace("retry: 1", "retyr: 1");
    let found = mistakes(&edited);
    let all = found.join("\n");
    assert!(all.contains("apps/podinfo.serin/rollout.yaml:"), "{all}");
    assert!(all.contains("Rolling"), "{all}");
    assert!(all.contains("did you mean `retry`?"), "{all}");
}

#[test]
fn a_weight_over_one_hundred_is_refused() {
    let found = mistakes(&text(&progressing()).replace("weight: 10", "weight: 140")).join("\n");
    assert!(found.contains("140"), "{found}");
}

#[test]
fn a_copied_folder_is_not_ours() {
    let other = CanaryId::new("test", "other");
    let bytes = text(&progressing());
    assert_eq!(
        read(&path(), bytes.as_bytes(), &other),
        Err(Unreadable::Foreign(id()))
    );
}
