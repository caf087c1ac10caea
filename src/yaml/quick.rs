//! Reads what needs no thought: block mappings and lists of words, with collections on one line, which is what nearly all
//! manifests are made of.
//!
//! The tree is the parser's own, positions included: tests compare the two over the manifests of the repository and over
//! texts that were broken at random. Whatever is not surely the same (anchors, tags, blocks, escapes, empty values, more
//! than one line, anything but ASCII, every mistake) is left to the parser.

use super::node::{Document, Node, NodeValue, Parsed, Span};

/// Deepest nesting that is read here; the parser's own limit lies behind it.
const DEEPEST: usize = 40;
/// Most keys of a mapping: each is compared with all before it.
const MOST_KEYS: usize = 64;
/// Longest key; the parser refuses those of more than 1,024 characters.
const LONGEST_KEY: usize = 1_000;

/// The documents of a text; `None` where that takes the parser to know.
pub(super) fn parse(source: &str) -> Option<Parsed> {
    let is_known = |byte: &u8| matches!(byte, b'\n' | b' '..=b'~');
    if !source.as_bytes().iter().all(is_known) {
        return None;
    }
    let mut reader = Reader {
        source,
        next: 0,
        number: 0,
        line: None,
    };
    let mut documents = Vec::new();
    reader.advance();
    while let Some(line) = reader.line {
        if reader.is_separator(line) {
            reader.advance();
        } else if !documents.is_empty() {
            return None;
        }
        let line = reader.line?;
        if line.indent() > 0 || reader.is_marker(line) {
            return None;
        }
        let root = reader.mapping(0)?;
        if reader.line.is_some_and(|line| !reader.is_separator(line)) {
            return None;
        }
        documents.push(Document {
            index: documents.len(),
            root,
        });
    }
    (!documents.is_empty()).then(|| Parsed {
        documents,
        ..Parsed::default()
    })
}

/// A line with something on it, or the rest of one behind a dash.
#[derive(Clone, Copy)]
struct Line {
    number: usize,
    /// First byte of the line.
    start: usize,
    /// First byte that is no space.
    at: usize,
    /// Behind the last byte that is no space.
    end: usize,
}

impl Line {
    fn indent(self) -> usize {
        self.at - self.start
    }

    fn span(self, start: usize, end: usize) -> Span {
        Span {
            start,
            end,
            line: self.number,
            column: start - self.start + 1,
        }
    }
}

/// How a plain scalar ends.
enum End {
    /// With its line, or at a comment.
    Line,
    /// At the colon behind a key.
    Key,
    /// At a character that ends the collection or its item.
    Item,
}

struct Reader<'a> {
    source: &'a str,
    /// First byte of the next line.
    next: usize,
    number: usize,
    /// The line to read; `None` at the end.
    line: Option<Line>,
}

