//! The route.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::mistake::{Mistakes, listed, nearest, quoted, suggestion};
use super::super::names::{is_dns_label, is_gateway, is_host, is_token};
use super::super::{Protocol, Route, SessionAffinity, duration};
use super::{RoutePlaces, part};
use crate::crd::{RouteSpec, SessionAffinitySpec};
use crate::yaml::node::Node;

/// How long a client stays on its version when the spec does not say.
const DEFAULT_MAX_AGE: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// Fields of Istio's `HTTPRoute` that users set.
const HTTP_FIELDS: [&str; 8] = [
    "name",
    "match",
    "rewrite",
    "timeout",
    "retries",
    "fault",
    "corsPolicy",
    "headers",
];
/// Fields of Istio's `HTTPRoute` that decide where requests go, which is Serin's to say.
const HTTP_RESERVED: [&str; 9] = [
    "route",
    "redirect",
    "directResponse",
    "delegate",
    "mirror",
    "mirrors",
    "mirrorPercent",
    "mirrorPercentage",
    "mirror_percent",
];
/// Fields of Istio's `HTTPMatchRequest` that narrow down which requests match.
const MATCH_CONDITIONS: [&str; 11] = [
    "uri",
    "scheme",
    "method",
    "authority",
    "headers",
    "port",
    "sourceLabels",
    "gateways",
    "queryParams",
    "withoutHeaders",
    "sourceNamespace",
];
/// Its other fields.
const MATCH_OTHERS: [&str; 3] = ["name", "ignoreUriCase", "statPrefix"];
/// Fields of Istio's `L4MatchAttributes` and `TLSMatchAttributes`.
const L4_MATCH: [&str; 6] = [
    "sniHosts",
    "destinationSubnets",
    "port",
    "sourceLabels",
    "gateways",
    "sourceNamespace",
];
/// Fields of Istio's `TrafficPolicy`.
const TRAFFIC_POLICY: [&str; 8] = [
    "loadBalancer",
    "connectionPool",
    "outlierDetection",
    "tls",
    "portLevelSettings",
    "tunnel",
    "proxyProtocol",
    "retryBudget",
];

/// Reads `route`.
pub(super) fn read(spec: &Node, mistakes: &mut Mistakes) -> Option<(Route, RoutePlaces)> {
    let node = spec.get("route")?;
    let protocol = protocol(node, mistakes);
    check_hosts(node, mistakes);
    check_gateways(node, mistakes);
    if let Some(policy) = node.get("trafficPolicy") {
        check_istio_fields(
            policy,
            &TRAFFIC_POLICY,
            "`spec.route.trafficPolicy`",
            mistakes,
        );
    }
    let affinity = session_affinity(node, &protocol, mistakes);
    let route: RouteSpec = part(Some(node))?;
    let service = node.get("service")?;
    if !route.service.is_empty() && !is_dns_label(&route.service) {
        mistakes.error(
            service,
            format!(
                "`spec.route.service` is {}, expected the name of a Service in this namespace",
                quoted(&route.service)
            ),
        );
    }
    let delegate = route.delegate.unwrap_or(false);
    if delegate {
        check_delegate(node, &protocol, mistakes);
    }
    let hosts = match route.hosts {
        Some(hosts) => hosts,
        None if delegate => Vec::new(),
        None => vec![route.service.clone()],
    };
    let places = RoutePlaces {
        service: service.into(),
        port: node.get("port").map(Into::into),
        hosts: node.get("hosts").unwrap_or(service).into(),
    };
    Some((
        Route {
            service: route.service,
            port: route.port,
            hosts,
            gateways: route.gateways.unwrap_or_default(),
            protocol: protocol?,
            traffic_policy: route.traffic_policy.map(Value::Object),
            delegate,
            session_affinity: affinity,
            export_to: route.export_to.unwrap_or_default(),
        },
        places,
    ))
}

fn protocol(route: &Node, mistakes: &mut Mistakes) -> Option<Protocol> {
    let mut given = ["http", "tcp", "tls"]
        .into_iter()
        .filter_map(|key| route.entry(key).filter(|(_, value)| !value.is_absent()));
    let first = given.next();
    if let Some((second, _)) = given.next() {
        mistakes.error(
            second,
            "a route is one of `http`, `tcp` and `tls`: give at most one",
        );
        return None;
    }
    let Some((key, value)) = first else {
        return Some(Protocol::Http(serde_json::Map::new()));
    };
    match key.as_str() {
        Some("http") => {
            check_http(value, mistakes);
            part(Some(value)).map(Protocol::Http)
        }
        Some("tls") => {
            let matches = l4_matches(value, "tls", mistakes);
            if matches.is_empty() {
                mistakes.error(
                    key,
                    "a TLS route needs at least one `match` with `sniHosts`: nothing else of a request can be seen",
                );
            }
            Some(Protocol::Tls(matches))
        }
        _ => Some(Protocol::Tcp(l4_matches(value, "tcp", mistakes))),
    }
}

