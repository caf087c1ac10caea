//! Repositories made by `git fast-import`, a stopwatch, and the report.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serin::domain::{CanaryId, CommitId, Person, RepoPath, Timestamp};
use serin::git::{Branch, Settings};
use serin::ports::{Draft, Published, Repository};
use tempfile::TempDir;

/// What was measured, line by line.
pub(crate) struct Report {
    pub(crate) is_timed: bool,
    missed: usize,
}

impl Report {
    pub(crate) fn new(is_timed: bool) -> Self {
        Self {
            is_timed,
            missed: 0,
        }
    }

    pub(crate) fn is_within_limits(&self) -> bool {
        self.missed == 0
    }

    /// A size: the real one, or a tiny one when nothing is timed.
    pub(crate) fn size(&self, real: usize) -> usize {
        if self.is_timed {
            real
        } else {
            (real / 200).max(20)
        }
    }

    /// Ours against the baseline of the same run.
    pub(crate) fn ratio(
        &mut self,
        what: &str,
        ours: Duration,
        baseline: (&str, Duration),
        limit: f64,
    ) {
        let ratio = ours.as_secs_f64() / baseline.1.as_secs_f64();
        let verdict = self.verdict(ratio <= limit);
        println!(
            "{what}: {} against {} of {}: RATIO {ratio:.2} (limit {limit}){verdict}",
            shown(ours),
            shown(baseline.1),
            baseline.0
        );
    }

    /// A figure with a limit of its own.
    pub(crate) fn limit(&mut self, what: &str, ours: Duration, limit: Duration) {
        let verdict = self.verdict(ours <= limit);
        println!("{what}: {} (limit {}){verdict}", shown(ours), shown(limit));
    }

    /// A figure without one.
    pub(crate) fn figure(&self, what: &str, ours: Duration) {
        println!("{what}: {}", shown(ours));
    }

    fn verdict(&mut self, is_within: bool) -> &'static str {
        match (self.is_timed, is_within) {
            (false, _) => " not timed",
            (true, true) => "",
            (true, false) => {
                self.missed += 1;
                " MISSED"
            }
        }
    }
}

fn shown(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// The best one: what it costs when nobody else is at work on this machine.
pub(crate) fn best(times: Vec<Duration>) -> Duration {
    times.into_iter().min().unwrap()
}

/// How long a piece of work takes.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    let value = work.await;
    (value, start.elapsed())
}

/// The same without a future.
pub(crate) fn clocked<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}

/// A bare repository below a temporary folder.
pub(crate) struct Rig {
    folder: TempDir,
}

