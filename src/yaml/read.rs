//! From bytes to documents: what may be read at all, and how reading goes on behind a mistake.

use granit_parser::{Event, Parser};

use super::build::Builder;
use super::node::{Document, ParseError, Parsed};
use super::quick;

/// Most bytes of a file.
pub const MAX_BYTES: usize = 5 * 1024 * 1024;
/// Deepest nesting of collections, aliases expanded.
pub const MAX_DEPTH: usize = 100;
/// Most nodes that all aliases of a file may stand for together.
pub const MAX_EXPANDED: usize = 100_000;

/// An event of the parser with its position.
pub(super) type Spanned<'a> = (Event<'a>, granit_parser::Span);

/// Reads a whole stream.
pub fn parse(content: &[u8]) -> Parsed {
    match readable(content) {
        Ok(text) => match quick::read(text) {
            Some(parsed) => {
                // Whatever any test reads is read both ways.
                #[cfg(test)]
                assert_eq!(parsed, thoroughly(text), "{text:?}");
                parsed
            }
            None => thoroughly(text),
        },
        Err(error) => Parsed {
            errors: vec![error],
            ..Parsed::default()
        },
    }
}

/// Reads any text.
pub(super) fn thoroughly(text: &str) -> Parsed {
    let mut options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
        emit_unresolved_aliases: true,
    };
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut reader = Reader {
        source: text,
        expanded: 0,
        next_index: 0,
        parsed: Parsed::default(),
    };
    let mut events: Vec<Spanned<'_>> = Vec::new();
    while let Some(next) = parser.next_event() {
        match next {
            Ok((Event::DocumentEnd, _)) => reader.finish(&std::mem::take(&mut events), None),
            Ok((Event::StreamStart | Event::StreamEnd, _)) => {}
            Ok(event) => events.push(event),
            Err(error) => {
                let at = error.marker();
                let failure = ParseError {
                    line: at.line(),
                    column: at.col() + 1,
                    message: error.kind().to_string(),
                };
                reader.finish(&std::mem::take(&mut events), Some(failure));
                if !matches!(parser.proceed_next_document(), Ok(true)) {
                    break;
                }
            }
        }
    }
    reader.parsed
}

/// The text of a file, if its size and characters are such that YAML allows them.
pub(super) fn readable(content: &[u8]) -> Result<&str, ParseError> {
    if content.len() > MAX_BYTES {
        return Err(ParseError {
            line: 1,
            column: 1,
            message: format!(
                "the file has {} bytes; at most {MAX_BYTES} are read",
                content.len()
            ),
        });
    }
    let problem = |valid: &str, message: String| {
        let line_start = valid.rfind('\n').map_or(0, |at| at + 1);
        ParseError {
            line: valid.matches('\n').count() + 1,
            column: valid[line_start..].chars().count() + 1,
            message,
        }
    };
    let text = std::str::from_utf8(content).map_err(|error| {
        let (valid, rest) = content.split_at(error.valid_up_to());
        let byte = rest.first().copied().unwrap_or_default();
        problem(
            std::str::from_utf8(valid).unwrap_or_default(),
            format!("byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"),
        )
    })?;
    let control = |byte: &u8| matches!(byte, 0..=8 | 11 | 12 | 14..=31 | 127);
    // Nearly no file has one: all are looked at together, which is quicker than to stop at the first.
    let has_one = content.iter().fold(false, |any, byte| any | control(byte));
    let first = has_one.then(|| content.iter().position(control)).flatten();
    match first {
        None => Ok(text),
        Some(at) => Err(problem(
            text.get(..at).unwrap_or_default(),
            format!(
                "control character 0x{:02x} is not allowed in YAML",
                content[at]
            ),
        )),
    }
}

/// Collects documents; what aliases expand to is counted over the whole file.
struct Reader<'a> {
    source: &'a str,
    expanded: usize,
    next_index: usize,
    parsed: Parsed,
}

