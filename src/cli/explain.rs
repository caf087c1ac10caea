//! `serin explain`: what a canary waits for, and why.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::clone::{self, Clone};
use super::failure::{Failure, Outcome};
use super::flags::{LocalFlags, OutputFlag};
use super::output::{Console, Style};
use super::show::{self, Waiting};
use super::values::CanaryName;
use super::{history, prose};
use crate::clock::{Clock, SystemClock};
use crate::domain::{CommitId, Timestamp};
use crate::git::LogEntry;
use crate::reconcile::Outlook;
use crate::record::message;

/// Commits that are looked at for the last step.
const RECENT: usize = 50;

/// Say in sentences where a canary is, what it waits for and what comes next, from Git alone.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin explain podinfo
  serin explain test/podinfo --repo ../apps.git --output json

Exit status 1 when the canary has failed or its spec is invalid.")]
pub(super) struct ExplainArgs {
    /// The canary: <name> or <namespace>/<name>.
    name: CanaryName,
    #[command(flatten)]
    local: LocalFlags,
    #[command(flatten)]
    output: OutputFlag,
}

/// The answer, for scripts.
#[derive(Debug, Serialize)]
struct Answer {
    canary: String,
    phase: &'static str,
    commit: String,
    /// Where it is, in sentences.
    position: Vec<String>,
    waiting: Waiting,
    verdict: Option<Judged>,
    last: Option<Last>,
    /// What comes next and under which conditions, in sentences.
    next: Vec<String>,
    diagnostics: Vec<String>,
}

/// The last verdict that led to a commit.
#[derive(Debug, Serialize)]
struct Judged {
    verdict: &'static str,
    sentence: String,
    at: String,
    metrics: Vec<String>,
    /// The comparison with stable in numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<BTreeMap<String, serde_json::Value>>,
}

/// The last of Serin's commits.
#[derive(Debug, Serialize)]
struct Last {
    commit: String,
    at: String,
    what: String,
    cause: Option<String>,
}

impl ExplainArgs {
    pub(super) fn execute(&self, console: &mut Console<'_>) -> Result<Outcome, Failure> {
        let clone = Clone::open(&self.local)?;
        let canary = clone::the_one(clone.outlook()?, &self.name)?;
        let log = clone.log(&clone::watch(&canary)?, RECENT)?;
        let answer = Answer::of(&canary, clone.head(), &log, SystemClock.now());
        console.value(self.output.output, &answer, |console| answer.print(console))?;
        Ok(if show::is_well(answer.phase) {
            Outcome::Done
        } else {
            Outcome::NotWell
        })
    }
}

impl Answer {
    fn of(canary: &Outlook, head: &CommitId, log: &[LogEntry], now: Timestamp) -> Self {
        let state = canary.state.as_ref();
        let steps: Vec<_> = log
            .iter()
            .filter_map(|commit| Some((commit, history::recorded(commit, &canary.id)?)))
            .collect();
        // The numbers behind the last verdict are in the commit that it led to.
        let judged = steps.iter().find(|(_, step)| step.verdict.is_some());
        let metrics = judged.map(|(_, step)| step.metrics.clone());
        let numbers = judged.and_then(|(_, step)| step.evidence.clone());
        let note = state.and_then(|state| state.last_verdict.as_ref());
        Self {
            canary: canary.id.to_string(),
            phase: show::phase(state),
            commit: head.to_string(),
            position: prose::position(canary, now),
            waiting: Waiting::on(&canary.waiting),
            verdict: note.map(|note| Judged {
                verdict: note.verdict.as_str(),
                sentence: note.sentence.clone(),
                at: show::stamp(note.at),
                metrics: metrics.unwrap_or_default(),
                evidence: numbers.as_deref().map(message::evidence_fields),
            }),
            last: steps.into_iter().next().map(|(commit, step)| Last {
                commit: commit.id.short().to_owned(),
                at: show::stamp(commit.committed),
                what: step.what,
                cause: step.cause,
            }),
            next: prose::next(canary),
            diagnostics: canary.diagnostics.iter().map(ToString::to_string).collect(),
        }
    }

    fn print(&self, console: &mut Console<'_>) -> Result<(), Failure> {
        let title = console.paint(Style::Bold, &self.canary);
        let phase = console.paint(show::phase_style(self.phase), self.phase);
        console.line(&format!("{title}: {phase}"))?;
        section(console, "where", &self.position)?;
        section(console, "mistakes", &self.diagnostics)?;
        if self.diagnostics.is_empty() && self.next.iter().all(|line| !prose::is_due(line)) {
            section(
                console,
                "waits",
                std::slice::from_ref(&self.waiting.message),
            )?;
        }
        if let Some(judged) = &self.verdict {
            let mut lines = vec![format!(
                "{} at {}: {}",
                judged.verdict, judged.at, judged.sentence
            )];
            lines.extend(judged.metrics.iter().cloned());
            if let Some(evidence) = &judged.evidence {
                let parts = evidence.iter().map(|(key, value)| match value.as_str() {
                    Some(text) => format!("{key}={text}"),
                    None => format!("{key}={value}"),
                });
                lines.push(parts.collect::<Vec<_>>().join(" "));
            }
            section(console, "verdict", &lines)?;
        }
        if let Some(last) = &self.last {
            let cause = last.cause.as_deref().unwrap_or("no cause given");
            let line = format!("{} at {} in {} ({cause})", last.what, last.at, last.commit);
            section(console, "last step", &[line])?;
        }
        section(console, "next", &self.next)
    }
}

/// Lines behind a title that stands in front of the first.
fn section(console: &mut Console<'_>, title: &str, lines: &[String]) -> Result<(), Failure> {
    for (index, line) in lines.iter().enumerate() {
        let title = if index == 0 { title } else { "" };
        let title = console.paint(Style::Dim, &format!("{title:<9}"));
        console.line(&format!("  {title} {line}"))?;
    }
    Ok(())
}
