//! Lays out what needs no thought: plain words, numbers and small collections, which is nearly all of what Serin writes.
//!
//! Every byte is the emitter's own: a test compares the two over hostile and random values. What is not surely the same is
//! left to the emitter.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Map, Number, Value, json};

use super::emit::{Place, laid_out};
use super::parts::{Part, View};

/// Adds the text of a document as the emitter would write it; `None` where that takes the emitter to know.
pub(super) fn document(part: View<'_>, text: &mut String) -> Option<()> {
    match part {
        View::Object(entries) if !entries.is_empty() => {
            mapping(of_object(entries), Place::Document, 0, text)
        }
        View::Mapping(entries) if !entries.is_empty() => {
            mapping(of_mapping(entries), Place::Document, 0, text)
        }
        _ => None,
    }
}

/// Adds the text of a document that is a mapping of one key, as the emitter would write it.
pub(super) fn field(key: &str, part: View<'_>, text: &mut String) -> Option<()> {
    entry(key, part, Place::Document, 0, text)
}

fn of_object(entries: &Map<String, Value>) -> impl Iterator<Item = (&str, View<'_>)> + Clone {
    let entries = entries.iter();
    entries.map(|(key, value)| (key.as_str(), View::of_json(value)))
}

fn of_mapping<'v>(
    entries: &'v [(Cow<'_, str>, Part<'_>)],
) -> impl Iterator<Item = (&'v str, View<'v>)> + Clone {
    let entries = entries.iter();
    entries.map(|(key, part)| (&**key, part.view()))
}

/// The entries of a mapping that is not empty, the first one where the text stands.
fn mapping<'v>(
    entries: impl Iterator<Item = (&'v str, View<'v>)> + Clone,
    place: Place,
    indent: usize,
    text: &mut String,
) -> Option<()> {
    // The order of a tree of keys is that of the alphabet, unless some crate asks for another kind of map.
    if !entries.clone().map(|(key, _)| key).is_sorted() {
        return None;
    }
    let first = place.first_keys();
    let find = |key: &&str| entries.clone().find(|(known, _)| known == key);
    let leading = first.iter().filter_map(find);
    let rest = entries.clone().filter(|(key, _)| !first.contains(key));
    let mut is_first = true;
    for (key, part) in leading.chain(rest) {
        if !is_first {
            spaces(indent, text);
        }
        is_first = false;
        entry(key, part, place, indent, text)?;
    }
    Some(())
}

/// A key with its value, where the text stands.
fn entry(key: &str, part: View<'_>, place: Place, indent: usize, text: &mut String) -> Option<()> {
    if !is_plain(key) {
        return None;
    }
    text.push_str(key);
    text.push(':');
    if part.is_collection() {
        text.push('\n');
    }
    let inside = place.of_entry(key);
    match part {
        View::Object(inner) if !inner.is_empty() => {
            spaces(indent + 2, text);
            mapping(of_object(inner), inside, indent + 2, text)
        }
        View::Mapping(inner) if !inner.is_empty() => {
            spaces(indent + 2, text);
            mapping(of_mapping(inner), inside, indent + 2, text)
        }
        View::Values(items) if !items.is_empty() => {
            list(items.iter().map(View::of_json), indent, text)
        }
        View::List(items) if !items.is_empty() => list(items.iter().map(Part::view), indent, text),
        _ => {
            text.push(' ');
            scalar(part, text)
        }
    }
}

fn list<'v>(items: impl Iterator<Item = View<'v>>, indent: usize, text: &mut String) -> Option<()> {
    for item in items {
        spaces(indent, text);
        text.push_str("- ");
        match item {
            View::Object(entries) if !entries.is_empty() => {
                mapping(of_object(entries), Place::Item, indent + 2, text)?;
            }
            View::Mapping(entries) if !entries.is_empty() => {
                mapping(of_mapping(entries), Place::Item, indent + 2, text)?;
            }
            _ => scalar(item, text)?,
        }
    }
    Some(())
}

/// A value on the rest of the line.
fn scalar(part: View<'_>, text: &mut String) -> Option<()> {
    match part {
        View::Null => text.push_str("null"),
        View::Truth(true) => text.push_str("true"),
        View::Truth(false) => text.push_str("false"),
        View::Whole(number) => write!(text, "{number}").ok()?,
        View::Number(number) if is_short(number) => write!(text, "{number}").ok()?,
        View::Number(_) => return None,
        View::Text(word) if is_plain(word) || is_sentence(word) || is_number_word(word) => {
            text.push_str(word);
        }
        View::Text(word) if is_quoted(word) || is_quoted_sentence(word) => {
            text.push('"');
            text.push_str(word);
            text.push('"');
        }
        View::Text(line) => text.push_str(&one_line(line)?),
        View::Values([]) | View::List([]) => text.push_str("[]"),
        View::Object(entries) if entries.is_empty() => text.push_str("{}"),
        View::Mapping([]) => text.push_str("{}"),
        View::Values(_) | View::List(_) | View::Object(_) | View::Mapping(_) => return None,
    }
    text.push('\n');
    Some(())
}

