//! Copies without what is too large for Serin anyway, from every kind of server, and whole ones where the server leaves
//! nothing out.

use std::path::{Path, PathBuf};

use serin::git::{Branch, Settings};
use serin::ports::{Repository, RepositoryError, Snapshot};

use super::rig::{Rig, accepted, path, publish, step, watch};
use crate::fire::rig::wrapped_git;
use crate::git_servers::{self, Sshd, program, run};

const LIMIT: usize = 5 << 20;

/// A repository with a manifest that is too large, one that just is not, and one of the usual size.
fn repository(filters: bool) -> Rig {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    rig.server(&[
        "config",
        "uploadpack.allowFilter",
        if filters { "true" } else { "false" },
    ]);
    let someone = rig.someone_named("alexis");
    someone.write("apps/largest.yaml", noise(LIMIT, 1));
    someone.write("apps/larger.yaml", noise(LIMIT + 1, 2));
    someone.write("apps/huge.bin", noise(LIMIT + 2, 3));
    someone.commit("large", &[]);
    someone.push();
    rig
}

/// Text that does not compress to nothing.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        bytes.extend_from_slice(format!("# {state:016x}\n").as_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn packs(copy: &Path) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(copy.join("objects/pack")).unwrap();
    folder.map(|entry| entry.unwrap().path()).collect()
}

fn ending(copy: &Path, end: &str) -> usize {
    let files = packs(copy);
    files
        .iter()
        .filter(|file| file.extension().is_some_and(|e| e == end))
        .count()
}

/// Bytes of all packs of a copy.
fn size(copy: &Path) -> u64 {
    packs(copy)
        .iter()
        .map(|file| file.metadata().unwrap().len())
        .sum()
}

/// Objects that the copy refers to and does not hold.
fn absent(rig: &Rig, copy: &str) -> Vec<String> {
    let listed = run(program("git", &rig.home())
        .arg("--git-dir")
        .arg(rig.path(copy))
        .args([
            "rev-list",
            "--objects",
            "--missing=print",
            "refs/serin/remote",
        ]));
    let missing = listed.lines().filter_map(|line| line.strip_prefix('?'));
    missing.map(str::to_owned).collect()
}

fn why<'s>(snapshot: &'s Snapshot, path: &str) -> Option<&'s str> {
    let mut skipped = snapshot.skipped.iter();
    skipped
        .find(|(skipped, _)| skipped == path)
        .map(|(_, why)| why.as_str())
}

/// Fetches, reads, asks the history and writes, as a pass does.
async fn pass(branch: &mut Branch, second: i64) -> Snapshot {
    let head = branch.fetch().await.unwrap().commit.unwrap();
    let snapshot = branch.snapshot(&head).await.unwrap();
    let watches = [watch("app", &["app.yaml"])];
    let lineage = branch.lineage(&head, &watches).await.unwrap();
    let lineage = &lineage[&watches[0].canary];
    assert_eq!(lineage.input.as_ref().unwrap().subject, "first");
    assert_eq!(lineage.ours.is_some(), second > 1);
    let content = format!("step: {second}\n");
    accepted(
        branch
            .publish(&head, vec![step("app", second, &content)])
            .await
            .unwrap(),
    );
    snapshot
}

#[tokio::test]
async fn every_server_is_asked_for_less_and_may_send_all() {
    for filters in [true, false] {
        let rig = repository(filters);
        let http = git_servers::http(rig.folder.path(), &rig.home()).await;
        let ssh = rig.path("ssh");
        std::fs::create_dir(&ssh).unwrap();
        let sshd = Sshd::start(&ssh);
        let remote = rig.remote().display().to_string();
        let urls = [
            remote.clone(),
            format!("file://{remote}"),
            format!("http://deploy:s3cr%2Ft%40p@{http}/remote.git"),
            format!("ssh://{}@127.0.0.1:{}{remote}", sshd.user, sshd.port),
        ];
        let start = rig.head();
        for (number, url) in urls.iter().enumerate() {
            rig.server(&["update-ref", "refs/heads/main", start.as_str()]);
            let name = format!("copy{number}");
            let copy = rig.path(&name);
            let mut settings = Settings {
                remote: url.parse().unwrap(),
                ..rig.settings(&name)
            };
            let client = sshd.client.clone();
            settings
                .environment
                .insert("GIT_SSH_COMMAND".to_owned(), client);
            let mut branch = Branch::open(settings.clone()).await.unwrap();
            for second in 1..4 {
                let snapshot = pass(&mut branch, second).await;
                let what = format!("{url}, filters {filters}, {second}");
                assert_eq!(&*snapshot.files[&path("app.yaml")].1, b"v: 1\n", "{what}");
                assert_eq!(
                    snapshot.files[&path("apps/largest.yaml")].1.len(),
                    LIMIT,
                    "{what}"
                );
                let left_out = why(&snapshot, "apps/larger.yaml");
                if filters {
                    assert_eq!(left_out, Some("more than 5242880 bytes"), "{what}");
                    // Never fetched, not by a push nor behind anybody's back either.
                    assert_eq!(absent(&rig, &name).len(), 2, "{what}");
                } else {
                    assert_eq!(left_out, Some("5242881 bytes, more than 5242880"), "{what}");
                    assert_eq!(absent(&rig, &name), Vec::<String>::new(), "{what}");
                    assert_eq!(ending(&copy, "promisor"), 0, "{what}");
                }
                if second == 2 {
                    branch = Branch::open(settings.clone()).await.unwrap();
                }
            }
            let all = u64::try_from(3 * LIMIT).unwrap() * 4 / 10;
            assert_eq!(size(&copy) < all, filters, "{url}: {}", size(&copy));
        }
    }
}

