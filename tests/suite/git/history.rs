//! Who changed what since our last commit, on histories that people really make.

use std::collections::BTreeMap;

use serin::domain::{CanaryId, CommitId};
use serin::git::Branch;
use serin::ports::{Lineage, Repository, Watch};

use super::rig::{Rig, Someone, accepted, canary, draft, path, publish, step, watch};

/// Fetches and asks; a branch that has never asked before must say the same.
async fn lineages(
    rig: &Rig,
    branch: &mut Branch,
    watches: &[Watch],
) -> BTreeMap<CanaryId, Lineage> {
    let head = branch.fetch().await.unwrap().commit.unwrap();
    let known = branch.lineage(&head, watches).await.unwrap();
    let mut fresh = rig.branch().await;
    assert_eq!(
        fresh.lineage(&head, watches).await.unwrap(),
        known,
        "from nothing"
    );
    assert_eq!(
        branch.lineage(&head, watches).await.unwrap(),
        known,
        "asked twice"
    );
    known
}

async fn lineage(rig: &Rig, branch: &mut Branch) -> Lineage {
    let watches = [watch("app", &["app.yaml", "deploy/app.yaml"])];
    lineages(rig, branch, &watches)
        .await
        .remove(&canary("app"))
        .unwrap()
}

fn ours(lineage: &Lineage) -> Option<&CommitId> {
    lineage.ours.as_ref().map(|ours| &ours.id)
}

fn folder(lineage: &Lineage) -> Vec<(&str, Vec<&str>)> {
    lineage
        .folder
        .iter()
        .map(|commit| {
            let paths = commit.paths.iter().map(|path| path.as_str()).collect();
            (commit.subject.as_str(), paths)
        })
        .collect()
}

fn input(lineage: &Lineage) -> Option<(&str, Vec<&str>)> {
    lineage.input.as_ref().map(|commit| {
        let paths = commit.paths.iter().map(|path| path.as_str()).collect();
        (commit.subject.as_str(), paths)
    })
}

fn start() -> (Rig, Someone) {
    let rig = Rig::with(&[
        ("app.yaml", "v: 1\n"),
        ("deploy/app.yaml", "image: 1\n"),
        ("notes.md", "x\n"),
    ]);
    let someone = rig.someone_named("alexis");
    (rig, someone)
}

#[tokio::test]
async fn a_straight_history() {
    let (rig, someone) = start();
    let mut branch = rig.branch().await;
    let before = lineage(&rig, &mut branch).await;
    assert_eq!(ours(&before), None);
    assert_eq!(
        input(&before),
        Some(("first", vec!["app.yaml", "deploy/app.yaml"]))
    );

    let first = publish(&mut branch, step("app", 1, "step: 1\n")).await;
    let second = publish(&mut branch, step("app", 2, "step: 2\n")).await;
    publish(&mut branch, step("shop", 3, "step: 9\n")).await;
    let quiet = lineage(&rig, &mut branch).await;
    assert_eq!(ours(&quiet), Some(&second));
    assert_ne!(first, second);
    let left = quiet.ours.as_ref().unwrap();
    assert_eq!(left.at, super::rig::at(2));
    assert_eq!(
        left.files,
        BTreeMap::from([(path("app.serin/rollout.yaml"), b"step: 2\n"[..].into())])
    );
    assert_eq!(folder(&quiet), []);

    someone.pull();
    someone.commit("raise", &[("app.yaml", "v: 2\n"), ("notes.md", "y\n")]);
    someone.commit(
        "take over",
        &[
            ("app.serin/rollout.yaml", "step: 3\n"),
            ("app.serin/notes/x.txt", "x"),
        ],
    );
    someone.commit("unrelated", &[("notes.md", "z\n")]);
    someone.commit("once more", &[("app.serin/rollout.yaml", "step: 4\n")]);
    someone.push();
    let taken = lineage(&rig, &mut branch).await;
    assert_eq!(ours(&taken), Some(&second));
    assert_eq!(
        folder(&taken),
        [
            ("once more", vec!["app.serin/rollout.yaml"]),
            (
                "take over",
                vec!["app.serin/notes/x.txt", "app.serin/rollout.yaml"]
            ),
        ]
    );
    assert_eq!(taken.folder[0].author.email, "alexis@example.com");
    assert_eq!(input(&taken), Some(("raise", vec!["app.yaml"])));

    let adopted = publish(&mut branch, step("app", 4, "step: 4\nheld: true\n")).await;
    let adopted_lineage = lineage(&rig, &mut branch).await;
    assert_eq!(ours(&adopted_lineage), Some(&adopted));
    assert_eq!(folder(&adopted_lineage), []);
    assert_eq!(
        input(&adopted_lineage),
        Some(("raise", vec!["app.yaml"])),
        "ours is not an input of people"
    );
}

