//! Edits as people would make them by hand, line by line.

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::*;
use crate::yaml::node;

/// Sets the image of the first container and expects the diff to be that scalar alone.
fn check(before: &str, from: &str, to: &str) {
    let parsed = node::parse(before.as_bytes());
    assert_eq!(parsed.errors, [], "{before}");
    let document = parsed
        .documents
        .iter()
        .find(|document| document.root.get("c").is_some())
        .unwrap();
    let mut wanted = document.root.get("c").unwrap().to_json();
    wanted[0]["image"] = json!("reg:5000/app:2.0@sha256:00");
    let after = rewrite(before.as_bytes(), document.index, &["c"], &wanted).unwrap();
    assert_eq!(
        String::from_utf8(after).unwrap(),
        before.replace(from, to),
        "{before}"
    );
}

/// The first document with `wanted` below `a`, or why not.
fn edited(before: &str, wanted: Value) -> String {
    match rewrite(before.as_bytes(), 0, &["a"], &wanted) {
        Ok(after) => String::from_utf8(after).unwrap(),
        Err(error) => format!("refused: {error}"),
    }
}

#[test]
fn only_the_scalar_changes() {
    let new = "reg:5000/app:2.0@sha256:00";
    check("c:\n- image: app:1 # stable\n  name: a\n", "app:1", new);
    check("c:\n  - name: a\n    image: app:1", "app:1", new);
    check(
        "# top\n---\na: b\n---\nc:\r\n-   name: a\r\n    image: 'app:1'   # it\r\n",
        "'app:1'",
        &format!("'{new}'"),
    );
    check(
        "c: [{name: a, image: \"app:1\"}] # flow\n",
        "\"app:1\"",
        &format!("\"{new}\""),
    );
    check(
        "\u{feff}c:\n- image: >- # folded\n    app:1\n  name: a\n",
        "app:1",
        new,
    );
    check("c:\n- image: |-\n    app:1\n\n\n# end\n", "app:1", new);
    check(
        "c:\n- image: >-\n    ap\n    p:1\n",
        ">-\n    ap\n    p:1",
        &format!("\"{new}\""),
    );
    check(
        "x: &x 1\nc:\n- image: app:1\n  replicas: *x\n",
        "app:1",
        new,
    );
    check("c:\n- image: !!str app:1\n", "app:1", new);
    check("c:\n- image: &only app:1 # anchored\n", "app:1", new);
    check("c:\n- image:\n    app:1\n", "app:1", new);
    check(
        "c:\n- image:\n  name: a\n",
        "image:",
        &format!("image: {new}"),
    );
    check(
        "c:\n- image: # to come\n",
        "image:",
        &format!("image: {new}"),
    );
}

#[test]
fn an_alias_gives_way_to_the_value_and_its_anchor_stays() {
    check(
        "x: &i app:1\nc:\n- image: *i # same\n",
        "*i",
        "reg:5000/app:2.0@sha256:00",
    );
    check(
        "x: &i {image: app:1, name: a}\nc:\n- <<: *i\n  # here\n  b: 1\n",
        "  b: 1\n",
        "  b: 1\n  image: reg:5000/app:2.0@sha256:00\n",
    );
    // Both at once: the anchored value itself changes.
    assert_eq!(
        edited("a:\n- &i app:1\n- *i\n", json!(["app:2", "app:2"])),
        "a:\n- &i app:2\n- *i\n"
    );
    assert_eq!(
        edited("a:\n- &i app:1\n- *i\n", json!(["app:2", "app:1"])),
        "refused: line 2: an alias (`*name`) elsewhere refers to this value, and an edit would change it there as well"
    );
}

