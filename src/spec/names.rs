//! What Kubernetes, Istio and HTTP accept as a name.

/// Whether `text` is a DNS label (RFC 1123), at most 63 characters: namespaces, Services, parts of a host.
pub(super) fn is_dns_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether `text` is a DNS name (RFC 1123), at most 253 characters: names of most objects.
pub(super) fn is_dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// What to write instead of a name that is none.
pub(super) const DNS_NAME: &str =
    "lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit";

/// Whether `text` is the value of a label.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_qualified(text)
}

/// Whether `text` is the key of a label: a name, with an optional DNS prefix.
pub(super) fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_name(prefix) && is_qualified(name),
        None => is_qualified(text),
    }
}

fn is_qualified(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    (1..=63).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && edge(text.chars().next())
        && edge(text.chars().next_back())
}

/// Whether `text` is a token of RFC 9110: names of headers and, by RFC 6265, of cookies.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

/// Whether `text` can be a host of a VirtualService: a DNS name, `*.` before one, `*`, or an IP address.
pub(super) fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    text == "*" || is_dns_name(name) || text.parse::<core::net::IpAddr>().is_ok()
}

/// Whether `text` can be a gateway of a VirtualService: `mesh`, `<name>`, `<namespace>/<name>`.
pub(super) fn is_gateway(text: &str) -> bool {
    match text.split_once('/') {
        Some((namespace, name)) => is_dns_label(namespace) && is_dns_name(name),
        None => is_dns_name(text),
    }
}

/// The host as the mesh knows it: a name without dots belongs to the namespace.
pub(super) fn canonical_host(host: &str, namespace: &str) -> String {
    let host = host.trim_end_matches('.');
    if !host.contains('.') && host != "*" {
        format!("{host}.{namespace}.svc.cluster.local")
    } else if host.ends_with(".svc") {
        format!("{host}.cluster.local")
    } else {
        host.to_owned()
    }
}

/// The gateway with its namespace.
pub(super) fn canonical_gateway(gateway: &str, namespace: &str) -> String {
    if gateway == "mesh" || gateway.contains('/') {
        gateway.to_owned()
    } else {
        format!("{namespace}/{gateway}")
    }
}

/// Whether `text` can be the name of a folder in the repository.
pub(super) fn is_folder(text: &str) -> bool {
    !matches!(text, "" | "." | ".." | ".git")
        && !text.chars().any(|c| {
            c.is_control() || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_kubernetes_takes() {
        for good in ["podinfo", "a", "a-1", "0"] {
            assert!(is_dns_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "é", &"a".repeat(64)] {
            assert!(!is_dns_label(bad), "{bad}");
        }
        for bad in ["..", ".", "a..b", "a/b", "../x", "a."] {
            assert!(!is_dns_name(bad), "{bad}");
        }
        assert!(is_label_key("app.kubernetes.io/name") && is_label_key("version"));
        assert!(!is_label_key("a/b/c") && !is_label_key("/b") && !is_label_key(""));
        assert!(is_label_value("v1.2_3") && is_label_value("") && !is_label_value("-v1"));
        assert!(is_token("x-user") && !is_token("x user") && !is_token(":authority"));
        for good in ["podinfo", "*", "*.example.com", "10.0.0.1", "::1"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "http://x", "x:80", "x/y", "*x.com", "a.*.com"] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn short_hosts_belong_to_the_namespace() {
        assert_eq!(
            canonical_host("podinfo", "test"),
            "podinfo.test.svc.cluster.local"
        );
        assert_eq!(
            canonical_host("podinfo.test.svc", "other"),
            "podinfo.test.svc.cluster.local"
        );
        assert_eq!(canonical_host("example.com", "test"), "example.com");
    }
}
