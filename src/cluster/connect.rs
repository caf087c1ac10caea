//! How to reach a cluster, and as whom.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};

use super::poke::Agent;
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
    let mut config = configuration(&settings.access, settings.deadline).await?;
    if let Some((namespace, name)) = &settings.impersonate {
        let user = format!("system:serviceaccount:{namespace}:{name}");
        config.auth_info.impersonate = Some(user);
    }
    kube::Client::try_from(config).map_err(|error| ConnectError::Client(error.to_string()))
}

/// A client with Serin's own rights. It asks the server nothing yet.
///
/// # Errors
/// The credentials cannot be read.
pub async fn client_of(access: &Access, deadline: Duration) -> Result<kube::Client, ConnectError> {
    let config = configuration(access, deadline).await?;
    kube::Client::try_from(config).map_err(|error| ConnectError::Client(error.to_string()))
}

async fn configuration(access: &Access, deadline: Duration) -> Result<kube::Config, ConnectError> {
    let mut config = match access {
        Access::InCluster => kube::Config::incluster()?,
        Access::Kubeconfig { path, context } => {
            let file = match path {
                Some(path) => Kubeconfig::read_from(path)?,
                None => Kubeconfig::read()?,
            };
            let options = KubeConfigOptions {
                context: context.clone(),
                ..KubeConfigOptions::default()
            };
            kube::Config::from_custom_kubeconfig(file, &options).await?
        }
    };
    // Watches are silent for minutes; single calls have their own deadline.
    config.connect_timeout = Some(deadline);
    Ok(config)
}
