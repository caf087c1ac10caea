//! A folder for GnuPG that holds the keys of one file and nothing else, for as long as this value lives.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::command::{Call, Git, Program};
use super::porcelain;
use super::settings::Fingerprint;
use crate::ports::RepositoryError;

/// Which half of its keys a keyring is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// To verify. No agent is started.
    Public,
    /// To sign.
    Secret,
}

/// The folder. Removed on drop, which also ends the agent that GnuPG started in it.
#[derive(Debug)]
pub(super) struct Keyring {
    folder: PathBuf,
    /// Primary keys, in the order of the file.
    pub(super) keys: Vec<Fingerprint>,
}

impl Keyring {
    /// Reads a file that `gpg --export` or `gpg --export-secret-keys` wrote into `folder`, which is emptied first.
    pub(super) async fn import(
        git: &Git,
        folder: PathBuf,
        file: &Path,
        half: Half,
        limit: Duration,
    ) -> Result<Self, RepositoryError> {
        let cannot = |why: &dyn std::fmt::Display| {
            RepositoryError::Signature(format!(
                "the keys in {} cannot be used: {why}",
                file.display()
            ))
        };
        // Kept from here on, so that it is removed whatever happens.
        let mut keyring = Self {
            folder,
            keys: Vec::new(),
        };
        keyring.make(half).map_err(|error| cannot(&error))?;
        // Reading it ourselves gives a plain message when it is not there.
        let bytes = std::fs::read(file).map_err(|error| cannot(&error))?;
        let imported = keyring
            .gpg(git, &["--quiet", "--import"], bytes, limit)
            .await?;
        if !imported.0 {
            return Err(cannot(&imported.2));
        }
        let list = match half {
            Half::Public => "--list-keys",
            Half::Secret => "--list-secret-keys",
        };
        let (_, listed, _) = keyring
            .gpg(git, &["--with-colons", list], Vec::new(), limit)
            .await?;
        keyring.keys = primary_keys(&listed, half);
        if keyring.keys.is_empty() {
            return Err(cannot(&match half {
                Half::Public => "it holds no public key",
                Half::Secret => "it holds no secret key",
            }));
        }
        Ok(keyring)
    }

    /// What `GNUPGHOME` has to be.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn make(&self, half: Half) -> std::io::Result<()> {
        remove(&self.folder)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        // Which keys are to be trusted is what the file says.
        let mut configuration = "batch\nno-tty\ntrust-model always\n".to_owned();
        if half == Half::Public {
            configuration.push_str("no-autostart\n");
        }
        std::fs::write(self.folder.join("gpg.conf"), configuration)
    }

    async fn gpg(
        &self,
        git: &Git,
        arguments: &[&str],
        input: Vec<u8>,
        limit: Duration,
    ) -> Result<(bool, String, String), RepositoryError> {
        let mut all = vec!["--pinentry-mode", "error"];
        all.extend(arguments);
        let call = Call {
            program: Program::Gpg,
            arguments: &all,
            input,
            gnupg: Some(&self.folder),
        };
        let output = git.call(call, limit).await;
        let output = output.map_err(|error| RepositoryError::Signature(error.to_string()))?;
        Ok((
            output.success,
            String::from_utf8_lossy(&output.stdout).into_owned(),
            porcelain::complaint(&output.stderr),
        ))
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        // What stays is removed before the next keys are read.
        let _ = remove(&self.folder);
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Err(_) | Ok(()) => Ok(()),
    }
}

/// The primary keys of `gpg --with-colons`: the first fingerprint after each `pub` or `sec`.
pub(super) fn primary_keys(listed: &str, half: Half) -> Vec<Fingerprint> {
    let head = match half {
        Half::Public => "pub",
        Half::Secret => "sec",
    };
    let mut keys = Vec::new();
    let mut wanted = false;
    for line in listed.lines() {
        let mut fields = line.split(':');
        match fields.next() {
            Some(kind) if kind == head => wanted = true,
            Some("fpr") if wanted => {
                wanted = false;
                keys.extend(fields.nth(8).and_then(|field| field.parse().ok()));
            }
            Some(_) | None => {}
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primary_keys_only() {
        let listed = "tru:o:1:1795562096:1:3:1:5\n\
            pub:u:255:22:A98212B547EACE3E:1795562096:::u:::scSC:::::ed25519:::0:\n\
            fpr:::::::::9B4B3821D5694FC831A5B3FFA98212B547EACE3E:\n\
            uid:u::::1795562096::CF231E43C202B685A810FF19922B3693318AECA8::A:fpr::::::::::0:\n\
            sub:u:255:18:EB53FFFF4234F0C0:1795562096::::::e:::::cv25519::\n\
            fpr:::::::::1564E42DCF579D8F44EE6268EB53FFFF4234F0C0:\n\
            pub:r:255:22:9A379F745016A40F:1795562210:::-:::sc:::::ed25519:::0:\n\
            fpr:::::::::46C34CBF11E77FBB98FB0DA39A379F745016A40F:\n";
        let keys = |half| {
            let keys = primary_keys(listed, half);
            keys.iter()
                .map(|key| key.as_str()[..4].to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(Half::Public), ["9B4B", "46C3"]);
        assert_eq!(keys(Half::Secret), Vec::<String>::new());
    }
}
