//! Signing: a commit without its signature in, the signature out. The key never passes through our memory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::command::{Call, Git, Program};
use super::keyring::{Half, Keyring};
use super::porcelain;
use super::settings::Signing;
use crate::ports::RepositoryError;

/// Signs with one key.
#[derive(Debug)]
pub(super) struct Signer {
    signing: Signing,
    /// Where the keys of a file are unpacked to.
    folder: PathBuf,
    keyring: Option<Keyring>,
}

impl Signer {
    /// Reads no key yet. `local` is the folder of our copy: keys that are unpacked go beside it.
    pub(super) fn new(signing: Signing, local: &Path) -> Self {
        let mut folder = local.as_os_str().to_owned();
        folder.push(".sign");
        Self {
            signing,
            folder: folder.into(),
            keyring: None,
        }
    }

    /// Unpacks the key of a file once.
    async fn prepare(&mut self, git: &Git, limit: Duration) -> Result<(), RepositoryError> {
        let Signing::OpenPgpFile { key } = &self.signing else {
            return Ok(());
        };
        if self.keyring.is_some() && self.folder.exists() {
            return Ok(());
        }
        self.keyring = None;
        let keyring = Keyring::import(git, self.folder.clone(), key, Half::Secret, limit).await?;
        if keyring.keys.len() > 1 {
            return Err(RepositoryError::Signature(format!(
                "{} holds {} keys: export the one to sign with alone",
                key.display(),
                keyring.keys.len()
            )));
        }
        self.keyring = Some(keyring);
        Ok(())
    }

    /// The signature of a commit, as the header `gpgsig` holds it.
    pub(super) async fn sign(
        &mut self,
        git: &Git,
        commit: Vec<u8>,
        limit: Duration,
    ) -> Result<String, RepositoryError> {
        self.prepare(git, limit).await?;
        let (program, begin, whose) = match &self.signing {
            Signing::Ssh { key } => (
                Program::SshKeygen,
                "-----BEGIN SSH SIGNATURE-----",
                key.to_string_lossy().into_owned(),
            ),
            Signing::OpenPgp { key } => (
                Program::Gpg,
                "-----BEGIN PGP SIGNATURE-----",
                key.as_str().to_owned(),
            ),
            Signing::OpenPgpFile { .. } => {
                let key = self
                    .keyring
                    .as_ref()
                    .and_then(|keyring| keyring.keys.first());
                let key = key.map(|key| key.as_str().to_owned()).unwrap_or_default();
                (Program::Gpg, "-----BEGIN PGP SIGNATURE-----", key)
            }
        };
        let arguments: &[&str] = match program {
            Program::SshKeygen => &["-q", "-Y", "sign", "-n", "git", "-f", &whose],
            Program::Gpg | Program::Git => &[
                "--batch",
                "--no-tty",
                "--quiet",
                "--pinentry-mode",
                "error",
                "--local-user",
                &whose,
                "--armor",
                "--detach-sign",
            ],
        };
        let call = Call {
            program,
            arguments,
            input: commit,
            gnupg: self.keyring.as_ref().map(Keyring::folder),
        };
        let cannot =
            |why: String| RepositoryError::Signature(format!("the key {whose} cannot sign: {why}"));
        let output = git
            .call(call, limit)
            .await
            .map_err(|error| cannot(error.to_string()))?;
        let signature = String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned();
        if output.success && signature.starts_with(begin) {
            Ok(signature)
        } else {
            Err(cannot(porcelain::complaint(&output.stderr)))
        }
    }
}
