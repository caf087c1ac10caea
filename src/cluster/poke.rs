//! Tells Flux or Argo CD that there is something new, so that a step does not wait for their next poll.
//!
//! A poke is a courtesy: the agent would find the commit anyhow, so a failure is a warning and nothing more.

use std::time::Duration;

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::domain::{CommitId, Timestamp};

/// An object of an agent that is annotated after each push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agent {
    /// Flux: a source or a Kustomization, which reconciles when its annotation changes.
    Flux {
        /// `GitRepository`, `Kustomization` or `OCIRepository`.
        kind: FluxKind,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// An Argo CD Application, which refreshes when annotated.
    ArgoCd {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// Kinds of Flux that can be told to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FluxKind {
    /// What fetches.
    GitRepository,
    /// What applies.
    Kustomization,
}

impl Agent {
    /// Kind and place, for people.
    pub fn words(&self) -> String {
        let (resource, namespace, name) = self.target();
        format!("{} {namespace}/{name}", resource.kind)
    }

    fn target(&self) -> (ApiResource, &str, &str) {
        let (group, version, kind, namespace, name) = match self {
            Self::Flux {
                kind: FluxKind::GitRepository,
                namespace,
                name,
            } => (
                "source.toolkit.fluxcd.io",
                "v1",
                "GitRepository",
                namespace,
                name,
            ),
            Self::Flux {
                kind: FluxKind::Kustomization,
                namespace,
                name,
            } => (
                "kustomize.toolkit.fluxcd.io",
                "v1",
                "Kustomization",
                namespace,
                name,
            ),
            Self::ArgoCd { namespace, name } => {
                ("argoproj.io", "v1alpha1", "Application", namespace, name)
            }
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        (resource, namespace, name)
    }

    /// The annotation that makes the agent look.
    fn patch(&self, commit: &CommitId, now: Timestamp) -> Value {
        let annotation = match self {
            // Any new value counts; this one tells who asked and for what.
            Self::Flux { .. } => {
                let stamp = now.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
                json!({"reconcile.fluxcd.io/requestedAt": format!("{stamp} serin {}", commit.short())})
            }
            Self::ArgoCd { .. } => json!({"argocd.argoproj.io/refresh": "normal"}),
        };
        json!({"metadata": {"annotations": annotation}})
    }
}

/// Annotates one agent's object; the error is for people.
pub(super) async fn poke(
    client: kube::Client,
    agent: &Agent,
    commit: &CommitId,
    now: Timestamp,
    deadline: Duration,
) -> Result<(), String> {
    let (resource, namespace, name) = agent.target();
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
    let patch = agent.patch(commit, now);
    let parameters = PatchParams {
        field_manager: Some("serin/poke".to_owned()),
        ..PatchParams::default()
    };
    match timeout(
        deadline,
        api.patch_metadata(name, &parameters, &Patch::Merge(&patch)),
    )
    .await
    {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(super::call::words(&error)),
        Err(_) => Err("the cluster did not answer in time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_agent_has_its_annotation() {
        let commit = CommitId::new("00c0ffee00".repeat(4));
        let now = Timestamp::from_timestamp(1_800_000_000, 0).unwrap();
        let flux = Agent::Flux {
            kind: FluxKind::GitRepository,
            namespace: "flux-system".to_owned(),
            name: "apps".to_owned(),
        };
        assert_eq!(
            flux.patch(&commit, now).to_string(),
            r#"{"metadata":{"annotations":{"reconcile.fluxcd.io/requestedAt":"2027-01-15T08:00:00.000Z serin 00c0ffee00"}}}"#
        );
        assert_eq!(flux.words(), "GitRepository flux-system/apps");
        let argo = Agent::ArgoCd {
            namespace: "argocd".to_owned(),
            name: "apps".to_owned(),
        };
        assert_eq!(
            argo.patch(&commit, now).to_string(),
            r#"{"metadata":{"annotations":{"argocd.argoproj.io/refresh":"normal"}}}"#
        );
    }
}
