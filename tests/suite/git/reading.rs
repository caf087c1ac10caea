//! Fetching and reading trees.

use std::os::unix::fs::symlink;

use serin::domain::CommitId;
use serin::git::{Branch, Local};
use serin::ports::{Head, History, Repository, RepositoryError, Snapshot};

use super::rig::{Rig, accepted, draft, exists, path, publish, step, us, watch};
use crate::git_servers::{program, run};

fn forward(commit: &CommitId) -> Head {
    Head {
        commit: Some(commit.clone()),
        history: History::Forward,
    }
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.files.keys().map(|path| path.as_str()).collect()
}

#[tokio::test]
async fn the_head_is_followed() {
    let rig = Rig::with(&[("a.yaml", "a: 1\n")]);
    let mut branch = rig.branch().await;
    let first = rig.head();
    assert_eq!(branch.fetch().await.unwrap(), forward(&first));
    assert_eq!(branch.fetch().await.unwrap(), forward(&first));
    let someone = rig.someone_named("alexis");
    let second = someone.commit("second", &[("b/c.yml", "c: 1\n"), ("d.txt", "no")]);
    someone.push();
    assert_eq!(branch.fetch().await.unwrap(), forward(&second));
    assert_eq!(
        names(&branch.snapshot(&second).await.unwrap()),
        ["a.yaml", "b/c.yml"]
    );
    assert_eq!(names(&branch.snapshot(&first).await.unwrap()), ["a.yaml"]);
    let (blob, content) = &branch.snapshot(&first).await.unwrap().files[&path("a.yaml")];
    assert_eq!(&**content, b"a: 1\n");
    assert_eq!(*blob.0, *rig.server(&["rev-parse", "main:a.yaml"]));
}

#[tokio::test]
async fn a_branch_that_is_not_there() {
    let rig = Rig::empty();
    let mut unborn = rig.branch().await;
    let nothing = Head {
        commit: None,
        history: History::Forward,
    };
    assert_eq!(unborn.fetch().await.unwrap(), nothing);

    let mut settings = rig.settings("named");
    settings.branch = Some("release".to_owned());
    let mut named = Branch::open(settings).await.unwrap();
    assert_eq!(named.fetch().await.unwrap(), nothing);

    let someone = rig.someone("alexis");
    let first = someone.commit("first", &[("a.yaml", "a: 1\n")]);
    someone.push();
    assert_eq!(unborn.fetch().await.unwrap(), forward(&first));
    let error = named.fetch().await.unwrap_err();
    assert!(
        matches!(&error, RepositoryError::Missing(what) if what.ends_with("there is no branch `release`")),
        "{error}"
    );
    someone.git(&["push", "--quiet", "origin", "HEAD:refs/heads/release"]);
    assert_eq!(named.fetch().await.unwrap(), forward(&first));

    rig.server(&["symbolic-ref", "HEAD", "refs/heads/gone"]);
    let error = unborn.fetch().await.unwrap_err();
    assert!(
        matches!(&error, RepositoryError::Missing(what) if what.contains("HEAD names a branch that does not exist")),
        "{error}"
    );
    rig.server(&["symbolic-ref", "HEAD", "refs/heads/main"]);
    rig.server(&["update-ref", "-d", "refs/heads/release"]);
    assert!(matches!(
        named.fetch().await,
        Err(RepositoryError::Missing(_))
    ));
    rig.server(&["update-ref", "-d", "refs/heads/main"]);
    let emptied = Head {
        commit: None,
        history: History::Rewritten { from: first },
    };
    assert_eq!(named.fetch().await.unwrap(), emptied);
}

#[tokio::test]
async fn a_detached_head_names_no_branch() {
    let rig = Rig::with(&[("a.yaml", "a: 1\n")]);
    rig.server(&["update-ref", "--no-deref", "HEAD", rig.head().as_str()]);
    let error = rig.branch().await.fetch().await.unwrap_err();
    assert!(
        error.to_string().contains("HEAD names no branch"),
        "{error}"
    );
}

