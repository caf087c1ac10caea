//! `serin demo`: the program runs the story, and the log of the repository that it leaves tells it again, alone.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use serin::record::message::{self, Recorded};
use tempfile::TempDir;

use crate::git_servers::{program, run};

/// One run for all tests that only look at what it left.
static TOLD: LazyLock<Told> = LazyLock::new(Told::new);

struct Told {
    folder: TempDir,
    output: Output,
}

/// A commit as the log has it.
struct Entry {
    id: String,
    author: String,
    committed: i64,
    subject: String,
    recorded: Option<Recorded>,
}

fn serin(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_serin"));
    command
        .args(["demo", "--dir"])
        .arg(folder)
        .stdin(Stdio::null());
    command
}

impl Told {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let output = serin(&folder.path().join("new/demo"))
            .arg("--fast")
            .output()
            .unwrap();
        Self { folder, output }
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("new/demo/apps.git")
    }

    fn git(&self, arguments: &[&str]) -> String {
        run(program("git", self.folder.path())
            .arg("-C")
            .arg(self.repository())
            .args(arguments))
    }

    /// Oldest first.
    fn log(&self) -> Vec<Entry> {
        let format = "--format=%H%x1f%an%x1f%ct%x1f%s%x1f%B%x1e";
        let log = self.git(&["log", "--reverse", format, "main"]);
        log.split('\x1e')
            .map(str::trim_start)
            .filter(|entry| !entry.is_empty())
            .map(|entry| {
                let parts: Vec<&str> = entry.split('\x1f').collect();
                Entry {
                    id: parts[0].to_owned(),
                    author: parts[1].to_owned(),
                    committed: parts[2].parse().unwrap(),
                    subject: parts[3].to_owned(),
                    recorded: message::parse(parts[4]),
                }
            })
            .collect()
    }

    fn generated(&self, commit: &str, name: &str) -> serde_json::Value {
        let path = format!("{commit}:apps/podinfo/podinfo.serin/{name}");
        serde_yaml::from_str(&self.git(&["show", &path])).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_log_tells_the_story() {
    let told = &*TOLD;
    assert!(
        told.output.status.success(),
        "{}",
        text(&told.output.stderr)
    );
    let lines: Vec<String> = told
        .log()
        .iter()
        .map(|entry| format!("{:<6} {}", entry.author, entry.subject))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    dana   Add podinfo 6.8.0 and its Canary
    Serin  canary(test/podinfo): initialize
    alexis Propose podinfo 6.9.0, and let me try it first
    Serin  canary(test/podinfo): start podinfod=6.9.0
    Serin  canary(test/podinfo): 0% -> 10%
    Serin  canary(test/podinfo): 10% -> 60%
    Serin  canary(test/podinfo): 60% -> 100%
    Serin  canary(test/podinfo): promote podinfod=6.9.0
    Serin  canary(test/podinfo): return 100% -> 0%
    Serin  canary(test/podinfo): finish podinfod=6.9.0
    dana   Propose podinfo 6.10.0
    Serin  canary(test/podinfo): start podinfod=6.10.0
    Serin  canary(test/podinfo): 0% -> 10%
    Serin  canary(test/podinfo): roll back 10% -> 0%
    Serin  canary(test/podinfo): finish podinfod=6.10.0
    ");
}

#[test]
fn every_step_has_its_evidence_in_trailers() {
    let mut weight = 0;
    let mut judged = 0;
    for entry in TOLD.log() {
        let Some(recorded) = entry.recorded else {
            assert_ne!(entry.author, "Serin", "{}", entry.subject);
            continue;
        };
        assert_eq!(entry.author, "Serin");
        let (from, to) = recorded.weight.unwrap();
        assert_eq!(from, weight, "{}", entry.subject);
        weight = to;
        assert!(recorded.cause.is_some(), "{}", entry.subject);
        let verdict = recorded.verdict.as_deref();
        if to > from && from > 0 {
            assert_eq!(verdict, Some("pass"), "{}", entry.subject);
        }
        if entry.subject.contains("roll back") {
            assert_eq!(verdict, Some("fail"));
            assert!(
                recorded.metrics[0].contains("success-rate value=8"),
                "{:?}",
                recorded.metrics
            );
        }
        if verdict == Some("pass") || verdict == Some("fail") {
            judged += 1;
            for metric in &recorded.metrics {
                for part in ["value=", "threshold=", "samples=", "window=", "query=\""] {
                    assert!(metric.contains(part), "{metric}");
                }
            }
            assert_eq!(recorded.metrics.len(), 2, "{}", entry.subject);
        }
    }
    assert_eq!(judged, 4, "10 -> 60, 60 -> 100, promote, roll back");
}

#[test]
fn people_are_named_as_causes() {
    let log = TOLD.log();
    let causes: Vec<String> = log
        .iter()
        .filter_map(|entry| entry.recorded.as_ref()?.cause.clone())
        .filter(|cause| cause.starts_with("person: "))
        .map(|cause| cause.split(" in ").next().unwrap().to_owned())
        .collect();
    assert_eq!(
        causes,
        [
            "person: dana <dana@example.com>",
            "person: alexis <alexis@example.com>",
            "person: dana <dana@example.com>"
        ]
    );
}

#[test]
fn the_named_user_has_a_route_of_her_own_as_long_as_there_is_a_candidate() {
    let told = &*TOLD;
    let mut with = 0;
    for entry in told.log() {
        let Some(recorded) = &entry.recorded else {
            continue;
        };
        let service = told.generated(&entry.id, "virtualservice.yaml");
        let routes = service["spec"]["http"].as_array().unwrap();
        let weighted = routes.last().unwrap()["route"].as_array().unwrap();
        let canary: u64 = weighted
            .iter()
            .filter(|to| to["destination"]["subset"] == "canary")
            .map(|to| to["weight"].as_u64().unwrap())
            .sum();
        assert_eq!(
            canary,
            u64::from(recorded.weight.unwrap().1),
            "{}",
            entry.subject
        );
        if routes.len() == 2 {
            with += 1;
            let exact = &routes[0]["match"][0]["headers"]["x-user"]["exact"];
            assert_eq!(exact, "alexis", "{}", entry.subject);
            assert_eq!(routes[0]["route"][0]["destination"]["subset"], "canary");
            assert_eq!(routes[0]["timeout"], "5s");
        }
    }
    assert!(with >= 6, "start, three steps, promote; start, one step");
}

#[test]
fn promotion_changed_one_line_and_the_bad_release_none() {
    let told = &*TOLD;
    let first = told.log()[0].id.clone();
    let diff = told.git(&[
        "diff",
        "--unified=0",
        &first,
        "main",
        "--",
        "apps/podinfo/podinfo.yaml",
    ]);
    let changed: Vec<&str> = diff
        .lines()
        .filter(|line| {
            line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---")
        })
        .map(str::trim_end)
        .collect();
    assert_eq!(
        changed,
        [
            "-        image: ghcr.io/stefanprodan/podinfo:6.8.0 # promotion edits this and nothing else",
            "+        image: ghcr.io/stefanprodan/podinfo:6.9.0 # promotion edits this and nothing else",
        ]
    );
    let state = told.git(&["show", "main:apps/podinfo/podinfo.serin/rollout.yaml"]);
    assert!(state.contains("phase: Failed"), "{state}");
}

#[test]
fn times_go_forward_and_end_about_now() {
    let times: Vec<i64> = TOLD.log().iter().map(|entry| entry.committed).collect();
    assert!(times.is_sorted(), "{times:?}");
    let length = times.last().unwrap() - times[0];
    assert!((180..900).contains(&length), "{length} s");
}

#[test]
fn nothing_but_a_sound_repository_is_left() {
    let told = &*TOLD;
    let folder = told.repository();
    let names: Vec<_> = std::fs::read_dir(folder.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["apps.git"]);
    told.git(&["fsck", "--strict"]);
}

#[test]
fn without_a_terminal_it_prints_lines() {
    let out = text(&TOLD.output.stdout);
    assert!(!out.contains('\x1b'), "{out}");
    assert!(out.contains("canary(test/podinfo): 10% -> 60%"), "{out}");
    assert!(
        out.contains(
            "At weight 0 alexis got 6.9.0 on 60 of her 60 requests, everybody else on 0 of 1800."
        ),
        "{out}"
    );
    assert!(!out.contains("NOT SO"), "{out}");
    // What it says to try can be done.
    let line = out
        .lines()
        .find(|line| line.contains(" history podinfo --repo "))
        .unwrap();
    let history = Command::new("sh").arg("-c").arg(line).output().unwrap();
    assert!(
        history.status.success(),
        "{line}: {}",
        text(&history.stderr)
    );
    assert!(text(&history.stdout).contains("Serin for alexis"));
}

#[test]
fn a_folder_that_holds_something_is_left_alone() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("mine"), "x").unwrap();
    let output = serin(folder.path()).arg("--fast").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.contains("is not empty: the demo makes its repository in an empty or new folder"),
        "{said}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn it_can_be_stopped() {
    let folder = TempDir::new().unwrap();
    let mut child = serin(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The story has begun.
    let initialized = lines.find(|line| line.as_ref().unwrap().contains("initialize"));
    assert!(initialized.is_some());
    run(program("kill", folder.path())
        .arg("-INT")
        .arg(child.id().to_string()));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("stopped in the middle of the story"),
        "{said}"
    );
    assert!(folder.path().join("apps.git").is_dir());
    assert!(!folder.path().join(".copies").exists());
}
