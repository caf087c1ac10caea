//! Writing commits and pushing them: races, refusals, and what is left untouched.

use std::time::Duration;

use serin::domain::CommitId;
use serin::git::Branch;
use serin::ports::{Draft, History, Published, Repository, RepositoryError};

use super::rig::{Rig, accepted, draft, publish, step, us};

async fn ready(rig: &Rig) -> (Branch, CommitId) {
    let mut branch = rig.branch().await;
    let head = branch.fetch().await.unwrap().commit.unwrap();
    (branch, head)
}

fn refused(published: Published) -> String {
    match published {
        Published::Refused(words) => words,
        Published::Accepted(_) | Published::LostRace => panic!("{published:?}"),
    }
}

#[tokio::test]
async fn many_commits_are_one_push() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    rig.hook("post-receive", "echo push >> pushes");
    let (mut branch, base) = ready(&rig).await;
    let drafts = vec![
        step("app", 1, "step: 1\n"),
        step("shop", 2, "step: 1\n"),
        step("app", 3, "step: 2\n"),
    ];
    let published = branch.publish(&base, drafts.clone()).await.unwrap();
    let Published::Accepted(commits) = &published else {
        panic!("{published:?}");
    };
    assert_eq!(commits.len(), 3);
    assert_eq!(rig.head(), commits[2]);
    assert_eq!(
        std::fs::read_to_string(rig.remote().join("pushes")).unwrap(),
        "push\n"
    );
    assert_eq!(rig.server(&["fsck", "--strict"]), "");
    assert_eq!(rig.server(&["rev-parse", "main~3"]), base.as_str());
    assert_eq!(
        rig.server(&["log", "-1", "--format=%an|%ae|%cn|%ce|%at|%ct|%B"]),
        "serin|serin@example.com|serin|serin@example.com|1800000003|1800000003|canary(test/app): step\n\n\
         Because.\n\nSerin-Canary: test/app"
    );
    assert_eq!(
        rig.server(&[
            "log",
            "-1",
            "--format=%(trailers:key=Serin-Canary,valueonly)"
        ]),
        "test/app"
    );
    assert_eq!(
        rig.server(&["show", "--format=", "--name-status", "main~1"]),
        "A\tshop.serin/rollout.yaml"
    );

    // The next fetch knows it all; nothing moved, nothing is rewritten.
    let head = branch.fetch().await.unwrap();
    assert_eq!(
        (head.commit.as_ref(), head.history),
        (commits.last(), History::Forward)
    );

    // The same drafts on the same base are the same commits, wherever they are made.
    rig.server(&["update-ref", "refs/heads/main", base.as_str()]);
    let mut again = Branch::open(rig.settings("elsewhere")).await.unwrap();
    again.fetch().await.unwrap();
    assert_eq!(again.publish(&base, drafts).await.unwrap(), published);
}

#[tokio::test]
async fn no_change_is_no_commit() {
    let rig = Rig::with(&[("app.serin/rollout.yaml", "step: 1\n")]);
    rig.hook("pre-receive", "exit 1");
    let (mut branch, base) = ready(&rig).await;
    let drafts = vec![
        step("app", 1, "step: 1\n"),
        draft("shop", 2, &[("shop.serin/rollout.yaml", None)]),
    ];
    let published = branch.publish(&base, drafts).await.unwrap();
    assert_eq!(
        published,
        Published::Accepted(vec![base.clone(), base.clone()])
    );
    assert_eq!(
        branch.publish(&base, vec![]).await.unwrap(),
        Published::Accepted(vec![])
    );

    std::fs::remove_file(rig.remote().join("hooks/pre-receive")).unwrap();
    let drafts = vec![step("app", 1, "step: 1\n"), step("app", 2, "step: 2\n")];
    let published = branch.publish(&base, drafts).await.unwrap();
    assert_eq!(published, Published::Accepted(vec![base, rig.head()]));
}

