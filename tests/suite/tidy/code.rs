//! Rust source without comments and texts, line by line: enough of a lexer for the house rules.

/// One line of code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: usize,
    /// The code; comments and the insides of literals are gone.
    pub(super) text: String,
    /// Whether it belongs to the unit tests of a module.
    pub(super) is_test: bool,
}

/// Whether a file below `src` holds tests only.
pub(super) fn is_test_file(file: &str) -> bool {
    file.starts_with("tests/") || file.ends_with("/tests.rs") || file.contains("/tests/")
}

/// The lines of a source file.
pub(super) fn lines(text: &str, is_test_file: bool) -> Vec<Line> {
    let code = without_comments(text);
    let mut found = Vec::new();
    let mut tests = Tests::Outside;
    for (index, line) in code.lines().enumerate() {
        tests = tests.next(line);
        found.push(Line {
            number: index + 1,
            text: line.to_owned(),
            is_test: is_test_file || tests != Tests::Outside,
        });
        tests = tests.after(line);
    }
    found
}

/// Where we are relative to an item behind `#[cfg(test)]` at the left margin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tests {
    Outside,
    Announced,
    Inside,
}

impl Tests {
    fn next(self, line: &str) -> Self {
        if self == Self::Outside && line.starts_with("#[cfg(test)]") {
            return Self::Announced;
        }
        self
    }

    fn after(self, line: &str) -> Self {
        match self {
            // rustfmt puts the end of an item at the left margin.
            Self::Inside if line.starts_with('}') => Self::Outside,
            Self::Announced if line.trim_end().ends_with(';') => Self::Outside,
            Self::Announced if line.trim_end().ends_with('{') => Self::Inside,
            Self::Outside | Self::Announced | Self::Inside => self,
        }
    }
}

/// The text with comments and the insides of literals removed; line breaks stay.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| literal(rest));
        match skipped {
            Some(length) => {
                out.extend(rest[..length].chars().filter(|c| *c == '\n'));
                // A literal leaves something behind, so that the code around it does not grow together.
                if !rest.starts_with('/') {
                    out.push_str("\"\"");
                }
                rest = &rest[length..];
            }
            None => {
                // `r` and `b` begin a literal only where a word begins: take words whole.
                let word = rest
                    .find(|c: char| !c.is_alphanumeric() && c != '_')
                    .filter(|length| *length > 0)
                    .unwrap_or(c.len_utf8());
                out.push_str(&rest[..word]);
                rest = &rest[word..];
            }
        }
    }
    out
}

/// Length of the comment that begins here.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    Some(text.len())
}

/// Length of the text or character literal that begins here.
fn literal(text: &str) -> Option<usize> {
    let body = text.strip_prefix('b').unwrap_or(text);
    let prefix = text.len() - body.len();
    if let Some(raw) = body.strip_prefix('r') {
        let hashes = raw.bytes().take_while(|byte| *byte == b'#').count();
        let inside = raw[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
        return Some(prefix + 1 + hashes + 1 + length);
    }
    let quote = body.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    if quote == '\'' && is_lifetime(body) {
        return None;
    }
    let mut escaped = false;
    for (at, c) in body.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return Some(prefix + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// Whether a tick begins a lifetime rather than a character.
fn is_lifetime(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    let first = chars.next();
    first.is_some_and(|c| c.is_alphabetic() || c == '_') && chars.next() != Some('\'')
}

/// Whether `word` occurs where a word begins.
pub(super) fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !word.starts_with(char::is_alphanumeric)
            || !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Modules of this crate that line `index` names: `crate::a`, `crate::{a, b::c}`, `super::super::a`. A group may go on
/// below.
pub(super) fn crate_imports(code: &[Line], index: usize) -> Vec<String> {
    let line = &code[index].text;
    let mut found = Vec::new();
    for marker in ["crate::", "super::super::"] {
        for (at, _) in line.match_indices(marker) {
            let mut rest = &line[at + marker.len()..];
            while let Some(up) = rest.strip_prefix("super::") {
                rest = up;
            }
            match rest.strip_prefix('{') {
                Some(group) => {
                    let below = code[index + 1..].iter().map(|line| line.text.as_str());
                    let whole: Vec<&str> = std::iter::once(group).chain(below).collect();
                    found.extend(group_heads(&whole.join(" ")));
                }
                None => found.push(identifier(rest)),
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The first parts of `a, b::{c, d}, e}`.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0_usize;
    let mut begins = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            ' ' => {}
            _ if begins => {
                heads.push(identifier(&group[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

#[test]
fn comments_and_literals_are_blanked() {
    let text = concat!(
        "let a = \"tokio:: // \\\" x\"; // tokio::\n",
        "/* one /* two */ tokio:: */ let b = r#\"tokio::\"#;\n",
        "fn f<'a>(c: char) -> bool { c == '\"' || c == '\\'' }\n",
        "let number = bar\"\";\n",
    );
    let shown: Vec<String> = lines(text, false)
        .into_iter()
        .map(|line| line.text)
        .collect();
    assert_eq!(
        shown,
        [
            "let a = \"\"; ",
            " let b = \"\";",
            "fn f<'a>(c: char) -> bool { c == \"\" || c == \"\" }",
            "let number = bar\"\";",
        ]
    );
}

#[test]
fn line_numbers_survive_long_literals() {
    let found = lines("let a = \"one\ntwo\nthree\";\nlet b = 1;\n", false);
    assert_eq!(found[3].text, "let b = 1;");
    assert_eq!(found[3].number, 4);
}

#[test]
fn imports_are_seen_in_all_forms() {
    let first = |text: &str| crate_imports(&lines(text, false), 0);
    assert_eq!(first("use crate::git::x;"), ["git"]);
    let group = "use crate::{domain::{A, B}, git, spec::C};";
    assert_eq!(first(group), ["domain", "git", "spec"]);
    let long = "use crate::{\n    domain::{\n        A, B,\n    },\n    git,\n};\nuse std::fs;\n";
    assert_eq!(first(long), ["domain", "git"]);
    assert_eq!(first("use super::super::super::git::X;"), ["git"]);
    assert_eq!(
        first("let x = crate::git::f(crate::spec::g());"),
        ["git", "spec"]
    );
    assert!(first("use super::git;").is_empty());
}
