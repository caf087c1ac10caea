//! What a person made of the weights in a rendered `VirtualService`.

use serde_json::Value;

use super::virtual_service::names;
use crate::domain::{CANARY_SUBSET, STABLE_SUBSET, Weight};
use crate::spec::{Protocol, ValidatedCanary};

/// The candidate's weight as the weighted route of `virtual_service` says, which people may have edited.
///
/// `None` when there is no such route, when it names anything but the two subsets of the canary's Service, or when its
/// weights are no whole numbers that sum to 100.
pub fn routed_weight(virtual_service: &Value, canary: &ValidatedCanary) -> Option<Weight> {
    let protocol = match &canary.route.protocol {
        Protocol::Http(_) => "http",
        Protocol::Tcp(_) => "tcp",
        Protocol::Tls(_) => "tls",
    };
    let route = weighted_route(virtual_service, protocol)?;
    let ours = |target: &Value| {
        target.pointer("/destination/host").and_then(Value::as_str) == Some(&canary.route.service)
    };
    if !destinations(route)?.iter().all(ours) {
        return None;
    }
    candidate_weight(route)
}

/// The candidate's weight in `edited`, when `edited` differs from `ours` in the weights of the weighted route and in
/// nothing else; the order of the destinations does not count.
pub fn differs_only_in_weights(edited: &Value, ours: &Value) -> Option<Weight> {
    let protocol = ["http", "tcp", "tls"]
        .into_iter()
        .find(|protocol| weighted_route(ours, protocol).is_some())?;
    if without_weights(edited, protocol)? != without_weights(ours, protocol)? {
        return None;
    }
    let weight = candidate_weight(weighted_route(edited, protocol)?)?;
    let before = candidate_weight(weighted_route(ours, protocol)?);
    (before != Some(weight)).then_some(weight)
}

fn weighted_index(virtual_service: &Value, protocol: &str) -> Option<usize> {
    let routes = virtual_service.get("spec")?.get(protocol)?.as_array()?;
    if protocol == "http" {
        let named =
            |route: &Value| route.get("name").and_then(Value::as_str) == Some(names::WEIGHTS);
        return routes.iter().position(named);
    }
    (routes.len() == 1).then_some(0)
}

fn weighted_route<'a>(virtual_service: &'a Value, protocol: &str) -> Option<&'a Value> {
    let index = weighted_index(virtual_service, protocol)?;
    virtual_service.get("spec")?.get(protocol)?.get(index)
}

fn destinations(route: &Value) -> Option<&Vec<Value>> {
    route.get("route")?.as_array()
}

/// The same object with no weight in the weighted route, its destinations in a fixed order.
fn without_weights(virtual_service: &Value, protocol: &str) -> Option<Value> {
    let index = weighted_index(virtual_service, protocol)?;
    let mut bare = virtual_service.clone();
    let targets = bare
        .get_mut("spec")?
        .get_mut(protocol)?
        .get_mut(index)?
        .get_mut("route")?
        .as_array_mut()?;
    for target in targets.iter_mut() {
        target.as_object_mut()?.remove("weight");
    }
    targets.sort_by_cached_key(Value::to_string);
    Some(bare)
}

fn candidate_weight(route: &Value) -> Option<Weight> {
    let targets = destinations(route)?;
    let (mut stable, mut canary) = (0_u64, 0_u64);
    for target in targets {
        let weight = match target.get("weight") {
            Some(weight) => weight.as_u64()?,
            // Istio's default is 0, and all for a sole destination.
            None if targets.len() == 1 => 100,
            None => 0,
        };
        let side = match target.pointer("/destination/subset")?.as_str()? {
            CANARY_SUBSET => &mut canary,
            STABLE_SUBSET => &mut stable,
            _ => return None,
        };
        *side = side.checked_add(weight)?;
    }
    if stable.checked_add(canary)? != 100 {
        return None;
    }
    Weight::new(canary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    use crate::spec::fixtures::managed;

    fn service(stable: Value, canary: Value) -> Value {
        json!({"spec": {"http": [
            {"name": "serin-users", "route": [{"destination": {"host": "podinfo", "subset": "canary"}}]},
            {"name": "serin-weights", "timeout": "5s", "route": [
                {"destination": {"host": "podinfo", "subset": "stable"}, "weight": stable},
                {"destination": {"host": "podinfo", "subset": "canary"}, "weight": canary},
            ]},
        ]}})
    }

    fn check(edited: &Value, read: Option<u64>, only_weights: bool) {
        let ours = service(json!(90), json!(10));
        let read = read.and_then(Weight::new);
        assert_eq!(routed_weight(edited, &managed()), read, "{edited}");
        let expected = read.filter(|_| only_weights);
        assert_eq!(differs_only_in_weights(edited, &ours), expected, "{edited}");
    }

    #[test]
    fn edited_weights_are_read() {
        check(&service(json!(40), json!(60)), Some(60), true);
        check(&service(json!(100), json!(0)), Some(0), true);
        check(&service(json!(90), json!(10)), Some(10), false);
    }

    #[test]
    fn what_cannot_be_adopted_is_not_read() {
        check(&service(json!(40), json!(50)), None, false);
        check(&service(json!(-10), json!(110)), None, false);
        check(&service(json!(40.5), json!(59.5)), None, false);
        check(&service(json!("40"), json!("60")), None, false);
        check(&service(json!(u64::MAX), json!(101)), None, false);
        check(&json!({}), None, false);
        let mut elsewhere = service(json!(40), json!(60));
        elsewhere["spec"]["http"][1]["route"][1]["destination"]["host"] = json!("other");
        check(&elsewhere, None, false);
    }

    #[test]
    fn order_and_omitted_zeros_do_not_count() {
        let mut swapped = service(json!(40), json!(60));
        let targets = swapped["spec"]["http"][1]["route"].as_array_mut().unwrap();
        targets.reverse();
        check(&swapped, Some(60), true);
        let mut omitted = service(json!(0), json!(100));
        let target = &mut omitted["spec"]["http"][1]["route"][0];
        target.as_object_mut().unwrap().remove("weight");
        check(&omitted, Some(100), true);
    }

    #[test]
    fn another_edit_next_to_the_weights_is_told_apart() {
        let mut edited = service(json!(40), json!(60));
        edited["spec"]["http"][1]["timeout"] = json!("6s");
        check(&edited, Some(60), false);
        let mut users = service(json!(40), json!(60));
        users["spec"]["http"][0]["route"][0]["weight"] = json!(50);
        check(&users, Some(60), false);
    }
}
