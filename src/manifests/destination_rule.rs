//! The `DestinationRule`: the subsets that routes may name.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::render::{metadata, object_of};
use super::subsets::Subsets;
use crate::domain::{CANARY_SUBSET, STABLE_SUBSET};
use crate::spec::ValidatedCanary;

/// The object; subsets that cannot be told apart are left out.
///
/// The host is the Service's short name. It resolves in the rule's namespace, which is the Service's, whatever the
/// domain of the cluster is; a full name would have to guess that domain.
pub(super) fn render(canary: &ValidatedCanary, subsets: &Subsets) -> Value {
    let mut spec = Map::new();
    spec.insert("host".to_owned(), json!(canary.route.service));
    let known: Vec<Value> = [
        (STABLE_SUBSET, &subsets.stable),
        (CANARY_SUBSET, &subsets.canary),
    ]
    .into_iter()
    .filter_map(|(name, labels)| Some(json!({"name": name, "labels": labels.as_ref()?})))
    .collect();
    if !known.is_empty() {
        spec.insert("subsets".to_owned(), Value::Array(known));
    }
    if let Some(policy) = &canary.route.traffic_policy {
        spec.insert("trafficPolicy".to_owned(), policy.clone());
    }
    if !canary.route.export_to.is_empty() {
        spec.insert("exportTo".to_owned(), json!(canary.route.export_to));
    }
    let metadata = metadata(canary, &canary.id.name, BTreeMap::new(), BTreeMap::new());
    object_of("networking.istio.io/v1", "DestinationRule", metadata, spec)
}