fn check_http(http: &Node, mistakes: &mut Mistakes) {
    for (key, value) in http.entries() {
        let name = key.as_str().unwrap_or_default();
        if HTTP_RESERVED.contains(&name) {
            mistakes.error(
                key,
                format!(
                    "`{name}` is not allowed in `spec.route.http`: Serin writes where requests go; allowed are {}{}",
                    listed(HTTP_FIELDS),
                    if name.starts_with("mirror") {
                        "; to mirror, give a step of the ladder `mirror: <per cent>`"
                    } else {
                        ""
                    }
                ),
            );
        } else if name == "match" {
            if value.items().is_empty() {
                mistakes.error(value, "`match` is a list of Istio match requests, and not empty: leave it out to match everything");
            }
            for entry in value.items() {
                check_match(entry, false, mistakes);
            }
        }
    }
    let known: Vec<&str> = HTTP_FIELDS.into_iter().chain(HTTP_RESERVED).collect();
    check_istio_fields(http, &known, "`spec.route.http`", mistakes);
    if let Some(timeout) = http.get("timeout")
        && timeout.as_str().is_none_or(|text| !is_istio_duration(text))
    {
        mistakes.error(
            timeout,
            format!(
                "`timeout` is {}, expected a duration such as `5s`",
                super::schema::found(timeout)
            ),
        );
    }
}

/// Whether Istio reads `text` as a duration: numbers with units, fractions allowed.
fn is_istio_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (digits, tail) = rest.split_at(number.unwrap_or(rest.len()));
        let unit = ["ms", "us", "ns", "h", "m", "s"]
            .into_iter()
            .find(|unit| tail.starts_with(unit));
        let Some(unit) = unit.filter(|_| digits.parse::<f64>().is_ok()) else {
            return false;
        };
        rest = &tail[unit.len()..];
    }
    !text.is_empty()
}

/// A field that is nearly a known one is a typing mistake. Any other may come from a newer Istio.
fn check_istio_fields(node: &Node, known: &[&str], path: &str, mistakes: &mut Mistakes) {
    for (key, _) in node.entries() {
        let name = key.as_str().unwrap_or_default();
        if known.contains(&name) {
            continue;
        }
        match nearest(name, known.iter().copied()) {
            Some(meant) => mistakes.error(
                key,
                format!(
                    "unknown field {} in {path} (did you mean `{meant}`?)",
                    quoted(name)
                ),
            ),
            None => mistakes.warning(
                key,
                format!(
                    "{} is no field of Istio's that Serin knows; it is passed through in {path}",
                    quoted(name)
                ),
            ),
        }
    }
}

/// Checks an Istio `HTTPMatchRequest`. With `for_candidate` it must narrow something down, or everybody matches.
pub(super) fn check_match(entry: &Node, for_candidate: bool, mistakes: &mut Mistakes) {
    let known: Vec<&str> = MATCH_CONDITIONS.into_iter().chain(MATCH_OTHERS).collect();
    check_istio_fields(entry, &known, "a match", mistakes);
    for list in ["headers", "withoutHeaders"] {
        for (key, _) in entry.get(list).map_or(&[][..], Node::entries) {
            let name = key.as_str().unwrap_or_default();
            if !is_token(name) {
                mistakes.error(key, format!("{} is not the name of a header", quoted(name)));
            }
        }
    }
    let narrows = |(key, value): &(Node, Node)| {
        let condition = key
            .as_str()
            .is_some_and(|key| MATCH_CONDITIONS.contains(&key));
        let empty = match value.to_json() {
            Value::Null => true,
            Value::Object(fields) => fields.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::String(text) => text.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        };
        condition && !empty
    };
    let unknown = |(key, _): &(Node, Node)| key.as_str().is_none_or(|key| !known.contains(&key));
    let entries = entry.entries();
    if for_candidate && !entries.iter().any(narrows) && !entries.iter().any(unknown) {
        mistakes.error(
            entry,
            format!(
                "this match would send everybody to the candidate: it has no condition; conditions are {}",
                listed(MATCH_CONDITIONS)
            ),
        );
    }
}

