//! The comments of a file, and the value that each stands behind.

use granit_parser::{Event, Parser};

use super::node::{Node, NodeValue, Parsed};
use super::read::{MAX_DEPTH, readable};

/// A comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// First byte, the `#`.
    pub start: usize,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What stands behind the `#`, without spaces around it.
    pub text: String,
}

/// A scalar that a comment stands behind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Commented<'n> {
    /// Index of its document, as in [`super::node::Document::index`].
    pub document: usize,
    /// The scalar.
    pub node: &'n Node,
}

/// All comments of a stream, as far as it can be read; text in scalars is none.
pub fn comments(content: &[u8]) -> Vec<Comment> {
    let Ok(text) = readable(content) else {
        return Vec::new();
    };
    let mut options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
        emit_unresolved_aliases: true,
    };
    options.set_emit_comments(true);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut found = Vec::new();
    while let Some(next) = parser.next_event() {
        match next {
            Ok((Event::Comment(text, _), span)) => found.push(Comment {
                start: span.byte_range().unwrap_or_default().start,
                line: span.start.line(),
                column: span.start.col() + 1,
                text: text.trim().to_owned(),
            }),
            Ok(_) => {}
            Err(_) if matches!(parser.proceed_next_document(), Ok(true)) => {}
            Err(_) => break,
        }
    }
    found.sort_by_key(|comment| comment.start);
    found.dedup();
    found
}

/// The scalar that `comment` stands directly behind, on the same line; in a block scalar behind its `|` or `>`.
pub fn commented<'n>(
    parsed: &'n Parsed,
    content: &[u8],
    comment: &Comment,
) -> Option<Commented<'n>> {
    parsed.documents.iter().find_map(|document| {
        let node = behind(&document.root, content, comment)?;
        let document = document.index;
        Some(Commented { document, node })
    })
}

fn behind<'n>(node: &'n Node, content: &[u8], comment: &Comment) -> Option<&'n Node> {
    match &node.value {
        NodeValue::Scalar { .. } => {
            let (start, end) = (node.span.start, node.span.end.min(comment.start));
            let is_blank = |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, b' ' | b'\t'));
            let between = content.get(end..comment.start)?;
            let in_header = comment.start < node.span.end
                && matches!(content.get(start), Some(b'|' | b'>'))
                && node.span.line == comment.line;
            let follows = start < end && comment.start >= node.span.end && is_blank(between);
            (follows || in_header).then_some(node)
        }
        NodeValue::Sequence(items) => items.iter().find_map(|item| behind(item, content, comment)),
        NodeValue::Mapping(entries) => entries
            .iter()
            .find_map(|(_, value)| behind(value, content, comment)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::node;

    /// Each comment with the source of the value that it stands behind.
    fn check(source: &str, expected: &[(&str, &str)]) {
        let parsed = node::parse(source.as_bytes());
        let found = comments(source.as_bytes());
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|comment| {
                let commented = commented(&parsed, source.as_bytes(), comment);
                let span = commented.map(|c| c.node.span).unwrap_or_default();
                (comment.text.as_str(), &source[span.start..span.end])
            })
            .collect();
        assert_eq!(found, expected, "{source:?}");
    }

    #[test]
    fn comments_stand_behind_values() {
        check("a: b # c\n", &[("c", "b")]);
        check(
            "a: b\t#c\r\n# d\r\ne: 'f # g' # h\r\n",
            &[("c", "b"), ("d", ""), ("h", "'f # g'")],
        );
        check("a: # b\n  c: d\n", &[("b", "")]);
        check("a: [b, c] # d\n", &[("d", "")]);
        check("a: [b, # c\n  d] \n", &[("c", "")]);
        check("a: {b: c # d\n }\n", &[("d", "c")]);
        check("a: |- # b\n  c # d\ne: f\n", &[("b", "|- # b\n  c # d")]);
        check("- a # b\n- - c # d", &[("b", "a"), ("d", "c")]);
        check(
            "\u{feff}é: ü # ö\n---\na: b # c\n",
            &[("ö", "ü"), ("c", "b")],
        );
        check("a: [\n---\nb: c # d\n", &[("d", "c")]);
    }
}
