//! Whose turn it is, when there are several replicas: keeps this one's Leases, and says what it may work on.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::StartError;
use crate::clock::{Clock, SystemClock};
use crate::cluster::{self, Leases};
use crate::domain::Timestamp;
use crate::lease::RENEWAL;

/// How replicas find one another.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How to reach the cluster that holds the Leases.
    pub access: cluster::Access,
    /// Namespace of the Leases.
    pub namespace: String,
    /// What the Leases of this installation begin with.
    pub group: String,
    /// This replica; no two alike.
    pub identity: String,
    /// Longest time for one request.
    pub deadline: Duration,
}

/// What this replica may work on.
#[derive(Debug, Clone)]
pub enum Turns {
    /// Everything: there is only one replica.
    Always,
    /// What it holds a Lease for, with when that was renewed last.
    Leased(watch::Receiver<Held>),
}

/// The Leases that are held, and until when that can be relied on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    work: BTreeSet<String>,
    /// Whoever has not said anything for this long stops.
    until: Option<Timestamp>,
}

impl Turns {
    /// Whether it is this replica's turn with a piece of work.
    pub(super) fn is_on(&self, work: &str, now: Timestamp) -> bool {
        match self {
            Self::Always => true,
            Self::Leased(held) => {
                let held = held.borrow();
                held.until.is_some_and(|until| now < until) && held.work.contains(work)
            }
        }
    }

    /// Ready when it may have become, or ceased to be, the turn of this replica.
    pub(super) async fn change(&self, work: &str, clock: impl Clock) {
        match self {
            Self::Always => std::future::pending().await,
            Self::Leased(held) => {
                let mut held = held.clone();
                let before = self.is_on(work, clock.now());
                while self.is_on(work, clock.now()) == before {
                    let until = held.borrow().until.filter(|_| before);
                    tokio::select! {
                        changed = held.changed() => if changed.is_err() {
                            return;
                        },
                        () = async {
                            match until {
                                Some(until) => clock.sleep_until(until).await,
                                None => std::future::pending().await,
                            }
                        } => {}
                    }
                }
            }
        }
    }
}

/// Starts to keep the Leases for these pieces of work; without settings every turn is ours.
pub(super) async fn start(
    settings: Option<Settings>,
    work: Vec<String>,
) -> Result<(Turns, Option<JoinHandle<()>>), StartError> {
    let Some(settings) = settings else {
        return Ok((Turns::Always, None));
    };
    let client = cluster::client_of(&settings.access, settings.deadline).await?;
    let leases = Leases::new(
        client,
        &settings.namespace,
        &settings.group,
        &settings.identity,
        settings.deadline,
    );
    let (sender, receiver) = watch::channel(Held::default());
    info!(identity = %settings.identity, "one of several replicas: works on what it holds a Lease for");
    let electing = tokio::spawn(keep(leases, work, sender, SystemClock));
    Ok((Turns::Leased(receiver), Some(electing)))
}

/// Keeps the Leases until everybody who works under them has stopped, then gives them back.
async fn keep(mut leases: Leases, work: Vec<String>, held: watch::Sender<Held>, clock: impl Clock) {
    let mut failing = false;
    let (freed, watching) = leases.freed();
    let watching = tokio::spawn(watching);
    loop {
        let began = clock.now();
        match leases.tick(&work, began).await {
            Ok(()) if failing => {
                failing = false;
                info!("the Leases can be kept again");
            }
            Ok(()) => {}
            Err(problem) if !failing => {
                failing = true;
                warn!(%problem, "the Leases cannot be kept; work stops when their time is over");
            }
            Err(_) => {}
        }
        let now = clock.now();
        let mine: BTreeSet<String> = work
            .iter()
            .filter(|name| leases.may_act(name, now))
            .cloned()
            .collect();
        let until = leases.relied_on_until();
        held.send_if_modified(|before| {
            let news = before.work != mine;
            if news {
                info!(work = ?mine, "works on other repositories from now on");
            }
            *before = Held { work: mine, until };
            news
        });
        let next = clock.now() + chrono::Duration::from_std(RENEWAL).unwrap_or_default();
        tokio::select! {
            () = clock.sleep_until(next) => {}
            () = freed.notified() => {}
            () = held.closed() => break,
        }
    }
    watching.abort();
    leases.release_all().await;
}
