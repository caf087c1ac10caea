//! The configuration of `serin run`: a YAML file, overridden by flags.

mod signatures;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::Error as _;

pub(super) use signatures::{KeyFormat, SignConfig, VerifyConfig};

use super::cluster_config::{self, ClusterChoice, ClusterConfig, LeasesConfig, PokeConfig};
use super::failure::Failure;
use super::flags::{PrometheusFlags, RepositoryFlags};
use super::values::{self, ServerUrl};
use crate::domain::{Person, RepoPath};
use crate::git::{InvalidRemote, Remote};

/// All that a controller needs to know before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    /// Branches to work on; never empty, no two alike.
    pub(super) repositories: Vec<RepositoryConfig>,
    /// Where to ask how a candidate does.
    pub(super) prometheus: PrometheusConfig,
    /// Which cluster to act on, and how.
    pub(super) cluster: ClusterConfig,
    /// Where health, metrics and webhooks are served, if anywhere.
    pub(super) listen: Option<SocketAddr>,
    /// Where several replicas find one another; `None`: there is only this one.
    pub(super) leases: Option<LeasesConfig>,
    /// Folder for bare copies of the repositories; `None`: the user's cache folder.
    pub(super) cache_dir: Option<PathBuf>,
}

/// One branch of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RepositoryConfig {
    /// Address of the remote.
    #[serde(deserialize_with = "remote")]
    pub(super) url: Remote,
    /// The branch; `None`: the remote's default branch.
    #[serde(default, deserialize_with = "branch")]
    pub(super) branch: Option<String>,
    /// The folder to look at; `None`: the whole tree.
    #[serde(default, deserialize_with = "path")]
    pub(super) path: Option<RepoPath>,
    /// Time between two looks at the remote.
    #[serde(default = "default_poll", deserialize_with = "interval")]
    pub(super) poll: Duration,
    /// Shortest time between two pushes. Rollbacks do not wait for it.
    #[serde(default = "default_push_interval", deserialize_with = "duration")]
    pub(super) push_interval: Duration,
    /// Author of the commits.
    #[serde(default = "default_person", deserialize_with = "person")]
    pub(super) author: Person,
    /// Committer of the commits; `None`: the author.
    #[serde(default, deserialize_with = "optional_person")]
    pub(super) committer: Option<Person>,
    /// Longest time for one request to the remote.
    #[serde(default = "default_git_timeout", deserialize_with = "interval")]
    pub(super) timeout: Duration,
    /// Whether a branch that somebody rewrote is the new truth. Otherwise that holds everything until it is looked at.
    #[serde(default)]
    pub(super) accept_rewritten_history: bool,
    /// Plan mode: say what would be committed, and push nothing.
    #[serde(default)]
    pub(super) plan: bool,
    /// Into how many parts its namespaces are split, so that several replicas share the work on it.
    #[serde(default = "one", deserialize_with = "shards")]
    pub(super) shards: u32,
    /// The namespaces that it may write; empty: all.
    #[serde(default)]
    pub(super) namespaces: BTreeSet<String>,
    /// The service account that the cluster is written as; `None`: Serin's own.
    #[serde(default, deserialize_with = "service_account")]
    pub(super) impersonate: Option<(String, String)>,
    /// A text that keeps other people's CI quiet, put into each commit message.
    #[serde(default, deserialize_with = "one_line")]
    pub(super) skip_ci: Option<String>,
    /// How commits are signed; `None`: not at all.
    #[serde(default)]
    pub(super) sign: Option<SignConfig>,
    /// Whose signature the head needs; `None`: nobody's.
    #[serde(default)]
    pub(super) verify: Option<VerifyConfig>,
    /// What it is called in metrics and in the path of its webhook; `None`: the last part of the address.
    #[serde(default, deserialize_with = "name")]
    pub(super) name: Option<String>,
    /// Its webhook; `None`: it has none.
    #[serde(default)]
    pub(super) webhook: Option<Webhook>,
    /// Objects of Flux or Argo CD that are told of each new commit, so that a step does not wait for their poll.
    #[serde(default)]
    pub(super) poke: Vec<PokeConfig>,
}

/// A webhook that wakes a repository's loop.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Webhook {
    /// File with the secret that the forge signs with.
    pub(super) secret_file: PathBuf,
}

impl RepositoryConfig {
    /// The defaults for a remote.
    pub(super) fn new(url: Remote) -> Self {
        Self {
            url,
            branch: None,
            path: None,
            poll: default_poll(),
            push_interval: default_push_interval(),
            author: default_person(),
            committer: None,
            timeout: default_git_timeout(),
            accept_rewritten_history: false,
            plan: false,
            shards: 1,
            namespaces: BTreeSet::new(),
            impersonate: None,
            skip_ci: None,
            sign: None,
            verify: None,
            name: None,
            webhook: None,
            poke: Vec::new(),
        }
    }

