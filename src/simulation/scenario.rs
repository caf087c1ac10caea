//! The scenario format: a tree, a behaviour per version, and events in time. Prose stands in comments.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::cluster::ClusterMood;
use super::lifeline::CrashPoint;
use super::mesh::{Behaviour, Service, Workloads, World};
use super::metrics::PrometheusMood;
use super::remote::{Change, Lost, Tree};
use crate::domain::{CanaryId, Contents, Person, RepoPath, Timestamp, files};
use crate::spec::duration;

/// The application and canary that a scenario starts from unless it brings files of its own.
pub(super) const BASE: [(&str, &str); 2] = [
    ("apps/podinfo/app.yaml", include_str!("base/app.yaml")),
    ("apps/podinfo/canary.yaml", include_str!("base/canary.yaml")),
];

/// Longest description of one event; whole files may be in it.
const LONGEST_EVENT: usize = 240;

/// A scenario file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Scenario {
    /// When it begins.
    #[serde(default = "default_start")]
    pub start: Timestamp,
    /// How long it lasts: `30m`.
    pub lasts: String,
    /// Files that replace or join the base tree before anything happens.
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// Texts replaced in the base tree before anything happens.
    #[serde(default)]
    replace: Vec<Replace>,
    /// Requests a second.
    #[serde(default = "default_requests")]
    requests: f64,
    /// How versions behave; every request succeeds otherwise.
    #[serde(default)]
    versions: Vec<Behaviour>,
    /// Canaries of the scenario's own files that get requests besides `test/podinfo`.
    #[serde(default)]
    services: Vec<ServiceSpec>,
    /// How many engines work on the branch, each with a memory and a clock of its own.
    #[serde(default = "one")]
    pub engines: usize,
    /// Whether there is a (simulated) cluster to apply to.
    #[serde(default)]
    cluster: bool,
    /// Whether the head needs a signature; everybody signs, unless an event says `unsigned`.
    #[serde(default)]
    pub verify: bool,
    /// Shortest time between two pushes.
    #[serde(default)]
    pub push_interval_seconds: u64,
    /// What happens.
    #[serde(default)]
    events: Vec<EventSpec>,
    /// What has to be in files at the end. Ends the scenario early, once everything has happened and all of it is met.
    #[serde(default)]
    expect: Vec<Expectation>,
}

/// A text that has to be in a file at the end.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    file: String,
    contains: String,
}

/// Requests to a canary with two Deployments of its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceSpec {
    /// `<namespace>/<name>`.
    canary: String,
    /// Folder of the generated files.
    folder: String,
    /// Requests a second.
    requests: f64,
    /// Deployments by name, with the file of each.
    deployments: BTreeMap<String, String>,
}

/// A text replaced in a file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Replace {
    /// The file.
    pub(super) file: String,
    /// What stands there.
    pub(super) from: String,
    /// What is to stand there.
    pub(super) to: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct EventSpec {
    /// Time since the start.
    at: String,
    /// Who commits.
    #[serde(default)]
    who: Option<String>,
    /// First line of the commit message.
    #[serde(default)]
    says: Option<String>,
    #[serde(default)]
    replace: Vec<Replace>,
    #[serde(default)]
    write: BTreeMap<String, String>,
    #[serde(default)]
    delete: Vec<String>,
    /// The commit arrives between the engine's fetch and its push.
    #[serde(default)]
    race: bool,
    /// The commit has no signature.
    #[serde(default)]
    unsigned: bool,
    /// Revert the newest commit whose subject contains this.
    #[serde(default)]
    revert: Option<String>,
    /// Give files below this folder the content that the engine's last commit left.
    #[serde(default)]
    restore: Option<String>,
    #[serde(default)]
    rewind: Option<usize>,
    #[serde(default)]
    prometheus: Option<PrometheusMood>,
    /// `down` or `up`.
    #[serde(default)]
    remote: Option<Line>,
    /// Refuse pushes with these words; an empty text ends it.
    #[serde(default)]
    refuse: Option<String>,
    #[serde(default)]
    crash: Option<CrashPoint>,
    /// Which engine a crash, a clock or an overtaking is about, from 1.
    #[serde(default)]
    engine: Option<usize>,
    /// The other engines have a pass between the decision of this engine and its push.
    #[serde(default)]
    overtake: bool,
    /// The answer to the next push is lost: `accepted` by the remote, or `dropped` on the way.
    #[serde(default)]
    lose: Option<Lost>,
    #[serde(default)]
    kubernetes: Option<ClusterMood>,
    /// All counters start from zero, as after a restart of every pod.
    #[serde(default)]
    reset_counters: bool,
    /// Offset of the engine's clock: `90s`, `-1h`.
    #[serde(default)]
    clock: Option<String>,
    /// An autoscaler gives stable this many replicas.
    #[serde(default)]
    scale_stable: Option<u32>,
    #[serde(default)]
    delete_namespace: bool,
    /// Edit an object in the cluster.
    #[serde(default)]
    edit_cluster: Option<Replace>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Up,
    Down,
}