impl Rig {
    /// One that `git fast-import` fills from what `write` says.
    pub(crate) fn import(write: impl FnOnce(&mut dyn Write)) -> Self {
        let rig = Self {
            folder: TempDir::new().unwrap(),
        };
        git(
            &rig.path("."),
            &[
                "init",
                "--quiet",
                "--bare",
                "--initial-branch=main",
                rig.remote().to_str().unwrap(),
            ],
        );
        fast_import(&rig.remote(), write);
        rig
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn remote(&self) -> PathBuf {
        self.path("remote.git")
    }

    pub(crate) fn settings(&self, copy: &str) -> Settings {
        Settings {
            remote: self.remote().to_str().unwrap().parse().unwrap(),
            branch: Some("main".to_owned()),
            path: None,
            local: self.path(copy),
            author: us(),
            committer: us(),
            deadline: Duration::from_secs(600),
            accept_rewritten_history: false,
            sign: None,
            verify: None,
            environment: BTreeMap::from([
                ("GIT_CONFIG_NOSYSTEM".to_owned(), "1".to_owned()),
                ("GIT_CONFIG_GLOBAL".to_owned(), "/dev/null".to_owned()),
            ]),
        }
    }

    /// A branch that has been fetched once, and its head.
    pub(crate) async fn branch(&self, copy: &str) -> (Branch, CommitId) {
        let mut branch = Branch::open(self.settings(copy)).await.unwrap();
        let head = branch.fetch().await.unwrap().commit.unwrap();
        (branch, head)
    }

    /// A bare clone for the baseline.
    pub(crate) fn clone(&self, name: &str) -> PathBuf {
        let clone = self.path(name);
        let (from, to) = (self.remote(), clone.clone());
        git(
            &self.path("."),
            &[
                "clone",
                "--quiet",
                "--bare",
                from.to_str().unwrap(),
                to.to_str().unwrap(),
            ],
        );
        clone
    }
}

/// Runs `git` in a folder and returns what it printed.
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> String {
    git_with(folder, arguments, b"")
}

/// The same with input.
pub(crate) fn git_with(folder: &Path, arguments: &[&str], input: &[u8]) -> String {
    let mut child = command(folder)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {arguments:?}");
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

/// Feeds `git fast-import`.
pub(crate) fn fast_import(repository: &Path, write: impl FnOnce(&mut dyn Write)) {
    let mut child = command(repository)
        .args(["fast-import", "--quiet", "--done"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = std::io::BufWriter::new(child.stdin.take().unwrap());
    write(&mut input);
    input.write_all(b"done\n").unwrap();
    drop(input.into_inner().unwrap());
    assert!(child.wait().unwrap().success());
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), us().name);
        command.env(format!("GIT_{role}_EMAIL"), us().email);
    }
    command
}

pub(crate) fn us() -> Person {
    Person {
        name: "serin".to_owned(),
        email: "serin@example.com".to_owned(),
    }
}

pub(crate) fn path(text: &str) -> RepoPath {
    RepoPath::new(text).unwrap()
}

/// A step of one canary: new content for two files of its folder.
pub(crate) fn step(folder: &str, name: &str, number: usize) -> Draft {
    let changes = [
        ("rollout.yaml", rollout(number)),
        ("virtualservice.yaml", routes(number)),
    ];
    Draft {
        canary: CanaryId::new("test", name),
        message: message(name),
        changes: changes
            .into_iter()
            .map(|(file, text)| {
                (
                    path(&format!("{folder}/{file}")),
                    Some(text.into_bytes().into()),
                )
            })
            .collect(),
        at: Timestamp::from_timestamp(1_800_000_000 + i64::try_from(number).unwrap(), 0).unwrap(),
    }
}

/// The message of a step.
pub(crate) fn message(name: &str) -> String {
    format!(
        "canary(test/{name}): 10% -> 60%\n\nThe candidate passed.\n\nSerin-Canary: test/{name}\nSerin-Weight: 10 -> 60\n"
    )
}

/// About as long as a real one.
pub(crate) fn rollout(number: usize) -> String {
    format!(
        "sequence: {number}\n{}",
        "# what a state file holds, line by line\n".repeat(20)
    )
}

/// About as long as a real one.
pub(crate) fn routes(number: usize) -> String {
    format!(
        "weight: {number}\n{}",
        "# what a VirtualService holds, line by line\n".repeat(40)
    )
}

/// One commit for `git fast-import` on the present `main`.
pub(crate) fn commit(
    to: &mut dyn Write,
    at: usize,
    by: &Person,
    message: &str,
    files: &[(String, Vec<u8>)],
    is_first: bool,
) {
    let Person { name, email } = by;
    let when = 1_700_000_000 + at * 60;
    write!(to, "commit refs/heads/main\nauthor {name} <{email}> {when} +0000\ncommitter {name} <{email}> {when} +0000\n").unwrap();
    write!(to, "data {}\n{message}\n", message.len()).unwrap();
    if at > 0 && is_first {
        to.write_all(b"from refs/heads/main^0\n").unwrap();
    }
    for (file, content) in files {
        write!(to, "M 100644 inline {file}\ndata {}\n", content.len()).unwrap();
        to.write_all(content).unwrap();
        to.write_all(b"\n").unwrap();
    }
}

/// The commits of an accepted push.
pub(crate) fn accepted(published: Published) -> Vec<CommitId> {
    match published {
        Published::Accepted(commits) => commits,
        Published::LostRace => panic!("lost a race against nobody"),
        Published::Refused(words) => panic!("{words}"),
    }
}
