//! From configuration to adapters: settings of the layers below, and the folder of our copies.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::cluster_config::{Applier, ClusterChoice, PokeConfig};
use super::config::{Config, PrometheusConfig, RepositoryConfig, SignConfig, VerifyConfig};
use super::failure::Failure;
use crate::applier::Policy;
use crate::domain::{RepoPath, Revision};
use crate::endpoints::Secret;
use crate::lease::Share;
use crate::operator::{Wiring, replicas};
use crate::record::message::Style;
use crate::{cluster, git, prometheus, reconcile};

/// Everything that engines are built from, and the locks on their copies.
pub(super) struct Wirings {
    /// One per repository, or per shard of one.
    pub(super) engines: Vec<Wiring>,
    /// Held for as long as the engines run; the system lets go of them when we end, however that happens.
    pub(super) locks: Vec<File>,
}

impl Wirings {
    /// Settings for all repositories of a configuration.
    pub(super) fn of(config: &Config) -> Result<Self, Failure> {
        let cache = match &config.cache_dir {
            Some(dir) => dir.clone(),
            None => default_cache()?,
        };
        std::fs::create_dir_all(&cache).map_err(|error| {
            Failure::failed(format!("failed to make {}: {error}", cache.display()))
        })?;
        let metrics = prometheus_settings(&config.prometheus)?;
        let mut wirings = Self {
            engines: Vec::new(),
            locks: Vec::new(),
        };
        for repository in &config.repositories {
            if repository.shards > 1 && config.leases.is_none() {
                return Err(Failure::usage(format!(
                    "{} has {} `shards`, which are for several replicas: say with `leases` where they find one another, \
                     or leave them out",
                    repository.url, repository.shards
                )));
            }
            for share in Share::all(repository.shards) {
                // Without a dot: the lock lies beside it, with an extension.
                let copy = share.called(&copy_name(repository)).replace('.', "-");
                let local = cache.join(copy);
                wirings.locks.push(lock(&local, repository)?);
                let cluster = cluster_settings(config, repository, &cache, share);
                wirings.engines.push(Wiring {
                    name: share.called(&repository.name()),
                    repository: repository.name(),
                    share,
                    webhook: webhook_secret(repository)?,
                    branch: branch_settings(repository, local),
                    prometheus: metrics.clone(),
                    engine: engine_settings(repository),
                    plan: repository.plan,
                    cluster,
                });
            }
        }
        Ok(wirings)
    }
}

/// Stack of a thread that futures run on, in bytes.
const STACK: usize = 8 << 20;

/// Where futures run.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        // Address space, not memory; the default is tight for the futures of a build that is not optimised.
        .thread_stack_size(STACK)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("failed to start: {error}")))
}

/// The folder of a copy: readable, and different for every remote and branch.
fn copy_name(repository: &RepositoryConfig) -> String {
    let remote = repository.url.to_string();
    let identity = serde_json::json!([remote, repository.branch]);
    let last = remote.trim_end_matches('/').rsplit(['/', ':']).next();
    let readable: String = last
        .unwrap_or_default()
        .trim_end_matches(".git")
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_')
        .take(40)
        .collect();
    format!("{readable}-{}", Revision::of(&identity))
}

/// Two engines in one copy would disturb each other.
fn lock(local: &Path, repository: &RepositoryConfig) -> Result<File, Failure> {
    let path = local.with_extension("lock");
    let failed = |error: &dyn std::fmt::Display| {
        Failure::failed(format!("failed to lock {}: {error}", path.display()))
    };
    let file = File::create(&path).map_err(|error| failed(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Failure::failed(format!(
            "another serin works with the copy of {} in {}: give this one its own --cache-dir",
            repository.url,
            local.display()
        ))),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(&error)),
    }
}

fn webhook_secret(repository: &RepositoryConfig) -> Result<Option<Secret>, Failure> {
    let Some(webhook) = &repository.webhook else {
        return Ok(None);
    };
    let path = webhook.secret_file.display();
    let content = std::fs::read(&webhook.secret_file)
        .map_err(|error| Failure::usage(format!("failed to read {path}: {error}")))?;
    let secret = Secret::new(&content);
    // An empty secret would let everybody in.
    let secret =
        secret.ok_or_else(|| Failure::usage(format!("{path} holds no secret: it is empty")))?;
    Ok(Some(secret))
}

/// How this replica finds the others.
pub(super) fn replicas(
    config: &Config,
    identity: Option<&str>,
) -> Result<Option<replicas::Settings>, Failure> {
    let Some(leases) = &config.leases else {
        return Ok(None);
    };
    let ClusterChoice::Kubernetes(access) = &config.cluster.choice else {
        return Err(Failure::usage(
            "`leases` are kept in a cluster: say with `cluster` in which, or leave them out",
        ));
    };
    let identity = identity.filter(|name| !name.is_empty() && name.len() <= 200);
    let identity = identity.ok_or_else(|| {
        Failure::usage("with `leases` every replica needs a name of its own: give --identity")
    })?;
    Ok(Some(replicas::Settings {
        access: access.clone(),
        namespace: leases.namespace.clone(),
        group: leases.name.clone(),
        identity: identity.to_owned(),
        // Three tries before the time of a Lease is over.
        deadline: config.cluster.conduct.timeout.min(crate::lease::RENEWAL),
    }))
}

