//! Istio `HTTPMatchRequest`s combined: one condition and another.
//!
//! What cannot be expressed as one request match is left out. That reaches too few, never too many.

use serde_json::{Map, Value};

/// Every pair of a base match and a condition, as one match each. Without base matches, the conditions themselves;
/// conditions that match everybody are left out.
pub(super) fn cross(base: &[Value], conditions: &[Value]) -> Vec<Value> {
    let mut matches: Vec<Value> = Vec::new();
    for condition in conditions
        .iter()
        .filter(|condition| is_condition(condition))
    {
        let combined: Vec<Value> = if base.is_empty() {
            vec![condition.clone()]
        } else {
            base.iter()
                .filter_map(|base| both(base, condition))
                .collect()
        };
        for one in combined {
            if !matches.contains(&one) {
                matches.push(one);
            }
        }
    }
    matches
}

/// Whether a request match says anything about requests; Istio takes one that does not for a match of all.
fn is_condition(request: &Value) -> bool {
    let says_something = |(key, value): (&String, &Value)| {
        !matches!(key.as_str(), "name" | "statPrefix" | "ignoreUriCase")
            && match value {
                Value::Null => false,
                Value::Object(entries) => !entries.is_empty(),
                Value::Array(items) => !items.is_empty(),
                Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
            }
    };
    request
        .as_object()
        .is_some_and(|fields| fields.iter().any(says_something))
}

/// The match of requests that `base` and `condition` both match; `None` when there are none, or when Istio has no way to
/// say so.
fn both(base: &Value, condition: &Value) -> Option<Value> {
    let (base, condition) = (base.as_object()?, condition.as_object()?);
    let mut result = base.clone();
    for (field, value) in condition {
        let combined = match (result.get(field), field.as_str()) {
            (None | Some(Value::Null), _) | (Some(_), "name" | "statPrefix") => value.clone(),
            (Some(existing), _) if existing == value => value.clone(),
            (Some(existing), "uri" | "scheme" | "method" | "authority") => {
                both_strings(existing, value)?
            }
            (Some(existing), "headers") => both_maps(
                existing,
                value,
                |known| known.to_ascii_lowercase(),
                both_strings,
            )?,
            (Some(existing), "queryParams") => {
                both_maps(existing, value, str::to_owned, both_strings)?
            }
            (Some(existing), "withoutHeaders") => both_maps(
                existing,
                value,
                |known| known.to_ascii_lowercase(),
                both_equal,
            )?,
            (Some(existing), "sourceLabels") => {
                both_maps(existing, value, str::to_owned, both_equal)?
            }
            (Some(existing), "gateways") => both_lists(existing, value)?,
            (Some(_), "ignoreUriCase") => continue,
            (Some(_), _) => return None,
        };
        result.insert(field.clone(), combined);
    }
    match case_of_uri(base, condition)? {
        true => result.insert("ignoreUriCase".to_owned(), Value::Bool(true)),
        false => result.remove("ignoreUriCase"),
    };
    Some(Value::Object(result))
}

/// Whether the case of the combined `uri` is ignored: as wherever the `uri` comes from says.
fn case_of_uri(base: &Map<String, Value>, condition: &Map<String, Value>) -> Option<bool> {
    let ignored = |fields: &Map<String, Value>| {
        fields.get("ignoreUriCase").and_then(Value::as_bool) == Some(true)
    };
    match (base.contains_key("uri"), condition.contains_key("uri")) {
        (true, true) => (ignored(base) == ignored(condition)).then_some(ignored(base)),
        (true, false) => Some(ignored(base)),
        (false, true) => Some(ignored(condition)),
        (false, false) => Some(false),
    }
}

fn both_equal(left: &Value, right: &Value) -> Option<Value> {
    (left == right).then(|| left.clone())
}

/// Two string matches of the same text. An empty one asks for presence only; a regular expression combines with nothing
/// but itself.
fn both_strings(left: &Value, right: &Value) -> Option<Value> {
    let (a, b) = (left.as_object()?, right.as_object()?);
    if a == b || b.is_empty() {
        return Some(left.clone());
    }
    if a.is_empty() {
        return Some(right.clone());
    }
    let text = |fields: &Map<String, Value>, kind: &str| {
        let value = fields.get(kind)?.as_str()?;
        (fields.len() == 1).then(|| value.to_owned())
    };
    let narrower = |narrow: Option<String>, wide: Option<String>| {
        let both = narrow.zip(wide);
        both.is_some_and(|(narrow, wide)| narrow.starts_with(&wide))
    };
    let (exact_a, exact_b) = (text(a, "exact"), text(b, "exact"));
    let (prefix_a, prefix_b) = (text(a, "prefix"), text(b, "prefix"));
    if narrower(exact_a.or_else(|| prefix_a.clone()), prefix_b.clone()) {
        Some(left.clone())
    } else if narrower(exact_b.or(prefix_b), prefix_a) {
        Some(right.clone())
    } else {
        None
    }
}

/// Two maps of conditions that all have to hold; keys that `fold` makes equal are the same.
fn both_maps(
    left: &Value,
    right: &Value,
    fold: impl Fn(&str) -> String,
    combine: impl Fn(&Value, &Value) -> Option<Value>,
) -> Option<Value> {
    let mut result = left.as_object()?.clone();
    for (key, value) in right.as_object()? {
        let known = result
            .keys()
            .find(|known| fold(known) == fold(key))
            .cloned();
        match known.and_then(|known| result.remove(&known)) {
            Some(existing) => result.insert(key.clone(), combine(&existing, value)?),
            None => result.insert(key.clone(), value.clone()),
        };
    }
    Some(Value::Object(result))
}