#[tokio::test]
async fn a_commit_is_ours_by_trailer_and_committer_together() {
    let (rig, someone) = start();
    let mut branch = rig.branch().await;
    let first = publish(&mut branch, step("app", 1, "step: 1\n")).await;
    publish(&mut branch, step("app", 2, "step: 2\n")).await;
    someone.pull();
    someone.git(&["revert", "--no-edit", "HEAD"]);
    someone.push();
    let reverted = lineage(&rig, &mut branch).await;
    assert_eq!(
        folder(&reverted),
        [(
            "Revert \"canary(test/app): step\"",
            vec!["app.serin/rollout.yaml"]
        )]
    );
    assert_ne!(ours(&reverted), Some(&first));

    // A cherry-pick has our trailer and our author, but a person put it there.
    someone.git(&["cherry-pick", "HEAD~1"]);
    someone.push();
    let picked = lineage(&rig, &mut branch).await;
    assert_eq!(picked.folder.len(), 2);
    assert_eq!(picked.folder[0].subject, "canary(test/app): step");

    // Our own commit for another canary that touches this folder is nobody else's.
    let moved = [
        ("shop.serin/rollout.yaml", Some("a")),
        ("app.serin/rollout.yaml", Some("b")),
    ];
    publish(&mut branch, draft("shop", 5, &moved)).await;
    assert_eq!(lineage(&rig, &mut branch).await.folder.len(), 2);
}

/// A person who commits, then pulls: our commits are on the second parent.
#[tokio::test]
async fn a_merge_made_by_pulling() {
    let (rig, someone) = start();
    let mut branch = rig.branch().await;
    publish(&mut branch, step("app", 1, "step: 1\n")).await;
    someone.pull();
    someone.commit("raise", &[("app.yaml", "v: 2\n")]);
    let second = publish(&mut branch, step("app", 2, "step: 2\n")).await;
    lineage(&rig, &mut branch).await;
    someone.pull();
    someone.push();
    assert_eq!(
        rig.server(&["rev-parse", "main^2"]),
        second.as_str(),
        "ours is the second parent"
    );
    let merged = lineage(&rig, &mut branch).await;
    assert_eq!(ours(&merged), Some(&second));
    assert_eq!(folder(&merged), []);
    assert_eq!(
        input(&merged),
        Some(("raise", vec!["app.yaml"])),
        "the author, not the merge"
    );
}

#[tokio::test]
async fn a_merge_that_changes_nothing_itself_is_not_blamed() {
    let (rig, someone) = start();
    let mut branch = rig.branch().await;
    publish(&mut branch, step("app", 1, "step: 1\n")).await;
    someone.pull();
    someone.git(&["checkout", "--quiet", "-b", "feature"]);
    someone.commit("take over", &[("app.serin/rollout.yaml", "step: 7\n")]);
    someone.commit("image", &[("deploy/app.yaml", "image: 2\n")]);
    someone.git(&["checkout", "--quiet", "main"]);
    someone.commit("raise", &[("app.yaml", "v: 2\n")]);
    someone.git(&["merge", "--quiet", "--no-edit", "feature"]);
    someone.push();
    let merged = lineage(&rig, &mut branch).await;
    assert_eq!(
        folder(&merged),
        [("take over", vec!["app.serin/rollout.yaml"])]
    );
    let subject = input(&merged).unwrap().0;
    assert!(["raise", "image"].contains(&subject), "{subject}");
}

/// Both sides changed the folder: the merge is somebody's own version of it, and what is older than our last commit is
/// none of ours to report.
#[tokio::test]
async fn a_merge_that_differs_from_both_sides() {
    let (rig, someone) = start();
    let mut branch = rig.branch().await;
    publish(&mut branch, step("app", 1, "step: 1\n")).await;
    someone.pull();
    someone.commit("before", &[("app.serin/extra.yaml", "a: 1\n")]);
    someone.push();
    publish(&mut branch, step("app", 2, "step: 2\n")).await;
    someone.pull();
    someone.commit("theirs", &[("app.serin/rollout.yaml", "step: 9\n")]);
    let third = publish(
        &mut branch,
        draft(
            "app",
            3,
            &[("app.serin/virtualservice.yaml", Some("w: 3\n"))],
        ),
    )
    .await;
    lineage(&rig, &mut branch).await;
    someone.pull();
    someone.push();
    let merged = lineage(&rig, &mut branch).await;
    assert_eq!(ours(&merged), Some(&third));
    let mut subjects: Vec<_> = merged
        .folder
        .iter()
        .map(|commit| commit.subject.as_str())
        .collect();
    assert!(subjects[0].starts_with("Merge branch"), "{subjects:?}");
    subjects.sort_unstable();
    assert_eq!(subjects.len(), 2);
    assert_eq!(subjects[1], "theirs");
}

