//! `serin render`: the manifests of a spec.

use std::path::PathBuf;

use clap::Args;

use super::failure::{Failure, Outcome};
use super::output::Console;
use super::values::{self, CanaryName};
use crate::domain::Weight;

/// Print the VirtualService and DestinationRule of a spec, at its committed or a given weight.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Service and Deployment are looked up in the repository around the file.

Examples:
  serin render apps/podinfo/canary.yaml
  serin render apps/podinfo/canary.yaml --weight 60
  serin render apps/podinfo/canary.yaml --step 2 | kubectl diff -f -")]
pub(super) struct RenderArgs {
    /// Files with Canary documents.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Weight of the candidate instead of the committed one.
    #[arg(
        long,
        value_name = "PERCENT",
        env = "SERIN_WEIGHT",
        value_parser = values::weight,
        conflicts_with = "step"
    )]
    weight: Option<Weight>,
    /// Step of the ladder, from 1, instead of the committed one.
    #[arg(long, value_name = "STEP", env = "SERIN_STEP", value_parser = clap::value_parser!(u16).range(1..))]
    step: Option<u16>,
    /// Only this canary of the files.
    #[arg(long, value_name = "NAME", env = "SERIN_CANARY")]
    canary: Option<CanaryName>,
}

impl RenderArgs {
    pub(super) fn execute(&self, _console: &mut Console<'_>) -> Result<Outcome, Failure> {
        Err(Failure::failed("rendering is not part of this build"))
    }
}
