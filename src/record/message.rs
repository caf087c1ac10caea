//! Commit messages: a fixed subject per kind of step, a sentence for people, trailers for machines; and back.
//!
//! Everything that came from elsewhere is folded onto one line, so that no name, subject or query can forge a trailer.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::analysis::{Compared, Finding, Judgement};
use crate::domain::{CanaryId, Timestamp};
use crate::progression::{Cause, Transition, TransitionKind};

/// Width of the body; trailers are not wrapped.
const WIDTH: usize = 72;
/// Longest text from elsewhere in one line.
const LONGEST: usize = 400;

/// How messages are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// A text that keeps other people's CI quiet, in the body: `[skip ci]`.
    pub skip_ci: Option<String>,
    /// Version of the engine, for the trailer.
    pub version: String,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            skip_ci: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// The whole message of one step.
pub fn write(id: &CanaryId, transition: &Transition, style: &Style) -> String {
    let mut out = format!(
        "canary({id}): {}\n\n{}\n",
        what(transition),
        wrapped(&one_line(&transition.sentence))
    );
    if let Some(text) = &style.skip_ci {
        let _ = write!(out, "\n{}\n", one_line(text));
    }
    out.push('\n');
    let mut trailer = |key: &str, value: &str| {
        let _ = writeln!(out, "Serin-{key}: {}", one_line(value));
    };
    trailer("Canary", &id.to_string());
    if let Some(candidate) = &transition.candidate {
        trailer(
            "Candidate",
            &format!("{} {}", candidate.summary, candidate.revision),
        );
    }
    trailer("Step", &format!("{}/{}", transition.step, transition.steps));
    trailer(
        "Weight",
        &format!(
            "{} -> {}",
            transition.from.percent(),
            transition.to.percent()
        ),
    );
    if let Some(judgement) = &transition.judgement {
        trailer("Verdict", judgement.verdict.as_str());
        for finding in &judgement.findings {
            trailer("Metric", &metric(finding));
        }
        if let Some(compared) = &judgement.compared {
            trailer("Evidence", &numbers(compared, judgement.at));
        }
        if let Some(strikes) = judgement.strikes {
            trailer("Failed-Checks", &strikes.to_string());
        }
    }
    trailer("Cause", &cause(&transition.cause));
    trailer("Version", &style.version);
    out
}

/// What stands behind `canary(<id>): ` in the subject.
pub fn what(transition: &Transition) -> String {
    let (from, to) = (transition.from, transition.to);
    let name = transition
        .candidate
        .as_ref()
        .map_or("", |candidate| candidate.summary.as_str());
    let name = one_line(name);
    match transition.kind {
        TransitionKind::Initialize => "initialize".to_owned(),
        TransitionKind::Start => format!("start {name}"),
        TransitionKind::Advance => format!("{from} -> {to}"),
        TransitionKind::Approve => format!("approve step {}/{}", transition.step, transition.steps),
        TransitionKind::Adopt => format!("adopt {to}"),
        TransitionKind::Halt => format!("hold at {to}"),
        TransitionKind::Resume => format!("resume at {to}"),
        TransitionKind::Promote => format!("promote {name}"),
        TransitionKind::Return => format!("return {from} -> {to}"),
        TransitionKind::RollBack => format!("roll back {from} -> {to}"),
        TransitionKind::Withdraw => format!("withdraw {from} -> {to}"),
        TransitionKind::Restart => format!("restart {from} -> {to}"),
        TransitionKind::Finish => format!("finish {name}"),
        TransitionKind::Stable => "follow stable".to_owned(),
        TransitionKind::Render => "render".to_owned(),
        TransitionKind::Remove => "remove".to_owned(),
    }
}

fn cause(cause: &Cause) -> String {
    match cause {
        Cause::Rule(rule) | Cause::Sought(_, rule) => format!("rule: {rule}"),
        Cause::Person(by) => format!(
            "person: {} in {}: {}",
            by.person,
            by.commit.short(),
            by.subject
        ),
    }
}

/// `name key=value …`, values with spaces quoted as JSON strings.
fn metric(finding: &Finding) -> String {
    let quoted = |text: &str| serde_json::Value::from(one_line(text)).to_string();
    format!(
        "{} value={} threshold={} samples={} failures={} window={}s verdict={} query={}",
        one_line(&finding.metric).replace(' ', "-"),
        finding.value.as_deref().map_or_else(
            || "none".to_owned(),
            |value| one_line(value).replace(' ', "")
        ),
        quoted(&finding.threshold),
        finding.samples,
        finding.failures,
        finding.window.as_secs(),
        finding.verdict.as_str(),
        quoted(&finding.query),
    )
}