/// One view of the cluster for each repository: each has its own rights, and its own objects.
fn cluster_settings(
    config: &Config,
    repository: &RepositoryConfig,
    cache: &Path,
    share: Share,
) -> Option<cluster::Settings> {
    let ClusterChoice::Kubernetes(access) = &config.cluster.choice else {
        return None;
    };
    let conduct = &config.cluster.conduct;
    let identity = serde_json::json!([
        repository.url.to_string(),
        repository.branch,
        repository.path.as_ref().map(RepoPath::as_str),
    ]);
    Some(cluster::Settings {
        access: access.clone(),
        impersonate: repository.impersonate.clone(),
        namespaces: repository.namespaces.clone(),
        policy: Policy {
            owner: Revision::of(&identity).as_str().to_owned(),
            mode: conduct.mode(),
            external: conduct.applier == Applier::External,
            prune: conduct.prune,
            prune_namespaces: conduct.prune_namespaces,
            share,
        },
        agents: repository.poke.iter().map(PokeConfig::agent).collect(),
        deadline: conduct.timeout,
        scratch: cache.join(share.called("kustomize")),
    })
}

fn branch_settings(repository: &RepositoryConfig, local: PathBuf) -> git::Settings {
    git::Settings {
        remote: repository.url.clone(),
        branch: repository.branch.clone(),
        path: repository.path.clone(),
        local,
        author: repository.author.clone(),
        committer: repository.committer().clone(),
        deadline: repository.timeout,
        accept_rewritten_history: repository.accept_rewritten_history,
        sign: repository.sign.as_ref().map(SignConfig::signing),
        verify: repository.verify.as_ref().map(VerifyConfig::verification),
        environment: std::collections::BTreeMap::new(),
    }
}

fn engine_settings(repository: &RepositoryConfig) -> reconcile::Settings {
    reconcile::Settings {
        push_interval: repository.push_interval,
        poll: repository.poll,
        style: Style {
            skip_ci: repository.skip_ci.clone(),
            ..Style::default()
        },
    }
}

/// Settings for a Prometheus; reads a password file.
pub(super) fn prometheus_settings(
    config: &PrometheusConfig,
) -> Result<prometheus::Settings, Failure> {
    let mut settings = prometheus::Settings::new(config.url.as_str());
    settings.deadline = config.timeout;
    if let Some(path) = &config.bearer_token_file {
        settings.auth = prometheus::Auth::BearerFile(path.clone());
    }
    if let Some(basic) = &config.basic_auth {
        let path = &basic.password_file;
        let password = std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("failed to read {}: {error}", path.display()))
        })?;
        settings.auth = prometheus::Auth::Basic {
            user: basic.username.clone(),
            // Editors and `echo` end files with a line break that is no part of the password.
            password: prometheus::Secret::new(password.trim_end_matches(['\r', '\n'])),
        };
    }
    if let Some(tls) = &config.tls {
        settings.ca.clone_from(&tls.ca_file);
        if let (Some(certificate), Some(key)) = (&tls.cert_file, &tls.key_file) {
            settings.certificate = Some(prometheus::ClientCertificate {
                certificate: certificate.clone(),
                key: key.clone(),
            });
        }
    }
    Ok(settings)
}

/// `serin` in the user's cache folder, as the XDG base directory specification has it.
#[expect(
    clippy::disallowed_methods,
    reason = "the user's folders are configuration, and this is the command line"
)]
fn default_cache() -> Result<PathBuf, Failure> {
    let absolute = |name: &str| {
        std::env::var(name)
            .ok()
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("serin"))
        .ok_or_else(|| {
            Failure::usage("there is no HOME to keep copies of repositories in: give --cache-dir")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(url: &str) -> RepositoryConfig {
        RepositoryConfig::new(url.parse().unwrap())
    }

    #[test]
    fn every_branch_has_its_own_copy() {
        let one = repository("https://bot:s3cret@git.example.com/team/apps.git");
        let mut other = one.clone();
        other.branch = Some("steps".into());
        assert!(copy_name(&one).starts_with("apps-"), "{}", copy_name(&one));
        assert_ne!(copy_name(&one), copy_name(&other));
        // The password is not part of it: a new one keeps the copy.
        let renewed = repository("https://bot:other@git.example.com/team/apps.git");
        assert_eq!(copy_name(&one), copy_name(&renewed));
    }

    #[test]
    fn a_copy_has_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("apps");
        let held = lock(&copy, &repository("apps.git")).unwrap();
        let refused = lock(&copy, &repository("apps.git")).unwrap_err();
        assert!(refused.to_string().contains("--cache-dir"), "{refused}");
        drop(held);
        lock(&copy, &repository("apps.git")).unwrap();
    }

    #[test]
    fn a_password_file_may_end_in_a_line_break() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "s3cret\n").unwrap();
        let mut config = PrometheusConfig::new("https://p:9090".parse().unwrap());
        config.basic_auth = Some(super::super::config::BasicAuth {
            username: "serin".into(),
            password_file: path,
        });
        let settings = prometheus_settings(&config).unwrap();
        let expected = prometheus::Auth::Basic {
            user: "serin".into(),
            password: prometheus::Secret::new("s3cret"),
        };
        assert_eq!(settings.auth, expected);
    }
}
