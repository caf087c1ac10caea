//! Canaries for tests, unit and integration: what a user's repository would be read as.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::canary::{
    Analysis, CanaryReplicas, Candidate, CandidateContent, Controls, Home, ImageSources, Labels,
    ManagedWorkload, OnFailure, OnInconclusive, Protocol, Reporter, Route, Rung, TwoVersions,
    UserRule, UserSource, ValidatedCanary, Version, Workload,
};
use crate::domain::{CanaryId, Manifest, RepoPath, Revision, TRACK_LABEL, Weight};

/// A weight; more than 100 counts as 100.
pub fn weight(percent: u64) -> Weight {
    Weight::new(percent).unwrap_or(Weight::FULL)
}

/// podinfo 6.8.0 in managed mode, 6.9.0 proposed, two named users, a ladder of 0, 10, 60 and 100 %.
pub fn managed() -> ValidatedCanary {
    let images = BTreeMap::from([("podinfod".to_owned(), "podinfo:6.9.0".to_owned())]);
    ValidatedCanary {
        id: CanaryId::new("test", "podinfo"),
        home: home(),
        workload: Workload::Managed(ManagedWorkload {
            deployment: "podinfo".to_owned(),
            manifest: Manifest::of(&deployment()),
            written_replicas: deployment()["spec"]["replicas"].as_u64(),
            file: path("apps/podinfo/deployment.yaml"),
            images: ImageSources::default(),
            label_key: TRACK_LABEL.to_owned(),
            stable_value: Some("stable".to_owned()),
            replicas: CanaryReplicas::Proportional,
        }),
        stable: version("podinfod=6.8.0"),
        proposal: Some(candidate(
            "podinfod=6.9.0",
            CandidateContent::Template {
                images,
                patch: None,
            },
        )),
        route: route("podinfo", 9898),
        users: users(),
        ladder: ladder(),
        ladder_revision: Revision::of(&json!([0, 10, 60, 100])),
        analysis: analysis(),
        controls: Controls::default(),
    }
}

/// bookinfo's reviews, v1 next to v2.
pub fn bring_your_own() -> ValidatedCanary {
    ValidatedCanary {
        id: CanaryId::new("bookinfo", "reviews"),
        workload: Workload::BringYourOwn(TwoVersions {
            stable: labels("version", "v1"),
            stable_deployments: vec!["reviews-v1".to_owned()],
            candidate_deployments: vec!["reviews-v2".to_owned()],
            files: Vec::new(),
        }),
        stable: version("version=v1"),
        proposal: Some(candidate(
            "version=v2",
            CandidateContent::Labels(labels("version", "v2")),
        )),
        route: route("reviews", 9080),
        ..managed()
    }
}

/// A candidate with this content.
pub fn candidate(summary: &str, content: CandidateContent) -> Candidate {
    Candidate {
        revision: Revision::of(&json!(["candidate", summary])),
        yields: Revision::of(&json!(["stable", summary])),
        summary: summary.to_owned(),
        content,
        older_than_stable: false,
    }
}

/// One label.
pub fn labels(key: &str, value: &str) -> Labels {
    Labels::from([(key.to_owned(), value.to_owned())])
}

/// `alexis` and `stefan` by header, `alexis` by cookie.
pub fn users() -> Vec<UserRule> {
    vec![
        UserRule {
            source: UserSource::Header("x-user".to_owned()),
            exact: vec!["alexis".to_owned(), "stefan".to_owned()],
        },
        UserRule {
            source: UserSource::Cookie("user".to_owned()),
            exact: vec!["alexis".to_owned()],
        },
    ]
}

fn home() -> Home {
    Home {
        file: path("apps/podinfo/canary.yaml"),
        folder: path("apps/podinfo/podinfo.serin"),
    }
}

#[expect(clippy::unwrap_used, reason = "the paths of this file are valid")]
fn path(text: &str) -> RepoPath {
    RepoPath::new(text).unwrap()
}

fn version(summary: &str) -> Version {
    Version {
        revision: Revision::of(&json!(["stable", summary])),
        summary: summary.to_owned(),
    }
}

fn route(service: &str, port: u16) -> Route {
    Route {
        service: service.to_owned(),
        port: Some(port),
        hosts: vec![service.to_owned()],
        gateways: Vec::new(),
        protocol: Protocol::Http(Map::new()),
        traffic_policy: None,
        delegate: false,
        session_affinity: None,
        export_to: Vec::new(),
    }
}

fn ladder() -> Vec<Rung> {
    let rung = |percent, approval| Rung {
        weight: weight(percent),
        hold: Duration::from_secs(60),
        approval,
        mirror: None,
        matches: Vec::new(),
    };
    vec![
        rung(0, true),
        rung(10, false),
        rung(60, false),
        rung(100, false),
    ]
}

fn analysis() -> Analysis {
    Analysis {
        every: Duration::from_secs(15),
        metrics: Vec::new(),
        on_failure: OnFailure::Rollback,
        on_inconclusive: OnInconclusive::Hold,
        deadline: None,
        alpha: 0.01,
        compare: true,
        skip: true,
        reporter: Reporter::Destination,
        counting: crate::spec::Counting::default(),
        counters: None,
        rule: crate::spec::Rule::Serin,
    }
}

/// Stable's manifest, with what `kubectl`, Helm and Flux leave behind.
fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "podinfo",
            "namespace": "test",
            "uid": "0b1a", "resourceVersion": "42", "generation": 3, "creationTimestamp": null, "managedFields": [],
            "labels": {
                "app": "podinfo", "app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": "podinfo-6.8.0",
            },
            "annotations": {
                "team": "web",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
                "meta.helm.sh/release-name": "podinfo",
                "kustomize.toolkit.fluxcd.io/prune": "disabled",
                "argocd.argoproj.io/tracking-id": "apps:apps/Deployment:test/podinfo",
            },
        },
        "spec": {
            "replicas": 5,
            "minReadySeconds": 3,
            "selector": {"matchLabels": {"app": "podinfo", TRACK_LABEL: "stable"}},
            "template": {
                "metadata": {"labels": {"app": "podinfo", TRACK_LABEL: "stable"}, "creationTimestamp": null},
                "spec": {"containers": [{"name": "podinfod", "image": "podinfo:6.8.0"}]},
            },
        },
        "status": {"replicas": 5},
    })
}
