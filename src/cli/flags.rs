//! Groups of flags that several commands share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::config::{
    BasicAuth, KeyFormat, PrometheusConfig, RepositoryConfig, SignConfig, Tls, VerifyConfig,
};
use super::failure::Failure;
use super::output::Format;
use super::values::{self, Unshown};
use crate::domain::{Person, RepoPath};
use crate::git::Fingerprint;

/// Which branch of which remote to work on, and in whose name.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Repository")]
pub(super) struct RepositoryFlags {
    /// Repository to read and to push to: a URL, user@host:path, or a folder.
    ///
    /// Everything that works for `git` works here: credential helpers, SSH configuration, proxies.
    #[arg(long, value_name = "URL", env = "SERIN_REPO", hide_env_values = true)]
    pub(super) repo: Option<Unshown>,
    /// Branch; the remote's default branch when left out.
    #[arg(long, value_name = "BRANCH", env = "SERIN_BRANCH", value_parser = values::branch)]
    pub(super) branch: Option<String>,
    /// Folder inside the repository to look at; the whole tree when left out.
    #[arg(long, value_name = "FOLDER", env = "SERIN_PATH", value_parser = values::repo_path)]
    pub(super) path: Option<RepoPath>,
    /// Author of the commits.
    #[arg(long, value_name = "NAME <EMAIL>", env = "SERIN_AUTHOR", value_parser = values::person)]
    pub(super) author: Option<Person>,
    /// Committer of the commits; the author when left out.
    #[arg(long, value_name = "NAME <EMAIL>", env = "SERIN_COMMITTER", value_parser = values::person)]
    pub(super) committer: Option<Person>,
    /// Longest time for one request to the remote [default: 1m].
    #[arg(long, value_name = "TIME", env = "SERIN_GIT_TIMEOUT", value_parser = values::interval)]
    pub(super) git_timeout: Option<Duration>,
    /// Take a branch that somebody rewrote as the new truth, instead of holding.
    #[arg(long, env = "SERIN_ACCEPT_REWRITTEN_HISTORY", value_parser = FalseyValueParser::new())]
    pub(super) accept_rewritten_history: bool,
    /// Folder for bare copies of the repositories [default: serin in the user's cache folder].
    #[arg(long, value_name = "DIR", env = "SERIN_CACHE_DIR")]
    pub(super) cache_dir: Option<PathBuf>,
    /// Text that each commit message carries to keep other CI quiet, like `[skip ci]`.
    #[arg(long, value_name = "TEXT", env = "SERIN_SKIP_CI", value_parser = values::one_line)]
    pub(super) skip_ci: Option<String>,
    #[command(flatten)]
    pub(super) signatures: SignatureFlags,
}

/// The key to sign with, and whose signatures are good.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Signatures")]
pub(super) struct SignatureFlags {
    /// Key to sign commits with: a file without a passphrase, the public half of a key that the SSH agent has, or the
    /// fingerprint of a key in GnuPG's keyring.
    #[arg(long, value_name = "KEY", env = "SERIN_SIGN_KEY")]
    pub(super) sign_key: Option<String>,
    /// Kind of that key [default: ssh].
    #[arg(
        long,
        value_name = "FORMAT",
        env = "SERIN_SIGN_FORMAT",
        value_enum,
        requires = "sign_key"
    )]
    pub(super) sign_format: Option<KeyFormat>,
    /// Nothing moves unless the head is signed by an SSH key of this `allowed_signers` file.
    #[arg(long, value_name = "FILE", env = "SERIN_VERIFY_SIGNERS")]
    pub(super) verify_signers: Option<PathBuf>,
    /// Or by an OpenPGP key of this file, which `gpg --export` wrote.
    #[arg(long, value_name = "FILE", env = "SERIN_VERIFY_KEYRING")]
    pub(super) verify_keyring: Option<PathBuf>,
    /// Only by OpenPGP keys with these fingerprints; without --verify-keyring, keys of GnuPG's own keyring.
    #[arg(
        long,
        value_name = "FINGERPRINT",
        env = "SERIN_VERIFY_FINGERPRINT",
        value_delimiter = ','
    )]
    pub(super) verify_fingerprint: Vec<Fingerprint>,
    /// SSH keys that are good no more: public keys, or a list that `ssh-keygen -k` made.
    #[arg(long, value_name = "FILE", env = "SERIN_VERIFY_REVOKED")]
    pub(super) verify_revoked: Option<PathBuf>,
    /// Every commit since the last verified head needs such a signature, both sides of merges included.
    #[arg(long, env = "SERIN_VERIFY_STRICT", value_parser = FalseyValueParser::new())]
    pub(super) verify_strict: bool,
}

