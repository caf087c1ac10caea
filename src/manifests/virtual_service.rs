//! The `VirtualService`: named users first, weights last.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::affinity::{self, Cookie};
use super::matching::cross;
use super::render::{metadata, object_of};
use super::subsets::{Subsets, climbing};
use super::users::{conditions, matches_of};
use crate::domain::{CANARY_SUBSET, SEQUENCE_ANNOTATION, STABLE_SUBSET, Weight};
use crate::progression::{Rollout, State};
use crate::spec::{Protocol, ValidatedCanary};

/// Names of the generated HTTP routes, in their order.
pub(super) mod names {
    /// Named users, to the candidate.
    pub(in crate::manifests) const USERS: &str = "serin-users";
    /// Requests that the step's matches select, to the candidate.
    pub(in crate::manifests) const MATCHES: &str = "serin-matches";
    /// Clients that were given the candidate before.
    pub(in crate::manifests) const STICKY_CANARY: &str = "serin-sticky-canary";
    /// Clients that were given stable before.
    pub(in crate::manifests) const STICKY_STABLE: &str = "serin-sticky-stable";
    /// Clients whose cookie is over.
    pub(in crate::manifests) const FORGET: &str = "serin-forget";
    /// Everybody else.
    pub(in crate::manifests) const WEIGHTS: &str = "serin-weights";
}

/// Fields of a route that are never the user's: what a generated route says itself.
pub(super) const OWN_FIELDS: &[&str] = &[
    "name",
    "match",
    "route",
    "redirect",
    "directResponse",
    "delegate",
];

/// The object.
pub(super) fn render(canary: &ValidatedCanary, state: &State, subsets: &Subsets) -> Value {
    let route = &canary.route;
    let mut spec = Map::new();
    if !route.delegate {
        spec.insert("hosts".to_owned(), json!(route.hosts));
        if !route.gateways.is_empty() {
            spec.insert("gateways".to_owned(), json!(route.gateways));
        }
    }
    if !route.export_to.is_empty() {
        spec.insert("exportTo".to_owned(), json!(route.export_to));
    }
    let writer = Writer {
        canary,
        subsets,
        // Without a subset of its own a candidate cannot be reached.
        rollout: climbing(state).filter(|_| subsets.canary.is_some()),
    };
    let (protocol, routes) = match &route.protocol {
        Protocol::Http(fields) => ("http", writer.http(fields)),
        Protocol::Tcp(matches) => ("tcp", writer.layer4(matches)),
        Protocol::Tls(matches) => ("tls", writer.layer4(matches)),
    };
    spec.insert(protocol.to_owned(), Value::Array(routes));
    let number = (
        SEQUENCE_ANNOTATION.to_owned(),
        json!(state.sequence.to_string()),
    );
    let counter = BTreeMap::from([number]);
    let metadata = metadata(canary, &canary.id.name, BTreeMap::new(), counter);
    object_of("networking.istio.io/v1", "VirtualService", metadata, spec)
}

struct Writer<'a> {
    canary: &'a ValidatedCanary,
    subsets: &'a Subsets,
    /// The rollout whose candidate may be reached.
    rollout: Option<&'a Rollout>,
}

