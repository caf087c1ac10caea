//! Edits that change only the bytes they have to: comments, quoting, line ends, anchors and odd indentation stay.
//!
//! [`rewrite`] takes a document from one JSON value to another: scalars are replaced in their own style, fields and list
//! elements are added and removed with their lines, what changes its kind is replaced as a whole. What would touch more
//! than the values concerned is refused, and afterwards the result is parsed and must differ exactly as intended.

mod block;
mod layout;
mod mapping;
mod scalar;
mod sequence;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::memory::{self, Reading};
use super::node::{Node, NodeValue};
use layout::Layout;

/// Why an edit was not made. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct EditError {
    /// Line of the value concerned, from 1.
    pub line: usize,
    /// What is in the way, for people.
    pub problem: String,
}

/// The bytes of `content` with the value at `path` in document `index` (counted as in [`super::node::Document::index`]) turned
/// from what it is into `wanted`.
pub fn rewrite(
    content: &[u8],
    index: usize,
    path: &[&str],
    wanted: &Value,
) -> Result<Vec<u8>, EditError> {
    let before = memory::read(content);
    let steps: Vec<Step> = path
        .iter()
        .map(|key| Step::Key((*key).to_owned()))
        .collect();
    edit(content, &before, (index, &steps), wanted)
}

/// The bytes of `content` with the scalar that begins at byte `start`, in document `index`, turned into `text`.
pub fn replace_scalar(
    content: &[u8],
    index: usize,
    start: usize,
    text: &str,
) -> Result<Vec<u8>, EditError> {
    let before = memory::read(content);
    let document = before
        .parsed
        .documents
        .iter()
        .find(|document| document.index == index);
    let mut steps = Vec::new();
    if !document.is_some_and(|document| find(&document.root, start, &mut steps)) {
        return Err(gone());
    }
    edit(content, &before, (index, &steps), &Value::from(text))
}

/// A step from a value to one inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Item(usize),
}

/// Collects the way to the scalar that begins at `start`.
fn find(node: &Node, start: usize, steps: &mut Vec<Step>) -> bool {
    let mut inside = |step: Step, inner: &Node| {
        steps.push(step);
        let found = find(inner, start, steps);
        if !found {
            steps.pop();
        }
        found
    };
    match &node.value {
        NodeValue::Scalar { .. } => node.span.start == start,
        NodeValue::Sequence(items) => items
            .iter()
            .enumerate()
            .any(|(index, item)| inside(Step::Item(index), item)),
        NodeValue::Mapping(entries) => entries
            .iter()
            .any(|(key, value)| inside(Step::Key(key.json_key()), value)),
    }
}

fn gone() -> EditError {
    EditError {
        line: 1,
        problem: "the value is not there any more".to_owned(),
    }
}

fn edit(
    content: &[u8],
    before: &Reading,
    (index, steps): (usize, &[Step]),
    wanted: &Value,
) -> Result<Vec<u8>, EditError> {
    let root = before
        .parsed
        .documents
        .iter()
        .find(|document| document.index == index)
        .map(|document| &document.root)
        .ok_or_else(gone)?;
    let (target, place) = descend(content, root, steps)?;
    let attempt = |aliases| {
        let mut editor = Editor {
            content,
            layout: Layout::of(content, root),
            aliases,
            patches: Vec::new(),
        };
        editor.change(target, wanted, place)?;
        let out = editor.spliced();
        verify(before, &out, (index, steps), wanted, target)?;
        Ok(out)
    };
    attempt(Aliases::Follow).or_else(|_| attempt(Aliases::Replace))
}

/// The value at the end of a path, and where it stands.
fn descend<'n>(
    content: &[u8],
    root: &'n Node,
    steps: &[Step],
) -> Result<(&'n Node, Place), EditError> {
    let mut found = (root, Place { after: None });
    for step in steps {
        found = match step {
            Step::Key(name) => {
                let entry = found
                    .0
                    .entries()
                    .iter()
                    .find(|(key, _)| key.json_key() == *name);
                let (key, value) =
                    entry.ok_or_else(|| refuse(found.0, format!("`{name}` is not there")))?;
                let after = mapping::colon(content, key);
                (value, Place { after })
            }
            Step::Item(index) => {
                let item = found.0.items().get(*index).ok_or_else(gone)?;
                (item, Place { after: None })
            }
        };
    }
    Ok(found)
}

/// What happens to a value that an alias refers to. Both ways are tried; the check of the result decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aliases {
    /// It is changed where its anchor is, and the aliases follow.
    Follow,
    /// An alias is replaced by the value it shall have; what is anchored stays.
    Replace,
}

/// Where a value stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// First byte behind the `:` or `-` that announces the value.
    after: Option<usize>,
}

