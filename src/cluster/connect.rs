//! How to reach a cluster, and as whom.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::poke::Agent;
use super::renew::Source;
use crate::applier::Policy;

/// Where the address and the credentials of a cluster come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// The service account of the pod that Serin runs in.
    InCluster,
    /// A kubeconfig file.
    Kubeconfig {
        /// The file; `None`: what `kubectl` would read.
        path: Option<PathBuf>,
        /// The context; `None`: the current one.
        context: Option<String>,
    },
}

/// One repository's view of a cluster.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How to reach it.
    pub access: Access,
    /// The service account to act as: namespace and name.
    pub impersonate: Option<(String, String)>,
    /// The namespaces that the repository may write; empty: all.
    pub namespaces: BTreeSet<String>,
    /// What may be done.
    pub policy: Policy,
    /// Longest time for one request.
    pub deadline: Duration,
    /// Objects of Flux or Argo CD that are told of each new commit.
    pub agents: Vec<Agent>,
    /// Folder for files that are handed to kustomize.
    pub scratch: PathBuf,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig file.
    #[error("failed to read the kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The pod's service account.
    #[error(
        "failed to read the service account of this pod: {0}; outside of a cluster name a kubeconfig file"
    )]
    InCluster(#[from] kube::config::InClusterError),
    /// The connection.
    #[error("failed to set up the connection to the cluster: {0}")]
    Client(String),
}

/// A client with these credentials, acting as whom the settings name. It asks the server nothing yet.
pub(super) async fn client(settings: &Settings) -> Result<kube::Client, ConnectError> {
    let source = Source {
        access: settings.access.clone(),
        impersonate: settings.impersonate.clone(),
        deadline: settings.deadline,
    };
    source.client().await
}

/// A client with Serin's own rights. It asks the server nothing yet.
///
/// # Errors
/// The credentials cannot be read.
pub async fn client_of(access: &Access, deadline: Duration) -> Result<kube::Client, ConnectError> {
    let source = Source {
        access: access.clone(),
        impersonate: None,
        deadline,
    };
    source.client().await
}