#[tokio::test]
async fn only_what_is_changed_changes() {
    let rig = Rig::with(&[
        ("crlf.yaml", "a: 1\r\nb: 2\r\n"),
        ("run.yaml", "#!/usr/bin/env x\n"),
        ("keep/only.yaml", "a: 1"),
        ("deep/er/still.yaml", "a: 1\n"),
    ]);
    let someone = rig.someone_named("alexis");
    someone.write(".gitattributes", "* text=auto eol=lf\n");
    someone.git(&["add", "--all"]);
    someone.git(&["update-index", "--chmod=+x", "run.yaml"]);
    someone.git(&["commit", "--quiet", "--message", "modes"]);
    someone.push();
    let (mut branch, base) = ready(&rig).await;
    let changes = [
        ("crlf.yaml", Some("a: 1\r\nb: 3")),
        ("run.yaml", Some("#!/usr/bin/env y\n")),
        ("keep/only.yaml", None),
        ("deep/er/still.yaml", None),
        ("new/er/file.yaml", Some("a: 1\n")),
    ];
    accepted(
        branch
            .publish(&base, vec![draft("app", 1, &changes)])
            .await
            .unwrap(),
    );
    assert_eq!(rig.file("crlf.yaml"), b"a: 1\r\nb: 3");
    let modes: Vec<String> = rig
        .server(&["ls-tree", "-r", "-t", "main"])
        .lines()
        .map(|line| format!("{} {}", &line[..6], line.split_once('\t').unwrap().1))
        .collect();
    assert_eq!(
        modes,
        [
            "100644 .gitattributes",
            "100644 crlf.yaml",
            "040000 new",
            "040000 new/er",
            "100644 new/er/file.yaml",
            "100755 run.yaml",
        ]
    );
    assert_eq!(rig.server(&["fsck", "--strict"]), "");
}

#[tokio::test]
async fn nothing_is_written_over_what_is_no_file() {
    let rig = Rig::with(&[
        ("app.serin/rollout.yaml/x", "folder"),
        ("shop.serin", "file"),
    ]);
    let someone = rig.someone_named("alexis");
    std::fs::create_dir(someone.clone.join("link.serin")).unwrap();
    std::os::unix::fs::symlink("../x", someone.clone.join("link.serin/rollout.yaml")).unwrap();
    someone.commit("link", &[]);
    someone.push();
    let (mut branch, base) = ready(&rig).await;
    for (name, words) in [
        (
            "app",
            "test/app: `app.serin/rollout.yaml` is a folder, not a file",
        ),
        (
            "shop",
            "test/shop: `shop.serin` is not a folder, so `shop.serin/rollout.yaml` cannot be written",
        ),
        (
            "link",
            "test/link: `link.serin/rollout.yaml` is a symbolic link, not a file",
        ),
    ] {
        let published = branch
            .publish(&base, vec![step(name, 1, "x")])
            .await
            .unwrap();
        assert_eq!(refused(published), words);
    }
    assert_eq!(rig.head(), base);
}

#[tokio::test]
async fn a_person_who_was_faster_wins_and_keeps_everything() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let (mut branch, base) = ready(&rig).await;
    let someone = rig.someone_named("alexis");
    let theirs = someone.commit("theirs", &[("app.yaml", "v: 2\n")]);
    someone.push();
    let lost = branch
        .publish(&base, vec![step("app", 1, "step: 1\n")])
        .await
        .unwrap();
    assert_eq!(lost, Published::LostRace);
    assert_eq!(rig.head(), theirs);
    // Again with their commit already here, which `git` words in another way.
    let lost = branch
        .publish(&base, vec![step("app", 1, "step: 1\n")])
        .await
        .unwrap();
    assert_eq!(lost, Published::LostRace);
    let ours = publish(&mut branch, step("app", 1, "step: 1\n")).await;
    assert_eq!(rig.head(), ours);
    assert_eq!(rig.file("app.yaml"), b"v: 2\n");
    assert_eq!(rig.server(&["rev-parse", "main~1"]), theirs.as_str());
}

