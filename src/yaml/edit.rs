//! Edits that change only the bytes they have to: comments, quoting, line ends, anchors and odd indentation stay.
//!
//! [`rewrite`] takes a document from one JSON value to another. What it cannot do in place without touching more than
//! the values concerned it refuses, and afterwards it parses the result and requires exactly the intended difference.

use serde_json::Value;

use super::node::{self, Node, NodeValue, Span};

/// Why an edit was not made. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct EditError {
    /// Line of the value concerned, from 1.
    pub line: usize,
    /// What is in the way, for people.
    pub problem: String,
}

/// The bytes of `content` with the value at `path` in document `index` (counted as in [`node::Document::index`]) turned
/// from what it is into `wanted`.
pub fn rewrite(
    content: &[u8],
    index: usize,
    path: &[&str],
    wanted: &Value,
) -> Result<Vec<u8>, EditError> {
    let before = node::parse(content);
    let gone = || EditError {
        line: 1,
        problem: "the document is not there any more".to_owned(),
    };
    let root = before
        .documents
        .iter()
        .find(|document| document.index == index)
        .map(|d| &d.root)
        .ok_or_else(gone)?;
    let target = root
        .at(path)
        .ok_or_else(|| refuse(root, format!("`{}` is not there", path.join("."))))?;
    let mut patches = Vec::new();
    change(content, target, wanted, &mut patches)?;
    patches.sort_by_key(|patch: &Patch| std::cmp::Reverse((patch.start, patch.end)));
    let mut out = content.to_vec();
    for patch in patches {
        out.splice(patch.start..patch.end, patch.text.into_bytes());
    }
    verify(&before, &out, (index, path), wanted, target)?;
    Ok(out)
}

/// A replacement of bytes.
#[derive(Debug)]
struct Patch {
    start: usize,
    end: usize,
    text: String,
}

fn refuse(node: &Node, problem: impl Into<String>) -> EditError {
    EditError {
        line: node.span.line.max(1),
        problem: problem.into(),
    }
}

/// Collects what turns `node` into `wanted`.
fn change(
    content: &[u8],
    node: &Node,
    wanted: &Value,
    patches: &mut Vec<Patch>,
) -> Result<(), EditError> {
    if &node.to_json() == wanted {
        return Ok(());
    }
    if node.aliased {
        return Err(refuse(
            node,
            "an alias (`*name`) stands here, and an edit would change another place as well",
        ));
    }
    match (&node.value, wanted) {
        (NodeValue::Mapping(entries), Value::Object(fields)) => {
            for (key, value) in fields {
                match node.get(key) {
                    Some(present) => change(content, present, value, patches)?,
                    None => patches.push(insertion(content, node, entries, key, value)?),
                }
            }
            let removed = entries
                .iter()
                .find(|(key, _)| key.as_str().is_some_and(|key| !fields.contains_key(key)));
            match removed {
                None => Ok(()),
                Some((key, _)) => Err(refuse(
                    key,
                    "this field would have to go: remove it by hand",
                )),
            }
        }
        (NodeValue::Sequence(items), Value::Array(values)) if items.len() == values.len() => items
            .iter()
            .zip(values)
            .try_for_each(|(item, value)| change(content, item, value, patches)),
        (NodeValue::Scalar { .. }, Value::String(_) | Value::Number(_) | Value::Bool(_)) => {
            let Span { start, end, .. } = node.span;
            let source = content.get(start..end).unwrap_or_default();
            patches.push(Patch {
                start,
                end,
                text: scalar(source, wanted),
            });
            Ok(())
        }
        _ => Err(refuse(
            node,
            format!("this would have to become {wanted}: change it by hand"),
        )),
    }
}

/// A scalar in the style of the one that it replaces, as far as its text allows.
fn scalar(source: &[u8], wanted: &Value) -> String {
    let Value::String(text) = wanted else {
        return wanted.to_string();
    };
    match source.first() {
        Some(b'\'') if !text.chars().any(char::is_control) => {
            format!("'{}'", text.replace('\'', "''"))
        }
        Some(b'"' | b'|' | b'>' | b'\'') => wanted.to_string(),
        _ => plain_or_quoted(text),
    }
}

fn plain_or_quoted(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    let in_block = node::parse(format!("k: {text}\n").as_bytes());
    let in_flow = node::parse(format!("k: [{text}]\n").as_bytes());
    let reads = |parsed: &node::Parsed, wanted: &Value| {
        parsed.errors.is_empty()
            && matches!(parsed.documents.as_slice(), [one] if &one.root.to_json() == wanted)
    };
    let plain = reads(&in_block, &serde_json::json!({"k": text}))
        && reads(&in_flow, &serde_json::json!({"k": [text]}));
    if plain { text.to_owned() } else { quoted }
}

