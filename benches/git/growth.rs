//! What the size of a repository and the length of its history cost.

use std::io::Write;
use std::time::Duration;

use serin::domain::{CanaryId, Person};
use serin::git::Branch;
use serin::ports::{Repository, Watch};

use super::pushing::by_plumbing;
use super::rig::{
    Report, Rig, accepted, best, clocked, commit, fast_import, git, message, path, rollout, step,
    timed, us,
};

/// Canaries of the repositories below.
const CANARIES: usize = 50;
/// Steps that are measured in each.
const ROUNDS: usize = 9;

/// One file of 20,000 changes: nothing else is read again.
pub(crate) async fn one_file_of_many(report: &mut Report) {
    let count = report.size(20_000);
    let rig = Rig::import(|to| commit(to, 0, &alexis(), "all", &many(count), true));
    let (mut branch, head) = rig.branch("copy").await;
    let (all, first) = timed(branch.snapshot(&head)).await;
    assert_eq!(all.unwrap().files.len(), count);
    let mut again = Vec::new();
    for round in 1..=ROUNDS {
        let file = [(
            "apps/t0/f7.yaml".to_owned(),
            format!("v: new {round}\n").into_bytes(),
        )];
        fast_import(&rig.remote(), |to| {
            commit(to, round, &alexis(), "one", &file, true)
        });
        let head = branch.fetch().await.unwrap().commit.unwrap();
        let (snapshot, time) = timed(branch.snapshot(&head)).await;
        assert_eq!(
            &*snapshot.unwrap().files[&path("apps/t0/f7.yaml")].1,
            file[0].1
        );
        again.push(time);
    }
    let again = best(again);
    report.ratio(
        &format!("reading {count} files when one has changed"),
        again,
        ("reading all of them", first),
        0.1,
    );
}

fn many(count: usize) -> Vec<(String, Vec<u8>)> {
    (0..count)
        .map(|n| {
            (
                format!("apps/t{}/f{n}.yaml", n / 100),
                format!("v: {n}\n# a manifest\n").into_bytes(),
            )
        })
        .collect()
}

fn alexis() -> Person {
    Person {
        name: "alexis".to_owned(),
        email: "alexis@example.com".to_owned(),
    }
}

/// How large a repository is.
#[derive(Clone, Copy)]
struct Size {
    files: usize,
    commits: usize,
    /// What does not compress, per commit.
    bytes: usize,
}

/// What the remote does when it is asked to leave out large files.
#[derive(Clone, Copy)]
enum Server {
    /// It sends them: `git fetch` then walks all folders of the last head to see that nothing is missing.
    Plain,
    /// It leaves them out, as forges do.
    Forge,
}

/// Times in one repository.
struct Measured {
    /// A step of ours: fetch, read, history, publish.
    step: Duration,
    /// The same change by `git`'s own plumbing.
    step_by_git: Duration,
    /// Taking in a commit of somebody else: fetch, read, history.
    foreign: Duration,
    /// `git fetch` of the same commit into a copy with everything.
    foreign_by_git: Duration,
    /// Nothing has happened.
    idle: Duration,
    /// From nothing to a fetched branch.
    sync: Duration,
    /// The same by `git fetch`.
    fetch: Duration,
    /// The first look at the history of all canaries.
    history: Duration,
}

/// The repository that others are ten times as large as.
fn base(report: &Report, is_full: bool) -> Size {
    if is_full {
        Size {
            files: 2_000,
            commits: 20_000,
            bytes: 10_000,
        }
    } else {
        Size {
            files: report.size(2_000).max(200),
            commits: report.size(2_000).max(600),
            bytes: 1_000,
        }
    }
}

fn label(what: &str, size: Size) -> String {
    format!("{what}, {} files and {} commits", size.files, size.commits)
}

/// How much something may grow and be called flat. What `git` and the server do to accept a push, or to take in what was fetched,
/// walks the folders of the last head and grows by more than that; then no more than it does itself, and a tenth for chance.
fn flat(by_git: Duration, of_a_tenth: Duration) -> f64 {
    let of_git = 1.1 * by_git.as_secs_f64() / of_a_tenth.as_secs_f64();
    (of_git.max(1.5) * 100.0).ceil() / 100.0
}

/// Ten times the files, and ten times the history.
pub(crate) async fn ten_times(report: &mut Report, is_full: bool) {
    let base = base(report, is_full);
    let small = measure(base, Server::Plain).await;
    let sized = |commits| Size {
        files: base.files * 10,
        commits,
        ..base
    };
    let (wider, larger) = (sized(base.commits), sized(base.commits * 10));
    let wide = measure(wider, Server::Plain).await;
    let large = measure(larger, Server::Plain).await;
    for (measured, size) in [(&small, base), (&wide, wider), (&large, larger)] {
        // What the server does to accept a push grows with the files: nobody who pushes gets around it.
        report.ratio(
            &label("a step", size),
            measured.step,
            ("the same by git's plumbing", measured.step_by_git),
            2.0,
        );
    }
    report.figure(
        &label("git fetch of somebody's commit", base),
        small.foreign_by_git,
    );
    for (measured, size) in [(&wide, wider), (&large, larger)] {
        report.ratio(
            &label("a step", size),
            measured.step,
            ("a tenth", small.step),
            flat(measured.step_by_git, small.step_by_git),
        );
        report.ratio(
            &label("somebody's commit", size),
            measured.foreign,
            ("a tenth", small.foreign),
            flat(measured.foreign_by_git, small.foreign_by_git),
        );
        report.ratio(
            &label("nothing new", size),
            measured.idle,
            ("a tenth", small.idle),
            1.5,
        );
        report.ratio(
            &label("first sync", size),
            measured.sync,
            ("git fetch", measured.fetch),
            1.5,
        );
        report.figure(
            &label("git fetch of somebody's commit", size),
            measured.foreign_by_git,
        );
        report.figure(
            &label("first look at all histories", size),
            measured.history,
        );
    }
}