    /// What it is called in metrics and in the path of its webhook.
    pub(super) fn name(&self) -> String {
        let remote = self.url.to_string();
        let last = || {
            let last = remote.trim_end_matches('/').rsplit(['/', ':']).next();
            let last = last.unwrap_or_default().trim_end_matches(".git");
            last.chars().filter(|c| is_name(*c)).take(60).collect()
        };
        self.name.clone().unwrap_or_else(last)
    }

    /// Who commits.
    pub(super) fn committer(&self) -> &Person {
        self.committer.as_ref().unwrap_or(&self.author)
    }
}

/// A Prometheus server. Secrets are named by file, and read when a connection is made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct PrometheusConfig {
    /// Address of the server.
    pub(super) url: ServerUrl,
    /// Longest time for one answer.
    #[serde(default = "default_timeout", deserialize_with = "interval")]
    pub(super) timeout: Duration,
    /// File with a bearer token.
    #[serde(default)]
    pub(super) bearer_token_file: Option<PathBuf>,
    /// Name and file with the password for HTTP basic authentication.
    #[serde(default)]
    pub(super) basic_auth: Option<BasicAuth>,
    /// Own certificate authority, own certificate.
    #[serde(default)]
    pub(super) tls: Option<Tls>,
}

/// HTTP basic authentication.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct BasicAuth {
    /// The name.
    pub(super) username: String,
    /// File with the password.
    pub(super) password_file: PathBuf,
}

/// TLS with certificates of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Tls {
    /// PEM file with authorities to trust, besides the system's.
    #[serde(default)]
    pub(super) ca_file: Option<PathBuf>,
    /// PEM file with the client's certificate.
    #[serde(default)]
    pub(super) cert_file: Option<PathBuf>,
    /// PEM file with the client's key.
    #[serde(default)]
    pub(super) key_file: Option<PathBuf>,
}

/// The file as written: nothing but the repositories is required, as flags may add the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ConfigFile {
    /// Branches to work on.
    #[serde(default)]
    pub(super) repositories: Vec<RepositoryConfig>,
    /// Where to ask how a candidate does.
    #[serde(default)]
    pub(super) prometheus: Option<PrometheusConfig>,
    /// Which cluster to act on.
    #[serde(default)]
    pub(super) cluster: Option<ClusterConfig>,
    /// Where health, metrics and webhooks are served.
    #[serde(default)]
    pub(super) listen: Option<SocketAddr>,
    /// Where several replicas find one another.
    #[serde(default)]
    pub(super) leases: Option<LeasesConfig>,
    /// Folder for bare copies of the repositories.
    #[serde(default)]
    pub(super) cache_dir: Option<PathBuf>,
}

impl ConfigFile {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("failed to read {}: {error}", path.display()))
        })?;
        Self::parse(&text)
            .map_err(|message| Failure::usage(format!("{}:{message}", path.display())))
    }

    /// Reads a text; a mistake is `line:column: message`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text
            .lines()
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
        {
            return Err("1:1: the file is empty; `repositories` is what it needs".into());
        }
        serde_yaml::from_str(text).map_err(|error| located(&error))
    }

    /// The file with flags on top, complete or not at all.
    pub(super) fn with_flags(
        mut self,
        repository: &RepositoryFlags,
        prometheus: &PrometheusFlags,
        cluster: Option<ClusterChoice>,
        listen: Option<SocketAddr>,
    ) -> Result<Config, Failure> {
        if let Some(url) = &repository.repo {
            self.repositories = vec![RepositoryConfig::new(url.read()?)];
        }
        if repository.is_refinement() {
            match self.repositories.as_mut_slice() {
                [one] => repository.refine(one),
                [] => {}
                [_, _, ..] => {
                    return Err(Failure::usage(
                        "the file names several repositories: flags about one of them need --repo",
                    ));
                }
            }
        }
        if self.repositories.is_empty() {
            return Err(Failure::usage(
                "there is no repository to work on: give --repo URL, or --config FILE with `repositories`",
            ));
        }
        refuse_twins(&self.repositories)?;
        for repository in &self.repositories {
            signatures::check(repository.sign.as_ref(), repository.verify.as_ref())?;
        }
        Ok(Config {
            repositories: self.repositories,
            prometheus: prometheus.over(self.prometheus)?,
            cluster: self.cluster.unwrap_or_default().with(cluster),
            listen: listen.or(self.listen),
            leases: self.leases,
            cache_dir: repository.cache_dir.clone().or(self.cache_dir),
        })
    }
}

/// Two writers on one branch would race each other for every step.
fn refuse_twins(repositories: &[RepositoryConfig]) -> Result<(), Failure> {
    for (index, one) in repositories.iter().enumerate() {
        let twin = |other: &RepositoryConfig| one.url == other.url && one.branch == other.branch;
        if repositories.iter().skip(index + 1).any(twin) {
            let branch = one.branch.as_deref().unwrap_or("the default branch");
            return Err(Failure::usage(format!(
                "{branch} of {} is listed twice: one entry may cover several folders, leave out `path`",
                one.url
            )));
        }
        let namesake = |other: &&RepositoryConfig| one.name() == other.name();
        if let Some(other) = repositories.iter().skip(index + 1).find(namesake) {
            return Err(Failure::usage(format!(
                "{} and {} are both called `{}` in metrics and webhooks: give one of them another `name`",
                one.url,
                other.url,
                one.name()
            )));
        }
    }
    Ok(())
}

