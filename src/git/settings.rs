//! What a branch is set up with. All of it is configuration; none of it is read from the repository.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::remote::Remote;
use crate::domain::{Person, RepoPath};

/// Which branch, and as whom.
#[derive(Clone)]
pub struct Settings {
    /// The repository.
    pub remote: Remote,
    /// The branch, without `refs/heads/`; `None` for the one that the remote's `HEAD` names.
    pub branch: Option<String>,
    /// The folder below which YAML is read; `None` for the whole tree.
    pub path: Option<RepoPath>,
    /// Folder of our bare copy. Created when missing, recreated when damaged; must be ours alone.
    pub local: PathBuf,
    /// Author of our commits.
    pub author: Person,
    /// Committer of our commits. By its email address they are recognised later.
    pub committer: Person,
    /// For one request to the remote; the first fetch may take longer.
    pub deadline: Duration,
    /// Take a history that somebody forced as the new truth, instead of reporting it.
    pub accept_rewritten_history: bool,
    /// How our commits are signed; `None`: not at all.
    pub sign: Option<Signing>,
    /// Whose signature the head needs; `None`: nobody's.
    pub verify: Option<Verification>,
    /// Environment of the `git` program, on top of what is passed on, such as `GIT_SSH_COMMAND`.
    pub environment: BTreeMap<String, String>,
}

/// The key that our commits are signed with. It can be used without a person: no passphrase, or an agent that knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signing {
    /// An SSH key: the file with the private one, or with the public one when the agent has the private.
    Ssh {
        /// The file.
        key: PathBuf,
    },
    /// An OpenPGP key in GnuPG's own keyring.
    OpenPgp {
        /// Which.
        key: Fingerprint,
    },
    /// An OpenPGP key exported to a file.
    OpenPgpFile {
        /// The file.
        key: PathBuf,
    },
}

/// Whose signatures are good. At least one of the first three is given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verification {
    /// SSH keys, as `ssh-keygen` has them in an `allowed_signers` file.
    pub signers: Option<PathBuf>,
    /// OpenPGP public keys, as `gpg --export` writes them.
    pub keyring: Option<PathBuf>,
    /// Only these of the keyring's keys; without a keyring, of GnuPG's own.
    pub fingerprints: BTreeSet<Fingerprint>,
    /// SSH keys that are good no more: public keys, or a list that `ssh-keygen -k` made.
    pub revoked: Option<PathBuf>,
    /// Every commit since the last verified head needs a good signature, both sides of merges included; otherwise who
    /// signs the head vouches for all below it.
    pub strict: bool,
}

/// The whole fingerprint of an OpenPGP primary key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(String);

/// Not the whole fingerprint of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a fingerprint: write all 40 hexadecimal digits that `gpg --list-keys` shows")]
pub struct InvalidFingerprint(String);

impl Fingerprint {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    /// With or without spaces between the digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let is_whole = matches!(digits.len(), 40 | 64);
        if !is_whole || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(InvalidFingerprint(text.escape_debug().to_string()));
        }
        Ok(Self(digits.to_ascii_uppercase()))
    }
}

// === impl Settings ===

impl fmt::Debug for Settings {
    /// Without the values of the environment: they may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("remote", &self.remote)
            .field("branch", &self.branch)
            .field("path", &self.path)
            .field("local", &self.local)
            .field("author", &self.author)
            .field("committer", &self.committer)
            .field("deadline", &self.deadline)
            .field("accept_rewritten_history", &self.accept_rewritten_history)
            .field("sign", &self.sign)
            .field("verify", &self.verify)
            .field("environment", &self.environment.keys())
            .finish()
    }
}

impl Settings {
    /// What the copy is a copy of.
    pub(super) fn identity(&self) -> String {
        let branch = self.branch.as_deref().unwrap_or("HEAD");
        format!("{}\n{branch}\n", self.remote)
    }

    /// The same with every path absolute: programs run in the folder of the copy.
    pub(super) fn absolute_from(mut self, here: &Path) -> Self {
        self.local = here.join(&self.local);
        self.remote = self.remote.absolute_from(here);
        match &mut self.sign {
            Some(Signing::Ssh { key } | Signing::OpenPgpFile { key }) => *key = here.join(&key),
            Some(Signing::OpenPgp { .. }) | None => {}
        }
        if let Some(verify) = &mut self.verify {
            for file in [
                &mut verify.signers,
                &mut verify.keyring,
                &mut verify.revoked,
            ] {
                *file = file.take().map(|file| here.join(file));
            }
        }
        self
    }
}
