//! A candidate applied to a pod template: images, then the strategic-merge patch.
//!
//! The patch means what it means to `kubectl patch`: objects merge, `null` deletes, lists with a merge key merge item by
//! item, all other lists are replaced, and the directives `$patch`, `$retainKeys` and `$deleteFromPrimitiveList` are
//! honoured. Unlike `kubectl`, `$patch: delete` removes an object instead of leaving `{}` behind, and container ports are
//! told apart by their protocol too. Total: what [`check_patch`] would refuse is applied as far as it makes sense.

mod check;

use serde_json::{Map, Value};

pub use check::check_patch;

use super::CandidateContent;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
/// Only orders elements, and only `kubectl apply` writes it: read over.
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// The pod template (`spec.template` of a Deployment) that `candidate` asks for.
pub fn apply_candidate(template: &Value, candidate: &CandidateContent) -> Value {
    with_candidate(template.clone(), candidate)
}

/// The same of a pod template that nobody else needs.
pub fn with_candidate(template: Value, candidate: &CandidateContent) -> Value {
    match candidate {
        CandidateContent::Labels(_) => template,
        CandidateContent::Template { images, patch } => {
            let mut template = template;
            for list in ["containers", "initContainers"] {
                let containers = template
                    .get_mut("spec")
                    .and_then(|spec| spec.get_mut(list))
                    .and_then(Value::as_array_mut);
                for container in containers.into_iter().flatten() {
                    let name = container.get("name").and_then(Value::as_str);
                    if let Some(image) = name.and_then(|name| images.get(name)).cloned()
                        && let Some(fields) = container.as_object_mut()
                    {
                        fields.insert("image".to_owned(), Value::String(image));
                    }
                }
            }
            if let (Value::Object(fields), Some(Value::Object(patch))) = (&mut template, patch) {
                merge_object(fields, patch, Shape::Template);
            }
            template
        }
    }
}

/// What an object in a pod template is, as far as merge keys depend on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Template,
    PodSpec,
    Container,
    Other,
}

/// How the items of a list are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Keyed {
    key: &'static str,
    item: Shape,
}

impl Shape {
    fn of_field(self, field: &str) -> Self {
        match (self, field) {
            (Self::Template, "spec") => Self::PodSpec,
            _ => Self::Other,
        }
    }

    /// The merge key of a list, from the `patchMergeKey` tags of the Kubernetes API.
    fn keyed(self, field: &str) -> Option<Keyed> {
        let (key, item) = match (self, field) {
            (Self::PodSpec, "containers" | "initContainers" | "ephemeralContainers") => {
                ("name", Self::Container)
            }
            (
                Self::PodSpec,
                "volumes" | "imagePullSecrets" | "schedulingGates" | "resourceClaims",
            ) => ("name", Self::Other),
            (Self::PodSpec, "hostAliases") => ("ip", Self::Other),
            (Self::PodSpec, "topologySpreadConstraints") => ("topologyKey", Self::Other),
            (Self::Container, "env") => ("name", Self::Other),
            (Self::Container, "ports") => ("containerPort", Self::Other),
            (Self::Container, "volumeMounts") => ("mountPath", Self::Other),
            (Self::Container, "volumeDevices") => ("devicePath", Self::Other),
            _ => return None,
        };
        Some(Keyed { key, item })
    }
}

impl Keyed {
    /// Whether `existing` is the item that `patch` is about.
    fn same(self, existing: &Value, patch: &Map<String, Value>) -> bool {
        let wanted = patch.get(self.key);
        let protocol = |value: Option<&Value>| {
            value
                .and_then(Value::as_str)
                .unwrap_or("TCP")
                .to_ascii_uppercase()
        };
        wanted.is_some()
            && existing.get(self.key) == wanted
            && (self.key != "containerPort"
                || protocol(existing.get("protocol")) == protocol(patch.get("protocol")))
    }
}

fn directive(fields: &Map<String, Value>) -> Option<&str> {
    fields.get(PATCH).and_then(Value::as_str)
}

fn merge_object(target: &mut Map<String, Value>, patch: &Map<String, Value>, shape: Shape) {
    if directive(patch) == Some("replace") {
        target.clear();
    }
    if let Some(Value::Array(keep)) = patch.get(RETAIN_KEYS) {
        target.retain(|key, _| keep.iter().any(|kept| kept.as_str() == Some(key)));
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM) {
            if let (Some(Value::Array(items)), Value::Array(gone)) = (target.get_mut(list), value) {
                items.retain(|item| !gone.contains(item));
            }
        } else if !is_directive(key) {
            merge_field(target, key, value, shape);
        }
    }
}

