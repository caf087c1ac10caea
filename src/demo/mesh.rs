//! A mesh that routes every single request by the manifests that are in Git, and remembers who got which version.
//!
//! It knows of Serin only what Istio would: a `VirtualService`, a `DestinationRule`, Deployments and their labels.

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::Regex;
use serde_json::Value;

use super::traffic::Flow;
use crate::domain::RepoPath;
use crate::yaml::node;

/// The header that says who is asking.
const USER_HEADER: &str = "x-user";

/// Multiples of it, modulo 1, spread evenly however few of them there are: a weight of 10 % is one request in ten soon,
/// and not the same person's each time.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

type Labels = BTreeMap<String, String>;

/// The objects that traffic depends on, as one commit has them.
#[derive(Debug, Default)]
pub(super) struct Table {
    routes: Vec<Route>,
    subsets: BTreeMap<String, Labels>,
    selector: Labels,
    workloads: Vec<Workload>,
}

#[derive(Debug)]
struct Route {
    /// Any of them; an empty list is everybody.
    conditions: Vec<Vec<(String, Matcher)>>,
    /// Subset and weight.
    destinations: Vec<(String, f64)>,
}

#[derive(Debug)]
enum Matcher {
    Exact(String),
    Regex(Regex),
}

/// Pods of one Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) namespace: String,
    /// The tag of its image.
    pub(super) version: String,
    labels: Labels,
    replicas: u64,
}

