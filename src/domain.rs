//! The vocabulary that every other module shares: who, how much, which step, which content.
//!
//! Plain values with their invariants kept by construction. No serde, no Kubernetes types, no I/O. The names of all
//! files and objects that Serin creates are decided here and nowhere else.

mod manifest;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use manifest::Manifest;

/// An instant in UTC. Everything that needs the time takes one of these as an argument.
pub type Timestamp = chrono::DateTime<chrono::Utc>;

/// The API group of the `Canary` resource and of every annotation and label of ours.
pub const API_GROUP: &str = "serin.dev";
/// Annotation on the rendered routes: the canary's commit counter, see `progression::State::sequence`. Other objects would
/// have to be written by steps that change nothing else in them.
pub const SEQUENCE_ANNOTATION: &str = "serin.dev/sequence";
/// Annotation on every rendered object: the canary that it belongs to, `<namespace>/<name>`.
pub const CANARY_ANNOTATION: &str = "serin.dev/canary";
/// Label on every object that the built-in applier wrote: the repository that it comes from.
pub const OWNER_LABEL: &str = "serin.dev/repository";
/// Annotation on every object that the built-in applier wrote: the identity of the manifest.
pub const APPLIED_ANNOTATION: &str = "serin.dev/applied";
/// Pod label that tells stable from candidate in managed mode when the spec names no other.
pub const TRACK_LABEL: &str = "serin.dev/track";
/// Value of the distinguishing pod label on the candidate's pods in managed mode.
pub const CANARY_TRACK: &str = "canary";
/// Subset of the stable version in every generated `DestinationRule`.
pub const STABLE_SUBSET: &str = "stable";
/// Subset of the candidate in every generated `DestinationRule`.
pub const CANARY_SUBSET: &str = "canary";

/// Identity of a canary: the namespace and name of its `Canary` object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CanaryId {
    /// Kubernetes namespace, `default` when the object names none.
    pub namespace: String,
    /// Name of the `Canary` object.
    pub name: String,
}

impl CanaryId {
    /// Builds an id from its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for CanaryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A text that is not `<namespace>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a canary id: write <namespace>/<name>")]
pub struct NotACanaryId(pub String);

impl FromStr for CanaryId {
    type Err = NotACanaryId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((ns, name)) if !ns.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::new(ns, name))
            }
            _ => Err(NotACanaryId(text.to_owned())),
        }
    }
}

/// Share of requests in whole per cent, 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Weight(u8);

impl Weight {
    /// No requests.
    pub const ZERO: Self = Self(0);
    /// All requests.
    pub const FULL: Self = Self(100);

    /// A weight, if `percent` is at most 100.
    pub fn new(percent: u64) -> Option<Self> {
        u8::try_from(percent).ok().filter(|p| *p <= 100).map(Self)
    }

    /// The share in per cent.
    pub fn percent(self) -> u8 {
        self.0
    }

