//! A mesh in memory: it routes by the manifests that it was given, counts requests as Istio's sidecars do, and answers
//! queries from those counts. Also the `Cluster` port: objects that can be deleted and edited by hand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::analysis::{Answer, AskError, Purpose, Query, Series};
use crate::domain::{CanaryId, RepoPath, Timestamp, canary_deployment, files};
use crate::manifests::{Applied, Committed, Manifests};
use crate::ports::{ApplyError, Cluster, Metrics, Sighting, Tree, Wanted};
use crate::progression::Readiness;
use crate::yaml::node;

/// How a version behaves; the first whose text occurs in the version's manifest counts.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Behaviour {
    /// Part of the manifest that runs: an image, a label value.
    pub contains: String,
    /// Share of requests that succeed, in per cent.
    pub success: f64,
}

/// How Prometheus answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrometheusMood {
    /// With what it counted.
    #[default]
    Up,
    /// Not at all.
    Down,
    /// With nothing.
    Empty,
    /// With NaN.
    Nan,
    /// With warnings.
    Partial,
}

/// One canary's part of the mesh.
#[derive(Debug, Clone)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Stable's Deployment, the `destination_workload` of its requests.
    pub stable: String,
    /// The candidate's.
    pub candidate: String,
    /// File with stable's manifest.
    pub manifest: RepoPath,
    /// Folder of the generated files.
    pub folder: RepoPath,
    /// Requests a second.
    pub requests: f64,
}

impl Service {
    /// A managed workload called `deployment`.
    pub fn managed(
        namespace: &str,
        deployment: &str,
        manifest: RepoPath,
        folder: RepoPath,
        requests: f64,
    ) -> Self {
        Self {
            namespace: namespace.to_owned(),
            stable: deployment.to_owned(),
            candidate: canary_deployment(deployment),
            manifest,
            folder,
            requests,
        }
    }
}

/// The state of the mesh.
#[derive(Debug, Default)]
pub struct World {
    /// The services, by canary.
    pub services: BTreeMap<CanaryId, Service>,
    /// How versions behave.
    pub behaviours: Vec<Behaviour>,
    /// How Prometheus answers.
    pub mood: PrometheusMood,
    /// What the cluster holds of each canary; used with a simulated cluster only.
    pub objects: BTreeMap<CanaryId, Held>,
    /// How often Prometheus was asked.
    pub queries: usize,
    counters: BTreeMap<(CanaryId, bool, bool), Counter>,
}

/// What the cluster holds of one canary.
#[derive(Debug, Clone)]
pub struct Held {
    /// Content by path.
    pub files: BTreeMap<RepoPath, Vec<u8>>,
    /// Since when.
    pub since: Timestamp,
}

/// A cumulative counter with its past.
#[derive(Debug, Clone, Default)]
struct Counter {
    exact: f64,
    past: Vec<(Timestamp, u64)>,
}

/// Samples kept per counter: a day at one sample each 15 s.
const MAX_PAST: usize = 5_760;

impl World {
    /// Lets `seconds` of traffic flow until `now`, routed by `tree`.
    pub fn flow(&mut self, tree: &BTreeMap<RepoPath, Vec<u8>>, now: Timestamp, seconds: f64) {
        for (id, service) in self.services.clone() {
            let routed: &BTreeMap<RepoPath, Vec<u8>> =
                self.objects.get(&id).map_or(tree, |held| &held.files);
            let share = candidate_share(routed, &service.folder) / 100.0;
            let text = |path: Option<RepoPath>, files: &BTreeMap<RepoPath, Vec<u8>>| {
                path.and_then(|path| files.get(&path))
                    .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            };
            let stable = text(Some(service.manifest.clone()), tree).unwrap_or_default();
            let candidate = text(service.folder.join(files::DEPLOYMENT), routed)
                .or_else(|| text(service.folder.join(files::DESTINATION_RULE), routed))
                .unwrap_or_default();
            for (is_candidate, share, manifest) in
                [(false, 1.0 - share, stable), (true, share, candidate)]
            {
                let requests = service.requests * seconds * share;
                let success = self.success(&manifest);
                for (failed, part) in [(false, success), (true, 1.0 - success)] {
                    let counter = self
                        .counters
                        .entry((id.clone(), is_candidate, failed))
                        .or_default();
                    counter.add(requests * part, now);
                }
            }
        }
    }

    fn success(&self, manifest: &str) -> f64 {
        let behaviour = self
            .behaviours
            .iter()
            .find(|behaviour| manifest.contains(&behaviour.contains));
        behaviour.map_or(1.0, |behaviour| behaviour.success / 100.0)
    }

