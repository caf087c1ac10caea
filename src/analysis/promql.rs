//! PromQL as text: escaping, placeholders, and as much of the grammar as batching other people's queries needs.

use std::time::Duration;

/// Escapes a text for the inside of a double-quoted PromQL string.
pub(super) fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out
}

/// A regular expression (RE2) that matches exactly this text.
pub(super) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A matcher for any of `names`: `label="x"` for one, `label=~"x|y"` for several.
pub(super) fn any_of<'a>(label: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::new();
    push_any_of(&mut text, label, names);
    text
}

/// Adds such a matcher to a text.
pub(super) fn push_any_of<'a>(
    text: &mut String,
    label: &str,
    names: impl IntoIterator<Item = &'a str>,
) {
    let mut names = names.into_iter();
    let (first, second) = (names.next().unwrap_or_default(), names.next());
    text.push_str(label);
    text.push_str(if second.is_some() { "=~\"" } else { "=\"" });
    match second {
        None if first.bytes().all(is_plain) => text.push_str(first),
        None => text.push_str(&string(first)),
        Some(second) => {
            let mut regex = literal(first);
            for name in std::iter::once(second).chain(names) {
                regex.push('|');
                regex.push_str(&literal(name));
            }
            text.push_str(&string(&regex));
        }
    }
    text.push('"');
}

/// Whether a byte needs no escaping inside quotes, as in nearly every name of Kubernetes.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// A PromQL duration in whole seconds, at least one.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs().max(1))
}

/// Replaces each `{{ name }}` that `value` knows; others stay, so that Prometheus names them when it rejects the text.
pub(super) fn fill(template: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(template.len());
    walk(template, value, |_, text, _| out.push_str(text));
    out
}

/// Which byte of a template a byte of the filled text comes from; for what was filled in, where its placeholder begins.
pub(super) fn origin(
    template: &str,
    value: impl Fn(&str) -> Option<String>,
    offset: usize,
) -> usize {
    let (mut written, mut found) = (0, template.len());
    walk(template, value, |at, text, is_filled| {
        if (written..written + text.len()).contains(&offset) {
            found = if is_filled { at } else { at + offset - written };
        }
        written += text.len();
    });
    found
}

/// The pieces of a filled template: where each begins in it, its text, and whether that was filled in.
fn walk(
    template: &str,
    value: impl Fn(&str) -> Option<String>,
    mut piece: impl FnMut(usize, &str, bool),
) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let at = template.len() - rest.len();
        piece(at, before, false);
        let filled = after
            .split_once("}}")
            .and_then(|(name, tail)| Some((value(name.trim())?, tail)));
        match filled {
            Some((text, tail)) => {
                piece(at + before.len(), &text, true);
                rest = tail;
            }
            None => {
                piece(at + before.len(), "{{", false);
                rest = after;
            }
        }
    }
    piece(template.len() - rest.len(), rest, false);
}

/// What can be said of a query without parsing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Quotes or brackets do not close: inside parentheses it could swallow its neighbours.
    Open,
    /// Its value is a scalar, which label functions and set operators do not take.
    Scalar,
    /// Its value is a vector, if it has one at all.
    Vector,
}

/// Reads a query far enough to know whether it may stand inside a larger one.
pub(super) fn shape(query: &str) -> Shape {
    let chars: Vec<char> = query.chars().collect();
    let mut open = Vec::new();
    // Depth of brackets below which everything is the argument of `scalar(…)`.
    let mut scalar_argument: Option<usize> = None;
    let mut vector = false;
    let mut blank = true;
    let mut i = 0;
    while let Some(&c) = chars.get(i) {
        i += 1;
        blank &= c.is_whitespace() || c == '#';
        match c {
            '#' => i = skip_until(&chars, i, '\n').unwrap_or(chars.len()),
            '"' | '\'' | '`' => match end_of_string(&chars, i, c) {
                Some(end) => i = end,
                None => return Shape::Open,
            },
            '(' | '[' | '{' => {
                vector |= c == '{' && scalar_argument.is_none();
                open.push(c);
            }
            ')' | ']' | '}' => {
                let wanted = match c {
                    ')' => '(',
                    ']' => '[',
                    _ => '{',
                };
                if open.pop() != Some(wanted) {
                    return Shape::Open;
                }
                if scalar_argument.is_some_and(|depth| open.len() <= depth) {
                    scalar_argument = None;
                }
            }
            c if is_word(c) => {
                let start = i - 1;
                while chars.get(i).copied().is_some_and(is_word) {
                    i += 1;
                }
                let word: String = chars.get(start..i).unwrap_or_default().iter().collect();
                if scalar_argument.is_some() {
                    continue;
                }
                let is_call = chars.iter().skip(i).find(|c| !c.is_whitespace()) == Some(&'(');
                match word.to_ascii_lowercase().as_str() {
                    "scalar" if is_call => scalar_argument = Some(open.len()),
                    "time" | "pi" if is_call => {}
                    "inf" | "nan" | "bool" => {}
                    _ => vector |= !word.starts_with(|c: char| c.is_ascii_digit() || c == '.'),
                }
            }
            _ => {}
        }
    }
    match (open.is_empty() && !blank, vector) {
        (false, _) => Shape::Open,
        (true, true) => Shape::Vector,
        (true, false) => Shape::Scalar,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | ':' | '.')
}

