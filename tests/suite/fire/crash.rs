//! `serin run` is killed at every boundary of its I/O, started again each time, and leaves the history of a run that nobody
//! disturbed: the same commits in the same order, on evidence that was read again.
//!
//! Around calls of `git` a wrapper first on `PATH` kills it; on the way of a push, hooks of the server; between changes of the
//! local copy, a preloaded library. Nothing in the program knows of any of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::rig::{disk, history, propose, repository, steps, was_never_forced, wrapped_git};
use crate::git::rig::Rig;
use crate::support::prometheus::{Prometheus, TrafficSource};
use crate::support::serin::{Serin, Start};

/// Requests a second that reach the candidate, always.
const RATE: f64 = 200.0;

const STORY: [&str; 7] = [
    "initialize",
    "start podinfod=6.9.0",
    "0% -> 10%",
    "10% -> 60%",
    "60% -> 100%",
    "promote podinfod=6.9.0",
    "return 100% -> 0%",
];

/// A repository with a proposal, and how a process is started on it.
struct Run {
    rig: Rig,
    prometheus: String,
    control: PathBuf,
    path: String,
    disk: PathBuf,
}

impl Run {
    fn new(prometheus: &str) -> Self {
        let analysis = "{every: 1s, metrics: [{name: success-rate, min: 95}]}";
        let rig = repository(analysis);
        let control = rig.path("control");
        std::fs::create_dir(&control).unwrap();
        // Counts its calls, and kills who called it before or after the one that a file names.
        let script = format!(
            "c={control}\n\
             verb=$3; [ $verb != -c ] || verb=$5\n\
             echo $verb >>$c/calls; n=$(grep -c \"^$verb\\$\" $c/calls)\n\
             die() {{ echo $1 $verb $n >>$c/killed; kill -9 $PPID; exit 137; }}\n\
             [ -e $c/before.$verb.$n ] && die before\n\
             $git \"$@\"; status=$?\n\
             [ -e $c/after.$verb.$n ] && die after\n\
             exit $status",
            control = control.display()
        );
        let path = wrapped_git(&control, &script);
        for hook in ["pre-receive", "update", "post-receive"] {
            // It goes on with the push that its client will never hear of.
            rig.hook(
                hook,
                &format!(
                    "if [ -e {control}/{hook} ]; then rm {control}/{hook}; echo {hook} >>{control}/killed; \
                     kill -9 $(cat {control}/pid); sleep 0.5; fi",
                    control = control.display()
                ),
            );
        }
        let disk = disk(&control);
        Self {
            rig,
            prometheus: prometheus.to_owned(),
            control,
            path,
            disk,
        }
    }

    fn start(&self, stop_at: Option<usize>) -> Serin {
        let _ = std::fs::remove_file(self.control.join("calls"));
        let remote = self.rig.remote().display().to_string();
        let mut start = Start::new(self.rig.folder.path(), "serin", &remote, &self.prometheus)
            .args(&[
                "--poll",
                "1s",
                "--push-interval",
                "0s",
                "--git-timeout",
                "10s",
            ])
            .env("PATH", &self.path);
        if let Some(call) = stop_at {
            start = start
                .env("LD_PRELOAD", &self.disk)
                .env("DISK_FOLDER", self.rig.path("serin-cache"))
                .env("DISK_STOP", call.to_string());
        }
        let process = start.start();
        std::fs::write(self.control.join("pid"), process.id().to_string()).unwrap();
        process
    }

    fn is_finished(&self) -> bool {
        steps(&self.rig)
            .last()
            .is_some_and(|step| step.starts_with("finish"))
    }

