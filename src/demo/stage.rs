//! The stage: a real repository, the real engine, a real HTTP API of metrics, and around them an invented mesh, cluster and
//! time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::frame::{Commit, Frame, News};
use super::mesh::{Fault, Mesh, Table, Tally};
use super::metrics_api::{MetricsApi, Shared};
use crate::clock::{Clock, ManualClock};
use crate::domain::{CanaryId, Person, RepoPath, Timestamp, Weight, canary_deployment};
use crate::git::{self, Branch, First, Local};
use crate::ports::{Draft, Published, Repository, RepositoryError};
use crate::progression::{Transition, TransitionKind};
use crate::prometheus::{self, Server, SetupError};
use crate::reconcile::{CanaryReport, Engine, Settings};
use crate::record::message::{self, Style};
use crate::simulation::{self, World};

/// Folder of the bare repository inside the demo's folder.
pub const REPOSITORY: &str = "apps.git";
/// Folder of the copies that the engine and the people work on; it goes at the end.
const COPIES: &str = ".copies";
/// The application.
pub(super) const APP: (&str, &str) = (
    "apps/podinfo/podinfo.yaml",
    include_str!("app/podinfo.yaml.txt"),
);
/// Its canary.
pub(super) const CANARY: (&str, &str) = (
    "apps/podinfo/canary.yaml",
    include_str!("app/canary.yaml.txt"),
);
/// Name of the Deployment.
const DEPLOYMENT: &str = "podinfo";
/// The user whom the canary names.
pub(super) const NAMED: &str = "alexis";
/// Who asks, and how often a second.
const USERS: [(&str, u64); 7] = [
    (NAMED, 2),
    ("amir", 10),
    ("bo", 10),
    ("cecile", 10),
    ("dana", 10),
    ("eli", 10),
    ("fatou", 10),
];
/// The bad release: well with a user's few requests, not with a tenth of everybody's.
pub(super) const FAULT: Fault = Fault {
    version: "6.10.0",
    above: 3.0,
    error_share: 0.2,
};
const DEADLINE: Duration = Duration::from_secs(30);
/// Commits that a frame shows.
const SHOWN_COMMITS: usize = 5;

/// Why the demo could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The repository.
    #[error("{0}")]
    Repository(#[from] RepositoryError),
    /// The connection to the metrics of this very process.
    #[error("failed to set up the demo's metrics")]
    Metrics(#[from] SetupError),
    /// A socket, a folder, or whoever watches.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Something did not happen as told.
    #[error("the story cannot go on: {0}")]
    Off(String),
}

/// Removes the working copies, whatever ends the demo.
struct Copies(PathBuf);

/// Ends the server with the stage.
struct Serving(JoinHandle<std::io::Result<()>>);

/// What Serin did: a commit of one pass.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) at: Timestamp,
    pub(super) commit: Commit,
    pub(super) transition: Transition,
    /// Who got which version until the next one.
    pub(super) tally: Tally,
}

pub(super) struct Stage {
    pub(super) repository: PathBuf,
    pub(super) steps: Vec<Step>,
    pub(super) commits: Vec<Commit>,
    clock: Arc<ManualClock>,
    engine: Engine<Branch, Server, simulation::Mesh, Arc<ManualClock>>,
    cluster: Arc<Mutex<World>>,
    mesh: Mesh,
    traffic: Shared,
    people: BTreeMap<&'static str, Branch>,
    report: Option<CanaryReport>,
    wake_at: Timestamp,
    copies: Copies,
    _serving: Serving,
}

