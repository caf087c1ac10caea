//! Canonical YAML: the same value gives the same bytes, for ever.
//!
//! Block style as `kubectl` writes it: two spaces, list items level with their key, empty collections as `[]` and
//! `{}`. Strings are never folded or wrapped; those with line breaks are literal blocks, and whatever a YAML 1.1 reader
//! (Go's yaml.v2, PyYAML) would take for something else is quoted.
//!
//! Keys are sorted, with three exceptions for readers of Kubernetes objects: the document starts with `apiVersion`,
//! `kind`, `metadata`, `spec`; its `metadata` starts with `name`, `namespace`, `labels`, `annotations`; and a mapping
//! that is an item of a list starts with `name`.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Map, Value};

use super::layout;
use super::parts::Part;

/// First keys of a document.
const DOCUMENT_KEYS: &[&str] = &["apiVersion", "kind", "metadata", "spec"];
/// First keys of a document's `metadata`.
const METADATA_KEYS: &[&str] = &["name", "namespace", "labels", "annotations"];
/// First keys of a mapping in a list.
const ITEM_KEYS: &[&str] = &["name"];

/// The bytes of `part` as one YAML document behind `header` (comment lines, each ending in a newline).
pub fn to_bytes<'a>(header: &str, part: impl Into<Part<'a>>) -> Vec<u8> {
    let part = part.into();
    let mut text = String::with_capacity(header.len() + 2_048);
    text.push_str(header);
    if layout::document(part.view(), &mut text).is_none() {
        text.truncate(header.len());
        text.push_str(&laid_out(&part.to_json()));
    }
    text.into_bytes()
}

/// Adds a mapping of one key as one YAML document: fields that are added one by one are one mapping.
pub fn append_field(text: &mut String, key: &str, part: &Part<'_>) {
    let before = text.len();
    if layout::field(key, part.view(), text).is_none() {
        text.truncate(before);
        let whole = Value::Object(Map::from_iter([(key.to_owned(), part.to_json())]));
        text.push_str(&laid_out(&whole));
    }
}

/// The text of any value.
pub(super) fn laid_out(value: &Value) -> String {
    let options = serde_yaml::ser_options! {
        indent_step: 2,
        compact_list_indent: true,
        prefer_block_scalars: true,
        folded_wrap_chars: usize::MAX,
        yaml_12: false,
    };
    let document = Ordered {
        value,
        place: Place::Document,
    };
    // JSON is YAML: a value that the emitter cannot lay out, too deep for it, is still written truthfully.
    let mut text = serde_yaml::to_string_with_options(&document, options)
        .unwrap_or_else(|_| value.to_string());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Where a value stands, as far as the order of its keys depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Document,
    Metadata,
    Item,
    Elsewhere,
}

impl Place {
    pub(super) fn first_keys(self) -> &'static [&'static str] {
        match self {
            Self::Document => DOCUMENT_KEYS,
            Self::Metadata => METADATA_KEYS,
            Self::Item => ITEM_KEYS,
            Self::Elsewhere => &[],
        }
    }

    pub(super) fn of_entry(self, key: &str) -> Self {
        match self {
            Self::Document if key == "metadata" => Self::Metadata,
            Self::Document | Self::Metadata | Self::Item | Self::Elsewhere => Self::Elsewhere,
        }
    }
}

/// A value whose keys are serialized in canonical order.
struct Ordered<'a> {
    value: &'a Value,
    place: Place,
}

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Object(entries) => self.serialize_entries(entries, serializer),
            Value::Array(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for value in items {
                    let place = Place::Item;
                    list.serialize_element(&Self { value, place })?;
                }
                list.end()
            }
            // Go's yaml.v2 refuses literal blocks that start with a tab, and blocks that start with a space or an empty
            // line depend on an indentation indicator, which readers get wrong.
            Value::String(text) if text.starts_with([' ', '\t', '\n']) => {
                serde_yaml::DoubleQuoted(text.as_str()).serialize(serializer)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                self.value.serialize(serializer)
            }
        }
    }
}

impl Ordered<'_> {
    fn serialize_entries<S: Serializer>(
        &self,
        entries: &Map<String, Value>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(entries.len()))?;
        for (key, value) in in_order(entries, self.place) {
            let place = self.place.of_entry(key);
            map.serialize_entry(key, &Ordered { value, place })?;
        }
        map.end()
    }
}

/// Entries in canonical order.
fn in_order(entries: &Map<String, Value>, place: Place) -> impl Iterator<Item = (&str, &Value)> {
    let first = place.first_keys();
    let mut rest: Vec<(&str, &Value)> = entries
        .iter()
        .map(|(key, value)| (key.as_str(), value))
        .filter(|(key, _)| !first.contains(key))
        .collect();
    rest.sort_unstable_by_key(|(key, _)| *key);
    let found = |key: &&'static str| Some((*key, entries.get(*key)?));
    first.iter().filter_map(found).chain(rest)
}

