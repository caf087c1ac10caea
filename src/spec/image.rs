//! Container images: their parts, which of two tags is older, and what a kustomization makes of them.

use std::cmp::Ordering;

use serde_json::Value;

/// An image reference in its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Image<'a> {
    /// Registry and repository.
    pub(super) name: &'a str,
    /// What follows `:`.
    pub(super) tag: Option<&'a str>,
    /// What follows `@`.
    pub(super) digest: Option<&'a str>,
}

impl<'a> Image<'a> {
    /// Takes a reference apart; a `:` before a `/` belongs to a port.
    pub(super) fn parse(text: &'a str) -> Self {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        Self { name, tag, digest }
    }

    /// The version in a word: the tag, else the beginning of the digest.
    pub(super) fn version(&self) -> String {
        match (self.tag, self.digest) {
            (Some(tag), _) => tag.to_owned(),
            (None, Some(digest)) => {
                let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
                format!("@{}", hex.chars().take(12).collect::<String>())
            }
            (None, None) => "latest".to_owned(),
        }
    }
}

/// What is wrong with an image reference, if anything.
pub(super) fn problem(text: &str) -> Option<&'static str> {
    let image = Image::parse(text);
    let name_is_fine = !image.name.is_empty()
        && image
            .name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-/:[]".contains(c));
    let tag_is_fine = image.tag.is_none_or(|tag| {
        (1..=128).contains(&tag.len())
            && tag
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    });
    let digest_is_fine = image.digest.is_none_or(|digest| {
        digest.split_once(':').is_some_and(|(algorithm, hex)| {
            !algorithm.is_empty() && hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
        })
    });
    if !name_is_fine {
        Some("it has no valid name")
    } else if !tag_is_fine {
        Some("its tag is not valid")
    } else if !digest_is_fine {
        Some("its digest is not valid")
    } else {
        None
    }
}

/// A tag that reads as a version: numbers, and possibly a pre-release.
#[derive(Debug, PartialEq, Eq)]
struct Numbered<'a> {
    numbers: Vec<u64>,
    /// Identifiers of the pre-release; empty for a release.
    pre_release: Vec<&'a str>,
    /// A suffix that says what kind of image it is (`alpine`), not how far it is.
    variant: Option<&'a str>,
}

/// Words that begin a pre-release. Anything else behind a `-` is a variant of the image.
const PRE_RELEASE: [&str; 11] = [
    "alpha", "beta", "rc", "pre", "preview", "dev", "snapshot", "nightly", "canary", "m", "a",
];

impl<'a> Numbered<'a> {
    fn parse(tag: &'a str) -> Option<Self> {
        let tag = tag.strip_prefix(['v', 'V']).unwrap_or(tag);
        let tag = tag.split_once('+').map_or(tag, |(version, _)| version);
        let (core, suffix) = match tag.split_once('-') {
            Some((core, suffix)) => (core, Some(suffix)),
            None => (tag, None),
        };
        let numbers: Option<Vec<u64>> = core.split('.').map(|part| part.parse().ok()).collect();
        let numbers = numbers.filter(|numbers| numbers.len() <= 4)?;
        let word = suffix.map(|suffix| {
            let end = suffix.find(|c: char| !c.is_ascii_alphabetic());
            suffix[..end.unwrap_or(suffix.len())].to_ascii_lowercase()
        });
        let is_pre_release =
            word.is_some_and(|word| word.is_empty() || PRE_RELEASE.contains(&word.as_str()));
        let (pre_release, variant) = match suffix {
            Some(suffix) if is_pre_release => (suffix.split('.').collect(), None),
            other => (Vec::new(), other),
        };
        Some(Self {
            numbers,
            pre_release,
            variant,
        })
    }

    /// Which is older; `None` when they are different variants.
    fn compare(&self, other: &Self) -> Option<Ordering> {
        if self.variant != other.variant {
            return None;
        }
        let at = |numbers: &[u64], index: usize| numbers.get(index).copied().unwrap_or(0);
        let core = (0..4)
            .map(|index| at(&self.numbers, index).cmp(&at(&other.numbers, index)))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal);
        Some(core.then_with(|| compare_pre_release(&self.pre_release, &other.pre_release)))
    }
}

/// Precedence of pre-releases as in semantic versioning: a release is after all of its pre-releases.
fn compare_pre_release(one: &[&str], two: &[&str]) -> Ordering {
    match (one.is_empty(), two.is_empty()) {
        (true, true) => return Ordering::Equal,
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    let part = |a: &str, b: &str| match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => natural(a, b),
    };
    one.iter()
        .zip(two)
        .map(|(a, b)| part(a, b))
        .find(|order| order.is_ne())
        .unwrap_or_else(|| one.len().cmp(&two.len()))
}

/// `rc2` before `rc10`, as people mean it.
fn natural(a: &str, b: &str) -> Ordering {
    let split = |text: &str| {
        let at = text
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(text.len());
        (text[..at].to_owned(), text[at..].parse::<u64>().ok())
    };
    match (split(a), split(b)) {
        ((word_a, Some(n)), (word_b, Some(m))) if word_a == word_b => n.cmp(&m),
        _ => a.cmp(b),
    }
}

/// Which of two images is older by its tag; `None` when that cannot be said.
pub(super) fn compare(one: &str, two: &str) -> Option<Ordering> {
    let tag = |image| Image::parse(image).tag.and_then(Numbered::parse);
    tag(one)?.compare(&tag(two)?)
}

/// An entry of `images` in a kustomization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rewrite {
    pub(super) name: String,
    pub(super) new_name: Option<String>,
    pub(super) new_tag: Option<String>,
    pub(super) digest: Option<String>,
}

