//! Whether a live object is what Git says.
//!
//! Git's manifest names some fields; a live object has those and more: defaults, status, what others added. Only the
//! fields that Git names are compared. Lists of built-in kinds are matched by the keys that the server merges them by;
//! lists of other kinds belong to one owner as a whole.

use serde_json::{Map, Value};

use super::key::Kind;

/// Most differences that are put into words.
const MOST_NAMED: usize = 3;
/// Longest value that is put into words, in characters.
const LONGEST_VALUE: usize = 60;
/// Keys by which the server merges lists of built-in kinds; the first that all items have tells them apart.
const MERGE_KEYS: &[&[&str]] = &[
    &["containerPort", "protocol"],
    &["port", "protocol"],
    &["mountPath"],
    &["devicePath"],
    &["topologyKey", "whenUnsatisfiable"],
    &["containerPort"],
    &["port"],
    &["ip"],
    &["uid"],
    &["type"],
    &["name"],
    &["key"],
];

/// The part of `live` that `wanted` speaks of, in the shape of `wanted`.
pub fn project(live: &Value, wanted: &Value, is_builtin: bool) -> Value {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            let fields = wanted.iter().filter_map(|(key, wanted)| {
                let live = live.get(key)?;
                Some((key.clone(), project(live, wanted, is_builtin)))
            });
            Value::Object(fields.collect())
        }
        (Value::Array(live), Value::Array(wanted)) => {
            match merge_key(wanted).filter(|_| is_builtin) {
                Some(keys) => {
                    let items = wanted.iter().filter_map(|wanted| {
                        let live = live.iter().find(|live| is_same_item(live, wanted, keys))?;
                        Some(project(live, wanted, is_builtin))
                    });
                    items.collect()
                }
                // It belongs to one owner as a whole: what somebody put into an item is a difference.
                None if !is_builtin => Value::Array(live.clone()),
                None => {
                    let mut wanted = wanted.iter();
                    let items = live.iter().map(|live| match wanted.next() {
                        Some(wanted) => project(live, wanted, is_builtin),
                        None => live.clone(),
                    });
                    items.collect()
                }
            }
        }
        (live, _) => live.clone(),
    }
}

fn merge_key(items: &[Value]) -> Option<&'static [&'static str]> {
    if items.is_empty() {
        return None;
    }
    let has_all = |keys: &&&[&str]| {
        let (first, _) = keys.split_first().unzip();
        items
            .iter()
            .all(|item| first.is_some_and(|key: &&str| item.get(*key).is_some()))
    };
    MERGE_KEYS.iter().find(has_all).copied()
}

fn is_same_item(live: &Value, wanted: &Value, keys: &[&str]) -> bool {
    keys.iter()
        .all(|key| match (wanted.get(*key), live.get(*key)) {
            (Some(wanted), Some(live)) => wanted == live,
            // The server fills in `protocol: TCP`.
            (None, Some(live)) => live == "TCP",
            (None, None) => true,
            (Some(_), None) => false,
        })
}

/// What differs between what Git says and the projection of the live object, for people; empty when nothing does.
pub fn differences(kind: &Kind, wanted: &Value, live: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(wanted, live, "", kind, &mut found);
    found
}

/// Paths of what `live` has and `wanted` does not; lists are compared as a whole elsewhere.
pub fn extras(wanted: &Value, live: &Value, name: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    add_extras(wanted, live, &[name.to_owned()], &mut found);
    found
}

fn add_extras(wanted: &Value, live: &Value, path: &[String], found: &mut Vec<Vec<String>>) {
    let (Value::Object(wanted), Value::Object(live)) = (wanted, live) else {
        return;
    };
    for (key, live) in live {
        let here = [path, std::slice::from_ref(key)].concat();
        match wanted.get(key) {
            Some(wanted) => add_extras(wanted, live, &here, found),
            None if is_empty(live) => {}
            None => found.push(here),
        }
    }
}

fn walk(wanted: &Value, live: &Value, path: &str, kind: &Kind, found: &mut Vec<String>) {
    if found.len() >= MOST_NAMED || is_equal(wanted, live) {
        return;
    }
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            for (key, wanted) in wanted {
                let here = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                match live.get(key) {
                    Some(live) => walk(wanted, live, &here, kind, found),
                    None if is_empty(wanted) => {}
                    None => say(kind, &here, wanted, None, found),
                }
            }
            // Only whole lists have fields here that Git does not name.
            for (key, live) in live.iter().filter(|(key, _)| !wanted.contains_key(*key)) {
                if found.len() < MOST_NAMED && !is_empty(live) {
                    let secret = kind.is("", "Secret");
                    let shown = if secret { String::new() } else { shown(live) };
                    found.push(format!("{path}.{key}: {shown}, not in Git"));
                }
            }
        }
        (Value::Array(wanted), Value::Array(live)) if wanted.len() == live.len() => {
            for (index, (wanted, live)) in wanted.iter().zip(live).enumerate() {
                walk(wanted, live, &format!("{path}[{index}]"), kind, found);
            }
        }
        (wanted, live) => say(kind, path, wanted, Some(live), found),
    }
}

