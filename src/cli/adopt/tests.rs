//! `serin adopt` on folders: what it writes, what it leaves alone.

use std::path::Path;

use clap::Parser;

use super::*;
use crate::cli::Cli;

const APP: &str = "\
# Ours since 2019.\r
apiVersion: apps/v1\r
kind: Deployment\r
metadata: {name: podinfo}\r
spec:\r
    template:\r
        metadata:\r
            labels: { app: podinfo }   # do not touch\r
        spec:\r
            containers: [{name: podinfod, image: \"podinfo:6.8.0\"}]\r
---\r
apiVersion: v1\r
kind: Service\r
metadata: {name: podinfo}\r
spec: {selector: {app: podinfo}, ports: [{port: 80}]}";

struct Ran {
    result: Result<Outcome, String>,
    out: String,
    err: String,
}

/// Runs the command line in a folder.
fn adopt(folder: &Path, arguments: &[&str]) -> Ran {
    let path = folder.to_str().unwrap();
    let all = ["serin", "adopt", "--path", path];
    let cli = Cli::try_parse_from(all.iter().chain(arguments)).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut console = Console::new(&mut out, &mut err, false);
    let set_log_level = std::sync::Arc::new(|_: &str| Ok(()));
    let result = cli.command.execute(0, set_log_level, &mut console);
    Ran {
        result: result.map_err(|failure| failure.to_string()),
        out: String::from_utf8(out).unwrap(),
        err: String::from_utf8(err).unwrap(),
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".git")).unwrap();
    std::fs::write(folder.path().join("app.yaml"), APP).unwrap();
    folder
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn without_write_only_the_canary_is_written() {
    let folder = folder();
    let ran = adopt(folder.path(), &["podinfo"]);
    assert_eq!(ran.result, Ok(Outcome::Done));
    assert_eq!(read(folder.path(), "app.yaml"), APP);
    let canary = read(folder.path(), "canary.yaml");
    assert!(
        canary.contains("      podinfod: podinfo:6.8.0\n"),
        "{canary}"
    );
    assert!(
        ran.err.contains("`serin adopt podinfo --write` adds it"),
        "{}",
        ran.err
    );
    let again = adopt(folder.path(), &["podinfo"]);
    assert!(again.result.unwrap_err().contains("which --write adds"));
    assert_eq!(
        adopt(folder.path(), &["podinfo", "--write"]).result,
        Ok(Outcome::Done)
    );
    let done = adopt(folder.path(), &["podinfo", "--write"])
        .result
        .unwrap_err();
    assert!(done.contains("is adopted already"), "{done}");
    assert_eq!(read(folder.path(), "canary.yaml"), canary);
}

#[test]
fn with_write_one_label_joins_the_bytes_that_were_there() {
    let folder = folder();
    let ran = adopt(folder.path(), &["podinfo", "--write"]);
    assert_eq!(ran.result, Ok(Outcome::Done));
    let wanted = APP.replace(
        "{ app: podinfo }",
        "{ app: podinfo, serin.dev/track: stable }",
    );
    assert_eq!(read(folder.path(), "app.yaml"), wanted);
    let tree = WorkTree::read(folder.path()).unwrap();
    let catalog = tree.catalog();
    assert_eq!(catalog.diagnostics, Vec::new());
    assert_eq!(catalog.canaries.len(), 1);
}

#[test]
fn a_dry_run_prints_what_git_could_apply() {
    let folder = folder();
    let ran = adopt(folder.path(), &["podinfo", "--dry-run"]);
    assert_eq!(ran.result, Ok(Outcome::Done));
    assert_eq!(read(folder.path(), "app.yaml"), APP);
    assert!(!folder.path().join("canary.yaml").exists());
    assert!(
        ran.out
            .starts_with("--- /dev/null\n+++ b/canary.yaml\n@@ -0,0 +1,"),
        "{}",
        ran.out
    );
    assert!(
        ran.out
            .contains("-            labels: { app: podinfo }   # do not touch\r\n"),
        "{}",
        ran.out
    );
}

#[test]
fn what_is_not_clear_or_not_fit_is_said() {
    let folder = folder();
    let unknown = adopt(folder.path(), &["podinof"]).result.unwrap_err();
    assert!(unknown.contains("did you mean `podinfo`?"), "{unknown}");
    let nowhere = adopt(&folder.path().join("nowhere"), &["podinfo"])
        .result
        .unwrap_err();
    assert!(nowhere.contains("nowhere"), "{nowhere}");
}
