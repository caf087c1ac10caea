//! Named users as request matches: one for each name, exact.

use serde_json::{Value, json};

use super::matching::cross;
use crate::spec::{Protocol, UserRule, UserSource, ValidatedCanary};

/// Longest regular expression that Istio accepts, in bytes. Istio raises Envoy's own limit (`re2.max_program_size`) to
/// 32768 instructions, which no expression of this length reaches.
const REGEX_MAX_BYTES: usize = 1024;

/// One request match for each name that a request can carry.
pub(super) fn conditions(users: &[UserRule]) -> Vec<Value> {
    users
        .iter()
        .flat_map(|rule| rule.exact.iter().map(|name| (&rule.source, name)))
        .filter_map(|(source, name)| condition(source, name))
        .collect()
}

/// Named users whom no request match can express, for people: as `header x-user: name` or `cookie user: name`.
///
/// These are names that no request can carry in that place, and names that contradict every `match` of the route.
/// Nobody but them is kept from the candidate by that.
pub fn unmatched_users(canary: &ValidatedCanary) -> Vec<String> {
    let base = match &canary.route.protocol {
        Protocol::Http(fields) => matches_of(fields.get("match")),
        Protocol::Tcp(_) | Protocol::Tls(_) => Vec::new(),
    };
    canary
        .users
        .iter()
        .flat_map(|rule| rule.exact.iter().map(|name| (&rule.source, name)))
        .filter(|(source, name)| match condition(source, name) {
            Some(condition) => cross(&base, &[condition]).is_empty(),
            None => true,
        })
        .map(|(source, name)| match source {
            UserSource::Header(header) => format!("header {header}: {name}"),
            UserSource::Cookie(cookie) => format!("cookie {cookie}: {name}"),
        })
        .collect()
}

/// The entries of a route's `match`.
pub(super) fn matches_of(field: Option<&Value>) -> Vec<Value> {
    field.and_then(Value::as_array).cloned().unwrap_or_default()
}

fn condition(source: &UserSource, name: &str) -> Option<Value> {
    match source {
        // Istio reads an empty text as "is there at all".
        UserSource::Header(header) => {
            (!name.is_empty()).then(|| json!({"headers": {header: {"exact": name}}}))
        }
        UserSource::Cookie(cookie) => cookie_condition(cookie, name),
    }
}

/// The match of requests that carry this cookie with this value; `None` when no cookie can.
pub(super) fn cookie_condition(cookie: &str, value: &str) -> Option<Value> {
    if !is_cookie_name(cookie) || !is_cookie_value(value) {
        return None;
    }
    cookie_header(&format!(
        "{}={}",
        regex_escaped(cookie),
        regex_escaped(value)
    ))
}

/// The match of requests that carry this cookie with any value.
pub(super) fn any_cookie_condition(cookie: &str) -> Option<Value> {
    if !is_cookie_name(cookie) {
        return None;
    }
    cookie_header(&format!("{}=[^;]*", regex_escaped(cookie)))
}

/// Istio matches the `cookie` header as a whole: other cookies may stand before and behind. Envoy matches the whole
/// text anyway; the anchors say so to readers.
fn cookie_header(pair: &str) -> Option<Value> {
    let regex = format!(r"^(.*;\s*)?{pair}(;.*)?$");
    (regex.len() <= REGEX_MAX_BYTES).then(|| json!({"headers": {"cookie": {"regex": regex}}}))
}

/// What is before the first `=`, blanks around it removed, can be this.
pub(super) fn is_cookie_name(name: &str) -> bool {
    is_cookie_value(name) && !name.contains('=')
}

/// What stands between two `;`, blanks around it removed, can be this.
fn is_cookie_value(value: &str) -> bool {
    !value.is_empty()
        && value.trim() == value
        && !value.contains(|c: char| c == ';' || c.is_control())
}

