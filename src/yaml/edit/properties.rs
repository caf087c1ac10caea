//! Random documents in random styles, random edits: the result means what was intended, and nothing else moved.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::yaml::node;

/// Random choices; nothing is chosen when it has run out.
struct Tape<'a>(&'a [u8]);

impl Tape<'_> {
    fn next(&mut self, choices: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        usize::from(*first) % choices
    }

    fn once_in(&mut self, odds: usize) -> bool {
        self.next(odds) + 1 == odds
    }
}

const KEYS: [&str; 12] = [
    "name",
    "image",
    "env",
    "args",
    "a b",
    "app.kubernetes.io/name",
    "yes",
    "1",
    "ü",
    "#x",
    "x: y",
    "null",
];
const TEXTS: [&str; 22] = [
    "app:1",
    "reg:5000/app:2@sha256:00",
    "",
    " ",
    "yes",
    "1",
    "0x1f",
    "it's",
    "a \"b\"",
    "# no",
    "a # no",
    "a: b",
    "- x",
    "*x",
    "{a}",
    "two\nlines\n",
    "no\nend",
    "tab\tx",
    "\u{feff}x",
    "ü\u{1f600}",
    "~",
    "\\n",
];

fn value(tape: &mut Tape<'_>, depth: usize) -> Value {
    let kinds = if depth == 0 { 4 } else { 8 };
    match tape.next(kinds) {
        0 | 1 => json!(TEXTS[tape.next(TEXTS.len())]),
        2 => json!(tape.next(7)),
        3 => [json!(null), json!(true), json!(0.5)][tape.next(3)].clone(),
        4 | 5 => {
            let count = tape.next(5);
            (0..count).map(|_| value(tape, depth - 1)).collect()
        }
        _ => Value::Object(fields(tape, depth)),
    }
}

fn fields(tape: &mut Tape<'_>, depth: usize) -> Map<String, Value> {
    let count = tape.next(5);
    (0..count)
        .map(|_| {
            (
                KEYS[tape.next(KEYS.len())].to_owned(),
                value(tape, depth - 1),
            )
        })
        .collect()
}

/// Writes a value as somebody might.
struct Writer<'t, 'a> {
    tape: &'t mut Tape<'a>,
    out: String,
    comments: usize,
    anchors: BTreeMap<String, String>,
}

impl Writer<'_, '_> {
    fn comment(&mut self) {
        if self.tape.once_in(4) {
            self.comments += 1;
            self.out.push_str(&format!("  # c{}\tx", self.comments));
        }
        self.out.push('\n');
    }

    fn between(&mut self, indent: usize) {
        if self.tape.once_in(8) {
            self.out.push('\n');
        }
        if self.tape.once_in(8) {
            self.comments += 1;
            let line = format!("{}# c{}\n", " ".repeat(indent), self.comments);
            self.out.push_str(&line);
        }
    }

    fn scalar_text(&mut self, value: &Value) -> String {
        let Value::String(text) = value else {
            return value.to_string();
        };
        match self.tape.next(4) {
            1 if !text.chars().any(char::is_control) && !text.contains('\u{feff}') => {
                format!("'{}'", text.replace('\'', "''"))
            }
            2 => value.to_string(),
            _ => scalar::string(text),
        }
    }

    /// What stands behind `key:` or `-`, the line break included.
    fn behind(&mut self, value: &Value, indent: usize, in_list: bool) {
        match value {
            Value::Object(fields) if !fields.is_empty() && !self.tape.once_in(4) => {
                if in_list && self.tape.next(3) > 0 {
                    let gap = 1 + self.tape.next(3);
                    self.out.push_str(&" ".repeat(gap));
                    self.mapping(fields, indent + 1 + gap, true);
                } else {
                    self.comment();
                    let deeper = indent + 1 + self.tape.next(4);
                    self.mapping(fields, deeper, false);
                }
            }
            Value::Array(items) if !items.is_empty() && !self.tape.once_in(4) => {
                if in_list && self.tape.next(3) > 0 {
                    self.out.push(' ');
                    self.sequence(items, indent + 2, true);
                } else {
                    self.comment();
                    let least = usize::from(in_list);
                    let deeper = indent + least + self.tape.next(4);
                    self.sequence(items, deeper, false);
                }
            }
            Value::String(text) if is_block(text) && self.tape.next(3) > 0 => {
                let chomp = if text.ends_with('\n') { "" } else { "-" };
                self.out.push_str(&format!(" |{chomp}"));
                self.comment();
                let deeper = indent + 1 + self.tape.next(4);
                for line in text.lines() {
                    self.out
                        .push_str(&format!("{}{line}\n", " ".repeat(deeper)));
                }
            }
            Value::Object(_) | Value::Array(_) => {
                let text = self.flow(value);
                self.out.push_str(&format!(" {text}"));
                self.comment();
            }
            Value::Null if self.tape.once_in(2) => self.comment(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                let text = self.scalar_text(value);
                let known = self.anchors.get(&value.to_string()).cloned();
                let text = match known {
                    Some(anchor) if self.tape.once_in(3) => format!("*{anchor}"),
                    _ if self.tape.once_in(12) => {
                        let anchor = format!("n{}", self.anchors.len());
                        self.anchors.insert(value.to_string(), anchor.clone());
                        format!("&{anchor} {text}")
                    }
                    _ => text,
                };
                self.out
                    .push_str(&format!("{}{text}", " ".repeat(1 + self.tape.next(3))));
                self.comment();
            }
        }
    }