impl Writer<'_> {
    fn http(&self, fields: &Map<String, Value>) -> Vec<Value> {
        let base = matches_of(fields.get("match"));
        let reachable = self.rollout.is_some_and(Rollout::is_reachable);
        let users = if reachable {
            conditions(&self.canary.users)
        } else {
            Vec::new()
        };
        let mut routes = Vec::new();
        if let Some(rollout) = self.rollout {
            let to_canary = || vec![self.destination(CANARY_SUBSET, Weight::FULL)];
            for (name, selected) in [(names::USERS, &users), (names::MATCHES, &rollout.matches)] {
                routes.extend(self.matching(name, fields, selected, to_canary()));
            }
        }
        let cookie = self.sticky(fields, &mut routes);
        let weighted = self.weighted(cookie.as_ref());
        routes.push(self.route(names::WEIGHTS, fields, base, weighted));
        routes
    }

    /// The routes of session affinity; answers with the cookie that the weighted route has to give.
    fn sticky(&self, fields: &Map<String, Value>, routes: &mut Vec<Value>) -> Option<Cookie<'_>> {
        let affinity = self.canary.route.session_affinity.as_ref()?;
        let Some((rollout, cookie)) = self
            .rollout
            .and_then(|rollout| Some((rollout, Cookie::of(affinity, rollout)?)))
        else {
            let (condition, headers) = affinity::forget(affinity)?;
            let mut stable = self.destination(STABLE_SUBSET, Weight::FULL);
            stable["headers"] = headers;
            routes.extend(self.matching(names::FORGET, fields, &[condition], vec![stable]));
            return None;
        };
        let mut kept = vec![(names::STICKY_CANARY, CANARY_SUBSET)];
        if rollout.weight < Weight::FULL {
            kept.push((names::STICKY_STABLE, STABLE_SUBSET));
        }
        for (name, subset) in kept {
            let condition = cookie.condition(subset)?;
            let destination = self.destination(subset, Weight::FULL);
            routes.extend(self.matching(name, fields, &[condition], vec![destination]));
        }
        Some(cookie)
    }

    /// A route for the requests that meet one of `selected` as well as the base route's own matches; none when there
    /// are no such requests, because a route without a match is for everybody.
    fn matching(
        &self,
        name: &str,
        fields: &Map<String, Value>,
        selected: &[Value],
        destinations: Vec<Value>,
    ) -> Option<Value> {
        let matches = cross(&matches_of(fields.get("match")), selected);
        (!matches.is_empty()).then(|| self.route(name, fields, matches, destinations))
    }

    /// One HTTP route with every field of the base route.
    fn route(
        &self,
        name: &str,
        fields: &Map<String, Value>,
        matches: Vec<Value>,
        destinations: Vec<Value>,
    ) -> Value {
        let mut route: Map<String, Value> = fields
            .iter()
            .filter(|(key, _)| !OWN_FIELDS.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !matches!(name, names::USERS | names::MATCHES | names::STICKY_CANARY) {
            self.mirror(&mut route);
        }
        route.insert("name".to_owned(), json!(name));
        if !matches.is_empty() {
            route.insert("match".to_owned(), Value::Array(matches));
        }
        route.insert("route".to_owned(), Value::Array(destinations));
        Value::Object(route)
    }

    /// Copies requests to the candidate on a mirror step. Istio allows `mirror` or `mirrors`, not both.
    fn mirror(&self, route: &mut Map<String, Value>) {
        let Some(share) = self.rollout.and_then(|rollout| rollout.mirror) else {
            return;
        };
        let destination = self.target(Some(CANARY_SUBSET));
        let percentage = json!({"value": share.percent()});
        let mut others = matches_of(route.get("mirrors"));
        if let Some(users) = route.remove("mirror") {
            let percentage = route.remove("mirrorPercentage");
            others.push(match percentage {
                Some(percentage) => json!({"destination": users, "percentage": percentage}),
                None => json!({"destination": users}),
            });
        }
        if others.is_empty() {
            route.insert("mirror".to_owned(), destination);
            route.insert("mirrorPercentage".to_owned(), percentage);
        } else {
            others.push(json!({"destination": destination, "percentage": percentage}));
            route.insert("mirrors".to_owned(), Value::Array(others));
        }
    }

    /// The one TCP or TLS route.
    fn layer4(&self, matches: &[Value]) -> Vec<Value> {
        let mut route = Map::new();
        if !matches.is_empty() {
            route.insert("match".to_owned(), json!(matches));
        }
        route.insert("route".to_owned(), Value::Array(self.weighted(None)));
        vec![Value::Object(route)]
    }

    /// The destinations of the weighted route: both versions when they can be told apart, a weight of 0 included.
    fn weighted(&self, cookie: Option<&Cookie<'_>>) -> Vec<Value> {
        let weight = self.rollout.map_or(Weight::ZERO, |rollout| rollout.weight);
        let mut destinations = vec![(STABLE_SUBSET, weight.rest())];
        if self.subsets.canary.is_some() {
            destinations.push((CANARY_SUBSET, weight));
        }
        destinations
            .into_iter()
            .map(|(subset, weight)| {
                let mut destination = self.destination(subset, weight);
                if let Some(cookie) = cookie {
                    destination["headers"] = cookie.remember(subset);
                }
                destination
            })
            .collect()
    }

    fn destination(&self, subset: &str, weight: Weight) -> Value {
        let known = match subset {
            CANARY_SUBSET => self.subsets.canary.is_some(),
            _ => self.subsets.stable.is_some(),
        };
        let target = self.target(known.then_some(subset));
        Value::Object(Map::from_iter([
            ("destination".to_owned(), target),
            ("weight".to_owned(), weight.percent().into()),
        ]))
    }

    fn target(&self, subset: Option<&str>) -> Value {
        let mut target = json!({"host": self.canary.route.service});
        if let Some(subset) = subset {
            target["subset"] = json!(subset);
        }
        if let Some(port) = self.canary.route.port {
            target["port"] = json!({"number": port});
        }
        target
    }
}