/// A text as a regular expression of RE2 that matches nothing else.
fn regex_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex::Regex;

    /// Whether Envoy would match `header` (which it does as a whole).
    fn regex_matches(condition: &Value, header: &str) -> bool {
        let regex = condition["headers"]["cookie"]["regex"].as_str().unwrap();
        Regex::new(&format!("^(?:{regex})$"))
            .unwrap()
            .is_match(header)
    }

    /// Whether a server reads this cookie from the header, by the rules of RFC 6265.
    fn server_reads(header: &str, cookie: &str, value: &str) -> bool {
        header
            .split(';')
            .filter_map(|pair| pair.split_once('='))
            .any(|(name, found)| name.trim() == cookie && found.trim() == value)
    }

    const NAMES: &[&str] = &[
        "alexis",
        "a.b",
        "a*",
        ".*",
        "^a$",
        "a|b",
        "(a",
        "[a-z]",
        "a\\",
        "\\d",
        "a+b@example.com",
        "a=b",
        "\"a\"",
        "it's",
        "ünï",
        "名前",
        "a b",
        "%41",
        "a,b",
        "{1}",
        "$",
        "a;b",
        "a\nb",
        " a",
        "a ",
        "",
        "?",
        "-",
    ];

    #[test]
    fn a_cookie_matches_its_value_wherever_it_stands() {
        let condition = cookie_condition("user", "alexis").unwrap();
        for header in [
            "user=alexis",
            "a=b; user=alexis",
            "a=b;user=alexis;c=d",
            "user=alexis; c=d",
        ] {
            assert!(regex_matches(&condition, header), "{header}");
        }
        for header in [
            "user=alexis2",
            "xuser=alexis",
            "user=xalexis",
            "user=Alexis",
            "a=user=alexis",
            "user=",
            "a=b",
            "",
            "a=b user=alexis",
            "user=alexis c=d",
            "user =alexis",
            "user=alexis2; auser=alexis",
        ] {
            assert!(!regex_matches(&condition, header), "{header}");
        }
    }

    #[test]
    fn names_that_no_cookie_can_carry_match_nothing() {
        for name in ["", "a;b", " a", "a ", "a\nb", "a\0", &"x".repeat(1100)] {
            assert_eq!(cookie_condition("user", name), None, "{name:?}");
        }
        assert_eq!(cookie_condition("a=b", "c"), None);
    }

    #[test]
    fn names_of_200_characters_fit() {
        for c in ["x", ".", "ü", "名", "🦀"] {
            let condition = cookie_condition("user", &c.repeat(200)).unwrap();
            assert!(regex_matches(
                &condition,
                &format!("user={}", c.repeat(200))
            ));
            assert!(!regex_matches(
                &condition,
                &format!("user={}", c.repeat(199))
            ));
        }
    }

    #[test]
    fn headers_match_exactly() {
        let rule = UserRule {
            source: UserSource::Header("x-user".to_owned()),
            exact: vec!["a.*".to_owned(), String::new(), "\"b\"\n".to_owned()],
        };
        assert_eq!(
            conditions(&[rule]),
            [
                json!({"headers": {"x-user": {"exact": "a.*"}}}),
                json!({"headers": {"x-user": {"exact": "\"b\"\n"}}}),
            ]
        );
    }

    proptest! {
        #[test]
        fn a_cookie_never_matches_more_broadly(
            cookie in prop_oneof!["[a-z.*|]{1,3}", proptest::sample::select(NAMES).prop_map(str::to_owned)],
            value in prop_oneof!["[ab.*+|\\\\=]{1,3}", proptest::sample::select(NAMES).prop_map(str::to_owned), any::<String>()],
            others in proptest::collection::vec("[ab.*+|\\\\= ]{0,6}", 0..4),
            swapped in "[ab.*+|\\\\=]{0,3}",
        ) {
            if let Some(condition) = cookie_condition(&cookie, &value) {
                let own = format!("{cookie}={value}");
                let near = format!("{cookie}={swapped}");
                let mut headers = vec![own.clone(), near.clone(), format!("x{own}"), format!("{own}x")];
                headers.push([others.join("; "), own.clone()].join("; "));
                headers.push([others.join(";"), near].join(";"));
                headers.push(others.join("; "));
                for header in headers.into_iter().filter(|header| !header.contains('\n')) {
                    if regex_matches(&condition, &header) {
                        prop_assert!(server_reads(&header, &cookie, &value), "{header:?}");
                    }
                }
                let among_others = format!("z=1; {own}; y=2");
                prop_assert!(regex_matches(&condition, &among_others));
            }
        }
    }
}
