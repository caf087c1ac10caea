//! A repository with one canary, and what its branch tells afterwards, without times.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use serin::analysis::{Answer, Query};
use serin::clock::{Clock, ManualClock, SystemClock};
use serin::cluster::NoCluster;
use serin::domain::{CanaryId, CommitId, Person};
use serin::git::{self, Branch};
use serin::ports::{
    Draft, ForeignCommit, Head, Lineage, Metrics, Published, Question, Repository, RepositoryError,
    Snapshot, Watch,
};
use serin::reconcile::{Engine, Pass, Settings};
use serin::record::message::Style;

use crate::git::rig::{Rig, Someone};
use crate::git_servers::{program, run};

pub(crate) const APP: &str = "apps/podinfo/app.yaml";
pub(crate) const CANARY: &str = "apps/podinfo/canary.yaml";
pub(crate) const FOLDER: &str = "apps/podinfo/podinfo.serin";

/// A canary that climbs fast. `analysis` is the body of that part of the spec, in flow style.
pub(crate) fn canary(name: &str, analysis: &str) -> String {
    format!(
        "\
apiVersion: serin.dev/v1alpha1
kind: Canary
metadata: {{name: {name}, namespace: test}}
spec:
  workload: {{deployment: {name}}}
  candidate:
    images: {{podinfod: 'ghcr.io/stefanprodan/podinfo:6.8.0'}}
  route: {{service: {name}, port: 9898, hosts: [{name}]}}
  ladder:
  - {{weight: 10, hold: 1s}}
  - {{weight: 60, hold: 1s}}
  - {{weight: 100, hold: 1s}}
  analysis: {analysis}
"
    )
}

/// The application of a canary of this name.
pub(crate) fn app(name: &str) -> String {
    include_str!("../../../src/simulation/base/app.yaml")
        .replace("name: podinfo\n", &format!("name: {name}\n"))
        .replace("app: podinfo\n", &format!("app: {name}\n"))
}

/// A repository with the canary `podinfo`.
pub(crate) fn repository(analysis: &str) -> Rig {
    let rig = Rig::with(&[
        (APP, &app("podinfo")),
        (CANARY, &canary("podinfo", analysis)),
    ]);
    rig.server(&["config", "core.logAllRefUpdates", "true"]);
    rig
}

/// Proposes another image for a canary.
pub(crate) fn propose(someone: &Someone, from: &str, to: &str) {
    let (from, to) = (format!("podinfo:{from}"), format!("podinfo:{to}"));
    someone.insist(&format!("Propose {to}"), &|| {
        someone.replace(CANARY, &from, &to)
    });
}

/// What the commits of ours say without `canary(…): `, oldest first.
pub(crate) fn steps(rig: &Rig) -> Vec<String> {
    let log = rig.server(&["log", "--reverse", "--author=Serin", "--format=%s", "main"]);
    log.lines()
        .map(|line| {
            line.strip_prefix("canary(test/podinfo): ")
                .unwrap_or(line)
                .to_owned()
        })
        .collect()
}

/// Everything that our commits are, without times, ids and counts: message, files and their content, in order.
pub(crate) fn history(rig: &Rig) -> Vec<String> {
    let ids = rig.server(&["rev-list", "--reverse", "--author=Serin", "main"]);
    let regex = |pattern: &str| Regex::new(pattern).unwrap();
    let dropped = [
        // A verdict that nothing rests on: what it says depends on the moment of the look.
        r"Serin-Verdict: (inconclusive|error)\n(Serin-Metric.*\n)*|lastVerdict:(\n  .*)*\n?",
        // What follows from counts, at every look a little different; `evidence_is_whole` looks at the counts.
        r"Serin-Evidence:.*\n",
    ]
    .map(regex);
    let blanked = [
        // Times, in the state and in sentences.
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
        // Counts of requests and seconds.
        r"\b\d+ (of|requests|seconds)\b|\b\d+s\b|(samples|window|failures)=\S+",
        // Commits of people.
        r"\b[0-9a-f]{7,40}\b",
        // Evidence in sentences.
        r"query=.*|sentence: .*",
    ]
    .map(regex);
    let blank = |text: String| {
        let replace =
            |text: String, pattern: &Regex, by: &str| pattern.replace_all(&text, by).into_owned();
        let kept = dropped
            .iter()
            .fold(text, |text, pattern| replace(text, pattern, ""));
        blanked
            .iter()
            .fold(kept, |text, pattern| replace(text, pattern, "…"))
    };
    ids.lines()
        .map(|id| {
            let message = rig.server(&[
                "show",
                "--no-patch",
                "--format=%s%n%(trailers:only,unfold)",
                id,
            ]);
            let files = rig.server(&["ls-tree", "-r", "--name-only", id, "--", FOLDER, APP]);
            let content: Vec<String> = files
                .lines()
                .map(|file| {
                    format!(
                        "{file}\n{}",
                        rig.server(&["cat-file", "blob", &format!("{id}:{file}")])
                    )
                })
                .collect();
            blank(format!("{message}\n{}", content.join("\n")))
        })
        .collect()
}