impl Rewrite {
    /// What becomes of an image; `None` when the entry is for another one.
    pub(super) fn apply(&self, image: &str) -> Option<String> {
        let parsed = Image::parse(image);
        if parsed.name != self.name {
            return None;
        }
        let name = self.new_name.as_deref().unwrap_or(parsed.name);
        let (tag, digest) = match (&self.new_tag, &self.digest) {
            (None, None) => (parsed.tag, parsed.digest),
            (tag, digest) => (tag.as_deref(), digest.as_deref()),
        };
        Some(joined(name, tag, digest))
    }
}

/// A reference from its parts.
pub(super) fn joined(name: &str, tag: Option<&str>, digest: Option<&str>) -> String {
    let tag = tag.map_or_else(String::new, |tag| format!(":{tag}"));
    let digest = digest.map_or_else(String::new, |digest| format!("@{digest}"));
    format!("{name}{tag}{digest}")
}

/// The containers of a pod template, init containers last.
pub(super) fn containers(template: &Value) -> impl Iterator<Item = &Value> {
    ["containers", "initContainers"]
        .into_iter()
        .filter_map(|list| template["spec"][list].as_array())
        .flatten()
}

/// Where the image of a container is in a Deployment; `null` when it names none.
pub(super) fn slot<'m>(manifest: &'m mut Value, container: &str) -> Option<&'m mut Value> {
    let pod = manifest
        .pointer_mut("/spec/template/spec")?
        .as_object_mut()?;
    pod.iter_mut()
        .filter(|(list, _)| matches!(list.as_str(), "containers" | "initContainers"))
        .filter_map(|(_, list)| list.as_array_mut())
        .flatten()
        .find(|one| one.get("name").and_then(Value::as_str) == Some(container))?
        .as_object_mut()
        .map(|fields| fields.entry("image").or_insert(Value::Null))
}

/// Applies the `images` of a kustomization to the Deployment `manifest`; says whether anything changed.
pub(super) fn rewrite(manifest: &mut Value, rewrites: &[Rewrite]) -> bool {
    let mut changed = false;
    for list in ["containers", "initContainers"] {
        let containers = manifest
            .pointer_mut("/spec/template/spec")
            .and_then(|pod| pod.get_mut(list))
            .and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let Some(Value::String(image)) = container.get_mut("image") else {
                continue;
            };
            for rewrite in rewrites {
                if let Some(new) = rewrite.apply(image) {
                    changed |= new != *image;
                    *image = new;
                }
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_come_apart() {
        for (text, name, version) in [
            ("podinfo", "podinfo", "latest"),
            ("ghcr.io/x/podinfo:6.9.0", "ghcr.io/x/podinfo", "6.9.0"),
            ("localhost:5000/podinfo", "localhost:5000/podinfo", "latest"),
            ("localhost:5000/podinfo:1", "localhost:5000/podinfo", "1"),
            (
                "x@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                "x",
                "@0123456789ab",
            ),
        ] {
            let image = Image::parse(text);
            assert_eq!((image.name, image.version().as_str()), (name, version));
            assert_eq!(problem(text), None, "{text}");
        }
        for bad in ["", ":1", "a b", "x:", "x:a b", "x@sha256:12", "x@latest"] {
            assert!(problem(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn older_tags_are_told_where_they_can_be() {
        use Ordering::{Equal, Greater, Less};
        for (one, two, expected) in [
            ("6.8.0", "6.9.0", Some(Less)),
            ("6.10.0", "6.9.0", Some(Greater)),
            ("v1", "v2", Some(Less)),
            ("v1.2.0", "1.2", Some(Equal)),
            ("1.0.0-rc.1", "1.0.0", Some(Less)),
            ("1.0.0-rc.2", "1.0.0-rc.10", Some(Less)),
            ("1.0.0-rc2", "1.0.0-rc10", Some(Less)),
            ("1.0.0-alpha", "1.0.0-beta", Some(Less)),
            ("1.0.0-alpha", "1.0.0-alpha.1", Some(Less)),
            ("1.0.0-1", "1.0.0-alpha", Some(Less)),
            ("1.25", "1.25-alpine", None),
            ("1.24-alpine", "1.25-alpine", Some(Less)),
            ("1.0.0+build5", "1.0.0", Some(Equal)),
            ("latest", "1.0.0", None),
            ("a1b2c3d", "1.0.0", None),
            ("main-1a2b", "main-3c4d", None),
            ("99999999999999999999999", "1", None),
        ] {
            assert_eq!(
                compare(&format!("x:{one}"), &format!("y/x:{two}")),
                expected,
                "{one} {two}"
            );
        }
        assert_eq!(compare("x", "x:1"), None);
    }

    #[test]
    fn kustomize_rewrites_are_followed() {
        let entry = |new_name: Option<&str>, new_tag: Option<&str>, digest: Option<&str>| Rewrite {
            name: "ghcr.io/x/podinfo".into(),
            new_name: new_name.map(Into::into),
            new_tag: new_tag.map(Into::into),
            digest: digest.map(Into::into),
        };
        for (rewrite, expected) in [
            (entry(None, Some("7"), None), "ghcr.io/x/podinfo:7"),
            (entry(Some("reg/p"), None, None), "reg/p:6"),
            (entry(Some("reg/p"), Some("7"), None), "reg/p:7"),
            (
                entry(None, None, Some("sha256:ab")),
                "ghcr.io/x/podinfo@sha256:ab",
            ),
            (
                entry(None, Some("7"), Some("sha256:ab")),
                "ghcr.io/x/podinfo:7@sha256:ab",
            ),
        ] {
            assert_eq!(
                rewrite.apply("ghcr.io/x/podinfo:6").as_deref(),
                Some(expected)
            );
        }
        assert_eq!(
            entry(None, Some("7"), None).apply("ghcr.io/x/podinfo2:6"),
            None
        );
    }
}