    /// Waits for the end of the process, or of the rollout.
    fn wait(&self, process: &mut Serin) {
        for _ in 0..600 {
            if process.ended().is_some() || self.is_finished() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("nothing happens\n{:?}\n{}", steps(&self.rig), process.log());
    }

    /// Kills according to `plan` until that has nothing more to say, lets the last process finish, and tells the history
    /// and where it was killed.
    fn carry(self, mut plan: impl FnMut(&Self, usize) -> Option<Serin>) -> (Vec<String>, String) {
        let mut process = self.start(None);
        process.says("nothing to roll out");
        assert!(process.stop().success());
        propose(&self.rig.someone_named("alexis"), "6.8.0", "6.9.0");
        // The first copy is made under fire too.
        std::fs::remove_dir_all(self.rig.path("serin-cache")).unwrap();
        let mut round = 0;
        while !self.is_finished()
            && let Some(mut process) = plan(&self, round)
        {
            self.wait(&mut process);
            round += 1;
        }
        self.disarm();
        let mut process = self.start(None);
        self.wait(&mut process);
        process.says("nothing to roll out: no candidate differs from stable");
        let status = process.stop();
        assert!(status.success(), "{status}");
        was_never_forced(&self.rig);
        assert_eq!(self.rig.server(&["fsck", "--strict", "--no-dangling"]), "");
        evidence_is_whole(&self.rig);
        let killed = std::fs::read_to_string(self.control.join("killed")).unwrap_or_default();
        (history(&self.rig), killed)
    }

    /// Takes back what `plan` left for the next kill.
    fn disarm(&self) {
        for file in std::fs::read_dir(&self.control).unwrap() {
            let path = file.unwrap().path();
            if std::fs::metadata(&path).unwrap().len() == 0 {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

/// The requests that steps up rest on are those of their whole windows, whichever process counted them; they differ by what
/// a Prometheus on a busy machine scrapes late.
fn evidence_is_whole(rig: &Rig) {
    let format = "--format=%(trailers:key=Serin-Metric,valueonly,unfold)";
    let metrics = rig.server(&["log", "--author=Serin", format, "main"]);
    let field = |line: &str, name: &str| -> f64 {
        let value = line.split(' ').find_map(|part| part.strip_prefix(name));
        value.unwrap().trim_end_matches('s').parse().unwrap()
    };
    let passes = metrics.lines().filter(|line| line.contains("verdict=pass"));
    let counts: Vec<(f64, f64)> = passes
        .map(|line| (field(line, "samples="), field(line, "window=")))
        .collect();
    assert!(counts.len() >= 3, "{metrics}");
    let seen: f64 = counts.iter().map(|(samples, _)| samples).sum();
    let sent: f64 = counts.iter().map(|(_, window)| RATE * window).sum();
    assert!(seen >= 0.4 * sent, "{metrics}");
    assert!(seen <= sent + 6.0 * RATE, "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_it_writes_the_same_history() {
    let source = Arc::new(TrafficSource::start().await);
    source.set("podinfo", RATE, 0.0, 100.0);
    source.set("podinfo-canary", RATE, 0.0, 100.0);
    let prometheus = Prometheus::start(&source).await;
    let url = prometheus.url.clone();
    let runs: Vec<_> = [undisturbed, around_git, on_the_server, on_the_disk]
        .into_iter()
        .map(|run| {
            let url = url.clone();
            std::thread::spawn(move || run(&url))
        })
        .collect();
    let runs: Vec<(Vec<String>, String)> = tokio::task::spawn_blocking(move || {
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    })
    .await
    .unwrap();
    let (wanted, _) = &runs[0];
    let subjects: Vec<&str> = wanted
        .iter()
        .map(|commit| commit.lines().next().unwrap())
        .collect();
    assert_eq!(subjects.len(), STORY.len() + 1, "{subjects:?}");
    for (subject, step) in subjects.iter().zip(STORY) {
        assert_eq!(
            subject.strip_prefix("canary(test/podinfo): ").unwrap(),
            step
        );
    }
    for (found, killed) in &runs[1..] {
        for (number, (found, wanted)) in found.iter().zip(wanted).enumerate() {
            for (found, wanted) in found.lines().zip(wanted.lines()) {
                assert_eq!(
                    found, wanted,
                    "commit {number}, after these kills:\n{killed}"
                );
            }
            assert_eq!(found.len(), wanted.len(), "{found}\n---\n{wanted}");
        }
        assert_eq!(found.len(), wanted.len(), "{killed}");
    }
    // Each boundary was really met.
    for call in ["init 1", "ls-remote 1", "fetch 1", "push 1", "ls-remote 2"] {
        for when in ["before", "after"] {
            let kind = format!("{when} {call}\n");
            assert!(runs[1].1.contains(&kind), "{kind} in {}", runs[1].1);
        }
    }
    for kind in ["pre-receive", "update", "post-receive"] {
        assert!(runs[2].1.contains(kind), "{kind} in {}", runs[2].1);
    }
    // Writing a commit of five objects and two references is fewer than this.
    assert!(runs[3].1.lines().count() >= 25, "{}", runs[3].1);
    drop(prometheus);
}

fn undisturbed(prometheus: &str) -> (Vec<String>, String) {
    Run::new(prometheus).carry(|_, _| None)
}

/// Before and after each call of `git`: while the first copy is made, then around pushes and the look that tells how they
/// went.
fn around_git(prometheus: &str) -> (Vec<String>, String) {
    Run::new(prometheus).carry(|run, round| {
        run.disarm();
        let call = match round {
            0..8 => ["init.1", "ls-remote.1", "fetch.1", "push.1"][round / 2],
            8..16 => ["push.1", "ls-remote.2"][round / 2 % 2],
            _ => return None,
        };
        let when = ["before", "after"][round % 2];
        std::fs::write(run.control.join(format!("{when}.{call}")), "").unwrap();
        Some(run.start(None))
    })
}

/// While the server works on a push: before it decides, when it decides, and after; the push goes on without its client.
fn on_the_server(prometheus: &str) -> (Vec<String>, String) {
    Run::new(prometheus).carry(|run, round| {
        let hook = ["pre-receive", "update", "post-receive"][round % 3];
        std::fs::write(run.control.join(hook), "").unwrap();
        (round < 12).then(|| run.start(None))
    })
}

/// Before the first change of the local copy, before the second, and so on.
fn on_the_disk(prometheus: &str) -> (Vec<String>, String) {
    Run::new(prometheus).carry(|run, round| {
        let killed = run.control.join("killed");
        let before = std::fs::read_to_string(&killed).unwrap_or_default();
        std::fs::write(&killed, format!("{before}change {}\n", round + 1)).unwrap();
        (round < 70).then(|| run.start(Some(round + 1)))
    })
}
