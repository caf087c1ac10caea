//! The composition root: builds adapters and engines, runs them until told to stop, and says what happens.

use std::future::Future;

use tracing::{Instrument, info, info_span, warn};

use crate::clock::{Clock, SystemClock};
use crate::cluster::NoCluster;
use crate::domain::{CanaryId, Timestamp};
use crate::git;
use crate::ports::RepositoryError;
use crate::prometheus;
use crate::reconcile::{Engine, Pass, Settings};

/// All that one engine needs.
#[derive(Debug, Clone)]
pub struct Wiring {
    /// The branch.
    pub branch: git::Settings,
    /// The metrics server.
    pub prometheus: prometheus::Settings,
    /// The loop.
    pub engine: Settings,
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
}

/// An engine without a cluster.
pub type BranchEngine<K> = Engine<git::Branch, prometheus::Server, NoCluster, K>;

/// Builds an engine for Git and Prometheus alone.
pub async fn engine<K: Clock>(wiring: Wiring, clock: K) -> Result<BranchEngine<K>, StartError> {
    let branch = git::Branch::open(wiring.branch).await?;
    let server = prometheus::Server::new(wiring.prometheus)?;
    Ok(Engine::new(branch, server, NoCluster, clock, wiring.engine))
}

/// Runs one engine per wiring until `stop` is ready. A pass that has begun is finished first: it is short, and every
/// call in it has a deadline.
pub async fn run(wirings: Vec<Wiring>, stop: impl Future<Output = ()>) -> Result<(), StartError> {
    let (sender, receiver) = tokio::sync::watch::channel(false);
    let mut tasks = tokio::task::JoinSet::new();
    for wiring in wirings {
        let span = info_span!("repository", remote = %wiring.branch.remote);
        let engine = engine(wiring, SystemClock).await?;
        tasks.spawn(serve(engine, receiver.clone()).instrument(span));
    }
    stop.await;
    info!("stopping after the present pass");
    // Nobody listens any more when every engine has ended already.
    sender.send(true).ok();
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn serve(mut engine: BranchEngine<SystemClock>, mut stop: tokio::sync::watch::Receiver<bool>) {
    let mut told = Told::default();
    while !*stop.borrow() {
        let pass = engine.pass().await;
        told.tell(&pass);
        let until = earliest(&pass, engine.clock.now());
        tokio::select! {
            () = engine.clock.sleep_until(until) => {}
            changed = stop.changed() => if changed.is_err() { return },
        }
    }
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
