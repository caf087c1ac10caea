//! A client whose credentials follow the files that they come from: a Secret that is rotated needs no restart.
//!
//! Before each request the files are looked at; when one of them changed, the connection is set up anew. Requests and
//! watches that are under way end with the credentials that they began with.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::sync::Mutex;
use tower::BoxError;

use super::connect::{Access, ConnectError};

/// What a connection is made from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) access: Access,
    /// The service account to act as: namespace and name.
    pub(super) impersonate: Option<(String, String)>,
    /// Longest time for setting up a connection.
    pub(super) deadline: std::time::Duration,
}

/// A watch is told something every minute at least, so a connection that is silent for longer is dead.
const LONGEST_SILENCE: std::time::Duration = std::time::Duration::from_secs(150);

/// What tells a file from the one that was there before, a link to another file included.
type Stamp = (u64, i64, i64, u64);

struct Connection {
    client: kube::Client,
    files: Vec<File>,
}

/// A file as it was when it was read.
struct File {
    path: PathBuf,
    stamp: Option<Stamp>,
    content: Option<Vec<u8>>,
}

impl File {
    fn read(path: PathBuf) -> Self {
        Self {
            stamp: stamp(&path),
            content: std::fs::read(&path).ok(),
            path,
        }
    }

    /// Whether there is other content in it now; one that cannot be read is being replaced.
    fn has_changed(&mut self) -> bool {
        let now = stamp(&self.path);
        if now == self.stamp {
            return false;
        }
        let content = std::fs::read(&self.path).ok();
        if content == self.content {
            self.stamp = now;
        }
        content.is_some() && content != self.content
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
}

impl Source {
    /// Credentials, and the files that they come from.
    async fn read(&self) -> Result<(kube::Config, Vec<PathBuf>), ConnectError> {
        let mut files = Vec::new();
        let mut config = match &self.access {
            // The client itself reads the pod's token again each minute.
            Access::InCluster => kube::Config::incluster()?,
            Access::Kubeconfig { path, context } => {
                let file = match path {
                    Some(path) => Kubeconfig::read_from(path)?,
                    None => Kubeconfig::read()?,
                };
                files.extend(path.clone());
                let options = KubeConfigOptions {
                    context: context.clone(),
                    ..KubeConfigOptions::default()
                };
                let config = kube::Config::from_custom_kubeconfig(file, &options).await?;
                files.extend(config.auth_info.token_file.as_ref().map(PathBuf::from));
                config
            }
        };
        // Watches are silent for a minute; single calls have their own deadline.
        config.connect_timeout = Some(self.deadline);
        config.read_timeout = Some(LONGEST_SILENCE);
        // Whoever calls knows when to try again. The client's own retries would go on for minutes, unseen.
        config.default_retry = false;
        if let Some((namespace, name)) = &self.impersonate {
            let user = format!("system:serviceaccount:{namespace}:{name}");
            config.auth_info.impersonate = Some(user);
        }
        Ok((config, files))
    }

    async fn connect(&self) -> Result<Connection, ConnectError> {
        let (config, files) = self.read().await?;
        let files = files.into_iter().map(File::read).collect();
        let client = kube::Client::try_from(config);
        let client = client.map_err(|error| ConnectError::Client(error.to_string()))?;
        Ok(Connection { client, files })
    }

    /// A client that asks the server nothing yet.
    pub(super) async fn client(self) -> Result<kube::Client, ConnectError> {
        let first = self.connect().await?;
        if first.files.is_empty() {
            return Ok(first.client);
        }
        let namespace = first.client.default_namespace().to_owned();
        let held = Arc::new(Mutex::new(first));
        let service = tower::service_fn(move |request: axum::http::Request<Body>| {
            let (source, held) = (self.clone(), Arc::clone(&held));
            async move {
                let client = source.current(&held).await;
                client.send(request).await.map_err(BoxError::from)
            }
        });
        Ok(kube::Client::new(service, namespace))
    }

    /// The connection with the newest credentials. Files that cannot be read at the moment are being replaced: the old
    /// ones hold until then.
    async fn current(&self, held: &Mutex<Connection>) -> kube::Client {
        let mut held = held.lock().await;
        if held.files.iter_mut().any(File::has_changed) {
            match self.connect().await {
                Ok(new) => {
                    tracing::info!("the credentials for the cluster changed, and are read again");
                    *held = new;
                }
                Err(error) => {
                    tracing::debug!(%error, "the credentials for the cluster are being replaced");
                }
            }
        }
        held.client.clone()
    }
}
