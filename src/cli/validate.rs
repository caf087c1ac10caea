//! `serin validate`: every mistake at once.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::failure::{Failure, Outcome};
use super::flags::OutputFlag;
use super::output::Console;

/// Report every mistake in the canaries below these paths, as file:line:column: message.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin validate .
  serin validate clusters/prod --strict
  serin validate . --output json

Exit status 0 when all is well, 1 when there are mistakes, 2 when there is nothing at such a path.")]
pub(super) struct ValidateArgs {
    /// Folders or files; Services and Deployments are looked up in the repository around them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Exit with 1 for warnings too.
    #[arg(long, env = "SERIN_STRICT", value_parser = FalseyValueParser::new())]
    strict: bool,
    #[command(flatten)]
    output: OutputFlag,
}

impl ValidateArgs {
    pub(super) fn execute(&self, _console: &mut Console<'_>) -> Result<Outcome, Failure> {
        Err(Failure::failed("validation is not part of this build"))
    }
}
