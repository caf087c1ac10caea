//! `serin run`: the controller.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::config::{Config, ConfigFile};
use super::failure::{Failure, Outcome};
use super::flags::{PrometheusFlags, RepositoryFlags};
use super::output::Console;
use super::values::{self, ClusterChoice};

/// Run the controller: carry every canary of the repositories forward until told to stop.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The configuration file:
  repositories:
    - url: https://git.example.com/team/apps.git
      branch: main                  # default: the remote's default branch
      path: clusters/prod           # default: the whole tree
      poll: 30s                     # between two looks at the remote
      pushInterval: 10s             # between two pushes; rollbacks do not wait
      author: {name: Serin, email: serin@example.com}
      committer: {name: Serin, email: serin@example.com}   # default: the author
      skipCi: '[skip ci]'           # default: none
  prometheus:
    url: http://prometheus:9090
    timeout: 10s
    bearerTokenFile: /var/run/secrets/token       # or:
    basicAuth: {username: serin, passwordFile: /etc/serin/password}
    tls: {caFile: ca.pem, certFile: client.pem, keyFile: client.key}
  cluster: none

Flags win over the file.

Examples:
  serin run --config serin.yaml
  serin run --repo https://git.example.com/team/apps.git --prometheus http://prometheus:9090 --cluster none")]
pub(super) struct RunArgs {
    /// File with repositories, Prometheus and cluster.
    #[arg(long, short, value_name = "FILE", env = "SERIN_CONFIG")]
    config: Option<PathBuf>,
    /// Cluster to act on [default: none] [possible values: none].
    #[arg(long, value_name = "CLUSTER", env = "SERIN_CLUSTER")]
    cluster: Option<ClusterChoice>,
    /// Address for /healthz and /metrics, like 127.0.0.1:8080 [default: nowhere].
    #[arg(long, value_name = "ADDRESS", env = "SERIN_LISTEN")]
    listen: Option<SocketAddr>,
    /// Time between two looks at the remote [default: 30s].
    #[arg(long, value_name = "TIME", env = "SERIN_POLL", value_parser = values::interval)]
    poll: Option<std::time::Duration>,
    /// Shortest time between two pushes; rollbacks do not wait for it [default: 10s].
    #[arg(long, value_name = "TIME", env = "SERIN_PUSH_INTERVAL", value_parser = values::duration)]
    push_interval: Option<std::time::Duration>,
    #[command(flatten)]
    repository: RepositoryFlags,
    #[command(flatten)]
    prometheus: PrometheusFlags,
}

impl RunArgs {
    /// The file with the flags on top.
    fn settings(&self) -> Result<Config, Failure> {
        let file = match &self.config {
            Some(path) => ConfigFile::read(path)?,
            None => ConfigFile::default(),
        };
        let mut config = file.with_flags(
            &self.repository,
            &self.prometheus,
            self.cluster,
            self.listen,
        )?;
        for repository in &mut config.repositories {
            if let Some(poll) = self.poll {
                repository.poll = poll;
            }
            if let Some(push_interval) = self.push_interval {
                repository.push_interval = push_interval;
            }
        }
        Ok(config)
    }

    pub(super) fn execute(&self, _console: &mut Console<'_>) -> Result<Outcome, Failure> {
        let _config = self.settings()?;
        Err(Failure::failed("the controller is not part of this build"))
    }
}
