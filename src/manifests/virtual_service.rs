//! The `VirtualService`: named users first, weights last.

use serde_json::{Map, Value};

use super::affinity::{self, Cookie};
use super::matching::cross;
use super::render::{Entries, metadata, object_of};
use super::subsets::{Subsets, climbing};
use super::users::{conditions, matches_of};
use crate::domain::{CANARY_SUBSET, SEQUENCE_ANNOTATION, STABLE_SUBSET, Weight};
use crate::progression::{Rollout, State};
use crate::spec::{Protocol, ValidatedCanary};
use crate::yaml::parts::Part;

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
pub(super) fn render<'a>(
    canary: &'a ValidatedCanary,
    state: &'a State,
    subsets: &'a Subsets,
) -> Part<'a> {
    let route = &canary.route;
    let mut spec: Entries<'_> = Vec::new();
    if !route.delegate {
        spec.push(("hosts".into(), route.hosts.iter().collect()));
        if !route.gateways.is_empty() {
            spec.push(("gateways".into(), route.gateways.iter().collect()));
        }
    }
    if !route.export_to.is_empty() {
        spec.push(("exportTo".into(), route.export_to.iter().collect()));
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
    spec.push((protocol.into(), Part::List(routes)));
    let number = state.sequence.to_string();
    let counter = vec![(SEQUENCE_ANNOTATION.into(), number.into())];
    let metadata = metadata(canary, &canary.id.name, Vec::new(), counter);
    object_of(
        "networking.istio.io/v1",
        "VirtualService",
        metadata,
        Part::mapping(spec),
    )
}

struct Writer<'a> {
    canary: &'a ValidatedCanary,
    subsets: &'a Subsets,
    /// The rollout whose candidate may be reached.
    rollout: Option<&'a Rollout>,
}

impl<'a> Writer<'a> {
    fn http(&self, fields: &'a Map<String, Value>) -> Vec<Part<'a>> {
        let base = matches_of(fields.get("match"));
        let reachable = self.rollout.is_some_and(Rollout::is_reachable);
        let users = if reachable {
            conditions(&self.canary.users)
        } else {
            Vec::new()
        };
        let mut routes = Vec::new();
        if let Some(rollout) = self.rollout {
            let to_canary = || vec![self.destination(CANARY_SUBSET, Weight::FULL, None)];
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
    fn sticky(
        &self,
        fields: &'a Map<String, Value>,
        routes: &mut Vec<Part<'a>>,
    ) -> Option<Cookie<'a>> {
        let affinity = self.canary.route.session_affinity.as_ref()?;
        let Some((rollout, cookie)) = self
            .rollout
            .and_then(|rollout| Some((rollout, Cookie::of(affinity, rollout)?)))
        else {
            let (condition, headers) = affinity::forget(affinity)?;
            let stable = self.destination(STABLE_SUBSET, Weight::FULL, Some(headers));
            routes.extend(self.matching(names::FORGET, fields, &[condition], vec![stable]));
            return None;
        };
        let mut kept = vec![(names::STICKY_CANARY, CANARY_SUBSET)];
        if rollout.weight < Weight::FULL {
            kept.push((names::STICKY_STABLE, STABLE_SUBSET));
        }
        for (name, subset) in kept {
            let condition = cookie.condition(subset)?;
            let destination = self.destination(subset, Weight::FULL, None);
            routes.extend(self.matching(name, fields, &[condition], vec![destination]));
        }
        Some(cookie)
    }

    /// A route for the requests that meet one of `selected` as well as the base route's own matches; none when there
    /// are no such requests, because a route without a match is for everybody.
    fn matching(
        &self,
        name: &'static str,
        fields: &'a Map<String, Value>,
        selected: &[Value],
        destinations: Vec<Part<'a>>,
    ) -> Option<Part<'a>> {
        let matches = cross(&matches_of(fields.get("match")), selected);
        (!matches.is_empty()).then(|| self.route(name, fields, matches, destinations))
    }

    /// One HTTP route with every field of the base route.
    fn route(
        &self,
        name: &'static str,
        fields: &'a Map<String, Value>,
        matches: Vec<Value>,
        destinations: Vec<Part<'a>>,
    ) -> Part<'a> {
        let mut route: Entries<'a> = fields
            .iter()
            .filter(|(key, _)| !OWN_FIELDS.contains(&key.as_str()))
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        if !matches!(name, names::USERS | names::MATCHES | names::STICKY_CANARY) {
            self.mirror(fields, &mut route);
        }
        route.push(("name".into(), name.into()));
        if !matches.is_empty() {
            route.push(("match".into(), matches.into_iter().collect()));
        }
        route.push(("route".into(), Part::List(destinations)));
        Part::mapping(route)
    }

