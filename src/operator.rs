//! The composition root: builds adapters and engines, runs them until told to stop, and says what happens.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{Instrument, error, info, info_span, warn};

use crate::applier::Notice;
use crate::clock::{Clock, SystemClock};
use crate::cluster::{self, AnyCluster, ConnectError, Kubernetes, NoCluster};
use crate::domain::{CanaryId, Timestamp};
use crate::endpoints::{Beat, Endpoints, Health, Hook, Secret, SetLogLevel};
use crate::git;
use crate::instruments::{Instruments, Repair};
use crate::ports::{RepositoryError, Witness};
use crate::prometheus;
use crate::reconcile::{Engine, Pass, Settings};

/// All that one engine needs.
#[derive(Debug, Clone)]
pub struct Wiring {
    /// What it is called in metrics, health and the path of its webhook; no two alike.
    pub name: String,
    /// Secret of its webhook; `None`: it has none.
    pub webhook: Option<Secret>,
    /// The branch.
    pub branch: git::Settings,
    /// The metrics server.
    pub prometheus: prometheus::Settings,
    /// The loop.
    pub engine: Settings,
    /// The cluster; `None`: Git and Prometheus alone.
    pub cluster: Option<cluster::Settings>,
}

/// Why an engine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The local copy.
    #[error("failed to open the local copy of the repository")]
    Repository(#[from] RepositoryError),
    /// Prometheus' settings.
    #[error("failed to set up the connection to Prometheus")]
    Prometheus(#[from] prometheus::SetupError),
    /// The cluster's settings.
    #[error("failed to set up the connection to the cluster")]
    Cluster(#[from] ConnectError),
    /// The address for health, metrics and webhooks.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// An engine on a real branch.
pub type BranchEngine<K> = Engine<git::Branch, prometheus::Server, AnyCluster, K>;

/// Builds an engine. `witness` is told what happens in the cluster.
pub async fn engine<K: Clock + Clone + 'static>(
    wiring: Wiring,
    clock: K,
    witness: Arc<dyn Witness>,
) -> Result<BranchEngine<K>, StartError> {
    let branch = git::Branch::open(wiring.branch).await?;
    let server = prometheus::Server::new(wiring.prometheus)?;
    let cluster = match wiring.cluster {
        None => AnyCluster::None(NoCluster),
        Some(settings) => {
            let connected = Kubernetes::connect(settings, clock.clone(), witness).await?;
            AnyCluster::Kubernetes(Box::new(connected))
        }
    };
    Ok(Engine::new(branch, server, cluster, clock, wiring.engine))
}

/// Tells what happens in the cluster: in the log, and in metrics where there are any.
#[derive(Debug, Default)]
pub struct Journal {
    /// The metrics.
    pub instruments: Option<Arc<Instruments>>,
}

impl Witness for Journal {
    fn note(&self, notice: &Notice) {
        match notice {
            Notice::Repaired(repaired) => {
                let drift = &repaired.drift;
                let by = drift.by.as_deref().unwrap_or("somebody");
                let was = drift.differences.join("; ");
                info!(object = %drift.object, by, was, "repaired what differed from Git");
                if let Some(instruments) = &self.instruments {
                    let what = match drift.differences.is_empty() {
                        true => Repair::Deleted,
                        false => Repair::Edited,
                    };
                    instruments.repaired(&drift.object.kind.kind, what);
                }
            }
            Notice::Drifted(drift) => {
                let by = drift.by.as_deref().unwrap_or("somebody");
                let differs = drift.differences.join("; ");
                warn!(object = %drift.object, by, differs, "differs from Git and is not repaired");
            }
            Notice::Refused { object, words } => {
                warn!(%object, "the cluster refuses an object: {words}");
            }
            Notice::Stuck { object, words } => {
                warn!(%object, "its deletion does not end: {words}");
            }
            Notice::Unreadable { source, words } => {
                warn!(file = %source, "cannot be applied: {words}");
            }
            Notice::Pruned(object) => info!(%object, "removed what Git no longer has"),
        }
    }
}

/// What an operator shows of itself.
#[derive(Clone, Default)]
pub struct Exposure {
    /// Where health, metrics and webhooks are served; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Sets the log level while it runs.
    pub log_level: Option<SetLogLevel>,
}

/// Runs one engine per wiring until `stop` is ready. A pass that has begun is finished first: it is short, and every
/// call in it has a deadline.
pub async fn run(
    wirings: Vec<Wiring>,
    exposure: Exposure,
    stop: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let (sender, receiver) = tokio::sync::watch::channel(false);
    let (health, instruments) = (Arc::new(Health::new()), Arc::new(Instruments::new()));
    let mut hooks = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    for wiring in wirings {
        let span = info_span!("repository", remote = %wiring.branch.remote);
        let woken = Arc::new(Notify::new());
        let hook = wiring.webhook.clone();
        hooks.extend(hook.map(|secret| Hook::new(&wiring.name, secret, Arc::clone(&woken))));
        health.watch(&wiring.name, longest_pass(&wiring), SystemClock.now());
        let served = Served {
            name: wiring.name.clone(),
            health: Arc::clone(&health),
            instruments: Arc::clone(&instruments),
            woken,
        };
        let witness = Arc::new(Journal {
            instruments: Some(Arc::clone(&instruments)),
        });
        let engine = engine(wiring, SystemClock, witness).await?;
        tasks.spawn(serve(engine, served, receiver.clone()).instrument(span));
    }
    let endpoints = Endpoints {
        health,
        instruments,
        hooks: Arc::new(hooks),
        log_level: exposure.log_level,
        clock: SystemClock,
    };
    let answering = match exposure.listen {
        Some(address) => Some(tokio::spawn(listen(endpoints, address).await?)),
        None => None,
    };
    stop.await;
    info!("stopping after the present pass");
    // Nobody listens any more when every engine has ended already.
    sender.send(true).ok();
    while tasks.join_next().await.is_some() {}
    if let Some(answering) = answering {
        answering.abort();
    }
    Ok(())
}

/// Binds now, so that a taken port is an error at the start; the future answers.
async fn listen(
    endpoints: Endpoints<SystemClock>,
    address: SocketAddr,
) -> Result<impl Future<Output = ()> + Send + 'static, StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(failed)?;
    let bound = listener.local_addr().unwrap_or(address);
    info!(address = %bound, "health, metrics and webhooks are served");
    Ok(async move {
        if let Err(problem) = endpoints.serve(listener).await {
            error!(%problem, "health, metrics and webhooks are no longer served");
        }
    })
}

/// After this long without the end of a pass its loop hangs: one wait between two looks, and every call of a pass at
/// its deadline, the first fetch with its twentyfold one included.
fn longest_pass(wiring: &Wiring) -> Duration {
    wiring.engine.poll + wiring.branch.deadline * 40 + wiring.prometheus.deadline * 20
}

/// What one loop shows of itself, and what wakes it early.
struct Served {
    name: String,
    health: Arc<Health>,
    instruments: Arc<Instruments>,
    woken: Arc<Notify>,
}

impl Served {
    fn tell(&self, pass: &Pass, began: Timestamp, now: Timestamp) {
        let took = (now - began).to_std().unwrap_or_default();
        self.instruments.pass(&self.name, pass, took, now);
        let beat = match pass.head {
            Some(_) => Beat::WentRound,
            None if pass.problem.is_none() => Beat::WentRound,
            None => Beat::Alive,
        };
        self.health.beat(&self.name, beat, now);
    }
}

async fn serve(
    mut engine: BranchEngine<SystemClock>,
    served: Served,
    mut stop: tokio::sync::watch::Receiver<bool>,
) {
    let mut told = Told::default();
    let mut races = 0;
    let stirred = match &engine.cluster {
        AnyCluster::Kubernetes(kubernetes) => kubernetes.wake(),
        AnyCluster::None(_) => Arc::new(Notify::new()),
    };
    while !*stop.borrow() {
        let began = engine.clock.now();
        let pass = engine.pass().await;
        told.tell(&pass);
        served.tell(&pass, began, engine.clock.now());
        let lost = engine.races().saturating_sub(races);
        races += lost;
        served.instruments.races(&served.name, lost);
        let until = earliest(&pass, engine.clock.now());
        tokio::select! {
            () = engine.clock.sleep_until(until) => {}
            () = roused(&stirred, &engine.clock) => {}
            () = served.woken.notified() => info!("a webhook says that there is something new"),
            changed = stop.changed() => if changed.is_err() { return },
        }
    }
}

/// Ready when the cluster shows something new, but a second after the last pass at the earliest.
async fn roused(stirred: &Notify, clock: &impl Clock) {
    let earliest = clock.now() + chrono::Duration::seconds(1);
    stirred.notified().await;
    clock.sleep_until(earliest).await;
}

/// At least a second between two passes, whatever they ask for.
fn earliest(pass: &Pass, now: Timestamp) -> Timestamp {
    pass.wake_at.max(now + chrono::Duration::seconds(1))
}

/// What was said before, so that only changes are said.
#[derive(Debug, Default)]
struct Told {
    problem: Option<String>,
    waiting: std::collections::BTreeMap<CanaryId, &'static str>,
}

impl Told {
    fn tell(&mut self, pass: &Pass) {
        if pass.problem != self.problem {
            match &pass.problem {
                Some(problem) => warn!(%problem, "nothing moves"),
                None => info!("the branch can be used again"),
            }
            self.problem.clone_from(&pass.problem);
        }
        for (id, commit, transition) in pass.moves() {
            info!(
                canary = %id, commit = commit.short(), from = %transition.from, to = %transition.to,
                "{}", crate::record::message::what(transition)
            );
        }
        for report in &pass.canaries {
            let reason = report.waiting.reason();
            if self.waiting.insert(report.id.clone(), reason) != Some(reason) {
                info!(canary = %report.id, reason, "{}", report.waiting);
            }
            if let Some(problem) = &report.problem {
                warn!(canary = %report.id, %problem, "failed to apply");
            }
        }
    }
}
