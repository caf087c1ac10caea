//! Runs `kustomize` on the files of a commit, in a folder of its own, with a deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::applier::read;
use crate::domain::{BlobId, Manifest, RepoPath, Revision};

/// Longest time for one folder: remote bases are fetched within it.
const DEADLINE: Duration = Duration::from_secs(60);
/// Most that is taken of what it prints.
const MOST_OUTPUT: usize = 64 << 20;
/// Variables that it needs to fetch remote bases as it does in a shell.
const PASSED_ON: [&str; 8] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

static FOLDERS: AtomicU64 = AtomicU64::new(0);

type Files = BTreeMap<RepoPath, (BlobId, Arc<[u8]>)>;
/// Manifests of a folder, or why there are none.
pub(super) type Result = std::result::Result<Arc<Vec<Manifest>>, String>;

/// Builds folders, and remembers the last result of each.
#[derive(Debug)]
pub(super) struct Kustomize {
    scratch: PathBuf,
    built: BTreeMap<String, (Revision, Result)>,
}

impl Kustomize {
    pub(super) fn new(scratch: PathBuf) -> Self {
        Self {
            scratch,
            built: BTreeMap::new(),
        }
    }

    /// Builds all folders that changed since the last call.
    pub(super) async fn build(
        &mut self,
        files: &Files,
        builds: &BTreeMap<String, BTreeSet<RepoPath>>,
    ) -> BTreeMap<String, Result> {
        self.built.retain(|dir, _| builds.contains_key(dir));
        let mut results = BTreeMap::new();
        for (dir, inputs) in builds {
            let inputs: BTreeMap<&RepoPath, &(BlobId, Arc<[u8]>)> = inputs
                .iter()
                .filter_map(|path| Some((path, files.get(path)?)))
                .collect();
            let identity: Vec<Value> = inputs
                .iter()
                .map(|(path, (blob, _))| json!([path.as_str(), &*blob.0]))
                .collect();
            let identity = Revision::of(&Value::Array(identity));
            let known = self.built.get(dir).filter(|(known, _)| *known == identity);
            let result = match known {
                Some((_, result)) => result.clone(),
                None => self.run(dir, &inputs).await,
            };
            self.built.insert(dir.clone(), (identity, result.clone()));
            results.insert(dir.clone(), result);
        }
        results
    }

    async fn run(&self, dir: &str, inputs: &BTreeMap<&RepoPath, &(BlobId, Arc<[u8]>)>) -> Result {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder = Folder(
            self.scratch
                .join(format!("kustomize-{}-{number}", std::process::id())),
        );
        folder
            .fill(inputs)
            .map_err(|error| format!("failed to write files for kustomize: {error}"))?;
        let target = if dir.is_empty() {
            folder.0.clone()
        } else {
            folder.0.join(dir)
        };
        let output = match started("kustomize", &["build"], &target).await {
            Err(Fault::Missing) => started("kubectl", &["kustomize"], &target).await,
            other => other,
        };
        let text = match output {
            Ok(text) => text,
            Err(Fault::Missing) => {
                return Err(
                    "this folder needs kustomize to be built: install `kustomize` or `kubectl`"
                        .to_owned(),
                );
            }
            Err(Fault::Words(words)) => {
                // The folder's name is ours and says nothing to people.
                let ours = folder.0.to_string_lossy().into_owned();
                return Err(words.replace(&format!("{ours}/"), "").replace(&ours, "."));
            }
        };
        let found = read::read(&text, false);
        match found.mistakes.first() {
            Some(mistake) => Err(format!(
                "kustomize printed what is not valid YAML: {mistake}"
            )),
            None => Ok(Arc::new(found.manifests.iter().map(Manifest::of).collect())),
        }
    }
}

enum Fault {
    Missing,
    Words(String),
}

#[expect(
    clippy::disallowed_methods,
    reason = "kustomize is a program, and this is where it is started"
)]
async fn started(
    program: &str,
    arguments: &[&str],
    target: &Path,
) -> std::result::Result<Vec<u8>, Fault> {
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .arg(target)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for name in PASSED_ON {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let running = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => Fault::Missing,
        _ => Fault::Words(format!("failed to start {program}: {error}")),
    })?;
    let output = timeout(DEADLINE, running.wait_with_output())
        .await
        .map_err(|_| {
            Fault::Words(format!(
                "{program} did not end within {} s",
                DEADLINE.as_secs()
            ))
        })?
        .map_err(|error| Fault::Words(format!("failed to run {program}: {error}")))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(Fault::Words(words.trim().to_owned()));
    }
    if output.stdout.len() > MOST_OUTPUT {
        return Err(Fault::Words(format!(
            "{program} printed more than {MOST_OUTPUT} bytes"
        )));
    }
    Ok(output.stdout)
}

/// A folder that goes when it is no longer used.
struct Folder(PathBuf);

impl Folder {
    fn fill(&self, inputs: &BTreeMap<&RepoPath, &(BlobId, Arc<[u8]>)>) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.0)?;
        for (path, (_, content)) in inputs {
            let path = self.0.join(path.as_str());
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(path, content)?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed now is no harm.
        std::fs::remove_dir_all(&self.0).ok();
    }
}
