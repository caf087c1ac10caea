//! `serin status`: where each canary is.

use clap::Args;

use super::failure::{Failure, Outcome};
use super::flags::{LocalFlags, OutputFlag};
use super::output::Console;
use super::values::CanaryName;

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

impl StatusArgs {
    pub(super) fn execute(&self, _console: &mut Console<'_>) -> Result<Outcome, Failure> {
        Err(Failure::failed("status is not part of this build"))
    }
}
