//! `serin simulate`: scenarios in virtual time.

use std::path::PathBuf;

use clap::Args;

use super::failure::{Failure, Outcome};
use super::flags::OutputFlag;
use super::output::Console;

/// Run scenarios in virtual time and print one aligned line per event.
///
/// The same engine as `serin run`, with an invented world: what people commit, what Prometheus answers and what fails
/// is written in the scenario.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin simulate scenarios/story.yaml
  serin simulate scenarios/rollback.yaml scenarios/no-data.yaml --output json

Exit status 1 when the checker finds a violation in any of them.")]
pub(super) struct SimulateArgs {
    /// Scenario files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputFlag,
}

impl SimulateArgs {
    pub(super) fn execute(&self, _console: &mut Console<'_>) -> Result<Outcome, Failure> {
        Err(Failure::failed("the simulation is not part of this build"))
    }
}