/// The branch only ever moved forward.
pub(crate) fn was_never_forced(rig: &Rig) {
    let moves = rig.server(&["reflog", "show", "--format=%H", "main"]);
    let moves: Vec<&str> = moves.lines().collect();
    assert!(moves.len() > 1);
    for pair in moves.windows(2) {
        rig.server(&["merge-base", "--is-ancestor", pair[1], pair[0]]);
    }
}

/// A program `git` to put first on `PATH`: a shell script that finds the real one in `$git`.
pub(crate) fn wrapped_git(folder: &Path, script: &str) -> String {
    wrapped(folder, "git", &format!("git=$real\n{script}"))
}

/// The same for any program; the real one is in `$real`.
pub(crate) fn wrapped(folder: &Path, name: &str, script: &str) -> String {
    let real = run(program("sh", folder).args(["-c", &format!("command -v {name}")]));
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\nreal={real}\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/local/bin:/usr/bin:/bin", folder.display())
}

/// Builds the library that `tests/data/disk/disk.c` describes, to be preloaded.
pub(crate) fn disk(folder: &Path) -> PathBuf {
    let library = folder.join("disk.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/disk/disk.c");
    let mut compiler: Command = program("cc", folder);
    run(compiler
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl"));
    library
}

/// No metrics server: for canaries that skip the analysis.
#[derive(Debug)]
pub(crate) struct Unasked;

impl Metrics for Unasked {
    async fn ask(&self, queries: &[Query]) -> Vec<Answer> {
        assert!(queries.is_empty(), "{queries:?}");
        Vec::new()
    }
}

/// What happens just before a push.
type BeforePush = Box<dyn FnMut() + Send>;

/// A branch where something happens between fetch and push.
pub(crate) struct Interrupted {
    pub(crate) branch: Branch,
    /// Taken by the next push that there is.
    pub(crate) before_push: Option<BeforePush>,
}

impl Repository for Interrupted {
    async fn fetch(&mut self) -> Result<Head, RepositoryError> {
        self.branch.fetch().await
    }

    async fn snapshot(&mut self, at: &CommitId) -> Result<Snapshot, RepositoryError> {
        self.branch.snapshot(at).await
    }

    async fn lineage(
        &mut self,
        at: &CommitId,
        watches: &[Watch],
    ) -> Result<BTreeMap<CanaryId, Lineage>, RepositoryError> {
        self.branch.lineage(at, watches).await
    }

    async fn authors(
        &mut self,
        at: &CommitId,
        questions: Vec<Question>,
    ) -> Result<Vec<Option<ForeignCommit>>, RepositoryError> {
        self.branch.authors(at, questions).await
    }

    async fn publish(
        &mut self,
        base: &CommitId,
        drafts: Vec<Draft>,
    ) -> Result<Published, RepositoryError> {
        if let Some(mut act) = self.before_push.take() {
            act();
        }
        self.branch.publish(base, drafts).await
    }
}

/// The real loop on a real branch, with a clock that a test moves.
pub(crate) struct Loop {
    pub(crate) engine: Engine<Interrupted, Unasked, NoCluster, Arc<ManualClock>>,
    pub(crate) clock: Arc<ManualClock>,
}

impl Loop {
    pub(crate) async fn new(settings: git::Settings) -> Self {
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let repository = Interrupted {
            branch: Branch::open(settings).await.unwrap(),
            before_push: None,
        };
        let settings = Settings {
            push_interval: Duration::ZERO,
            poll: Duration::from_secs(1),
            style: Style::default(),
        };
        let engine = Engine::new(repository, Unasked, NoCluster, Arc::clone(&clock), settings);
        Self { engine, clock }
    }

    /// One pass, two seconds after the last one.
    pub(crate) async fn pass(&mut self) -> Pass {
        self.clock
            .set(self.clock.now() + chrono::TimeDelta::seconds(2));
        self.engine.pass().await
    }

    /// Passes until the newest step of ours begins like this.
    pub(crate) async fn until(&mut self, rig: &Rig, step: &str) {
        let mut last = None;
        for _ in 0..60 {
            if steps(rig).last().is_some_and(|last| last.starts_with(step)) {
                return;
            }
            last = Some(self.pass().await);
        }
        panic!("`{step}` never came: {:?}\n{last:?}", steps(rig));
    }
}

/// The branch settings of `Serin`, as `serin run` has them.
pub(crate) fn settings(rig: &Rig, copy: &str) -> git::Settings {
    let serin = Person {
        name: "Serin".to_owned(),
        email: "serin@example.com".to_owned(),
    };
    git::Settings {
        author: serin.clone(),
        committer: serin,
        ..rig.settings(copy)
    }
}

/// What stops the only canary of a pass, in the two forms that it may have.
pub(crate) fn waits(pass: &Pass) -> String {
    match (&pass.problem, pass.canaries.as_slice()) {
        (Some(problem), _) => problem.clone(),
        (None, [canary]) => format!("{}: {}", canary.waiting.reason(), canary.waiting),
        (None, canaries) => panic!("{canaries:?}"),
    }
}
