//! `serin history`: who moved a canary, when, from where to where, and why.

use clap::Args;

use super::failure::{Failure, Outcome};
use super::flags::{LocalFlags, OutputFlag};
use super::output::Console;
use super::values::CanaryName;

/// Show who moved a canary, when, from which weight to which and why, from Git alone.
///
/// One line per commit, newest first: Serin's steps and people's commits to the same files. With --verbose the
/// evidence of each step too.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin history podinfo
  serin history test/podinfo --verbose --repo ../apps.git
  serin history podinfo --limit 5 --output json")]
pub(super) struct HistoryArgs {
    /// The canary: <name> or <namespace>/<name>.
    name: CanaryName,
    /// Show at most this many commits.
    #[arg(long, short = 'n', value_name = "COUNT", env = "SERIN_LIMIT")]
    limit: Option<usize>,
    #[command(flatten)]
    local: LocalFlags,
    #[command(flatten)]
    output: OutputFlag,
}

impl HistoryArgs {
    pub(super) fn execute(
        &self,
        _verbose: bool,
        _console: &mut Console<'_>,
    ) -> Result<Outcome, Failure> {
        Err(Failure::failed("history is not part of this build"))
    }
}
