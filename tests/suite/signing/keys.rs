//! Keys made by the programs that people use, in folders of their own.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serin::domain::CommitId;
use serin::git::{Fingerprint, Settings};

use crate::git::rig::Rig;
use crate::git_servers::{program, run};

/// A pair of SSH keys without a passphrase; the path of the private one.
pub(crate) fn ssh_key(rig: &Rig, name: &str) -> PathBuf {
    ssh_key_with(rig, name, "")
}

/// The same with a passphrase.
pub(super) fn ssh_key_with(rig: &Rig, name: &str, passphrase: &str) -> PathBuf {
    let key = rig.path(name);
    run(program("ssh-keygen", &rig.home())
        .args(["-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f"])
        .arg(&key));
    key
}

/// The file with the public half.
pub(super) fn public(key: &Path) -> PathBuf {
    key.with_extension("pub")
}

/// A line of an `allowed_signers` file.
pub(super) fn signer(key: &Path, options: &str) -> String {
    let public = std::fs::read_to_string(public(key)).unwrap();
    format!(
        "{}@example.com {options} {public}",
        key.file_name().unwrap().to_str().unwrap()
    )
}

/// An `allowed_signers` file with these keys.
pub(crate) fn signers(rig: &Rig, keys: &[&Path]) -> PathBuf {
    let file = rig.path("allowed_signers");
    let lines: String = keys.iter().map(|key| signer(key, "")).collect();
    std::fs::write(&file, lines).unwrap();
    file
}

/// A folder of GnuPG with its agent, which ends with this value.
pub(super) struct Gnupg {
    pub(super) folder: PathBuf,
}

impl Gnupg {
    pub(super) fn new(rig: &Rig, name: &str) -> Self {
        let folder = rig.path(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .unwrap();
        Self { folder }
    }

    pub(super) fn gpg(&self, arguments: &[&str]) -> String {
        run(program("gpg", &self.folder)
            .env("GNUPGHOME", &self.folder)
            .args([
                "--batch",
                "--quiet",
                "--no-tty",
                "--pinentry-mode",
                "loopback",
                "--passphrase",
                "",
            ])
            .args(arguments))
    }

    /// Makes a key.
    pub(super) fn key(&self, who: &str, expires: &str) -> Fingerprint {
        self.gpg(&["--quick-generate-key", who, "ed25519", "sign", expires]);
        self.gpg(&["--with-colons", "--list-keys", &format!("={who}")])
            .lines()
            .find_map(|line| {
                line.strip_prefix("fpr:::::::::")?
                    .strip_suffix(':')?
                    .parse()
                    .ok()
            })
            .unwrap()
    }

    /// Writes public keys to a file.
    pub(super) fn export(&self, file: &Path, keys: &[&Fingerprint]) {
        let mut arguments = vec!["--armor", "--export"];
        arguments.extend(keys.iter().map(|key| key.as_str()));
        std::fs::write(file, self.gpg(&arguments) + "\n").unwrap();
    }

    /// Writes a secret key to a file.
    pub(super) fn export_secret(&self, file: &Path, key: &Fingerprint) {
        let text = self.gpg(&["--armor", "--export-secret-keys", key.as_str()]);
        std::fs::write(file, text + "\n").unwrap();
    }
}

impl Drop for Gnupg {
    fn drop(&mut self) {
        let _ = program("gpgconf", &self.folder)
            .env("GNUPGHOME", &self.folder)
            .args(["--kill", "all"])
            .output();
    }
}

/// An agent of OpenSSH that holds one key; it ends with this value.
pub(super) struct SshAgent {
    process: std::process::Child,
    pub(super) socket: PathBuf,
}

impl SshAgent {
    pub(super) fn with(rig: &Rig, key: &Path) -> Self {
        let socket = rig.path("agent");
        let process = program("ssh-agent", &rig.home())
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..200 {
            if socket.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        run(program("ssh-add", &rig.home())
            .env("SSH_AUTH_SOCK", &socket)
            .arg("-q")
            .arg(key));
        Self { process, socket }
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The settings with one more variable for the programs.
pub(super) fn with_variable(mut settings: Settings, name: &str, value: &Path) -> Settings {
    let value = value.to_str().unwrap().to_owned();
    settings.environment.insert(name.to_owned(), value);
    settings
}

/// How `git` has to be set up to sign as somebody.
#[derive(Clone)]
pub(super) enum As<'a> {
    Nobody,
    Ssh(&'a Path),
    OpenPgp(&'a Gnupg, &'a Fingerprint),
}

/// A commit of a person on what the branch has, pushed.
pub(super) fn push(rig: &Rig, who: &As<'_>, file: &str, content: &str) -> CommitId {
    let commit = commit(rig, who, "main", &[], file, content);
    rig.server(&["update-ref", "refs/heads/main", commit.as_str()]);
    commit
}

/// A commit of a person on a revision of the remote, with more parents if wanted; no branch is moved.
pub(super) fn commit(
    rig: &Rig,
    who: &As<'_>,
    on: &str,
    merged: &[&CommitId],
    file: &str,
    content: &str,
) -> CommitId {
    let mut variables = BTreeMap::new();
    let mut settings: Vec<String> = Vec::new();
    match who {
        As::Nobody => {}
        As::Ssh(key) => {
            settings.push("gpg.format=ssh".to_owned());
            settings.push(format!("user.signingKey={}", key.display()));
        }
        As::OpenPgp(gnupg, key) => {
            settings.push("gpg.format=openpgp".to_owned());
            settings.push(format!("user.signingKey={}", key.as_str()));
            variables.insert("GNUPGHOME", gnupg.folder.clone());
        }
    }
    let git = |arguments: &[&str]| {
        let mut git = program("git", &rig.home());
        git.arg("--git-dir").arg(rig.remote());
        for setting in &settings {
            git.args(["-c", setting]);
        }
        git.args(arguments)
            .envs(&variables)
            .env("GIT_INDEX_FILE", rig.path("index"))
            .env("GIT_AUTHOR_NAME", "alexis")
            .env("GIT_AUTHOR_EMAIL", "alexis@example.com")
            .env("GIT_COMMITTER_NAME", "alexis")
            .env("GIT_COMMITTER_EMAIL", "alexis@example.com");
        run(&mut git)
    };
    let written = rig.path("content");
    std::fs::write(&written, content).unwrap();
    let blob = git(&["hash-object", "-w", written.to_str().unwrap()]);
    git(&["read-tree", on]);
    git(&[
        "update-index",
        "--add",
        "--cacheinfo",
        &format!("100644,{blob},{file}"),
    ]);
    let tree = git(&["write-tree"]);
    let on = git(&["rev-parse", on]);
    let mut arguments = vec!["commit-tree", &tree, "-m", "a change", "-p", &on];
    for parent in merged {
        arguments.extend(["-p", parent.as_str()]);
    }
    if !matches!(who, As::Nobody) {
        arguments.push("-S");
    }
    CommitId::new(git(&arguments))
}

/// Whether `git verify-commit` accepts a commit of the remote by these keys.
pub(super) fn verifies(
    rig: &Rig,
    commit: &str,
    signers: Option<&Path>,
    gnupg: Option<&Path>,
) -> bool {
    let mut git = program("git", &rig.home());
    git.arg("--git-dir").arg(rig.remote());
    if let Some(signers) = signers {
        git.args([
            "-c",
            &format!("gpg.ssh.allowedSignersFile={}", signers.display()),
        ]);
    }
    if let Some(gnupg) = gnupg {
        git.env("GNUPGHOME", gnupg);
    }
    let output = git.args(["verify-commit", commit]).output().unwrap();
    output.status.success()
}