/// One event.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) after: chrono::Duration,
    pub(super) act: Act,
}

/// What can happen.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Commit(PersonsChange),
    Revert {
        who: Person,
        subject: String,
    },
    Restore {
        who: Person,
        folder: RepoPath,
    },
    Race(PersonsChange),
    Rewind(usize),
    Prometheus(PrometheusMood),
    Down(bool),
    Refuse(Option<String>),
    Crash(usize, CrashPoint),
    Skew(usize, chrono::Duration),
    Overtake(usize),
    Lose(Lost),
    Kubernetes(ClusterMood),
    ResetCounters,
    ScaleStable(u32),
    DeleteNamespace,
    EditCluster {
        path: RepoPath,
        from: String,
        to: String,
    },
}

/// A person's change, in terms of the tree that it meets.
#[derive(Debug, Clone, Default)]
pub(super) struct PersonsChange {
    pub(super) who: String,
    pub(super) says: String,
    pub(super) replace: Vec<Replace>,
    pub(super) write: BTreeMap<String, String>,
    pub(super) delete: Vec<String>,
    pub(super) unsigned: bool,
}

/// A scenario file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Not the format.
    #[error("{0}")]
    Format(String),
    /// An event that says nothing, or a time that is none.
    #[error("event {index}: {problem}")]
    Event {
        /// From 1.
        index: usize,
        /// What is wrong.
        problem: String,
    },
}

impl Scenario {
    /// Reads a scenario and checks every event.
    pub fn read(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self =
            serde_yaml::from_str(text).map_err(|error| ScenarioError::Format(error.to_string()))?;
        if !(1..=2).contains(&scenario.engines) {
            let words = format!("`engines` is {}: write 1 or 2", scenario.engines);
            return Err(ScenarioError::Format(words));
        }
        if let Some(service) = scenario.services.iter().find(|s| s.service().is_none()) {
            let words = format!(
                "`services`: {} has a name or path that is none",
                service.canary
            );
            return Err(ScenarioError::Format(words));
        }
        if duration::read(&scenario.lasts).is_none() {
            return Err(ScenarioError::Format(format!(
                "`lasts` is `{}`: write a duration like 30m",
                scenario.lasts
            )));
        }
        for (index, event) in scenario.events.iter().enumerate() {
            event
                .clone()
                .event()
                .map_err(|problem| ScenarioError::Event {
                    index: index + 1,
                    problem,
                })?;
        }
        Ok(scenario)
    }

    pub(super) fn length(&self) -> chrono::Duration {
        duration::read(&self.lasts)
            .and_then(|d| chrono::Duration::from_std(d).ok())
            .unwrap_or_default()
    }

    /// What is expected at the end and not (yet) so; `None` when nothing is expected.
    pub(super) fn unmet(&self, tree: &Tree) -> Option<Vec<String>> {
        if self.expect.is_empty() {
            return None;
        }
        let unmet = self.expect.iter().filter(|expected| {
            let file = RepoPath::new(expected.file.as_str()).and_then(|path| tree.get(&path));
            !file.is_some_and(|file| super::text_of(&file.content).contains(&expected.contains))
        });
        let words = |e: &Expectation| format!("at the end {} lacks `{}`", e.file, e.contains);
        Some(unmet.map(words).collect())
    }

