//! The port: hands trees to the keeper, and answers from what it knows. No call to the server is made here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::connect::{self, ConnectError, Settings};
use super::keeper::{Keeper, Shared};
use super::poke::{self, Agent};
use crate::applier::Ledger;
use crate::clock::Clock;
use crate::domain::{CanaryId, CommitId, Timestamp, canary_deployment, files};
use crate::manifests::{Applied, Committed, Manifests};
use crate::ports::{ApplyError, Cluster, Sighting, Tree, Wanted, Witness};
use crate::progression::Readiness;
use crate::spec::{ValidatedCanary, Workload};

/// How long a pass waits for the cluster to take what was pushed. What takes longer is seen by the next pass.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest time that a pass waits to hear whether the mesh finds pods: usually it hears within milliseconds.
const MOMENT: Duration = Duration::from_millis(500);

/// A Kubernetes API that a keeper task keeps equal to one branch. The task ends when this is dropped.
pub struct Kubernetes {
    shared: Arc<Shared>,
    trees: watch::Sender<Tree>,
    followed: Option<CommitId>,
    external: bool,
    /// Whom to tell of new commits, and how.
    agents: Arc<Vec<Agent>>,
    client: kube::Client,
    deadline: Duration,
    /// Calls to agents that are under way; the newest commit is what counts.
    poking: Option<JoinHandle<()>>,
}

impl Kubernetes {
    /// Sets up the connection and starts the keeper. Needs a runtime, asks the server nothing yet.
    pub async fn connect<K: Clock + 'static>(
        settings: Settings,
        clock: K,
        witness: Arc<dyn Witness>,
    ) -> Result<Self, ConnectError> {
        let client = connect::client(&settings).await?;
        // Agents are told by Serin itself, whomever the repository is applied as.
        let own = connect::client_of(&settings.access, settings.deadline).await?;
        let shared = Arc::new(Shared::new(Ledger::new(settings.policy.clone())));
        let (trees, receiver) = watch::channel(Tree::default());
        let external = settings.policy.external;
        let (agents, deadline) = (Arc::new(settings.agents.clone()), settings.deadline);
        let keeper = Keeper::new(settings, client, clock, Arc::clone(&shared), witness);
        tokio::spawn(keeper.run(receiver));
        Ok(Self {
            shared,
            trees,
            followed: None,
            external,
            agents,
            client: own,
            deadline,
            poking: None,
        })
    }

    /// Tells the agents of a commit. Nothing waits for it: they would find the commit anyhow.
    fn poke(&mut self, commit: CommitId, now: Timestamp) {
        if self.agents.is_empty() {
            return;
        }
        if let Some(before) = self.poking.take() {
            before.abort();
        }
        let (agents, client) = (Arc::clone(&self.agents), self.client.clone());
        let deadline = self.deadline;
        self.poking = Some(tokio::spawn(async move {
            for agent in agents.iter() {
                let told = poke::poke(client.clone(), agent, &commit, now, deadline).await;
                if let Err(words) = told {
                    tracing::warn!(
                        agent = agent.words(),
                        "not told of a new commit, it will poll: {words}"
                    );
                }
            }
        }));
    }

    /// Told when the cluster shows something that a pass over the branch may act on.
    pub fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.wake)
    }

    /// Whether objects are being written: whatever can wait lets them go first.
    pub fn writing(&self) -> watch::Receiver<bool> {
        self.shared.writing.subscribe()
    }

    /// Whether the keeper works on the newest tree.
    fn is_current(&self, ledger: &Ledger) -> bool {
        self.followed.is_some() && ledger.commit() == self.followed.as_ref()
    }

    /// Whether what it knows can be relied on.
    fn has_looked(&self, ledger: &Ledger) -> bool {
        self.is_current(ledger) && ledger.has_looked()
    }

    /// What is known of these canaries, and whether an answer about one of them is on its way.
    fn sightings(
        &self,
        shared: &Shared,
        wanted: &[Wanted<'_>],
    ) -> (BTreeMap<CanaryId, Sighting>, bool) {
        let mut ledger = shared.ledger();
        let sightings = wanted.iter().map(|wanted| {
            let sighting = self.sighting(&mut ledger, wanted);
            (wanted.manifests.canary.clone(), sighting)
        });
        let sightings = sightings.collect();
        ledger.end_of_round();
        (sightings, ledger.asks_for_endpoints())
    }

    fn sighting(&self, ledger: &mut Ledger, wanted: &Wanted<'_>) -> Sighting {
        let id = &wanted.manifests.canary;
        let (stable, candidate) = match wanted.canary {
            Some(canary) => workloads(canary, wanted.manifests),
            None => (Vec::new(), Vec::new()),
        };
        let service = wanted.canary.map(|canary| canary.route.service.as_str());
        let receivers = wanted.receivers;
        let of_stable = service.filter(|_| receivers.stable);
        let of_candidate = service.filter(|_| receivers.candidate);
        let (stable, stable_replicas) = readiness(ledger, &id.namespace, &stable, of_stable);
        let (candidate, _) = readiness(ledger, &id.namespace, &candidate, of_candidate);
        let view = ledger.view(id);
        let is_current = self.is_current(ledger);
        Sighting {
            in_sync_since: view.in_sync_since.filter(|_| is_current),
            drift: view.drift.filter(|_| is_current),
            stable,
            candidate,
            stable_replicas,
        }
    }
}

