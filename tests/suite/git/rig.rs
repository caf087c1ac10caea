//! A bare repository, people who push to it, and branches of ours that look at it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serin::domain::{CanaryId, CommitId, Person, RepoPath, Timestamp};
use serin::git::{Branch, Settings};
use serin::ports::{Draft, Published, Repository, Watch};
use tempfile::TempDir;

use crate::git_servers::{program, run};

/// Everything below one temporary folder.
pub(crate) struct Rig {
    pub(crate) folder: TempDir,
}

/// A person with a clone.
pub(crate) struct Someone {
    pub(crate) clone: PathBuf,
    home: PathBuf,
    name: String,
}

impl Rig {
    /// An empty bare repository whose `HEAD` is `main`.
    pub(crate) fn empty() -> Self {
        let rig = Self {
            folder: TempDir::new().unwrap(),
        };
        std::fs::create_dir(rig.path("home")).unwrap();
        run(program("git", &rig.path("home"))
            .args(["init", "--quiet", "--bare", "--initial-branch=main"])
            .arg(rig.remote()));
        rig.server(&["config", "http.receivepack", "true"]);
        rig
    }

    /// One with a first commit that holds these files.
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let rig = Self::empty();
        rig.someone("alexis").commit("first", files);
        rig.someone_named("alexis").push();
        rig
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn remote(&self) -> PathBuf {
        self.path("remote.git")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// Runs `git` in the bare repository.
    pub(crate) fn server(&self, arguments: &[&str]) -> String {
        run(program("git", &self.home())
            .arg("--git-dir")
            .arg(self.remote())
            .args(arguments))
    }

    pub(crate) fn head(&self) -> CommitId {
        CommitId::new(self.server(&["rev-parse", "refs/heads/main"]))
    }

    /// A file on the branch, byte for byte.
    pub(crate) fn file(&self, path: &str) -> Vec<u8> {
        program("git", &self.home())
            .arg("--git-dir")
            .arg(self.remote())
            .args(["cat-file", "blob", &format!("main:{path}")])
            .output()
            .unwrap()
            .stdout
    }

    /// A hook of the bare repository: a shell script.
    pub(crate) fn hook(&self, name: &str, script: &str) {
        let path = self.remote().join("hooks").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Clones for a new person.
    pub(crate) fn someone(&self, name: &str) -> Someone {
        let someone = self.someone_named(name);
        run(program("git", &self.home())
            .args(["clone", "--quiet"])
            .arg(self.remote())
            .arg(&someone.clone));
        someone
    }

    /// A person who has cloned before.
    pub(crate) fn someone_named(&self, name: &str) -> Someone {
        Someone {
            clone: self.path(name),
            home: self.home(),
            name: name.to_owned(),
        }
    }

    pub(crate) fn settings(&self, copy: &str) -> Settings {
        Settings {
            remote: self.remote().to_str().unwrap().parse().unwrap(),
            branch: None,
            path: None,
            local: self.path(copy),
            author: us(),
            committer: us(),
            deadline: Duration::from_secs(20),
            accept_rewritten_history: false,
            sign: None,
            verify: None,
            environment: BTreeMap::from([
                ("HOME".to_owned(), self.home().to_str().unwrap().to_owned()),
                ("GIT_CONFIG_NOSYSTEM".to_owned(), "1".to_owned()),
                ("GIT_CONFIG_GLOBAL".to_owned(), "/dev/null".to_owned()),
            ]),
        }
    }

    /// Makes files of all objects that a copy has in packs.
    pub(crate) fn unpack(&self, copy: &str) {
        let copy = self.path(copy);
        let aside = TempDir::new_in(self.folder.path()).unwrap();
        let packs = std::fs::read_dir(copy.join("objects/pack")).unwrap();
        for pack in packs.map(Result::unwrap) {
            std::fs::rename(pack.path(), aside.path().join(pack.file_name())).unwrap();
        }
        for pack in std::fs::read_dir(aside.path()).unwrap().map(Result::unwrap) {
            if pack.path().extension().is_some_and(|end| end == "pack") {
                run(program("git", &self.home())
                    .arg("--git-dir")
                    .arg(&copy)
                    .args(["unpack-objects", "-q"])
                    .stdin(std::fs::File::open(pack.path()).unwrap()));
            }
        }
    }

    pub(crate) async fn branch(&self) -> Branch {
        Branch::open(self.settings("copy")).await.unwrap()
    }
}

impl Someone {
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let email = format!("{}@example.com", self.name);
        run(program("git", &self.home)
            .arg("-C")
            .arg(&self.clone)
            .args(["-c", "commit.gpgSign=false"])
            .args(arguments)
            .env("GIT_AUTHOR_NAME", &self.name)
            .env("GIT_AUTHOR_EMAIL", &email)
            .env("GIT_COMMITTER_NAME", &self.name)
            .env("GIT_COMMITTER_EMAIL", &email))
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.clone.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Takes a file away.
    pub(crate) fn remove(&self, path: &str) {
        std::fs::remove_file(self.clone.join(path)).unwrap();
    }

    /// Commits these files on what the clone has.
    pub(crate) fn commit(&self, message: &str, files: &[(&str, &str)]) -> CommitId {
        for (path, content) in files {
            self.write(path, content);
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        CommitId::new(self.git(&["rev-parse", "HEAD"]))
    }

    pub(crate) fn pull(&self) {
        self.git(&["pull", "--quiet", "--no-rebase", "--no-edit"]);
    }

    pub(crate) fn push(&self) {
        self.git(&["push", "--quiet", "origin", "HEAD:refs/heads/main"]);
    }

    /// Puts text behind what a file holds.
    pub(crate) fn append(&self, path: &str, text: &str) {
        let content = std::fs::read_to_string(self.clone.join(path)).unwrap_or_default();
        self.write(path, content + text);
    }

    /// Replaces a text that must be in a file.
    pub(crate) fn replace(&self, path: &str, from: &str, to: &str) {
        let content = std::fs::read_to_string(self.clone.join(path)).unwrap();
        assert!(content.contains(from), "`{from}` in {path}:\n{content}");
        self.write(path, content.replace(from, to));
    }

    /// Commits on the newest head and pushes, again and again until nobody was faster. Each try edits anew.
    pub(crate) fn insist(&self, message: &str, edit: &dyn Fn()) -> CommitId {
        for _ in 0..50 {
            self.git(&["fetch", "--quiet", "origin"]);
            self.git(&["reset", "--quiet", "--hard", "origin/main"]);
            edit();
            let commit = self.commit(message, &[]);
            let pushed = program("git", &self.home)
                .arg("-C")
                .arg(&self.clone)
                .args(["push", "--quiet", "origin", "HEAD:refs/heads/main"])
                .output()
                .unwrap();
            if pushed.status.success() {
                return commit;
            }
        }
        panic!("{} never got a push through", self.name);
    }

    pub(crate) fn force(&self) {
        self.git(&[
            "push",
            "--quiet",
            "--force",
            "origin",
            "HEAD:refs/heads/main",
        ]);
    }
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

pub(crate) fn canary(name: &str) -> CanaryId {
    CanaryId::new("test", name)
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

/// A step of a canary that writes one file of its folder.
pub(crate) fn step(name: &str, second: i64, content: &str) -> Draft {
    draft(
        name,
        second,
        &[(&format!("{name}.serin/rollout.yaml"), Some(content))],
    )
}

pub(crate) fn draft(name: &str, second: i64, changes: &[(&str, Option<&str>)]) -> Draft {
    Draft {
        canary: canary(name),
        message: format!("canary(test/{name}): step\n\nBecause.\n\nSerin-Canary: test/{name}\n"),
        changes: changes
            .iter()
            .map(|(p, content)| (path(p), content.map(|c| c.as_bytes().into())))
            .collect(),
        at: at(second),
    }
}

pub(crate) fn watch(name: &str, inputs: &[&str]) -> Watch {
    Watch {
        canary: canary(name),
        folder: path(&format!("{name}.serin")),
        inputs: inputs.iter().map(|p| path(p)).collect(),
    }
}

/// Fetches and publishes one step on what is there.
pub(crate) async fn publish(branch: &mut Branch, draft: Draft) -> CommitId {
    let head = branch.fetch().await.unwrap().commit.unwrap();
    accepted(branch.publish(&head, vec![draft]).await.unwrap())
}

/// The last commit of an accepted push.
pub(crate) fn accepted(published: Published) -> CommitId {
    match published {
        Published::Accepted(commits) => commits.last().unwrap().clone(),
        Published::LostRace | Published::Refused(_) => panic!("{published:?}"),
    }
}

/// Whether a file is on disk below a folder, for clean-up checks.
pub(crate) fn exists(folder: &Path, name: &str) -> bool {
    folder.join(name).exists()
}
