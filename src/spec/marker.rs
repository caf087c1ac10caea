//! Marker comments: where a container's image is written, when that is neither the Deployment's manifest nor the
//! `images` of a kustomization.
//!
//! `# serin: <namespace>/<canary>/<container>` stands behind the scalar with the whole image. With `:name`, `:tag` or
//! `:digest` at its end it stands behind that part of it, as in the values of a Helm chart:
//!
//! ```yaml
//! image:
//!   repository: ghcr.io/stefanprodan/podinfo # serin: test/podinfo/podinfod:name
//!   tag: 6.8.0 # serin: test/podinfo/podinfod:tag
//! ```
//!
//! The image that takes effect is then the one written there, and promotion writes there.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Severity;
use super::image::{self, Image};
use super::mistake::{Mistake, Place, quoted};
use crate::domain::CanaryId;
use crate::yaml::comments::{Comment, commented, comments};
use crate::yaml::node::Parsed;

/// What begins a marker, behind the `#`.
pub(super) const WORD: &str = "serin:";

/// What is written at a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// All of the image.
    Image,
    /// Registry and repository.
    Name,
    /// What follows `:`.
    Tag,
    /// What follows `@`.
    Digest,
}

impl Part {
    fn word(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Name => "name",
            Self::Tag => "tag",
            Self::Digest => "digest",
        }
    }
}

/// A marker with the scalar that it stands behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) canary: CanaryId,
    pub(super) container: String,
    pub(super) part: Part,
    pub(super) place: Place,
    /// The scalar's text; `None` when the file cannot be read.
    pub(super) value: Option<String>,
    /// Index of the scalar's document.
    pub(super) document: usize,
    /// First byte of the scalar.
    pub(super) start: usize,
}

/// All markers of a file, and what is wrong with them.
pub(super) fn find(content: &[u8], parsed: &Parsed) -> (Vec<Marker>, Vec<Mistake>) {
    let (mut markers, mut mistakes) = (Vec::new(), Vec::new());
    if !parsed.errors.is_empty() {
        return (unreadable(content), mistakes);
    }
    for comment in comments(content) {
        let Some(rest) = comment.text.strip_prefix(WORD) else {
            continue;
        };
        let place = Place {
            line: comment.line,
            column: comment.column,
        };
        let found = target(rest).and_then(|(canary, container, part)| {
            let at = commented(parsed, content, &comment).filter(|at| !at.node.aliased);
            let at = at.ok_or_else(|| behind_nothing(&comment))?;
            Ok(Marker {
                canary,
                container,
                part,
                place,
                value: at.node.as_str().map(str::to_owned),
                document: at.document,
                start: at.node.span.start,
            })
        });
        match found {
            Ok(marker) => markers.push(marker),
            Err(message) => mistakes.push(Mistake {
                place,
                severity: Severity::Error,
                message,
            }),
        }
    }
    (markers, mistakes)
}

fn behind_nothing(comment: &Comment) -> String {
    format!(
        "the marker {} has to stand directly behind the value that it marks, on the same line, and no alias may refer \
         to that value",
        quoted(&comment.text)
    )
}

/// The markers of a file that is no YAML: which images are written in it is known, what they are is not.
fn unreadable(content: &[u8]) -> Vec<Marker> {
    let text = String::from_utf8_lossy(content);
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(index, line)| {
            let (before, rest) = line.split_once(WORD)?;
            before.trim_end().strip_suffix('#')?;
            let (canary, container, part) = target(rest).ok()?;
            Some(Marker {
                canary,
                container,
                part,
                place: Place {
                    line: index + 1,
                    column: 1,
                },
                value: None,
                document: 0,
                start: 0,
            })
        })
        .collect()
}

