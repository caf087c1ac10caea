//! What a watch of one object shows over time, and what Git held.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use kube::api::{WatchEvent, WatchParams};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::world::{FOLDER, World};
use crate::rig::{Client, Key};

/// One version of an object, or that it went.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: SystemTime,
    pub(crate) object: Option<Value>,
}

/// Keeps every version of an object that a watch shows.
pub(crate) struct Recorder {
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Recorder {
    /// Starts now. An own watch, without a library's ideas of what to do when it breaks: then the test fails.
    pub(crate) fn follow(kube: &Client, (version, kind, namespace, name): Key<'_>) -> Self {
        let api = kube.api((version, kind, namespace, name));
        let name = name.to_owned();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let one = WatchParams::default()
                .fields(&format!("metadata.name={name}"))
                .timeout(280);
            let stream = api.watch(&one, "0").await.unwrap();
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                let object = match event.unwrap() {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        Some(serde_json::to_value(object).unwrap())
                    }
                    WatchEvent::Deleted(_) => None,
                    WatchEvent::Bookmark(_) | WatchEvent::Error(_) => continue,
                };
                let at = SystemTime::now();
                kept.lock().unwrap().push(Seen { at, object });
            }
        });
        Self { seen, task }
    }

    /// All versions so far.
    pub(crate) fn versions(&self) -> Vec<Seen> {
        assert!(!self.task.is_finished(), "the watch ended");
        self.seen.lock().unwrap().clone()
    }

    /// Fails when the commit counter of a generated object ever went back.
    pub(crate) fn never_went_back(&self) {
        let counters: Vec<u64> = self
            .versions()
            .iter()
            .filter_map(|seen| counter(seen.object.as_ref()?))
            .collect();
        assert!(counters.is_sorted(), "{counters:?}");
    }

    /// Fails when a Deployment ran other images than these, or one of them again after it had been left.
    pub(crate) fn ran_in_order(&self, images: &[&str]) {
        let mut ran: Vec<String> = Vec::new();
        for seen in self.versions() {
            let Some(object) = seen.object else { continue };
            let image = &object["spec"]["template"]["spec"]["containers"][0]["image"];
            let image = image.as_str().unwrap().to_owned();
            if ran.last() != Some(&image) {
                ran.push(image);
            }
        }
        assert_eq!(ran, images);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The commit counter of a generated object.
pub(crate) fn counter(object: &Value) -> Option<u64> {
    let annotation = object["metadata"]["annotations"]["serin.dev/sequence"].as_str()?;
    annotation.parse().ok()
}

/// Every VirtualService that Git held, oldest first, with the time of its commit.
pub(crate) fn held_by_git(world: &World) -> Vec<(Value, SystemTime)> {
    let path = format!("{FOLDER}/virtualservice.yaml");
    let format = "--format=%H %ct";
    let log = world
        .git
        .server(&["log", "--reverse", format, "main", "--", &path]);
    let commits = log.lines().filter_map(|line| line.split_once(' '));
    commits
        .filter_map(|(commit, time)| {
            let text = world.git.server(&["show", &format!("{commit}:{path}")]);
            let held: Value = serde_yaml::from_str(&text).ok()?;
            let seconds = Duration::from_secs(time.parse().unwrap());
            Some((held, SystemTime::UNIX_EPOCH + seconds))
        })
        .collect()
}
