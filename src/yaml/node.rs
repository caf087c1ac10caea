//! A YAML document as a tree with positions.

use serde_json::Value;

/// Where a node is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// First byte after it.
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
        /// The text.
        text: String,
        /// Quoted or block style, or tagged `!!str`.
        is_string: bool,
    },
    /// A sequence.
    Sequence(Vec<Node>),
    /// A mapping, in the order written.
    Mapping(Vec<(Node, Node)>),
}

/// One document of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Position in the stream, from 0.
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
}

/// Reads a whole stream.
pub fn parse(_content: &[u8]) -> Parsed {
    Parsed::default()
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

    /// The text of a scalar, whatever its type.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            NodeValue::Scalar { text, .. } => Some(text),
            NodeValue::Sequence(_) | NodeValue::Mapping(_) => None,
        }
    }

    /// The JSON that Kubernetes would see.
    pub fn to_json(&self) -> Value {
        Value::Null
    }
}
