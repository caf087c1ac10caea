//! A mesh that routes as the VirtualService at a remote's HEAD says, and nothing else: what a test's Prometheus scrapes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::prometheus::TrafficSource;
use crate::git_servers::program;

/// Requests a second of everybody.
const EVERYBODY: f64 = 400.0;
/// Requests a second of the named users.
const NAMED: f64 = 10.0;

/// Follows a branch until it is dropped.
pub(crate) struct Mesh {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The folder of generated files of one canary, and how its versions behave.
#[derive(Clone)]
pub(crate) struct Routed {
    pub(crate) remote: PathBuf,
    pub(crate) home: PathBuf,
    /// The canary's folder.
    pub(crate) folder: String,
    /// Name of stable's Deployment.
    pub(crate) workload: String,
    /// An image with this text answers the share of requests that follows with errors.
    pub(crate) failing: (String, f64),
}

impl Mesh {
    pub(crate) fn follow(routed: Routed, source: Arc<TrafficSource>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut last = None;
            while !stopped.load(Ordering::Relaxed) {
                let head = show(
                    &routed.remote,
                    &routed.home,
                    &["rev-parse", "refs/heads/main"],
                );
                if head != last {
                    routed.route(&source);
                    last = head;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Routed {
    fn file(&self, name: &str) -> Option<String> {
        let file = format!("refs/heads/main:{}/{name}", self.folder);
        show(&self.remote, &self.home, &["cat-file", "blob", &file])
    }

    fn route(&self, source: &TrafficSource) {
        let Some(text) = self.file("virtualservice.yaml") else {
            // Nothing routes yet: the Service has only stable behind it.
            source.set(&self.workload, EVERYBODY, 0.0, 100.0);
            return;
        };
        let service: Value = serde_yaml::from_str(&text).unwrap();
        let routes = service["spec"]["http"].as_array().unwrap();
        let share = |subset: &str, name: &str| -> f64 {
            let route = routes.iter().find(|route| route["name"] == name);
            let to = route.and_then(|route| route["route"].as_array());
            to.into_iter()
                .flatten()
                .filter(|to| to["destination"]["subset"] == subset)
                .map(|to| to["weight"].as_f64().unwrap_or(100.0) / 100.0)
                .sum()
        };
        let reaching = |subset| {
            EVERYBODY * share(subset, "serin-weights") + NAMED * share(subset, "serin-users")
        };
        source.set(&self.workload, reaching("stable"), 0.0, 100.0);
        let deployment = self.file("deployment.yaml").unwrap_or_default();
        let bad = deployment.contains(&self.failing.0);
        // It fails under load: a few named users do not bring it down.
        let loaded = share("canary", "serin-weights") > 0.0;
        let errors = if bad && loaded { self.failing.1 } else { 0.0 };
        let canary = format!("{}-canary", self.workload);
        source.set(&canary, reaching("canary"), errors, 100.0);
    }
}

/// What `git` prints about a repository; nothing when it fails.
fn show(remote: &Path, home: &Path, arguments: &[&str]) -> Option<String> {
    let output = program("git", home)
        .arg("--git-dir")
        .arg(remote)
        .args(arguments)
        .output()
        .unwrap();
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