    /// What is left for the other version: `100 - self`.
    pub fn rest(self) -> Self {
        Self(100 - self.0)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// Identity of content that a user wrote in Git: the first 12 hex digits of the SHA-256 of its canonical JSON.
///
/// It hashes the user's own fields as written, never a struct of ours, so that an upgrade of Serin changes none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(Arc<str>);

impl Revision {
    /// The revision of a JSON value; object keys are ordered, so that formatting and key order do not matter.
    pub fn of(value: &serde_json::Value) -> Self {
        let digest = Sha256::digest(value.to_string().as_bytes());
        let halves = digest
            .iter()
            .take(6)
            .flat_map(|byte| [byte >> 4, byte & 15]);
        let digits = halves.filter_map(|half| char::from_digit(half.into(), 16));
        Self(digits.collect::<String>().into())
    }

    /// A revision as it was written down before.
    pub fn recorded(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A Git commit id in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(Arc<str>);

impl CommitId {
    /// An id as Git printed it.
    pub fn new(hex: impl Into<Arc<str>>) -> Self {
        Self(hex.into())
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first ten digits, for people.
    pub fn short(&self) -> &str {
        self.0.get(..10).unwrap_or(&self.0)
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identity of a file's content; equal ids mean equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub Arc<str>);

/// A path inside the repository: relative, `/` between parts, no empty part, no `.` and no `..`, no control characters.
/// Cheap to copy: maps with a path for each file of a large tree are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoPath(Arc<str>);

/// Its text orders and equals as the path does, so that maps can be asked for the text of one.
impl Borrow<str> for RepoPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl RepoPath {
    /// A path, if it stays inside the tree.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        stays_inside(&text).then(|| Self(text.into()))
    }

    /// The text, `/`-separated.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared with this path.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The folder that holds this path; `None` at the top of the tree.
    pub fn parent(&self) -> Option<Self> {
        self.0
            .rsplit_once('/')
            .map(|(parent, _)| Self(parent.into()))
    }

    /// The last part.
    pub fn file_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&*self.0, |(_, name)| name)
    }

    /// A path beside this one: same folder, other last part.
    pub fn sibling(&self, name: &str) -> Option<Self> {
        match self.0.rsplit_once('/') {
            Some((parent, _)) => Self::below(parent, name),
            None => Self::new(name),
        }
    }

    /// A path below this one.
    pub fn join(&self, below: &str) -> Option<Self> {
        Self::below(&self.0, below)
    }

    /// A path below a folder that is known to be in the tree.
    fn below(folder: &str, path: &str) -> Option<Self> {
        stays_inside(path).then(|| Self([folder, "/", path].concat().into()))
    }

    /// Whether this is `folder` itself or lies below it.
    pub fn is_within(&self, folder: &Self) -> bool {
        self.0
            .strip_prefix(folder.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Content of files by path; `None` for one that must not exist.
pub type Contents = BTreeMap<RepoPath, Option<Arc<[u8]>>>;

/// Whether a path leads to something below the folder that it starts from.
fn stays_inside(path: &str) -> bool {
    let is_strange = |byte: u8| byte.is_ascii_control() || byte == b'\\';
    let is_control = !path.is_ascii() && path.contains(char::is_control);
    !is_control
        && !path.bytes().any(is_strange)
        && path
            .split('/')
            .all(|part| !matches!(part, "" | "." | ".." | ".git"))
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An author or committer of a commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Person {
    /// Name as in Git.
    pub name: String,
    /// Email address as in Git, without angle brackets.
    pub email: String,
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <{}>", self.name, self.email)
    }
}

/// The files that Serin owns in a canary's folder.
pub mod files {
    /// The generated `VirtualService`.
    pub const VIRTUAL_SERVICE: &str = "virtualservice.yaml";
    /// The generated `DestinationRule`.
    pub const DESTINATION_RULE: &str = "destinationrule.yaml";
    /// The candidate's `Deployment`, in managed mode while a rollout runs.
    pub const DEPLOYMENT: &str = "deployment.yaml";
    /// The list of the above for `kustomize`.
    pub const KUSTOMIZATION: &str = "kustomization.yaml";
    /// The state of the rollout.
    pub const ROLLOUT: &str = "rollout.yaml";
    /// All of them, in the order in which they are written.
    pub const ALL: [&str; 5] = [
        DEPLOYMENT,
        DESTINATION_RULE,
        KUSTOMIZATION,
        ROLLOUT,
        VIRTUAL_SERVICE,
    ];

    /// Last part of the folder of the canary with this name.
    pub fn folder_name(canary: &str) -> String {
        format!("{canary}.serin")
    }
}

/// A path that a kustomization in `dir` names; `None` when it is a URL or leaves the repository.
pub fn member_path(dir: &str, member: &str) -> Option<String> {
    let is_elsewhere = member.contains("://") || member.contains('?') || member.starts_with('/');
    if member.is_empty() || is_elsewhere {
        return None;
    }
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in member.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Name of the candidate's `Deployment` in managed mode.
pub fn canary_deployment(deployment: &str) -> String {
    format!("{deployment}-canary")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_relative_to_their_kustomization() {
        for (dir, member, expected) in [
            ("apps/x", "deployment.yaml", Some("apps/x/deployment.yaml")),
            ("apps/x", "./a.yaml", Some("apps/x/a.yaml")),
            ("apps/x", "../base/", Some("apps/base")),
            ("", "base", Some("base")),
            ("apps", "..", Some("")),
            ("apps", "../..", None),
            ("apps", "", None),
            ("apps", "https://example.com/x.yaml", None),
            ("apps", "github.com/x/y?ref=v1", None),
        ] {
            assert_eq!(
                member_path(dir, member).as_deref(),
                expected,
                "{dir} {member}"
            );
        }
    }

    #[test]
    fn paths_cannot_leave_the_tree() {
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            ".git/config",
            "a\\b",
            "a/.git/x",
            "a\nb",
            "a\u{1b}[2J",
        ] {
            assert_eq!(RepoPath::new(bad), None, "{bad}");
        }
        let path = RepoPath::new("apps/podinfo/canary.yaml").unwrap();
        assert_eq!(
            path.sibling("podinfo.serin").unwrap().as_str(),
            "apps/podinfo/podinfo.serin"
        );
        assert!(path.is_within(&RepoPath::new("apps").unwrap()));
        assert!(!path.is_within(&RepoPath::new("app").unwrap()));
    }

    #[test]
    fn weights_stop_at_one_hundred() {
        assert_eq!(Weight::new(101), None);
        assert_eq!(Weight::new(60).unwrap().rest().percent(), 40);
    }

    #[test]
    fn revisions_ignore_key_order() {
        let one = serde_json::json!({"a": 1, "b": 2});
        let two: serde_json::Value = serde_json::from_str(r#"{"b":2,"a":1}"#).unwrap();
        assert_eq!(Revision::of(&one), Revision::of(&two));
    }
}
