//! Named users.

use std::collections::BTreeSet;

use super::super::mistake::{Mistakes, quoted};
use super::super::names::is_token;
use super::super::{UserRule, UserSource};
use super::part;
use crate::crd::UserSpec;
use crate::yaml::node::Node;

/// Longest name of a user, in bytes: what proxies take in a header without being asked to.
const LONGEST: usize = 1024;

/// Keys that Istio ignores in a header match. A match on nothing else would send everybody to the candidate.
const IGNORED_BY_ISTIO: [&str; 4] = ["uri", "scheme", "method", "authority"];

/// Reads `users`.
pub(super) fn read(spec: &Node, is_http: bool, mistakes: &mut Mistakes) -> Vec<UserRule> {
    let Some((key, users)) = spec.entry("users") else {
        return Vec::new();
    };
    if !is_http && !users.items().is_empty() {
        mistakes.error(
            key,
            "named users need an HTTP route: a TCP or TLS route cannot see headers or cookies",
        );
    }
    let items = users.items().iter();
    items.filter_map(|item| user(item, mistakes)).collect()
}

fn user(item: &Node, mistakes: &mut Mistakes) -> Option<UserRule> {
    let present = |key: &str| item.get(key).filter(|node| !node.to_json().is_null());
    let (header, cookie) = (present("header"), present("cookie"));
    match (header, cookie) {
        (Some(_), Some(both)) => mistakes.error(both, "give either `header` or `cookie`, not both"),
        (None, None) if !item.entries().is_empty() => {
            mistakes.error(
                item,
                "say where the name is found: `header: x-user` or `cookie: user`",
            );
        }
        (Some(node), None) => header_name(node, mistakes),
        (None, Some(node)) => cookie_name(node, mistakes),
        (None, None) => {}
    }
    let mut seen = BTreeSet::new();
    for node in item.get("exact").map_or(&[][..], Node::items) {
        let serde_json::Value::String(name) = node.to_json() else {
            continue;
        };
        user_name(node, &name, cookie.is_some(), mistakes);
        if !seen.insert(name.clone()) {
            mistakes.warning(node, format!("the name {} is listed twice", quoted(&name)));
        }
    }
    let rule: UserSpec = part(Some(item))?;
    let source = match (rule.header, rule.cookie) {
        (Some(header), _) => UserSource::Header(header.to_ascii_lowercase()),
        (None, cookie) => UserSource::Cookie(cookie?),
    };
    Some(UserRule {
        source,
        exact: rule.exact,
    })
}

fn header_name(node: &Node, mistakes: &mut Mistakes) {
    let name = node.as_str().unwrap_or_default();
    let lower = name.to_ascii_lowercase();
    if name.is_empty() {
        return;
    }
    if !is_token(name) {
        mistakes.error(
            node,
            format!(
                "{} is not the name of a header: letters, digits and `-`, such as `x-user`",
                quoted(name)
            ),
        );
    } else if lower == "cookie" {
        mistakes.error(
            node,
            "the `Cookie` header holds all cookies at once: write `cookie: <name of the cookie>` instead",
        );
    } else if IGNORED_BY_ISTIO.contains(&lower.as_str()) {
        mistakes.error(
            node,
            format!("Istio ignores a header called `{lower}` in a match, so everybody would match"),
        );
    }
}

fn cookie_name(node: &Node, mistakes: &mut Mistakes) {
    let name = node.as_str().unwrap_or_default();
    if !name.is_empty() && !is_token(name) {
        mistakes.error(
            node,
            format!(
                "{} is not the name of a cookie: no spaces, no `=`, `;` or `,`",
                quoted(name)
            ),
        );
    }
}

/// Any character that can arrive in a header is allowed, and matched as it is.
fn user_name(node: &Node, name: &str, in_cookie: bool, mistakes: &mut Mistakes) {
    if name.is_empty() {
        mistakes.error(
            node,
            "the name of a user is empty: it would match requests without one",
        );
        return;
    }
    if let Some(control) = name.chars().find(|c| c.is_control()) {
        mistakes.error(
            node,
            format!(
                "the name {} contains {}, which cannot be sent in a header",
                quoted(name),
                match control {
                    '\n' | '\r' => "a line break",
                    '\t' => "a tab",
                    _ => "a control character",
                }
            ),
        );
    } else if name.trim() != name {
        mistakes.error(
            node,
            format!(
                "the name {} begins or ends with a space, which proxies cut off before they match",
                quoted(name)
            ),
        );
    } else if name.len() > LONGEST {
        mistakes.error(
            node,
            format!(
                "the name {} has {} bytes, at most {LONGEST} are allowed",
                quoted(name),
                name.len()
            ),
        );
    } else if in_cookie && name.contains(';') {
        mistakes.error(
            node,
            format!(
                "the name {} contains `;`, which ends the value of a cookie",
                quoted(name)
            ),
        );
    } else if in_cookie && name.contains([' ', ',', '"', '\\']) {
        mistakes.warning(
            node,
            format!(
                "the name {} has characters that clients usually send encoded in a cookie; it matches only as written",
                quoted(name)
            ),
        );
    } else if !name.is_ascii() {
        mistakes.warning(
            node,
            format!(
                "the name {} is not ASCII; it matches only clients that send it as UTF-8",
                quoted(name)
            ),
        );
    }
}
