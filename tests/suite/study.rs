//! `serin bench`, `plan` and `backtest` as a person runs them.

use std::process::Output;

use crate::support::serin::{output, serin};

/// Runs `serin` with these arguments in a folder of its own.
fn run(folder: &tempfile::TempDir, arguments: &[&str]) -> Output {
    output(
        serin(folder.path())
            .current_dir(folder.path())
            .args(arguments),
    )
}

fn stdout(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_benchmark_of_judgement() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "bench",
        "judgement",
        "--rollouts",
        "3",
        "--suite",
        "core,delay",
        "--svg",
        "a.svg",
        "--markdown",
        "a.md",
    ];
    let text = stdout(&run(&folder, &arguments));
    assert!(text.starts_with("RULE"), "{text}");
    assert!(text.contains("healthy releases rolled back"), "{text}");
    assert!(text.contains("3 rollouts of each cell under each rule, seed 1"));
    let svg = std::fs::read_to_string(folder.path().join("a.svg")).unwrap();
    assert!(svg.contains("Argo docs, canary only") && svg.ends_with("</svg>\n"));
    let markdown = std::fs::read_to_string(folder.path().join("a.md")).unwrap();
    assert!(markdown.contains("| healthy 0.9% | 1000 |"), "{markdown}");
    assert!(markdown.contains("### Requests to detection"));

    let json = stdout(&run(
        &folder,
        &["bench", "judgement", "--rollouts", "2", "-o", "json"],
    ));
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["seed"], 1);
    assert_eq!(report["scores"].as_array().unwrap().len(), 60 * 6);
    let again = stdout(&run(
        &folder,
        &[
            "bench",
            "judgement",
            "--rollouts",
            "2",
            "-o",
            "json",
            "--threads",
            "1",
        ],
    ));
    assert!(json == again, "the same seed gave other figures");
}

#[test]
fn a_file_that_cannot_be_written_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "bench",
        "judgement",
        "--rollouts",
        "1",
        "--svg",
        "missing/a.svg",
    ];
    let failed = run(&folder, &arguments);
    assert_eq!(failed.status.code(), Some(1));
    let message = String::from_utf8_lossy(&failed.stderr);
    assert!(
        message.contains("failed to write missing/a.svg"),
        "{message}"
    );
}

#[test]
fn a_plan_before_the_rollout() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "plan",
        "--rps",
        "100",
        "--ladder",
        "10:1m,50:2m",
        "--regression",
        "5%,30%",
        "--rollouts",
        "40",
        "--svg",
        "plan.svg",
    ];
    let text = stdout(&run(&folder, &arguments));
    let head: Vec<&str> = text.lines().take(1).collect();
    insta::assert_snapshot!(head.join("\n"), @"ladder   10% for 1m, 50% for 2m");
    assert!(
        text.contains("detects  5% failures and more are rolled back"),
        "{text}"
    );
    assert!(
        text.contains("40 simulated rollouts each, seed 1"),
        "{text}"
    );
    let svg = std::fs::read_to_string(folder.path().join("plan.svg")).unwrap();
    assert!(svg.contains("30% fail"), "{svg}");

    // Next to no traffic: nothing is caught in time, and the exit status says so.
    let idle = run(
        &folder,
        &[
            "plan",
            "--rps",
            "0.02",
            "--regression",
            "2%",
            "--rollouts",
            "10",
            "-o",
            "json",
        ],
    );
    assert_eq!(idle.status.code(), Some(1));
    let plan: serde_json::Value = serde_json::from_slice(&idle.stdout).unwrap();
    assert_eq!(plan["detects"], serde_json::Value::Null);
    assert_eq!(plan["healthy"]["rolled_back"]["count"], 0);
}

#[test]
fn a_plan_for_a_canary_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let canary = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/story.yaml");
    assert!(canary.exists());
    let missing = run(&folder, &["plan", "--rps", "20", "--file", "nowhere"]);
    assert_eq!(missing.status.code(), Some(2));
    let message = String::from_utf8_lossy(&missing.stderr);
    assert!(message.contains("there is no nowhere"), "{message}");
    let empty = run(&folder, &["plan", "--rps", "20", "--file", "."]);
    assert_eq!(empty.status.code(), Some(2));
    let nobody = run(&folder, &["plan", "--rps", "20", "--ladder", "0:1m"]);
    assert_eq!(nobody.status.code(), Some(2));
}