fn l4_matches(node: &Node, kind: &str, mistakes: &mut Mistakes) -> Vec<Value> {
    let entries = node.get("match").map_or(&[][..], Node::items);
    for entry in entries {
        check_istio_fields(entry, &L4_MATCH, "a match", mistakes);
        let hosts = entry.get("sniHosts");
        match (kind, hosts) {
            ("tls", hosts) if hosts.is_none_or(|hosts| hosts.items().is_empty()) => {
                mistakes.error(entry, "a match of a TLS route needs `sniHosts`");
            }
            ("tcp", Some(hosts)) => {
                mistakes.error(hosts, "`sniHosts` goes with a `tls` route");
            }
            _ => {}
        }
    }
    entries.iter().map(Node::to_json).collect()
}

fn check_hosts(route: &Node, mistakes: &mut Mistakes) {
    let mut seen = BTreeSet::new();
    for node in route.get("hosts").map_or(&[][..], Node::items) {
        let Value::String(host) = node.to_json() else {
            continue;
        };
        if !is_host(&host) {
            let hint = if host.contains("://") {
                "; leave out the scheme"
            } else if host.contains('/') {
                "; leave out the path"
            } else if host.contains(':') {
                "; leave out the port"
            } else if host != host.to_lowercase() {
                "; write it in lower case"
            } else {
                ""
            };
            mistakes.error(
                node,
                format!(
                    "{} is not a host, expected a name such as `podinfo` or `*.example.com`{hint}",
                    quoted(&host)
                ),
            );
        } else if !seen.insert(host.clone()) {
            mistakes.error(node, format!("the host {} is listed twice", quoted(&host)));
        }
    }
}

fn check_gateways(route: &Node, mistakes: &mut Mistakes) {
    for node in route.get("gateways").map_or(&[][..], Node::items) {
        let Value::String(gateway) = node.to_json() else {
            continue;
        };
        if !is_gateway(&gateway) {
            mistakes.error(
                node,
                format!(
                    "{} is not a gateway, expected `mesh`, `<name>` or `<namespace>/<name>`{}",
                    quoted(&gateway),
                    suggestion(&gateway, ["mesh"])
                ),
            );
        }
    }
    for node in route.get("exportTo").map_or(&[][..], Node::items) {
        let text = node.as_str().unwrap_or_default();
        if !matches!(text, "." | "*" | "~") && !is_dns_label(text) {
            mistakes.error(
                node,
                format!(
                    "{} is not allowed in `exportTo`, expected `.`, `*` or a namespace",
                    quoted(text)
                ),
            );
        }
    }
}

fn check_delegate(route: &Node, protocol: &Option<Protocol>, mistakes: &mut Mistakes) {
    for key in ["hosts", "gateways"] {
        if let Some((key_node, _)) = route.entry(key) {
            mistakes.error(
                key_node,
                format!("a delegate has no `{key}`: the root VirtualService that delegates to it has them"),
            );
        }
    }
    if let Some(Protocol::Tcp(_) | Protocol::Tls(_)) = protocol
        && let Some((key, _)) = route.entry("delegate")
    {
        mistakes.error(key, "Istio delegates HTTP routes only");
    }
}

fn session_affinity(
    route: &Node,
    protocol: &Option<Protocol>,
    mistakes: &mut Mistakes,
) -> Option<SessionAffinity> {
    let (key, node) = route.entry("sessionAffinity")?;
    if let Some(Protocol::Tcp(_) | Protocol::Tls(_)) = protocol {
        mistakes.error(
            key,
            "session affinity needs an HTTP route: it works by a cookie",
        );
    }
    let affinity: SessionAffinitySpec = part(Some(node))?;
    if let Some(cookie) = node.get("cookie").filter(|_| !is_token(&affinity.cookie)) {
        mistakes.error(
            cookie,
            format!(
                "{} is not the name of a cookie: no spaces, no `=`, `;` or `,`",
                quoted(&affinity.cookie)
            ),
        );
    }
    let max_age = affinity.max_age.as_deref().and_then(duration::read);
    if let (Some(age), Some(node)) = (max_age, node.get("maxAge"))
        && age.as_secs() == 0
    {
        mistakes.error(node, "`maxAge` is less than a second");
    }
    Some(SessionAffinity {
        cookie: affinity.cookie,
        max_age: max_age.unwrap_or(DEFAULT_MAX_AGE),
    })
}

#[cfg(test)]
mod tests {
    use super::is_istio_duration;

    #[test]
    fn istio_takes_fractions() {
        for good in ["5s", "0.5s", "1h30m", "1.5h", "100ms", "0s"] {
            assert!(is_istio_duration(good), "{good}");
        }
        for bad in ["", "5", "s", "5 s", "1.2.3s", "5x"] {
            assert!(!is_istio_duration(bad), "{bad}");
        }
    }
}
