//! The composition root: builds adapters and engines, runs them until told to stop, and says what happens.

mod journal;
pub mod replicas;
mod show;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::{Instrument, debug_span, error, info, info_span, warn};

use crate::clock::{Clock, SystemClock};
use crate::cluster::{self, AnyCluster, ConnectError, Kubernetes, NoCluster};
use crate::domain::Timestamp;
use crate::endpoints::{Beat, Endpoints, Health, Hook, Secret, SetLogLevel};
use crate::git;
use crate::instruments::Instruments;
use crate::lease::Share;
use crate::ports::{RepositoryError, Witness};
use crate::prometheus;
use crate::reconcile::{Engine, Pass, Settings};
pub use journal::Journal;
use journal::Told;
use replicas::Turns;
use show::Show;

/// All that one engine needs.
#[derive(Debug, Clone)]
pub struct Wiring {
    /// What it is called in metrics, health and its Lease; no two alike.
    pub name: String,
    /// The repository, as the path of its webhook says it.
    pub repository: String,
    /// The part of the repository that this engine works on.
    pub share: Share,
    /// Secret of its webhook; `None`: it has none.
    pub webhook: Option<Secret>,
    /// The branch.
    pub branch: git::Settings,
    /// The metrics server.
    pub prometheus: prometheus::Settings,
    /// The loop.
    pub engine: Settings,
    /// Plan mode: say what would be committed, and push nothing.
    pub plan: bool,
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
    let engine = Engine::new(branch, server, cluster, clock, wiring.engine);
    let engine = engine.sharing_with_others(wiring.share);
    Ok(if wiring.plan {
        engine.only_planning()
    } else {
        engine
    })
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
/// call in it has a deadline. With several replicas each wiring is run by the one that holds its Lease.
pub async fn run(
    wirings: Vec<Wiring>,
    replicas: Option<replicas::Settings>,
    exposure: Exposure,
    stop: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let (sender, receiver) = watch::channel(false);
    let (health, instruments) = (Arc::new(Health::new()), Arc::new(Instruments::new()));
    let show = Show::start(&wirings, replicas.as_ref()).await?;
    let names = wirings.iter().map(|wiring| wiring.name.clone()).collect();
    let (turns, electing) = replicas::start(replicas, names).await?;
    instruments.leading(electing.is_none());
    let mut hooks = Vec::new();
    let mut tasks = JoinSet::new();
    for wiring in wirings {
        let span = info_span!("repository", remote = %wiring.branch.remote);
        let woken = Arc::new(Notify::new());
        let hook = wiring.webhook.clone();
        hooks.extend(hook.map(|secret| Hook::new(&wiring.repository, secret, Arc::clone(&woken))));
        health.watch(&wiring.name, longest_pass(&wiring), SystemClock.now());
        let witness = Arc::new(Journal {
            instruments: Some(Arc::clone(&instruments)),
            repairs: show.as_ref().map(Show::repairs),
        });
        // What is wrong with the settings is said at the start, not when the turn comes.
        let ready = match electing {
            None => Some(engine(wiring.clone(), SystemClock, Arc::clone(&witness) as _).await?),
            Some(_) => None,
        };
        let served = Served {
            wiring,
            witness,
            health: Arc::clone(&health),
            instruments: Arc::clone(&instruments),
            show: show.clone(),
            woken,
            turns: turns.clone(),
            stop: receiver.clone(),
        };
        tasks.spawn(served.serve(ready).instrument(span));
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
    // The Leases go back when nothing is done under them any more.
    drop(turns);
    if let Some(electing) = electing {
        electing.await.ok();
    }
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

/// One loop: what it runs, what it shows, what wakes it early, and when it is its turn.
struct Served {
    wiring: Wiring,
    witness: Arc<Journal>,
    health: Arc<Health>,
    instruments: Arc<Instruments>,
    show: Option<Show>,
    woken: Arc<Notify>,
    turns: Turns,
    stop: watch::Receiver<bool>,
}

impl Served {
    /// Runs an engine while it is this replica's turn. It is dropped when the turn ends, and with it all that it knew:
    /// what it would do later could rest on a head that is no longer the newest.
    async fn serve(mut self, mut ready: Option<BranchEngine<SystemClock>>) {
        while !*self.stop.borrow() {
            if !self.turns.is_on(&self.wiring.name, SystemClock.now()) {
                self.instruments.leading(false);
                if let Some(show) = &self.show {
                    show.forget(&self.wiring.name).await;
                }
                self.health
                    .beat(&self.wiring.name, Beat::WentRound, SystemClock.now());
                self.wait(SystemClock.now() + chrono::Duration::seconds(1))
                    .await;
                continue;
            }
            let witness = Arc::clone(&self.witness);
            let built = match ready.take() {
                Some(engine) => Ok(engine),
                None => engine(self.wiring.clone(), SystemClock, witness).await,
            };
            match built {
                Ok(engine) => {
                    self.instruments.leading(true);
                    self.lead(engine).await;
                }
                Err(problem) => {
                    let words = chain(&problem);
                    warn!(problem = %words, "the turn cannot be taken");
                    self.health
                        .beat(&self.wiring.name, Beat::Alive, SystemClock.now());
                    self.wait(SystemClock.now() + chrono::Duration::seconds(10))
                        .await;
                }
            }
        }
    }

    /// Passes, until the turn ends or all stops.
    async fn lead(&mut self, mut engine: BranchEngine<SystemClock>) {
        let mut told = Told::default();
        let mut races = 0;
        let stirred = match &engine.cluster {
            AnyCluster::Kubernetes(kubernetes) => {
                if let Some(show) = &self.show {
                    show.gives_way(&self.wiring.name, kubernetes.writing());
                }
                kubernetes.wake()
            }
            AnyCluster::None(_) => Arc::new(Notify::new()),
        };
        while !*self.stop.borrow() && self.turns.is_on(&self.wiring.name, engine.clock.now()) {
            let began = engine.clock.now();
            if let Some(show) = &self.show {
                show.begins(&self.wiring.name).await;
            }
            let pass = engine.pass().instrument(debug_span!("pass")).await;
            told.tell(&pass);
            self.tell(&pass, began, engine.clock.now());
            if let Some(show) = &self.show {
                show.pass(&self.wiring, &pass, engine.clock.now()).await;
            }
            let lost = engine.races().saturating_sub(races);
            races += lost;
            self.instruments.races(&self.wiring.name, lost);
            let until = earliest(&pass, engine.clock.now());
            let woken = Arc::clone(&self.woken);
            tokio::select! {
                () = self.wait(until) => {}
                () = roused(&stirred, &engine.clock) => {}
                () = woken.notified() => info!("a webhook says that there is something new"),
            }
        }
    }

    /// Waits until then, until the turns change, or until all stops.
    async fn wait(&mut self, until: Timestamp) {
        let (mut stop, turns) = (self.stop.clone(), self.turns.clone());
        let name = self.wiring.name.clone();
        tokio::select! {
            () = SystemClock.sleep_until(until) => {}
            () = turns.change(&name, SystemClock) => {}
            changed = stop.changed() => if changed.is_err() {
                // Without anybody to say so all has stopped.
                std::future::pending::<()>().await;
            },
        }
    }

    fn tell(&self, pass: &Pass, began: Timestamp, now: Timestamp) {
        let took = (now - began).to_std().unwrap_or_default();
        let name = &self.wiring.name;
        self.instruments.pass(name, pass, took, now);
        let beat = match pass.head {
            Some(_) => Beat::WentRound,
            None if pass.problem.is_none() => Beat::WentRound,
            None => Beat::Alive,
        };
        self.health.beat(name, beat, now);
    }
}

/// Ready when the cluster shows something new, but a second after the last pass at the earliest.
async fn roused(stirred: &Notify, clock: &impl Clock) {
    let earliest = clock.now() + chrono::Duration::seconds(1);
    stirred.notified().await;
    clock.sleep_until(earliest).await;
}

/// An error with what it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let words: Vec<String> = causes.map(ToString::to_string).collect();
    words.join(": ")
}

/// At least a second between two passes, whatever they ask for.
fn earliest(pass: &Pass, now: Timestamp) -> Timestamp {
    pass.wake_at.max(now + chrono::Duration::seconds(1))
}