#[tokio::test]
async fn names_that_are_no_branches() {
    let rig = Rig::empty();
    for name in ["", "-x", "a..b", "a b", "x.lock", "a~1", "a:b"] {
        let mut settings = rig.settings("copy");
        settings.branch = Some(name.to_owned());
        assert!(Branch::open(settings).await.is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn a_rewritten_history_is_reported_until_it_is_taken_back_or_accepted() {
    let rig = Rig::with(&[("a.yaml", "a: 1\n")]);
    let someone = rig.someone_named("alexis");
    let second = someone.commit("second", &[("a.yaml", "a: 2\n")]);
    someone.push();
    let mut branch = rig.branch().await;
    branch.fetch().await.unwrap();
    someone.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    let other = someone.commit("other", &[("a.yaml", "a: 3\n")]);
    someone.force();
    let rewritten = Head {
        commit: Some(other.clone()),
        history: History::Rewritten {
            from: second.clone(),
        },
    };
    assert_eq!(branch.fetch().await.unwrap(), rewritten);
    assert_eq!(branch.fetch().await.unwrap(), rewritten);
    assert_eq!(
        rig.branch().await.fetch().await.unwrap(),
        rewritten,
        "after a restart"
    );
    assert_eq!(names(&branch.snapshot(&other).await.unwrap()), ["a.yaml"]);

    // A rewind is a rewrite too.
    someone.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    someone.force();
    assert_eq!(
        branch.fetch().await.unwrap().history,
        History::Rewritten {
            from: second.clone()
        }
    );
    someone.git(&["reset", "--quiet", "--hard", second.as_str()]);
    someone.force();
    assert_eq!(branch.fetch().await.unwrap(), forward(&second));

    someone.git(&["reset", "--quiet", "--hard", other.as_str()]);
    someone.force();
    let mut settings = rig.settings("copy");
    settings.accept_rewritten_history = true;
    let mut told = Branch::open(settings).await.unwrap();
    assert_eq!(told.fetch().await.unwrap(), forward(&other));
    assert_eq!(
        rig.branch().await.fetch().await.unwrap(),
        forward(&other),
        "it is the truth now"
    );
}

#[tokio::test]
async fn a_damaged_copy_is_made_anew_and_forgets_nothing() {
    let rig = Rig::with(&[("a.yaml", "a: 1\n")]);
    let first = rig.head();
    let copy = rig.path("copy");
    rig.branch().await.fetch().await.unwrap();

    // Found at the start.
    std::fs::remove_dir_all(copy.join("objects")).unwrap();
    let mut branch = rig.branch().await;
    assert_eq!(branch.fetch().await.unwrap(), forward(&first));
    assert_eq!(names(&branch.snapshot(&first).await.unwrap()), ["a.yaml"]);

    // Found while reading: reported once, then repaired.
    let mut branch = rig.branch().await;
    branch.fetch().await.unwrap();
    std::fs::remove_dir_all(copy.join("objects")).unwrap();
    std::fs::create_dir(copy.join("objects")).unwrap();
    assert!(matches!(
        branch.snapshot(&first).await,
        Err(RepositoryError::Local(_))
    ));
    assert_eq!(branch.fetch().await.unwrap(), forward(&first));
    assert_eq!(names(&branch.snapshot(&first).await.unwrap()), ["a.yaml"]);

    // What was seen is remembered all the same.
    let someone = rig.someone_named("alexis");
    someone.git(&["commit", "--quiet", "--amend", "--message", "amended"]);
    someone.force();
    std::fs::remove_dir_all(copy.join("objects")).unwrap();
    for start in ["at once", "after another restart"] {
        let history = rig.branch().await.fetch().await.unwrap().history;
        assert_eq!(
            history,
            History::Rewritten {
                from: first.clone()
            },
            "{start}"
        );
    }
}

#[tokio::test]
async fn a_folder_that_is_not_ours_is_left_alone() {
    let rig = Rig::with(&[("a.yaml", "a: 1\n")]);
    std::fs::create_dir(rig.path("copy")).unwrap();
    std::fs::write(rig.path("copy").join("thesis.txt"), "years of work").unwrap();
    let error = Branch::open(rig.settings("copy")).await.unwrap_err();
    assert!(
        error.to_string().contains("name an empty folder"),
        "{error}"
    );
    assert!(exists(&rig.path("copy"), "thesis.txt"));
}

#[tokio::test]
async fn a_copy_of_another_branch_is_not_compared_with() {
    let rig = Rig::with(&[("a.yaml", "a: 1\n")]);
    rig.branch().await.fetch().await.unwrap();
    let someone = rig.someone_named("alexis");
    someone.git(&["checkout", "--quiet", "--orphan", "other"]);
    let other = someone.commit("unrelated", &[("a.yaml", "a: 2\n")]);
    someone.git(&["push", "--quiet", "origin", "other"]);
    let mut settings = rig.settings("copy");
    settings.branch = Some("other".to_owned());
    let mut branch = Branch::open(settings).await.unwrap();
    assert_eq!(branch.fetch().await.unwrap(), forward(&other));
}

#[tokio::test]
async fn what_is_no_manifest_is_left_out_and_said() {
    let rig = Rig::with(&[
        ("apps/a.yaml", "a: 1\n"),
        ("apps/deep/er/b.yml", "b: 1\n"),
        ("apps/readme.md", "no"),
        (
            "apps/lfs.yaml",
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        ),
        ("apps/back\\slash.yaml", "c: 1\n"),
        ("other/c.yaml", "c: 1\n"),
    ]);
    let someone = rig.someone_named("alexis");
    someone.write("apps/large.yaml", "#".repeat((5 << 20) + 1));
    someone.write("apps/largest.yaml", "#".repeat(5 << 20));
    symlink("a.yaml", someone.clone.join("apps/link.yaml")).unwrap();
    symlink("deep", someone.clone.join("apps/link")).unwrap();
    let odd = std::ffi::OsString::from_encoded(b"apps/\xff.yaml");
    std::fs::write(someone.clone.join(odd), "x").unwrap();
    someone.git(&["add", "--all"]);
    let module = format!("160000,{},apps/module", rig.head());
    someone.git(&["update-index", "--add", "--cacheinfo", &module]);
    someone.git(&["update-index", "--chmod=+x", "apps/a.yaml"]);
    someone.git(&["commit", "--quiet", "--message", "all sorts"]);
    someone.push();

    let mut settings = rig.settings("copy");
    settings.path = Some(path("apps"));
    let mut branch = Branch::open(settings).await.unwrap();
    let head = branch.fetch().await.unwrap().commit.unwrap();
    for _ in 0..2 {
        let snapshot = branch.snapshot(&head).await.unwrap();
        assert_eq!(
            names(&snapshot),
            ["apps/a.yaml", "apps/deep/er/b.yml", "apps/largest.yaml"]
        );
        let mut skipped = snapshot.skipped;
        skipped.sort();
        let skipped: Vec<_> = skipped
            .iter()
            .map(|(path, why)| format!("{path}: {why}"))
            .collect();
        assert_eq!(
            skipped,
            [
                "apps/back\\slash.yaml: the name cannot be a path",
                "apps/large.yaml: 5242881 bytes, more than 5242880",
                "apps/lfs.yaml: Git LFS pointer",
                "apps/link.yaml: symbolic link",
                "apps/module: submodule",
                "apps/\u{fffd}.yaml: the name is not UTF-8",
            ]
        );
    }

    let mut settings = rig.settings("elsewhere");
    settings.path = Some(path("nowhere"));
    let mut branch = Branch::open(settings).await.unwrap();
    branch.fetch().await.unwrap();
    let snapshot = branch.snapshot(&head).await.unwrap();
    assert!(snapshot.files.is_empty());
    assert_eq!(
        snapshot.skipped,
        [(
            "nowhere".to_owned(),
            "there is no such folder in this commit".to_owned()
        )]
    );
}

/// Bytes of a name that need not be text.
trait FromEncoded {
    fn from_encoded(bytes: &[u8]) -> Self;
}

impl FromEncoded for std::ffi::OsString {
    fn from_encoded(bytes: &[u8]) -> Self {
        std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())
    }
}

/// What is not needed is not read: the test takes it away.
#[tokio::test]
async fn five_thousand_files_are_not_read_for_a_few() {
    let rig = Rig::with(&[("apps/a.yaml", "a: 1\n"), ("apps/b.yaml", "b: 1\n")]);
    let someone = rig.someone_named("alexis");
    for number in 0..5_000 {
        someone.write(
            &format!("data/{}/{number}.bin", number % 50),
            number.to_string(),
        );
    }
    let second = someone.commit("a lot", &[]);
    someone.push();
    let mut settings = rig.settings("copy");
    settings.path = Some(path("apps"));
    for (name, value) in [
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "fetch.unpackLimit"),
        ("GIT_CONFIG_VALUE_0", "100000"),
    ] {
        settings
            .environment
            .insert(name.to_owned(), value.to_owned());
    }
    let mut branch = Branch::open(settings).await.unwrap();
    branch.fetch().await.unwrap();
    rig.unpack("copy");
    let objects = rig.path("copy").join("objects");
    let take_away = |revision: &str| {
        let id = rig.server(&["rev-parse", revision]);
        std::fs::remove_file(objects.join(&id[..2]).join(&id[2..])).unwrap();
    };
    take_away("main:data");
    take_away("main:data/7/7.bin");
    assert_eq!(
        names(&branch.snapshot(&second).await.unwrap()),
        ["apps/a.yaml", "apps/b.yaml"]
    );

    // The second time only what changed is read.
    take_away("main:apps/a.yaml");
    let third = someone.commit("one", &[("apps/b.yaml", "b: 2\n")]);
    someone.push();
    branch.fetch().await.unwrap();
    let snapshot = branch.snapshot(&third).await.unwrap();
    assert_eq!(&*snapshot.files[&path("apps/a.yaml")].1, b"a: 1\n");
    assert_eq!(&*snapshot.files[&path("apps/b.yaml")].1, b"b: 2\n");
}

#[tokio::test]
async fn history_reads_from_any_clone() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n"), ("other.yaml", "x: 1\n")]);
    let mut branch = rig.branch().await;
    let ours = publish(&mut branch, step("app", 1, "step: 1\n")).await;
    let someone = rig.someone("stefan");
    someone.commit("unrelated", &[("other.yaml", "x: 2\n")]);
    let picked = someone.commit(
        "another\n\nText.\n\nSerin-Canary: test/app",
        &[("x.txt", "x")],
    );
    let edit = someone.commit("raise", &[("app.yaml", "v: 2\n")]);
    someone.push();

    let shallow = rig.path("shallow");
    run(program("git", &rig.home())
        .args(["clone", "--quiet", "--depth=2"])
        .arg(format!("file://{}", rig.remote().display()))
        .arg(&shallow));
    let watch = watch("app", &["app.yaml"]);
    let bare = Local::open(&rig.remote(), Some("main")).unwrap();
    let work_tree = Local::open(&someone.clone, None).unwrap();
    for local in [&bare, &work_tree] {
        assert_eq!(local.head(), edit);
        let log = local.log(&watch, 10).unwrap();
        let subjects: Vec<_> = log.iter().map(|entry| entry.subject.as_str()).collect();
        assert_eq!(
            subjects,
            ["raise", "another", "canary(test/app): step", "first"]
        );
        assert_eq!(log[1].id, picked);
        assert_eq!(log[1].canaries, [super::rig::canary("app")]);
        assert_eq!(log[2].id, ours);
        assert_eq!(log[2].committer, us());
        assert_eq!(log[2].body, "Because.");
        assert_eq!(
            log[2].trailers,
            [("Serin-Canary".to_owned(), "test/app".to_owned())]
        );
        assert_eq!(log[2].committed, super::rig::at(1));
        assert_eq!(local.log(&watch, 1).unwrap().len(), 1);
        let snapshot = local.snapshot(None).unwrap();
        assert_eq!(
            names(&snapshot),
            ["app.serin/rollout.yaml", "app.yaml", "other.yaml"]
        );
        let lineage = &local
            .lineage(std::slice::from_ref(&watch), &us().email)
            .unwrap()[&watch.canary];
        assert_eq!(lineage.ours.as_ref().unwrap().id, ours);
        assert_eq!(lineage.input.as_ref().unwrap().id, edit);
    }
    let cut = Local::open(&shallow, None).unwrap();
    assert_eq!(cut.log(&watch, 10).unwrap()[0].id, edit);
    assert!(cut.lineage(&[watch], &us().email).is_ok());
    assert!(matches!(
        Local::open(&rig.remote(), Some("nope")),
        Err(RepositoryError::Missing(_))
    ));
    assert!(Local::open(&rig.home(), None).is_err());
}

#[tokio::test]
async fn a_removed_folder_is_read_from_before() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let mut branch = rig.branch().await;
    let ours = publish(&mut branch, step("app", 1, "step: 1\n")).await;
    let gone = accepted(
        branch
            .publish(
                &ours,
                vec![draft("app", 2, &[("app.serin/rollout.yaml", None)])],
            )
            .await
            .unwrap(),
    );
    assert_eq!(names(&branch.snapshot(&gone).await.unwrap()), ["app.yaml"]);
    assert_eq!(
        names(&branch.snapshot(&ours).await.unwrap()),
        ["app.serin/rollout.yaml", "app.yaml"]
    );
}