/// The branch moves after the server has said where it is: the race that is lost on the server.
#[tokio::test]
async fn a_race_that_is_lost_on_the_server() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let (mut branch, base) = ready(&rig).await;
    let someone = rig.someone_named("alexis");
    let theirs = someone.commit("theirs", &[("app.yaml", "v: 2\n")]);
    someone.git(&["push", "--quiet", "origin", "HEAD:refs/heads/side"]);
    rig.hook(
        "update",
        &format!("git update-ref refs/heads/main {theirs}"),
    );
    let published = branch
        .publish(&base, vec![step("app", 1, "step: 1\n")])
        .await
        .unwrap();
    assert_eq!(published, Published::LostRace);
    assert_eq!(rig.head(), theirs);
    // A hook that says no after the branch has moved: the words are a refusal, the fact is a race.
    rig.server(&["update-ref", "refs/heads/main", base.as_str()]);
    rig.hook(
        "update",
        &format!("git update-ref refs/heads/main {theirs}; echo non >&2; exit 1"),
    );
    let published = branch
        .publish(&base, vec![step("app", 1, "step: 1\n")])
        .await
        .unwrap();
    assert_eq!(published, Published::LostRace);
}

#[tokio::test]
async fn refusals_are_quoted() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let (mut branch, base) = ready(&rig).await;
    for (hook, script, words) in [
        (
            "pre-receive",
            "echo 'Geschützter Zweig: bitte Antrag stellen.' >&2; exit 1",
            "Geschützter Zweig: bitte Antrag stellen.\n[remote rejected] (pre-receive hook declined)",
        ),
        (
            "update",
            "printf '\\033[31mブランチは保護されています\\033[0m\\nhttps://u:tok@example.com/help\\n' >&2; exit 3",
            "ブランチは保護されています\nhttps://***@example.com/help\nerror: hook declined to update refs/heads/main\n[remote rejected] (hook declined)",
        ),
        (
            "pre-receive",
            "exit 1",
            "[remote rejected] (pre-receive hook declined)",
        ),
    ] {
        rig.hook(hook, script);
        let published = branch
            .publish(&base, vec![step("app", 1, "step: 1\n")])
            .await
            .unwrap();
        assert_eq!(refused(published), words);
        assert_eq!(rig.head(), base);
        std::fs::remove_file(rig.remote().join("hooks").join(hook)).unwrap();
    }

    // A lock that somebody left behind reads like a race; the head tells that it is none.
    let lock = rig.remote().join("refs/heads/main.lock");
    std::fs::write(&lock, "").unwrap();
    let words = refused(
        branch
            .publish(&base, vec![step("app", 1, "step: 1\n")])
            .await
            .unwrap(),
    );
    assert!(
        words.contains("[remote rejected] (failed to update ref)"),
        "{words}"
    );
    std::fs::remove_file(lock).unwrap();
    let ours = branch
        .publish(&base, vec![step("app", 1, "step: 1\n")])
        .await
        .unwrap();
    assert_eq!(accepted(ours), rig.head());
}

#[tokio::test]
async fn somebody_who_builds_on_our_commit_at_once_is_no_race() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let (mut branch, base) = ready(&rig).await;
    let on_top = "test \"$GIT_TOP\" && exit; export GIT_TOP=1 GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x \
                  GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x\n\
                  new=$(git commit-tree -p main -m on-top 'main^{tree}') && git update-ref refs/heads/main $new";
    rig.hook("post-receive", on_top);
    let ours = accepted(
        branch
            .publish(&base, vec![step("app", 1, "step: 1\n")])
            .await
            .unwrap(),
    );
    assert_eq!(rig.server(&["rev-parse", "main~1"]), ours.as_str());
    let head = branch.fetch().await.unwrap();
    assert_eq!(
        (head.commit, head.history),
        (Some(rig.head()), History::Forward)
    );
}

/// A plain push would bring back what a person took away.
#[tokio::test]
async fn a_branch_that_was_rewound_or_deleted_is_left_alone() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let first = rig.head();
    let someone = rig.someone_named("alexis");
    someone.commit("second", &[("app.yaml", "v: 2\n")]);
    someone.push();
    let (mut branch, base) = ready(&rig).await;
    rig.server(&["update-ref", "refs/heads/main", first.as_str()]);
    let published = branch
        .publish(&base, vec![step("app", 1, "step: 1\n")])
        .await
        .unwrap();
    assert_eq!(published, Published::LostRace);
    assert_eq!(rig.head(), first);
    assert_eq!(
        branch.fetch().await.unwrap().history,
        History::Rewritten { from: base.clone() }
    );
    rig.server(&["update-ref", "-d", "refs/heads/main"]);
    let published = branch
        .publish(&base, vec![step("app", 1, "step: 1\n")])
        .await
        .unwrap();
    assert_eq!(published, Published::LostRace);
    assert_eq!(rig.server(&["for-each-ref"]), "");
}

