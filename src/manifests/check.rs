//! Checks rendered files with code that did not write them.
//!
//! Reads the bytes as a cluster would, and knows what must never be in them; names and rules are stated here again on
//! purpose. Runs before every commit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::domain::{
    CANARY_ANNOTATION, CANARY_SUBSET, Contents, SEQUENCE_ANNOTATION, STABLE_SUBSET, Weight, files,
};
use crate::progression::{Phase, Rollout, State};
use crate::spec::{Protocol, UserSource, ValidatedCanary, Workload};
use crate::yaml::memory;

/// What is wrong with the rendered `files` of `canary` in `state`; empty when all is well.
pub fn violations(canary: &ValidatedCanary, state: &State, files: &Contents) -> Vec<String> {
    let found = found_by(canary, state, files, remembered);
    if found.is_empty() {
        return found;
    }
    // The quick reader takes 10.0 for 10; before anybody is blamed, one that knows nothing of ours reads it.
    found_by(canary, state, files, strictly)
}

/// A reader of files.
type Reader = fn(&[u8]) -> Result<Document, String>;

/// The only document of a file.
enum Document {
    Remembered(Arc<memory::Reading>),
    Own(Value),
}

impl Deref for Document {
    type Target = Value;

    fn deref(&self) -> &Value {
        match self {
            Self::Remembered(reading) => reading.first(),
            Self::Own(value) => value,
        }
    }
}

fn found_by(
    canary: &ValidatedCanary,
    state: &State,
    files: &Contents,
    reader: Reader,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut read = |name: &str| match read(canary, files, name, reader) {
        Ok(value) => value,
        Err(violation) => {
            found.push(violation);
            None
        }
    };
    let deployment = read(files::DEPLOYMENT);
    let (Some(rule), Some(kustomization), Some(service)) = (
        read(files::DESTINATION_RULE),
        read(files::KUSTOMIZATION),
        read(files::VIRTUAL_SERVICE),
    ) else {
        found.push("a file that must always exist does not".to_owned());
        return found;
    };
    let case = Case {
        canary,
        state,
        deployment,
        rule,
        kustomization,
        service,
    };
    case.objects(&mut found);
    case.resources(&mut found);
    case.destinations(&mut found);
    case.candidate(&mut found);
    if let Protocol::Http(base) = &canary.route.protocol {
        case.conditions(base, &mut found);
        case.inheritance(base, &mut found);
        case.users(base, &mut found);
    }
    case.pods(&mut found);
    found
}

/// The document in a file; `None` when the file must not exist.
fn read(
    canary: &ValidatedCanary,
    files: &Contents,
    name: &str,
    reader: Reader,
) -> Result<Option<Document>, String> {
    let content = canary
        .home
        .folder
        .join(name)
        .and_then(|path| files.get(&path));
    let Some(content) = content else {
        return Err(format!("{name} is neither written nor removed"));
    };
    match content {
        None => Ok(None),
        Some(bytes) => reader(bytes)
            .map(Some)
            .map_err(|error| format!("{name} cannot be read back: {error}")),
    }
}

fn remembered(bytes: &[u8]) -> Result<Document, String> {
    let reading = memory::read(bytes);
    match (reading.parsed.errors.first(), reading.values()) {
        (None, [_]) => {}
        (Some(error), _) => return Err(error.message.clone()),
        (None, values) => return Err(format!("it holds {} documents", values.len())),
    }
    Ok(Document::Remembered(reading))
}

fn strictly(bytes: &[u8]) -> Result<Document, String> {
    let read = serde_yaml::from_slice(bytes).map(Document::Own);
    read.map_err(|error| error.to_string())
}

struct Case<'a> {
    canary: &'a ValidatedCanary,
    state: &'a State,
    deployment: Option<Document>,
    rule: Document,
    kustomization: Document,
    service: Document,
}

/// A destination of a route.
struct Target<'a> {
    host: &'a str,
    subset: Option<&'a str>,
    weight: u64,
}

