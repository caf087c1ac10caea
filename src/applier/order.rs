//! In which order objects are made, and in reverse removed; which subsets routes name and rules have.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::key::Kind;

/// A place in the order; lower ones come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Namespaces.
    Namespace,
    /// Definitions of kinds.
    Definition,
    /// Accounts, rights, limits, configuration: what workloads need to start.
    Configuration,
    /// Services, and every kind that is not named here.
    Service,
    /// Subsets, which routes name.
    DestinationRule,
    /// Whatever runs pods.
    Workload,
    /// Routes: when everything they lead to is there.
    VirtualService,
    /// Webhooks and API services, which can stand in the way of all others.
    Admission,
}

/// Where objects of this kind stand.
pub fn tier(kind: &Kind) -> Tier {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Namespace") => Tier::Namespace,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => Tier::Definition,
        (
            "",
            "ServiceAccount"
            | "ConfigMap"
            | "Secret"
            | "ResourceQuota"
            | "LimitRange"
            | "PersistentVolume"
            | "PersistentVolumeClaim",
        )
        | ("rbac.authorization.k8s.io" | "storage.k8s.io" | "scheduling.k8s.io", _)
        | ("networking.k8s.io", "NetworkPolicy" | "IngressClass") => Tier::Configuration,
        ("networking.istio.io", "DestinationRule") => Tier::DestinationRule,
        ("networking.istio.io", "VirtualService") => Tier::VirtualService,
        ("apps" | "batch" | "autoscaling" | "policy", _)
        | ("", "Pod" | "ReplicationController") => Tier::Workload,
        ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => Tier::Admission,
        _ => Tier::Service,
    }
}

/// Kinds of objects that belong to no namespace, among those that every cluster has.
pub fn is_cluster_scoped(kind: &Kind) -> bool {
    match kind.group.as_str() {
        "" => matches!(
            kind.kind.as_str(),
            "Namespace" | "Node" | "PersistentVolume"
        ),
        "rbac.authorization.k8s.io" => {
            matches!(kind.kind.as_str(), "ClusterRole" | "ClusterRoleBinding")
        }
        "networking.k8s.io" => kind.kind == "IngressClass",
        "storage.k8s.io" => kind.kind != "CSIStorageCapacity",
        "apiextensions.k8s.io"
        | "scheduling.k8s.io"
        | "admissionregistration.k8s.io"
        | "apiregistration.k8s.io"
        | "node.k8s.io" => true,
        _ => false,
    }
}

/// Kinds of which all objects are watched, whoever made them: subsets, readiness, what is about to be taken over. Of
/// other kinds only what is ours.
pub fn is_watched_whole(kind: &Kind) -> bool {
    kind.is("", "Namespace")
        || kind.is("apps", "Deployment")
        || kind.is("networking.istio.io", "DestinationRule")
        || kind.is("networking.istio.io", "VirtualService")
        || kind.is("apiextensions.k8s.io", "CustomResourceDefinition")
}

/// Subsets by host that a VirtualService leads to.
pub fn subsets_named(virtual_service: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    if let Some(spec) = virtual_service.get("spec") {
        destinations(spec, &mut found);
    }
    found
}

fn destinations(value: &Value, found: &mut BTreeMap<String, BTreeSet<String>>) {
    match value {
        Value::Object(fields) => {
            let text = |key: &str| fields.get(key).and_then(Value::as_str);
            if let (Some(host), Some(subset)) = (text("host"), text("subset")) {
                let subsets: &mut BTreeSet<String> = found.entry(host.to_owned()).or_default();
                subsets.insert(subset.to_owned());
            }
            fields.values().for_each(|value| destinations(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| destinations(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Hosts that a VirtualService routes inside of the mesh. At a gateway several may share a host; in the mesh one wins.
pub fn mesh_hosts(virtual_service: &Value) -> BTreeSet<String> {
    let texts = |pointer: &str| {
        let list = virtual_service.pointer(pointer).and_then(Value::as_array);
        let texts = list.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let gateways = texts("/spec/gateways");
    if gateways.is_empty() || gateways.contains("mesh") {
        texts("/spec/hosts")
    } else {
        BTreeSet::new()
    }
}

/// Host and subsets of a DestinationRule.
pub fn subsets_had(destination_rule: &Value) -> (String, BTreeSet<String>) {
    let host = super::object::text(destination_rule, "/spec/host").to_owned();
    let names = destination_rule
        .pointer("/spec/subsets")
        .and_then(Value::as_array);
    let names = names
        .into_iter()
        .flatten()
        .filter_map(|subset| subset.get("name")?.as_str())
        .map(str::to_owned)
        .collect();
    (host, names)
}

/// A host as a VirtualService or DestinationRule of this namespace names it, in full: `podinfo` is
/// `podinfo.test.svc.cluster.local`. Other names, with dots, stay what they are.
pub fn full_host(host: &str, namespace: &str) -> String {
    let mut parts = host.split('.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => format!("{name}.{namespace}.svc.cluster.local"),
        (Some(name), Some(other), Some("svc")) if host.split('.').count() == 3 => {
            format!("{name}.{other}.svc.cluster.local")
        }
        _ => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn routes_come_last_and_what_they_need_first() {
        let kinds = [
            ("v1", "Namespace"),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
            ("v1", "ServiceAccount"),
            ("v1", "Service"),
            ("networking.istio.io/v1", "DestinationRule"),
            ("apps/v1", "Deployment"),
            ("networking.istio.io/v1", "VirtualService"),
        ];
        let tiers: Vec<Tier> = kinds.iter().map(|(v, k)| tier(&Kind::of(v, k))).collect();
        assert!(tiers.windows(2).all(|pair| pair[0] < pair[1]), "{tiers:?}");
    }

    #[test]
    fn subsets_are_found_wherever_a_route_leads() {
        let routes = json!({"spec": {
            "http": [
                {"match": [{"headers": {"x-user": {"exact": "a"}}}], "route": [{"destination": {"host": "a", "subset": "canary"}}]},
                {"mirror": {"host": "b", "subset": "shadow"}, "route": [{"destination": {"host": "a", "subset": "stable"}}]},
            ],
            "tcp": [{"route": [{"destination": {"host": "c"}}]}],
        }});
        let named = subsets_named(&routes);
        assert_eq!(
            format!("{named:?}"),
            r#"{"a": {"canary", "stable"}, "b": {"shadow"}}"#
        );
    }

    #[test]
    fn hosts_are_compared_in_full() {
        for (host, full) in [
            ("podinfo", "podinfo.test.svc.cluster.local"),
            ("podinfo.other.svc", "podinfo.other.svc.cluster.local"),
            (
                "podinfo.test.svc.cluster.local",
                "podinfo.test.svc.cluster.local",
            ),
            ("example.com", "example.com"),
        ] {
            assert_eq!(full_host(host, "test"), full);
        }
    }
}
