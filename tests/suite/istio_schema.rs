//! Everything that is rendered for Istio, against Istio's own published schema.
//!
//! The schema is read as the API server does, with unknown fields refused instead of dropped. Its CEL rules
//! (`x-kubernetes-validations`) are no JSON Schema; [`rules`] lists them, and those that can concern us are checked by
//! hand: a new one in a newer Istio fails the test until somebody has looked at it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use jsonschema::Validator;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Map, Value, json};
use serin::domain::files;
use serin::manifests::fixtures::{Case, matrix, progressing, rich_http};
use serin::manifests::render;
use serin::spec::fixtures::managed;
use serin::spec::{Protocol, ValidatedCanary};

const DURATION_RULE: &str = "duration(self) >= duration('1ms')";

/// The schema of one kind, as published.
fn published(crd: &str) -> Value {
    let mut crd: Value = serde_yaml::from_str(crd).unwrap();
    let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
    // Every object has these; a CRD does not repeat them.
    for (field, kind) in [
        ("apiVersion", "string"),
        ("kind", "string"),
        ("metadata", "object"),
    ] {
        schema["properties"][field] = json!({ "type": kind });
    }
    schema["properties"]["metadata"]["x-kubernetes-preserve-unknown-fields"] = json!(true);
    schema
}

fn virtual_service() -> Value {
    published(include_str!(
        "../data/istio/virtualservices.networking.istio.io.yaml"
    ))
}

fn destination_rule() -> Value {
    published(include_str!(
        "../data/istio/destinationrules.networking.istio.io.yaml"
    ))
}

/// Refuses unknown fields wherever the API server would drop them.
fn close(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else {
        return;
    };
    let open = fields.contains_key("additionalProperties")
        || fields.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
    if fields.get("type") == Some(&json!("object")) && !open {
        fields.insert("additionalProperties".to_owned(), json!(false));
    }
    for nested in ["items", "additionalProperties"] {
        if let Some(schema) = fields.get_mut(nested) {
            close(schema);
        }
    }
    let properties = fields.get_mut("properties").and_then(Value::as_object_mut);
    for schema in properties.into_iter().flat_map(Map::values_mut) {
        close(schema);
    }
}

fn validator(mut schema: Value) -> Validator {
    close(&mut schema);
    jsonschema::validator_for(&schema).unwrap()
}