    fn answer(&self, query: &Query) -> Answer {
        match self.mood {
            PrometheusMood::Down => {
                return Answer::Failed(AskError::Unreachable("connection refused".to_owned()));
            }
            PrometheusMood::Partial => {
                return Answer::Failed(AskError::Partial("a store did not answer".to_owned()));
            }
            PrometheusMood::Empty => return Answer::Series(Vec::new()),
            PrometheusMood::Up | PrometheusMood::Nan => {}
        }
        let Purpose::Requests(asked) = &query.purpose else {
            return Answer::Series(Vec::new());
        };
        let times: Vec<Timestamp> = match query.range {
            None => vec![query.at],
            Some((start, step)) => {
                let step =
                    chrono::Duration::from_std(step).unwrap_or(chrono::Duration::seconds(15));
                std::iter::successors(Some(start), |at| Some(*at + step))
                    .take_while(|at| *at <= query.at)
                    .collect()
            }
        };
        let series = self
            .counters
            .iter()
            .filter(|((id, ..), _)| asked.contains(id))
            .filter_map(|((id, is_candidate, failed), counter)| {
                let service = self.services.get(id)?;
                let workload = if *is_candidate {
                    &service.candidate
                } else {
                    &service.stable
                };
                let code = if *failed { "500" } else { "200" };
                let labels = [
                    ("destination_workload_namespace", service.namespace.as_str()),
                    ("destination_workload", workload),
                    ("pod", workload),
                    ("response_code", code),
                    ("response_flags", "-"),
                    ("reporter", "destination"),
                ];
                let labels = labels
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect();
                let samples: Vec<(Timestamp, f64)> = times
                    .iter()
                    .filter_map(|at| Some((*at, counter.at(*at)?)))
                    .map(|(at, value)| {
                        (
                            at,
                            if self.mood == PrometheusMood::Nan {
                                f64::NAN
                            } else {
                                value
                            },
                        )
                    })
                    .collect();
                (!samples.is_empty()).then_some(Series { labels, samples })
            });
        Answer::Series(series.collect())
    }
}

impl Counter {
    fn add(&mut self, amount: f64, now: Timestamp) {
        self.exact += amount;
        if self.exact < 1.0 && self.past.is_empty() {
            return; // Istio shows no series before its first request.
        }
        // Counts are positive and far below 2^52, so the conversion is exact.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole, positive, small"
        )]
        let whole = (self.exact + 1e-6).floor() as u64;
        self.past.push((now, whole));
        if self.past.len() > MAX_PAST {
            self.past.drain(..MAX_PAST / 2);
        }
    }

    fn at(&self, at: Timestamp) -> Option<f64> {
        let index = self
            .past
            .partition_point(|(when, _)| *when <= at)
            .checked_sub(1)?;
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        self.past.get(index).map(|(_, count)| *count as f64)
    }
}

/// Per cent of ordinary requests that the VirtualService in these files sends to the candidate.
fn candidate_share(files: &BTreeMap<RepoPath, Vec<u8>>, folder: &RepoPath) -> f64 {
    let routes = folder
        .join(files::VIRTUAL_SERVICE)
        .and_then(|path| files.get(&path))
        .and_then(|bytes| node::parse(bytes).documents.into_iter().next())
        .map(|document| document.root.to_json());
    let Some(object) = routes else {
        return 0.0;
    };
    let last_route = object["spec"]["http"]
        .as_array()
        .and_then(|routes| routes.last())
        .cloned()
        .unwrap_or(Value::Null);
    let destinations = last_route["route"].as_array().cloned().unwrap_or_default();
    destinations
        .iter()
        .filter(|destination| destination["destination"]["subset"] == "canary")
        .filter_map(|destination| destination["weight"].as_f64())
        .sum()
}

/// A handle to the world: the `Metrics` port, and the `Cluster` port when there is one.
#[derive(Debug, Clone)]
pub struct Mesh {
    world: Arc<Mutex<World>>,
    has_cluster: bool,
}

impl Mesh {
    /// A handle; without a cluster the mesh routes by HEAD.
    pub fn new(world: Arc<Mutex<World>>, has_cluster: bool) -> Self {
        Self { world, has_cluster }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metrics for Mesh {
    async fn ask(&self, queries: &[Query]) -> Vec<Answer> {
        let mut world = self.world();
        world.queries += queries.len();
        queries.iter().map(|query| world.answer(query)).collect()
    }
}

impl Cluster for Mesh {
    async fn follow(&mut self, _tree: Tree, _now: Timestamp) {}

    async fn observe(
        &mut self,
        wanted: &[Wanted<'_>],
        _now: Timestamp,
    ) -> Option<BTreeMap<CanaryId, Sighting>> {
        if !self.has_cluster {
            return None;
        }
        let world = self.world();
        let sightings = wanted.iter().map(|wanted| {
            let manifests = wanted.manifests;
            let held = world.objects.get(&manifests.canary);
            let same = held.is_some_and(|held| held.files == existing(&manifests.files));
            let sighting = Sighting {
                in_sync_since: held.filter(|_| same).map(|held| held.since),
                drift: match held {
                    None => Some("the objects are gone".to_owned()),
                    Some(_) if !same => Some("the objects differ from Git".to_owned()),
                    Some(_) => None,
                },
                stable: Readiness::Ready,
                candidate: Readiness::Ready,
                stable_replicas: None,
            };
            (manifests.canary.clone(), sighting)
        });
        Some(sightings.collect())
    }

    async fn apply(
        &mut self,
        manifests: Vec<Manifests<Committed>>,
        now: Timestamp,
    ) -> BTreeMap<CanaryId, Result<Manifests<Applied>, ApplyError>> {
        let mut world = self.world();
        let applied = manifests.into_iter().map(|manifests| {
            let held = Held {
                files: existing(&manifests.files),
                since: now,
            };
            let id = manifests.canary.clone();
            world.objects.insert(id.clone(), held);
            (id, Ok(manifests.applied()))
        });
        applied.collect()
    }
}

fn existing(files: &BTreeMap<RepoPath, Option<Vec<u8>>>) -> BTreeMap<RepoPath, Vec<u8>> {
    // The state file stays in Git; it is no object.
    files
        .iter()
        .filter(|(path, _)| path.file_name() != files::ROLLOUT)
        .filter_map(|(path, content)| Some((path.clone(), content.clone()?)))
        .collect()
}