#[cfg(test)]
mod tests {
    use super::super::parts::View;
    use super::*;
    use insta::assert_snapshot;
    use proptest::prelude::*;
    use serde_json::json;

    fn emit(value: &Value) -> String {
        String::from_utf8(to_bytes("", value)).unwrap()
    }

    /// Texts that some reader takes for a number, a boolean, a date, a null, or for syntax.
    #[rustfmt::skip]
    const HOSTILE: &[&str] = &[
        "", " ", "~", "null", "Null", "NULL", "true", "True", "yes", "Yes", "NO", "on", "Off", "y", "N", "n", "1",
        "-1", "+1", "0", "007", "0o17", "0x1F", "0b101", "1_000", "_1", "1e3", "1.", ".5", "-.inf", ".NaN", "1:30",
        "190:20:30", "12:30:45", "2024-01-02", "6.9.0", "1.10", "2024-01-02T03:04:05Z", "=", "<<", "-", "--", "---",
        "--- a", "...", "?", "? a", "- a", ":", ": a", "a: b", "a:", "a :b", "#", "a #b", "a#b", "!", "!!str a", "&a",
        "*a", "*", "%", "%YAML 1.1", "@a", "`a`", "|", ">", "[", "]", "[a]", "{", "}", "{a: b}", ",", "a,b", "'",
        "\"", "'a'", "\"a\"", "it's", "\\", "\\n", "a\\", "{{ x }}", "$(x)", "${x}", " lead", "trail ", "\tlead",
        "trail\t", "a\tb", "\n", "a\n", "a\nb", "a\n\nb\n", "a\n\n\n", "\na", " a\nb", "  a\n b\n", "a \nb ",
        "a\r\nb", "\r", "#!/bin/sh\nset -e\n\texit 1\n", "- a\n- b\n", "a: |\n  b\n", "---\na", "a\n---\nb\n", "\0",
        "\u{7}", "\u{1b}", "\u{7f}", "\u{85}", "\u{a0}", "a\u{2028}b", "a\u{2029}b", "\u{feff}", "\u{feff}a",
        "\u{fffd}", "ünï", "名前", "🦀", "a\u{301}", "\u{200b}", "\u{202e}", "\n\u{85}x\n", "\t\n a\n",
    ];

    fn corpus() -> Value {
        let mut entries = Map::new();
        for text in HOSTILE {
            entries.insert((*text).to_owned(), json!([text, { *text: text }, [[text]]]));
        }
        let long = "word ".repeat(60);
        json!({
            "metadata": entries,
            "long": [long.trim_end(), long, format!("{}: {}", long.trim_end(), "x".repeat(300))],
            "numbers": [0, -1, 1, i64::MIN, u64::MAX, 0.5, -0.25, 1e21, 1e-7, 1e300, 100.0],
            "empty": [[], {}, null, true, false, { "a": [], "b": {} }, [[], [{}]]],
        })
    }

    #[test]
    fn hostile_texts_survive() {
        let value = corpus();
        let back: Value = serde_yaml::from_slice(&to_bytes("# header\n", &value)).unwrap();
        assert_eq!(back, value);
    }

    #[test]
    fn what_yaml_1_1_reads_otherwise_is_quoted() {
        for text in "yes NO on Off y n ~ null 1 007 0o17 1_000 1:30 2024-01-02 1e3 .5 = << 0x1F"
            .split(' ')
            .chain([""])
        {
            assert_eq!(
                emit(&json!({ "k": text, text: [text] })),
                {
                    // Keys are sorted, so the quoted one may come first or last.
                    let key = format!("\"{text}\":\n- \"{text}\"\n");
                    let plain = format!("k: \"{text}\"\n");
                    if text < "k" {
                        key + &plain
                    } else {
                        plain + &key
                    }
                },
                "{text}"
            );
        }
    }

