//! The chart, by real Helm: what it refuses, what it renders, and that it says the same as the code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use serin::yaml::node;

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of the programs that `tests/rig/helm/install` puts into the cache.
pub(crate) fn programs() -> PathBuf {
    let output = Command::new(project().join("tests/rig/helm/install"))
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{complaint}");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// What Helm answers; the error is its own words.
pub(crate) fn helm(arguments: &[&str]) -> Result<Value, String> {
    let output = Command::new(programs().join("python"))
        .arg(project().join("tests/rig/helm/helm.py"))
        .args(arguments)
        .output()
        .unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    match answer["error"].as_str() {
        Some(words) if !output.status.success() => Err(words.to_owned()),
        _ => Ok(answer),
    }
}

pub(crate) fn chart() -> String {
    project()
        .join("charts/serin")
        .to_string_lossy()
        .into_owned()
}

fn one_repository() -> Value {
    json!({"repositories": [{"url": "ssh://git@git.example.com/team/apps.git"}]})
}

/// Everything that can be switched on.
fn everything() -> Value {
    json!({
        "repositories": [{"url": "https://git.example.com/team/apps.git", "webhook": {"secretFile": "/etc/serin/webhook/apps"}}],
        "git": {
            "sshSecret": "ssh",
            "https": [{"url": "https://git.example.com", "secret": "git-token"}],
            "caSecret": "ca", "signingSecret": "signing", "webhookSecret": "webhook"
        },
        "prometheusSecret": "prometheus",
        "prometheus": {"url": "https://prometheus:9090", "bearerTokenFile": "/etc/serin/prometheus/token"},
        "cluster": {"mode": "warn", "applier": "external"},
        "serviceMonitor": {"enabled": true},
        "prometheusRule": {"enabled": true},
        "dashboard": {"enabled": true},
        "image": {"digest": format!("sha256:{}", "0".repeat(64))},
        "rbac": {"impersonate": {"team-a": ["deployer"]}, "extraRules": [{"apiGroups": ["batch"], "resources": ["cronjobs"], "verbs": ["get"]}]}
    })
}

/// Objects by kind; kinds that occur once.
fn objects(values: &Value) -> BTreeMap<String, Value> {
    let rendered = helm(&["render", &chart(), &values.to_string()]).unwrap();
    let mut objects = BTreeMap::new();
    for (template, text) in rendered.as_object().unwrap() {
        if template.ends_with("NOTES.txt") {
            continue;
        }
        let parsed = node::parse(text.as_str().unwrap().as_bytes());
        assert!(parsed.errors.is_empty(), "{template}: {:?}", parsed.errors);
        for document in parsed.documents {
            let object = document.root.to_json();
            if let Some(kind) = object["kind"].as_str() {
                objects.insert(kind.to_owned(), object);
            }
        }
    }
    objects
}

#[test]
fn helm_finds_nothing_to_complain_about() {
    for values in [one_repository(), everything()] {
        let report = helm(&["lint", &chart(), &values.to_string()]).unwrap();
        assert_eq!(report["errors"], json!([]), "{report}");
        let messages = report["messages"].as_array().unwrap();
        // "icon is recommended" is information; warnings are 2, errors 3.
        assert!(
            messages
                .iter()
                .all(|message| message["severity"].as_u64() < Some(2)),
            "{report}"
        );
    }
}

#[test]
fn values_that_cannot_be_meant_are_refused() {
    for (change, expected) in [
        (json!({}), "there is nothing to work on"),
        (json!({"repositories": [{"branch": "main"}]}), "url"),
        (
            json!({"repositories": [{"url": "https://bot:s3cret@git.example.com/a.git"}]}),
            "not",
        ),
        (json!({"cluster": {"mode": "force"}}), "mode"),
        (json!({"replicaCount": 2}), "replicaCount"),
        (json!({"image": {"digest": "sha256:short"}}), "digest"),
        (
            json!({"git": {"https": [{"url": "https://git.example.com"}]}}),
            "secret",
        ),
    ] {
        let refused = helm(&["render", &chart(), &change.to_string()]).unwrap_err();
        assert!(refused.contains(expected), "{change}: {refused}");
        assert!(!refused.contains("s3cret@"), "{refused}");
    }
}

#[test]
fn the_configuration_is_one_that_serin_takes() {
    for values in [one_repository(), everything()] {
        let config = objects(&values)["ConfigMap"]["data"]["serin.yaml"].clone();
        if let Some(text) = config.as_str() {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("serin.yaml");
            std::fs::write(&file, text.replace("/etc/serin", "/nonexistent")).unwrap();
            let output = Command::new(env!("CARGO_BIN_EXE_serin"))
                .args(["run", "--check", "--config"])
                .arg(&file)
                .output()
                .unwrap();
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{words}\n{text}");
        }
    }
}

#[test]
fn the_pod_may_do_nothing_that_it_need_not() {
    for values in [one_repository(), everything()] {
        let deployment = objects(&values)["Deployment"].clone();
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], json!(true));
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"],
            json!("RuntimeDefault")
        );
        let container = &pod["containers"][0];
        assert_eq!(
            container["securityContext"],
            json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]}
            })
        );
        // Every mount has its volume, and secrets are files, never variables.
        let names = |list: &Value| -> Vec<String> {
            let list = list.as_array().unwrap().iter();
            list.map(|item| item["name"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(names(&container["volumeMounts"]), names(&pod["volumes"]));
        let env = container["env"].to_string();
        assert!(!env.contains("secretKeyRef"), "{env}");
    }
}

#[test]
fn credentials_reach_git_without_being_in_the_chart() {
    let deployment = objects(&everything())["Deployment"].clone();
    let env = deployment["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    let value = |name: &str| -> String {
        let entries = env.as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["name"] == name);
        entry.unwrap()["value"].as_str().unwrap().to_owned()
    };
    assert_eq!(value("GIT_CONFIG_COUNT"), "2");
    assert_eq!(
        value("GIT_CONFIG_KEY_0"),
        "credential.https://git.example.com.helper"
    );
    assert!(value("GIT_SSH_COMMAND").contains("StrictHostKeyChecking=yes"));

    // The helper is run by a real git, on files in a folder of the test's.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("username"), "bot").unwrap();
    std::fs::write(dir.path().join("password"), "p@ss w/ord\n").unwrap();
    let helper = value("GIT_CONFIG_VALUE_0")
        .replace("/etc/serin/git/https-0", &dir.path().to_string_lossy());
    let output = Command::new("sh")
        .args([
            "-c",
            "printf 'protocol=https\\nhost=git.example.com\\n\\n' | git credential fill",
        ])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", dir.path())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", value("GIT_CONFIG_KEY_0"))
        .env("GIT_CONFIG_VALUE_0", helper)
        .output()
        .unwrap();
    let filled = String::from_utf8(output.stdout).unwrap();
    assert!(
        filled.contains("username=bot\npassword=p@ss w/ord\n"),
        "{filled}"
    );
}

#[test]
fn alerts_and_dashboard_use_metrics_that_exist() {
    let objects = objects(&everything());
    let rules = objects["PrometheusRule"]["spec"].to_string();
    let dashboard = std::fs::read_to_string(project().join("charts/serin/files/dashboard.json"));
    let text = rules + &dashboard.unwrap();
    let names = regex::Regex::new(r"serin_[a-z_]+[a-z]").unwrap();
    let mut count = 0;
    for name in names.find_iter(&text) {
        count += 1;
        let family = name
            .as_str()
            .trim_end_matches("_total")
            .trim_end_matches("_bucket");
        assert!(
            serin::instruments::NAMES.contains(&family),
            "{family} is no metric"
        );
    }
    assert!(count > 10, "{count}");
}

#[test]
fn what_must_survive_an_uninstall_is_kept() {
    let crd = objects(&one_repository())["CustomResourceDefinition"].clone();
    assert_eq!(
        crd["metadata"]["annotations"]["helm.sh/resource-policy"],
        json!("keep")
    );
    let mut without = one_repository();
    without["crds"] = json!({"install": false});
    assert!(!objects(&without).contains_key("CustomResourceDefinition"));
}
