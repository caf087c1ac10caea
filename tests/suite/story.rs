//! The main job, with everything real: `serin run` as a process, a bare repository, a Prometheus that scrapes a mesh which
//! routes as the branch says, and a person who keeps committing to the same branch. Only `git log` is asked what happened.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serin::domain::CommitId;

use crate::git::rig::{Rig, Someone};
use crate::support::mesh::{Mesh, Routed};
use crate::support::prometheus::{Prometheus, TrafficSource};
use crate::support::serin::{Serin, Start, output, serin};

const APP: &str = "apps/podinfo/app.yaml";
const CANARY: &str = "apps/podinfo/canary.yaml";
const FOLDER: &str = "apps/podinfo/podinfo.serin";

fn canary(image: &str) -> String {
    format!(
        "\
apiVersion: serin.dev/v1alpha1
kind: Canary
metadata: {{name: podinfo, namespace: test}}
spec:
  workload: {{deployment: podinfo}}
  candidate:
    images: {{podinfod: 'ghcr.io/stefanprodan/podinfo:{image}'}}
  route: {{service: podinfo, port: 9898, hosts: [podinfo]}}
  users: [{{header: x-user, exact: [alexis]}}]
  ladder:
  - {{weight: 0, hold: 2s}}
  - {{weight: 10, hold: 2s}}
  - {{weight: 60, hold: 2s}}
  - {{weight: 100, hold: 2s}}
  analysis:
    every: 1s
    metrics:
    - {{name: success-rate, min: 95}}
"
    )
}

/// One commit, as `git log` tells it.
#[derive(Debug)]
struct Entry {
    id: String,
    parents: Vec<String>,
    author: String,
    time: i64,
    subject: String,
    trailers: BTreeMap<String, Vec<String>>,
    files: Vec<String>,
}

impl Entry {
    fn trailer(&self, key: &str) -> &str {
        match self.trailers.get(key).map(Vec::as_slice) {
            Some([value]) => value,
            found => panic!("{key} of {}: {found:?}", self.subject),
        }
    }

    fn is_ours(&self) -> bool {
        self.author == "Serin"
    }

    fn weights(&self) -> (u8, u8) {
        let (from, to) = self.trailer("Serin-Weight").split_once(" -> ").unwrap();
        (from.parse().unwrap(), to.parse().unwrap())
    }
}

/// The branch, oldest first.
fn log(rig: &Rig) -> Vec<Entry> {
    let format = "--format=%x02%H%x01%P%x01%an%x01%ct%x01%s%x01%(trailers:only,unfold)%x01";
    let text = rig.server(&[
        "log",
        "--reverse",
        "--name-only",
        "--first-parent",
        "-m",
        format,
        "main",
    ]);
    let entries = text.split('\x02').skip(1);
    entries
        .map(|entry| {
            let fields: Vec<&str> = entry.split('\x01').collect();
            let [id, parents, author, time, subject, trailers, files] = fields.as_slice() else {
                panic!("{entry}");
            };
            let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (key, value) in trailers.lines().filter_map(|line| line.split_once(": ")) {
                by_key
                    .entry(key.to_owned())
                    .or_default()
                    .push(value.to_owned());
            }
            Entry {
                id: (*id).to_owned(),
                parents: parents.split(' ').map(str::to_owned).collect(),
                author: (*author).to_owned(),
                time: time.parse().unwrap(),
                subject: (*subject).to_owned(),
                trailers: by_key,
                files: files.split_whitespace().map(str::to_owned).collect(),
            }
        })
        .collect()
}

/// Commits to the same branch until told to stop, as people do: pull, edit, push, and again when somebody was faster.
///
/// Holds still while somebody else has the lock.
fn keep_committing(someone: &Someone, turn: &Mutex<()>, stop: &AtomicBool) -> Vec<CommitId> {
    let mut commits = Vec::new();
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // Elsewhere, beside the spec, in the very file that a promotion edits, in the spec itself.
        let path = ["docs/notes.md", "apps/podinfo/README.md", APP, CANARY][round % 4];
        let line = format!("# note {round}\n");
        let held = turn.lock().unwrap();
        commits.push(someone.insist(&format!("note {round}"), &|| someone.append(path, &line)));
        drop(held);
        std::thread::sleep(Duration::from_millis(700));
    }
    commits
}