    fn mapping(&mut self, fields: &Map<String, Value>, indent: usize, started: bool) {
        let mut names: Vec<&String> = fields.keys().collect();
        let turn = self.tape.next(names.len());
        names.rotate_left(turn);
        for (index, name) in names.into_iter().enumerate() {
            if index > 0 || !started {
                self.between(indent);
                self.out.push_str(&" ".repeat(indent));
            }
            self.out.push_str(&format!("{}:", scalar::key(name)));
            self.behind(&fields[name], indent, false);
        }
    }

    fn sequence(&mut self, items: &[Value], indent: usize, started: bool) {
        for (index, item) in items.iter().enumerate() {
            if index > 0 || !started {
                self.between(indent);
                self.out.push_str(&" ".repeat(indent));
            }
            self.out.push('-');
            self.behind(item, indent, true);
        }
    }

    fn flow(&mut self, value: &Value) -> String {
        let space = " ".repeat(self.tape.next(2));
        let trail = if self.tape.once_in(6) { "," } else { "" };
        match value {
            Value::Array(items) if !items.is_empty() => {
                let items: Vec<String> = items.iter().map(|item| self.flow(item)).collect();
                format!("[{space}{}{trail}{space}]", items.join(", "))
            }
            Value::Object(fields) if !fields.is_empty() => {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(name, value)| format!("{}: {}", scalar::key(name), self.flow(value)))
                    .collect();
                format!("{{{space}{}{trail}{space}}}", fields.join(" , "))
            }
            Value::Array(_) => "[]".to_owned(),
            Value::Object(_) => "{}".to_owned(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                self.scalar_text(value)
            }
        }
    }
}

fn is_block(text: &str) -> bool {
    let plain = |line: &str| !line.is_empty() && !line.starts_with([' ', '\t']);
    text.contains('\n') && text.lines().all(plain) && !text.ends_with("\n\n")
}

/// A file with `root` in one of its documents, and the index of that document.
fn file(tape: &mut Tape<'_>, root: &Value) -> (String, usize) {
    let mut writer = Writer {
        tape,
        out: String::new(),
        comments: 0,
        anchors: BTreeMap::new(),
    };
    let others = writer.tape.next(3);
    if others > 0 {
        writer.out.push_str("# top\n---\nx: &n0 [y]\n---\n");
    }
    if others > 1 {
        writer.out.push_str("---\n");
    }
    if let Value::Object(fields) = root {
        writer.mapping(fields, 0, false);
    }
    if writer.tape.once_in(3) {
        writer.out.push_str("...\n---\nz: {}\n");
    }
    let mut out = std::mem::take(&mut writer.out);
    if tape.once_in(4) {
        out = out.replace('\n', "\r\n");
    }
    if tape.once_in(4) {
        out.truncate(out.trim_end_matches(['\r', '\n']).len());
    }
    if tape.once_in(6) {
        out.insert(0, '\u{feff}');
    }
    (out, others)
}

/// Changes something somewhere; only scalars for other scalars when `in_place`.
fn mutate(tape: &mut Tape<'_>, value: &mut Value, in_place: bool) {
    let go_on = tape.next(4) > 0;
    match value {
        Value::Object(fields) if !fields.is_empty() && go_on => {
            let index = tape.next(fields.len());
            if let Some(inner) = fields.values_mut().nth(index) {
                mutate(tape, inner, in_place);
            }
        }
        Value::Array(items) if !items.is_empty() && go_on => {
            let index = tape.next(items.len());
            mutate(tape, &mut items[index], in_place);
        }
        Value::Object(_) | Value::Array(_) if in_place => {}
        Value::Object(fields) => match tape.next(3) {
            0 => {
                let key = KEYS[tape.next(KEYS.len())].to_owned();
                fields.insert(key, self::value(tape, 2));
            }
            1 => fields.retain(|_, _| tape.next(2) > 0),
            _ => *value = self::value(tape, 2),
        },
        Value::Array(items) => match tape.next(4) {
            0 => {
                let at = tape.next(items.len() + 1);
                items.insert(at, self::value(tape, 2));
            }
            1 => items.retain(|_| tape.next(2) > 0),
            2 => items.reverse(),
            _ => *value = self::value(tape, 2),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            *value = self::value(tape, if in_place { 0 } else { 2 });
        }
    }
}

