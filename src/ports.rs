//! The world, in our own words: a branch, metrics, a cluster. Adapters are in `git/`, `prometheus/`, `cluster/` and
//! `simulation/`; no type of theirs appears here.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use crate::analysis::{Answer, Query};
use crate::applier::ledger::Notice;
use crate::domain::{BlobId, CanaryId, CommitId, Contents, Person, RepoPath, Timestamp};
use crate::manifests::{Applied, Committed, Manifests};
use crate::progression::Readiness;
use crate::spec::ValidatedCanary;

/// One branch of one repository: read, compare, write.
pub trait Repository: Send {
    /// Asks the remote where the branch is, and brings what is new. At most one cheap request when nothing is.
    fn fetch(&mut self) -> impl Future<Output = Result<Head, RepositoryError>> + Send;

    /// The YAML files of the tree at a commit that was fetched.
    fn snapshot(
        &mut self,
        at: &CommitId,
    ) -> impl Future<Output = Result<Snapshot, RepositoryError>> + Send;

    /// Who changed what since our last commit on each canary.
    fn lineage(
        &mut self,
        at: &CommitId,
        watches: &[Watch],
    ) -> impl Future<Output = Result<BTreeMap<CanaryId, Lineage>, RepositoryError>> + Send;

    /// Whose commit made each of these what it is, in the order of the questions; `None` where it was a commit of ours, or
    /// where looking at a bounded number of commits does not say.
    fn authors(
        &mut self,
        at: &CommitId,
        questions: Vec<Question>,
    ) -> impl Future<Output = Result<Vec<Option<ForeignCommit>>, RepositoryError>> + Send;

    /// Writes the drafts as commits in this order on top of `base` and pushes them at once, as a fast-forward.
    fn publish(
        &mut self,
        base: &CommitId,
        drafts: Vec<Draft>,
    ) -> impl Future<Output = Result<Published, RepositoryError>> + Send;
}

/// Where the branch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The commit that is in force; `None` for a branch without any. The head, unless that is not verified.
    pub commit: Option<CommitId>,
    /// How it relates to the head that this adapter saw before.
    pub history: History,
}

/// How a head relates to the one seen before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum History {
    /// The same, a descendant, or the first one seen.
    Forward,
    /// The head seen before is no ancestor of it: somebody forced the branch.
    Rewritten {
        /// The head seen before.
        from: CommitId,
    },
    /// It is not signed as it has to be: the commit in force is the last one that was, if there is any.
    Unverified {
        /// The head.
        head: CommitId,
        /// Which commit is not, and why.
        why: String,
    },
}

/// The YAML files of a tree.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The commit.
    pub commit: CommitId,
    /// Regular files that end in `.yaml` or `.yml`, below the configured path. Contents that the tree before held, too,
    /// are those very bytes.
    pub files: Files,
    /// Paths that were left out, and why: links, submodules, oversized files, names that are not UTF-8.
    pub skipped: Vec<(String, String)>,
}

/// What to look for in the history of a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The canary.
    pub canary: CanaryId,
    /// Its folder of generated files.
    pub folder: RepoPath,
    /// What people write for it: the spec's file, stable's manifest.
    pub inputs: Vec<RepoPath>,
}

/// The history of a canary since our last commit on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lineage {
    /// Our last commit on it.
    pub ours: Option<Arc<OurCommit>>,
    /// Other people's commits since then that touched its folder, newest first.
    pub folder: Vec<ForeignCommit>,
    /// The newest commit of somebody else that touched one of its inputs.
    pub input: Option<ForeignCommit>,
}

/// A commit of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OurCommit {
    /// Its id.
    pub id: CommitId,
    /// Its committer time.
    pub at: Timestamp,
    /// The canary's generated files as this commit left them. What the tree still holds is in memory once.
    pub files: BTreeMap<RepoPath, Arc<[u8]>>,
}

/// A commit of somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignCommit {
    /// Its id.
    pub id: CommitId,
    /// Its author.
    pub author: Person,
    /// Its author time.
    pub at: Timestamp,
    /// First line of its message.
    pub subject: String,
    /// Which of the watched paths it touched.
    pub paths: Vec<RepoPath>,
}

/// Something that a person may have changed, to be looked for in the history from new to old.
#[derive(Clone)]
pub struct Question {
    /// The paths that it is written in.
    pub paths: Vec<RepoPath>,
    /// A commit behind which none touched these paths; `None`: the head.
    pub from: Option<CommitId>,
    /// A commit at which the search ends without an answer.
    pub until: Option<CommitId>,
    /// Whether a commit that touched the paths is the one.
    pub fits: Arc<dyn Fn(&Touch) -> Fit + Send + Sync>,
}

/// What a commit did to the paths of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch {
    /// The files after it.
    pub after: BTreeMap<RepoPath, Arc<[u8]>>,
    /// The files before it, by parent; a first commit has one parent without files.
    pub before: Vec<BTreeMap<RepoPath, Arc<[u8]>>>,
}

/// Whether a commit answers a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// This is the one.
    Yes,
    /// It may be, if no older one is: what was before it cannot be read.
    Perhaps,
    /// It is not.
    No,
}