fn merge_field(target: &mut Map<String, Value>, key: &str, value: &Value, shape: Shape) {
    match value {
        Value::Null => {
            target.remove(key);
        }
        Value::Object(patch) if directive(patch) == Some("delete") => {
            target.remove(key);
        }
        Value::Object(patch) => {
            let slot = target.entry(key).or_insert(Value::Null);
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            if let Value::Object(existing) = slot {
                merge_object(existing, patch, shape.of_field(key));
            }
        }
        Value::Array(items) => match shape.keyed(key) {
            Some(keyed) => {
                let slot = target.entry(key).or_insert(Value::Null);
                let mut merged = match slot.take() {
                    Value::Array(existing) => existing,
                    Value::Null
                    | Value::Bool(_)
                    | Value::Number(_)
                    | Value::String(_)
                    | Value::Object(_) => Vec::new(),
                };
                merge_list(&mut merged, items, keyed);
                *slot = Value::Array(merged);
            }
            None => {
                target.insert(key.to_owned(), value.clone());
            }
        },
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            target.insert(key.to_owned(), value.clone());
        }
    }
}

fn merge_list(target: &mut Vec<Value>, patch: &[Value], keyed: Keyed) {
    let replaces_all = |item: &Map<String, Value>| {
        directive(item) == Some("replace") && !item.contains_key(keyed.key)
    };
    let items = || patch.iter().filter_map(Value::as_object);
    if items().any(replaces_all) {
        target.clear();
    }
    for item in items().filter(|item| !replaces_all(item)) {
        let position = target
            .iter()
            .position(|existing| keyed.same(existing, item));
        if directive(item) == Some("delete") {
            target.retain(|existing| !keyed.same(existing, item));
        } else if let Some(Value::Object(existing)) = position.and_then(|at| target.get_mut(at)) {
            merge_object(existing, item, keyed.item);
        } else {
            let mut fresh = Map::new();
            merge_object(&mut fresh, item, keyed.item);
            target.push(Value::Object(fresh));
        }
    }
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN_KEYS || key.starts_with(ELEMENT_ORDER)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn template() -> Value {
        json!({
            "metadata": {"labels": {"app": "podinfo"}, "annotations": {"a": "1"}},
            "spec": {
                "initContainers": [{"name": "init", "image": "busybox:1"}],
                "containers": [
                    {
                        "name": "podinfod", "image": "podinfo:6.8.0", "args": ["a", "b"],
                        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                        "ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53}, {"containerPort": 80}],
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                    },
                    {"name": "sidecar", "image": "envoy:1"},
                ],
                "volumes": [{"name": "data", "emptyDir": {}}],
                "tolerations": [{"key": "a"}, {"key": "b"}],
                "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
                "topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1}],
            }
        })
    }

    fn patched(patch: Value) -> Value {
        assert_eq!(check_patch(&patch), Ok(()), "{patch}");
        apply_candidate(
            &template(),
            &CandidateContent::Template {
                images: BTreeMap::new(),
                patch: Some(patch),
            },
        )
    }

    /// Applies `patch` to `spec` of the template, and shows what has become of `pointer` (below `/spec`).
    fn check(patch: Value, pointer: &str, expected: Value) {
        let result = patched(json!({ "spec": patch }));
        let found = result.pointer(&format!("/spec{pointer}")).cloned();
        assert_eq!(found.unwrap_or(json!("nothing")), expected, "{pointer}");
    }

    #[test]
    fn images_go_to_containers_of_that_name() {
        let images = BTreeMap::from([
            ("podinfod".to_owned(), "podinfo:6.9.0".to_owned()),
            ("init".to_owned(), "busybox:2".to_owned()),
            ("unknown".to_owned(), "x".to_owned()),
        ]);
        let content = CandidateContent::Template {
            images,
            patch: None,
        };
        let mut expected = template();
        expected["spec"]["containers"][0]["image"] = json!("podinfo:6.9.0");
        expected["spec"]["initContainers"][0]["image"] = json!("busybox:2");
        assert_eq!(apply_candidate(&template(), &content), expected);
    }

    #[test]
    fn label_sets_change_nothing() {
        let content = CandidateContent::Labels(BTreeMap::from([("v".to_owned(), "2".to_owned())]));
        assert_eq!(apply_candidate(&template(), &content), template());
    }

    #[test]
    fn objects_merge_and_null_deletes() {
        let result = patched(json!({
            "metadata": {"labels": {"version": "v2"}, "annotations": {"a": null, "b": "2", "c": null}},
            "spec": {"nodeSelector": {"disk": "ssd", "gone": null}, "tolerations": null},
        }));
        assert_eq!(
            result["metadata"],
            json!({"labels": {"app": "podinfo", "version": "v2"}, "annotations": {"b": "2"}})
        );
        assert_eq!(result["spec"]["nodeSelector"], json!({"disk": "ssd"}));
        assert_eq!(result["spec"].get("tolerations"), None);
    }

    #[test]
    fn lists_merge_by_their_keys() {
        let container = |patch: Value| json!({"containers": [patch]});
        check(
            container(
                json!({"name": "podinfod", "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]}),
            ),
            "/containers/0/env",
            json!([{"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C", "value": "4"}]),
        );
        check(
            container(json!({"name": "podinfod", "ports": [{"containerPort": 53, "name": "dns"}]})),
            "/containers/0/ports",
            json!([
                {"containerPort": 53, "protocol": "UDP"},
                {"containerPort": 53, "name": "dns"},
                {"containerPort": 80},
            ]),
        );
        check(
            container(
                json!({"name": "podinfod", "volumeMounts": [{"mountPath": "/data", "readOnly": true}]}),
            ),
            "/containers/0/volumeMounts",
            json!([{"name": "data", "mountPath": "/data", "readOnly": true}]),
        );
        check(
            container(
                json!({"name": "new", "image": "new:1", "env": [{"name": "X", "value": null}]}),
            ),
            "/containers/2",
            json!({"name": "new", "image": "new:1", "env": [{"name": "X"}]}),
        );
        check(
            json!({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["b"]}]}),
            "/hostAliases",
            json!([{"ip": "10.0.0.1", "hostnames": ["b"]}]),
        );
        check(
            json!({"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 2}]}),
            "/topologySpreadConstraints",
            json!([{"topologyKey": "zone", "maxSkew": 2}]),
        );
        check(
            json!({"imagePullSecrets": [{"name": "registry"}]}),
            "/imagePullSecrets",
            json!([{"name": "registry"}]),
        );
    }

    #[test]
    fn other_lists_are_replaced() {
        check(
            json!({"tolerations": [{"key": "c"}]}),
            "/tolerations",
            json!([{"key": "c"}]),
        );
        check(
            json!({"containers": [{"name": "podinfod", "args": []}]}),
            "/containers/0/args",
            json!([]),
        );
    }

    #[test]
    fn directives_are_honoured() {
        check(
            json!({"containers": [{"name": "sidecar", "$patch": "delete"}]}),
            "/containers/1",
            json!("nothing"),
        );
        check(
            json!({"containers": [{"name": "podinfod", "env": [{"$patch": "replace"}, {"name": "Z", "value": "9"}]}]}),
            "/containers/0/env",
            json!([{"name": "Z", "value": "9"}]),
        );
        check(
            json!({"containers": [{"name": "sidecar", "$patch": "replace", "image": "envoy:2"}]}),
            "/containers/1",
            json!({"name": "sidecar", "image": "envoy:2"}),
        );
        check(
            json!({"containers": [{"name": "podinfod", "resources": {"$patch": "replace", "limits": {"cpu": "2"}}}]}),
            "/containers/0/resources",
            json!({"limits": {"cpu": "2"}}),
        );
        check(
            json!({"containers": [{"name": "podinfod", "resources": {"$patch": "delete"}}]}),
            "/containers/0/resources",
            json!("nothing"),
        );
        check(
            json!({"volumes": [{"name": "data", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]}),
            "/volumes",
            json!([{"name": "data", "configMap": {"name": "c"}}]),
        );
        check(
            json!({"containers": [{"name": "podinfod", "$deleteFromPrimitiveList/args": ["a"]}],
                   "$setElementOrder/containers": [{"name": "podinfod"}]}),
            "/containers/0/args",
            json!(["b"]),
        );
    }

    proptest! {
        #[test]
        fn a_template_as_its_own_patch_changes_nothing(drop in 0..4_usize) {
            let mut patch = template();
            let gone = ["env", "ports", "args", "image"][drop];
            patch["spec"]["containers"][0].as_object_mut().unwrap().remove(gone);
            prop_assert_eq!(patched(patch), template());
        }
    }
}
