//! What a power cut leaves of our copy: it is read as far as it can be, or made anew from the remote; nothing on the remote is
//! lost, doubled or moved by that.

use std::path::Path;

use serin::git::Branch;
use serin::ports::{History, Repository};

use crate::git::rig::{Rig, accepted, step, watch};

/// Files of the copy below a folder whose path ends in one of these.
fn files(copy: &Path, below: &str, ends: &[&str]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![copy.join(below)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if ends.iter().any(|end| path.to_str().unwrap().ends_with(end)) {
                found.push(path);
            }
        }
    }
    found
}

fn truncate(paths: &[std::path::PathBuf], length: u64) {
    assert!(!paths.is_empty());
    for path in paths {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_len(length).unwrap();
    }
}

fn remove(paths: &[std::path::PathBuf]) {
    assert!(!paths.is_empty());
    for path in paths {
        std::fs::remove_file(path).unwrap();
    }
}

fn loose(copy: &Path) -> Vec<std::path::PathBuf> {
    let mut all = files(copy, "objects", &[""]);
    all.retain(|path| path.file_name().unwrap().len() == 38);
    all
}

type Damage = (&'static str, fn(&Path));

const DAMAGES: [Damage; 13] = [
    ("empty loose objects", |copy| truncate(&loose(copy), 0)),
    ("half loose objects", |copy| truncate(&loose(copy), 20)),
    ("no loose objects", |copy| remove(&loose(copy))),
    ("no pack index", |copy| {
        remove(&files(copy, "objects/pack", &[".idx"]))
    }),
    ("empty pack index", |copy| {
        truncate(&files(copy, "objects/pack", &[".idx"]), 0)
    }),
    ("empty pack", |copy| {
        truncate(&files(copy, "objects/pack", &[".pack"]), 0)
    }),
    ("half a pack", |copy| {
        truncate(&files(copy, "objects/pack", &[".pack"]), 300)
    }),
    ("no packs", |copy| {
        std::fs::remove_dir_all(copy.join("objects/pack")).unwrap()
    }),
    ("empty references", |copy| {
        truncate(&files(copy, "refs/serin", &[""]), 0)
    }),
    ("half references", |copy| {
        truncate(&files(copy, "refs/serin", &[""]), 17)
    }),
    ("empty HEAD", |copy| {
        truncate(&files(copy, "", &["/HEAD"]), 0)
    }),
    ("empty configuration", |copy| {
        truncate(&files(copy, "", &["/config"]), 0)
    }),
    ("no references", |copy| {
        std::fs::remove_dir_all(copy.join("refs")).unwrap()
    }),
];

/// Each of them to a whole copy and to one without large files.
fn damages() -> impl Iterator<Item = (Damage, &'static str)> {
    let both = |damage| ["true", "false"].map(|filters| (damage, filters));
    DAMAGES.into_iter().flat_map(both)
}

/// A copy with a pack, loose objects, and two references, from a server that leaves out large files or does not.
async fn prepared(rig: &Rig, filters: &str) -> Branch {
    rig.server(&["config", "fetch.unpackLimit", "1"]);
    rig.server(&["config", "uploadpack.allowFilter", filters]);
    let mut settings = rig.settings("copy");
    for (name, value) in [
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "fetch.unpackLimit"),
        ("GIT_CONFIG_VALUE_0", "1"),
    ] {
        settings
            .environment
            .insert(name.to_owned(), value.to_owned());
    }
    let mut branch = Branch::open(settings).await.unwrap();
    let head = branch.fetch().await.unwrap().commit.unwrap();
    accepted(
        branch
            .publish(&head, vec![step("app", 1, "step: 1\n")])
            .await
            .unwrap(),
    );
    branch
}

/// Fetches, reads and writes; a few tries are allowed, each of which costs one poll.
async fn works(branch: &mut Branch, rig: &Rig, second: i64, damage: &str) {
    let mut said = Vec::new();
    for _ in 0..4 {
        let head = match branch.fetch().await {
            Ok(head) => head,
            Err(error) => {
                said.push(error.to_string());
                continue;
            }
        };
        assert_eq!(head.history, History::Forward, "{damage}");
        let head = head.commit.unwrap();
        assert_eq!(head, rig.head(), "{damage}");
        let read = branch
            .snapshot(&head)
            .await
            .map(|snapshot| snapshot.files.len());
        let lineage = branch.lineage(&head, &[watch("app", &["app.yaml"])]).await;
        match (read, lineage) {
            (Ok(files), Ok(lineage)) => {
                assert!(files >= 2, "{damage}");
                assert!(
                    lineage
                        .values()
                        .all(|l| l.ours.is_some() && l.input.is_some()),
                    "{damage}: {lineage:?}"
                );
            }
            (read, lineage) => {
                said.push(format!("{read:?} {lineage:?}"));
                continue;
            }
        }
        let content = format!("step: {second}\n");
        match branch
            .publish(&head, vec![step("app", second, &content)])
            .await
        {
            Ok(published) => {
                assert_eq!(accepted(published), rig.head(), "{damage}");
                return;
            }
            Err(error) => said.push(error.to_string()),
        }
    }
    panic!("{damage}: {said:#?}");
}

#[tokio::test]
async fn a_copy_heals_at_the_next_start() {
    for ((damage, apply), filters) in damages() {
        let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
        drop(prepared(&rig, filters).await);
        apply(&rig.path("copy"));
        let mut branch = rig.branch().await;
        works(&mut branch, &rig, 2, damage).await;
        assert_eq!(
            rig.server(&["rev-list", "--count", "main"]),
            "3",
            "{damage}"
        );
    }
}

#[tokio::test]
async fn a_copy_heals_while_it_is_used() {
    for ((damage, apply), filters) in damages() {
        let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
        let mut branch = prepared(&rig, filters).await;
        apply(&rig.path("copy"));
        // Somebody commits, so that there is something to fetch into what is left.
        let someone = rig.someone_named("alexis");
        someone.insist("more", &|| someone.append("app.yaml", "w: 2\n"));
        works(&mut branch, &rig, 2, damage).await;
        assert_eq!(
            rig.server(&["rev-list", "--count", "main"]),
            "4",
            "{damage}"
        );
    }
}