/// Ten times the files where the remote leaves out large files, so that `git fetch` itself costs the same.
pub(crate) async fn on_a_forge(report: &mut Report, is_full: bool) {
    let base = base(report, is_full);
    let wider = Size {
        files: base.files * 10,
        ..base
    };
    let small = measure(base, Server::Forge).await;
    let wide = measure(wider, Server::Forge).await;
    report.ratio(
        &label("somebody's commit on a forge", wider),
        wide.foreign,
        ("a tenth", small.foreign),
        1.5,
    );
}

async fn measure(size: Size, server: Server) -> Measured {
    let rig = Rig::import(|to| history(to, size));
    let remote = rig.remote();
    if let Server::Forge = server {
        git(&remote, &["config", "uploadpack.allowFilter", "true"]);
    }
    let plain = rig.path("plain.git");
    git(
        &rig.path("."),
        &["init", "--quiet", "--bare", plain.to_str().unwrap()],
    );
    let by_git = || {
        let from = remote.to_str().unwrap();
        git(
            &plain,
            &["fetch", "--quiet", "--no-tags", from, "+main:main"],
        );
    };
    let ((), fetch) = clocked(by_git);
    let ((mut branch, head), sync) = timed(rig.branch("copy")).await;
    let watches = watches();
    branch.snapshot(&head).await.unwrap();
    let (lineages, history) = timed(branch.lineage(&head, &watches)).await;
    assert!(
        lineages
            .unwrap()
            .values()
            .all(|lineage| lineage.ours.is_some())
    );
    let (mut steps, mut foreign, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    let (mut steps_by_git, mut foreign_by_git) = (Vec::new(), Vec::new());
    git(
        &plain,
        &["remote", "add", "origin", remote.to_str().unwrap()],
    );
    for round in 1..=ROUNDS {
        let (head, time) = timed(look(&mut branch, &watches)).await;
        idle.push(time);
        let draft = step("apps/t0/c0.serin", "c0", 1_000_000 + round);
        let (published, time) = timed(branch.publish(&head, vec![draft])).await;
        accepted(published.unwrap());
        // The next pass looks at what it has written.
        let (_, after) = timed(look(&mut branch, &watches)).await;
        steps.push(time + after);
        by_git();
        let file = [(
            "apps/t1/f101.yaml".to_owned(),
            format!("v: new {round}\n").into_bytes(),
        )];
        fast_import(&rig.remote(), |to| {
            commit(to, size.commits + round, &alexis(), "edit", &file, true)
        });
        let (_, time) = timed(look(&mut branch, &watches)).await;
        foreign.push(time);
        foreign_by_git.push(clocked(by_git).1);
        steps_by_git.push(clocked(|| by_plumbing(&plain, 2_000_000 + round)).1);
        look(&mut branch, &watches).await;
    }
    Measured {
        step: best(steps),
        step_by_git: best(steps_by_git),
        foreign: best(foreign),
        foreign_by_git: best(foreign_by_git),
        idle: best(idle),
        sync,
        fetch,
        history,
    }
}

/// What a pass asks of the branch.
async fn look(branch: &mut Branch, watches: &[Watch]) -> serin::domain::CommitId {
    let head = branch.fetch().await.unwrap().commit.unwrap();
    branch.snapshot(&head).await.unwrap();
    branch.lineage(&head, watches).await.unwrap();
    head
}

fn watches() -> Vec<Watch> {
    (0..CANARIES)
        .map(|n| Watch {
            canary: CanaryId::new("test", format!("c{n}")),
            folder: path(&format!("apps/t{n}/c{n}.serin")),
            inputs: vec![
                path(&format!("apps/t{n}/c{n}.yaml")),
                path(&format!("apps/t0/f{n}.yaml")),
            ],
        })
        .collect()
}

/// All files in the first commit, then people and Serin in turns.
fn history(to: &mut dyn Write, size: Size) {
    let mut first = many(size.files);
    for n in 0..CANARIES {
        first.push((format!("apps/t{n}/c{n}.yaml"), b"kind: Canary\n".to_vec()));
        first.push((
            format!("apps/t{n}/c{n}.serin/rollout.yaml"),
            rollout(0).into_bytes(),
        ));
    }
    commit(to, 0, &alexis(), "all", &first, true);
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for at in 1..size.commits {
        if at % 10 == 0 {
            let n = at / 10 % CANARIES;
            let file = [(
                format!("apps/t{n}/c{n}.serin/rollout.yaml"),
                rollout(at).into_bytes(),
            )];
            commit(to, at, &us(), &message(&format!("c{n}")), &file, false);
            continue;
        }
        let n = random.below(size.files);
        let mut bytes = Vec::with_capacity(size.bytes);
        while bytes.len() < size.bytes {
            bytes.extend(random.next().to_le_bytes());
        }
        let files = [
            (
                format!("apps/t{}/f{n}.yaml", n / 100),
                format!("v: {at}\n").into_bytes(),
            ),
            (format!("assets/{}.bin", at % 1_000), bytes),
        ];
        commit(to, at, &alexis(), "edit", &files, false);
    }
}

/// Marsaglia's xorshift: the same repository in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }
}
