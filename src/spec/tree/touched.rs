//! What a change of some files may let canaries see otherwise, and which canaries these are.

use std::collections::BTreeSet;

use super::super::canary::{ValidatedCanary, Workload};
use super::super::file::{DeploymentFact, ServiceFact};
use super::DEFAULT_NAMESPACE;
use super::placed::Placed;
use crate::domain::{CanaryId, RepoPath, canary_deployment};

/// Whatever was changed, as it was before and as it is now. Too much does no harm: a canary is looked at once more.
#[derive(Debug, Default)]
pub(in crate::spec) struct Touched {
    /// Files that changed, and what is below kustomizations that changed.
    paths: BTreeSet<String>,
    services: BTreeSet<String>,
    deployments: BTreeSet<String>,
    /// Namespaces of those Deployments.
    namespaces: BTreeSet<String>,
    /// Kustomizations that take those Deployments in.
    kustomizations: BTreeSet<RepoPath>,
    markers: BTreeSet<CanaryId>,
}

impl Touched {
    pub(super) fn paths(paths: BTreeSet<String>) -> Self {
        Self {
            paths,
            ..Self::default()
        }
    }

    /// What several files hold under the name of a Service that changed.
    pub(super) fn services(&mut self, placed: &[Placed<ServiceFact>]) {
        let names = placed.iter().map(|placed| placed.fact.name.clone());
        self.services.extend(names);
    }

    /// What several files hold under the name of a Deployment that changed. All of them: which one stands for the others may
    /// be another now.
    pub(super) fn deployments(&mut self, namespace: &str, placed: &[Placed<DeploymentFact>]) {
        self.namespaces.insert(namespace.to_owned());
        for placed in placed {
            self.deployments.insert(placed.fact.name.clone());
            self.kustomizations.extend(placed.context.files().cloned());
        }
    }

    pub(super) fn marker(&mut self, canary: &CanaryId) {
        self.markers.insert(canary.clone());
    }

    /// Whether this file is another one now, or comes into the cluster in another way.
    pub(in crate::spec) fn has(&self, file: &RepoPath) -> bool {
        self.paths.contains(file.as_str())
    }

    /// Whether anything that was looked up for this canary, which had no mistakes, may be found otherwise. What `resolve` asks
    /// of a tree has to be in here.
    pub(in crate::spec) fn concerns(&self, canary: &ValidatedCanary) -> bool {
        self.has(&canary.home.file)
            || self.has(&canary.home.folder)
            || self.services.contains(&canary.route.service)
            || self.markers.contains(&canary.id)
            || match &canary.workload {
                Workload::Managed(managed) => {
                    let deployment = &managed.deployment;
                    let mut sources = managed.images.kustomizations.iter();
                    self.deployments.contains(deployment)
                        || self.deployments.contains(&canary_deployment(deployment))
                        || sources.any(|source| self.kustomizations.contains(source))
                }
                Workload::BringYourOwn(_) => [&canary.id.namespace, DEFAULT_NAMESPACE]
                    .iter()
                    .any(|namespace| self.namespaces.contains(*namespace)),
            }
    }
}
