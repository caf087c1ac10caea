//! Canaries and states for tests, unit and integration: every shape that is rendered differently.

use std::time::Duration;

use serde_json::{Value, json};

use crate::domain::Weight;
use crate::progression::{Approval, DrainCause, Failure, Phase, Rollout, State};
use crate::spec::fixtures::{bring_your_own, labels, managed, weight};
use crate::spec::{
    CandidateContent, Protocol, SessionAffinity, TwoVersions, ValidatedCanary, Workload,
};

/// A canary in a state.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is special about it.
    pub name: String,
    /// The spec.
    pub canary: ValidatedCanary,
    /// The state.
    pub state: State,
}

/// A canary that idles.
pub fn idle(canary: &ValidatedCanary) -> State {
    let mut state = State::initial(canary.stable.clone());
    state.sequence = 7;
    state
}

/// The state of `canary` in this phase.
pub fn state(canary: &ValidatedCanary, phase: Phase) -> State {
    State {
        phase,
        ..idle(canary)
    }
}

/// The rollout of the proposal of `canary` at this step and weight; of nothing at all when nothing is proposed.
pub fn rollout(canary: &ValidatedCanary, step: u16, percent: u64) -> Rollout {
    let nothing = || {
        let content = CandidateContent::Labels(labels("version", "v0"));
        crate::spec::fixtures::candidate("nothing", content)
    };
    let start = crate::domain::Timestamp::UNIX_EPOCH;
    Rollout {
        candidate: canary.proposal.clone().unwrap_or_else(nothing).into(),
        step,
        weight: weight(percent),
        mirror: None,
        matches: Vec::new(),
        started: start,
        since: start,
        ladder: canary.ladder_revision.clone(),
        approval: Approval::NotNeeded,
        stable_replicas: None,
    }
}

/// The state of `canary` with its proposal at this step and weight.
pub fn progressing(canary: &ValidatedCanary, step: u16, percent: u64) -> State {
    state(canary, Phase::Progressing(rollout(canary, step, percent)))
}

/// Every combination of protocol, mode, phase, users, session affinity and delegation that Istio knows.
pub fn matrix() -> Vec<Case> {
    let mut cases = Vec::new();
    for (mode, canary) in modes() {
        for (protocol, fields) in protocols() {
            let http = matches!(fields, Protocol::Http(_));
            for options in 0..8_u8 {
                let has = |bit: u8| options & (1 << bit) != 0;
                let (users, sticky, delegate) = (has(0), has(1), has(2));
                if !http && options != 0 {
                    continue;
                }
                let mut canary = canary.clone();
                canary.route.protocol = fields.clone();
                if !users {
                    canary.users.clear();
                }
                canary.route.session_affinity = sticky.then(affinity);
                if delegate {
                    canary.route.delegate = true;
                    canary.route.hosts.clear();
                    canary.route.gateways.clear();
                }
                for (phase, state) in states(&canary) {
                    cases.push(Case {
                        name: format!(
                            "{mode}, {protocol}, {phase}, users {users}, sticky {sticky}, delegate {delegate}"
                        ),
                        canary: canary.clone(),
                        state,
                    });
                }
            }
        }
    }
    cases
}

/// Sticky sessions for a day.
pub fn affinity() -> SessionAffinity {
    SessionAffinity {
        cookie: "serin-session".to_owned(),
        max_age: Duration::from_secs(86_400),
    }
}