/// Waits until a subject is on the branch more often than before.
fn wait_for(rig: &Rig, process: &mut Serin, subject: &str) {
    for _ in 0..900 {
        if rig
            .server(&["log", "--format=%s", "main"])
            .lines()
            .any(|line| line == subject)
        {
            return;
        }
        assert!(process.ended().is_none(), "serin ended:\n{}", process.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!(
        "`{subject}` never came\n{}\n{}",
        rig.server(&["log", "--format=%h %an %s", "main"]),
        process.log()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_is_carried_to_the_end_and_a_bad_one_back() {
    let app = include_str!("../../src/simulation/base/app.yaml");
    let rig = Rig::with(&[(APP, app), (CANARY, &canary("6.8.0"))]);
    rig.server(&["config", "core.logAllRefUpdates", "true"]);
    let source = Arc::new(TrafficSource::start().await);
    let mesh = Mesh::follow(
        Routed {
            remote: rig.remote(),
            home: rig.home(),
            folder: FOLDER.to_owned(),
            workload: "podinfo".to_owned(),
            failing: ("podinfo:6.10.0".to_owned(), 0.3),
        },
        Arc::clone(&source),
    );
    let prometheus = Prometheus::start(&source).await;

    let remote = rig.remote().display().to_string();
    let mut process = Start::new(rig.folder.path(), "serin", &remote, &prometheus.url)
        .args(&["--poll", "1s", "--push-interval", "0s"])
        .start();
    let began = rig
        .server(&["log", "-1", "--format=%ct", "main"])
        .parse::<i64>()
        .unwrap();
    wait_for(&rig, &mut process, "canary(test/podinfo): initialize");

    let (turn, stop) = (Arc::new(Mutex::new(())), Arc::new(AtomicBool::new(false)));
    let noting = {
        let (dana, turn, stop) = (rig.someone("dana"), Arc::clone(&turn), Arc::clone(&stop));
        std::thread::spawn(move || keep_committing(&dana, &turn, &stop))
    };
    let alexis = rig.someone_named("alexis");
    let propose = |process: &mut Serin, from: &str, to: &str| {
        let _held = turn.lock().unwrap();
        let proposal = alexis.insist(&format!("Propose {to}"), &|| {
            alexis.replace(CANARY, &format!("podinfo:{from}"), &format!("podinfo:{to}"));
        });
        wait_for(
            &rig,
            process,
            &format!("canary(test/podinfo): start podinfod={to}"),
        );
        proposal
    };
    let good = propose(&mut process, "6.8.0", "6.9.0");
    wait_for(
        &rig,
        &mut process,
        "canary(test/podinfo): finish podinfod=6.9.0",
    );
    let bad = propose(&mut process, "6.9.0", "6.10.0");
    wait_for(
        &rig,
        &mut process,
        "canary(test/podinfo): finish podinfod=6.10.0",
    );
    stop.store(true, Ordering::Relaxed);
    let mut theirs = noting.join().unwrap();
    process.says("the candidate was rejected");
    // It looks again, and changes nothing.
    let end = rig.head();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(rig.head(), end);
    let log_of_process = process.log();
    assert!(process.stop().success());
    drop((mesh, prometheus));

    // From here on there is nothing but the repository.
    theirs.extend([good.clone(), bad.clone()]);
    let entries = log(&rig);
    let story: Vec<&Entry> = entries.iter().filter(|entry| entry.is_ours()).collect();
    let subjects: Vec<&str> = story
        .iter()
        .map(|entry| {
            entry
                .subject
                .strip_prefix("canary(test/podinfo): ")
                .unwrap()
        })
        .collect();
    assert_eq!(
        subjects,
        [
            "initialize",
            "start podinfod=6.9.0",
            "0% -> 10%",
            "10% -> 60%",
            "60% -> 100%",
            "promote podinfod=6.9.0",
            "return 100% -> 0%",
            "finish podinfod=6.9.0",
            "start podinfod=6.10.0",
            "0% -> 10%",
            "roll back 10% -> 0%",
            "finish podinfod=6.10.0",
        ],
        "{log_of_process}"
    );

    // What and when: each step goes on where the last one left off, later, and in generated files only.
    let mut weight = 0;
    let mut time = began;
    for entry in &story {
        let (from, to) = entry.weights();
        assert_eq!(from, weight, "{entry:?}");
        assert!(entry.time >= time, "{entry:?}");
        (weight, time) = (to, entry.time);
        let promotes = entry.subject.contains(": promote ");
        for file in &entry.files {
            assert!(
                file.starts_with(FOLDER) || (promotes && file == APP),
                "{entry:?}"
            );
        }
        assert_eq!(entry.files.contains(&APP.to_owned()), promotes, "{entry:?}");
        assert_eq!(entry.trailer("Serin-Canary"), "test/podinfo");
        assert_eq!(entry.parents.len(), 1, "{entry:?}");
    }

    // Why: a person for a start, a rule for the rest, and for each step up or back the evidence that it rests on.
    for entry in &story {
        let cause = entry.trailer("Serin-Cause");
        let what = entry.subject.rsplit_once("): ").unwrap().1;
        if what.starts_with("start ") {
            let version = what.rsplit_once('=').unwrap().1;
            let proposal = if version == "6.9.0" { &good } else { &bad };
            let (short, says) = (proposal.short(), format!("Propose {version}"));
            assert_eq!(
                cause,
                format!("person: alexis <alexis@example.com> in {short}: {says}")
            );
        } else if what != "initialize" {
            assert!(cause.starts_with("rule: "), "{what}: {cause}");
        }
        let verdict = match what {
            "0% -> 10%" | "initialize" => None,
            // A step needs no more than that there is no sign of harm; promotion needs proof.
            "10% -> 60%" | "60% -> 100%" if entry.trailer("Serin-Verdict") == "inconclusive" => {
                Some("inconclusive")
            }
            "10% -> 60%" | "60% -> 100%" | "promote podinfod=6.9.0" => Some("pass"),
            _ if what.starts_with("roll back") => Some("fail"),
            _ => None,
        };
        if let Some(verdict) = verdict {
            assert_eq!(entry.trailer("Serin-Verdict"), verdict, "{what}");
            let metric = entry.trailer("Serin-Metric");
            for part in [
                "success-rate value=",
                " threshold=\"",
                " samples=",
                " failures=",
                " window=",
                &format!(" verdict={verdict} "),
                " query=\"",
            ] {
                assert!(metric.contains(part), "{part} in {metric}");
            }
        }
    }

    // Everything that people committed is there, as they committed it; only fast-forwards, a parent for each step.
    assert!(theirs.len() > 12, "{}", theirs.len());
    let on_branch = rig.server(&["rev-list", "main"]);
    for commit in &theirs {
        assert!(on_branch.contains(commit.as_str()), "{commit} was lost");
    }
    let notes: Vec<&Entry> = entries
        .iter()
        .filter(|e| e.subject.starts_with("note "))
        .collect();
    assert_eq!(notes.len() + 2, theirs.len());
    for note in notes {
        let line = format!("# {}", note.subject);
        let path = note.files.first().unwrap();
        let content = String::from_utf8(rig.file(path)).unwrap();
        assert!(
            content.lines().any(|found| found == line),
            "{line} in {path}:\n{content}"
        );
    }
    let moves = rig.server(&["reflog", "show", "--format=%H", "main"]);
    let moves: Vec<&str> = moves.lines().collect();
    for pair in moves.windows(2) {
        rig.server(&["merge-base", "--is-ancestor", pair[1], pair[0]]);
    }

    // Stable is the good version, changed by one line of its manifest; nothing is left of the bad one but the record.
    let promotion = story
        .iter()
        .find(|e| e.subject.contains(": promote "))
        .unwrap();
    let diff = rig.server(&["show", "--format=", "--unified=0", &promotion.id, "--", APP]);
    let changed: Vec<&str> = diff
        .lines()
        .filter(|line| {
            (line.starts_with('+') || line.starts_with('-'))
                && !line.starts_with("+++")
                && !line.starts_with("---")
        })
        .collect();
    assert_eq!(
        changed,
        [
            "-        image: ghcr.io/stefanprodan/podinfo:6.8.0 # stable",
            "+        image: ghcr.io/stefanprodan/podinfo:6.9.0 # stable",
        ]
    );
    let state = String::from_utf8(rig.file(&format!("{FOLDER}/rollout.yaml"))).unwrap();
    let rejected = story.last().unwrap().trailer("Serin-Candidate");
    let (_, revision) = rejected.rsplit_once(' ').unwrap();
    let (_, rejections) = state.split_once("\nrejected:\n").unwrap();
    assert!(rejections.contains(revision), "{state}");
    assert_eq!(rig.file(&format!("{FOLDER}/deployment.yaml")), b"");

    // The command that reads the log for people tells the same, from a clone and with nothing else reachable.
    rig.someone("auditor");
    let told = output(
        serin(&rig.home())
            .args(["history", "podinfo"])
            .current_dir(rig.path("auditor")),
    );
    let told = String::from_utf8(told.stdout).unwrap();
    for subject in subjects {
        assert!(told.contains(subject), "{subject} in\n{told}");
    }
}
