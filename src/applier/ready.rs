//! Whether a Deployment runs what it is asked to, and why not, in the cluster's own words.

use serde_json::Value;

use super::object::text;
use crate::progression::Readiness;

/// What a live Deployment says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Counts the changes of its spec.
    pub generation: u64,
    /// Replicas that it is asked to have, whoever asks.
    pub replicas: u32,
    /// Whether it has them, all of the present template.
    pub readiness: Readiness,
    /// Labels of its pods, as a selector.
    pub selector: Box<str>,
    /// Whether there are pods that could say why it is not ready.
    pub has_pods: bool,
}

/// Words of containers that do not start by waiting longer.
const BROKEN: [&str; 7] = [
    "CrashLoopBackOff",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

impl Rollout {
    /// Reads a live Deployment.
    pub fn of(deployment: &Value) -> Self {
        let number = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_u64);
        let replicas = number("/spec/replicas").unwrap_or(1);
        let selector = deployment
            .pointer("/spec/selector/matchLabels")
            .and_then(Value::as_object);
        let selector = selector
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
        let selector: Vec<String> = selector.collect();
        Self {
            generation: number("/metadata/generation").unwrap_or_default(),
            replicas: u32::try_from(replicas).unwrap_or(u32::MAX),
            readiness: readiness(deployment, replicas),
            selector: selector.join(",").into(),
            has_pods: number("/status/replicas").is_some_and(|pods| pods > 0),
        }
    }
}

fn readiness(deployment: &Value, wanted: u64) -> Readiness {
    let name = text(deployment, "/metadata/name");
    let number = |pointer: &str| {
        let number = deployment.pointer(pointer).and_then(Value::as_u64);
        number.unwrap_or_default()
    };
    if number("/status/observedGeneration") < number("/metadata/generation") {
        return Readiness::NotReady(format!("Deployment {name} was changed just now"));
    }
    // A quota or an admission webhook refuses the pods: the words are the server's.
    if let Some(words) = condition(deployment, "ReplicaFailure", "True") {
        return Readiness::NotReady(words);
    }
    if let Some(words) = condition(deployment, "Progressing", "False") {
        return Readiness::Broken(words);
    }
    let (all, updated, available) = (
        number("/status/replicas"),
        number("/status/updatedReplicas"),
        number("/status/availableReplicas"),
    );
    if updated < wanted || available < wanted {
        let up = updated.min(available);
        return Readiness::NotReady(format!(
            "{up} of {wanted} pods of Deployment {name} are ready"
        ));
    }
    if all > updated {
        let old = all - updated;
        return Readiness::NotReady(format!("{old} old pods of Deployment {name} are ending"));
    }
    Readiness::Ready
}

/// Reason and message of a condition that has this status.
fn condition(object: &Value, kind: &str, status: &str) -> Option<String> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == kind && condition["status"] == status)?;
    Some(format!(
        "{}: {}",
        text(found, "/reason"),
        text(found, "/message")
    ))
}

/// Why pods are not ready, in the words of one of them: the worst first.
pub fn words_of_pods<'a>(pods: impl Iterator<Item = &'a Value>) -> Option<Readiness> {
    let mut unready = None;
    for pod in pods {
        let name = text(pod, "/metadata/name");
        let statuses = ["/status/initContainerStatuses", "/status/containerStatuses"];
        let containers = statuses
            .iter()
            .filter_map(|pointer| pod.pointer(pointer)?.as_array())
            .flatten();
        for container in containers {
            let reason = text(container, "/state/waiting/reason");
            if BROKEN.contains(&reason) {
                let message = text(container, "/state/waiting/message");
                let ended = text(container, "/lastState/terminated/reason");
                let code = container
                    .pointer("/lastState/terminated/exitCode")
                    .and_then(Value::as_i64);
                let last = code.map_or_else(String::new, |code| {
                    format!(" (it ended with exit code {code}: {ended})")
                });
                return Some(Readiness::Broken(format!(
                    "{reason}: {message}{last} in pod {name}"
                )));
            }
        }
        if let Some(words) = condition(pod, "PodScheduled", "False") {
            unready.get_or_insert(Readiness::NotReady(format!("{words} in pod {name}")));
        }
    }
    unready
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(status: Value) -> Value {
        json!({"metadata": {"name": "podinfo", "generation": 2}, "spec": {"replicas": 3}, "status": status})
    }

    #[test]
    fn readiness_is_what_kubectl_rollout_status_waits_for() {
        for (status, expected) in [
            (
                json!({}),
                "NotReady(\"Deployment podinfo was changed just now\")",
            ),
            (
                json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 2}),
                "NotReady(\"2 of 3 pods of Deployment podinfo are ready\")",
            ),
            (
                json!({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 3, "availableReplicas": 3}),
                "NotReady(\"1 old pods of Deployment podinfo are ending\")",
            ),
            (
                json!({"observedGeneration": 2, "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: few"}]}),
                "NotReady(\"FailedCreate: exceeded quota: few\")",
            ),
            (
                json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}]}),
                "Broken(\"ProgressDeadlineExceeded: timed out\")",
            ),
            (
                json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}),
                "Ready",
            ),
        ] {
            let found = Rollout::of(&deployment(status)).readiness;
            assert_eq!(format!("{found:?}"), expected);
        }
    }

    #[test]
    fn the_pods_own_words_are_told() {
        let pods = [
            json!({"metadata": {"name": "a"}, "status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]}}),
            json!({"metadata": {"name": "b"}, "status": {"containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}, "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}}),
        ];
        let words = words_of_pods(pods.iter());
        let expected = "CrashLoopBackOff: back-off 10s (it ended with exit code 1: Error) in pod b";
        assert_eq!(words, Some(Readiness::Broken(expected.to_owned())));
        let waiting = words_of_pods(pods[..1].iter());
        assert_eq!(
            waiting,
            Some(Readiness::NotReady(
                "Unschedulable: 0/3 nodes in pod a".to_owned()
            ))
        );
        assert_eq!(words_of_pods([].iter()), None);
    }
}