impl SignatureFlags {
    /// Puts what was given over `config`.
    fn refine(self, config: &mut RepositoryConfig) {
        if let Some(key) = self.sign_key {
            let format = self.sign_format.unwrap_or_default();
            config.sign = Some(SignConfig { format, key });
        }
        let given = VerifyConfig {
            signers: self.verify_signers,
            keyring: self.verify_keyring,
            fingerprints: self.verify_fingerprint,
            revoked: self.verify_revoked,
            strict: self.verify_strict,
        };
        if given == VerifyConfig::default() {
            return;
        }
        let known = config.verify.take().unwrap_or_default();
        config.verify = Some(VerifyConfig {
            signers: given.signers.or(known.signers),
            keyring: given.keyring.or(known.keyring),
            fingerprints: if given.fingerprints.is_empty() {
                known.fingerprints
            } else {
                given.fingerprints
            },
            revoked: given.revoked.or(known.revoked),
            strict: given.strict || known.strict,
        });
    }
}

impl RepositoryFlags {
    /// Whether a flag besides `--repo` was given.
    pub(super) fn is_refinement(&self) -> bool {
        self.branch.is_some()
            || self.path.is_some()
            || self.author.is_some()
            || self.committer.is_some()
            || self.skip_ci.is_some()
            || self.git_timeout.is_some()
            || self.accept_rewritten_history
            || self.signatures != SignatureFlags::default()
    }

    /// Puts what was given over `config`.
    pub(super) fn refine(&self, config: &mut RepositoryConfig) {
        let Self {
            repo: _,
            branch,
            path,
            author,
            committer,
            skip_ci,
            git_timeout,
            accept_rewritten_history,
            cache_dir: _,
            signatures,
        } = self.clone();
        signatures.refine(config);
        config.branch = branch.or(config.branch.take());
        config.path = path.or(config.path.take());
        if let Some(author) = author {
            config.author = author;
        }
        config.committer = committer.or(config.committer.take());
        config.skip_ci = skip_ci.or(config.skip_ci.take());
        config.timeout = git_timeout.unwrap_or(config.timeout);
        config.accept_rewritten_history |= accept_rewritten_history;
    }
}