fn mistakes(validator: &Validator, object: &Value) -> Vec<String> {
    validator
        .iter_errors(object)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

/// The object in one rendered file.
fn object(file: &str, case: &Case) -> Value {
    let path = case.canary.home.folder.join(file).unwrap();
    let bytes = render(&case.canary, &case.state).files.get(&path).cloned();
    serde_yaml::from_slice(&bytes.flatten().unwrap()).unwrap()
}

fn case(canary: ValidatedCanary) -> Case {
    let state = progressing(&canary, 2, 10);
    Case {
        name: "one".to_owned(),
        canary,
        state,
    }
}

/// Every CEL rule of a schema.
fn rules(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                if key == "x-kubernetes-validations" {
                    let rules = value.as_array().unwrap().iter();
                    found.extend(rules.map(|rule| rule["rule"].as_str().unwrap().to_owned()));
                } else {
                    rules(value, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| rules(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Values that stand where the schema has a CEL rule, with the rule.
fn ruled<'a>(schema: &'a Value, value: &'a Value, found: &mut Vec<(&'a str, &'a Value)>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        found.push((rule["rule"].as_str().unwrap(), value));
    }
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let nested = schema["properties"].get(key);
                if let Some(schema) = nested.or_else(|| schema.get("additionalProperties")) {
                    ruled(schema, value, found);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                ruled(&schema["items"], item, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A duration in one unit, which is all that the matrix uses.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    match text.get(digits.len()..)? {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(60 * number)),
        "h" => Some(Duration::from_secs(3600 * number)),
        _ => None,
    }
}

#[test]
fn istio_accepts_everything_that_is_rendered() {
    let kinds = [
        (files::VIRTUAL_SERVICE, virtual_service()),
        (files::DESTINATION_RULE, destination_rule()),
    ];
    let kinds = kinds.map(|(file, schema)| (file, validator(schema.clone()), schema));
    let cases = matrix();
    assert!(cases.len() > 500, "{} cases", cases.len());
    let mut durations = 0;
    for case in cases {
        for (file, validator, schema) in &kinds {
            let object = object(file, &case);
            let found = mistakes(validator, &object);
            assert!(
                found.is_empty(),
                "{} {file}: {found:#?}\n{object:#}",
                case.name
            );
            let mut values = Vec::new();
            ruled(schema, &object, &mut values);
            for (rule, value) in values {
                assert_eq!(rule, DURATION_RULE, "{} {file}", case.name);
                let long_enough = value
                    .as_str()
                    .and_then(duration)
                    .is_some_and(|length| length >= Duration::from_millis(1));
                assert!(long_enough, "{} {file}: {value}", case.name);
                durations += 1;
            }
        }
    }
    assert!(durations > 0, "the durations of the matrix were not found");
}

/// What Istio's admission webhook asks for beyond the schema, as far as it depends on what is generated.
#[test]
fn istios_webhook_would_accept_it_too() {
    for case in matrix() {
        let service = object(files::VIRTUAL_SERVICE, &case);
        let spec = &service["spec"];
        let delegate = spec.get("hosts").is_none();
        assert_eq!(delegate, case.canary.route.delegate, "{}", case.name);
        if delegate {
            for absent in ["gateways", "tcp", "tls"] {
                assert!(spec.get(absent).is_none(), "{}: {absent}", case.name);
            }
        }
        for route in spec["http"].as_array().into_iter().flatten() {
            let both = route.get("mirror").is_some() && route.get("mirrors").is_some();
            assert!(!both, "{}: mirror and mirrors", case.name);
            for entry in route["match"].as_array().into_iter().flatten() {
                let regex = entry["headers"]["cookie"]["regex"].as_str();
                assert!(
                    regex.is_none_or(|regex| regex.len() <= 1024),
                    "{}",
                    case.name
                );
            }
        }
        for route in spec["tls"].as_array().into_iter().flatten() {
            let hosts = route["match"][0]["sniHosts"].as_array();
            assert!(
                hosts.is_some_and(|hosts| !hosts.is_empty()),
                "{}",
                case.name
            );
        }
    }
}

/// The candidate's Deployment has no field that Kubernetes does not know.
#[test]
fn kubernetes_knows_every_field_of_the_deployment() {
    let mut seen = 0;
    for case in matrix() {
        let path = case.canary.home.folder.join(files::DEPLOYMENT).unwrap();
        let rendered = render(&case.canary, &case.state).files.get(&path).cloned();
        if let Some(bytes) = rendered.flatten() {
            let object: Value = serde_yaml::from_slice(&bytes).unwrap();
            let typed: Deployment = serde_json::from_value(object.clone()).unwrap();
            assert_eq!(
                serde_json::to_value(typed).unwrap(),
                object,
                "{}",
                case.name
            );
            seen += 1;
        }
    }
    assert!(seen > 0, "no Deployment was rendered");
}

#[test]
fn the_cel_rules_are_known() {
    let mut found = BTreeSet::new();
    rules(&virtual_service(), &mut found);
    rules(&destination_rule(), &mut found);
    let known = [
        // Timeouts, retries, faults and connection pools, passed through; checked above.
        DURATION_RULE,
        // `workloadSelector` of a DestinationRule, which is never rendered.
        "self.all(key, !key.contains(\"*\"))",
        "self.all(key, key.size() != 0)",
        "!self.contains(\"*\")",
    ];
    assert_eq!(found, known.map(str::to_owned).into());
}

#[test]
fn wrong_objects_are_refused() {
    let service = validator(virtual_service());
    let rule = validator(destination_rule());
    let mut canary = managed();
    canary.route.protocol = Protocol::Http(rich_http().as_object().cloned().unwrap());
    let case = case(canary);
    let refused = |validator: &Validator, file: &str, pointer: &str, value: Value| {
        let mut object = object(file, &case);
        assert_eq!(mistakes(validator, &object), Vec::<String>::new());
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[key] = value;
        assert_ne!(
            mistakes(validator, &object),
            Vec::<String>::new(),
            "{pointer}"
        );
    };
    for (pointer, value) in [
        ("/spec/http/1/timeuot", json!("5s")),
        ("/spec/http/1/retries/attempts", json!("2")),
        (
            "/spec/http/0/match/0/headers/x-user",
            json!({"exact": "a", "prefix": "b"}),
        ),
        (
            "/spec/http/0/match/0/headers/x-user",
            json!({"equals": "a"}),
        ),
        ("/spec/http/1/route/0/destination/port", json!(9898)),
        ("/spec/http/1/route/0/weight", json!("90")),
        ("/spec/http/1/mirrorPercentage", json!(25)),
        ("/spec/host", json!("podinfo")),
    ] {
        refused(&service, files::VIRTUAL_SERVICE, pointer, value);
    }
    for (pointer, value) in [
        ("/spec/subsets/0/labels", json!(["stable"])),
        ("/spec/subsets/0/weight", json!(1)),
        (
            "/spec/trafficPolicy",
            json!({"loadBalancer": {"simple": "FASTEST"}}),
        ),
        ("/spec/hosts", json!(["podinfo"])),
    ] {
        refused(&rule, files::DESTINATION_RULE, pointer, value);
    }
}