    #[test]
    fn readers_of_kubernetes_objects_find_their_order() {
        let value = json!({
            "status": {}, "data": {"kind": "x", "apiVersion": "v"},
            "spec": {"b": [{"image": "a:1", "name": "c", "env": [{"value": "1", "name": "E"}]}], "a": []},
            "kind": "K", "apiVersion": "v1",
            "metadata": {"annotations": {"z": "1", "a": "2"}, "uid": "u", "labels": {}, "namespace": "ns", "name": "m"},
        });
        assert_snapshot!(emit(&value), @r#"
        apiVersion: v1
        kind: K
        metadata:
          name: m
          namespace: ns
          labels: {}
          annotations:
            a: "2"
            z: "1"
          uid: u
        spec:
          a: []
          b:
          - name: c
            env:
            - name: E
              value: "1"
            image: a:1
        data:
          apiVersion: v
          kind: x
        status: {}
        "#);
    }

    #[test]
    fn nothing_is_folded() {
        let long = "word ".repeat(100);
        let long = long.trim_end();
        assert_eq!(emit(&json!({ "a": long })), format!("a: {long}\n"));
        assert_snapshot!(emit(&json!({"a": "set -e\n  exit\n", "b": ["x\ny", "x\n\n"]})), @r"
        a: |
          set -e
            exit
        b:
        - |-
          x
          y
        - |+
          x

        ");
    }

    #[test]
    fn headers_come_first() {
        assert_eq!(to_bytes("# a\n# b\n", json!({"a": 1})), b"# a\n# b\na: 1\n");
    }

    fn manifest_text() -> impl Strategy<Value = String> {
        prop_oneof![
            proptest::sample::select(
                &[
                    "stable",
                    "name",
                    "y",
                    "null",
                    "12",
                    "a-b/c.d_e",
                    "0x1F",
                    "on"
                ][..]
            )
            .prop_map(str::to_owned),
            "[a-z./_-]{0,9}",
            "[0-9]{0,4}",
            any_text(),
        ]
    }

    fn manifest() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            (0_u64..200).prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-100_000_i32..100_000).prop_map(|number| Value::from(f64::from(number) / 1_000.0)),
            "[A-Za-z][ -~]{0,12}".prop_map(Value::String),
            "[0-9a-f]{1,9}|[0-9]{0,3}/[0-9]{0,4}".prop_map(Value::String),
            "[a-z][a-z:#' >]{0,12}".prop_map(Value::String),
            "[0-9]{0,3}[smhe]".prop_map(Value::String),
            manifest_text().prop_map(Value::String),
        ];
        let key = || {
            const KEYS: &[&str] = &[
                "metadata",
                "spec",
                "labels",
                "annotations",
                "name",
                "serin.dev/sequence",
                "route",
            ];
            prop_oneof![
                proptest::sample::select(KEYS)
                    .prop_map(str::to_owned)
                    .boxed(),
                "[a-z]{1,9}".boxed()
            ]
        };
        leaf.prop_recursive(5, 40, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::btree_map(key(), inner, 0..6)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            proptest::sample::select(HOSTILE).prop_map(str::to_owned),
            "[-a-z0-9:.#,'\"{}\\[\\] \n\t_~=<>|&*!%@?]{0,12}",
            any::<String>(),
        ]
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            proptest::num::f64::NORMAL.prop_map(Value::from),
            any_text().prop_map(Value::String),
        ];
        leaf.prop_recursive(5, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                proptest::collection::btree_map(any_text(), inner, 0..5)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    /// The same value in parts, the entries in another order.
    fn in_parts(value: &Value) -> Part<'_> {
        match value {
            Value::Array(items) => Part::List(items.iter().map(in_parts).collect()),
            Value::Object(entries) => {
                let entries = entries.iter().rev();
                Part::mapping(entries.map(|(key, value)| (key, in_parts(value))))
            }
            Value::String(text) => text.into(),
            Value::Bool(truth) => (*truth).into(),
            Value::Number(number) => number.as_u64().map_or_else(|| value.into(), Part::Whole),
            Value::Null => value.into(),
        }
    }

    #[test]
    fn of_two_entries_with_one_key_the_later_counts() {
        let parts = Part::mapping([
            ("b", 1_u64.into()),
            ("a", 2_u64.into()),
            ("b", 3_u64.into()),
        ]);
        assert_eq!(to_bytes("", parts), b"a: 2\nb: 3\n");
    }

    /// The short cut says nothing, or what the emitter says.
    fn check_layout(value: &Value) -> bool {
        let mut text = String::new();
        let short = layout::document(View::of_json(value), &mut text);
        if short.is_some() {
            assert_eq!(text, laid_out(value), "{value}");
        }
        short.is_some()
    }

    #[test]
    fn the_short_cut_is_taken_for_manifests_and_changes_no_byte() {
        check_layout(&corpus());
        for text in HOSTILE {
            for value in [
                json!({ "k": text }),
                json!({"spec": [text]}),
                json!({ *text: 1 }),
            ] {
                check_layout(&value);
            }
        }
        assert!(check_layout(&json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "podinfo", "annotations": {"serin.dev/sequence": "12"}, "labels": {}},
            "spec": {"hosts": ["podinfo"], "http": [{"name": "stable", "route": [{"weight": 90}, {"weight": 10}], "x-none": null}]},
        })));
    }

    proptest! {
        #[test]
        fn the_short_cut_agrees_on_manifests(value in manifest()) {
            check_layout(&value);
            check_layout(&json!({"metadata": value}));
        }

        #[test]
        fn parts_are_written_as_their_json(value in any_json()) {
            let parts = in_parts(&value);
            prop_assert_eq!(parts.to_json(), value.clone());
            prop_assert_eq!(to_bytes("", parts), to_bytes("", &value));
        }

        #[test]
        fn any_json_survives(value in any_json()) {
            let bytes = to_bytes("# Header.\n", &value);
            let back: Value = serde_yaml::from_slice(&bytes).unwrap();
            prop_assert_eq!(&back, &value, "{}", String::from_utf8_lossy(&bytes));
            prop_assert_eq!(to_bytes("# Header.\n", &back), bytes);
        }
    }
}