fn skip_until(chars: &[char], from: usize, end: char) -> Option<usize> {
    let rest = chars.get(from..)?;
    rest.iter().position(|c| *c == end).map(|n| from + n)
}

fn end_of_string(chars: &[char], mut i: usize, quote: char) -> Option<usize> {
    loop {
        let c = *chars.get(i)?;
        i += 1;
        match c {
            '\\' if quote != '`' => i += 1,
            c if c == quote => return Some(i),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_as_they_are() {
        assert_eq!(any_of("w", ["a.b"]), r#"w="a.b""#);
        assert_eq!(any_of("w", ["a.b", "c|d"]), r#"w=~"a\\.b|c\\|d""#);
        assert_eq!(any_of("w", ["a\"}\n\\"]), r#"w="a\"}\n\\""#);
    }

    #[test]
    fn placeholders_are_filled_and_unknown_ones_stay() {
        let value = |name: &str| (name == "namespace").then(|| "test".to_owned());
        assert_eq!(
            fill(r#"q{ns="{{ namespace }}",x="{{namespace}}"}"#, value),
            r#"q{ns="test",x="test"}"#
        );
        assert_eq!(fill("{{ nope }} {{", value), "{{ nope }} {{");
        // What was filled in is not read again.
        assert_eq!(
            fill("{{ namespace }}", |_| Some("{{ x }}".to_owned())),
            "{{ x }}"
        );
    }

    #[test]
    fn a_place_in_the_filled_text_is_found_in_the_template() {
        let value = |name: &str| (name == "ns").then(|| "a-long-name".to_owned());
        let template = "sum(x{n=\"{{ ns }}\"} + {{ y }}";
        let filled = fill(template, value);
        let place = |text: &str| {
            let origin = origin(template, value, filled.find(text).unwrap());
            template.get(origin..).unwrap()
        };
        assert!(place("sum").starts_with("sum"));
        assert!(place("name").starts_with("{{ ns }}"));
        assert!(place("} +").starts_with("} + {{"));
        assert!(place("y }}").starts_with("y }}"));
        assert_eq!(origin(template, value, filled.len()), template.len());
    }

    #[test]
    fn a_query_that_could_swallow_its_neighbours_is_open() {
        for open in [
            "",
            " ",
            "# only a comment",
            "up)",
            "(up",
            "up) or (down",
            "up{a=\"b}",
            "up[5m",
            "sum(up]",
            "'a",
            "up{a=`b}",
        ] {
            assert_eq!(shape(open), Shape::Open, "{open}");
        }
        for vector in [
            "up",
            "sum(up) # all (of them",
            "up{a=\")\"}",
            "up{a='\\')'}",
            "{job=\"a\"}",
            "rate(up[5m]) / 2",
            "vector(1)",
            "sum by (x) (up)",
            "up > bool 1",
            "scalar(up) + up",
            "up{a=`\\`}",
        ] {
            assert_eq!(shape(vector), Shape::Vector, "{vector}");
        }
        for scalar in [
            "1",
            "-1.5e-3",
            "time()",
            "scalar(up{a=\"b\"})",
            "scalar ( sum(up) ) / 2",
            "(1 > bool 2)",
            "NaN",
            "+Inf",
            "pi() * 2",
        ] {
            assert_eq!(shape(scalar), Shape::Scalar, "{scalar}");
        }
    }
}
