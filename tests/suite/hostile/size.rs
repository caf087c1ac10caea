//! Too much of everything: bounded memory and time, and the canary that is fine goes on.

use std::io::Write as _;
use std::process::{Output, Stdio};
use std::time::Instant;

use super::repository::said;
use crate::git::rig::Rig;
use crate::git_servers::program;
use crate::support::serin::output;

const APP: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: good, namespace: test}\nspec: {selector: {app: good}}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: good, namespace: test}\nspec: {template: {metadata: {labels: {app: good, serin.dev/track: stable}}, spec: {containers: [{name: app, image: 'a:1'}]}}}\n---\napiVersion: serin.dev/v1alpha1\nkind: Canary\nmetadata: {name: good, namespace: test}\nspec:\n  workload: {deployment: good}\n  candidate: {images: {app: 'a:2'}}\n  route: {service: good}\n  ladder: [{weight: 50}]\n  analysis: {skip: true}\n";

/// Most address space of the program, in KiB. A file of 100 MB does not fit in twice.
const MEMORY_KIB: usize = 1_500_000;

/// One pass of the real program, which may not take more than [`MEMORY_KIB`].
fn bounded_pass(rig: &Rig, now: &str) -> Output {
    output(
        program("bash", &rig.home())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("NO_COLOR", "1")
            .arg("-c")
            .arg(format!("ulimit -v {MEMORY_KIB}; exec \"$@\""))
            .arg("bash")
            .arg(env!("CARGO_BIN_EXE_serin"))
            .args([
                "reconcile",
                "--prometheus",
                "http://127.0.0.1:9",
                "--now",
                now,
                "--repo",
            ])
            .arg(rig.remote())
            .arg("--cache-dir")
            .arg(rig.path("cache")),
    )
}

/// Commits what `stream` says on `main`, as `git fast-import` reads it.
fn import(rig: &Rig, stream: impl FnOnce(&mut dyn std::io::Write)) {
    let mut child = program("git", &rig.home())
        .arg("--git-dir")
        .arg(rig.remote())
        .args(["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = std::io::BufWriter::new(child.stdin.take().unwrap());
    stream(&mut input);
    input.flush().unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
}

const COMMIT: &str =
    "commit refs/heads/main\ncommitter A <a@example.com> 1767225600 +0000\ndata 2\nx\n";

#[test]
fn a_file_of_a_hundred_megabytes_is_left_out() {
    let rig = Rig::empty();
    let line = format!("# {}\n", "x".repeat(97));
    import(&rig, |out| {
        write!(
            out,
            "{COMMIT}M 100644 inline good/app.yaml\ndata {}\n{APP}\n",
            APP.len()
        )
        .unwrap();
        let head = "apiVersion: serin.dev/v1alpha1\nkind: Canary\nmetadata: {name: big, namespace: test}\n";
        let lines = 1_000_000;
        write!(
            out,
            "M 100644 inline big/canary.yaml\ndata {}\n{head}",
            head.len() + lines * line.len()
        )
        .unwrap();
        for _ in 0..lines {
            out.write_all(line.as_bytes()).unwrap();
        }
        out.write_all(b"\n").unwrap();
    });
    let start = Instant::now();
    let first = bounded_pass(&rig, "2026-01-02T03:00:00Z");
    bounded_pass(&rig, "2026-01-02T03:01:00Z");
    assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
    assert!(!said(&first).contains("panicked"), "{}", said(&first));
    let log = rig.server(&["log", "--format=%s", "main"]);
    assert!(
        log.contains("canary(test/good): start app=2"),
        "{log}\n{}",
        said(&first)
    );
}

#[test]
fn a_hundred_thousand_files_are_read() {
    let rig = Rig::empty();
    let other = "kind: Service\nmetadata: {name: x}\n";
    import(&rig, |out| {
        write!(out, "blob\nmark :1\ndata {}\n{other}\n", other.len()).unwrap();
        write!(
            out,
            "{COMMIT}M 100644 inline good/app.yaml\ndata {}\n{APP}\n",
            APP.len()
        )
        .unwrap();
        for file in 0..100_000 {
            writeln!(out, "M 100644 :1 apps/{}/{file}.yaml", file / 1000).unwrap();
        }
    });
    let start = Instant::now();
    let first = bounded_pass(&rig, "2026-01-02T03:00:00Z");
    assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
    assert!(!said(&first).contains("panicked"), "{}", said(&first));
    let log = rig.server(&["log", "--format=%s", "main"]);
    assert!(
        log.contains("canary(test/good): start app=2"),
        "{log}\n{}",
        said(&first)
    );
    let count = rig
        .server(&["ls-tree", "-r", "--name-only", "main"])
        .lines()
        .count();
    assert!(count > 100_000, "{count}");
}