fn say(kind: &Kind, path: &str, wanted: &Value, live: Option<&Value>, found: &mut Vec<String>) {
    if found.len() >= MOST_NAMED {
        return;
    }
    // What a Secret holds is not for logs and events.
    if kind.is("", "Secret") {
        found.push(format!("{path} differs"));
        return;
    }
    let live = live.map_or_else(|| "missing".to_owned(), shown);
    found.push(format!("{path}: {live}, {} in Git", shown(wanted)));
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Array(items) => format!("{} items", items.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    };
    match text.char_indices().nth(LONGEST_VALUE) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

/// Whether the server would write `wanted` as `live`.
fn is_equal(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::String(_), Value::String(_))
        | (Value::String(_), Value::Number(_))
        | (Value::Number(_), Value::String(_)) => {
            wanted == live
                || matches!((quantity(wanted), quantity(live)), (Some(a), Some(b)) if a == b)
        }
        (Value::Object(a), Value::Object(b)) => are_equal(a, b),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b))
        }
        (wanted, live) => wanted == live || (is_empty(wanted) && is_empty(live)),
    }
}

fn are_equal(wanted: &Map<String, Value>, live: &Map<String, Value>) -> bool {
    let all_there = wanted.iter().all(|(key, wanted)| match live.get(key) {
        Some(live) => is_equal(wanted, live),
        None => is_empty(wanted),
    });
    let mut added = live.iter().filter(|(key, _)| !wanted.contains_key(*key));
    all_there && added.all(|(_, live)| is_empty(live))
}

/// What the server may leave out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The value of a Kubernetes quantity, in thousandths: `500m` and `0.5` are the same.
fn quantity(value: &Value) -> Option<i128> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let thousandths: i128 = match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole: i128 = whole.parse().ok()?;
    let mut sum = whole.checked_mul(thousandths)?;
    if !part.is_empty() {
        let places = u32::try_from(part.len())
            .ok()
            .filter(|places| *places <= 9)?;
        let part: i128 = part.parse().ok()?;
        sum += part.checked_mul(thousandths)? / 10_i128.pow(places);
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(kind: &str, wanted: Value, live: Value, expected: &[&str]) {
        let kind = Kind::of(kind, "X");
        let is_builtin = !kind.group.contains('.');
        let projected = project(&live, &wanted, is_builtin);
        assert_eq!(
            differences(&kind, &wanted, &projected),
            expected,
            "{projected}"
        );
    }

    #[test]
    fn what_others_added_is_no_difference() {
        check(
            "apps/v1",
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "a:1", "ports": [{"containerPort": 80}]}]}}}}),
            json!({"status": {}, "spec": {"replicas": 1, "template": {"spec": {"containers": [
                {"name": "proxy", "image": "p"},
                {"name": "a", "image": "a:1", "imagePullPolicy": "Always", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
            ]}}}}),
            &[],
        );
    }

    #[test]
    fn an_edit_is_named_by_its_path() {
        check(
            "networking.istio.io/v1",
            json!({"spec": {"http": [{"route": [{"weight": 90}, {"weight": 10}]}]}}),
            json!({"spec": {"http": [{"route": [{"weight": 50}, {"weight": 50}]}]}}),
            &[
                "spec.http[0].route[0].weight: 50, 90 in Git",
                "spec.http[0].route[1].weight: 50, 10 in Git",
            ],
        );
    }

    #[test]
    fn a_route_that_somebody_put_in_is_a_difference() {
        let route = json!({"name": "serin-weights", "route": []});
        check(
            "networking.istio.io/v1",
            json!({"spec": {"http": [route]}}),
            json!({"spec": {"http": [{"name": "evil", "route": []}, route]}}),
            &["spec.http: 2 items, 1 items in Git"],
        );
    }

    #[test]
    fn a_field_that_somebody_put_into_a_route_is_a_difference() {
        check(
            "networking.istio.io/v1",
            json!({"spec": {"http": [{"name": "a", "route": []}]}}),
            json!({"spec": {"http": [{"name": "a", "route": [], "timeout": "1s"}], "exportTo": ["*"]}}),
            &[r#"spec.http[0].timeout: "1s", not in Git"#],
        );
    }

    #[test]
    fn what_others_added_is_found_at_every_depth() {
        let wanted = json!({"host": "a", "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}});
        let live = json!({
            "host": "a", "exportTo": ["."], "subsets": [], "workloadSelector": {},
            "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}, "tls": {"mode": "DISABLE"}},
        });
        let found: Vec<String> = extras(&wanted, &live, "spec")
            .iter()
            .map(|path| path.join("."))
            .collect();
        assert_eq!(found, ["spec.exportTo", "spec.trafficPolicy.tls"]);
    }

    #[test]
    fn quantities_are_compared_by_value() {
        let wanted = json!({"a": "0.5", "b": "1024Mi", "c": 1, "d": "1.5Gi"});
        let live = json!({"a": "500m", "b": "1Gi", "c": "1", "d": "1536Mi"});
        check("v1", wanted, live, &[]);
        check(
            "v1",
            json!({"a": "1"}),
            json!({"a": "2"}),
            &[r#"a: "2", "1" in Git"#],
        );
        check(
            "v1",
            json!({"a": "1x"}),
            json!({"a": "1y"}),
            &[r#"a: "1y", "1x" in Git"#],
        );
    }

    #[test]
    fn empty_and_missing_are_the_same() {
        check("v1", json!({"a": {}, "b": [], "c": ""}), json!({}), &[]);
        check(
            "v1",
            json!({"a": false}),
            json!({}),
            &["a: missing, false in Git"],
        );
    }

    #[test]
    fn a_secret_is_never_shown() {
        let found = differences(
            &Kind::new("", "Secret"),
            &json!({"data": {"k": "eA=="}}),
            &json!({"data": {"k": "eQ=="}}),
        );
        assert_eq!(found, ["data.k differs"]);
    }
}