/// Names of the Deployments of stable and candidate.
fn workloads(
    canary: &ValidatedCanary,
    manifests: &Manifests<Committed>,
) -> (Vec<String>, Vec<String>) {
    match &canary.workload {
        Workload::Managed(managed) => {
            // Without its file the candidate does not exist, and nobody waits for it.
            let exists = manifests
                .files
                .iter()
                .any(|(path, content)| path.file_name() == files::DEPLOYMENT && content.is_some());
            let candidate = exists.then(|| canary_deployment(&managed.deployment));
            (
                vec![managed.deployment.clone()],
                candidate.into_iter().collect(),
            )
        }
        Workload::BringYourOwn(two) => (
            two.stable_deployments.clone(),
            two.candidate_deployments.clone(),
        ),
    }
}

/// All of them are ready, or why the first is not; and the replicas of all together.
fn readiness(
    ledger: &mut Ledger,
    namespace: &str,
    names: &[String],
    service: Option<&str>,
) -> (Readiness, Option<u32>) {
    let mut replicas: Option<u32> = None;
    let mut found = Readiness::Unknown;
    for name in names {
        let (readiness, asked) = ledger.workload(namespace, name, service);
        if let Some(asked) = asked {
            replicas = Some(replicas.unwrap_or(0).saturating_add(asked));
        }
        if found.is_ready() {
            found = readiness;
        }
    }
    if names.is_empty() {
        found = Readiness::NotReady("its Deployment is not in Git yet".to_owned());
    }
    (found, replicas)
}

impl Cluster for Kubernetes {
    #[tracing::instrument(name = "cluster.follow", level = "debug", skip_all)]
    async fn follow(&mut self, tree: Tree, now: Timestamp) {
        let is_known = {
            let held = self.trees.borrow();
            tree.commit.is_some() && held.commit == tree.commit && held.held_back == tree.held_back
        };
        if is_known {
            let mut ledger = self.shared.ledger();
            if self.is_current(&ledger) {
                ledger.confirm(now);
                self.shared.nudge.notify_one();
            }
            return;
        }
        if let Some(commit) = tree.commit.clone().filter(|_| self.followed != tree.commit) {
            self.poke(commit, now);
        }
        self.followed.clone_from(&tree.commit);
        self.trees.send_replace(tree);
    }

    #[tracing::instrument(name = "cluster.observe", level = "debug", skip_all)]
    async fn observe(
        &mut self,
        wanted: &[Wanted<'_>],
        _now: Timestamp,
    ) -> Option<BTreeMap<CanaryId, Sighting>> {
        let shared = Arc::clone(&self.shared);
        // A tree that was handed over just now is read in a moment, and after a start the watches tell in a moment what
        // there is; a pass that did not wait would see nothing.
        let mut changed = shared.changed.subscribe();
        let caught_up = async {
            while !self.has_looked(&shared.ledger()) && changed.changed().await.is_ok() {}
        };
        timeout(PATIENCE, caught_up).await.ok();
        let (sightings, asks) = self.sightings(&shared, wanted);
        if !asks {
            return Some(sightings);
        }
        shared.nudge.notify_one();
        let answered = async {
            while shared.ledger().asks_for_endpoints() && changed.changed().await.is_ok() {}
        };
        timeout(MOMENT, answered).await.ok();
        Some(self.sightings(&shared, wanted).0)
    }

    #[tracing::instrument(name = "cluster.apply", level = "debug", skip_all)]
    async fn apply(
        &mut self,
        manifests: Vec<Manifests<Committed>>,
        _now: Timestamp,
    ) -> BTreeMap<CanaryId, Result<Manifests<Applied>, ApplyError>> {
        if self.external {
            // Somebody else does it, and `observe` says when they did.
            return BTreeMap::new();
        }
        let shared = Arc::clone(&self.shared);
        let mut changed = shared.changed.subscribe();
        // Most are asked once: with thousands of them each write is news, and one that was settled hardly comes loose again.
        let mut open: Vec<&CanaryId> = manifests.iter().map(|m| &m.canary).collect();
        let settled = async {
            loop {
                {
                    let ledger = shared.ledger();
                    if self.is_current(&ledger) {
                        while open.pop_if(|id| ledger.view(id).is_settled).is_some() {}
                        if open.is_empty() {
                            return;
                        }
                    }
                }
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        timeout(PATIENCE, settled).await.ok();
        let ledger = shared.ledger();
        let results = manifests.into_iter().filter_map(|manifests| {
            let id = manifests.canary.clone();
            let view = ledger.view(&id);
            match (view.refused, view.in_sync_since) {
                (Some((object, words)), _) => {
                    let object = object.to_string();
                    Some((id, Err(ApplyError { object, words })))
                }
                (None, Some(_)) => Some((id, Ok(manifests.applied()))),
                // It is on its way; the next pass sees it.
                (None, None) => None,
            }
        });
        results.collect()
    }
}
