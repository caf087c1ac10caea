//! The quick reader beside the parser: the same tree, or none.

use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::emit;
use super::super::read::thoroughly;
use super::*;

/// Whether the text is read here; if so, it has to be read as the parser reads it.
fn is_quick(text: &str) -> bool {
    let read = read(text);
    if let Some(read) = &read {
        assert_eq!(*read, thoroughly(text), "{text:?}");
    }
    read.is_some()
}

#[test]
fn simple_texts_are_read_here() {
    for text in [
        "",
        "# nothing\n",
        "---\n---\na: 1\n---\n# nothing\n---\nb: 2\n",
        "# c\n\n---\na: b\n---\n",
        "a: b\nc:\n  d: 'e f'\n  # g\n  h:\n  - i: \"j #: k\"\n    l: []\n  - m\n  - {}\nn: -1",
        "  a:\n      b: c\n\n   \n  d: e\n",
        "- a\n- - b\n  - c: d\n    e: f\n-   g:   h\n    i: j\n",
        "a:\n- b\n- c:\n  - d\nk: http://l:1/m?n=o#p\n",
        "yes: ~\n1.5: +2\n",
        "a: b # c\nd: # e\n  f: 'g' # h: i\nj: k  \nl: \"\"  # m\n",
        "a: [b, 'c: d', [], [-1, \"e\"]] # f\ng: {h: i, j: {k: [l]},m: { }}\n",
    ] {
        assert!(is_quick(text), "{text:?}");
    }
}

/// Each is more than this reader knows, or a mistake.
#[rustfmt::skip]
const NOT_SIMPLE: &[&str] = &[
    "a", "a:\n", "a: b c: d\n", "a: b\n  c\n", "a: b\n c: d\n", "a: |\n  b\n", "a: &b c\n", "a: *b\n", "- \n", "-\n",
    "a:\tb\n", "a: b\r\n", "a: \u{e9}\n", "a: 'b''c'\n", "a: \"b\\n\"\n", "a: 'b\n", "a: \"b' \n", "? a\n",
    "'a': b\n", "a b: c\n", "a: b\na: c\n", "a: b\n- c\n", "- a\nb: c\n", "- a\n  b\n", "a:\n    b: c\n  d: e\n",
    "  a: b\nc: d\n", "a:\n  - b\n - c\n", "--- a\n", "...\n", "%a\n", "a: b:\n", "<<: a\n", "a: !b c\n",
    "a: \"b\" c\n", "a: @b\n", "a: ,\n", "a: [b\n", "a: [b: c]\n", "a: [b c]\n", "a: [b,]\n", "a: [b] c\n",
    "a: [b]# c\n", "a: [b:-c]\n", "a: {b}\n", "a: {b:c}\n", "a: {b: }\n", "a: {b: c, b: d}\n", "a: {'b': c}\n",
    "a:\n  [b]\n", "a: [[b]\n", "a: [-]\n", "a: [b #c]\n", "a: [\n  b]\n",
];

#[test]
fn the_rest_is_left_to_the_parser() {
    for text in NOT_SIMPLE {
        assert!(!is_quick(text), "{text:?}");
    }
    let deep: String = (0..40).fold(String::new(), |mut text, depth| {
        let _ = writeln!(text, "{}a:", " ".repeat(depth));
        text
    });
    assert!(!is_quick(&format!("{deep}{}b: c\n", " ".repeat(40))));
    assert!(!is_quick(&format!("{}: b\n", "a".repeat(200))));
}

/// Every text file below, for the corpora that were kept.
fn files(folder: &Path, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            files(&path, found);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            found.push(text);
        }
    }
}

#[test]
fn the_corpora_are_read_as_the_parser_reads_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    for folder in [
        "tests/data",
        "scenarios",
        "src/simulation/base",
        "charts",
        "crds",
    ] {
        files(&root.join(folder), &mut texts);
    }
    let read = texts.iter().filter(|text| is_quick(text)).count();
    assert!(texts.len() > 100 && read > 5, "{read} of {}", texts.len());
}