/// The comparison in numbers, `key=value …`: enough to check the decision by hand.
fn numbers(compared: &Compared, at: Timestamp) -> String {
    let parts = compared.numbers(at).into_iter();
    let parts = parts.map(|(name, value)| format!("{name}={}", one_line(&value).replace(' ', "-")));
    parts.collect::<Vec<_>>().join(" ")
}

/// The evidence in one sentence per metric, for people.
pub fn evidence(judgement: &Judgement) -> Vec<String> {
    judgement
        .findings
        .iter()
        .map(|finding| finding.sentence.clone())
        .collect()
}

fn one_line(text: &str) -> String {
    let is_printable = |byte: u8| matches!(byte, b' '..=b'~');
    let is_one_line = text.len() <= LONGEST
        && text.bytes().all(is_printable)
        && !text.starts_with(' ')
        && !text.ends_with(' ')
        && !text.contains("  ");
    if is_one_line {
        return text.to_owned();
    }
    let folded: String = text
        .chars()
        .map(|c| {
            if c.is_control() || is_break(c) {
                ' '
            } else {
                c
            }
        })
        .collect();
    let mut line = folded
        .split(' ')
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    if let Some((cut, _)) = line.char_indices().nth(LONGEST) {
        line.truncate(cut);
        line.push('…');
    }
    line
}

fn is_break(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{85}')
}

fn wrapped(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    // `git interpret-trailers` looks for `key: value` lines in the last paragraph only; this is an earlier one.
    lines.join("\n")
}

/// The parts of an evidence line: numbers as numbers, the rest as text.
pub fn evidence_fields(line: &str) -> BTreeMap<String, serde_json::Value> {
    line.split(' ')
        .filter_map(|part| part.split_once('='))
        .map(|(key, value)| {
            let number = value.parse::<f64>().ok().map(serde_json::Value::from);
            (key.to_owned(), number.unwrap_or_else(|| value.into()))
        })
        .collect()
}

/// A message of ours, read back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recorded {
    /// The canary.
    pub canary: String,
    /// What stands behind `canary(<id>): `.
    pub what: String,
    /// The sentence for people.
    pub sentence: String,
    /// Candidate and revision.
    pub candidate: Option<String>,
    /// `2/4`.
    pub step: Option<String>,
    /// Weight before and after, in per cent.
    pub weight: Option<(u8, u8)>,
    /// The verdict.
    pub verdict: Option<String>,
    /// One line per metric.
    pub metrics: Vec<String>,
    /// The comparison with stable, `key=value …`.
    pub evidence: Option<String>,
    /// Who or what caused it.
    pub cause: Option<String>,
    /// Version of the engine.
    pub version: Option<String>,
}

/// Key and value of each trailer: `key: value` lines of the last paragraph.
pub fn trailers(message: &str) -> Vec<(&str, &str)> {
    let last = message.trim_end().rsplit("\n\n").next().unwrap_or_default();
    last.lines()
        .filter_map(|line| line.split_once(": "))
        .collect()
}