#[test]
fn fields_are_added_in_the_style_of_the_mapping() {
    assert_snapshot!(edited(
        "a:\n  b: 1 # one\n  c: {d: 2}\n  # last\nother: x\n",
        json!({"b": 1, "c": {"d": 2, "e": "yes"}, "f": ["g"], "h": {"i": {"j": "k: l"}}, "m": {}, "o": ""}),
    ), @r#"
    a:
      b: 1 # one
      c: {d: 2, e: "yes"}
      f:
      - g
      h:
        i:
          j: "k: l"
      m: {}
      o: ""
      # last
    other: x
    "#);
    assert_eq!(
        edited("a:\r\n    b: 1", json!({"b": 1, "c": 2})),
        "a:\r\n    b: 1\r\n    c: 2"
    );
    assert_eq!(
        edited("a: {b: 1,}\n", json!({"b": 1, "c": 2})),
        "a: {b: 1, c: 2,}\n"
    );
    assert_eq!(edited("a: {}\n", json!({"b": [1]})), "a: {b: [1]}\n");
    assert_eq!(
        edited("a: # none\n", json!({"b": "x"})),
        "a: {b: x} # none\n"
    );
    assert_eq!(
        edited(
            "a:\n  b:\n    - 1\n",
            json!({"b": [1], "c": [{"x": 1, "name": "v"}]})
        ),
        "a:\n  b:\n    - 1\n  c:\n    - name: v\n      x: 1\n"
    );
}

#[test]
fn fields_go_with_their_lines() {
    let before = "a:\n  b: 1 # one\n  # about c\n  c: # two\n  - d\n  e: 3\nother: x\n";
    assert_eq!(
        edited(before, json!({"b": 1, "e": 3})),
        "a:\n  b: 1 # one\n  # about c\n  e: 3\nother: x\n"
    );
    assert_eq!(
        edited(before, json!({"c": ["d"]})),
        "a:\n  # about c\n  c: # two\n  - d\nother: x\n"
    );
    assert_eq!(edited(before, json!({})), "a: {}\nother: x\n");
    assert_eq!(
        edited("a:\n- b: 1\n  c: 2\n", json!([{"c": 2}])),
        "a:\n- c: 2\n"
    );
    assert_eq!(
        edited("a:\n- b: 1 # one\n  c: 2\n", json!([{"c": 2}])),
        "refused: line 2: this field would have to go, and a comment or a dash is in the way: remove it by hand"
    );
    for (before, wanted, after) in [
        (
            "a: {b: 1, c: 2, d: 3}\n",
            json!({"c": 2, "d": 3}),
            "a: {c: 2, d: 3}\n",
        ),
        ("a: {b: 1, c: 2, d: 3}\n", json!({"b": 1}), "a: {b: 1}\n"),
        (
            "a: {b: 1, c: 2, d: 3}\n",
            json!({"b": 1, "d": 3}),
            "a: {b: 1, d: 3}\n",
        ),
        ("a: {b: 1, c: 2}\n", json!({}), "a: {}\n"),
        ("a: {b: 1, c: 2}\n", json!({"e": 5}), "a: {e: 5}\n"),
        (
            "a: {b: 1, c: 2}\n",
            json!({"c": 2, "e": 5}),
            "a: {c: 2, e: 5}\n",
        ),
        ("a:\n  b: 1\n  c: 2", json!({"b": 1}), "a:\n  b: 1"),
        (
            "a:\n  b: |+\n    x\n\n  c: 2\n",
            json!({"b": "x\n\n"}),
            "a:\n  b: |+\n    x\n\n",
        ),
        ("a:\n  b: 1\n  c: 2\n", json!("x"), "a: x\n"),
        ("a: # why\n  b: 1\n", json!(null), "a: null # why\n"),
    ] {
        assert_eq!(edited(before, wanted), after, "{before}");
    }
}

#[test]
fn elements_come_and_go_by_name() {
    let before = "a:\n  # first\n  - name: x # it\n    value: '1'\n  - name: v\n    value: '2'\n  # end\nb: 1\n";
    let x = json!({"name": "x", "value": "1"});
    let v = json!({"name": "v", "value": "2"});
    let z = json!({"name": "z", "value": "3"});
    for (wanted, after) in [
        (
            json!([x, v, z]),
            before.replace("  # end", "  - name: z\n    value: \"3\"\n  # end"),
        ),
        (
            json!([x, z, v]),
            before.replace("  - name: v", "  - name: z\n    value: \"3\"\n  - name: v"),
        ),
        (
            json!([z, x, v]),
            before.replace("  - name: x", "  - name: z\n    value: \"3\"\n  - name: x"),
        ),
        (
            json!([v]),
            before.replace("  - name: x # it\n    value: '1'\n", ""),
        ),
        (
            json!([x]),
            before.replace("  - name: v\n    value: '2'\n", ""),
        ),
        (
            json!([x, {"name": "v", "value": "5"}]),
            before.replace("'2'", "'5'"),
        ),
        (
            json!([{"name": "x", "value": "1", "q": {}}, v]),
            before.replace("'1'\n", "'1'\n    q: {}\n"),
        ),
        (
            json!([]),
            before.replace("a:\n", "a: []\n").replace(
                "  - name: x # it\n    value: '1'\n  - name: v\n    value: '2'\n",
                "",
            ),
        ),
    ] {
        assert_eq!(edited(before, wanted.clone()), after, "{wanted}");
    }
}

#[test]
fn lists_of_words_and_lists_in_brackets() {
    for (before, wanted, after) in [
        ("a: [x, v, z]\n", json!(["x", "z"]), "a: [x, z]\n"),
        ("a: [x, v, z]\n", json!(["v", "z"]), "a: [v, z]\n"),
        (
            "a: [x, v]\n",
            json!(["x", "v", "z: 1"]),
            "a: [x, v, \"z: 1\"]\n",
        ),
        ("a: [x, v]\n", json!(["w", "x", "v"]), "a: [w, x, v]\n"),
        ("a: [x, v,]\n", json!(["x", "w", "v"]), "a: [x, w, v,]\n"),
        ("a: [x, v]\n", json!(["x", "q"]), "a: [x, q]\n"),
        ("a: [x]\n", json!([]), "a: []\n"),
        ("a: []\n", json!(["x"]), "a: [x]\n"),
        (
            "a:\n-   x\n-   v\n",
            json!(["x", "v", "z"]),
            "a:\n-   x\n-   v\n-   z\n",
        ),
        (
            "a:\n- x # 1\n- v # 2\n",
            json!(["x", "q"]),
            "a:\n- x # 1\n- q # 2\n",
        ),
        ("a:\n-\n  x\n-\n  v", json!(["x"]), "a:\n-\n  x"),
        ("a:\n- - x\n  - v\n", json!([["v"]]), "a:\n- - v\n"),
        (
            "a:\n- - x\n  - v\n",
            json!([["x", "v"], ["z"]]),
            "a:\n- - x\n  - v\n- - z\n",
        ),
        ("a:\n-\n- x\n", json!(["v", "x"]), "a:\n- v\n- x\n"),
        (
            "a: [ # list\n  x, # 1\n  v  # 2\n]\n",
            json!(["x", "z"]),
            "a: [ # list\n  x, # 1\n  z  # 2\n]\n",
        ),
    ] {
        assert_eq!(edited(before, wanted), after, "{before}");
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    assert_snapshot!(
        edited("x: &d {b: 1, c: 2}\na:\n  <<: *d\n  e: 1\n", json!({"b": 1, "e": 1})),
        @"refused: line 1: this field would have to go where a merge key (`<<`) brings it in: change it by hand"
    );
    assert_snapshot!(
        edited("a: [x, # one\n  y]\n", json!(["x"])),
        @"refused: line 1: an element would have to go, and a comment is in the way: remove it by hand"
    );
    assert_snapshot!(
        edited("? a\n? b\n", json!([])),
        @"refused: line 2: this would have to become []: change it by hand"
    );
    assert!(rewrite(b"a: 1\n", 1, &["a"], &json!(2)).is_err());
    assert!(rewrite(b"a: 1\n", 0, &["b"], &json!(2)).is_err());
}