#[tokio::test]
async fn folders_that_come_and_go() {
    let (rig, someone) = start();
    let mut branch = rig.branch().await;
    let made = publish(&mut branch, step("app", 1, "step: 1\n")).await;
    someone.pull();
    someone.git(&["rm", "--quiet", "-r", "app.serin"]);
    someone.commit("away with it", &[]);
    someone.push();
    let gone = lineage(&rig, &mut branch).await;
    assert_eq!(ours(&gone), Some(&made));
    assert_eq!(
        folder(&gone),
        [("away with it", vec!["app.serin/rollout.yaml"])]
    );

    let base = rig.head();
    let remade = step("app", 2, "step: 1\n");
    let removed = draft("app", 3, &[("app.serin/rollout.yaml", None)]);
    let last = accepted(branch.publish(&base, vec![remade, removed]).await.unwrap());
    let cleaned = lineage(&rig, &mut branch).await;
    assert_eq!(ours(&cleaned), Some(&last));
    assert!(cleaned.ours.unwrap().files.is_empty());
}

#[tokio::test]
async fn many_canaries_are_one_walk_and_new_ones_join_later() {
    let (rig, someone) = start();
    let mut branch = rig.branch().await;
    let base = branch.fetch().await.unwrap().commit.unwrap();
    let names: Vec<String> = (0..40).map(|number| format!("c{number:02}")).collect();
    let drafts = names
        .iter()
        .zip(0..)
        .map(|(name, second)| step(name, second, "step: 1\n"))
        .collect();
    // Enough objects for a pack of their own.
    accepted(branch.publish(&base, drafts).await.unwrap());
    assert_eq!(rig.server(&["fsck", "--strict"]), "");
    let mut watches: Vec<Watch> = names
        .iter()
        .take(39)
        .map(|name| watch(name, &["app.yaml"]))
        .collect();
    let all = lineages(&rig, &mut branch, &watches).await;
    assert!(
        all.values()
            .all(|lineage| lineage.ours.is_some() && lineage.folder.is_empty())
    );

    someone.pull();
    someone.commit("one of them", &[("c07.serin/rollout.yaml", "step: 2\n")]);
    someone.push();
    watches.push(watch("c39", &["app.yaml"]));
    watches[3].inputs.push(path("notes.md"));
    let all = lineages(&rig, &mut branch, &watches).await;
    assert_eq!(all.len(), 40);
    for (id, lineage) in &all {
        assert!(lineage.ours.is_some(), "{id}");
        assert_eq!(
            lineage.folder.len(),
            usize::from(*id == canary("c07")),
            "{id}"
        );
    }
}

/// Random histories with merges in all directions: what is remembered from head to head equals what is found from nothing,
/// and both agree with `git log` on the newest commit of a person.
#[tokio::test]
async fn random_histories_agree_with_git_log() {
    let (rig, alexis) = start();
    let stefan = rig.someone("stefan");
    let mut branch = rig.branch().await;
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |limit: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % limit
    };
    for round in 0..24 {
        let person = if below(2) == 0 { &alexis } else { &stefan };
        let number = round.to_string();
        match below(5) {
            0 | 1 => {
                publish(&mut branch, step("app", i64::from(round), &number)).await;
            }
            2 => {
                person.commit(&format!("input {round}"), &[("app.yaml", &number)]);
                person.git(&["pull", "--quiet", "--no-rebase", "--no-edit", "-X", "ours"]);
                person.push();
            }
            3 => {
                person.commit(&format!("deploy {round}"), &[("deploy/app.yaml", &number)]);
            }
            _ => {
                person.commit(&format!("other {round}"), &[("notes.md", &number)]);
                person.git(&["pull", "--quiet", "--no-rebase", "--no-edit", "-X", "ours"]);
                person.push();
            }
        }
        let watches = [
            watch("app", &["app.yaml"]),
            watch("image", &["deploy/app.yaml"]),
        ];
        let found = lineages(&rig, &mut branch, &watches).await;
        for (name, input) in [("app", "app.yaml"), ("image", "deploy/app.yaml")] {
            let log = rig.server(&["log", "-1", "--format=%H", "main", "--", input]);
            let lineage = &found[&canary(name)];
            assert_eq!(
                lineage.input.as_ref().unwrap().id.as_str(),
                log,
                "round {round}: {input}"
            );
        }
        let log = rig.server(&[
            "log",
            "-1",
            "--format=%H",
            "--committer=serin@",
            "main",
            "--",
            "app.serin",
        ]);
        let ours = ours(&found[&canary("app")]).map(|id| id.as_str().to_owned());
        assert_eq!(ours.unwrap_or_default(), log, "round {round}");
    }
}
