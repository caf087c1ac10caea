//! A mesh in memory: it routes by the manifests that it was given and counts requests as Istio's sidecars do.
//!
//! It knows the truth about every version, which the checkers compare with what the engine did.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::cluster::{ClusterMood, Held};
use super::coverage::Coverage;
use super::lifeline::{CrashPoint, Life};
use super::metrics::PrometheusMood;
use super::remote::Tree;
use crate::domain::{BlobId, CanaryId, RepoPath, Timestamp, canary_deployment, files};
use crate::yaml::memory;

/// How a version behaves; the first whose text occurs in the version's manifest counts.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Behaviour {
    /// Part of the manifest that runs: an image, a label value.
    pub contains: String,
    /// Share of requests that succeed, in per cent.
    pub success: f64,
}

/// One canary's part of the mesh.
#[derive(Debug, Clone)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Folder of the generated files.
    pub folder: RepoPath,
    /// Requests a second.
    pub requests: f64,
    /// What runs behind it.
    pub workloads: Workloads,
}

/// What runs behind a service.
#[derive(Debug, Clone)]
pub enum Workloads {
    /// Stable's Deployment with the file of its manifest; the candidate's is generated.
    Managed(String, RepoPath),
    /// Deployments with the files of their manifests; the subsets of the `DestinationRule` choose between them.
    BringYourOwn(Vec<(String, RepoPath)>),
}

/// The state of the mesh.
#[derive(Debug, Default)]
pub struct World {
    /// True time.
    pub now: Timestamp,
    /// The services, by canary.
    pub services: BTreeMap<CanaryId, Service>,
    /// How versions behave.
    pub behaviours: Vec<Behaviour>,
    /// How Prometheus answers.
    pub mood: PrometheusMood,
    /// When Prometheus scraped last, while its targets cannot be scraped.
    pub frozen: Option<Timestamp>,
    /// How the cluster answers.
    pub cluster: ClusterMood,
    /// What the cluster holds of each canary; used with a simulated cluster only.
    pub objects: BTreeMap<CanaryId, Held>,
    /// Replicas that stable is asked to have by somebody else than Git.
    pub stable_replicas: Option<u32>,
    /// Changes of the cluster so far.
    pub changes: u64,
    /// How often Prometheus was asked.
    pub queries: usize,
    /// When it gave a usable answer about a canary.
    pub answered: BTreeMap<CanaryId, Vec<Timestamp>>,
    /// What happened.
    pub seen: Coverage,
    /// Whether Prometheus ever gave figures that no counter can have.
    pub absurd: bool,
    pub(super) counters: BTreeMap<CounterKey, Counter>,
    flows: BTreeMap<CanaryId, Flows>,
}

/// Where the requests of a canary go, and what that was worked out from.
#[derive(Debug)]
struct Flows {
    tree: Tree,
    blobs: Vec<Option<BlobId>>,
    /// Of what the cluster holds.
    version: Option<u64>,
    flows: Vec<Flow>,
}

/// A canary, a workload, and whether the requests failed.
pub(super) type CounterKey = (CanaryId, String, bool);

/// Requests of one version.
#[derive(Debug, Clone)]
struct Flow {
    /// Of the counters of requests that did well, and of those that failed.
    keys: [CounterKey; 2],
    share: f64,
    success: f64,
}

/// A cumulative counter with its past.
#[derive(Debug, Clone, Default)]
pub(super) struct Counter {
    exact: f64,
    past: Vec<(Timestamp, u64)>,
}

/// Samples kept per counter: a day at one sample each 15 s.
const MAX_PAST: usize = 5_760;
/// How far back Prometheus looks for the last sample, in seconds.
const LOOKBACK: i64 = 300;

