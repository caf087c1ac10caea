//! A branch on which one canary is fine and everything else is not.

use std::os::unix::fs::symlink;
use std::process::Output;

use serin::domain::CommitId;
use serin::ports::Repository;
use serin::spec::{Catalog, ParseCache};

use crate::git::rig::Rig;
use crate::git_servers::{program, run};
use crate::support::serin::{output, serin};

fn app(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: test}}\nspec: {{selector: {{app: {name}}}}}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: test}}\nspec: {{template: {{metadata: \
         {{labels: {{app: {name}, serin.dev/track: stable}}}}, spec: {{containers: [{{name: app, image: 'a:1'}}]}}}}}}\n---\n{}",
        canary(name)
    )
}

fn canary(name: &str) -> String {
    format!(
        "apiVersion: serin.dev/v1alpha1\nkind: Canary\nmetadata: {{name: {name}, namespace: test}}\nspec:\n  workload: \
         {{deployment: {name}}}\n  candidate: {{images: {{app: 'a:2'}}}}\n  route: {{service: {name}}}\n  ladder: [{{weight: 50}}]\n  \
         analysis: {{skip: true}}\n"
    )
}

/// One pass of the real program; nobody answers for Prometheus.
pub(super) fn pass(rig: &Rig, now: &str, arguments: &[&str]) -> Output {
    output(
        serin(&rig.home())
            .args(["reconcile", "--prometheus", "http://127.0.0.1:9", "--repo"])
            .arg(rig.remote())
            .arg("--cache-dir")
            .arg(rig.path("cache"))
            .args(["--now", now])
            .args(arguments),
    )
}