impl Table {
    /// Reads the objects of a tree. The error names what this mesh does not know.
    pub(super) fn read<'a>(
        files: impl Iterator<Item = (&'a RepoPath, &'a [u8])>,
    ) -> Result<Self, String> {
        let mut table = Self::default();
        for (path, bytes) in files {
            for document in node::parse(bytes).documents {
                let object = document.root.to_json();
                table
                    .take(&object)
                    .map_err(|problem| format!("{path}: {problem}"))?;
            }
        }
        Ok(table)
    }

    fn take(&mut self, object: &Value) -> Result<(), String> {
        let spec = &object["spec"];
        match object["kind"].as_str() {
            Some("VirtualService") => {
                for route in list(&spec["http"]) {
                    self.routes.push(Route::read(route)?);
                }
            }
            Some("DestinationRule") => {
                for subset in list(&spec["subsets"]) {
                    let name = text(&subset["name"]);
                    self.subsets.insert(name, labels(&subset["labels"]));
                }
            }
            Some("Service") => self.selector = labels(&spec["selector"]),
            Some("Deployment") => {
                let image = &spec["template"]["spec"]["containers"][0]["image"];
                let image = text(image);
                self.workloads.push(Workload {
                    name: text(&object["metadata"]["name"]),
                    namespace: text(&object["metadata"]["namespace"]),
                    version: image.rsplit(':').next().unwrap_or_default().to_owned(),
                    labels: labels(&spec["template"]["metadata"]["labels"]),
                    replicas: spec["replicas"].as_u64().unwrap_or(1),
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// Where a request goes; `None` when no pod can answer it.
    fn route(&self, headers: &[(&str, &str)], turn: f64) -> Option<&Workload> {
        let none = Labels::new();
        let wanted = if self.routes.is_empty() {
            // Without a VirtualService the Service alone chooses.
            &none
        } else {
            let route = self.routes.iter().find(|route| route.takes(headers))?;
            let subset = route.choose(turn)?;
            self.subsets.get(subset)?
        };
        self.workloads
            .iter()
            .find(|workload| workload.has(wanted) && workload.has(&self.selector))
    }

    /// The version that a Deployment runs.
    pub(super) fn version(&self, workload: &str) -> Option<&str> {
        let found = self.workloads.iter().find(|found| found.name == workload)?;
        Some(&found.version)
    }

    /// Per cent of the requests of people whom no route names, by the Deployment that gets them.
    pub(super) fn share(&self, workload: &str) -> f64 {
        let Some(last) = self.routes.last() else {
            return 0.0;
        };
        last.destinations
            .iter()
            .filter(|(subset, _)| {
                let labels = self.subsets.get(subset);
                let found = labels.and_then(|labels| self.workloads.iter().find(|w| w.has(labels)));
                found.is_some_and(|found| found.name == workload)
            })
            .map(|(_, weight)| weight)
            .sum()
    }
}

impl Route {
    fn read(route: &Value) -> Result<Self, String> {
        let mut conditions = Vec::new();
        for condition in list(&route["match"]) {
            let fields = condition.as_object().into_iter().flatten();
            let mut headers = Vec::new();
            for (field, value) in fields {
                if field != "headers" {
                    return Err(format!("the demo's mesh does not match on `{field}`"));
                }
                for (header, value) in value.as_object().into_iter().flatten() {
                    headers.push((header.clone(), Matcher::read(value)?));
                }
            }
            conditions.push(headers);
        }
        let destinations = list(&route["route"])
            .iter()
            .map(|destination| {
                let subset = text(&destination["destination"]["subset"]);
                (subset, destination["weight"].as_f64().unwrap_or(100.0))
            })
            .collect();
        Ok(Self {
            conditions,
            destinations,
        })
    }

    fn takes(&self, headers: &[(&str, &str)]) -> bool {
        let has = |(name, matcher): &(String, Matcher)| {
            headers
                .iter()
                .any(|(header, value)| header == name && matcher.takes(value))
        };
        self.conditions.is_empty() || self.conditions.iter().any(|all| all.iter().all(has))
    }

    fn choose(&self, turn: f64) -> Option<&str> {
        let total: f64 = self.destinations.iter().map(|(_, weight)| weight).sum();
        let mut point = (turn * GOLDEN).fract() * total;
        for (subset, weight) in &self.destinations {
            if point < *weight {
                return Some(subset);
            }
            point -= weight;
        }
        None
    }
}

impl Matcher {
    fn read(value: &Value) -> Result<Self, String> {
        if let Some(exact) = value["exact"].as_str() {
            return Ok(Self::Exact(exact.to_owned()));
        }
        let Some(regex) = value["regex"].as_str() else {
            return Err(format!("the demo's mesh does not know the match {value}"));
        };
        Regex::new(&format!("^(?:{regex})$"))
            .map(Self::Regex)
            .map_err(|error| error.to_string())
    }

    fn takes(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

impl Workload {
    fn has(&self, wanted: &Labels) -> bool {
        wanted
            .iter()
            .all(|(key, value)| self.labels.get(key) == Some(value))
    }
}

/// A version that answers with errors once it gets more than so many requests a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fault {
    pub(super) version: &'static str,
    pub(super) above: f64,
    pub(super) error_share: f64,
}

/// Requests that were answered, by user and version; `None` for those that no pod could answer.
pub type Tally = BTreeMap<String, BTreeMap<Option<String>, u64>>;

/// The mesh.
#[derive(Debug)]
pub(super) struct Mesh {
    /// `None` while the namespace is gone.
    pub(super) table: Option<Table>,
    /// Who asks, and how often a second.
    pub(super) users: Vec<(&'static str, u64)>,
    pub(super) fault: Fault,
    /// Share of errors that every version has.
    pub(super) error_share: f64,
    pub(super) latency_ms: f64,
    turn: f64,
}

impl Mesh {
    pub(super) fn new(users: Vec<(&'static str, u64)>, fault: Fault) -> Self {
        Self {
            table: None,
            users,
            fault,
            error_share: 0.001,
            latency_ms: 90.0,
            turn: 0.0,
        }
    }

    /// One second of requests: counted into the tally, and returned as what the workloads saw.
    pub(super) fn second(&mut self, tally: &mut Tally) -> Vec<Flow> {
        let mut served: BTreeMap<String, u64> = BTreeMap::new();
        for (user, requests) in &self.users {
            for _ in 0..*requests {
                self.turn += 1.0;
                let workload = self
                    .table
                    .as_ref()
                    .and_then(|table| table.route(&[(USER_HEADER, user)], self.turn));
                let version = workload.map(|workload| workload.version.clone());
                let counts = tally.entry((*user).to_owned()).or_default();
                *counts.entry(version).or_default() += 1;
                if let Some(workload) = workload {
                    *served.entry(workload.name.clone()).or_default() += 1;
                }
            }
        }
        let workloads = self.table.iter().flat_map(|table| &table.workloads);
        workloads
            .map(|workload| {
                let requests = served.get(&workload.name).copied().unwrap_or_default();
                self.flow(workload, requests as f64)
            })
            .collect()
    }

    fn flow(&self, workload: &Workload, per_second: f64) -> Flow {
        let broken = workload.version == self.fault.version && per_second > self.fault.above;
        let extra = if broken { self.fault.error_share } else { 0.0 };
        Flow {
            namespace: workload.namespace.clone(),
            workload: workload.name.clone(),
            service: "podinfo".to_owned(),
            version: workload.version.clone(),
            pods: (0..workload.replicas)
                .map(|index| format!("{}-{index}", workload.name))
                .collect(),
            per_second,
            error_share: self.error_share + extra,
            latency_ms: self.latency_ms,
        }
    }

    /// Names of the Deployments that are there.
    pub(super) fn workloads(&self) -> BTreeSet<(String, String)> {
        let workloads = self.table.iter().flat_map(|table| &table.workloads);
        workloads
            .map(|workload| (workload.namespace.clone(), workload.name.clone()))
            .collect()
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn labels(value: &Value) -> Labels {
    let entries = value.as_object().into_iter().flatten();
    entries
        .map(|(key, value)| (key.clone(), text(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECTS: &str = "\
kind: Service
spec: {selector: {app: a}}
---
kind: Deployment
metadata: {name: a, namespace: n}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: a, track: stable}}
    spec: {containers: [{image: 'r/a:1'}]}
---
kind: Deployment
metadata: {name: a-canary, namespace: n}
spec:
  template:
    metadata: {labels: {app: a, track: canary}}
    spec: {containers: [{image: 'r/a:2'}]}
---
kind: DestinationRule
spec:
  subsets:
  - {name: stable, labels: {track: stable}}
  - {name: canary, labels: {track: canary}}
";

    fn table(routes: &str) -> Result<Table, String> {
        let text = format!("{OBJECTS}---\nkind: VirtualService\nspec:\n  http:\n{routes}");
        let path = RepoPath::new("all.yaml").unwrap();
        Table::read([(&path, text.as_bytes())].into_iter())
    }

    fn mesh(routes: &str, users: &[(&'static str, u64)]) -> Mesh {
        let fault = Fault {
            version: "3",
            above: 0.0,
            error_share: 0.5,
        };
        let mut mesh = Mesh::new(users.to_vec(), fault);
        mesh.table = Some(table(routes).unwrap());
        mesh
    }

    fn counted(mesh: &mut Mesh, seconds: u64) -> Vec<String> {
        let mut tally = Tally::new();
        for _ in 0..seconds {
            mesh.second(&mut tally);
        }
        let lines = tally.iter().flat_map(|(user, versions)| {
            versions.iter().map(move |(version, count)| {
                format!("{user} {} {count}", version.as_deref().unwrap_or("-"))
            })
        });
        lines.collect()
    }

    const USER_FIRST: &str = "
  - match: [{headers: {x-user: {exact: alexis}}}]
    route: [{destination: {subset: canary}}]
  - route:
    - {destination: {subset: stable}, weight: 90}
    - {destination: {subset: canary}, weight: 10}
";

    #[test]
    fn a_named_user_first_and_weights_for_the_rest() {
        let users = [("alexis", 1), ("alexis2", 10), ("bo", 10)];
        insta::assert_snapshot!(counted(&mut mesh(USER_FIRST, &users), 100).join("\n"), @"
        alexis 2 100
        alexis2 1 906
        alexis2 2 94
        bo 1 892
        bo 2 108
        ");
    }

    #[test]
    fn regular_expressions_are_anchored() {
        let routes = USER_FIRST.replace("exact: alexis", "regex: ale.is");
        let users = [("alexis", 1), ("malexis", 1)];
        let mut mesh = mesh(&routes.replace("weight: 10", "weight: 0"), &users);
        assert_eq!(counted(&mut mesh, 10), ["alexis 2 10", "malexis 1 10"]);
    }

    #[test]
    fn shares_are_those_of_the_weighted_route() {
        let table = table(USER_FIRST).unwrap();
        assert_eq!((table.share("a"), table.share("a-canary")), (90.0, 10.0));
    }

    #[test]
    fn nothing_answers_where_nothing_is() {
        let mut mesh = mesh(USER_FIRST, &[("bo", 1)]);
        mesh.table = None;
        assert_eq!(counted(&mut mesh, 3), ["bo - 3"]);
        let routes = "  - route: [{destination: {subset: other}}]\n";
        mesh.table = Some(table(routes).unwrap());
        assert_eq!(counted(&mut mesh, 3), ["bo - 3"]);
    }

    #[test]
    fn what_it_does_not_know_is_said() {
        let unknown = "  - match: [{uri: {prefix: /}}]\n";
        let problem = table(unknown).unwrap_err();
        insta::assert_snapshot!(problem, @"all.yaml: the demo's mesh does not match on `uri`");
    }
}