/// Lines as people and mistakes make them.
fn line() -> impl Strategy<Value = String> {
    let indent = prop::sample::select(vec!["", "", "  ", "  ", "    ", " ", "      "]);
    let dash = prop::sample::select(vec!["", "", "", "- ", "- ", "- - ", "-   ", "-"]);
    let key = prop::sample::select(vec![
        "", "a:", "b:", "c:", "d.e/f:", "1:", "no:", "-g:", "<<:", "h i:", "'j':",
    ]);
    let value = prop::sample::select(vec![
        "",
        "",
        "",
        " a",
        " b c",
        " 1",
        " -1",
        " ~",
        " 'd'",
        " \"e\"",
        " []",
        " {}",
        " f:g",
        " h: i",
        " j:",
        " # k",
        " l # m",
        " n#o",
        " |",
        " >-",
        " [p]",
        " {q: r}",
        " &s t",
        " *s",
        " !u v",
        " \"w\\n\"",
        " 'x''y'",
        " - z",
        " -",
        " - - a",
        "a",
        "  b ",
        " https://c:8/d?e=f&g#h",
        " 'i",
        " \"j",
        " ---",
        " ...",
        " $(k)",
        " %l",
        " `m`",
        " @n",
        " ?o",
        " ? p",
        " =",
        " <<",
    ]);
    let usual = (indent, dash, key, value).prop_map(|(a, b, c, d)| format!("{a}{b}{c}{d}"));
    let rare = prop::sample::select(vec![
        "---", "...", "# a", "  # b", "", "   ", "--- c", "%d", "\te: f",
    ]);
    prop_oneof![12 => usual, 1 => rare.prop_map(str::to_owned)]
}

/// A collection on one line.
fn flow() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "a",
        "1",
        "-1",
        "n.o/p",
        "q=r",
        "'f'",
        "\"g\"",
        "'h: i'",
        "\"j, [k]\"",
        "null",
        "l-m",
        "a.b/c:1.2",
        "1:30",
        "a:b-:c",
        "[]",
        "{ }",
        "''",
    ]);
    let gap = || prop::sample::select(vec!["", "", " ", "  "]);
    leaf.prop_map(str::to_owned)
        .prop_recursive(4, 16, 4, move |inner| {
            let keys = prop::sample::subsequence(vec!["a", "b.c", "1", "d/e"], 4);
            let items = prop::collection::vec(inner.clone(), 0..4);
            let values = prop::collection::vec(inner, 4);
            prop_oneof![
                (items, gap(), gap()).prop_map(|(items, before, behind)| {
                    format!(
                        "[{before}{}{behind}]",
                        items.join(&format!("{behind},{before}"))
                    )
                }),
                (keys, values, gap(), gap()).prop_map(|(keys, values, before, behind)| {
                    let pairs = keys.iter().zip(&values);
                    let pairs: Vec<_> = pairs
                        .map(|(key, value)| format!("{key}: {before}{value}"))
                        .collect();
                    format!(
                        "{{{before}{}{behind}}}",
                        pairs.join(&format!("{behind},{before}"))
                    )
                }),
            ]
        })
}

/// What makes something else of it, or a mistake.
fn stray() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "[", "]", "{", "}", ",", " ", "a", ":", ": ", "'", "\"", "-", "- ", "#", " #", "?", "*s",
        "&t ", "!u ", "\\", "x: y",
    ])
}

/// What Serin could write.
fn value() -> impl Strategy<Value = Value> {
    let word = "[a-z][a-z0-9 :#'./-]{0,6}|[0-9]{1,3}|true|[a-c]";
    let leaf = prop_oneof![
        4 => word.prop_map(Value::from),
        1 => Just(json!([])),
        1 => Just(json!({})),
        1 => Just(Value::Null),
        1 => (-9_i64..9).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-e]{1,2}", inner, 0..4)
                .prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_is_written_is_read_as_the_parser_reads_it(
        value in value(), at in any::<prop::sample::Index>(), stray in prop::option::of(line()), tail in "( {1,2}#| )[a:# ]{0,2}",
    ) {
        let text = String::from_utf8(emit::to_bytes("# header\n", json!({"a": value, "b": "c"}))).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        let at = at.index(lines.len());
        let commented = format!("{}{tail}", lines[at]);
        lines[at] = &commented;
        is_quick(&lines.join("\n"));
        if let Some(stray) = &stray {
            lines.insert(at, stray);
            is_quick(&lines.join("\n"));
        }
    }

    #[test]
    fn random_lines_are_read_as_the_parser_reads_them(lines in prop::collection::vec(line(), 0..9)) {
        is_quick(&lines.join("\n"));
        is_quick(&(lines.join("\n") + "\n"));
    }

    #[test]
    fn random_collections_on_a_line_are_read_as_the_parser_reads_them(
        flow in flow(), key in "(a: |- |- a: )", at in any::<prop::sample::Index>(), stray in stray(),
    ) {
        prop_assert!(is_quick(&format!("{key}{flow} # b\n")), "{flow}");
        let (before, behind) = flow.split_at(at.index(flow.len() + 1));
        is_quick(&format!("{key}{before}{stray}{behind}\n"));
    }

    #[test]
    fn random_texts_are_read_as_the_parser_reads_them(text in "[ab1: \n#'\"-]{0,24}") {
        is_quick(&text);
    }
}
