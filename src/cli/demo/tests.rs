//! The views of the demo, as text.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use insta::assert_snapshot;

use super::live::{over, picture};
use super::plain::Plain;
use super::{finish, quoted};
use crate::analysis::{Finding, Verdict};
use crate::cli::failure::Outcome;
use crate::cli::output::Console;
use crate::demo::{Claim, Commit, Ending, Frame, News, Tally};
use crate::domain::Timestamp;

fn finding(metric: &str, value: Option<&str>, threshold: &str, verdict: Verdict) -> Finding {
    Finding {
        metric: metric.to_owned(),
        verdict,
        value: value.map(ToOwned::to_owned),
        threshold: threshold.to_owned(),
        samples: 1240,
        failures: 1,
        window: Duration::from_secs(30),
        query: "sum(x)".to_owned(),
        sentence: String::new(),
    }
}

fn commit(id: &str, who: &str, subject: &str) -> Commit {
    Commit {
        id: id.to_owned(),
        who: who.to_owned(),
        subject: subject.to_owned(),
    }
}

fn tally() -> Tally {
    let version = |version: &str| Some(version.to_owned());
    Tally::from([
        (
            "alexis".to_owned(),
            BTreeMap::from([(version("6.9.0"), 62)]),
        ),
        (
            "bo".to_owned(),
            BTreeMap::from([(version("6.8.0"), 400), (version("6.9.0"), 600), (None, 1)]),
        ),
    ])
}

fn frame() -> Frame {
    Frame {
        at: Timestamp::from_timestamp(1_767_603_600, 0).unwrap(),
        title: "The ladder".to_owned(),
        stable: "6.8.0".to_owned(),
        candidate: Some("6.9.0".to_owned()),
        weight: Some(60.0),
        tally: tally(),
        findings: vec![
            finding("success-rate", Some("99.92%"), ">= 99%", Verdict::Pass),
            finding("latency", None, "p95 <= 500ms", Verdict::Inconclusive),
        ],
        waiting: "soaking until 09:01:00 UTC".to_owned(),
        commits: vec![
            commit("3f1c9a0b77", "alexis", "Propose podinfo 6.9.0"),
            commit("9a0b773f1c", "Serin", "canary(test/podinfo): 10% -> 60%"),
        ],
    }
}

#[test]
fn the_picture() {
    assert_snapshot!(picture(&frame(), false).join("\n"), @"
    09:00:00  The ladder

      weight        ████████████████████████░░░░░░░░░░░░░░░░   60% 6.9.0, 40% 6.8.0
      alexis        6.9.0 100%  of 62 requests
      the others    6.9.0 59.9%, 6.8.0 40%, no answer 0.1%  of 1001 requests

      success-rate  99.92% (>= 99%, 1240 requests): pass
      latency       nothing yet (p95 <= 500ms): inconclusive
      waits         soaking until 09:01:00 UTC

      3f1c9a0b77    alexis  Propose podinfo 6.9.0
      9a0b773f1c    Serin   canary(test/podinfo): 10% -> 60%
    ");
}

#[test]
fn a_quiet_picture_is_as_high() {
    let quiet = Frame {
        candidate: None,
        weight: Some(0.0),
        tally: Tally::new(),
        findings: Vec::new(),
        commits: Vec::new(),
        ..frame()
    };
    assert_snapshot!(picture(&quiet, false).join("\n"), @"
    09:00:00  The ladder

      weight        ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  100% 6.8.0
      alexis        no requests yet
      the others    no requests yet

      metric        -
      metric        -
      waits         soaking until 09:01:00 UTC
    ");
    assert_eq!(picture(&quiet, false).len(), picture(&frame(), false).len());
    let gone = Frame {
        weight: None,
        ..frame()
    };
    assert!(picture(&gone, false)[2].contains("the namespace is gone"));
}

#[test]
fn colours_change_no_text() {
    let coloured = picture(&frame(), true).join("\n");
    assert!(coloured.contains("\x1b[32m█"), "{coloured:?}");
    let mut plain = String::new();
    for (index, part) in coloured.split("\x1b[").enumerate() {
        plain.push_str(match index {
            0 => part,
            _ => part.split_once('m').unwrap().1,
        });
    }
    assert_eq!(plain, picture(&frame(), false).join("\n"));
}

#[test]
fn it_is_drawn_in_place() {
    let lines = ["one".to_owned(), "two".to_owned()];
    assert_eq!(
        over(0, &lines),
        "\x1b[?25l\x1b[?7l\rone\x1b[K\n\rtwo\x1b[K\n\x1b[J"
    );
    assert_eq!(over(2, &lines), "\x1b[2A\rone\x1b[K\n\rtwo\x1b[K\n\x1b[J");
}

#[test]
fn line_by_line() {
    let mut out = Vec::new();
    let mut err = io::sink();
    let mut console = Console::new(&mut out, &mut err, false);
    let mut plain = Plain::new(&mut console);
    let at = frame().at;
    plain
        .hear(at, &News::Scene("The ladder".to_owned()))
        .unwrap();
    plain.see(&frame()).unwrap();
    let event = News::Event("the namespace is deleted".to_owned());
    plain.hear(at, &event).unwrap();
    let step = commit("9a0b773f1c", "Serin", "canary(test/podinfo): 10% -> 60%");
    let sentence = "6.9.0 gets 60% of the requests after 10%.".to_owned();
    plain.hear(at, &News::Commit(step, sentence)).unwrap();
    let proposal = commit("3f1c9a0b77", "alexis", "Propose podinfo 6.9.0");
    plain
        .hear(at, &News::Commit(proposal, String::new()))
        .unwrap();
    assert_snapshot!(String::from_utf8(out).unwrap(), @"

    The ladder
    09:00:00  event    the namespace is deleted
    09:00:00  counted  alexis: 6.9.0 100%  of 62 requests
    09:00:00           the others: 6.9.0 59.9%, 6.8.0 40%, no answer 0.1%  of 1001 requests
    09:00:00  serin    canary(test/podinfo): 10% -> 60%
                       6.9.0 gets 60% of the requests after 10%.
    09:00:00  alexis   Propose podinfo 6.9.0
    ");
}

#[test]
fn a_claim_that_does_not_hold_is_said_and_not_well() {
    let claim = |holds| Claim {
        sentence: "Nobody else got it.".to_owned(),
        holds,
    };
    let ending = |claims| Ending {
        repository: "/srv/a b/apps.git".into(),
        claims,
        commits: frame().commits,
    };
    let mut out = Vec::new();
    let mut err = Vec::new();
    let mut console = Console::new(&mut out, &mut err, false);
    let well = finish(&ending(vec![claim(true)]), &mut console).unwrap();
    assert_eq!(well, Outcome::Done);
    let not = finish(&ending(vec![claim(true), claim(false)]), &mut console).unwrap();
    assert_eq!(not, Outcome::NotWell);
    let out = String::from_utf8(out).unwrap();
    assert!(out.contains("✗ NOT SO: Nobody else got it.\n"), "{out}");
    assert!(out.contains("  git -C '/srv/a b/apps.git' log\n"), "{out}");
    assert!(String::from_utf8(err).unwrap().contains("please report"));
}

#[test]
fn commands_survive_a_shell() {
    assert_eq!(
        quoted("/srv/serin-demo-1/apps.git"),
        "/srv/serin-demo-1/apps.git"
    );
    assert_eq!(quoted("/srv/it's here"), r"'/srv/it'\''s here'");
}