/// A replacement of bytes.
#[derive(Debug)]
struct Patch {
    start: usize,
    end: usize,
    text: String,
}

/// Collects what has to be replaced in one document.
struct Editor<'a> {
    content: &'a [u8],
    layout: Layout,
    aliases: Aliases,
    patches: Vec<Patch>,
}

fn refuse(node: &Node, problem: impl Into<String>) -> EditError {
    EditError {
        line: node.span.line.max(1),
        problem: problem.into(),
    }
}

impl Editor<'_> {
    fn patch(&mut self, start: usize, end: usize, text: impl Into<String>) {
        self.patches.push(Patch {
            start,
            end,
            text: text.into(),
        });
    }

    /// Collects what turns `node` into `wanted`.
    fn change(&mut self, node: &Node, wanted: &Value, place: Place) -> Result<(), EditError> {
        if &node.to_json() == wanted {
            return Ok(());
        }
        let is_alias = self.content.get(node.span.start) == Some(&b'*');
        match self.aliases {
            Aliases::Follow if is_alias => return Ok(()),
            Aliases::Replace if is_alias => return self.replace(node, wanted, place),
            Aliases::Replace if node.aliased => {
                return Err(refuse(
                    node,
                    "an alias (`*name`) elsewhere refers to this value, and an edit would change it there as well",
                ));
            }
            Aliases::Follow | Aliases::Replace => {}
        }
        match (&node.value, wanted) {
            (NodeValue::Mapping(entries), Value::Object(fields)) => {
                self.mapping(node, entries, fields, place)
            }
            (NodeValue::Sequence(items), Value::Array(values)) => {
                self.sequence(node, items, values, place)
            }
            (NodeValue::Scalar { .. }, _) if node.span.start == node.span.end => {
                self.replace(node, wanted, place)
            }
            (
                NodeValue::Scalar { text, .. },
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_),
            ) => {
                let source = self
                    .content
                    .get(node.span.start..node.span.end)
                    .unwrap_or_default();
                let (within, new) = scalar::replacement(source, text, wanted);
                let start = node.span.start;
                self.patch(start + within.start, start + within.end, new);
                Ok(())
            }
            _ => self.replace(node, wanted, place),
        }
    }

    /// Puts `wanted` where `node` stands, as a whole and on one line.
    fn replace(&mut self, node: &Node, wanted: &Value, place: Place) -> Result<(), EditError> {
        let text = scalar::inline(wanted);
        let (start, end) = (node.span.start, node.span.end);
        let is_collection = !matches!(node.value, NodeValue::Scalar { .. });
        let is_block =
            is_collection && !matches!(self.content.get(start), Some(b'{' | b'[' | b'*'));
        let after = place.after.ok_or_else(|| {
            refuse(
                node,
                format!("this would have to become {wanted}: change it by hand"),
            )
        });
        if start == end {
            self.patch(after.clone()?, after?, format!(" {text}"));
        } else if is_block && self.line_start(start) >= after.clone().unwrap_or(usize::MAX) {
            self.patch(after.clone()?, after?, format!(" {text}"));
            let (from, to) = self.lines(start, end);
            self.patch(from, to, "");
        } else {
            self.patch(start, end, text);
        }
        Ok(())
    }

    /// The content with all patches in it.
    fn spliced(mut self) -> Vec<u8> {
        self.patches
            .sort_by_key(|patch| std::cmp::Reverse((patch.start, patch.end)));
        let mut out = self.content.to_vec();
        let mut limit = out.len();
        for patch in self.patches {
            // Overlapping patches are a case nobody thought of: the check of the result refuses what comes out.
            let end = patch.end.min(limit);
            let start = patch.start.min(end);
            out.splice(start..end, patch.text.into_bytes());
            limit = start;
        }
        out
    }
}

/// The result must differ from the original in the wanted value and in nothing else.
fn verify(
    before: &Reading,
    out: &[u8],
    (index, steps): (usize, &[Step]),
    wanted: &Value,
    target: &Node,
) -> Result<(), EditError> {
    let after = memory::read(out);
    let mut expected: Vec<Value> = before.values().to_vec();
    let position = before
        .parsed
        .documents
        .iter()
        .position(|document| document.index == index);
    let slot = position
        .and_then(|position| expected.get_mut(position))
        .and_then(|root| {
            steps.iter().try_fold(root, |value, step| match step {
                Step::Key(key) => value.get_mut(key),
                Step::Item(index) => value.get_mut(index),
            })
        });
    if let Some(slot) = slot {
        *slot = wanted.clone();
    }
    let as_many = after.parsed.errors.len() == before.parsed.errors.len();
    if as_many && after.values() == expected {
        return Ok(());
    }
    Err(refuse(
        target,
        "the file is written in a way that cannot be edited safely: change it by hand",
    ))
}
