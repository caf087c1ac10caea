//! How far manifests have come: rendered, committed, applied.

use std::sync::Arc;

use crate::domain::{CanaryId, CommitId, Contents};

/// The generated files of one canary, at one stage of their way to the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifests<Stage> {
    /// The canary.
    pub canary: CanaryId,
    /// The files, shared with whoever keeps them.
    pub files: Arc<Contents>,
    stage: Stage,
}

/// Rendered from spec and state, known to nobody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered(());

/// In a commit that the remote accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    commit: CommitId,
}

/// In the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    commit: CommitId,
}

impl Manifests<Rendered> {
    /// Freshly rendered files.
    pub fn rendered(canary: CanaryId, files: impl Into<Arc<Contents>>) -> Self {
        Self {
            canary,
            files: files.into(),
            stage: Rendered(()),
        }
    }

    /// The remote accepted them in `commit`. Only for adapters that have seen so, and for the simulation.
    pub fn committed_at(self, commit: CommitId) -> Manifests<Committed> {
        Manifests {
            canary: self.canary,
            files: self.files,
            stage: Committed { commit },
        }
    }
}

impl Manifests<Committed> {
    /// The commit that holds them.
    pub fn commit(&self) -> &CommitId {
        &self.stage.commit
    }

    /// The cluster holds them. Only for adapters that have seen so, and for the simulation.
    pub fn applied(self) -> Manifests<Applied> {
        Manifests {
            canary: self.canary,
            files: self.files,
            stage: Applied {
                commit: self.stage.commit,
            },
        }
    }
}

impl Manifests<Applied> {
    /// The commit that holds them.
    pub fn commit(&self) -> &CommitId {
        &self.stage.commit
    }
}
