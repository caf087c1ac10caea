//! `serin reconcile`: one pass over every canary.

use clap::Args;
use clap::builder::FalseyValueParser;
use serde::Serialize;

use super::config::ConfigFile;
use super::failure::{Failure, Outcome, chain};
use super::flags::{OutputFlag, PrometheusFlags, RepositoryFlags};
use super::output::{Console, Style, Table};
use super::show::{self, Waiting};
use super::values;
use super::wiring::{Wirings, runtime};
use crate::clock::{Clock, SystemClock};
use crate::domain::Timestamp;
use crate::operator;
use crate::progression::WaitingOn;
use crate::reconcile::{CanaryReport, Outlook, Pass};
use crate::record::message;

/// Make one pass over every canary, then exit: fetch, judge, decide, commit, push.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin reconcile --repo ../apps.git --prometheus http://localhost:9090
  serin reconcile --repo ../apps.git --prometheus http://localhost:9090 --dry-run
  serin reconcile --repo ../apps.git --prometheus http://localhost:9090 --now 2026-01-02T03:04:05Z

Exit status 1 when a canary is invalid or has failed, or when the remote or Prometheus cannot be used.")]
pub(super) struct ReconcileArgs {
    #[command(flatten)]
    repository: RepositoryFlags,
    #[command(flatten)]
    prometheus: PrometheusFlags,
    /// Time to take for now, for replays and tests.
    #[arg(long, value_name = "RFC3339", env = "SERIN_NOW", value_parser = values::timestamp)]
    now: Option<Timestamp>,
    /// Print the commits that would be made, and push nothing.
    #[arg(long, env = "SERIN_DRY_RUN", value_parser = FalseyValueParser::new())]
    dry_run: bool,
    #[command(flatten)]
    output: OutputFlag,
}

/// One canary after the pass, for scripts.
#[derive(Debug, Serialize)]
struct Line {
    canary: String,
    phase: &'static str,
    weight: u8,
    commits: Vec<Made>,
    /// What would be committed, were the push not refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    planned: Vec<String>,
    waiting: Waiting,
    diagnostics: Vec<String>,
}

/// A commit that was made.
#[derive(Debug, Serialize)]
struct Made {
    id: String,
    what: String,
    why: String,
}

/// A commit that would be made, for scripts.
#[derive(Debug, Serialize)]
struct Planned {
    canary: String,
    message: String,
    files: Vec<String>,
}

impl ReconcileArgs {
    pub(super) fn execute(&self, console: &mut Console<'_>) -> Result<Outcome, Failure> {
        let config =
            ConfigFile::default().with_flags(&self.repository, &self.prometheus, None, None)?;
        let Wirings { engines, locks } = Wirings::of(&config)?;
        let clock = OneClock {
            fixed: self.now,
            system: SystemClock,
        };
        let runtime = runtime()?;
        let mut outcome = Outcome::Done;
        for wiring in engines {
            let engine = runtime.block_on(operator::engine(
                wiring,
                clock.clone(),
                std::sync::Arc::new(operator::Journal::default()),
            ));
            let mut engine = engine.map_err(|error| Failure::failed(chain(&error)))?;
            let well = if self.dry_run {
                let outlook = runtime.block_on(engine.outlook(true));
                let outlook = outlook.map_err(|error| Failure::failed(chain(&error)))?;
                self.print_plan(&outlook, console)?
            } else {
                let pass = runtime.block_on(engine.pass());
                self.print_pass(&pass, console)?
            };
            if !well {
                outcome = Outcome::NotWell;
            }
        }
        drop(locks);
        Ok(outcome)
    }

    /// Whether all is well, after saying what happened.
    fn print_pass(&self, pass: &Pass, console: &mut Console<'_>) -> Result<bool, Failure> {
        if let Some(problem) = &pass.problem {
            console.note(problem)?;
        }
        for mistake in &pass.mistakes {
            console.note(&mistake.to_string())?;
        }
        let lines: Vec<Line> = pass.canaries.iter().map(line).collect();
        console.value(self.output.output, &lines, |console| {
            let mut table = Table::new(&["CANARY", "PHASE", "WEIGHT", "COMMITTED", "WAITS"]);
            for line in &lines {
                let made: Vec<&str> = line.commits.iter().map(|made| made.what.as_str()).collect();
                table.row(vec![
                    (Style::Plain, line.canary.clone()),
                    (show::phase_style(line.phase), line.phase.to_owned()),
                    (Style::Plain, format!("{}%", line.weight)),
                    (Style::Plain, made.join(", ")),
                    (Style::Dim, line.waiting.message.clone()),
                ]);
            }
            for line in &lines {
                for what in &line.planned {
                    console.note(&format!("{}: would commit: {what}", line.canary))?;
                }
            }
            if lines.is_empty() {
                return console.note("there is no canary");
            }
            console.table(&table)
        })?;
        let well = lines.iter().all(|line| show::is_well(line.phase));
        Ok(pass.problem.is_none() && well && !pass.canaries.iter().any(stuck))
    }

    /// Whether all is well, after saying what would happen.
    fn print_plan(&self, outlook: &[Outlook], console: &mut Console<'_>) -> Result<bool, Failure> {
        let mut planned = Vec::new();
        for draft in outlook
            .iter()
            .flat_map(|canary| &canary.next)
            .map(|(_, draft)| draft)
        {
            planned.push(Planned {
                canary: draft.canary.to_string(),
                message: draft.message.clone(),
                files: draft.changes.keys().map(ToString::to_string).collect(),
            });
        }
        console.value(self.output.output, &planned, |console| {
            for commit in &planned {
                for line in commit.message.trim_end().lines() {
                    console.line(line)?;
                }
                console.line("")?;
                for file in &commit.files {
                    console.line(&format!("    {file}"))?;
                }
                console.line("")?;
            }
            Ok(())
        })?;
        for canary in outlook {
            for diagnostic in &canary.diagnostics {
                console.note(&diagnostic.to_string())?;
            }
            if canary.diagnostics.is_empty() && canary.next.is_empty() {
                console.note(&format!("{}: {}", canary.id, canary.waiting))?;
            }
        }
        Ok(outlook.iter().all(|canary| canary.diagnostics.is_empty()))
    }
}

fn line(report: &CanaryReport) -> Line {
    Line {
        canary: report.id.to_string(),
        phase: show::phase(report.state.as_ref()),
        weight: report.weight().percent(),
        commits: report
            .moves
            .iter()
            .map(|(commit, transition)| Made {
                id: commit.to_string(),
                what: message::what(transition),
                why: transition.sentence.clone(),
            })
            .collect(),
        planned: report.planned.iter().map(message::what).collect(),
        waiting: Waiting::on(&report.waiting),
        diagnostics: report.diagnostics.iter().map(ToString::to_string).collect(),
    }
}

/// Whether something other than the candidate's own fate keeps a canary from moving.
fn stuck(report: &CanaryReport) -> bool {
    matches!(
        report.waiting,
        WaitingOn::PushRefused(_)
            | WaitingOn::Remote(_)
            | WaitingOn::Metrics(_)
            | WaitingOn::Invariant(_)
    )
}

/// The machine's clock, or one that stands still at `--now`.
#[derive(Clone)]
struct OneClock {
    fixed: Option<Timestamp>,
    system: SystemClock,
}

impl Clock for OneClock {
    fn now(&self) -> Timestamp {
        self.fixed.unwrap_or_else(|| self.system.now())
    }

    async fn sleep_until(&self, until: Timestamp) {
        if self.fixed.is_none() {
            self.system.sleep_until(until).await;
        }
    }
}
