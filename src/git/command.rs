//! Starts programs, and nothing else does: `git` for the wire and for verifying, `ssh-keygen` and `gpg` for signing.
//! Arguments as values, a cleared environment, a deadline, bounded output.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use super::remote::{PROTOCOLS, Remote};

/// What is kept of each output stream; the rest is read and dropped.
const MAX_OUTPUT: usize = 1 << 20;
/// How long output may still come after `git` ended: a multiplexing `ssh` keeps the pipes open for minutes.
const AFTER_END: Duration = Duration::from_millis(500);

/// Variables that `git`, `ssh`, proxies and credential helpers need to work as they do in a shell.
const PASSED_ON: &[&str] = &[
    "ALL_PROXY",
    "DBUS_SESSION_BUS_ADDRESS",
    "GIT_ASKPASS",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_SYSTEM",
    "GIT_EXEC_PATH",
    "GIT_HTTP_LOW_SPEED_LIMIT",
    "GIT_HTTP_LOW_SPEED_TIME",
    "GIT_HTTP_USER_AGENT",
    "GIT_PROXY_COMMAND",
    "GIT_PROXY_SSL_CAINFO",
    "GIT_PROXY_SSL_CERT",
    "GIT_PROXY_SSL_KEY",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSH_VARIANT",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "GIT_SSL_CERT",
    "GIT_SSL_KEY",
    "GIT_SSL_NO_VERIFY",
    "GIT_SSL_VERSION",
    "GNUPGHOME",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "KRB5CCNAME",
    "KRB5_CONFIG",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "NO_PROXY",
    "PATH",
    "SSH_AGENT_PID",
    "SSH_ASKPASS",
    "SSH_ASKPASS_REQUIRE",
    "SSH_AUTH_SOCK",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
/// Families of variables of the credential helpers of clouds, and configuration handed over in the environment.
const PASSED_ON_PREFIXES: &[&str] = &[
    "AWS_",
    "AZURE_",
    "CLOUDSDK_",
    "GCM_",
    "GIT_CONFIG_KEY_",
    "GIT_CONFIG_VALUE_",
    "GOOGLE_",
];
const CONFIG_COUNT: &str = "GIT_CONFIG_COUNT";
/// What `ssh-keygen` and `gpg` get: where keys and agents are, nothing of `git`, no proxy, no credential.
const FOR_SIGNING: &[&str] = &[
    "DBUS_SESSION_BUS_ADDRESS",
    "GNUPGHOME",
    "HOME",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "PATH",
    "SSH_AUTH_SOCK",
    "TMPDIR",
    "USER",
    "XDG_RUNTIME_DIR",
];

/// Settings of a person that would change what a command of ours does.
const CONFIGURATION: &[(&str, &str)] = &[
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("fetch.prune", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("fetch.writeCommitGraph", "false"),
    ("gc.auto", "0"),
    ("gc.autoDetach", "false"),
    ("gpg.minTrustLevel", "undefined"),
    ("gpg.program", "gpg"),
    ("gpg.ssh.program", "ssh-keygen"),
    // Only SSH and OpenPGP keys can be allowed.
    ("gpg.x509.program", "false"),
    ("init.defaultBranch", "main"),
    ("maintenance.auto", "false"),
    ("push.followTags", "false"),
    ("push.gpgSign", "false"),
    ("push.recurseSubmodules", "no"),
    ("submodule.recurse", "false"),
];

/// What can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    /// On our bare repository.
    Git,
    /// Part of OpenSSH.
    SshKeygen,
    /// GnuPG.
    Gpg,
}

/// One run of a program.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// Which.
    pub(super) program: Program,
    /// Its arguments.
    pub(super) arguments: &'a [&'a str],
    /// What it reads from standard input.
    pub(super) input: Vec<u8>,
    /// GnuPG's folder, if not the one of the environment.
    pub(super) gnupg: Option<&'a Path>,
}

/// The `git` program, set up for one bare repository and one remote; and those that make signatures.
pub(super) struct Git {
    folder: PathBuf,
    environment: BTreeMap<OsString, OsString>,
}

/// What a run of `git` left.
#[derive(Debug)]
pub(super) struct Output {
    /// Whether the exit status is 0.
    pub(super) success: bool,
    /// At most [`MAX_OUTPUT`] bytes.
    pub(super) stdout: Vec<u8>,
    /// At most [`MAX_OUTPUT`] bytes.
    pub(super) stderr: Vec<u8>,
}