/// A new field at the end of a mapping, in the mapping's own style.
fn insertion(
    content: &[u8],
    mapping: &Node,
    entries: &[(Node, Node)],
    key: &str,
    value: &Value,
) -> Result<Patch, EditError> {
    let key = plain_or_quoted(key);
    let value = match value {
        Value::String(text) => plain_or_quoted(text),
        other => other.to_string(), // JSON is YAML in flow style.
    };
    if content.get(mapping.span.start) == Some(&b'{') {
        let end = mapping.span.end.saturating_sub(1);
        let comma = if entries.is_empty() { "" } else { ", " };
        return Ok(Patch {
            start: end,
            end,
            text: format!("{comma}{key}: {value}"),
        });
    }
    let (Some((first, _)), Some((last_key, last))) = (entries.first(), entries.last()) else {
        return Err(refuse(
            mapping,
            format!("`{key}` would have to be added to an empty value: do that by hand"),
        ));
    };
    let end = last.span.end.max(last_key.span.end);
    let rest = content.get(end..).unwrap_or_default();
    let line_end = rest
        .iter()
        .position(|byte| *byte == b'\n')
        .map(|offset| end + offset);
    let crlf = content.windows(2).any(|pair| pair == b"\r\n");
    let line_break = if crlf { "\r\n" } else { "\n" };
    let indent = " ".repeat(first.span.column.saturating_sub(1));
    Ok(match line_end {
        Some(at) => Patch {
            start: at + 1,
            end: at + 1,
            text: format!("{indent}{key}: {value}{line_break}"),
        },
        None => Patch {
            start: content.len(),
            end: content.len(),
            text: format!("{line_break}{indent}{key}: {value}"),
        },
    })
}

/// The result must differ from the original in the wanted value and in nothing else.
fn verify(
    before: &node::Parsed,
    out: &[u8],
    (index, path): (usize, &[&str]),
    wanted: &Value,
    target: &Node,
) -> Result<(), EditError> {
    let after = node::parse(out);
    let mut expected: Vec<Value> = before
        .documents
        .iter()
        .map(|document| document.root.to_json())
        .collect();
    let position = before
        .documents
        .iter()
        .position(|document| document.index == index);
    let slot = position
        .and_then(|position| expected.get_mut(position))
        .and_then(|root| path.iter().try_fold(root, |value, key| value.get_mut(*key)));
    if let Some(slot) = slot {
        *slot = wanted.clone();
    }
    let found: Vec<Value> = after
        .documents
        .iter()
        .map(|document| document.root.to_json())
        .collect();
    if after.errors.len() == before.errors.len() && found == expected {
        return Ok(());
    }
    Err(refuse(
        target,
        "the file is written in a way that cannot be edited safely: change it by hand",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Sets the image of the first container and expects the diff to be that scalar alone.
    fn check(before: &str, from: &str, to: &str) {
        let parsed = node::parse(before.as_bytes());
        assert_eq!(parsed.errors, [], "{before}");
        let document = parsed
            .documents
            .iter()
            .find(|document| document.root.get("c").is_some())
            .unwrap();
        let mut wanted = document.root.get("c").unwrap().to_json();
        wanted[0]["image"] = json!("reg:5000/app:2.0@sha256:00");
        let after = rewrite(before.as_bytes(), document.index, &["c"], &wanted).unwrap();
        assert_eq!(
            String::from_utf8(after).unwrap(),
            before.replace(from, to),
            "{before}"
        );
    }

    #[test]
    fn only_the_scalar_changes() {
        let new = "reg:5000/app:2.0@sha256:00";
        check("c:\n- image: app:1 # stable\n  name: a\n", "app:1", new);
        check("c:\n  - name: a\n    image: app:1", "app:1", new);
        check(
            "# top\n---\na: b\n---\nc:\r\n-   name: a\r\n    image: 'app:1'   # it\r\n",
            "'app:1'",
            &format!("'{new}'"),
        );
        check(
            "c: [{name: a, image: \"app:1\"}] # flow\n",
            "\"app:1\"",
            &format!("\"{new}\""),
        );
        check(
            "\u{feff}c:\n- image: >-\n    app:1\n  name: a\n",
            ">-\n    app:1",
            &format!("\"{new}\""),
        );
        check(
            "x: &x 1\nc:\n- image: app:1\n  replicas: *x\n",
            "app:1",
            new,
        );
    }

    #[test]
    fn aliases_are_refused() {
        let before = b"x: &i app:1\nc:\n- image: *i\n";
        let error = rewrite(before, 0, &["c"], &json!([{"image": "app:2"}])).unwrap_err();
        assert_eq!(error.line, 3);
    }

    #[test]
    fn missing_fields_are_added_in_place() {
        let before = "spec:\n  a: 1 # one\n  b: {c: 2}\nother: x\n";
        let wanted = json!({"a": 1, "b": {"c": 2, "d": "yes"}, "e": ["f"]});
        let after = rewrite(before.as_bytes(), 0, &["spec"], &wanted).unwrap();
        assert_eq!(
            String::from_utf8(after).unwrap(),
            "spec:\n  a: 1 # one\n  b: {c: 2, d: \"yes\"}\n  e: [\"f\"]\nother: x\n"
        );
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let error = rewrite(b"a:\n  b: 1\n  c: 2\n", 0, &["a"], &json!({"b": 1})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 3: this field would have to go: remove it by hand"
        );
        assert!(rewrite(b"a: [1]\n", 0, &["a"], &json!([1, 2])).is_err());
    }
}
