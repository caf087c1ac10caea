//! The real `serin` as a process of its own: `serin run` until it is stopped, other commands to their end.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::git_servers::program;

/// A running `serin run`; it and what it started end when this is dropped.
pub(crate) struct Serin {
    child: Child,
    log: PathBuf,
    /// Where its own part of the log begins.
    from: usize,
}

/// How to start one.
pub(crate) struct Start {
    command: Command,
    log: PathBuf,
}

/// `serin` with nothing of this machine's configuration.
pub(crate) fn serin(home: &Path) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_serin"), home);
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("NO_COLOR", "1");
    command
}

/// Runs a command to its end, however that is.
pub(crate) fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"))
}

impl Start {
    /// `serin run` on a repository, with its copy in a folder beside its log.
    pub(crate) fn new(folder: &Path, name: &str, repository: &str, prometheus: &str) -> Self {
        let home = folder.join("home");
        std::fs::create_dir_all(&home).unwrap();
        let mut command = serin(&home);
        command
            .args(["run", "--cluster", "none"])
            .args(["--repo", repository, "--prometheus", prometheus])
            .arg("--cache-dir")
            .arg(folder.join(format!("{name}-cache")));
        Self {
            command,
            log: folder.join(format!("{name}.log")),
        }
    }

    /// `serin run` with a configuration file.
    pub(crate) fn with_config(folder: &Path, name: &str, config: &Path) -> Self {
        let home = folder.join("home");
        std::fs::create_dir_all(&home).unwrap();
        let mut command = serin(&home);
        command.arg("run").arg("--config").arg(config);
        let system = "/usr/local/bin:/usr/bin:/bin";
        let path = format!("{}:{system}", crate::rig::kubectl_folder());
        command.env("PATH", path);
        command
            .arg("--cache-dir")
            .arg(folder.join(format!("{name}-cache")));
        Self {
            command,
            log: folder.join(format!("{name}.log")),
        }
    }

    pub(crate) fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it as the leader of a process group, logging behind what an earlier one wrote.
    pub(crate) fn start(&mut self) -> Serin {
        use std::os::unix::process::CommandExt as _;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        let from = usize::try_from(log.metadata().unwrap().len()).unwrap();
        let child = self
            .command
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        Serin {
            child,
            log: self.log.clone(),
            from,
        }
    }
}

impl Serin {
    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        let all = std::fs::read(&self.log).unwrap();
        String::from_utf8_lossy(&all[self.from..]).into_owned()
    }

    /// Waits until the log holds a text.
    pub(crate) fn says(&mut self, text: &str) {
        for _ in 0..1200 {
            if self.log().contains(text) {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!(
                    "serin ended ({status}) before it said `{text}`:\n{}",
                    self.log()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("serin never said `{text}`:\n{}", self.log());
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Stops it as a debugger does: it does not run, and does not know of it.
    pub(crate) fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    /// Lets it run on.
    pub(crate) fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    /// Asks it to end, and waits for it.
    pub(crate) fn stop(mut self) -> ExitStatus {
        kill_process(self.pid(), Signal::TERM).unwrap();
        for _ in 0..1200 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("serin does not stop when it is asked to:\n{}", self.log());
    }
}

impl Drop for Serin {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("serin said:\n{}", self.log());
        }
        // It may have ended already.
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