/// Why a run of `git` left nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoOutput {
    /// The program could not be started or waited for.
    #[error("failed to run {program}: {error}")]
    NotRun {
        /// Its name.
        program: &'static str,
        /// Why not.
        error: std::io::Error,
    },
    /// It did not end in time and was killed.
    #[error("{command} did not end within {} s", limit.as_secs_f32())]
    TimedOut {
        /// The program, and the verb where it has one.
        command: String,
        /// The deadline.
        limit: Duration,
    },
}

// === impl Program ===

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Git => "git",
            Self::SshKeygen => "ssh-keygen",
            Self::Gpg => "gpg",
        }
    }
}

// === impl Git ===

impl Git {
    /// `git` on the bare repository `folder`, which need not exist yet. `extra` is set on top of the environment.
    pub(super) fn new(folder: PathBuf, remote: &Remote, extra: &BTreeMap<String, String>) -> Self {
        let mut environment: BTreeMap<OsString, OsString> = std::env::vars_os()
            .filter(|(name, _)| name.to_str().is_some_and(is_passed_on))
            .collect();
        environment.extend(extra.iter().map(|(k, v)| (k.into(), v.into())));
        let configuration = CONFIGURATION
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .chain(remote.configuration());
        let given = environment
            .get(OsStr::new(CONFIG_COUNT))
            .and_then(|count| count.to_str()?.parse::<usize>().ok())
            .unwrap_or_default();
        let mut count = given;
        for (key, value) in configuration {
            environment.insert(format!("GIT_CONFIG_KEY_{count}").into(), key.into());
            environment.insert(format!("GIT_CONFIG_VALUE_{count}").into(), value.into());
            count += 1;
        }
        environment.insert(CONFIG_COUNT.into(), count.to_string().into());
        for (name, value) in [
            ("GIT_ALLOW_PROTOCOL", PROTOCOLS),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_PAGER", "cat"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("LC_ALL", "C"),
            // What a partial copy lacks is brought on request only.
            ("GIT_NO_LAZY_FETCH", "1"),
        ] {
            environment.insert(name.into(), value.into());
        }
        for (name, value) in remote.environment() {
            environment.insert(name.into(), value.into());
        }
        Self {
            folder,
            environment,
        }
    }

    /// Runs `git` with these arguments. Kills it and all that it started when it takes longer than `limit`, or when the
    /// future is dropped.
    pub(super) async fn run(
        &self,
        arguments: &[&str],
        limit: Duration,
    ) -> Result<Output, NoOutput> {
        self.run_with(arguments, Vec::new(), limit).await
    }

    /// The same with input.
    pub(super) async fn run_with(
        &self,
        arguments: &[&str],
        input: Vec<u8>,
        limit: Duration,
    ) -> Result<Output, NoOutput> {
        let call = Call {
            program: Program::Git,
            arguments,
            input,
            gnupg: None,
        };
        self.call(call, limit).await
    }

    /// The same with other keys for GnuPG than the environment's.
    pub(super) async fn run_as(
        &self,
        arguments: &[&str],
        gnupg: Option<&Path>,
        limit: Duration,
    ) -> Result<Output, NoOutput> {
        let call = Call {
            program: Program::Git,
            arguments,
            input: Vec::new(),
            gnupg,
        };
        self.call(call, limit).await
    }

