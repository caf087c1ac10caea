//! The cluster, or the absence of one.

use std::collections::BTreeMap;

use crate::domain::{CanaryId, Timestamp};
use crate::manifests::{Applied, Committed, Manifests};
use crate::ports::{ApplyError, Cluster, Sighting};

/// No cluster: `--cluster none`. Somebody else applies what is in Git; a step counts as shown when it was pushed.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCluster;

impl Cluster for NoCluster {
    async fn observe(
        &mut self,
        _wanted: &[Manifests<Committed>],
        _now: Timestamp,
    ) -> Option<BTreeMap<CanaryId, Sighting>> {
        None
    }

    async fn apply(
        &mut self,
        manifests: Manifests<Committed>,
        _now: Timestamp,
    ) -> Result<Manifests<Applied>, ApplyError> {
        Ok(manifests.applied())
    }
}
