//! Scalars and values on one line, written so that every reader takes them for what they are.

use std::ops::Range;

use serde_json::Value;

use crate::yaml::node;

/// Which bytes of a scalar's `source` to replace, and by what, in the style that it has as far as its text allows.
pub(super) fn replacement(source: &[u8], old: &str, wanted: &Value) -> (Range<usize>, String) {
    let whole = 0..source.len();
    let Value::String(text) = wanted else {
        return (whole, wanted.to_string());
    };
    match source.first() {
        Some(b'\'') if !text.contains(is_special) => {
            (whole, format!("'{}'", text.replace('\'', "''")))
        }
        Some(b'|' | b'>') => block(source, old, text).unwrap_or_else(|| (whole, quoted(text))),
        Some(b'"' | b'\'') => (whole, quoted(text)),
        _ => (whole, string(text)),
    }
}

/// What some reader of YAML 1.1 takes for a line break or leaves out, and control characters.
fn is_special(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// A text in double quotes, with an escape for what is special.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    let escaped = json.chars().map(|c| match c {
        c if is_special(c) => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    });
    escaped.collect()
}

/// A block scalar of one line keeps its header, the comment in it, and its indentation.
fn block(source: &[u8], old: &str, text: &str) -> Option<(Range<usize>, String)> {
    let header_end = source.iter().position(|byte| *byte == b'\n')? + 1;
    let body = source.get(header_end..)?;
    let indent = body.iter().take_while(|byte| **byte == b' ').count();
    let (old_line, new_line) = (old.trim_end_matches('\n'), text.trim_end_matches('\n'));
    let fits = body.get(indent..)? == old_line.as_bytes()
        && old.len() - old_line.len() == text.len() - new_line.len()
        && !new_line.is_empty()
        && !new_line.starts_with([' ', '\t', '#'])
        && !new_line.ends_with([' ', '\t'])
        && !new_line.contains(is_special);
    fits.then(|| (header_end + indent..source.len(), new_line.to_owned()))
}

/// A text as a plain scalar where it reads back as that text in block and in flow style, else quoted.
pub(super) fn string(text: &str) -> String {
    let in_block = node::parse(format!("k: {text}\n").as_bytes());
    let in_flow = node::parse(format!("k: [{text}]\n").as_bytes());
    let reads = |parsed: &node::Parsed, wanted: &Value| {
        parsed.errors.is_empty()
            && matches!(parsed.documents.as_slice(), [one] if &one.root.to_json() == wanted)
    };
    let plain = !text.contains(is_special)
        && reads(&in_block, &serde_json::json!({"k": text}))
        && reads(&in_flow, &serde_json::json!({"k": [text]}));
    if plain { text.to_owned() } else { quoted(text) }
}

/// A key, plain or quoted.
pub(super) fn key(text: &str) -> String {
    let parsed = node::parse(format!("{text}: 1\n").as_bytes());
    let plain = parsed.errors.is_empty()
        && matches!(parsed.documents.as_slice(), [one] if one.root.to_json() == serde_json::json!({text: 1}))
        && string(text) == text;
    if plain { text.to_owned() } else { quoted(text) }
}

/// A value on one line, collections in flow style.
pub(super) fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{}: {}", key(name), inline(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}