/// Where Prometheus is, and how to be let in.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Prometheus")]
pub(super) struct PrometheusFlags {
    /// Prometheus to ask how a candidate does, like `http://prometheus:9090`.
    #[arg(
        long,
        value_name = "URL",
        env = "SERIN_PROMETHEUS",
        hide_env_values = true
    )]
    pub(super) prometheus: Option<Unshown>,
    /// Longest time for one answer [default: 10s].
    #[arg(long, value_name = "TIME", env = "SERIN_PROMETHEUS_TIMEOUT", value_parser = values::interval)]
    pub(super) prometheus_timeout: Option<Duration>,
    /// File with a bearer token.
    #[arg(
        long,
        value_name = "FILE",
        env = "SERIN_PROMETHEUS_TOKEN_FILE",
        conflicts_with = "prometheus_user"
    )]
    pub(super) prometheus_token_file: Option<PathBuf>,
    /// User name for HTTP basic authentication.
    #[arg(
        long,
        value_name = "NAME",
        env = "SERIN_PROMETHEUS_USER",
        requires = "prometheus_password_file"
    )]
    pub(super) prometheus_user: Option<String>,
    /// File with the password for HTTP basic authentication.
    #[arg(
        long,
        value_name = "FILE",
        env = "SERIN_PROMETHEUS_PASSWORD_FILE",
        requires = "prometheus_user"
    )]
    pub(super) prometheus_password_file: Option<PathBuf>,
    /// PEM file with authorities to trust, besides the system's.
    #[arg(long, value_name = "FILE", env = "SERIN_PROMETHEUS_CA_FILE")]
    pub(super) prometheus_ca_file: Option<PathBuf>,
    /// PEM file with a client certificate.
    #[arg(
        long,
        value_name = "FILE",
        env = "SERIN_PROMETHEUS_CERT_FILE",
        requires = "prometheus_key_file"
    )]
    pub(super) prometheus_cert_file: Option<PathBuf>,
    /// PEM file with the key of the client certificate.
    #[arg(
        long,
        value_name = "FILE",
        env = "SERIN_PROMETHEUS_KEY_FILE",
        requires = "prometheus_cert_file"
    )]
    pub(super) prometheus_key_file: Option<PathBuf>,
}

impl PrometheusFlags {
    /// What was given, over what the file says. Another server gets none of the file's credentials.
    pub(super) fn over(&self, file: Option<PrometheusConfig>) -> Result<PrometheusConfig, Failure> {
        let given = self.clone();
        let url = given.prometheus.map(|url| url.read()).transpose()?;
        let mut config = match (url, file) {
            (Some(url), Some(file)) if url == file.url => file,
            (Some(url), _) => PrometheusConfig::new(url),
            (None, Some(file)) => file,
            (None, None) => {
                return Err(Failure::usage(
                    "there is no Prometheus to ask: give --prometheus URL, or --config FILE with `prometheus`",
                ));
            }
        };
        if let Some(timeout) = given.prometheus_timeout {
            config.timeout = timeout;
        }
        if let Some(file) = given.prometheus_token_file {
            config.bearer_token_file = Some(file);
            config.basic_auth = None;
        }
        if let (Some(username), Some(password_file)) =
            (given.prometheus_user, given.prometheus_password_file)
        {
            config.basic_auth = Some(BasicAuth {
                username,
                password_file,
            });
            config.bearer_token_file = None;
        }
        let tls = Tls {
            ca_file: given.prometheus_ca_file,
            cert_file: given.prometheus_cert_file,
            key_file: given.prometheus_key_file,
        };
        if tls != Tls::default() {
            let known = config.tls.unwrap_or_default();
            config.tls = Some(Tls {
                ca_file: tls.ca_file.or(known.ca_file),
                cert_file: tls.cert_file.or(known.cert_file),
                key_file: tls.key_file.or(known.key_file),
            });
        }
        config.checked()
    }
}

/// A repository on this machine, bare or with a work tree, that is only read.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Repository")]
pub(super) struct LocalFlags {
    /// Clone to read, bare or not; nothing else is asked.
    #[arg(
        long,
        value_name = "FOLDER",
        env = "SERIN_REPO",
        default_value = ".",
        hide_env_values = true
    )]
    pub(super) repo: PathBuf,
    /// Branch, tag or commit to read.
    #[arg(
        long,
        value_name = "REVISION",
        env = "SERIN_REVISION",
        default_value = "HEAD"
    )]
    pub(super) revision: String,
    /// Folder inside the repository to look at; the whole tree when left out.
    #[arg(long, value_name = "FOLDER", env = "SERIN_PATH", value_parser = values::repo_path)]
    pub(super) path: Option<RepoPath>,
}

/// The form of the result.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct OutputFlag {
    /// Form of the result.
    #[arg(
        long,
        short,
        value_name = "FORMAT",
        env = "SERIN_OUTPUT",
        value_enum,
        default_value_t
    )]
    pub(super) output: Format,
}