impl World {
    /// Lets `seconds` of traffic flow until `now`, routed by `tree`, or by the cluster where there is one.
    pub(super) fn flow(&mut self, tree: &Tree, now: Timestamp, seconds: f64) {
        self.now = now;
        let ids: Vec<CanaryId> = self.services.keys().cloned().collect();
        for id in ids {
            self.route(&id, tree);
            let requests = self.services.get(&id).map_or(0.0, |s| s.requests) * seconds;
            let Some(known) = self.flows.get(&id) else {
                continue;
            };
            for flow in &known.flows {
                for (part, key) in [flow.success, 1.0 - flow.success]
                    .into_iter()
                    .zip(&flow.keys)
                {
                    let amount = requests * flow.share * part;
                    match self.counters.get_mut(key) {
                        Some(counter) => counter.add(amount, now),
                        None => self
                            .counters
                            .entry(key.clone())
                            .or_default()
                            .add(amount, now),
                    }
                }
            }
        }
    }

    /// The time by which objects are dated; a world without traffic of its own goes by the engine's clock.
    pub(super) fn true_time(&self, told: Timestamp) -> Timestamp {
        if self.services.is_empty() {
            told
        } else {
            self.now
        }
    }

    /// Restarts every process: counters start from zero.
    pub fn reset_counters(&mut self) {
        for counter in self.counters.values_mut() {
            counter.exact = 0.0;
        }
    }

    /// Whether Prometheus gave a usable answer about this canary behind `from`, and not behind `to`.
    pub(super) fn answered_between(&self, id: &CanaryId, from: Timestamp, to: Timestamp) -> bool {
        self.answered
            .get(id)
            .is_some_and(|times| times.iter().any(|at| *at >= from && *at <= to))
    }

    /// Share of requests that a version with this manifest answers well.
    pub(super) fn success(&self, manifest: &str) -> f64 {
        self.behaviours
            .iter()
            .find(|behaviour| manifest.contains(&behaviour.contains))
            .map_or(1.0, |behaviour| behaviour.success / 100.0)
    }

    /// Works out where the requests of a canary go, unless nothing changed.
    fn route(&mut self, id: &CanaryId, tree: &Tree) {
        let Some(service) = self.services.get(id) else {
            return;
        };
        let held = self.objects.get(id);
        let version = held.map(|held| held.version);
        let known = self.flows.get_mut(id);
        let known = known.filter(|known| known.version == version);
        if known
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(&known.tree, tree))
        {
            return;
        }
        let own = [
            files::VIRTUAL_SERVICE,
            files::DESTINATION_RULE,
            files::DEPLOYMENT,
        ];
        let own = own.iter().filter_map(|name| service.folder.join(name));
        let paths: Vec<RepoPath> = own.chain(service.manifests().cloned()).collect();
        let blobs: Vec<Option<BlobId>> = paths
            .iter()
            .map(|path| tree.get(path).map(|file| file.blob.clone()))
            .collect();
        if let Some(known) = known.filter(|known| known.blobs == blobs) {
            known.tree = Arc::clone(tree);
            return;
        }
        let text = |path: &RepoPath| -> Option<String> {
            let bytes: &[u8] = match held.filter(|_| path.is_within(&service.folder)) {
                Some(held) => held.files.get(path)?,
                None => &tree.get(path)?.content,
            };
            Some(super::text_of(bytes).into_owned())
        };
        let flows = flows(id, service, &text, |manifest| self.success(manifest));
        let flows = Flows {
            tree: Arc::clone(tree),
            blobs,
            version,
            flows,
        };
        self.flows.insert(id.clone(), flows);
    }
}

impl Service {
    fn manifests(&self) -> impl Iterator<Item = &RepoPath> {
        let (one, many) = match &self.workloads {
            Workloads::Managed(_, file) => (Some(file), &[][..]),
            Workloads::BringYourOwn(versions) => (None, versions.as_slice()),
        };
        one.into_iter().chain(many.iter().map(|(_, file)| file))
    }

    /// Every workload whose requests are counted.
    pub(super) fn names(&self) -> BTreeSet<String> {
        match &self.workloads {
            Workloads::Managed(name, _) => BTreeSet::from([name.clone(), canary_deployment(name)]),
            Workloads::BringYourOwn(versions) => {
                versions.iter().map(|(name, _)| name.clone()).collect()
            }
        }
    }
}