fn modes() -> Vec<(&'static str, ValidatedCanary)> {
    let mut rich = managed();
    rich.route.hosts = vec!["podinfo".to_owned(), "podinfo.example.com".to_owned()];
    rich.route.gateways = vec!["mesh".to_owned(), "istio-system/public".to_owned()];
    rich.route.export_to = vec![".".to_owned()];
    rich.route.traffic_policy = Some(json!({
        "loadBalancer": {"simple": "LEAST_REQUEST"},
        "outlierDetection": {"consecutive5xxErrors": 5, "baseEjectionTime": "30s"},
        "tls": {"mode": "ISTIO_MUTUAL"},
    }));
    let mut unlabelled = managed();
    if let Workload::Managed(workload) = &mut unlabelled.workload {
        workload.stable_value = None;
    }
    let mut nothing = bring_your_own();
    nothing.proposal = None;
    let mut promoted = bring_your_own();
    promoted.workload = Workload::BringYourOwn(TwoVersions {
        stable: labels("version", "v2"),
        stable_deployments: vec!["reviews-v2".to_owned()],
        candidate_deployments: Vec::new(),
        files: Vec::new(),
    });
    vec![
        ("managed", rich),
        ("managed without a label", unlabelled),
        ("bring your own", bring_your_own()),
        ("bring your own, nothing proposed", nothing),
        ("bring your own, promoted", promoted),
    ]
}

fn protocols() -> Vec<(&'static str, Protocol)> {
    let fields = |value: Value| match value {
        Value::Object(fields) => Protocol::Http(fields),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Protocol::Http(serde_json::Map::new())
        }
    };
    vec![
        ("http", fields(json!({}))),
        ("rich http", fields(rich_http())),
        ("tcp", Protocol::Tcp(Vec::new())),
        ("tcp by port", Protocol::Tcp(vec![json!({"port": 9898})])),
        (
            "tls",
            Protocol::Tls(vec![
                json!({"sniHosts": ["podinfo.example.com"], "port": 443}),
            ]),
        ),
    ]
}

/// Every field that Istio lets a route carry next to its destinations.
pub fn rich_http() -> Value {
    json!({
        "match": [
            {"uri": {"prefix": "/api"}, "headers": {"x-user": {"prefix": "al"}}},
            {"uri": {"exact": "/health"}, "ignoreUriCase": true},
        ],
        "timeout": "5s",
        "retries": {"attempts": 2, "perTryTimeout": "1s", "retryOn": "5xx"},
        "rewrite": {"uri": "/"},
        "headers": {"request": {"set": {"x-route": "serin"}}, "response": {"remove": ["server"]}},
        "corsPolicy": {"allowOrigins": [{"exact": "https://example.com"}], "maxAge": "24h"},
        "fault": {"delay": {"percentage": {"value": 0.1}, "fixedDelay": "5s"}},
        "mirror": {"host": "recorder"},
        "mirrorPercentage": {"value": 5.0},
    })
}

fn states(canary: &ValidatedCanary) -> Vec<(&'static str, State)> {
    let mut mirroring = rollout(canary, 1, 0);
    mirroring.mirror = Some(weight(25));
    let mut by_match = rollout(canary, 1, 0);
    by_match.matches = vec![
        json!({"headers": {"x-canary": {"exact": "always"}}}),
        json!({"queryParams": {"beta": {"regex": "1|true"}}, "sourceLabels": {"app": "web"}}),
    ];
    let failure = Failure {
        candidate: rollout(canary, 0, 0).candidate.revision.clone(),
        summary: "podinfod=6.9.0".to_owned(),
        at: crate::domain::Timestamp::UNIX_EPOCH,
        reason: "success rate 91% is below 99%".to_owned(),
    };
    let drained = |step| Rollout {
        weight: Weight::ZERO,
        ..rollout(canary, step, 0)
    };
    vec![
        ("idle", idle(canary)),
        ("preparing", progressing(canary, 0, 0)),
        ("users only", progressing(canary, 1, 0)),
        ("10 %", progressing(canary, 2, 10)),
        ("100 %", progressing(canary, 4, 100)),
        ("mirror", state(canary, Phase::Progressing(mirroring))),
        ("matches", state(canary, Phase::Progressing(by_match))),
        (
            "rolling back",
            state(
                canary,
                Phase::Draining(drained(2), DrainCause::RolledBack(failure.clone())),
            ),
        ),
        (
            "promoted",
            state(canary, Phase::Draining(drained(4), DrainCause::Promoted)),
        ),
        ("failed", state(canary, Phase::Failed(failure))),
    ]
}