/// The file, the document, the value of `r` in it, and what it shall become.
fn case(bytes: &[u8], in_place: bool) -> (String, usize, Value, Value) {
    let mut tape = Tape(bytes);
    let changes = if in_place { 1 } else { 1 + tape.next(3) };
    let mut root = json!({"l": 1, "q": [], "s": "x"});
    let (mine, theirs) = tape.0.split_at(tape.0.len() / 2);
    let mut tape = Tape(mine);
    root["r"] = Value::Object(fields(&mut tape, 4));
    let before = root["r"].clone();
    let mut after = before.clone();
    for _ in 0..changes {
        mutate(&mut tape, &mut after, in_place);
    }
    let (text, index) = file(&mut Tape(theirs), &root);
    (text, index, before, after)
}

/// The text between scalars. A value that is not written has no place of its own, so the pieces are joined.
fn gaps(source: &str, parsed: &node::Parsed) -> String {
    fn spans(node: &Node, into: &mut Vec<(usize, usize)>) {
        match &node.value {
            NodeValue::Scalar { .. } => into.push((node.span.start, node.span.end)),
            NodeValue::Sequence(items) => items.iter().for_each(|item| spans(item, into)),
            NodeValue::Mapping(entries) => entries.iter().for_each(|(key, value)| {
                spans(key, into);
                spans(value, into);
            }),
        }
    }
    let mut found = Vec::new();
    for document in &parsed.documents {
        spans(&document.root, &mut found);
    }
    let ends = std::iter::once(0).chain(found.iter().map(|(_, end)| *end));
    let starts = found.iter().map(|(start, _)| *start).chain([source.len()]);
    ends.zip(starts)
        .map(|(from, to)| {
            source
                .get(from..to)
                .unwrap_or_default()
                .trim_end_matches(' ')
        })
        .collect()
}

fn roots(parsed: &node::Parsed) -> Vec<Value> {
    parsed.documents.iter().map(|d| d.root.to_json()).collect()
}

/// Whether the edit was made; it must be right then.
fn attempt(bytes: &[u8], in_place: bool) -> Result<bool, TestCaseError> {
    let (text, index, before, wanted) = case(bytes, in_place);
    let parsed = node::parse(text.as_bytes());
    prop_assert_eq!(&parsed.errors, &[], "{}", text);
    let document = parsed.documents.iter().position(|d| d.index == index);
    let document = document.ok_or_else(|| TestCaseError::fail(format!("{index}: {text}")))?;
    let mut expected = roots(&parsed);
    prop_assert_eq!(&expected[document]["r"], &before, "{}", text);
    expected[document]["r"] = wanted.clone();
    let Ok(after) = rewrite(text.as_bytes(), index, &["r"], &wanted) else {
        return Ok(false);
    };
    let after = String::from_utf8(after).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let reread = node::parse(after.as_bytes());
    prop_assert_eq!(roots(&reread), expected, "{}\n-->\n{}", text, after);
    let r = parsed.documents[document].root.entry("r");
    if let Some((key, r)) = r {
        // Lines before the value and behind it are not touched.
        let end = r.span.end.max(key.span.end);
        let tail = text[end..].find('\n').map_or("", |at| &text[end + at..]);
        prop_assert!(
            after.starts_with(&text[..key.span.end]),
            "{}\n-->\n{}",
            text,
            after
        );
        prop_assert!(after.ends_with(tail), "{}\n-->\n{}", text, after);
    }
    if in_place {
        prop_assert_eq!(
            gaps(&text, &parsed),
            gaps(&after, &reread),
            "{}\n-->\n{}",
            text,
            after
        );
    }
    Ok(true)
}

proptest! {
    #[test]
    fn an_edit_does_what_was_intended_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        attempt(&bytes, false)?;
    }

    #[test]
    fn scalars_change_and_nothing_between_them(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        attempt(&bytes, true)?;
    }
}

/// A property of what is done says nothing if nothing is done.
#[test]
fn few_edits_are_refused() {
    let mut random = 1_u64;
    let mut byte = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        random.to_be_bytes()[0]
    };
    let mut counts = [[0_u32; 2]; 2];
    for round in 0..3000 {
        let bytes: Vec<u8> = (0..300).map(|_| byte()).collect();
        let in_place = round % 2 == 0;
        let (.., before, wanted) = case(&bytes, in_place);
        if before != wanted {
            let made = attempt(&bytes, in_place).unwrap();
            counts[usize::from(in_place)][usize::from(made)] += 1;
        }
    }
    let [[refused, made], [refused_in_place, made_in_place]] = counts;
    assert!(made > 800 && refused * 20 < made, "{counts:?}");
    assert!(
        made_in_place > 300 && refused_in_place * 50 < made_in_place,
        "{counts:?}"
    );
}
