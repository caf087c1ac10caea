//! Serin's own metrics: what it did and how long it took, in the text format that Prometheus scrapes.
//!
//! Labels are bounded: kinds, verdicts, reasons, repositories by name, and canaries only while they are not idle. No
//! label holds a text from a repository, a remote or an error.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::domain::{CanaryId, Timestamp};
use crate::progression::{Phase, State};
use crate::reconcile::{CanaryReport, Pass};

/// The names of all metrics, as queries about them are written, without the endings of counters and histograms.
pub const NAMES: [&str; 15] = [
    "serin_build",
    "serin_canaries",
    "serin_canary_waiting",
    "serin_canary_weight_percent",
    "serin_commit_to_applied_seconds",
    "serin_drift_repaired",
    "serin_last_pass_timestamp_seconds",
    "serin_leader",
    "serin_pass_duration_seconds",
    "serin_passes",
    "serin_push_races",
    "serin_push_refusals",
    "serin_repository_reachable",
    "serin_transitions",
    "serin_webhook_deliveries",
];

type Labels = Vec<(&'static str, String)>;
type Seconds = Gauge<f64, AtomicU64>;

/// What a repair undid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// An object was deleted.
    Deleted,
    /// An object was edited.
    Edited,
}

/// How a webhook ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It woke a repository's loop.
    Accepted,
    /// Its signature was missing or wrong.
    Refused,
    /// It names no repository of ours.
    Unknown,
}

/// The metrics. Cheap to update, safe to share.
#[derive(Debug)]
pub struct Instruments {
    registry: Registry,
    passes: Family<Labels, Counter>,
    pass_seconds: Family<Labels, Histogram>,
    last_pass: Family<Labels, Seconds>,
    reachable: Family<Labels, Gauge>,
    transitions: Family<Labels, Counter>,
    canaries: Family<Labels, Gauge>,
    weight: Family<Labels, Gauge>,
    waiting: Family<Labels, Gauge>,
    races: Family<Labels, Counter>,
    refusals: Family<Labels, Counter>,
    applied_seconds: Histogram,
    repairs: Family<Labels, Counter>,
    webhooks: Family<Labels, Counter>,
    leader: Gauge,
    /// What was shown of each canary, so that it can be taken back: two labels a canary at most.
    shown: Mutex<std::collections::BTreeMap<(String, CanaryId), &'static str>>,
}

impl Default for Instruments {
    fn default() -> Self {
        Self::new()
    }
}

impl Instruments {
    /// All metrics at zero.
    pub fn new() -> Self {
        // A millisecond to two minutes.
        let quick = || Histogram::new(exponential_buckets(0.001, 2.0, 17));
        let mut all = Self {
            registry: Registry::with_prefix("serin"),
            passes: Family::default(),
            pass_seconds: Family::new_with_constructor(quick),
            last_pass: Family::default(),
            reachable: Family::default(),
            transitions: Family::default(),
            canaries: Family::default(),
            weight: Family::default(),
            waiting: Family::default(),
            races: Family::default(),
            refusals: Family::default(),
            applied_seconds: quick(),
            repairs: Family::default(),
            webhooks: Family::default(),
            leader: Gauge::default(),
            shown: Mutex::default(),
        };
        all.register();
        all
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        registry.register(
            "build",
            "Version of Serin",
            Info::new([("version", version)]),
        );
        registry.register("passes", "Passes over a branch", self.passes.clone());
        registry.register_with_unit(
            "pass_duration",
            "How long a pass took",
            Unit::Seconds,
            self.pass_seconds.clone(),
        );
        registry.register_with_unit(
            "last_pass_timestamp",
            "When the last pass that reached the remote ended, since the epoch",
            Unit::Seconds,
            self.last_pass.clone(),
        );
        registry.register(
            "repository_reachable",
            "1 when the last pass could use the remote",
            self.reachable.clone(),
        );
        registry.register(
            "transitions",
            "Commits made, by kind and by the verdict that they rest on",
            self.transitions.clone(),
        );
        registry.register("canaries", "Canaries by phase", self.canaries.clone());
        registry.register(
            "canary_weight_percent",
            "Committed weight of a candidate, while there is one",
            self.weight.clone(),
        );
        registry.register(
            "canary_waiting",
            "1 for the reason why a canary does not move, while it is not idle",
            self.waiting.clone(),
        );
        registry.register(
            "push_races",
            "Pushes that somebody else's were faster than",
            self.races.clone(),
        );
        registry.register(
            "push_refusals",
            "Passes in which the remote refused the commit of a canary",
            self.refusals.clone(),
        );
        registry.register_with_unit(
            "commit_to_applied",
            "From push accepted to object applied",
            Unit::Seconds,
            self.applied_seconds.clone(),
        );
        registry.register(
            "drift_repaired",
            "Objects that were made equal to Git again",
            self.repairs.clone(),
        );
        registry.register(
            "webhook_deliveries",
            "Webhooks by outcome",
            self.webhooks.clone(),
        );
        registry.register(
            "leader",
            "1 while this replica acts, 0 while it stands by",
            self.leader.clone(),
        );
    }