/// Reads a message of ours; `None` for anybody else's.
pub fn parse(message: &str) -> Option<Recorded> {
    let mut recorded = Recorded::default();
    for (key, value) in trailers(message) {
        let text = || Some(value.to_owned());
        match key {
            "Serin-Canary" => recorded.canary = value.to_owned(),
            "Serin-Candidate" => recorded.candidate = text(),
            "Serin-Step" => recorded.step = text(),
            "Serin-Weight" => {
                recorded.weight = value
                    .split_once(" -> ")
                    .and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
            }
            "Serin-Verdict" => recorded.verdict = text(),
            "Serin-Metric" => recorded.metrics.push(value.to_owned()),
            "Serin-Evidence" => recorded.evidence = text(),
            "Serin-Cause" => recorded.cause = text(),
            "Serin-Version" => recorded.version = text(),
            _ => {}
        }
    }
    if recorded.canary.is_empty() {
        return None;
    }
    let mut paragraphs = message.split("\n\n");
    let subject = paragraphs.next().unwrap_or_default();
    recorded.what = subject
        .split_once("): ")
        .map_or(subject, |(_, what)| what)
        .to_owned();
    recorded.sentence = paragraphs.next().unwrap_or_default().replace('\n', " ");
    Some(recorded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Verdict;
    use crate::domain::{CommitId, Person, Weight};
    use crate::progression::Attribution;
    use std::time::Duration;

    fn transition() -> Transition {
        Transition {
            kind: TransitionKind::Advance,
            from: Weight::new(10).unwrap(),
            to: Weight::new(60).unwrap(),
            step: 3,
            steps: 4,
            candidate: None,
            cause: Cause::Rule("hold of 1m passed, verdict pass".to_owned()),
            sentence:
                "podinfod=6.9.0 gets 60% of the requests after 10%: 1240 requests, 0.1% failed."
                    .to_owned(),
            judgement: Some(Judgement {
                verdict: Verdict::Pass,
                allows: crate::analysis::Allows::ALL,
                compared: Some(Compared {
                    stream: "failures".to_owned(),
                    requests: 1240,
                    failures: 1,
                    stable_requests: 11_160,
                    stable_failures: 9,
                    theta: 0.1,
                    ln_evidence: -0.25,
                    whole: (-0.125, 4.605_170_185_988_091),
                    p_value: 1.0,
                    odds: None,
                    phi: 1.0,
                }),
                findings: vec![Finding {
                    metric: "success-rate".to_owned(),
                    verdict: Verdict::Pass,
                    value: Some("99.92%".to_owned()),
                    threshold: ">= 99%".to_owned(),
                    samples: 1240,
                    failures: 1,
                    window: Duration::from_secs(60),
                    query: "sum(increase(x{a=\"b\"}[1m]))\nSerin-Weight: 0 -> 100".to_owned(),
                    sentence: String::new(),
                }],
                sentence: String::new(),
                at: Default::default(),
                strikes: None,
                load: None,
            }),
        }
    }

    fn id() -> CanaryId {
        CanaryId::new("test", "podinfo")
    }

    #[test]
    fn an_auditor_reads_everything() {
        insta::assert_snapshot!(write(&id(), &transition(), &Style { skip_ci: None, version: "1.0.0".into() }), @r#"
        canary(test/podinfo): 10% -> 60%

        podinfod=6.9.0 gets 60% of the requests after 10%: 1240 requests, 0.1%
        failed.

        Serin-Canary: test/podinfo
        Serin-Step: 3/4
        Serin-Weight: 10 -> 60
        Serin-Verdict: pass
        Serin-Metric: success-rate value=99.92% threshold=">= 99%" samples=1240 failures=1 window=60s verdict=pass query="sum(increase(x{a=\"b\"}[1m])) Serin-Weight: 0 -> 100"
        Serin-Evidence: stream=failures candidate=1/1240 stable=9/11160 theta=0.1000 lnE=-0.2500 whole=-0.1250 needed=4.6052 p=1.000e0 odds=none phi=1.000 asked=1970-01-01T00:00:00Z
        Serin-Cause: rule: hold of 1m passed, verdict pass
        Serin-Version: 1.0.0
        "#);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let recorded = parse(&write(&id(), &transition(), &Style::default())).unwrap();
        assert_eq!(recorded.canary, "test/podinfo");
        assert_eq!(recorded.what, "10% -> 60%");
        assert_eq!(recorded.weight, Some((10, 60)));
        assert_eq!(recorded.metrics.len(), 1);
        let fields = evidence_fields(&recorded.evidence.unwrap());
        assert_eq!(fields["candidate"], "1/1240");
        assert_eq!(fields["lnE"], -0.25);
        assert_eq!(parse("fix: something\n\nNo trailers here.\n"), None);
    }

    #[test]
    fn nobody_forges_a_trailer() {
        let mut hostile = transition();
        hostile.sentence = "x\n\nSerin-Weight: 0 -> 100\n".to_owned();
        hostile.cause = Cause::Person(Attribution {
            person: Person {
                name: "Mallory\nSerin-Canary: a/b".to_owned(),
                email: "m@x".to_owned(),
            },
            commit: CommitId::new("0123456789abcdef"),
            subject: "a\r\nSerin-Verdict: pass\u{2028}b".to_owned(),
            at: Default::default(),
        });
        let message = write(
            &id(),
            &hostile,
            &Style {
                skip_ci: Some("[skip ci]\n\nSerin-Step: 9/9".into()),
                ..Style::default()
            },
        );
        let recorded = parse(&message).unwrap();
        assert_eq!(
            (recorded.weight, recorded.step.as_deref()),
            (Some((10, 60)), Some("3/4"))
        );
        assert_eq!(
            trailers(&message)
                .iter()
                .filter(|(key, _)| *key == "Serin-Canary")
                .count(),
            1
        );
    }
}