impl Case<'_> {
    fn climbing(&self) -> Option<&Rollout> {
        match &self.state.phase {
            Phase::Progressing(rollout) => Some(rollout),
            Phase::Idle | Phase::Draining(..) | Phase::Failed(_) => None,
        }
    }

    fn routes(&self) -> &[Value] {
        let protocol = match self.canary.route.protocol {
            Protocol::Http(_) => "http",
            Protocol::Tcp(_) => "tcp",
            Protocol::Tls(_) => "tls",
        };
        list(self.service.get("spec").and_then(|spec| spec.get(protocol)))
    }

    /// Labels by subset, as the rule defines them.
    fn subsets(&self) -> BTreeMap<&str, &Value> {
        list(at(&self.rule, &["spec", "subsets"]))
            .iter()
            .filter_map(|subset| Some((subset.get("name")?.as_str()?, subset.get("labels")?)))
            .collect()
    }

    fn objects(&self, found: &mut Vec<String>) {
        let objects = [
            Some((&*self.service, "networking.istio.io/v1", "VirtualService")),
            Some((&*self.rule, "networking.istio.io/v1", "DestinationRule")),
            self.deployment
                .as_ref()
                .map(|deployment| (&**deployment, "apps/v1", "Deployment")),
        ];
        let owner = self.canary.id.to_string();
        let number = self.state.sequence.to_string();
        for (object, api, kind) in objects.into_iter().flatten() {
            let says = |path: &[&str]| at(object, path).and_then(Value::as_str);
            if says(&["apiVersion"]) != Some(api) || says(&["kind"]) != Some(kind) {
                found.push(format!("{kind} is not an {api} {kind}"));
            }
            if says(&["metadata", "namespace"]) != Some(&self.canary.id.namespace) {
                found.push(format!("{kind} is in another namespace"));
            }
            let note = |key: &str| at(object, &["metadata", "annotations"])?.get(key)?.as_str();
            if note(CANARY_ANNOTATION) != Some(&owner) {
                found.push(format!("{kind} does not say whose it is"));
            }
            match note(SEQUENCE_ANNOTATION) {
                Some(said) if kind == "VirtualService" && said == number => {}
                None if kind != "VirtualService" => {}
                _ if kind == "VirtualService" => {
                    found.push("the VirtualService does not say of which commit it is".to_owned());
                }
                _ => found.push(format!("{kind} has a number that each step would write")),
            }
        }
    }

    fn resources(&self, found: &mut Vec<String>) {
        let listed: BTreeSet<&str> = list(self.kustomization.get("resources"))
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let mut expected = BTreeSet::from([files::DESTINATION_RULE, files::VIRTUAL_SERVICE]);
        if self.deployment.is_some() {
            expected.insert(files::DEPLOYMENT);
        }
        if listed != expected {
            found.push(format!(
                "kustomization.yaml lists {listed:?}, there are {expected:?}"
            ));
        }
    }

    /// Every destination exists, and the weights of every route sum to 100.
    fn destinations(&self, found: &mut Vec<String>) {
        let subsets = self.subsets();
        if at(&self.rule, &["spec", "host"]).and_then(Value::as_str)
            != Some(&self.canary.route.service)
        {
            found.push("the DestinationRule is for another host".to_owned());
        }
        for (name, labels) in &subsets {
            if labels.as_object().is_none_or(Map::is_empty) {
                found.push(format!("subset {name} selects every pod"));
            }
        }
        let alike = subsets.get(STABLE_SUBSET) == subsets.get(CANARY_SUBSET);
        if matches!(self.canary.workload, Workload::Managed(_)) && !subsets.is_empty() && alike {
            found.push("stable and canary select the same pods".to_owned());
        }
        if self.routes().is_empty() {
            found.push("the VirtualService has no route".to_owned());
        }
        for route in self.routes() {
            let label = name_of(route);
            let Some(targets) = targets(route) else {
                found.push(format!(
                    "route {label} has a destination that cannot be read"
                ));
                continue;
            };
            let total: u64 = targets.iter().map(|target| target.weight).sum();
            if total != 100 {
                found.push(format!("the weights of route {label} sum to {total}"));
            }
            let mirrored = mirrors(route).filter_map(|(target, _)| target.get("subset"));
            let named = targets.iter().filter_map(|target| target.subset);
            for subset in named.chain(mirrored.filter_map(Value::as_str)) {
                if !subsets.contains_key(subset) {
                    found.push(format!(
                        "route {label} names the subset {subset}, which does not exist"
                    ));
                }
            }
            if targets
                .iter()
                .any(|target| target.host != self.canary.route.service)
            {
                found.push(format!("route {label} leads to another service"));
            }
        }
    }

    /// The candidate gets what the state says, and nothing outside of a rollout.
    fn candidate(&self, found: &mut Vec<String>) {
        let known = self.subsets().contains_key(CANARY_SUBSET);
        let weight = match self.climbing() {
            Some(rollout) if known => rollout.weight,
            Some(_) | None => Weight::ZERO,
        };
        for route in self.routes() {
            let label = name_of(route);
            let share = share_of(route, CANARY_SUBSET);
            let climbing = self.climbing().is_some();
            let allowed = match label {
                "serin-users" | "serin-matches" | "serin-sticky-canary" if climbing => 100,
                "serin-weights" | "" => weight.percent().into(),
                _ => 0,
            };
            if share != allowed {
                found.push(format!(
                    "route {label} gives the candidate {share} %, not {allowed} %"
                ));
            }
            let copied = mirrors(route).any(|(target, _)| {
                target.get("subset").and_then(Value::as_str) == Some(CANARY_SUBSET)
            });
            if copied && self.climbing().and_then(|rollout| rollout.mirror).is_none() {
                found.push(format!(
                    "route {label} mirrors to the candidate outside of a mirror step"
                ));
            }
        }
        let sticky = self
            .routes()
            .iter()
            .any(|route| name_of(route).starts_with("serin-sticky"));
        if sticky && weight == Weight::ZERO {
            found
                .push("clients are kept on a version while the candidate has no weight".to_owned());
        }
    }

    /// No route before the last one is for everybody, and the last one is for whom the spec says.
    fn conditions(&self, base: &Map<String, Value>, found: &mut Vec<String>) {
        let Some((last, others)) = self.routes().split_last() else {
            return;
        };
        if name_of(last) != "serin-weights" {
            found.push(format!("the last route is {}", name_of(last)));
        }
        if list(last.get("match")) != list(base.get("match")) {
            found.push("the weighted route has other matches than the spec".to_owned());
        }
        for route in others {
            let entries = list(route.get("match"));
            if entries.is_empty() || entries.iter().any(matches_everybody) {
                found.push(format!("route {} matches everybody", name_of(route)));
            }
        }
    }

    /// Every route has every field that the spec gives to the base route, and no other.
    fn inheritance(&self, base: &Map<String, Value>, found: &mut Vec<String>) {
        const GENERATED: [&str; 6] = [
            "name",
            "match",
            "route",
            "redirect",
            "directResponse",
            "delegate",
        ];
        const MIRRORS: [&str; 3] = ["mirror", "mirrorPercentage", "mirrors"];
        let share = self.climbing().and_then(|rollout| rollout.mirror);
        let known = self.subsets().contains_key(CANARY_SUBSET);
        for whole in self.routes() {
            let Some(route) = whole.as_object() else {
                continue;
            };
            let label = name_of(whole);
            let to_candidate_only = share_of(whole, STABLE_SUBSET) == 0 && label != "serin-weights";
            let mirrored = share.filter(|_| known && !to_candidate_only);
            let keys: BTreeSet<&String> = base.keys().chain(route.keys()).collect();
            for key in keys {
                let skipped = GENERATED.contains(&key.as_str())
                    || (mirrored.is_some() && MIRRORS.contains(&key.as_str()));
                if !skipped && base.get(key) != route.get(key) {
                    found.push(format!(
                        "route {label} differs from the base route in {key}"
                    ));
                }
            }
            if let Some(share) = mirrored {
                let expected = mirrors(&Value::Object(base.clone())).count() + 1;
                let own = mirrors(whole).last();
                let percent = own.and_then(|(_, percent)| percent?.as_f64());
                if mirrors(whole).count() != expected || percent != Some(share.percent().into()) {
                    found.push(format!(
                        "route {label} does not mirror {share} to the candidate"
                    ));
                }
            }
        }
    }

    /// Named users come first, each by a match that only this name meets.
    fn users(&self, base: &Map<String, Value>, found: &mut Vec<String>) {
        let position = self
            .routes()
            .iter()
            .position(|route| name_of(route) == "serin-users");
        let entries = position.map_or(&[][..], |at| {
            list(self.routes().get(at).and_then(|route| route.get("match")))
        });
        if position.is_some_and(|at| at != 0) {
            found.push("the route of named users is not the first one".to_owned());
        }
        let rules = || {
            let users = self.canary.users.iter();
            users.flat_map(|rule| rule.exact.iter().map(|name| (&rule.source, name)))
        };
        for entry in entries {
            if !rules().any(|(source, name)| is_for(entry, source, name)) {
                found.push(format!(
                    "a match of the users' route is for nobody in the spec: {entry}"
                ));
            }
        }
        let is_prepared = |rollout: &Rollout| {
            rollout.step > 0 || rollout.weight > Weight::ZERO || rollout.has_traffic()
        };
        let climbing = self.climbing().is_some_and(is_prepared);
        if !climbing && position.is_some() {
            found.push("named users reach a candidate that is not prepared yet".to_owned());
        }
        let reachable = climbing && self.subsets().contains_key(CANARY_SUBSET);
        if !reachable || !list(base.get("match")).is_empty() {
            return;
        }
        for (source, name) in rules() {
            let missing = !entries.iter().any(|entry| is_for(entry, source, name));
            if missing && matches!(source, UserSource::Header(_)) && !name.is_empty() {
                found.push(format!("the user {name} has no match"));
            }
        }
    }

    /// The candidate's pods exist when they may be needed, and are told apart from stable's.
    fn pods(&self, found: &mut Vec<String>) {
        let subsets = self.subsets();
        let Workload::Managed(managed) = &self.canary.workload else {
            if self.deployment.is_some() {
                found.push("a Deployment is written that the user keeps".to_owned());
            }
            return;
        };
        let expected = self.state.rollout().is_some() && subsets.contains_key(STABLE_SUBSET);
        let Some(deployment) = &self.deployment else {
            if expected {
                found.push("the candidate's Deployment is missing".to_owned());
            }
            return;
        };
        if !expected {
            found.push("the candidate's Deployment is there without a rollout".to_owned());
        }
        let labels = at(deployment, &["spec", "template", "metadata", "labels"]);
        let label = |set: Option<&Value>| set?.get(&managed.label_key).cloned();
        let track = subsets.get(CANARY_SUBSET).and_then(|set| label(Some(set)));
        if track.is_none()
            || label(labels) != track
            || label(at(deployment, &["spec", "selector", "matchLabels"])) != track
        {
            found.push("the candidate's pods are not those of its subset".to_owned());
        }
        let name = at(deployment, &["metadata", "name"]).and_then(Value::as_str);
        if name == Some(&managed.deployment) {
            found.push("the candidate's Deployment has stable's name".to_owned());
        }
        if at(deployment, &["spec", "replicas"])
            .and_then(Value::as_u64)
            .is_none()
        {
            found.push("the candidate's Deployment names no replicas".to_owned());
        }
        let notes = at(deployment, &["spec", "template", "metadata", "annotations"]);
        if notes.is_some_and(|notes| notes.get(SEQUENCE_ANNOTATION).is_some()) {
            found.push("every step would restart the candidate's pods".to_owned());
        }
    }
}

