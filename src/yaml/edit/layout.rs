//! Lines of the file that is edited, and the habits of whoever wrote it.

use super::Editor;
use crate::yaml::node::{Node, NodeValue};

/// How the file is laid out, as far as new lines have to fit in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Columns by which a block sequence is indented more than its key.
    pub(super) dash_indent: usize,
}

impl Layout {
    /// The layout of a document, from the first block sequence below a key.
    pub(super) fn of(content: &[u8], root: &Node) -> Self {
        Self {
            dash_indent: dash_indent(content, root).unwrap_or(0),
        }
    }
}

fn dash_indent(content: &[u8], node: &Node) -> Option<usize> {
    match &node.value {
        NodeValue::Mapping(entries) => entries.iter().find_map(|(key, value)| {
            let is_block = content.get(value.span.start) == Some(&b'-')
                && matches!(&value.value, NodeValue::Sequence(items) if !items.is_empty());
            if is_block && !value.aliased {
                return value.span.column.checked_sub(key.span.column);
            }
            dash_indent(content, value)
        }),
        NodeValue::Sequence(items) => items.iter().find_map(|item| dash_indent(content, item)),
        NodeValue::Scalar { .. } => None,
    }
}

impl Editor<'_> {
    /// First byte of the line that holds `at`.
    pub(super) fn line_start(&self, at: usize) -> usize {
        let before = self.content.get(..at).unwrap_or_default();
        before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |newline| newline + 1)
    }

    /// First byte of the line after the one that holds `at`; `None` when that is the last, without a line break.
    pub(super) fn next_line(&self, at: usize) -> Option<usize> {
        let rest = self.content.get(at..).unwrap_or_default();
        let newline = rest.iter().position(|byte| *byte == b'\n')?;
        Some(at + newline + 1)
    }

    /// The whole lines from `start` to `end`. At the end of a file without a final line break it is the break before
    /// them that goes, so that the file still has none.
    pub(super) fn lines(&self, start: usize, end: usize) -> (usize, usize) {
        let from = self.line_start(start);
        match self.next_line(end) {
            Some(to) => (from, to),
            None => {
                let before = self.content.get(..from).unwrap_or_default();
                let without = before
                    .strip_suffix(b"\r\n")
                    .or_else(|| before.strip_suffix(b"\n"));
                (without.map_or(from, <[u8]>::len), self.content.len())
            }
        }
    }

    /// The line break in use where something is added.
    pub(super) fn line_break(&self, at: usize) -> &'static str {
        let before = self.content.get(..at).unwrap_or_default();
        let last = before.iter().rposition(|byte| *byte == b'\n');
        match last.and_then(|newline| newline.checked_sub(1)) {
            Some(return_at) if before.get(return_at) == Some(&b'\r') => "\r\n",
            _ => "\n",
        }
    }

    /// Whether nothing but spaces stands on the line before `at`.
    pub(super) fn begins_line(&self, at: usize) -> bool {
        let from = self.line_start(at);
        let before = self.content.get(from..at).unwrap_or_default();
        before.iter().all(|byte| *byte == b' ')
    }

    /// Whether the bytes hold something that reads like a comment.
    pub(super) fn has_comment(&self, start: usize, end: usize) -> bool {
        let between = self.content.get(start..end).unwrap_or_default();
        between.contains(&b'#')
    }

    /// Adds whole lines behind the line that holds `end`.
    pub(super) fn add_lines(&mut self, end: usize, lines: &[String]) {
        match self.next_line(end) {
            Some(at) => {
                let line_break = self.line_break(at);
                let text: String = lines
                    .iter()
                    .flat_map(|line| [line.as_str(), line_break])
                    .collect();
                self.patch(at, at, text);
            }
            None => {
                let at = self.content.len();
                let line_break = self.line_break(at);
                let text: String = lines
                    .iter()
                    .flat_map(|line| [line_break, line.as_str()])
                    .collect();
                self.patch(at, at, text);
            }
        }
    }
}