impl Drop for Copies {
    fn drop(&mut self) {
        // What cannot be removed is only in the way of nobody.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) fn person(name: &str) -> Person {
    Person {
        name: name.to_owned(),
        email: format!("{name}@example.com"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path(text: &str) -> Result<RepoPath, DemoError> {
    RepoPath::new(text).ok_or_else(|| DemoError::Off(format!("{text} is no path")))
}

impl Stage {
    /// Builds everything below an empty folder, with a first commit by `founder`.
    pub(super) async fn build(
        folder: &Path,
        start: Timestamp,
        founder: &str,
        says: &str,
    ) -> Result<Self, DemoError> {
        let repository = folder.join(REPOSITORY);
        let copies = Copies(folder.join(COPIES));
        let mut files = BTreeMap::new();
        for (name, content) in [APP, CANARY] {
            files.insert(path(name)?, content.as_bytes().to_vec());
        }
        let first = First {
            branch: "main",
            person: &person(founder),
            at: start,
            message: says,
            files: &files,
        };
        git::create_bare(&repository, &first).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let traffic = Shared::default();
        let serving = Serving(tokio::spawn(MetricsApi::serve(
            Arc::clone(&traffic),
            listener,
        )));
        let clock = Arc::new(ManualClock::new(start));
        let cluster = Arc::new(Mutex::new(World::default()));
        let branch = Branch::open(settings(
            &repository,
            &copies.0,
            "serin",
            &simulation::identity(),
        )?);
        let engine = Engine::new(
            branch.await?,
            Server::new(prometheus::Settings::new(url))?,
            simulation::Mesh::new(Arc::clone(&cluster), simulation::Life::default(), true),
            Arc::clone(&clock),
            Settings {
                push_interval: Duration::from_secs(10),
                poll: Duration::from_secs(30),
                style: Style::default(),
            },
        );
        let mut stage = Self {
            repository,
            steps: Vec::new(),
            commits: Vec::new(),
            clock,
            engine,
            cluster,
            mesh: Mesh::new(USERS.to_vec(), FAULT),
            traffic,
            people: BTreeMap::new(),
            report: None,
            wake_at: start,
            copies,
            _serving: serving,
        };
        let head = Local::open(&stage.repository, None)?.head();
        stage.committed(head.short(), founder, says);
        stage.route()?;
        Ok(stage)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The committed weight.
    pub(super) fn weight(&self) -> Weight {
        self.report
            .as_ref()
            .map_or(Weight::ZERO, CanaryReport::weight)
    }

    /// What the mesh sends to the candidate, in per cent; `None` while the namespace is gone.
    pub(super) fn routed(&self) -> Option<f64> {
        let table = self.mesh.table.as_ref()?;
        Some(table.share(&canary_deployment(DEPLOYMENT)))
    }

    /// The last step of this kind.
    pub(super) fn last(&self, kind: TransitionKind) -> Option<&Step> {
        self.steps
            .iter()
            .rev()
            .find(|step| step.transition.kind == kind)
    }

    /// Whether all is done: nothing to roll out, or nothing that may be tried again.
    pub(super) fn rests(&self) -> bool {
        let last = self.steps.last().map(|step| step.transition.kind);
        last == Some(TransitionKind::Finish)
    }

    fn committed(&mut self, id: &str, who: &str, subject: &str) -> Commit {
        let commit = Commit {
            id: id.to_owned(),
            who: who.to_owned(),
            subject: subject.to_owned(),
        };
        self.commits.push(commit.clone());
        commit
    }

    /// A person replaces texts in the canary's file, and pushes that.
    pub(super) async fn propose(
        &mut self,
        who: &'static str,
        says: &str,
        replace: &[(&str, &str)],
    ) -> Result<News, DemoError> {
        if !self.people.contains_key(who) {
            let settings = settings(&self.repository, &self.copies.0, who, &person(who))?;
            self.people.insert(who, Branch::open(settings).await?);
        }
        let at = self.now();
        let Some(branch) = self.people.get_mut(who) else {
            return Err(DemoError::Off(format!("{who} has no clone")));
        };
        let file = path(CANARY.0)?;
        let head = branch.fetch().await?.commit;
        let head = head.ok_or_else(|| DemoError::Off("the branch is empty".to_owned()))?;
        let snapshot = branch.snapshot(&head).await?;
        let present = snapshot
            .files
            .get(&file)
            .map(|(_, content)| content.to_vec());
        let mut text = String::from_utf8(present.unwrap_or_default()).unwrap_or_default();
        for (from, to) in replace {
            if !text.contains(from) {
                return Err(DemoError::Off(format!("{file} does not say `{from}`")));
            }
            text = text.replace(from, to);
        }
        let draft = Draft {
            canary: CanaryId::new("test", DEPLOYMENT),
            message: format!("{says}\n"),
            changes: BTreeMap::from([(file, Some(text.into_bytes().into()))]),
            at,
        };
        let commit = match branch.publish(&head, vec![draft]).await? {
            Published::Accepted(commits) => commits.last().cloned().unwrap_or(head),
            other => return Err(DemoError::Off(format!("{who} could not push: {other:?}"))),
        };
        // As a webhook would.
        self.wake_at = at;
        let commit = self.committed(commit.short(), who, says);
        Ok(News::Commit(commit, String::new()))
    }

    /// Everything in the namespace is deleted by hand, with the counters that its pods had.
    pub(super) fn delete_namespace(&mut self) {
        lock(&self.cluster).objects.clear();
        for (namespace, workload) in self.mesh.workloads() {
            lock(&self.traffic).remove(&namespace, &workload);
        }
        self.mesh.table = None;
        // It takes a while until a namespace is really gone and a watch says so.
        self.wake_at = self.now() + TimeDelta::seconds(2);
    }

    /// One pass of the engine, when it is due.
    pub(super) async fn pass(&mut self) -> Result<Vec<News>, DemoError> {
        let now = self.now();
        if self.wake_at > now {
            return Ok(Vec::new());
        }
        let pass = self.engine.pass().await;
        if let Some(problem) = &pass.problem {
            return Err(DemoError::Off(problem.clone()));
        }
        let mut news = Vec::new();
        for (id, commit, transition) in pass.moves() {
            let subject = format!("canary({id}): {}", message::what(transition));
            let commit = self.committed(commit.short(), "Serin", &subject);
            news.push(News::Commit(commit.clone(), transition.sentence.clone()));
            self.steps.push(Step {
                at: now,
                commit,
                transition: transition.clone(),
                tally: Tally::new(),
            });
        }
        self.wake_at = pass.wake_at.max(now + TimeDelta::seconds(1));
        self.report = pass.canaries.into_iter().next();
        if let Some(diagnostic) = self
            .report
            .as_ref()
            .and_then(|report| report.diagnostics.first())
        {
            return Err(DemoError::Off(diagnostic.to_string()));
        }
        if !news.is_empty() || self.mesh.table.is_none() {
            self.route()?;
        }
        Ok(news)
    }

    /// The mesh follows the branch's HEAD, which is what the cluster was made to show.
    fn route(&mut self) -> Result<(), DemoError> {
        let snapshot = Local::open(&self.repository, None)?.snapshot(None)?;
        for held in lock(&self.cluster).objects.values() {
            for (path, content) in &held.files {
                let same = snapshot
                    .files
                    .get(path)
                    .is_some_and(|(_, present)| **present == **content);
                if !same {
                    return Err(DemoError::Off(format!(
                        "{path} in the cluster is not what Git holds"
                    )));
                }
            }
        }
        let files = snapshot.files.iter();
        let table = Table::read(files.map(|(path, (_, content))| (path, &**content)));
        self.mesh.table = Some(table.map_err(DemoError::Off)?);
        Ok(())
    }

    /// A second of requests.
    pub(super) fn second(&mut self) {
        let now = self.now() + TimeDelta::seconds(1);
        self.clock.set(now);
        let mut before = Tally::new();
        let tally = self
            .steps
            .last_mut()
            .map_or(&mut before, |step| &mut step.tally);
        let flows = self.mesh.second(tally);
        lock(&self.traffic).advance(now, &flows);
    }

    pub(super) fn frame(&self, title: &str) -> Frame {
        let version = |name: &str| {
            let table = self.mesh.table.as_ref()?;
            table.version(name).map(ToOwned::to_owned)
        };
        let report = self.report.as_ref();
        let judgement = report.and_then(|report| report.judgement.as_ref());
        let older = self.commits.len().saturating_sub(SHOWN_COMMITS);
        Frame {
            at: self.now(),
            title: title.to_owned(),
            stable: version(DEPLOYMENT).unwrap_or_default(),
            candidate: version(&canary_deployment(DEPLOYMENT)),
            weight: self.routed(),
            tally: self
                .steps
                .last()
                .map(|step| step.tally.clone())
                .unwrap_or_default(),
            findings: judgement
                .map(|judgement| judgement.findings.clone())
                .unwrap_or_default(),
            waiting: report.map_or_else(String::new, |report| report.waiting.to_string()),
            commits: self.commits.get(older..).unwrap_or_default().to_vec(),
        }
    }
}

fn settings(
    repository: &Path,
    copies: &Path,
    name: &str,
    person: &Person,
) -> Result<git::Settings, DemoError> {
    let remote = repository.to_str().unwrap_or_default();
    Ok(git::Settings {
        remote: remote
            .parse()
            .map_err(|error| DemoError::Off(format!("{error}")))?,
        branch: Some("main".to_owned()),
        path: None,
        local: copies.join(name),
        author: person.clone(),
        committer: person.clone(),
        deadline: DEADLINE,
        accept_rewritten_history: false,
        sign: None,
        verify: None,
        environment: BTreeMap::new(),
    })
}
