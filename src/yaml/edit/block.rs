//! New fields and list elements in block style, as lines.

use serde_json::{Map, Value};

use super::layout::Layout;
use super::scalar;

/// The lines of `key: value`, indented by `indent` columns.
pub(super) fn field(layout: Layout, indent: usize, key: &str, value: &Value) -> Vec<String> {
    let head = format!("{}{}:", " ".repeat(indent), scalar::key(key));
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let mut lines = vec![head];
            lines.extend(mapping(layout, indent + 2, fields));
            lines
        }
        Value::Array(items) if !items.is_empty() => {
            let mut lines = vec![head];
            let indent = indent + layout.dash_indent;
            lines.extend(
                items
                    .iter()
                    .flat_map(|item| element(layout, indent, 1, item)),
            );
            lines
        }
        _ => vec![format!("{head} {}", scalar::inline(value))],
    }
}

/// The lines of `- value`, the dash in column `indent`, `gap` spaces behind it.
pub(super) fn element(layout: Layout, indent: usize, gap: usize, value: &Value) -> Vec<String> {
    let dash = format!("{}-{}", " ".repeat(indent), " ".repeat(gap));
    let inside = indent + 1 + gap;
    let mut lines = match value {
        Value::Object(fields) if !fields.is_empty() => mapping(layout, inside, fields),
        Value::Array(items) if !items.is_empty() => items
            .iter()
            .flat_map(|item| element(layout, inside, 1, item))
            .collect(),
        _ => vec![format!("{}{}", " ".repeat(inside), scalar::inline(value))],
    };
    if let Some(first) = lines.first_mut() {
        first.replace_range(..inside, &dash);
    }
    lines
}

/// `name` first, as people write it.
fn mapping(layout: Layout, indent: usize, fields: &Map<String, Value>) -> Vec<String> {
    let named = fields.iter().filter(|(key, _)| *key == "name");
    let others = fields.iter().filter(|(key, _)| *key != "name");
    named
        .chain(others)
        .flat_map(|(key, value)| field(layout, indent, key, value))
        .collect()
}