impl Reader<'_> {
    fn byte(&self, at: usize) -> Option<u8> {
        self.source.as_bytes().get(at).copied()
    }

    /// The byte at `at`, if it is on this line.
    fn on(&self, line: Line, at: usize) -> Option<u8> {
        if at < line.end { self.byte(at) } else { None }
    }

    /// Goes to the next line that is neither empty nor a comment.
    fn advance(&mut self) {
        loop {
            let start = self.next;
            let Some(rest) = self.source.get(start..).filter(|rest| !rest.is_empty()) else {
                self.line = None;
                return;
            };
            let length = rest.find('\n').unwrap_or(rest.len());
            let text = rest.get(..length).unwrap_or_default();
            self.next = start + length + 1;
            self.number += 1;
            let content = text.trim_start_matches(' ');
            if !content.is_empty() && !content.starts_with('#') {
                self.line = Some(Line {
                    number: self.number,
                    start,
                    at: start + (text.len() - content.len()),
                    end: start + text.trim_end_matches(' ').len(),
                });
                return;
            }
        }
    }

    fn text(&self, line: Line) -> &str {
        self.source.get(line.at..line.end).unwrap_or_default()
    }

    /// Whether a line is all that `---` may be here.
    fn is_separator(&self, line: Line) -> bool {
        line.at == line.start && self.text(line) == "---"
    }

    /// Whether a line begins as the end of a document, in whatever form.
    fn is_marker(&self, line: Line) -> bool {
        line.at == line.start
            && (self.text(line).starts_with("---") || self.text(line).starts_with("..."))
    }

    /// Whether an item of a list begins with this line.
    fn is_item(&self, line: Line) -> bool {
        self.on(line, line.at) == Some(b'-')
            && self.on(line, line.at + 1).is_none_or(|byte| byte == b' ')
    }

    /// The present line if the block of this indentation goes on with it; `Some(None)` where the block ends.
    fn following(&self, indent: usize) -> Option<Option<Line>> {
        let Some(line) = self.line.filter(|line| !self.is_separator(*line)) else {
            return Some(None);
        };
        if self.is_marker(line) || line.indent() > indent {
            return None;
        }
        Some((line.indent() == indent).then_some(line))
    }

    /// A block mapping from the present line on.
    fn mapping(&mut self, depth: usize) -> Option<Node> {
        let first = self.line?;
        let indent = first.indent();
        let mut entries: Vec<(Node, Node)> = Vec::new();
        let mut line = first;
        loop {
            let (key, behind) = self.key(line, line.at)?;
            self.is_new(&entries, &key)?;
            let value = match self.value_on(line, behind) {
                Some(at) => self.rest_of_line(line, at, depth)?,
                None => self.below(indent, depth)?,
            };
            entries.push((key, value));
            match self.following(indent)? {
                Some(next) if self.is_item(next) => return None,
                Some(next) => line = next,
                None => break,
            }
        }
        Some(collection(first, first.at, NodeValue::Mapping(entries)))
    }

    /// Whether there is no such key yet. A merge key is none that is read here.
    fn is_new(&self, entries: &[(Node, Node)], key: &Node) -> Option<()> {
        let text = key.as_str()?;
        let is_taken = entries
            .iter()
            .any(|(known, _)| known.as_str() == Some(text));
        (!is_taken && text != "<<" && entries.len() < MOST_KEYS).then_some(())
    }

    /// Where a value begins on the same line.
    fn value_on(&self, line: Line, behind: usize) -> Option<usize> {
        let at = self.skip_spaces(line, behind);
        self.on(line, at).filter(|byte| *byte != b'#').map(|_| at)
    }

    fn skip_spaces(&self, line: Line, from: usize) -> usize {
        let mut at = from;
        while self.on(line, at) == Some(b' ') {
            at += 1;
        }
        at
    }

    /// A value with which its line ends.
    fn rest_of_line(&mut self, line: Line, at: usize, depth: usize) -> Option<Node> {
        let (node, end) = self.value(line, at, false, depth + 1)?;
        let rest = self.skip_spaces(line, end);
        let is_over = match self.on(line, rest) {
            None => true,
            Some(byte) => byte == b'#' && rest > end,
        };
        self.advance();
        is_over.then_some(node)
    }

    /// The value of a key on the lines below it.
    fn below(&mut self, indent: usize, depth: usize) -> Option<Node> {
        self.advance();
        let line = self.line.filter(|line| !self.is_marker(*line))?;
        if depth >= DEEPEST {
            return None;
        }
        match (self.is_item(line), line.indent()) {
            (true, inner) if inner >= indent => self.list(depth + 1),
            (false, inner) if inner > indent => self.mapping(depth + 1),
            _ => None,
        }
    }

    /// A block sequence from the present line on, the value of a key.
    fn list(&mut self, depth: usize) -> Option<Node> {
        let first = self.line?;
        let indent = first.indent();
        let mut items = Vec::new();
        let mut line = first;
        loop {
            let at = self.value_on(line, line.at + 1)?;
            let inner = Line { at, ..line };
            if self.is_item(inner) || depth >= DEEPEST {
                return None;
            }
            items.push(match self.key(line, at) {
                Some(_) => {
                    self.line = Some(inner);
                    self.mapping(depth + 1)?
                }
                None => self.rest_of_line(line, at, depth)?,
            });
            match self.following(indent)? {
                Some(next) if self.is_item(next) => line = next,
                Some(_) | None => break,
            }
        }
        Some(collection(first, first.at, NodeValue::Sequence(items)))
    }

    /// A key and where the text behind its colon begins.
    fn key(&self, line: Line, at: usize) -> Option<(Node, usize)> {
        let (node, end) = match self.on(line, at)? {
            b'"' | b'\'' => self.quoted(line, at)?,
            _ => {
                let (node, end, why) = self.plain(line, at, false)?;
                matches!(why, End::Key).then_some((node, end))?
            }
        };
        let is_key = self.on(line, end) == Some(b':')
            && self.on(line, end + 1).is_none_or(|byte| byte == b' ')
            && end - at <= LONGEST_KEY;
        is_key.then_some((node, end + 1))
    }

    /// A value and where it ends.
    fn value(&self, line: Line, at: usize, in_flow: bool, depth: usize) -> Option<(Node, usize)> {
        if depth > DEEPEST {
            return None;
        }
        match self.on(line, at)? {
            b'"' | b'\'' => self.quoted(line, at),
            b'{' => self.flow_mapping(line, at, depth),
            b'[' => self.flow_sequence(line, at, depth),
            _ => {
                let (node, end, why) = self.plain(line, at, in_flow)?;
                let fits = match why {
                    End::Line => !in_flow,
                    End::Item => in_flow,
                    End::Key => false,
                };
                fits.then_some((node, end))
            }
        }
    }

    /// A scalar in quotes without anything to unescape.
    fn quoted(&self, line: Line, at: usize) -> Option<(Node, usize)> {
        let quote = self.on(line, at)?;
        let rest = self.source.as_bytes().get(at + 1..line.end)?;
        let length = rest
            .iter()
            .position(|byte| *byte == quote || *byte == b'\\')?;
        let end = at + 1 + length;
        // A backslash says something in double quotes, and a second single quote behind the first one stands for itself.
        if self.on(line, end) != Some(quote) || self.on(line, end + 1) == Some(quote) {
            return None;
        }
        let text = self.source.get(at + 1..end)?;
        Some((scalar(line.span(at, end + 1), text, true), end + 1))
    }

    /// A plain scalar, where it ends, and why there.
    fn plain(&self, line: Line, at: usize, in_flow: bool) -> Option<(Node, usize, End)> {
        let first = self.on(line, at)?;
        let begins = match first {
            b'-' => self.on(line, at + 1)?.is_ascii_alphanumeric(),
            _ => first.is_ascii_alphanumeric() || b"_/.(+^$~<=;\\".contains(&first),
        };
        if !begins {
            return None;
        }
        let (mut end, mut why) = (at, End::Line);
        while let Some(byte) = self.on(line, end) {
            let next = self.on(line, end + 1);
            match byte {
                b':' if next.is_none_or(|next| next == b' ') => {
                    why = End::Key;
                    break;
                }
                b':' if in_flow && next.is_some_and(|next| b",[]{}".contains(&next)) => {
                    return None;
                }
                b'#' if self.byte(end - 1) == Some(b' ') => break,
                b',' | b'}' | b']' if in_flow => {
                    why = End::Item;
                    break;
                }
                b'[' | b'{' if in_flow => return None,
                _ => end += 1,
            }
        }
        let text = self.source.get(at..end)?.trim_end_matches(' ');
        // A colon belongs to its key only when it follows at once.
        if matches!(why, End::Key) && text.len() < end - at {
            return None;
        }
        let end = at + text.len();
        Some((scalar(line.span(at, end), text, false), end, why))
    }

    fn flow_mapping(&self, line: Line, open: usize, depth: usize) -> Option<(Node, usize)> {
        let mut entries = Vec::new();
        let mut at = self.skip_spaces(line, open + 1);
        while !(entries.is_empty() && self.on(line, at) == Some(b'}')) {
            let (key, end) = match self.on(line, at)? {
                b'"' | b'\'' => self.quoted(line, at)?,
                _ => {
                    let (key, end, why) = self.plain(line, at, true)?;
                    matches!(why, End::Key).then_some((key, end))?
                }
            };
            let is_key = self.on(line, end) == Some(b':') && self.on(line, end + 1) == Some(b' ');
            if !is_key || end - at > LONGEST_KEY {
                return None;
            }
            self.is_new(&entries, &key)?;
            let from = self.skip_spaces(line, end + 1);
            let (value, end) = self.value(line, from, true, depth + 1)?;
            entries.push((key, value));
            match self.next_item(line, end, b'}')? {
                (closing, true) => {
                    at = closing;
                    break;
                }
                (next, false) => at = next,
            }
        }
        let node = Node {
            span: line.span(open, at + 1),
            value: NodeValue::Mapping(entries),
            aliased: false,
        };
        Some((node, at + 1))
    }

    fn flow_sequence(&self, line: Line, open: usize, depth: usize) -> Option<(Node, usize)> {
        let mut items = Vec::new();
        let mut at = self.skip_spaces(line, open + 1);
        while !(items.is_empty() && self.on(line, at) == Some(b']')) {
            let (item, end) = self.value(line, at, true, depth + 1)?;
            items.push(item);
            match self.next_item(line, end, b']')? {
                (closing, true) => {
                    at = closing;
                    break;
                }
                (next, false) => at = next,
            }
        }
        let node = Node {
            span: line.span(open, at + 1),
            value: NodeValue::Sequence(items),
            aliased: false,
        };
        Some((node, at + 1))
    }

    /// Where the next item of a collection on one line begins, or where the collection is closed.
    fn next_item(&self, line: Line, end: usize, closing: u8) -> Option<(usize, bool)> {
        let at = self.skip_spaces(line, end);
        match self.on(line, at)? {
            b',' => Some((self.skip_spaces(line, at + 1), false)),
            byte if byte == closing => Some((at, true)),
            _ => None,
        }
    }
}

