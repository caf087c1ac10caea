//! `serin reconcile`: one pass over every canary.

use clap::Args;
use clap::builder::FalseyValueParser;

use super::failure::{Failure, Outcome};
use super::flags::{OutputFlag, PrometheusFlags, RepositoryFlags};
use super::output::Console;
use super::values;
use crate::domain::Timestamp;

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

impl ReconcileArgs {
    pub(super) fn execute(&self, _console: &mut Console<'_>) -> Result<Outcome, Failure> {
        Err(Failure::failed("reconciling is not part of this build"))
    }
}
