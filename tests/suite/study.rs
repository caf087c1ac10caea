//! `serin bench`, `plan` and `backtest` as a person runs them.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Output};
use std::time::{Duration, Instant};

use crate::git_servers::program;
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

    let none = run(&folder, &["plan", "--rps", "9", "--regression", "0.1%"]);
    assert_eq!(none.status.code(), Some(2));
    let message = String::from_utf8_lossy(&none.stderr);
    assert!(
        message.contains("a regression fails more often than stable does, 0.1%"),
        "{message}"
    );

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

/// Counters of a release, 15 s apart: 40 readings of four stable pods, then two bad candidate pods beside them.
fn history(began: i64) -> Vec<(String, Vec<(i64, u64)>)> {
    let mut series = Vec::new();
    let pods = [("app", 4, 0, 750, 1), ("app-canary", 2, 40, 140, 10)];
    for (workload, count, from, ok, bad) in pods {
        for pod in 0..count {
            for (code, gain) in [(200, ok), (503, bad)] {
                let labels = format!(
                    "destination_workload=\"{workload}\",destination_workload_namespace=\"test\",\
                     pod=\"{workload}-{pod}\",reporter=\"destination\",response_code=\"{code}\""
                );
                let values = (from..80)
                    .map(|step| (began + step * 15, gain * (step - from + 1) as u64))
                    .collect();
                series.push((labels, values));
            }
        }
    }
    series
}

/// The answer of `query_range`, as `curl` would save it.
fn saved(history: &[(String, Vec<(i64, u64)>)]) -> String {
    let result: Vec<serde_json::Value> = history
        .iter()
        .map(|(labels, values)| {
            let metric: serde_json::Map<String, serde_json::Value> = labels
                .split(',')
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.trim_matches('"').into()))
                .collect();
            let values: Vec<_> = values
                .iter()
                .map(|(at, value)| serde_json::json!([at, value.to_string()]))
                .collect();
            serde_json::json!({"metric": metric, "values": values})
        })
        .collect();
    serde_json::json!({"status": "success", "data": {"resultType": "matrix", "result": result}})
        .to_string()
}

const WORKLOADS: [&str; 5] = ["backtest", "--stable", "app", "--candidate", "app-canary"];

#[test]
fn a_release_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.json"), saved(&history(1_750_000_000))).unwrap();
    let mut arguments = WORKLOADS.to_vec();
    arguments.extend(["--data", "a.json", "--svg", "a.svg"]);
    let replayed = run(&folder, &arguments);
    assert_eq!(
        replayed.status.code(),
        Some(1),
        "it would have been rolled back"
    );
    let text = String::from_utf8(replayed.stdout).unwrap();
    let head: Vec<&str> = text.lines().take(4).collect();
    insta::assert_snapshot!(head.join("\n"), @"
    candidate  first request about 2025-06-15T15:16:25Z, 12000 requests in 10m, 6.67% failed; 0.13% of 120160 on stable
    Serin                  rolls back after 30s and 40 failures: the candidate fails 13.6 times as often as stable at least (99% sure): 40 of 600 against 8 of 6008 requests, 30 s after its first one
    Flagger, threshold 1   rolls back after 2m and 160 failures: a success rate of 93.3% over a minute is below 99%
    Flagger, threshold 5   rolls back after 6m and 480 failures: a success rate of 93.3% over a minute is below 99%
    ");
    assert!(
        std::fs::read_to_string(folder.path().join("a.svg"))
            .unwrap()
            .contains("<polyline")
    );

    let reversed = [
        "backtest",
        "--stable",
        "app-canary",
        "--candidate",
        "gone",
        "--data",
        "a.json",
    ];
    let failed = run(&folder, &reversed);
    assert_eq!(failed.status.code(), Some(1));
    let message = String::from_utf8(failed.stderr).unwrap();
    insta::assert_snapshot!(message.trim(), @"error: there is nothing to replay: no series has destination_workload=gone: name the workloads as the metrics do; there are app, app-canary");
    let nowhere = run(&folder, &WORKLOADS);
    assert_eq!(nowhere.status.code(), Some(2));
}

/// A real `prometheus` on data that was written beforehand; ends when dropped.
struct Archive(Child);