    pub(super) fn has_cluster(&self) -> bool {
        self.cluster
    }

    pub(super) fn world(&self) -> World {
        let mut world = World::default();
        world.behaviours.clone_from(&self.versions);
        let paths = (
            RepoPath::new("apps/podinfo/app.yaml"),
            RepoPath::new("apps/podinfo").and_then(|p| p.join(&files::folder_name("podinfo"))),
        );
        if let (Some(manifest), Some(folder)) = paths {
            let service = Service {
                namespace: "test".to_owned(),
                folder,
                requests: self.requests,
                workloads: Workloads::Managed("podinfo".to_owned(), manifest),
            };
            world
                .services
                .insert(CanaryId::new("test", "podinfo"), service);
        }
        world
            .services
            .extend(self.services.iter().filter_map(ServiceSpec::service));
        world.now = self.start;
        world
    }

    pub(super) fn number_of_events(&self) -> usize {
        self.events.len()
    }

    /// Whether an event belongs to the calm at the end of a schedule, which makes its expectations fair.
    pub(super) fn is_calm(&self, index: usize) -> bool {
        self.events
            .get(index)
            .is_some_and(|event| event.who.as_deref() == Some("dana"))
    }

    /// The same without one of its events.
    pub(super) fn without(&self, index: usize) -> Self {
        let mut shorter = self.clone();
        if index < shorter.events.len() {
            shorter.events.remove(index);
        }
        shorter
    }

    /// Its events, one line each.
    pub(super) fn described(&self) -> Vec<String> {
        let mut events: Vec<EventSpec> = self.events.clone();
        events.sort_by_key(|event| offset(&event.at));
        let events = events.into_iter().filter_map(|event| event.event().ok());
        events
            .map(|event| {
                let text = format!("{}s {:?}", event.after.num_seconds(), event.act);
                text.chars().take(LONGEST_EVENT).collect()
            })
            .collect()
    }

    /// The first commit, then the events in time.
    pub(super) fn events(&self) -> Vec<Event> {
        let mut write: BTreeMap<String, String> = BASE
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect();
        write.extend(self.files.clone());
        for replace in &self.replace {
            if let Some(text) = write.get_mut(&replace.file) {
                *text = text.replace(&replace.from, &replace.to);
            }
        }
        write.retain(|_, text| !text.is_empty());
        let first = PersonsChange {
            who: "dana".to_owned(),
            says: "Add podinfo".to_owned(),
            write,
            ..PersonsChange::default()
        };
        let first = Event {
            after: chrono::Duration::zero(),
            act: Act::Commit(first),
        };
        let mut events: Vec<Event> = std::iter::once(first)
            .chain(
                self.events
                    .iter()
                    .filter_map(|event| event.clone().event().ok()),
            )
            .collect();
        events.sort_by_key(|event| event.after);
        events
    }
}

impl ServiceSpec {
    fn service(&self) -> Option<(CanaryId, Service)> {
        let id: CanaryId = self.canary.parse().ok()?;
        let deployments = self.deployments.iter();
        let versions = deployments
            .map(|(name, file)| Some((name.clone(), RepoPath::new(file.as_str())?)))
            .collect::<Option<_>>()?;
        let service = Service {
            namespace: id.namespace.clone(),
            folder: RepoPath::new(self.folder.as_str())?,
            requests: self.requests,
            workloads: Workloads::BringYourOwn(versions),
        };
        Some((id, service))
    }
}

impl EventSpec {
    fn event(self) -> Result<Event, String> {
        let after = offset(&self.at)
            .ok_or_else(|| format!("`at` is `{}`: write a duration like 90s", self.at))?;
        Ok(Event {
            after,
            act: self.act()?,
        })
    }

