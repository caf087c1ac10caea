//! A document against the schema of the types, all mistakes at once.
//!
//! Understands the keywords that our own schemas use and no others: this is no general validator.

use std::fmt;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::duration;
use super::mistake::{Mistakes, listed, quoted, suggestion};
use crate::crd::{RULES, spec_schema};
use crate::yaml::node::{Node, NodeValue};

/// Most fields that a message about a wrong type lists.
const MOST_LISTED: usize = 5;

/// What a node is called in messages, spelled out when there is one.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root(&'static str),
    Field(&'a Self, &'a str),
    Item(&'a Self, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Checks the `spec` of a canary.
pub(super) fn check_spec(spec: &Node, mistakes: &mut Mistakes) {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    let schema = SCHEMA.get_or_init(spec_schema);
    check(spec, schema, Path::Root("spec"), mistakes);
}

/// Checks `node` against `schema`; `path` is what the node is called in messages.
fn check(node: &Node, schema: &Value, path: Path<'_>, mistakes: &mut Mistakes) {
    let options = options(schema);
    match options.as_slice() {
        [only] => check_one(node, only, path, mistakes),
        _ => check_choice(node, &options, path, mistakes),
    }
}

/// What a node is, without what is in it: that is looked at in its turn.
fn shape(node: &Node) -> Value {
    match &node.value {
        NodeValue::Scalar { .. } => node.to_json(),
        NodeValue::Sequence(_) => Value::Array(Vec::new()),
        NodeValue::Mapping(_) => Value::Object(Map::new()),
    }
}

/// The shapes that a schema allows, `null` left out.
fn options(schema: &Value) -> Vec<&Value> {
    let schema = schema.get(RULES).unwrap_or(schema);
    let Some(branches) = ["anyOf", "oneOf"]
        .iter()
        .find_map(|keyword| schema.get(keyword)?.as_array())
    else {
        return vec![schema];
    };
    branches
        .iter()
        .filter(|branch| !is_null(branch))
        .flat_map(options)
        .collect()
}

fn is_null(schema: &Value) -> bool {
    schema["type"] == "null"
        || schema["enum"]
            .as_array()
            .is_some_and(|e| e == &[Value::Null])
}

fn check_choice(node: &Node, options: &[&Value], path: Path<'_>, mistakes: &mut Mistakes) {
    let words: Vec<&str> = options.iter().flat_map(|option| words(option)).collect();
    if !words.is_empty() && words.len() == options.len() {
        return check_word(node, &words, path, mistakes);
    }
    let value = shape(node);
    let fitting = options
        .iter()
        .filter(|option| has_type(&value, option))
        .max_by_key(|option| known_fields(node, option));
    match fitting {
        Some(option) => check_one(node, option, path, mistakes),
        None => {
            let expected: Vec<_> = options.iter().map(|option| expectation(option)).collect();
            mistakes.error(
                node,
                format!(
                    "`{path}` is {}, expected {}",
                    found(node),
                    expected.join(" or ")
                ),
            );
        }
    }
}

/// How many of the mapping's keys a schema knows: the more, the more likely it is the one that was meant.
fn known_fields(node: &Node, schema: &Value) -> usize {
    node.entries()
        .iter()
        .filter_map(|(key, _)| schema["properties"].get(key.as_str()?))
        .count()
}

fn words(schema: &Value) -> Vec<&str> {
    let values = schema["enum"].as_array();
    values
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn check_word(node: &Node, words: &[&str], path: Path<'_>, mistakes: &mut Mistakes) {
    match shape(node) {
        Value::String(word) if words.contains(&word.as_str()) => {}
        Value::String(word) => mistakes.error(
            node,
            format!(
                "`{path}` is {}, expected one of {}{}",
                quoted(&word),
                listed(words.iter().copied()),
                suggestion(&word, words.iter().copied())
            ),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            mistakes.error(
                node,
                format!(
                    "`{path}` is {}, expected one of {}",
                    found(node),
                    listed(words.iter().copied())
                ),
            )
        }
    }
}

fn check_one(node: &Node, schema: &Value, path: Path<'_>, mistakes: &mut Mistakes) {
    let words = words(schema);
    if !words.is_empty() {
        return check_word(node, &words, path, mistakes);
    }
    let value = shape(node);
    if !has_type(&value, schema) {
        let hint = match (&value, is_duration(schema)) {
            (Value::Number(_), true) => "; give it a unit",
            (Value::Number(_) | Value::Bool(_), false) if type_of(schema) == Some("string") => {
                "; put it in quotes"
            }
            _ => "",
        };
        mistakes.error(
            node,
            format!(
                "`{path}` is {}, expected {}{hint}",
                found(node),
                expectation(schema)
            ),
        );
        return;
    }
    match &value {
        Value::Object(_) => check_mapping(node, schema, path, mistakes),
        Value::Array(_) => check_list(node, schema, path, mistakes),
        Value::String(text) => check_text(node, text, schema, path, mistakes),
        Value::Number(number) => check_number(
            node,
            number.as_f64().unwrap_or_default(),
            schema,
            path,
            mistakes,
        ),
        Value::Null | Value::Bool(_) => {}
    }
}

fn check_mapping(node: &Node, schema: &Value, path: Path<'_>, mistakes: &mut Mistakes) {
    let properties = schema["properties"].as_object();
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    for (key, value) in node.entries() {
        let name = key.as_str().unwrap_or_default();
        let below = Path::Field(&path, name);
        match properties.and_then(|fields| fields.get(name)) {
            // Kubernetes drops an empty value of a field that is not required.
            Some(_) if shape(value).is_null() && !is_required(schema, name) => {}
            Some(field) => check(value, field, below, mistakes),
            None if schema["additionalProperties"].is_object() => {
                check(value, &schema["additionalProperties"], below, mistakes);
            }
            None if open => {}
            None => unknown_field(key, name, path, properties, mistakes),
        }
    }
    for name in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter(|name| node.get(name).is_none())
    {
        mistakes.error(node, format!("`{path}` lacks `{name}`"));
    }
    let count = node.entries().len();
    if schema["minProperties"]
        .as_u64()
        .is_some_and(|min| (count as u64) < min)
    {
        mistakes.error(node, format!("`{path}` is empty"));
    }
    if let Some(most) = schema["maxProperties"]
        .as_u64()
        .filter(|most| count as u64 > *most)
    {
        mistakes.error(
            node,
            format!("`{path}` has {count} entries, at most {most} are allowed"),
        );
    }
}

fn is_required(schema: &Value, name: &str) -> bool {
    let required = schema["required"].as_array();
    required.is_some_and(|names| names.iter().any(|n| n == name))
}

fn unknown_field(
    key: &Node,
    name: &str,
    path: Path<'_>,
    properties: Option<&Map<String, Value>>,
    mistakes: &mut Mistakes,
) {
    let known: Vec<&str> = properties
        .into_iter()
        .flatten()
        .map(|(k, _)| k.as_str())
        .collect();
    let allowed = if known.is_empty() {
        "no fields are allowed here".to_owned()
    } else {
        format!("known are {}", listed(known.iter().copied()))
    };
    let meant = suggestion(name, known.iter().copied());
    mistakes.error(
        key,
        format!(
            "unknown field {} in `{path}`{meant}; {allowed}",
            quoted(name),
        ),
    );
}

fn check_list(node: &Node, schema: &Value, path: Path<'_>, mistakes: &mut Mistakes) {
    let items = node.items();
    for (index, item) in items.iter().enumerate() {
        check(item, &schema["items"], Path::Item(&path, index), mistakes);
    }
    if items.is_empty() && schema["minItems"].as_u64().is_some_and(|min| min > 0) {
        mistakes.error(
            node,
            format!("`{path}` is empty, at least one entry is needed"),
        );
    }
    let count = items.len();
    if let Some(most) = schema["maxItems"]
        .as_u64()
        .filter(|most| count as u64 > *most)
    {
        mistakes.error(
            node,
            format!("`{path}` has {count} entries, at most {most} are allowed"),
        );
    }
}

fn check_text(node: &Node, text: &str, schema: &Value, path: Path<'_>, mistakes: &mut Mistakes) {
    if is_duration(schema) {
        if duration::read(text).is_none() {
            mistakes.error(
                node,
                format!(
                    "`{path}` is {}, expected a duration such as `90s`, `2m`, `1h30m` or `500ms`",
                    quoted(text)
                ),
            );
        }
        return;
    }
    let length = text.chars().count() as u64;
    if schema["minLength"].as_u64().is_some_and(|min| length < min) {
        mistakes.error(node, format!("`{path}` is empty"));
    }
    if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
        mistakes.error(
            node,
            format!("`{path}` has {length} characters, at most {most} are allowed"),
        );
    }
}

fn check_number(node: &Node, number: f64, schema: &Value, path: Path<'_>, mistakes: &mut Mistakes) {
    let minimum = schema["minimum"].as_f64();
    let maximum = schema["maximum"].as_f64();
    let outside =
        minimum.is_some_and(|min| number < min) || maximum.is_some_and(|max| number > max);
    if !outside {
        return;
    }
    let allowed = match (minimum, maximum) {
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => String::new(),
    };
    mistakes.error(node, format!("`{path}` is {number}, expected {allowed}"));
}

fn is_duration(schema: &Value) -> bool {
    schema["format"] == "duration"
}

/// The one type of a schema; `null` does not count.
fn type_of(schema: &Value) -> Option<&str> {
    match &schema["type"] {
        Value::String(name) => Some(name),
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .find(|name| *name != "null"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

fn has_type(value: &Value, schema: &Value) -> bool {
    match type_of(schema) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        _ => true,
    }
}

/// What a schema wants, for people.
fn expectation(schema: &Value) -> String {
    let words = words(schema);
    if !words.is_empty() {
        return listed(words);
    }
    match type_of(schema) {
        Some("object") => match schema["properties"].as_object() {
            Some(fields) if !fields.is_empty() && fields.len() <= MOST_LISTED => {
                format!(
                    "a mapping with {}",
                    listed(fields.keys().map(String::as_str))
                )
            }
            _ => "a mapping".into(),
        },
        Some("array") => "a list".into(),
        Some("string") if is_duration(schema) => "a duration such as `90s` or `2m`".into(),
        Some("string") => "text".into(),
        Some("boolean") => "`true` or `false`".into(),
        Some("integer") => "a whole number".into(),
        Some("number") => "a number".into(),
        _ => "something else".into(),
    }
}

/// What stands there, for people.
pub(super) fn found(node: &Node) -> String {
    match &node.value {
        NodeValue::Sequence(_) => "a list".into(),
        NodeValue::Mapping(_) => "a mapping".into(),
        NodeValue::Scalar { text, .. } => match node.to_json() {
            Value::Null => "empty".into(),
            Value::Bool(value) if text != "true" && text != "false" => {
                format!("{} (which YAML reads as `{value}`)", quoted(text))
            }
            Value::Number(_) => format!("the number {}", quoted(text)),
            Value::String(_) => format!("the text {}", quoted(text)),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => quoted(text),
        },
    }
}
