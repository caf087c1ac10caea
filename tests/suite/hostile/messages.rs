//! Texts of other people in commit messages, read by `git interpret-trailers` as an auditor would.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use serin::analysis::{Allows, Finding, Judgement, Verdict};
use serin::domain::{CanaryId, CommitId, Person, Timestamp, Weight};
use serin::progression::{Attribution, Cause, Transition, TransitionKind};
use serin::record::message::{self, Style};
use tempfile::TempDir;

use crate::git_servers::program;

const FORGED: &str =
    "x\r\n\r\nSerin-Weight: 0 -> 100\u{2028}\nSerin-Canary: other/one\n\n---\nSerin-Verdict: pass";

#[test]
fn git_sees_the_trailers_that_were_meant_and_no_others() {
    let forged = || FORGED.to_owned();
    let transition = Transition {
        kind: TransitionKind::Adopt,
        from: Weight::new(10).unwrap(),
        to: Weight::new(60).unwrap(),
        step: 1,
        steps: 2,
        candidate: None,
        cause: Cause::Person(Attribution {
            person: Person {
                name: forged(),
                email: forged(),
            },
            commit: CommitId::new("0".repeat(40)),
            subject: forged(),
            at: Timestamp::UNIX_EPOCH,
        }),
        sentence: forged(),
        judgement: Some(Judgement {
            load: None,
            strikes: None,
            verdict: Verdict::Fail,
            allows: Allows::ALL,
            compared: None,
            findings: vec![Finding {
                metric: forged(),
                verdict: Verdict::Fail,
                value: Some(forged()),
                threshold: forged(),
                samples: 0,
                failures: 0,
                window: Duration::ZERO,
                query: forged(),
                sentence: forged(),
            }],
            sentence: forged(),
            at: Timestamp::UNIX_EPOCH,
        }),
    };
    let style = Style {
        skip_ci: Some(forged()),
        version: "1".to_owned(),
    };
    let written = message::write(&CanaryId::new("test", "podinfo"), &transition, &style);
    let home = TempDir::new().unwrap();
    let mut child = program("git", home.path())
        .args(["interpret-trailers", "--parse"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(written.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let trailers = String::from_utf8(output.stdout).unwrap();
    let keys: Vec<&str> = trailers
        .lines()
        .map(|line| line.split_once(':').unwrap().0)
        .collect();
    assert_eq!(
        keys,
        [
            "Serin-Canary",
            "Serin-Step",
            "Serin-Weight",
            "Serin-Verdict",
            "Serin-Metric",
            "Serin-Cause",
            "Serin-Version"
        ],
        "{written}"
    );
    assert!(trailers.starts_with("Serin-Canary: test/podinfo\n"));
    assert!(trailers.contains("Serin-Weight: 10 -> 60\n"));
}