impl Drop for Archive {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Archive {
    fn start(folder: &Path, history: &[(String, Vec<(i64, u64)>)]) -> (Self, String) {
        let mut metrics = String::from("# TYPE istio_requests counter\n");
        for (labels, values) in history {
            for (at, value) in values {
                let _ = writeln!(metrics, "istio_requests_total{{{labels}}} {value} {at}");
            }
        }
        metrics.push_str("# EOF\n");
        std::fs::write(folder.join("metrics.txt"), metrics).unwrap();
        std::fs::write(folder.join("prometheus.yml"), "global: {}\n").unwrap();
        let blocks = program("promtool", folder)
            .current_dir(folder)
            .args([
                "tsdb",
                "create-blocks-from",
                "openmetrics",
                "metrics.txt",
                "data",
            ])
            .output()
            .unwrap();
        assert!(
            blocks.status.success(),
            "{}",
            String::from_utf8_lossy(&blocks.stderr)
        );
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let child = program("prometheus", folder)
            .current_dir(folder)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let archive = Self(child);
        let began = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "prometheus does not come up"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        (archive, format!("http://{address}"))
    }
}

#[test]
fn a_release_from_a_real_prometheus() {
    let folder = tempfile::tempdir().unwrap();
    let now = chrono::Utc::now().timestamp();
    let began = now - now % 15 - 3 * 3600;
    let history = history(began);
    let (_archive, url) = Archive::start(folder.path(), &history);
    std::fs::write(folder.path().join("a.json"), saved(&history)).unwrap();
    let stamp = |at: i64| {
        chrono::DateTime::from_timestamp(at, 0)
            .unwrap()
            .to_rfc3339()
    };
    let (from, to) = (stamp(began), stamp(began + 79 * 15));
    let mut asked = WORKLOADS.to_vec();
    asked.extend([
        "--namespace",
        "test",
        "--prometheus",
        &url,
        "--from",
        &from,
        "--to",
        &to,
        "-o",
        "json",
    ]);
    let json = |output: Output| -> serde_json::Value {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"))
    };
    // The server listens before it has read its blocks, and refuses until then.
    let patience = Instant::now();
    let mut answered = run(&folder, &asked);
    while answered.stdout.is_empty() && patience.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(200));
        answered = run(&folder, &asked);
    }
    let answer = json(answered);
    assert_eq!(answer["candidate"], serde_json::json!([12_000, 800]));
    assert_eq!(answer["stable"], serde_json::json!([120_160, 160]));
    let mut read = WORKLOADS.to_vec();
    read.extend(["--data", "a.json", "-o", "json"]);
    assert_eq!(
        answer,
        json(run(&folder, &read)),
        "the server and the file tell the same"
    );

    let mut endless = WORKLOADS.to_vec();
    endless.extend([
        "--prometheus",
        &url,
        "--from",
        "2020-01-01T00:00:00Z",
        "--to",
        &to,
    ]);
    let refused = run(&folder, &endless);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("choose --from, --to or --every anew")
    );
}

#[test]
fn rollouts_from_the_commits_of_a_canary() {
    let folder = tempfile::tempdir().unwrap();
    stdout(&run(&folder, &["demo", "--fast", "--dir", "demo"]));
    let repository = folder.path().join("demo/apps.git");
    let repository = repository.to_str().unwrap();
    let replayed = run(
        &folder,
        &["backtest", "podinfo", "--repo", repository, "-o", "json"],
    );
    let rollouts: serde_json::Value = serde_json::from_slice(&replayed.stdout).unwrap();
    let rollouts = rollouts.as_array().unwrap();
    // The story has a good release and a bad one.
    assert_eq!(replayed.status.code(), Some(1));
    assert!(rollouts.len() >= 2, "{rollouts:?}");
    let steps = rollouts
        .iter()
        .flat_map(|rollout| rollout["steps"].as_array().unwrap());
    let counted = steps
        .filter(|step| step["requests"].as_u64() > Some(0))
        .count();
    assert!(counted >= 3, "{rollouts:?}");
    let text =
        String::from_utf8(run(&folder, &["backtest", "podinfo", "--repo", repository]).stdout)
            .unwrap();
    assert!(
        text.contains("FLAGGER'S FAILED CHECKS") && text.contains("roll back"),
        "{text}"
    );
}