/// Counts in a file how often `git` was told to bring what is missing.
fn counting(rig: &Rig, settings: &mut Settings) -> PathBuf {
    let tools = rig.path("tools");
    std::fs::create_dir_all(&tools).unwrap();
    let script = format!(
        "case \"$*\" in *--refetch*) echo x >>{0}/refetched; [ ! -e {0}/refuse ] || exit 1;; esac\nexec $git \"$@\"",
        tools.display()
    );
    let search = wrapped_git(&tools, &script);
    settings.environment.insert("PATH".to_owned(), search);
    tools.join("refetched")
}

fn count(file: &Path) -> usize {
    std::fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .count()
}

#[tokio::test]
async fn what_is_too_large_is_asked_for_once() {
    let rig = repository(true);
    let mut settings = rig.settings("copy");
    let refetched = counting(&rig, &mut settings);
    let mut branch = Branch::open(settings.clone()).await.unwrap();
    pass(&mut branch, 1).await;
    assert_eq!(count(&refetched), 1);
    let someone = rig.someone_named("alexis");
    someone.insist("more", &|| someone.append("notes.yaml", "x: 1\n"));
    pass(&mut branch, 2).await;
    let mut branch = Branch::open(settings.clone()).await.unwrap();
    let snapshot = pass(&mut branch, 3).await;
    assert_eq!(count(&refetched), 1, "known, after a restart too");
    assert_eq!(&*snapshot.files[&path("notes.yaml")].1, b"x: 1\n");

    someone.insist("larger still", &|| {
        someone.write("apps/new.yaml", noise(LIMIT + 9, 4))
    });
    let snapshot = pass(&mut branch, 4).await;
    assert_eq!(
        why(&snapshot, "apps/new.yaml"),
        Some("more than 5242880 bytes")
    );
    assert_eq!(count(&refetched), 2);
    someone.insist("smaller", &|| someone.write("apps/new.yaml", "x: 1\n"));
    let snapshot = pass(&mut branch, 5).await;
    assert_eq!(&*snapshot.files[&path("apps/new.yaml")].1, b"x: 1\n");
    // What history has and the copy does not: back by a revert.
    someone.insist("back", &|| {
        someone.write("apps/new.yaml", noise(LIMIT + 9, 4))
    });
    let snapshot = pass(&mut branch, 6).await;
    assert_eq!(
        why(&snapshot, "apps/new.yaml"),
        Some("more than 5242880 bytes")
    );
    assert_eq!(count(&refetched), 2);
}

/// A file that is not there because the disk lost it is no large one.
#[tokio::test]
async fn what_the_disk_lost_is_brought_back() {
    let rig = repository(true);
    let mut branch = rig.branch().await;
    branch.fetch().await.unwrap();
    let copy = rig.path("copy");
    rig.unpack("copy");
    let lost = rig.server(&["rev-parse", "main:app.yaml"]);
    std::fs::remove_file(copy.join("objects").join(&lost[..2]).join(&lost[2..])).unwrap();
    let head = rig.head();
    let snapshot = branch.snapshot(&head).await.unwrap();
    assert_eq!(&*snapshot.files[&path("app.yaml")].1, b"v: 1\n");
    assert_eq!(
        why(&snapshot, "apps/larger.yaml"),
        Some("more than 5242880 bytes")
    );
    assert_eq!(
        publish(&mut branch, step("app", 1, "step: 1\n")).await,
        rig.head()
    );
}

/// A server that sends no trees by name, or a `git` that cannot ask for them: the copy is made anew with everything in it.
#[tokio::test]
async fn a_copy_that_cannot_be_completed_is_made_whole() {
    let rig = repository(true);
    let mut settings = rig.settings("copy");
    let refetched = counting(&rig, &mut settings);
    std::fs::write(rig.path("tools").join("refuse"), "").unwrap();
    let mut branch = Branch::open(settings.clone()).await.unwrap();
    let head = branch.fetch().await.unwrap().commit.unwrap();
    let error = branch.snapshot(&head).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Unreachable(_)), "{error}");
    for second in [1, 2] {
        let snapshot = pass(&mut branch, second).await;
        let left_out = why(&snapshot, "apps/larger.yaml");
        assert_eq!(left_out, Some("5242881 bytes, more than 5242880"));
        branch = Branch::open(settings.clone()).await.unwrap();
    }
    assert_eq!(absent(&rig, "copy"), Vec::<String>::new());
    assert_eq!(count(&refetched), 1);
}

/// Each fetch leaves a pack; they do not pile up.
#[tokio::test]
async fn packs_are_joined() {
    let rig = repository(true);
    let mut branch = rig.branch().await;
    pass(&mut branch, 1).await;
    let someone = rig.someone_named("alexis");
    let mut most = 0;
    for round in 0..60 {
        let line = format!("round: {round}\n");
        someone.insist("round", &|| someone.write("round.yaml", &line));
        branch.fetch().await.unwrap();
        most = most.max(ending(&rig.path("copy"), "pack"));
    }
    let left = ending(&rig.path("copy"), "pack");
    assert!(most >= 50 && left < 20, "{most} {left}");
    assert_eq!(
        ending(&rig.path("copy"), "promisor"),
        ending(&rig.path("copy"), "idx")
    );
    assert_eq!(absent(&rig, "copy").len(), 2);
    let snapshot = pass(&mut branch, 2).await;
    assert_eq!(&*snapshot.files[&path("round.yaml")].1, b"round: 59\n");
    let mut settings = rig.settings("copy");
    let refetched = counting(&rig, &mut settings);
    let mut branch = Branch::open(settings).await.unwrap();
    pass(&mut branch, 3).await;
    assert_eq!(count(&refetched), 0, "nothing was lost on the way");
}
