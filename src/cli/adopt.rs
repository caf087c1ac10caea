//! `serin adopt`: a first Canary next to existing manifests.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::failure::{Failure, Outcome};
use super::output::Console;

/// Write a first Canary next to the manifests of a Deployment.
///
/// Finds the Deployment and the Service that selects its pods, and proposes route, ladder and analysis. Nothing that
/// exists is overwritten.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin adopt podinfo
  serin adopt test/podinfo --path clusters/prod --dry-run
  serin adopt podinfo --write")]
pub(super) struct AdoptArgs {
    /// The Deployment: <name> or <namespace>/<name>.
    deployment: super::values::CanaryName,
    /// Folder to search.
    #[arg(long, value_name = "DIR", env = "SERIN_PATH", default_value = ".")]
    path: PathBuf,
    /// Also add the label that tells stable from candidate to the Deployment's manifest, if it lacks one.
    #[arg(long, env = "SERIN_WRITE", value_parser = FalseyValueParser::new(), conflicts_with = "dry_run")]
    write: bool,
    /// Print what would be written, and write nothing.
    #[arg(long, env = "SERIN_DRY_RUN", value_parser = FalseyValueParser::new())]
    dry_run: bool,
}

impl AdoptArgs {
    pub(super) fn execute(&self, _console: &mut Console<'_>) -> Result<Outcome, Failure> {
        Err(Failure::failed("adoption is not part of this build"))
    }
}
