//! Reads what needs no thought: block mappings and lists of plain words and simple quotes, which is all of what Serin
//! writes and most of what people do. Some three times as fast as the parser.
//!
//! Every node, position included, is the parser's own: a test compares the two over the corpora, over all that Serin
//! emits and over random texts. What is not surely read the same is left to the parser.

use super::node::{Document, Node, NodeValue, Parsed, Span};

/// Deeper files are the parser's.
const MAX_DEPTH: usize = 32;
/// Longer keys, and mappings of more, are the parser's: a key is compared with all before it.
const LONGEST_KEY: usize = 128;
const MOST_KEYS: usize = 64;

/// The documents of a text without control characters; `None` where that takes the parser to know.
pub(super) fn read(text: &str) -> Option<Parsed> {
    let is_strange = |byte: u8| !matches!(byte, b' '..=b'~' | b'\n');
    if text.bytes().fold(false, |any, byte| any | is_strange(byte)) {
        return None;
    }
    let mut documents = Vec::new();
    let mut index = 0;
    let mut lines: Vec<Line<'_>> = Vec::new();
    let mut is_begun = false;
    let mut start = 0;
    for number in 1.. {
        let rest = text.get(start..).filter(|rest| !rest.is_empty());
        let Some(rest) = rest else { break };
        let end = memchr::memchr(b'\n', rest.as_bytes());
        let line = rest.get(..end.unwrap_or(rest.len()))?;
        if line == "---" {
            if is_begun {
                documents.extend(document(&mut lines, index)?);
                index += 1;
            }
            is_begun = true;
        } else if let Some((indent, text)) = content(line) {
            is_begun = true;
            lines.push(Line {
                text,
                indent,
                start: start + indent,
                number,
            });
        }
        start += line.len() + 1;
    }
    documents.extend(document(&mut lines, index)?);
    Some(Parsed {
        documents,
        ..Parsed::default()
    })
}

/// How many spaces a text begins with.
fn spaces(text: &str) -> usize {
    text.bytes().take_while(|byte| *byte == b' ').count()
}

/// What stands on a line, behind how many spaces; `None` for a comment and for nothing at all.
fn content(line: &str) -> Option<(usize, &str)> {
    let indent = spaces(line);
    if indent == line.len() {
        return None;
    }
    let behind = line.bytes().rev().take_while(|byte| *byte == b' ').count();
    let content = line.get(indent..line.len() - behind)?;
    (!content.is_empty() && !content.starts_with('#')).then_some((indent, content))
}

/// The document on these lines, which are taken; `Some(None)` for an empty one.
#[expect(clippy::option_option, reason = "empty is not the same as not known")]
fn document(lines: &mut Vec<Line<'_>>, index: usize) -> Option<Option<Document>> {
    let Some(first) = lines.first() else {
        return Some(None);
    };
    let indent = first.indent;
    let mut reader = Reader { lines, at: 0 };
    let root = reader.block(indent, 0)?;
    let is_whole = reader.at == lines.len();
    lines.clear();
    is_whole.then_some(Some(Document { index, root }))
}

/// A line with something on it, or what is left of it behind dashes.
#[derive(Clone, Copy)]
struct Line<'a> {
    text: &'a str,
    /// Columns before the text.
    indent: usize,
    /// First byte of the text in the file.
    start: usize,
    number: usize,
}

impl<'a> Line<'a> {
    /// The same line without its first bytes.
    fn behind(self, count: usize) -> Option<Self> {
        Some(Self {
            text: self.text.get(count..)?,
            indent: self.indent + count,
            start: self.start + count,
            number: self.number,
        })
    }

    /// The rest of the line behind the next word or mark of this length and the spaces after it.
    fn next(self, length: usize) -> Option<Self> {
        self.behind(length + spaces(self.text.get(length..)?))
    }

    fn span(self, length: usize) -> Span {
        Span {
            start: self.start,
            end: self.start + length,
            line: self.number,
            column: self.indent + 1,
        }
    }

    fn is_item(self) -> bool {
        self.text.starts_with("- ")
    }