impl PrometheusConfig {
    /// The defaults for a server.
    pub(super) fn new(url: ServerUrl) -> Self {
        Self {
            url,
            timeout: default_timeout(),
            bearer_token_file: None,
            basic_auth: None,
            tls: None,
        }
    }

    /// The configuration, if its parts go together.
    pub(super) fn checked(self) -> Result<Self, Failure> {
        if self.bearer_token_file.is_some() && self.basic_auth.is_some() {
            return Err(Failure::usage(
                "Prometheus is given a bearer token and a password: choose one",
            ));
        }
        let secret = self.bearer_token_file.is_some() || self.basic_auth.is_some();
        if let Some(tls) = &self.tls {
            if tls.cert_file.is_some() != tls.key_file.is_some() {
                return Err(Failure::usage(
                    "a client certificate for Prometheus needs both files, certificate and key",
                ));
            }
            if !self.url.is_https() {
                return Err(Failure::usage(format!(
                    "certificates are given for {}, which is not https",
                    self.url
                )));
            }
        }
        if secret && !self.url.is_https() {
            tracing::warn!(url = %self.url, "credentials for Prometheus travel unencrypted");
        }
        Ok(self)
    }
}

/// `line:column: message`, with the nearest known name for a typo.
fn located(error: &serde_yaml::Error) -> String {
    let error = error.without_snippet();
    let (line, column) = error
        .location()
        .map_or((1, 1), |at| (at.line(), at.column()));
    // The other variants are the parser's own words, which say enough.
    let message = if let serde_yaml::Error::SerdeUnknownField {
        field, expected, ..
    } = error
    {
        match nearest(field, expected) {
            Some(name) => format!("unknown field `{field}`; did you mean `{name}`?"),
            None => format!(
                "unknown field `{field}`; known here are {}",
                expected.join(", ")
            ),
        }
    } else {
        let text = error.to_string();
        // The position is already in front.
        match text.split_once(" at line ") {
            Some((words, _)) => words.to_owned(),
            None => text,
        }
    };
    format!("{line}:{column}: {message}")
}

/// The known name that a typo most probably meant.
fn nearest<'a>(typo: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| {
            let (a, b) = (typo.to_lowercase(), name.to_lowercase());
            (strsim::damerau_levenshtein(&a, &b), *name)
        })
        .min()
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3))
        .map(|(_, name)| name)
}

fn default_poll() -> Duration {
    Duration::from_secs(30)
}

/// Forges ask for about six pushes a minute and repository.
fn default_push_interval() -> Duration {
    Duration::from_secs(10)
}

fn default_git_timeout() -> Duration {
    Duration::from_secs(60)
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

fn default_person() -> Person {
    Person {
        name: "Serin".into(),
        email: "serin@localhost".into(),
    }
}

/// A value of `parse`, from a scalar.
fn parsed<'de, D: serde::Deserializer<'de>, T>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(D::Error::custom)
}

fn remote<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Remote, D::Error> {
    parsed(d, |text| {
        text.parse()
            .map_err(|error: InvalidRemote| error.to_string())
    })
}

fn duration<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    parsed(d, values::duration)
}

fn service_account<'de, D: serde::Deserializer<'de>>(
    d: D,
) -> Result<Option<(String, String)>, D::Error> {
    parsed(d, cluster_config::service_account).map(Some)
}

pub(super) fn interval<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    parsed(d, values::interval)
}

fn path<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<RepoPath>, D::Error> {
    parsed(d, values::repo_path).map(Some)
}

fn branch<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    parsed(d, values::branch).map(Some)
}

fn name<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(d)?;
    if !name.is_empty() && name.len() <= 60 && name.chars().all(is_name) {
        return Ok(Some(name));
    }
    Err(D::Error::custom(format!(
        "`{name}` is no name: write up to 60 letters, digits, `-`, `_` or `.`"
    )))
}

/// What can stand in a path and in a label as it is.
/// Most shards of a repository: each has a copy of the branch and a watch of its own.
const MOST_SHARDS: u32 = 64;

fn one() -> u32 {
    1
}

fn shards<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    let number = u32::deserialize(d)?;
    if (1..=MOST_SHARDS).contains(&number) {
        return Ok(number);
    }
    Err(serde::de::Error::custom(format!(
        "`shards` is {number}: write 1 to {MOST_SHARDS}"
    )))
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn one_line<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    parsed(d, values::one_line).map(Some)
}

/// A person as two fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PersonFields {
    name: String,
    email: String,
}

fn person<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Person, D::Error> {
    let fields = PersonFields::deserialize(d)?;
    values::checked_person(&fields.name, &fields.email).map_err(D::Error::custom)
}

fn optional_person<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Person>, D::Error> {
    person(d).map(Some)
}

#[cfg(test)]
mod tests;
