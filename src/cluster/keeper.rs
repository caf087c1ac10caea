//! The task that keeps a cluster equal to a branch. It decides nothing: the ledger does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::call::Caller;
use super::connect::Settings;
use super::kustomize::Kustomize;
use super::watch::{Resources, Seen, Watcher};
use crate::applier::atom::Atom;
use crate::applier::desired::{Desired, Source};
use crate::applier::order::{is_cluster_scoped, is_watched_whole};
use crate::applier::{Assembly, Kind, Ledger, ObjectKey, Outcome, Scopes};
use crate::clock::Clock;
use crate::domain::{CommitId, OWNER_LABEL};
use crate::lease::Share;
use crate::ports::{Tree, Witness};

/// Events on their way from the watches; a full queue slows the watches down, which is what the server expects. An object is
/// some 20 KiB on its way, so that these are 5 MiB.
const MOST_EVENTS: usize = 256;
/// Events that are taken before anything is done about them, so that a list of thousands is one piece of work.
const EVENTS_AT_ONCE: usize = 2048;

/// Kinds that are always looked at: what Serin renders, and where it is.
const ALWAYS: [(&str, &str); 4] = [
    ("v1", "Namespace"),
    ("apps/v1", "Deployment"),
    ("networking.istio.io/v1", "DestinationRule"),
    ("networking.istio.io/v1", "VirtualService"),
];
/// Kinds of which objects may go that no file mentions any more.
const PRUNED: [(&str, &str); 18] = [
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "StatefulSet"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("batch/v1", "CronJob"),
    ("batch/v1", "Job"),
    ("networking.istio.io/v1", "Gateway"),
    ("networking.istio.io/v1", "ServiceEntry"),
    ("networking.k8s.io/v1", "Ingress"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("security.istio.io/v1", "AuthorizationPolicy"),
    ("serin.dev/v1alpha1", "Canary"),
];

/// What the keeper shares with the port.
#[derive(Debug)]
pub(super) struct Shared {
    ledger: Mutex<Ledger>,
    /// Changes with the ledger.
    pub(super) changed: watch::Sender<u64>,
    /// Whether objects are being written.
    pub(super) writing: watch::Sender<bool>,
    /// Told when a pass over the branch is worth while.
    pub(super) wake: Arc<Notify>,
    /// Tells the keeper that the ledger was changed from outside.
    pub(super) nudge: Notify,
}

impl Shared {
    pub(super) fn new(ledger: Ledger) -> Self {
        Self {
            ledger: Mutex::new(ledger),
            changed: watch::Sender::new(0),
            writing: watch::Sender::new(false),
            wake: Arc::new(Notify::new()),
            nudge: Notify::new(),
        }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
pub(super) struct Keeper<K> {
    settings: Settings,
    clock: K,
    shared: Arc<Shared>,
    witness: Arc<dyn Witness>,
    watcher: Watcher,
    events: mpsc::Receiver<Seen>,
    caller: Caller,
    watched: BTreeSet<Kind>,
    watches: JoinSet<()>,
    calls: JoinSet<(ObjectKey, Outcome)>,
    scopes: Scopes,
    sources: Arc<tokio::sync::Mutex<Sources>>,
    preparing: Option<JoinHandle<Option<Desired>>>,
}

/// Where manifests come from, remembered between two trees.
struct Sources {
    assembly: Assembly,
    kustomize: Kustomize,
}

impl<K: Clock + 'static> Keeper<K> {
    pub(super) fn new(
        settings: Settings,
        client: kube::Client,
        clock: K,
        shared: Arc<Shared>,
        witness: Arc<dyn Witness>,
    ) -> Self {
        let (sender, events) = mpsc::channel(MOST_EVENTS);
        let resources = Resources::default();
        let watcher = Watcher {
            client: client.clone(),
            deadline: settings.deadline,
            resources: Arc::clone(&resources),
            events: sender,
            definitions: Arc::new(Notify::new()),
            namespaces: settings.namespaces.clone(),
        };
        let caller = Caller {
            client,
            deadline: settings.deadline,
            resources,
            owner: settings.policy.owner.clone(),
        };
        let sources = Sources {
            assembly: Assembly::default(),
            kustomize: Kustomize::new(settings.scratch.clone()),
        };
        Self {
            settings,
            clock,
            shared,
            witness,
            watcher,
            events,
            caller,
            watched: BTreeSet::new(),
            watches: JoinSet::new(),
            calls: JoinSet::new(),
            scopes: Scopes::new(),
            sources: Arc::new(tokio::sync::Mutex::new(sources)),
            preparing: None,
        }
    }

    /// Runs until nobody hands over trees any more.
    pub(super) async fn run(mut self, mut trees: watch::Receiver<Tree>) {
        let shared = Arc::clone(&self.shared);
        loop {
            let wake_at = self.act();
            let clock = &self.clock;
            let sleep = async {
                match wake_at {
                    Some(at) => clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let prepared = async {
                match &mut self.preparing {
                    Some(task) => task.await.ok().flatten(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = trees.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let tree = trees.borrow_and_update().clone();
                    self.prepare(tree);
                }
                desired = prepared => {
                    self.preparing = None;
                    self.follow(desired);
                }
                Some(seen) = self.events.recv() => {
                    let mut again = false;
                    let mut next = Some(seen);
                    let mut taken = 0;
                    while let Some(seen) = next.take() {
                        again |= self.take(seen);
                        taken += 1;
                        if taken < EVENTS_AT_ONCE {
                            next = self.events.try_recv().ok();
                        }
                    }
                    if again {
                        let tree = trees.borrow().clone();
                        self.prepare(tree);
                    }
                }
                Some(done) = self.calls.join_next() => {
                    let mut next = Some(done);
                    while let Some(done) = next.take() {
                        if let Ok((key, outcome)) = done {
                            let now = self.clock.now();
                            self.shared.ledger().done(&key, outcome, now);
                        }
                        next = self.calls.try_join_next();
                    }
                }
                () = shared.nudge.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Does what there is to do, tells what happened, and answers when time alone may change something.
    fn act(&mut self) -> Option<crate::domain::Timestamp> {
        let now = self.clock.now();
        let mut ledger = self.shared.ledger();
        let actions = ledger.next(now);
        let wake_at = ledger.wake_at(now);
        let notices = ledger.notices();
        let is_writing = ledger.is_writing();
        let mut wakes = ledger.wants_fetch();
        wakes |= ledger.stirred();
        drop(ledger);
        for action in actions {
            let caller = self.caller.clone();
            self.calls.spawn(async move { caller.run(action).await });
        }
        for notice in &notices {
            self.witness.note(notice);
        }
        self.shared.changed.send_modify(|version| *version += 1);
        let writing = &self.shared.writing;
        writing.send_if_modified(|known| std::mem::replace(known, is_writing) != is_writing);
        if wakes {
            self.shared.wake.notify_one();
        }
        wake_at
    }

    /// Begins to read a tree. A newer one takes the place of one that is still being read.
    fn prepare(&mut self, tree: Tree) {
        let Some(commit) = tree.commit.clone() else {
            return;
        };
        if let Some(task) = self.preparing.take() {
            task.abort();
        }
        let sources = Arc::clone(&self.sources);
        let scopes = self.scopes.clone();
        let confined = self.settings.namespaces.clone();
        let share = self.settings.policy.share;
        let reading = read(tree, commit, sources, scopes, (confined, share));
        self.preparing = Some(tokio::spawn(reading));
    }

    fn follow(&mut self, desired: Option<Desired>) {
        let Some(desired) = desired else {
            return;
        };
        let now = self.clock.now();
        let mut ledger = self.shared.ledger();
        ledger.follow(Arc::new(desired), now);
        let kinds = ledger.kinds().clone();
        drop(ledger);
        let always = ALWAYS.iter().copied();
        let pruned = PRUNED.iter().copied();
        let also = always.chain(pruned.filter(|_| self.settings.policy.prune));
        let also = also.map(|(version, kind)| (Kind::of(version, kind), Atom::of(version)));
        let external = self.settings.policy.external;
        let mut wanted: BTreeMap<Kind, Atom> = also.collect();
        if !external {
            wanted.extend(kinds);
        }
        for (kind, api_version) in wanted {
            if self.watched.insert(kind.clone()) {
                let selector = format!("{OWNER_LABEL}={}", self.settings.policy.owner);
                let selector = (!is_watched_whole(&kind)).then_some(selector);
                let watcher = self.watcher.clone();
                self.watches
                    .spawn(watcher.run(kind, api_version.to_string(), selector));
            }
        }
    }

    /// Takes an event; answers whether the tree has to be read again.
    fn take(&mut self, seen: Seen) -> bool {
        let now = self.clock.now();
        let mut ledger = self.shared.ledger();
        match seen {
            Seen::Object(object) => {
                ledger.saw(&object, now);
                if object["kind"] == "CustomResourceDefinition" {
                    self.watcher.definitions.notify_waiters();
                }
            }
            Seen::Gone(key, uid) => ledger.gone(&key, &uid, now),
            Seen::Synced(kind) => ledger.synced(&kind, now),
            Seen::Blind(kind, words) => ledger.blind(&kind, words, now),
            Seen::Scope(kind, is_namespaced) => {
                let assumed = !is_cluster_scoped(&kind);
                let known = self.scopes.insert(kind, is_namespaced);
                return known.unwrap_or(assumed) != is_namespaced;
            }
        }
        false
    }
}

/// Reads a tree: which files count, what kustomize makes of the others, which objects that gives.
async fn read(
    tree: Tree,
    commit: CommitId,
    sources: Arc<tokio::sync::Mutex<Sources>>,
    scopes: Scopes,
    (confined, share): (BTreeSet<String>, Share),
) -> Option<Desired> {
    let mut held = sources.lock_owned().await;
    let files = Arc::clone(&tree.files);
    // Parsing thousands of files takes a while, and must not keep others from running.
    let sorted = tokio::task::spawn_blocking(move || {
        let sorted = held.assembly.sort(&files);
        (held, sorted)
    });
    let (mut held, sorted) = sorted.await.ok()?;
    let built = held.kustomize.build(&tree.files, &sorted.builds).await;
    let assembled = tokio::task::spawn_blocking(move || {
        let source = Source {
            commit: &commit,
            files: &tree.files,
            skipped: &tree.skipped,
        };
        let known = (&scopes, &confined);
        let mut desired = held.assembly.assemble(&source, (&sorted, &built), known);
        desired.held_back = tree.held_back;
        desired.keep(share);
        desired
    });
    assembled.await.ok()
}