pub(super) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// Aliases of aliases: a few hundred bytes that stand for billions of nodes.
fn bomb() -> String {
    let mut text = String::from(
        "apiVersion: serin.dev/v1alpha1\nkind: Canary\na0: &a0 [x, x, x, x, x, x, x, x, x]\n",
    );
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        let list = vec![below; 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    text.push_str("metadata: {name: bomb, namespace: test}\nspec: {}\n");
    text
}

#[test]
fn one_bad_file_stops_nothing_else() {
    let rig = Rig::with(&[("README.md", "hello\n")]);
    let someone = rig.someone_named("alexis");
    someone.write("good/app.yaml", app("good"));
    someone.write(
        "conflict/app.yaml",
        app("conflict")
            .replace("  ladder:", "<<<<<<< HEAD\n  ladder:")
            .replace(
                "  analysis",
                "=======\n  ladder: [{weight: 9}]\n>>>>>>> theirs\n  analysis",
            ),
    );
    someone.write(
        "lfs/canary.yaml",
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    );
    someone.write(
        "latin/canary.yaml",
        [canary("latin").as_bytes(), b"# caf\xe9\n"].concat(),
    );
    someone.write(
        "utf16/canary.yaml",
        canary("wide")
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<u8>>(),
    );
    someone.write("bomb/canary.yaml", bomb());
    someone.write(
        "deep/canary.yaml",
        format!(
            "{}x: {}1{}\n",
            canary("deep"),
            "[".repeat(20_000),
            "]".repeat(20_000)
        ),
    );
    someone.write("nul/canary.yaml", canary("nul").replace("skip", "sk\0ip"));
    someone.write(
        "up/canary.yaml",
        canary("up").replace("name: up,", "name: '..',"),
    );
    someone.write(
        "slash/canary.yaml",
        canary("slash").replace("name: slash,", "name: 'a/b',"),
    );
    someone.write(
        "control/canary.yaml",
        canary("control").replace("name: control,", "name: \"a\\u0007\\nb\","),
    );
    someone.write("case/Canary.yaml", canary("case"));
    someone.write("case/canary.yaml", canary("case"));
    someone.write("uni/caf\u{e9}/canary.yaml", canary("cafe"));
    someone.write("uni/cafe\u{301}/canary.yaml", canary("cafe"));
    someone.write("state/app.yaml", app("state"));
    someone.write("state/state.serin/rollout.yaml", "canary: [not, a, name\n");
    someone.write(
        "weird\u{202e} \u{1b}[2Jname/canary.yaml",
        "apiVersion: serin.dev/v1alpha1\nkind: Canary\n",
    );
    symlink("/etc/passwd", someone.clone.join("canary.yaml")).unwrap();
    std::fs::create_dir(someone.clone.join("link")).unwrap();
    symlink(
        "../../../../outside.yaml",
        someone.clone.join("link/canary.yaml"),
    )
    .unwrap();
    symlink("../good", someone.clone.join("link/folder")).unwrap();
    someone.commit("everything at once", &[]);
    // What a file system would not take: entries that leave the tree, a submodule.
    let tree = someone.git(&["rev-parse", "HEAD^{tree}"]);
    let blob = someone.git(&["rev-parse", "HEAD:good/app.yaml"]);
    let inner = mktree(
        &rig,
        &someone.clone,
        &format!("100644 blob {blob}\tcanary.yaml\n"),
    );
    let entries = someone.git(&["ls-tree", &tree]);
    let more = format!(
        "{entries}\n040000 tree {inner}\t..\n040000 tree {inner}\t.git\n040000 tree {inner}\t.\n160000 commit {}\tsubmodule\n160000 commit {}\tsub.yaml\n100644 blob {blob}\ta\\b.yaml\n",
        "1".repeat(40),
        "2".repeat(40)
    );
    let hostile = mktree(&rig, &someone.clone, &more);
    let commit = someone.git(&[
        "commit-tree",
        &hostile,
        "-p",
        "HEAD",
        "-m",
        "no file system takes this",
    ]);
    someone.git(&[
        "push",
        "--quiet",
        "origin",
        &format!("{commit}:refs/heads/main"),
    ]);

    let start = std::time::Instant::now();
    let outputs: Vec<Output> = (0..5)
        .map(|minute| pass(&rig, &format!("2026-01-02T03:0{minute}:00Z"), &[]))
        .collect();
    assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
    let told = said(&outputs[0]);
    for output in &outputs {
        assert_eq!(output.status.code(), Some(1), "{}", said(output));
        assert!(!said(output).contains("panicked"), "{}", said(output));
        let is_bad = |c: char| c.is_control() && c != '\n';
        assert!(!said(output).contains(is_bad), "{:?}", said(output));
    }
    // Told with its canary, where the file says whose it is.
    for file in [
        "conflict/app.yaml",
        "deep/canary.yaml",
        "up/canary.yaml",
        "slash/canary.yaml",
        "control/canary.yaml",
        "case/Canary.yaml",
        "state/state.serin/rollout.yaml",
    ] {
        assert!(told.contains(file), "{file} is not told of:\n{told}");
    }
    // Told of the file, where nobody can say.
    let remarks = remarks(&rig, &commit);
    for file in [
        "latin/canary.yaml",
        "bomb/canary.yaml",
        "nul/canary.yaml",
        "case/canary.yaml",
    ] {
        assert!(
            remarks.contains(&format!("{file}:")),
            "{file} is not told of:\n{remarks}"
        );
    }
    for (path, why) in [
        ("lfs/canary.yaml", "Git LFS pointer"),
        ("canary.yaml", "symbolic link"),
        ("link/canary.yaml", "symbolic link"),
        ("submodule", "submodule"),
        ("..", "the name cannot be a path"),
        (".git", "the name cannot be a path"),
    ] {
        let line = format!("\n{path} skipped: {why}\n");
        assert!(remarks.contains(&line), "{path} is not told of:\n{remarks}");
    }

    // The good one went all the way, and nothing but its folder and its image changed.
    let subjects = rig.server(&["log", "--format=%s", &format!("{commit}..main")]);
    let subjects: Vec<&str> = subjects.lines().rev().collect();
    assert!(
        subjects
            .iter()
            .all(|subject| subject.starts_with("canary(test/good): ")),
        "{subjects:#?}\n{told}"
    );
    assert!(
        subjects.contains(&"canary(test/good): promote app=2"),
        "{subjects:#?}"
    );
    let changed = rig.server(&["diff", "--name-only", &commit, "main"]);
    assert!(
        changed.lines().all(|path| path.starts_with("good/")),
        "{changed}"
    );
    let odd = rig.server(&["ls-tree", "--name-only", "main"]);
    assert!(
        odd.lines().any(|name| name == ".."),
        "what others put there is kept: {odd}"
    );
    assert_eq!(
        std::fs::read_dir(rig.folder.path())
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                name == "outside.yaml" || name == "canary.yaml"
            })
            .count(),
        0
    );
}

/// All that reading the tree of a commit has to say.
fn remarks(rig: &Rig, commit: &str) -> String {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let snapshot = runtime.block_on(async {
        let mut branch = rig.branch().await;
        branch.fetch().await.unwrap();
        branch.snapshot(&CommitId::new(commit)).await.unwrap()
    });
    let catalog = Catalog::read_partial(
        &snapshot.files,
        &snapshot.skipped,
        &mut ParseCache::default(),
    );
    let mut text: String = catalog
        .diagnostics
        .iter()
        .map(|one| format!("{one}\n"))
        .collect();
    for (path, why) in &snapshot.skipped {
        text.push_str(&format!("{path} skipped: {why}\n"));
    }
    text
}

fn mktree(rig: &Rig, clone: &std::path::Path, entries: &str) -> String {
    let list = rig.path("entries");
    std::fs::write(&list, entries).unwrap();
    run(program("git", &rig.home())
        .arg("-C")
        .arg(clone)
        .args(["mktree", "--missing"])
        .stdin(std::fs::File::open(&list).unwrap()))
}
