//! `serin run`: the controller.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::cluster_config::ClusterChoice;
use super::config::{Config, ConfigFile};
use super::failure::{Failure, Outcome, chain};
use super::flags::{PrometheusFlags, RepositoryFlags};
use super::values;
use super::wiring::{self, Wirings, runtime};
use crate::endpoints::SetLogLevel;
use crate::operator;

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
      plan: true                    # push nothing, say what would be committed; default: false
      author: {name: Serin, email: serin@example.com}
      committer: {name: Serin, email: serin@example.com}   # default: the author
      timeout: 1m                   # for one request to the remote
      skipCi: '[skip ci]'           # default: none
      shards: 2                     # parts of its namespaces that replicas share, with `leases`; default: 1
      namespaces: [test]            # all that it may write; default: all
      impersonate: test/deployer    # service account to write as; default: Serin's own
      name: apps                    # in metrics and paths; default: the last part of the URL
      webhook: {secretFile: /etc/serin/webhook}     # POST /hook/apps wakes it; default: none
      poke:                         # objects of Flux or Argo CD that are told of each commit; default: none
        - {kind: GitRepository, namespace: flux-system, name: apps}   # or Kustomization, or Application of Argo CD
      sign:                         # default: commits are not signed
        format: ssh                 # or openpgp
        key: /etc/serin/id_ed25519  # a file without a passphrase; the .pub of a key that the SSH agent has;
                                    # or the fingerprint of a key in GnuPG's keyring
      verify:                       # default: any head will do
        signers: /etc/serin/allowed_signers       # SSH keys, as in `man ssh-keygen`; and/or:
        keyring: /etc/serin/keys.asc              # OpenPGP keys, from `gpg --export`
        fingerprints: [0123...]     # only these OpenPGP keys
        revoked: /etc/serin/revoked # SSH keys that are good no more
        strict: false               # true: every commit needs a good signature, not only the head
  prometheus:
    url: http://prometheus:9090
    timeout: 10s
    bearerTokenFile: /var/run/secrets/token       # or:
    basicAuth: {username: serin, passwordFile: /etc/serin/password}
    tls: {caFile: ca.pem, certFile: client.pem, keyFile: client.key}
  cluster: in-cluster               # none, in-cluster, kubeconfig, kubeconfig:CONTEXT; or:
  # cluster:
  #   connect: kubeconfig:prod
  #   kubeconfig: /etc/serin/kubeconfig         # default: what kubectl reads
  #   applier: serin                # external: Flux or Argo CD applies, Serin commits and watches
  #   mode: enforce                 # warn: report what people change in the cluster; off: leave it
  #   prune: false                  # true: objects go that Git no longer has
  #   pruneNamespaces: false        # true: Namespaces and CRDs as well
  #   timeout: 10s                  # for one request to the cluster
  leases: {namespace: serin-system, name: serin}    # several replicas share the repositories; default: there is one
  listen: 0.0.0.0:8080              # /healthz, /readyz, /metrics, /hook/<name>; default: nowhere
  cacheDir: /var/cache/serin        # for bare copies; default: serin in the user's cache folder

Flags win over the file.

With `verify`, a head without a good signature changes nothing: the last good commit stays in force, the cluster is kept
equal to it, and nothing is committed until the head is good. Whoever signs the head vouches for all below it; with
`strict` every commit since the last good head counts, both sides of merges and the merges of a forge included (its key has
to be among those allowed). What was good is remembered in the copy in `cacheDir`; without that, the newest well-signed
commit of the first-parent line is in force. Times of SSH keys (`valid-before`) are compared with the committer time, which
the signer chooses: remove a key, or list it in `revoked`, to shut it out.

Examples:
  serin run --config serin.yaml
  serin run --repo https://git.example.com/team/apps.git --prometheus http://prometheus:9090 --cluster none")]
pub(super) struct RunArgs {
    /// File with repositories, Prometheus and cluster.
    #[arg(long, short, value_name = "FILE", env = "SERIN_CONFIG")]
    config: Option<PathBuf>,
    /// Cluster to act on: none, in-cluster, kubeconfig or kubeconfig:CONTEXT [default: none].
    #[arg(long, value_name = "CLUSTER", env = "SERIN_CLUSTER")]
    cluster: Option<ClusterChoice>,
    /// Address for /healthz, /readyz, /metrics and /hook/<name>, like 127.0.0.1:8080 [default: nowhere].
    #[arg(long, value_name = "ADDRESS", env = "SERIN_LISTEN")]
    listen: Option<SocketAddr>,
    /// Time between two looks at the remote [default: 30s].
    #[arg(long, value_name = "TIME", env = "SERIN_POLL", value_parser = values::interval)]
    poll: Option<std::time::Duration>,
    /// Shortest time between two pushes; rollbacks do not wait for it [default: 10s].
    #[arg(long, value_name = "TIME", env = "SERIN_PUSH_INTERVAL", value_parser = values::duration)]
    push_interval: Option<std::time::Duration>,
    /// Name of this replica among several, such as the pod's.
    #[arg(long, value_name = "NAME", env = "SERIN_IDENTITY")]
    identity: Option<String>,
    /// Push nothing: say what would be committed. A key that may only read has the same effect, with the server's words.
    #[arg(long, env = "SERIN_PLAN", value_parser = FalseyValueParser::new())]
    plan: bool,
    /// Check the configuration, and run nothing. Files that it names are not read.
    #[arg(long, env = "SERIN_CHECK", value_parser = FalseyValueParser::new())]
    check: bool,
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
            self.cluster.clone(),
            self.listen,
        )?;
        for repository in &mut config.repositories {
            repository.plan |= self.plan;
            if let Some(poll) = self.poll {
                repository.poll = poll;
            }
            if let Some(push_interval) = self.push_interval {
                repository.push_interval = push_interval;
            }
        }
        Ok(config)
    }

    pub(super) fn execute(&self, log_level: SetLogLevel) -> Result<Outcome, Failure> {
        let config = self.settings()?;
        if self.check {
            return Ok(Outcome::Done);
        }
        let replicas = wiring::replicas(&config, self.identity.as_deref())?;
        let Wirings { engines, locks } = Wirings::of(&config)?;
        let exposure = operator::Exposure {
            listen: config.listen,
            log_level: Some(log_level),
        };
        let done = runtime()?.block_on(operator::run(engines, replicas, exposure, stopped()));
        drop(locks);
        done.map_err(|error| Failure::failed(chain(&error)))?;
        Ok(Outcome::Done)
    }
}

/// Ready when the process is told to stop: by a terminal, a service manager, a cluster.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        // Without handlers the default of the signals applies: the process ends at once, which loses nothing.
        Err(_) => std::future::pending().await,
    }
}
