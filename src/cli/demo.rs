//! `serin demo`: the whole story on a laptop.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::failure::{Failure, Outcome};
use super::output::Console;

/// Show the whole story on this machine, with nothing installed but git.
///
/// A bare repository in a folder, simulated traffic behind a real Prometheus HTTP API in this process: a named user
/// gets the new version while everybody else does not, the ladder is climbed, a bad release is caught and rolled back.
/// The repository stays, to look at with `git log`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin demo
  serin demo --fast --dir demo")]
pub(super) struct DemoArgs {
    /// Folder for the repository; must be empty or missing [default: a new temporary folder].
    #[arg(long, value_name = "DIR", env = "SERIN_DIR")]
    dir: Option<PathBuf>,
    /// End in under five seconds instead of at readable speed.
    #[arg(long, env = "SERIN_FAST", value_parser = FalseyValueParser::new())]
    fast: bool,
}

impl DemoArgs {
    pub(super) fn execute(&self, _console: &mut Console<'_>) -> Result<Outcome, Failure> {
        Err(Failure::failed("the demo is not part of this build"))
    }
}