#[tokio::test]
async fn two_writers_lose_nothing_and_write_nothing_twice() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let (mut one, _) = ready(&rig).await;
    let mut two = Branch::open(rig.settings("two")).await.unwrap();
    let mut wins = [0, 0];
    for round in 0..6 {
        let base = one.fetch().await.unwrap().commit.unwrap();
        assert_eq!(two.fetch().await.unwrap().commit.as_ref(), Some(&base));
        let content = format!("round: {round}\n");
        let (a, b) = tokio::join!(
            one.publish(&base, vec![step("one", round, &content)]),
            two.publish(&base, vec![step("two", round, &content)])
        );
        let won = [a.unwrap(), b.unwrap()].map(|published| match published {
            Published::Accepted(commits) => {
                assert_eq!(commits, [rig.head()]);
                1
            }
            Published::LostRace => 0,
            // The lock of the other is in the way, and the head is read before the other has moved it.
            Published::Refused(words) => {
                assert!(words.contains("failed to update ref"), "{words}");
                0
            }
        });
        assert_eq!(won[0] + won[1], 1, "round {round}");
        wins = [wins[0] + won[0], wins[1] + won[1]];
    }
    assert_eq!(wins[0] + wins[1], 6);
    assert_eq!(rig.server(&["rev-list", "--count", "main"]), "7");
}

/// The server goes on when the client has given up: nobody refused, and the next fetch tells.
#[tokio::test]
async fn a_push_without_an_answer_is_settled_by_fetching() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let mut settings = rig.settings("copy");
    settings.deadline = Duration::from_millis(700);
    let mut branch = Branch::open(settings).await.unwrap();
    let base = branch.fetch().await.unwrap().commit.unwrap();
    let drafts: Vec<Draft> = vec![step("app", 1, "step: 1\n")];
    rig.hook("pre-receive", "sleep 30");
    let error = branch.publish(&base, drafts.clone()).await.unwrap_err();
    assert!(
        matches!(&error, RepositoryError::Unreachable(what) if what.contains("git push did not end within")),
        "{error}"
    );
    assert_eq!(rig.head(), base);

    std::fs::remove_file(rig.remote().join("hooks/pre-receive")).unwrap();
    rig.hook("post-receive", "sleep 30");
    let ours = accepted(branch.publish(&base, drafts).await.unwrap());
    assert_eq!(rig.head(), ours, "it was done all the same");
}

#[tokio::test]
async fn people_keep_their_hooks_and_settings_to_themselves() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let marker = rig.path("ran");
    let hooks = rig.path("hooks");
    std::fs::create_dir(&hooks).unwrap();
    for name in ["pre-push", "reference-transaction"] {
        let hook = hooks.join(name);
        std::fs::write(
            &hook,
            format!(
                "#!/bin/sh\ncase $PWD in *remote.git) exit 0;; esac\ntouch {}\nexit 1\n",
                marker.display()
            ),
        )
        .unwrap();
        std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
    }
    let configuration = format!(
        "[core]\nhooksPath = {}\n[push]\nfollowTags = true\ngpgSign = true\n[init]\ndefaultObjectFormat = sha256\n[fetch]\nprune = true\n",
        hooks.display()
    );
    let global = rig.path("gitconfig");
    std::fs::write(&global, configuration).unwrap();
    let mut settings = rig.settings("copy");
    settings.author.name = "Se<rin>\n".to_owned();
    settings.environment.insert(
        "GIT_CONFIG_GLOBAL".to_owned(),
        global.to_str().unwrap().to_owned(),
    );
    let mut branch = Branch::open(settings).await.unwrap();
    let ours = publish(&mut branch, step("app", 1, "step: 1\n")).await;
    assert_eq!(rig.head(), ours);
    assert!(!marker.exists());
    assert_eq!(
        rig.server(&["log", "-1", "--format=%an %ae"]),
        format!("Serin {}", us().email)
    );
}
