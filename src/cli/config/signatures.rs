//! The part of the configuration about signatures: the key to sign with, and whose signatures are good.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cli::failure::Failure;
use crate::git::{Fingerprint, Signing, Verification};

/// Kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum KeyFormat {
    /// A key of OpenSSH.
    #[default]
    Ssh,
    /// A key of GnuPG.
    #[value(name = "openpgp")]
    OpenPgp,
}

/// How commits are signed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(in crate::cli) struct SignConfig {
    /// Kind of the key.
    #[serde(default)]
    pub(in crate::cli) format: KeyFormat,
    /// A file, or the fingerprint of an OpenPGP key in GnuPG's keyring.
    pub(in crate::cli) key: String,
}

/// Whose signature the head of the branch needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(in crate::cli) struct VerifyConfig {
    /// SSH keys: an `allowed_signers` file.
    #[serde(default)]
    pub(in crate::cli) signers: Option<PathBuf>,
    /// OpenPGP keys: what `gpg --export` wrote.
    #[serde(default)]
    pub(in crate::cli) keyring: Option<PathBuf>,
    /// Only these OpenPGP keys.
    #[serde(default, deserialize_with = "fingerprints")]
    pub(in crate::cli) fingerprints: Vec<Fingerprint>,
    /// SSH keys that are good no more.
    #[serde(default)]
    pub(in crate::cli) revoked: Option<PathBuf>,
    /// Every commit, not only the head.
    #[serde(default)]
    pub(in crate::cli) strict: bool,
}

impl SignConfig {
    /// The key in the words of the layer below.
    pub(in crate::cli) fn signing(&self) -> Signing {
        let key = PathBuf::from(&self.key);
        match (self.format, self.key.parse::<Fingerprint>()) {
            (KeyFormat::Ssh, _) => Signing::Ssh { key },
            (KeyFormat::OpenPgp, Ok(key)) => Signing::OpenPgp { key },
            (KeyFormat::OpenPgp, Err(_)) => Signing::OpenPgpFile { key },
        }
    }

    /// The key, if it is there.
    fn checked(&self) -> Result<(), Failure> {
        match self.signing() {
            Signing::Ssh { key } | Signing::OpenPgpFile { key } => readable(&key, "sign with"),
            Signing::OpenPgp { .. } => Ok(()),
        }
    }
}

impl VerifyConfig {
    /// The same in the words of the layer below.
    pub(in crate::cli) fn verification(&self) -> Verification {
        Verification {
            signers: self.signers.clone(),
            keyring: self.keyring.clone(),
            fingerprints: self.fingerprints.iter().cloned().collect(),
            revoked: self.revoked.clone(),
            strict: self.strict,
        }
    }

    fn checked(&self) -> Result<(), Failure> {
        if self.signers.is_none() && self.keyring.is_none() && self.fingerprints.is_empty() {
            return Err(Failure::usage(
                "nobody's signature would be good: `verify` needs `signers` for SSH keys, or `keyring` or `fingerprints` for OpenPGP keys",
            ));
        }
        if self.revoked.is_some() && self.signers.is_none() {
            return Err(Failure::usage(
                "`revoked` is about SSH keys, but there are no `signers`",
            ));
        }
        for file in [&self.signers, &self.keyring, &self.revoked]
            .into_iter()
            .flatten()
        {
            readable(file, "verify with")?;
        }
        Ok(())
    }
}

/// Refuses what could not work, before anything is started.
pub(super) fn check(
    sign: Option<&SignConfig>,
    verify: Option<&VerifyConfig>,
) -> Result<(), Failure> {
    if let Some(sign) = sign {
        sign.checked()?;
    }
    if let Some(verify) = verify {
        if sign.is_none() {
            return Err(Failure::usage(
                "the head has to be signed, but Serin's own commits would not be: give `sign` a key, and add it to the allowed ones",
            ));
        }
        verify.checked()?;
    }
    Ok(())
}

fn readable(file: &Path, what: &str) -> Result<(), Failure> {
    std::fs::File::open(file).map(drop).map_err(|error| {
        Failure::usage(format!(
            "the key to {what} cannot be read: {}: {error}",
            file.display()
        ))
    })
}

fn fingerprints<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<Fingerprint>, D::Error> {
    Vec::<String>::deserialize(d)?
        .iter()
        .map(|text| text.parse().map_err(serde::de::Error::custom))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_file_or_a_fingerprint() {
        let signing = |format, key: &str| {
            SignConfig {
                format,
                key: key.to_owned(),
            }
            .signing()
        };
        let spaced = "9B4B 3821 D569 4FC8 31A5 B3FF A982 12B5 47EA CE3E";
        assert!(matches!(
            signing(KeyFormat::OpenPgp, spaced),
            Signing::OpenPgp { .. }
        ));
        for key in ["keys/serin.asc", "9B4B3821", "serin@example.com"] {
            assert!(
                matches!(
                    signing(KeyFormat::OpenPgp, key),
                    Signing::OpenPgpFile { .. }
                ),
                "{key}"
            );
        }
        assert!(matches!(
            signing(KeyFormat::Ssh, spaced),
            Signing::Ssh { .. }
        ));
    }
}