impl Reader<'_> {
    /// Takes the events of one document, complete or cut off by `failure`.
    fn finish(&mut self, events: &[Spanned<'_>], failure: Option<ParseError>) {
        let index = self.next_index;
        self.next_index += 1;
        let mut builder = Builder::new(self.source, events, self.expanded);
        let root = builder.document();
        self.expanded = builder.expanded;
        let mut errors = builder.errors;
        errors.extend(failure);
        let document = root.map(|root| Document { index, root });
        if errors.is_empty() {
            self.parsed
                .documents
                .extend(document.filter(|document| !document.root.is_absent()));
        } else {
            self.parsed.broken.extend(document);
            self.parsed.errors.append(&mut errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::yaml::node::{Node, NodeValue};

    /// Every scalar's source, in the order of the tree; `^` where a span does not say what the line and column say.
    fn scalars(source: &str) -> Vec<String> {
        fn walk(node: &Node, source: &str, out: &mut Vec<String>) {
            match &node.value {
                NodeValue::Scalar { .. } => {
                    let line_start = source[..node.span.start].rfind('\n').map_or(0, |at| at + 1);
                    let before = source[line_start..node.span.start].trim_start_matches('\u{feff}');
                    assert_eq!(
                        node.span.column,
                        before.chars().count() + 1,
                        "column of {:?} in {source:?}",
                        &source[node.span.start..node.span.end]
                    );
                    assert_eq!(
                        node.span.line,
                        source[..node.span.start].matches('\n').count() + 1
                    );
                    out.push(source[node.span.start..node.span.end].to_owned());
                }
                NodeValue::Sequence(items) => items.iter().for_each(|i| walk(i, source, out)),
                NodeValue::Mapping(entries) => entries.iter().for_each(|(k, v)| {
                    walk(k, source, out);
                    walk(v, source, out);
                }),
            }
        }
        let parsed = parse(source.as_bytes());
        assert_eq!(parsed.errors, [], "{source:?}");
        let mut out = Vec::new();
        for document in &parsed.documents {
            walk(&document.root, source, &mut out);
        }
        out
    }

    fn errors(source: &[u8]) -> String {
        parse(source)
            .errors
            .iter()
            .map(|e| format!("{}:{}: {}\n", e.line, e.column, e.message))
            .collect()
    }

    #[test]
    fn spans_cover_exactly_the_source_of_a_scalar() {
        for (source, expected) in [
            ("a: b # c\n", vec!["a", "b"]),
            ("a:   b   \n", vec!["a", "b"]),
            ("a: b\r\nc: d\r\n", vec!["a", "b", "c", "d"]),
            ("a: 'it''s'  # x\n", vec!["a", "'it''s'"]),
            ("a: \"q # r\\n\" # x\n", vec!["a", "\"q # r\\n\""]),
            ("a:\nb: 1", vec!["a", "", "b", "1"]),
            ("\u{feff}a: b\n", vec!["a", "b"]),
            ("\u{feff}# c\r\na: b\n", vec!["a", "b"]),
            ("é: ü # ö\nx: é\n", vec!["é", "ü", "x", "é"]),
            ("a: !!str 12 # c\n", vec!["a", "12"]),
            ("a: &x 12 # c\n", vec!["a", "12"]),
            ("a: !!str &x '12'\n", vec!["a", "'12'"]),
            ("{a: b , c: 'd',e: }\n", vec!["a", "b", "c", "'d'", "e", ""]),
            ("- 1\n-   2 \n- \n", vec!["1", "2", ""]),
            ("a: foo\n  bar  \nb: c\n", vec!["a", "foo\n  bar", "b", "c"]),
            (
                "a: |\n  x\n  y\n\nb: c\n",
                vec!["a", "|\n  x\n  y", "b", "c"],
            ),
            (
                "a: >-  # c | d\n\n  x\n# e\nb: c\n",
                vec!["a", ">-  # c | d\n\n  x", "b", "c"],
            ),
            (
                "\"a|b\": !!str &x |2-\r\n   x\r\nb: c",
                vec!["\"a|b\"", "|2-\r\n   x", "b", "c"],
            ),
            ("a: |\nb: c\n", vec!["a", "|", "b", "c"]),
            ("a: |+ # x\n\nb: c\n", vec!["a", "|+", "b", "c"]),
            ("a: # c > d\n  |\n  x\n", vec!["a", "|\n  x"]),
            ("--- |\n  x\n--- >\n y\n", vec!["|\n  x", ">\n y"]),
            ("- |\n  x\n- - >\n    y\n", vec!["|\n  x", ">\n    y"]),
            ("? a\n: b\n", vec!["a", "b"]),
            ("---\n\n# c\n---\na: b\n...\n---\nc", vec!["a", "b", "c"]),
        ] {
            assert_eq!(scalars(source), expected, "{source:?}");
        }
    }

    #[test]
    fn spans_of_collections_end_with_their_last_child() {
        let source = "a:\n  b: [1, {x: y} ] # c\n  d:\n  - e\n  - f: g\n\nh: i\n";
        let parsed = parse(source.as_bytes());
        let root = &parsed.documents[0].root;
        let text = |path: &[&str]| {
            let span = root.at(path).unwrap().span;
            &source[span.start..span.end]
        };
        assert_eq!(text(&["a"]), "b: [1, {x: y} ] # c\n  d:\n  - e\n  - f: g");
        assert_eq!(text(&["a", "b"]), "[1, {x: y} ]");
        assert_eq!(text(&["h"]), "i");
        assert_eq!(text(&["a", "d"]), "- e\n  - f: g");
        for (source, expected) in [
            ("a:\n- -1\n", "- -1"),
            ("a: # - x\n- # y\n  -\n", "- # y\n  -"),
            ("a: !x-y\n  - &z 1\n", "- &z 1"),
            ("a: &z\n- \n", "-"),
            ("- - 1\n  - 2\n- 3\n", "- - 1"),
        ] {
            let parsed = parse(source.as_bytes());
            let root = &parsed.documents[0].root;
            let span = root.get("a").unwrap_or(root).span;
            assert!(
                source[span.start..].starts_with(expected),
                "{source:?} {span:?}"
            );
            assert_eq!(span.line, source[..span.start].matches('\n').count() + 1);
        }
        let nested = parse(b"a:\n- - 1\n");
        let inner = &nested.documents[0].root.get("a").unwrap().items()[0];
        assert_eq!(inner.span.start, 5);
        let flat = parse(b"- - 1\n");
        assert_eq!(flat.documents[0].root.items()[0].span.start, 2);
    }

    #[test]
    fn documents_are_counted_with_the_empty_ones() {
        let parsed = parse(b"---\n---\na: 1\n---\n# nothing\n---\nb: 2\n");
        let indexes: Vec<_> = parsed.documents.iter().map(|d| d.index).collect();
        assert_eq!(indexes, [1, 3]);
    }

    #[test]
    fn a_broken_document_leaves_the_others_alone() {
        let parsed = parse(b"a: 1\n---\nkind: X\nb: [1\n---\nc: 3\nc: 4\n---\nd: 5\n");
        let indexes: Vec<_> = parsed.documents.iter().map(|d| d.index).collect();
        assert_eq!(indexes, [0, 3]);
        assert_eq!(parsed.broken.len(), 2);
        assert_eq!(
            parsed.broken[0].root.get("kind").and_then(Node::as_str),
            Some("X")
        );
        assert_eq!(
            errors(b"a: 1\n---\nkind: X\nb: [1\n---\nc: 3\nc: 4\n---\nd: 5\n"),
            "4:4: unclosed bracket '['\n7:1: the key `c` is given twice, first on line 6\n"
        );
    }

    #[test]
    fn unreadable_bytes_are_named_with_their_place() {
        assert_eq!(
            errors(b"a: b\nc\xc3\xa9: \xff\n"),
            "2:5: byte 0xff is not UTF-8; save the file as UTF-8\n"
        );
        assert_eq!(
            errors(b"a: b\nc: \0\n"),
            "2:4: control character 0x00 is not allowed in YAML\n"
        );
        let big = vec![b'#'; MAX_BYTES + 1];
        assert_eq!(
            errors(&big),
            "1:1: the file has 5242881 bytes; at most 5242880 are read\n"
        );
    }

    #[test]
    fn aliases_are_resolved_and_marked_at_both_ends() {
        let parsed = parse(b"a: &x {k: [1, &y 2]}\nb: *x\nc: 3\nd: &unused 4\n");
        assert_eq!(parsed.errors, []);
        let root = &parsed.documents[0].root;
        assert_eq!(
            root.to_json(),
            serde_json::json!({"a": {"k": [1, 2]}, "b": {"k": [1, 2]}, "c": 3, "d": 4})
        );
        let b = root.get("b").unwrap();
        assert_eq!(
            (b.span.line, b.span.column, b.span.end - b.span.start),
            (2, 4, 2)
        );
        for (path, aliased) in [
            (&["a"][..], true),
            (&["a", "k"], true),
            (&["b"], true),
            (&["b", "k"], true),
            (&["c"], false),
            (&["d"], false),
        ] {
            assert_eq!(root.at(path).unwrap().aliased, aliased, "{path:?}");
        }
        assert!(!root.aliased);
    }

    #[test]
    fn merge_keys_give_way_to_what_is_written() {
        let source = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz:\n  <<: [*x, *y]\n  a: 0\nw:\n  '<<': 1\nv:\n  <<: {q: 1}\n";
        let parsed = parse(source.as_bytes());
        assert_eq!(parsed.errors, []);
        let root = &parsed.documents[0].root;
        assert_eq!(
            root.get("z").unwrap().to_json(),
            serde_json::json!({"a": 0, "b": 1, "c": 2})
        );
        assert_eq!(
            root.get("w").unwrap().to_json(),
            serde_json::json!({"<<": 1})
        );
        assert_eq!(
            root.get("v").unwrap().to_json(),
            serde_json::json!({"q": 1})
        );
        assert!(!root.at(&["z", "a"]).unwrap().aliased);
        assert!(root.at(&["z", "b"]).unwrap().aliased);
        assert_eq!(
            errors(b"a:\n  <<: 1\n"),
            "2:3: `<<` takes a mapping, or a list of mappings\n"
        );
    }

    #[test]
    fn bombs_are_errors_and_cheap() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..20 {
            let below = level - 1;
            let _ = writeln!(
                bomb,
                "a{level}: &a{level} [{}]",
                vec![format!("*a{below}"); 10].join(", ")
            );
        }
        assert!(errors(bomb.as_bytes()).contains("stand for more than 100000 nodes"));
        assert!(parse(bomb.as_bytes()).documents.is_empty());
        assert_eq!(
            errors(b"a: &a [*a]\n"),
            "1:8: an alias stands inside its own anchor\n"
        );
        assert_eq!(
            errors(b"a: *b\nc: *d\n"),
            "1:4: no anchor `&b` before the alias `*b`\n2:4: no anchor `&d` before the alias `*d`\n"
        );
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        assert_eq!(errors(deep.as_bytes()).lines().count(), 1);
        let mixed = format!("{}{}", "- ".repeat(60), "[".repeat(60) + &"]".repeat(60));
        assert!(errors(mixed.as_bytes()).contains("nested more than 100 levels deep"));
    }

    #[test]
    fn keys_must_be_text() {
        assert_eq!(
            errors(b"image: {{ .Values.image }}\n"),
            "1:9: a key must be plain text, not a list or a mapping\n"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[ -~\n\t\r{}\\[\\]&*!|>'\"%@`é]{0,80}") {
            let parsed = parse(text.as_bytes());
            for document in parsed.documents.iter().chain(&parsed.broken) {
                let _ = document.root.to_json();
                proptest::prop_assert!(text.get(document.root.span.start..document.root.span.end).is_some());
            }
        }
    }
}
