//! `serin crd`: the CustomResourceDefinition.

use clap::Args;

use super::failure::{Failure, Outcome};
use super::output::Console;

/// Print the CustomResourceDefinition of Canary.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin crd > crds/canary.yaml
  serin crd | kubectl apply --server-side -f -")]
pub(super) struct CrdArgs {}

impl CrdArgs {
    pub(super) fn execute(&self, console: &mut Console<'_>) -> Result<Outcome, Failure> {
        console.bytes(crate::crd::crd_yaml().as_bytes())?;
        Ok(Outcome::Done)
    }
}