fn spaces(count: usize, text: &mut String) {
    const MANY: &str = "                                ";
    match MANY.get(..count) {
        Some(spaces) => text.push_str(spaces),
        None => text.extend(std::iter::repeat_n(' ', count)),
    }
}

/// What a byte can be in a text that is written as it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Part of a word.
    Word,
    /// Between two words it separates nothing.
    Mark,
    /// In a sentence.
    Other,
    /// In nothing.
    Never,
}

/// By byte: a look is quicker than a question, and most of what is written is looked at.
const CLASSES: [Class; 256] = {
    let mut classes = [Class::Never; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let it = byte as u8;
        classes[byte] = match it {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.' | b'-' | b'/' | b'_' => Class::Word,
            b':' | b'=' => Class::Mark,
            b' '..=b'~' => Class::Other,
            _ => Class::Never,
        };
        byte += 1;
    }
    classes
};

fn class(byte: u8) -> Class {
    CLASSES
        .get(usize::from(byte))
        .copied()
        .unwrap_or(Class::Never)
}

/// Surely written as it is: a word that begins with a letter and is made of nothing that YAML gives a meaning, nor by
/// itself something else than text to any reader.
fn is_plain(word: &str) -> bool {
    let bytes = word.as_bytes();
    let mut before = Class::Never;
    for byte in bytes {
        let here = class(*byte);
        let fits = match here {
            Class::Word => true,
            Class::Mark => before == Class::Word,
            Class::Other | Class::Never => false,
        };
        if !fits {
            return false;
        }
        before = here;
    }
    before == Class::Word
        && bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && !means_something(word)
}

/// Words that mean something else to some reader.
const MEANS: [&str; 11] = [
    "y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf",
];

/// Whether some reader takes this word for one of [`MEANS`], none of which is longer than five letters.
fn means_something(word: &str) -> bool {
    word.len() <= 5 && MEANS.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// A number that both write alike: a whole one, or one with few digits before its point.
fn is_short(number: &Number) -> bool {
    let is_usual = |number: f64| (1e-3..1e9).contains(&number.abs()) && number.fract() != 0.0;
    number.is_u64() || number.is_i64() || number.as_f64().is_some_and(is_usual)
}

/// Surely written as it is behind a key: it begins with a letter and holds neither what would end a key nor what would
/// begin a comment; or a duration, `30s`.
fn is_sentence(line: &str) -> bool {
    let bytes = line.as_bytes();
    let is_text = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().all(|byte| class(*byte) != Class::Never)
        && !matches!(bytes, [.., b' ' | b':'])
        && !bytes.windows(2).any(separates)
        && !means_something(line);
    let is_duration = || {
        let digits = line.strip_suffix(['s', 'm', 'h']);
        digits
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    is_text || is_duration()
}

/// Begins with a digit and is no number: a digest that has a letter which no number has, or one count of another, `3/40`.
fn is_number_word(word: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_count = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let is_digest = word.bytes().all(is_digit) && word.contains(['a', 'c', 'd', 'f']);
    let counts = word.split_once('/');
    is_digest || counts.is_some_and(|(one, other)| is_count(one) && is_count(other))
}

/// Surely quoted: digits, a time, a boolean.
fn is_quoted(word: &str) -> bool {
    let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    digits || is_time(word) || matches!(word, "true" | "false")
}

/// Whether two neighbours end a key or begin a comment.
fn separates(pair: &[u8]) -> bool {
    matches!(pair, [b':', b' '] | [b' ', b'#'])
}

/// Surely quoted: it begins with a letter, and something in it would end a key or begin a comment.
fn is_quoted_sentence(line: &str) -> bool {
    let bytes = line.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes
            .iter()
            .all(|byte| class(*byte) != Class::Never && !matches!(byte, b'"' | b'\\'))
        && bytes.windows(2).any(separates)
}

/// `2026-01-05T09:00:00Z`.
fn is_time(word: &str) -> bool {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00Z";
    let same = |(byte, shape): (u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        shape => byte == *shape,
    };
    word.len() == SHAPE.len() && word.bytes().zip(SHAPE).all(same)
}

/// Any other text without line breaks, as the emitter writes it behind a key.
fn one_line(line: &str) -> Option<String> {
    if line.chars().any(char::is_control) {
        return None;
    }
    let text = laid_out(&json!({ KEY: line }));
    let text = text.strip_prefix(KEY)?.strip_prefix(": ")?;
    let text = text.strip_suffix('\n')?;
    (!text.contains('\n')).then(|| text.to_owned())
}

/// A key that is written as it is.
const KEY: &str = "sentence";
