//! `serin explain`: what a canary waits for, and why.

use clap::Args;

use super::failure::{Failure, Outcome};
use super::flags::{LocalFlags, OutputFlag};
use super::output::Console;
use super::values::CanaryName;

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

impl ExplainArgs {
    pub(super) fn execute(&self, _console: &mut Console<'_>) -> Result<Outcome, Failure> {
        Err(Failure::failed("explain is not part of this build"))
    }
}
