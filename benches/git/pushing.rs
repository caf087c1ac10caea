//! Steps on their way to the remote, against the same by `git`'s own plumbing.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serin::git::{Branch, Signing};
use serin::ports::Repository;

use super::rig::{
    Report, Rig, accepted, best, clocked, commit, fast_import, git, git_with, message, rollout,
    routes, step, timed, us,
};

/// One step in a repository of 10,000 files.
pub(crate) async fn one_step(report: &mut Report) {
    let count = report.size(10_000);
    let files: Vec<(String, Vec<u8>)> = (0..count)
        .map(|n| {
            (
                format!("apps/t{}/f{n}.yaml", n / 100),
                format!("v: {n}\n").into_bytes(),
            )
        })
        .chain([(
            "apps/t0/app.serin/rollout.yaml".to_owned(),
            rollout(0).into_bytes(),
        )])
        .collect();
    let rig = Rig::import(|to| commit(to, 0, &us(), "all", &files, true));
    let (mut branch, mut head) = rig.branch("copy").await;
    let clone = rig.clone("baseline.git");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=report.size(3_000).min(15) {
        let draft = step("apps/t0/app.serin", "app", round * 2);
        let (published, time) = timed(branch.publish(&head, vec![draft])).await;
        accepted(published.unwrap());
        ours.push(time);
        git(&clone, &["fetch", "--quiet", "origin", "+main:main"]);
        let ((), time) = clocked(|| by_plumbing(&clone, round * 2 + 1));
        theirs.push(time);
        head = branch.fetch().await.unwrap().commit.unwrap();
    }
    report.ratio(
        &format!("one step among {count} files, committed and pushed"),
        best(ours),
        ("hash-object, mktree, commit-tree, push", best(theirs)),
        2.0,
    );
}

/// The same change as a script would make it, in a clone without files whose `main` is the remote's.
pub(crate) fn by_plumbing(clone: &Path, number: usize) {
    let blob = |text: String| git_with(clone, &["hash-object", "-w", "--stdin"], text.as_bytes());
    let files = [
        ("rollout.yaml", blob(rollout(number))),
        ("virtualservice.yaml", blob(routes(number))),
    ];
    let listed: String = files
        .iter()
        .map(|(name, id)| format!("100644 blob {id}\t{name}\n"))
        .collect();
    let mut below = git_with(clone, &["mktree"], listed.as_bytes());
    let folders = ["apps/t0/app.serin", "apps/t0", "apps", ""];
    for pair in folders.windows(2) {
        let name = pair[0].rsplit('/').next().unwrap();
        let kept = git(clone, &["ls-tree", &format!("main:{}", pair[1])]);
        let listed: String = kept
            .lines()
            .filter(|line| !line.ends_with(&format!("\t{name}")))
            .map(|line| format!("{line}\n"))
            .chain([format!("040000 tree {below}\t{name}\n")])
            .collect();
        below = git_with(clone, &["mktree"], listed.as_bytes());
    }
    let commit = git_with(
        clone,
        &["commit-tree", &below, "-p", "main"],
        message("app").as_bytes(),
    );
    git(
        clone,
        &[
            "push",
            "--quiet",
            "--porcelain",
            "origin",
            &format!("{commit}:refs/heads/main"),
        ],
    );
}

/// A thousand canaries that step at once.
pub(crate) async fn a_thousand(report: &mut Report, is_signed: bool) {
    let count = report.size(1_000);
    let folder = |n: usize| format!("apps/c{n}/c{n}.serin");
    let files: Vec<(String, Vec<u8>)> = (0..count)
        .flat_map(|n| {
            [
                (
                    format!("apps/c{n}/app.yaml"),
                    format!("v: {n}\n").into_bytes(),
                ),
                (
                    format!("{}/rollout.yaml", folder(n)),
                    rollout(n).into_bytes(),
                ),
                (
                    format!("{}/virtualservice.yaml", folder(n)),
                    routes(n).into_bytes(),
                ),
            ]
        })
        .collect();
    let rig = Rig::import(|to| commit(to, 0, &us(), "all", &files, true));
    let mut settings = rig.settings("copy");
    if is_signed {
        let key = rig.path("key");
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .status();
        assert!(made.unwrap().success());
        settings.sign = Some(Signing::Ssh { key });
    }
    let mut branch = Branch::open(settings).await.unwrap();
    let mut head = branch.fetch().await.unwrap().commit.unwrap();
    let clone = rig.clone("baseline.git");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let rounds = if is_signed { 1 } else { 5 };
    for round in 1..=rounds {
        let drafts = (0..count)
            .map(|n| step(&folder(n), &format!("c{n}"), round * 2 * count + n))
            .collect();
        let (published, time) = timed(branch.publish(&head, drafts)).await;
        assert_eq!(accepted(published.unwrap()).len(), count);
        ours.push(time);
        git(&clone, &["fetch", "--quiet", "origin", "+main:main"]);
        let ((), time) = clocked(|| {
            fast_import(&clone, |to| {
                a_thousand_at_once(to, count, round * 2 + 1, &folder)
            });
            git(
                &clone,
                &[
                    "push",
                    "--quiet",
                    "--porcelain",
                    "origin",
                    "main:refs/heads/main",
                ],
            );
        });
        theirs.push(time);
        head = branch.fetch().await.unwrap().commit.unwrap();
    }
    let (ours, theirs) = (best(ours), best(theirs));
    if is_signed {
        // Each commit names the one before it, so the keys' program runs once for each, one after the other.
        report.figure(
            &format!("{count} canaries at once, each commit signed by ssh-keygen"),
            ours,
        );
        report.figure(
            "  of that for one signature",
            ours.saturating_sub(theirs) / u32::try_from(count).unwrap(),
        );
        return;
    }
    let what = format!("{count} canaries at once, one push");
    report.ratio(&what, ours, ("fast-import and push", theirs), 2.0);
    report.limit(&what, ours, Duration::from_secs(1));
}

fn a_thousand_at_once(
    to: &mut dyn Write,
    count: usize,
    number: usize,
    folder: &dyn Fn(usize) -> String,
) {
    for n in 0..count {
        let files = [
            (
                format!("{}/rollout.yaml", folder(n)),
                rollout(number * count + n).into_bytes(),
            ),
            (
                format!("{}/virtualservice.yaml", folder(n)),
                routes(number * count + n).into_bytes(),
            ),
        ];
        commit(
            to,
            number * count + n,
            &us(),
            &message(&format!("c{n}")),
            &files,
            n == 0,
        );
    }
}
