//! Texts of flags and of the configuration file, parsed once into types.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use super::failure::Failure;
use crate::domain::{CanaryId, Person, RepoPath, Timestamp, Weight};
use crate::spec;

/// A text that may hold a password: parsed later, so that no message of the argument parser repeats it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Unshown(String);

impl Unshown {
    /// The value in it. The error must not repeat the text.
    pub(super) fn read<T: FromStr>(&self) -> Result<T, Failure>
    where
        T::Err: fmt::Display,
    {
        self.0
            .parse()
            .map_err(|error: T::Err| Failure::usage(error.to_string()))
    }
}

impl FromStr for Unshown {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Unshown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Address of a Prometheus server, without credentials in it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct ServerUrl(reqwest::Url);

impl ServerUrl {
    /// The address.
    pub(super) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether the connection is encrypted.
    pub(super) fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }
}

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = reqwest::Url::parse(text)
            .map_err(|error| format!("the URL of Prometheus cannot be used: {error}; write it like http://prometheus:9090"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!(
                "Prometheus cannot be asked by `{}`, only by http and https",
                url.scheme()
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "credentials do not belong into a URL; name the files that hold them".into(),
            );
        }
        Ok(Self(url))
    }
}

impl TryFrom<String> for ServerUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// A canary as people name it: `podinfo`, or `test/podinfo` where the name alone is not enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CanaryName {
    /// Namespace, if given.
    pub(super) namespace: Option<String>,
    /// Name of the `Canary` object.
    pub(super) name: String,
}

impl CanaryName {
    /// Whether `id` is meant.
    pub(super) fn matches(&self, id: &CanaryId) -> bool {
        self.name == id.name
            && self
                .namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == id.namespace)
    }
}

impl FromStr for CanaryName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        if name.is_empty() || name.contains('/') || namespace.is_some_and(str::is_empty) {
            return Err("write <name> or <namespace>/<name>".into());
        }
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for CanaryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

/// A length of time as in a canary: `500ms`, `30s`, `2m`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    spec::duration::read(text).ok_or_else(|| {
        format!("`{text}` is not a length of time; write it like 500ms, 30s, 2m or 1h30m")
    })
}

/// A length of time that is not zero.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("this cannot be zero".into()),
        time => Ok(time),
    }
}

/// A share of requests: `10` or `10%`.
pub(super) fn weight(text: &str) -> Result<Weight, String> {
    text.strip_suffix('%')
        .unwrap_or(text)
        .parse()
        .ok()
        .and_then(Weight::new)
        .ok_or_else(|| "a weight is a whole number from 0 to 100".into())
}

/// A folder inside the repository. A leading `./` and a trailing `/` are what shells complete to.
pub(super) fn repo_path(text: &str) -> Result<RepoPath, String> {
    let inner = text.strip_prefix("./").unwrap_or(text);
    RepoPath::new(inner.strip_suffix('/').unwrap_or(inner)).ok_or_else(|| {
        "write a path inside the repository, like clusters/prod, without `..` and a leading `/`"
            .into()
    })
}

/// An instant: `2026-01-02T03:04:05Z`.
pub(super) fn timestamp(text: &str) -> Result<Timestamp, String> {
    chrono::DateTime::parse_from_rfc3339(text)
        .map(|time| time.to_utc())
        .map_err(|error| format!("{error}; write RFC 3339, like 2026-01-02T03:04:05Z"))
}

/// An author or committer: `Serin <serin@example.com>`.
pub(super) fn person(text: &str) -> Result<Person, String> {
    let (name, email) = text
        .strip_suffix('>')
        .and_then(|text| text.split_once('<'))
        .ok_or("write it like `Serin <serin@example.com>`")?;
    checked_person(name.trim(), email)
}

/// An author or committer from its parts, if Git can write them down.
pub(super) fn checked_person(name: &str, email: &str) -> Result<Person, String> {
    let unfit = |text: &str| {
        text.is_empty() || text.contains(['<', '>']) || text.contains(char::is_control)
    };
    if unfit(name) {
        return Err("a name cannot be empty or hold `<`, `>` or line breaks".into());
    }
    if unfit(email) || !email.contains('@') || email.contains(' ') {
        return Err(format!(
            "`{}` is not an email address",
            email.escape_debug()
        ));
    }
    Ok(Person {
        name: name.to_owned(),
        email: email.to_owned(),
    })
}

/// The name of a branch, by the rules of `git check-ref-format` that matter to us.
pub(super) fn branch(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("refs/heads/").unwrap_or(text);
    let forbidden = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    let fits = name
        .split('/')
        .all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"))
        && !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(forbidden);
    if fits {
        Ok(name.to_owned())
    } else {
        Err(format!(
            "`{}` cannot be the name of a branch",
            text.escape_debug()
        ))
    }
}

/// A text that fits into one line of a commit message.
pub(super) fn one_line(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.contains(char::is_control) {
        return Err("write one line of text, like [skip ci]".into());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_not_shown() {
        let url: Unshown = "ext::https://bot:s3cret@h/a".parse().unwrap();
        let failure = url.read::<crate::git::Remote>().unwrap_err();
        assert!(!failure.to_string().contains("s3cret"), "{failure}");
        let url: Unshown = "http://bot:s3cret@h:x".parse().unwrap();
        let failure = url.read::<ServerUrl>().unwrap_err();
        assert!(
            !format!("{failure} {url:?}").contains("s3cret"),
            "{failure}"
        );
    }

    #[test]
    fn prometheus_urls_carry_no_credentials() {
        assert!("http://prom:9090".parse::<ServerUrl>().is_ok());
        for bad in [
            "prom:9090",
            "ftp://prom",
            "http://u:p@prom",
            "http://u@prom",
        ] {
            assert!(bad.parse::<ServerUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "10", "s", "1y", "-1s", "1.5s", "99999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(interval("0s").is_err());
    }

    #[test]
    fn weights_and_paths() {
        assert_eq!(weight("60%"), Ok(Weight::new(60).unwrap()));
        assert!(weight("101").is_err());
        assert_eq!(repo_path("./apps/").unwrap().as_str(), "apps");
        assert!(repo_path("../apps").is_err());
    }

    #[test]
    fn branches() {
        assert_eq!(
            branch("refs/heads/release/1.0").as_deref(),
            Ok("release/1.0")
        );
        for bad in [
            "", "-x", "a..b", "a b", "a.lock", "a//b", "x@{1}", "a^", ".a", "a\\b",
        ] {
            assert!(branch(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn people() {
        let serin = person("Serin Bot <serin@example.com>").unwrap();
        assert_eq!(serin.to_string(), "Serin Bot <serin@example.com>");
        for bad in ["Serin", "<a@b>", "A <b>", "A\nB <a@b>", "A <a@b> x"] {
            assert!(person(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_canaries() {
        let id = CanaryId::new("test", "podinfo");
        assert!("podinfo".parse::<CanaryName>().unwrap().matches(&id));
        assert!("test/podinfo".parse::<CanaryName>().unwrap().matches(&id));
        assert!(!"prod/podinfo".parse::<CanaryName>().unwrap().matches(&id));
        assert!("a/b/c".parse::<CanaryName>().is_err());
    }
}