    /// The length of the key that the line begins with.
    fn key(self) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let is_known = |byte: &u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'-'..=b'9' | b'_');
        let length = bytes.iter().take_while(|byte| is_known(byte)).count();
        let begins = bytes.first().is_some_and(u8::is_ascii_alphanumeric);
        let ends = matches!(bytes.get(length..), Some([b':'] | [b':', b' ', ..]));
        (begins && ends && length <= LONGEST_KEY).then_some(length)
    }

    /// The value that the rest of the line is, but for a comment.
    fn value(self) -> Option<Node> {
        let mut flow = Flow { line: self, at: 0 };
        let value = match self.text.as_bytes().first()? {
            b'"' | b'\'' | b'[' | b'{' => flow.value(0)?,
            _ => flow.plain(before_comment)?,
        };
        is_nothing(self.text.get(flow.at..)?).then_some(value)
    }
}

/// The text before a comment, without the spaces between the two.
fn before_comment(text: &str) -> Option<&str> {
    let mut pairs = text.as_bytes().windows(2);
    let end = pairs.position(|pair| pair == b" #").unwrap_or(text.len());
    text.get(..end).map(|text| text.trim_end_matches(' '))
}

/// Whether nothing but a comment follows.
fn is_nothing(rest: &str) -> bool {
    if rest.is_empty() {
        return true;
    }
    let gap = spaces(rest);
    gap == rest.len() || (gap > 0 && rest.as_bytes().get(gap) == Some(&b'#'))
}

/// Whether this is a plain scalar from its first byte to its last.
fn is_plain(bytes: &[u8]) -> bool {
    let begins = match bytes {
        [b'-', next, ..] => next.is_ascii_alphanumeric(),
        [first, ..] => first.is_ascii_alphanumeric() || b"/._+(^~$=<".contains(first),
        [] => false,
    };
    let mut pairs = bytes.windows(2);
    begins && bytes.last() != Some(&b':') && !pairs.any(|pair| pair == b": ")
}

/// Values on one line: quotes without escapes, and collections of these and of single words.
struct Flow<'a> {
    line: Line<'a>,
    at: usize,
}

impl<'a> Flow<'a> {
    fn rest(&self) -> &'a str {
        self.line.text.get(self.at..).unwrap_or_default()
    }

    fn skip_spaces(&mut self) {
        self.at += spaces(self.rest());
    }

    /// Whether this mark is next; it is passed.
    fn passes(&mut self, mark: char) -> bool {
        let is_next = self.rest().starts_with(mark);
        self.at += usize::from(is_next);
        is_next
    }

    /// The value that was read since `start`.
    fn node(&self, start: usize, value: NodeValue) -> Option<Node> {
        Some(Node {
            span: self.line.behind(start)?.span(self.at - start),
            value,
            aliased: false,
        })
    }

    fn value(&mut self, depth: usize) -> Option<Node> {
        let start = self.at;
        match self.rest().as_bytes().first()? {
            quote @ (b'"' | b'\'') => {
                let inner = self.rest().get(1..)?;
                let length = inner.find(char::from(*quote))?;
                let text = inner.get(..length)?;
                self.at += length + 2;
                // Two quotes are one, and a backslash changes what follows.
                if (*quote == b'"' && text.contains('\\'))
                    || self.rest().starts_with(char::from(*quote))
                {
                    return None;
                }
                let (text, is_string) = (text.into(), true);
                self.node(start, NodeValue::Scalar { text, is_string })
            }
            b'[' if depth < MAX_DEPTH => {
                let items = self.list(']', |flow| flow.value(depth + 1))?;
                self.node(start, NodeValue::Sequence(items))
            }
            b'{' if depth < MAX_DEPTH => {
                let entries = self.list('}', |flow| {
                    let key = flow.plain(word)?;
                    (flow.passes(':') && flow.rest().starts_with(' ')).then_some(())?;
                    flow.skip_spaces();
                    Some((key, flow.value(depth + 1)?))
                })?;
                is_unambiguous(&entries).then_some(())?;
                self.node(start, NodeValue::Mapping(entries))
            }
            _ => self.plain(word),
        }
    }

    /// What is between an opening mark and `end`.
    fn list<T>(&mut self, end: char, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::new();
        self.at += 1;
        self.skip_spaces();
        if self.passes(end) {
            return Some(items);
        }
        loop {
            items.push(item(self)?);
            self.skip_spaces();
            if self.passes(end) {
                return Some(items);
            }
            self.passes(',').then_some(())?;
            self.skip_spaces();
        }
    }

    /// The plain scalar that the rest begins with, as far as `find` says.
    fn plain(&mut self, find: impl Fn(&'a str) -> Option<&'a str>) -> Option<Node> {
        let start = self.at;
        let text = find(self.rest()).filter(|text| is_plain(text.as_bytes()))?;
        self.at += text.len();
        let (text, is_string) = (text.into(), false);
        self.node(start, NodeValue::Scalar { text, is_string })
    }
}

