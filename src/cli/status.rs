//! `serin status`: where each canary is.

use clap::Args;
use serde::Serialize;

use super::clone::{self, Clone};
use super::failure::{Failure, Outcome};
use super::flags::{LocalFlags, OutputFlag};
use super::output::{Console, Style, Table};
use super::show::{self, Waiting};
use super::values::CanaryName;
use crate::clock::{Clock, SystemClock};
use crate::domain::{Timestamp, Weight};
use crate::progression::State;
use crate::reconcile::Outlook;
use crate::record::message;

/// Show where each canary is, from Git alone.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin status
  serin status podinfo --repo ../apps.git --revision main
  serin status --output json

Exit status 1 when a canary has failed or its spec is invalid.")]
pub(super) struct StatusArgs {
    /// Only these canaries: <name> or <namespace>/<name>.
    #[arg(value_name = "NAME")]
    names: Vec<CanaryName>,
    #[command(flatten)]
    local: LocalFlags,
    #[command(flatten)]
    output: OutputFlag,
}

/// One canary, for scripts.
#[derive(Debug, Serialize)]
struct Row {
    namespace: String,
    name: String,
    phase: &'static str,
    weight: u8,
    step: u16,
    steps: usize,
    stable: Option<String>,
    candidate: Option<String>,
    since: Option<String>,
    verdict: Option<&'static str>,
    /// Commits that Serin would make at its next pass.
    next: Vec<String>,
    waiting: Waiting,
    diagnostics: Vec<String>,
    #[serde(skip)]
    age: Option<String>,
}

impl StatusArgs {
    pub(super) fn execute(&self, console: &mut Console<'_>) -> Result<Outcome, Failure> {
        let outlook = Clone::open(&self.local)?.outlook()?;
        let now = SystemClock.now();
        let rows: Vec<Row> = clone::chosen(outlook, &self.names)?
            .iter()
            .map(|canary| Row::of(canary, now))
            .collect();
        console.value(self.output.output, &rows, |console| print(&rows, console))?;
        let well = rows.iter().all(|row| show::is_well(row.phase));
        Ok(if well {
            Outcome::Done
        } else {
            Outcome::NotWell
        })
    }
}

impl Row {
    fn of(canary: &Outlook, now: Timestamp) -> Self {
        let state = canary.state.as_ref();
        let rollout = state.and_then(State::rollout);
        let spec = canary.canary.as_ref();
        let proposal = spec.and_then(|spec| spec.proposal.as_ref());
        let candidate = rollout.map(|rollout| &*rollout.candidate).or(proposal);
        let next = canary.next.iter();
        Self {
            namespace: canary.id.namespace.clone(),
            name: canary.id.name.clone(),
            phase: show::phase(state),
            weight: state.map_or(Weight::ZERO, State::weight).percent(),
            step: rollout.map_or(0, |rollout| rollout.step),
            steps: spec.map_or(0, |spec| spec.ladder.len()),
            stable: state.map(|state| state.stable.summary.clone()),
            candidate: candidate.map(|candidate| candidate.summary.clone()),
            since: rollout.map(|rollout| show::stamp(rollout.since)),
            verdict: state
                .and_then(|state| state.last_verdict.as_ref())
                .map(|note| note.verdict.as_str()),
            next: next.map(|(step, _)| message::what(step)).collect(),
            waiting: Waiting::on(&canary.waiting),
            diagnostics: canary.diagnostics.iter().map(ToString::to_string).collect(),
            age: rollout.map(|rollout| show::age(rollout.since, now)),
        }
    }

    fn cells(&self) -> Vec<(Style, String)> {
        let step = match self.step {
            0 => String::new(),
            step => format!("{step}/{}", self.steps),
        };
        let waits = match self.next.as_slice() {
            [] => self.waiting.message.clone(),
            next => format!("for Serin's next pass: {}", next.join(", ")),
        };
        let verdict = self.verdict.unwrap_or_default();
        vec![
            (Style::Plain, format!("{}/{}", self.namespace, self.name)),
            (show::phase_style(self.phase), self.phase.to_owned()),
            (Style::Plain, format!("{}%", self.weight)),
            (Style::Plain, step),
            (Style::Plain, self.candidate.clone().unwrap_or_default()),
            (Style::Plain, self.age.clone().unwrap_or_default()),
            (show::verdict_style(verdict), verdict.to_owned()),
            (Style::Dim, waits),
        ]
    }
}

fn print(rows: &[Row], console: &mut Console<'_>) -> Result<(), Failure> {
    if rows.is_empty() {
        return console.note("there is no canary in this commit");
    }
    let mut table = Table::new(&[
        "CANARY",
        "PHASE",
        "WEIGHT",
        "STEP",
        "CANDIDATE",
        "SINCE",
        "VERDICT",
        "WAITS",
    ]);
    for row in rows {
        table.row(row.cells());
    }
    console.table(&table)
}