    /// Counts a pass over `repository` (its name without secrets) that took `took` and ended at `now`.
    pub fn pass(&self, repository: &str, pass: &Pass, took: Duration, now: Timestamp) {
        let of_repository = || vec![("repository", repository.to_owned())];
        let outcome = match (&pass.problem, &pass.head) {
            (None, _) => "done",
            (Some(_), Some(_)) => "blocked",
            (Some(_), None) => "unreachable",
        };
        let mut labels = of_repository();
        labels.push(("outcome", outcome.to_owned()));
        self.passes.get_or_create(&labels).inc();
        self.pass_seconds
            .get_or_create(&of_repository())
            .observe(took.as_secs_f64());
        let reached = pass.head.is_some();
        self.reachable
            .get_or_create(&of_repository())
            .set(i64::from(reached));
        if reached {
            // Seconds since the epoch fit into a float for the next million years.
            self.last_pass
                .get_or_create(&of_repository())
                .set(now.timestamp() as f64);
        }
        for (_, _, step) in pass.moves() {
            let verdict = step.judgement.as_ref();
            let verdict = verdict.map_or("none", |judgement| judgement.verdict.as_str());
            let kind = format!("{:?}", step.kind);
            self.transitions
                .get_or_create(&vec![("kind", kind), ("verdict", verdict.to_owned())])
                .inc();
        }
        if reached {
            self.canaries_of(repository, &pass.canaries);
        }
    }