/// The items of both lists; an empty list does not restrict.
fn both_lists(left: &Value, right: &Value) -> Option<Value> {
    let (a, b) = (left.as_array()?, right.as_array()?);
    if a.is_empty() {
        return Some(right.clone());
    }
    if b.is_empty() {
        return Some(left.clone());
    }
    let common: Vec<Value> = a.iter().filter(|item| b.contains(item)).cloned().collect();
    (!common.is_empty()).then_some(Value::Array(common))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(base: Value, condition: Value, expected: Option<Value>) {
        assert_eq!(both(&base, &condition), expected, "{base} and {condition}");
    }

    #[test]
    fn different_fields_are_joined() {
        check(
            json!({"uri": {"prefix": "/api"}, "headers": {"a": {"exact": "1"}}, "name": "base"}),
            json!({"headers": {"x-user": {"exact": "alexis"}}, "queryParams": {"q": {"exact": "1"}}, "name": "ab"}),
            Some(json!({
                "uri": {"prefix": "/api"},
                "headers": {"a": {"exact": "1"}, "x-user": {"exact": "alexis"}},
                "queryParams": {"q": {"exact": "1"}},
                "name": "ab",
            })),
        );
    }

    #[test]
    fn the_narrower_of_two_texts_is_kept() {
        let uri = |value: Value| json!({ "uri": value });
        let cases = [
            (
                json!({"prefix": "/a"}),
                json!({"exact": "/a/b"}),
                Some(json!({"exact": "/a/b"})),
            ),
            (
                json!({"exact": "/a/b"}),
                json!({"prefix": "/a"}),
                Some(json!({"exact": "/a/b"})),
            ),
            (
                json!({"prefix": "/a"}),
                json!({"prefix": "/a/b"}),
                Some(json!({"prefix": "/a/b"})),
            ),
            (
                json!({"prefix": "/a/b"}),
                json!({"prefix": "/a"}),
                Some(json!({"prefix": "/a/b"})),
            ),
            (
                json!({"regex": "a+"}),
                json!({"regex": "a+"}),
                Some(json!({"regex": "a+"})),
            ),
            (
                json!({"regex": "a+"}),
                json!({}),
                Some(json!({"regex": "a+"})),
            ),
            (
                json!({}),
                json!({"exact": "a"}),
                Some(json!({"exact": "a"})),
            ),
            (json!({"exact": "a"}), json!({"exact": "ab"}), None),
            (json!({"prefix": "/b"}), json!({"exact": "/a"}), None),
            (json!({"prefix": "/b"}), json!({"prefix": "/a"}), None),
            (json!({"regex": "a+"}), json!({"exact": "a"}), None),
            (json!({"exact": 1}), json!({"exact": "a"}), None),
        ];
        for (base, condition, expected) in cases {
            check(uri(base), uri(condition), expected.map(uri));
        }
    }

    #[test]
    fn contradictions_match_nobody() {
        check(json!({"port": 80}), json!({"port": 81}), None);
        check(
            json!({"headers": {"X-User": {"exact": "a"}}}),
            json!({"headers": {"x-user": {"exact": "b"}}}),
            None,
        );
        check(
            json!({"withoutHeaders": {"a": {"exact": "1"}}}),
            json!({"withoutHeaders": {"a": {"exact": "2"}}}),
            None,
        );
        check(json!({"gateways": ["a"]}), json!({"gateways": ["b"]}), None);
        check(
            json!({"sourceLabels": {"a": "1"}}),
            json!({"sourceLabels": {"a": "2"}}),
            None,
        );
        check(json!({"unknown": 1}), json!({"unknown": 2}), None);
        check(json!("text"), json!({}), None);
    }

    #[test]
    fn a_header_is_the_same_in_any_case() {
        check(
            json!({"headers": {"X-User": {"prefix": "al"}}}),
            json!({"headers": {"x-user": {"exact": "alexis"}}}),
            Some(json!({"headers": {"x-user": {"exact": "alexis"}}})),
        );
    }

    #[test]
    fn the_case_of_a_uri_stays_with_the_uri() {
        check(
            json!({"uri": {"prefix": "/a"}}),
            json!({"ignoreUriCase": true, "port": 80}),
            Some(json!({"uri": {"prefix": "/a"}, "port": 80})),
        );
        check(
            json!({"uri": {"prefix": "/a"}, "ignoreUriCase": true}),
            json!({"uri": {"prefix": "/a"}}),
            None,
        );
        check(
            json!({"uri": {"prefix": "/a"}, "ignoreUriCase": true}),
            json!({"port": 80}),
            Some(json!({"uri": {"prefix": "/a"}, "ignoreUriCase": true, "port": 80})),
        );
    }

    #[test]
    fn nothing_that_matches_everybody_gets_through() {
        for everybody in [
            json!({}),
            json!({"name": "a"}),
            json!({"headers": {}}),
            json!({"ignoreUriCase": true}),
            json!(null),
        ] {
            assert_eq!(
                cross(&[], std::slice::from_ref(&everybody)),
                Vec::<Value>::new()
            );
            assert_eq!(
                cross(&[json!({"port": 80})], &[everybody]),
                Vec::<Value>::new()
            );
        }
    }

    #[test]
    fn every_pair_is_there_once() {
        let base = [json!({"port": 80}), json!({"port": 81})];
        let user = json!({"headers": {"x-user": {"exact": "a"}}});
        assert_eq!(
            cross(&base, &[user.clone(), user]),
            [
                json!({"port": 80, "headers": {"x-user": {"exact": "a"}}}),
                json!({"port": 81, "headers": {"x-user": {"exact": "a"}}}),
            ]
        );
    }
}