    fn act(self) -> Result<Act, String> {
        let path = |text: &str| {
            RepoPath::new(text).ok_or_else(|| format!("`{text}` is no path of the repository"))
        };
        if let Some(subject) = self.revert {
            return Ok(Act::Revert {
                who: person(self.who.as_deref().unwrap_or("alexis")),
                subject,
            });
        }
        if let Some(folder) = self.restore {
            return Ok(Act::Restore {
                who: person(self.who.as_deref().unwrap_or("alexis")),
                folder: path(&folder)?,
            });
        }
        if let Some(who) = self.who {
            let says = self.says.unwrap_or_else(|| "Edit".to_owned());
            let change = PersonsChange {
                who,
                says,
                replace: self.replace,
                write: self.write,
                delete: self.delete,
                unsigned: self.unsigned,
            };
            return Ok(if self.race {
                Act::Race(change)
            } else {
                Act::Commit(change)
            });
        }
        if let Some(count) = self.rewind {
            return Ok(Act::Rewind(count));
        }
        if let Some(mood) = self.prometheus {
            return Ok(Act::Prometheus(mood));
        }
        if let Some(line) = self.remote {
            return Ok(Act::Down(line == Line::Down));
        }
        if let Some(words) = self.refuse {
            return Ok(Act::Refuse(Some(words).filter(|words| !words.is_empty())));
        }
        let engine = self.engine.unwrap_or(1).saturating_sub(1);
        if let Some(point) = self.crash {
            return Ok(Act::Crash(engine, point));
        }
        if self.overtake {
            return Ok(Act::Overtake(engine));
        }
        if let Some(lost) = self.lose {
            return Ok(Act::Lose(lost));
        }
        if let Some(mood) = self.kubernetes {
            return Ok(Act::Kubernetes(mood));
        }
        if self.reset_counters {
            return Ok(Act::ResetCounters);
        }
        if let Some(replicas) = self.scale_stable {
            return Ok(Act::ScaleStable(replicas));
        }
        if let Some(by) = self.clock {
            return offset(&by)
                .map(|by| Act::Skew(engine, by))
                .ok_or_else(|| format!("`clock` is `{by}`: write 90s or -1h"));
        }
        if let Some(edit) = self.edit_cluster {
            return Ok(Act::EditCluster {
                path: path(&edit.file)?,
                from: edit.from,
                to: edit.to,
            });
        }
        if self.delete_namespace {
            return Ok(Act::DeleteNamespace);
        }
        Err("nothing happens: give `who`, `revert`, `prometheus`, `remote`, `crash`, …".to_owned())
    }
}

impl PersonsChange {
    /// The change on this tree; `None` when it changes nothing.
    pub(super) fn resolve(&self, tree: &Tree) -> Option<Change> {
        let mut files: Contents = BTreeMap::new();
        for (path, text) in &self.write {
            files.insert(RepoPath::new(path.as_str())?, Some(text.as_bytes().into()));
        }
        for replace in &self.replace {
            let path = RepoPath::new(replace.file.as_str())?;
            let present = match files.get(&path) {
                Some(content) => content.clone()?,
                None => Arc::clone(&tree.get(&path)?.content),
            };
            let text = std::str::from_utf8(&present).ok()?;
            if text.contains(&replace.from) {
                files.insert(
                    path,
                    Some(text.replace(&replace.from, &replace.to).into_bytes().into()),
                );
            }
        }
        for path in &self.delete {
            let folder = RepoPath::new(path.as_str())?;
            let gone = tree
                .keys()
                .filter(|path| path.is_within(&folder))
                .map(|path| (path.clone(), None));
            files.extend(gone);
        }
        files.retain(|path, content| tree.get(path).map(|file| &file.content) != content.as_ref());
        if files.is_empty() {
            return None;
        }
        Some(Change {
            author: person(&self.who),
            message: format!("{}\n", self.says),
            files,
            unsigned: self.unsigned,
        })
    }
}

pub(super) fn person(name: &str) -> Person {
    Person {
        name: name.to_owned(),
        email: format!("{}@example.com", name.to_lowercase()),
    }
}

fn offset(text: &str) -> Option<chrono::Duration> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let length = chrono::Duration::from_std(duration::read(rest)?).ok()?;
    Some(length * sign)
}

fn default_start() -> Timestamp {
    // A Monday morning; any fixed instant would do.
    chrono::DateTime::from_timestamp(1_767_603_600, 0).unwrap_or_default()
}

fn default_requests() -> f64 {
    100.0
}

fn one() -> usize {
    1
}
