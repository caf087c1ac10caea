//! A YAML document as a tree with positions.
//!
//! Reading never fails as a whole: mistakes come back beside the documents that are fine. It is bounded in bytes, in
//! depth and in what aliases may expand to, so that no file can exhaust us.

use serde_json::Value;
use smol_str::SmolStr;

use super::resolve;

pub use super::read::{MAX_BYTES, MAX_DEPTH, MAX_EXPANDED, parse};

/// Where a node is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte. A scalar's source includes its quotes, or the `|` or `>` of a block; tag and anchor lie before it.
    pub start: usize,
    /// First byte after it, trailing spaces, comments and line breaks left out.
    pub end: usize,
    /// Line of the first byte, from 1.
    pub line: usize,
    /// Column of the first character, from 1.
    pub column: usize,
}

/// A node with its position.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it is written (for an alias: where the alias is written).
    pub span: Span,
    /// What it is.
    pub value: NodeValue,
    /// Whether it is an alias, or inside the target of one: an edit there would change another place too.
    pub aliased: bool,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeValue {
    /// A scalar: its text after unescaping, and whether it was quoted or in a block (then it is always a string).
    Scalar {
        /// The text; most are short, and are kept in the node itself.
        text: SmolStr,
        /// Quoted or block style, or tagged `!!str`.
        is_string: bool,
    },
    /// A sequence.
    Sequence(Vec<Node>),
    /// A mapping, in the order written. Merge keys (`<<`) are resolved: what they bring in comes last.
    Mapping(Vec<(Node, Node)>),
}

/// One document of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Position in the stream, from 0; empty documents count.
    pub index: usize,
    /// Its root.
    pub root: Node,
}

/// A mistake in the YAML itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong, for people.
    pub message: String,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// The documents that could be read; empty documents are left out.
    pub documents: Vec<Document>,
    /// What could not be read. Other documents of the same file are still there.
    pub errors: Vec<ParseError>,
    /// The readable beginnings of documents with a mistake: good for saying whose they are, never for acting on them.
    pub broken: Vec<Document>,
}

impl Node {
    /// The value of `key` in a mapping.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|(_, value)| value)
    }

    /// Key and value nodes of `key` in a mapping.
    pub fn entry(&self, key: &str) -> Option<(&Self, &Self)> {
        match &self.value {
            NodeValue::Mapping(entries) => entries
                .iter()
                .find(|(k, _)| k.as_str() == Some(key))
                .map(|(k, v)| (k, v)),
            NodeValue::Scalar { .. } | NodeValue::Sequence(_) => None,
        }
    }

    /// The value at the end of a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The text of a scalar, whatever its type.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            NodeValue::Scalar { text, .. } => Some(text),
            NodeValue::Sequence(_) | NodeValue::Mapping(_) => None,
        }
    }

    /// The items of a sequence; nothing for anything else.
    pub fn items(&self) -> &[Self] {
        match &self.value {
            NodeValue::Sequence(items) => items,
            NodeValue::Scalar { .. } | NodeValue::Mapping(_) => &[],
        }
    }

    /// The entries of a mapping; nothing for anything else.
    pub fn entries(&self) -> &[(Self, Self)] {
        match &self.value {
            NodeValue::Mapping(entries) => entries,
            NodeValue::Scalar { .. } | NodeValue::Sequence(_) => &[],
        }
    }

    /// Whether nothing is written here, not even `null`.
    pub fn is_absent(&self) -> bool {
        matches!(&self.value, NodeValue::Scalar { text, is_string: false } if text.is_empty())
    }

    /// The JSON that Kubernetes would see: `kubectl` reads YAML 1.1 words (`yes`, `off`, `y`, …) as booleans,
    /// `0o17`, `017` and `0x1F` as numbers, and so do we. What JSON cannot say (`.nan`, `.inf`) stays text.
    pub fn to_json(&self) -> Value {
        match &self.value {
            NodeValue::Scalar {
                text,
                is_string: true,
            } => Value::String(text.to_string()),
            NodeValue::Scalar {
                text,
                is_string: false,
            } => resolve::plain(text),
            NodeValue::Sequence(items) => items.iter().map(Self::to_json).collect(),
            NodeValue::Mapping(entries) => entries
                .iter()
                .map(|(key, value)| (key.json_key(), value.to_json()))
                .collect(),
        }
    }

    /// The text of a key in JSON: keys that read as booleans or numbers are written as such.
    pub(super) fn json_key(&self) -> String {
        match self.to_json() {
            Value::String(text) => text,
            other @ (Value::Bool(_) | Value::Number(_)) => other.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                self.as_str().unwrap_or_default().to_owned()
            }
        }
    }
}