    /// The same for any of the programs.
    pub(super) async fn call(&self, call: Call<'_>, limit: Duration) -> Result<Output, NoOutput> {
        let program = call.program.name();
        let not_run = |error| NoOutput::NotRun { program, error };
        let mut child = self.start(&call).map_err(not_run)?;
        let group = Group::of(&child);
        match timeout(limit, finish(&mut child, &call.input)).await {
            Ok(output) => {
                group.leave();
                output.map_err(not_run)
            }
            Err(_) => {
                drop(group);
                // Reaps it; a killed process ends at once.
                let _ = timeout(AFTER_END, child.wait()).await;
                // Settings of `-c` come before it.
                let mut words = call.arguments.iter();
                let verb = words.find(|word| !word.starts_with('-') && !word.contains('='));
                let verb = verb.filter(|_| call.program == Program::Git);
                let command = [Some(&program), verb].into_iter().flatten();
                Err(NoOutput::TimedOut {
                    command: command.copied().collect::<Vec<_>>().join(" "),
                    limit,
                })
            }
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that starts a process"
    )]
    fn start(&self, call: &Call<'_>) -> std::io::Result<Child> {
        let mut command = Command::new(call.program.name());
        command.env_clear();
        if call.program == Program::Git {
            command.arg("--git-dir").arg(&self.folder);
            command.envs(&self.environment);
        } else {
            let wanted = |name: &OsString| FOR_SIGNING.iter().any(|wanted| name == wanted);
            command.envs(self.environment.iter().filter(|(name, _)| wanted(name)));
            // Whoever would ask a person for a passphrase is told that there is nobody.
            command.envs([("SSH_ASKPASS", "false"), ("SSH_ASKPASS_REQUIRE", "force")]);
        }
        command.envs(call.gnupg.map(|folder| ("GNUPGHOME", folder)));
        command
            .args(call.arguments)
            .current_dir(&self.folder)
            .stdin(if call.input.is_empty() {
                Stdio::null()
            } else {
                Stdio::piped()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

impl fmt::Debug for Git {
    /// Names only: the values hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Git")
            .field("folder", &self.folder)
            .field("environment", &self.environment.keys())
            .finish()
    }
}

fn is_passed_on(name: &str) -> bool {
    name == CONFIG_COUNT
        || PASSED_ON.contains(&name)
        || PASSED_ON_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

async fn finish(child: &mut Child, input: &[u8]) -> std::io::Result<Output> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let pipes = (child.stdout.take(), child.stderr.take());
    let stdin = child.stdin.take();
    let status = {
        let mut reading = pin!(async {
            tokio::join!(
                feed(stdin, input),
                drain(pipes.0, &mut stdout),
                drain(pipes.1, &mut stderr)
            );
        });
        tokio::select! {
            status = child.wait() => {
                let _ = timeout(AFTER_END, &mut reading).await;
                status
            }
            () = &mut reading => child.wait().await,
        }?
    };
    Ok(Output {
        success: status.success(),
        stdout,
        stderr,
    })
}

/// Writes all and closes. A program that ends before has said why.
async fn feed(pipe: Option<ChildStdin>, input: &[u8]) {
    if let Some(mut pipe) = pipe {
        let _ = pipe.write_all(input).await;
    }
}

/// Reads to the end, so that the writer never blocks, and keeps the beginning.
async fn drain(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = [0; 8192];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let room = MAX_OUTPUT - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
}

/// A process and its children, killed when this is dropped. `git` alone would leave `git-remote-https` or `ssh` behind.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(
            child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .and_then(Pid::from_raw),
        )
    }

    /// The leader has ended by itself: its id may soon be somebody else's.
    fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Fails only when all of them have ended already.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_git_needs_is_passed_on() {
        for name in [
            "PATH",
            "HOME",
            "SSH_AUTH_SOCK",
            "https_proxy",
            "AWS_PROFILE",
            "GIT_SSH_COMMAND",
        ] {
            assert!(is_passed_on(name), "{name}");
        }
        for name in [
            "GIT_DIR",
            "GIT_WORK_TREE",
            "GIT_INDEX_FILE",
            "GIT_TRACE",
            "GIT_TRACE_CURL",
            "GIT_EDITOR",
            "GIT_CONFIG_PARAMETERS",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES",
            "KUBECONFIG",
            "LANG",
        ] {
            assert!(!is_passed_on(name), "{name}");
        }
    }

    #[test]
    fn configuration_from_the_environment_is_kept() {
        let extra = BTreeMap::from([
            (CONFIG_COUNT.to_owned(), "1".to_owned()),
            ("GIT_CONFIG_KEY_0".to_owned(), "http.proxy".to_owned()),
            ("GIT_CONFIG_VALUE_0".to_owned(), "http://proxy".to_owned()),
        ]);
        let git = Git::new("/x".into(), &"/srv/app".parse().unwrap(), &extra);
        let value = |name: &str| {
            git.environment[OsStr::new(name)]
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(value("GIT_CONFIG_KEY_0"), "http.proxy");
        assert_eq!(value("GIT_CONFIG_KEY_1"), "core.hooksPath");
        assert_eq!(value(CONFIG_COUNT), (CONFIGURATION.len() + 2).to_string());
        assert_eq!(value("LC_ALL"), "C");
    }

    #[test]
    fn debug_shows_no_values() {
        let git = Git::new(
            "/x".into(),
            &"https://me:hunter2@example.com/x".parse().unwrap(),
            &BTreeMap::from([("GIT_SSH_COMMAND".to_owned(), "hush".to_owned())]),
        );
        let debug = format!("{git:?}");
        assert!(debug.contains("SERIN_GIT_PASSWORD"), "{debug}");
        assert!(
            !debug.contains("hunter2") && !debug.contains("hush"),
            "{debug}"
        );
    }
}