/// What a marker says: the first word; what follows is for people.
fn target(rest: &str) -> Result<(CanaryId, String, Part), String> {
    let word = rest.split_whitespace().next().unwrap_or_default();
    let word = word.trim_end_matches([',', ';']);
    let (path, part) = word
        .split_once(':')
        .map_or((word, None), |(path, part)| (path, Some(part)));
    let part = match part {
        None => Some(Part::Image),
        Some(word) => [Part::Name, Part::Tag, Part::Digest]
            .into_iter()
            .find(|part| part.word() == word),
    };
    let names: Vec<&str> = path.split('/').collect();
    match (names.as_slice(), part) {
        ([namespace, canary, container], Some(part))
            if names
                .iter()
                .all(|name| !name.is_empty() && !name.contains(char::is_control)) =>
        {
            Ok((
                CanaryId::new(*namespace, *canary),
                (*container).to_owned(),
                part,
            ))
        }
        _ => Err(format!(
            "the marker {} has to be `# {WORD} <namespace>/<canary>/<container>`, with `:name`, `:tag` or `:digest` at \
             its end where only that part of the image is written",
            quoted(&format!("{WORD} {word}"))
        )),
    }
}

/// The markers of one canary by container, each with the file that it is in.
pub(super) type Marked<'a, F> = BTreeMap<&'a str, BTreeMap<Part, (F, &'a Marker)>>;

/// Sorts markers by container; two of one kind are an error.
pub(super) fn by_container<'a, F: Copy + std::fmt::Display>(
    markers: impl IntoIterator<Item = (F, &'a Marker)>,
) -> Result<Marked<'a, F>, String> {
    let mut sorted: Marked<'a, F> = BTreeMap::new();
    let at = |file: F, marker: &Marker| format!("{file}:{}", marker.place.line);
    for (file, marker) in markers {
        let parts = sorted.entry(&marker.container).or_default();
        let clash = parts.iter().find(|(part, _)| {
            **part == marker.part || **part == Part::Image || marker.part == Part::Image
        });
        if let Some((part, (other, first))) = clash {
            return Err(format!(
                "the {} of the container `{}` is marked at {} and the {} at {}: leave one marker",
                part.word(),
                marker.container,
                at(*other, first),
                marker.part.word(),
                at(file, marker)
            ));
        }
        parts.insert(marker.part, (file, marker));
    }
    Ok(sorted)
}

/// What the markers of a container make of its image.
pub(super) fn marked_image<F>(
    base: &str,
    parts: &BTreeMap<Part, (F, &Marker)>,
) -> Result<String, String> {
    let value = |part: Part| match parts.get(&part) {
        None => Ok(None),
        Some((_, marker)) => match &marker.value {
            Some(value) => Ok(Some(value.as_str())),
            None => Err("is not valid YAML".to_owned()),
        },
    };
    if let Some(image) = value(Part::Image)? {
        return Ok(image.to_owned());
    }
    let base = Image::parse(base);
    let (tag, digest) = (value(Part::Tag)?, value(Part::Digest)?);
    let (tag, digest) = match (tag, digest) {
        (None, None) => (base.tag, base.digest),
        (tag, digest) => (
            tag.filter(|tag| !tag.is_empty()),
            digest.filter(|digest| !digest.is_empty()),
        ),
    };
    Ok(image::joined(
        value(Part::Name)?.unwrap_or(base.name),
        tag,
        digest,
    ))
}

/// What to write at a marker so that the image becomes `wanted`.
pub(super) fn value(wanted: &str, part: Part) -> &str {
    let image = Image::parse(wanted);
    match part {
        Part::Image => wanted,
        Part::Name => image.name,
        Part::Tag => image.tag.unwrap_or_default(),
        Part::Digest => image.digest.unwrap_or_default(),
    }
}

/// Applies markers to the Deployment `manifest`.
pub(super) fn apply<F: Copy + std::fmt::Display>(
    manifest: &mut Value,
    marked: &Marked<'_, F>,
) -> Result<(), String> {
    for (container, parts) in marked {
        let slot = image::slot(manifest, container);
        let Some((file, first)) = parts.values().next() else {
            continue;
        };
        let at = format!("{file}:{}", first.place.line);
        let Some(slot) = slot else {
            return Err(format!(
                "{at} marks the image of a container `{container}`, which the Deployment does not have"
            ));
        };
        let base = slot.as_str().unwrap_or_default();
        let image = marked_image(base, parts).map_err(|problem| {
            format!("{at} marks the image of the container `{container}`, but that file {problem}")
        })?;
        if let Some(problem) = image::problem(&image) {
            return Err(format!(
                "{at} marks the image of the container `{container}`, which becomes {}, but {problem}",
                quoted(&image)
            ));
        }
        *slot = Value::String(image);
    }
    Ok(())
}