/// The value at the end of a path of keys. `Value::pointer` would copy each key to unescape it.
fn at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn name_of(route: &Value) -> &str {
    route
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The destinations of a route; `None` when one cannot be read. A sole one without a weight gets everything.
fn targets(route: &Value) -> Option<Vec<Target<'_>>> {
    let destinations = list(route.get("route"));
    let default = if destinations.len() == 1 { 100 } else { 0 };
    destinations
        .iter()
        .map(|entry| {
            let destination = entry.get("destination")?;
            Some(Target {
                host: destination.get("host")?.as_str()?,
                subset: destination.get("subset").and_then(Value::as_str),
                weight: entry.get("weight").map_or(Some(default), Value::as_u64)?,
            })
        })
        .collect()
}

/// Per cent of a route that a subset gets.
fn share_of(route: &Value, subset: &str) -> u64 {
    targets(route)
        .into_iter()
        .flatten()
        .filter(|target| target.subset == Some(subset))
        .map(|target| target.weight)
        .sum()
}

/// Destinations and shares that a route mirrors to.
fn mirrors(route: &Value) -> impl Iterator<Item = (&Value, Option<&Value>)> {
    let one = route
        .get("mirror")
        .map(|target| (target, at(route, &["mirrorPercentage", "value"])));
    let many = list(route.get("mirrors")).iter().filter_map(|entry| {
        Some((
            entry.get("destination")?,
            at(entry, &["percentage", "value"]),
        ))
    });
    many.chain(one)
}

/// Whether a request match is for everybody.
fn matches_everybody(entry: &Value) -> bool {
    const NO_CONDITIONS: [&str; 3] = ["name", "statPrefix", "ignoreUriCase"];
    let empty = |value: &Value| {
        value.is_null()
            || value.as_object().is_some_and(Map::is_empty)
            || value.as_array().is_some_and(Vec::is_empty)
    };
    entry.as_object().is_none_or(|fields| {
        fields
            .iter()
            .all(|(key, value)| NO_CONDITIONS.contains(&key.as_str()) || empty(value))
    })
}

/// Whether a request match asks for this user. What a regular expression matches is not computed here, only that it is
/// whole and about this cookie; `users` tests the rest.
fn is_for(entry: &Value, source: &UserSource, name: &str) -> bool {
    let condition =
        |header: &str, kind: &str| entry.get("headers")?.get(header)?.get(kind)?.as_str();
    match source {
        UserSource::Header(header) => condition(header, "exact") == Some(name),
        UserSource::Cookie(_) => condition("cookie", "regex")
            .is_some_and(|regex| regex.starts_with("^(.*;\\s*)?") && regex.ends_with("(;.*)?$")),
    }
}
