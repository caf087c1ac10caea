//! Images that are set outside of the manifest: in the `images` of kustomizations and behind marker comments.

use serde_json::Value;

use super::super::image::{self, Image, Rewrite};
use super::super::marker::{self, Marker, Part};
use super::super::{Diagnostic, ManagedWorkload, ValidatedCanary, file};
use super::{Work, problem};
use crate::domain::RepoPath;
use crate::yaml::node::{self, Document};
use crate::yaml::{edit, memory};

/// Where the image of a container is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// In the Deployment's own manifest.
    Manifest,
    /// In an entry of `images`.
    Kustomization {
        file: RepoPath,
        /// Which of the entries.
        entry: usize,
        /// The image that it rewrites.
        from: String,
    },
    /// Behind marker comments for this container.
    Marked {
        container: String,
        /// Which parts of it.
        parts: Vec<Part>,
    },
}

/// Where the image of `container`, written in the manifest as `raw`, is set.
pub(super) fn source(
    work: &Work<'_>,
    canary: &ValidatedCanary,
    managed: &ManagedWorkload,
    container: &str,
    raw: Option<&str>,
) -> Result<Source, Diagnostic> {
    let markers = markers(work, canary, managed)?;
    let own = markers.iter().filter(|(_, m)| m.container == container);
    let parts: Vec<Part> = own.map(|(_, marker)| marker.part).collect();
    if !parts.is_empty() {
        let container = container.to_owned();
        return Ok(Source::Marked { container, parts });
    }
    let mut source = Source::Manifest;
    let mut image = raw.unwrap_or_default().to_owned();
    for file in &managed.images.kustomizations {
        let (_, rewrites) = kustomization(work, file)?;
        for (entry, rewrite) in rewrites {
            if let Some(new) = rewrite.apply(&image) {
                let from = std::mem::replace(&mut image, new);
                let file = file.clone();
                source = Source::Kustomization { file, entry, from };
            }
        }
    }
    Ok(source)
}

/// What the manifest says of an image that is set elsewhere: the parts that no marker takes over.
pub(super) fn in_manifest(
    managed: &ManagedWorkload,
    source: &Source,
    raw: Option<&str>,
    wanted: &str,
) -> Option<String> {
    let raw = raw?;
    match source {
        Source::Marked { parts, .. }
            if !parts.contains(&Part::Image) && managed.images.kustomizations.is_empty() =>
        {
            let (old, new) = (Image::parse(raw), Image::parse(wanted));
            let name = if parts.contains(&Part::Name) {
                old
            } else {
                new
            }
            .name;
            let is_tagged = parts.contains(&Part::Tag) || parts.contains(&Part::Digest);
            let version = if is_tagged { old } else { new };
            Some(image::joined(name, version.tag, version.digest))
        }
        Source::Manifest | Source::Kustomization { .. } | Source::Marked { .. } => {
            Some(raw.to_owned())
        }
    }
}

/// Writes `wanted` where the image is set.
pub(super) fn write(
    work: &mut Work<'_>,
    canary: &ValidatedCanary,
    managed: &ManagedWorkload,
    source: &Source,
    wanted: &str,
) -> Result<(), Diagnostic> {
    match source {
        Source::Manifest => Ok(()),
        Source::Kustomization { file, entry, from } => {
            write_entry(work, managed, (file, *entry), from, wanted)
        }
        Source::Marked { container, .. } => write_marked(work, canary, managed, container, wanted),
    }
}

/// The manifest as it takes effect.
pub(super) fn effective(
    work: &Work<'_>,
    canary: &ValidatedCanary,
    managed: &ManagedWorkload,
    mut manifest: Value,
) -> Result<Value, Diagnostic> {
    for file in &managed.images.kustomizations {
        let (_, rewrites) = kustomization(work, file)?;
        let rewrites: Vec<Rewrite> = rewrites.into_iter().map(|(_, rewrite)| rewrite).collect();
        image::rewrite(&mut manifest, &rewrites);
    }
    let markers = markers(work, canary, managed)?;
    let borrowed = markers.iter().map(|(file, marker)| (*file, marker));
    marker::by_container(borrowed)
        .and_then(|marked| marker::apply(&mut manifest, &marked))
        .map_err(|message| problem(&managed.file, 1, message))?;
    Ok(manifest)
}

