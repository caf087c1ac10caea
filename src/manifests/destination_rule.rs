//! The `DestinationRule`: the subsets that routes may name.

use super::render::{metadata, object_of};
use super::subsets::Subsets;
use crate::domain::{CANARY_SUBSET, STABLE_SUBSET};
use crate::spec::{Labels, ValidatedCanary};
use crate::yaml::parts::Part;

/// The object; subsets that cannot be told apart are left out.
///
/// The host is the Service's short name. It resolves in the rule's namespace, which is the Service's, whatever the
/// domain of the cluster is; a full name would have to guess that domain.
pub(super) fn render<'a>(canary: &'a ValidatedCanary, subsets: &'a Subsets) -> Part<'a> {
    let route = &canary.route;
    let subset = |(name, labels): (&'static str, &'a Option<Labels>)| {
        let labels = labels.as_ref()?.iter();
        let labels = labels.map(|(key, value)| (key.as_str(), value.into()));
        let fields = [("name", name.into()), ("labels", Part::mapping(labels))];
        Some(Part::mapping(fields))
    };
    let known: Vec<Part<'_>> = [
        (STABLE_SUBSET, &subsets.stable),
        (CANARY_SUBSET, &subsets.canary),
    ]
    .into_iter()
    .filter_map(subset)
    .collect();
    let mut spec = vec![("host", (&route.service).into())];
    if !known.is_empty() {
        spec.push(("subsets", Part::List(known)));
    }
    spec.extend(
        route
            .traffic_policy
            .as_ref()
            .map(|policy| ("trafficPolicy", policy.into())),
    );
    if !route.export_to.is_empty() {
        spec.push(("exportTo", route.export_to.iter().collect()));
    }
    let metadata = metadata(canary, &canary.id.name, Vec::new(), Vec::new());
    object_of(
        "networking.istio.io/v1",
        "DestinationRule",
        metadata,
        Part::mapping(spec),
    )
}
