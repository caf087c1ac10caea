//! Schemas of the fields that a plain derive cannot describe.
//!
//! The CRD must be structural, so a field that takes two shapes is left open there. What it really takes stands under
//! [`RULES`], a keyword that the published CRD does not carry and `spec` validates files against.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::spec::{Climb, RungSpec};

/// Keyword with the full schema of a field that the CRD leaves open.
pub const RULES: &str = "x-serin-rules";

/// An object that is passed through to Istio or Kubernetes.
pub(super) fn open_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A list of objects that are passed through to Istio.
pub(super) fn open_objects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
    })
}

/// A duration such as `90s`, `2m`, `1h30m` or `500ms`.
pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "pattern": "^([0-9]+(ms|s|m|h|d))+$",
        "maxLength": 32,
        (RULES): {"type": "string", "format": "duration"}
    })
}

/// A number, or a duration.
pub(super) fn limit(generator: &mut SchemaGenerator) -> Schema {
    let duration = duration(generator);
    json_schema!({
        "x-kubernetes-preserve-unknown-fields": true,
        (RULES): {"anyOf": [{"type": "number"}, duration]}
    })
}

/// A number of replicas, or the word `proportional`.
pub(super) fn replicas(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "x-kubernetes-validations": [{
            "rule": "type(self) == int ? self > 0 : self == 'proportional'",
            "message": "give a number of replicas above 0, or `proportional`"
        }],
        (RULES): {"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": 100_000},
            {"type": "string", "enum": ["proportional"]}
        ]}
    })
}

/// A list of steps, or one climb.
pub(super) fn ladder(generator: &mut SchemaGenerator) -> Schema {
    let rung = RungSpec::json_schema(generator);
    let climb = Climb::json_schema(generator);
    json_schema!({
        "x-kubernetes-preserve-unknown-fields": true,
        (RULES): {"anyOf": [
            {"type": "array", "minItems": 1, "items": {"anyOf": [rung, climb]}},
            climb
        ]}
    })
}