/// A commit to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The canary.
    pub canary: CanaryId,
    /// The whole message: subject, body, trailers.
    pub message: String,
    /// New content by path; `None` deletes.
    pub changes: Contents,
    /// Author and committer time.
    pub at: Timestamp,
}

/// How a push ended. Judged by the remote head, never by the server's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// The branch is at the last of these commits, one per draft.
    Accepted(Vec<CommitId>),
    /// The branch moved first: fetch and decide again.
    LostRace,
    /// The branch did not move: a policy or a fault, in the server's words.
    Refused(String),
}

/// What went wrong with the repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RepositoryError {
    /// No answer from the remote, or none in time.
    #[error("the remote cannot be reached: {0}")]
    Unreachable(String),
    /// The remote answered that this is not allowed.
    #[error("the remote refuses access: {0}")]
    Denied(String),
    /// There is no such repository or branch.
    #[error("not found on the remote: {0}")]
    Missing(String),
    /// Our own copy cannot be read or written.
    #[error("the local copy is unusable: {0}")]
    Local(String),
    /// Commits cannot be signed or verified: keys or settings, which a person has to mend.
    #[error("signatures: {0}")]
    Signature(String),
}

impl RepositoryError {
    /// Stable label for metrics and events.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "remote-unreachable",
            Self::Denied(_) => "remote-denied",
            Self::Missing(_) => "remote-missing",
            Self::Local(_) => "local-copy",
            Self::Signature(_) => "signature",
        }
    }
}

/// A metrics server.
pub trait Metrics: Send + Sync {
    /// Answers in the order of the queries, one each. Never fails as a whole.
    fn ask(&self, queries: &[Query]) -> impl Future<Output = Vec<Answer>> + Send;
}

/// A cluster, or the absence of one.
pub trait Cluster: Send {
    /// Hands over what a head holds that was fetched or pushed just now: all that the cluster is to show. Returns at
    /// once; an adapter that applies does so from here on, and keeps the cluster equal to it until the next one.
    fn follow(&mut self, tree: Tree, now: Timestamp) -> impl Future<Output = ()> + Send;

    /// What the cluster shows of these canaries; `None` when there is no cluster.
    fn observe(
        &mut self,
        wanted: &[Wanted<'_>],
        now: Timestamp,
    ) -> impl Future<Output = Option<BTreeMap<CanaryId, Sighting>>> + Send;

    /// Makes the cluster equal to committed manifests, canary by canary; one that fails stops no other.
    fn apply(
        &mut self,
        manifests: Vec<Manifests<Committed>>,
        now: Timestamp,
    ) -> impl Future<Output = BTreeMap<CanaryId, Result<Manifests<Applied>, ApplyError>>> + Send;
}

/// Whoever wants to know what happens in the cluster: a log, events, metrics.
pub trait Witness: Send + Sync {
    /// Something happened. Must return at once.
    fn note(&self, notice: &Notice);
}

/// Files by path, with the identity of their content.
pub type Files = Arc<BTreeMap<RepoPath, (BlobId, Arc<[u8]>)>>;

/// All files at a head, for whoever applies them.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// The commit; `None` for an empty branch.
    pub commit: Option<CommitId>,
    /// Its YAML files.
    pub files: Files,
    /// Paths that exist and could not be had, and why. While there are any, nothing counts as removed.
    pub skipped: Vec<(String, String)>,
    /// Deployments whose change has to wait, by namespace and name: they run a candidate that still has traffic.
    pub held_back: BTreeSet<(String, String)>,
}

/// A canary to look for in the cluster.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The generated files that HEAD holds.
    pub manifests: &'a Manifests<Committed>,
    /// Its spec; `None` while the branch cannot be read.
    pub canary: Option<&'a ValidatedCanary>,
    /// Whose pods are about to get traffic: they count as ready only where the mesh finds them.
    pub receivers: Receivers,
}

/// The workloads of a canary that the rollout is about to send traffic to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receivers {
    /// The candidate climbs.
    pub candidate: bool,
    /// The candidate was promoted: traffic returns to stable.
    pub stable: bool,
}

/// What the cluster shows of one canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Since when all objects have the wanted sequence and content.
    pub in_sync_since: Option<Timestamp>,
    /// What differs, for people; `None` when in sync.
    pub drift: Option<String>,
    /// Stable's workload.
    pub stable: Readiness,
    /// The candidate's workload.
    pub candidate: Readiness,
    /// Replicas that stable's workload is asked to have now, whoever asks for them.
    pub stable_replicas: Option<u32>,
}

/// Why manifests could not be applied, in the cluster's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to apply {object}: {words}")]
pub struct ApplyError {
    /// Kind, namespace and name.
    pub object: String,
    /// The server's words.
    pub words: String,
}

/// Whether somebody should look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// A step on the way.
    Normal,
    /// Something that somebody may have to do something about.
    Warning,
}

/// One event to be shown on the canary's object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The canary.
    pub canary: CanaryId,
    /// How urgent it is.
    pub severity: Severity,
    /// A stable CamelCase word: why.
    pub reason: &'static str,
    /// A stable CamelCase word: what was done about it.
    pub action: &'static str,
    /// A sentence, at most 1,024 bytes.
    pub text: String,
}
