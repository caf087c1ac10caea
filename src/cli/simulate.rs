//! `serin simulate`: scenarios in virtual time.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::failure::{Failure, Outcome};
use super::flags::OutputFlag;
use super::output::{Console, Format, Style};
use crate::simulation::{self, Scenario};

/// Run scenarios in virtual time and print one aligned line per event.
///
/// The same engine as `serin run`, with an invented world: what people commit, what Prometheus answers and what fails
/// is written in the scenario.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin simulate scenarios/story.yaml
  serin simulate scenarios/rollback.yaml scenarios/no-data.yaml --output json
  serin simulate --random 1000000 --seed 1
  serin simulate --random 1 --seed 4711

Exit status 1 when the checker finds a violation in any of them.")]
pub(super) struct SimulateArgs {
    /// Scenario files.
    #[arg(required_unless_present = "random", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Run this many random schedules of people and faults instead, on every core; a single one is shown.
    #[arg(
        long,
        value_name = "COUNT",
        env = "SERIN_RANDOM",
        conflicts_with = "files"
    )]
    random: Option<u64>,
    /// Seed of the first random schedule; the others follow it.
    #[arg(long, value_name = "SEED", env = "SERIN_SEED", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    output: OutputFlag,
}

/// One scenario's result, for scripts.
#[derive(Debug, Serialize)]
struct Run {
    scenario: String,
    trace: Vec<String>,
    violations: Vec<String>,
}

impl SimulateArgs {
    pub(super) fn execute(&self, console: &mut Console<'_>) -> Result<Outcome, Failure> {
        match self.random {
            Some(1) => return self.one(console),
            Some(count) => return self.search(count, console),
            None => {}
        }
        let mut runs = Vec::new();
        let mut outcome = Outcome::Done;
        for path in &self.files {
            let run = simulate(path)?;
            if !run.violations.is_empty() {
                outcome = Outcome::NotWell;
            }
            match self.output.output {
                // Each as soon as it is there: there may be many.
                Format::Text => self.print(&run, console)?,
                Format::Json | Format::Yaml => runs.push(run),
            }
        }
        console.value(self.output.output, &runs, |_| Ok(()))?;
        Ok(outcome)
    }

    /// The schedule of one seed, as a scenario file, and its trace.
    fn one(&self, console: &mut Console<'_>) -> Result<Outcome, Failure> {
        let text = simulation::text(self.seed);
        for line in text.lines() {
            console.line(line)?;
        }
        let scenario = Scenario::read(&text).map_err(|error| Failure::usage(error.to_string()))?;
        let outcome = simulation::run(&scenario);
        let run = Run {
            scenario: format!("seed {}", self.seed),
            trace: outcome.trace,
            violations: outcome.violations,
        };
        console.line("")?;
        self.print(&run, console)?;
        Ok(if run.violations.is_empty() {
            Outcome::Done
        } else {
            Outcome::NotWell
        })
    }

    fn search(&self, count: u64, console: &mut Console<'_>) -> Result<Outcome, Failure> {
        let report = simulation::search(self.seed, count, |_| {});
        for line in report.to_string().lines() {
            console.line(line)?;
        }
        Ok(if report.is_well() {
            Outcome::Done
        } else {
            Outcome::NotWell
        })
    }

    fn print(&self, run: &Run, console: &mut Console<'_>) -> Result<(), Failure> {
        if self.files.len() > 1 {
            let title = console.paint(Style::Bold, &run.scenario);
            console.line(&title)?;
        }
        for line in &run.trace {
            console.line(line)?;
        }
        for violation in &run.violations {
            let word = console.paint(Style::Bad, "violation:");
            console.line(&format!("{word} {violation}"))?;
        }
        if self.files.len() > 1 {
            console.line("")?;
        }
        console.flush()
    }
}

fn simulate(path: &Path) -> Result<Run, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("failed to read {}: {error}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let scenario = Scenario::read(&text).map_err(|error| failed(&error))?;
    let outcome = simulation::run(&scenario);
    Ok(Run {
        scenario: path.display().to_string(),
        trace: outcome.trace,
        violations: outcome.violations,
    })
}