fn flows(
    id: &CanaryId,
    service: &Service,
    text: &dyn Fn(&RepoPath) -> Option<String>,
    success: impl Fn(&str) -> f64,
) -> Vec<Flow> {
    let own = |name: &str| text(&service.folder.join(name)?);
    let share = own(files::VIRTUAL_SERVICE).map_or(0.0, |text| candidate_share(&text)) / 100.0;
    let flow = |workload: &str, share: f64, manifest: &str| Flow {
        keys: [false, true].map(|failed| (id.clone(), workload.to_owned(), failed)),
        share,
        success: success(manifest),
    };
    match &service.workloads {
        Workloads::Managed(name, file) => vec![
            flow(name, 1.0 - share, &text(file).unwrap_or_default()),
            flow(
                &canary_deployment(name),
                share,
                &own(files::DEPLOYMENT).unwrap_or_default(),
            ),
        ],
        Workloads::BringYourOwn(versions) => {
            let rule = own(files::DESTINATION_RULE).unwrap_or_default();
            let rule = memory::read(rule.as_bytes());
            [("stable", 1.0 - share), ("canary", share)]
                .into_iter()
                .filter_map(|(subset, share)| {
                    let labels = labels(rule.first(), subset)?;
                    let (name, manifest) = versions
                        .iter()
                        .filter_map(|(name, file)| Some((name, text(file)?)))
                        .find(|(_, text)| labels.iter().all(|label| text.contains(label)))?;
                    Some(flow(name, share, &manifest))
                })
                .collect()
        }
    }
}

/// Lines as in a pod template for the labels of a subset.
fn labels(rule: &Value, subset: &str) -> Option<Vec<String>> {
    let subsets = rule["spec"]["subsets"].as_array()?;
    let subset = subsets.iter().find(|entry| entry["name"] == subset)?;
    let labels = subset["labels"].as_object()?;
    let line = |(key, value): (&String, &Value)| Some(format!("{key}: {}", value.as_str()?));
    labels.iter().map(line).collect()
}

/// Per cent of ordinary requests that this VirtualService sends to the candidate.
fn candidate_share(text: &str) -> f64 {
    let object = memory::read(text.as_bytes());
    let last_route = object.first()["spec"]["http"]
        .as_array()
        .and_then(|routes| routes.last());
    let destinations = last_route.and_then(|route| route["route"].as_array());
    destinations
        .into_iter()
        .flatten()
        .filter(|destination| destination["destination"]["subset"] == "canary")
        .map(|destination| destination["weight"].as_f64().unwrap_or(100.0))
        .sum()
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

    /// The value that Prometheus gives for this instant.
    pub(super) fn at(&self, at: Timestamp, frozen: Option<Timestamp>) -> Option<f64> {
        let scraped = frozen.map_or(at, |frozen| at.min(frozen));
        let index = self
            .past
            .partition_point(|(when, _)| *when <= scraped)
            .checked_sub(1)?;
        let (when, count) = self.past.get(index)?;
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        ((at - *when).num_seconds() < LOOKBACK).then_some(*count as f64)
    }
}

/// A handle to the world: the `Metrics` port, and the `Cluster` port when there is one.
#[derive(Debug, Clone)]
pub struct Mesh {
    world: Arc<Mutex<World>>,
    life: Life,
    pub(super) has_cluster: bool,
    /// Changes of the cluster when this handle looked at a canary last.
    pub(super) seen: BTreeMap<CanaryId, u64>,
}

impl Mesh {
    /// A handle of one engine; without a cluster the mesh routes by HEAD.
    pub fn new(world: Arc<Mutex<World>>, life: Life, has_cluster: bool) -> Self {
        Self {
            world,
            life,
            has_cluster,
            seen: BTreeMap::new(),
        }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn passes(&self, point: CrashPoint) -> bool {
        let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        life.passes(point)
    }
}