/// The entries of `images`, each with its position in the list, and the document that holds them.
fn kustomization(
    work: &Work<'_>,
    file: &RepoPath,
) -> Result<(Document, Vec<(usize, Rewrite)>), Diagnostic> {
    let reading = memory::read(work.content(file)?);
    // The last one counts, as in reading.
    let document = reading.parsed.documents.iter().rfind(|document| {
        let kind = document.root.get("kind").and_then(node::Node::as_str);
        matches!(kind, None | Some("" | "Kustomization" | "Component"))
    });
    let document = document
        .cloned()
        .ok_or_else(|| problem(file, 1, "the kustomization is gone".to_owned()))?;
    let images = document
        .root
        .get("images")
        .map_or(&[][..], node::Node::items);
    let entries = images.iter().enumerate();
    let rewrites = entries
        .filter_map(|(at, entry)| Some((at, file::rewrite(entry)?)))
        .collect();
    Ok((document, rewrites))
}

fn write_entry(
    work: &mut Work<'_>,
    managed: &ManagedWorkload,
    (file, entry): (&RepoPath, usize),
    from: &str,
    wanted: &str,
) -> Result<(), Diagnostic> {
    let name = Image::parse(from).name;
    if let Some(other) = managed.images.shared.get(&(file.clone(), name.to_owned())) {
        return Err(problem(
            file,
            1,
            format!(
                "the entry of `images` for `{name}` also sets the image of the Deployment `{other}`, which would follow \
                 without a ladder of its own: promote by hand, or give the two their own entries"
            ),
        ));
    }
    let (document, _) = kustomization(work, file)?;
    let mut images = document
        .root
        .get("images")
        .map(node::Node::to_json)
        .unwrap_or_default();
    let parts = Image::parse(wanted);
    let fields = images
        .get_mut(entry)
        .and_then(Value::as_object_mut)
        .ok_or_else(|| problem(file, 1, "the entry of `images` is gone".to_owned()))?;
    let own_name = fields.get("name").and_then(Value::as_str);
    if own_name != Some(parts.name) || fields.contains_key("newName") {
        fields.insert("newName".to_owned(), Value::from(parts.name));
    }
    for (field, value) in [("newTag", parts.tag), ("digest", parts.digest)] {
        match value {
            Some(value) => {
                fields.insert(field.to_owned(), Value::from(value));
            }
            None => {
                fields.remove(field);
            }
        }
    }
    work.rewrite(file, document.index, &["images"], &images)
}

fn markers<'m>(
    work: &Work<'_>,
    canary: &ValidatedCanary,
    managed: &'m ManagedWorkload,
) -> Result<Vec<(&'m RepoPath, Marker)>, Diagnostic> {
    let mut found = Vec::new();
    for file in &managed.images.marked {
        let content = work.content(file)?;
        let (markers, _) = marker::find(content, &memory::read(content).parsed);
        let own = markers.into_iter().filter(|m| m.canary == canary.id);
        found.extend(own.map(|marker| (file, marker)));
    }
    Ok(found)
}

fn write_marked(
    work: &mut Work<'_>,
    canary: &ValidatedCanary,
    managed: &ManagedWorkload,
    container: &str,
    wanted: &str,
) -> Result<(), Diagnostic> {
    for part in [Part::Image, Part::Name, Part::Tag, Part::Digest] {
        // Found anew each time: what was written before moved what follows.
        let markers = markers(work, canary, managed)?;
        let mut here = markers.iter();
        let here = here.find(|(_, m)| m.container == container && m.part == part);
        let Some((file, marker)) = here else { continue };
        let value = marker::value(wanted, part);
        if marker.value.as_deref() == Some(value) {
            continue;
        }
        let edited =
            edit::replace_scalar(work.content(file)?, marker.document, marker.start, value);
        work.keep(file, edited)?;
    }
    Ok(())
}