/// A word that has the same end in every context: a colon in it separates nothing before a letter or a digit.
fn word(text: &str) -> Option<&str> {
    let is_known = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./=+".contains(byte);
    let bytes = text.as_bytes();
    let goes_on = |at: &usize| match bytes.get(*at) {
        Some(b':') => bytes.get(at + 1).is_some_and(u8::is_ascii_alphanumeric),
        byte => byte.is_some_and(is_known),
    };
    text.get(..(0..).take_while(goes_on).count())
}

/// Whether each key is a text of its own.
fn is_unambiguous(entries: &[(Node, Node)]) -> bool {
    entries.len() <= MOST_KEYS
        && entries.iter().enumerate().all(|(index, (key, _))| {
            let mut before = entries.iter().take(index);
            !before.any(|(other, _)| other.as_str() == key.as_str())
        })
}

struct Reader<'l, 'a> {
    lines: &'l mut [Line<'a>],
    at: usize,
}

impl<'a> Reader<'_, 'a> {
    fn line(&self) -> Option<Line<'a>> {
        self.lines.get(self.at).copied()
    }

    /// Where the next line stands; `None` at the end.
    fn indent(&self) -> Option<usize> {
        self.line().map(|line| line.indent)
    }

    /// The collection whose first line is this one.
    fn block(&mut self, indent: usize, depth: usize) -> Option<Node> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.line()?.is_item() {
            true => self.sequence(indent, depth),
            false => self.mapping(indent, depth),
        }
    }

    fn sequence(&mut self, indent: usize, depth: usize) -> Option<Node> {
        let span = self.line()?.span(0);
        let mut items: Vec<Node> = Vec::new();
        while let Some(line) = self
            .line()
            .filter(|line| line.indent == indent && line.is_item())
        {
            let item = line.next(1)?;
            if item.is_item() || item.key().is_some() {
                *self.lines.get_mut(self.at)? = item;
                items.push(self.block(item.indent, depth + 1)?);
            } else {
                items.push(self.scalar(item, indent)?);
            }
        }
        // What stands further to the right belongs to nothing; at the same place the mapping around may go on.
        let end = items.last()?.span.end;
        self.indent()
            .is_none_or(|next| next <= indent)
            .then_some(Node {
                span: Span { end, ..span },
                value: NodeValue::Sequence(items),
                aliased: false,
            })
    }

    fn mapping(&mut self, indent: usize, depth: usize) -> Option<Node> {
        let span = self.line()?.span(0);
        let mut entries: Vec<(Node, Node)> = Vec::new();
        while let Some(line) = self
            .line()
            .filter(|line| line.indent == indent && !line.is_item())
        {
            let length = line.key()?;
            let text = line.text.get(..length)?;
            let key = Node {
                span: line.span(length),
                value: NodeValue::Scalar {
                    text: text.into(),
                    is_string: false,
                },
                aliased: false,
            };
            let rest = line.next(length + 1)?;
            let value = if is_nothing(line.text.get(length + 1..)?) {
                self.at += 1;
                self.below(indent, depth)?
            } else {
                self.scalar(rest, indent)?
            };
            entries.push((key, value));
        }
        let end = entries.last()?.1.span.end;
        let is_over = self.indent().is_none_or(|next| next < indent);
        (is_over && is_unambiguous(&entries)).then_some(Node {
            span: Span { end, ..span },
            value: NodeValue::Mapping(entries),
            aliased: false,
        })
    }

    /// The collection below a key. One that is absent has a place that the parser knows.
    fn below(&mut self, indent: usize, depth: usize) -> Option<Node> {
        let next = self.line()?;
        let is_below = next.indent > indent || (next.indent == indent && next.is_item());
        is_below.then(|| self.block(next.indent, depth + 1))?
    }

    /// A value that ends with its line. One below which something stands further to the right would go on there.
    fn scalar(&mut self, rest: Line<'a>, indent: usize) -> Option<Node> {
        let value = rest.value()?;
        self.at += 1;
        self.indent()
            .is_none_or(|next| next <= indent)
            .then_some(value)
    }
}

#[cfg(test)]
mod tests;
