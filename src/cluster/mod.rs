//! The cluster, or the absence of one.
//!
//! `Kubernetes` is the port; behind it a task, the `keeper`, keeps one cluster equal to one branch: `watch` brings what
//! the cluster shows, `applier::ledger` says what to do, `call` does it, `kustomize` builds what needs a program. No
//! field of any object is decided here.

mod call;
mod canaries;
mod connect;
mod events;
mod keeper;
mod kubernetes;
mod kustomize;
mod leases;
mod mirror;
mod poke;
mod renew;
mod watch;

use std::collections::BTreeMap;

use crate::domain::{CanaryId, Timestamp};
use crate::manifests::{Applied, Committed, Manifests};
use crate::ports::{ApplyError, Cluster, Sighting, Tree, Wanted};

pub use canaries::{Call, Canaries, News};
pub use connect::{Access, ConnectError, Settings, client_of};
pub use kubernetes::Kubernetes;
pub use leases::{LeaseError, Leases};
pub use poke::{Agent, FluxKind};

/// No cluster: `--cluster none`. Somebody else applies what is in Git; a step counts as shown when it was pushed.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCluster;

impl Cluster for NoCluster {
    async fn follow(&mut self, _tree: Tree, _now: Timestamp) {}

    async fn observe(
        &mut self,
        _wanted: &[Wanted<'_>],
        _now: Timestamp,
    ) -> Option<BTreeMap<CanaryId, Sighting>> {
        None
    }

    async fn apply(
        &mut self,
        manifests: Vec<Manifests<Committed>>,
        _now: Timestamp,
    ) -> BTreeMap<CanaryId, Result<Manifests<Applied>, ApplyError>> {
        let applied = manifests
            .into_iter()
            .map(|manifests| (manifests.canary.clone(), Ok(manifests.applied())));
        applied.collect()
    }
}

/// A cluster, or none, as configured.
pub enum AnyCluster {
    /// None.
    None(NoCluster),
    /// A Kubernetes API.
    Kubernetes(Box<Kubernetes>),
}

impl Cluster for AnyCluster {
    async fn follow(&mut self, tree: Tree, now: Timestamp) {
        match self {
            Self::None(none) => none.follow(tree, now).await,
            Self::Kubernetes(kubernetes) => kubernetes.follow(tree, now).await,
        }
    }

    async fn observe(
        &mut self,
        wanted: &[Wanted<'_>],
        now: Timestamp,
    ) -> Option<BTreeMap<CanaryId, Sighting>> {
        match self {
            Self::None(none) => none.observe(wanted, now).await,
            Self::Kubernetes(kubernetes) => kubernetes.observe(wanted, now).await,
        }
    }

    async fn apply(
        &mut self,
        manifests: Vec<Manifests<Committed>>,
        now: Timestamp,
    ) -> BTreeMap<CanaryId, Result<Manifests<Applied>, ApplyError>> {
        match self {
            Self::None(none) => none.apply(manifests, now).await,
            Self::Kubernetes(kubernetes) => kubernetes.apply(manifests, now).await,
        }
    }
}