    /// Copies requests to the candidate on a mirror step. Istio allows `mirror` or `mirrors`, not both.
    fn mirror(&self, fields: &'a Map<String, Value>, route: &mut Entries<'a>) {
        let Some(share) = self.rollout.and_then(|rollout| rollout.mirror) else {
            return;
        };
        route.retain(|(key, _)| key != "mirror");
        let destination = self.target(Some(CANARY_SUBSET));
        let percentage = Part::mapping([("value", share.percent().into())]);
        let of = |destination: Part<'a>, percentage: Option<Part<'a>>| {
            let percentage = percentage.map(|share| ("percentage", share));
            Part::mapping([("destination", destination)].into_iter().chain(percentage))
        };
        let mut others: Vec<Part<'_>> = match fields.get("mirrors").and_then(Value::as_array) {
            Some(mirrors) => mirrors.iter().map(Part::from).collect(),
            None => Vec::new(),
        };
        if let Some(users) = fields.get("mirror") {
            route.retain(|(key, _)| key != "mirrorPercentage");
            let percentage = fields.get("mirrorPercentage").map(Part::from);
            others.push(of(users.into(), percentage));
        }
        if others.is_empty() {
            route.push(("mirror".into(), destination));
            route.push(("mirrorPercentage".into(), percentage));
        } else {
            others.push(of(destination, Some(percentage)));
            route.push(("mirrors".into(), Part::List(others)));
        }
    }

    /// The one TCP or TLS route.
    fn layer4(&self, matches: &'a [Value]) -> Vec<Part<'a>> {
        let weighted = Part::List(self.weighted(None));
        let matches = (!matches.is_empty()).then(|| ("match", matches.iter().collect()));
        let route = matches.into_iter().chain([("route", weighted)]);
        vec![Part::mapping(route)]
    }

    /// The destinations of the weighted route: both versions when they can be told apart, a weight of 0 included.
    fn weighted(&self, cookie: Option<&Cookie<'_>>) -> Vec<Part<'a>> {
        let weight = self.rollout.map_or(Weight::ZERO, |rollout| rollout.weight);
        let mut destinations = vec![(STABLE_SUBSET, weight.rest())];
        if self.subsets.canary.is_some() {
            destinations.push((CANARY_SUBSET, weight));
        }
        destinations
            .into_iter()
            .map(|(subset, weight)| {
                let headers = cookie.map(|cookie| cookie.remember(subset));
                self.destination(subset, weight, headers)
            })
            .collect()
    }

    fn destination(
        &self,
        subset: &'static str,
        weight: Weight,
        headers: Option<Value>,
    ) -> Part<'a> {
        let known = match subset {
            CANARY_SUBSET => self.subsets.canary.is_some(),
            _ => self.subsets.stable.is_some(),
        };
        let fields = [
            ("destination", self.target(known.then_some(subset))),
            ("weight", weight.percent().into()),
        ];
        let headers = headers.map(|headers| ("headers", headers.into()));
        Part::mapping(fields.into_iter().chain(headers))
    }

    fn target(&self, subset: Option<&'static str>) -> Part<'a> {
        let route = &self.canary.route;
        let host = ("host", (&route.service).into());
        let subset = subset.map(|subset| ("subset", subset.into()));
        let port = route
            .port
            .map(|port| ("port", Part::mapping([("number", port.into())])));
        Part::mapping([host].into_iter().chain(subset).chain(port))
    }
}