    fn canaries_of(&self, repository: &str, reports: &[CanaryReport]) {
        for phase in ["Idle", "Progressing", "Draining", "Failed", "Invalid"] {
            let here = |report: &&CanaryReport| phase_of(report) == phase;
            let count = reports.iter().filter(here).count();
            self.canaries
                .get_or_create(&vec![
                    ("phase", phase.to_owned()),
                    ("repository", repository.to_owned()),
                ])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let mut shown = self
            .shown
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut before = std::mem::take(&mut *shown);
        for report in reports {
            let key = (repository.to_owned(), report.id.clone());
            let reason = report.waiting.reason();
            if let Some(old) = before.remove(&key)
                && (old != reason || phase_of(report) == "Idle")
            {
                self.waiting.remove(&waiting(&report.id, old));
            }
            if phase_of(report) == "Idle" {
                self.weight.remove(&canary(&report.id));
                continue;
            }
            self.waiting
                .get_or_create(&waiting(&report.id, reason))
                .set(1);
            self.weight
                .get_or_create(&canary(&report.id))
                .set(report.weight().percent().into());
            if reason == "PushRefused" {
                self.refusals
                    .get_or_create(&vec![("repository", repository.to_owned())])
                    .inc();
            }
            shown.insert(key, reason);
        }
        for ((theirs, id), reason) in before {
            if theirs == repository {
                self.waiting.remove(&waiting(&id, reason));
                self.weight.remove(&canary(&id));
            } else {
                shown.insert((theirs, id), reason);
            }
        }
    }

    /// Counts lost races since the last call.
    pub fn races(&self, repository: &str, lost: u64) {
        self.races
            .get_or_create(&vec![("repository", repository.to_owned())])
            .inc_by(lost);
    }

    /// An object reached the cluster this long after the push that holds it was accepted.
    pub fn applied(&self, after: Duration) {
        self.applied_seconds.observe(after.as_secs_f64());
    }

    /// An object of this kind was made equal to Git again.
    pub fn repaired(&self, kind: &str, what: Repair) {
        let what = match what {
            Repair::Deleted => "deleted",
            Repair::Edited => "edited",
        };
        self.repairs
            .get_or_create(&vec![("kind", kind.to_owned()), ("was", what.to_owned())])
            .inc();
    }

    /// A webhook came in.
    pub fn webhook(&self, delivery: Delivery) {
        let outcome = match delivery {
            Delivery::Accepted => "accepted",
            Delivery::Refused => "refused",
            Delivery::Unknown => "unknown",
        };
        self.webhooks
            .get_or_create(&vec![("outcome", outcome.to_owned())])
            .inc();
    }

    /// Whether this replica acts.
    pub fn leading(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Everything in the OpenMetrics text format.
    pub fn exposition(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn phase_of(report: &CanaryReport) -> &'static str {
    match &report.state {
        // An idle canary with something to say is shown until it is quiet.
        Some(state) if matches!(state.phase, Phase::Idle) => "Idle",
        state => state.as_ref().map_or("Invalid", State::phase_name),
    }
}

fn canary(id: &CanaryId) -> Labels {
    vec![
        ("namespace", id.namespace.clone()),
        ("canary", id.name.clone()),
    ]
}

fn waiting(id: &CanaryId, reason: &str) -> Labels {
    let mut labels = canary(id);
    labels.push(("reason", reason.to_owned()));
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CommitId;
    use crate::manifests::fixtures::{idle, rollout, state};
    use crate::progression::{Cause, Transition, TransitionKind, WaitingOn};
    use crate::spec::fixtures::managed;

    fn report(state: Option<State>, waiting: WaitingOn) -> CanaryReport {
        CanaryReport {
            id: managed().id,
            state,
            steps: 4,
            observed: None,
            moves: Vec::new(),
            planned: Vec::new(),
            waiting,
            judgement: None,
            diagnostics: Vec::new(),
            problem: None,
        }
    }

    fn pass(canaries: Vec<CanaryReport>) -> Pass {
        Pass {
            at: Timestamp::UNIX_EPOCH,
            head: Some(CommitId::new("abc")),
            canaries,
            elsewhere: std::sync::Arc::default(),
            mistakes: Vec::new(),
            problem: None,
            wake_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn lines(instruments: &Instruments, containing: &str) -> Vec<String> {
        let text = instruments.exposition();
        let found = text.lines().filter(|line| line.contains(containing));
        found
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }

    fn count(instruments: &Instruments, canaries: Vec<CanaryReport>) {
        let now = Timestamp::UNIX_EPOCH + chrono::TimeDelta::seconds(1_800);
        instruments.pass("apps", &pass(canaries), Duration::from_millis(3), now);
    }

    fn advance() -> Transition {
        Transition {
            kind: TransitionKind::Advance,
            from: crate::domain::Weight::ZERO,
            to: crate::domain::Weight::FULL,
            step: 1,
            steps: 1,
            candidate: None,
            cause: Cause::Rule("no hold".to_owned()),
            sentence: String::new(),
            judgement: None,
        }
    }

    #[test]
    fn a_canary_is_shown_while_it_moves() {
        let instruments = Instruments::new();
        let canary = managed();
        let moving = state(&canary, Phase::Progressing(rollout(&canary, 2, 10)));
        count(
            &instruments,
            vec![report(Some(moving), WaitingOn::Observation)],
        );
        assert_eq!(
            lines(&instruments, "canary=\"podinfo\""),
            [
                "serin_canary_weight_percent{namespace=\"test\",canary=\"podinfo\"} 10",
                "serin_canary_waiting{namespace=\"test\",canary=\"podinfo\",reason=\"NotObserved\"} 1",
            ]
        );
        count(
            &instruments,
            vec![report(Some(idle(&canary)), WaitingOn::Proposal)],
        );
        assert_eq!(lines(&instruments, "canary=\"podinfo\""), [""; 0]);
        count(
            &instruments,
            vec![report(None, WaitingOn::Spec("no".to_owned()))],
        );
        assert_eq!(lines(&instruments, "SpecInvalid").len(), 1);
        count(&instruments, Vec::new());
        assert_eq!(lines(&instruments, "canary=\"podinfo\""), [""; 0]);
    }

    #[test]
    fn passes_are_counted_by_outcome() {
        let instruments = Instruments::new();
        count(&instruments, Vec::new());
        let mut away = pass(Vec::new());
        away.head = None;
        away.problem = Some("gone".to_owned());
        let later = Timestamp::UNIX_EPOCH + chrono::TimeDelta::seconds(3_600);
        instruments.pass("apps", &away, Duration::from_secs(1), later);
        let mut seen = lines(&instruments, "serin_passes_total");
        seen.sort();
        assert_eq!(
            seen,
            [
                "serin_passes_total{repository=\"apps\",outcome=\"done\"} 1",
                "serin_passes_total{repository=\"apps\",outcome=\"unreachable\"} 1",
            ]
        );
        assert_eq!(
            lines(&instruments, "last_pass_timestamp"),
            ["serin_last_pass_timestamp_seconds{repository=\"apps\"} 1800.0"]
        );
        assert_eq!(
            lines(&instruments, "repository_reachable"),
            ["serin_repository_reachable{repository=\"apps\"} 0"]
        );
    }

    #[test]
    fn the_rest_is_counted_as_it_happens() {
        let instruments = Instruments::new();
        instruments.repaired("VirtualService", Repair::Edited);
        instruments.webhook(Delivery::Refused);
        instruments.leading(true);
        instruments.races("apps", 2);
        instruments.applied(Duration::from_millis(30));
        for expected in [
            "serin_drift_repaired_total{kind=\"VirtualService\",was=\"edited\"} 1",
            "serin_webhook_deliveries_total{outcome=\"refused\"} 1",
            "serin_leader 1",
            "serin_push_races_total{repository=\"apps\"} 2",
            "serin_commit_to_applied_seconds_count 1",
        ] {
            assert_eq!(lines(&instruments, expected).len(), 1, "{expected}");
        }
        let canary = managed();
        let moving = state(&canary, Phase::Progressing(rollout(&canary, 2, 10)));
        let refused = WaitingOn::PushRefused("no".to_owned());
        let mut report = report(Some(moving), refused);
        report.moves = vec![(CommitId::new("abc"), advance())];
        count(&instruments, vec![report]);
        let text = instruments.exposition();
        assert!(text.ends_with("# EOF\n"));
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let mut names: Vec<&str> = types.filter_map(|line| line.split(' ').next()).collect();
        names.sort_unstable();
        assert_eq!(names, NAMES);
    }
}
