//! Whether the mesh can find the pods of a Deployment, by the EndpointSlices of its Service.
//!
//! A Deployment is ready as soon as its pods are. The endpoints follow a moment later, after an outage of the API server much
//! later: meanwhile traffic for new pods finds nobody, and traffic for pods that are gone is lost.

use std::collections::BTreeSet;

use serde_json::Value;

use super::object::text;

/// The label that names the Service of an EndpointSlice.
pub const OF_SERVICE: &str = "kubernetes.io/service-name";
/// The label that names who writes an EndpointSlice, and what Kubernetes' own controller is called there.
const WRITTEN_BY: &str = "endpointslice.kubernetes.io~1managed-by";
const KUBERNETES: &str = "endpointslice-controller.k8s.io";

/// What the endpoints of a Service lack of a Deployment's pods; `None` when they are what they should be.
///
/// `pods` are those that the Deployment's selector finds, with their metadata at least; of the present template alone, as the
/// Deployment is ready. `slices` are the EndpointSlices of the Service.
pub fn lacking(
    deployment: &str,
    replicas: u32,
    service: &str,
    pods: &[Value],
    slices: &[Value],
) -> Option<String> {
    let written_by = format!("/metadata/labels/{WRITTEN_BY}");
    let by_hand = |slice: &Value| text(slice, &written_by) != KUBERNETES;
    if !slices.is_empty() && slices.iter().all(by_hand) {
        // The Service selects nothing: somebody else writes its endpoints, perhaps of no pods at all.
        return None;
    }
    let ready: BTreeSet<&str> = slices
        .iter()
        .filter_map(|slice| slice["endpoints"].as_array())
        .flatten()
        .filter(|endpoint| endpoint["conditions"]["ready"] != false)
        .map(|endpoint| text(endpoint, "/targetRef/name"))
        .collect();
    let own: BTreeSet<&str> = pods
        .iter()
        .filter(|pod| is_of(pod, deployment) && pod["metadata"]["deletionTimestamp"].is_null())
        .map(|pod| text(pod, "/metadata/name"))
        .collect();
    let listed = ready.intersection(&own).count();
    let wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
    if listed < wanted {
        return Some(format!(
            "{listed} of {wanted} pods of Deployment {deployment} are endpoints of Service {service}: the others get no \
             traffic (does its selector match them?)"
        ));
    }
    let mut gone = ready.difference(&own);
    let gone = gone.find(|name| is_named_for(name, deployment))?;
    Some(format!(
        "Service {service} still has pod {gone} as an endpoint, which is gone"
    ))
}

/// Whether a pod is the Deployment's: another one's pods may have the same labels and more.
fn is_of(pod: &Value, deployment: &str) -> bool {
    let hash = text(pod, "/metadata/labels/pod-template-hash");
    let owners = pod
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array);
    let mut owners = owners.into_iter().flatten();
    owners.any(|owner| {
        let name = text(owner, "/name").strip_prefix(deployment);
        let name = name.and_then(|name| name.strip_prefix('-'));
        owner["kind"] == "ReplicaSet" && name == Some(hash)
    })
}

/// Whether a pod has the name that those of a Deployment get: its own, the template's hash, and five characters.
fn is_named_for(pod: &str, deployment: &str) -> bool {
    let rest = pod
        .strip_prefix(deployment)
        .and_then(|rest| rest.strip_prefix('-'));
    rest.and_then(|rest| rest.split_once('-'))
        .is_some_and(|(_, last)| !last.contains('-'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(deployment: &str, hash: &str, end: &str) -> Value {
        json!({"metadata": {
            "name": format!("{deployment}-{hash}-{end}"),
            "labels": {"app": "podinfo", "pod-template-hash": hash},
            "ownerReferences": [{"kind": "ReplicaSet", "name": format!("{deployment}-{hash}")}],
        }})
    }

    fn slice(names: &[&str]) -> Value {
        let endpoint = |name: &&str| json!({"targetRef": {"kind": "Pod", "name": name}, "conditions": {"ready": true}});
        let endpoints: Vec<Value> = names.iter().map(endpoint).collect();
        json!({
            "metadata": {"labels": {"endpointslice.kubernetes.io/managed-by": KUBERNETES}},
            "endpoints": endpoints,
        })
    }

    fn found(pods: &[Value], slices: &[Value]) -> String {
        lacking("podinfo", 2, "web", pods, slices).unwrap_or_default()
    }

    #[test]
    fn every_pod_has_to_be_listed_and_none_that_is_gone() {
        let mut pods = vec![
            pod("podinfo", "new", "a"),
            pod("podinfo", "new", "b"),
            pod("podinfo-canary", "else", "c"),
        ];
        let canary = "podinfo-canary-else-c";
        assert_eq!(
            found(
                &pods,
                &[slice(&["podinfo-new-a", canary]), slice(&["podinfo-new-b"])]
            ),
            ""
        );
        assert_eq!(
            found(&pods, &[slice(&["podinfo-new-a", canary])]),
            "1 of 2 pods of Deployment podinfo are endpoints of Service web: the others get no traffic (does its selector \
             match them?)"
        );
        let old = slice(&["podinfo-new-a", "podinfo-old-z", "podinfo-new-b"]);
        assert_eq!(
            found(&pods, std::slice::from_ref(&old)),
            "Service web still has pod podinfo-old-z as an endpoint, which is gone"
        );
        let mut ending = old;
        ending["endpoints"][1]["conditions"]["ready"] = json!(false);
        assert_eq!(found(&pods, &[ending]), "");
        assert!(found(&pods, &[]).starts_with("0 of 2"));
        pods[1]["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(found(&pods, &[slice(&["podinfo-new-a", "podinfo-new-b"])]).starts_with("1 of 2"));
    }

    #[test]
    fn endpoints_that_somebody_writes_by_hand_are_their_business() {
        let mut by_hand = slice(&[]);
        by_hand["metadata"]["labels"] = json!({OF_SERVICE: "web"});
        let pods = [pod("podinfo", "new", "a")];
        assert_eq!(found(&pods, std::slice::from_ref(&by_hand)), "");
        // Where some are Kubernetes' own, the Service selects pods, and they have to be there.
        assert!(found(&pods, &[by_hand, slice(&[])]).starts_with("0 of 2"));
    }
}