fn scalar(span: Span, text: &str, is_string: bool) -> Node {
    Node {
        span,
        value: NodeValue::Scalar {
            text: text.to_owned(),
            is_string,
        },
        aliased: false,
    }
}

/// A block collection: it ends with its last child.
fn collection(line: Line, start: usize, value: NodeValue) -> Node {
    let last = match &value {
        NodeValue::Mapping(entries) => entries.last().map(|(_, value)| value),
        NodeValue::Sequence(items) => items.last(),
        NodeValue::Scalar { .. } => None,
    };
    let end = last.map_or(start, |last| last.span.end);
    Node {
        span: line.span(start, end),
        value,
        aliased: false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::read::carefully;
    use super::*;

    /// The short cut says nothing, or what the parser says.
    fn check(source: &str) -> bool {
        let short = parse(source);
        if let Some(found) = &short {
            assert_eq!(*found, carefully(source), "{source:?}");
        }
        short.is_some()
    }

    /// Every YAML file of the repository.
    fn files(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else if path.extension().is_some_and(|kind| kind == "yaml") {
                found.extend(std::fs::read_to_string(&path).ok());
            }
        }
    }

    fn corpus() -> Vec<String> {
        let mut found = Vec::new();
        for folder in ["src", "scenarios", "tests", "examples", "charts", "docs"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            if folder.is_dir() {
                files(&folder, &mut found);
            }
        }
        found
    }

    #[test]
    fn the_short_cut_agrees_with_the_parser_on_every_file_of_the_repository() {
        let corpus = corpus();
        let taken = corpus.iter().filter(|source| check(source)).count();
        assert!(corpus.len() > 30, "{}", corpus.len());
        assert!(taken > corpus.len() / 10, "{taken} of {}", corpus.len());
        for base in [
            BASE,
            "a: 1",
            "---\na: 1\n---\nb: 2\n",
            "a:\n- b\n- c: d\n  e: f\ng: {}\n",
        ] {
            assert!(check(base), "{base}");
        }
    }

    #[test]
    fn what_needs_thought_is_left_to_the_parser() {
        for source in [
            "",
            "\n",
            "---\n",
            "a:\n",
            "a: b: c\n",
            "a: b\n  c\n",
            "- a\n",
            "a\n",
            "{a: b}\n",
            "a: &b c\n",
            "a: *b\n",
            "a: !!str 1\n",
            "a: |\n  b\n",
            "a: \"\\n\"\n",
            "a: 'it''s'\n",
            "a: b\na: c\n",
            "a : b\n",
            "a: {b: c,}\n",
            "a: [b: c]\n",
            "a: {b}\n",
            "a: [b\n]\n",
            "a:\n  - - b\n",
            "a: b\n--- c\n",
            "a: b\n...\n",
            "a: b\n---\n",
            "? a\n: b\n",
            "<<: {a: b}\n",
            "a:\tb\n",
            "a: b\r\n",
            "a: ü\n",
            "a: {b: c}d\n",
            "a: 'b'#c\n",
            "a: b\n c: d\n",
            "a:\n- b\n c: d\n",
            "a:\n  - b\n c: d\n",
            "a:\n  b: c\n- d\n",
            "%YAML 1.2\n---\na: b\n",
            "a: {b: [c}]\n",
            "a: {b:c}\n",
            "a: {\"b\":c}\n",
            "a: - b\n",
            "a:\n- b\n  - c\n",
            "a: {b: {c: d}, b: e}\n",
            "a: {b: c:}\n",
        ] {
            assert!(!check(source), "{source:?}");
        }
    }

    const BASE: &str = "# comment\napiVersion: v1 # why\nkind: 'Deployment'\nmetadata:\n  name: web\n  labels: {app: web, \"tier\": \"1\", x: []}\n\
        spec:\n  # below\n  ports:\n  - name: http\n    port: 80\n\n  - {name: 'a b', port: 8080}\n  - plain words, with [brackets]\n\
        \x20 args:\n    - -v\n    - \"--x=y: z\" # end\n    - http://x:80/#a\n  list: [a, 'b', {c: d}, [1, 2]]   \n---\nother: true\n";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// A text in which a few characters were replaced, taken out or put in, and lines moved.
        #[test]
        fn the_short_cut_agrees_on_broken_texts(
            edits in prop::collection::vec(
                (any::<prop::sample::Index>(), 0_usize..3, "[ \n:,#\\-\\[\\]{}'\"a1&*!|>?<%@`~.=_/]{0,3}"),
                0..6,
            ),
        ) {
            let mut source = BASE.to_owned();
            for (at, length, text) in edits {
                let at = at.index(source.len());
                let end = (at + length).min(source.len());
                source.replace_range(at..end, &text);
            }
            check(&source);
        }

        /// Short texts of nothing but what means something.
        #[test]
        fn the_short_cut_agrees_on_any_text(source in "([ ]{0,4}(- ){0,2}[a1\"'\\[{]?[a:,#\\-\\[\\]{}'\" ]{0,8}(: )?[a1 ,]{0,3}[\\]}\"']?\n){1,6}") {
            check(&source);
        }
    }
}
