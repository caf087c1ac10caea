//! Reading the fields of a mapping, strictly: unknown names, wrong types and missing values are all reported at once,
//! each where it is written.

use crate::domain::RepoPath;
use crate::spec::{Diagnostic, Severity};
use crate::yaml::node::{Node, NodeValue, Span};

/// The mistakes of one file, collected.
#[derive(Debug)]
pub(super) struct Problems<'f> {
    file: &'f RepoPath,
    found: Vec<Diagnostic>,
}

impl<'f> Problems<'f> {
    /// No mistakes yet.
    pub(super) fn of(file: &'f RepoPath) -> Self {
        Self {
            file,
            found: Vec::new(),
        }
    }

    /// Notes a mistake at the start of `span`.
    pub(super) fn add(&mut self, span: Span, message: impl Into<String>) {
        self.at(span.line, span.column, message);
    }

    /// Notes a mistake at a line and column, both from 1.
    pub(super) fn at(&mut self, line: usize, column: usize, message: impl Into<String>) {
        self.found.push(Diagnostic {
            file: self.file.clone(),
            line: line.max(1),
            column: column.max(1),
            severity: Severity::Error,
            message: message.into(),
        });
    }

    /// All mistakes in the order of the file; empty when there are none.
    pub(super) fn into_list(mut self) -> Vec<Diagnostic> {
        self.found.sort();
        self.found
    }
}

/// A mapping whose field names were checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'n> {
    node: &'n Node,
    /// How people call it: `rollout.yaml`, `candidate`, `held`.
    what: &'n str,
}

impl<'n> Fields<'n> {
    /// Opens `node` as a mapping with these field names; `None` when it is no mapping at all.
    pub(super) fn open(
        node: &'n Node,
        what: &'n str,
        known: &[&str],
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let NodeValue::Mapping(entries) = &node.value else {
            problems.add(
                node.span,
                format!(
                    "`{what}` has to be a mapping with {}, found {}",
                    known.join(", "),
                    describe(node)
                ),
            );
            return None;
        };
        let mut seen: Vec<&str> = Vec::new();
        for (key, _) in entries {
            match key.as_str() {
                Some(name) if seen.contains(&name) => {
                    problems.add(key.span, format!("`{name}` is written twice in `{what}`"));
                }
                Some(name) if known.contains(&name) => seen.push(name),
                Some(name) => problems.add(key.span, unknown("field", name, what, known)),
                None => problems.add(key.span, format!("a key in `{what}` is not a name")),
            }
        }
        Some(Self { node, what })
    }

    /// Where the mapping begins.
    pub(super) fn span(&self) -> Span {
        self.node.span
    }

    /// The node of a field, unless it is absent or null.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.node.get(key).filter(|node| !is_null(node))
    }

    /// The value of an optional field; a value that `read` refuses is a problem.
    pub(super) fn optional<T>(
        &self,
        key: &str,
        problems: &mut Problems<'_>,
        read: impl FnOnce(&Node) -> Result<T, String>,
    ) -> Option<T> {
        let node = self.get(key)?;
        match read(node) {
            Ok(value) => Some(value),
            Err(expected) => {
                problems.add(
                    node.span,
                    format!("`{key}` is {}: {expected}", describe(node)),
                );
                None
            }
        }
    }

    /// The node of a field that has to be there.
    pub(super) fn required_node(&self, key: &str, problems: &mut Problems<'_>) -> Option<&'n Node> {
        let node = self.get(key);
        if node.is_none() {
            problems.add(
                self.node.span,
                format!("`{key}` is missing in `{}`", self.what),
            );
        }
        node
    }

    /// The value of a field that has to be there.
    pub(super) fn required<T>(
        &self,
        key: &str,
        problems: &mut Problems<'_>,
        read: impl FnOnce(&Node) -> Result<T, String>,
    ) -> Option<T> {
        if self.get(key).is_none() {
            problems.add(
                self.node.span,
                format!("`{key}` is missing in `{}`", self.what),
            );
        }
        self.optional(key, problems, read)
    }
}

/// What to say about a name that is not among `known`: with the nearest one, if any is near.
pub(super) fn unknown(kind: &str, name: &str, place: &str, known: &[&str]) -> String {
    let nearest = nearest(name, known)
        .map(|near| format!(", did you mean `{near}`?"))
        .unwrap_or_default();
    format!(
        "unknown {kind} `{}` in `{place}`{nearest} (known: {})",
        clip(name),
        known.join(", ")
    )
}

/// The nearest of `known`, if it is near enough to be a typo.
pub(super) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name = clip(name).to_lowercase();
    known
        .iter()
        .map(|&candidate| {
            let distance = strsim::damerau_levenshtein(&name, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.len() / 3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// What a node holds, for a message.
pub(super) fn describe(node: &Node) -> String {
    match &node.value {
        NodeValue::Scalar { text, .. } => format!("`{}`", clip(text)),
        NodeValue::Sequence(_) => "a list".to_owned(),
        NodeValue::Mapping(_) => "a mapping".to_owned(),
    }
}

/// A text short enough for a message, on one line.
fn clip(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut short: String = text
        .chars()
        .take(LONGEST)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}

fn is_null(node: &Node) -> bool {
    matches!(&node.value, NodeValue::Scalar { text, is_string: false }
        if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
}
